/* state - hidden states entering a step */
#include "state.h"

#include "file.h"
#include "mem.h"
#include "msg.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int
state_path(const struct run *run, int step, int block, bool original, char *out)
{
    return plan_path(&run->plan, out, original ? "state/%d/%d.original.safetensors" : "state/%d/%d.safetensors", step,
        block);
}

int
state_place(struct state_place *out, struct run *run, bool piped)
{
    struct budget_of of = run_budget_of(run);
    struct budget_way way;
    struct budget b;
    int rows = 0, cols = 0;
    char dir[PATH_MAX];

    *out = (struct state_place){ 0 };
    TRY(budget_choose(&b, &way, &of, piped, run->memory));
    TRY(run_budget(run, &b));
    for (int i = 0; i < run->plan.block_count; i++)
        if (run->plan.blocks[i].rank == run->rank && run->plan.blocks[i].tokens > rows)
            rows = run->plan.blocks[i].tokens;
    for (int i = 0; i < run->plan.task_count; i++)
        cols = run->plan.tasks[i].cols > cols ? run->plan.tasks[i].cols : cols;
    out->frame_bytes = (size_t)rows * (size_t)cols * dtype_size(run->dt) * (plan_pairs(&run->plan) ? 2 : 1);
    out->frames = way.slots;
    if (!way.disk)
        return RC_OK;
    TRY(plan_path(&run->plan, dir, "state"));
    TRY(file_mkdir(dir));
    return spill_open(&out->spill, dir);
}

int
state_save(struct run *run, int step, int block, const struct fwd_block *b, bool original)
{
    int width = fwd_pending(&run->arch, run->plan.steps[step].layer, b->point);
    struct tensor t[3] = { tensor_2d("hidden", run->dt, b->rows, run->arch.hidden, b->hidden) };
    size_t count = 1;
    struct st_meta meta[1] = { { "plan", run->plan.fingerprint } };
    void *own[2] = { NULL, NULL };
    char path[PATH_MAX];
    int rc;

    if ((rc = plan_path(&run->plan, path, "state/%d", step)) != RC_OK || (rc = file_mkdir(path)) != RC_OK ||
        (rc = state_path(run, step, block, original, path)) != RC_OK)
        return rc;
    if (b->pending != NULL)
        t[count++] = tensor_2d("pending", run->dt, b->rows, width, b->pending);
    for (size_t i = 0; i < count && rc == RC_OK; i++)
        rc = fwd_read(b->bk, b->dev, t[i].data, t[i].bytes, &t[i].data, &own[i]);
    if (b->cache != NULL && b->point == POINT_O)
        t[count++] = tensor_2d("cache", DT_F32, 2 * run->arch.kv_heads, 2, b->cache);
    if (rc == RC_OK)
        rc = st_publish(path, t, count, meta, 1);
    mem_free(own[0]);
    mem_free(own[1]);
    return rc;
}

/* The point that a step enters. */
static enum point
entered(const struct run *run, int step)
{
    return (enum point)run->plan.steps[step].first_point;
}

static int
load_cache(const struct run *run, const struct st_file *st, struct fwd_block *b)
{
    int64_t want[2] = { 2 * run->arch.kv_heads, 2 };
    const struct tensor *cache;

    TRY(st_get(st, "cache", &cache));
    TRY(tensor_want(cache, DT_F32, 2, want));
    if ((b->cache = mem_alloc(cache->bytes, 1)) == NULL)
        return RC_OS;
    memcpy(b->cache, cache->data, cache->bytes);
    return RC_OK;
}

int
state_load(struct run *run, int step, int block, struct fwd_block *b, bool original)
{
    enum point point = entered(run, step);
    int64_t want[2] = { b->rows, run->arch.hidden };
    const struct tensor *hidden, *pending;
    char path[PATH_MAX];
    struct st_file st;
    int rc;

    if ((rc = state_path(run, step, block, original, path)) != RC_OK || (rc = st_open(&st, path)) != RC_OK)
        return rc;
    if ((rc = st_want_plan(&st, run->plan.fingerprint)) != RC_OK ||
        (rc = st_get(&st, "hidden", &hidden)) != RC_OK || (rc = tensor_want(hidden, run->dt, 2, want)) != RC_OK)
        goto out;
    if ((rc = backend_move(b->bk, b->dev, b->hidden, hidden->data, hidden->bytes)) != RC_OK)
        goto out;
    b->point = point;
    if ((want[1] = fwd_pending(&run->arch, run->plan.steps[step].layer, point)) > 0) {
        if ((rc = st_get(&st, "pending", &pending)) != RC_OK || (rc = tensor_want(pending, run->dt, 2, want)) != RC_OK)
            goto out;
        if ((rc = fwd_block_wait(b, pending->bytes)) == RC_OK)
            rc = backend_move(b->bk, b->dev, b->pending, pending->data, pending->bytes);
    }
    if (rc == RC_OK && point == POINT_O && run->plan.recipe->has_cache && !original)
        rc = load_cache(run, &st, b);
out:
    st_close(&st);
    return rc;
}

static bool
have(const struct run *run, int step, int block, bool original)
{
    char path[PATH_MAX];

    return state_path(run, step, block, original, path) == RC_OK && access(path, R_OK) == 0;
}

int
state_find(const struct run *run, int step, const int *blocks, int count)
{
    bool pairs = plan_pairs(&run->plan);

    for (int s = step; s > 0; s--) {
        int i = 0;

        while (i < count && have(run, s, blocks[i], false) && (!pairs || have(run, s, blocks[i], true)))
            i++;
        if (i == count)
            return s;
    }
    return 0;
}

void
state_drop(const struct run *run, int step, const int *blocks, int count)
{
    char path[PATH_MAX];
    struct dirent *e;
    DIR *d;

    if (plan_path(&run->plan, path, "state") != RC_OK || (d = opendir(path)) == NULL)
        return;
    while ((e = readdir(d)) != NULL) {
        int s = atoi(e->d_name);

        if (e->d_name[0] < '0' || e->d_name[0] > '9' || s == step)
            continue;
        for (int i = 0; i < 2 * count; i++)
            if (state_path(run, s, blocks[i / 2], i % 2 == 1, path) == RC_OK)
                (void)unlink(path);
        if (plan_path(&run->plan, path, "state/%d", s) == RC_OK)
            (void)rmdir(path); /* fails while other ranks' states are there */
    }
    (void)closedir(d);
}

int
state_save_all(struct run *run, int step, const int *ids, int count, const struct fwd_block *blocks,
    const struct fwd_block *original)
{
    for (int i = 0; i < count; i++) {
        TRY(state_save(run, step, ids[i], &blocks[i], false));
        if (original != NULL)
            TRY(state_save(run, step, ids[i], &original[i], true));
    }
    state_drop(run, step, ids, count);
    return RC_OK;
}
