/* gptq_mat - a module's rows on the device, and their way into tiles and out of them */
#ifndef LLMC_CUDA_GPTQ_MAT_CUH
#define LLMC_CUDA_GPTQ_MAT_CUH

#include "ops.cuh"

enum { GPTQ_ROWS = 32 }; /* of a tile, the innermost dimension of d and codes */

/* One module's rows on the device. */
struct gptq_mat {
    struct qspec   spec;
    int            rows, cols, row0, scale_cols;
    float          global_scale;
    const float   *w, *scale;
    const int8_t  *zero;  /* or NULL */
    const int     *order;
    const float   *l;
    const uint8_t *dead;
    float         *d;     /* [tiles][cols][GPTQ_ROWS] in the factor's order: w, then what is lost */
    uint8_t       *tiled; /* [tiles][cols][GPTQ_ROWS] codes in natural order of columns */
    uint8_t       *codes; /* [rows, cols] */
    double        *loss;  /* [tiles][GPTQ_ROWS], sums of e^2 */
};

struct gptq_args {
    const struct gptq_mat *mats;
    int                    plain; /* the loss of plain rounding */
};

HD static inline size_t
gptq_scale_at(const struct gptq_mat *m, int row, int col)
{
    return (size_t)q_scale_row(&m->spec, m->row0 + (row < m->rows ? row : m->rows - 1)) * (size_t)m->scale_cols
        + (size_t)q_scale_col(&m->spec, col);
}

/* W into tiles. With plain, what plain rounding loses. */
struct gptq_load_kernel {
    enum { THREADS = 256 };

    typedef gptq_args args;
    typedef nothing shared, regs;

    HD static float
    one(const struct gptq_mat *m, int row, int col, int plain)
    {
        float w, zero, step;
        size_t at;

        if (row >= m->rows || m->dead[col])
            return 0;
        w = m->w[(size_t)row * (size_t)m->cols + (size_t)col];
        if (!plain)
            return w;
        at = gptq_scale_at(m, row, col);
        zero = m->zero != NULL ? (float)m->zero[at] : 0;
        step = q_step(&m->spec, m->scale[at], m->global_scale);
        return w - plain_value(&m->spec, w, step, zero);
    }

    /* v10 plays no part in plain rounding. */
    HD static float
    plain_value(const struct qspec *spec, float w, float step, float zero)
    {
        struct qspec s = *spec;

        s.v10 = 0;
        return q_dequant_loop(&s, q_round(&s, w, step, zero), step, zero);
    }

    DEV static void
    run(team<regs> &g, shared &, const args &a)
    {
        const struct gptq_mat *m = &a.mats[g.y];
        size_t count = (size_t)(m->rows + GPTQ_ROWS - 1) / GPTQ_ROWS * GPTQ_ROWS * (size_t)m->cols;

        g.each([&](int t, regs &) {
            for (size_t i = (size_t)g.x * THREADS + (size_t)t; i < count; i += (size_t)g.blocks * THREADS) {
                size_t p = i / GPTQ_ROWS % (size_t)m->cols, tile = i / GPTQ_ROWS / (size_t)m->cols;

                m->d[i] = one(m, (int)(tile * GPTQ_ROWS + i % GPTQ_ROWS), m->order[p], a.plain);
            }
        });
    }
};

/* Codes out of tiles. */
struct gptq_store_kernel {
    enum { THREADS = 256 };

    typedef gptq_args args;
    typedef nothing shared, regs;

    DEV static void
    run(team<regs> &g, shared &, const args &a)
    {
        const struct gptq_mat *m = &a.mats[g.y];
        size_t n = (size_t)m->cols, count = (size_t)m->rows * n;

        g.each([&](int t, regs &) {
            for (size_t i = (size_t)g.x * THREADS + (size_t)t; i < count; i += (size_t)g.blocks * THREADS) {
                size_t row = i / n, col = i % n;

                m->codes[i] = m->tiled[(row / GPTQ_ROWS * n + col) * GPTQ_ROWS + row % GPTQ_ROWS];
            }
        });
    }
};

#endif
