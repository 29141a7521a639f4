#include "dtype.h"
#include "../kernels/quant.h"

#include <string.h>

static const struct {
    const char *name, *torch;
    size_t      size;
} types[DT_COUNT] = {
    [DT_NONE]    = { "none", NULL, 0 },
    [DT_BOOL]    = { "BOOL", NULL, 1 },
    [DT_U8]      = { "U8", NULL, 1 },
    [DT_I8]      = { "I8", NULL, 1 },
    [DT_F8_E4M3] = { "F8_E4M3", "float8_e4m3fn", 1 },
    [DT_F8_E5M2] = { "F8_E5M2", "float8_e5m2", 1 },
    [DT_F8_E8M0] = { "F8_E8M0", "float8_e8m0fnu", 1 },
    [DT_I16]     = { "I16", NULL, 2 },
    [DT_U16]     = { "U16", NULL, 2 },
    [DT_F16]     = { "F16", "float16", 2 },
    [DT_BF16]    = { "BF16", "bfloat16", 2 },
    [DT_I32]     = { "I32", NULL, 4 },
    [DT_U32]     = { "U32", NULL, 4 },
    [DT_F32]     = { "F32", "float32", 4 },
    [DT_F64]     = { "F64", "float64", 8 },
    [DT_I64]     = { "I64", NULL, 8 },
    [DT_U64]     = { "U64", NULL, 8 },
};

size_t
dtype_size(enum dtype t)
{
    return types[t].size;
}

const char *
dtype_name(enum dtype t)
{
    return types[t].name;
}

const char *
dtype_torch(enum dtype t)
{
    return types[t].torch;
}

enum dtype
dtype_find(const char *name)
{
    for (int i = DT_NONE + 1; i < DT_COUNT; i++)
        if (strcmp(name, types[i].name) == 0 || (types[i].torch != NULL && strcmp(name, types[i].torch) == 0))
            return (enum dtype)i;
    return DT_NONE;
}

/* memcpy of each element, since rows of a mapped file need not be aligned. */
bool
dtype_finite(const float *x, size_t count)
{
    uint32_t bad = 0, bits;

    for (size_t i = 0; i < count; i++) {
        memcpy(&bits, x + i, sizeof(bits));
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}

int
dtype_to_f32(float *dst, const void *src, enum dtype t, size_t count)
{
    const uint8_t *s = src;
    uint16_t h;
    double d;

    switch (t) {
    case DT_BF16:
        for (size_t i = 0; i < count; i++) {
            memcpy(&h, s + 2 * i, 2);
            dst[i] = bf16_to_f32(h);
        }
        return 1;
    case DT_F16:
        for (size_t i = 0; i < count; i++) {
            memcpy(&h, s + 2 * i, 2);
            dst[i] = f16_to_f32(h);
        }
        return 1;
    case DT_F32:
        memcpy(dst, src, 4 * count);
        return 1;
    case DT_F8_E4M3:
        for (size_t i = 0; i < count; i++)
            dst[i] = e4m3_to_f32(s[i]);
        return 1;
    case DT_F64:
        for (size_t i = 0; i < count; i++) {
            memcpy(&d, s + 8 * i, 8);
            dst[i] = (float)d;
        }
        return 1;
    default:
        return 0;
    }
}

int
dtype_from_f32(void *dst, const float *src, enum dtype t, size_t count)
{
    uint8_t *p = dst;
    uint16_t h;
    double d;

    switch (t) {
    case DT_BF16:
        for (size_t i = 0; i < count; i++) {
            h = bf16_from_f32(src[i]);
            memcpy(p + 2 * i, &h, 2);
        }
        return 1;
    case DT_F16:
        for (size_t i = 0; i < count; i++) {
            h = f16_from_f32(src[i]);
            memcpy(p + 2 * i, &h, 2);
        }
        return 1;
    case DT_F32:
        memcpy(dst, src, 4 * count);
        return 1;
    case DT_F64:
        for (size_t i = 0; i < count; i++) {
            d = src[i];
            memcpy(p + 8 * i, &d, 8);
        }
        return 1;
    default:
        return 0;
    }
}
