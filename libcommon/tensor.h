/* tensor - a named view of typed values in row-major order; it owns nothing unless its holder says so */
#ifndef LLMC_TENSOR_H
#define LLMC_TENSOR_H

#include "dtype.h"

enum { TENSOR_DIMS_MAX = 8 };

struct tensor {
    const char *name;
    enum dtype  dtype;
    int         ndim;
    int64_t     shape[TENSOR_DIMS_MAX];
    const void *data;  /* may be unaligned when it points into a mapped file */
    size_t      bytes; /* product of shape times dtype_size */
};

/* Fills a view; bytes is computed. Shapes beyond ndim are ignored. */
struct tensor tensor_2d(const char *name, enum dtype t, int64_t rows, int64_t cols, const void *data);
struct tensor tensor_1d(const char *name, enum dtype t, int64_t n, const void *data);

/* RC_OK, or RC_DATA with "NAME is F32 [3, 4], want BF16 [*, 64]"; a wanted dim of -1 matches any, DT_NONE any type. */
int tensor_want(const struct tensor *t, enum dtype dtype, int ndim, const int64_t *shape);

/* "[3, 4]" into out; returns out. */
char *tensor_shape_text(const struct tensor *t, char *out, size_t size);

#endif
