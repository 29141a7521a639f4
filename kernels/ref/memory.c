/* memory - of ref, which has none of its own; rows picked and added */
#include "memory.h"

#include "../../libcommon/msg.h"
#include "../quant.h"

#include <string.h>

void *
ref_alloc(struct dev *dev, size_t bytes)
{
    (void)dev;
    (void)bytes;
    return NULL;
}

bool
ref_release(struct dev *dev, void *p)
{
    (void)dev;
    (void)p;
    return false;
}

bool
ref_holds(struct dev *dev, const void *p)
{
    (void)dev;
    (void)p;
    return false;
}

bool
ref_weight_fits(struct dev *dev, size_t bytes)
{
    (void)dev;
    (void)bytes;
    return false;
}

int
ref_copy(struct dev *dev, void *to, size_t to_stride, const void *from, size_t from_stride, size_t width, int rows)
{
    (void)dev;
    for (size_t r = 0; r < (size_t)rows; r++)
        memcpy((char *)to + r * to_stride, (const char *)from + r * from_stride, width);
    return RC_OK;
}

int
ref_zero(struct dev *dev, void *p, size_t bytes)
{
    (void)dev;
    memset(p, 0, bytes);
    return RC_OK;
}

static const char *const no_device = "this backend has no device memory";

int
ref_share_make(struct dev *dev, struct share **out, void *note, size_t note_bytes, size_t bytes, int slots)
{
    (void)dev, (void)note, (void)note_bytes, (void)bytes, (void)slots;
    *out = NULL;
    return err_set(RC_UNAVAILABLE, "%s", no_device);
}

int
ref_share_open(struct dev *dev, struct share **out, const void *note, size_t note_bytes, size_t bytes, int slots)
{
    (void)dev, (void)note, (void)note_bytes, (void)bytes, (void)slots;
    *out = NULL;
    return err_set(RC_UNAVAILABLE, "%s", no_device);
}

int
ref_share_put(struct dev *dev, struct share *s, int slot, size_t at, const void *x, size_t bytes, bool last)
{
    (void)dev, (void)s, (void)slot, (void)at, (void)x, (void)bytes, (void)last;
    return err_set(RC_BUG, "%s", no_device);
}

int
ref_share_get(struct dev *dev, struct share *s, int slot, const void **x)
{
    (void)dev, (void)s, (void)slot;
    *x = NULL;
    return err_set(RC_BUG, "%s", no_device);
}

void
ref_share_close(struct dev *dev, struct share *s)
{
    (void)dev, (void)s;
}

int
ref_gather(struct dev *dev, void *y, const void *x, const int *rows, int count, enum dtype dt, int n)
{
    size_t bytes = (size_t)n * dtype_size(dt);

    (void)dev;
    for (int i = 0; i < count; i++)
        memcpy((char *)y + (size_t)i * bytes, (const char *)x + (size_t)rows[i] * bytes, bytes);
    return RC_OK;
}

static void
add_row(char *x, float weight, const char *y, enum dtype dt, int n)
{
    float s[256], v[256];

    for (int i = 0; i < n; i += 256) {
        size_t count = (size_t)(n - i < 256 ? n - i : 256), at = (size_t)i * dtype_size(dt);

        (void)dtype_to_f32(s, x + at, dt, count);
        (void)dtype_to_f32(v, y + at, dt, count);
        for (size_t k = 0; k < count; k++)
            s[k] += rt(weight * v[k], dt);
        (void)dtype_from_f32(x + at, s, dt, count);
    }
}

int
ref_add_rows(struct dev *dev, void *x, const int *rows, const float *weights, const void *y, int count,
    enum dtype dt, int n)
{
    size_t bytes = (size_t)n * dtype_size(dt);

    (void)dev;
    for (int i = 0; i < count; i++)
        add_row((char *)x + (size_t)(rows != NULL ? rows[i] : i) * bytes, weights[i],
            (const char *)y + (size_t)i * bytes, dt, n);
    return RC_OK;
}
