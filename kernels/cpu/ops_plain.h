/* ops_plain - in plain C what ops_vectors.h and ops_products.h have by hand for AVX-512, but products of pairs */
#include "ops_math.h"

#include <math.h>
#include <string.h>

static void
ops_pack_rows(uint32_t *p, size_t pstride, const uint16_t *x, size_t ld, int rows, int width)
{
    for (int c = 0; c < width; c += OPS_LANES, p += pstride)
        for (int r = 0; r < rows; r += 2) {
            const uint16_t *lo = x + (size_t)r * ld + c, *hi = lo + ld;
            uint32_t *to = p + r / 2 * OPS_LANES;

            if (r + 1 < rows && c + OPS_LANES <= width) {
                for (int j = 0; j < OPS_LANES; j++)
                    to[j] = (uint32_t)lo[j] | (uint32_t)hi[j] << 16;
                continue;
            }
            for (int j = 0; j < OPS_LANES; j++)
                to[j] = c + j >= width ? 0 : (uint32_t)lo[j] | (r + 1 < rows ? (uint32_t)hi[j] << 16 : 0);
        }
}

static void
ops_grid_add(double *acc, const float *c, size_t cstride, int count, int n, double ui, const double *u)
{
    for (int k = 0; k < count; k++, c += cstride)
        for (int j = 0; j < n; j++) {
            double magic = GRID_MAGIC * (ui * u[j]);

            acc[j] += ((double)c[j] + magic) - magic;
        }
}

static void
ops_scaled(uint16_t *y, const float *x, float by, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = bf16_from_f32(x[i] * by);
}

static void
silu_mul_bf(uint16_t *y, const uint16_t *g, const uint16_t *u, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = narrow(narrow_round(silu_f(bf16_to_f32(g[i]))) * bf16_to_f32(u[i]));
}

/* x where first <= key < end, else other; without a branch, so that compilers make vectors of it. */
static inline float
if_seen(float x, int key, int32_t first, int32_t end, float other)
{
    uint32_t m = 0U - (uint32_t)((key >= first) & (key < end));

    return f32_of_bits((f32_bits(x) & m) | (f32_bits(other) & ~m));
}

/* One panel of 16 queries. */
static void
softmax_panel(uint32_t *restrict p, const float *restrict s, int ld, int keys, float scale,
    const int32_t *restrict first, const int32_t *restrict end, float *restrict sum)
{
    float m[OPS_LANES], even[OPS_LANES], odd[OPS_LANES];

    for (int l = 0; l < OPS_LANES; l++) {
        m[l] = -INFINITY;
        sum[l] = 0;
    }
    for (int k = 0; k < keys; k++)
        for (int l = 0; l < OPS_LANES; l++) {
            float x = if_seen(s[k * ld + l], k, first[l], end[l], -INFINITY);

            m[l] = x > m[l] ? x : m[l];
        }
    for (int k0 = 0; k0 < keys; k0 += SOFTMAX_KEYS) {
        memset(even, 0, sizeof(even));
        memset(odd, 0, sizeof(odd));
        for (int k = k0; k < k0 + SOFTMAX_KEYS && k < keys; k += 2, p += OPS_LANES) {
            const float *a = s + (size_t)k * (size_t)ld, *b = k + 1 < keys ? a + ld : a;

            for (int l = 0; l < OPS_LANES; l++) {
                float x = exp_f((a[l] - m[l]) * scale), y = exp_f((b[l] - m[l]) * scale);

                x = if_seen(x, k, first[l], end[l], 0.0f);
                y = if_seen(y, k + 1, first[l], end[l], 0.0f);
                even[l] += x;
                odd[l] += y;
                p[l] = (uint32_t)narrow(x) | (uint32_t)narrow(y) << 16;
            }
        }
        for (int l = 0; l < OPS_LANES; l++)
            sum[l] += even[l] + odd[l];
    }
}

/* The same with every value rounded. */
static void
eager_panel(uint32_t *p, float *s, int ld, int keys, float scale, const int32_t *first, const int32_t *end)
{
    float m[OPS_LANES], sum[OPS_LANES] = { 0 };

    for (int l = 0; l < OPS_LANES; l++)
        m[l] = -INFINITY;
    for (int k = 0; k < keys; k++)
        for (int l = 0; l < OPS_LANES; l++) {
            float x = narrow_round(narrow_round(s[k * ld + l]) * scale);

            x = k >= first[l] && k < end[l] ? x : -INFINITY;
            s[k * ld + l] = x;
            m[l] = x > m[l] ? x : m[l];
        }
    for (int k0 = 0; k0 < keys; k0 += SOFTMAX_KEYS) {
        float part[2][OPS_LANES] = { { 0 } };

        for (int k = k0; k < k0 + SOFTMAX_KEYS && k < keys; k++)
            for (int l = 0; l < OPS_LANES; l++) {
                s[k * ld + l] = exp_f(s[k * ld + l] - m[l]);
                part[k & 1][l] += s[k * ld + l];
            }
        for (int l = 0; l < OPS_LANES; l++)
            sum[l] += part[0][l] + part[1][l];
    }
    for (int k = 0; k < keys; k += 2, p += OPS_LANES)
        for (int l = 0; l < OPS_LANES; l++)
            p[l] = (uint32_t)narrow(s[k * ld + l] / sum[l]) |
                (k + 1 < keys ? (uint32_t)narrow(s[(k + 1) * ld + l] / sum[l]) << 16 : 0);
}

static void
ops_pack_cols(uint32_t *p, const uint16_t *x, size_t ld, int rows, int cols)
{
    int pairs = (cols + 1) / 2;

    for (int r = 0; r < OPS_LANES; r++) {
        const uint16_t *row = x + (size_t)r * ld;

        if (r >= rows)
            for (int k = 0; k < pairs; k++)
                p[k * OPS_LANES + r] = 0;
        else
            for (int k = 0; k < pairs; k++)
                p[k * OPS_LANES + r] = (uint32_t)row[2 * k] |
                    (2 * k + 1 < cols ? (uint32_t)row[2 * k + 1] << 16 : 0);
    }
}

static void
rmsnorm_bf(uint16_t *y, const uint16_t *x, const uint16_t *w, int n, float eps, enum norm norm)
{
    float lanes[OPS_LANES] = { 0 }, r;
    int i = 0;

    for (; i + OPS_LANES <= n; i += OPS_LANES)
        for (int l = 0; l < OPS_LANES; l++)
            lanes[l] += bf16_to_f32(x[i + l]) * bf16_to_f32(x[i + l]);
    for (int l = 0; i + l < n; l++)
        lanes[l] += bf16_to_f32(x[i + l]) * bf16_to_f32(x[i + l]);
    r = norm_scale(lanes, n, eps);
    if (norm == NORM_UNIT_OFFSET)
        for (i = 0; i < n; i++)
            y[i] = narrow(bf16_to_f32(x[i]) * r * (1.0f + bf16_to_f32(w[i])));
    else if (norm == NORM_ONCE)
        for (i = 0; i < n; i++)
            y[i] = narrow(bf16_to_f32(x[i]) * r * bf16_to_f32(w[i]));
    else
        for (i = 0; i < n; i++)
            y[i] = narrow(narrow_round(bf16_to_f32(x[i]) * r) * bf16_to_f32(w[i]));
}

static void
rope_bf(uint16_t *a, int half, const uint16_t *cos_t, const uint16_t *sin_t)
{
    uint16_t *b = a + half;

    for (int i = 0; i < half; i++) {
        float p = bf16_to_f32(a[i]), q = bf16_to_f32(b[i]), c = bf16_to_f32(cos_t[i]), s = bf16_to_f32(sin_t[i]);

        a[i] = narrow(narrow_round(p * c) + narrow_round(-q * s));
        b[i] = narrow(narrow_round(q * c) + narrow_round(p * s));
    }
}

static void
add_bf(uint16_t *x, const uint16_t *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = narrow(bf16_to_f32(x[i]) + bf16_to_f32(y[i]));
}
