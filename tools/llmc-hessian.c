/* llmc-hessian - sum x x' per input over samples */
#include "../libcommon/comm.h"
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
#include <time.h>
#include <unistd.h>

enum { LOOK_MS = 1000, SHARE_MS = 2 }; /* at other ranks, while waiting for calib; with --scratch */

static struct {
    struct run_opts run;
    const char     *comm;
    int             timeout;
    bool            keep, again, scratch;
} cfg = { .run = RUN_OPTS_DEFAULT, .timeout = 120 };

static const char *const comm_names[] = { "self", "files", "mpi", "nccl", NULL };

static const struct opt options[] = {
    RUN_OPTS(&cfg.run),
    OPT_FLAG(0, "keep", &cfg.keep, "keep the Hessians of finished steps"),
    OPT_CHOICE(0, "comm", &cfg.comm, comm_names, "name", "how ranks meet: self, files, mpi, nccl (default: what fits)"),
    OPT_INT(0, "timeout", &cfg.timeout, 1, 1 << 30, "n", "seconds without a sign of life after which a rank is lost"),
    OPT_FLAG(0, "again", &cfg.again, "print tasks that are done already, too"),
    OPT_FLAG(0, "scratch", &cfg.scratch, "the work directory is our rank's alone: pass on what is finished"),
    OPT_END
};

static const struct tool tool = {
    .name = "llmc-hessian", .args = "[merge out in ...]", .options = options, .built_with = run_built_with,
    .about = "sum x x' of each input over samples",
    .notes = "Reads frames of llmc-calib from stdin; prints \"TASK<TAB>FILE\" as Hessians are complete.",
};

struct sums {
    struct run  run;
    struct comm comm;
    int         step;   /* -1: none open */
    bool        points[ARCH_POINTS_MAX]; /* of it, that calib sends */
    int         total;  /* arch_point_total: experts have inputs of their own */
    bool        durable; /* with --keep, or when stdout is no pipe */
    bool        open[ARCH_POINTS_MAX];
    struct hess h[ARCH_POINTS_MAX];
    double      seconds;
};

/* A Hessian that goes straight to the next stage is not synced, and has a name under which no later run finds it. */
static int
hessian_path(const struct sums *s, int step, int point, char *out)
{
    const char *name = arch_point_name((enum point)point);

    if (s->durable)
        return plan_path(&s->run.plan, out, "hessian/%d/%s.safetensors", step, name);
    if (s->run.ranks == 1)
        return plan_path(&s->run.plan, out, "hessian/%d/%s.pipe.safetensors", step, name);
    return plan_path(&s->run.plan, out, "hessian/%d/%s.pipe.%d.safetensors", step, name, s->run.rank);
}

static void
drop_step(struct sums *s, int step)
{
    char path[PATH_MAX];

    if (!plan_step_done(&s->run.plan, step)) /* calib did not wait */
        return;
    for (int p = 0; p < s->total; p++)
        if (hessian_path(s, step, p, path) == RC_OK)
            (void)unlink(path);
    comm_drop(&s->comm, step);
    if (plan_path(&s->run.plan, path, "hessian/%d", step) == RC_OK)
        (void)rmdir(path); /* fails while other ranks' files are there */
}

static bool
in_step(const struct step *st, enum point p)
{
    return (int)arch_point_base(p) >= st->first_point && (int)arch_point_base(p) < st->end_point;
}

static int
begin(struct sums *s, const struct stream_frame *f)
{
    if (f->step >= s->run.plan.step_count || strcmp(f->plan, s->run.plan.fingerprint) != 0)
        return err_set(RC_DATA, "stream: step %d of another plan", f->step);
    if (s->step >= 0)
        return err_set(RC_DATA, "stream: step %d begins inside step %d", f->step, s->step);
    for (int p = 0; p < ARCH_POINTS_MAX; p++)
        if (f->points[p] && (p >= s->total || !in_step(&s->run.plan.steps[f->step], (enum point)p) ||
            s->run.plan.block_count == 0))
            return err_set(RC_DATA, "stream: step %d has no input %s", f->step, arch_point_name((enum point)p));
    s->step = f->step;
    memcpy(s->points, f->points, sizeof(s->points));
    s->seconds = 0;
    return RC_OK;
}

static int
width(const struct sums *s, enum point point)
{
    return arch_width(&s->run.arch, s->run.plan.steps[s->step].layer, arch_point_base(point),
        arch_point_expert(point));
}

/* What the plan says that tasks of the point need. The owner of the first block decides the grid. */
static int
open_point(struct sums *s, enum point point, int block)
{
    bool cache = point == POINT_O && s->run.plan.recipe->has_cache;
    int ranges = !plan_point_range(&s->run.plan, s->step, point) ? 0 : 1 + (cache ? 2 * s->run.arch.kv_heads : 0);
    struct hess *h = &s->h[point];

    if (s->open[point])
        return RC_OK;
    if (s->run.plan.blocks[0].rank == s->run.rank && block != 0)
        return err_set(RC_DATA, "stream: step %d starts with block %d, want 0", s->step, block);
    TRY(hess_init(h, width(s, point), plan_point_sum(&s->run.plan, s->step, point), ranges));
    if (plan_point_pairs(&s->run.plan, s->step, point))
        TRY(hess_pairs(h));
    s->open[point] = true;
    return h->sum == NULL || s->run.plan.blocks[0].rank == s->run.rank ? RC_OK :
        comm_take_grid(&s->comm, s->step, point, h);
}

static int
check_frame(const struct sums *s, const struct stream_frame *f)
{
    if (f->step != s->step)
        return err_set(RC_DATA, "stream: input of step %d inside step %d", f->step, s->step);
    if (!s->points[f->point])
        return err_set(RC_DATA, "stream: step %d has no input %s", f->step, arch_point_name(f->point));
    return RC_OK;
}

static int
add_cache(struct sums *s, const struct stream_frame *f)
{
    TRY(check_frame(s, f));
    TRY(open_point(s, f->point, f->block));
    return hess_add_ranges(&s->h[f->point], f->x, f->rows);
}

static int
add(struct sums *s, const struct stream_frame *f)
{
    struct hess *h = &s->h[f->point];
    double start;
    int rc = RC_OK;

    TRY(check_frame(s, f));
    if (f->cols != width(s, f->point))
        return err_set(RC_DATA, "stream: inputs are [%d, %d], want [*, %d]", f->rows, f->cols, width(s, f->point));
    TRY(open_point(s, f->point, f->block));
    if (h->pairs && f->original == NULL)
        return err_set(RC_DATA, "stream: step %d, input %s: not a pair", f->step, arch_point_name(f->point));
    start = clock_seconds();
    if (h->sum != NULL && !h->has_grid &&
        (rc = hess_choose_grid(h, s->run.bk, s->run.dev, f->x, f->dtype, f->rows)) == RC_OK &&
        (!h->pairs || (rc = hess_choose_cross_grid(h, s->run.bk, s->run.dev, f->original, f->dtype, f->rows)) ==
        RC_OK))
        TRY(comm_give_grid(&s->comm, s->step, f->point, h));
    if (rc == RC_OK && f->sequences > 0) /* else they were for the grid alone */
        rc = hess_add(h, s->run.bk, s->run.dev, f->x, f->dtype, f->rows, f->sequences);
    if (rc == RC_OK && f->sequences > 0 && h->pairs)
        rc = hess_add_cross(h, s->run.bk, s->run.dev, f->original, f->x, f->dtype, f->rows);
    if (rc != RC_OK)
        return err_at(rc, "step %d, input %s", f->step, arch_point_name(f->point));
    s->seconds += clock_seconds() - start;
    return RC_OK;
}

static bool
to_compress(const struct plan *p, const struct task *t)
{
    return plan_task_waits(p, t) && (cfg.again || !plan_task_done(p, t));
}

static int
announce(const struct sums *s, int point, const char *path)
{
    const struct plan *p = &s->run.plan;

    for (int i = p->steps[s->step].first_task; i < p->steps[s->step].end_task; i++)
        if ((int)p->tasks[i].point == point && p->tasks[i].rank == s->run.rank && to_compress(p, &p->tasks[i]))
            (void)printf("%s\t%s\n", p->tasks[i].name, path);
    return msg_flush_stdout();
}

/* Which ranks compress with this input, and what it costs the busiest of them. */
static double
takers(const struct sums *s, int point, bool *takes)
{
    const struct plan *p = &s->run.plan;
    double most = 0;

    for (int i = p->steps[s->step].first_task; i < p->steps[s->step].end_task; i++) {
        const struct task *t = &p->tasks[i];

        if ((int)t->point != point || !plan_task_waits(p, t))
            continue;
        takes[t->rank] = true;
        most = t->cost > most ? t->cost : most;
    }
    return most;
}

static int
finish(struct sums *s, const struct comm_sum *c, double start)
{
    struct st_meta meta[] = { { "plan", s->run.plan.fingerprint } };
    double waited = clock_seconds() - start, published;
    char path[PATH_MAX];
    int rc = RC_OK;

    if (c->takes[s->run.rank]) {
        TRY(hess_check(c->h) == RC_OK ? RC_OK : err_at(RC_NUMERIC, "step %d, input %s", s->step,
            arch_point_name(c->point)));
        TRY(plan_path(&s->run.plan, path, "hessian/%d", s->step));
        TRY(file_mkdir(path));
        TRY(hessian_path(s, s->step, (int)c->point, path));
        TRY(hess_publish(c->h, path, s->durable, meta, 1));
        rc = announce(s, (int)c->point, path);
    }
    published = clock_seconds() - start - waited;
    event_emit(&s->run.log, "hessian", EVENT_INT("step", s->step), EVENT_STR("point", arch_point_name(c->point)),
        EVENT_INT("rows", c->h->rows), EVENT_INT("n", c->h->n), EVENT_REAL("seconds", s->seconds),
        EVENT_REAL("reduce_seconds", waited), EVENT_REAL("publish_seconds", published));
    hess_free(c->h); /* whoever factorises it needs the room */
    mem_trim();
    return rc;
}

/* All inputs of the step are on their way at once, the one with the longest task first. */
static int
reduce(struct sums *s, struct comm_sum *sums, bool *takes)
{
    double cost[ARCH_POINTS_MAX], start = clock_seconds();
    struct comm_sum *next;
    int count = 0;

    for (int p = 0; p < s->total; p++) {
        bool *t = takes + (size_t)p * (size_t)s->run.ranks;
        struct comm_sum c = { .step = s->step, .point = (enum point)p, .h = &s->h[p], .takes = t };
        double most;
        int at = count;

        if (!s->points[p])
            continue;
        TRY(open_point(s, (enum point)p, -1));
        most = takers(s, p, t);
        for (; at > 0 && cost[at - 1] < most; at--) {
            cost[at] = cost[at - 1];
            sums[at] = sums[at - 1];
        }
        cost[at] = most;
        sums[at] = c;
        count++;
    }
    for (int i = 0; i < count; i++)
        TRY(comm_start(&s->comm, &sums[i]));
    for (;;) {
        TRY(comm_next(&s->comm, sums, count, &next));
        if (next == NULL)
            return RC_OK;
        TRY(finish(s, next, start));
    }
}

static int
end(struct sums *s)
{
    struct comm_sum *sums;
    bool *takes;
    int rc;

    if (s->step < 0)
        return err_set(RC_DATA, "stream: a step ends that did not begin");
    takes = mem_zalloc((size_t)s->total, (size_t)s->run.ranks);
    sums = mem_zalloc((size_t)s->total, sizeof(*sums));
    rc = takes != NULL && sums != NULL ? reduce(s, sums, takes) : RC_OS;
    for (int p = 0; sums != NULL && p < s->total; p++) {
        comm_forget(&s->comm, &sums[p]);
        hess_free(&s->h[p]);
        s->open[p] = false;
    }
    mem_free(takes);
    mem_free(sums);
    s->step = -1;
    return rc;
}

/* Waits for input, but not when nobody is left to read what would come of it, nor when another rank is lost. */
static int
wait_input(struct sums *s)
{
    struct pollfd p[2] = { { .fd = STDIN_FILENO, .events = POLLIN }, { .fd = STDOUT_FILENO } };

    for (;;) {
        int n = poll(p, 2, s->comm.share != NULL ? SHARE_MS : s->run.ranks > 1 ? LOOK_MS : -1);

        if (n > 0 || (n < 0 && errno != EINTR))
            break;
        if (stop_asked())
            return RC_OK;
        TRY(comm_check(&s->comm));
    }
    if ((p[1].revents & POLLERR) != 0) {
        comm_close(&s->comm, RC_RETRY);
        (void)signal(SIGPIPE, SIG_DFL);
        (void)raise(SIGPIPE);
    }
    return RC_OK;
}

static int
sum_stream(struct sums *s, struct stream_in *in, bool *told)
{
    struct stream_frame f;
    int rc, last = -1;

    for (;;) {
        TRY(wait_input(s));
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

static bool
gptq_runs(const struct sums *s)
{
    char path[BEAT_PATH_MAX];
    struct sign sign;

    return sign_path(path, s->comm.peers.dir, s->run.rank, "gptq") == RC_OK && sign_read(&sign, path) &&
        strcmp(sign.state, "running") == 0 && sign_alive(&sign, s->comm.peers.beat.host) &&
        getpgid((pid_t)sign.pid) == getpgrp();
}

static bool
ours_left(const struct plan *p, int rank)
{
    for (int i = 0; i < p->task_count; i++)
        if (p->tasks[i].rank == rank && !plan_task_done(p, &p->tasks[i]))
            return true;
    return false;
}

/* We look after llmc-gptq (beat.h) until it has ended, too; and until all have what is finished, with --scratch. */
static int
see_out(struct sums *s)
{
    const struct timespec pause = { 0, 5000000 };
    bool idle = true, share = s->comm.share != NULL;

    if (s->run.ranks < 2 || (s->durable && !share))
        return RC_OK;
    (void)printf("%s\n", STREAM_END_LINE);
    TRY(msg_flush_stdout());
    for (;;) {
        bool runs = gptq_runs(s);

        TRY(comm_share_rest(&s->comm, &idle));
        if (!runs && (!share || (idle && plan_tasks_left(&s->run.plan) == 0)))
            return RC_OK;
        if (!runs && share && ours_left(&s->run.plan, s->run.rank))
            return err_set(RC_RETRY, "llmc-gptq has ended, and left modules that the others wait for");
        if (stop_asked())
            return share ? stop_check() : RC_OK;
        (void)nanosleep(&pause, NULL);
    }
}

/* The sum of Hessians of separate runs, for the plan of the first. */
static int
merge(char **names)
{
    struct hess sum = { 0 }, h;
    char plan[DIGEST_HEX] = "";
    struct st_meta meta[] = { { "plan", plan } };
    struct st_file st;
    int rc = RC_OK;

    for (int i = 1; names[i] != NULL && rc == RC_OK; i++) {
        struct hess *to = i == 1 ? &sum : &h;
        const char *p;

        if ((rc = hess_read(to, names[i], &st)) != RC_OK)
            break;
        p = st_meta(&st, "plan");
        if (i == 1)
            (void)snprintf(plan, sizeof(plan), "%s", p != NULL ? p : "");
        else if ((rc = hess_merge(&sum, &h)) != RC_OK)
            rc = err_at(rc, "%s", names[i]);
        st_close(&st);
        if (i > 1)
            hess_free(&h);
    }
    if (rc == RC_OK && (rc = hess_check(&sum)) == RC_OK)
        rc = hess_publish(&sum, names[0], true, meta, 1);
    hess_free(&sum);
    return rc;
}

int
main(int argc, char *argv[])
{
    struct sums s = { .step = -1 };
    struct stream_in in = { .fd = STDIN_FILENO };
    struct stat st;
    bool told = false;
    char **names;
    int rc;

    names = opt_parse(&tool, argc, argv);
    if (names[0] != NULL && (strcmp(names[0], "merge") != 0 || names[1] == NULL || names[2] == NULL))
        die(RC_USAGE, "operand %s: want merge, a file to write and files to read", names[0]);
    if (names[0] != NULL) {
        if ((rc = merge(names + 1)) != RC_OK)
            msg_error(NULL, "%s", err_text());
        return rc;
    }
    if (isatty(STDIN_FILENO) == 1)
        die(RC_USAGE, "stdin is a terminal: pipe llmc-calib into it");
    if ((rc = run_open(&s.run, tool.name, &cfg.run)) != RC_OK)
        die(rc, "%s", err_text());
    s.total = arch_point_total(&s.run.arch);
    in.bk = s.run.bk, in.dev = s.run.dev;
    s.durable = cfg.keep || fstat(STDOUT_FILENO, &st) != 0 || !S_ISFIFO(st.st_mode);
    if ((rc = run_need(&s.run, BUDGET_HESSIAN)) == RC_OK &&
        (rc = comm_open(&s.comm, &s.run, cfg.comm, cfg.timeout)) == RC_OK &&
        (!cfg.scratch || (rc = comm_share(&s.comm)) == RC_OK))
        rc = sum_stream(&s, &in, &told);
    if (rc == RC_OK)
        rc = see_out(&s);
    if (rc != RC_OK) {
        if (!told)
            msg_error(NULL, "%s", err_text());
        (void)printf("%s\n", STREAM_FAILED_LINE);
    }
    comm_close(&s.comm, rc);
    for (int p = 0; p < ARCH_POINTS_MAX; p++)
        hess_free(&s.h[p]);
    stream_in_close(&in);
    return run_close(&s.run, rc);
}
