/* ops - element by element, RMSNorm, RoPE, negative log likelihood: the arithmetic and order of kernels/cpu/ops_impl.h
 *
 * The same bytes as the cpu backend, but for tanh, erf and log, which are each library's own.
 */
#ifndef LLMC_CUDA_OPS_CUH
#define LLMC_CUDA_OPS_CUH

#include "c.h"
#include "team.cuh"

enum map_op { MAP_ADD, MAP_SCALE, MAP_ACT_MUL, MAP_CONVERT, MAP_SPREAD };

struct nothing {
    char none;
};

/* Any float type of a checkpoint. */
HD static inline float
any_get(const void *p, enum dtype dt, size_t i)
{
    return dt == DT_BF16 ? bf16_to_f32(((const uint16_t *)p)[i]) : dt == DT_F16 ? f16_to_f32(((const uint16_t *)p)[i])
         : dt == DT_F8_E4M3 ? e4m3_to_f32(((const uint8_t *)p)[i]) : ((const float *)p)[i];
}

HD static inline float
act_of(float x, enum act act)
{
    if (act == ACT_SILU)
        return silu_f(x);
    if (act == ACT_GELU_TANH)
        return x / (1.0f + exp_f(-(1.59576912f * (x + 0.044715f * x * x * x))));
    return 0.5f * x * (1.0f + erff(x * 0.70710678f));
}

struct map_kernel {
    enum { THREADS = 256 };

    struct args {
        enum map_op op;
        void       *y;
        const void *x, *u; /* y may be x */
        enum dtype  dt, xdt; /* of y; of x where it is another one */
        size_t      count;
        int         n; /* SPREAD: x is [n], repeated */
        float       s;
        enum act    act;
    };
    typedef nothing shared, regs;

    HD static void
    one(const args &a, size_t i)
    {
        if (a.op == MAP_ADD)
            act_put(a.y, a.dt, i, act_get(a.x, a.dt, i) + act_get(a.u, a.dt, i));
        else if (a.op == MAP_SCALE)
            act_put(a.y, a.dt, i, act_get(a.x, a.dt, i) * a.s);
        else if (a.op == MAP_ACT_MUL)
            act_put(a.y, a.dt, i, rt(act_of(act_get(a.x, a.dt, i), a.act), a.dt) * act_get(a.u, a.dt, i));
        else
            act_put(a.y, a.dt, i, any_get(a.x, a.xdt, a.op == MAP_SPREAD ? i % (size_t)a.n : i));
    }

    DEV static void
    run(team<regs> &g, shared &, const args &a)
    {
        g.each([&](int t, regs &) {
            for (size_t i = (size_t)g.x * THREADS + (size_t)t; i < a.count; i += (size_t)g.blocks * THREADS)
                one(a, i);
        });
    }
};

/* A row is summed in OPS_LANES lanes; a block has ROWS rows. */
struct rmsnorm_kernel {
    enum { THREADS = 256, ROWS = THREADS / OPS_LANES };

    struct args {
        void       *y;
        const void *x, *w;
        enum dtype  dt;
        int         rows, n;
        float       eps;
        enum norm   norm;
    };
    struct shared {
        float part[ROWS][OPS_LANES], inverse[ROWS];
    };
    typedef nothing regs;

    HD static float
    lane_sum(const args &a, size_t at, int lane)
    {
        float s = 0;

        for (int i = lane; i < a.n; i += OPS_LANES) {
            float v = act_get(a.x, a.dt, at + (size_t)i);

            s += v * v;
        }
        return s;
    }

    HD static float
    inverse_rms(float *lanes, int n, float eps)
    {
        for (int w = OPS_LANES / 2; w > 0; w /= 2)
            for (int i = 0; i < w; i++)
                lanes[i] += lanes[i + w];
        return 1.0f / sqrtf(lanes[0] / (float)n + eps);
    }

    HD static float
    value(const args &a, float x, float w, float r)
    {
        if (a.norm == NORM_UNIT_OFFSET)
            return x * r * (1.0f + w);
        return (a.norm == NORM_ONCE ? x * r : rt(x * r, a.dt)) * w;
    }

    DEV static void
    run(team<regs> &g, shared &s, const args &a)
    {
        g.each([&](int t, regs &) {
            int i = t / OPS_LANES, row = g.x * ROWS + i;

            if (row < a.rows)
                s.part[i][t % OPS_LANES] = lane_sum(a, (size_t)row * (size_t)a.n, t % OPS_LANES);
        });
        g.each([&](int t, regs &) {
            if (t < ROWS && g.x * ROWS + t < a.rows)
                s.inverse[t] = inverse_rms(s.part[t], a.n, a.eps);
        });
        g.each([&](int t, regs &) {
            int i = t / OPS_LANES, row = g.x * ROWS + i;
            size_t at = (size_t)row * (size_t)a.n;

            for (int c = t % OPS_LANES; row < a.rows && c < a.n; c += OPS_LANES)
                act_put(a.y, a.dt, at + (size_t)c, value(a, act_get(a.x, a.dt, at + (size_t)c),
                    act_get(a.w, a.dt, (size_t)c), s.inverse[i]));
        });
    }
};

/* A block a row: y[i] = x[rows[i]] or, with weights, y[rows[i]] = T(y + T(weights[i] x[i])). rows NULL: row i. */
struct rows_kernel {
    enum { THREADS = 128 };

    struct args {
        void        *y;
        const void  *x;
        const int   *rows;
        const float *weights;
        enum dtype   dt;
        int          count, n;
    };
    typedef nothing shared, regs;

    DEV static void
    run(team<regs> &g, shared &, const args &a)
    {
        size_t n = (size_t)a.n, picked = (size_t)(a.rows != NULL ? a.rows[g.x] : g.x) * n, i = (size_t)g.x * n;

        g.each([&](int t, regs &) {
            for (size_t k = (size_t)t; k < n; k += THREADS)
                if (a.weights == NULL)
                    act_put(a.y, a.dt, i + k, act_get(a.x, a.dt, picked + k));
                else
                    act_put(a.y, a.dt, picked + k, act_get(a.y, a.dt, picked + k)
                        + rt(a.weights[g.x] * act_get(a.x, a.dt, i + k), a.dt));
        });
    }
};

struct rope_kernel {
    enum { THREADS = 256 };

    struct args {
        void       *x; /* [rows, heads, head_dim] */
        const void *cos_t, *sin_t;
        enum dtype  dt;
        int         rows, row0, heads, head_dim, half, tokens;
    };
    typedef nothing shared, regs;

    HD static void
    one(const args &a, size_t i)
    {
        size_t half = (size_t)a.half, c = i % half, head = i / half, row = head / (size_t)a.heads;
        size_t at = head * (size_t)a.head_dim + c, bt = at + half;
        size_t pos = ((size_t)a.row0 + row) % (size_t)a.tokens * half + c;
        float p = act_get(a.x, a.dt, at), q = act_get(a.x, a.dt, bt);
        float co = act_get(a.cos_t, a.dt, pos), si = act_get(a.sin_t, a.dt, pos);

        act_put(a.x, a.dt, at, rt(p * co, a.dt) + rt(-q * si, a.dt));
        act_put(a.x, a.dt, bt, rt(q * co, a.dt) + rt(p * si, a.dt));
    }

    DEV static void
    run(team<regs> &g, shared &, const args &a)
    {
        g.each([&](int t, regs &) {
            size_t i = (size_t)g.x * THREADS + (size_t)t;

            if (i < (size_t)a.rows * (size_t)a.heads * (size_t)a.half)
                one(a, i);
        });
    }
};

/* A block a row; sums of CHUNK logits are added in f64, in order. */
struct nll_kernel {
    enum { THREADS = 256, CHUNK = OPS_LANES * 8, CHUNKS_MAX = 4096, VOCAB_MAX = CHUNKS_MAX * CHUNK };

    struct args {
        double        *nll;
        const void    *logits; /* [rows, vocab] of T */
        const int32_t *target;
        enum dtype     dt;
        int            vocab;
        float          softcap, scale;
    };
    struct shared {
        double sum[CHUNKS_MAX];
        float  max[THREADS];
    };
    typedef nothing regs;

    HD static float
    scaled(const args &a, float x)
    {
        return a.softcap == 0.0f ? x * a.scale : a.softcap * tanhf(x * a.scale / a.softcap);
    }

    HD static double
    chunk_sum(const args &a, size_t at, int first, float max)
    {
        float lanes[OPS_LANES] = { 0 };

        for (int i = 0; i < CHUNK && first + i < a.vocab; i++)
            lanes[i % OPS_LANES] += exp_f(scaled(a, act_get(a.logits, a.dt, at + (size_t)(first + i))) - max);
        for (int w = OPS_LANES / 2; w > 0; w /= 2)
            for (int i = 0; i < w; i++)
                lanes[i] += lanes[i + w];
        return (double)lanes[0];
    }

    HD static void
    finish(const args &a, const shared &s, int row, float max)
    {
        int32_t target = a.target[row];
        double sum = 0;

        for (int c = 0; c * CHUNK < a.vocab; c++)
            sum += s.sum[c];
        a.nll[row] = target < 0 ? 0 : (double)max + log(sum)
            - (double)scaled(a, act_get(a.logits, a.dt, (size_t)row * (size_t)a.vocab + (size_t)target));
    }

    HD static float
    row_max(const float *part)
    {
        float m = part[0];

        for (int i = 1; i < THREADS; i++)
            m = part[i] > m ? part[i] : m;
        return m;
    }

    DEV static void
    run(team<regs> &g, shared &s, const args &a)
    {
        size_t at = (size_t)g.x * (size_t)a.vocab;

        g.each([&](int t, regs &) {
            float m = -INFINITY;

            for (int i = t; i < a.vocab; i += THREADS) {
                float v = act_get(a.logits, a.dt, at + (size_t)i);

                m = v > m ? v : m;
            }
            s.max[t] = m;
        });
        g.each([&](int t, regs &) {
            float m = scaled(a, row_max(s.max));

            for (int c = t; c * CHUNK < a.vocab; c += THREADS)
                s.sum[c] = chunk_sum(a, at, c * CHUNK, m);
        });
        g.each([&](int t, regs &) {
            if (t == 0)
                finish(a, s, g.x, scaled(a, row_max(s.max)));
        });
    }
};

#endif
