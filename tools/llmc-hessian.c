/* llmc-hessian - sum x x' per input over samples */
#include "../libcommon/file.h"
#include "../libcommon/hess.h"
#include "../libcommon/mem.h"
#include "../libcommon/msg.h"
#include "../libcommon/run.h"
#include "../libcommon/stop.h"
#include "../libcommon/stream.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <string.h>
#include <unistd.h>

static struct {
    struct run_opts run;
    bool            keep, again;
} cfg = { .run = RUN_OPTS_DEFAULT };

static const struct opt options[] = {
    RUN_OPTS(&cfg.run),
    OPT_FLAG(0, "keep", &cfg.keep, "keep the Hessians of finished steps"),
    OPT_FLAG(0, "again", &cfg.again, "print tasks that are done already, too"),
    OPT_END
};

static const struct tool tool = {
    .name = "llmc-hessian", .options = options, .built_with = run_built_with,
    .about = "sum x x' of each input over samples",
    .notes = "Reads frames of llmc-calib from stdin; prints \"TASK<TAB>FILE\" as Hessians are complete.",
};

struct sums {
    struct run  run;
    int         step; /* -1: none open */
    bool        durable; /* with --keep, or when stdout is no pipe */
    bool        open[POINT_COUNT];
    struct hess h[POINT_COUNT];
    double      seconds;
};

/* A Hessian that goes straight to the next stage is not synced, and has a name under which no later run finds it. */
static int
hessian_path(const struct sums *s, int step, int point, char *out)
{
    return plan_path(&s->run.plan, out, s->durable ? "hessian/%d/%s.safetensors" : "hessian/%d/%s.pipe.safetensors",
        step,
        arch_point_name((enum point)point));
}

static void
drop_step(const struct sums *s, int step)
{
    char path[PATH_MAX];

    if (!plan_step_done(&s->run.plan, step)) /* calib did not wait */
        return;
    for (int p = 0; p < POINT_COUNT; p++)
        if (hessian_path(s, step, p, path) == RC_OK)
            (void)unlink(path);
    if (plan_path(&s->run.plan, path, "hessian/%d", step) == RC_OK)
        (void)rmdir(path);
}

static int
begin(struct sums *s, const struct stream_frame *f)
{
    if (f->step >= s->run.plan.step_count || strcmp(f->plan, s->run.plan.fingerprint) != 0)
        return err_set(RC_DATA, "stream: step %d of another plan", f->step);
    if (s->step >= 0)
        return err_set(RC_DATA, "stream: step %d begins inside step %d", f->step, s->step);
    s->step = f->step;
    s->seconds = 0;
    return RC_OK;
}

/* What the plan says that tasks of the point need. */
static int
open_point(struct sums *s, const struct stream_frame *f)
{
    bool cache = f->point == POINT_O && s->run.plan.recipe->has_cache;
    int ranges = !plan_point_range(&s->run.plan, f->step, f->point) ? 0 : 1 + (cache ? 2 * s->run.arch.kv_heads : 0);

    if (f->step != s->step)
        return err_set(RC_DATA, "stream: input of step %d inside step %d", f->step, s->step);
    if (s->open[f->point])
        return RC_OK;
    if (f->block != 0)
        return err_set(RC_DATA, "stream: step %d starts with block %d, want 0", f->step, f->block);
    TRY(hess_init_parts(&s->h[f->point], arch_width(&s->run.arch, s->run.plan.steps[f->step].layer, f->point, -1),
        plan_point_sum(&s->run.plan, f->step, f->point), ranges));
    s->open[f->point] = true;
    return RC_OK;
}

static int
add_cache(struct sums *s, const struct stream_frame *f)
{
    TRY(open_point(s, f));
    return hess_add_ranges(&s->h[f->point], f->x, f->rows);
}

/* The first block of the plan decides the grid, and it comes first. */
static int
add(struct sums *s, const struct stream_frame *f)
{
    struct hess *h = &s->h[f->point];
    double start = run_clock();
    int rc;

    if (f->cols != arch_width(&s->run.arch, s->run.plan.steps[f->step].layer, f->point, -1))
        return err_set(RC_DATA, "stream: inputs are [%d, %d], want [*, %d]", f->rows, f->cols,
            arch_width(&s->run.arch, s->run.plan.steps[f->step].layer, f->point, -1));
    TRY(open_point(s, f));
    rc = h->sum != NULL && !h->has_grid ? hess_choose_grid(h, s->run.bk, s->run.dev, f->x, f->dtype, f->rows) : RC_OK;
    if (rc != RC_OK || (rc = hess_add(h, s->run.bk, s->run.dev, f->x, f->dtype, f->rows, f->sequences)) != RC_OK)
        return err_at(rc, "step %d, input %s", f->step, arch_point_name(f->point));
    s->seconds += run_clock() - start;
    return RC_OK;
}

static int
announce(const struct sums *s, int point, const char *path)
{
    const struct plan *p = &s->run.plan;

    for (int i = p->steps[s->step].first_task; i < p->steps[s->step].end_task; i++)
        if ((int)p->tasks[i].point == point && plan_task_waits(p, &p->tasks[i]) &&
            (cfg.again || !plan_task_done(p, &p->tasks[i])))
            (void)printf("%s\t%s\n", p->tasks[i].name, path);
    return msg_flush_stdout();
}

static int
end(struct sums *s)
{
    struct st_meta meta[] = { { "plan", s->run.plan.fingerprint } };
    char path[PATH_MAX];

    if (s->step < 0)
        return err_set(RC_DATA, "stream: a step ends that did not begin");
    TRY(plan_path(&s->run.plan, path, "hessian/%d", s->step));
    TRY(file_mkdir(path));
    for (int p = 0; p < POINT_COUNT; p++) {
        if (!s->open[p])
            continue;
        if (hess_check(&s->h[p]) != RC_OK)
            return err_at(RC_NUMERIC, "step %d, input %s", s->step, arch_point_name((enum point)p));
        TRY(hessian_path(s, s->step, p, path));
        TRY(hess_publish(&s->h[p], path, s->durable, meta, 1));
        event_emit(&s->run.log, "hessian", EVENT_INT("step", s->step), EVENT_STR("point",
            arch_point_name((enum point)p)),
            EVENT_INT("rows", s->h[p].rows), EVENT_INT("n", s->h[p].n), EVENT_REAL("seconds", s->seconds));
        hess_free(&s->h[p]);
        s->open[p] = false;
        TRY(announce(s, p, path));
    }
    s->step = -1;
    return RC_OK;
}

/* Waits for input, but not when nobody is left to read what would come of it. */
static void
wait_input(void)
{
    struct pollfd p[2] = { { .fd = STDIN_FILENO, .events = POLLIN }, { .fd = STDOUT_FILENO } };

    while (poll(p, 2, -1) < 0 && errno == EINTR && !stop_asked())
        ;
    if ((p[1].revents & POLLERR) != 0) {
        (void)signal(SIGPIPE, SIG_DFL);
        (void)raise(SIGPIPE);
    }
}

static int
sum_stream(struct sums *s, struct stream_in *in, bool *told)
{
    struct stream_frame f;
    int rc, last = -1;

    for (;;) {
        wait_input();
        if (stop_asked()) { /* calib and gptq, told alike, say so */
            *told = true;
            return RC_RETRY;
        }
        if ((rc = stream_next(in, &f)) == RC_RETRY) /* the end */
            return s->step < 0 ? RC_OK : err_set(RC_RETRY, "stream: ends inside step %d", s->step);
        if (rc != RC_OK)
            return rc;
        if (f.kind == STREAM_FAILED) {
            stream_done(&f);
            *told = true;
            return RC_RETRY;
        }
        if (f.kind == STREAM_BEGIN) {
            rc = begin(s, &f);
            if (last >= 0 && !cfg.keep)
                drop_step(s, last);
            last = f.step;
        } else {
            rc = f.kind == STREAM_INPUT ? add(s, &f) : f.kind == STREAM_CACHE ? add_cache(s, &f) : end(s);
        }
        stream_done(&f);
        if (rc != RC_OK)
            return rc;
    }
}

int
main(int argc, char *argv[])
{
    struct sums s = { .step = -1 };
    struct stream_in in = { .fd = STDIN_FILENO };
    struct stat st;
    bool told = false;
    int rc;

    (void)opt_parse(&tool, argc, argv);
    if (isatty(STDIN_FILENO) == 1)
        die(RC_USAGE, "stdin is a terminal: pipe llmc-calib into it");
    if ((rc = run_open(&s.run, tool.name, &cfg.run)) != RC_OK)
        die(rc, "%s", err_text());
    s.durable = cfg.keep || fstat(STDOUT_FILENO, &st) != 0 || !S_ISFIFO(st.st_mode);
    if (s.run.ranks > 1)
        rc = err_set(RC_UNAVAILABLE, "%d ranks: no communicator is compiled in", s.run.ranks);
    else
        rc = sum_stream(&s, &in, &told);
    if (rc != RC_OK) {
        if (!told)
            msg_error(NULL, "%s", err_text());
        (void)printf("%s\n", STREAM_FAILED_LINE);
    }
    for (int p = 0; p < POINT_COUNT; p++)
        hess_free(&s.h[p]);
    stream_in_close(&in);
    return run_close(&s.run, rc);
}
