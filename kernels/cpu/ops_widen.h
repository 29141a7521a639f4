/* ops_widen - pairs of bf16 as f32, once for all columns of a micro-tile (AVX2) */
#ifndef LLMC_CPU_OPS_WIDEN_H
#define LLMC_CPU_OPS_WIDEN_H

#include "ops.h"

#include <immintrin.h>

enum { WIDE_PAIRS = 128 };

/* wide[n][0] = odd elements of the pairs a[n][0..7] (rows of 16), wide[n][1] = even ones. */
static inline void
widen_strip(float wide[][2][OPS_MR], const uint32_t *a, int n)
{
    const __m256i high = _mm256_set1_epi32((int)0xffff0000U);

    for (int p = 0; p < n; p++) {
        __m256i u = _mm256_loadu_si256((const __m256i *)(const void *)(a + (size_t)p * OPS_LANES));

        _mm256_storeu_ps(wide[p][0], _mm256_castsi256_ps(_mm256_and_si256(u, high)));
        _mm256_storeu_ps(wide[p][1], _mm256_castsi256_ps(_mm256_slli_epi32(u, 16)));
    }
}

#endif
