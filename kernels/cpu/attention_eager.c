/* attention_eager - causal attention with the roundings of a model that materialises its scores
 *
 * What transformers' eager attention does in bf16, and with it LLM Compressor while it calibrates: scores q k', their
 * product with the scale, and the probabilities after the division are each rounded to bf16. Only for reproducing its
 * numbers; a tile is some queries of one head, in f32 by library products.
 */
#include "cpu.h"

#include "../../libcommon/msg.h"

#include <cblas.h>
#include <math.h>

enum { EAGER_MT = 128 };

struct eager {
    struct dev             *dev;
    const struct attn_args *a;
    uint16_t               *o;
    const uint16_t         *q, *k, *v;
    int                     ldq, ldk, ldv;
    int                     qtiles; /* of a sequence */
};

static float
rounded_score(const struct attn_args *a, float s)
{
    s = bf16_round(bf16_round(s) * a->scale);
    return a->softcap == 0.0f ? s :
        bf16_round(bf16_round(tanhf(bf16_round(s / a->softcap))) * a->softcap);
}

/* Scores of one query into probabilities; it sees keys [first, last). */
static void
probabilities(const struct eager *j, float *s, int first, int last, int keys)
{
    float sum;

    for (int t = 0; t < keys; t++)
        s[t] = t < first || t >= last ? 0.0f : rounded_score(j->a, s[t]);
    sum = cpu_of(j->dev)->ops->softmax(s + first, last - first, 1.0f, 0.0f);
    for (int t = first; t < last; t++)
        s[t] = bf16_round(s[t] / sum);
}

static void
to_f32(const struct eager *j, float *to, const uint16_t *from, int rows, int ld)
{
    int d = j->a->head_dim;

    for (int r = 0; r < rows; r++)
        cpu_of(j->dev)->ops->to_f32(to + (size_t)r * (size_t)d, from + (size_t)r * (size_t)ld, (size_t)d);
}

static void
eager_tile(void *ctx, int tile, int worker)
{
    struct eager *j = ctx;
    const struct attn_args *a = j->a;
    int d = a->head_dim, q0 = tile % j->qtiles * EAGER_MT, head = tile / j->qtiles % a->heads;
    int left = a->tokens - q0, m = left < EAGER_MT ? left : EAGER_MT, keys = q0 + m;
    size_t row = (size_t)(tile / j->qtiles / a->heads) * (size_t)a->tokens, width = (size_t)d;
    size_t kv = (size_t)(head / (a->heads / a->kv_heads)) * width, at = row + (size_t)q0;
    float *q = cpu_of(j->dev)->workers[worker].scratch, *k = q + EAGER_MT * width, *v = k + (size_t)keys * width;
    float *o = v + (size_t)keys * width, *s = o + EAGER_MT * width;

    to_f32(j, q, j->q + at * (size_t)j->ldq + (size_t)head * width, m, j->ldq);
    to_f32(j, k, j->k + row * (size_t)j->ldk + kv, keys, j->ldk);
    to_f32(j, v, j->v + row * (size_t)j->ldv + kv, keys, j->ldv);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, keys, d, 1.0f, q, d, k, d, 0.0f, s, keys);
    for (int i = 0; i < m; i++) {
        int last = q0 + i + 1, first = a->window > 0 && last > a->window ? last - a->window : 0;

        probabilities(j, s + (size_t)i * (size_t)keys, first, last, keys);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, d, keys, 1.0f, s, keys, v, d, 0.0f, o, d);
    for (int i = 0; i < m; i++)
        cpu_of(j->dev)->ops->from_f32(j->o + ((at + (size_t)i) * (size_t)a->heads + (size_t)head) * width,
            o + (size_t)i * width, width);
}

int
cpu_attention_eager(struct dev *dev, void *o, const void *q, int ldq, const void *k, int ldk, const void *v, int ldv,
    int rows, const struct attn_args *a)
{
    struct eager j = { .dev = dev, .a = a, .o = o, .q = q, .k = k, .v = v, .ldq = ldq, .ldk = ldk, .ldv = ldv,
        .qtiles = (a->tokens + EAGER_MT - 1) / EAGER_MT };
    size_t d = (size_t)a->head_dim, keys = (size_t)a->tokens;
    size_t bytes = (2 * EAGER_MT * d + 2 * keys * d + EAGER_MT * keys) * sizeof(float);

    for (int w = 0; w < pool_threads(dev->pool); w++)
        if (cpu_scratch(dev, w, bytes) == NULL)
            return RC_OS;
    pool_run(dev->pool, rows / a->tokens * a->heads * j.qtiles, eager_tile, &j);
    return RC_OK;
}
