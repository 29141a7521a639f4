/* attention - causal attention, blocked, with an online softmax
 *
 * A block of threads has QUERIES queries of one head of one sequence and takes the keys by KEYS; GROUP threads share a
 * query. The largest score so far is carried; where a block of keys raises it, sums are scaled down. Scores, sums and
 * outputs are f32, T(e) is relative to the largest score so far, as in flash attention. eager rounds e / sum e, so it
 * passes over the keys twice: the first time for the sum.
 *
 * No tensor cores: at 2048 tokens attention is about a tenth of a layer's products.
 */
#ifndef LLMC_CUDA_ATTENTION_CUH
#define LLMC_CUDA_ATTENTION_CUH

#include "ops.cuh"

struct attention_args {
    void            *o;
    const void      *q, *k, *v; /* [rows, heads or kv_heads, head_dim] */
    enum dtype       dt;
    struct attn_args at;
};

/* DIM: the largest head_dim. */
template <int DIM> struct attention_kernel {
    enum {
        THREADS = 128,
        QUERIES = 32,
        KEYS    = 32,
        GROUP   = THREADS / QUERIES,
        MINE    = KEYS / GROUP, /* scores of a thread */
        OUT     = DIM / GROUP,  /* outputs of a thread */
        LD      = DIM + 1,      /* rows in different banks */
    };

    typedef attention_args args;

    struct shared {
        float q[QUERIES][LD], kv[KEYS][LD];
        float p[QUERIES][KEYS];
        float max[QUERIES][GROUP], sum[QUERIES][GROUP];
    };
    struct regs {
        float s[MINE], out[OUT], max, sum;
    };

    struct place {
        size_t row;  /* of the sequence's first token */
        int    head, kv_head, q0, first, end; /* keys of any of the queries */
    };

    HD static place
    place_of(const args &a, int x, int y)
    {
        place p;
        int last;

        p.head = y % a.at.heads;
        p.kv_head = p.head / (a.at.heads / a.at.kv_heads);
        p.row = (size_t)(y / a.at.heads) * (size_t)a.at.tokens;
        p.q0 = x * QUERIES;
        last = p.q0 + QUERIES < a.at.tokens ? p.q0 + QUERIES : a.at.tokens;
        p.end = last;
        p.first = a.at.window > 0 && p.q0 - a.at.window + 1 > 0 ? (p.q0 - a.at.window + 1) / KEYS * KEYS : 0;
        return p;
    }

    /* Rows of one head, zero beyond the sequence. */
    HD static void
    load(float (*to)[LD], const args &a, const void *from, const place &p, int first, int heads, int head, int t)
    {
        int d = a.at.head_dim;

        for (int i = t; i < KEYS * d; i += THREADS) {
            int row = first + i / d;
            size_t at = ((p.row + (size_t)row) * (size_t)heads + (size_t)head) * (size_t)d + (size_t)(i % d);

            to[i / d][i % d] = row < a.at.tokens ? act_get(from, a.dt, at) : 0.0f;
        }
    }

    HD static float
    score(const args &a, float s)
    {
        const struct attn_args *t = &a.at;

        if (t->eager) {
            s = rt(rt(s, a.dt) * t->scale, a.dt);
            return t->softcap == 0.0f ? s : rt(rt(tanhf(rt(s / t->softcap, a.dt)), a.dt) * t->softcap, a.dt);
        }
        s *= t->scale;
        return t->softcap == 0.0f ? s : t->softcap * tanhf(s / t->softcap);
    }

    HD static bool
    sees(const args &a, int query, int key)
    {
        return key <= query && query < a.at.tokens && (a.at.window == 0 || query - a.at.window < key);
    }

    /* A thread's scores: keys GROUP apart. */
    HD static void
    scores(const args &a, shared &s, regs &r, const place &p, int k0, int t)
    {
        int i = t / GROUP, g = t % GROUP;
        float max = -INFINITY;

        UNROLL
        for (int j = 0; j < MINE; j++)
            r.s[j] = 0;
        for (int e = 0; e < a.at.head_dim; e++) {
            float q = s.q[i][e];

            UNROLL
            for (int j = 0; j < MINE; j++)
                r.s[j] = fmaf(q, s.kv[j * GROUP + g][e], r.s[j]);
        }
        UNROLL
        for (int j = 0; j < MINE; j++) {
            r.s[j] = sees(a, p.q0 + i, k0 + j * GROUP + g) ? score(a, r.s[j]) : -INFINITY;
            max = r.s[j] > max ? r.s[j] : max;
        }
        s.max[i][g] = max;
    }

    /* e of the thread's scores; what was summed before, relative to the new largest score. */
    HD static void
    exponents(const args &a, shared &s, regs &r, bool divide, int t)
    {
        int i = t / GROUP, g = t % GROUP;
        float max = r.max, sum = 0, down;

        for (int j = 0; j < GROUP; j++)
            max = s.max[i][j] > max ? s.max[i][j] : max;
        down = r.max == max ? 1.0f : r.max == -INFINITY ? 0.0f : exp_f(r.max - max);
        UNROLL
        for (int j = 0; j < MINE; j++) {
            float e = r.s[j] == -INFINITY ? 0.0f : exp_f(r.s[j] - max);

            sum += e;
            s.p[i][j * GROUP + g] = rt(divide ? e / r.sum : e, a.dt);
        }
        s.sum[i][g] = sum;
        if (!divide)
            r.sum *= down;
        r.max = max;
        UNROLL
        for (int j = 0; j < OUT; j++)
            r.out[j] *= down;
    }

    HD static void
    outputs(const args &a, const shared &s, regs &r, bool add, bool divide, int t)
    {
        int i = t / GROUP, g = t % GROUP;

        for (int j = 0; !divide && j < GROUP; j++)
            r.sum += s.sum[i][j];
        for (int key = 0; add && key < KEYS; key++) {
            float e = s.p[i][key];

            UNROLL
            for (int j = 0; j < OUT; j++)
                if (j * GROUP + g < a.at.head_dim)
                    r.out[j] = fmaf(e, s.kv[key][j * GROUP + g], r.out[j]);
        }
    }

    HD static void
    store(const args &a, const regs &r, const place &p, int t)
    {
        int i = t / GROUP, g = t % GROUP, d = a.at.head_dim;
        size_t at = ((p.row + (size_t)(p.q0 + i)) * (size_t)a.at.heads + (size_t)p.head) * (size_t)d;
        float sum = a.at.eager ? 1.0f : r.sum;

        if (p.q0 + i >= a.at.tokens)
            return;
        UNROLL
        for (int j = 0; j < OUT; j++)
            if (j * GROUP + g < d)
                act_put(a.o, a.dt, at + (size_t)(j * GROUP + g), r.out[j] / sum);
    }

    /* All keys once. eager: first for the sum, then for the output. */
    DEV static void
    sweep(team<regs> &g, shared &s, const args &a, const place &p, bool add, bool divide)
    {
        for (int k0 = p.first; k0 < p.end; k0 += KEYS) {
            g.each([&](int t, regs &) { load(s.kv, a, a.k, p, k0, a.at.kv_heads, p.kv_head, t); });
            g.each([&](int t, regs &r) { scores(a, s, r, p, k0, t); });
            g.each([&](int t, regs &r) {
                exponents(a, s, r, divide, t);
                if (add)
                    load(s.kv, a, a.v, p, k0, a.at.kv_heads, p.kv_head, t);
            });
            g.each([&](int t, regs &r) { outputs(a, s, r, add, divide, t); });
        }
    }

    DEV static void
    run(team<regs> &g, shared &s, const args &a)
    {
        place p = place_of(a, g.x, g.y);

        g.each([&](int t, regs &r) {
            load(s.q, a, a.q, p, p.q0, a.at.heads, p.head, t);
            r.max = -INFINITY;
            r.sum = 0;
            UNROLL
            for (int j = 0; j < OUT; j++)
                r.out[j] = 0;
        });
        if (a.at.eager)
            sweep(g, s, a, p, false, false);
        sweep(g, s, a, p, true, a.at.eager);
        g.each([&](int t, regs &r) { store(a, r, p, t); });
    }
};

#endif
