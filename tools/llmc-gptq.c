/* llmc-gptq - round the weights of every task against its Hessian */
#include "../kernels/factor.h"
#include "../kernels/pack.h"
#include "../libcommon/correct.h"
#include "../libcommon/hess.h"
#include "../libcommon/inputs.h"
#include "../libcommon/mem.h"
#include "../libcommon/msg.h"
#include "../libcommon/progress.h"
#include "../libcommon/run.h"
#include "../libcommon/scales.h"
#include "../libcommon/stop.h"
#include "../libcommon/stream.h"
#include "../libcommon/weights.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A factorisation that fails is tried again with ten and a hundred times the damping, then given up. */
enum { DAMP_TRIES = 3, DAMP_FACTOR = 10 };

static struct {
    struct run_opts run;
    const char     *only;
    bool            again, dry;
} cfg = { .run = RUN_OPTS_DEFAULT };

static const struct opt options[] = {
    RUN_OPTS(&cfg.run),
    OPT_STR('m', "module", &cfg.only, "glob", "only modules whose name matches"),
    OPT_FLAG(0, "again", &cfg.again, "compress again what is done already"),
    OPT_FLAG('n', "dry-run", &cfg.dry, "print the tasks and stop"),
    OPT_END
};

static const struct tool tool = {
    .name = "llmc-gptq", .options = options, .built_with = run_built_with,
    .about = "round the weights of every task against its Hessian",
    .notes = "Reads \"TASK<TAB>FILE\" lines of llmc-hessian from stdin unless it is a terminal, then takes what\n"
             "tasks are left and have a Hessian in the work directory. Prints a line for each: task, scheme, loss,\n"
             "loss of plain rounding, damping, seconds.",
};

/* The factor of the last Hessian: modules that share an input share it. */
struct factor {
    char     path[PATH_MAX];
    int      group;     /* of the recipe: damping and order are its */
    int      n;
    float   *l;
    uint8_t *dead;
    int     *order;
    float   *diag;      /* of H, over its mean */
    double   damp;      /* as used */
    struct correction correction;
    bool     few;       /* tokens came to the expert: a named rule, not a failure */
    bool     failed;
};

struct gptq {
    struct run    run;
    struct factor f;
    bool         *seen; /* by task: tried in this run */
    struct progress progress;
    bool          told; /* an earlier stage has said why tasks are left */
};

static void
factor_free(struct factor *f)
{
    mem_free(f->l);
    mem_free(f->dead);
    mem_free(f->order);
    mem_free(f->diag);
    correct_close(&f->correction);
    *f = (struct factor){ 0 };
}

static int
factor_hessian(struct gptq *g, const struct hess *h, const char *name, const struct recipe_group *rg)
{
    struct factor *f = &g->f;
    double s = 2.0 / (double)h->sequences;
    int rc = RC_OK, tries = rg->scheme.v10 ? 1 : DAMP_TRIES;

    f->damp = rg->dampening_frac;
    for (int i = 0; i < tries; i++, f->damp *= DAMP_FACTOR) {
        rc = g->run.bk->factor(g->run.dev, f->l, f->dead, h->sum, s, f->order, f->damp, h->n);
        if (rc != RC_NUMERIC)
            return rc;
        event_emit(&g->run.log, "damp", EVENT_STR("task", name), EVENT_REAL("damp", f->damp));
    }
    f->failed = true;
    factor_identity(f->l, h->n); /* what 0.10 goes on with */
    msg_warn(name, "Hessian is not positive definite at damp %g: rounded plainly", f->damp / DAMP_FACTOR);
    return RC_OK;
}

/* The rule "few-tokens": an expert that few were routed to is rounded plainly, by scales of its weights alone. */
static void
few_tokens(struct gptq *g, const struct hess *h, const struct task *t)
{
    event_emit(&g->run.log, "few-tokens", EVENT_STR("task", t->name), EVENT_INT("tokens", h->rows));
    if (g->f.order == NULL)
        return;
    for (int i = 0; i < h->n; i++)
        g->f.order[i] = i;
    factor_identity(g->f.l, h->n); /* 0.10's loop rounds plainly by it */
}

/* Plain rounding uses the diagonal alone. */
static int
fill_factor(struct gptq *g, const struct hess *h, const struct task *t, const struct recipe_group *rg)
{
    struct factor *f = &g->f;
    size_t n = (size_t)h->n;

    f->n = h->n;
    f->few = g->run.plan.experts == EXPERTS_ROUTED && arch_point_expert(t->point) >= 0 &&
        h->rows < g->run.plan.expert_tokens;
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
        few_tokens(g, h, t);
    if (f->few || !rg->gptq)
        return RC_OK;
    TRY(factor_order(f->order, h->sum, rg->actorder, h->n));
    TRY(factor_hessian(g, h, t->name, rg));
    return rg->correct && !f->failed ? correct_open(&f->correction, &g->run, h, t->name, rg->correct_lambda) : RC_OK;
}

/* Factor of the Hessian at path, the cached one if it is that. */
static int
get_factor(struct gptq *g, const struct task *t, const char *path)
{
    const struct recipe_group *rg = &g->run.plan.recipe->groups[t->group];
    double start = clock_seconds();
    struct st_file st;
    struct hess h;
    int rc;

    if (strcmp(g->f.path, path) == 0 && g->f.group == t->group)
        return RC_OK;
    factor_free(&g->f);
    TRY(hess_open(&h, path, true, g->run.plan.fingerprint, &st));
    rc = h.n == t->cols ? fill_factor(g, &h, t, rg) : err_set(RC_DATA,
        "Hessian is %d x %d of %lld sequences, weight has %d columns", h.n, h.n, (long long)h.sequences, t->cols);
    hess_free(&h);
    st_close(&st);
    if (rc != RC_OK)
        factor_free(&g->f);
    else {
        (void)snprintf(g->f.path, sizeof(g->f.path), "%s", path);
        g->f.group = t->group;
        event_emit(&g->run.log, "factor", EVENT_INT("step", t->step), EVENT_INT("n", t->cols),
            EVENT_REAL("seconds", clock_seconds() - start));
    }
    return rc;
}

/* Scales of static inputs, which calibration has left beside the Hessian. */
static int
add_inputs(struct gptq *g, const struct task *t, const char *path, struct packed_tensors *p)
{
    const struct scheme *s = &g->run.plan.recipe->groups[t->group].scheme;
    struct st_file st;
    struct hess h;
    int rc;

    if (!scheme_input_static(s))
        return RC_OK;
    TRY(hess_open(&h, path, false, g->run.plan.fingerprint, &st));
    rc = h.ranges > 0 && h.n == t->cols ? inputs_pack(p, t->module, s, g->run.arch.dtype, h.range) :
        err_set(RC_DATA, "%s: %d ranges of %d channels", path, h.ranges, h.n);
    hess_free(&h);
    st_close(&st);
    return rc;
}

static int
publish(struct gptq *g, const struct task *t, const char *hessian, const struct task_weights *w,
    const struct gptq_job *job, double damp, const char *method)
{
    const struct recipe_group *rg = &g->run.plan.recipe->groups[t->group];
    struct rounded r = { .scheme = &rg->scheme, .t = g->run.arch.dtype, .rows = job->rows, .cols = job->cols,
        .codes = job->codes, .scale = w->scale, .zero = w->zero, .scale_col = w->scale_col,
        .global_scale = w->global_scale };
    char loss[32], rtn[32], d[32], rows[32], path[PATH_MAX];
    struct st_meta meta[] = { { "plan", g->run.plan.fingerprint }, { "method", method }, { "loss", loss },
        { "rtn_loss", rtn }, { "damp", d }, { "rows", rows } };
    struct packed_tensors p;
    double start = clock_seconds();
    int rc;

    (void)snprintf(loss, sizeof(loss), "%.9g", job->loss);
    (void)snprintf(rtn, sizeof(rtn), "%.9g", job->rtn_loss);
    (void)snprintf(d, sizeof(d), "%.9g", damp);
    (void)snprintf(rows, sizeof(rows), "%d-%d", t->row0, t->end);
    if ((rc = weights_pack(&p, t->module, &r)) == RC_OK && (rc = add_inputs(g, t, hessian, &p)) == RC_OK &&
        (rc = plan_task_path(&g->run.plan, t, path)) == RC_OK)
        rc = st_publish(path, p.t, p.count, meta, 6);
    event_emit(&g->run.log, "publish", EVENT_STR("task", t->name), EVENT_REAL("seconds", clock_seconds() - start));
    weights_pack_free(&p);
    return rc;
}

static void
report(struct gptq *g, const struct task *t, const struct gptq_job *job, double damp, double seconds,
    const char *method)
{
    const char *scheme = plan_task_scheme(&g->run.plan, t);

    msg_clear_status();
    (void)printf("%s\t%s\t%.6g\t%.6g\t%.3g\t%.3f\n", t->name, scheme, job->loss, job->rtn_loss, damp, seconds);
    (void)msg_flush_stdout(); /* run_close tells */
    event_emit(&g->run.log, "task", EVENT_STR("task", t->name), EVENT_INT("step", t->step), EVENT_STR("method", method),
        EVENT_REAL("loss", job->loss), EVENT_REAL("rtn_loss", job->rtn_loss), EVENT_REAL("damp", damp),
        EVENT_REAL("seconds", seconds));
    progress_step(&g->progress, "step %d of %d, %s", t->step + 1, g->run.plan.step_count, t->name);
}

static int
round_task(struct gptq *g, const struct task_weights *w, bool gptq, struct gptq_job *job)
{
    struct scales s = { .scale = w->scale, .zero = w->zero, .global_scale = w->global_scale };

    if (!gptq) {
        round_rows(job->spec, &s, w->w, 0, job->rows, job->cols, job->codes);
        job->loss = job->rtn_loss = NAN;
        return RC_OK;
    }
    job->w = w->w;
    job->scale = w->scale;
    job->zero = w->zero;
    job->global_scale = w->global_scale;
    job->scale_col = w->scale_col;
    job->l = g->f.l;
    job->order = g->f.order;
    job->dead = g->f.dead;
    return g->run.bk->gptq(g->run.dev, job);
}

/* Scales of what an attention caches. */
static int
cache_task(struct gptq *g, const struct task *t, const char *hessian)
{
    struct st_meta meta[] = { { "plan", g->run.plan.fingerprint }, { "method", "cache" } };
    struct gptq_job job = { .loss = NAN, .rtn_loss = NAN };
    int heads = g->run.arch.kv_heads, rc;
    struct packed_tensors p = { 0 };
    double start = clock_seconds();
    char path[PATH_MAX];
    struct st_file st;
    struct hess h;

    TRY(hess_open(&h, hessian, false, g->run.plan.fingerprint, &st));
    rc = h.ranges == 1 + 2 * heads ? inputs_pack_cache(&p, t->module, &g->run.plan.recipe->cache, g->run.arch.dtype,
        heads, h.range + 2) : err_set(RC_DATA, "%s: %d ranges, want %d", hessian, h.ranges, 1 + 2 * heads);
    if (rc == RC_OK && (rc = plan_task_path(&g->run.plan, t, path)) == RC_OK &&
        (rc = st_publish(path, p.t, p.count, meta, 2)) == RC_OK)
        report(g, t, &job, 0, clock_seconds() - start, "cache");
    weights_pack_free(&p);
    hess_free(&h);
    st_close(&st);
    return rc;
}

/* path NULL: its recipe needs nothing from calibration. */
static int
gptq_task(struct gptq *g, const struct task *t, const char *path)
{
    const struct recipe_group *rg = &g->run.plan.recipe->groups[t->group];
    struct task_weights w = { 0 };
    struct qspec q;
    struct gptq_job job = { .spec = &q, .rows = t->end - t->row0, .cols = t->cols, .want_rtn = true };
    double start = clock_seconds(), damp;
    const char *method;
    bool sums = recipe_needs_hessian(g->run.plan.recipe, t->group), failed, few, corrected;
    int rc;

    scheme_qspec(&rg->scheme, g->run.arch.dtype, rg->gptq && rg->scheme.v10, &q);
    if ((sums && (rc = get_factor(g, t, path)) != RC_OK) ||
        (rc = scales_choose(&w, &g->run, t, &q, sums ? g->f.diag : NULL, scheme_order_group(&rg->scheme) ? g->f.order :
            NULL, sums ? g->f.correction.m : NULL)) != RC_OK ||
        (q.v10 && (rc = scales_sparse(&g->run, t, &job.keep_zeros)) != RC_OK))
        goto out;
    if ((job.codes = mem_alloc((size_t)job.rows * (size_t)job.cols, 1)) == NULL) {
        rc = RC_OS;
        goto out;
    }
    few = sums && g->f.few;
    corrected = sums && g->f.correction.m != NULL;
    failed = rg->gptq && g->f.failed;
    method = !rg->gptq ? "rtn" : few ? "rtn-few-tokens" : failed ? "rtn-fallback" : "gptq";
    damp = rg->gptq ? g->f.damp : 0;
    job.want_rtn = !corrected;
    if ((rc = round_task(g, &w, rg->gptq && ((!failed && !few) || q.v10), &job)) == RC_OK &&
        (!corrected || (rc = correct_compare(&job, &g->run, t, &g->f.correction, g->f.diag)) == RC_OK) &&
        (rc = publish(g, t, path, &w, &job, damp, method)) == RC_OK) {
        report(g, t, &job, damp, clock_seconds() - start, method);
        if (failed)
            rc = err_set(RC_NUMERIC, "rounded plainly: its Hessian is not positive definite");
    }
out:
    mem_free(job.codes);
    scales_free(&w);
    return rc;
}

static bool
mine(const struct gptq *g, const struct task *t)
{
    return !g->seen[t - g->run.plan.tasks] && t->rank == g->run.rank && plan_task_match(t, cfg.only) && (cfg.again ||
        !plan_task_done(&g->run.plan, t));
}

/* A factor that no other task will ask for makes room for the next step's sums. */
static void
drop_factor(struct gptq *g, const struct task *t)
{
    const struct step *s = &g->run.plan.steps[t->step];

    for (int i = s->first_task; i < s->end_task; i++)
        if (g->run.plan.tasks[i].point == t->point && mine(g, &g->run.plan.tasks[i]))
            return;
    factor_free(&g->f);
    mem_trim();
}

static int
try_task(struct gptq *g, const struct task *t, const char *path)
{
    int rc = plan_task_cache(t) ? cache_task(g, t, path) : gptq_task(g, t, path);

    g->seen[t - g->run.plan.tasks] = true;
    drop_factor(g, t);
    if (rc != RC_OK)
        msg_error(t->name, "%s", err_text());
    return rc;
}

/* Modules that the recipe rounds plainly, by scales of their weights alone, need nothing else. */
static int
plain_tasks(struct gptq *g)
{
    int worst = RC_OK;

    for (int i = 0; i < g->run.plan.task_count && !stop_asked(); i++) {
        const struct task *t = &g->run.plan.tasks[i];

        if (mine(g, t) && !plan_task_waits(&g->run.plan, t))
            worst = rc_worse(worst, try_task(g, t, NULL));
    }
    return worst;
}

static int
stdin_tasks(struct gptq *g)
{
    const struct task *t;
    char *line = NULL, *tab;
    size_t cap = 0;
    ssize_t n;
    int worst = RC_OK;

    while ((n = getline(&line, &cap, stdin)) > 0) {
        if (line[n - 1] == '\n')
            line[n - 1] = '\0';
        if (strcmp(line, STREAM_END_LINE) == 0)
            break;
        if (strcmp(line, STREAM_FAILED_LINE) == 0) { /* said already */
            g->told = true;
            worst = rc_worse(worst, RC_RETRY);
            break;
        }
        if ((tab = strchr(line, '\t')) != NULL)
            *tab++ = '\0';
        if (tab == NULL || (t = plan_task_find(&g->run.plan, line)) == NULL) {
            msg_error("stdin", "\"%s\" is not a task and a file", line);
            worst = rc_worse(worst, RC_DATA);
        } else if (mine(g, t)) {
            worst = rc_worse(worst, try_task(g, t, tab));
        }
        worst = rc_worse(worst, stop_check());
        if (worst != RC_OK && worst != RC_NUMERIC) /* calib would wait for ever for a module that failed */
            break;
    }
    free(line);
    return worst;
}

static int
left_tasks(struct gptq *g)
{
    const struct plan *p = &g->run.plan;
    char path[PATH_MAX];
    int worst = RC_OK, waiting = 0;

    for (int i = 0; i < p->task_count && !stop_asked(); i++) {
        const struct task *t = &p->tasks[i];

        if (!mine(g, t) || !plan_task_waits(p, t))
            continue;
        if (plan_path(p, path, "hessian/%d/%s.safetensors", t->step, arch_point_name(t->point)) != RC_OK ||
            access(path, R_OK) != 0)
            waiting++;
        else
            worst = rc_worse(worst, try_task(g, t, path));
    }
    if (waiting > 0 && worst == RC_OK) {
        if (!g->told)
            msg_error(NULL, "%d module%s no Hessian yet", waiting, waiting == 1 ? " has" : "s have");
        worst = RC_RETRY;
    }
    return worst;
}

static void
print_tasks(const struct gptq *g)
{
    for (int i = 0; i < g->run.plan.task_count; i++)
        if (mine(g, &g->run.plan.tasks[i]))
            (void)printf("%s\t%s\t%.3g\n", g->run.plan.tasks[i].name,
                plan_task_scheme(&g->run.plan, &g->run.plan.tasks[i]), g->run.plan.tasks[i].cost);
}

/* Tasks that need no Hessian, those that stdin names, those whose Hessian lies in the work directory. */
static int
all_tasks(struct gptq *g)
{
    int worst = plain_tasks(g);

    if (isatty(STDIN_FILENO) != 1 && (worst == RC_OK || worst == RC_NUMERIC))
        worst = rc_worse(worst, stdin_tasks(g));
    if (worst == RC_OK || worst == RC_NUMERIC || worst == RC_RETRY)
        worst = rc_worse(worst, left_tasks(g));
    if (stop_check() == RC_OK)
        return worst;
    msg_error(NULL, "%s", err_text());
    return rc_worse(worst, RC_RETRY);
}

int
main(int argc, char *argv[])
{
    struct gptq g = { 0 };
    int rc;

    (void)opt_parse(&tool, argc, argv);
    if ((rc = run_open(&g.run, tool.name, &cfg.run)) != RC_OK)
        die(rc, "%s", err_text());
    progress_start(&g.progress, tool.name, "modules", plan_tasks_left(&g.run.plan));
    if ((g.seen = mem_zalloc((size_t)g.run.plan.task_count, sizeof(*g.seen))) == NULL)
        rc = RC_OS;
    else if (!plan_any_match(&g.run.plan, cfg.only))
        rc = err_set(RC_DATA, "no task matches \"%s\"", cfg.only);
    else if (!cfg.dry)
        rc = run_need(&g.run, BUDGET_GPTQ);
    if (rc != RC_OK)
        msg_error(NULL, "%s", err_text());
    else if (cfg.dry)
        print_tasks(&g);
    else
        rc = all_tasks(&g);
    factor_free(&g.f);
    mem_free(g.seen);
    return run_close(&g.run, rc);
}
