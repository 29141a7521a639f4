/* cpu - the host backend: vector kernels of our own, oneDNN and OpenBLAS, each called on fixed tiles from our pool */
#include "cpu.h"

#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "gptq.h"
#include "lanes.h"

#include <string.h>

extern void openblas_set_num_threads(int n);

/* Rows a tile of the element-wise operations takes: a few hundred kilobytes at usual widths. */
enum { CPU_ROWS = 64, CPU_ELEMENTS = 1 << 16 };

void *
cpu_scratch(struct dev *dev, int w, size_t bytes)
{
    struct cpu_worker *cw = &cpu_of(dev)->workers[w];

    if (cw->cap < bytes || cw->scratch == NULL) {
        mem_free(cw->scratch);
        cw->cap = 0;
        if ((cw->scratch = mem_alloc(bytes, 1)) != NULL)
            cw->cap = bytes;
    }
    return cw->scratch;
}

static void
cpu_close(struct dev *dev)
{
    struct cpu *cpu;

    if (dev == NULL)
        return;
    if ((cpu = dev->impl) != NULL) {
        if (cpu->workers != NULL) {
            cpu_gemm_close(dev);
            for (int i = 0; i < pool_threads(dev->pool); i++)
                mem_free(cpu->workers[i].scratch);
        }
        mem_free(cpu->workers);
        mem_free(cpu);
    }
    pool_close(dev->pool);
    mem_free(dev);
}

static int
cpu_open(struct dev **out, const struct dev_opts *o)
{
    struct dev *dev = mem_zalloc(1, sizeof(*dev));
    struct cpu *cpu = mem_zalloc(1, sizeof(*cpu));
    int rc = RC_OS;

    *out = NULL;
    if (dev == NULL || cpu == NULL) {
        mem_free(cpu);
        mem_free(dev);
        return RC_OS;
    }
    dev->impl = cpu;
    if ((rc = pool_open(&dev->pool, o->threads)) != RC_OK)
        goto out;
    rc = RC_OS;
    cpu->ops = ops_find();
    cpu->bf16_dot = ops_bf16_products(cpu->ops);
    openblas_set_num_threads(1);
    if ((cpu->workers = mem_zalloc((size_t)pool_threads(dev->pool), sizeof(*cpu->workers))) == NULL)
        goto out;
    rc = cpu_gemm_open(dev);
out:
    if (rc != RC_OK)
        cpu_close(dev);
    else
        *out = dev;
    return rc;
}

size_t
backend_cpu_packed(enum dtype dt)
{
    return dt == DT_BF16 && ops_bf16_products(ops_find()) ? 2 : 4;
}

/* --- element-wise operations by tiles of rows --- */

struct row_job {
    const struct ops *ops;
    void             *y;
    const void       *x, *w, *w2;
    enum dtype        dt;
    int               rows, n, ld, heads, head_dim, rotary, tokens;
    float             eps;
    enum norm         norm;
    size_t            count;
    enum act          act;
};

static size_t
size_of(const struct row_job *j)
{
    return j->dt == DT_BF16 ? 2 : 4;
}

static void
rmsnorm_tile(void *ctx, int tile, int worker)
{
    struct row_job *j = ctx;
    size_t bytes = (size_t)j->n * size_of(j);

    (void)worker;
    for (int r = tile * CPU_ROWS; r < (tile + 1) * CPU_ROWS && r < j->rows; r++)
        j->ops->rmsnorm((char *)j->y + (size_t)r * bytes, (const char *)j->x + (size_t)r * bytes, j->w, j->dt, j->n,
            j->eps, j->norm);
}

static int
row_tiles(int rows)
{
    return (rows + CPU_ROWS - 1) / CPU_ROWS;
}

static int
cpu_rmsnorm(struct dev *dev, void *y, const void *x, const void *w, enum dtype dt, int rows, int n, float eps,
    enum norm norm)
{
    struct row_job j = { .ops = cpu_of(dev)->ops, .y = y, .x = x, .w = w, .dt = dt, .rows = rows, .n = n, .eps = eps,
        .norm = norm };

    pool_run(dev->pool, row_tiles(rows), rmsnorm_tile, &j);
    return RC_OK;
}

static void
rope_tile(void *ctx, int tile, int worker)
{
    struct row_job *j = ctx;
    size_t size = size_of(j), half = (size_t)j->rotary / 2;

    (void)worker;
    for (int r = tile * CPU_ROWS; r < (tile + 1) * CPU_ROWS && r < j->rows; r++)
        for (int h = 0; h < j->heads; h++) {
            size_t at = (size_t)r * (size_t)j->ld + (size_t)h * (size_t)j->head_dim;
            size_t pos = (size_t)(r % j->tokens) * half * size;

            j->ops->rope((char *)j->y + at * size, j->dt, (int)half, (const char *)j->w + pos,
                (const char *)j->w2 + pos);
        }
}

static int
cpu_rope(struct dev *dev, void *x, enum dtype dt, int rows, int heads, int head_dim, int ld, const void *cos_t,
    const void *sin_t, int rotary_dim, int tokens)
{
    struct row_job j = { .ops = cpu_of(dev)->ops, .y = x, .w = cos_t, .w2 = sin_t, .dt = dt, .rows = rows, .heads =
        heads,
        .head_dim = head_dim, .ld = ld, .rotary = rotary_dim, .tokens = tokens };

    pool_run(dev->pool, row_tiles(rows), rope_tile, &j);
    return RC_OK;
}

static size_t
elements(const struct row_job *j, int tile)
{
    size_t left = j->count - (size_t)tile * CPU_ELEMENTS;

    return left < CPU_ELEMENTS ? left : CPU_ELEMENTS;
}

static void
act_tile(void *ctx, int tile, int worker)
{
    struct row_job *j = ctx;
    size_t at = (size_t)tile * CPU_ELEMENTS * size_of(j);

    (void)worker;
    j->ops->act_mul((char *)j->y + at, (const char *)j->x + at, (const char *)j->w + at, j->dt, elements(j, tile),
        j->act);
}

static void
add_tile(void *ctx, int tile, int worker)
{
    struct row_job *j = ctx;
    size_t at = (size_t)tile * CPU_ELEMENTS * size_of(j);

    (void)worker;
    j->ops->add((char *)j->y + at, (const char *)j->x + at, j->dt, elements(j, tile));
}

static int
element_tiles(size_t count)
{
    return (int)((count + CPU_ELEMENTS - 1) / CPU_ELEMENTS);
}

static int
cpu_act_mul(struct dev *dev, void *y, const void *g, const void *u, enum dtype dt, size_t count, enum act act)
{
    struct row_job j = { .ops = cpu_of(dev)->ops, .y = y, .x = g, .w = u, .dt = dt, .count = count, .act = act };

    pool_run(dev->pool, element_tiles(count), act_tile, &j);
    return RC_OK;
}

static int
cpu_add(struct dev *dev, void *x, const void *y, enum dtype dt, size_t count)
{
    struct row_job j = { .ops = cpu_of(dev)->ops, .y = x, .x = y, .dt = dt, .count = count };

    pool_run(dev->pool, element_tiles(count), add_tile, &j);
    return RC_OK;
}

struct distance_job {
    const struct ops *ops;
    const char       *x, *xf;
    enum dtype        dt;
    size_t            count;
    double          (*sums)[2]; /* by tile */
};

static void
distance_tile(void *ctx, int tile, int worker)
{
    struct distance_job *j = ctx;
    size_t at = (size_t)tile * CPU_ELEMENTS, n = j->count - at < CPU_ELEMENTS ? j->count - at : CPU_ELEMENTS;
    size_t bytes = at * (j->dt == DT_BF16 ? 2 : 4);

    (void)worker;
    j->ops->distance(j->sums[tile], j->x + bytes, j->xf + bytes, j->dt, n);
}

static int
cpu_distance(struct dev *dev, double *sums, const void *x, const void *xf, enum dtype dt, size_t count)
{
    struct distance_job j = { .ops = cpu_of(dev)->ops, .x = x, .xf = xf, .dt = dt, .count = count };
    int tiles = element_tiles(count);

    if ((j.sums = mem_alloc((size_t)tiles + 1, sizeof(*j.sums))) == NULL)
        return RC_OS;
    pool_run(dev->pool, tiles, distance_tile, &j);
    sums[0] = sums[1] = 0;
    for (int i = 0; i < tiles; i++) {
        sums[0] += j.sums[i][0];
        sums[1] += j.sums[i][1];
    }
    mem_free(j.sums);
    return RC_OK;
}

/* --- scales by tiles of rows --- */

struct scale_job {
    const struct qspec *spec;
    struct scale_opts   o;
    const float        *w;
    int                 rows, cols, height; /* rows of a tile */
    float               global_scale;
    float              *scale;
    int8_t             *zero;
};

static void
scale_tile(void *ctx, int tile, int worker)
{
    struct scale_job *j = ctx;
    int row = tile * j->height, left = j->rows - row;
    size_t at = q_scale_index(j->spec, row, 0, j->cols);

    (void)worker;
    scale_rows(j->spec, &j->o, j->w + (size_t)row * (size_t)j->cols, left < j->height ? left : j->height, j->cols,
        j->global_scale, j->scale + at, j->zero != NULL ? j->zero + at : NULL);
}

static int
cpu_scales(struct dev *dev, const struct qspec *spec, const struct scale_opts *o, const float *w, int rows, int cols,
    float global_scale, float *scale, int8_t *zero)
{
    struct scale_job j = { .spec = spec, .o = *o, .w = w, .rows = rows, .cols = cols, .height = CPU_ROWS,
        .global_scale = global_scale, .scale = scale, .zero = zero };

    if (spec->strategy == STRATEGY_TENSOR)
        j.height = rows;
    else if (spec->strategy == STRATEGY_BLOCK)
        j.height = spec->block_rows;
    j.o.errors = lanes_find()->scale_errors;
    pool_run(dev->pool, (rows + j.height - 1) / j.height, scale_tile, &j);
    return RC_OK;
}

const struct backend backend_cpu = {
    .name = "cpu", .host = true, .open = cpu_open, .close = cpu_close,
    .weight_pack = cpu_weight_pack, .weight_free = cpu_weight_free, .matmul = cpu_matmul,
    .rmsnorm = cpu_rmsnorm, .rope = cpu_rope, .attention = cpu_attention, .act_mul = cpu_act_mul,
    .gated = cpu_gated, .add = cpu_add, .nll = cpu_nll, .round_act = cpu_round_act, .range = cpu_range,
    .syrk = cpu_syrk, .cross = cpu_cross, .colsq = cpu_colsq, .distance = cpu_distance, .scales = cpu_scales,
    .factor = cpu_factor, .gptq = cpu_gptq, .correction = cpu_correction, .correct = cpu_correct,
};
