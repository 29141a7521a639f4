/* ops_math - functions of one value for the inner loops, the same bits in every table */
#ifndef LLMC_CPU_OPS_MATH_H
#define LLMC_CPU_OPS_MATH_H

#include "ops.h"

#include <math.h>
#include <string.h>

/* e^x by 2^n e^r, |r| <= ln 2 / 2, Taylor to degree 6: within 2 ulp of f32; 0 below -87, so that no result is
 * denormal; above 88 as at 88. */
HD static inline float
exp_f(float x)
{
    float c = x < -87.0f ? -87.0f : x, t, n, r, p;
    uint32_t u, v;

    c = c > 88.0f ? 88.0f : c;
    t = fmaf(c, 1.44269504f, 12582912.0f); /* 1.5 2^23: the integer nearest c / ln 2 in the low bits */
    n = t - 12582912.0f;
    r = fmaf(n, -0.693145752f, c); /* ln 2 in two parts */
    r = fmaf(n, -1.42860677e-6f, r);
    p = fmaf(1.0f / 720, r, 1.0f / 120);
    p = fmaf(p, r, 1.0f / 24);
    p = fmaf(p, r, 1.0f / 6);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    memcpy(&u, &p, sizeof(u));
    memcpy(&v, &t, sizeof(v));
    u += v << 23;
    memcpy(&p, &u, sizeof(p));
    return x < -87.0f ? 0.0f : p;
}

/* c / unit + 1.5 2^52 rounds to an integer; all factors of a grid are powers of two, so only that addition rounds. */
#define GRID_MAGIC 6755399441055744.0

/* To bf16 as the processor's instruction does it: denormal values become zero. */
static inline float
narrow_round(float x)
{
    uint32_t u = f32_bits(x);
    int32_t size = (int32_t)(u & 0x7fffffff);

    return size < 0x00800000 ? f32_of_bits(u & 0x80000000) : bf16_round(x);
}

static inline uint16_t
narrow(float x)
{
    return (uint16_t)(f32_bits(narrow_round(x)) >> 16);
}

HD static inline float
silu_f(float x)
{
    return x / (1.0f + exp_f(-x));
}

static inline float
lanes_sum(const float *v)
{
    float t[OPS_LANES];

    memcpy(t, v, sizeof(t));
    for (int w = OPS_LANES / 2; w > 0; w /= 2)
        for (int i = 0; i < w; i++)
            t[i] += t[i + w];
    return t[0];
}

/* 1 / sqrt(mean(x^2) + eps) */
static inline float
norm_scale(const float *lanes, int n, float eps)
{
    return 1.0f / sqrtf(lanes_sum(lanes) / (float)n + eps);
}

#endif
