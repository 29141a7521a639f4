/* gptq - factorisation by cuSOLVER, rounding by the fused kernel
 *
 * Rows go in as many pieces as the budget asks for; they are independent, so codes do not depend on it. Jobs of one
 * shape and kind are one launch, as many as the budget has room for, each with its own factor. A factor is copied to
 * the device for every job.
 */
#include "cuda.h"

#include "gptq.cuh"
#include "hess.cuh"

enum { GRID_Y_MAX = 65535, GPTQ_JOBS = 256 };

/* --- factor --- */

static int
potrf(struct cuda *c, float *a, int n)
{
    int lwork = 0, info = 0;
    void *work, *status;

    if (c->solver == NULL) {
        CUSOLVER_TRY(cusolverDnCreate(&c->solver));
        CUSOLVER_TRY(cusolverDnSetStream(c->solver, c->run));
    }
    /* The lower triangle by rows is the upper one by columns. */
    CUSOLVER_TRY(cusolverDnSpotrf_bufferSize(c->solver, CUBLAS_FILL_MODE_UPPER, n, a, n, &lwork));
    TRY(cuda_need(c, SLOT_E, (size_t)lwork * sizeof(float) + sizeof(float), &work));
    TRY(cuda_need(c, SLOT_F, sizeof(info), &status));
    CUSOLVER_TRY(cusolverDnSpotrf(c->solver, CUBLAS_FILL_MODE_UPPER, n, a, n, (float *)work, lwork, (int *)status));
    TRY(cuda_download(c, &info, status, sizeof(info)));
    if (info > 0)
        return err_set(RC_NUMERIC, "not positive definite at column %d of %d", info - 1, n);
    return info == 0 ? RC_OK : err_set(RC_BUG, "cuSOLVER: argument %d of potrf is wrong", -info);
}

static int
factor_on_device(struct cuda *c, float *l, uint8_t *dead, const double *h, double s, const int *order, double damp,
    int n)
{
    struct gather_kernel::args a = {};
    size_t count = packed_row(n), square = (size_t)n * (size_t)n;

    if (n > GRID_Y_MAX / 2)
        return RC_OS;
    a.lambda = factor_damping(dead, h, s, damp, n);
    a.s = s;
    a.n = n;
    TRY(cuda_need(c, SLOT_A, square * sizeof(float), (void **)&a.a));
    TRY(cuda_need(c, SLOT_B, count * sizeof(*h), (void **)(uintptr_t)&a.h));
    TRY(cuda_need(c, SLOT_C, (size_t)n * sizeof(*order), (void **)(uintptr_t)&a.order));
    TRY(cuda_need(c, SLOT_D, (size_t)n, (void **)(uintptr_t)&a.dead));
    TRY(cuda_upload(c, (void *)(uintptr_t)a.h, h, count * sizeof(*h)));
    TRY(cuda_upload(c, (void *)(uintptr_t)a.order, order, (size_t)n * sizeof(*order)));
    TRY(cuda_upload(c, (void *)(uintptr_t)a.dead, dead, (size_t)n));
    TRY(cuda_launch<gather_kernel>(c, (n + gather_kernel::THREADS - 1) / gather_kernel::THREADS, n, a));
    TRY(potrf(c, a.a, n));
    TRY(cuda_download(c, l, a.a, square * sizeof(*l)));
    for (size_t i = 0; i < (size_t)n; i++)
        if (!(l[i * (size_t)n + i] > 0) || !std::isfinite(l[i * (size_t)n + i]))
            return err_set(RC_NUMERIC, "not positive definite at column %zu of %d", i, n);
    return RC_OK;
}

int
cuda_factor(struct dev *dev, float *l, uint8_t *dead, const double *h, double s, const int *order, double damp, int n)
{
    struct cuda *c = cuda_of(dev);

    ON_DEVICE(c, factor_on_device(c, l, dead, h, s, order, damp, n),
        c->cpu.factor(c->host, l, dead, h, s, order, damp, n));
}

/* --- gptq --- */

/* Jobs whose rows are on the device together: count whole ones, or pieces of one. */
struct gptq {
    struct gptq_job *const *jobs;
    int                     count;
    int                     step;   /* rows of a piece, whole tiles */
    size_t                  scales; /* of a job */
    struct gptq_mat        *mats;   /* [count] what the device sees of them */
    struct gptq_args        a;
    double                 *loss;   /* [count][step] on the host */
};

static size_t
tiles_of(int rows)
{
    return ((size_t)rows + GPTQ_ROWS - 1) / GPTQ_ROWS;
}

static size_t
scales_of(const struct gptq_job *job)
{
    return ((size_t)q_scale_row(job->spec, job->row0 + job->rows - 1) + 1) * (size_t)q_scale_cols(job->spec, job->cols);
}

/* What a job takes beside its rows. */
static size_t
fixed_bytes(const struct gptq_job *job)
{
    size_t n = (size_t)job->cols;

    return n * n * sizeof(float) + n * 5 + scales_of(job) * 5 + sizeof(struct gptq_mat);
}

/* w, d, tiled and plain codes take 10 bytes a value. */
static size_t
row_bytes(const struct gptq_job *job)
{
    return (size_t)job->cols * 10 + 8;
}

/* Rows in nine tenths of what the factor and the scales leave. */
static int
rows_at_once(const struct cuda *c, const struct gptq_job *job)
{
    size_t fixed = fixed_bytes(job), room = cuda_room(c), rows;

    if (room < fixed)
        return 0;
    rows = (room - fixed) / 10 * 9 / row_bytes(job) / GPTQ_ROWS * GPTQ_ROWS;
    return rows > (size_t)job->rows ? (int)tiles_of(job->rows) * GPTQ_ROWS : (int)rows;
}

/* Such jobs in nine tenths of the room. */
static int
jobs_at_once(const struct cuda *c, const struct gptq_job *job)
{
    size_t count = cuda_room(c) / 10 * 9 / (fixed_bytes(job) + tiles_of(job->rows) * GPTQ_ROWS * row_bytes(job));

    return count < GPTQ_JOBS ? (int)count : GPTQ_JOBS;
}

/* Room for what the member points to, so many values of each job. */
template <class T> static int
lay_out(struct cuda *c, struct gptq *g, int slot, size_t values, T *gptq_mat::*member)
{
    void *p;

    values = (values * sizeof(T) + 255) / 256 * 256 / sizeof(T);
    TRY(cuda_need(c, slot, (size_t)g->count * values * sizeof(T), &p));
    for (int i = 0; i < g->count; i++)
        g->mats[i].*member = (T *)p + (size_t)i * values;
    return RC_OK;
}

static int
gptq_rooms(struct cuda *c, struct gptq *g)
{
    size_t n = (size_t)g->jobs[0]->cols, rows = (size_t)g->step;

    TRY(lay_out(c, g, SLOT_A, n * n, &gptq_mat::l));
    TRY(lay_out(c, g, SLOT_B, n, &gptq_mat::order));
    TRY(lay_out(c, g, SLOT_C, n, &gptq_mat::dead));
    TRY(lay_out(c, g, SLOT_D, g->scales + (g->scales + 3) / 4, &gptq_mat::scale)); /* zeros behind them */
    TRY(lay_out(c, g, SLOT_E, rows * n, &gptq_mat::w));
    TRY(lay_out(c, g, SLOT_F, rows * n, &gptq_mat::d));
    TRY(lay_out(c, g, SLOT_G, rows * n, &gptq_mat::tiled));
    TRY(lay_out(c, g, SLOT_H, rows * n, &gptq_mat::codes));
    TRY(lay_out(c, g, SLOT_I, rows, &gptq_mat::loss));
    return cuda_need(c, SLOT_J, (size_t)g->count * sizeof(*g->mats), (void **)(uintptr_t)&g->a.mats);
}

/* What all pieces of a job share. */
static int
gptq_upload(struct cuda *c, const struct gptq *g, const struct gptq_job *job, struct gptq_mat *m)
{
    size_t n = (size_t)job->cols;

    m->spec = *job->spec;
    m->cols = job->cols;
    m->scale_cols = q_scale_cols(job->spec, job->cols);
    m->global_scale = job->global_scale;
    TRY(cuda_upload(c, (void *)(uintptr_t)m->l, job->l, n * n * sizeof(float)));
    TRY(cuda_upload(c, (void *)(uintptr_t)m->order, job->order, n * sizeof(int)));
    TRY(cuda_upload(c, (void *)(uintptr_t)m->dead, job->dead, n));
    TRY(cuda_upload(c, (void *)(uintptr_t)m->scale, job->scale, g->scales * sizeof(float)));
    if (job->zero == NULL)
        return RC_OK;
    m->zero = (const int8_t *)(m->scale + g->scales);
    return cuda_upload(c, (void *)(uintptr_t)m->zero, job->zero, g->scales);
}

static int
sweep(struct cuda *c, const struct gptq *g)
{
    int tiles = (int)tiles_of(g->mats[0].rows);
    enum qgrid grid = g->mats[0].spec.grid;

    if (grid == GRID_INT)
        return cuda_launch<gptq_sweep_kernel<GRID_INT>>(c, tiles, g->count, g->a);
    if (grid == GRID_E2M1)
        return cuda_launch<gptq_sweep_kernel<GRID_E2M1>>(c, tiles, g->count, g->a);
    return cuda_launch<gptq_sweep_kernel<GRID_E4M3>>(c, tiles, g->count, g->a);
}

/* One way over rows: the losses onto the jobs' in the order of rows, as the cpu backend adds them. */
static int
gptq_pass(struct cuda *c, struct gptq *g, int plain)
{
    size_t values = tiles_of(g->mats[0].rows) * GPTQ_ROWS * (size_t)g->mats[0].cols;

    g->a.plain = plain;
    TRY(cuda_launch<gptq_load_kernel>(c, cuda_blocks(values, gptq_load_kernel::THREADS), g->count, g->a));
    TRY(sweep(c, g));
    for (int i = 0; i < g->count; i++) {
        double *loss = plain ? &g->jobs[i]->rtn_loss : &g->jobs[i]->loss;

        TRY(cuda_download(c, g->loss, g->mats[i].loss, (size_t)g->mats[i].rows * sizeof(double)));
        for (int r = 0; r < g->mats[i].rows; r++)
            *loss += g->loss[r] / 2;
    }
    return RC_OK;
}

static int
gptq_rows(struct cuda *c, struct gptq *g, int row)
{
    const struct gptq_job *first = g->jobs[0];
    int rows = first->rows - row < g->step ? first->rows - row : g->step;
    size_t n = (size_t)first->cols, at = (size_t)row * n, values = (size_t)rows * n;

    for (int i = 0; i < g->count; i++) {
        g->mats[i].rows = rows;
        g->mats[i].row0 = g->jobs[i]->row0 + row;
        TRY(cuda_upload(c, (void *)(uintptr_t)g->mats[i].w, g->jobs[i]->w + at, values * sizeof(float)));
    }
    TRY(cuda_upload(c, (void *)(uintptr_t)g->a.mats, g->mats, (size_t)g->count * sizeof(*g->mats)));
    TRY(gptq_pass(c, g, 0));
    TRY(cuda_launch<gptq_store_kernel>(c, cuda_blocks(values, gptq_store_kernel::THREADS), g->count, g->a));
    for (int i = 0; i < g->count; i++)
        TRY(cuda_download(c, g->jobs[i]->codes + at, g->mats[i].codes, values));
    return first->want_rtn ? gptq_pass(c, g, 1) : RC_OK;
}

static int
all_rows(struct cuda *c, struct gptq *g)
{
    TRY(gptq_rooms(c, g));
    for (int i = 0; i < g->count; i++)
        TRY(gptq_upload(c, g, g->jobs[i], &g->mats[i]));
    for (int row = 0; row < g->jobs[0]->rows; row += g->step)
        TRY(gptq_rows(c, g, row));
    return RC_OK;
}

/* One job, in pieces if need be, or several whole ones. */
static int
jobs_on_device(struct cuda *c, struct gptq_job *const *jobs, int count)
{
    struct gptq g = { jobs, count, 0, scales_of(jobs[0]), NULL, {}, NULL };
    int rc = RC_OS;

    for (int i = 0; i < count; i++)
        jobs[i]->loss = jobs[i]->rtn_loss = 0;
    if (jobs[0]->rows == 0)
        return RC_OK;
    if ((g.step = count > 1 ? (int)tiles_of(jobs[0]->rows) * GPTQ_ROWS : rows_at_once(c, jobs[0])) == 0)
        return err_set(RC_OS, "CUDA: no room for a factor of %d columns", jobs[0]->cols);
    g.mats = (struct gptq_mat *)mem_zalloc((size_t)count, sizeof(*g.mats));
    g.loss = (double *)mem_alloc((size_t)g.step, sizeof(double));
    if (g.mats != NULL && g.loss != NULL)
        rc = all_rows(c, &g);
    mem_free(g.mats);
    mem_free(g.loss);
    return rc;
}

static int
finite(const struct gptq_job *job)
{
    return std::isfinite(job->loss) && std::isfinite(job->rtn_loss) ? RC_OK : err_set(RC_NUMERIC, "loss is not finite");
}

static int
one_on_device(struct cuda *c, struct gptq_job *job)
{
    TRY(jobs_on_device(c, &job, 1));
    return finite(job);
}

/* What the kernel leaves out: losses against something else than w, columns whose scales are elsewhere, zeros kept. */
static bool
for_host(const struct gptq_job *job)
{
    return job->target != NULL || job->scale_col != NULL || job->keep_zeros;
}

int
cuda_gptq(struct dev *dev, struct gptq_job *job)
{
    struct cuda *c = cuda_of(dev);

    if (for_host(job))
        return c->cpu.gptq(c->host, job);
    ON_DEVICE(c, one_on_device(c, job), c->cpu.gptq(c->host, job));
}

static bool
alike(const struct gptq_job *a, const struct gptq_job *b)
{
    return a->rows == b->rows && a->cols == b->cols && a->want_rtn == b->want_rtn && scales_of(a) == scales_of(b) &&
        memcmp(a->spec, b->spec, sizeof(*a->spec)) == 0 && !for_host(b);
}

/* How many from the first on are one launch; 1: it goes alone. */
static int
together(const struct cuda *c, struct gptq_job *const *jobs, int count)
{
    int most = jobs[0]->rows > 0 && !for_host(jobs[0]) ? jobs_at_once(c, jobs[0]) : 1, n = 1;

    while (n < count && n < most && alike(jobs[0], jobs[n]))
        n++;
    return n;
}

void
cuda_gptq_batch(struct dev *dev, struct gptq_job *const *jobs, int count, int *rc)
{
    struct cuda *c = cuda_of(dev);
    int all;

    for (int at = 0, n; at < count; at += n) {
        n = together(c, jobs + at, count - at);
        cuda_begin(c);
        all = n > 1 ? cuda_settle(c, jobs_on_device(c, jobs + at, n)) : RC_OS;
        for (int i = at; i < at + n; i++)
            rc[i] = all == RC_OK ? finite(jobs[i]) : all == RC_OS ? cuda_gptq(dev, jobs[i]) : all;
    }
}

/* Solves and products of a correction: so far the host's. */
int
cuda_correction(struct dev *dev, float *m, const double *c, const double *h, double s, const float *l, int n)
{
    struct cuda *own = cuda_of(dev);

    return own->cpu.correction(own->host, m, c, h, s, l, n);
}

int
cuda_correct(struct dev *dev, float *y, const float *w, const float *m, int rows, int n)
{
    struct cuda *own = cuda_of(dev);

    return own->cpu.correct(own->host, y, w, m, rows, n);
}
