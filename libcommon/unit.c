/* unit - a module on its way: scales, rounding, publication */
#include "unit.h"

#include "../kernels/pack.h"
#include "inputs.h"
#include "mem.h"
#include "msg.h"
#include "scales.h"
#include "weights.h"

#include <math.h>
#include <stdio.h>

/* Scales of static inputs, which calibration has left beside the Hessian. */
static int
add_inputs(struct run *run, const struct task *t, const char *path, struct packed_tensors *p)
{
    const struct scheme *s = &run->plan.recipe->groups[t->group].scheme;
    struct st_file st;
    struct hess h;
    int rc;

    if (!scheme_input_static(s))
        return RC_OK;
    TRY(hess_open(&h, path, false, run->plan.fingerprint, &st));
    rc = h.ranges > 0 && h.n == t->cols ? inputs_pack(p, t->module, s, run->arch.dtype, h.range) :
        err_set(RC_DATA, "%s: %d ranges of %d channels", path, h.ranges, h.n);
    hess_free(&h);
    st_close(&st);
    return rc;
}

/* A module between its scales and its publication. */
struct work {
    struct hfactor     *f, none;
    struct task_weights w;
    struct qspec        q;
    struct gptq_job     job;
    const char         *method;
    bool                plain;  /* rounded without a factor */
    bool                failed; /* its Hessian is not positive definite */
};

static void
work_free(struct work *k)
{
    mem_free(k->job.codes);
    scales_free(&k->w);
}

static void
fill_job(struct work *k)
{
    struct gptq_job *job = &k->job;

    job->want_rtn = k->f->correction.m == NULL;
    job->w = k->w.w;
    job->scale = k->w.scale;
    job->zero = k->w.zero;
    job->global_scale = k->w.global_scale;
    job->scale_col = k->w.scale_col;
    job->l = k->f->l;
    job->order = k->f->order;
    job->dead = k->f->dead;
}

static int
work_begin(struct work *k, struct run *run, struct unit *u)
{
    const struct task *t = u->t;
    const struct recipe_group *rg = &run->plan.recipe->groups[t->group];
    struct hfactor *f = k->f = u->f != NULL ? u->f : &k->none;

    k->job = (struct gptq_job){ .spec = &k->q, .rows = t->end - t->row0, .cols = t->cols };
    scheme_qspec(&rg->scheme, run->arch.dtype, rg->gptq && rg->scheme.v10, &k->q);
    if (u->f != NULL)
        TRY(hfactor_make(f, run));
    TRY(scales_choose(&k->w, run, t, &k->q, f->diag, scheme_order_group(&rg->scheme) ? f->order : NULL,
        f->correction.m, 1));
    if (k->q.v10)
        TRY(scales_sparse(run, t, &k->job.keep_zeros));
    if ((k->job.codes = mem_alloc((size_t)k->job.rows * (size_t)k->job.cols, 1)) == NULL)
        return RC_OS;
    k->failed = rg->gptq && f->failed;
    k->plain = !rg->gptq || ((k->failed || f->few) && !k->q.v10);
    k->method = !rg->gptq ? "rtn" : f->few ? "rtn-few-tokens" : k->failed ? "rtn-fallback" : "gptq";
    u->damp = rg->gptq ? f->damp : 0;
    if (!k->plain)
        fill_job(k);
    return RC_OK;
}

static int
work_round(struct work *k, struct run *run)
{
    struct scales s = { .scale = k->w.scale, .zero = k->w.zero, .global_scale = k->w.global_scale };

    if (!k->plain)
        return run->bk->gptq(run->dev, &k->job);
    round_rows(&k->q, &s, k->w.w, 0, k->job.rows, k->job.cols, k->job.codes);
    k->job.loss = k->job.rtn_loss = NAN;
    return RC_OK;
}

static int
publish(struct run *run, const struct unit *u, const struct work *k)
{
    const struct task_weights *w = &k->w;
    const struct gptq_job *job = &k->job;
    const struct task *t = u->t;
    const struct recipe_group *rg = &run->plan.recipe->groups[t->group];
    struct rounded r = { .scheme = &rg->scheme, .t = run->arch.dtype, .rows = job->rows, .cols = job->cols,
        .codes = job->codes, .scale = w->scale, .zero = w->zero, .scale_col = w->scale_col,
        .global_scale = w->global_scale };
    char loss[32], rtn[32], d[32], rows[32], path[PATH_MAX];
    struct st_meta meta[] = { { "plan", run->plan.fingerprint }, { "method", k->method }, { "loss", loss },
        { "rtn_loss", rtn }, { "damp", d }, { "rows", rows } };
    struct packed_tensors p;
    double start = clock_seconds();
    int rc;

    (void)snprintf(loss, sizeof(loss), "%.9g", job->loss);
    (void)snprintf(rtn, sizeof(rtn), "%.9g", job->rtn_loss);
    (void)snprintf(d, sizeof(d), "%.9g", u->damp);
    (void)snprintf(rows, sizeof(rows), "%d-%d", t->row0, t->end);
    if ((rc = weights_pack(&p, t->module, &r)) == RC_OK && (rc = add_inputs(run, t, u->path, &p)) == RC_OK &&
        (rc = plan_task_path(&run->plan, t, path)) == RC_OK)
        rc = st_publish(path, p.t, p.count, meta, 6);
    event_emit(&run->log, "publish", EVENT_STR("task", t->name), EVENT_REAL("seconds", clock_seconds() - start));
    weights_pack_free(&p);
    return rc;
}

static int
work_end(struct work *k, struct run *run, struct unit *u)
{
    if (k->f->correction.m != NULL)
        TRY(correct_compare(&k->job, run, u->t, &k->f->correction, k->f->diag));
    TRY(publish(run, u, k));
    u->method = k->method;
    u->loss = k->job.loss;
    u->rtn_loss = k->job.rtn_loss;
    return k->failed ? err_set(RC_NUMERIC, "rounded plainly: its Hessian is not positive definite") : RC_OK;
}

/* Scales of what an attention caches. */
static int
cache_unit(struct run *run, struct unit *u)
{
    struct st_meta meta[] = { { "plan", run->plan.fingerprint }, { "method", "cache" } };
    int heads = run->arch.kv_heads, rc;
    struct packed_tensors p = { 0 };
    char path[PATH_MAX];
    struct st_file st;
    struct hess h;

    u->loss = u->rtn_loss = NAN;
    TRY(hess_open(&h, u->path, false, run->plan.fingerprint, &st));
    rc = h.ranges == 1 + 2 * heads ? inputs_pack_cache(&p, u->t->module, &run->plan.recipe->cache, run->arch.dtype,
        heads, h.range + 2) : err_set(RC_DATA, "%s: %d ranges, want %d", u->path, h.ranges, 1 + 2 * heads);
    if (rc == RC_OK && (rc = plan_task_path(&run->plan, u->t, path)) == RC_OK &&
        (rc = st_publish(path, p.t, p.count, meta, 2)) == RC_OK)
        u->method = "cache";
    weights_pack_free(&p);
    hess_free(&h);
    st_close(&st);
    return rc;
}

static int
round_unit(struct run *run, struct unit *u)
{
    struct work k = { 0 };
    int rc = work_begin(&k, run, u);

    if (rc == RC_OK && (rc = work_round(&k, run)) == RC_OK)
        rc = work_end(&k, run, u);
    work_free(&k);
    return rc;
}

static void
tell(const struct unit *u)
{
    if (u->rc != RC_OK)
        msg_error(u->t->name, "%s", err_text());
}

void
unit_do(struct run *run, struct unit *u)
{
    double start = clock_seconds();

    u->begun = true;
    u->rc = plan_task_cache(u->t) ? cache_unit(run, u) : round_unit(run, u);
    u->seconds = clock_seconds() - start;
    tell(u);
}

static void
launch(struct run *run, struct unit *u, int count, struct work *k, struct gptq_job **jobs, int *rc)
{
    int n = 0;

    for (int i = 0; i < count; i++) {
        u[i].begun = true;
        u[i].rc = work_begin(&k[i], run, &u[i]);
        if (u[i].rc == RC_OK && !k[i].plain)
            jobs[n++] = &k[i].job;
        tell(&u[i]);
    }
    backend_gptq(run->bk, run->dev, jobs, n, rc);
    n = 0;
    for (int i = 0; i < count; i++) {
        if (u[i].rc != RC_OK)
            continue;
        if (k[i].plain || rc[n++] != RC_OK) /* alone it says why */
            u[i].rc = work_round(&k[i], run);
        if (u[i].rc == RC_OK)
            u[i].rc = work_end(&k[i], run, &u[i]);
        tell(&u[i]);
    }
}

void
unit_launch(struct run *run, struct unit *u, int count)
{
    struct work *k = mem_zalloc((size_t)count, sizeof(*k));
    struct gptq_job **jobs = mem_alloc((size_t)count, sizeof(*jobs));
    int *rc = mem_alloc((size_t)count, sizeof(*rc));
    double start = clock_seconds();

    if (k != NULL && jobs != NULL && rc != NULL) {
        launch(run, u, count, k, jobs, rc);
        for (int i = 0; i < count; i++)
            work_free(&k[i]);
    }
    for (int i = 0; i < count; i++) {
        if (!u[i].begun)
            unit_do(run, &u[i]);
        u[i].seconds = (clock_seconds() - start) / count;
    }
    mem_free(rc);
    mem_free(jobs);
    mem_free(k);
}
