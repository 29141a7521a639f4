/* syrk - the lower triangle of X'X, and all of X_f'X, each product rounded to the plan's grid and added exactly
 *
 * Rows go in chunks of HESS_CHUNK. A chunk is packed once, in panels of 16 columns of token pairs, for both operands. A
 * micro-tile of 8 x 48 sums chains of SYRK_KC pairs in registers and those chains in an f32 tile in L1 (a chain of
 * 256 products keeps the error at 5e-7 of |x||x|); the finished tile is rounded to the grid and added to the f64 sums,
 * which are read and written once for the tiles of two chunks.
 * Tiles of the pool are SYRK_PANELS panels of rows by three panels of columns: fixed, so bytes do not depend on
 * threads.
 *
 * X_f'X is the same with panels of its own for the rows, and no diagonal to stop at.
 */
#include "cpu.h"

#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

enum { SYRK_KC = 128, SYRK_PANELS = 16, SYRK_COLS = OPS_NV_MAX * OPS_LANES, SYRK_F32 = 128, COLSQ_COLS = 64,
    SYRK_CHUNKS = 2, PACK_PANELS = 4 /* whole lines of x */,
    FETCH_ROWS = OPS_MR / (HESS_CHUNK / 2 / SYRK_KC) /* while a chain is computed */
};

struct syrk_job {
    struct dev     *dev;
    double         *acc;
    const uint16_t *x;       /* of SYRK_CHUNKS chunks, bf16; the rows' side: left */
    const uint16_t *left;    /* x for the triangle */
    const float    *xf, *leftf; /* the same, f32 */
    const double   *u, *ul;  /* [n] 2^e of columns, of rows */
    uint32_t       *p, *pl;  /* [panels][pairs][16] of each chunk, SYRK_CHUNKS of them */
    size_t          words;   /* of one */
    bool            square;
    int             rows, n, panels, col_tiles;
};

static int
chunk_count(const struct syrk_job *j)
{
    return (j->rows + HESS_CHUNK - 1) / HESS_CHUNK;
}

static int
chunk_rows(const struct syrk_job *j, int chunk)
{
    return j->rows - chunk * HESS_CHUNK < HESS_CHUNK ? j->rows - chunk * HESS_CHUNK : HESS_CHUNK;
}

static int
chunk_pairs(const struct syrk_job *j, int chunk)
{
    return (chunk_rows(j, chunk) + 1) / 2;
}

static int
pack_tasks(const struct syrk_job *j)
{
    return (j->panels + PACK_PANELS - 1) / PACK_PANELS;
}

/* Panels of x of each chunk, then those of left, PACK_PANELS at a time. */
static void
pack_panels(void *ctx, int at, int worker)
{
    struct syrk_job *j = ctx;
    int chunks = chunk_count(j), panel = at % pack_tasks(j) * PACK_PANELS, chunk = at / pack_tasks(j) % chunks;
    bool right = at < chunks * pack_tasks(j);
    const uint16_t *x = (right ? j->x : j->left) + (size_t)chunk * HESS_CHUNK * (size_t)j->n;
    int end = panel + PACK_PANELS < j->panels ? panel + PACK_PANELS : j->panels, col = panel * OPS_LANES;
    int left = j->n - col, width = left < PACK_PANELS * OPS_LANES ? left : PACK_PANELS * OPS_LANES;
    size_t stride = (size_t)chunk_pairs(j, chunk) * OPS_LANES;
    uint32_t *p = (right ? j->p : j->pl) + (size_t)chunk * j->words + (size_t)panel * stride;

    (void)worker;
    if (width > 0)
        cpu_of(j->dev)->ops->pack_rows(p, stride, x + col, (size_t)j->n, chunk_rows(j, chunk), width);
    for (int i = panel; i < end; i++)
        if (i * OPS_LANES >= j->n)
            memset(p + (size_t)(i - panel) * stride, 0, stride * sizeof(*p));
}

static double *
acc_row(const struct syrk_job *j, int i)
{
    return j->acc + (j->square ? (size_t)i * (size_t)j->n : (size_t)i * ((size_t)i + 1) / 2);
}

/* Columns of row i from j0 on that are summed; not more than n - j0 of the square. */
static int
row_cols(const struct syrk_job *j, int i, int j0)
{
    return (j->square ? j->n : i + 1) - j0;
}

/* Rows [i, end) of the sums that a micro-tile ends with, into the cache while it is computed; a few at a time, since a
 * processor drops what it is asked for all at once. */
static void
fetch(const struct syrk_job *j, int i, int end, int j0, int width)
{
    enum { LINE = 8 }; /* f64 */

    for (; i < end && i < j->n; i++) {
        const double *row = acc_row(j, i) + j0;
        int cols = row_cols(j, i, j0) < width ? row_cols(j, i, j0) : width;

        for (int c = 0; c < cols + LINE - 1; c += LINE)
            __builtin_prefetch(row + (c < cols ? c : cols - 1), 1);
    }
}

/* c [8, 48], nv panels of it: the products of rows [i0, i0 + 8) and columns [j0, ...) over one chunk. */
static void
micro_chunk(const struct syrk_job *j, float *c, int chunk, int i0, int j0, int nv)
{
    int pairs = chunk_pairs(j, chunk);
    size_t stride = (size_t)pairs * OPS_LANES, at = (size_t)chunk * j->words;
    const uint32_t *a = j->pl + at + (size_t)(i0 / OPS_LANES) * stride + (size_t)(i0 % OPS_LANES);
    const uint32_t *b = j->p + at + (size_t)(j0 / OPS_LANES) * stride;

    for (int k = 0, step = 0; k < pairs; k += SYRK_KC, step++) {
        if (chunk == 0)
            fetch(j, i0 + FETCH_ROWS * step, i0 + FETCH_ROWS * (step + 1), j0, nv * OPS_LANES);
        cpu_of(j->dev)->ops->dot(c, SYRK_COLS, a + (size_t)k * OPS_LANES, b + (size_t)k * OPS_LANES, stride,
            pairs - k < SYRK_KC ? pairs - k : SYRK_KC, nv, k > 0);
    }
}

/* Rows [i0, i0 + 8) by columns [j0, j0 + 48); panels beyond the diagonal of a triangle are left out. */
static void
micro(const struct syrk_job *j, int i0, int j0)
{
    int nv = j->square ? OPS_NV_MAX : (i0 - j0 + OPS_MR + OPS_LANES - 1) / OPS_LANES;
    int chunks = chunk_count(j);
    _Alignas(64) float c[SYRK_CHUNKS][OPS_MR * SYRK_COLS];

    nv = nv < OPS_NV_MAX ? nv : OPS_NV_MAX;
    for (int chunk = 0; chunk < chunks; chunk++)
        micro_chunk(j, c[chunk], chunk, i0, j0, nv);
    for (int i = i0; i < i0 + OPS_MR && i < j->n; i++) {
        int cols = row_cols(j, i, j0) < SYRK_COLS ? row_cols(j, i, j0) : SYRK_COLS;
        size_t at = (size_t)(i - i0) * SYRK_COLS;

        if (cols > 0)
            cpu_of(j->dev)->ops->grid_add(acc_row(j, i) + j0, c[0] + at, OPS_MR * SYRK_COLS, chunks, cols, j->ul[i],
                j->u + j0);
    }
}

static void
syrk_tile(void *ctx, int tile, int worker)
{
    struct syrk_job *j = ctx;
    int first = tile / j->col_tiles * SYRK_PANELS * OPS_LANES, j0 = tile % j->col_tiles * SYRK_COLS;
    int end = first + SYRK_PANELS * OPS_LANES < j->n ? first + SYRK_PANELS * OPS_LANES : j->n;

    (void)worker;
    for (int i0 = first; i0 < end; i0 += OPS_MR)
        if (j->square || i0 + OPS_MR > j0)
            micro(j, i0, j0);
}

/* f32 inputs: one library product a tile of SYRK_F32 rows, all columns up to its last one. */
static void
f32_tile(void *ctx, int tile, int worker)
{
    struct syrk_job *j = ctx;
    int i0 = tile * SYRK_F32, m = j->n - i0 < SYRK_F32 ? j->n - i0 : SYRK_F32;
    int cols = j->square ? j->n : i0 + m;
    float *c = cpu_of(j->dev)->workers[worker].scratch;

    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, m, cols, j->rows, 1.0f, j->leftf + i0, j->n, j->xf, j->n, 0.0f,
        c, cols);
    for (int i = i0; i < i0 + m; i++)
        cpu_of(j->dev)->ops->grid_add(acc_row(j, i), c + (size_t)(i - i0) * (size_t)cols, 0, 1, row_cols(j, i, 0),
            j->ul[i], j->u);
}

/* left NULL: x itself. */
static int
syrk_bf16(struct syrk_job *j, const uint16_t *left, const uint16_t *x, int rows)
{
    int row_tiles = (j->n + SYRK_PANELS * OPS_LANES - 1) / (SYRK_PANELS * OPS_LANES), sides = left != NULL ? 2 : 1;
    int chunks = rows > HESS_CHUNK ? SYRK_CHUNKS : 1;

    j->panels = (j->n + SYRK_COLS - 1) / SYRK_COLS * OPS_NV_MAX;
    j->col_tiles = j->panels / OPS_NV_MAX;
    j->words = (size_t)j->panels * HESS_CHUNK / 2 * OPS_LANES;
    if ((j->p = mem_alloc((size_t)(sides * chunks) * j->words, sizeof(*j->p))) == NULL)
        return RC_OS;
    j->pl = left != NULL ? j->p + (size_t)chunks * j->words : j->p;
    for (int r = 0; r < rows; r += SYRK_CHUNKS * HESS_CHUNK) {
        j->rows = rows - r < SYRK_CHUNKS * HESS_CHUNK ? rows - r : SYRK_CHUNKS * HESS_CHUNK;
        j->x = x + (size_t)r * (size_t)j->n;
        j->left = left != NULL ? left + (size_t)r * (size_t)j->n : NULL;
        pool_run(j->dev->pool, sides * chunk_count(j) * pack_tasks(j), pack_panels, j);
        pool_run(j->dev->pool, row_tiles * j->col_tiles, syrk_tile, j);
    }
    mem_free(j->p);
    return RC_OK;
}

static int
syrk_f32(struct syrk_job *j, const float *left, const float *x, int rows)
{
    for (int w = 0; w < pool_threads(j->dev->pool); w++)
        if (cpu_scratch(j->dev, w, (size_t)SYRK_F32 * (size_t)j->n * sizeof(float)) == NULL)
            return RC_OS;
    for (int r = 0; r < rows; r += HESS_CHUNK) {
        j->rows = rows - r < HESS_CHUNK ? rows - r : HESS_CHUNK;
        j->xf = x + (size_t)r * (size_t)j->n;
        j->leftf = left != NULL ? left + (size_t)r * (size_t)j->n : j->xf;
        pool_run(j->dev->pool, (j->n + SYRK_F32 - 1) / SYRK_F32, f32_tile, j);
    }
    return RC_OK;
}

/* left, el NULL: the triangle. */
static int
products(struct dev *dev, double *acc, const void *left, const void *x, enum dtype dt, int rows, int n,
    const int16_t *el, const int16_t *e)
{
    size_t pad = (size_t)(n + SYRK_COLS);
    struct syrk_job j = { .dev = dev, .acc = acc, .n = n, .square = left != NULL };
    double *u = mem_alloc(2 * pad, sizeof(*u));
    int rc;

    if (u == NULL)
        return RC_OS;
    for (int i = 0; i < n; i++) {
        u[i] = ldexp(1.0, e[i]);
        u[pad + (size_t)i] = ldexp(1.0, el != NULL ? el[i] : e[i]);
    }
    j.u = u;
    j.ul = u + pad;
    rc = dt == DT_BF16 ? syrk_bf16(&j, left, x, rows) : syrk_f32(&j, left, x, rows);
    mem_free(u);
    return rc;
}

int
cpu_syrk(struct dev *dev, double *acc, const void *x, enum dtype dt, int rows, int n, const int16_t *e)
{
    return products(dev, acc, NULL, x, dt, rows, n, NULL, e);
}

int
cpu_cross(struct dev *dev, double *acc, const void *xf, const void *x, enum dtype dt, int rows, int n,
    const int16_t *ef, const int16_t *e)
{
    return products(dev, acc, xf, x, dt, rows, n, ef, e);
}

struct colsq_job {
    const struct ops *ops;
    float            *diag;
    const void       *x;
    enum dtype        dt;
    int               rows, n;
};

static void
colsq_tile(void *ctx, int tile, int worker)
{
    struct colsq_job *j = ctx;
    size_t at = (size_t)tile * COLSQ_COLS, left = (size_t)j->n - at, n = left < COLSQ_COLS ? left : COLSQ_COLS;
    float sum[COLSQ_COLS] = { 0 }, v[COLSQ_COLS] = { 0 };

    (void)worker;
    for (int r = 0; r < j->rows && r < HESS_CHUNK; r++, at += (size_t)j->n) {
        if (j->dt == DT_BF16)
            j->ops->to_f32(v, (const uint16_t *)j->x + at, n);
        else
            memcpy(v, (const float *)j->x + at, n * sizeof(*v));
        for (int i = 0; i < COLSQ_COLS; i++)
            sum[i] += v[i] * v[i];
    }
    memcpy(j->diag + (size_t)tile * COLSQ_COLS, sum, n * sizeof(*sum));
}

int
cpu_colsq(struct dev *dev, float *diag, const void *x, enum dtype dt, int rows, int n)
{
    struct colsq_job j = { .ops = cpu_of(dev)->ops, .diag = diag, .x = x, .dt = dt, .rows = rows, .n = n };

    pool_run(dev->pool, (n + COLSQ_COLS - 1) / COLSQ_COLS, colsq_tile, &j);
    return RC_OK;
}
