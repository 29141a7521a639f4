/* ops_vectors - loops of ops_impl.h by hand for AVX-512 with bf16, operation by operation the same */
#include "ops_math.h"

#include <immintrin.h>
#include <math.h>

/* exp_f */
static inline __m512
exp_v(__m512 x)
{
    const __m512 low = _mm512_set1_ps(-87.0f), magic = _mm512_set1_ps(12582912.0f), one = _mm512_set1_ps(1.0f);
    __m512 c = _mm512_min_ps(_mm512_set1_ps(88.0f), _mm512_max_ps(low, x)); /* NaN stays: it is the second operand */
    __m512 t = _mm512_fmadd_ps(c, _mm512_set1_ps(1.44269504f), magic), n = _mm512_sub_ps(t, magic);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0.693145752f), c), p;

    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-1.42860677e-6f), r);
    p = _mm512_fmadd_ps(_mm512_set1_ps(1.0f / 720), r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, one);
    p = _mm512_fmadd_ps(p, r, one);
    p = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, low, _CMP_NLT_UQ), p);
}

static inline __m512
widen_v(__m256i h)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

static inline __m256i
narrow_v(__m512 x)
{
    return (__m256i)_mm512_cvtneps_pbh(x);
}

/* The first n of 16 values, n > 0; the others are 0. */
static inline __mmask16
some(size_t n)
{
    return (__mmask16)(n < 16 ? (1u << n) - 1 : 0xffff);
}

static inline __m512
load_v(__mmask16 m, const uint16_t *x)
{
    return widen_v(_mm256_maskz_loadu_epi16(m, x));
}

static inline void
store_v(__mmask16 m, uint16_t *x, __m512 v)
{
    _mm256_mask_storeu_epi16(x, m, narrow_v(v));
}

/* bf16_from_f32: denormal values stay, which those of narrow_v do not. */
static inline __m256i
bf16_v(__m512 x)
{
    const __m512i one = _mm512_set1_epi32(1), half = _mm512_set1_epi32(0x7fff), quiet = _mm512_set1_epi32(0x400000);
    __m512i u = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), one);
    __m512i r = _mm512_add_epi32(u, _mm512_add_epi32(half, odd));

    r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), u, quiet);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
}

static void
ops_scaled(uint16_t *y, const float *x, float by, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 m = some(n - i);

        _mm256_mask_storeu_epi16(y + i, m, bf16_v(_mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), _mm512_set1_ps(by))));
    }
}

static inline __m512
round_v(__m512 x)
{
    return widen_v(narrow_v(x));
}

static void
rmsnorm_bf(uint16_t *y, const uint16_t *x, const uint16_t *w, int n, float eps, enum norm norm)
{
    __m512 sum = _mm512_setzero_ps(), r, one = _mm512_set1_ps(1.0f);
    float lanes[OPS_LANES];

    for (int i = 0; i < n; i += 16) {
        __m512 v = load_v(some((size_t)(n - i)), x + i);

        sum = _mm512_add_ps(sum, _mm512_mul_ps(v, v));
    }
    _mm512_storeu_ps(lanes, sum);
    r = _mm512_set1_ps(norm_scale(lanes, n, eps));
    for (int i = 0; i < n; i += 16) {
        __mmask16 m = some((size_t)(n - i));
        __m512 v = _mm512_mul_ps(load_v(m, x + i), r), g = load_v(m, w + i);

        if (norm == NORM_UNIT_OFFSET)
            g = _mm512_add_ps(one, g);
        else if (norm != NORM_ONCE)
            v = round_v(v);
        store_v(m, y + i, _mm512_mul_ps(v, g));
    }
}

static void
rope_bf(uint16_t *a, int half, const uint16_t *cos_t, const uint16_t *sin_t)
{
    for (int i = 0; i < half; i += 16) {
        __mmask16 m = some((size_t)(half - i));
        __m512 p = load_v(m, a + i), q = load_v(m, a + half + i), c = load_v(m, cos_t + i), s = load_v(m, sin_t + i);

        store_v(m, a + i, _mm512_sub_ps(round_v(_mm512_mul_ps(p, c)), round_v(_mm512_mul_ps(q, s))));
        store_v(m, a + half + i, _mm512_add_ps(round_v(_mm512_mul_ps(q, c)), round_v(_mm512_mul_ps(p, s))));
    }
}

static void
add_bf(uint16_t *x, const uint16_t *y, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 m = some(n - i);

        store_v(m, x + i, _mm512_add_ps(load_v(m, x + i), load_v(m, y + i)));
    }
}

static inline __m256i
silu_v(__m256i g, __m256i u)
{
    __m512 x = widen_v(g), s;

    s = _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), exp_v(_mm512_xor_ps(x, _mm512_set1_ps(-0.0f)))));
    return narrow_v(_mm512_mul_ps(widen_v(narrow_v(s)), widen_v(u)));
}

static void
silu_mul_bf(uint16_t *y, const uint16_t *g, const uint16_t *u, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        __mmask16 m = some(n - i);

        _mm256_mask_storeu_epi16(y + i, m, silu_v(_mm256_maskz_loadu_epi16(m, g + i),
            _mm256_maskz_loadu_epi16(m, u + i)));
    }
}

static inline __mmask16
seen(int key, __m512i first, __m512i end)
{
    __m512i k = _mm512_set1_epi32(key);

    return _mm512_cmple_epi32_mask(first, k) & _mm512_cmplt_epi32_mask(k, end);
}

/* Low halves of pairs from x, high ones from y. */
static inline __m512i
pair_v(__m512 x, __m512 y)
{
    static const uint16_t turn[32] = { 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31 };

    return _mm512_permutexvar_epi16(_mm512_loadu_si512(turn), (__m512i)_mm512_cvtne2ps_pbh(y, x));
}

static void
softmax_panel(uint32_t *p, const float *s, int ld, int keys, float scale, const int32_t *first, const int32_t *end,
    float *sum)
{
    const __m512i f = _mm512_loadu_si512(first), e = _mm512_loadu_si512(end);
    const __m512 sc = _mm512_set1_ps(scale);
    const int all0 = _mm512_reduce_max_epi32(f), all1 = _mm512_reduce_min_epi32(e); /* seen by all of them */
    __m512 m = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();

    for (int k = 0; k < keys; k++) {
        __m512 x = _mm512_loadu_ps(s + (size_t)k * (size_t)ld);

        if (k < all0 || k >= all1)
            x = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), seen(k, f, e), x);
        m = _mm512_max_ps(x, m);
    }
    for (int k0 = 0; k0 < keys; k0 += SOFTMAX_KEYS) {
        __m512 even = _mm512_setzero_ps(), odd = even;

        for (int k = k0; k < k0 + SOFTMAX_KEYS && k < keys; k += 2, p += OPS_LANES) {
            const float *a = s + (size_t)k * (size_t)ld, *b = k + 1 < keys ? a + ld : a;
            __m512 x = exp_v(_mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(a), m), sc));
            __m512 y = exp_v(_mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(b), m), sc));

            if (k < all0 || k + 1 >= all1) {
                x = _mm512_maskz_mov_ps(seen(k, f, e), x);
                y = _mm512_maskz_mov_ps(seen(k + 1, f, e), y);
            }
            even = _mm512_add_ps(even, x);
            odd = _mm512_add_ps(odd, y);
            _mm512_storeu_si512(p, pair_v(x, y));
        }
        total = _mm512_add_ps(total, _mm512_add_ps(even, odd));
    }
    _mm512_storeu_ps(sum, total);
}

static void
eager_panel(uint32_t *p, float *s, int ld, int keys, float scale, const int32_t *first, const int32_t *end)
{
    const __m512i f = _mm512_loadu_si512(first), e = _mm512_loadu_si512(end);
    const __m512 sc = _mm512_set1_ps(scale), none = _mm512_set1_ps(-INFINITY);
    const int all0 = _mm512_reduce_max_epi32(f), all1 = _mm512_reduce_min_epi32(e);
    __m512 m = none, sum = _mm512_setzero_ps();

    for (int k = 0; k < keys; k++) {
        float *a = s + (size_t)k * (size_t)ld;
        __m512 x = round_v(_mm512_mul_ps(round_v(_mm512_loadu_ps(a)), sc));

        if (k < all0 || k >= all1)
            x = _mm512_mask_mov_ps(none, seen(k, f, e), x);
        _mm512_storeu_ps(a, x);
        m = _mm512_max_ps(x, m);
    }
    for (int k0 = 0; k0 < keys; k0 += SOFTMAX_KEYS) {
        __m512 part[2] = { _mm512_setzero_ps(), _mm512_setzero_ps() };

        for (int k = k0; k < k0 + SOFTMAX_KEYS && k < keys; k++) {
            float *a = s + (size_t)k * (size_t)ld;
            __m512 x = exp_v(_mm512_sub_ps(_mm512_loadu_ps(a), m));

            _mm512_storeu_ps(a, x);
            part[k & 1] = _mm512_add_ps(part[k & 1], x);
        }
        sum = _mm512_add_ps(sum, _mm512_add_ps(part[0], part[1]));
    }
    for (int k = 0; k < keys; k += 2, p += OPS_LANES) {
        const float *a = s + (size_t)k * (size_t)ld;
        __m512 y = k + 1 < keys ? _mm512_div_ps(_mm512_loadu_ps(a + ld), sum) : _mm512_setzero_ps();

        _mm512_storeu_si512(p, pair_v(_mm512_div_ps(_mm512_loadu_ps(a), sum), y));
    }
}

/* 16 x 16 values of 32 bits: r[i][j] to r[j][i], by pairs, fours, then lanes of 128 bits. */
static inline void
transpose_v(__m512i *r)
{
    __m512i t[16];

    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

static void
ops_pack_cols(uint32_t *p, const uint16_t *x, size_t ld, int rows, int cols)
{
    for (int c = 0; c < cols; c += 32) {
        int left = cols - c < 32 ? cols - c : 32;
        __mmask32 m = left < 32 ? (1u << left) - 1 : ~0u;
        __m512i r[16];

        for (int i = 0; i < 16; i++)
            r[i] = i < rows ? _mm512_maskz_loadu_epi16(m, x + (size_t)i * ld + c) : _mm512_setzero_si512();
        transpose_v(r);
        for (int i = 0; i < (left + 1) / 2; i++, p += OPS_LANES)
            _mm512_storeu_si512(p, r[i]);
    }
}
