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

static int
publish(struct run *run, const struct unit *u, const struct task_weights *w, const struct gptq_job *job)
{
    const struct task *t = u->t;
    const struct recipe_group *rg = &run->plan.recipe->groups[t->group];
    struct rounded r = { .scheme = &rg->scheme, .t = run->arch.dtype, .rows = job->rows, .cols = job->cols,
        .codes = job->codes, .scale = w->scale, .zero = w->zero, .scale_col = w->scale_col,
        .global_scale = w->global_scale };
    char loss[32], rtn[32], d[32], rows[32], path[PATH_MAX];
    struct st_meta meta[] = { { "plan", run->plan.fingerprint }, { "method", u->method }, { "loss", loss },
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
round_rows_of(struct run *run, const struct task_weights *w, const struct hfactor *f, struct gptq_job *job)
{
    struct scales s = { .scale = w->scale, .zero = w->zero, .global_scale = w->global_scale };

    if (f == NULL) {
        round_rows(job->spec, &s, w->w, 0, job->rows, job->cols, job->codes);
        job->loss = job->rtn_loss = NAN;
        return RC_OK;
    }
    job->w = w->w;
    job->scale = w->scale;
    job->zero = w->zero;
    job->global_scale = w->global_scale;
    job->scale_col = w->scale_col;
    job->l = f->l;
    job->order = f->order;
    job->dead = f->dead;
    return run->bk->gptq(run->dev, job);
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
    const struct task *t = u->t;
    const struct recipe_group *rg = &run->plan.recipe->groups[t->group];
    struct hfactor none = { 0 }, *f = u->f != NULL ? u->f : &none;
    bool corrected, failed, plain;
    struct task_weights w = { 0 };
    const char *method;
    struct qspec q;
    struct gptq_job job = { .spec = &q, .rows = t->end - t->row0, .cols = t->cols };
    int rc = RC_OK;

    scheme_qspec(&rg->scheme, run->arch.dtype, rg->gptq && rg->scheme.v10, &q);
    if ((u->f != NULL && (rc = hfactor_make(f, run)) != RC_OK) ||
        (rc = scales_choose(&w, run, t, &q, f->diag, scheme_order_group(&rg->scheme) ? f->order : NULL,
            f->correction.m, 1)) != RC_OK ||
        (q.v10 && (rc = scales_sparse(run, t, &job.keep_zeros)) != RC_OK))
        goto out;
    if ((job.codes = mem_alloc((size_t)job.rows * (size_t)job.cols, 1)) == NULL) {
        rc = RC_OS;
        goto out;
    }
    corrected = f->correction.m != NULL;
    failed = rg->gptq && f->failed;
    plain = !rg->gptq || ((failed || f->few) && !q.v10);
    method = !rg->gptq ? "rtn" : f->few ? "rtn-few-tokens" : failed ? "rtn-fallback" : "gptq";
    u->damp = rg->gptq ? f->damp : 0;
    job.want_rtn = !corrected;
    u->method = method;
    if ((rc = round_rows_of(run, &w, plain ? NULL : f, &job)) != RC_OK ||
        (corrected && (rc = correct_compare(&job, run, t, &f->correction, f->diag)) != RC_OK) ||
        (rc = publish(run, u, &w, &job)) != RC_OK)
        u->method = NULL;
    u->loss = job.loss;
    u->rtn_loss = job.rtn_loss;
    if (rc == RC_OK && failed)
        rc = err_set(RC_NUMERIC, "rounded plainly: its Hessian is not positive definite");
out:
    mem_free(job.codes);
    scales_free(&w);
    return rc;
}

void
unit_do(struct run *run, struct unit *u)
{
    double start = clock_seconds();

    u->begun = true;
    u->rc = plan_task_cache(u->t) ? cache_unit(run, u) : round_unit(run, u);
    u->seconds = clock_seconds() - start;
    if (u->rc != RC_OK)
        msg_error(u->t->name, "%s", err_text());
}
