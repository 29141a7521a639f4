/* weights - a compressed module's tensors, to and from dense rows */
#include "weights.h"

#include "mem.h"
#include "msg.h"

#include <stdio.h>
#include <string.h>

enum { ROWS_A_TILE = 64 };

/* --- packing --- */

void *
weights_add(struct packed_tensors *p, const char *module, const char *suffix, enum dtype dt, int64_t rows, int64_t cols)
{
    size_t i = p->count, bytes = (size_t)rows * (size_t)(cols > 0 ? cols : 1) * dtype_size(dt);

    if ((p->own[i] = mem_zalloc(bytes, 1)) == NULL)
        return NULL;
    (void)snprintf(p->names[i], sizeof(p->names[i]), "%s.%s", module, suffix);
    p->t[i] = cols > 0 ? tensor_2d(p->names[i], dt, rows, cols, p->own[i]) :
        tensor_1d(p->names[i], dt, rows, p->own[i]);
    p->count++;
    return p->own[i];
}

void
weights_pack_free(struct packed_tensors *p)
{
    for (size_t i = 0; i < WEIGHTS_TENSORS_MAX; i++)
        mem_free(p->own[i]);
    *p = (struct packed_tensors){ 0 };
}

static int
pack_codes(struct packed_tensors *p, const char *module, const struct rounded *r)
{
    enum pack layout = scheme_pack(r->scheme);
    int bits = r->scheme->weights.bits;
    size_t row = pack_row_bytes(layout, bits, r->cols);
    void *out;

    if (layout == PACK_WORDS)
        out = weights_add(p, module, "weight_packed", DT_I32, r->rows, (int64_t)(row / 4));
    else if (layout == PACK_NIBBLES)
        out = weights_add(p, module, "weight_packed", DT_U8, r->rows, (int64_t)row);
    else
        out = weights_add(p, module, "weight", r->scheme->weights.type == QTYPE_INT ? DT_I8 : DT_F8_E4M3, r->rows,
            r->cols);
    if (out == NULL)
        return RC_OS;
    pack_rows(layout, bits, r->codes, r->rows, r->cols, out);
    return RC_OK;
}

static int
pack_scales(struct packed_tensors *p, const char *module, const struct rounded *r, const struct qspec *q)
{
    int rows = q_scale_rows(q, r->rows), cols = q_scale_cols(q, r->cols);
    size_t count = (size_t)rows * (size_t)cols;
    enum dtype dt = q->scale == DT_F8_E8M0 ? DT_U8 : q->scale;
    uint8_t *out = weights_add(p, module, "weight_scale", dt, rows, q->strategy == STRATEGY_TENSOR ? 0 : cols);

    if (out == NULL)
        return RC_OS;
    if (q->scale == DT_F8_E4M3)
        for (size_t i = 0; i < count; i++)
            out[i] = e4m3_from_f32(r->scale[i]);
    else if (q->scale == DT_F8_E8M0)
        for (size_t i = 0; i < count; i++)
            out[i] = e8m0_from_f32(r->scale[i]);
    else
        (void)dtype_from_f32(out, r->scale, q->scale, count);
    return RC_OK;
}

static int
pack_zero_points(struct packed_tensors *p, const char *module, const struct rounded *r, const struct qspec *q)
{
    int rows = q_scale_rows(q, r->rows), cols = q_scale_cols(q, r->cols);
    void *out;

    if (scheme_zeros_packed(r->scheme)) {
        out = weights_add(p, module, "weight_zero_point", DT_I32, (int64_t)pack_zero_words(q->bits, rows), cols);
        if (out == NULL)
            return RC_OS;
        pack_zeros(q->bits, r->zero, rows, cols, out);
    } else {
        out = weights_add(p, module, "weight_zero_point", DT_I8, rows, q->strategy == STRATEGY_TENSOR ? 0 : cols);
        if (out == NULL)
            return RC_OS;
        memcpy(out, r->zero, (size_t)rows * (size_t)cols);
    }
    return RC_OK;
}

int
weights_pack(struct packed_tensors *out, const char *module, const struct rounded *r)
{
    struct qspec q;
    int64_t *shape;
    int32_t *index;
    float *global;

    *out = (struct packed_tensors){ 0 };
    scheme_qspec(r->scheme, r->t, false, &q);
    TRY(pack_codes(out, module, r));
    TRY(pack_scales(out, module, r, &q));
    if (!q.symmetric)
        TRY(pack_zero_points(out, module, r, &q));
    if (r->scheme->format == QFORMAT_PACK) {
        if ((shape = weights_add(out, module, "weight_shape", DT_I64, 2, 0)) == NULL)
            return RC_OS;
        shape[0] = r->rows;
        shape[1] = r->cols;
    }
    if (r->scale_col != NULL) {
        if ((index = weights_add(out, module, "weight_g_idx", DT_I32, r->cols, 0)) == NULL)
            return RC_OS;
        for (int i = 0; i < r->cols; i++)
            index[i] = r->scale_col[i];
    }
    if (scheme_global(r->scheme)) {
        if ((global = weights_add(out, module, "weight_global_scale", DT_F32, 1, 0)) == NULL)
            return RC_OS;
        global[0] = r->global_scale;
    }
    return RC_OK;
}

/* --- unpacking --- */

struct unpack {
    const struct qspec  *q;
    struct scales        scales;
    enum pack            layout;
    const struct tensor *codes;
    int                  rows, cols;
    int                 *order; /* columns, group after group, where they do not lie so; NULL: they do */
    enum dtype           t;
    void                *out;
    int                  rc;
};

static int
find(const char *module, const char *suffix, weights_find_fn *fn, void *ctx, enum dtype dt, int64_t rows, int64_t cols,
    const struct tensor **out)
{
    char name[WEIGHTS_NAME_MAX];
    int64_t shape[2] = { rows, cols };

    (void)snprintf(name, sizeof(name), "%s.%s", module, suffix);
    if ((*out = fn(ctx, name)) == NULL)
        return err_set(RC_DATA, "no tensor %s", name);
    return tensor_want(*out, dt, (*out)->ndim == 1 ? 1 : 2, shape);
}

/* Rows of codes to rows of values; where columns have an order, both are moved there and back. */
static void
decode(const struct unpack *u, uint8_t *codes, float *w, int row0, int rows, uint8_t *moved)
{
    int cols = u->cols;

    if (u->order == NULL) {
        dequant_rows(u->q, &u->scales, codes, row0, rows, cols, w);
        return;
    }
    for (int r = 0; r < rows; r++) {
        uint8_t *c = codes + (size_t)r * (size_t)cols;
        float *to = w + (size_t)r * (size_t)cols, *from = (float *)(void *)moved;

        for (int i = 0; i < cols; i++)
            moved[i] = c[u->order[i]];
        dequant_rows(u->q, &u->scales, moved, row0 + r, 1, cols, to);
        memcpy(from, to, (size_t)cols * sizeof(*to));
        for (int i = 0; i < cols; i++)
            to[u->order[i]] = from[i];
    }
}

static void
unpack_tile(void *ctx, int tile, int worker)
{
    struct unpack *u = ctx;
    int row0 = tile * ROWS_A_TILE, rows = u->rows - row0 < ROWS_A_TILE ? u->rows - row0 : ROWS_A_TILE;
    size_t n = (size_t)rows * (size_t)u->cols, at = (size_t)row0 * (size_t)u->cols;
    uint8_t *codes = mem_alloc(n, 1), *moved = mem_alloc((size_t)u->cols, sizeof(float));
    float *w = mem_alloc(n, sizeof(*w));

    (void)worker;
    if (codes == NULL || w == NULL || moved == NULL) {
        __atomic_store_n(&u->rc, RC_OS, __ATOMIC_RELAXED);
    } else {
        unpack_rows(u->layout, u->q->bits,
            (const char *)u->codes->data + (size_t)row0 * pack_row_bytes(u->layout, u->q->bits, u->cols), rows, u->cols,
            codes);
        decode(u, codes, w, row0, rows, moved);
        (void)dtype_from_f32((char *)u->out + at * dtype_size(u->t), w, u->t, n);
    }
    mem_free(codes);
    mem_free(moved);
    mem_free(w);
}

/* The codes tensor and the matrix's shape. */
static int
find_codes(struct unpack *u, const char *module, const struct scheme *s, weights_find_fn *fn, void *ctx)
{
    const struct tensor *shape;
    int64_t dims[2];

    u->layout = scheme_pack(s);
    if (u->layout == PACK_BYTES) {
        TRY(find(module, "weight", fn, ctx, s->weights.type == QTYPE_INT ? DT_I8 : DT_F8_E4M3, -1, -1, &u->codes));
        u->rows = (int)u->codes->shape[0];
        u->cols = (int)u->codes->shape[1];
        return RC_OK;
    }
    TRY(find(module, "weight_packed", fn, ctx, u->layout == PACK_WORDS ? DT_I32 : DT_U8, -1, -1, &u->codes));
    u->rows = (int)u->codes->shape[0];
    u->cols = (int)u->codes->shape[1] * 2;
    if (u->layout == PACK_NIBBLES)
        return RC_OK;
    TRY(find(module, "weight_shape", fn, ctx, DT_I64, 2, 0, &shape));
    memcpy(dims, shape->data, sizeof(dims));
    if (dims[0] != u->rows || dims[1] < 1 || dims[1] > INT32_MAX / 32 ||
        pack_row_bytes(PACK_WORDS, s->weights.bits, (int)dims[1]) != (size_t)u->codes->shape[1] * 4)
        return err_set(RC_DATA, "%s.weight_shape is {%lld, %lld}, its codes have %lld rows of %lld words", module,
            (long long)dims[0], (long long)dims[1], (long long)u->codes->shape[0], (long long)u->codes->shape[1]);
    u->cols = (int)dims[1];
    return RC_OK;
}

int
weights_shape(const char *module, const struct scheme *s, weights_find_fn *fn, void *ctx, int *rows, int *cols)
{
    struct unpack u = { 0 };

    TRY(find_codes(&u, module, s, fn, ctx));
    *rows = u.rows;
    *cols = u.cols;
    return RC_OK;
}

static int
find_scales(struct unpack *u, const char *module, const struct scheme *s, weights_find_fn *fn, void *ctx, float **scale)
{
    int rows = q_scale_rows(u->q, u->rows), cols = q_scale_cols(u->q, u->cols);
    size_t count = (size_t)rows * (size_t)cols;
    const struct tensor *t, *g;

    TRY(find(module, "weight_scale", fn, ctx, u->q->scale == DT_F8_E8M0 ? DT_U8 : u->q->scale, rows, cols, &t));
    if ((*scale = mem_alloc(count, sizeof(**scale))) == NULL)
        return RC_OS;
    if (u->q->scale == DT_F8_E8M0)
        for (size_t i = 0; i < count; i++)
            (*scale)[i] = e8m0_to_f32(((const uint8_t *)t->data)[i]);
    else
        (void)dtype_to_f32(*scale, t->data, u->q->scale, count);
    u->scales.scale = *scale;
    u->scales.global_scale = 1;
    if (scheme_global(s)) {
        TRY(find(module, "weight_global_scale", fn, ctx, DT_F32, 1, 0, &g));
        memcpy(&u->scales.global_scale, g->data, sizeof(float));
    }
    return RC_OK;
}

static int
find_zeros(struct unpack *u, const char *module, const struct scheme *s, weights_find_fn *fn, void *ctx, int8_t **zero)
{
    int rows = q_scale_rows(u->q, u->rows), cols = q_scale_cols(u->q, u->cols);
    const struct tensor *t;

    if (u->q->symmetric)
        return RC_OK;
    if ((*zero = mem_alloc((size_t)rows * (size_t)cols, 1)) == NULL)
        return RC_OS;
    if (scheme_zeros_packed(s)) {
        TRY(find(module, "weight_zero_point", fn, ctx, DT_I32, (int64_t)pack_zero_words(u->q->bits, rows), cols, &t));
        unpack_zeros(u->q->bits, t->data, rows, cols, *zero);
    } else {
        TRY(find(module, "weight_zero_point", fn, ctx, DT_I8, rows, cols, &t));
        memcpy(*zero, t->data, t->bytes);
    }
    u->scales.zero = *zero;
    return RC_OK;
}

/* weight_g_idx, of checkpoints with actorder group: the group of each column. A group's columns keep their order. */
static int
find_order(struct unpack *u, const char *module, weights_find_fn *fn, void *ctx)
{
    char name[WEIGHTS_NAME_MAX];
    const struct tensor *t;
    int n = 0, in_group;

    (void)snprintf(name, sizeof(name), "%s.weight_g_idx", module);
    if (u->q->strategy != STRATEGY_GROUP || fn(ctx, name) == NULL)
        return RC_OK;
    TRY(find(module, "weight_g_idx", fn, ctx, DT_I32, u->cols, 0, &t));
    if ((u->order = mem_alloc((size_t)u->cols, sizeof(*u->order))) == NULL)
        return RC_OS;
    for (int g = 0; g < q_scale_cols(u->q, u->cols); g++) {
        in_group = 0;
        for (int i = 0; i < u->cols; i++) {
            int32_t of;

            memcpy(&of, (const char *)t->data + 4 * (size_t)i, 4);
            if (of == g && in_group++ < u->q->group)
                u->order[n++] = i;
        }
        if (in_group > u->q->group || (in_group < u->q->group && n < u->cols))
            return err_set(RC_DATA, "%s: group %d has %d columns, want %d", name, g, in_group, u->q->group);
    }
    return n == u->cols ? RC_OK : err_set(RC_DATA, "%s: %d of %d columns have a group", name, n, u->cols);
}

int
weights_dense(struct dense *out, const char *module, const struct scheme *s, enum dtype t, weights_find_fn *fn,
    void *ctx,
    struct pool *pool)
{
    struct qspec q;
    struct unpack u = { .q = &q, .t = t };
    float *scale = NULL;
    int8_t *zero = NULL;
    int rc, tiles;

    *out = (struct dense){ 0 };
    scheme_qspec(s, t, false, &q);
    if ((rc = find_codes(&u, module, s, fn, ctx)) != RC_OK ||
        (rc = find_scales(&u, module, s, fn, ctx, &scale)) != RC_OK ||
        (rc = find_zeros(&u, module, s, fn, ctx, &zero)) != RC_OK || (rc = find_order(&u, module, fn, ctx)) != RC_OK)
        goto out;
    if ((u.out = mem_alloc((size_t)u.rows * (size_t)u.cols, dtype_size(t))) == NULL) {
        rc = RC_OS;
        goto out;
    }
    tiles = (u.rows + ROWS_A_TILE - 1) / ROWS_A_TILE;
    pool_run(pool, tiles, unpack_tile, &u);
    rc = u.rc;
    *out = (struct dense){ .dtype = t, .rows = u.rows, .cols = u.cols, .data = u.out, .own = u.out };
    if (rc != RC_OK) {
        mem_free(u.out);
        *out = (struct dense){ 0 };
    }
out:
    mem_free(u.order);
    mem_free(scale);
    mem_free(zero);
    return rc;
}
