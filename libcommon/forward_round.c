/* forward_round - activations rounded before products and before attention, as the runtime of the checkpoint does it */
#include "forward_impl.h"
#include "inputs.h"
#include "msg.h"

#include <string.h>

int
fwd_round_load(struct fwd *f, const char *module, struct fwd_linear *l)
{
    return f->inputs != NULL ? f->inputs(f->ctx, module, NULL, &l->in) : RC_OK;
}

int
fwd_round_load_cache(struct fwd *f)
{
    char module[ARCH_NAME_MAX];

    if (f->inputs == NULL)
        return RC_OK;
    arch_attention(f->arch, f->layer, module);
    TRY(f->inputs(f->ctx, module, "k", &f->cache[0]));
    return f->inputs(f->ctx, module, "v", &f->cache[1]);
}

/* Where one dynamic scale serves the whole tensor, that is a sample; of an expert, the rows that it gets. */
static int
round_rows_of(struct fwd *f, char *y, const char *x, int rows, int width, const struct rounding *r)
{
    const struct fwd_block *b = f->stepped;
    size_t row = (size_t)width * dtype_size(f->dt);

    if (!r->dynamic || r->spec.strategy != STRATEGY_TENSOR || rows != b->rows)
        return f->bk->round_act(f->dev, y, x, f->dt, rows, width, r);
    for (int i = 0; i < b->samples; i++) {
        TRY(f->bk->round_act(f->dev, y, x, f->dt, b->tokens[i], width, r));
        x += (size_t)b->tokens[i] * row;
        y += (size_t)b->tokens[i] * row;
    }
    return RC_OK;
}

static bool
same_rounding(const struct rounding *a, const struct rounding *b)
{
    return memcmp(&a->spec, &b->spec, sizeof(a->spec)) == 0 && a->dynamic == b->dynamic &&
        a->global_scale == b->global_scale && (a->dynamic || (a->parts == 1 && b->parts == 1 &&
        a->scale[0] == b->scale[0] && (a->zero != NULL ? a->zero[0] : 0) == (b->zero != NULL ? b->zero[0] : 0)));
}

void
fwd_round_forget(struct fwd *f)
{
    f->rounded_by = NULL;
}

int
fwd_round_input(struct fwd *f, const struct fwd_linear *l, const void **x, int rows)
{
    const struct rounding *by = &l->in.r;
    void *y;

    if (!l->in.on)
        return RC_OK;
    if ((y = fwd_scratch(f, FWD_ROUND, (size_t)rows * (size_t)l->cols)) == NULL)
        return RC_OS;
    if (f->rounded_x != *x || f->rounded_by == NULL || !same_rounding(f->rounded_by, by)) {
        TRY(round_rows_of(f, y, *x, rows, l->cols, by));
        f->rounded_x = *x;
        f->rounded_by = by;
    }
    *x = y;
    return RC_OK;
}

int
fwd_round_cache(struct fwd *f, void *k, void *v, int rows)
{
    int width = f->arch->kv_heads * f->arch->head_dim;

    if (f->cache[0].on)
        TRY(f->bk->round_act(f->dev, k, k, f->dt, rows, width, &f->cache[0].r));
    return f->cache[1].on ? f->bk->round_act(f->dev, v, v, f->dt, rows, width, &f->cache[1].r) : RC_OK;
}
