/* ops_impl - included by ops_*.c, which choose the instruction set by their compiler flags and define
 *
 *     OPS_TABLE, OPS_NAME    the table's symbol and name
 *     ops_dot, ops_pack_rows, ops_pack_cols, ops_grid_add, ops_scaled, softmax_panel, eager_panel, silu_mul_bf
 *                            by ops_plain.h, or ops_vectors.h and ops_products.h
 *
 * Plain C that compilers vectorise over the fixed lanes.
 */
#include "../special.h"
#include "ops_math.h"

#include <math.h>
#include <string.h>

static inline float
lanes_max(const float *v)
{
    float m = v[0];

    for (int i = 1; i < OPS_LANES; i++)
        m = v[i] > m ? v[i] : m;
    return m;
}

static void
ops_to_f32(float *y, const uint16_t *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = bf16_to_f32(x[i]);
}

static void
ops_from_f32(uint16_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = bf16_from_f32(x[i]);
}

/* --- RMSNorm --- */

static void
rmsnorm_f(float *y, const float *x, const float *w, int n, float eps, enum norm norm)
{
    float lanes[OPS_LANES] = { 0 }, r;
    int i = 0;

    for (; i + OPS_LANES <= n; i += OPS_LANES)
        for (int l = 0; l < OPS_LANES; l++)
            lanes[l] += x[i + l] * x[i + l];
    for (int l = 0; i + l < n; l++)
        lanes[l] += x[i + l] * x[i + l];
    r = norm_scale(lanes, n, eps);
    for (i = 0; i < n; i++)
        y[i] = x[i] * r * (norm == NORM_UNIT_OFFSET ? 1.0f + w[i] : w[i]);
}

static void
ops_rmsnorm(void *y, const void *x, const void *w, enum dtype dt, int n, float eps, enum norm norm)
{
    if (dt == DT_BF16)
        rmsnorm_bf(y, x, w, n, eps, norm);
    else
        rmsnorm_f(y, x, w, n, eps, norm);
}

/* --- RoPE: (a, b) -> (a cos - b sin, b cos + a sin), each product rounded to T first --- */

static void
ops_rope(void *x, enum dtype dt, int half, const void *cos_t, const void *sin_t)
{
    if (dt == DT_BF16) {
        rope_bf(x, half, cos_t, sin_t);
    } else {
        float *a = x, *b = a + half;
        const float *c = cos_t, *s = sin_t;

        for (int i = 0; i < half; i++) {
            float p = a[i], q = b[i];

            a[i] = p * c[i] - q * s[i];
            b[i] = q * c[i] + p * s[i];
        }
    }
}

/* --- activation functions --- */

/* x Phi(x), Phi by tanh: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) = x sigmoid(2 ...) */
static inline float
gelu_tanh_f(float x)
{
    float z = 1.59576912f * (x + 0.044715f * x * x * x);

    return x / (1.0f + exp_f(-z));
}

static inline float
act_f(float x, enum act act)
{
    if (act == ACT_SILU)
        return silu_f(x);
    if (act == ACT_GELU_TANH)
        return gelu_tanh_f(x);
    return 0.5f * x * (1.0f + erff(x * 0.70710678f));
}

static void
ops_act_mul(void *y, const void *g, const void *u, enum dtype dt, size_t n, enum act act)
{
    if (dt == DT_BF16) {
        uint16_t *o = y;
        const uint16_t *a = g, *b = u;

        if (act == ACT_SILU)
            silu_mul_bf(o, a, b, n);
        else
            for (size_t i = 0; i < n; i++)
                o[i] = narrow(narrow_round(act_f(bf16_to_f32(a[i]), act)) * bf16_to_f32(b[i]));
    } else {
        float *o = y;
        const float *a = g, *b = u;

        if (act == ACT_SILU)
            for (size_t i = 0; i < n; i++)
                o[i] = silu_f(a[i]) * b[i];
        else
            for (size_t i = 0; i < n; i++)
                o[i] = act_f(a[i], act) * b[i];
    }
}

static void
ops_add(void *x, const void *y, enum dtype dt, size_t n)
{
    if (dt == DT_BF16) {
        add_bf(x, y, n);
    } else {
        float *a = x;
        const float *b = y;

        for (size_t i = 0; i < n; i++)
            a[i] += b[i];
    }
}

/* --- softmax --- */

static void
scale_scores(float *s, int n, float scale, float softcap)
{
    if (softcap == 0.0f)
        for (int i = 0; i < n; i++)
            s[i] *= scale;
    else
        for (int i = 0; i < n; i++)
            s[i] = softcap * tanhf(s[i] * scale / softcap);
}

static float
row_max(const float *s, int n)
{
    float lanes[OPS_LANES];
    int i = 0;

    for (int l = 0; l < OPS_LANES; l++)
        lanes[l] = -INFINITY;
    for (; i + OPS_LANES <= n; i += OPS_LANES)
        for (int l = 0; l < OPS_LANES; l++)
            lanes[l] = s[i + l] > lanes[l] ? s[i + l] : lanes[l];
    for (int l = 0; i + l < n; l++)
        lanes[l] = s[i + l] > lanes[l] ? s[i + l] : lanes[l];
    return lanes_max(lanes);
}

static float
ops_softmax(float *s, int n, float scale, float softcap)
{
    float lanes[OPS_LANES] = { 0 }, m;
    int i = 0;

    scale_scores(s, n, scale, softcap);
    m = row_max(s, n);
    for (; i + OPS_LANES <= n; i += OPS_LANES)
        for (int l = 0; l < OPS_LANES; l++) {
            s[i + l] = exp_f(s[i + l] - m);
            lanes[l] += s[i + l];
        }
    for (int l = 0; i + l < n; l++) {
        s[i + l] = exp_f(s[i + l] - m);
        lanes[l] += s[i + l];
    }
    return lanes_sum(lanes);
}

static void
ops_softmax_cols(uint32_t *p, size_t pstride, float *s, int ld, int keys, int nv, float scale, float softcap,
    const int32_t *first, const int32_t *end, float *sum)
{
    if (softcap != 0.0f) {
        for (int k = 0; k < keys; k++)
            scale_scores(s + (size_t)k * (size_t)ld, nv * OPS_LANES, scale, softcap);
        scale = 1.0f;
    }
    for (int v = 0; v < nv; v++)
        softmax_panel(p + (size_t)v * pstride, s + v * OPS_LANES, ld, keys, scale, first + v * OPS_LANES,
            end + v * OPS_LANES, sum + v * OPS_LANES);
}

static float
eager_score(float s, float scale, float softcap)
{
    s = narrow_round(narrow_round(s) * scale);
    return narrow_round(narrow_round(tanhf(narrow_round(s / softcap))) * softcap);
}

static void
ops_eager_cols(uint32_t *p, size_t pstride, float *s, int ld, int keys, int nv, float scale, float softcap,
    const int32_t *first, const int32_t *end)
{
    for (int k = 0; softcap != 0.0f && k < keys; k++)
        for (int i = 0; i < nv * OPS_LANES; i++)
            s[k * ld + i] = eager_score(s[k * ld + i], scale, softcap);
    for (int v = 0; v < nv; v++) /* a score is rounded already by then if it was capped */
        eager_panel(p + (size_t)v * pstride, s + v * OPS_LANES, ld, keys, softcap != 0.0f ? 1.0f : scale,
            first + v * OPS_LANES, end + v * OPS_LANES);
}

static double
ops_logsumexp(const float *s, int n, float scale, float softcap)
{
    float part[OPS_LANES * 8], lanes[OPS_LANES], m;
    double sum = 0;

    /* In place scaling would spoil the caller's logits: chunks of 128, their sums in double. */
    m = row_max(s, n);
    if (softcap == 0.0f)
        m *= scale;
    else
        m = softcap * tanhf(m * scale / softcap);
    for (int i = 0; i < n; i += OPS_LANES * 8) {
        int w = n - i < OPS_LANES * 8 ? n - i : OPS_LANES * 8, k = 0;

        memcpy(part, s + i, (size_t)w * sizeof(*part));
        scale_scores(part, w, scale, softcap);
        memset(lanes, 0, sizeof(lanes));
        for (; k + OPS_LANES <= w; k += OPS_LANES)
            for (int l = 0; l < OPS_LANES; l++)
                lanes[l] += exp_f(part[k + l] - m);
        for (int l = 0; k + l < w; l++)
            lanes[l] += exp_f(part[k + l] - m);
        sum += (double)lanes_sum(lanes);
    }
    return (double)m + log(sum);
}

/* --- distances --- */

/* n: at most DISTANCE_PART */
static inline void
distance_part(double *sums, const float *x, const float *xf, size_t n)
{
    float d[OPS_LANES] = { 0 }, s[OPS_LANES] = { 0 };
    size_t i = 0;

    for (; i + OPS_LANES <= n; i += OPS_LANES)
        for (size_t l = 0; l < OPS_LANES; l++) {
            d[l] += (xf[i + l] - x[i + l]) * (xf[i + l] - x[i + l]);
            s[l] += xf[i + l] * xf[i + l];
        }
    for (size_t l = 0; i + l < n; l++) {
        d[l] += (xf[i + l] - x[i + l]) * (xf[i + l] - x[i + l]);
        s[l] += xf[i + l] * xf[i + l];
    }
    sums[0] += (double)lanes_sum(d);
    sums[1] += (double)lanes_sum(s);
}

static void
ops_distance(double *sums, const void *x, const void *xf, enum dtype dt, size_t n)
{
    float v[DISTANCE_PART], vf[DISTANCE_PART];

    sums[0] = sums[1] = 0;
    for (size_t at = 0; at < n; at += DISTANCE_PART) {
        size_t part = n - at < DISTANCE_PART ? n - at : DISTANCE_PART;

        if (dt != DT_BF16) {
            distance_part(sums, (const float *)x + at, (const float *)xf + at, part);
            continue;
        }
        ops_to_f32(v, (const uint16_t *)x + at, part);
        ops_to_f32(vf, (const uint16_t *)xf + at, part);
        distance_part(sums, v, vf, part);
    }
}

/* --- rounding of activations --- */

static float
ops_range(float range[2], const float *x, int n)
{
    float lo[OPS_LANES] = { 0 }, hi[OPS_LANES] = { 0 }, bad[OPS_LANES] = { 0 };
    int i = 0;

    for (; i + OPS_LANES <= n; i += OPS_LANES)
        for (int l = 0; l < OPS_LANES; l++) {
            lo[l] = -x[i + l] > lo[l] ? -x[i + l] : lo[l];
            hi[l] = x[i + l] > hi[l] ? x[i + l] : hi[l];
            bad[l] += x[i + l] * 0.0f;
        }
    for (int l = 0; i + l < n; l++) {
        lo[l] = -x[i + l] > lo[l] ? -x[i + l] : lo[l];
        hi[l] = x[i + l] > hi[l] ? x[i + l] : hi[l];
        bad[l] += x[i + l] * 0.0f;
    }
    range[0] = lanes_max(lo) > range[0] ? lanes_max(lo) : range[0];
    range[1] = lanes_max(hi) > range[1] ? lanes_max(hi) : range[1];
    return lanes_sum(bad);
}

static inline __attribute__((always_inline)) void
round_values(float *x, int n, float step, float zero, const struct qspec s)
{
    for (int i = 0; i < n; i++)
        x[i] = (q_round(&s, x[i], step, zero) - zero) * step;
}

static void
ops_round_act(float *x, int n, const struct qspec *spec, float step, float zero)
{
    QSPEC_CALL(round_values, spec, x, n, step, zero);
}

#define OPS_ROW(ISA, DOT)                                                                                \
    {                                                                                                    \
        .name = (ISA), .rmsnorm = ops_rmsnorm, .rope = ops_rope, .act_mul = ops_act_mul, .add = ops_add, \
        .softmax = ops_softmax, .softmax_cols = ops_softmax_cols, .eager_cols = ops_eager_cols,           \
        .logsumexp = ops_logsumexp,                                                                      \
        .pack_rows = ops_pack_rows, .pack_cols = ops_pack_cols, .dot = (DOT), .grid_add = ops_grid_add,  \
        .distance = ops_distance, .range = ops_range, .round_act = ops_round_act,                        \
        .to_f32 = ops_to_f32, .from_f32 = ops_from_f32, .scaled = ops_scaled,                            \
    }

const struct ops OPS_TABLE = OPS_ROW(OPS_NAME, ops_dot);
