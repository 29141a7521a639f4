/* cpu/factor - Cholesky factorisation, left-looking by blocks of columns, with the inner loops of cpu/gptq
 *
 * 1. s H[order][order] + lambda I into the lower triangle of the result, f32. A row of the symmetric H is half a row
 *    and half a column of what is stored; columns are made rows by squares first, since one by one they would miss
 *    every cache.
 * 2. For each block of BLOCK columns: subtract the products with all columns left of it, chunk by chunk of BLOCK;
 *    factor the diagonal block; solve the rows below. Finished columns are kept in tiles of LANES rows, transposed:
 *    [columns of the tile][LANES].
 *
 * A value's sum is defined without reference to threads or vectors: chunks from the left, in each a chain of fused
 * multiply-adds from its highest column down; the block's own columns last.
 */
#include "gptq.h"
#include "lanes.h"

#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../../libcommon/pool.h"
#include "../factor.h"

#include <math.h>
#include <string.h>

enum {
    GATHER = 64,
    TILES  = 2, /* of a block's rows */
    BLOCK  = TILES * LANES,
    SUBS   = BLOCK / LANES_SUB,
    PANEL  = BLOCK * LANES_SUB, /* floats of a chunk of LANES_SUB rows: [BLOCK][LANES_SUB], highest column first */
};

struct factor {
    float              *l;
    const double       *h;
    const int          *order;
    const uint8_t      *dead;
    double              s, lambda;
    int                 n;
    const struct lanes *lanes;
    float              *tiles;  /* L; before that H packed upper, row by row: columns of the lower triangle */
    float              *rows;   /* [threads][n] */
    float              *panels; /* [chunks][SUBS][PANEL]: the block's rows of L */
    int                 c0, c1; /* the block's columns */
    float               inverse[BLOCK]; /* of its diagonal */
};

static const float zeros[LANES];

/* Row i of the upper triangle, from its diagonal on. */
static float *
upper_row(const struct factor *f, int i)
{
    size_t r = (size_t)i;

    return f->tiles + r * (size_t)f->n - r * (r - 1) / 2;
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
        memcpy(row + i, upper_row(f, i), (size_t)(f->n - i) * sizeof(*row));
        for (int q = 0; q < p; q++)
            to[q] = row[f->order[q]];
        to[p] = (float)((f->dead[i] ? 1 : f->s * from[i]) + f->lambda);
    }
}

/* Column c of a tile of rows. */
static float *
tile_col(const struct factor *f, int tile, int c)
{
    size_t t = (size_t)tile;

    return f->tiles + (t * (t + 1) / 2 * LANES + (size_t)c) * LANES;
}

static int
tile_rows(const struct factor *f, int tile)
{
    int left = f->n - tile * LANES;

    return left < LANES ? left : LANES;
}

/* The end of the block's columns that a tile of rows has. */
static int
tile_end(const struct factor *f, int tile)
{
    int end = (tile + 1) * LANES;

    return end < f->c1 ? end : f->c1;
}

/* Column q = BLOCK chunk + i and below of the block's rows from c on. */
static float *
panel_at(const struct factor *f, int q, int c)
{
    int chunk = q / BLOCK, sub = (c - f->c0) / LANES_SUB;

    return f->panels + ((size_t)chunk * SUBS + (size_t)sub) * PANEL + (BLOCK - 1 - q % BLOCK) * LANES_SUB;
}

/* The block's rows of a finished chunk of columns. */
static void
pack_chunk(void *ctx, int chunk, int worker)
{
    const struct factor *f = ctx;

    (void)worker;
    for (int c = f->c0; c < f->c1; c += LANES_SUB)
        for (int q = chunk * BLOCK; q < (chunk + 1) * BLOCK; q++)
            memcpy(panel_at(f, q, c), tile_col(f, c / LANES, q) + c % LANES, LANES_SUB * sizeof(float));
}

/* The block's columns of a tile, less the products with all columns left of them. */
static void
update(void *ctx, int i, int worker)
{
    const struct factor *f = ctx;
    int tile = f->c0 / LANES + i, rows = tile_rows(f, tile), end = tile_end(f, tile);
    float sum[BLOCK][LANES], *to = tile_col(f, tile, f->c0);

    (void)worker;
    memset(sum, 0, sizeof(sum));
    for (int q = BLOCK - 1; q < f->c0; q += BLOCK)
        for (int c = f->c0; c < end; c += LANES_SUB)
            f->lanes->mul(sum[c - f->c0], panel_at(f, q, c), tile_col(f, tile, q), BLOCK, true);
    memset(to, 0, (size_t)(end - f->c0) * LANES * sizeof(*to));
    for (int r = 0; r < rows; r++) {
        const float *a = f->l + ((size_t)tile * LANES + (size_t)r) * (size_t)f->n + (size_t)f->c0;
        int have = tile * LANES + r + 1 < end ? tile * LANES + r + 1 - f->c0 : end - f->c0;

        for (int c = 0; c < have; c++)
            to[c * LANES + r] = a[c] - sum[c][r];
    }
}

/* Column p of the diagonal block, whose columns left of it are done. */
static int
diagonal_column(struct factor *f, int p)
{
    int first = p / LANES, last = (f->c1 - 1) / LANES, count = p - f->c0;
    float sum[TILES][LANES] = { { 0 } }, pivot = 0;

    for (int t = first; t <= last; t++) {
        float *x = tile_col(f, t, p);

        if (count > 0)
            f->lanes->tail(sum[t - first], zeros, zeros, panel_at(f, p - 1, p) + (p - f->c0) % LANES_SUB,
                tile_col(f, t, p - 1), count);
        for (int i = 0; i < LANES; i++)
            x[i] -= sum[t - first][i];
    }
    pivot = tile_col(f, first, p)[p % LANES];
    if (!(pivot > 0) || !isfinite(pivot))
        return err_set(RC_NUMERIC, "not positive definite at column %d of %d", p, f->n);
    f->inverse[count] = 1 / sqrtf(pivot);
    for (int t = first; t <= last; t++) {
        float *x = tile_col(f, t, p);

        for (int i = 0; i < LANES; i++)
            x[i] = t == first && i < p % LANES ? 0 : x[i] * f->inverse[count];
    }
    for (int c = p; c < f->c1; c++)
        panel_at(f, p, c)[(c - f->c0) % LANES_SUB] = tile_col(f, c / LANES, p)[c % LANES];
    return RC_OK;
}

/* X L_kk' = A for the block's columns of a tile below it. */
static void
solve(const struct factor *f, int tile)
{
    float acc[LANES_SUB][LANES], sum[LANES];

    for (int c = f->c0; c < f->c1; c += LANES_SUB) {
        memset(acc, 0, sizeof(acc));
        if (c > f->c0)
            f->lanes->mul(acc[0], panel_at(f, c - 1, c), tile_col(f, tile, c - 1), c - f->c0, false);
        for (int p = c; p < f->c1 && p < c + LANES_SUB; p++) {
            float *x = tile_col(f, tile, p);

            if (p > c)
                f->lanes->tail(sum, zeros, acc[p - c], panel_at(f, p - 1, c) + (p - c), tile_col(f, tile, p - 1),
                    p - c);
            else
                memcpy(sum, acc[0], sizeof(sum));
            for (int i = 0; i < LANES; i++)
                x[i] = (x[i] - sum[i]) * f->inverse[p - f->c0];
        }
    }
}

/* A tile's columns of the block into the result. */
static void
finish(void *ctx, int i, int worker)
{
    const struct factor *f = ctx;
    int tile = f->c0 / LANES + i, rows = tile_rows(f, tile), end = tile_end(f, tile);
    const float *from = tile_col(f, tile, f->c0);

    (void)worker;
    if (tile * LANES >= f->c1)
        solve(f, tile);
    for (int r = 0; r < rows; r++) {
        float *to = f->l + ((size_t)tile * LANES + (size_t)r) * (size_t)f->n + (size_t)f->c0;
        int have = tile * LANES + r + 1 < end ? tile * LANES + r + 1 - f->c0 : end - f->c0;

        for (int c = 0; c < have; c++)
            to[c] = from[c * LANES + r];
    }
}

static int
factorise(struct factor *f, struct pool *pool)
{
    int tiles = (f->n + LANES - 1) / LANES, rc = RC_OK;

    for (f->c0 = 0; rc == RC_OK && f->c0 < f->n; f->c0 += BLOCK) {
        f->c1 = f->c0 + BLOCK < f->n ? f->c0 + BLOCK : f->n;
        pool_run(pool, f->c0 / BLOCK, pack_chunk, f);
        pool_run(pool, tiles - f->c0 / LANES, update, f);
        for (int p = f->c0; rc == RC_OK && p < f->c1; p++)
            rc = diagonal_column(f, p);
        if (rc == RC_OK)
            pool_run(pool, tiles - f->c0 / LANES, finish, f);
    }
    return rc;
}

int
cpu_factor(struct dev *dev, float *l, uint8_t *dead, const double *h, double s, const int *order, double damp, int n)
{
    struct factor f = { .l = l, .h = h, .order = order, .dead = dead, .s = s, .n = n, .lanes = lanes_find() };
    size_t tiles = ((size_t)n + LANES - 1) / LANES, chunks = ((size_t)n + BLOCK - 1) / BLOCK;
    struct pool *pool = dev_pool(dev);
    int squares = (n + GATHER - 1) / GATHER, rc = RC_OS;

    f.lambda = factor_damping(dead, h, s, damp, n);
    f.tiles = mem_alloc(tiles * (tiles + 1) / 2, LANES * LANES * sizeof(*f.tiles));
    f.rows = mem_alloc((size_t)n * (size_t)pool_threads(pool), sizeof(*f.rows));
    f.panels = mem_alloc(chunks * SUBS, PANEL * sizeof(*f.panels));
    if (f.tiles != NULL && f.rows != NULL && f.panels != NULL) {
        pool_run(pool, squares, turn, &f);
        pool_run(pool, squares, gather, &f);
        rc = factorise(&f, pool);
    }
    mem_free(f.tiles);
    mem_free(f.rows);
    mem_free(f.panels);
    return rc;
}
