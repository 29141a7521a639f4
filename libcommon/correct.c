/* correct - targets that make up for what the modules before have lost */
#include "correct.h"

#include "mem.h"
#include "msg.h"
#include "scales.h"

enum { TRIES = 3, GROWTH = 10 };

double
correct_lambda(double lambda, int n, int64_t tokens)
{
    double want = (double)CORRECT_TOKENS * n;

    return tokens > 0 && (double)tokens < want ? lambda * want / (double)tokens : lambda;
}

/* l [n, n], order and dead [n] are scratch. */
static int
solve(float *m, double *lambda, struct run *run, const struct hess *h, const char *task, float *l, int *order,
    uint8_t *dead)
{
    double s = 2.0 / (double)h->sequences;
    int rc = RC_OK;

    for (int i = 0; i < h->n; i++)
        order[i] = i;
    for (int i = 0; i < TRIES; i++, *lambda *= GROWTH) {
        if ((rc = run->bk->factor(run->dev, l, dead, h->sum, s, order, *lambda, h->n)) == RC_OK)
            return run->bk->correction(run->dev, m, hess_cross(h), h->sum, s, l, h->n);
        if (rc != RC_NUMERIC)
            return rc;
        event_emit(&run->log, "lambda", EVENT_STR("task", task), EVENT_REAL("lambda", *lambda));
    }
    return rc;
}

int
correct_open(struct correction *c, struct run *run, const struct hess *h, const char *task, double lambda)
{
    size_t n = (size_t)h->n;
    float *l = NULL;
    int *order = NULL, rc = RC_OS;
    uint8_t *dead = NULL;

    *c = (struct correction){ 0 };
    if (!h->pairs)
        return err_set(RC_DATA, "Hessian has no cross product");
    c->lambda = correct_lambda(lambda, h->n, h->rows);
    c->distance = hess_distance(h);
    if ((l = mem_alloc(n * n, sizeof(*l))) != NULL && (order = mem_alloc(n, sizeof(*order))) != NULL &&
        (dead = mem_alloc(n, 1)) != NULL && (c->m = mem_alloc(n * n, sizeof(*c->m))) != NULL)
        rc = solve(c->m, &c->lambda, run, h, task, l, order, dead);
    mem_free(l);
    mem_free(order);
    mem_free(dead);
    if (rc != RC_OK)
        correct_close(c);
    return rc;
}

void
correct_close(struct correction *c)
{
    mem_free(c->m);
    *c = (struct correction){ 0 };
}

int
correct_rows(float **out, struct run *run, const float *w, const float *m, int rows, int n)
{
    size_t count = (size_t)rows * (size_t)n;

    if ((*out = mem_alloc(count, sizeof(**out))) == NULL)
        return RC_OS;
    TRY(run->bk->correct(run->dev, *out, w, m, rows, n));
    return dtype_finite(*out, count) ? RC_OK : err_set(RC_NUMERIC, "corrected weights are not finite");
}

/* Some rows of what a job rounds, as it rounds them; owned. */
struct sample {
    float  *w, *scale;
    int8_t *zero;
    int     rows;
};

static void
sample_free(struct sample *s)
{
    mem_free(s->w);
    mem_free(s->scale);
    mem_free(s->zero);
}

static int
sample_take(struct sample *s, const struct gptq_job *job, int every)
{
    const struct qspec *q = job->spec;
    int rows = q_scale_rows(q, job->rows), unit = scales_unit(q);
    size_t n = (size_t)q_scale_cols(q, job->cols), bytes = (size_t)job->cols * sizeof(*s->w);

    *s = (struct sample){ .w = mem_alloc((size_t)job->rows, bytes), .scale = mem_alloc((size_t)rows * n, sizeof(float)),
        .zero = job->zero != NULL ? mem_alloc((size_t)rows * n, 1) : NULL };
    if (s->w == NULL || s->scale == NULL || (s->zero == NULL && job->zero != NULL))
        return RC_OS;
    s->rows = scales_thin(s->w, job->w, bytes, job->rows, unit, every);
    (void)scales_thin(s->scale, job->scale, n * sizeof(*s->scale), rows, 1, every);
    if (s->zero != NULL)
        (void)scales_thin(s->zero, job->zero, n, rows, 1, every);
    return RC_OK;
}

/* The loss of the sample's rows as they were rounded; and those of the source's own weights, against them. */
static int
compare(struct gptq_job *job, struct gptq_job *own, struct run *run, const struct sample *s,
    const struct task_weights *w)
{
    job->rows = own->rows = s->rows;
    job->w = own->target = s->w;
    job->scale = s->scale;
    job->zero = s->zero;
    own->w = w->w;
    own->scale = w->scale;
    own->zero = w->zero;
    own->global_scale = w->global_scale;
    own->want_rtn = true;
    TRY(run->bk->gptq(run->dev, job));
    return run->bk->gptq(run->dev, own);
}

int
correct_compare(struct gptq_job *job, struct run *run, const struct task *t, const struct correction *c,
    const float *diag)
{
    int every = scales_every(job->spec, job->rows), rc;
    struct gptq_job some = *job, own = *job;
    struct task_weights w = { 0 };
    struct sample s = { 0 };
    double times;

    if ((rc = sample_take(&s, job, every)) == RC_OK)
        rc = scales_choose(&w, run, t, job->spec, diag, NULL, NULL, every);
    if (rc == RC_OK && (own.codes = some.codes = mem_alloc((size_t)s.rows * (size_t)job->cols, 1)) == NULL)
        rc = RC_OS;
    if (rc == RC_OK && (rc = compare(&some, &own, run, &s, &w)) == RC_OK) {
        times = some.loss > 0 ? job->loss / some.loss : (double)job->rows / s.rows;
        job->rtn_loss = times * own.rtn_loss;
        event_emit(&run->log, "correct", EVENT_STR("task", t->name), EVENT_INT("step", t->step), EVENT_REAL("loss",
            job->loss), EVENT_REAL("uncorrected_loss", times * own.loss), EVENT_REAL("rtn_loss", job->rtn_loss),
            EVENT_INT("compared_rows", s.rows), EVENT_REAL("lambda", c->lambda), EVENT_REAL("distance", c->distance));
    }
    if (own.codes != job->codes)
        mem_free(own.codes);
    sample_free(&s);
    scales_free(&w);
    return rc;
}
