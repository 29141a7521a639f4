/* emit - what llmc-calib sends of a block that enters a capture point */
#include "emit.h"

#include "mem.h"
#include "msg.h"

#include <string.h>

/* sequences 0: for the grid alone. original NULL: no pair. */
static int
send_input(struct emit *e, int step, enum point point, int block, int sequences, const void *x, const void *original,
    int rows)
{
    return stream_pair(&e->out, step, point, block, sequences, x, original, e->run->dt, rows, arch_width(&e->run->arch,
        e->fwd->layer, arch_point_base(point), arch_point_expert(point)));
}

static bool
experts_at(const struct emit *e, const struct fwd_block *b)
{
    return (e->run->arch.layer[e->fwd->layer] & LAYER_MOE) != 0 && b->point >= POINT_MLP;
}

/* The rows of one expert, in a pair if its modules want one. */
static int
emit_expert(struct emit *e, int step, int block, const struct fwd_block *b, const struct fwd_block *bf, const void *x,
    const void *xf, int expert, bool all, int sequences)
{
    enum point p = arch_expert_point(b->point, expert);
    bool pair = plan_point_pairs(&e->run->plan, step, p);
    const void *in, *original = NULL;
    int rows;

    TRY(fwd_expert_input(e->fwd, b, x, expert, all, &in, &rows));
    if (pair && rows > 0)
        TRY(original_expert(e->original, bf, xf, expert, all, &original));
    return rows > 0 ? send_input(e, step, p, block, sequences, in, original, rows) : RC_OK;
}

/* Inputs of every expert. All rows of the plan's first block decide the grid: there may be none of those routed. */
static int
emit_experts(struct emit *e, int step, int block, const struct fwd_block *b, const struct fwd_block *bf)
{
    bool all = e->run->plan.experts == EXPERTS_ALL;
    const void *x, *xf = NULL;

    TRY(fwd_route(e->fwd, b, &x));
    if (e->original->on)
        TRY(original_route(e->original, bf, e->fwd, &xf));
    if (b->point == POINT_DOWN)
        fwd_route_count(e->fwd, b);
    for (int i = -1; i < e->run->arch.experts; i++) {
        if (!e->want[arch_expert_point(b->point, i)])
            continue;
        if (i >= 0 && !all && block == 0)
            TRY(emit_expert(e, step, block, b, bf, x, xf, i, true, 0));
        TRY(emit_expert(e, step, block, b, bf, x, xf, i, all, b->samples));
    }
    return RC_OK;
}

int
emit_block(struct emit *e, int step, int block, const struct fwd_block *b, const struct fwd_block *bf)
{
    const void *x, *xf = NULL;

    if (plan_block_held(&e->run->plan, block))
        return RC_OK;
    if (b->point == POINT_O && e->want_cache)
        TRY(stream_cache(&e->out, step, block, b->cache, 2 * e->run->arch.kv_heads));
    if (experts_at(e, b) && (b->point == POINT_DOWN || e->run->plan.experts == EXPERTS_ROUTED))
        return emit_experts(e, step, block, b, bf);
    if (!e->want[b->point])
        return RC_OK;
    TRY(fwd_input(e->fwd, b, &x));
    if (plan_point_pairs(&e->run->plan, step, b->point))
        TRY(original_input(e->original, bf, &xf));
    return send_input(e, step, b->point, block, b->samples, x, xf, b->rows);
}

/* For all points at once: thousands of modules are not looked at for every block. */
int
emit_look(struct emit *e, int step, bool (*wants)(const struct plan *p, const struct task *t))
{
    const struct plan *p = &e->run->plan;
    size_t points = (size_t)arch_point_total(&e->run->arch);

    if (e->want == NULL && (e->want = mem_alloc(points, sizeof(*e->want))) == NULL)
        return RC_OS;
    memset(e->want, 0, points * sizeof(*e->want));
    e->want_cache = false;
    for (int i = p->steps[step].first_task; i < p->steps[step].end_task && wants != NULL; i++) {
        const struct task *t = &p->tasks[i];
        bool *want = plan_task_cache(t) ? &e->want_cache : &e->want[t->point];

        *want = *want || wants(p, t);
    }
    return RC_OK;
}
