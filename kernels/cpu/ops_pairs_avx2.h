/* ops_pairs_avx2 - products of pairs by AVX2 and FMA, in the order of vdpbf16ps: the odd element, then the even one */
#include "ops_widen.h"

#include <stdbool.h>

enum { VECTOR = 8, PART_ROWS = 4, PART_VECTORS = 3 };

/* Unrolled whole, so that sums are in registers. */
#define EACH_ROW _Pragma("GCC unroll 4") for (int i = 0; i < PART_ROWS; i++)
#define EACH_VECTOR(N) _Pragma("GCC unroll 3") for (int v = 0; v < (N); v++)

/* Half of a pair for 4 rows and 3 vectors. Sums and what they are made of are all of the 16 registers, and gcc 12, left
 * to allocate these, has some of the sums on the stack, at half the speed. */
#define WIDEN(V, R, HOW) "vmovdqu (%[b" #V "], %[at]), %%ymm" #R "\n\t" HOW "%%ymm" #R ", %%ymm" #R "\n\t"
#define ROW(I, AT)                                                                                       \
    "vbroadcastss " #AT "(%[a]), %%ymm15\n\t"                                                            \
    "vfmadd231ps %%ymm12, %%ymm15, %[s" #I "0]\n\t"                                                      \
    "vfmadd231ps %%ymm13, %%ymm15, %[s" #I "1]\n\t"                                                      \
    "vfmadd231ps %%ymm14, %%ymm15, %[s" #I "2]\n\t"
#define HALF(HOW, A0, A1, A2, A3) \
    WIDEN(0, 12, HOW) WIDEN(1, 13, HOW) WIDEN(2, 14, HOW) ROW(0, A0) ROW(1, A1) ROW(2, A2) ROW(3, A3)
#define SUMS(I) [s##I##0] "+x"(s[I][0]), [s##I##1] "+x"(s[I][1]), [s##I##2] "+x"(s[I][2])

/* c[4][24] (row stride ldc) = or go on with sums of n pairs; vector v of b begins at b[v]. */
static void
part3(float *c, int ldc, float (*a)[2][OPS_MR], const uint32_t *const *b, int n, bool go_on)
{
    const __m256i high = _mm256_set1_epi32((int)0xffff0000U);
    const uint32_t *b0 = b[0], *b1 = b[1], *b2 = b[2];
    __m256 s[PART_ROWS][PART_VECTORS];

    EACH_ROW
        EACH_VECTOR(PART_VECTORS) s[i][v] = go_on ? _mm256_loadu_ps(c + i * ldc + v * VECTOR) : _mm256_setzero_ps();
    for (size_t p = 0; p < (size_t)n; p++)
        __asm__ volatile(HALF("vpand %[high], ", 0, 4, 8, 12) HALF("vpslld $16, ", 32, 36, 40, 44)
            : SUMS(0), SUMS(1), SUMS(2), SUMS(3)
            : [a] "r"(a[p]), [b0] "r"(b0), [b1] "r"(b1), [b2] "r"(b2), [at] "r"(p * OPS_LANES * sizeof(*b0)),
            [high] "m"(high)
            : "xmm12", "xmm13", "xmm14", "xmm15", "memory");
    EACH_ROW
        EACH_VECTOR(PART_VECTORS) _mm256_storeu_ps(c + i * ldc + v * VECTOR, s[i][v]);
}

static inline __attribute__((always_inline)) void
add_half(__m256 (*s)[2], const float *a, __m256i w0, __m256i w1)
{
#pragma GCC unroll 4
    for (int i = 0; i < PART_ROWS; i++) {
        __m256 x = _mm256_broadcast_ss(a + i);

        s[i][0] = _mm256_fmadd_ps(x, _mm256_castsi256_ps(w0), s[i][0]);
        s[i][1] = _mm256_fmadd_ps(x, _mm256_castsi256_ps(w1), s[i][1]);
    }
}

/* The same for c[4][16]: two vectors of one panel. */
static void
part2(float *c, int ldc, float (*a)[2][OPS_MR], const uint32_t *b, int n, bool go_on)
{
    const __m256i high = _mm256_set1_epi32((int)0xffff0000U);
    __m256 s[PART_ROWS][2];

    EACH_ROW
        EACH_VECTOR(2) s[i][v] = go_on ? _mm256_loadu_ps(c + i * ldc + v * VECTOR) : _mm256_setzero_ps();
    for (int p = 0; p < n; p++, b += OPS_LANES) {
        __m256i u0 = _mm256_loadu_si256((const __m256i *)(const void *)b);
        __m256i u1 = _mm256_loadu_si256((const __m256i *)(const void *)(b + VECTOR));

        add_half(s, a[p][0], _mm256_and_si256(u0, high), _mm256_and_si256(u1, high));
        add_half(s, a[p][1], _mm256_slli_epi32(u0, 16), _mm256_slli_epi32(u1, 16));
    }
    EACH_ROW
        EACH_VECTOR(2) _mm256_storeu_ps(c + i * ldc + v * VECTOR, s[i][v]);
}

/* c[8][16 nv] */
static void
parts(float *c, int ldc, float (*a)[2][OPS_MR], const uint32_t *b, size_t bstride, int n, int nv, bool go_on)
{
    const uint32_t *left[] = { b, b + VECTOR, b + bstride };
    const uint32_t *right[] = { b + bstride + VECTOR, b + 2 * bstride, b + 2 * bstride + VECTOR };

    for (int i = 0; i < OPS_MR; i += PART_ROWS) {
        float (*rows)[2][OPS_MR] = (void *)&a[0][0][i], *to = c + i * ldc;

        if (nv == OPS_NV_MAX) {
            part3(to, ldc, rows, left, n, go_on);
            part3(to + PART_VECTORS * VECTOR, ldc, rows, right, n, go_on);
        } else {
            for (int v = 0; v < nv; v++)
                part2(to + v * OPS_LANES, ldc, rows, b + (size_t)v * bstride, n, go_on);
        }
    }
}

static void
ops_dot(float *c, int ldc, const uint32_t *a, const uint32_t *b, size_t bstride, int pairs, int nv, bool add)
{
    enum { WIDTH = OPS_NV_MAX * OPS_LANES };
    float wide[WIDE_PAIRS][2][OPS_MR], sums[OPS_MR * WIDTH], *to = add ? sums : c;
    int ld = add ? WIDTH : ldc;

    for (int p = 0; p < pairs; p += WIDE_PAIRS) {
        int n = pairs - p < WIDE_PAIRS ? pairs - p : WIDE_PAIRS;

        widen_strip(wide, a + (size_t)p * OPS_LANES, n);
        parts(to, ld, wide, b + (size_t)p * OPS_LANES, bstride, n, nv, p > 0);
    }
    for (int i = 0; add && i < OPS_MR; i++)
        for (int j = 0; j < nv * OPS_LANES; j++)
            c[i * ldc + j] += sums[i * WIDTH + j];
}
