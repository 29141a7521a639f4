/* hfactor - the factor of a Hessian, which modules that share an input share */
#include "hfactor.h"

#include "../kernels/factor.h"
#include "hess.h"
#include "mem.h"
#include "msg.h"
#include "scales.h"

#include <stdio.h>
#include <string.h>

/* A factorisation that fails is tried again with ten and a hundred times the damping, then given up. */
enum { DAMP_TRIES = 3, DAMP_FACTOR = 10 };

bool
hfactor_is(const struct hfactor *f, const struct task *t, const char *path)
{
    return f->t != NULL && strcmp(f->path, path) == 0 && f->group == t->group;
}

void
hfactor_want(struct hfactor *f, const struct task *t, const char *path)
{
    (void)snprintf(f->path, sizeof(f->path), "%s", path);
    f->group = t->group;
    f->t = t;
}

void
hfactor_free(struct hfactor *f)
{
    mem_free(f->l);
    mem_free(f->dead);
    mem_free(f->order);
    mem_free(f->diag);
    correct_close(&f->correction);
    *f = (struct hfactor){ 0 };
}

static int
factorise(struct hfactor *f, struct run *run, const struct hess *h, const struct recipe_group *rg)
{
    double s = 2.0 / (double)h->sequences;
    int rc = RC_OK, tries = rg->scheme.v10 ? 1 : DAMP_TRIES;

    f->damp = rg->dampening_frac;
    for (int i = 0; i < tries; i++, f->damp *= DAMP_FACTOR) {
        rc = run->bk->factor(run->dev, f->l, f->dead, h->sum, s, f->order, f->damp, h->n);
        if (rc != RC_NUMERIC)
            return rc;
        event_emit(&run->log, "damp", EVENT_STR("task", f->t->name), EVENT_REAL("damp", f->damp));
    }
    f->failed = true;
    factor_identity(f->l, h->n); /* what 0.10 goes on with */
    msg_warn(f->t->name, "Hessian is not positive definite at damp %g: rounded plainly", f->damp / DAMP_FACTOR);
    return RC_OK;
}

/* The rule "few-tokens": an expert that few were routed to is rounded plainly, by scales of its weights alone. */
static void
few_tokens(struct hfactor *f, struct run *run, const struct hess *h)
{
    event_emit(&run->log, "few-tokens", EVENT_STR("task", f->t->name), EVENT_INT("tokens", h->rows));
    if (f->order == NULL)
        return;
    for (int i = 0; i < h->n; i++)
        f->order[i] = i;
    factor_identity(f->l, h->n); /* 0.10's loop rounds plainly by it */
}

/* Plain rounding uses the diagonal alone. */
static int
fill(struct hfactor *f, struct run *run, const struct hess *h)
{
    const struct recipe_group *rg = &run->plan.recipe->groups[f->group];
    size_t n = (size_t)h->n;

    f->n = h->n;
    f->few = run->plan.experts == EXPERTS_ROUTED && arch_point_expert(f->t->point) >= 0 &&
        h->rows < run->plan.expert_tokens;
    if (!f->few && h->sequences < 1)
        return err_set(RC_DATA, "Hessian of no sequences");
    if (!f->few && (f->diag = mem_alloc(n, sizeof(*f->diag))) != NULL)
        scales_diag(h, f->diag);
    if (rg->gptq) {
        f->order = mem_alloc(n, sizeof(*f->order));
        f->l = mem_sparse(n * n, sizeof(*f->l));
        f->dead = mem_zalloc(n, 1);
    }
    if ((!f->few && f->diag == NULL) || (rg->gptq && (f->l == NULL || f->dead == NULL || f->order == NULL)))
        return RC_OS;
    if (f->few)
        few_tokens(f, run, h);
    if (f->few || !rg->gptq)
        return RC_OK;
    TRY(factor_order(f->order, h->sum, rg->actorder, h->n));
    TRY(factorise(f, run, h, rg));
    return f->failed || !plan_task_corrected(&run->plan, f->t) ? RC_OK :
        correct_open(&f->correction, run, h, f->t->name, rg->correct_lambda);
}

int
hfactor_make(struct hfactor *f, struct run *run)
{
    double start = clock_seconds();
    struct st_file st;
    struct hess h;

    if (f->made)
        return f->rc == RC_OK ? RC_OK : err_set(f->rc, "%s", f->error);
    if ((f->rc = hess_open(&h, f->path, true, run->plan.fingerprint, &st)) == RC_OK) {
        f->rc = h.n == f->t->cols ? fill(f, run, &h) : err_set(RC_DATA,
            "Hessian is %d x %d of %lld sequences, weight has %d columns", h.n, h.n, (long long)h.sequences,
            f->t->cols);
        hess_free(&h);
        st_close(&st);
    }
    f->made = true;
    if (f->rc == RC_OK)
        event_emit(&run->log, "factor", EVENT_INT("step", f->t->step), EVENT_INT("n", f->n),
            EVENT_REAL("seconds", (clock_seconds() - start) / (f->beside > 1 ? f->beside : 1)));
    else
        (void)snprintf(f->error, sizeof(f->error), "%s", err_text());
    return f->rc;
}
