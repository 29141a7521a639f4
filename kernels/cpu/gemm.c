/* gemm - matrix products of the forward pass through oneDNN
 *
 * A weight is packed once, in chunks of output columns, in the layout that oneDNN asks for. A product is cut
 * into tiles of GEMM_MT rows by one chunk; each tile is one single-threaded oneDNN call, so that results do not
 * depend on the number of threads. Where the processor has no bf16 products, or slower ones than of f32, bf16 is
 * widened and multiplied in f32.
 */
#include "cpu.h"

#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* Up to GEMM_WHOLE columns are one chunk, so that tiles are contiguous in y and nothing is copied. */
enum { GEMM_MT = 256, GATED_MT = 128, GEMM_NT = 1024, GEMM_WHOLE = 2048, NLL_MT = 64 };

#define DNNL_TRY(expr)                                                                                       \
    do {                                                                                                     \
        dnnl_status_t st_ = (expr);                                                                          \
        if (st_ != dnnl_success)                                                                             \
            return err_set(RC_UNAVAILABLE, "oneDNN: %s failed: %d", #expr, (int)st_);                        \
    } while (0)

/* One primitive: y[m, n] = x[m, k] W' (+ bias), all contiguous: with a row stride in y oneDNN 2.6 has no fast kernel.
 * */
struct shape {
    int              m, n, k;
    dnnl_data_type_t dt, ydt;
    int              bias; /* an int: no padding, so that shapes compare as bytes */
};

struct cpu_prim {
    struct cpu_prim       *next;
    struct shape           shape;
    dnnl_primitive_desc_t  pd;
    dnnl_primitive_t       prim;
    dnnl_memory_desc_t     x, w, y, b;
    size_t                 scratch, packed;
};

struct packed {
    dnnl_data_type_t dt; /* of the product: BF16, or F32 */
    int              width, chunks; /* columns of a chunk but the last */
    void           **data;
};

static dnnl_data_type_t
dnnl_dt(enum dtype t)
{
    return t == DT_BF16 ? dnnl_bf16 : dnnl_f32;
}

static int
desc_2d(dnnl_memory_desc_t *d, dnnl_data_type_t t, int rows, int cols, int row_stride, int col_stride)
{
    dnnl_dims_t dims = { rows, cols }, strides = { row_stride, col_stride };

    DNNL_TRY(dnnl_memory_desc_init_by_strides(d, 2, dims, t, strides));
    return RC_OK;
}

/* p->pd for weights as p->w describes them; p->w becomes what the library chose. */
static int
prim_desc(struct cpu *cpu, struct cpu_prim *p)
{
    struct shape *s = &p->shape;
    dnnl_primitive_attr_t attr;
    dnnl_matmul_desc_t md;
    dnnl_status_t st;

    DNNL_TRY(dnnl_matmul_desc_init(&md, &p->x, &p->w, s->bias ? &p->b : NULL, &p->y));
    DNNL_TRY(dnnl_primitive_attr_create(&attr));
    st = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (st == dnnl_success)
        st = dnnl_primitive_desc_create(&p->pd, &md, attr, cpu->engine, NULL);
    (void)dnnl_primitive_attr_destroy(attr);
    if (st != dnnl_success)
        return err_set(RC_UNAVAILABLE, "oneDNN: no matmul for %d x %d x %d: %d", s->m, s->n, s->k, (int)st);
    p->w = *dnnl_primitive_desc_query_md(p->pd, dnnl_query_weights_md, 0);
    return RC_OK;
}

/* Asked for any layout, oneDNN 2.6 without AVX-512 answers with plain rows of n, and with these is three times slower
 * than with the transpose (n = 1536: 22 and 69 GFLOP/s of 96). */
static int
prim_any(struct cpu *cpu, struct cpu_prim *p)
{
    dnnl_dims_t dims = { p->shape.k, p->shape.n };

    DNNL_TRY(dnnl_memory_desc_init_by_tag(&p->w, 2, dims, p->shape.dt, dnnl_format_tag_any));
    TRY(prim_desc(cpu, p));
    if (p->w.format_desc.blocking.inner_nblks > 0)
        return RC_OK;
    DNNL_TRY(dnnl_primitive_desc_destroy(p->pd));
    p->pd = NULL;
    TRY(desc_2d(&p->w, p->shape.dt, p->shape.k, p->shape.n, 1, p->shape.k));
    return prim_desc(cpu, p);
}

/* The packed layout must be that of full tiles: ask for any layout with m = GEMM_MT, and fix it for other m. */
static int
prim_create(struct cpu *cpu, struct cpu_prim *p, const struct cpu_prim *full)
{
    struct shape *s = &p->shape;

    TRY(desc_2d(&p->x, s->dt, s->m, s->k, s->k, 1));
    TRY(desc_2d(&p->y, s->ydt, s->m, s->n, s->n, 1));
    TRY(desc_2d(&p->b, s->dt, 1, s->n, s->n, 1));
    if (full != NULL)
        p->w = full->w;
    TRY(full != NULL ? prim_desc(cpu, p) : prim_any(cpu, p));
    DNNL_TRY(dnnl_primitive_create(&p->prim, p->pd));
    p->packed = dnnl_memory_desc_get_size(&p->w);
    p->scratch = dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(p->pd, dnnl_query_scratchpad_md, 0));
    return RC_OK;
}

static void
prim_free(struct cpu_prim *p)
{
    if (p->prim != NULL)
        (void)dnnl_primitive_destroy(p->prim);
    if (p->pd != NULL)
        (void)dnnl_primitive_desc_destroy(p->pd);
    mem_free(p);
}

/* Layout of weights [k, n]: that of a full tile without bias, contiguous x and y. */
static int
prim_find(struct dev *dev, struct cpu_prim **out, const struct shape *want)
{
    struct cpu *cpu = cpu_of(dev);
    struct shape base = { GEMM_MT, want->n, want->k, want->dt, want->dt, false };
    bool is_base = memcmp(want, &base, sizeof(base)) == 0;
    struct cpu_prim *p, *full = NULL;
    int rc;

    for (p = cpu->prims; p != NULL; p = p->next)
        if (memcmp(&p->shape, want, sizeof(*want)) == 0) {
            *out = p;
            return RC_OK;
        }
    if (!is_base && (rc = prim_find(dev, &full, &base)) != RC_OK)
        return rc;
    if ((p = mem_zalloc(1, sizeof(*p))) == NULL)
        return RC_OS;
    p->shape = *want;
    if ((rc = prim_create(cpu, p, full)) != RC_OK) {
        prim_free(p);
        return rc;
    }
    p->next = cpu->prims;
    cpu->prims = p;
    *out = p;
    return RC_OK;
}

int
cpu_gemm_open(struct dev *dev)
{
    struct cpu *cpu = cpu_of(dev);
    int n = pool_threads(dev->pool);

    omp_set_num_threads(1); /* while primitives are created too */
    DNNL_TRY(dnnl_engine_create(&cpu->engine, dnnl_cpu, 0));
    for (int i = 0; i < n; i++)
        DNNL_TRY(dnnl_stream_create(&cpu->workers[i].stream, cpu->engine, dnnl_stream_default_flags));
    return RC_OK;
}

void
cpu_gemm_close(struct dev *dev)
{
    struct cpu *cpu = cpu_of(dev);

    while (cpu->prims != NULL) {
        struct cpu_prim *p = cpu->prims;

        cpu->prims = p->next;
        prim_free(p);
    }
    for (int i = 0; i < pool_threads(dev->pool); i++)
        if (cpu->workers[i].stream != NULL)
            (void)dnnl_stream_destroy(cpu->workers[i].stream);
    if (cpu->engine != NULL)
        (void)dnnl_engine_destroy(cpu->engine);
}

static int
chunk_cols(const struct packed *pk, int n, int chunk)
{
    int left = n - chunk * pk->width;

    return left < pk->width ? left : pk->width;
}

/* --- packing --- */

struct pack_job {
    struct dev      *dev;
    struct packed   *pk;
    struct cpu_prim *prim[2]; /* full and last chunk */
    const void      *w;       /* [n, k] of pk->dt */
    int              n, k;
    int              rc;
};

static int
reorder(struct cpu *cpu, dnnl_stream_t stream, const dnnl_memory_desc_t *from, const void *src,
    const dnnl_memory_desc_t *to, void *dst)
{
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t prim;
    dnnl_memory_t a, b;
    dnnl_exec_arg_t args[2];

    DNNL_TRY(dnnl_memory_create(&a, from, cpu->engine, (void *)(uintptr_t)src));
    DNNL_TRY(dnnl_memory_create(&b, to, cpu->engine, dst));
    DNNL_TRY(dnnl_reorder_primitive_desc_create(&pd, from, cpu->engine, to, cpu->engine, NULL));
    DNNL_TRY(dnnl_primitive_create(&prim, pd));
    args[0] = (dnnl_exec_arg_t){ DNNL_ARG_FROM, a };
    args[1] = (dnnl_exec_arg_t){ DNNL_ARG_TO, b };
    DNNL_TRY(dnnl_primitive_execute(prim, stream, 2, args));
    (void)dnnl_stream_wait(stream);
    (void)dnnl_primitive_destroy(prim);
    (void)dnnl_primitive_desc_destroy(pd);
    (void)dnnl_memory_destroy(a);
    (void)dnnl_memory_destroy(b);
    return RC_OK;
}

static void
pack_chunk(void *ctx, int chunk, int worker)
{
    struct pack_job *j = ctx;
    struct cpu *cpu = cpu_of(j->dev);
    int cols = chunk_cols(j->pk, j->n, chunk), rc;
    struct cpu_prim *p = j->prim[cols < j->pk->width];
    const char *src = (const char *)j->w +
        (size_t)chunk * (size_t)j->pk->width * (size_t)j->k * (j->pk->dt == dnnl_bf16 ? 2 : 4);
    dnnl_memory_desc_t from;

    omp_set_num_threads(1);
    if ((j->pk->data[chunk] = mem_alloc(p->packed, 1)) == NULL)
        rc = RC_OS;
    else if ((rc = desc_2d(&from, j->pk->dt, j->k, cols, 1, j->k)) == RC_OK)
        rc = reorder(cpu, cpu->workers[worker].stream, &from, src, &p->w, j->pk->data[chunk]);
    if (rc != RC_OK)
        __atomic_store_n(&j->rc, rc, __ATOMIC_RELAXED);
}

/* w rounded to dt, as the product's type: itself, or a converted copy in *tmp. */
static int
convert(const void *w, enum dtype wdt, enum dtype dt, enum dtype want, size_t count, void **tmp, const void **out)
{
    bool round = dt == DT_BF16 && wdt != DT_BF16 && want != DT_BF16;
    float *f;

    *tmp = NULL;
    *out = w;
    if (wdt == want && !round)
        return RC_OK;
    if ((f = mem_alloc(count, sizeof(*f))) == NULL)
        return RC_OS;
    if (!dtype_to_f32(f, w, wdt, count)) {
        mem_free(f);
        return err_set(RC_DATA, "weights of type %s cannot be multiplied", dtype_name(wdt));
    }
    if (want == DT_BF16)
        (void)dtype_from_f32(f, f, DT_BF16, count); /* in place: the narrower type never overtakes */
    for (size_t i = 0; round && i < count; i++)
        f[i] = bf16_to_f32(bf16_from_f32(f[i]));
    *tmp = f;
    *out = f;
    return RC_OK;
}

void
cpu_weight_free(struct dev *dev, struct weight *w)
{
    struct packed *pk;

    (void)dev;
    if (w == NULL)
        return;
    if ((pk = w->impl) != NULL) {
        for (int i = 0; pk->data != NULL && i < pk->chunks; i++)
            mem_free(pk->data[i]);
        mem_free(pk->data);
        mem_free(pk);
    }
    mem_free(w);
}

int
cpu_weight_pack(struct dev *dev, struct weight **out, const void *w, enum dtype wdt, enum dtype dt, int n, int k)
{
    enum dtype mul = dt == DT_BF16 && cpu_of(dev)->bf16_dot ? DT_BF16 : DT_F32;
    struct pack_job j = { .dev = dev, .n = n, .k = k };
    struct weight *p = mem_zalloc(1, sizeof(*p));
    void *tmp = NULL;
    int rc = RC_OS;

    *out = NULL;
    if (p == NULL || (p->impl = j.pk = mem_zalloc(1, sizeof(*j.pk))) == NULL)
        goto out;
    p->n = n;
    p->k = k;
    p->dt = dt;
    j.pk->dt = dnnl_dt(mul);
    j.pk->width = n <= GEMM_WHOLE ? n : GEMM_NT;
    j.pk->chunks = (n + j.pk->width - 1) / j.pk->width;
    if ((j.pk->data = mem_zalloc((size_t)j.pk->chunks, sizeof(*j.pk->data))) == NULL)
        goto out;
    for (int last = 0; last < 2; last++) {
        int cols = last ? chunk_cols(j.pk, n, j.pk->chunks - 1) : j.pk->width;
        struct shape s = { GEMM_MT, cols, k, j.pk->dt, j.pk->dt, false };

        if ((rc = prim_find(dev, &j.prim[cols < j.pk->width], &s)) != RC_OK)
            goto out;
    }
    if ((rc = convert(w, wdt, dt, mul, (size_t)n * (size_t)k, &tmp, &j.w)) != RC_OK)
        goto out;
    pool_run(dev->pool, j.pk->chunks, pack_chunk, &j);
    rc = j.rc;
out:
    mem_free(tmp);
    if (rc != RC_OK)
        cpu_weight_free(dev, p);
    else
        *out = p;
    return rc;
}

/* --- products --- */

struct mul_job {
    struct dev          *dev;
    void                *y;
    const void          *x, *bias;
    enum dtype           dt, ydt;
    const struct weight *w;
    const struct packed *pk;
    int                  rows, mt;
    struct cpu_prim     *prim[2][2]; /* [last rows][last chunk] */
    int                  rc;
};

static int
prim_run(struct dev *dev, int worker, const struct cpu_prim *p, void *y, const void *x, const void *w, const void *bias,
    void *scratch)
{
    struct cpu *cpu = cpu_of(dev);
    const dnnl_memory_desc_t *md[5] = { &p->x, &p->w, &p->y,
        dnnl_primitive_desc_query_md(p->pd, dnnl_query_scratchpad_md, 0), &p->b };
    void *data[5] = { (void *)(uintptr_t)x, (void *)(uintptr_t)w, y, scratch, (void *)(uintptr_t)bias };
    static const int arg[5] = { DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD, DNNL_ARG_BIAS };
    dnnl_exec_arg_t args[5];
    dnnl_memory_t mem[5];
    int n = bias != NULL ? 5 : 4;

    for (int i = 0; i < n; i++) {
        DNNL_TRY(dnnl_memory_create(&mem[i], md[i], cpu->engine, data[i]));
        args[i] = (dnnl_exec_arg_t){ arg[i], mem[i] };
    }
    DNNL_TRY(dnnl_primitive_execute(p->prim, cpu->workers[worker].stream, n, args));
    (void)dnnl_stream_wait(cpu->workers[worker].stream);
    for (int i = 0; i < n; i++)
        (void)dnnl_memory_destroy(mem[i]);
    return RC_OK;
}

/* Rows of a tile to their place in y. */
static void
tile_store(const struct mul_job *j, const void *tile, int row, int col, int m, int n, bool round)
{
    size_t ysize = j->ydt == DT_BF16 ? 2 : 4;

    for (int r = 0; r < m; r++) {
        char *y = (char *)j->y + ((size_t)(row + r) * (size_t)j->w->n + (size_t)col) * ysize;

        if (round)
            cpu_of(j->dev)->ops->from_f32((uint16_t *)y, (const float *)tile + (size_t)r * (size_t)n, (size_t)n);
        else
            memcpy(y, (const char *)tile + (size_t)r * (size_t)n * ysize, (size_t)n * ysize);
    }
}

static size_t
larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t
padded(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static int
tiles_down(const struct mul_job *j)
{
    return (j->rows + j->mt - 1) / j->mt;
}

static bool
is_widened(const struct mul_job *j)
{
    return j->dt == DT_BF16 && j->pk->dt == dnnl_f32;
}

/* Bytes that tile_into() needs beside the result. */
static size_t
tile_room(const struct mul_job *j, const struct cpu_prim *p)
{
    size_t m = (size_t)p->shape.m, n = (size_t)p->shape.n, k = (size_t)p->shape.k;

    return padded(p->scratch) + (is_widened(j) ? padded(m * k * 4) + padded(n * 4) : 0);
}

/* y [m, n], contiguous, of the product's type; rows and bias are widened in s where there are no bf16 products. */
static int
tile_into(const struct mul_job *j, int worker, const struct cpu_prim *p, int row, int col, char *s, void *y)
{
    const struct ops *ops = cpu_of(j->dev)->ops;
    size_t m = (size_t)p->shape.m, n = (size_t)p->shape.n, k = (size_t)p->shape.k, size = j->dt == DT_BF16 ? 2 : 4;
    size_t at_x = padded(p->scratch), at_b = at_x + padded(m * k * 4);
    const void *x = (const char *)j->x + (size_t)row * k * size;
    const void *bias = j->bias != NULL ? (const char *)j->bias + (size_t)col * size : NULL;

    if (is_widened(j)) {
        ops->to_f32((float *)(s + at_x), x, m * k);
        if (bias != NULL)
            ops->to_f32((float *)(s + at_b), bias, n);
        x = s + at_x;
        bias = bias != NULL ? s + at_b : NULL;
    }
    return prim_run(j->dev, worker, p, y, x, j->pk->data[col / j->pk->width], bias, s);
}

/* In place in y where that is contiguous. */
static int
tile_mul(const struct mul_job *j, int worker, const struct cpu_prim *p, int row, int col)
{
    bool direct = !is_widened(j) && j->w->n == p->shape.n;
    size_t m = (size_t)p->shape.m, n = (size_t)p->shape.n, room = tile_room(j, p);
    char *s = cpu_scratch(j->dev, worker, direct ? room : room + m * n * 4);
    int rc;

    if (s == NULL)
        return RC_OS;
    if (direct)
        return tile_into(j, worker, p, row, col, s, (char *)j->y + (size_t)row * n * (j->ydt == DT_BF16 ? 2 : 4));
    if ((rc = tile_into(j, worker, p, row, col, s, s + room)) == RC_OK)
        tile_store(j, s + room, row, col, (int)m, (int)n, is_widened(j) && j->ydt == DT_BF16);
    return rc;
}

/* A chunk of the weight stays in the cache while all rows are multiplied with it, and the narrower last one is last. */
static const struct cpu_prim *
tile_at(const struct mul_job *j, int tile, int *row, int *col)
{
    int tiles = tiles_down(j), width = j->pk->width;

    *row = tile % tiles * j->mt;
    *col = tile / tiles * width;
    return j->prim[j->rows - *row < j->mt][j->w->n - *col < width];
}

static void
mul_tile(void *ctx, int tile, int worker)
{
    struct mul_job *j = ctx;
    int row, col, rc;
    const struct cpu_prim *p = tile_at(j, tile, &row, &col);

    omp_set_num_threads(1);
    rc = tile_mul(j, worker, p, row, col);
    if (rc != RC_OK)
        __atomic_store_n(&j->rc, rc, __ATOMIC_RELAXED);
}

static int
mul_prims(struct mul_job *j)
{
    int n = j->w->n, k = j->w->k, width = j->pk->width, rc;

    for (int lr = 0; lr < 2; lr++)
        for (int lc = 0; lc < 2; lc++) {
            int m = lr ? j->rows % j->mt : j->mt, cols = lc ? n % width : width;
            struct shape s = { m, cols, k, j->pk->dt, is_widened(j) ? dnnl_f32 : dnnl_dt(j->ydt), j->bias != NULL };

            if (m == 0 || cols == 0 || (lr == 0 && j->rows < j->mt))
                continue;
            if ((rc = prim_find(j->dev, &j->prim[lr][lc], &s)) != RC_OK)
                return rc;
        }
    return RC_OK;
}

int
cpu_matmul(struct dev *dev, void *y, enum dtype ydt, const void *x, enum dtype dt, int rows, const struct weight *w,
    const void *bias)
{
    struct mul_job j = { .dev = dev, .y = y, .x = x, .bias = bias, .dt = dt, .ydt = ydt, .w = w, .pk = w->impl,
        .rows = rows, .mt = GEMM_MT };
    int rc;

    if (rows == 0)
        return RC_OK;
    if ((rc = mul_prims(&j)) != RC_OK)
        return rc;
    pool_run(dev->pool, tiles_down(&j) * j.pk->chunks, mul_tile, &j);
    return j.rc;
}

/* --- gated products: a tile of both stays in the cache --- */

struct gated_job {
    struct mul_job mul[2]; /* gate, up */
    void          *h;
    enum act       act;
    int            rc;
};

static int
gated_mul(const struct gated_job *g, int worker, int tile)
{
    const struct mul_job *j = &g->mul[0];
    const struct ops *ops = cpu_of(j->dev)->ops;
    const struct cpu_prim *p[2];
    int row, col;
    size_t size = j->dt == DT_BF16 ? 2 : 4, m, n, room, bytes;
    char *s, *y[2];

    for (int i = 0; i < 2; i++)
        p[i] = tile_at(&g->mul[i], tile, &row, &col);
    m = (size_t)p[0]->shape.m;
    n = (size_t)p[0]->shape.n;
    room = larger(tile_room(j, p[0]), tile_room(&g->mul[1], p[1]));
    bytes = padded(m * n * (is_widened(j) ? 4 : size));
    if ((s = cpu_scratch(j->dev, worker, room + 2 * bytes)) == NULL)
        return RC_OS;
    for (int i = 0; i < 2; i++) {
        y[i] = s + room + (size_t)i * bytes;
        TRY(tile_into(&g->mul[i], worker, p[i], row, col, s, y[i]));
        if (is_widened(j))
            ops->from_f32((uint16_t *)(void *)y[i], (const float *)(const void *)y[i], m * n);
    }
    for (size_t r = 0; r < m; r++)
        ops->act_mul((char *)g->h + (((size_t)row + r) * (size_t)j->w->n + (size_t)col) * size, y[0] + r * n * size,
            y[1] + r * n * size, j->dt, n, g->act);
    return RC_OK;
}

static void
gated_tile(void *ctx, int tile, int worker)
{
    struct gated_job *g = ctx;
    int rc;

    omp_set_num_threads(1);
    if ((rc = gated_mul(g, worker, tile)) != RC_OK)
        __atomic_store_n(&g->rc, rc, __ATOMIC_RELAXED);
}

int
cpu_gated(struct dev *dev, void *h, const void *x, enum dtype dt, int rows, const struct weight *const w[2],
    const void *const bias[2], enum act act)
{
    struct gated_job g = { .h = h, .act = act };

    if (rows == 0)
        return RC_OK;
    for (int i = 0; i < 2; i++) {
        g.mul[i] = (struct mul_job){ .dev = dev, .x = x, .bias = bias[i], .dt = dt, .ydt = dt, .w = w[i],
            .pk = w[i]->impl, .rows = rows, .mt = GATED_MT };
        TRY(mul_prims(&g.mul[i]));
    }
    pool_run(dev->pool, tiles_down(&g.mul[0]) * g.mul[0].pk->chunks, gated_tile, &g);
    return g.rc;
}

/* --- negative log likelihood: the logits of a few rows at a time --- */

struct nll_job {
    const struct ops *ops;
    const float      *logits;
    const int32_t    *target;
    double           *nll;
    int               vocab;
    float             softcap, scale;
    bool              round; /* logits as a bf16 model gives them */
};

static void
nll_row(void *ctx, int row, int worker)
{
    struct nll_job *j = ctx;
    const float *s = j->logits + (size_t)row * (size_t)j->vocab;
    float t;

    (void)worker;
    j->nll[row] = 0;
    if (j->target[row] < 0)
        return;
    t = s[j->target[row]] * j->scale;
    if (j->softcap != 0.0f)
        t = j->softcap * tanhf(t / j->softcap);
    j->nll[row] = j->ops->logsumexp(s, j->vocab, j->scale, j->softcap) - (double)t;
}

int
cpu_nll(struct dev *dev, double *nll, const void *h, enum dtype dt, int rows, const struct weight *head,
    const int32_t *target, float softcap, float logit_scale)
{
    size_t size = dt == DT_BF16 ? 2 : 4, count = (size_t)NLL_MT * (size_t)head->n;
    struct nll_job j = { .ops = cpu_of(dev)->ops, .vocab = head->n, .softcap = softcap, .scale = logit_scale };
    float *logits = mem_alloc(count, sizeof(*logits));
    uint16_t *low = dt == DT_BF16 ? mem_alloc(count, sizeof(*low)) : NULL;
    int rc = logits == NULL || (dt == DT_BF16 && low == NULL) ? RC_OS : RC_OK;

    j.logits = logits;
    for (int r = 0; r < rows && rc == RC_OK; r += NLL_MT) {
        int m = rows - r < NLL_MT ? rows - r : NLL_MT;

        rc = cpu_matmul(dev, dt == DT_BF16 ? (void *)low : (void *)logits, dt,
            (const char *)h + (size_t)r * (size_t)head->k * size, dt, m, head, NULL);
        if (rc == RC_OK && dt == DT_BF16)
            j.ops->to_f32(logits, low, (size_t)m * (size_t)head->n);
        j.target = target + r;
        j.nll = nll + r;
        if (rc == RC_OK)
            pool_run(dev->pool, m, nll_row, &j);
    }
    mem_free(low);
    mem_free(logits);
    return rc;
}
