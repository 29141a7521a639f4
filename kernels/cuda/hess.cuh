/* hess - exact sums on the plan's grid, sums of squares, and the matrix that is factored
 *
 * grid_kernel is ops_grid_add() of kernels/cpu/ops_impl.h: a product, in f32 from the library, is rounded to a multiple
 * of 2^(e[i] + e[j]) and added in f64, exactly. The sums are those of any order of the chunks.
 */
#ifndef LLMC_CUDA_HESS_CUH
#define LLMC_CUDA_HESS_CUH

#include "ops.cuh"

/* Elements before row i of a packed lower triangle. */
HD static inline size_t
packed_row(int i)
{
    return (size_t)i * ((size_t)i + 1) / 2;
}

/* Rows [i0, i0 + rows) of the triangle or of a square, a row a g.y. */
struct grid_kernel {
    enum { THREADS = 256 };

    struct args {
        double       *acc; /* from row i0 of the packed triangle, or of the square, on */
        const float  *c;   /* [rows, cols] */
        const int16_t *el, *e; /* [n] of rows, of columns */
        int           i0, cols;
        bool          square;
    };
    typedef nothing shared, regs;

    /* Powers of two in the range of normal f64 numbers. */
    HD static double
    unit(int e)
    {
        uint64_t u = (uint64_t)(e + 1023) << 52;
        double x;

        memcpy(&x, &u, sizeof(x));
        return x;
    }

    HD static void
    one(const args &a, int row, int j)
    {
        int i = a.i0 + row;
        double magic = 6755399441055744.0 * unit(a.el[i] + a.e[j]); /* 1.5 2^52 */
        double v = (double)a.c[(size_t)row * (size_t)a.cols + (size_t)j];
        size_t start = a.square ? (size_t)row * (size_t)a.cols : packed_row(i) - packed_row(a.i0);

        a.acc[start + (size_t)j] += (v + magic) - magic;
    }

    DEV static void
    run(team<regs> &g, shared &, const args &a)
    {
        g.each([&](int t, regs &) {
            int j = g.x * THREADS + t;

            if (j < a.cols && (a.square || j <= a.i0 + g.y))
                one(a, g.y, j);
        });
    }
};

struct colsq_kernel {
    enum { THREADS = 64 };

    struct args {
        float      *diag;
        const void *x;
        enum dtype  dt;
        int         rows, n;
    };
    typedef nothing shared, regs;

    HD static float
    one(const args &a, int col)
    {
        float s = 0;

        for (int r = 0; r < a.rows; r++) {
            float v = act_get(a.x, a.dt, (size_t)r * (size_t)a.n + (size_t)col);

            s += v * v;
        }
        return s;
    }

    DEV static void
    run(team<regs> &g, shared &, const args &a)
    {
        g.each([&](int t, regs &) {
            int col = g.x * THREADS + t;

            if (col < a.n)
                a.diag[col] = one(a, col);
        });
    }
};

/* a[p][q] = s H[order p][order q], the damped diagonal; a row a g.y. What is right of the diagonal is zero. */
struct gather_kernel {
    enum { THREADS = 256 };

    struct args {
        float         *a; /* [n, n] */
        const double  *h; /* packed lower */
        const int     *order;
        const uint8_t *dead;
        double         s, lambda;
        int            n;
    };
    typedef nothing shared, regs;

    HD static float
    one(const args &a, int p, int q)
    {
        if (q > p)
            return 0;
        if (q < p)
            return (float)(a.s * packed_at(a.h, a.order[p], a.order[q]));
        return (float)((a.dead[a.order[p]] ? 1 : a.s * packed_at(a.h, a.order[p], a.order[p])) + a.lambda);
    }

    DEV static void
    run(team<regs> &g, shared &, const args &a)
    {
        g.each([&](int t, regs &) {
            int q = g.x * THREADS + t;

            if (q < a.n)
                a.a[(size_t)g.y * (size_t)a.n + (size_t)q] = one(a, g.y, q);
        });
    }
};

#endif
