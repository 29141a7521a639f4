/* forward - one decoder layer, capture point by capture point, over blocks of samples */
#include "forward_impl.h"
#include "inputs.h"
#include "mem.h"
#include "msg.h"
#include "safetensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static size_t
cells(const struct fwd_block *b, int width)
{
    return (size_t)b->rows * (size_t)width;
}

int
fwd_open(struct fwd *f, const struct backend *bk, struct dev *dev, const struct arch *a, enum dtype dt,
    fwd_dense_fn *dense, void *ctx)
{
    *f = (struct fwd){ .bk = bk, .dev = dev, .arch = a, .dt = dt, .dense = dense, .ctx = ctx, .layer = -1,
        .ahead.layer = -1 };
    f->linear = mem_zalloc(ROLE_COUNT, sizeof(*f->linear));
    f->ahead.linear = mem_zalloc(ROLE_COUNT, sizeof(*f->linear));
    if (f->linear == NULL || f->ahead.linear == NULL)
        return RC_OS;
    if (a->experts == 0)
        return RC_OK;
    f->expert = mem_zalloc((size_t)a->experts, sizeof(*f->expert));
    f->ahead.expert = mem_zalloc((size_t)a->experts, sizeof(*f->expert));
    return f->expert == NULL || f->ahead.expert == NULL ? RC_OS : RC_OK;
}

int
fwd_block_init(const struct fwd *f, struct fwd_block *b, const int *tokens, int samples)
{
    *b = (struct fwd_block){ .bk = f->bk, .dev = f->dev, .samples = samples, .point = POINT_ATTN, .spill = f->spill };
    if ((b->tokens = mem_alloc((size_t)samples, sizeof(*b->tokens))) == NULL)
        return RC_OS;
    for (int i = 0; i < samples; i++) {
        b->tokens[i] = tokens[i];
        b->rows += tokens[i];
    }
    b->room_least = cells(b, fwd_pending_most(f->arch)) * dtype_size(f->dt);
    if ((b->hidden = fwd_block_alloc(b, cells(b, f->arch->hidden), dtype_size(f->dt))) != NULL)
        return RC_OK;
    fwd_block_free(b);
    return RC_OS;
}

void
fwd_block_free(struct fwd_block *b)
{
    mem_free(b->tokens);
    fwd_block_release(b, b->hidden);
    fwd_block_release(b, b->room);
    mem_free(b->cache);
    *b = (struct fwd_block){ 0 };
}

int
fwd_block_wait(struct fwd_block *b, size_t bytes)
{
    if (b->room_bytes < bytes) {
        bytes = bytes > b->room_least ? bytes : b->room_least;
        fwd_block_release(b, b->room);
        b->room = fwd_block_alloc(b, bytes, 1);
        b->room_bytes = b->room != NULL ? bytes : 0;
    }
    b->pending = b->room;
    return b->room != NULL ? RC_OK : RC_OS;
}

void
fwd_block_hand_on(struct fwd_block *from, struct fwd_block *to)
{
    if (to == from || to->room != NULL || from->pending != NULL)
        return;
    to->room = from->room;
    to->room_bytes = from->room_bytes;
    from->room = NULL;
    from->room_bytes = 0;
}

void
fwd_block_idle(struct fwd_block *b)
{
    spill_idle(b->spill, b->hidden);
    spill_idle(b->spill, b->room);
}

void
dense_free(struct dense *d)
{
    struct tensor t = { .data = d->data, .bytes = (size_t)d->rows * (size_t)d->cols * dtype_size(d->dtype) };

    if (d->st != NULL)
        st_drop(d->st, &t);
    mem_free(d->own);
    *d = (struct dense){ 0 };
}

static int
dense_want(struct fwd *f, const char *name, int rows, int cols, struct dense *d)
{
    TRY(f->dense(f->ctx, name, d));
    if (d->rows == rows && d->cols == cols)
        return RC_OK;
    (void)err_set(RC_DATA, "%s is [%d, %d], want [%d, %d]", name, d->rows, d->cols, rows, cols);
    dense_free(d);
    return RC_DATA;
}

/* src, of any float type, as count values of type dt. */
static int
convert(void *dst, enum dtype dt, const void *src, enum dtype sdt, size_t count, const char *name)
{
    float tmp[256];

    if (dt == sdt) {
        memcpy(dst, src, count * dtype_size(dt));
        return RC_OK;
    }
    for (size_t i = 0; i < count; i += 256) {
        size_t n = count - i < 256 ? count - i : 256;

        if (!dtype_to_f32(tmp, (const char *)src + i * dtype_size(sdt), sdt, n))
            return err_set(RC_DATA, "%s: type %s is not a float", name, dtype_name(sdt));
        (void)dtype_from_f32((char *)dst + i * dtype_size(dt), tmp, dt, n);
    }
    return RC_OK;
}

/* A vector of n values of type f->dt; *out is replaced. */
static int
load_vector(struct fwd *f, const char *name, int n, void **out)
{
    struct dense d = { 0 };
    int rc;

    fwd_free(f, *out);
    *out = NULL;
    TRY(dense_want(f, name, n, 1, &d));
    if ((*out = mem_alloc((size_t)n, dtype_size(f->dt))) == NULL)
        rc = RC_OS;
    else if ((rc = convert(*out, f->dt, d.data, d.dtype, (size_t)n, name)) == RC_OK)
        rc = fwd_place(f, out, (size_t)n * dtype_size(f->dt));
    dense_free(&d);
    return rc;
}

static int
tensor_name(char *out, size_t size, const char *module, const char *suffix)
{
    int n = snprintf(out, size, "%s.%s", module, suffix);

    return n < 0 || (size_t)n >= size ? err_set(RC_DATA, "%s: name is too long", module) : RC_OK;
}

int
fwd_norms(struct fwd *f, int layer)
{
    char module[ARCH_NAME_MAX], name[ARCH_NAME_MAX + 16];
    int width;

    if (f->layer == layer)
        return RC_OK;
    f->layer = -1;
    for (int i = 0; i < NORM_ID_COUNT; i++) {
        if (!arch_norm(f->arch, layer, (enum norm_id)i, module, &width))
            continue;
        TRY(tensor_name(name, sizeof(name), module, "weight"));
        TRY(load_vector(f, name, width, &f->norm[i]));
    }
    f->layer = layer;
    return RC_OK;
}

static struct fwd_linear *
slot(struct fwd *f, const struct linear *l)
{
    if (l->expert < 0)
        return &f->linear[l->role];
    return &f->expert[l->expert][l->role == ROLE_GATE ? 0 : l->role == ROLE_UP ? 1 : 2];
}

static void
linear_free(struct fwd *f, struct fwd_linear *l)
{
    if (l->w != NULL)
        f->bk->weight_free(f->dev, l->w);
    fwd_free(f, l->bias);
    inputs_free(&l->in);
    *l = (struct fwd_linear){ 0 };
}

static void
drop_set(struct fwd *f, struct fwd_linear *linear, struct fwd_linear (*expert)[FWD_EXPERT_ROLES])
{
    for (int r = 0; r < ROLE_COUNT; r++)
        linear_free(f, &linear[r]);
    for (int e = 0; expert != NULL && e < f->arch->experts; e++)
        for (int r = 0; r < FWD_EXPERT_ROLES; r++)
            linear_free(f, &expert[e][r]);
}

static void
drop_ahead(struct fwd *f)
{
    if (f->ahead.layer >= 0)
        drop_set(f, f->ahead.linear, f->ahead.expert);
    f->ahead.layer = -1;
}

/* What was fetched takes the place of what is loaded. */
static void
swap_ahead(struct fwd *f)
{
    struct fwd_linear (*expert)[FWD_EXPERT_ROLES] = f->expert, *linear = f->linear;

    f->linear = f->ahead.linear;
    f->expert = f->ahead.expert;
    f->ahead.linear = linear;
    f->ahead.expert = expert;
}

static int
load_linear(struct fwd *f, const struct linear *l)
{
    char module[ARCH_NAME_MAX], name[ARCH_NAME_MAX + 16];
    struct fwd_linear *to = slot(f, l);
    struct dense d = { 0 };
    int rc;

    linear_free(f, to);
    arch_module(f->arch, f->layer, l, module);
    to->cols = l->cols;
    TRY(fwd_round_load(f, module, to));
    if (l->bias) {
        TRY(tensor_name(name, sizeof(name), module, "bias"));
        TRY(load_vector(f, name, l->rows, &to->bias));
    }
    TRY(tensor_name(name, sizeof(name), module, "weight"));
    TRY(dense_want(f, name, l->rows, l->cols, &d));
    rc = f->bk->weight_pack(f->dev, &to->w, d.data, d.dtype, f->dt, l->rows, l->cols);
    dense_free(&d);
    return rc;
}

/* The point whose loading brings l. */
static int
loaded_at(const struct fwd *f, const struct linear *l)
{
    return (f->arch->layer[f->layer] & LAYER_MOE) != 0 && l->point == POINT_MLP ? POINT_DOWN : (int)l->point;
}

static int
load_points(struct fwd *f, int first, int end)
{
    struct linear l;

    for (int i = 0, n = arch_linear_count(f->arch, f->layer); i < n; i++) {
        arch_linear(f->arch, f->layer, i, &l);
        if (loaded_at(f, &l) >= first && loaded_at(f, &l) < end)
            TRY(load_linear(f, &l));
    }
    return RC_OK;
}

int
fwd_load(struct fwd *f, int first, int end)
{
    const struct fwd_ahead *a = &f->ahead;

    if (a->layer == f->layer && a->first == first && a->end == end && a->dense == f->dense)
        swap_ahead(f);
    else
        TRY(load_points(f, first, end));
    drop_ahead(f);
    return first <= POINT_ATTN ? fwd_round_load_cache(f) : RC_OK;
}

static size_t
bytes_of(struct fwd *f, int first, int end)
{
    size_t bytes = 0;
    struct linear l;

    for (int i = 0, n = arch_linear_count(f->arch, f->layer); i < n; i++) {
        arch_linear(f->arch, f->layer, i, &l);
        if (loaded_at(f, &l) >= first && loaded_at(f, &l) < end)
            bytes += (size_t)l.rows * (size_t)l.cols * dtype_size(f->dt);
    }
    return bytes;
}

void
fwd_fetch(struct fwd *f, fwd_dense_fn *dense, int layer, int first, int end)
{
    fwd_dense_fn *was = f->dense;
    int at = f->layer, rc;

    drop_ahead(f);
    f->layer = layer;
    f->dense = dense;
    if (f->bk->weight_fits(f->dev, bytes_of(f, first, end))) {
        swap_ahead(f);
        rc = load_points(f, first, end);
        swap_ahead(f);
        f->ahead.first = first;
        f->ahead.end = end;
        f->ahead.dense = dense;
        f->ahead.layer = layer;
        if (rc != RC_OK)
            drop_ahead(f);
    }
    f->layer = at;
    f->dense = was;
}

int
fwd_load_router(struct fwd *f)
{
    struct linear l;

    for (int i = 0, n = arch_linear_count(f->arch, f->layer); i < n; i++) {
        arch_linear(f->arch, f->layer, i, &l);
        if (l.role == ROLE_ROUTER)
            TRY(load_linear(f, &l));
    }
    return RC_OK;
}

void
fwd_unload(struct fwd *f)
{
    drop_set(f, f->linear, f->expert);
}

void
fwd_close(struct fwd *f)
{
    if (f->linear != NULL && f->ahead.linear != NULL) {
        fwd_unload(f);
        drop_ahead(f);
    }
    inputs_free(&f->cache[0]);
    inputs_free(&f->cache[1]);
    mem_free(f->linear);
    mem_free(f->ahead.linear);
    mem_free(f->expert);
    mem_free(f->ahead.expert);
    fwd_route_free(&f->route);
    for (int i = 0; i < NORM_ID_COUNT; i++)
        fwd_free(f, f->norm[i]);
    for (int i = 0; i < FWD_SCRATCH; i++)
        fwd_free(f, f->scratch[i]);
    for (int i = 0; i < 2; i++) {
        fwd_free(f, f->rope[i].cos_t);
        fwd_free(f, f->rope[i].sin_t);
    }
    *f = (struct fwd){ 0 };
}

static float
embed_scale(const struct fwd *f)
{
    float s = f->arch->embed_scale;
    uint16_t t;

    if (f->arch->embed_rounded && f->dt == DT_BF16) {
        (void)dtype_from_f32(&t, &s, f->dt, 1);
        (void)dtype_to_f32(&s, &t, f->dt, 1);
    }
    return s;
}

static int
embed(const struct fwd *f, char *to, const struct fwd_block *b, const int32_t *ids, const struct dense *d,
    const char *name)
{
    size_t width = (size_t)f->arch->hidden;

    for (size_t r = 0; r < (size_t)b->rows; r++) {
        if (ids[r] < 0 || ids[r] >= f->arch->vocab)
            return err_set(RC_DATA, "token id %d is outside the vocabulary of %d", (int)ids[r], f->arch->vocab);
        TRY(convert(to + r * width * dtype_size(f->dt), f->dt, (const char *)d->data + (size_t)ids[r] * width *
            dtype_size(d->dtype), d->dtype, width, name));
    }
    return RC_OK;
}

int
fwd_begin(struct fwd *f, struct fwd_block *b, const int32_t *ids)
{
    char module[ARCH_NAME_MAX], name[ARCH_NAME_MAX + 16];
    size_t bytes = cells(b, f->arch->hidden) * dtype_size(f->dt);
    struct dense d = { 0 };
    void *own = NULL;
    int rc;

    arch_embed(f->arch, module);
    TRY(tensor_name(name, sizeof(name), module, "weight"));
    TRY(dense_want(f, name, f->arch->vocab, f->arch->hidden, &d));
    if (!f->bk->holds(f->dev, b->hidden))
        rc = embed(f, b->hidden, b, ids, &d, name);
    else if ((own = mem_alloc(bytes, 1)) == NULL)
        rc = RC_OS;
    else if ((rc = embed(f, own, b, ids, &d, name)) == RC_OK)
        rc = backend_move(f->bk, f->dev, b->hidden, own, bytes);
    mem_free(own);
    dense_free(&d);
    b->point = POINT_ATTN;
    return rc != RC_OK || f->arch->embed_scale == 1 ? rc :
        f->bk->scale(f->dev, b->hidden, f->dt, cells(b, f->arch->hidden), embed_scale(f));
}

/* Tables depend on the length only where RoPE is dynamic; otherwise a longer table serves shorter samples. */
static int
rope_for(struct fwd *f, int tokens, const struct rope *r, struct fwd_rope *t)
{
    bool dynamic = r->type == ROPE_DYNAMIC || r->type == ROPE_LONG;
    size_t count = (size_t)tokens * (size_t)r->dim / 2;

    if (t->tokens == tokens || (!dynamic && t->tokens > tokens))
        return RC_OK;
    fwd_free(f, t->cos_t);
    fwd_free(f, t->sin_t);
    t->tokens = 0;
    t->cos_t = mem_alloc(count, dtype_size(f->dt));
    t->sin_t = mem_alloc(count, dtype_size(f->dt));
    if (t->cos_t == NULL || t->sin_t == NULL)
        return RC_OS;
    TRY(arch_rope_tables(f->arch, r, tokens, f->dt, t->cos_t, t->sin_t));
    TRY(fwd_place(f, &t->cos_t, count * dtype_size(f->dt)));
    TRY(fwd_place(f, &t->sin_t, count * dtype_size(f->dt)));
    t->tokens = tokens;
    return RC_OK;
}

/* Queries [rows, heads * head_dim], keys and values [rows, kv_heads * head_dim] of a block. */
struct heads {
    char *q, *k, *v;
};

/* RoPE and attention of consecutive samples of one length, starting at row. */
static int
attend(struct fwd *f, char *o, const struct heads *h, int row, int samples, int tokens)
{
    const struct arch *a = f->arch;
    unsigned kind = a->layer[f->layer];
    int own = a->two_ropes && (kind & LAYER_SLIDES) != 0, rows = samples * tokens;
    const struct rope *r = &a->rope[own];
    struct fwd_rope *t = &f->rope[own];
    int ldq = a->heads * a->head_dim, ldk = a->kv_heads * a->head_dim;
    size_t size = dtype_size(f->dt), qo = (size_t)row * (size_t)ldq * size, ko = (size_t)row * (size_t)ldk * size;
    char *q = h->q + qo, *k = h->k + ko;
    struct attn_args at = { .heads = a->heads, .kv_heads = a->kv_heads, .head_dim = a->head_dim, .tokens = tokens,
        .scale = a->attn_scale, .window = (kind & LAYER_SLIDES) != 0 ? a->window : 0, .softcap = a->attn_softcap,
        .eager = f->eager };

    if ((kind & LAYER_NO_ROPE) == 0) {
        TRY(rope_for(f, tokens, r, t));
        TRY(f->bk->rope(f->dev, q, f->dt, rows, a->heads, a->head_dim, ldq, t->cos_t, t->sin_t, r->dim, tokens));
        TRY(f->bk->rope(f->dev, k, f->dt, rows, a->kv_heads, a->head_dim, ldk, t->cos_t, t->sin_t, r->dim, tokens));
    }
    TRY(fwd_round_cache(f, k, h->v + ko, rows));
    return f->bk->attention(f->dev, o + qo, q, ldq, k, ldk, h->v + ko, ldk, f->dt, rows, &at);
}

int
fwd_mul(struct fwd *f, const struct fwd_linear *l, void *y, const void *x, int rows)
{
    if (l->w == NULL)
        return err_set(RC_BUG, "weights of layer %d are not loaded", f->layer);
    TRY(fwd_round_input(f, l, &x, rows));
    return f->bk->matmul(f->dev, y, f->dt, x, f->dt, rows, l->w, l->bias);
}

/* Columns [at, at + width) of a matrix, ld wide, close together. */
static int
take_columns(const struct fwd *f, char *out, const char *m, int ld, int at, int width, int rows)
{
    size_t size = dtype_size(f->dt), bytes = (size_t)width * size;

    return f->bk->copy(f->dev, out, bytes, m + (size_t)at * size, (size_t)ld * size, bytes, rows);
}

static int
project_fused(struct fwd *f, const struct fwd_block *b, const void *x, const struct heads *h, int qw, int kw)
{
    int ld = qw + 2 * kw;
    char *all = fwd_scratch(f, FWD_FUSED, cells(b, ld));

    if (all == NULL)
        return RC_OS;
    TRY(fwd_mul(f, &f->linear[ROLE_QKV], all, x, b->rows));
    TRY(take_columns(f, h->q, all, ld, 0, qw, b->rows));
    TRY(take_columns(f, h->k, all, ld, qw, kw, b->rows));
    return take_columns(f, h->v, all, ld, qw + kw, kw, b->rows);
}

static int
norm_heads(struct fwd *f, enum norm_id n, void *x, size_t count)
{
    char name[ARCH_NAME_MAX];
    int width;

    if (!arch_norm(f->arch, f->layer, n, name, &width))
        return RC_OK;
    return f->bk->rmsnorm(f->dev, x, x, f->norm[n], f->dt, (int)(count / (size_t)width), width, f->arch->eps,
        arch_norm_kind(f->arch));
}

/* Queries, keys and values as far as they are normalised. */
static int
project(struct fwd *f, const struct fwd_block *b, const void *x, struct heads *h)
{
    int qw = f->arch->heads * f->arch->head_dim, kw = f->arch->kv_heads * f->arch->head_dim;

    h->q = fwd_scratch(f, FWD_A, cells(b, qw));
    h->k = fwd_scratch(f, FWD_B, cells(b, kw));
    h->v = fwd_scratch(f, FWD_C, cells(b, kw));
    if (h->q == NULL || h->k == NULL || h->v == NULL)
        return RC_OS;
    if (f->linear[ROLE_QKV].w != NULL) {
        TRY(project_fused(f, b, x, h, qw, kw));
    } else {
        TRY(fwd_mul(f, &f->linear[ROLE_Q], h->q, x, b->rows));
        TRY(fwd_mul(f, &f->linear[ROLE_K], h->k, x, b->rows));
        TRY(fwd_mul(f, &f->linear[ROLE_V], h->v, x, b->rows));
    }
    TRY(norm_heads(f, NORM_Q, h->q, cells(b, qw)));
    return norm_heads(f, NORM_K, h->k, cells(b, kw));
}

/* What the runtime caches: keys with their positions, values as projected. */
static int
watch_cache(struct fwd *f, struct fwd_block *b, const void *k, const void *v)
{
    int heads = f->arch->kv_heads, width = heads * f->arch->head_dim;

    mem_free(b->cache);
    if ((b->cache = mem_zalloc(4 * (size_t)heads, sizeof(*b->cache))) == NULL)
        return RC_OS;
    TRY(f->bk->range(f->dev, b->cache, k, f->dt, b->rows, width, heads));
    return f->bk->range(f->dev, b->cache + 2 * heads, v, f->dt, b->rows, width, heads);
}

static int
step_attn(struct fwd *f, struct fwd_block *b)
{
    struct heads h;
    const void *x;

    TRY(fwd_input(f, b, &x));
    TRY(fwd_block_wait(b, cells(b, f->arch->heads * f->arch->head_dim) * dtype_size(f->dt)));
    TRY(project(f, b, x, &h));
    for (int s = 0, row = 0, n; s < b->samples; s += n) {
        for (n = 1; s + n < b->samples && b->tokens[s + n] == b->tokens[s]; n++)
            ;
        TRY(attend(f, b->pending, &h, row, n, b->tokens[s]));
        row += n * b->tokens[s];
    }
    return f->watch_cache ? watch_cache(f, b, h.k, h.v) : RC_OK;
}

int
fwd_gated(struct fwd *f, void *h, const struct fwd_linear *gate, const struct fwd_linear *up, const void *x, int rows,
    int width)
{
    size_t count = (size_t)rows * (size_t)width;
    void *g, *u;

    if (f->bk->gated != NULL && gate->w != NULL && up->w != NULL && !gate->in.on && !up->in.on)
        return f->bk->gated(f->dev, h, x, f->dt, rows, (const struct weight *[]){ gate->w, up->w },
            (const void *[]){ gate->bias, up->bias }, f->arch->act);
    g = fwd_scratch(f, FWD_A, count);
    u = fwd_scratch(f, FWD_B, count);
    if (g == NULL || u == NULL)
        return RC_OS;
    fwd_round_forget(f); /* another expert's rows may lie where the last one's did */
    TRY(fwd_mul(f, gate, g, x, rows));
    TRY(fwd_mul(f, up, u, x, rows));
    return f->bk->act_mul(f->dev, h, g, u, f->dt, count, f->arch->act);
}

/* The same of one product whose rows are gate and then up. */
static int
gated_fused(struct fwd *f, void *h, const void *x, int rows, int width)
{
    size_t count = (size_t)rows * (size_t)width;
    char *g = fwd_scratch(f, FWD_A, count), *u = fwd_scratch(f, FWD_B, count);
    char *both = fwd_scratch(f, FWD_FUSED, 2 * count);

    if (g == NULL || u == NULL || both == NULL)
        return RC_OS;
    TRY(fwd_mul(f, &f->linear[ROLE_GATE_UP], both, x, rows));
    TRY(take_columns(f, g, both, 2 * width, 0, width, rows));
    TRY(take_columns(f, u, both, 2 * width, width, width, rows));
    return f->bk->act_mul(f->dev, h, g, u, f->dt, count, f->arch->act);
}

static int
step_mlp(struct fwd *f, struct fwd_block *b)
{
    int width = f->arch->intermediate;
    const void *x;

    TRY(fwd_input(f, b, &x));
    TRY(fwd_block_wait(b, cells(b, width) * dtype_size(f->dt)));
    if (f->linear[ROLE_GATE_UP].w != NULL)
        return gated_fused(f, b->pending, x, b->rows, width);
    return fwd_gated(f, b->pending, &f->linear[ROLE_GATE], &f->linear[ROLE_UP], x, b->rows, width);
}

int
fwd_add_residual(struct fwd *f, struct fwd_block *b, void *y, enum norm_id norm)
{
    const struct arch *a = f->arch;
    size_t count = cells(b, a->hidden);

    if (f->norm[norm] != NULL)
        TRY(f->bk->rmsnorm(f->dev, y, y, f->norm[norm], f->dt, b->rows, a->hidden, a->eps, arch_norm_kind(a)));
    if (a->residual_scale != 1)
        TRY(f->bk->scale(f->dev, y, f->dt, count, a->residual_scale));
    return f->bk->add(f->dev, b->hidden, y, f->dt, count);
}

/* x += W pending */
static int
step_residual(struct fwd *f, struct fwd_block *b, enum role r)
{
    void *y = fwd_scratch(f, FWD_A, cells(b, f->arch->hidden));

    if (y == NULL)
        return RC_OS;
    TRY(fwd_mul(f, &f->linear[r], y, b->pending, b->rows));
    TRY(fwd_add_residual(f, b, y, r == ROLE_O ? NORM_ATTN_OUT : NORM_MLP_OUT));
    b->pending = NULL;
    return RC_OK;
}

int
fwd_pending(const struct arch *a, int layer, enum point p)
{
    if (p == POINT_O)
        return arch_width(a, layer, p, -1);
    return p == POINT_DOWN && (a->layer[layer] & LAYER_MOE) == 0 ? arch_width(a, layer, p, -1) : 0;
}

int
fwd_pending_most(const struct arch *a)
{
    int most = 0;

    for (int l = 0; l < a->layers; l++)
        for (int p = 0; p < POINT_COUNT; p++)
            if (fwd_pending(a, l, (enum point)p) > most)
                most = fwd_pending(a, l, (enum point)p);
    return most;
}

int
fwd_input(struct fwd *f, const struct fwd_block *b, const void **x)
{
    enum norm_id norm = b->point == POINT_ATTN ? NORM_ATTN_IN : NORM_MLP_IN;
    void *y;

    *x = b->pending;
    if (fwd_pending(f->arch, f->layer, b->point) > 0)
        return b->pending != NULL ? RC_OK : err_set(RC_BUG, "block has no pending input");
    *x = b->hidden;
    if (f->norm[norm] == NULL)
        return RC_OK;
    if ((y = fwd_scratch(f, FWD_NORM, cells(b, f->arch->hidden))) == NULL)
        return RC_OS;
    *x = y;
    return f->bk->rmsnorm(f->dev, y, b->hidden, f->norm[norm], f->dt, b->rows, f->arch->hidden, f->arch->eps,
        arch_norm_kind(f->arch));
}

int
fwd_step(struct fwd *f, struct fwd_block *b)
{
    bool moe = (f->arch->layer[f->layer] & LAYER_MOE) != 0;
    int rc = RC_OK;

    f->stepped = b;
    fwd_round_forget(f);
    switch (b->point) {
    case POINT_ATTN:
        rc = step_attn(f, b);
        break;
    case POINT_O:
        rc = step_residual(f, b, ROLE_O);
        break;
    case POINT_MLP:
        rc = moe ? RC_OK : step_mlp(f, b);
        break;
    case POINT_DOWN:
    case POINT_COUNT:
        rc = moe ? fwd_step_moe(f, b) : step_residual(f, b, ROLE_DOWN);
        break;
    }
    if (rc == RC_OK)
        b->point = (b->point + 1) % POINT_COUNT;
    return rc;
}

int
fwd_final(struct fwd *f, const struct fwd_block *b, const void **h)
{
    char module[ARCH_NAME_MAX], name[ARCH_NAME_MAX + 16];
    void *y = fwd_scratch(f, FWD_NORM, cells(b, f->arch->hidden)), *w = NULL;
    int rc;

    if (y == NULL)
        return RC_OS;
    *h = y;
    arch_final_norm(f->arch, module);
    TRY(tensor_name(name, sizeof(name), module, "weight"));
    if ((rc = load_vector(f, name, f->arch->hidden, &w)) == RC_OK)
        rc = f->bk->rmsnorm(f->dev, y, b->hidden, w, f->dt, b->rows, f->arch->hidden, f->arch->eps,
            arch_norm_kind(f->arch));
    fwd_free(f, w);
    return rc;
}

int
fwd_head(struct fwd *f, struct weight **out)
{
    char module[ARCH_NAME_MAX], name[ARCH_NAME_MAX + 16];
    struct dense d = { 0 };
    int rc;

    arch_head(f->arch, module);
    TRY(tensor_name(name, sizeof(name), module, "weight"));
    TRY(dense_want(f, name, f->arch->vocab, f->arch->hidden, &d));
    rc = f->bk->weight_pack(f->dev, out, d.data, d.dtype, f->dt, f->arch->vocab, f->arch->hidden);
    dense_free(&d);
    return rc;
}

int
fwd_logits(struct fwd *f, float *logits, const void *h, int rows, const struct weight *head)
{
    size_t count = (size_t)rows * (size_t)f->arch->vocab;
    uint16_t *low = f->dt == DT_BF16 ? mem_alloc(count, sizeof(*low)) : NULL;
    float scale = f->arch->logit_scale, cap = f->arch->logit_softcap;
    int rc = f->dt == DT_BF16 && low == NULL ? RC_OS : f->bk->matmul(f->dev, low != NULL ? (void *)low : (void *)logits,
        f->dt, h, f->dt, rows, head, NULL);

    if (rc == RC_OK && low != NULL)
        (void)dtype_to_f32(logits, low, DT_BF16, count);
    for (size_t i = 0; rc == RC_OK && i < count; i++) {
        logits[i] *= scale;
        if (cap != 0)
            logits[i] = cap * tanhf(logits[i] / cap);
    }
    mem_free(low);
    return rc;
}

int
fwd_nll(struct fwd *f, double *nll, const void *h, int rows, const struct weight *head, const int32_t *target)
{
    return f->bk->nll(f->dev, nll, h, f->dt, rows, head, target, f->arch->logit_softcap, f->arch->logit_scale);
}
