/* llmc-gptq - round the weights of every task against its Hessian */
#include "../libcommon/digests.h"
#include "../libcommon/mem.h"
#include "../libcommon/msg.h"
#include "../libcommon/pool.h"
#include "../libcommon/progress.h"
#include "../libcommon/run.h"
#include "../libcommon/stop.h"
#include "../libcommon/stream.h"
#include "../libcommon/unit.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* Modules a thread that are taken side by side before their lines are printed; how long one waits for more of them. */
enum { SIDE_UNITS = 4, SIDE_WAIT_MS = 20, LINES_MAX = 64 << 10 };

struct gptq {
    struct run      run;
    struct run     *side;    /* by thread: the same with a device of one thread each; NULL: one module at a time */
    struct hfactor *f;       /* [threads], or one; modules that share an input share one */
    struct unit    *unit;    /* [SIDE_UNITS threads], or one */
    int             units, factors, units_max;
    bool            launch;  /* an accelerator takes several units at once */
    bool           *seen;    /* by task: taken in this run */
    struct digests  source;  /* for llmc-pack, which would read it for nothing else */
    struct progress progress;
    bool            told;    /* an earlier stage has said why tasks are left */
    char            lines[LINES_MAX + 1]; /* of stdin, which are not read yet */
    size_t          lines_len, line;
};

static void
report(struct gptq *g, const struct unit *u)
{
    const struct task *t = u->t;

    msg_clear_status();
    (void)printf("%s\t%s\t%.6g\t%.6g\t%.3g\t%.3f\n", t->name, plan_task_scheme(&g->run.plan, t), u->loss,
        u->rtn_loss, u->damp, u->seconds);
    (void)msg_flush_stdout(); /* run_close tells */
    event_emit(&g->run.log, "task", EVENT_STR("task", t->name), EVENT_INT("step", t->step),
        EVENT_STR("method", u->method), EVENT_REAL("loss", u->loss), EVENT_REAL("rtn_loss", u->rtn_loss),
        EVENT_REAL("damp", u->damp), EVENT_REAL("seconds", u->seconds));
    progress_step(&g->progress, "step %d of %d, %s", t->step + 1, g->run.plan.step_count, t->name);
}

static bool
mine(const struct gptq *g, const struct task *t)
{
    return !g->seen[t - g->run.plan.tasks] && t->rank == g->run.rank && plan_task_match(t, cfg.only) && (cfg.again ||
        !plan_task_done(&g->run.plan, t));
}

/* --- a batch: small modules side by side, or one module --- */

/* Some task will ask for it. */
static bool
is_wanted(const struct gptq *g, const struct hfactor *f)
{
    const struct plan *p = &g->run.plan;

    for (int i = p->steps[f->t->step].first_task; i < p->steps[f->t->step].end_task; i++)
        if (p->tasks[i].point == f->t->point && mine(g, &p->tasks[i]))
            return true;
    return false;
}

/* Room for the next step's sums. */
static void
drop_factors(struct gptq *g)
{
    for (int i = 0; i < g->factors; i++)
        if (g->f[i].t != NULL && !is_wanted(g, &g->f[i]))
            hfactor_free(&g->f[i]);
    mem_trim();
}

static void
unit_tile(void *ctx, int tile, int worker)
{
    struct gptq *g = ctx;

    if (!stop_asked())
        unit_do(&g->side[worker], &g->unit[tile]);
}

static void
factor_tile(void *ctx, int tile, int worker)
{
    struct gptq *g = ctx;

    if (g->f[tile].t != NULL && !stop_asked())
        (void)hfactor_make(&g->f[tile], &g->side[worker]); /* each of its modules tells */
}

/* Seconds of a module are its share of those that passed, so that they add up. */
static void
do_units(struct gptq *g)
{
    double start = clock_seconds(), sum = 0;
    int left = 0, last = 0;

    if (g->launch) {
        unit_launch(&g->run, g->unit, g->units);
        return;
    }
    for (int i = 0; i < g->factors; i++)
        if (g->f[i].t != NULL && !g->f[i].made)
            left++, last = i;
    for (int i = 0; i < g->factors; i++)
        g->f[i].beside = left;
    if (left == 1)
        (void)hfactor_make(&g->f[last], &g->run);
    else if (left > 1)
        pool_run(dev_pool(g->run.dev), g->factors, factor_tile, g);
    pool_run(dev_pool(g->run.dev), g->units, unit_tile, g);
    for (int i = 0; i < g->units; i++)
        sum += g->unit[i].seconds;
    for (int i = 0; sum > 0 && i < g->units; i++)
        g->unit[i].seconds *= (clock_seconds() - start) / sum;
}

/* Compresses what has come together. */
static int
flush(struct gptq *g)
{
    int worst = RC_OK;

    if (g->units == 1)
        unit_do(&g->run, &g->unit[0]);
    else
        do_units(g);
    for (int i = 0; i < g->units; i++) {
        const struct unit *u = &g->unit[i];

        if (!u->begun) /* a signal came before */
            continue;
        if (u->method != NULL)
            report(g, u);
        worst = rc_worse(worst, u->rc);
    }
    g->units = 0;
    drop_factors(g);
    return worst;
}

/* A place for a factor: where it is already, or where none is that the batch needs. NULL: there is none. */
static struct hfactor *
factor_place(struct gptq *g, const struct task *t, const char *path)
{
    for (int i = 0; i < g->factors; i++)
        if (hfactor_is(&g->f[i], t, path))
            return &g->f[i];
    for (int i = 0; i < g->factors; i++) {
        int k = 0;

        while (k < g->units && g->unit[k].f != &g->f[i])
            k++;
        if (k == g->units) {
            hfactor_free(&g->f[i]);
            hfactor_want(&g->f[i], t, path);
            return &g->f[i];
        }
    }
    return NULL;
}

/* path NULL: its recipe needs nothing from calibration. */
static int
take(struct gptq *g, const struct task *t, const char *path)
{
    bool side = (g->side != NULL || g->launch) && plan_task_side(&g->run.plan, t);
    bool factor = path != NULL && !plan_task_cache(t) && recipe_needs_hessian(g->run.plan.recipe, t->group);
    struct hfactor *f = NULL;
    int rc = RC_OK;

    if (g->units > 0 && (!side || (factor && (f = factor_place(g, t, path)) == NULL)))
        rc = flush(g);
    if (factor && f == NULL)
        f = factor_place(g, t, path);
    g->seen[t - g->run.plan.tasks] = true;
    g->unit[g->units] = (struct unit){ .t = t, .f = f };
    (void)snprintf(g->unit[g->units++].path, PATH_MAX, "%s", path != NULL ? path : "");
    return side && g->units < g->units_max ? rc : rc_worse(rc, flush(g));
}

/* What is left of a batch, unless a signal asks to stop. */
static int
take_no_more(struct gptq *g, int worst)
{
    return g->units > 0 && !stop_asked() ? rc_worse(worst, flush(g)) : worst;
}

/* Modules that the recipe rounds plainly, by scales of their weights alone, need nothing else. */
static int
plain_tasks(struct gptq *g)
{
    int worst = RC_OK;

    for (int i = 0; i < g->run.plan.task_count && !stop_asked(); i++) {
        const struct task *t = &g->run.plan.tasks[i];

        if (mine(g, t) && !plan_task_waits(&g->run.plan, t))
            worst = rc_worse(worst, take(g, t, NULL));
    }
    return take_no_more(g, worst);
}

/* The next line of stdin, without its end; NULL: there is none. It is good until the next call. */
static char *
next_line(struct gptq *g)
{
    for (;;) {
        char *start = g->lines + g->line, *end = memchr(start, '\n', g->lines_len - g->line);
        ssize_t n;

        if (end != NULL) {
            *end = '\0';
            g->line = (size_t)(end - g->lines) + 1;
            return start;
        }
        g->lines_len -= g->line;
        memmove(g->lines, start, g->lines_len);
        g->line = 0;
        n = g->lines_len < LINES_MAX ? read(STDIN_FILENO, g->lines + g->lines_len, LINES_MAX - g->lines_len) : 0;
        if (n < 0 && errno == EINTR && !stop_asked())
            continue;
        if (n <= 0) { /* a last line without an end, if any */
            g->lines[g->lines_len] = '\0';
            g->line = g->lines_len;
            return n == 0 && g->line > 0 ? g->lines : NULL;
        }
        g->lines_len += (size_t)n;
    }
}

/* Whether a line is there, or comes while others of the batch are waiting. */
static bool
line_comes(const struct gptq *g)
{
    struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };

    return memchr(g->lines + g->line, '\n', g->lines_len - g->line) != NULL || poll(&p, 1, SIDE_WAIT_MS) > 0;
}

static int
stdin_tasks(struct gptq *g)
{
    const struct task *t;
    char *line, *tab;
    int worst = RC_OK;

    while ((line = next_line(g)) != NULL) {
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
            worst = rc_worse(worst, take(g, t, tab));
        }
        if (g->units > 0 && !line_comes(g))
            worst = take_no_more(g, worst);
        worst = rc_worse(worst, stop_check());
        if (worst != RC_OK && worst != RC_NUMERIC) /* calib would wait for ever for a module that failed */
            return worst;
    }
    return take_no_more(g, worst);
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
            worst = rc_worse(worst, take(g, t, path));
    }
    worst = take_no_more(g, worst);
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

/* Side by side where modules are many and small and memory allows it, else one by one with all threads. */
static int
prepare(struct gptq *g)
{
    struct budget_of of = run_budget_of(&g->run);
    struct budget_way way = { .side = of.threads > 1 };
    int threads = of.threads;
    struct budget b;

    budget_stage(&b, &of, BUDGET_GPTQ, &way);
    if (way.side && budget_total(&b) > (double)g->run.memory) {
        way.side = false;
        budget_stage(&b, &of, BUDGET_GPTQ, &way);
    }
    TRY(run_budget(&g->run, &b));
    g->factors = way.side ? threads : 1;
    g->launch = way.side && !g->run.bk->host;
    g->units_max = g->launch ? threads : way.side ? SIDE_UNITS * threads : 1; /* a launch holds all of its units */
    g->f = mem_zalloc((size_t)g->factors, sizeof(*g->f));
    g->unit = mem_alloc((size_t)g->units_max, sizeof(*g->unit));
    if (g->f == NULL || g->unit == NULL)
        return RC_OS;
    if (way.side && !g->launch && (g->side = mem_zalloc((size_t)threads, sizeof(*g->side))) == NULL)
        return RC_OS;
    for (int i = 0; g->side != NULL && i < threads; i++) {
        g->side[i] = g->run;
        g->side[i].dev = NULL;
        TRY(g->run.bk->open(&g->side[i].dev, &(struct dev_opts){ .threads = 1 }));
    }
    return RC_OK;
}

/* A run that failed, or was asked to stop, does not wait for them. */
static int
leave_digests(struct gptq *g, int rc)
{
    int left = digests_end(&g->source, rc == RC_OK || rc == RC_NUMERIC);

    if (left != RC_OK)
        msg_error(NULL, "%s", err_text());
    return rc_worse(rc, left);
}

static void
release(struct gptq *g)
{
    for (int i = 0; g->side != NULL && i < g->factors; i++)
        if (g->side[i].dev != NULL)
            g->run.bk->close(g->side[i].dev);
    for (int i = 0; g->f != NULL && i < g->factors; i++)
        hfactor_free(&g->f[i]);
    mem_free(g->side);
    mem_free(g->f);
    mem_free(g->unit);
    mem_free(g->seen);
}

int
main(int argc, char *argv[])
{
    static struct gptq g;
    int rc;

    (void)opt_parse(&tool, argc, argv);
    if ((rc = run_open(&g.run, tool.name, &cfg.run)) != RC_OK)
        die(rc, "%s", err_text());
    progress_start(&g.progress, tool.name, "modules", plan_tasks_left(&g.run.plan));
    if ((g.seen = mem_zalloc((size_t)g.run.plan.task_count, sizeof(*g.seen))) == NULL)
        rc = RC_OS;
    else if (!plan_any_match(&g.run.plan, cfg.only))
        rc = err_set(RC_DATA, "no task matches \"%s\"", cfg.only);
    else if (!cfg.dry && (rc = prepare(&g)) == RC_OK && cfg.only == NULL)
        rc = digests_begin(&g.source, &g.run.model, g.run.plan.dir, g.run.rank, g.run.ranks);
    if (rc != RC_OK)
        msg_error(NULL, "%s", err_text());
    else if (cfg.dry)
        print_tasks(&g);
    else
        rc = all_tasks(&g);
    rc = leave_digests(&g, rc);
    release(&g);
    return run_close(&g.run, rc);
}
