/* gptq - GPTQ by (4) of kernels/ref/gptq.c, all columns of ROWS rows in one block of threads
 *
 * Rows are independent given the factor, so that a block needs no other one and a module is one launch. Several
 * modules of one shape are one launch, too: g.y counts them.
 *
 * For each BLOCK columns from the right,
 * 1. update: the sums over all columns right of the block, by products of [ROWS][BLOCK] losses with [BLOCK][BLOCK]
 *    chunks of the factor in shared memory; a thread has 4 rows by 8 columns.
 * 2. block: the factor's diagonal chunk comes into shared memory. By SUB columns from the right: GROUP threads a row
 *    share the products with the block's finished columns, then the first of them rounds the SUB columns one by one.
 *
 * Sums are those of kernels/cpu/gptq.c: chunks of BLOCK from the right, in each a chain of fused multiply-adds from the
 * highest column down, a column's own chunk last. Codes and losses are the cpu backend's bytes for the same factor.
 *
 * What ptxas says of the sweep (CUDA 13.0, each of the three grids; no spills, no stack on any target):
 *
 *            registers   shared   blocks of 128 threads on a processor (of so much shared memory)
 *     sm_80     119      96 KiB   1 (164 KiB)     4 of 64 warps
 *     sm_90     119      96 KiB   2 (228 KiB)     8 of 64 warps
 *     sm_100     96      96 KiB   2 (228 KiB)     8 of 64 warps
 *     sm_120     96      96 KiB   1 (100 KiB)     4 of 48 warps
 *
 * Few warps: a thread's 32 independent sums in 1. hide the latency of multiply-adds; the loads of a chunk are not
 * overlapped with the products of the one before.
 *
 * Estimate, not a measurement, for an H100 (132 processors, 1.7 GHz, 57 TFLOP/s of f32 at that clock), [4096, 4096],
 * 128 columns a group: 128 blocks, one a processor. Update: 496 chunks, each 4096 cycles of multiply-adds (32 of a
 * thread for each of 128 columns, a warp a scheduler) and about 2000 of loads (80 KiB at 64 bytes a cycle, and
 * latency): 3.0e6 cycles, 1.8 ms; its 6.9e10 operations at the card's peak would be 1.2 ms. Block: 4096 columns one
 * after the other at about 250 cycles for a division, rounding and the step to the next: 1.0e6 cycles, 0.6 ms;
 * products inside blocks 0.15 ms. In all 2.6 ms, beside which a factorisation (2.3e10) is some 2 ms. What LLM
 * Compressor 0.10 publishes is of whole runs: Qwen3-30B-A3B, 18624 modules (experts too), in 3.9, 1.95, 1 h on 1,
 * 2 and 4 GPUs, which is 0.75 s of a GPU a module with all that is not GPTQ. No figure for one module of this shape is
 * at hand; nothing is claimed against it.
 */
#ifndef LLMC_CUDA_GPTQ_CUH
#define LLMC_CUDA_GPTQ_CUH

#include "gptq_mat.cuh"

struct alignas(16) vec4 {
    float v[4];
};

template <enum qgrid G> struct gptq_sweep_kernel {
    enum {
        THREADS = 128,
        ROWS    = GPTQ_ROWS,
        BLOCK   = 128,            /* columns */
        GROUP   = THREADS / ROWS, /* threads of a row inside a block */
        SUB     = 8,              /* columns that are rounded between two products */
        COLS    = BLOCK / 16,     /* of a thread in the update: 16 threads across, 8 down */
        DOWN    = ROWS / 8,
    };

    typedef gptq_args args;

    /* 96 KiB: one block of threads fits every target, two fit sm_90 and sm_100. */
    struct shared {
        union {
            float l[BLOCK][BLOCK]; /* a chunk of the factor: [q][column] */
            struct {
                float l[BLOCK * (BLOCK + 1) / 2]; /* its diagonal chunk, packed lower */
                float inverse[BLOCK];             /* of the diagonal */
                float acc[SUB][ROWS];
                float scale[SUB][ROWS], step[SUB][ROWS], zero[SUB][ROWS];
            } in;
        };
        float d[BLOCK][ROWS]; /* losses of the chunk's columns; in a block: w, then losses */
        float sum[BLOCK][ROWS];
    };
    struct regs {
        float  acc[DOWN][COLS], total[DOWN][COLS];
        float  loss; /* of the row in this block: its first thread's */
        double total_loss;
    };

    /* What a block of threads works on. */
    struct place {
        const struct gptq_mat *m;
        float                 *d;     /* of the tile */
        uint8_t               *codes;
        int                    row;   /* of the tile's first one */
        int                    plain;
    };

    /* --- update --- */

    HD static void
    load_losses(shared &s, const place &p, int q0, int q1, int t)
    {
        for (int i = t; i < (q1 - q0) * ROWS; i += THREADS)
            s.d[i / ROWS][i % ROWS] = p.d[(size_t)q0 * ROWS + (size_t)i];
    }

    HD static void
    load_chunk(shared &s, const place &p, int q0, int q1, int b0, int t)
    {
        const float *l = p.m->l + (size_t)q0 * (size_t)p.m->cols + (size_t)b0 + (size_t)t;

        for (int q = 0; q < q1 - q0; q++)
            s.l[q][t] = l[(size_t)q * (size_t)p.m->cols];
    }

    /* A chunk's products. The thread's columns are two runs of 4, so that 16 threads read 64 in a row. */
    HD static void
    multiply(const shared &s, regs &r, int count, int t)
    {
        int col = t % 16 * 4, row = t / 16 * DOWN;

        UNROLL
        for (int i = 0; i < DOWN; i++)
            UNROLL
            for (int j = 0; j < COLS; j++)
                r.acc[i][j] = 0;
        for (int q = count - 1; q >= 0; q--) {
            vec4 d = *(const vec4 *)&s.d[q][row], lo = *(const vec4 *)&s.l[q][col];
            vec4 hi = *(const vec4 *)&s.l[q][BLOCK / 2 + col];

            UNROLL
            for (int i = 0; i < DOWN; i++)
                UNROLL
                for (int j = 0; j < 4; j++) {
                    r.acc[i][j] = fmaf(lo.v[j], d.v[i], r.acc[i][j]);
                    r.acc[i][4 + j] = fmaf(hi.v[j], d.v[i], r.acc[i][4 + j]);
                }
        }
        UNROLL
        for (int i = 0; i < DOWN; i++)
            UNROLL
            for (int j = 0; j < COLS; j++)
                r.total[i][j] += r.acc[i][j];
    }

    HD static void
    store_sums(shared &s, const regs &r, int t)
    {
        int col = t % 16 * 4, row = t / 16 * DOWN;

        UNROLL
        for (int i = 0; i < DOWN; i++)
            UNROLL
            for (int j = 0; j < 4; j++) {
                s.sum[col + j][row + i] = r.total[i][j];
                s.sum[BLOCK / 2 + col + j][row + i] = r.total[i][4 + j];
            }
    }

    /* --- block --- */

    HD static int
    tri(int q, int c)
    {
        return q * (q + 1) / 2 + c;
    }

    HD static void
    load_diagonal(shared &s, const place &p, int b0, int b1, int t)
    {
        const float *l = p.m->l + (size_t)b0 * (size_t)p.m->cols + (size_t)b0 + (size_t)t;

        for (int q = t; q < b1 - b0; q++)
            s.in.l[tri(q, t)] = l[(size_t)q * (size_t)p.m->cols];
        if (t < b1 - b0)
            s.in.inverse[t] = 1 / l[(size_t)t * (size_t)p.m->cols];
    }

    /* Columns c0 to c1 - 1 of the block with those right of them; their scales. Thread t has 2 of row t / GROUP. */
    HD static void
    products(shared &s, const place &p, int b0, int b1, int c0, int c1, int t)
    {
        int i = t / GROUP;

        for (int j = t % GROUP * (SUB / GROUP); j < (t % GROUP + 1) * (SUB / GROUP) && c0 + j < c1; j++) {
            size_t at = gptq_scale_at(p.m, p.row + i, p.m->order[b0 + c0 + j]);
            float acc = 0;

            for (int q = b1 - b0 - 1; q >= c1; q--)
                acc = fmaf(s.in.l[tri(q, c0 + j)], s.d[q][i], acc);
            s.in.acc[j][i] = acc;
            s.in.scale[j][i] = p.m->scale[at];
            s.in.step[j][i] = q_step(&p.m->spec, p.m->scale[at], p.m->global_scale);
            s.in.zero[j][i] = p.m->zero != NULL ? (float)p.m->zero[at] : 0;
        }
    }

    /* Column c of the block, j of the sub-block: what GPTQ makes of w~. Returns the loss d. */
    HD static float
    round_one(shared &s, regs &r, const place &p, int b0, int c, int j, int i, float sum)
    {
        const struct qspec *spec = &p.m->spec;
        struct qspec g = *spec;
        float w = s.d[c][i], step = s.in.step[j][i], zero = s.in.zero[j][i], diag = s.in.l[tri(c, c)], moved, k, q, e;

        g.grid = G; /* a constant */
        moved = w + sum * s.in.inverse[c];
        k = q_round_loop(&g, moved, step, zero);
        q = q_dequant_loop(&g, k, step, zero);
        e = (moved - q) * diag;
        p.codes[(size_t)p.m->order[b0 + c] * ROWS + (size_t)i] = g.v10
            ? q_code_loop(&g, k, q, s.in.scale[j][i], p.m->global_scale, zero) : q_code(&g, k);
        r.loss += e * e;
        return w - q;
    }

    HD static float
    plain_one(shared &s, regs &r, int c, int i, float sum)
    {
        float d = s.d[c][i], e = sum + d * s.in.l[tri(c, c)];

        r.loss += e * e;
        return d;
    }

    /* The sub-block's columns of row i, one by one; each goes on into the sums of those left of it. */
    HD static void
    round_sub(shared &s, regs &r, const place &p, int b0, int c0, int c1, int i)
    {
        float acc[SUB];

        UNROLL
        for (int j = 0; j < SUB; j++)
            acc[j] = c0 + j < c1 ? s.in.acc[j][i] : 0;
        UNROLL
        for (int j = SUB - 1; j >= 0; j--) {
            int c = c0 + j;
            float sum, d;

            if (c >= c1)
                continue;
            sum = s.sum[c][i] + acc[j];
            d = p.plain ? plain_one(s, r, c, i, sum) : round_one(s, r, p, b0, c, j, i, sum);
            s.d[c][i] = d;
            UNROLL
            for (int k = 0; k < j; k++)
                acc[k] = fmaf(s.in.l[tri(c, c0 + k)], d, acc[k]);
        }
    }

    DEV static void
    update(team<regs> &g, shared &s, const place &p, int b0)
    {
        int n = p.m->cols;

        g.each([&](int, regs &r) {
            UNROLL
            for (int i = 0; i < DOWN; i++)
                UNROLL
                for (int j = 0; j < COLS; j++)
                    r.total[i][j] = 0;
        });
        for (int q0 = (n - 1) / BLOCK * BLOCK; q0 > b0; q0 -= BLOCK) {
            int q1 = q0 + BLOCK < n ? q0 + BLOCK : n;

            g.each([&](int t, regs &) {
                load_losses(s, p, q0, q1, t);
                load_chunk(s, p, q0, q1, b0, t);
            });
            g.each([&](int t, regs &r) { multiply(s, r, q1 - q0, t); });
        }
        g.each([&](int t, regs &r) { store_sums(s, r, t); });
    }

    DEV static void
    block(team<regs> &g, shared &s, const place &p, int b0)
    {
        int b1 = b0 + BLOCK < p.m->cols ? b0 + BLOCK : p.m->cols;

        g.each([&](int t, regs &r) {
            load_losses(s, p, b0, b1, t);
            load_diagonal(s, p, b0, b1, t);
            r.loss = 0;
        });
        for (int c0 = (b1 - b0 - 1) / SUB * SUB; c0 >= 0; c0 -= SUB) {
            int c1 = c0 + SUB < b1 - b0 ? c0 + SUB : b1 - b0;

            g.each_warp([&](int t, regs &) { products(s, p, b0, b1, c0, c1, t); });
            g.each_warp([&](int t, regs &r) {
                if (t % GROUP == 0)
                    round_sub(s, r, p, b0, c0, c1, t / GROUP);
            });
        }
        g.each([&](int, regs &r) { r.total_loss += (double)r.loss; });
        g.each([&](int t, regs &) {
            for (int i = t; i < (b1 - b0) * ROWS; i += THREADS)
                p.d[(size_t)b0 * ROWS + (size_t)i] = s.d[i / ROWS][i % ROWS];
        });
    }

    DEV static void
    run(team<regs> &g, shared &s, const args &a)
    {
        const struct gptq_mat *m = &a.mats[g.y];
        size_t tile = (size_t)g.x * (size_t)m->cols * ROWS;
        place p = { m, m->d + tile, m->tiled + tile, g.x * ROWS, a.plain };

        if (p.row >= m->rows)
            return;
        g.each([&](int, regs &r) { r.total_loss = 0; });
        for (int b0 = (m->cols - 1) / BLOCK * BLOCK; b0 >= 0; b0 -= BLOCK) {
            update(g, s, p, b0);
            block(g, s, p, b0);
        }
        g.each([&](int t, regs &r) {
            if (t % GROUP == 0)
                m->loss[p.row + t / GROUP] = r.total_loss;
        });
    }
};

#endif
