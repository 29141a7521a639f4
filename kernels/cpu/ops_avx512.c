/* ops_avx512 - inner loops for AVX-512 with bf16 dot products (compiled with those flags) */
#include "ops.h"

#include <immintrin.h>

/* 8 rows by 16 NV columns: 8 NV accumulators in registers, one broadcast of a for NV products. */
#define DOT_BODY(NV)                                                                                     \
    __m512 s[OPS_MR][NV];                                                                                \
    for (int i = 0; i < OPS_MR; i++)                                                                     \
        for (int v = 0; v < (NV); v++)                                                                   \
            s[i][v] = _mm512_setzero_ps();                                                               \
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
    for (int i = 0; i < OPS_MR; i++)                                                                     \
        for (int v = 0; v < (NV); v++) {                                                                 \
            float *out = c + (size_t)i * (size_t)ldc + v * OPS_LANES;                                    \
            _mm512_storeu_ps(out, add ? _mm512_add_ps(_mm512_loadu_ps(out), s[i][v]) : s[i][v]);         \
        }

#define DOT_ARGS \
    float *c, int ldc, const uint32_t *a, const uint32_t *b, size_t bstride, int pairs, bool add

static void dot1(DOT_ARGS) { DOT_BODY(1) }
static void dot2(DOT_ARGS) { DOT_BODY(2) }
static void dot3(DOT_ARGS) { DOT_BODY(3) }

static void
ops_dot(float *c, int ldc, const uint32_t *a, const uint32_t *b, size_t bstride, int pairs, int nv, bool add)
{
    if (nv == 3)
        dot3(c, ldc, a, b, bstride, pairs, add);
    else if (nv == 2)
        dot2(c, ldc, a, b, bstride, pairs, add);
    else
        dot1(c, ldc, a, b, bstride, pairs, add);
}

#define OPS_TABLE ops_avx512
#define OPS_NAME "avx512"
#include "ops_impl.h"
