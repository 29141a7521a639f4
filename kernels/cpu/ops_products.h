/* ops_products - by hand for AVX-512 with bf16: products of pairs and what surrounds them (others: ops_vectors.h) */
#include "ops_math.h"
#include "ops_widen.h"

#include <immintrin.h>

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

/* The same operations by f32 multiply-adds, where those of pairs are slower: of a pair the odd element, then the even
 * one. */
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
