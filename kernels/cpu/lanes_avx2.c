/* lanes_avx2 - inner loops for AVX2 and FMA */
#include "lanes.h"

#include <immintrin.h>

#define LANES_TARGET __attribute__((target("avx2,fma")))

/* Loops over accumulators are unrolled whole, or else they are on the stack before and after the loop over columns. */
#define EACH_COLUMN _Pragma("GCC unroll 4") for (int c = 0; c < 4; c++)
#define EACH_VECTOR _Pragma("GCC unroll 3") for (int v = 0; v < 3; v++)

/* 4 columns by 3 vectors of 8 lanes: 12 of the 16 registers are accumulators. */
LANES_TARGET static inline void
mul_part(float *s, const float *l, const float *d, int count, bool add)
{
    __m256 acc[4][3];

    EACH_COLUMN
        EACH_VECTOR
            acc[c][v] = _mm256_setzero_ps();
    for (int i = 0; i < count; i++, l += LANES_SUB, d -= LANES) {
        __m256 d0 = _mm256_loadu_ps(d), d1 = _mm256_loadu_ps(d + 8), d2 = _mm256_loadu_ps(d + 16);

        EACH_COLUMN {
            __m256 x = _mm256_set1_ps(l[c]);

            acc[c][0] = _mm256_fmadd_ps(x, d0, acc[c][0]);
            acc[c][1] = _mm256_fmadd_ps(x, d1, acc[c][1]);
            acc[c][2] = _mm256_fmadd_ps(x, d2, acc[c][2]);
        }
    }
    if (add)
        EACH_COLUMN
            EACH_VECTOR
                acc[c][v] = _mm256_add_ps(_mm256_loadu_ps(s + c * LANES + v * 8), acc[c][v]);
    EACH_COLUMN
        EACH_VECTOR
            _mm256_storeu_ps(s + c * LANES + v * 8, acc[c][v]);
}

LANES_TARGET static void
lanes_mul(float *s, const float *l, const float *d, int count, bool add)
{
    for (int c = 0; c < LANES_SUB; c += 4)
        for (int i = 0; i < LANES; i += LANES / 2)
            mul_part(s + c * LANES + i, l + c, d + i, count, add);
}

#define LANES_TABLE lanes_avx2
#define LANES_NAME "avx2"
#include "lanes_impl.h"
