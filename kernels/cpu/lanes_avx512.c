/* lanes_avx512 - inner loops for AVX-512 */
#include "lanes.h"

#include <immintrin.h>

#define LANES_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))

/* Loops over accumulators are unrolled whole, or else they are on the stack before and after the loop over columns. */
#define EACH_COLUMN _Pragma("GCC unroll 8") for (int c = 0; c < LANES_SUB; c++)
#define EACH_VECTOR _Pragma("GCC unroll 3") for (int v = 0; v < 3; v++)

/* 8 columns by 3 vectors: 24 accumulators, 11 loads for 24 products. */
LANES_TARGET static void
lanes_mul(float *s, const float *l, const float *d, int count, bool add)
{
    __m512 acc[LANES_SUB][3];

    EACH_COLUMN
        EACH_VECTOR
            acc[c][v] = _mm512_setzero_ps();
    for (int i = 0; i < count; i++, l += LANES_SUB, d -= LANES) {
        __m512 d0 = _mm512_loadu_ps(d), d1 = _mm512_loadu_ps(d + 16), d2 = _mm512_loadu_ps(d + 32);

        EACH_COLUMN {
            __m512 x = _mm512_set1_ps(l[c]);

            acc[c][0] = _mm512_fmadd_ps(x, d0, acc[c][0]);
            acc[c][1] = _mm512_fmadd_ps(x, d1, acc[c][1]);
            acc[c][2] = _mm512_fmadd_ps(x, d2, acc[c][2]);
        }
    }
    if (add)
        EACH_COLUMN
            EACH_VECTOR
                acc[c][v] = _mm512_add_ps(_mm512_loadu_ps(s + c * LANES + v * 16), acc[c][v]);
    EACH_COLUMN
        EACH_VECTOR
            _mm512_storeu_ps(s + c * LANES + v * 16, acc[c][v]);
}

#define LANES_TABLE lanes_avx512
#define LANES_NAME "avx512"
#include "lanes_impl.h"
