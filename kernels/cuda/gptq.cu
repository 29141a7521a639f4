/* gptq - factorisation by cuSOLVER, rounding by the fused kernel
 *
 * Rows go in as many pieces as the budget asks for; they are independent, so codes do not depend on it. cuda_gptq()
 * copies the factor to the device for every job.
 */
#include "cuda.h"

#include "gptq.cuh"
#include "hess.cuh"

enum { GRID_Y_MAX = 65535 };

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

struct gptq {
    const struct gptq_job *job;
    struct gptq_mat        m;   /* what the device sees of it */
    struct gptq_args       a;
    int                    step; /* rows of a piece, whole tiles */
    double                *loss; /* [step] on the host */
};

static size_t
tiles_of(int rows)
{
    return ((size_t)rows + GPTQ_ROWS - 1) / GPTQ_ROWS;
}

/* Rows in nine tenths of what the factor and the scales leave: w, d, tiled and plain codes take 10 bytes a value. */
static int
rows_at_once(const struct cuda *c, const struct gptq_job *job, size_t scales)
{
    size_t n = (size_t)job->cols, fixed = n * n * sizeof(float) + n * 5 + scales * 5, room = cuda_room(c), rows;

    if (room < fixed)
        return 0;
    rows = (room - fixed) / 10 * 9 / (n * 10 + 8) / GPTQ_ROWS * GPTQ_ROWS;
    return rows > (size_t)job->rows ? (int)tiles_of(job->rows) * GPTQ_ROWS : (int)rows;
}

static int
gptq_rooms(struct cuda *c, struct gptq *g, size_t scales)
{
    struct gptq_mat *m = &g->m;
    size_t n = (size_t)m->cols, step = (size_t)g->step;

    TRY(cuda_need(c, SLOT_A, n * n * sizeof(float), (void **)(uintptr_t)&m->l));
    TRY(cuda_need(c, SLOT_B, n * sizeof(int), (void **)(uintptr_t)&m->order));
    TRY(cuda_need(c, SLOT_C, n, (void **)(uintptr_t)&m->dead));
    TRY(cuda_need(c, SLOT_D, scales * (sizeof(float) + 1), (void **)(uintptr_t)&m->scale));
    TRY(cuda_need(c, SLOT_E, step * n * sizeof(float), (void **)(uintptr_t)&m->w));
    TRY(cuda_need(c, SLOT_F, step * n * sizeof(float), (void **)&m->d));
    TRY(cuda_need(c, SLOT_G, step * n, (void **)&m->tiled));
    TRY(cuda_need(c, SLOT_H, step * n, (void **)&m->codes));
    TRY(cuda_need(c, SLOT_I, step * sizeof(double), (void **)&m->loss));
    return cuda_need(c, SLOT_J, sizeof(*m), (void **)(uintptr_t)&g->a.mats);
}

/* What all pieces share. */
static int
gptq_upload(struct cuda *c, struct gptq *g, size_t scales)
{
    const struct gptq_job *job = g->job;
    size_t n = (size_t)job->cols;

    TRY(cuda_upload(c, (void *)(uintptr_t)g->m.l, job->l, n * n * sizeof(float)));
    TRY(cuda_upload(c, (void *)(uintptr_t)g->m.order, job->order, n * sizeof(int)));
    TRY(cuda_upload(c, (void *)(uintptr_t)g->m.dead, job->dead, n));
    TRY(cuda_upload(c, (void *)(uintptr_t)g->m.scale, job->scale, scales * sizeof(float)));
    if (job->zero == NULL)
        return RC_OK;
    g->m.zero = (const int8_t *)(g->m.scale + scales);
    return cuda_upload(c, (void *)(uintptr_t)g->m.zero, job->zero, scales);
}

static int
sweep(struct cuda *c, const struct gptq *g, enum qgrid grid)
{
    int tiles = (int)tiles_of(g->m.rows);

    if (grid == GRID_INT)
        return cuda_launch<gptq_sweep_kernel<GRID_INT>>(c, tiles, 1, g->a);
    if (grid == GRID_E2M1)
        return cuda_launch<gptq_sweep_kernel<GRID_E2M1>>(c, tiles, 1, g->a);
    return cuda_launch<gptq_sweep_kernel<GRID_E4M3>>(c, tiles, 1, g->a);
}

/* One way over rows: the losses onto *loss in the order of rows, as the cpu backend adds them. */
static int
gptq_pass(struct cuda *c, struct gptq *g, int plain, double *loss)
{
    size_t values = tiles_of(g->m.rows) * GPTQ_ROWS * (size_t)g->m.cols;

    g->a.plain = plain;
    TRY(cuda_launch<gptq_load_kernel>(c, cuda_blocks(values, gptq_load_kernel::THREADS), 1, g->a));
    TRY(sweep(c, g, g->m.spec.grid));
    TRY(cuda_download(c, g->loss, g->m.loss, (size_t)g->m.rows * sizeof(double)));
    for (int r = 0; r < g->m.rows; r++)
        *loss += g->loss[r] / 2;
    return RC_OK;
}

static int
gptq_rows(struct cuda *c, struct gptq *g, struct gptq_job *job, int row)
{
    size_t n = (size_t)job->cols, at = (size_t)row * n, values;

    g->m.rows = job->rows - row < g->step ? job->rows - row : g->step;
    g->m.row0 = job->row0 + row;
    values = (size_t)g->m.rows * n;
    TRY(cuda_upload(c, (void *)(uintptr_t)g->m.w, job->w + at, values * sizeof(float)));
    TRY(cuda_upload(c, (void *)(uintptr_t)g->a.mats, &g->m, sizeof(g->m)));
    TRY(gptq_pass(c, g, 0, &job->loss));
    TRY(cuda_launch<gptq_store_kernel>(c, cuda_blocks(values, gptq_store_kernel::THREADS), 1, g->a));
    TRY(cuda_download(c, job->codes + at, g->m.codes, values));
    return job->want_rtn ? gptq_pass(c, g, 1, &job->rtn_loss) : RC_OK;
}

static int
gptq_on_device(struct cuda *c, struct gptq_job *job)
{
    struct gptq g = {};
    int last = q_scale_row(job->spec, job->row0 + job->rows - 1), rc;
    size_t scales = ((size_t)last + 1) * (size_t)q_scale_cols(job->spec, job->cols);

    job->loss = job->rtn_loss = 0;
    if (job->rows == 0)
        return RC_OK;
    g.job = job;
    g.m.spec = *job->spec;
    g.m.cols = job->cols;
    g.m.scale_cols = q_scale_cols(job->spec, job->cols);
    g.m.global_scale = job->global_scale;
    if ((g.step = rows_at_once(c, job, scales)) == 0)
        return err_set(RC_OS, "CUDA: no room for a factor of %d columns", job->cols);
    TRY(gptq_rooms(c, &g, scales));
    TRY(gptq_upload(c, &g, scales));
    if ((g.loss = (double *)mem_alloc((size_t)g.step, sizeof(double))) == NULL)
        return RC_OS;
    rc = RC_OK;
    for (int row = 0; rc == RC_OK && row < job->rows; row += g.step)
        rc = gptq_rows(c, &g, job, row);
    mem_free(g.loss);
    if (rc == RC_OK && (!std::isfinite(job->loss) || !std::isfinite(job->rtn_loss)))
        return err_set(RC_NUMERIC, "loss is not finite");
    return rc;
}

int
cuda_gptq(struct dev *dev, struct gptq_job *job)
{
    struct cuda *c = cuda_of(dev);

    if (job->target != NULL) /* losses against something else than w */
        return c->cpu.gptq(c->host, job);
    ON_DEVICE(c, gptq_on_device(c, job), c->cpu.gptq(c->host, job));
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
