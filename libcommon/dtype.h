/* dtype - the storage types of safetensors, one row each, and conversion of rows to and from f32 */
#ifndef LLMC_DTYPE_H
#define LLMC_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dtype {
    DT_NONE, DT_BOOL, DT_U8, DT_I8, DT_F8_E4M3, DT_F8_E5M2, DT_F8_E8M0, DT_I16, DT_U16, DT_F16, DT_BF16,
    DT_I32, DT_U32, DT_F32, DT_F64, DT_I64, DT_U64, DT_COUNT
};

size_t      dtype_size(enum dtype t);  /* bytes an element */
const char *dtype_name(enum dtype t);  /* safetensors spelling */
const char *dtype_torch(enum dtype t); /* "bfloat16"; NULL where torch has no float of that kind */
enum dtype  dtype_find(const char *name); /* either spelling; DT_NONE: unknown */

/* F16, BF16, F32, F8_E4M3 (to_f32 only) and F64; count elements. False: no such conversion. Rounds half to even. */
int dtype_to_f32(float *dst, const void *src, enum dtype t, size_t count);
int dtype_from_f32(void *dst, const float *src, enum dtype t, size_t count);
bool dtype_finite(const float *x, size_t count); /* no value is infinite or NaN */

#endif
