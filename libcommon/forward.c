/* forward - one decoder layer, capture point by capture point, over blocks of samples */
#include "forward.h"

#include "mem.h"
#include "msg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Uses of scratch. */
enum { S_NORM, S_A, S_B, S_C };

static void *
scratch(struct fwd *f, int which, size_t count)
{
    size_t bytes = count * dtype_size(f->dt);

    if (f->scratch_bytes[which] < bytes) {
        mem_free(f->scratch[which]);
        f->scratch[which] = mem_alloc(bytes, 1);
        f->scratch_bytes[which] = f->scratch[which] != NULL ? bytes : 0;
    }
    return f->scratch[which];
}

static size_t
cells(const struct fwd_block *b, int width)
{
    return (size_t)b->rows * (size_t)width;
}

int
fwd_open(struct fwd *f, const struct backend *bk, struct dev *dev, const struct arch *a, enum dtype dt,
    fwd_dense_fn *dense, void *ctx)
{
    *f = (struct fwd){ .bk = bk, .dev = dev, .arch = a, .dt = dt, .dense = dense, .ctx = ctx };
    return RC_OK;
}

void
fwd_close(struct fwd *f)
{
    for (int r = 0; r < ROLE_COUNT; r++)
        fwd_unload(f, (enum role)r);
    for (int i = 0; i < 2; i++)
        mem_free(f->norm[i]);
    for (int i = 0; i < 4; i++)
        mem_free(f->scratch[i]);
    mem_free(f->cos_t);
    mem_free(f->sin_t);
    *f = (struct fwd){ 0 };
}

int
fwd_block_init(const struct fwd *f, struct fwd_block *b, const int *tokens, int samples)
{
    *b = (struct fwd_block){ .samples = samples, .point = POINT_ATTN };
    if ((b->tokens = mem_alloc((size_t)samples, sizeof(*b->tokens))) == NULL)
        return RC_OS;
    for (int i = 0; i < samples; i++) {
        b->tokens[i] = tokens[i];
        b->rows += tokens[i];
    }
    if ((b->hidden = mem_alloc(cells(b, f->arch->hidden), dtype_size(f->dt))) != NULL)
        return RC_OK;
    fwd_block_free(b);
    return RC_OS;
}

void
fwd_block_free(struct fwd_block *b)
{
    mem_free(b->tokens);
    mem_free(b->hidden);
    mem_free(b->pending);
    mem_free(b->cache);
    *b = (struct fwd_block){ 0 };
}

static void
dense_free(struct dense *d)
{
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

    mem_free(*out);
    *out = NULL;
    TRY(dense_want(f, name, n, 1, &d));
    if ((*out = mem_alloc((size_t)n, dtype_size(f->dt))) == NULL)
        rc = RC_OS;
    else
        rc = convert(*out, f->dt, d.data, d.dtype, (size_t)n, name);
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

    for (int i = 0; i < 2; i++) {
        arch_norm(f->arch, layer, i + 1, module);
        TRY(tensor_name(name, sizeof(name), module, "weight"));
        TRY(load_vector(f, name, f->arch->hidden, &f->norm[i]));
    }
    return RC_OK;
}

int
fwd_load(struct fwd *f, int layer, enum role r)
{
    char module[ARCH_NAME_MAX], name[ARCH_NAME_MAX + 16];
    struct dense d = { 0 };
    int rows, cols, rc;

    fwd_unload(f, r);
    arch_module(f->arch, layer, r, module);
    arch_role_shape(f->arch, r, &rows, &cols);
    if (arch_role_bias(f->arch, r)) {
        TRY(tensor_name(name, sizeof(name), module, "bias"));
        TRY(load_vector(f, name, rows, &f->bias[r]));
    }
    TRY(tensor_name(name, sizeof(name), module, "weight"));
    TRY(dense_want(f, name, rows, cols, &d));
    rc = f->bk->weight_pack(f->dev, &f->w[r], d.data, d.dtype, f->dt, rows, cols);
    dense_free(&d);
    return rc;
}

void
fwd_unload(struct fwd *f, enum role r)
{
    if (f->w[r] != NULL)
        f->bk->weight_free(f->dev, f->w[r]);
    mem_free(f->bias[r]);
    f->w[r] = NULL;
    f->bias[r] = NULL;
}

int
fwd_begin(struct fwd *f, struct fwd_block *b, const int32_t *ids)
{
    char name[ARCH_NAME_MAX + 16];
    struct dense d = { 0 };
    size_t width = (size_t)f->arch->hidden;
    int rc = RC_OK;

    TRY(tensor_name(name, sizeof(name), arch_embed(f->arch), "weight"));
    TRY(dense_want(f, name, f->arch->vocab, f->arch->hidden, &d));
    for (int r = 0; r < b->rows && rc == RC_OK; r++) {
        if (ids[r] < 0 || ids[r] >= f->arch->vocab)
            rc = err_set(RC_DATA, "token id %d is outside the vocabulary of %d", (int)ids[r], f->arch->vocab);
        else
            rc = convert((char *)b->hidden + (size_t)r * width * dtype_size(f->dt), f->dt,
                (const char *)d.data + (size_t)ids[r] * width * dtype_size(d.dtype), d.dtype, width, name);
    }
    dense_free(&d);
    b->point = POINT_ATTN;
    return rc;
}

/* Tables depend on the length only where RoPE is dynamic; otherwise a longer table serves shorter samples. */
static int
rope_for(struct fwd *f, int tokens)
{
    bool dynamic = f->arch->rope.type == ROPE_DYNAMIC;
    size_t count = (size_t)tokens * (size_t)f->arch->head_dim / 2;

    if (f->rope_tokens == tokens || (!dynamic && f->rope_tokens > tokens))
        return RC_OK;
    mem_free(f->cos_t);
    mem_free(f->sin_t);
    f->rope_tokens = 0;
    f->cos_t = mem_alloc(count, dtype_size(f->dt));
    f->sin_t = mem_alloc(count, dtype_size(f->dt));
    if (f->cos_t == NULL || f->sin_t == NULL)
        return RC_OS;
    TRY(arch_rope_tables(f->arch, tokens, f->dt, f->cos_t, f->sin_t));
    f->rope_tokens = tokens;
    return RC_OK;
}

/* RoPE and attention of consecutive samples of one length, starting at row. */
static int
attend(struct fwd *f, char *o, char *q, char *k, char *v, int row, int samples, int tokens)
{
    const struct arch *a = f->arch;
    int ldq = a->heads * a->head_dim, ldk = a->kv_heads * a->head_dim, rows = samples * tokens;
    size_t size = dtype_size(f->dt), qo = (size_t)row * (size_t)ldq * size, ko = (size_t)row * (size_t)ldk * size;
    struct attn_args at = { .heads = a->heads, .kv_heads = a->kv_heads, .head_dim = a->head_dim, .tokens = tokens,
        .scale = 1.0f / sqrtf((float)a->head_dim), .window = a->window, .eager = f->eager };

    TRY(rope_for(f, tokens));
    TRY(f->bk->rope(f->dev, q + qo, f->dt, rows, a->heads, a->head_dim, ldq, f->cos_t, f->sin_t, a->head_dim, tokens));
    TRY(f->bk->rope(f->dev, k + ko, f->dt, rows, a->kv_heads, a->head_dim, ldk, f->cos_t, f->sin_t, a->head_dim,
        tokens));
    return f->bk->attention(f->dev, o + qo, q + qo, ldq, k + ko, ldk, v + ko, ldk, f->dt, rows, &at);
}

static int
mul(struct fwd *f, void *y, const void *x, int rows, enum role r)
{
    if (f->w[r] == NULL)
        return err_set(RC_BUG, "weights of role %d are not loaded", (int)r);
    return f->bk->matmul(f->dev, y, f->dt, x, f->dt, rows, f->w[r], f->bias[r]);
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
    const struct arch *a = f->arch;
    const void *x;
    char *q, *k, *v;
    int qw = a->heads * a->head_dim, kw = a->kv_heads * a->head_dim;

    TRY(fwd_input(f, b, &x));
    q = scratch(f, S_A, cells(b, qw));
    k = scratch(f, S_B, cells(b, kw));
    v = scratch(f, S_C, cells(b, kw));
    b->pending = mem_alloc(cells(b, qw), dtype_size(f->dt));
    if (q == NULL || k == NULL || v == NULL || b->pending == NULL)
        return RC_OS;
    TRY(mul(f, q, x, b->rows, ROLE_Q));
    TRY(mul(f, k, x, b->rows, ROLE_K));
    TRY(mul(f, v, x, b->rows, ROLE_V));
    for (int s = 0, row = 0, n; s < b->samples; s += n) {
        for (n = 1; s + n < b->samples && b->tokens[s + n] == b->tokens[s]; n++)
            ;
        TRY(attend(f, b->pending, q, k, v, row, n, b->tokens[s]));
        row += n * b->tokens[s];
    }
    return f->watch_cache ? watch_cache(f, b, k, v) : RC_OK;
}

static int
step_mlp(struct fwd *f, struct fwd_block *b)
{
    size_t count = cells(b, f->arch->intermediate);
    const void *x;
    void *g, *u;

    TRY(fwd_input(f, b, &x));
    g = scratch(f, S_A, count);
    u = scratch(f, S_B, count);
    b->pending = mem_alloc(count, dtype_size(f->dt));
    if (g == NULL || u == NULL || b->pending == NULL)
        return RC_OS;
    TRY(mul(f, g, x, b->rows, ROLE_GATE));
    TRY(mul(f, u, x, b->rows, ROLE_UP));
    return f->bk->act_mul(f->dev, b->pending, g, u, f->dt, count, f->arch->act);
}

/* x += W pending */
static int
step_residual(struct fwd *f, struct fwd_block *b, enum role r)
{
    void *y = scratch(f, S_A, cells(b, f->arch->hidden));

    if (y == NULL)
        return RC_OS;
    TRY(mul(f, y, b->pending, b->rows, r));
    TRY(f->bk->add(f->dev, b->hidden, y, f->dt, cells(b, f->arch->hidden)));
    mem_free(b->pending);
    b->pending = NULL;
    return RC_OK;
}

int
fwd_input(struct fwd *f, const struct fwd_block *b, const void **x)
{
    void *y;

    *x = b->pending;
    if (b->point == POINT_O || b->point == POINT_DOWN)
        return b->pending != NULL ? RC_OK : err_set(RC_BUG, "block has no pending input");
    if ((y = scratch(f, S_NORM, cells(b, f->arch->hidden))) == NULL)
        return RC_OS;
    *x = y;
    return f->bk->rmsnorm(f->dev, y, b->hidden, f->norm[b->point == POINT_MLP], f->dt, b->rows, f->arch->hidden,
        f->arch->eps, false);
}

int
fwd_step(struct fwd *f, struct fwd_block *b)
{
    int rc = RC_OK;

    switch (b->point) {
    case POINT_ATTN:
        rc = step_attn(f, b);
        break;
    case POINT_O:
        rc = step_residual(f, b, ROLE_O);
        break;
    case POINT_MLP:
        rc = step_mlp(f, b);
        break;
    case POINT_DOWN:
    case POINT_COUNT:
        rc = step_residual(f, b, ROLE_DOWN);
        break;
    }
    if (rc == RC_OK)
        b->point = (b->point + 1) % POINT_COUNT;
    return rc;
}

int
fwd_final(struct fwd *f, const struct fwd_block *b, const void **h)
{
    char name[ARCH_NAME_MAX + 16];
    void *y = scratch(f, S_NORM, cells(b, f->arch->hidden)), *w = NULL;
    int rc;

    if (y == NULL)
        return RC_OS;
    *h = y;
    TRY(tensor_name(name, sizeof(name), arch_final_norm(f->arch), "weight"));
    if ((rc = load_vector(f, name, f->arch->hidden, &w)) == RC_OK)
        rc = f->bk->rmsnorm(f->dev, y, b->hidden, w, f->dt, b->rows, f->arch->hidden, f->arch->eps, false);
    mem_free(w);
    return rc;
}

int
fwd_head(struct fwd *f, struct weight **out)
{
    char name[ARCH_NAME_MAX + 16];
    struct dense d = { 0 };
    int rc;

    TRY(tensor_name(name, sizeof(name), arch_head(f->arch), "weight"));
    TRY(dense_want(f, name, f->arch->vocab, f->arch->hidden, &d));
    rc = f->bk->weight_pack(f->dev, out, d.data, d.dtype, f->dt, f->arch->vocab, f->arch->hidden);
    dense_free(&d);
    return rc;
}
