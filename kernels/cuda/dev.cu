/* dev - the device: open and close, copies through pinned buffers, flows, the table of members */
#include "cuda.h"

static const size_t PIECE = 8 << 20,       /* bytes of one pinned copy */
    STAGE                 = 32 << 20,      /* bytes of one step of a flow */
    COPY_TILE             = 256 << 10,
    WORKSPACE             = 32 << 20, /* of cuBLAS, ours, so that the choice of kernel does not depend on streams */
    BUDGET_MIN            = 128 << 20;

int
cublas_failed(cublasStatus_t s, const char *what)
{
    return err_set(s == CUBLAS_STATUS_ALLOC_FAILED ? RC_OS : RC_UNAVAILABLE, "cuBLAS: %s: %s",
        cublasGetStatusString(s), what);
}

/* The library has no text for its codes. */
int
cusolver_failed(cusolverStatus_t s, const char *what)
{
    return err_set(s == CUSOLVER_STATUS_ALLOC_FAILED ? RC_OS : RC_UNAVAILABLE, "cuSOLVER: status %d: %s", (int)s, what);
}

/* --- open and close --- */

static void
cuda_close(struct dev *dev)
{
    struct cuda *c;

    if (dev == NULL)
        return;
    if ((c = cuda_of(dev)) != NULL) {
        cuda_idle(c);
        for (int i = 0; i < SLOT_COUNT; i++)
            (void)cudaFree(c->slot[i].p);
        for (size_t i = 0; i < c->piece_count; i++)
            if (c->piece[i].use != USE_LENT)
                (void)cudaFree(c->piece[i].p);
        mem_free(c->piece);
        for (auto &pin : c->pin)
            (void)cudaFreeHost(pin.p);
        if (c->solver != NULL)
            (void)cusolverDnDestroy(c->solver);
        if (c->blas != NULL)
            (void)cublasDestroy(c->blas);
        (void)cudaFree(c->workspace);
        for (int i = 0; i < 2; i++)
            for (cudaEvent_t e : { c->in_done[i], c->run_done[i], c->out_done[i] })
                if (e != NULL)
                    (void)cudaEventDestroy(e);
        if (c->turn != NULL)
            (void)cudaEventDestroy(c->turn);
        for (cudaStream_t s : { c->in, c->run, c->out })
            if (s != NULL)
                (void)cudaStreamDestroy(s);
        if (c->host != NULL)
            c->cpu.close(c->host);
    }
    mem_free(c);
    mem_free(dev);
}

static int
open_streams(struct cuda *c)
{
    for (cudaStream_t *s : { &c->in, &c->run, &c->out })
        CUDA_TRY(cudaStreamCreateWithFlags(s, cudaStreamNonBlocking));
    for (int i = 0; i < 2; i++)
        for (cudaEvent_t *e : { &c->in_done[i], &c->run_done[i], &c->out_done[i] })
            CUDA_TRY(cudaEventCreateWithFlags(e, cudaEventDisableTiming));
    CUDA_TRY(cudaEventCreateWithFlags(&c->turn, cudaEventDisableTiming));
    return RC_OK;
}

static int
open_device(struct cuda *c, const struct dev_opts *o)
{
    size_t available, total;

    TRY(choose_device());
    CUDA_TRY(cudaMemGetInfo(&available, &total));
    c->budget = o->device_bytes > 0 && o->device_bytes < available ? o->device_bytes : available / 10 * 9;
    if (c->budget < BUDGET_MIN)
        return err_set(RC_UNAVAILABLE, "CUDA: %zu bytes of device memory are free or allowed, want %zu at least",
            c->budget, BUDGET_MIN);
    c->budget -= WORKSPACE;
    TRY(open_streams(c));
    CUDA_TRY(cudaMalloc(&c->workspace, WORKSPACE));
    CUBLAS_TRY(cublasCreate(&c->blas));
    CUBLAS_TRY(cublasSetStream(c->blas, c->run));
    CUBLAS_TRY(cublasSetWorkspace(c->blas, c->workspace, WORKSPACE));
    CUBLAS_TRY(cublasSetMathMode(c->blas,
        (cublasMath_t)(CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION)));
    return RC_OK;
}

static int
cuda_open(struct dev **out, const struct dev_opts *o)
{
    struct dev *dev = (struct dev *)mem_zalloc(1, sizeof(*dev));
    struct cuda *c = (struct cuda *)mem_zalloc(1, sizeof(*c));
    int rc = RC_OS;

    *out = NULL;
    if (dev == NULL || c == NULL) {
        mem_free(c);
        mem_free(dev);
        return RC_OS;
    }
    dev->impl = c;
    c->cpu = backend_cpu;
    backend_fill(&c->cpu);
    if ((rc = open_device(c, o)) != RC_OK || (rc = c->cpu.open(&c->host, o)) != RC_OK) {
        cuda_close(dev);
        return rc == RC_OS ? RC_UNAVAILABLE : rc;
    }
    dev->pool = c->host->pool;
    *out = dev;
    return RC_OK;
}

void
cuda_begin(struct cuda *c)
{
    c->member++;
    c->followed = false;
}

void
cuda_idle(struct cuda *c)
{
    for (cudaStream_t s : { c->in, c->run })
        if (s != NULL)
            (void)cudaStreamSynchronize(s);
    c->busy = false;
}

int
cuda_settle(struct cuda *c, int rc)
{
    if (rc != RC_OK) {
        cuda_idle(c);
        (void)cudaStreamSynchronize(c->out);
    }
    return rc;
}

/* --- copies --- */

static int
need_pin(struct cuda *c, int i, size_t bytes)
{
    void *p;

    if (c->pin[i].bytes >= bytes)
        return RC_OK;
    CUDA_TRY(cudaMallocHost(&p, bytes));
    CUDA_TRY(cudaEventSynchronize(i < 2 ? c->in_done[i] : c->out_done[i - 2])); /* a copy may still read the old one */
    (void)cudaFreeHost(c->pin[i].p);
    c->pin[i].p = p;
    c->pin[i].bytes = bytes;
    return RC_OK;
}

int
cuda_pins(struct cuda *c)
{
    for (int i = 0; i < 4; i++)
        TRY(need_pin(c, i, PIECE));
    return RC_OK;
}

/* `in` must not write to what a member before this one may still read. */
static int
follow(struct cuda *c)
{
    if (!c->busy || c->followed)
        return RC_OK;
    CUDA_TRY(cudaEventRecord(c->turn, c->run));
    CUDA_TRY(cudaStreamWaitEvent(c->in, c->turn, 0));
    c->followed = true;
    return RC_OK;
}

/* --- copies between pageable and pinned memory, on the pool --- */

struct copy {
    char       *to;
    const char *from;
    size_t      to_stride, from_stride, width;
    int         rows, tile; /* rows of a tile */
};

static void
copy_tile(void *ctx, int tile, int)
{
    const struct copy *j = (const struct copy *)ctx;
    int end = (tile + 1) * j->tile < j->rows ? (tile + 1) * j->tile : j->rows;

    for (int r = tile * j->tile; r < end; r++)
        memcpy(j->to + (size_t)r * j->to_stride, j->from + (size_t)r * j->from_stride, j->width);
}

/* Rows that follow one another are cut anew, so that neither narrow nor long ones matter. */
static void
copy_rows(struct cuda *c, struct copy j)
{
    size_t bytes = (size_t)j.rows * j.width, whole = bytes / COPY_TILE;

    if (j.to_stride == j.width && j.from_stride == j.width) {
        struct copy cut = { j.to, j.from, COPY_TILE, COPY_TILE, COPY_TILE, (int)whole, 1 };

        pool_run(c->host->pool, cut.rows, copy_tile, &cut);
        memcpy(j.to + whole * COPY_TILE, j.from + whole * COPY_TILE, bytes - whole * COPY_TILE);
        return;
    }
    j.tile = (int)(COPY_TILE / j.width) + 1;
    pool_run(c->host->pool, (j.rows + j.tile - 1) / j.tile, copy_tile, &j);
}

int
cuda_send(struct cuda *c, void *to, const void *from, size_t bytes)
{
    for (int i = 0; i < 2; i++)
        TRY(need_pin(c, i, bytes < PIECE ? bytes : PIECE));
    for (size_t at = 0; at < bytes; at += PIECE) {
        size_t part = bytes - at < PIECE ? bytes - at : PIECE;
        int i = c->next_in;

        CUDA_TRY(cudaEventSynchronize(c->in_done[i]));
        copy_rows(c, (struct copy){ (char *)c->pin[i].p, (const char *)from + at, part, part, part, 1, 1 });
        CUDA_TRY(cudaMemcpyAsync((char *)to + at, c->pin[i].p, part, cudaMemcpyHostToDevice, c->in));
        CUDA_TRY(cudaEventRecord(c->in_done[i], c->in));
        c->next_in ^= 1;
    }
    return RC_OK;
}

int
cuda_upload(struct cuda *c, void *to, const void *from, size_t bytes)
{
    TRY(follow(c));
    TRY(cuda_send(c, to, from, bytes));
    if (bytes > 0)
        CUDA_TRY(cudaStreamWaitEvent(c->run, c->in_done[c->next_in ^ 1], 0));
    return RC_OK;
}

int
cuda_drain(struct cuda *c, cudaEvent_t event, const void *from, size_t bytes,
    void (*take)(void *ctx, struct pool *pool, size_t at, const void *data, size_t bytes), void *ctx)
{
    size_t pieces = (bytes + PIECE - 1) / PIECE;

    for (int i = 0; i < 2; i++)
        TRY(need_pin(c, 2 + i, bytes < PIECE ? bytes : PIECE));
    CUDA_TRY(cudaStreamWaitEvent(c->out, event, 0));
    for (size_t i = 0; i <= pieces; i++) {
        size_t at = i * PIECE, part = i == pieces ? 0 : bytes - at < PIECE ? bytes - at : PIECE;

        if (part > 0) {
            CUDA_TRY(cudaMemcpyAsync(c->pin[2 + i % 2].p, (const char *)from + at, part, cudaMemcpyDeviceToHost,
                c->out));
            CUDA_TRY(cudaEventRecord(c->out_done[i % 2], c->out));
        }
        if (i > 0) {
            size_t done = at - PIECE;

            CUDA_TRY(cudaEventSynchronize(c->out_done[(i - 1) % 2]));
            take(ctx, c->host->pool, done, c->pin[2 + (i - 1) % 2].p, bytes - done < PIECE ? bytes - done : PIECE);
        }
    }
    return RC_OK;
}

struct target {
    struct cuda *c;
    char        *to;
};

static void
copy_bytes(void *ctx, struct pool *, size_t at, const void *data, size_t bytes)
{
    const struct target *t = (const struct target *)ctx;

    copy_rows(t->c, (struct copy){ t->to + at, (const char *)data, bytes, bytes, bytes, 1, 1 });
}

int
cuda_download(struct cuda *c, void *to, const void *from, size_t bytes)
{
    struct target t = { c, (char *)to };

    CUDA_TRY(cudaEventRecord(c->run_done[0], c->run));
    TRY(cuda_drain(c, c->run_done[0], from, bytes, copy_bytes, &t));
    c->busy = c->busy && bytes == 0;
    return RC_OK;
}

/* --- flows --- */

int
cuda_step(const struct flow *f, int unit)
{
    size_t row = f->out.width, step;

    for (const struct part &in : f->in)
        row += in.width;
    step = STAGE / row / (size_t)unit * (size_t)unit;
    return step > 1 << 30 ? (1 << 30) / unit * unit : step < (size_t)unit ? unit : (int)step;
}

struct steps {
    bool  here[CUDA_INPUTS], out_here; /* on the device, rows close together: in place */
    void *in[2][CUDA_INPUTS], *out[2];
};

static bool
in_place(const struct cuda *c, const struct part *p)
{
    return p->stride == p->width && cuda_has(c, p->p);
}

static char *
row_of(const struct part *p, int row)
{
    return (char *)(uintptr_t)p->p + (size_t)row * p->stride;
}

/* All of it is on the device. */
static bool
flow_stays(struct cuda *c, const struct flow *f, struct steps *s)
{
    bool stays;

    s->out_here = f->out.p != NULL && in_place(c, &f->out);
    stays = s->out_here || f->out.p == NULL;
    for (int k = 0; k < CUDA_INPUTS; k++) {
        s->here[k] = f->in[k].p != NULL && in_place(c, &f->in[k]);
        stays = stays && (s->here[k] || f->in[k].p == NULL);
    }
    return stays;
}

static int
flow_there(struct cuda *c, const struct flow *f)
{
    void *in[CUDA_INPUTS] = { NULL, NULL, NULL };

    for (int row = 0; row < f->rows; row += f->step) {
        int rows = f->rows - row < f->step ? f->rows - row : f->step;

        for (int k = 0; k < CUDA_INPUTS; k++)
            in[k] = f->in[k].p != NULL ? row_of(&f->in[k], row) : NULL;
        TRY(f->launch(c, f->ctx, row, rows, in, f->out.p != NULL ? row_of(&f->out, row) : NULL));
    }
    return RC_OK;
}

static int
flow_rooms(struct cuda *c, const struct flow *f, struct steps *s)
{
    size_t step = (size_t)(f->step < f->rows ? f->step : f->rows), inward = 0;

    for (int i = 0; i < 2 && (i == 0 || f->rows > f->step); i++) {
        inward = 0;
        for (int k = 0; k < CUDA_INPUTS; k++) {
            if (f->in[k].p == NULL || s->here[k])
                continue;
            TRY(cuda_need(c, SLOT_IN + 2 * k + i, step * f->in[k].width, &s->in[i][k]));
            inward += step * f->in[k].width;
        }
        if (f->out.p != NULL && !s->out_here)
            TRY(cuda_need(c, SLOT_OUT + i, step * f->out.width, &s->out[i]));
        TRY(need_pin(c, i, inward));
        TRY(need_pin(c, 2 + i, (s->out_here ? 0 : step * f->out.width) + 1));
    }
    return follow(c);
}

/* The inputs of rows from row0 on, into pair i of the buffers. */
static int
flow_in(struct cuda *c, const struct flow *f, struct steps *s, int i, int row0, int rows)
{
    char *pin = (char *)c->pin[i].p;

    CUDA_TRY(cudaEventSynchronize(c->in_done[i]));
    for (int k = 0; k < CUDA_INPUTS; k++) {
        const struct part *p = &f->in[k];

        if (p->p == NULL)
            continue;
        if (s->here[k]) {
            s->in[i][k] = row_of(p, row0);
        } else if (cuda_has(c, p->p)) {
            CUDA_TRY(cudaMemcpy2DAsync(s->in[i][k], p->width, row_of(p, row0), p->stride, p->width, (size_t)rows,
                cudaMemcpyDeviceToDevice, c->run));
        } else {
            copy_rows(c, (struct copy){ pin, row_of(p, row0), p->width, p->stride, p->width, rows, 1 });
            CUDA_TRY(cudaMemcpyAsync(s->in[i][k], pin, (size_t)rows * p->width, cudaMemcpyHostToDevice, c->in));
            pin += (size_t)rows * p->width;
        }
    }
    CUDA_TRY(cudaEventRecord(c->in_done[i], c->in));
    CUDA_TRY(cudaStreamWaitEvent(c->run, c->in_done[i], 0));
    if (s->out_here)
        s->out[i] = row_of(&f->out, row0);
    return RC_OK;
}

static int
flow_out(struct cuda *c, const struct flow *f, const struct steps *s, int i, int row0, int rows)
{
    bool apart = f->out.p != NULL && !s->out_here && cuda_has(c, f->out.p);

    if (apart)
        CUDA_TRY(cudaMemcpy2DAsync(row_of(&f->out, row0), f->out.stride, s->out[i], f->out.width, f->out.width,
            (size_t)rows, cudaMemcpyDeviceToDevice, c->run));
    CUDA_TRY(cudaEventRecord(c->run_done[i], c->run));
    if (f->out.p == NULL || s->out_here || apart)
        return RC_OK;
    CUDA_TRY(cudaStreamWaitEvent(c->out, c->run_done[i], 0));
    CUDA_TRY(cudaMemcpyAsync(c->pin[2 + i].p, s->out[i], (size_t)rows * f->out.width, cudaMemcpyDeviceToHost, c->out));
    CUDA_TRY(cudaEventRecord(c->out_done[i], c->out));
    return RC_OK;
}

/* Waits for what was computed of rows from row0 on, and hands it over. */
static int
flow_take(struct cuda *c, const struct flow *f, int i, int row0, int rows)
{
    CUDA_TRY(cudaEventSynchronize(c->run_done[i])); /* an input's buffer may now be written to */
    if (f->out.p == NULL || cuda_has(c, f->out.p))
        return RC_OK;
    CUDA_TRY(cudaEventSynchronize(c->out_done[i]));
    copy_rows(c, (struct copy){ row_of(&f->out, row0), (const char *)c->pin[2 + i].p, f->out.stride, f->out.width,
        f->out.width, rows, 1 });
    return RC_OK;
}

static int
flow_steps(struct cuda *c, const struct flow *f, struct steps *s, bool *taken)
{
    int last = -1, i = 0, left = 0;

    for (int row = 0; row < f->rows; row += f->step, i ^= 1) {
        int rows = f->rows - row < f->step ? f->rows - row : f->step;

        TRY(flow_in(c, f, s, i, row, rows));
        TRY(f->launch(c, f->ctx, row, rows, s->in[i], s->out[i]));
        TRY(flow_out(c, f, s, i, row, rows));
        if (last >= 0) {
            *taken = true;
            TRY(flow_take(c, f, i ^ 1, last, left));
        }
        last = row;
        left = rows;
    }
    TRY(flow_take(c, f, i ^ 1, last, left));
    c->busy = false;
    return RC_OK;
}

int
cuda_flow(struct cuda *c, const struct flow *f)
{
    struct steps s = {};
    bool taken = false;
    int rc;

    if (f->rows == 0)
        return RC_OK;
    if (flow_stays(c, f, &s))
        return flow_there(c, f);
    TRY(flow_rooms(c, f, &s));
    rc = flow_steps(c, f, &s, &taken);
    return rc == RC_OS && taken ? RC_UNAVAILABLE : rc; /* what is half done in place cannot be begun again */
}

extern "C" {

/* What backend.c looks for. The sizes tell another version's table from ours. */
extern const struct backend backend_cuda;
extern const size_t backend_cuda_sizes[BACKEND_SIZE_COUNT];
int backend_cuda_probe(void);

/* RC_UNAVAILABLE: there is no device. */
int
backend_cuda_probe(void)
{
    int count;

    return count_devices(&count);
}

const size_t backend_cuda_sizes[BACKEND_SIZE_COUNT] = BACKEND_SIZES;
const struct backend backend_cuda = {
    .name = "cuda", .host = false, .open = cuda_open, .close = cuda_close,
    .alloc = cuda_alloc, .release = cuda_release, .holds = cuda_holds, .copy = cuda_copy, .zero = cuda_zero,
    .share_make = cuda_share_make, .share_open = cuda_share_open, .share_put = cuda_share_put,
    .share_get = cuda_share_get, .share_close = cuda_share_close,
    .weight_pack = cuda_weight_pack, .weight_free = cuda_weight_free, .weight_fits = cuda_weight_fits,
    .matmul = cuda_matmul,
    .rmsnorm = cuda_rmsnorm, .rope = cuda_rope, .attention = cuda_attention, .act_mul = cuda_act_mul,
    .scale = cuda_scale, .add = cuda_add, .gather = cuda_gather, .add_rows = cuda_add_rows, .nll = cuda_nll,
    .round_act = cuda_round_act, .range = cuda_range,
    .syrk = cuda_syrk, .cross = cuda_cross, .colsq = cuda_colsq, .distance = cuda_distance,
    .scales = cuda_scales, .factor = cuda_factor, .gptq = cuda_gptq, .gptq_batch = cuda_gptq_batch,
    .correction = cuda_correction, .correct = cuda_correct,
};

}
