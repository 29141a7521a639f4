/* forward - weights on the device, products by cuBLAS, the rest of the forward pass by kernels of our own
 *
 * A weight is on its way when it is packed: `in` copies it and converts it, and whatever multiplies by it waits.
 * A product is cut into GEMM_ROWS rows whatever memory there is, so that the library sees the same shapes, and gives
 * the same bytes, under any budget. bf16 products are summed in f32; f32 ones do not use TF32.
 */
#include "cuda.h"

#include "attention.cuh"
#include "ops.cuh"

enum { GEMM_ROWS = 2048, NLL_ROWS = 64, GRID_Y_MAX = 65535 };

struct cuda_weight {
    void          *p;     /* [n, k] on the device, or NULL: only the host has it */
    size_t         bytes;
    cudaEvent_t    there; /* it is; NULL with p */
    struct weight *host;  /* packed by the cpu backend, or NULL until it is needed */
};

static size_t
size_of(enum dtype dt)
{
    return dt == DT_BF16 ? 2 : 4;
}

static struct part
part_of(const void *p, size_t stride, size_t width)
{
    return (struct part){ (const char *)p, stride, width };
}

/* --- weights --- */

/* What the device has of it. `in` writes to a weight in the order of packing, so that one may be dropped on its way. */
static void
drop(struct cuda *c, struct cuda_weight *cw)
{
    if (cw->there != NULL)
        (void)cudaEventDestroy(cw->there);
    cuda_give(c, cw->p);
    cw->there = NULL;
    cw->p = NULL;
}

void
cuda_weight_free(struct dev *dev, struct weight *w)
{
    struct cuda *c = cuda_of(dev);
    struct cuda_weight *cw;

    if (w == NULL)
        return;
    if ((cw = (struct cuda_weight *)w->impl) != NULL) {
        drop(c, cw);
        c->cpu.weight_free(c->host, cw->host);
        mem_free(cw);
    }
    mem_free(w);
}

static int
convert(struct cuda *c, void *to, enum dtype dt, const void *w, enum dtype wdt, size_t count)
{
    struct map_kernel::args a = {};

    if (wdt == dt)
        return cuda_send(c, to, w, count * size_of(dt));
    a.op = MAP_CONVERT;
    a.y = to;
    a.dt = dt;
    a.xdt = wdt;
    a.count = count;
    TRY(cuda_need(c, SLOT_RAW, count * dtype_size(wdt), (void **)(uintptr_t)&a.x));
    TRY(cuda_send(c, (void *)(uintptr_t)a.x, w, count * dtype_size(wdt)));
    return cuda_launch_on<map_kernel>(c->in, cuda_blocks(count, map_kernel::THREADS), 1, a);
}

static int
pack_on_device(struct cuda *c, struct cuda_weight *cw, const void *w, enum dtype wdt, enum dtype dt, size_t count)
{
    cw->bytes = count * size_of(dt);
    TRY(cuda_take(c, USE_WEIGHT, cw->bytes, &cw->p));
    TRY(convert(c, cw->p, dt, w, wdt, count));
    CUDA_TRY(cudaEventCreateWithFlags(&cw->there, cudaEventDisableTiming));
    CUDA_TRY(cudaEventRecord(cw->there, c->in));
    return RC_OK;
}

static bool
convertible(enum dtype t)
{
    return t == DT_BF16 || t == DT_F16 || t == DT_F32 || t == DT_F8_E4M3;
}

static int
pack(struct cuda *c, struct cuda_weight *cw, const void *w, enum dtype wdt, enum dtype dt, int n, int k)
{
    int rc = RC_OS;

    cuda_begin(c);
    if (convertible(wdt))
        rc = cuda_settle(c, pack_on_device(c, cw, w, wdt, dt, (size_t)n * (size_t)k));
    if (rc != RC_OS)
        return rc;
    drop(c, cw);
    return c->cpu.weight_pack(c->host, &cw->host, w, wdt, dt, n, k);
}

int
cuda_weight_pack(struct dev *dev, struct weight **out, const void *w, enum dtype wdt, enum dtype dt, int n, int k)
{
    struct weight *p = (struct weight *)mem_zalloc(1, sizeof(*p));
    struct cuda_weight *cw = (struct cuda_weight *)mem_zalloc(1, sizeof(*cw));
    int rc;

    *out = NULL;
    if (p == NULL || cw == NULL) {
        mem_free(p);
        mem_free(cw);
        return RC_OS;
    }
    p->n = n;
    p->k = k;
    p->dt = dt;
    p->impl = cw;
    if ((rc = pack(cuda_of(dev), cw, w, wdt, dt, n, k)) != RC_OK)
        cuda_weight_free(dev, p);
    else
        *out = p;
    return rc;
}

bool
cuda_weight_fits(struct dev *dev, size_t bytes)
{
    return cuda_fits(cuda_of(dev), USE_WEIGHT, bytes);
}

/* The same weight for the cpu backend: brought back if only the device has it. */
static int
on_host(struct cuda *c, const struct weight *w, struct weight **out)
{
    struct cuda_weight *cw = (struct cuda_weight *)w->impl;
    int rc = RC_OK;
    void *tmp;

    if (cw->host == NULL) {
        CUDA_TRY(cudaStreamWaitEvent(c->run, cw->there, 0));
        if ((tmp = mem_alloc(cw->bytes, 1)) == NULL)
            return RC_OS;
        if ((rc = cuda_download(c, tmp, cw->p, cw->bytes)) == RC_OK)
            rc = c->cpu.weight_pack(c->host, &cw->host, tmp, w->dt, w->dt, w->n, w->k);
        mem_free(tmp);
    }
    *out = cw->host;
    return rc;
}

/* --- products --- */

/* y[rows, n] = x[rows, k] W' + beta y. cuBLAS counts columns first: y' = W x'. */
static int
gemm(struct cuda *c, void *y, enum dtype ydt, const void *x, const struct weight *w, int rows, float beta)
{
    const struct cuda_weight *cw = (const struct cuda_weight *)w->impl;
    cudaDataType_t t = w->dt == DT_BF16 ? CUDA_R_16BF : CUDA_R_32F, ty = ydt == DT_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    float one = 1;

    c->busy = true;
    CUDA_TRY(cudaStreamWaitEvent(c->run, cw->there, 0));
    CUBLAS_TRY(cublasGemmEx(c->blas, CUBLAS_OP_T, CUBLAS_OP_N, w->n, rows, w->k, &one, cw->p, t, w->k, x, t, w->k,
        &beta, y, ty, w->n, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
    return RC_OK;
}

struct matmul {
    const struct weight *w;
    const void          *bias; /* on the device, or NULL */
    enum dtype           dt, ydt;
};

/* The bias is what the product is added to, so that the sum is rounded once. */
static int
spread(struct cuda *c, const struct matmul *m, void *y, int rows)
{
    struct map_kernel::args a = {};

    a.op = MAP_SPREAD;
    a.y = y;
    a.x = m->bias;
    a.dt = m->ydt;
    a.xdt = m->dt;
    a.n = m->w->n;
    a.count = (size_t)rows * (size_t)m->w->n;
    return cuda_launch<map_kernel>(c, cuda_blocks(a.count, map_kernel::THREADS), 1, a);
}

static int
matmul_step(struct cuda *c, void *ctx, int, int rows, void *const *in, void *out)
{
    const struct matmul *m = (const struct matmul *)ctx;

    if (m->bias != NULL)
        TRY(spread(c, m, out, rows));
    return gemm(c, out, m->ydt, in[0], m->w, rows, m->bias != NULL ? 1.0f : 0.0f);
}

static int
matmul_on_device(struct cuda *c, void *y, enum dtype ydt, const void *x, enum dtype dt, int rows,
    const struct weight *w, const void *bias)
{
    const struct cuda_weight *cw = (const struct cuda_weight *)w->impl;
    struct matmul m = { w, NULL, dt, ydt };
    size_t n = (size_t)w->n * size_of(ydt), k = (size_t)w->k * size_of(dt);
    struct flow f = { rows, GEMM_ROWS, { part_of(x, k, k) }, part_of(y, n, n), matmul_step, &m };

    if (cw->p == NULL)
        return RC_OS;
    if (bias != NULL)
        TRY(cuda_param(c, SLOT_A, bias, (size_t)w->n * size_of(dt), &m.bias));
    return cuda_flow(c, &f);
}

static int
matmul_on_host(struct cuda *c, void *y, enum dtype ydt, const void *x, enum dtype dt, int rows,
    const struct weight *w, const void *bias)
{
    struct borrow b = { c, RC_OK, 0, {} };
    struct weight *host;
    const void *hx, *hb;
    void *hy;

    TRY(on_host(c, w, &host));
    hx = cuda_borrow(&b, x, (size_t)rows * (size_t)w->k * size_of(dt), BORROW_READ);
    hb = cuda_borrow(&b, bias, (size_t)w->n * size_of(dt), BORROW_READ);
    hy = cuda_borrow(&b, y, (size_t)rows * (size_t)w->n * size_of(ydt), BORROW_WRITE);
    return cuda_return(&b, b.rc == RC_OK ? c->cpu.matmul(c->host, hy, ydt, hx, dt, rows, host, hb) : b.rc);
}

int
cuda_matmul(struct dev *dev, void *y, enum dtype ydt, const void *x, enum dtype dt, int rows, const struct weight *w,
    const void *bias)
{
    struct cuda *c = cuda_of(dev);

    ON_DEVICE(c, matmul_on_device(c, y, ydt, x, dt, rows, w, bias), matmul_on_host(c, y, ydt, x, dt, rows, w, bias));
}

struct nll {
    struct nll_kernel::args a;
    const struct weight    *w;
    void                   *logits;
};

static int
nll_step(struct cuda *c, void *ctx, int, int rows, void *const *in, void *out)
{
    struct nll *j = (struct nll *)ctx;

    TRY(gemm(c, j->logits, j->w->dt, in[0], j->w, rows, 0));
    j->a.logits = j->logits;
    j->a.target = (const int32_t *)in[1];
    j->a.nll = (double *)out;
    return cuda_launch<nll_kernel>(c, rows, 1, j->a);
}

static int
nll_on_device(struct cuda *c, double *nll, const void *h, enum dtype dt, int rows, const struct weight *head,
    const int32_t *target, float softcap, float logit_scale)
{
    const struct cuda_weight *cw = (const struct cuda_weight *)head->impl;
    struct nll j = {};
    size_t k = (size_t)head->k * size_of(dt);
    struct flow f = { rows, NLL_ROWS, { part_of(h, k, k), part_of(target, sizeof(*target), sizeof(*target)) },
        part_of(nll, sizeof(*nll), sizeof(*nll)), nll_step, &j };

    if (cw->p == NULL || head->n > nll_kernel::VOCAB_MAX)
        return RC_OS;
    j.a.dt = dt;
    j.a.vocab = head->n;
    j.a.softcap = softcap;
    j.a.scale = logit_scale;
    j.w = head;
    TRY(cuda_need(c, SLOT_A, NLL_ROWS * (size_t)head->n * size_of(dt), &j.logits));
    return cuda_flow(c, &f);
}

static int
nll_on_host(struct cuda *c, double *nll, const void *h, enum dtype dt, int rows, const struct weight *head,
    const int32_t *target, float softcap, float logit_scale)
{
    struct borrow b = { c, RC_OK, 0, {} };
    struct weight *host;
    const void *hh;

    TRY(on_host(c, head, &host));
    hh = cuda_borrow(&b, h, (size_t)rows * (size_t)head->k * size_of(dt), BORROW_READ);
    return cuda_return(&b, b.rc == RC_OK ? c->cpu.nll(c->host, nll, hh, dt, rows, host, target, softcap, logit_scale)
        : b.rc);
}

int
cuda_nll(struct dev *dev, double *nll, const void *h, enum dtype dt, int rows, const struct weight *head,
    const int32_t *target, float softcap, float logit_scale)
{
    struct cuda *c = cuda_of(dev);

    ON_DEVICE(c, nll_on_device(c, nll, h, dt, rows, head, target, softcap, logit_scale),
        nll_on_host(c, nll, h, dt, rows, head, target, softcap, logit_scale));
}

/* --- rows --- */

static int
rmsnorm_step(struct cuda *c, void *ctx, int, int rows, void *const *in, void *out)
{
    struct rmsnorm_kernel::args a = *(const struct rmsnorm_kernel::args *)ctx;

    a.x = in[0];
    a.y = out;
    a.rows = rows;
    return cuda_launch<rmsnorm_kernel>(c, (rows + rmsnorm_kernel::ROWS - 1) / rmsnorm_kernel::ROWS, 1, a);
}

static int
rmsnorm_on_device(struct cuda *c, void *y, const void *x, const void *w, enum dtype dt, int rows, int n, float eps,
    enum norm norm)
{
    struct rmsnorm_kernel::args a = { NULL, NULL, NULL, dt, 0, n, eps, norm };
    size_t row = (size_t)n * size_of(dt);
    struct flow f = { rows, 1, { part_of(x, row, row) }, part_of(y, row, row), rmsnorm_step, &a };

    TRY(cuda_param(c, SLOT_A, w, row, &a.w));
    f.step = cuda_step(&f, 1);
    return cuda_flow(c, &f);
}

static int
rmsnorm_on_host(struct cuda *c, void *y, const void *x, const void *w, enum dtype dt, int rows, int n, float eps,
    enum norm norm)
{
    struct borrow b = { c, RC_OK, 0, {} };
    size_t row = (size_t)n * size_of(dt);
    const void *hx = cuda_borrow(&b, x, (size_t)rows * row, BORROW_READ), *hw = cuda_borrow(&b, w, row, BORROW_READ);
    void *hy = cuda_borrow(&b, y, (size_t)rows * row, BORROW_WRITE);

    return cuda_return(&b, b.rc == RC_OK ? c->cpu.rmsnorm(c->host, hy, hx, hw, dt, rows, n, eps, norm) : b.rc);
}

int
cuda_rmsnorm(struct dev *dev, void *y, const void *x, const void *w, enum dtype dt, int rows, int n, float eps,
    enum norm norm)
{
    struct cuda *c = cuda_of(dev);

    ON_DEVICE(c, rmsnorm_on_device(c, y, x, w, dt, rows, n, eps, norm),
        rmsnorm_on_host(c, y, x, w, dt, rows, n, eps, norm));
}

/* In place in the output's buffer. */
static int
rope_step(struct cuda *c, void *ctx, int row0, int rows, void *const *in, void *out)
{
    struct rope_kernel::args a = *(const struct rope_kernel::args *)ctx;
    size_t heads = (size_t)rows * (size_t)a.heads;

    a.x = out;
    a.rows = rows;
    a.row0 = row0;
    if (out != in[0])
        CUDA_TRY(cudaMemcpyAsync(out, in[0], heads * (size_t)a.head_dim * size_of(a.dt), cudaMemcpyDeviceToDevice,
            c->run));
    return cuda_launch<rope_kernel>(c, (int)((heads * (size_t)a.half + rope_kernel::THREADS - 1) /
        rope_kernel::THREADS), 1, a);
}

static int
rope_on_device(struct cuda *c, void *x, enum dtype dt, int rows, int heads, int head_dim, int ld, const void *cos_t,
    const void *sin_t, int rotary_dim, int tokens)
{
    struct rope_kernel::args a = { NULL, NULL, NULL, dt, 0, 0, heads, head_dim, rotary_dim / 2, tokens };
    size_t stride = (size_t)ld * size_of(dt), width = (size_t)heads * (size_t)head_dim * size_of(dt);
    size_t table = (size_t)tokens * (size_t)a.half * size_of(dt);
    struct flow f = { rows, 1, { part_of(x, stride, width) }, part_of(x, stride, width), rope_step, &a };

    if (a.half == 0)
        return RC_OK;
    TRY(cuda_param(c, SLOT_A, cos_t, table, &a.cos_t));
    TRY(cuda_param(c, SLOT_B, sin_t, table, &a.sin_t));
    f.step = cuda_step(&f, 1);
    return cuda_flow(c, &f);
}

/* Bytes of rows that are ld values apart. */
static size_t
extent(int rows, int ld, int width, enum dtype dt)
{
    return rows == 0 ? 0 : ((size_t)(rows - 1) * (size_t)ld + (size_t)width) * size_of(dt);
}

static int
rope_on_host(struct cuda *c, void *x, enum dtype dt, int rows, int heads, int head_dim, int ld, const void *cos_t,
    const void *sin_t, int rotary_dim, int tokens)
{
    struct borrow b = { c, RC_OK, 0, {} };
    size_t table = (size_t)tokens * (size_t)(rotary_dim / 2) * size_of(dt);
    void *hx = cuda_borrow(&b, x, extent(rows, ld, heads * head_dim, dt), BORROW_READ | BORROW_WRITE);
    const void *hc = cuda_borrow(&b, cos_t, table, BORROW_READ), *hs = cuda_borrow(&b, sin_t, table, BORROW_READ);

    return cuda_return(&b, b.rc == RC_OK ? c->cpu.rope(c->host, hx, dt, rows, heads, head_dim, ld, hc, hs, rotary_dim,
        tokens) : b.rc);
}

int
cuda_rope(struct dev *dev, void *x, enum dtype dt, int rows, int heads, int head_dim, int ld, const void *cos_t,
    const void *sin_t, int rotary_dim, int tokens)
{
    struct cuda *c = cuda_of(dev);

    ON_DEVICE(c, rope_on_device(c, x, dt, rows, heads, head_dim, ld, cos_t, sin_t, rotary_dim, tokens),
        rope_on_host(c, x, dt, rows, heads, head_dim, ld, cos_t, sin_t, rotary_dim, tokens));
}

/* A step is whole sequences. */
static int
attention_step(struct cuda *c, void *ctx, int, int rows, void *const *in, void *out)
{
    struct attention_args a = *(const struct attention_args *)ctx;
    int tiles = (a.at.tokens + attention_kernel<64>::QUERIES - 1) / attention_kernel<64>::QUERIES;
    int height = rows / a.at.tokens * a.at.heads;

    a.q = in[0];
    a.k = in[1];
    a.v = in[2];
    a.o = out;
    if (a.at.head_dim <= 64)
        return cuda_launch<attention_kernel<64>>(c, tiles, height, a);
    if (a.at.head_dim <= 128)
        return cuda_launch<attention_kernel<128>>(c, tiles, height, a);
    return cuda_launch<attention_kernel<256>>(c, tiles, height, a);
}

static int
attention_on_device(struct cuda *c, void *o, const void *q, int ldq, const void *k, int ldk, const void *v, int ldv,
    enum dtype dt, int rows, const struct attn_args *at)
{
    size_t size = size_of(dt), qo = (size_t)at->heads * (size_t)at->head_dim * size;
    size_t kv = (size_t)at->kv_heads * (size_t)at->head_dim * size;
    struct attention_args a = { NULL, NULL, NULL, NULL, dt, *at };
    struct flow f = { rows, 1, { part_of(q, (size_t)ldq * size, qo), part_of(k, (size_t)ldk * size, kv),
        part_of(v, (size_t)ldv * size, kv) }, part_of(o, qo, qo), attention_step, &a };
    int most = GRID_Y_MAX / at->heads * at->tokens;

    if (at->head_dim > 256 || at->heads > GRID_Y_MAX)
        return RC_OS;
    f.step = cuda_step(&f, at->tokens);
    f.step = f.step > most ? most : f.step;
    return cuda_flow(c, &f);
}

static int
attention_on_host(struct cuda *c, void *o, const void *q, int ldq, const void *k, int ldk, const void *v, int ldv,
    enum dtype dt, int rows, const struct attn_args *a)
{
    struct borrow b = { c, RC_OK, 0, {} };
    int qo = a->heads * a->head_dim, kv = a->kv_heads * a->head_dim;
    const void *hq = cuda_borrow(&b, q, extent(rows, ldq, qo, dt), BORROW_READ);
    const void *hk = cuda_borrow(&b, k, extent(rows, ldk, kv, dt), BORROW_READ);
    const void *hv = cuda_borrow(&b, v, extent(rows, ldv, kv, dt), BORROW_READ);
    void *ho = cuda_borrow(&b, o, extent(rows, qo, qo, dt), BORROW_WRITE);

    return cuda_return(&b, b.rc == RC_OK ? c->cpu.attention(c->host, ho, hq, ldq, hk, ldk, hv, ldv, dt, rows, a)
        : b.rc);
}

int
cuda_attention(struct dev *dev, void *o, const void *q, int ldq, const void *k, int ldk, const void *v, int ldv,
    enum dtype dt, int rows, const struct attn_args *a)
{
    struct cuda *c = cuda_of(dev);

    ON_DEVICE(c, attention_on_device(c, o, q, ldq, k, ldk, v, ldv, dt, rows, a),
        attention_on_host(c, o, q, ldq, k, ldk, v, ldv, dt, rows, a));
}

/* --- elements --- */

static int
map_step(struct cuda *c, void *ctx, int, int rows, void *const *in, void *out)
{
    struct map_kernel::args a = *(const struct map_kernel::args *)ctx;

    a.x = in[0];
    a.u = in[1];
    a.y = out;
    a.count = (size_t)rows;
    return cuda_launch<map_kernel>(c, cuda_blocks(a.count, map_kernel::THREADS), 1, a);
}

/* Elements are rows of one; steps of at most 2^30 of them. */
static int
map(struct cuda *c, struct map_kernel::args a, void *y, const void *x, const void *u, size_t count)
{
    enum { MOST = 1 << 30 };
    size_t size = size_of(a.dt);

    for (size_t at = 0; at < count; at += MOST) {
        size_t bytes = at * size, left = count - at;
        struct flow f = { left < MOST ? (int)left : MOST, 1, { part_of((const char *)x + bytes, size, size) },
            part_of((char *)y + bytes, size, size), map_step, &a };
        int rc;

        if (u != NULL)
            f.in[1] = part_of((const char *)u + bytes, size, size);
        f.step = cuda_step(&f, 1);
        if ((rc = cuda_flow(c, &f)) != RC_OK)
            return rc == RC_OS && at > 0 ? RC_UNAVAILABLE : rc;
    }
    return RC_OK;
}

static int
act_mul_on_host(struct cuda *c, void *y, const void *g, const void *u, enum dtype dt, size_t count, enum act act)
{
    struct borrow b = { c, RC_OK, 0, {} };
    const void *hg = cuda_borrow(&b, g, count * size_of(dt), BORROW_READ);
    const void *hu = cuda_borrow(&b, u, count * size_of(dt), BORROW_READ);
    void *hy = cuda_borrow(&b, y, count * size_of(dt), BORROW_WRITE);

    return cuda_return(&b, b.rc == RC_OK ? c->cpu.act_mul(c->host, hy, hg, hu, dt, count, act) : b.rc);
}

int
cuda_act_mul(struct dev *dev, void *y, const void *g, const void *u, enum dtype dt, size_t count, enum act act)
{
    struct cuda *c = cuda_of(dev);
    struct map_kernel::args a = { MAP_ACT_MUL, NULL, NULL, NULL, dt, dt, 0, 0, 0, act };

    ON_DEVICE(c, map(c, a, y, g, u, count), act_mul_on_host(c, y, g, u, dt, count, act));
}

static int
add_on_host(struct cuda *c, void *x, const void *y, enum dtype dt, size_t count)
{
    struct borrow b = { c, RC_OK, 0, {} };
    void *hx = cuda_borrow(&b, x, count * size_of(dt), BORROW_READ | BORROW_WRITE);
    const void *hy = cuda_borrow(&b, y, count * size_of(dt), BORROW_READ);

    return cuda_return(&b, b.rc == RC_OK ? c->cpu.add(c->host, hx, hy, dt, count) : b.rc);
}

int
cuda_add(struct dev *dev, void *x, const void *y, enum dtype dt, size_t count)
{
    struct cuda *c = cuda_of(dev);
    struct map_kernel::args a = { MAP_ADD, NULL, NULL, NULL, dt, dt, 0, 0, 0, ACT_SILU };

    ON_DEVICE(c, map(c, a, x, x, y, count), add_on_host(c, x, y, dt, count));
}

static int
scale_on_host(struct cuda *c, void *x, enum dtype dt, size_t count, float s)
{
    struct borrow b = { c, RC_OK, 0, {} };
    void *hx = cuda_borrow(&b, x, count * size_of(dt), BORROW_READ | BORROW_WRITE);

    return cuda_return(&b, b.rc == RC_OK ? c->cpu.scale(c->host, hx, dt, count, s) : b.rc);
}

int
cuda_scale(struct dev *dev, void *x, enum dtype dt, size_t count, float s)
{
    struct cuda *c = cuda_of(dev);
    struct map_kernel::args a = { MAP_SCALE, NULL, NULL, NULL, dt, dt, 0, 0, s, ACT_SILU };

    ON_DEVICE(c, map(c, a, x, x, NULL, count), scale_on_host(c, x, dt, count, s));
}
