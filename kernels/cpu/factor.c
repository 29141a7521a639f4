/* cpu/factor - blocked Cholesky factorisation over fixed tiles
 *
 * 1. s H[order][order] + lambda I into the lower triangle, f32. A row of the symmetric H is half a row and half a column
 *    of what is stored; columns are made rows by tiles first, since one by one they would miss every cache.
 * 2. For each column of tiles: factor the diagonal tile, solve those below it, subtract their products from all tiles
 *    to the right. A tile's operation is one single-threaded OpenBLAS call, and tiles are FACTOR_TILE wide whatever the
 *    number of threads, so bytes do not depend on it.
 */
#include "gptq.h"

#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../../libcommon/pool.h"
#include "../factor.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

enum {
    FACTOR_TILE = 256,
    GATHER      = 64,
};

extern void spotrf_(const char *uplo, const int *n, float *a, const int *lda, int *info);

struct factor {
    float         *l;
    const double  *h;
    const int     *order;
    const uint8_t *dead;
    double         s, lambda;
    int            n, k;  /* k: first row of the step's diagonal tile */
    float         *upper; /* packed upper, row by row: columns of the lower triangle */
    float         *rows;  /* [threads][n] */
};

/* Row i of the upper triangle, from its diagonal on. */
static float *
upper_row(const struct factor *f, int i)
{
    size_t r = (size_t)i;

    return f->upper + r * (size_t)f->n - r * (r - 1) / 2;
}

/* Rows of H by GATHER, a square at a time. */
static void
turn(void *ctx, int tile, int worker)
{
    const struct factor *f = ctx;
    int r0 = tile * GATHER, r1 = r0 + GATHER < f->n ? r0 + GATHER : f->n;
    float square[GATHER][GATHER];

    (void)worker;
    for (int c0 = 0; c0 < r1; c0 += GATHER) {
        for (int r = r0; r < r1; r++) {
            const double *from = f->h + (size_t)r * ((size_t)r + 1) / 2 + (size_t)c0;

            for (int c = c0; c < c0 + GATHER && c <= r; c++)
                square[c - c0][r - r0] = (float)(f->s * *from++);
        }
        for (int c = c0; c < c0 + GATHER && c < r1; c++) {
            int r = c > r0 ? c : r0;

            memcpy(upper_row(f, c) + (r - c), square[c - c0] + (r - r0), (size_t)(r1 - r) * sizeof(float));
        }
    }
}

static void
gather(void *ctx, int tile, int worker)
{
    const struct factor *f = ctx;
    float *row = f->rows + (size_t)worker * (size_t)f->n;
    int end = (tile + 1) * GATHER < f->n ? (tile + 1) * GATHER : f->n;

    for (int p = tile * GATHER; p < end; p++) {
        float *to = f->l + (size_t)p * (size_t)f->n;
        int i = f->order[p];
        const double *from = f->h + (size_t)i * ((size_t)i + 1) / 2;

        for (int j = 0; j < i; j++)
            row[j] = (float)(f->s * from[j]);
        memcpy(row + i, upper_row(f, i), (size_t)(f->n - i) * sizeof *row);
        for (int q = 0; q < p; q++)
            to[q] = row[f->order[q]];
        to[p] = (float)((f->dead[i] ? 1 : f->s * from[i]) + f->lambda);
    }
}

static int
tile_rows(const struct factor *f, int row)
{
    return f->n - row < FACTOR_TILE ? f->n - row : FACTOR_TILE;
}

static float *
tile_at(const struct factor *f, int row, int col)
{
    return f->l + (size_t)row * (size_t)f->n + (size_t)col;
}

/* Row-major lower is column-major upper. */
static int
factor_diagonal(const struct factor *f)
{
    int m = tile_rows(f, f->k), info = 0;

    spotrf_("U", &m, tile_at(f, f->k, f->k), &f->n, &info);
    for (int i = 0; i < m; i++) { /* spotrf lets NaN pass */
        float d = *tile_at(f, f->k + i, f->k + i);

        if (info == i + 1 || !(d > 0) || !isfinite(d))
            return err_set(RC_NUMERIC, "not positive definite at column %d of %d", f->k + i, f->n);
    }
    return RC_OK;
}

/* X L_kk' = A for a tile below the diagonal one. */
static void
solve(void *ctx, int tile, int worker)
{
    const struct factor *f = ctx;
    int row = f->k + (tile + 1) * FACTOR_TILE;

    (void)worker;
    cblas_strsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, tile_rows(f, row), FACTOR_TILE, 1,
        tile_at(f, f->k, f->k), f->n, tile_at(f, row, f->k), f->n);
}

/* Tile number t of a lower triangle of tiles, row by row. */
static void
update(void *ctx, int t, int worker)
{
    const struct factor *f = ctx;
    int i = (int)((sqrt(8.0 * t + 1) - 1) / 2), j, row, col;

    (void)worker;
    while (i * (i + 1) / 2 > t)
        i--;
    while ((i + 1) * (i + 2) / 2 <= t)
        i++;
    j = t - i * (i + 1) / 2;
    row = f->k + (i + 1) * FACTOR_TILE;
    col = f->k + (j + 1) * FACTOR_TILE;
    if (i == j)
        cblas_ssyrk(CblasRowMajor, CblasLower, CblasNoTrans, tile_rows(f, row), FACTOR_TILE, -1, tile_at(f, row, f->k),
            f->n, 1, tile_at(f, row, row), f->n);
    else
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, tile_rows(f, row), FACTOR_TILE, FACTOR_TILE, -1,
            tile_at(f, row, f->k), f->n, tile_at(f, col, f->k), f->n, 1, tile_at(f, row, col), f->n);
}

static int
assemble(struct factor *f, struct pool *pool)
{
    size_t n = (size_t)f->n;
    int tiles = (f->n + GATHER - 1) / GATHER, rc = RC_OS;

    f->upper = mem_alloc(n * (n + 1) / 2, sizeof *f->upper);
    f->rows = mem_alloc(n * (size_t)pool_threads(pool), sizeof *f->rows);
    if (f->upper != NULL && f->rows != NULL) {
        pool_run(pool, tiles, turn, f);
        pool_run(pool, tiles, gather, f);
        rc = RC_OK;
    }
    mem_free(f->upper);
    mem_free(f->rows);
    return rc;
}

int
cpu_factor(struct dev *dev, float *l, uint8_t *dead, const double *h, double s, const int *order, double damp, int n)
{
    struct factor f = { .l = l, .h = h, .order = order, .dead = dead, .s = s, .n = n };
    struct pool *pool = dev_pool(dev);
    int rc;

    f.lambda = factor_damping(dead, h, s, damp, n);
    openblas_set_num_threads(1);
    if ((rc = assemble(&f, pool)) != RC_OK)
        return rc;
    for (; f.k < n; f.k += FACTOR_TILE) {
        int below = (n - f.k - 1) / FACTOR_TILE; /* rows of tiles */

        if ((rc = factor_diagonal(&f)) != RC_OK)
            return rc;
        pool_run(pool, below, solve, &f);
        pool_run(pool, below * (below + 1) / 2, update, &f);
    }
    return RC_OK;
}
