#include "scale.h"

#include "scale_impl.h"
#include "scale_of.h"

#include <math.h>

enum { LANES = 16 }; /* partial extremes, so that the loop is a vector one without relaxed arithmetic */

/* Part of a matrix that shares one scale. */
struct region {
    const float *w;
    size_t       ld;
    int          rows, cols;
    const float *diag; /* of its columns, or NULL */
};

struct extremes
scale_extremes(const float *w, size_t count)
{
    float lo[LANES] = { 0 }, hi[LANES] = { 0 };
    struct extremes x = { 0, 0 };
    size_t i = 0;

    for (; i + LANES <= count; i += LANES) {
        for (int j = 0; j < LANES; j++) {
            lo[j] = w[i + (size_t)j] < lo[j] ? w[i + (size_t)j] : lo[j];
            hi[j] = w[i + (size_t)j] > hi[j] ? w[i + (size_t)j] : hi[j];
        }
    }
    for (; i < count; i++) {
        lo[0] = w[i] < lo[0] ? w[i] : lo[0];
        hi[0] = w[i] > hi[0] ? w[i] : hi[0];
    }
    for (int j = 0; j < LANES; j++)
        x = scale_merge(x, (struct extremes){ lo[j], hi[j] });
    return x;
}

struct extremes
scale_merge(struct extremes a, struct extremes b)
{
    a.min = b.min < a.min ? b.min : a.min;
    a.max = b.max > a.max ? b.max : a.max;
    return a;
}

static float
absmax_of(struct extremes x)
{
    return -x.min > x.max ? -x.min : x.max;
}

float
scale_absmax(const float *w, size_t count)
{
    return absmax_of(scale_extremes(w, count));
}

/* 2688 = 448 * 6: the largest scale times the largest element. */
float
scale_global(float absmax, enum dtype t)
{
    float gs = rt(rt(1.0f / absmax, t) * 2688.0f, t);

    return isfinite(gs) && gs > 0 ? gs : 1.0f;
}

void
scale_of_extremes(const struct qspec *spec, struct extremes x, float global_scale, float *scale, int8_t *zero)
{
    scale_of_range(spec, x.min, x.max, global_scale, scale, zero);
}

static struct extremes
region_extremes(const struct region *r)
{
    struct extremes x = { 0, 0 };

    for (int i = 0; i < r->rows; i++)
        x = scale_merge(x, scale_extremes(r->w + (size_t)i * r->ld, (size_t)r->cols));
    return x;
}

static struct extremes
scaled(struct extremes x, float factor)
{
    return (struct extremes){ x.min * factor, x.max * factor };
}

void
scale_errors(const struct qspec *spec, const float *w, const float *diag, int n, double norm,
    struct candidate_scale *c, int count)
{
    errors_of(spec, w, diag, n, norm, c, count);
}

/* Candidates whose stored scale and zero point are those of the one before are left out. */
static int
list_candidates(const struct qspec *spec, const struct scale_opts *o, struct extremes x, float global_scale,
    struct candidate_scale *c)
{
    float last_scale = -1, last_zero = 0;
    int count = 0;

    for (int i = 0; i <= o->steps; i++) {
        float factor = scale_factor(o->lo, o->hi, o->steps, i);
        struct candidate_scale *k = &c[count];
        int8_t zero = 0;

        scale_of_extremes(spec, scaled(x, factor), global_scale, &k->scale, &zero);
        k->zero = (float)zero;
        if (!(k->scale < INFINITY) || (k->scale == last_scale && k->zero == last_zero))
            continue;
        k->step = q_step(spec, q_in_t(spec) ? rt(k->scale, spec->t) : k->scale, global_scale);
        k->factor = factor;
        k->error = 0;
        last_scale = k->scale;
        last_zero = k->zero;
        count++;
    }
    return count;
}

static struct extremes
search(const struct qspec *spec, const struct scale_opts *o, const struct region *r, struct extremes x,
    float global_scale)
{
    struct candidate_scale c[SCALE_STEPS_MAX + 1];
    int count = list_candidates(spec, o, x, global_scale, c);
    float least = INFINITY, factor = 1;

    for (int i = 0; i < r->rows; i++)
        (o->errors != NULL ? o->errors : scale_errors)(spec, r->w + (size_t)i * r->ld, r->diag, r->cols, o->norm, c,
            count);
    for (int i = 0; i < count; i++) {
        if (c[i].error < least) {
            least = c[i].error;
            factor = c[i].factor;
        }
    }
    return scaled(x, factor);
}

void
scale_rows(const struct qspec *spec, const struct scale_opts *opts, const float *w, int rows, int cols,
    float global_scale, float *scale, int8_t *zero)
{
    int nr = q_scale_rows(spec, rows), nc = q_scale_cols(spec, cols), width = nc > 1 ? spec->group : cols;
    int height = spec->strategy == STRATEGY_BLOCK ? spec->block_rows : spec->strategy == STRATEGY_TENSOR ? rows : 1;
    struct region r = { .ld = (size_t)cols };

    for (int i = 0; i < nr; i++) {
        for (int j = 0; j < nc; j++) {
            size_t k = (size_t)i * (size_t)nc + (size_t)j;
            struct extremes x;

            r.w = w + (size_t)i * (size_t)height * r.ld + (size_t)j * (size_t)width;
            r.rows = rows - i * height < height ? rows - i * height : height;
            r.cols = cols - j * width < width ? cols - j * width : width;
            r.diag = opts != NULL && opts->diag != NULL ? opts->diag + (size_t)j * (size_t)width : NULL;
            x = region_extremes(&r);
            if (opts != NULL && opts->observer == OBSERVER_SEARCH)
                x = search(spec, opts, &r, x, global_scale);
            scale_of_extremes(spec, x, global_scale, scale + k, spec->symmetric ? NULL : zero + k);
        }
    }
}

void
scale_store(const struct qspec *spec, float *scale, size_t count)
{
    for (size_t i = 0; q_in_t(spec) && i < count; i++)
        scale[i] = rt(scale[i], spec->t);
}
