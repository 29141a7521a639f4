/* cpu/gptq - GPTQ by (4) of ref/gptq.c, from the right
 *
 * 1. L is packed once, in chunks of BLOCK rows by BLOCK columns, as step 4 reads it.
 * 2. W goes into tiles of LANES rows, transposed and in the factor's order: [cols][LANES].
 * 3. For each block of BLOCK columns from the right,
 * 4. the sums over the losses of all columns right of the block are products of small tiles, chunk by chunk;
 * 5. within the block, columns go by LANES_SUB: a product with the block's columns to the right, then one by one, each
 *    in several row tiles in turn, since one column's rounding is a long chain of dependent operations.
 * 6. Codes go back into rows.
 *
 * A row's sum for column p is defined without reference to tiles: chunks from the right, in each a chain of fused
 * multiply-adds from the highest q down, chunk sums added in that order; p's own chunk last.
 */
#include "gptq.h"
#include "lanes.h"

#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../../libcommon/pool.h"

#include <math.h>
#include <string.h>

enum {
    BLOCK     = 128,
    PANEL     = BLOCK * LANES_SUB, /* floats of a chunk's LANES_SUB columns: [BLOCK][LANES_SUB], highest row first */
    CHUNK     = BLOCK * BLOCK,
    TILES_MAX = 8,  /* row tiles of a task */
    TURN      = 64, /* columns that are transposed at a time */
};

/* One worker's: arrays for each of its tiles, one after the other. */
struct scratch {
    float   *d;                   /* [tiles][cols][LANES] w_p, later d_p */
    uint8_t *codes;               /* [tiles][cols][LANES] natural order */
    float   *scale, *step, *zero; /* [tiles][scale_cols][LANES] */
    float   *sum;                 /* [tiles][BLOCK][LANES] */
    float   *acc;                 /* [tiles][LANES_SUB][LANES] */
    float   *loss;                /* [tiles][LANES] of a block */
    double  *total;               /* [tiles][LANES] */
};

struct sweep {
    struct gptq_job    *job;
    const struct lanes *lanes;
    int                 tiles; /* of a task */
    int                 scale_cols;
    int                *at;    /* position of a natural column */
    float              *packed; /* chunks of L by rows of chunks */
    double             *loss, *rtn_loss; /* [rows] */
    struct scratch     *scratch;
};

static size_t
tile_at(const struct sweep *sw, int tile)
{
    return (size_t)tile * (size_t)sw->job->cols * LANES;
}

static float *
chunk_at(const struct sweep *sw, int q0, int b0)
{
    size_t k = (size_t)q0 / BLOCK, b = (size_t)b0 / BLOCK;

    return sw->packed + (k * (k + 1) / 2 + b) * CHUNK;
}

/* A row of chunks. What lies above L's diagonal is not read. */
static void
pack_chunks(void *ctx, int k, int worker)
{
    const struct sweep *sw = ctx;
    int n = sw->job->cols, q0 = k * BLOCK, q1 = q0 + BLOCK < n ? q0 + BLOCK : n;

    (void)worker;
    for (int b0 = 0; b0 <= q0; b0 += BLOCK)
        for (int q = q1 - 1; q >= q0; q--) {
            const float *row = sw->job->l + (size_t)q * (size_t)n;
            float *to = chunk_at(sw, q0, b0) + (q1 - 1 - q) * LANES_SUB;

            for (int c = b0; c < b0 + BLOCK && c < n; c += LANES_SUB, to += PANEL) {
                int have = q - c + 1 < LANES_SUB ? q - c + 1 : LANES_SUB;

                for (int j = 0; j < LANES_SUB; j++)
                    to[j] = j < have ? row[c + j] : 0;
            }
        }
}

/* What is lost of w becomes what is lost of the target. */
static void
aim(const struct sweep *sw, float *d, int r0, int rows)
{
    const struct gptq_job *job = sw->job;

    for (int i = 0; i < rows; i++) {
        size_t at = (size_t)(r0 + i) * (size_t)job->cols;

        for (int c = 0; c < job->cols; c++)
            if (!job->dead[c])
                d[(size_t)sw->at[c] * LANES + (size_t)i] += job->target[at + (size_t)c] - job->w[at + (size_t)c];
    }
}

/* Rows from r0 on, at most LANES of them; lanes without a row are zero. */
static void
load_weights(const struct sweep *sw, float *d, int r0, int rows)
{
    const struct gptq_job *job = sw->job;
    float part[LANES][TURN] = { { 0 } };

    for (int c = 0; c < job->cols; c += TURN) {
        int width = job->cols - c < TURN ? job->cols - c : TURN;

        for (int i = 0; i < rows; i++)
            memcpy(part[i], job->w + (size_t)(r0 + i) * (size_t)job->cols + (size_t)c, (size_t)width * sizeof(float));
        for (int j = 0; j < width; j++) {
            float *to = d + (size_t)sw->at[c + j] * LANES;

            if (job->dead[c + j])
                memset(to, 0, LANES * sizeof(*to));
            else
                for (int i = 0; i < LANES; i++)
                    to[i] = part[i][j];
        }
    }
}

/* Lanes without a row take the last one's scales. */
static void
load_scales(const struct sweep *sw, struct scratch *s, int tile, int r0, int rows)
{
    const struct gptq_job *job = sw->job;
    size_t sc = (size_t)sw->scale_cols, to = (size_t)tile * sc * LANES;

    for (size_t g = 0; g < sc; g++) {
        for (int i = 0; i < LANES; i++, to++) {
            int row = job->row0 + r0 + (i < rows ? i : rows - 1);
            size_t from = (size_t)q_scale_row(job->spec, row) * sc + g;

            s->scale[to] = job->scale[from];
            s->step[to] = q_step(job->spec, job->scale[from], job->global_scale);
            s->zero[to] = job->zero != NULL ? job->zero[from] : 0;
        }
    }
}

static void
store_codes(const struct sweep *sw, const uint8_t *codes, int r0, int rows)
{
    size_t n = (size_t)sw->job->cols;

    for (size_t c0 = 0; c0 < n; c0 += TURN)
        for (int i = 0; i < rows; i++) {
            uint8_t *to = sw->job->codes + (size_t)(r0 + i) * n;

            for (size_t c = c0; c < n && c < c0 + TURN; c++)
                to[c] = codes[c * LANES + (size_t)i];
        }
}

static struct column
column_at(const struct sweep *sw, struct scratch *s, int tile, int p)
{
    const struct gptq_job *job = sw->job;
    int col = job->order[p];
    int of = job->scale_col != NULL ? job->scale_col[col] : q_scale_col(job->spec, col);
    size_t g = ((size_t)tile * (size_t)sw->scale_cols + (size_t)of) * LANES;
    float diag = job->l[(size_t)p * (size_t)job->cols + (size_t)p];

    return (struct column){
        .spec = job->spec, .global_scale = job->global_scale, .keep_zeros = job->keep_zeros,
        .diag = diag, .inverse = 1 / diag,
        .scale = s->scale + g, .step = s->step + g, .zero = s->zero + g,
        .w = s->d + tile_at(sw, tile) + (size_t)p * LANES,
        .codes = s->codes + tile_at(sw, tile) + (size_t)col * LANES,
    };
}

/* Columns c0 to c1 - 1 of the block from b0 on. */
struct micro {
    int          b0, c0, c1;
    const float *l; /* their part of the diagonal chunk, from row c1 - 1 on down */
};

static void
sweep_column(const struct sweep *sw, struct scratch *s, int tile, const struct micro *m, int p, bool rtn)
{
    struct column c = column_at(sw, s, tile, p);
    float sum[LANES];

    sw->lanes->tail(sum, s->sum + ((size_t)tile * BLOCK + (size_t)(p - m->b0)) * LANES,
        s->acc + (tile * LANES_SUB + p - m->c0) * LANES, m->l + (p - m->c0),
        s->d + tile_at(sw, tile) + (size_t)(m->c1 - 1) * LANES, m->c1 - 1 - p);
    c.sum = sum;
    c.loss = s->loss + tile * LANES;
    if (rtn)
        sw->lanes->error(&c);
    else
        sw->lanes->round(&c);
}

/* Columns b0 to b1 - 1, whose sums over columns right of b1 are known. */
static void
sweep_block(const struct sweep *sw, struct scratch *s, int tiles, int b0, int b1, bool rtn)
{
    struct micro m = { .b0 = b0, .c0 = b0 + (b1 - b0 - 1) / LANES_SUB * LANES_SUB };

    memset(s->loss, 0, (size_t)tiles * LANES * sizeof(*s->loss));
    for (; m.c0 >= b0; m.c0 -= LANES_SUB) {
        const float *panel = chunk_at(sw, b0, b0) + (m.c0 - b0) / LANES_SUB * PANEL;

        m.c1 = m.c0 + LANES_SUB < b1 ? m.c0 + LANES_SUB : b1;
        m.l = panel + (b1 - m.c1) * LANES_SUB;
        for (int t = 0; t < tiles; t++)
            sw->lanes->mul(s->acc + t * LANES_SUB * LANES, panel, s->d + tile_at(sw, t) + (size_t)(b1 - 1) * LANES,
                b1 - m.c1, false);
        for (int p = m.c1 - 1; p >= m.c0; p--)
            for (int t = 0; t < tiles; t++)
                sweep_column(sw, s, t, &m, p, rtn);
    }
    for (int i = 0; i < tiles * LANES; i++)
        s->total[i] += (double)s->loss[i];
}

/* All columns of the first so many tiles. */
static void
sweep_columns(const struct sweep *sw, struct scratch *s, int tiles, bool rtn)
{
    int n = sw->job->cols, last = (n - 1) / BLOCK * BLOCK;

    memset(s->total, 0, (size_t)tiles * LANES * sizeof(*s->total));
    for (int b0 = last; b0 >= 0; b0 -= BLOCK) {
        memset(s->sum, 0, (size_t)tiles * BLOCK * LANES * sizeof(*s->sum));
        for (int q0 = last; q0 > b0; q0 -= BLOCK) {
            int q1 = q0 + BLOCK < n ? q0 + BLOCK : n;

            for (int t = 0; t < tiles; t++)
                for (size_t c = 0; c < BLOCK; c += LANES_SUB)
                    sw->lanes->mul(s->sum + ((size_t)t * BLOCK + c) * LANES, chunk_at(sw, q0, b0) + c * BLOCK,
                        s->d + tile_at(sw, t) + (size_t)(q1 - 1) * LANES, q1 - q0, true);
        }
        sweep_block(sw, s, tiles, b0, b0 + BLOCK < n ? b0 + BLOCK : n, rtn);
    }
}

/* A task: sw->tiles tiles of rows, or what is left. */
static void
sweep_task(void *ctx, int task, int worker)
{
    const struct sweep *sw = ctx;
    struct scratch *s = &sw->scratch[worker];
    const struct gptq_job *job = sw->job;
    int first = task * sw->tiles * LANES, left = job->rows - first;
    int tiles = (left + LANES - 1) / LANES < sw->tiles ? (left + LANES - 1) / LANES : sw->tiles;

    for (int rtn = 0; rtn <= (int)job->want_rtn; rtn++) {
        for (int t = 0; t < tiles; t++) {
            int rows = left - t * LANES < LANES ? left - t * LANES : LANES;

            load_weights(sw, s->d + tile_at(sw, t), first + t * LANES, rows);
            if (!rtn)
                load_scales(sw, s, t, first + t * LANES, rows);
            for (int p = 0; rtn && p < job->cols; p++) {
                struct column c = column_at(sw, s, t, p);

                if (!job->dead[job->order[p]])
                    sw->lanes->plain(&c);
            }
        }
        if (!rtn || job->target == NULL)
            sweep_columns(sw, s, tiles, rtn);
        if (job->target != NULL) {
            for (int t = 0; t < tiles; t++)
                aim(sw, s->d + tile_at(sw, t), first + t * LANES, left - t * LANES < LANES ? left - t * LANES : LANES);
            sweep_columns(sw, s, tiles, true);
        }
        for (int t = 0; t < tiles; t++) {
            int rows = left - t * LANES < LANES ? left - t * LANES : LANES;

            if (!rtn)
                store_codes(sw, s->codes + tile_at(sw, t), first + t * LANES, rows);
            memcpy((rtn ? sw->rtn_loss : sw->loss) + first + t * LANES, s->total + t * LANES,
                (size_t)rows * sizeof(double));
        }
    }
}

static int
scratch_alloc(struct scratch *s, const struct sweep *sw)
{
    size_t tiles = (size_t)sw->tiles, n = (size_t)sw->job->cols, groups = (size_t)sw->scale_cols;

    if ((s->d = mem_alloc(tiles * n, LANES * sizeof(*s->d))) == NULL ||
        (s->codes = mem_alloc(tiles * n, LANES)) == NULL ||
        (s->scale = mem_alloc(tiles * groups, LANES * sizeof(*s->scale))) == NULL ||
        (s->step = mem_alloc(tiles * groups, LANES * sizeof(*s->step))) == NULL ||
        (s->zero = mem_alloc(tiles * groups, LANES * sizeof(*s->zero))) == NULL ||
        (s->sum = mem_alloc(tiles * BLOCK, LANES * sizeof(*s->sum))) == NULL ||
        (s->acc = mem_alloc(tiles * LANES_SUB, LANES * sizeof(*s->acc))) == NULL ||
        (s->loss = mem_alloc(tiles, LANES * sizeof(*s->loss))) == NULL ||
        (s->total = mem_alloc(tiles, LANES * sizeof(*s->total))) == NULL)
        return RC_OS;
    return RC_OK;
}

static void
scratch_free(struct scratch *s)
{
    mem_free(s->d);
    mem_free(s->codes);
    mem_free(s->scale);
    mem_free(s->step);
    mem_free(s->zero);
    mem_free(s->sum);
    mem_free(s->acc);
    mem_free(s->loss);
    mem_free(s->total);
}

/* In the order of rows, so that neither threads nor tiles matter. */
static int
sum_losses(struct gptq_job *job, const double *loss, const double *rtn_loss)
{
    job->loss = job->rtn_loss = 0;
    for (int r = 0; r < job->rows; r++) {
        job->loss += loss[r] / 2;
        job->rtn_loss += job->want_rtn ? rtn_loss[r] / 2 : 0;
    }
    if (!isfinite(job->loss) || !isfinite(job->rtn_loss))
        return err_set(RC_NUMERIC, "loss is not finite");
    return RC_OK;
}

int
cpu_gptq_lanes(struct dev *dev, const struct lanes *lanes, struct gptq_job *job)
{
    int threads = pool_threads(dev_pool(dev)), tiles = (job->rows + LANES - 1) / LANES, tasks, rc = RC_OS;
    struct sweep sw = { .job = job, .lanes = lanes, .scale_cols = q_scale_cols(job->spec, job->cols) };
    size_t blocks = ((size_t)job->cols + BLOCK - 1) / BLOCK;

    tasks = ((tiles + TILES_MAX - 1) / TILES_MAX + threads - 1) / threads * threads;
    sw.tiles = tasks > 0 ? (tiles + tasks - 1) / tasks : 1;
    tasks = (tiles + sw.tiles - 1) / sw.tiles;
    sw.at = mem_alloc((size_t)job->cols, sizeof(*sw.at));
    sw.loss = mem_alloc((size_t)job->rows, sizeof(*sw.loss));
    sw.rtn_loss = mem_alloc((size_t)job->rows, sizeof(*sw.rtn_loss));
    sw.scratch = mem_zalloc((size_t)threads, sizeof(*sw.scratch));
    sw.packed = mem_alloc(blocks * (blocks + 1) / 2, CHUNK * sizeof(*sw.packed));
    if (sw.at == NULL || sw.packed == NULL || sw.loss == NULL || sw.rtn_loss == NULL || sw.scratch == NULL)
        goto out;
    for (int i = 0; i < (tasks > 1 ? threads : 1); i++)
        if (scratch_alloc(&sw.scratch[i], &sw) != RC_OK)
            goto out;
    for (int p = 0; p < job->cols; p++)
        sw.at[job->order[p]] = p;
    pool_run(dev_pool(dev), (int)blocks, pack_chunks, &sw);
    pool_run(dev_pool(dev), tasks, sweep_task, &sw);
    rc = sum_losses(job, sw.loss, sw.rtn_loss);
out:
    for (int i = 0; sw.scratch != NULL && i < threads; i++)
        scratch_free(&sw.scratch[i]);
    mem_free(sw.at);
    mem_free(sw.packed);
    mem_free(sw.loss);
    mem_free(sw.rtn_loss);
    mem_free(sw.scratch);
    return rc;
}

int
cpu_gptq(struct dev *dev, struct gptq_job *job)
{
    return cpu_gptq_lanes(dev, lanes_find(), job);
}
