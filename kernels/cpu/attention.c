/* attention - causal attention, blocked so that scores stay in cache
 *
 * bf16: keys and values of each head of each sequence are packed once for the micro-kernel. A tile is ATT_MT queries of
 * one head of one sequence. Scores are k q', a column for each query, so that softmax runs down columns and no lane
 * meets another, and the exponentials, rounded to bf16, are at once the packed operand of the product with v; both have
 * f32 sums. The result is divided by the sum of the exponentials as they were before rounding. What no query of 16
 * sees is not computed. With eager, scores and the exponentials divided by their sum are rounded instead, as by a model
 * that materialises them (transformers' eager attention, and with it LLM Compressor while it calibrates).
 *
 * f32: two library products a tile.
 */
#include "cpu.h"

#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"

#include <cblas.h>
#include <string.h>

enum { ATT_NV = OPS_NV_MAX, ATT_MT = ATT_NV * OPS_LANES };

struct att_job {
    struct dev             *dev;
    const struct attn_args *a;
    void                   *o;
    const void             *q, *k, *v;
    int                     ldq, ldk, ldv, ldo;
    int                     qtiles;   /* of a sequence */
    uint32_t               *pk;       /* [sequences][kv heads] of keys [panels][pairs of columns][16] */
    uint32_t               *pv;       /* [sequences][kv heads] of values [panels of columns][pairs of keys][16] */
    bool                    bf16;
};

/* Keys [lo, hi) are all that queries [q0, q0 + m) can see. */
struct att_range {
    int q0, m, lo, hi;
};

static struct att_range
range_of(const struct attn_args *a, int qtile)
{
    struct att_range r = { .q0 = qtile * ATT_MT };

    r.m = a->tokens - r.q0 < ATT_MT ? a->tokens - r.q0 : ATT_MT;
    r.hi = r.q0 + r.m;
    if (a->window > 0 && r.q0 - a->window + 1 > 0)
        r.lo = (r.q0 - a->window + 1) / OPS_LANES * OPS_LANES; /* bf16 keys are packed in panels */
    return r;
}

/* First key that query i of the tile sees; the last is q0 + i. */
static int
first_key(const struct attn_args *a, const struct att_range *r, int i)
{
    int first = a->window > 0 ? r->q0 + i + 1 - a->window : 0;

    return first > r->lo ? first : r->lo;
}

/* What row i of the tile does not see becomes 0. Returns 1 / sum. */
static float
softmax_row(const struct ops *ops, const struct attn_args *a, const struct att_range *r, float *s, int i)
{
    int last = r->q0 + i + 1, first = first_key(a, r, i);

    memset(s, 0, (size_t)(first - r->lo) * sizeof(*s));
    memset(s + (last - r->lo), 0, (size_t)(r->hi - last) * sizeof(*s));
    return 1.0f / ops->softmax(s + (first - r->lo), last - first, a->scale, a->softcap);
}

static int
panels_of(int n)
{
    return (n + OPS_LANES - 1) / OPS_LANES;
}

static int
pairs_of(int n)
{
    return (n + 1) / 2;
}

/* u32 of the packed keys of a head: whole panels; of its values. */
static size_t
keys_size(const struct attn_args *a)
{
    return (size_t)panels_of(a->tokens) * OPS_LANES * (size_t)pairs_of(a->head_dim);
}

static size_t
values_size(const struct attn_args *a)
{
    return (size_t)panels_of(a->head_dim) * OPS_LANES * (size_t)pairs_of(a->tokens);
}

static int
lanes_left(int n, int panel)
{
    return n - panel * OPS_LANES < OPS_LANES ? n - panel * OPS_LANES : OPS_LANES;
}

static void
pack_head(void *ctx, int i, int worker)
{
    const struct att_job *j = ctx;
    const struct attn_args *a = j->a;
    const struct ops *ops = cpu_of(j->dev)->ops;
    int d = a->head_dim;
    size_t row = (size_t)(i / a->kv_heads) * (size_t)a->tokens, col = (size_t)(i % a->kv_heads) * (size_t)d;
    const uint16_t *k = (const uint16_t *)j->k + row * (size_t)j->ldk + col;
    const uint16_t *v = (const uint16_t *)j->v + row * (size_t)j->ldv + col;
    uint32_t *pk = j->pk + (size_t)i * keys_size(a), *pv = j->pv + (size_t)i * values_size(a);

    (void)worker;
    for (int p = 0; p < panels_of(a->tokens); p++)
        ops->pack_cols(pk + (size_t)p * OPS_LANES * (size_t)pairs_of(d), k + (size_t)p * OPS_LANES * (size_t)j->ldk,
            (size_t)j->ldk, lanes_left(a->tokens, p), d);
    ops->pack_rows(pv, (size_t)OPS_LANES * (size_t)pairs_of(a->tokens), v, (size_t)j->ldv, a->tokens, d);
}

/* s[keys][ATT_MT] = k q' for the keys and panels of queries that see each other, whole groups of OPS_MR keys. */
static void
scores(const struct ops *ops, const struct att_range *r, float *s, const uint32_t *pk, const uint32_t *pq, int qp,
    int dpairs)
{
    size_t stride = (size_t)dpairs * OPS_LANES;

    for (int key = r->lo; key < r->hi; key += OPS_MR) {
        int first = key > r->q0 ? (key - r->q0) / OPS_LANES : 0; /* the first panel whose last query sees the key */

        ops->dot(s + (size_t)(key - r->lo) * ATT_MT + first * OPS_LANES, ATT_MT,
            pk + (size_t)(key / OPS_LANES) * stride + (size_t)(key % OPS_LANES), pq + (size_t)first * stride, stride,
            dpairs, qp - first, false);
    }
}

/* out[queries][ldo] = p v, each panel of queries up to the last key that it sees. */
static void
values(const struct ops *ops, const struct att_range *r, float *out, int ldo, const uint32_t *pp, size_t pstride,
    int qp, const uint32_t *pv, int tokens, int d)
{
    size_t stride = (size_t)pairs_of(tokens) * OPS_LANES;
    int dp = panels_of(d);

    for (int j = 0, nv; j < dp; j += nv) {
        nv = dp - j == 4 ? 2 : dp - j < OPS_NV_MAX ? dp - j : OPS_NV_MAX;
        for (int i = 0; i < 2 * qp; i++) {
            int end = r->q0 + (i / 2 + 1) * OPS_LANES;

            ops->dot(out + (size_t)i * OPS_MR * (size_t)ldo + j * OPS_LANES, ldo,
                pp + (size_t)(i / 2) * pstride + (size_t)(i % 2) * OPS_MR,
                pv + (size_t)j * stride + (size_t)(r->lo / 2) * OPS_LANES, stride,
                pairs_of((end < r->hi ? end : r->hi) - r->lo), nv, false);
        }
    }
}

static void
tile_bf16(struct att_job *j, const struct att_range *r, const uint16_t *q, const uint32_t *pk, const uint32_t *pv,
    uint16_t *o, void *scratch)
{
    const struct ops *ops = cpu_of(j->dev)->ops;
    const struct attn_args *a = j->a;
    int d = a->head_dim, keys = r->hi - r->lo, qp = panels_of(r->m), ldo = panels_of(d) * OPS_LANES;
    size_t qstride = (size_t)pairs_of(d) * OPS_LANES, pstride = (size_t)pairs_of(keys) * OPS_LANES;
    float *s = scratch, *out = s + (size_t)panels_of(keys) * OPS_LANES * ATT_MT, sum[ATT_MT];
    uint32_t *pq = (uint32_t *)(out + (size_t)ATT_MT * (size_t)ldo), *pp = pq + ATT_NV * qstride;
    int32_t first[ATT_MT], end[ATT_MT];

    for (int i = 0; i < qp; i++)
        ops->pack_cols(pq + (size_t)i * qstride, q + (size_t)i * OPS_LANES * (size_t)j->ldq, (size_t)j->ldq,
            lanes_left(r->m, i), d);
    for (int i = 0; i < qp * OPS_LANES; i++) {
        int row = i < r->m ? i : r->m - 1; /* lanes without a query see what the last one sees */

        first[i] = first_key(a, r, row) - r->lo;
        end[i] = r->q0 + row + 1 - r->lo;
    }
    scores(ops, r, s, pk, pq, qp, pairs_of(d));
    if (a->eager)
        ops->eager_cols(pp, pstride, s, ATT_MT, keys, qp, a->scale, a->softcap, first, end);
    else
        ops->softmax_cols(pp, pstride, s, ATT_MT, keys, qp, a->scale, a->softcap, first, end, sum);
    values(ops, r, out, ldo, pp, pstride, qp, pv, a->tokens, d);
    for (int i = 0; i < r->m; i++)
        ops->scaled(o + (size_t)i * (size_t)j->ldo, out + (size_t)i * (size_t)ldo, a->eager ? 1.0f : 1.0f / sum[i],
            (size_t)d);
}

static void
tile_f32(struct att_job *j, const struct att_range *r, const float *q, const float *k, const float *v, float *o,
    void *scratch)
{
    int d = j->a->head_dim, keys = r->hi - r->lo;
    float *s = scratch, inv[ATT_MT];

    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, r->m, keys, d, 1.0f, q, j->ldq, k +
        (size_t)r->lo * (size_t)j->ldk,
        j->ldk, 0.0f, s, keys);
    for (int i = 0; i < r->m; i++)
        inv[i] = softmax_row(cpu_of(j->dev)->ops, j->a, r, s + (size_t)i * (size_t)keys, i);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, r->m, d, keys, 1.0f, s, keys,
        v + (size_t)r->lo * (size_t)j->ldv, j->ldv, 0.0f, o, j->ldo);
    for (int i = 0; i < r->m; i++)
        for (int e = 0; e < d; e++)
            o[(size_t)i * (size_t)j->ldo + (size_t)e] *= inv[i];
}

static size_t
scratch_bytes(const struct attn_args *a, bool bf16)
{
    size_t keys = (size_t)panels_of(a->tokens) * OPS_LANES, d = (size_t)panels_of(a->head_dim) * OPS_LANES;

    return bf16 ? 4 * ATT_MT * (keys + d + d / 2 + keys / 2) : 4 * ATT_MT * keys;
}

static void
att_tile(void *ctx, int tile, int worker)
{
    struct att_job *j = ctx;
    const struct attn_args *a = j->a;
    int qtile = j->qtiles - 1 - tile % j->qtiles; /* long ones first */
    int head = tile / j->qtiles % a->heads, seq = tile / j->qtiles / a->heads, kvh = head / (a->heads / a->kv_heads);
    struct att_range r = range_of(a, qtile);
    size_t row = (size_t)seq * (size_t)a->tokens, d = (size_t)a->head_dim, kv = (size_t)seq * (size_t)a->kv_heads +
        (size_t)kvh;
    size_t qo = (row + (size_t)r.q0) * (size_t)j->ldq + (size_t)head * d, ko = row * (size_t)j->ldk + (size_t)kvh * d;
    size_t vo = row * (size_t)j->ldv + (size_t)kvh * d, oo = (row + (size_t)r.q0) * (size_t)j->ldo + (size_t)head * d;
    void *scratch = cpu_of(j->dev)->workers[worker].scratch; /* cpu_attention made it large enough */

    if (j->bf16)
        tile_bf16(j, &r, (const uint16_t *)j->q + qo, j->pk + kv * keys_size(a), j->pv + kv * values_size(a),
            (uint16_t *)j->o + oo, scratch);
    else
        tile_f32(j, &r, (const float *)j->q + qo, (const float *)j->k + ko, (const float *)j->v + vo,
            (float *)j->o + oo, scratch);
}

int
cpu_attention(struct dev *dev, void *o, const void *q, int ldq, const void *k, int ldk, const void *v, int ldv,
    enum dtype dt, int rows, const struct attn_args *a)
{
    struct att_job j = { .dev = dev, .a = a, .o = o, .q = q, .k = k, .v = v, .ldq = ldq, .ldk = ldk, .ldv = ldv,
        .ldo = a->heads * a->head_dim, .qtiles = (a->tokens + ATT_MT - 1) / ATT_MT, .bf16 = dt == DT_BF16 };
    int heads = rows / a->tokens * a->kv_heads;

    for (int w = 0; w < pool_threads(dev->pool); w++)
        if (cpu_scratch(dev, w, scratch_bytes(a, j.bf16)) == NULL)
            return RC_OS;
    if (j.bf16) {
        if ((j.pk = mem_alloc((size_t)heads * (keys_size(a) + values_size(a)), sizeof(*j.pk))) == NULL)
            return RC_OS;
        j.pv = j.pk + (size_t)heads * keys_size(a);
        pool_run(dev->pool, heads, pack_head, &j);
    }
    pool_run(dev->pool, rows / a->tokens * a->heads * j.qtiles, att_tile, &j);
    mem_free(j.pk);
    return RC_OK;
}
