/* llmc-report - what a run has done, how long it took, and what it would take on other ranks */
#include "../libcommon/json.h"
#include "../libcommon/mem.h"
#include "../libcommon/msg.h"
#include "../libcommon/opt.h"
#include "../libcommon/predict.h"
#include "../libcommon/replay.h"
#include "../libcommon/report.h"
#include "../libcommon/run.h"
#include "../libcommon/source.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS_LIST_MAX = 32 };

static struct {
    const char *dir, *replay, *only;
    bool        against, tasks, phases, steps, distance, json;
    struct replay_opts o;
    double      link, latency;
    int         tokens;
    int         list[RANKS_LIST_MAX], list_count;
} cfg = { .dir = ".", .link = 10, .latency = 20 };

static const struct opt options[] = {
    OPT_STR('C', "workdir", &cfg.dir, "dir", "work directory (default: the current one)"),
    OPT_STR('m', "module", &cfg.only, "glob", "only modules whose name matches"),
    OPT_FLAG(0, "tasks", &cfg.tasks, "a line for each task: losses, damping, seconds (default, with --phases)"),
    OPT_FLAG(0, "phases", &cfg.phases, "a line for each rank: seconds by phase, waiting"),
    OPT_FLAG(0, "steps", &cfg.steps, "a line for each step: seconds of its slowest rank"),
    OPT_FLAG(0, "distance", &cfg.distance, "a line for each step: how far its states are from the original's"),
    OPT_FLAG(0, "against-plan", &cfg.against, "a line for each step: predicted and measured seconds"),
    OPT_STR(0, "replay", &cfg.replay, "ranks", "what the measured tasks would take on so many ranks, as in 1,2,4"),
    OPT_INT(0, "tokens", &cfg.tokens, 1, 1 << 30, "n", "with --replay: of calibration (default: as they were)"),
    OPT_REAL(0, "link", &cfg.link, 1e-3, 1e6, "n", "with --replay: GB a second into and out of a rank"),
    OPT_REAL(0, "latency", &cfg.latency, 0, 1e6, "n", "with --replay: microseconds of a message"),
    OPT_FLAG(0, "json", &cfg.json, "one JSON object, with a list for each table"),
    OPT_END
};

static const struct tool tool = {
    .name = "llmc-report", .options = options, .built_with = run_built_with,
    .about = "what a run has done, how long it took, and what it would take on other ranks",
};

/* --- tables: lists of objects that have the same keys --- */

/* Tables by name, in the order that they are printed. */
static json_t *tables;

static json_t *
new_row(const char *table)
{
    json_t *list = json_object_get(tables, table), *row = json_object();

    if (list == NULL && (list = json_array()) != NULL)
        (void)json_object_set_new(tables, table, list);
    (void)json_array_append_new(list, row);
    return row;
}

static void
put_int(json_t *row, const char *key, int64_t v)
{
    (void)json_object_set_new(row, key, json_integer(v));
}

/* Three digits behind the point are milliseconds, six those of a loss. */
static void
put_real(json_t *row, const char *key, double v, int digits)
{
    char text[64];

    (void)snprintf(text, sizeof(text), digits == 3 ? "%.3f" : "%.6g", v);
    (void)json_object_set_new(row, key, isfinite(v) ? json_real(strtod(text, NULL)) : json_null());
}

static void
put_text(json_t *row, const char *key, const char *v)
{
    (void)json_object_set_new(row, key, json_string(v));
}

static void
print_field(const json_t *v, bool first)
{
    const char *tab = first ? "" : "\t";

    if (json_is_string(v))
        (void)printf("%s%s", tab, json_string_value(v));
    else if (json_is_integer(v))
        (void)printf("%s%lld", tab, (long long)json_integer_value(v));
    else if (json_is_real(v))
        (void)printf("%s%.6g", tab, json_real_value(v));
    else
        (void)printf("%s-", tab);
}

static void
print_tables(void)
{
    const char *name, *key;
    json_t *list, *row, *v;
    size_t i;

    json_object_foreach(tables, name, list) {
        const char *before = "";

        (void)printf("# %s\n", name);
        json_object_foreach(json_array_get(list, 0), key, v) {
            (void)printf("%s%s", before, key);
            before = "\t";
        }
        (void)printf("\n");
        json_array_foreach(list, i, row) {
            bool first = true;

            json_object_foreach(row, key, v) {
                print_field(v, first);
                first = false;
            }
            (void)printf("\n");
        }
    }
}

/* --- what is in them --- */

static void
add_summary(const struct report *r)
{
    const struct plan *p = r->p;
    double reduce = 0, hidden = 0, most = 0, mean = 0, loss = 0, rtn = 0;
    json_t *row = new_row("run");

    for (int s = 0; s < p->step_count; s++) {
        double slowest = 0;

        for (int k = 0; k < r->ranks; k++) {
            const struct report_cell *c = report_cell(r, s, k);

            reduce += c->reduce;
            hidden += c->hidden;
            slowest = c->compress > slowest ? c->compress : slowest;
            mean += c->compress / r->ranks;
        }
        most += slowest;
    }
    for (int i = 0; i < p->task_count; i++)
        if (r->tasks[i].there && isfinite(r->tasks[i].loss)) {
            loss += r->tasks[i].loss;
            rtn += r->tasks[i].rtn_loss;
        }
    put_int(row, "steps", p->step_count);
    put_int(row, "tasks", p->task_count);
    put_int(row, "left", plan_tasks_left(p));
    put_int(row, "ranks", r->ranks);
    put_int(row, "tokens", p->tokens);
    put_real(row, "seconds", r->last - r->first, 3);
    put_real(row, "loss", loss, 6);
    put_real(row, "rtn_loss", rtn, 6);
    put_real(row, "imbalance", mean > 0 ? most / mean : NAN, 3);
    put_real(row, "reduce", reduce, 3);
    put_real(row, "hidden", hidden, 3);
    put_real(row, "hidden_share", reduce > 0 ? hidden / reduce : NAN, 3);
    if (r->bad_lines > 0)
        msg_warn("log", "%d line%s that a killed run has cut", r->bad_lines, r->bad_lines == 1 ? "" : "s");
}

static void
add_tasks(const struct report *r)
{
    for (int i = 0; i < r->p->task_count; i++) {
        const struct report_task *m = &r->tasks[i];
        const struct task *t = &r->p->tasks[i];
        json_t *row;

        if (!plan_task_match(t, cfg.only))
            continue;
        row = new_row("tasks");
        put_text(row, "task", t->name);
        put_text(row, "scheme", plan_task_scheme(r->p, t));
        put_text(row, "method", m->there ? m->method : plan_task_done(r->p, t) ? "done" : "left");
        put_int(row, "rank", m->there ? m->rank : t->rank);
        put_real(row, "loss", m->there ? m->loss : NAN, 6);
        put_real(row, "rtn_loss", m->there ? m->rtn_loss : NAN, 6);
        put_real(row, "damp", m->there ? m->damp : NAN, 6);
        put_real(row, "factor", m->there ? m->factor : NAN, 3);
        put_real(row, "seconds", m->there ? m->seconds : NAN, 3);
    }
}

static void
add_cell(json_t *row, const struct report_cell *c)
{
    put_real(row, "calibrate", c->step - c->waited, 3);
    put_real(row, "products", c->products, 3);
    put_real(row, "lag", c->lag, 3);
    put_real(row, "reduce", c->reduce, 3);
    put_real(row, "hidden", c->hidden, 3);
    put_real(row, "handover", c->handover, 3);
    put_real(row, "factor", c->factor, 3);
    put_real(row, "compress", c->compress, 3);
    put_real(row, "publish", c->publish, 3);
    put_real(row, "waited", c->waited, 3);
    put_real(row, "state", c->state, 3);
}

/* by numbers of seconds, of which struct report_cell consists from step on. */
static void
add_to(struct report_cell *sum, const struct report_cell *c, bool most)
{
    double *const to[] = { &sum->step, &sum->waited, &sum->products, &sum->handover, &sum->lag, &sum->reduce,
        &sum->hidden, &sum->compress, &sum->factor, &sum->publish, &sum->state };
    const double from[] = { c->step, c->waited, c->products, c->handover, c->lag, c->reduce, c->hidden, c->compress,
        c->factor, c->publish, c->state };

    for (size_t i = 0; i < sizeof(from) / sizeof(from[0]); i++)
        *to[i] = !most ? *to[i] + from[i] : from[i] > *to[i] ? from[i] : *to[i];
}

static void
add_phases(const struct report *r)
{
    for (int k = 0; k < r->ranks; k++) {
        struct report_cell sum = { 0 };
        json_t *row = new_row("phases");

        for (int s = 0; s < r->p->step_count; s++)
            add_to(&sum, report_cell(r, s, k), false);
        put_int(row, "rank", k);
        put_text(row, "host", r->rank[k].host);
        put_int(row, "threads", r->rank[k].threads);
        add_cell(row, &sum);
    }
}

static void
add_steps(const struct report *r)
{
    for (int s = 0; s < r->p->step_count; s++) {
        struct report_cell most = { 0 };
        json_t *row = new_row("steps");

        for (int k = 0; k < r->ranks; k++) {
            struct report_cell c = *report_cell(r, s, k);

            c.step = c.step > c.waited ? c.step - c.waited : 0;
            c.waited = 0;
            add_to(&most, &c, true);
        }
        put_int(row, "step", s);
        put_int(row, "layer", r->p->steps[s].layer);
        add_cell(row, &most);
    }
}

/* Steps that no run has gone past, or whose modules aim at nothing of the original's, have no line. */
static void
add_distance(const struct report *r)
{
    for (int s = 0; s < r->p->step_count; s++) {
        double distance[2];
        json_t *row;

        if (!report_distance(r, s, distance))
            continue;
        row = new_row("distance");
        put_int(row, "step", s);
        put_int(row, "layer", r->p->steps[s].layer);
        put_text(row, "behind", arch_point_name((enum point)(r->p->steps[s].end_point - 1)));
        put_real(row, "distance", distance[0], 6);
        put_real(row, "held_out", distance[1], 6);
    }
}

/* --- against the plan --- */

struct pair {
    double predicted, measured;
};

static void
put_pair(json_t *row, const char *name, const struct pair *p)
{
    char key[64];

    (void)snprintf(key, sizeof(key), "%s_plan", name);
    put_real(row, key, p->predicted, 3);
    put_real(row, name, p->measured, 3);
}

static void
compare_step(const struct report *r, int step, const struct predict_step *s, struct pair *of)
{
    of[0] = (struct pair){ s->calibrate, 0 };
    of[1] = (struct pair){ s->reduce, 0 };
    of[2] = (struct pair){ s->compress, 0 };
    for (int k = 0; k < r->ranks; k++) {
        const struct report_cell *c = report_cell(r, step, k);

        of[0].measured = fmax(of[0].measured, c->step - c->waited);
        of[1].measured = fmax(of[1].measured, c->reduce);
        of[2].measured = fmax(of[2].measured, c->compress);
    }
}

static void
put_comparison(json_t *row, const struct pair *of)
{
    struct pair all = { of[0].predicted + of[1].predicted + of[2].predicted,
        of[0].measured + of[1].measured + of[2].measured };

    put_pair(row, "calibrate", &of[0]);
    put_pair(row, "reduce", &of[1]);
    put_pair(row, "compress", &of[2]);
    put_pair(row, "seconds", &all);
    put_real(row, "error", all.measured > 0 ? all.predicted / all.measured - 1 : NAN, 3);
}

/* By rates that are measured here and now, with as many threads as the run had. */
static int
add_against(const struct report *r, const struct arch *a)
{
    struct dev_opts o = { .threads = r->rank[0].threads };
    struct predict_step *steps = mem_zalloc((size_t)r->p->step_count + 1, sizeof(*steps));
    struct pair of[3], sum[3] = { 0 };
    const struct backend *bk;
    struct prediction all;
    struct rates rates;
    struct dev *dev;
    json_t *row;
    int rc;

    if (steps == NULL)
        return RC_OS;
    if ((rc = backend_find(&bk, NULL)) == RC_OK && (rc = bk->open(&dev, &o)) == RC_OK) {
        rc = predict_rates(&rates, bk, dev, a->dtype == DT_BF16 ? DT_BF16 : DT_F32);
        bk->close(dev);
    }
    if (rc == RC_OK)
        rc = predict_assigned(&all, r->p, a, &rates, steps);
    for (int s = 0; rc == RC_OK && s < r->p->step_count; s++) {
        compare_step(r, s, &steps[s], of);
        row = new_row("against_plan");
        put_int(row, "step", s);
        put_comparison(row, of);
        for (int i = 0; i < 3; i++) {
            sum[i].predicted += of[i].predicted;
            sum[i].measured += of[i].measured;
        }
    }
    if (rc == RC_OK) {
        row = new_row("against_plan");
        put_text(row, "step", "all");
        put_comparison(row, sum);
    }
    mem_free(steps);
    return rc;
}

/* --- on other ranks --- */

static int
add_replay(const struct report *r, const struct arch *a)
{
    struct plan p;
    struct replay one, out;
    int rc;

    cfg.o = (struct replay_opts){ .link = cfg.link * 1e9, .latency = cfg.latency * 1e-6, .tokens = cfg.tokens };
    TRY(plan_read(&p, cfg.dir));
    mem_free(p.dir);
    if ((p.dir = mem_strdup("/dev/null/none")) == NULL) { /* nothing is done there: every module may be cut anew */
        plan_free(&p);
        return RC_OS;
    }
    rc = replay(&one, r, &p, a, &cfg.o, 1);
    for (int i = 0; i < cfg.list_count && rc == RC_OK; i++) {
        json_t *row;

        if ((rc = replay(&out, r, &p, a, &cfg.o, cfg.list[i])) != RC_OK)
            break;
        row = new_row("replay");
        put_int(row, "ranks", out.ranks);
        put_real(row, "seconds", out.seconds, 3);
        put_real(row, "calibrate", out.calibrate, 3);
        put_real(row, "reduce", out.reduce, 3);
        put_real(row, "compress", out.compress, 3);
        put_real(row, "longest", out.longest, 3);
        put_real(row, "imbalance", out.imbalance, 3);
        put_real(row, "efficiency", one.seconds / out.seconds / out.ranks, 3);
        put_real(row, "efficiency_if_hidden", one.seconds / (out.seconds - out.reduce) / out.ranks, 3);
    }
    plan_free(&p);
    return rc;
}

static void
parse_replay(void)
{
    int n = opt_numbers(cfg.replay, 1 << 16, cfg.list, RANKS_LIST_MAX);

    if (n < 0)
        die(RC_USAGE, "--replay is \"%s\", want numbers of ranks, as in 1,2,4", cfg.replay);
    if (n > RANKS_LIST_MAX)
        die(RC_USAGE, "--replay is \"%s\", too many numbers", cfg.replay);
    cfg.list_count = n;
}

static int
fill(const struct report *r)
{
    struct arch a = { 0 };
    struct model model = { 0 };
    int rc = RC_OK;

    add_summary(r);
    if (cfg.tasks)
        add_tasks(r);
    if (cfg.phases)
        add_phases(r);
    if (cfg.steps)
        add_steps(r);
    if (cfg.distance)
        add_distance(r);
    if (!cfg.against && cfg.replay == NULL)
        return RC_OK;
    TRY(model_open(&model, r->p->model));
    if ((rc = source_arch(&a, &model)) == RC_OK && cfg.against)
        rc = add_against(r, &a);
    if (rc == RC_OK && cfg.replay != NULL)
        rc = add_replay(r, &a);
    model_close(&model);
    return rc;
}

static int
print(void)
{
    char *text;

    if (!cfg.json) {
        print_tables();
        return RC_OK;
    }
    TRY(jdump(tables, false, &text));
    (void)fputs(text, stdout);
    mem_free(text);
    return RC_OK;
}

int
main(int argc, char *argv[])
{
    struct report r = { 0 };
    struct plan p;
    int rc;

    (void)opt_parse(&tool, argc, argv);
    parse_replay();
    if (!cfg.tasks && !cfg.phases && !cfg.steps && !cfg.distance && !cfg.against && cfg.replay == NULL)
        cfg.tasks = cfg.phases = true;
    if ((rc = plan_read(&p, cfg.dir)) != RC_OK)
        die(rc, "%s", err_text());
    tables = json_object();
    if ((rc = report_read(&r, &p)) == RC_OK && (rc = fill(&r)) == RC_OK)
        rc = print();
    if (rc != RC_OK)
        msg_error(NULL, "%s", err_text());
    json_decref(tables);
    report_free(&r);
    plan_free(&p);
    return msg_close_stdout(rc);
}
