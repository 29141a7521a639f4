/* hess - sums of x x' and of squares, extremes and rounding of activations, scales of weights
 *
 * The triangle is cut into panels of PANEL rows. A panel's products of all chunks are added on the device, from zero;
 * what comes back is added to the caller's sums by the host, exactly, while the device works on the next panel. Shapes
 * of products depend on n and rows alone, so bytes do not depend on the memory there is. Products of two matrices go
 * the same way, in panels of whole rows.
 */
#include "cuda.h"

#include "hess.cuh"
#include "round.cuh"

enum { PANEL = 256, SEARCH_MAX = 1 << 16 };

static size_t
size_of(enum dtype dt)
{
    return dt == DT_BF16 ? 2 : 4;
}

/* --- Hessians --- */

struct syrk {
    struct cuda        *c;
    double             *acc;
    enum dtype          dt;
    int                 n, rows; /* on the device */
    bool                square;  /* left is not x, and all columns count */
    void               *x, *left, *product, *delta[2];
    struct grid_kernel::args a;
};

/* Sums before row i. */
static size_t
row_at(const struct syrk *j, int i)
{
    return j->square ? (size_t)i * (size_t)j->n : packed_row(i);
}

static size_t
panel_bytes(const struct syrk *j, int i0)
{
    int end = i0 + PANEL < j->n ? i0 + PANEL : j->n;

    return (row_at(j, end) - row_at(j, i0)) * sizeof(double);
}

/* One chunk: c[m, cols] = LEFT[:, i0..]' X. cuBLAS counts columns first. */
static int
product(struct syrk *j, int r0, int i0, int m, int cols)
{
    int r = j->rows - r0 < HESS_CHUNK ? j->rows - r0 : HESS_CHUNK;
    size_t at = (size_t)r0 * (size_t)j->n * size_of(j->dt);
    const char *x = (const char *)j->x + at, *left = (const char *)j->left + at;
    cudaDataType_t t = j->dt == DT_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    float one = 1, zero = 0;

    j->c->busy = true;
    CUBLAS_TRY(cublasGemmEx(j->c->blas, CUBLAS_OP_N, CUBLAS_OP_T, cols, m, r, &one, x, t, j->n,
        left + (size_t)i0 * size_of(j->dt), t, j->n, &zero, j->product, CUDA_R_32F, cols, CUBLAS_COMPUTE_32F,
        CUBLAS_GEMM_DEFAULT));
    return RC_OK;
}

static int
panel(struct syrk *j, int i0, void *delta)
{
    int m = j->n - i0 < PANEL ? j->n - i0 : PANEL, cols = j->square ? j->n : i0 + m;
    struct grid_kernel::args a = j->a;

    j->c->busy = true;
    CUDA_TRY(cudaMemsetAsync(delta, 0, panel_bytes(j, i0), j->c->run));
    for (int r0 = 0; r0 < j->rows; r0 += HESS_CHUNK) {
        TRY(product(j, r0, i0, m, cols));
        a.acc = (double *)delta;
        a.c = (const float *)j->product;
        a.i0 = i0;
        a.cols = cols;
        TRY(cuda_launch<grid_kernel>(j->c, (cols + grid_kernel::THREADS - 1) / grid_kernel::THREADS, m, a));
    }
    return RC_OK;
}

static const size_t ADD_TILE = 1 << 15;

struct add {
    double       *to;
    const double *from;
    size_t        count;
};

static void
add_tile(void *ctx, int tile, int)
{
    const struct add *j = (const struct add *)ctx;
    size_t end = ((size_t)tile + 1) * ADD_TILE < j->count ? ((size_t)tile + 1) * ADD_TILE : j->count;

    for (size_t i = (size_t)tile * ADD_TILE; i < end; i++)
        j->to[i] += j->from[i];
}

static void
add_piece(void *ctx, struct pool *pool, size_t at, const void *data, size_t bytes)
{
    struct add j = { (double *)ctx + at / sizeof(double), (const double *)data, bytes / sizeof(double) };

    pool_run(pool, (int)((j.count + ADD_TILE - 1) / ADD_TILE), add_tile, &j);
}

static int
drain_panel(struct syrk *j, int i0)
{
    int i = i0 / PANEL % 2;

    return cuda_drain(j->c, j->c->run_done[i], j->delta[i], panel_bytes(j, i0), add_piece,
        j->acc + row_at(j, i0));
}

/* Rows that are on the device, into the sums. */
static int
syrk_rows(struct syrk *j)
{
    int last = -1;

    for (int i0 = 0; i0 < j->n; i0 += PANEL) {
        TRY(panel(j, i0, j->delta[i0 / PANEL % 2]));
        CUDA_TRY(cudaEventRecord(j->c->run_done[i0 / PANEL % 2], j->c->run));
        if (last >= 0)
            TRY(drain_panel(j, last));
        last = i0;
    }
    TRY(drain_panel(j, last));
    j->c->busy = false;
    return RC_OK;
}

/* Rows that the device takes at once: whole chunks in half of what is left. */
static int
rows_at_once(const struct syrk *j, int rows)
{
    size_t most = cuda_room(j->c) / (j->square ? 4 : 2) / ((size_t)j->n * size_of(j->dt)) / HESS_CHUNK * HESS_CHUNK;

    most = most < HESS_CHUNK ? (size_t)HESS_CHUNK : most;
    return (size_t)rows < most ? rows : (int)most;
}

/* Rows of an operand from r on: where the device has them, or uploaded. */
static int
operand(struct syrk *j, const void *from, int r, void *room, void **out)
{
    size_t row = (size_t)j->n * size_of(j->dt);

    *out = room;
    if (room != NULL)
        return cuda_upload(j->c, room, (const char *)from + (size_t)r * row, (size_t)j->rows * row);
    *out = (char *)(uintptr_t)from + (size_t)r * row;
    return RC_OK;
}

/* left, el NULL: the triangle of X'X. */
static int
sums_on_device(struct cuda *c, double *acc, const void *left, const void *x, enum dtype dt, int rows, int n,
    const int16_t *el, const int16_t *e)
{
    struct syrk j = { c, acc, dt, n, 0, left != NULL, NULL, NULL, NULL, { NULL, NULL }, {} };
    size_t row = (size_t)n * size_of(dt), last = panel_bytes(&j, (n - 1) / PANEL * PANEL);
    size_t largest = n > PANEL && panel_bytes(&j, (n - 1) / PANEL * PANEL - PANEL) > last
        ? panel_bytes(&j, (n - 1) / PANEL * PANEL - PANEL) : last;
    int at_once = rows_at_once(&j, rows);
    void *room = NULL, *left_room = NULL;
    int16_t *grid;
    int rc;

    if (!cuda_has(c, x))
        TRY(cuda_need(c, SLOT_A, (size_t)at_once * row, &room));
    TRY(cuda_need(c, SLOT_B, (size_t)(n < PANEL ? n : PANEL) * (size_t)n * sizeof(float), &j.product));
    TRY(cuda_need(c, SLOT_C, 2 * (size_t)n * sizeof(*e), (void **)&grid));
    TRY(cuda_need(c, SLOT_D, largest, &j.delta[0]));
    TRY(cuda_need(c, SLOT_E, largest, &j.delta[1]));
    if (left != NULL && !cuda_has(c, left))
        TRY(cuda_need(c, SLOT_F, (size_t)at_once * row, &left_room));
    TRY(cuda_upload(c, grid, e, (size_t)n * sizeof(*e)));
    TRY(cuda_upload(c, grid + n, el != NULL ? el : e, (size_t)n * sizeof(*e)));
    j.a.e = grid;
    j.a.el = grid + n;
    j.a.square = j.square;
    for (int r = 0; r < rows; r += at_once) {
        j.rows = rows - r < at_once ? rows - r : at_once;
        TRY(operand(&j, x, r, room, &j.x));
        j.left = j.x;
        if (left != NULL)
            TRY(operand(&j, left, r, left_room, &j.left));
        if ((rc = syrk_rows(&j)) != RC_OK)
            return rc == RC_OS ? RC_UNAVAILABLE : rc; /* some is added: it cannot be begun again */
    }
    return RC_OK;
}

static int
syrk_on_host(struct cuda *c, double *acc, const void *x, enum dtype dt, int rows, int n, const int16_t *e)
{
    struct borrow b = { c, RC_OK, 0, {} };
    const void *hx = cuda_borrow(&b, x, (size_t)rows * (size_t)n * size_of(dt), BORROW_READ);

    return cuda_return(&b, b.rc == RC_OK ? c->cpu.syrk(c->host, acc, hx, dt, rows, n, e) : b.rc);
}

static int
cross_on_host(struct cuda *c, double *acc, const void *xf, const void *x, enum dtype dt, int rows, int n,
    const int16_t *ef, const int16_t *e)
{
    struct borrow b = { c, RC_OK, 0, {} };
    size_t bytes = (size_t)rows * (size_t)n * size_of(dt);
    const void *hf = cuda_borrow(&b, xf, bytes, BORROW_READ), *hx = cuda_borrow(&b, x, bytes, BORROW_READ);

    return cuda_return(&b, b.rc == RC_OK ? c->cpu.cross(c->host, acc, hf, hx, dt, rows, n, ef, e) : b.rc);
}

int
cuda_syrk(struct dev *dev, double *acc, const void *x, enum dtype dt, int rows, int n, const int16_t *e)
{
    struct cuda *c = cuda_of(dev);

    ON_DEVICE(c, sums_on_device(c, acc, NULL, x, dt, rows, n, NULL, e),
        syrk_on_host(c, acc, x, dt, rows, n, e));
}

int
cuda_cross(struct dev *dev, double *acc, const void *xf, const void *x, enum dtype dt, int rows, int n,
    const int16_t *ef, const int16_t *e)
{
    struct cuda *c = cuda_of(dev);

    ON_DEVICE(c, sums_on_device(c, acc, xf, x, dt, rows, n, ef, e),
        cross_on_host(c, acc, xf, x, dt, rows, n, ef, e));
}

static int
colsq_on_device(struct cuda *c, float *diag, const void *x, enum dtype dt, int rows, int n)
{
    struct colsq_kernel::args a = { NULL, NULL, dt, rows < HESS_CHUNK ? rows : HESS_CHUNK, n };
    size_t bytes = (size_t)a.rows * (size_t)n * size_of(dt);

    TRY(cuda_need(c, SLOT_B, (size_t)n * sizeof(*diag), (void **)&a.diag));
    TRY(cuda_param(c, SLOT_A, x, bytes, &a.x));
    TRY(cuda_launch<colsq_kernel>(c, (n + colsq_kernel::THREADS - 1) / colsq_kernel::THREADS, 1, a));
    return cuda_download(c, diag, a.diag, (size_t)n * sizeof(*diag));
}

static int
colsq_on_host(struct cuda *c, float *diag, const void *x, enum dtype dt, int rows, int n)
{
    struct borrow b = { c, RC_OK, 0, {} };
    const void *hx = cuda_borrow(&b, x, (size_t)rows * (size_t)n * size_of(dt), BORROW_READ);

    return cuda_return(&b, b.rc == RC_OK ? c->cpu.colsq(c->host, diag, hx, dt, rows, n) : b.rc);
}

int
cuda_colsq(struct dev *dev, float *diag, const void *x, enum dtype dt, int rows, int n)
{
    struct cuda *c = cuda_of(dev);

    ON_DEVICE(c, colsq_on_device(c, diag, x, dt, rows, n), colsq_on_host(c, diag, x, dt, rows, n));
}

/* A report's numbers: what they are of lies in host memory, and is read once. */
int
cuda_distance(struct dev *dev, double *sums, const void *x, const void *xf, enum dtype dt, size_t count)
{
    struct cuda *c = cuda_of(dev);

    return c->cpu.distance(c->host, sums, x, xf, dt, count);
}

/* --- activations --- */

static int
range_step(struct cuda *c, void *ctx, int, int rows, void *const *in, void *)
{
    struct range_kernel::args a = *(const struct range_kernel::args *)ctx;

    a.x = in[0];
    a.rows = rows;
    return cuda_launch<range_kernel>(c, (rows + range_kernel::ROWS - 1) / range_kernel::ROWS, a.parts, a);
}

static int
range_on_device(struct cuda *c, float *range, const void *x, enum dtype dt, int rows, int n, int parts)
{
    struct range_kernel::args a = { NULL, NULL, NULL, dt, 0, n, parts };
    size_t row = (size_t)n * size_of(dt), bytes = 2 * (size_t)parts * sizeof(*range);
    struct flow f = { rows, 1, { { (const char *)x, row, row } }, { NULL, 0, 0 }, range_step, &a };
    float bad = 0;

    TRY(cuda_need(c, SLOT_A, bytes + sizeof(float), (void **)&a.range));
    a.bad = a.range + 2 * parts;
    TRY(cuda_upload(c, a.range, range, bytes));
    CUDA_TRY(cudaMemsetAsync(a.bad, 0, sizeof(bad), c->run));
    f.step = cuda_step(&f, 1);
    TRY(cuda_flow(c, &f));
    TRY(cuda_download(c, range, a.range, bytes));
    TRY(cuda_download(c, &bad, a.bad, sizeof(bad)));
    return bad != 0 ? err_set(RC_NUMERIC, "a value is not finite") : RC_OK;
}

static int
range_on_host(struct cuda *c, float *range, const void *x, enum dtype dt, int rows, int n, int parts)
{
    struct borrow b = { c, RC_OK, 0, {} };
    const void *hx = cuda_borrow(&b, x, (size_t)rows * (size_t)n * size_of(dt), BORROW_READ);

    return cuda_return(&b, b.rc == RC_OK ? c->cpu.range(c->host, range, hx, dt, rows, n, parts) : b.rc);
}

int
cuda_range(struct dev *dev, float *range, const void *x, enum dtype dt, int rows, int n, int parts)
{
    struct cuda *c = cuda_of(dev);

    ON_DEVICE(c, range_on_device(c, range, x, dt, rows, n, parts),
        range_on_host(c, range, x, dt, rows, n, parts));
}

static int
act_round_step(struct cuda *c, void *ctx, int, int rows, void *const *in, void *out)
{
    struct act_round_kernel::args a = *(const struct act_round_kernel::args *)ctx;
    size_t threads = (size_t)rows * (size_t)a.parts * (size_t)a.share;

    a.x = in[0];
    a.y = out;
    a.rows = rows;
    return cuda_launch<act_round_kernel>(c, (int)((threads + act_round_kernel::THREADS - 1) /
        act_round_kernel::THREADS), 1, a);
}

static int
round_on_device(struct cuda *c, void *y, const void *x, enum dtype dt, int rows, int n, const struct rounding *r)
{
    struct act_round_kernel::args a = { NULL, NULL, NULL, NULL, NULL, r->spec, r->global_scale, dt, 0, n, n, 1, 1 };
    size_t row = (size_t)n * size_of(dt), parts = r->dynamic ? 0 : (size_t)r->parts;
    struct flow f = { rows, 1, { { (const char *)x, row, row } }, { (const char *)y, row, row }, act_round_step, &a };
    float bad = 0;

    a.width = !r->dynamic ? n / r->parts : q_scale_cols(&r->spec, n) > 1 ? r->spec.group : n;
    a.parts = (n + a.width - 1) / a.width;
    a.share = a.width > act_round_kernel::THREADS ? (int)act_round_kernel::THREADS : 1;
    TRY(cuda_need(c, SLOT_A, (parts + 1) * (sizeof(float) + 1), (void **)&a.bad));
    CUDA_TRY(cudaMemsetAsync(a.bad, 0, sizeof(bad), c->run));
    if (!r->dynamic) {
        a.scale = a.bad + 1;
        TRY(cuda_upload(c, a.bad + 1, r->scale, parts * sizeof(float)));
        if (r->zero != NULL) {
            a.zero = (const int8_t *)(a.scale + parts);
            TRY(cuda_upload(c, (void *)(uintptr_t)a.zero, r->zero, parts));
        }
    }
    f.step = cuda_step(&f, 1);
    TRY(cuda_flow(c, &f));
    TRY(cuda_download(c, &bad, a.bad, sizeof(bad)));
    return bad != 0 ? err_set(RC_NUMERIC, "a value is not finite") : RC_OK;
}

static int
round_on_host(struct cuda *c, void *y, const void *x, enum dtype dt, int rows, int n, const struct rounding *r)
{
    struct borrow b = { c, RC_OK, 0, {} };
    size_t bytes = (size_t)rows * (size_t)n * size_of(dt);
    const void *hx = cuda_borrow(&b, x, bytes, BORROW_READ);
    void *hy = cuda_borrow(&b, y, bytes, BORROW_WRITE);

    return cuda_return(&b, b.rc == RC_OK ? c->cpu.round_act(c->host, hy, hx, dt, rows, n, r) : b.rc);
}

int
cuda_round_act(struct dev *dev, void *y, const void *x, enum dtype dt, int rows, int n, const struct rounding *r)
{
    struct cuda *c = cuda_of(dev);
    struct rounding s = *r;
    float range[2] = { 0, 0 }, scale;
    int8_t zero = 0;

    if (r->dynamic && r->spec.strategy == STRATEGY_TENSOR) {
        TRY(cuda_range(dev, range, x, dt, rows, n, 1));
        scale_of_range(&r->spec, -range[0], range[1], r->global_scale, &scale, &zero);
        s.dynamic = false;
        s.parts = 1;
        s.scale = &scale;
        s.zero = r->spec.symmetric ? NULL : &zero;
    }
    ON_DEVICE(c, round_on_device(c, y, x, dt, rows, n, &s), round_on_host(c, y, x, dt, rows, n, r));
}

/* --- scales of weights --- */

static int
scales_on_device(struct cuda *c, const struct qspec *spec, const struct scale_opts *o, const float *w, int rows,
    int cols, float global_scale, float *scale, int8_t *zero)
{
    int nr = q_scale_rows(spec, rows), nc = q_scale_cols(spec, cols);
    int height = spec->strategy == STRATEGY_BLOCK ? spec->block_rows : spec->strategy == STRATEGY_TENSOR ? rows : 1;
    bool search = o->observer == OBSERVER_SEARCH;
    struct scales_kernel::args a = { *spec, NULL, NULL, rows, cols, height, nc > 1 ? spec->group : cols, nc,
        global_scale, o->lo, o->hi, o->norm, search ? o->steps : -1, NULL, NULL };
    size_t count = (size_t)nr * (size_t)nc;

    /* Powers other than 2 and 3 are each library's own; a large region's search would be one block's. */
    if (search && ((o->norm != 2.0 && o->norm != 3.0) || (size_t)a.height * (size_t)a.width > SEARCH_MAX))
        return RC_OS;
    TRY(cuda_need(c, SLOT_A, (size_t)rows * (size_t)cols * sizeof(*w), (void **)(uintptr_t)&a.w));
    TRY(cuda_need(c, SLOT_B, count * sizeof(*scale), (void **)&a.scale));
    TRY(cuda_need(c, SLOT_C, count, (void **)&a.zero));
    TRY(cuda_need(c, SLOT_D, (size_t)cols * sizeof(float), (void **)(uintptr_t)&a.diag));
    TRY(cuda_upload(c, (void *)(uintptr_t)a.w, w, (size_t)rows * (size_t)cols * sizeof(*w)));
    if (o->diag != NULL)
        TRY(cuda_upload(c, (void *)(uintptr_t)a.diag, o->diag, (size_t)cols * sizeof(float)));
    else
        a.diag = NULL;
    TRY(cuda_launch<scales_kernel>(c, (int)count, 1, a));
    TRY(cuda_download(c, scale, a.scale, count * sizeof(*scale)));
    return spec->symmetric || zero == NULL ? RC_OK : cuda_download(c, zero, a.zero, count);
}

int
cuda_scales(struct dev *dev, const struct qspec *spec, const struct scale_opts *o, const float *w, int rows, int cols,
    float global_scale, float *scale, int8_t *zero)
{
    struct cuda *c = cuda_of(dev);

    ON_DEVICE(c, scales_on_device(c, spec, o, w, rows, cols, global_scale, scale, zero),
        c->cpu.scales(c->host, spec, o, w, rows, cols, global_scale, scale, zero));
}
