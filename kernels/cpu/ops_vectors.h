/* ops_vectors - loops of ops_impl.h by hand for AVX-512 with bf16, operation by operation the same */
#include "ops_math.h"

#include <immintrin.h>
#include <math.h>

/* Loops over sums are unrolled whole, or else the compiler has them on the stack before and after that over pairs. */
#define EACH_ROW _Pragma("GCC unroll 8") for (int i = 0; i < OPS_MR; i++)
#define EACH_PANEL(NV) _Pragma("GCC unroll 3") for (int v = 0; v < (NV); v++)

#define DOT_SUMS(NV)                                                                                     \
    __m512 s[OPS_MR][NV];                                                                                \
    EACH_ROW                                                                                             \
        EACH_PANEL(NV)                                                                                   \
            s[i][v] = _mm512_setzero_ps();

#define DOT_STORE(NV)                                                                                    \
    if (add)                                                                                             \
        EACH_ROW                                                                                         \
            EACH_PANEL(NV)                                                                               \
                s[i][v] = _mm512_add_ps(_mm512_loadu_ps(c + (size_t)i * (size_t)ldc + v * OPS_LANES), s[i][v]); \
    EACH_ROW                                                                                             \
        EACH_PANEL(NV)                                                                                   \
            _mm512_storeu_ps(c + (size_t)i * (size_t)ldc + v * OPS_LANES, s[i][v]);

/* 8 rows by 16 NV columns: 8 NV accumulators in registers, one broadcast of a for NV products. */
#define DOT_BODY(NV)                                                                                     \
    DOT_SUMS(NV)                                                                                         \
    for (int p = 0; p < pairs; p++) {                                                                    \
        __m512bh bv[NV];                                                                                 \
        for (int v = 0; v < (NV); v++)                                                                   \
            bv[v] = (__m512bh)_mm512_loadu_si512(b + (size_t)v * bstride + (size_t)p * OPS_LANES);       \
        for (int i = 0; i < OPS_MR; i++) {                                                               \
            __m512bh av = (__m512bh)_mm512_set1_epi32((int)a[p * OPS_LANES + i]);                        \
            for (int v = 0; v < (NV); v++)                                                               \
                s[i][v] = _mm512_dpbf16_ps(s[i][v], av, bv[v]);                                          \
        }                                                                                                \
    }                                                                                                    \
    DOT_STORE(NV)

/* The same operations by f32 multiply-adds, where those of pairs are slower. a is widened once for all columns. */
enum { WIDE_PAIRS = 128 };

static inline void
widen_strip(float wide[][2][OPS_MR], const uint32_t *a, int pairs)
{
    const __m256i high = _mm256_set1_epi32((int)0xffff0000U);

    for (int p = 0; p < pairs; p++) {
        __m256i u = _mm256_loadu_si256((const __m256i *)(const void *)(a + (size_t)p * OPS_LANES));

        _mm256_storeu_ps(wide[p][0], _mm256_castsi256_ps(_mm256_and_si256(u, high)));
        _mm256_storeu_ps(wide[p][1], _mm256_castsi256_ps(_mm256_slli_epi32(u, 16)));
    }
}

/* Half of a pair: the odd element, then the even one. */
#define FMA_HALF(NV, HALF, WIDENED)                                                                      \
    for (int v = 0; v < (NV); v++) {                                                                     \
        __m512i u = _mm512_loadu_si512(at + (size_t)v * bstride);                                        \
        w[v] = _mm512_castsi512_ps(WIDENED);                                                             \
    }                                                                                                    \
    for (int i = 0; i < OPS_MR; i++) {                                                                   \
        __m512 x = _mm512_set1_ps(wide[p][HALF][i]);                                                     \
        for (int v = 0; v < (NV); v++)                                                                   \
            s[i][v] = _mm512_fmadd_ps(x, w[v], s[i][v]);                                                 \
    }

#define FMA_BODY(NV)                                                                                     \
    const __m512i high = _mm512_set1_epi32((int)0xffff0000U);                                            \
    float wide[WIDE_PAIRS][2][OPS_MR];                                                                   \
    DOT_SUMS(NV)                                                                                         \
    for (int first = 0; first < pairs; first += WIDE_PAIRS) {                                            \
        int n = pairs - first < WIDE_PAIRS ? pairs - first : WIDE_PAIRS;                                 \
        widen_strip(wide, a + (size_t)first * OPS_LANES, n);                                             \
        for (int p = 0; p < n; p++) {                                                                    \
            const uint32_t *at = b + (size_t)(first + p) * OPS_LANES;                                    \
            __m512 w[NV];                                                                                \
            FMA_HALF(NV, 0, _mm512_and_si512(u, high))                                                   \
            FMA_HALF(NV, 1, _mm512_slli_epi32(u, 16))                                                    \
        }                                                                                                \
    }                                                                                                    \
    DOT_STORE(NV)

#define DOT_ARGS \
    float *c, int ldc, const uint32_t *a, const uint32_t *b, size_t bstride, int pairs, bool add

static void dot1(DOT_ARGS) { DOT_BODY(1) }
static void dot2(DOT_ARGS) { DOT_BODY(2) }
static void dot3(DOT_ARGS) { DOT_BODY(3) }
static void fma1(DOT_ARGS) { FMA_BODY(1) }
static void fma2(DOT_ARGS) { FMA_BODY(2) }
static void fma3(DOT_ARGS) { FMA_BODY(3) }

typedef void dot_fn(DOT_ARGS);

static void
ops_dot(float *c, int ldc, const uint32_t *a, const uint32_t *b, size_t bstride, int pairs, int nv, bool add)
{
    static dot_fn *const by_panels[OPS_NV_MAX] = { dot1, dot2, dot3 };

    by_panels[nv - 1](c, ldc, a, b, bstride, pairs, add);
}

static void
ops_dot_fma(float *c, int ldc, const uint32_t *a, const uint32_t *b, size_t bstride, int pairs, int nv, bool add)
{
    static dot_fn *const by_panels[OPS_NV_MAX] = { fma1, fma2, fma3 };

    by_panels[nv - 1](c, ldc, a, b, bstride, pairs, add);
}

/* A row pair of all panels at a time, so that a line of x is read once, and rows further on are asked for. */
static void
ops_pack_rows(uint32_t *p, size_t pstride, const uint16_t *x, size_t ld, int rows, int width)
{
    enum { AHEAD = 16, LINE = 32 /* values */ };

    for (int r = 0; r < rows; r += 2, p += OPS_LANES) {
        const uint16_t *lo = x + (size_t)r * ld, *hi = lo + ld;
        uint32_t *to = p;

        for (int c = 0; c < width && r + AHEAD + 1 < rows; c += LINE) {
            __builtin_prefetch(lo + AHEAD * ld + c);
            __builtin_prefetch(hi + AHEAD * ld + c);
        }
        for (int c = 0; c < width; c += OPS_LANES, to += pstride) {
            __mmask16 m = width - c < OPS_LANES ? (__mmask16)((1u << (width - c)) - 1) : 0xffff;
            __m512i v = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, lo + c));

            if (r + 1 < rows)
                v = _mm512_or_si512(v,
                    _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, hi + c)), 16));
            _mm512_storeu_si512(to, v);
        }
    }
}

static void
ops_grid_add(double *acc, const float *c, size_t cstride, int count, int n, double ui, const double *u)
{
    const __m512d unit = _mm512_set1_pd(ui), magic = _mm512_set1_pd(GRID_MAGIC);

    for (int j = 0; j < n; j += 8) {
        __mmask8 some8 = n - j < 8 ? (__mmask8)((1u << (n - j)) - 1) : 0xff;
        __m512d big = _mm512_mul_pd(magic, _mm512_mul_pd(unit, _mm512_maskz_loadu_pd(some8, u + j)));
        __m512d sum = _mm512_maskz_loadu_pd(some8, acc + j);

        for (int k = 0; k < count; k++) {
            __m512d v = _mm512_cvtps_pd(_mm256_maskz_loadu_ps(some8, c + (size_t)k * cstride + j));

            sum = _mm512_add_pd(sum, _mm512_sub_pd(_mm512_add_pd(v, big), big));
        }
        _mm512_mask_storeu_pd(acc + j, some8, sum);
    }
}

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

static void
softmax_panel(uint32_t *p, const float *s, int ld, int keys, float scale, const int32_t *first, const int32_t *end,
    float *sum)
{
    static const uint16_t turn[32] = { 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31 };
    const __m512i order = _mm512_loadu_si512(turn), f = _mm512_loadu_si512(first), e = _mm512_loadu_si512(end);
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
            _mm512_storeu_si512(p, _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(y, x)));
        }
        total = _mm512_add_ps(total, _mm512_add_ps(even, odd));
    }
    _mm512_storeu_ps(sum, total);
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
