/* tensor - a named view of typed values in row-major order */
#include "tensor.h"

#include "msg.h"

#include <stdio.h>
#include <string.h>

enum { SHAPE_TEXT_MAX = 256 };

struct tensor
tensor_2d(const char *name, enum dtype t, int64_t rows, int64_t cols, const void *data)
{
    return (struct tensor){
        .name = name, .dtype = t, .ndim = 2, .shape = { rows, cols }, .data = data,
        .bytes = (size_t)rows * (size_t)cols * dtype_size(t),
    };
}

struct tensor
tensor_1d(const char *name, enum dtype t, int64_t n, const void *data)
{
    return (struct tensor){
        .name = name, .dtype = t, .ndim = 1, .shape = { n }, .data = data, .bytes = (size_t)n * dtype_size(t),
    };
}

static char *
shape_text(int ndim, const int64_t *shape, char *out, size_t size)
{
    size_t len = (size_t)snprintf(out, size, "[");

    for (int i = 0; i < ndim && len < size; i++) {
        if (shape[i] < 0)
            len += (size_t)snprintf(out + len, size - len, "%s*", i > 0 ? ", " : "");
        else
            len += (size_t)snprintf(out + len, size - len, "%s%lld", i > 0 ? ", " : "", (long long)shape[i]);
    }
    if (len < size)
        (void)snprintf(out + len, size - len, "]");
    return out;
}

char *
tensor_shape_text(const struct tensor *t, char *out, size_t size)
{
    return shape_text(t->ndim, t->shape, out, size);
}

int
tensor_want(const struct tensor *t, enum dtype dtype, int ndim, const int64_t *shape)
{
    char have[SHAPE_TEXT_MAX], want[SHAPE_TEXT_MAX];
    bool same = (dtype == DT_NONE || t->dtype == dtype) && t->ndim == ndim;

    for (int i = 0; same && i < ndim; i++)
        same = shape[i] < 0 || t->shape[i] == shape[i];
    if (same)
        return RC_OK;
    return err_set(RC_DATA, "%s is %s %s, want %s%s%s", t->name, dtype_name(t->dtype),
        shape_text(t->ndim, t->shape, have, sizeof(have)), dtype == DT_NONE ? "" : dtype_name(dtype),
        dtype == DT_NONE ? "" : " ", shape_text(ndim, shape, want, sizeof(want)));
}
