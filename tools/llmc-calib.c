/* llmc-calib - run calibration samples through the model step by step and emit the inputs of its modules */
#include "../libcommon/ahead.h"
#include "../libcommon/emit.h"
#include "../libcommon/experts.h"
#include "../libcommon/mem.h"
#include "../libcommon/msg.h"
#include "../libcommon/run.h"
#include "../libcommon/state.h"
#include "../libcommon/stop.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* A look at a few links costs microseconds, and every step ends with this wait. */
enum { WAIT_MS_FIRST = 1, WAIT_MS_LAST = 20, WAIT_FAST_SECONDS = 1 };

static struct {
    struct run_opts run;
    const char     *only;
    int             step;
    int             state_seconds, timeout;
    const char     *frames;
    bool            again, dry;
} cfg = { .run = RUN_OPTS_DEFAULT, .step = -1, .state_seconds = 60, .timeout = 3600, .frames = "shm" };

static const char *const frames[] = { "shm", "cuda", "inline", NULL };

static const struct opt options[] = {
    RUN_OPTS(&cfg.run),
    OPT_STR('m', "module", &cfg.only, "glob", "emit the inputs of matching modules alone, and do not wait for them"),
    OPT_INT('s', "step", &cfg.step, 0, 1 << 30, "n", "emit the inputs of this step alone, and do not wait"),
    OPT_FLAG(0, "again", &cfg.again, "emit inputs of modules that are compressed already, too"),
    OPT_INT(0, "state-seconds", &cfg.state_seconds, 0, 1 << 30, "n", "save hidden states so often; 0: after each step"),
    OPT_CHOICE(0, "frames", &cfg.frames, frames, "way",
        "of inputs in a pipe: shm or cuda, if the reader opens it, or inline"),
    OPT_INT(0, "timeout", &cfg.timeout, 1, 1 << 30, "n", "seconds to wait for a step's modules"),
    OPT_FLAG('n', "dry-run", &cfg.dry, "print the steps and stop"),
    OPT_END
};

static const struct tool tool = {
    .name = "llmc-calib", .options = options, .built_with = run_built_with,
    .about = "run calibration samples step by step and emit the inputs of its modules",
    .notes = "Frames go to stdout (llmc-stream(5)); the next stage is llmc-hessian.",
};

struct calib {
    struct run        run;
    struct fwd        fwd;
    struct original   original; /* a second stream, where targets are corrected */
    struct fwd_block *blocks; /* of this rank, in order */
    int              *ids;    /* their numbers */
    int               count;
    struct emit       emit;
    int               ahead;  /* step that was captured while the one before was propagated, or -1 */
    bool              piped;  /* stdout is a pipe */
    struct spill     *spill;  /* states of blocks, where memory is short */
    double            saved;  /* when states were last written */
};

static bool
wants(const struct plan *p, const struct task *t)
{
    return plan_task_waits(p, t) && plan_task_match(t, cfg.only) && (cfg.again || !plan_task_done(p, t));
}

/* Somebody wants inputs of the step, or ranges of its cache. */
static bool
wanted(const struct calib *c, int step)
{
    const struct plan *p = &c->run.plan;

    for (int i = p->steps[step].first_task; i < p->steps[step].end_task && (cfg.step < 0 || step == cfg.step); i++)
        if (wants(p, &p->tasks[i]))
            return true;
    return false;
}

static int
last_wanted(const struct calib *c)
{
    int step = c->run.plan.step_count - 1;

    while (step >= 0 && !wanted(c, step))
        step--;
    return step;
}

/* The reader went away: whoever it was has said why. */
static void
check_reader(void)
{
    if (stream_reader_gone(STDOUT_FILENO)) {
        (void)signal(SIGPIPE, SIG_DFL);
        (void)raise(SIGPIPE);
    }
}

static int
emit(struct calib *c, int step, int i, const struct fwd_block *b, const struct fwd_block *bf)
{
    int rc = emit_block(&c->emit, step, c->ids[i], b, bf);

    if (rc == RC_IO)
        check_reader();
    return rc;
}

static int
wait_step(struct calib *c, int step)
{
    const struct plan *p = &c->run.plan;
    double start = clock_seconds();
    long ms = WAIT_MS_FIRST;

    mem_trim();
    for (int i = p->steps[step].first_task; i < p->steps[step].end_task; i++) {
        while (!plan_task_done(p, &p->tasks[i])) {
            struct timespec t = { 0, ms * 1000000 };

            check_reader();
            TRY(stop_check());
            if (clock_seconds() - start > cfg.timeout)
                return err_set(RC_RETRY, "%s: not compressed by rank %d after %d seconds", p->tasks[i].name,
                    p->tasks[i].rank, cfg.timeout);
            (void)nanosleep(&t, NULL);
            if (clock_seconds() - start > WAIT_FAST_SECONDS)
                ms = WAIT_MS_LAST;
        }
    }
    event_emit(&c->run.log, "waited", EVENT_INT("step", step), EVENT_REAL("seconds", clock_seconds() - start));
    return RC_OK;
}

/* Its turn is over. */
static void
block_idle(struct calib *c, int i)
{
    fwd_block_idle(&c->blocks[i]);
    if (c->original.on)
        fwd_block_idle(&c->original.blocks[i]);
}

static int
load_norms(struct calib *c, int layer)
{
    TRY(fwd_norms(&c->fwd, layer));
    return original_norms(&c->original, layer);
}

static const struct fwd_block *
original_block(const struct calib *c, int i)
{
    return c->original.on ? &c->original.blocks[i] : NULL;
}

/* What the inputs of a layer's experts are computed by: the router; at POINT_DOWN gate and up, which are compressed. */
static int
load_experts(struct calib *c, const struct step *s)
{
    if ((c->run.arch.layer[s->layer] & LAYER_MOE) == 0 || s->first_point < POINT_MLP)
        return RC_OK;
    if (s->first_point == POINT_MLP && c->run.plan.experts != EXPERTS_ROUTED)
        return RC_OK;
    if (s->first_point == POINT_MLP) {
        TRY(original_load(&c->original, s->layer, 0, 0));
        return fwd_load_router(&c->fwd);
    }
    if (c->run.plan.sequential != SEQUENTIAL_NONE)
        c->fwd.dense = run_dense;
    TRY(original_load(&c->original, s->layer, POINT_DOWN, POINT_COUNT));
    return fwd_load(&c->fwd, POINT_DOWN, POINT_COUNT);
}

static void
say_block(const struct calib *c, int step, int i)
{
    if (!c->piped) /* in a pipeline llmc-gptq tells how far things are */
        msg_status("llmc-calib: step %d of %d, block %d of %d", step + 1, c->run.plan.step_count, i + 1, c->count);
}

static bool
one_point(const struct step *s)
{
    return s->end_point - s->first_point == 1;
}

/* Also a rank without blocks says which points of the step the others send. */
static int
begin(struct calib *c, int step)
{
    bool points[ARCH_POINTS_MAX] = { false };

    TRY(emit_look(&c->emit, step, cfg.step < 0 || step == cfg.step ? wants : NULL));
    memcpy(points, c->emit.want, (size_t)arch_point_total(&c->run.arch) * sizeof(*points));
    points[POINT_O] = points[POINT_O] || c->emit.want_cache;
    return stream_begin(&c->emit.out, step, c->run.plan.fingerprint, points);
}

/* Emits block i at every point of a step of several, while it goes on from point to point. keep: where it arrives
 * becomes its state; else that stays, and it does not go beyond the last input. The original's arrives for good. */
static int
capture_block(struct calib *c, int step, int i, bool keep)
{
    const struct step *s = &c->run.plan.steps[step];
    struct fwd_block tmp = { 0 }, *b = keep ? &c->blocks[i] : &tmp;
    int rc = keep ? RC_OK : original_copy(&c->fwd, &tmp, &c->blocks[i]);

    for (int p = s->first_point; p < s->end_point && rc == RC_OK; p++) {
        rc = emit(c, step, i, b, original_block(c, i));
        if (rc == RC_OK && (keep || p + 1 < s->end_point))
            rc = fwd_step(&c->fwd, b);
        if (rc == RC_OK && c->original.on)
            rc = original_step(&c->original, &c->original.blocks[i]);
    }
    fwd_block_free(&tmp);
    return rc;
}

/* Inputs of every point of the step, with weights as they stand. keep: the outputs become the blocks' states. */
static int
capture(struct calib *c, int step, int last, bool keep)
{
    const struct step *s = &c->run.plan.steps[step];
    bool one = one_point(s);
    int rc = RC_OK;

    c->fwd.dense = run_source_dense; /* of a layer's modules some may be compressed already, after a restart */
    TRY(load_norms(c, s->layer));
    TRY(one ? load_experts(c, s) : fwd_load(&c->fwd, 0, POINT_COUNT));
    if (!one)
        TRY(original_load(&c->original, s->layer, 0, POINT_COUNT));
    if (c->fwd.route.tokens != NULL)
        memset(c->fwd.route.tokens, 0, (size_t)c->run.arch.experts * sizeof(*c->fwd.route.tokens));
    TRY(begin(c, step));
    for (int i = 0; i < c->count && rc == RC_OK; i++) {
        if ((rc = stop_check()) != RC_OK)
            break;
        say_block(c, step, i);
        rc = one ? emit(c, step, i, &c->blocks[i], original_block(c, i)) : capture_block(c, step, i, keep);
        if (i == 0 && !one)
            ahead_fetch(&c->fwd, &c->original, &c->run, step, last, true);
        block_idle(c, i);
    }
    if (rc == RC_OK)
        rc = stream_end(&c->emit.out, step);
    fwd_unload(&c->fwd);
    original_unload(&c->original);
    if (!one)
        c->original.passed = step;
    if (rc == RC_OK && (c->run.arch.layer[s->layer] & LAYER_MOE) != 0 && s->end_point == POINT_COUNT)
        rc = experts_report(&c->run, &c->fwd, step);
    return rc;
}

/* The next step's inputs are results of this one: each block is emitted while it is in cache, and the sums are ready
 * soon after the last one. */
static bool
can_capture_ahead(const struct calib *c, int step, int last)
{
    const struct step *s = &c->run.plan.steps[step], *t = s + 1;

    if (step >= last || !one_point(s) || !one_point(t))
        return false;
    if ((c->run.arch.layer[t->layer] & LAYER_MOE) != 0 && t->first_point >= POINT_MLP)
        return false; /* experts are needed, which the propagation has not loaded */
    return wanted(c, step + 1);
}

/* All blocks through the step's modules as they stand. */
static int
propagate(struct calib *c, int step, int last, bool ahead)
{
    const struct step *s = &c->run.plan.steps[step];
    double apart[2] = { 0 }, size[2] = { 0 }; /* of blocks in the sums, and of those kept out */

    c->fwd.dense = c->run.plan.sequential == SEQUENTIAL_NONE ? run_source_dense : run_dense;
    TRY(load_norms(c, s->layer));
    TRY(fwd_load(&c->fwd, s->first_point, s->end_point));
    if (ahead)
        TRY(begin(c, step + 1));
    for (int i = 0; i < c->count; i++) {
        int held = plan_block_held(&c->run.plan, c->ids[i]);

        TRY(load_norms(c, s->layer));
        for (int p = s->first_point; p < s->end_point; p++)
            TRY(fwd_step(&c->fwd, &c->blocks[i]));
        if (i == 0)
            ahead_fetch(&c->fwd, &c->original, &c->run, step, last, false);
        if (c->original.on && (held || c->ids[i] % ORIGINAL_SHARE == 0))
            TRY(original_distance(&c->original, &c->blocks[i], i, &apart[held], &size[held]));
        if (ahead) {
            TRY(load_norms(c, s[1].layer));
            TRY(stop_check());
            say_block(c, step + 1, i);
            TRY(emit(c, step + 1, i, &c->blocks[i], original_block(c, i)));
        }
        block_idle(c, i);
    }
    fwd_unload(&c->fwd);
    if (c->original.on)
        event_emit(&c->run.log, "distance", EVENT_INT("step", step), EVENT_REAL("apart", apart[0]),
            EVENT_REAL("size", size[0]), EVENT_REAL("held_apart", apart[1]), EVENT_REAL("held_size", size[1]));
    if (ahead)
        TRY(stream_end(&c->emit.out, step + 1));
    c->ahead = ahead ? step + 1 : -1;
    return stop_check();
}

/* A run from the start again costs forward passes alone, so states are saved by time, not after every step. */
static int
save_states(struct calib *c, int step)
{
    double t = clock_seconds();

    if (c->run.plan.step_count <= step || (cfg.state_seconds > 0 && t - c->saved < cfg.state_seconds))
        return RC_OK;
    TRY(state_save_all(&c->run, step, c->ids, c->count, c->blocks, c->original.on ? c->original.blocks : NULL));
    event_emit(&c->run.log, "state", EVENT_INT("step", step), EVENT_REAL("seconds", clock_seconds() - t));
    c->saved = clock_seconds();
    return RC_OK;
}

static int
one_step(struct calib *c, int step, int last)
{
    enum sequential mode = c->run.plan.sequential;
    bool capture_it = wanted(c, step), wait = cfg.only == NULL && cfg.step < 0 && !cfg.again;
    double start = clock_seconds(), captured;

    if (step == 0 || c->run.plan.steps[step - 1].layer != c->run.plan.steps[step].layer)
        run_ahead(&c->run, c->run.plan.steps[step].layer + 1);
    if (capture_it && c->ahead != step)
        TRY(capture(c, step, last, mode == SEQUENTIAL_NONE));
    captured = clock_seconds();
    if (step < last) {
        TRY(original_pass(&c->original, step));
        if (wait && mode != SEQUENTIAL_NONE) /* also for modules that are rounded without us */
            TRY(wait_step(c, step));
        if (!(capture_it && mode == SEQUENTIAL_NONE)) /* else the captured pass was the propagation */
            TRY(propagate(c, step, last, can_capture_ahead(c, step, last)));
    }
    event_emit(&c->run.log, "step", EVENT_INT("step", step), EVENT_REAL("capture_seconds", captured - start),
        EVENT_REAL("seconds", clock_seconds() - start));
    return step < last ? save_states(c, step + 1) : RC_OK;
}

/* Block i of one stream as it enters step first. */
static int
fill_block(struct calib *c, int i, int first, bool original, const int *lengths, const int32_t *ids)
{
    struct fwd *f = original ? &c->original.fwd : &c->fwd;
    struct fwd_block *b = original ? &c->original.blocks[i] : &c->blocks[i];

    TRY(fwd_block_init(f, b, lengths, c->run.plan.blocks[c->ids[i]].samples));
    return first > 0 ? state_load(&c->run, first, c->ids[i], b, original) : fwd_begin(f, b, ids);
}

static int
open_block(struct calib *c, int i, int first)
{
    int *lengths, rc;
    int32_t *ids;

    TRY(run_block_tokens(&c->run, c->ids[i], &ids, &lengths));
    rc = fill_block(c, i, first, false, lengths, ids);
    if (rc == RC_OK && c->original.on)
        rc = fill_block(c, i, first, true, lengths, ids);
    mem_free(ids);
    mem_free(lengths);
    return rc;
}

/* Blocks of this rank as they enter the latest saved step up to `step`; *first is that step. */
static int
open_blocks(struct calib *c, int step, int *first)
{
    int n = 0;

    for (int b = -1; (b = run_next_block(&c->run, b)) >= 0;)
        n++;
    c->blocks = mem_zalloc((size_t)n, sizeof(*c->blocks));
    c->ids = mem_zalloc((size_t)n, sizeof(*c->ids));
    if (c->blocks == NULL || c->ids == NULL)
        return RC_OS;
    for (int b = -1; (b = run_next_block(&c->run, b)) >= 0; c->count++)
        c->ids[c->count] = b;
    TRY(original_open(&c->original, &c->run, c->count, c->fwd.eager));
    c->original.fwd.spill = c->spill;
    *first = state_find(&c->run, step, c->ids, c->count);
    for (int i = 0; i < c->count; i++) {
        TRY(open_block(c, i, *first));
        block_idle(c, i);
    }
    return RC_OK;
}

static int
calibrate(struct calib *c)
{
    int last = last_wanted(c), first = 0, limit = 0;
    struct state_place place;
    struct stat st;

    if (cfg.step >= c->run.plan.step_count)
        return err_set(RC_USAGE, "step %d of %d", cfg.step, c->run.plan.step_count);
    if (last < 0)
        return RC_OK; /* nothing left */
    while (limit < last && !wanted(c, limit))
        limit++;
    TRY(fwd_open(&c->fwd, c->run.bk, c->run.dev, &c->run.arch, c->run.dt, run_dense, &c->run));
    c->fwd.eager = c->run.plan.sequential == SEQUENTIAL_LAYER; /* as the peer whose order that is */
    c->fwd.watch_cache = c->run.plan.recipe->has_cache;
    c->piped = fstat(STDOUT_FILENO, &st) == 0 && S_ISFIFO(st.st_mode);
    TRY(state_place(&place, &c->run, c->piped && strcmp(cfg.frames, "inline") != 0));
    c->fwd.spill = c->spill = place.spill;
    c->emit.run = &c->run;
    c->emit.fwd = &c->fwd;
    c->emit.original = &c->original;
    TRY(open_blocks(c, limit, &first));
    stream_open(&c->emit.out, STDOUT_FILENO, place.frame_bytes, place.frames);
    c->emit.out.bk = c->run.bk;
    c->emit.out.dev = c->run.dev;
    if (strcmp(cfg.frames, "cuda") == 0)
        stream_share(&c->emit.out);
    c->saved = clock_seconds();
    for (int step = first; step <= last; step++)
        TRY(one_step(c, step, last));
    return RC_OK;
}

static void
print_steps(const struct calib *c)
{
    for (int s = 0; s < c->run.plan.step_count; s++)
        if (wanted(c, s))
            (void)printf("%d\t%d\t%d\n", s, c->run.plan.steps[s].layer,
                c->run.plan.steps[s].end_task - c->run.plan.steps[s].first_task);
}

int
main(int argc, char *argv[])
{
    struct calib c = { .ahead = -1 };
    int rc;

    (void)opt_parse(&tool, argc, argv);
    if ((rc = run_open(&c.run, tool.name, &cfg.run)) != RC_OK)
        die(rc, "%s", err_text());
    if (cfg.dry)
        print_steps(&c);
    else if (isatty(STDOUT_FILENO) == 1)
        rc = err_set(RC_USAGE, "frames are binary: send stdout to llmc-hessian or a file");
    else
        rc = calibrate(&c);
    if (rc != RC_OK) {
        msg_error(NULL, "%s", err_text());
        if (rc != RC_IO && rc != RC_USAGE && !cfg.dry)
            (void)stream_failed(STDOUT_FILENO, 0);
    }
    for (int i = 0; c.blocks != NULL && i < c.count; i++)
        fwd_block_free(&c.blocks[i]);
    original_close(&c.original);
    mem_free(c.blocks);
    mem_free(c.ids);
    mem_free(c.emit.want);
    stream_close(&c.emit.out);
    fwd_close(&c.fwd);
    spill_close(c.spill);
    return run_close(&c.run, rc);
}
