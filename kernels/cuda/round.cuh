/* round - extremes of activations, their rounding, and the choice of scales of weights: kernels/scale.h, quant.h
 *
 * Maxima do not depend on order and roundings are quant.h's, so these give the bytes of ref and cpu.
 */
#ifndef LLMC_CUDA_ROUND_CUH
#define LLMC_CUDA_ROUND_CUH

#include "ops.cuh"

struct extent {
    float lo, hi, bad; /* -min, max, NaN if a value is not finite */
};

HD static inline void
extent_add(struct extent *e, float v)
{
    e->lo = -v > e->lo ? -v : e->lo;
    e->hi = v > e->hi ? v : e->hi;
    e->bad += v * 0.0f;
}

HD static inline struct extent
extent_join(const struct extent *e, int count)
{
    struct extent x = e[0];

    for (int i = 1; i < count; i++) {
        x.lo = e[i].lo > x.lo ? e[i].lo : x.lo;
        x.hi = e[i].hi > x.hi ? e[i].hi : x.hi;
        x.bad += e[i].bad;
    }
    return x;
}

/* A block takes ROWS rows of one part of the columns: g.y. */
struct range_kernel {
    enum { THREADS = 128, ROWS = 32 };

    struct args {
        float      *range; /* [parts][2] */
        float      *bad;   /* raised to 1 if a value is not finite */
        const void *x;
        enum dtype  dt;
        int         rows, n, parts;
    };
    struct shared {
        struct extent e[THREADS];
    };
    typedef nothing regs;

    HD static struct extent
    strided(const args &a, int block, int part, int t)
    {
        struct extent e = { 0, 0, 0 };
        size_t width = (size_t)(a.n / a.parts), left = (size_t)(a.rows - block * ROWS);
        size_t count = (left < ROWS ? left : (size_t)ROWS) * width;

        for (size_t i = (size_t)t; i < count; i += THREADS) {
            size_t row = (size_t)block * ROWS + i / width;

            extent_add(&e, act_get(a.x, a.dt, row * (size_t)a.n + (size_t)part * width + i % width));
        }
        return e;
    }

    DEV static void
    run(team<regs> &g, shared &s, const args &a)
    {
        g.each([&](int t, regs &) { s.e[t] = strided(a, g.x, g.y, t); });
        g.each([&](int t, regs &) {
            if (t == 0) {
                struct extent e = extent_join(s.e, THREADS);

                raise_to(a.range + 2 * g.y, e.lo);
                raise_to(a.range + 2 * g.y + 1, e.hi);
                if (!(e.bad == 0.0f))
                    raise_to(a.bad, 1);
            }
        });
    }
};

/* share threads take one part of a row, the values that have one scale: 1 for narrow parts, else all of a block. */
struct act_round_kernel {
    enum { THREADS = 128 };

    struct args {
        void         *y;
        const void   *x; /* y may be x */
        float        *bad;
        const float  *scale; /* [parts], or NULL: from the values */
        const int8_t *zero;
        struct qspec  spec;
        float         global_scale;
        enum dtype    dt;
        int           rows, n, width, parts, share;
    };
    struct shared {
        struct extent e[THREADS];
    };
    typedef nothing regs;

    /* Where the part of thread t begins, and its columns; 0: it has none. */
    HD static int
    part_of(const args &a, int block, int t, size_t *at, int *part)
    {
        size_t k = ((size_t)block * THREADS + (size_t)t) / (size_t)a.share, row = k / (size_t)a.parts;

        if (row >= (size_t)a.rows)
            return 0;
        *part = (int)(k % (size_t)a.parts);
        *at = row * (size_t)a.n + (size_t)*part * (size_t)a.width;
        return a.n - *part * a.width < a.width ? a.n - *part * a.width : a.width;
    }

    HD static struct extent
    measure(const args &a, int block, int t)
    {
        struct extent e = { 0, 0, 0 };
        size_t at = 0;
        int part = 0, width = part_of(a, block, t, &at, &part);

        for (int i = t % a.share; i < width; i += a.share)
            extent_add(&e, act_get(a.x, a.dt, at + (size_t)i));
        return e;
    }

    DEV static void
    apply(const args &a, int block, int t, const struct extent &e)
    {
        size_t at = 0;
        int part = 0, width = part_of(a, block, t, &at, &part);
        float scale = 1, step, z;
        int8_t zero = 0;

        if (width > 0 && !(e.bad == 0.0f))
            raise_to(a.bad, 1);
        if (width == 0)
            return;
        if (a.scale == NULL) {
            scale_of_range(&a.spec, -e.lo, e.hi, a.global_scale, &scale, &zero);
        } else {
            scale = a.scale[part];
            zero = a.zero != NULL ? a.zero[part] : (int8_t)0;
        }
        step = q_step(&a.spec, scale, a.global_scale);
        z = (float)zero;
        for (int i = t % a.share; i < width; i += a.share)
            act_put(a.y, a.dt, at + (size_t)i,
                q_dequant(&a.spec, q_round(&a.spec, act_get(a.x, a.dt, at + (size_t)i), step, z), step, z));
    }

    DEV static void
    run(team<regs> &g, shared &s, const args &a)
    {
        g.each([&](int t, regs &) { s.e[t] = measure(a, g.x, t); });
        g.each([&](int t, regs &) { apply(a, g.x, t, extent_join(s.e + t / a.share * a.share, a.share)); });
    }
};

/* A block a region. A thread tries every THREADS-th candidate on all of it; of equal errors the first wins. */
struct scales_kernel {
    enum { THREADS = 128 };

    struct args {
        struct qspec spec;
        const float *w, *diag; /* [rows, cols]; [cols] or NULL */
        int          rows, cols, height, width, region_cols; /* regions across */
        float        global_scale, lo, hi;
        double       norm;
        int          steps; /* -1: extremes as they are */
        float       *scale;
        int8_t      *zero;  /* or NULL */
    };
    struct shared {
        struct extent e[THREADS];
        float         error[THREADS];
        int           at[THREADS];
    };
    typedef nothing regs;

    struct region {
        size_t at;
        int    col, rows, cols;
    };

    HD static region
    region_of(const args &a, int block)
    {
        int i = block / a.region_cols, j = block % a.region_cols;
        region r;

        r.col = j * a.width;
        r.at = (size_t)i * (size_t)a.height * (size_t)a.cols + (size_t)r.col;
        r.rows = a.rows - i * a.height < a.height ? a.rows - i * a.height : a.height;
        r.cols = a.cols - r.col < a.width ? a.cols - r.col : a.width;
        return r;
    }

    HD static struct extent
    strided(const args &a, const region &r, int t)
    {
        struct extent e = { 0, 0, 0 };
        size_t count = (size_t)r.rows * (size_t)r.cols;

        for (size_t i = (size_t)t; i < count; i += THREADS)
            extent_add(&e, a.w[r.at + i / (size_t)r.cols * (size_t)a.cols + i % (size_t)r.cols]);
        return e;
    }

    HD static float
    row_error(const args &a, const float *w, const float *diag, int n, float step, float zero)
    {
        float sum[SCALE_LANES] = { 0 }, inverse = 1.0f / step, total = 0;

        for (int i = 0; i < n; i += SCALE_LANES)
            UNROLL
            for (int j = 0; j < SCALE_LANES; j++)
                if (i + j < n)
                    sum[j] += scale_power(scale_error(&a.spec, w[i + j], inverse, step, zero),
                        diag != NULL ? diag[i + j] : 1.0f, a.norm);
        UNROLL
        for (int j = 0; j < SCALE_LANES; j++)
            total += sum[j];
        return total;
    }

    /* Of one candidate; infinite where there is no such scale. */
    HD static float
    error_of(const args &a, const region &r, const struct extent &e, int k)
    {
        float factor = scale_factor(a.lo, a.hi, a.steps, k), scale, step, error = 0;
        int8_t zero = 0;

        scale_of_range(&a.spec, -e.lo * factor, e.hi * factor, a.global_scale, &scale, &zero);
        if (!(scale < INFINITY))
            return INFINITY;
        step = q_step(&a.spec, q_in_t(&a.spec) ? rt(scale, a.spec.t) : scale, a.global_scale);
        for (int i = 0; i < r.rows; i++)
            error += row_error(a, a.w + r.at + (size_t)i * (size_t)a.cols, a.diag != NULL ? a.diag + r.col : NULL,
                r.cols, step, (float)zero);
        return error;
    }

    HD static void
    best_of_thread(const args &a, shared &s, const region &r, const struct extent &e, int t)
    {
        s.error[t] = INFINITY;
        s.at[t] = 0;
        for (int k = t; k <= a.steps; k += THREADS) {
            float x = error_of(a, r, e, k);

            if (x < s.error[t]) {
                s.error[t] = x;
                s.at[t] = k;
            }
        }
    }

    HD static void
    finish(const args &a, const shared &s, const struct extent &e, int block)
    {
        float factor = 1, least = INFINITY;
        int at = 0;
        int8_t zero = 0;

        for (int t = 0; a.steps >= 0 && t < THREADS; t++)
            if (s.error[t] < least || (s.error[t] == least && s.at[t] < at)) {
                least = s.error[t];
                at = s.at[t];
            }
        if (a.steps >= 0 && least < INFINITY)
            factor = scale_factor(a.lo, a.hi, a.steps, at);
        scale_of_range(&a.spec, -e.lo * factor, e.hi * factor, a.global_scale, a.scale + block, &zero);
        if (a.zero != NULL)
            a.zero[block] = zero;
    }

    DEV static void
    run(team<regs> &g, shared &s, const args &a)
    {
        region r = region_of(a, g.x);

        g.each([&](int t, regs &) { s.e[t] = strided(a, r, t); });
        g.each([&](int t, regs &) { best_of_thread(a, s, r, extent_join(s.e, THREADS), t); });
        g.each([&](int t, regs &) {
            if (t == 0)
                finish(a, s, extent_join(s.e, THREADS), g.x);
        });
    }
};

#endif
