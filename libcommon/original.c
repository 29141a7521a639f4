/* original - the second stream of hidden states: what the original model computes for the same tokens */
#include "original.h"

#include "mem.h"
#include "msg.h"
#include "stop.h"

#include <string.h>

int
original_open(struct original *o, struct run *run, int blocks, bool eager)
{
    *o = (struct original){ .run = run, .passed = -1 };
    if (!plan_pairs(&run->plan))
        return RC_OK;
    TRY(fwd_open(&o->fwd, run->bk, run->dev, &run->arch, run->dt, run_source_dense, run));
    o->fwd.eager = eager;
    o->on = true;
    o->blocks = mem_zalloc((size_t)blocks, sizeof(*o->blocks));
    o->count = o->blocks != NULL ? blocks : 0;
    return o->blocks != NULL ? RC_OK : RC_OS;
}

void
original_close(struct original *o)
{
    for (int i = 0; i < o->count; i++)
        fwd_block_free(&o->blocks[i]);
    mem_free(o->blocks);
    fwd_close(&o->fwd);
    *o = (struct original){ 0 };
}

int
original_norms(struct original *o, int layer)
{
    return o->on ? fwd_norms(&o->fwd, layer) : RC_OK;
}

int
original_load(struct original *o, int layer, int first, int end)
{
    if (!o->on)
        return RC_OK;
    TRY(original_norms(o, layer));
    return first < end ? fwd_load(&o->fwd, first, end) : fwd_load_router(&o->fwd);
}

void
original_unload(struct original *o)
{
    if (o->on)
        fwd_unload(&o->fwd);
}

int
original_step(struct original *o, struct fwd_block *b)
{
    return o->on ? fwd_step(&o->fwd, b) : RC_OK;
}

int
original_pass(struct original *o, int step)
{
    double start = clock_seconds();
    const struct step *s;
    int rc;

    if (!o->on || o->passed == step)
        return RC_OK;
    s = &o->run->plan.steps[step];
    rc = original_load(o, s->layer, s->first_point, s->end_point);
    for (int i = 0; i < o->count && rc == RC_OK; i++) {
        if ((rc = stop_check()) != RC_OK)
            break;
        for (int p = s->first_point; p < s->end_point && rc == RC_OK; p++)
            rc = original_step(o, &o->blocks[i]);
        fwd_block_idle(&o->blocks[i]);
    }
    original_unload(o);
    if (rc != RC_OK)
        return rc;
    o->passed = step;
    event_emit(&o->run->log, "passed", EVENT_INT("step", step), EVENT_REAL("seconds", clock_seconds() - start));
    return RC_OK;
}

int
original_input(struct original *o, const struct fwd_block *b, const void **x)
{
    *x = NULL;
    return o->on ? fwd_input(&o->fwd, b, x) : RC_OK;
}

int
original_route(struct original *o, const struct fwd_block *b, const struct fwd *first, const void **x)
{
    size_t n = (size_t)b->rows * (size_t)o->run->arch.experts_per_token;

    TRY(fwd_route(&o->fwd, b, x));
    memcpy(o->fwd.route.expert, first->route.expert, n * sizeof(*first->route.expert));
    memcpy(o->fwd.route.weight, first->route.weight, n * sizeof(*first->route.weight));
    return RC_OK;
}

int
original_expert(struct original *o, const struct fwd_block *b, const void *x, int e, bool all, const void **in)
{
    int rows;

    return fwd_expert_input(&o->fwd, b, x, e, all, in, &rows);
}

int
original_copy(const struct fwd *f, struct fwd_block *to, const struct fwd_block *b)
{
    TRY(fwd_block_init(f, to, b->tokens, b->samples));
    return backend_move(f->bk, f->dev, to->hidden, b->hidden, (size_t)b->rows * (size_t)f->arch->hidden *
        dtype_size(f->dt));
}

int
original_distance(const struct original *o, const struct fwd_block *b, int i, double *apart, double *size)
{
    const struct fwd_block *f = &o->blocks[i];
    bool waits = b->pending != NULL;
    size_t width = (size_t)(waits ? fwd_pending(o->fwd.arch, o->fwd.layer, b->point) : o->fwd.arch->hidden);
    size_t count = (size_t)b->rows * width, bytes = count * dtype_size(o->fwd.dt);
    const void *x, *xf;
    void *own = NULL, *ownf = NULL;
    double sums[2];
    int rc = fwd_read(b->bk, b->dev, waits ? b->pending : b->hidden, bytes, &x, &own);

    if (rc == RC_OK && (rc = fwd_read(f->bk, f->dev, waits ? f->pending : f->hidden, bytes, &xf, &ownf)) == RC_OK &&
        (rc = b->bk->distance(b->dev, sums, x, xf, o->fwd.dt, count)) == RC_OK) {
        *apart += sums[0];
        *size += sums[1];
    }
    mem_free(own);
    mem_free(ownf);
    return rc;
}
