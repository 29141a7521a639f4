/* forward_moe - layers with experts: routing, inputs of each expert, the routed result
 *
 * Everything is done in the reference's order: experts in theirs, each row's contributions rounded to T one by one.
 */
#include "forward_impl.h"
#include "mem.h"
#include "msg.h"

#include <math.h>
#include <string.h>

static size_t
row_bytes(const struct fwd *f, int width)
{
    return (size_t)width * dtype_size(f->dt);
}

static void
route_free(struct fwd_route *r)
{
    mem_free(r->expert);
    mem_free(r->weight);
    mem_free(r->rows);
    mem_free(r->weights);
    r->expert = NULL;
    r->weight = NULL;
    r->rows = NULL;
    r->weights = NULL;
    r->cap = 0;
}

void
fwd_route_free(struct fwd_route *r)
{
    route_free(r);
    mem_free(r->tokens);
    *r = (struct fwd_route){ 0 };
}

static int
route_room(struct fwd *f, int rows)
{
    struct fwd_route *r = &f->route;
    size_t n = (size_t)rows * (size_t)f->arch->experts_per_token;

    if (r->tokens == NULL && (r->tokens = mem_zalloc((size_t)f->arch->experts, sizeof(*r->tokens))) == NULL)
        return RC_OS;
    if (r->cap >= rows)
        return RC_OK;
    route_free(r);
    r->expert = mem_alloc(n, sizeof(*r->expert));
    r->weight = mem_alloc(n, sizeof(*r->weight));
    r->rows = mem_alloc((size_t)rows, sizeof(*r->rows));
    r->weights = mem_alloc((size_t)rows, sizeof(*r->weights));
    if (r->expert == NULL || r->weight == NULL || r->rows == NULL || r->weights == NULL) {
        route_free(r);
        return RC_OS;
    }
    r->cap = rows;
    return RC_OK;
}

/* T(v) */
static float
rounded(const struct fwd *f, float v)
{
    uint16_t t;

    if (f->dt == DT_BF16) {
        (void)dtype_from_f32(&t, &v, f->dt, 1);
        (void)dtype_to_f32(&v, &t, f->dt, 1);
    }
    return v;
}

/* The largest of softmax(p), p [experts] is overwritten; of equal ones the first. */
static void
choose(const struct fwd *f, float *p, int *expert, float *weight)
{
    const struct arch *a = f->arch;
    float max = p[0], sum = 0;

    for (int e = 1; e < a->experts; e++)
        max = p[e] > max ? p[e] : max;
    for (int e = 0; e < a->experts; e++)
        sum += p[e] = expf(p[e] - max);
    for (int e = 0; e < a->experts; e++)
        p[e] /= sum;
    sum = 0;
    for (int k = 0; k < a->experts_per_token; k++) {
        int best = 0;

        for (int e = 1; e < a->experts; e++)
            best = p[e] > p[best] ? e : best;
        expert[k] = best;
        weight[k] = p[best];
        sum += p[best];
        p[best] = -1;
    }
    for (int k = 0; k < a->experts_per_token; k++) {
        if (a->renormalise)
            weight[k] /= sum;
        if (!arch_router_f32(a))
            weight[k] = rounded(f, weight[k]);
    }
}

int
fwd_route(struct fwd *f, const struct fwd_block *b, const void **x)
{
    const struct arch *a = f->arch;
    float p[ARCH_EXPERTS_MAX];
    char *logits;

    TRY(route_room(f, b->rows));
    TRY(fwd_input(f, b, x));
    if ((logits = fwd_scratch(f, FWD_ROUTE, (size_t)b->rows * (size_t)a->experts)) == NULL)
        return RC_OS;
    TRY(fwd_mul(f, &f->linear[ROLE_ROUTER], logits, *x, b->rows));
    for (int r = 0; r < b->rows; r++) {
        int *expert = f->route.expert + (size_t)r * (size_t)a->experts_per_token;

        (void)dtype_to_f32(p, logits + (size_t)r * row_bytes(f, a->experts), f->dt, (size_t)a->experts);
        for (int e = 0; e < a->experts; e++)
            if (!isfinite(p[e]))
                return err_set(RC_NUMERIC, "layer %d: the router's result is not finite", f->layer);
        choose(f, p, expert, f->route.weight + (size_t)r * (size_t)a->experts_per_token);
    }
    return RC_OK;
}

void
fwd_route_count(struct fwd *f, const struct fwd_block *b)
{
    for (int i = 0; i < b->rows * f->arch->experts_per_token; i++)
        f->route.tokens[f->route.expert[i]]++;
}

/* Rows of expert e and their weights: route.rows, route.weights; returns how many. */
static int
rows_of(struct fwd *f, const struct fwd_block *b, int e)
{
    int k = f->arch->experts_per_token, n = 0;

    for (int r = 0; r < b->rows; r++)
        for (int i = 0; i < k; i++)
            if (f->route.expert[(size_t)r * (size_t)k + (size_t)i] == e) {
                f->route.rows[n] = r;
                f->route.weights[n++] = f->route.weight[(size_t)r * (size_t)k + (size_t)i];
            }
    return n;
}

static int
gather(struct fwd *f, const void *x, int n, const void **out)
{
    void *g = fwd_scratch(f, FWD_FUSED, (size_t)n * (size_t)f->arch->hidden);

    *out = g;
    return g != NULL ? f->bk->gather(f->dev, g, x, f->route.rows, n, f->dt, f->arch->hidden) : RC_OS;
}

/* act(gate) * up of expert e, -1: of the shared one, into FWD_C. */
static int
expert_gated(struct fwd *f, int e, const void *x, int rows, const void **out)
{
    int width = arch_width(f->arch, f->layer, POINT_DOWN, e);
    const struct fwd_linear *gate = e < 0 ? &f->linear[ROLE_GATE] : &f->expert[e][0];
    const struct fwd_linear *up = e < 0 ? &f->linear[ROLE_UP] : &f->expert[e][1];
    void *h = fwd_scratch(f, FWD_C, (size_t)rows * (size_t)width);

    *out = h;
    return h == NULL ? RC_OS : fwd_gated(f, h, gate, up, x, rows, width);
}

int
fwd_expert_input(struct fwd *f, const struct fwd_block *b, const void *x, int e, bool all, const void **in, int *rows)
{
    *in = x;
    *rows = b->rows;
    if (e >= 0 && !all) {
        if ((*rows = rows_of(f, b, e)) == 0)
            return RC_OK;
        TRY(gather(f, x, *rows, in));
    }
    return b->point == POINT_DOWN && *rows > 0 ? expert_gated(f, e, *in, *rows, in) : RC_OK;
}

static int
add_expert(struct fwd *f, const struct fwd_block *b, const void *x, int e, void *sum)
{
    int n = rows_of(f, b, e), width = f->arch->hidden;
    const void *in;
    void *y;

    if (n == 0)
        return RC_OK;
    TRY(gather(f, x, n, &in));
    TRY(expert_gated(f, e, in, n, &in));
    if ((y = fwd_scratch(f, FWD_A, (size_t)n * (size_t)width)) == NULL)
        return RC_OS;
    TRY(fwd_mul(f, &f->expert[e][2], y, in, n));
    return f->bk->add_rows(f->dev, sum, f->route.rows, f->route.weights, y, n, f->dt, width);
}

/* The shared expert, times the sigmoid of its gate. */
static int
add_shared(struct fwd *f, const struct fwd_block *b, const void *x, void *sum)
{
    int width = f->arch->hidden;
    const void *in;
    char *y, *gate;

    TRY(expert_gated(f, -1, x, b->rows, &in));
    y = fwd_scratch(f, FWD_A, (size_t)b->rows * (size_t)width);
    gate = fwd_scratch(f, FWD_ROUTE, (size_t)b->rows);
    if (y == NULL || gate == NULL)
        return RC_OS;
    TRY(fwd_mul(f, &f->linear[ROLE_DOWN], y, in, b->rows));
    TRY(fwd_mul(f, &f->linear[ROLE_SHARED_GATE], gate, x, b->rows));
    for (int r = 0; r < b->rows; r++) {
        float g;

        (void)dtype_to_f32(&g, gate + row_bytes(f, r), f->dt, 1);
        f->route.weights[r] = rounded(f, 1 / (1 + expf(-g)));
    }
    return f->bk->add_rows(f->dev, sum, NULL, f->route.weights, y, b->rows, f->dt, width);
}

int
fwd_step_moe(struct fwd *f, struct fwd_block *b)
{
    const struct arch *a = f->arch;
    size_t count = (size_t)b->rows * (size_t)a->hidden;
    void *sum = fwd_scratch(f, FWD_SUM, count);
    const void *x;

    if (sum == NULL)
        return RC_OS;
    TRY(f->bk->zero(f->dev, sum, count * dtype_size(f->dt)));
    TRY(fwd_route(f, b, &x));
    for (int e = 0; e < a->experts; e++)
        TRY(add_expert(f, b, x, e, sum));
    if (a->shared_width > 0)
        TRY(add_shared(f, b, x, sum));
    return fwd_add_residual(f, b, sum, NORM_MLP_OUT);
}
