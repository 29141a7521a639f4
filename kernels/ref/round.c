/* ref/round - rounding of activations in plain loops
 *
 * The arithmetic is that of weights, on rows of activations: compressed-tensors has one function for both. Scales are
 * those of kernels/scale.h in the type of activations, values those of plain rounding (q_round) and of inference
 * (q_dequant) in kernels/quant.h.
 */
#include "round.h"

#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../scale.h"

#include <math.h>

int
ref_range(struct dev *dev, float *range, const void *x, enum dtype dt, int rows, int n, int parts)
{
    float *row = mem_alloc((size_t)n, sizeof(*row));
    int width = n / parts, rc = row != NULL ? RC_OK : RC_OS;

    (void)dev;
    for (int r = 0; r < rows && rc == RC_OK; r++) {
        (void)dtype_to_f32(row, (const char *)x + (size_t)r * (size_t)n * dtype_size(dt), dt, (size_t)n);
        for (int i = 0; i < n && rc == RC_OK; i++) {
            float *to = range + 2 * (i / width);

            if (!isfinite(row[i]))
                rc = err_set(RC_NUMERIC, "a value is not finite");
            to[0] = -row[i] > to[0] ? -row[i] : to[0];
            to[1] = row[i] > to[1] ? row[i] : to[1];
        }
    }
    mem_free(row);
    return rc;
}

/* One part of a row, n values that share a scale. */
static void
round_part(const struct qspec *s, float *x, int n, float step, float zero)
{
    for (int i = 0; i < n; i++)
        x[i] = q_dequant(s, q_round(s, x[i], step, zero), step, zero);
}

static void
round_row(const struct rounding *r, float *x, int n)
{
    int width = !r->dynamic ? n / r->parts : q_scale_cols(&r->spec, n) > 1 ? r->spec.group : n;

    for (int c = 0; c < n; c += width) {
        int k = c / width, w = n - c < width ? n - c : width;
        float scale = 1;
        int8_t zero = 0;

        if (r->dynamic) {
            scale_of_extremes(&r->spec, scale_extremes(x + c, (size_t)w), r->global_scale, &scale, &zero);
        } else {
            scale = r->scale[k];
            zero = r->zero != NULL ? r->zero[k] : 0;
        }
        round_part(&r->spec, x + c, w, q_step(&r->spec, scale, r->global_scale), (float)zero);
    }
}

/* One scale of all rows, then as if it were static. */
static int
round_tensor(struct dev *dev, void *y, const void *x, enum dtype dt, int rows, int n, struct rounding r)
{
    float range[2] = { 0, 0 }, scale;
    int8_t zero = 0;
    int rc = ref_range(dev, range, x, dt, rows, n, 1);

    if (rc != RC_OK)
        return rc;
    scale_of_extremes(&r.spec, (struct extremes){ -range[0], range[1] }, r.global_scale, &scale, &zero);
    r.dynamic = false;
    r.parts = 1;
    r.scale = &scale;
    r.zero = r.spec.symmetric ? NULL : &zero;
    return ref_round_act(dev, y, x, dt, rows, n, &r);
}

int
ref_round_act(struct dev *dev, void *y, const void *x, enum dtype dt, int rows, int n, const struct rounding *r)
{
    size_t bytes = (size_t)n * dtype_size(dt);
    float *row;
    int rc = RC_OK;

    if (r->dynamic && r->spec.strategy == STRATEGY_TENSOR)
        return round_tensor(dev, y, x, dt, rows, n, *r);
    if ((row = mem_alloc((size_t)n, sizeof(*row))) == NULL)
        return RC_OS;
    for (int i = 0; i < rows && rc == RC_OK; i++) {
        (void)dtype_to_f32(row, (const char *)x + (size_t)i * bytes, dt, (size_t)n);
        for (int c = 0; c < n && rc == RC_OK; c++)
            if (!isfinite(row[c]))
                rc = err_set(RC_NUMERIC, "a value is not finite");
        if (rc == RC_OK)
            round_row(r, row, n);
        (void)dtype_from_f32((char *)y + (size_t)i * bytes, row, dt, (size_t)n);
    }
    mem_free(row);
    return rc;
}
