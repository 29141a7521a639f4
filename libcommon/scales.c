/* scales - a task's weights and the scales they are rounded with */
#include "scales.h"

#include "correct.h"
#include "mem.h"
#include "msg.h"

#include <stdio.h>
#include <string.h>

/* Corrected weights may exceed the source's, by which the global scale of a fused group is chosen. E4M3 scales have
 * range to spare for a power of two. */
static const float HEADROOM = 2;

/* Rows [row0, end) of a module's source weight as f32 values of T, the caller's to free even on error; RC_DATA: not
 * finite. */
static int
source_rows(struct run *run, const char *module, int row0, int end, int cols, float **out)
{
    size_t count = (size_t)(end - row0) * (size_t)cols;
    char name[ARCH_NAME_MAX + 16];
    struct dense d;
    int rc = RC_OK;

    (void)snprintf(name, sizeof(name), "%s.weight", module);
    TRY(run_source_dense(run, name, &d));
    if (d.rows < end || d.cols != cols)
        rc = err_set(RC_DATA, "weight is [%d, %d], want %d columns and %d rows or more", d.rows, d.cols, cols, end);
    else if ((*out = mem_alloc(count, sizeof(**out))) == NULL)
        rc = RC_OS;
    else if (!dtype_to_f32(*out, (const char *)d.data + (size_t)row0 * (size_t)cols * dtype_size(d.dtype), d.dtype,
        count))
        rc = err_set(RC_DATA, "weight is %s, want a float type", dtype_name(d.dtype));
    for (size_t i = 0; i < count && rc == RC_OK && d.dtype != run->arch.dtype; i++)
        (*out)[i] = rt((*out)[i], run->arch.dtype);
    dense_free(&d);
    if (rc != RC_OK)
        return rc;
    return dtype_finite(*out, count) ? RC_OK : err_set(RC_DATA, "weight has values that are not finite");
}

static bool
same_parent(const char *a, const char *b)
{
    size_t len = (size_t)(strrchr(a, '.') - a);

    return strncmp(a, b, len + 1) == 0 && strchr(b + len + 1, '.') == NULL;
}

/* Largest magnitude of all weights that share a global scale with the task's: those of its input's modules, which the
 * runtime fuses. */
static int
shared_absmax(struct run *run, const struct task *t, float *absmax)
{
    const struct step *s = &run->plan.steps[t->step];
    float *w = NULL;
    int rc;

    *absmax = 0;
    for (int i = s->first_task; i < s->end_task; i++) {
        const struct task *u = &run->plan.tasks[i];
        float m;

        if (u->point != t->point || plan_task_cache(u) || !same_parent(u->module, t->module))
            continue; /* experts that share an input are not fused with each other */
        rc = source_rows(run, u->module, u->row0, u->end, u->cols, &w);
        m = rc == RC_OK ? scale_absmax(w, (size_t)(u->end - u->row0) * (size_t)u->cols) : 0;
        mem_free(w);
        w = NULL;
        TRY(rc);
        *absmax = m > *absmax ? m : *absmax;
    }
    return RC_OK;
}

/* With the columns moved to where groups are of neighbours. */
static int
choose_ordered(struct task_weights *out, struct run *run, const struct qspec *q, struct scale_opts *o, int rows,
    int cols, const int *order)
{
    size_t n = (size_t)cols;
    float *w = mem_alloc((size_t)rows * n, sizeof(*w)), *diag = mem_alloc(n, sizeof(*diag));
    int rc = RC_OS;

    out->scale_col = mem_alloc(n, sizeof(*out->scale_col));
    if (w != NULL && diag != NULL && out->scale_col != NULL) {
        for (int i = 0; i < cols; i++) {
            int c = order[cols - 1 - i];

            out->scale_col[c] = q_scale_col(q, i);
            if (o->diag != NULL)
                diag[i] = o->diag[c];
            for (int r = 0; r < rows; r++)
                w[(size_t)r * n + (size_t)i] = out->w[(size_t)r * n + (size_t)c];
        }
        o->diag = o->diag != NULL ? diag : NULL;
        rc = run->bk->scales(run->dev, q, o, w, rows, cols, out->global_scale, out->scale, out->zero);
    }
    mem_free(w);
    mem_free(diag);
    return rc;
}

int
scales_unit(const struct qspec *q)
{
    return q->strategy == STRATEGY_BLOCK ? q->block_rows : 1;
}

int
scales_every(const struct qspec *q, int rows)
{
    int unit = scales_unit(q), every = rows / (unit > SCALES_ROWS ? unit : SCALES_ROWS);

    return q->strategy == STRATEGY_TENSOR || every < 1 ? 1 : every < SCALES_SHARE ? every : SCALES_SHARE;
}

int
scales_thin(void *out, const void *in, size_t bytes, int rows, int unit, int every)
{
    int n = 0;

    for (int r = 0; r < rows; r++)
        if (r / unit % every == 0)
            memmove((char *)out + (size_t)n++ * bytes, (const char *)in + (size_t)r * bytes, bytes);
    return n;
}

int
scales_choose(struct task_weights *out, struct run *run, const struct task *t, const struct qspec *q, const float *diag,
    const int *order, const float *m, int every)
{
    const struct recipe_group *rg = &run->plan.recipe->groups[t->group];
    int rows = t->end - t->row0;
    struct scale_opts o;
    size_t count;
    float absmax;

    *out = (struct task_weights){ .global_scale = 1 };
    TRY(source_rows(run, t->module, t->row0, t->end, t->cols, &out->w));
    if (every > 1)
        rows = scales_thin(out->w, out->w, (size_t)t->cols * sizeof(*out->w), rows, scales_unit(q), every);
    out->rows = rows;
    if (m != NULL) {
        float *w = out->w;
        int rc = correct_rows(&out->w, run, w, m, rows, t->cols);

        mem_free(w);
        TRY(rc);
    }
    if (scheme_global(&rg->scheme)) {
        TRY(shared_absmax(run, t, &absmax));
        if (m != NULL)
            absmax *= HEADROOM;
        out->global_scale = scale_global(absmax, q->t);
    }
    count = (size_t)q_scale_rows(q, rows) * (size_t)q_scale_cols(q, t->cols);
    out->scale = mem_alloc(count, sizeof(*out->scale));
    out->zero = q->symmetric ? NULL : mem_alloc(count, 1);
    if (out->scale == NULL || (out->zero == NULL && !q->symmetric))
        return RC_OS;
    TRY(recipe_scale_opts(rg, q, &o));
    o.diag = observer_weighted(rg->scheme.weights.observer) ? diag : NULL;
    if (order != NULL)
        return choose_ordered(out, run, q, &o, rows, t->cols, order);
    return run->bk->scales(run->dev, q, &o, out->w, rows, t->cols, out->global_scale, out->scale, out->zero);
}

int
scales_sparse(struct run *run, const struct task *t, bool *sparse)
{
    size_t count = (size_t)t->rows * (size_t)t->cols, zeros = 0;
    float *w = NULL;
    int rc = source_rows(run, t->module, 0, t->rows, t->cols, &w);

    for (size_t i = 0; rc == RC_OK && i < count; i++)
        zeros += w[i] == 0;
    *sparse = 20 * zeros >= count;
    mem_free(w);
    return rc;
}

void
scales_free(struct task_weights *w)
{
    mem_free(w->w);
    mem_free(w->scale);
    mem_free(w->zero);
    mem_free(w->scale_col);
    *w = (struct task_weights){ 0 };
}

void
scales_diag(const struct hess *h, float *diag)
{
    double sum = 0;

    for (int i = 0; i < h->n; i++)
        sum += hess_diag(h, i);
    for (int i = 0; i < h->n; i++)
        diag[i] = sum > 0 ? (float)(hess_diag(h, i) * h->n / sum) : 1.0f;
}
