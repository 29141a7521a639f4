/* cpu/correct - ref/correct by the library's triangular solves and products, on fixed tiles of CORRECT_ROWS rows
 *
 * A row's result depends on no other row, and a tile's shape only on where the matrix ends: so neither threads nor cuts
 * at multiples of CORRECT_ROWS change a byte. The library itself is held to one thread.
 */
#include "cpu.h"

#include "../factor.h"

#include "../../libcommon/msg.h"

#include <cblas.h>
#include <string.h>

struct solve {
    float        *m;
    const double *c, *h;
    const float  *l;
    double        s;
    int           n;
};

struct product {
    float       *y;
    const float *w, *m;
    int          rows, n;
};

static int
tiles_of(int rows)
{
    return (rows + CORRECT_ROWS - 1) / CORRECT_ROWS;
}

static void
solve_tile(void *ctx, int tile, int worker)
{
    const struct solve *j = ctx;
    int i0 = tile * CORRECT_ROWS, rows = j->n - i0 < CORRECT_ROWS ? j->n - i0 : CORRECT_ROWS;
    size_t n = (size_t)j->n;
    float *m = j->m + (size_t)i0 * n;

    (void)worker;
    for (int p = 0; p < j->n; p++) /* beyond the diagonal, columns of H are what is contiguous */
        for (int i = 0; i < rows; i++)
            m[(size_t)i * n + (size_t)p] = (float)(j->s * (j->c[(size_t)(i0 + i) * n + (size_t)p] -
                packed_at(j->h, i0 + i, p)));
    cblas_strsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, rows, j->n, 1.0f, j->l, j->n, m, j->n);
    cblas_strsm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit, rows, j->n, 1.0f, j->l, j->n, m,
        j->n);
}

int
cpu_correction(struct dev *dev, float *m, const double *c, const double *h, double s, const float *l, int n)
{
    struct solve j = { .m = m, .c = c, .h = h, .l = l, .s = s, .n = n };

    pool_run(dev->pool, tiles_of(n), solve_tile, &j);
    return RC_OK;
}

static void
product_tile(void *ctx, int tile, int worker)
{
    const struct product *j = ctx;
    int r0 = tile * CORRECT_ROWS, rows = j->rows - r0 < CORRECT_ROWS ? j->rows - r0 : CORRECT_ROWS;
    size_t at = (size_t)r0 * (size_t)j->n;

    (void)worker;
    memcpy(j->y + at, j->w + at, (size_t)rows * (size_t)j->n * sizeof(*j->y));
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, j->n, j->n, 1.0f, j->w + at, j->n, j->m, j->n, 1.0f,
        j->y + at, j->n);
}

int
cpu_correct(struct dev *dev, float *y, const float *w, const float *m, int rows, int n)
{
    struct product j = { .y = y, .w = w, .m = m, .rows = rows, .n = n };

    pool_run(dev->pool, tiles_of(rows), product_tile, &j);
    return RC_OK;
}
