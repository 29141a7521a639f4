/* ops_pairs_c - products of pairs in plain C */
#include "ops.h"

#include <math.h>
#include <string.h>

static inline float
half_hi(uint32_t u)
{
    float f;

    u &= 0xffff0000U;
    memcpy(&f, &u, sizeof(f));
    return f;
}

static inline float
half_lo(uint32_t u)
{
    float f;

    u <<= 16;
    memcpy(&f, &u, sizeof(f));
    return f;
}

/* In the order of vdpbf16ps: one fma for each half of a pair, odd half first. */
static void
ops_dot(float *c, int ldc, const uint32_t *a, const uint32_t *b, size_t bstride, int pairs, int nv, bool add)
{
    for (int i = 0; i < OPS_MR; i++)
        for (int v = 0; v < nv; v++) {
            float s[OPS_LANES] = { 0 }, *out = c + (size_t)i * (size_t)ldc + v * OPS_LANES;

            for (int p = 0; p < pairs; p++) {
                const uint32_t *bp = b + (size_t)v * bstride + (size_t)p * OPS_LANES;
                float ah = half_hi(a[p * OPS_LANES + i]), al = half_lo(a[p * OPS_LANES + i]);

                for (int l = 0; l < OPS_LANES; l++)
                    s[l] = fmaf(al, half_lo(bp[l]), fmaf(ah, half_hi(bp[l]), s[l]));
            }
            for (int l = 0; l < OPS_LANES; l++)
                out[l] = add ? out[l] + s[l] : s[l];
        }
}
