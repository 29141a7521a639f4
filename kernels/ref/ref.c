/* ref - plain loops that define each operation of the forward pass and of the Hessian; ref/gptq.c defines the rest
 *
 * Sums are f64, so that a fast kernel's error can be measured against them.
 */
#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../dev.h"
#include "gptq.h"
#include "memory.h"
#include "round.h"

#include <math.h>
#include <string.h>

static double
get(const void *p, enum dtype dt, size_t i)
{
    return dt == DT_BF16 ? (double)bf16_to_f32(((const uint16_t *)p)[i]) : (double)((const float *)p)[i];
}

static void
put(void *p, enum dtype dt, size_t i, double v)
{
    if (dt == DT_BF16)
        ((uint16_t *)p)[i] = bf16_from_f32((float)v);
    else
        ((float *)p)[i] = (float)v;
}

/* T(v) */
static double
to_t(enum dtype dt, double v)
{
    return dt == DT_BF16 ? (double)bf16_to_f32(bf16_from_f32((float)v)) : (double)(float)v;
}

static int
ref_open(struct dev **out, const struct dev_opts *o)
{
    struct dev *dev = mem_zalloc(1, sizeof(*dev));
    int rc;

    *out = NULL;
    if (dev == NULL)
        return RC_OS;
    if ((rc = pool_open(&dev->pool, o->threads)) != RC_OK)
        mem_free(dev);
    else
        *out = dev;
    return rc;
}

static void
ref_close(struct dev *dev)
{
    if (dev == NULL)
        return;
    pool_close(dev->pool);
    mem_free(dev);
}

static void
ref_weight_free(struct dev *dev, struct weight *w)
{
    (void)dev;
    if (w != NULL)
        mem_free(w->plain);
    mem_free(w);
}

static int
ref_weight_pack(struct dev *dev, struct weight **out, const void *w, enum dtype wdt, enum dtype dt, int n, int k)
{
    size_t count = (size_t)n * (size_t)k;
    struct weight *p = mem_zalloc(1, sizeof(*p));

    *out = NULL;
    if (p == NULL || (p->plain = mem_alloc(count, sizeof(float))) == NULL) {
        ref_weight_free(dev, p);
        return RC_OS;
    }
    p->n = n;
    p->k = k;
    p->dt = dt;
    *out = p;
    if (dtype_to_f32(p->plain, w, wdt, count))
        return RC_OK;
    *out = NULL;
    ref_weight_free(dev, p);
    return err_set(RC_DATA, "weights of type %s cannot be multiplied", dtype_name(wdt));
}

static int
ref_matmul(struct dev *dev, void *y, enum dtype ydt, const void *x, enum dtype dt, int rows, const struct weight *w,
    const void *bias)
{
    const float *m = w->plain;

    (void)dev;
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < w->n; j++) {
            double s = bias != NULL ? get(bias, dt, (size_t)j) : 0;

            for (int i = 0; i < w->k; i++)
                s += get(x, dt, (size_t)r * (size_t)w->k + (size_t)i) * to_t(dt, (double)m[(size_t)j * (size_t)w->k +
                    (size_t)i]);
            put(y, ydt, (size_t)r * (size_t)w->n + (size_t)j, s);
        }
    return RC_OK;
}

static int
ref_rmsnorm(struct dev *dev, void *y, const void *x, const void *w, enum dtype dt, int rows, int n, float eps,
    enum norm norm)
{
    (void)dev;
    for (int r = 0; r < rows; r++) {
        size_t at = (size_t)r * (size_t)n;
        double s = 0, scale;

        for (int i = 0; i < n; i++)
            s += get(x, dt, at + (size_t)i) * get(x, dt, at + (size_t)i);
        scale = 1 / sqrt(s / n + (double)eps);
        for (int i = 0; i < n; i++) {
            double v = get(x, dt, at + (size_t)i) * scale, g = get(w, dt, (size_t)i);

            if (norm == NORM_TWICE)
                v = to_t(dt, v);
            put(y, dt, at + (size_t)i, norm == NORM_UNIT_OFFSET ? v * (1 + g) : v * g);
        }
    }
    return RC_OK;
}

static int
ref_rope(struct dev *dev, void *x, enum dtype dt, int rows, int heads, int head_dim, int ld, const void *cos_t,
    const void *sin_t, int rotary_dim, int tokens)
{
    size_t half = (size_t)rotary_dim / 2;

    (void)dev;
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < heads; h++)
            for (size_t i = 0; i < half; i++) {
                size_t a = (size_t)r * (size_t)ld + (size_t)h * (size_t)head_dim + i, t = (size_t)(r % tokens) * half +
                    i;
                double p = get(x, dt, a), q = get(x, dt, a + half), c = get(cos_t, dt, t), s = get(sin_t, dt, t);

                put(x, dt, a, to_t(dt, p * c) + to_t(dt, -q * s));
                put(x, dt, a + half, to_t(dt, q * c) + to_t(dt, p * s));
            }
    return RC_OK;
}

static double
score_of(enum dtype dt, const struct attn_args *a, double s)
{
    if (a->eager) { /* every operation of its own rounds */
        s = to_t(dt, to_t(dt, s) * (double)a->scale);
        return a->softcap == 0.0f ? s :
            to_t(dt, to_t(dt, tanh(to_t(dt, s / (double)a->softcap))) * (double)a->softcap);
    }
    s *= (double)a->scale;
    return a->softcap == 0.0f ? s : (double)a->softcap * tanh(s / (double)a->softcap);
}

/* One query: o = sum T(e) v / sum e, e = exp(s - max s), as flash attention rounds. s has room for a->tokens scores. */
static void
attend(void *o, size_t oo, const void *q, size_t qo, const void *k, size_t ko, int ldk, const void *v, size_t vo,
    int ldv,
    enum dtype dt, int pos, const struct attn_args *a, double *s)
{
    int first = a->window > 0 && pos - a->window + 1 > 0 ? pos - a->window + 1 : 0;
    double max = -HUGE_VAL, sum = 0;

    for (int t = first; t <= pos; t++) {
        s[t] = 0;
        for (int e = 0; e < a->head_dim; e++)
            s[t] += get(q, dt, qo + (size_t)e) * get(k, dt, ko + (size_t)t * (size_t)ldk + (size_t)e);
        s[t] = score_of(dt, a, s[t]);
        max = s[t] > max ? s[t] : max;
    }
    for (int t = first; t <= pos; t++)
        sum += s[t] = exp(s[t] - max);
    for (int t = first; a->eager && t <= pos; t++)
        s[t] = to_t(dt, s[t] / sum);
    sum = a->eager ? 1 : sum;
    for (int e = 0; e < a->head_dim; e++) {
        double y = 0;

        for (int t = first; t <= pos; t++)
            y += to_t(dt, s[t]) * get(v, dt, vo + (size_t)t * (size_t)ldv + (size_t)e);
        put(o, dt, oo + (size_t)e, y / sum);
    }
}

static int
ref_attention(struct dev *dev, void *o, const void *q, int ldq, const void *k, int ldk, const void *v, int ldv,
    enum dtype dt, int rows, const struct attn_args *a)
{
    double *s = mem_alloc((size_t)a->tokens, sizeof(*s));
    size_t d = (size_t)a->head_dim;

    (void)dev;
    if (s == NULL)
        return RC_OS;
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < a->heads; h++) {
            size_t seq = (size_t)(r / a->tokens * a->tokens), kv = (size_t)(h / (a->heads / a->kv_heads)) * d;

            attend(o, ((size_t)r * (size_t)a->heads + (size_t)h) * d, q, (size_t)r * (size_t)ldq + (size_t)h * d, k,
                seq * (size_t)ldk + kv, ldk, v, seq * (size_t)ldv + kv, ldv, dt, r % a->tokens, a, s);
        }
    mem_free(s);
    return RC_OK;
}

static double
act_of(double x, enum act act)
{
    if (act == ACT_SILU)
        return x / (1 + exp(-x));
    if (act == ACT_GELU_TANH)
        return 0.5 * x * (1 + tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
    return 0.5 * x * (1 + erf(x * 0.70710678118654752));
}

static int
ref_act_mul(struct dev *dev, void *y, const void *g, const void *u, enum dtype dt, size_t count, enum act act)
{
    (void)dev;
    for (size_t i = 0; i < count; i++)
        put(y, dt, i, to_t(dt, act_of(get(g, dt, i), act)) * get(u, dt, i));
    return RC_OK;
}

/* A row at a time. */
static int
ref_gated(struct dev *dev, void *h, const void *x, enum dtype dt, int rows, const struct weight *const w[2],
    const void *const bias[2], enum act act)
{
    size_t size = dtype_size(dt), in = (size_t)w[0]->k * size, out = (size_t)w[0]->n * size;
    char *y = mem_alloc(2, out);
    int rc = y != NULL ? RC_OK : RC_OS;

    for (size_t r = 0; r < (size_t)rows && rc == RC_OK; r++) {
        for (size_t i = 0; i < 2 && rc == RC_OK; i++)
            rc = ref_matmul(dev, y + i * out, dt, (const char *)x + r * in, dt, 1, w[i], bias[i]);
        if (rc == RC_OK)
            rc = ref_act_mul(dev, (char *)h + r * out, y, y + out, dt, (size_t)w[0]->n, act);
    }
    mem_free(y);
    return rc;
}

static int
ref_scale(struct dev *dev, void *x, enum dtype dt, size_t count, float s)
{
    (void)dev;
    for (size_t i = 0; i < count; i++)
        put(x, dt, i, get(x, dt, i) * (double)s);
    return RC_OK;
}

static int
ref_add(struct dev *dev, void *x, const void *y, enum dtype dt, size_t count)
{
    (void)dev;
    for (size_t i = 0; i < count; i++)
        put(x, dt, i, get(x, dt, i) + get(y, dt, i));
    return RC_OK;
}

static int
ref_nll(struct dev *dev, double *nll, const void *h, enum dtype dt, int rows, const struct weight *head,
    const int32_t *target, float softcap, float logit_scale)
{
    double *s = mem_alloc((size_t)head->n, sizeof(*s));
    const float *m = head->plain;

    (void)dev;
    if (s == NULL)
        return RC_OS;
    for (int r = 0; r < rows; r++) {
        double max = -HUGE_VAL, sum = 0;

        nll[r] = 0;
        if (target[r] < 0)
            continue;
        for (int j = 0; j < head->n; j++) {
            s[j] = 0;
            for (int i = 0; i < head->k; i++)
                s[j] += get(h, dt, (size_t)r * (size_t)head->k + (size_t)i) * to_t(dt,
                    (double)m[(size_t)j * (size_t)head->k + (size_t)i]);
            s[j] = to_t(dt, s[j]) * (double)logit_scale;
            if (softcap != 0.0f)
                s[j] = (double)softcap * tanh(s[j] / (double)softcap);
            max = s[j] > max ? s[j] : max;
        }
        for (int j = 0; j < head->n; j++)
            sum += exp(s[j] - max);
        nll[r] = max + log(sum) - s[target[r]];
    }
    mem_free(s);
    return RC_OK;
}

/* Round half to even to a multiple of 2^(a + b). */
static double
to_grid(double v, int a, int b)
{
    return ldexp(rint(ldexp(v, -a - b)), a + b);
}

static int
ref_syrk(struct dev *dev, double *acc, const void *x, enum dtype dt, int rows, int n, const int16_t *e)
{
    (void)dev;
    for (int r0 = 0; r0 < rows; r0 += HESS_CHUNK)
        for (int i = 0; i < n; i++)
            for (int j = 0; j <= i; j++) {
                double s = 0;

                for (int r = r0; r < rows && r < r0 + HESS_CHUNK; r++)
                    s += get(x, dt, (size_t)r * (size_t)n + (size_t)i) * get(x, dt, (size_t)r * (size_t)n + (size_t)j);
                acc[(size_t)i * ((size_t)i + 1) / 2 + (size_t)j] += to_grid(s, e[i], e[j]);
            }
    return RC_OK;
}

static int
ref_cross(struct dev *dev, double *acc, const void *xf, const void *x, enum dtype dt, int rows, int n,
    const int16_t *ef, const int16_t *e)
{
    size_t ld = (size_t)n;

    (void)dev;
    for (int r0 = 0; r0 < rows; r0 += HESS_CHUNK)
        for (size_t i = 0; i < ld; i++)
            for (size_t j = 0; j < ld; j++) {
                double s = 0;

                for (int r = r0; r < rows && r < r0 + HESS_CHUNK; r++)
                    s += get(xf, dt, (size_t)r * ld + i) * get(x, dt, (size_t)r * ld + j);
                acc[i * ld + j] += to_grid(s, ef[i], e[j]);
            }
    return RC_OK;
}

static int
ref_colsq(struct dev *dev, float *diag, const void *x, enum dtype dt, int rows, int n)
{
    (void)dev;
    for (int i = 0; i < n; i++) {
        double s = 0;

        for (int r = 0; r < rows && r < HESS_CHUNK; r++)
            s += get(x, dt, (size_t)r * (size_t)n + (size_t)i) * get(x, dt, (size_t)r * (size_t)n + (size_t)i);
        diag[i] = (float)s;
    }
    return RC_OK;
}

static int
ref_distance(struct dev *dev, double *sums, const void *x, const void *xf, enum dtype dt, size_t count)
{
    (void)dev;
    sums[0] = sums[1] = 0;
    for (size_t i = 0; i < count; i++) {
        double f = get(xf, dt, i), d = f - get(x, dt, i);

        sums[0] += d * d;
        sums[1] += f * f;
    }
    return RC_OK;
}

static int
ref_scales(struct dev *dev, const struct qspec *spec, const struct scale_opts *o, const float *w, int rows, int cols,
    float global_scale, float *scale, int8_t *zero)
{
    (void)dev;
    scale_rows(spec, o, w, rows, cols, global_scale, scale, zero);
    return RC_OK;
}

const struct backend backend_ref = {
    .name = "ref", .host = true, .open = ref_open, .close = ref_close,
    .alloc = ref_alloc, .release = ref_release, .holds = ref_holds, .copy = ref_copy, .zero = ref_zero,
    .share_make = ref_share_make, .share_open = ref_share_open, .share_put = ref_share_put, .share_get = ref_share_get,
    .share_close = ref_share_close,
    .gather = ref_gather, .add_rows = ref_add_rows,
    .weight_pack = ref_weight_pack, .weight_free = ref_weight_free, .weight_fits = ref_weight_fits,
    .matmul = ref_matmul,
    .rmsnorm = ref_rmsnorm, .rope = ref_rope, .attention = ref_attention, .act_mul = ref_act_mul, .gated = ref_gated,
    .scale = ref_scale, .add = ref_add, .nll = ref_nll, .round_act = ref_round_act, .range = ref_range,
    .syrk = ref_syrk, .cross = ref_cross, .colsq = ref_colsq, .distance = ref_distance, .scales = ref_scales,
    .factor = ref_factor, .gptq = ref_gptq, .correction = ref_correction, .correct = ref_correct,
};
