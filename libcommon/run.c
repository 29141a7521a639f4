/* run - what every stage opens: the plan, its model, a backend, the log */
#include "run.h"

#include "../kernels/reduce.h"
#include "links.h"
#include "mem.h"
#include "msg.h"
#include "source.h"
#include "stop.h"
#include "weights.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A layer is read ahead where it is at most this part of the memory that we may use. */
enum { AHEAD_SHARE = 8 };

/* Launchers' variables, in the order that they are asked; the first that knows of several ranks, else the first. Those
 * of job together have one value for all ranks and never that of an earlier launch: not so of an array, whose tasks may
 * each start again. */
static const struct launcher {
    const char *rank, *ranks, *first, *job[3];
} launchers[] = {
    { "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", NULL, { "PMIX_NAMESPACE" } },
    { "PMIX_RANK", "PMIX_SIZE", NULL, { "PMIX_NAMESPACE", "SLURM_RESTART_COUNT" } },
    { "PMI_RANK", "PMI_SIZE", NULL, { "PMI_JOBID" } },
    { "SLURM_PROCID", "SLURM_NTASKS", NULL, { "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT" } },
    { "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", { 0 } },
};

static int
env_int(const char *name)
{
    const char *s = name != NULL ? getenv(name) : NULL;
    char *end;
    long v;

    if (s == NULL || *s == '\0')
        return -1;
    v = strtol(s, &end, 10);
    return *end != '\0' || v < 0 || v > 1 << 20 ? -1 : (int)v;
}

/* Where rank and ranks were found; *from: NULL where by no launcher. */
static const char *
find_rank(const struct run_opts *o, int *rank, int *ranks, const struct launcher **from)
{
    static const char none[] = "default";
    const char *source = none;

    *from = NULL;
    *rank = 0;
    *ranks = 1;
    for (size_t i = 0; i < sizeof(launchers) / sizeof(launchers[0]) && *ranks == 1; i++) {
        int first = env_int(launchers[i].first), r = env_int(launchers[i].rank) - (first > 0 ? first : 0);
        int n = env_int(launchers[i].ranks);

        if (r < 0 || n < 1 || (n == 1 && source != none))
            continue;
        *rank = r;
        *ranks = n;
        source = launchers[i].rank;
        *from = &launchers[i];
    }
    if (o->rank >= 0 || o->ranks > 0) {
        source = "options";
        *from = NULL;
    }
    if (o->rank >= 0)
        *rank = o->rank;
    if (o->ranks > 0)
        *ranks = o->ranks;
    return source;
}

/* What this launch has been called by LLMC_RUN or by the launcher, as a word; nothing where by neither. */
static int
find_job(const struct launcher *from, char out[BEAT_JOB])
{
    const char *v = getenv("LLMC_RUN");
    bool named = v != NULL && *v != '\0';
    char hex[DIGEST_HEX];
    struct digest d;

    digest_init(&d);
    digest_str(&d, v);
    for (size_t i = 0; from != NULL && i < sizeof(from->job) / sizeof(from->job[0]) && from->job[i] != NULL; i++) {
        v = getenv(from->job[i]);
        digest_str(&d, v);
        named = named || (i == 0 && v != NULL && *v != '\0');
    }
    TRY(digest_hex(&d, hex));
    (void)snprintf(out, BEAT_JOB, "%.*s", named ? BEAT_JOB - 1 : 0, hex);
    return RC_OK;
}

static int
open_model(struct run *run)
{
    char fp[DIGEST_HEX];

    TRY(model_open(&run->model, run->plan.model));
    TRY(plan_model_fingerprint(&run->model, fp));
    if (strcmp(fp, run->plan.model_fingerprint) != 0)
        return err_set(RC_DATA, "%s: not the model that the work directory %s was made from", run->plan.model,
            run->plan.dir);
    TRY(links_check(&run->plan, &run->model));
    TRY(source_arch(&run->arch, &run->model));
    run->dt = run->arch.dtype == DT_BF16 ? DT_BF16 : DT_F32;
    return RC_OK;
}

/* plan.json is written after the tables. */
static int
check_ranks(const struct plan *p)
{
    int rank = 0;

    for (int i = 0; i < p->task_count; i++)
        rank = p->tasks[i].rank > rank ? p->tasks[i].rank : rank;
    for (int b = 0; b < p->block_count; b++)
        rank = p->blocks[b].rank > rank ? p->blocks[b].rank : rank;
    return rank < p->ranks ? RC_OK : err_set(RC_DATA, "%s: has work for rank %d, but is for %d ranks: llmc-shard "
        "--replan was interrupted, run it again", p->dir, rank, p->ranks);
}

/* Stages that have no peers of their own to tell. */
static int
open_beat(struct run *run, const char *tool)
{
    const char *stage = strcmp(tool, "llmc-calib") == 0 ? "calib" : strcmp(tool, "llmc-gptq") == 0 ? "gptq" : NULL;
    char dir[PATH_MAX];

    if (run->ranks < 2 || stage == NULL)
        return RC_OK;
    TRY(plan_path(&run->plan, dir, "ranks"));
    return beat_open(&run->beat, dir, run->rank, stage, 0, run->job);
}

int
run_open(struct run *run, const char *tool, const struct run_opts *o)
{
    struct dev_opts dev = { .threads = o->threads, .device_bytes = o->device_bytes };
    char path[PATH_MAX];
    const struct launcher *from;
    const char *source;
    int rc;

    mem_keep();
    *run = (struct run){ .memory = o->memory > 0 ? o->memory : budget_limit(""),
        .memory_asked = o->memory > 0 };
    event_open(&run->log, NULL, tool, 0);
    msg_quiet(o->quiet);
    stop_install();
    source = find_rank(o, &run->rank, &run->ranks, &from);
    msg_rank(run->rank, run->ranks);
    if (run->rank >= run->ranks)
        return err_set(RC_USAGE, "rank %d of %d ranks", run->rank, run->ranks);
    if ((rc = find_job(from, run->job)) != RC_OK || (rc = plan_read(&run->plan, o->dir)) != RC_OK ||
        (rc = open_model(run)) != RC_OK)
        goto out;
    if (!o->any_ranks && run->ranks != run->plan.ranks) {
        rc = err_set(RC_USAGE, "%d ranks, but the plan is for %d", run->ranks, run->plan.ranks);
        goto out;
    }
    if ((rc = check_ranks(&run->plan)) != RC_OK || (rc = plan_path(&run->plan, path, "log")) != RC_OK ||
        (rc = backend_find(&run->bk, o->backend)) != RC_OK ||
        (rc = run->bk->open(&run->dev, &dev)) != RC_OK || (rc = open_beat(run, tool)) != RC_OK)
        goto out;
    event_open(&run->log, path, tool, run->rank);
    event_emit(&run->log, "start", EVENT_STR("version", LLMC_VERSION), EVENT_STR("backend", run->bk->name),
        EVENT_INT("threads", pool_threads(dev_pool(run->dev))), EVENT_INT("ranks", run->ranks),
        EVENT_STR("rank_from", source), EVENT_STR("plan", run->plan.fingerprint));
    if (backend_note()[0] != '\0')
        event_emit(&run->log, "backend", EVENT_STR("note", backend_note()));
    return RC_OK;
out:
    (void)run_close(run, rc);
    return rc;
}

int
run_close(struct run *run, int rc)
{
    rc = msg_close_stdout(rc);
    event_emit(&run->log, "end", EVENT_INT("status", rc));
    event_close(&run->log);
    beat_close(&run->beat, rc);
    if (run->dev != NULL)
        run->bk->close(run->dev);
    model_close(&run->model);
    plan_free(&run->plan);
    *run = (struct run){ 0 };
    return rc;
}

struct budget_of
run_budget_of(const struct run *run)
{
    return (struct budget_of){ &run->plan, &run->arch, run->rank, pool_threads(dev_pool(run->dev)) };
}

int
run_budget(struct run *run, const struct budget *b)
{
    char text[512];

    budget_text(b, text, sizeof(text));
    event_emit(&run->log, "memory", EVENT_REAL("bytes", budget_total(b)), EVENT_REAL("limit", (double)run->memory),
        EVENT_STR("parts", text));
    TRY(budget_check(b, run->memory));
    if (run->memory_asked || msg_is_terminal())
        msg_info(NULL, "needs %s", text);
    return RC_OK;
}

int
run_need(struct run *run, enum budget_stage stage)
{
    struct budget_of of = run_budget_of(run);
    struct budget b;

    budget_stage(&b, &of, stage, NULL);
    return run_budget(run, &b);
}

#ifdef LLMC_MPI
#define HAVE_MPI true
#define MPI_TEXT "self, files, mpi%s; MPI yes"
#else
#define HAVE_MPI false
#define MPI_TEXT "self, files%s; MPI no"
#endif

const char *
run_built_with(void)
{
    static char text[160];
    bool nccl = HAVE_MPI && reduce_built(); /* NCCL's ranks find each other by MPI */

    (void)snprintf(text, sizeof(text), "backends: %s; communicators: " MPI_TEXT ", CUDA %s, NCCL %s", backend_names(),
        nccl ? ", nccl" : "", backend_cuda_built() ? "yes" : "no", nccl ? "yes" : "no");
    return text;
}

/* --- weights --- */

int
run_source_dense(void *ctx, const char *name, struct dense *out)
{
    struct run *run = ctx;

    return source_stored(&run->model, name, out);
}

static const struct tensor *
find_in_file(void *ctx, const char *name)
{
    return st_find(ctx, name);
}

/* Rows of one compressed task. */
static int
task_dense(struct run *run, const struct task *t, struct dense *d)
{
    enum dtype dt = run->arch.dtype;
    int rows = t->end - t->row0, rc;
    char path[PATH_MAX];
    struct st_file st;

    TRY(plan_task_path(&run->plan, t, path));
    TRY(st_open(&st, path));
    if ((rc = st_want_plan(&st, run->plan.fingerprint)) == RC_OK &&
        (rc = weights_dense(d, t->module, &run->plan.recipe->groups[t->group].scheme, dt, find_in_file, &st,
        dev_pool(run->dev))) == RC_OK && (d->rows != rows || d->cols != t->cols)) {
        rc = err_set(RC_DATA, "%s: [%d, %d], want [%d, %d]", path, d->rows, d->cols, rows, t->cols);
        mem_free(d->own);
        *d = (struct dense){ 0 };
    }
    st_close(&st);
    return rc;
}

/* The same, compressed or not, into the module's matrix. */
static int
copy_dense(struct run *run, const struct task *t, const char *name, char *out)
{
    enum dtype dt = run->arch.dtype;
    size_t row = (size_t)t->cols * dtype_size(dt), rows = (size_t)(t->end - t->row0);
    struct dense d = { 0 };

    if (plan_task_done(&run->plan, t)) {
        TRY(task_dense(run, t, &d));
        memcpy(out, d.data, rows * row);
        mem_free(d.own);
        return RC_OK;
    }
    TRY(run_source_dense(run, name, &d));
    if (d.dtype != dt || d.rows != t->rows || d.cols != t->cols) {
        dense_free(&d);
        return err_set(RC_DATA, "%s: type or shape differ from the plan", name);
    }
    memcpy(out, (const char *)d.data + (size_t)t->row0 * row, rows * row);
    dense_free(&d);
    return RC_OK;
}

int
run_dense(void *ctx, const char *name, struct dense *out)
{
    struct run *run = ctx;
    char module[ARCH_NAME_MAX];
    const struct task *t = NULL;
    bool any_done = false;
    int count = 0, rc = RC_OK;
    char *data;

    if (arch_weight_module(name, module))
        t = plan_module(&run->plan, module, &count);
    for (int i = 0; i < count; i++)
        any_done = any_done || plan_task_done(&run->plan, &t[i]);
    if (!any_done)
        return run_source_dense(run, name, out);
    if (count == 1)
        return task_dense(run, t, out);
    if ((data = mem_alloc((size_t)t->rows * (size_t)t->cols, dtype_size(run->arch.dtype))) == NULL)
        return RC_OS;
    for (int i = 0; i < count && rc == RC_OK; i++)
        rc = copy_dense(run, &t[i], name, data + (size_t)t[i].row0 * (size_t)t->cols * dtype_size(run->arch.dtype));
    *out = (struct dense){ .dtype = run->arch.dtype, .rows = t->rows, .cols = t->cols, .data = data, .own = data };
    if (rc != RC_OK) {
        mem_free(data);
        *out = (struct dense){ 0 };
    }
    return rc;
}

/* This rank reads the module's source. */
static bool
reads_source(const struct run *run, const char *module)
{
    const struct plan *p = &run->plan;
    int count = 0;
    const struct task *t = plan_module(p, module, &count);

    for (int i = 0; i < count; i++)
        if (t[i].rank == run->rank && !plan_task_done(p, &t[i]))
            return true;
    return p->sequential != SEQUENTIAL_INPUT || plan_pairs(p);
}

void
run_ahead(struct run *run, int layer)
{
    int n = layer < run->arch.layers ? arch_linear_count(&run->arch, layer) : 0;
    char module[ARCH_NAME_MAX], name[ARCH_NAME_MAX + 16];
    double bytes = 0;

    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < n; i++) {
            const struct model_tensor *t;
            struct linear l;

            arch_linear(&run->arch, layer, i, &l);
            arch_module(&run->arch, layer, &l, module);
            (void)snprintf(name, sizeof(name), "%s.weight", module);
            if ((t = model_find(&run->model, name)) == NULL || !reads_source(run, module))
                continue;
            if (pass == 0)
                bytes += (double)t->t->bytes;
            else
                st_prefetch(&run->model.shards[t->shard].st, t->t);
        }
        if (bytes == 0 || bytes * AHEAD_SHARE > (double)run->memory)
            return;
    }
    event_emit(&run->log, "ahead", EVENT_INT("layer", layer), EVENT_REAL("bytes", bytes));
}

/* --- blocks --- */

int
run_next_block(const struct run *run, int after)
{
    for (int b = after + 1; b < run->plan.block_count; b++)
        if (run->plan.blocks[b].rank == run->rank)
            return b;
    return -1;
}

int
run_block_tokens(const struct run *run, int block, int32_t **ids, int **lengths)
{
    const struct block *b = &run->plan.blocks[block];
    int64_t want_ids[1] = { b->tokens }, want_lengths[1] = { b->samples };
    const struct tensor *ti, *tl;
    char path[PATH_MAX], digest[DIGEST_HEX];
    struct st_file st;
    int64_t sum = 0;
    int rc;

    *ids = NULL;
    *lengths = NULL;
    TRY(plan_path(&run->plan, path, "tokens/%d.safetensors", block));
    TRY(st_open(&st, path));
    if ((rc = st_get(&st, "input_ids", &ti)) != RC_OK || (rc = st_get(&st, "lengths", &tl)) != RC_OK ||
        (rc = tensor_want(ti, DT_I32, 1, want_ids)) != RC_OK || (rc = tensor_want(tl, DT_I32, 1,
            want_lengths)) != RC_OK ||
        (rc = digest_mem(ti->data, ti->bytes, digest)) != RC_OK)
        goto out;
    if (strcmp(digest, b->digest) != 0) {
        rc = err_set(RC_DATA, "%s: not the tokens that the plan was made from", path);
        goto out;
    }
    if ((*ids = mem_alloc(ti->bytes, 1)) == NULL || (*lengths = mem_alloc(tl->bytes, 1)) == NULL) {
        rc = RC_OS;
        goto out;
    }
    memcpy(*ids, ti->data, ti->bytes);
    memcpy(*lengths, tl->data, tl->bytes);
    for (int i = 0; i < b->samples; i++)
        sum = (*lengths)[i] < 1 ? INT64_MIN : sum + (*lengths)[i];
    if (sum != b->tokens)
        rc = err_set(RC_DATA, "%s: lengths do not add up", path);
out:
    if (rc != RC_OK) {
        mem_free(*ids);
        mem_free(*lengths);
        *ids = NULL;
        *lengths = NULL;
    }
    st_close(&st);
    return rc;
}
