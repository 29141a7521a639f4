/* attention - causal attention, blocked so that scores stay in cache
 *
 * A tile is ATT_MT queries of one head of one sequence. Keys and values of the head are packed for the micro-kernel
 * by the tile itself, up to the last key that it sees. bf16: scores = q k' with f32 sums; e^(s - max) in f32, rounded
 * to bf16 for the product with v, which has f32 sums and is divided by the sum of the exponentials as they were
 * before rounding. f32: two library products a tile.
 */
#include "cpu.h"

#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"

#include <cblas.h>
#include <string.h>

enum { ATT_MT = 64 };

struct att_job {
    struct dev             *dev;
    const struct attn_args *a;
    void                   *o;
    const void             *q, *k, *v;
    int                     ldq, ldk, ldv, ldo;
    int                     qtiles; /* of a sequence */
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
        r.lo = (r.q0 - a->window + 1) / 2 * 2; /* even: bf16 keys go in pairs */
    return r;
}

/* Row i of the tile sees keys from first to q0 + i; what it does not see becomes 0. Returns 1 / sum. */
static float
softmax_row(const struct ops *ops, const struct attn_args *a, const struct att_range *r, float *s, int i)
{
    int last = r->q0 + i + 1, first = a->window > 0 && last - a->window > 0 ? last - a->window : 0;

    first = first > r->lo ? first : r->lo;
    memset(s, 0, (size_t)(first - r->lo) * sizeof(*s));
    memset(s + (last - r->lo), 0, (size_t)(r->hi - last) * sizeof(*s));
    return 1.0f / ops->softmax(s + (first - r->lo), last - first, a->scale, a->softcap);
}

static int
panels_of(int n)
{
    return (n + OPS_LANES - 1) / OPS_LANES;
}

/* c[16 ap rows][ldc] = A B, A in ap panels of pairs, B in bp panels; both contracted over pairs. */
static void
dot_all(const struct ops *ops, float *c, int ldc, const uint32_t *a, int ap, const uint32_t *b, int bp, int pairs)
{
    size_t stride = (size_t)pairs * OPS_LANES;

    for (int j = 0; j < bp;) {
        int nv = bp - j == 4 ? 2 : bp - j < OPS_NV_MAX ? bp - j : OPS_NV_MAX;

        for (int i = 0; i < ap * 2; i++)
            ops->dot(c + (size_t)i * OPS_MR * (size_t)ldc + j * OPS_LANES, ldc,
                a + (size_t)(i / 2) * stride + (size_t)(i % 2) * OPS_MR, b + (size_t)j * stride, stride, pairs, nv,
                    false);
        j += nv;
    }
}

static void
tile_bf16(struct att_job *j, const struct att_range *r, const uint16_t *q, const uint16_t *k, const uint16_t *v,
    uint16_t *o, void *scratch)
{
    const struct ops *ops = cpu_of(j->dev)->ops;
    const struct attn_args *a = j->a;
    int d = a->head_dim, dpairs = (d + 1) / 2, keys = r->hi - r->lo, kp = panels_of(keys), qp = panels_of(r->m);
    int kpairs = (keys + 1) / 2, dp = panels_of(d), lds = kp * OPS_LANES, ldo = dp * OPS_LANES;
    uint32_t *pq = scratch, *pk = pq + (size_t)ATT_MT * (size_t)dpairs;
    uint32_t *pv = pk + (size_t)lds * (size_t)dpairs, *pp = pv + (size_t)kpairs * (size_t)ldo;
    float *s = (float *)(pp + (size_t)kpairs * ATT_MT), *out = s + (size_t)ATT_MT * (size_t)lds;
    uint16_t *prob = (uint16_t *)(out + (size_t)ATT_MT * (size_t)ldo);
    float inv[ATT_MT];

    for (int i = 0; i < qp; i++)
        ops->pack_cols(pq + (size_t)i * OPS_LANES * (size_t)dpairs, q + (size_t)i * OPS_LANES * (size_t)j->ldq,
            (size_t)j->ldq, r->m - i * OPS_LANES < OPS_LANES ? r->m - i * OPS_LANES : OPS_LANES, d);
    for (int i = 0; i < kp; i++)
        ops->pack_cols(pk + (size_t)i * OPS_LANES * (size_t)dpairs,
            k + ((size_t)r->lo + (size_t)i * OPS_LANES) * (size_t)j->ldk, (size_t)j->ldk,
            keys - i * OPS_LANES < OPS_LANES ? keys - i * OPS_LANES : OPS_LANES, d);
    dot_all(ops, s, lds, pq, qp, pk, kp, dpairs);
    memset(prob, 0, (size_t)ATT_MT * (size_t)lds * sizeof(*prob));
    for (int i = 0; i < r->m; i++) {
        inv[i] = softmax_row(ops, a, r, s + (size_t)i * (size_t)lds, i);
        ops->from_f32(prob + (size_t)i * (size_t)lds, s + (size_t)i * (size_t)lds, (size_t)keys);
    }
    for (int i = 0; i < qp; i++)
        ops->pack_cols(pp + (size_t)i * OPS_LANES * (size_t)kpairs, prob + (size_t)i * OPS_LANES * (size_t)lds,
            (size_t)lds, OPS_LANES, 2 * kpairs);
    for (int i = 0; i < dp; i++)
        ops->pack_rows(pv + (size_t)i * OPS_LANES * (size_t)kpairs, v + (size_t)r->lo * (size_t)j->ldv + i * OPS_LANES,
            (size_t)j->ldv, keys, d - i * OPS_LANES < OPS_LANES ? d - i * OPS_LANES : OPS_LANES);
    dot_all(ops, out, ldo, pp, qp, pv, dp, kpairs);
    for (int i = 0; i < r->m; i++) {
        for (int e = 0; e < d; e++)
            out[(size_t)i * (size_t)ldo + (size_t)e] *= inv[i];
        ops->from_f32(o + (size_t)i * (size_t)j->ldo, out + (size_t)i * (size_t)ldo, (size_t)d);
    }
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

    if (!bf16)
        return ATT_MT * keys * sizeof(float);
    return 4 * (ATT_MT * d / 2 + keys * d / 2 + keys / 2 * d + keys / 2 * ATT_MT) +
        4 * (ATT_MT * keys + ATT_MT * d) + 2 * ATT_MT * keys;
}

static void
att_tile(void *ctx, int tile, int worker)
{
    struct att_job *j = ctx;
    const struct attn_args *a = j->a;
    int qtile = tile % j->qtiles, head = tile / j->qtiles % a->heads, seq = tile / j->qtiles / a->heads;
    int kvh = head / (a->heads / a->kv_heads);
    struct att_range r = range_of(a, qtile);
    size_t row = (size_t)seq * (size_t)a->tokens, d = (size_t)a->head_dim;
    size_t qo = (row + (size_t)r.q0) * (size_t)j->ldq + (size_t)head * d, ko = row * (size_t)j->ldk + (size_t)kvh * d;
    size_t vo = row * (size_t)j->ldv + (size_t)kvh * d, oo = (row + (size_t)r.q0) * (size_t)j->ldo + (size_t)head * d;
    void *scratch = cpu_of(j->dev)->workers[worker].scratch; /* cpu_attention made it large enough */

    if (j->bf16)
        tile_bf16(j, &r, (const uint16_t *)j->q + qo, (const uint16_t *)j->k + ko, (const uint16_t *)j->v + vo,
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

    if (a->eager && j.bf16)
        return cpu_attention_eager(dev, o, q, ldq, k, ldk, v, ldv, rows, a);
    for (int w = 0; w < pool_threads(dev->pool); w++)
        if (cpu_scratch(dev, w, scratch_bytes(a, j.bf16)) == NULL)
            return RC_OS;
    pool_run(dev->pool, rows / a->tokens * a->heads * j.qtiles, att_tile, &j);
    return RC_OK;
}
