/* quant - number formats, rounding, and what kernels know of a weight scheme
 *
 * Written once for C and for nvcc: the common subset of C11 and C++, without branches where a vectoriser meets it.
 * Values of every small format are exact in f32, so "T(x)" below is an f32 that rt() has rounded to the type T.
 * All rounding is to nearest, ties to even; the rounding mode must be the default one and flags must not relax
 * arithmetic (-ffp-contract=off, no fast-math), since sums with a large constant do the work.
 *
 * A code is one byte: int grids two's complement, e2m1 the low nibble (bit 3 the sign), e4m3 its bit pattern. A scale
 * is an f32 that holds the stored value: of type T, of e4m3, or the power of two that an e8m0 byte means.
 */
#ifndef LLMC_QUANT_H
#define LLMC_QUANT_H

#include "../libcommon/dtype.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define HD __host__ __device__
#else
#define HD
#endif

enum qgrid     { GRID_INT, GRID_E2M1, GRID_E4M3 };
enum qstrategy { STRATEGY_TENSOR, STRATEGY_CHANNEL, STRATEGY_GROUP, STRATEGY_TENSOR_GROUP, STRATEGY_BLOCK };

/* Filled by scheme_qspec() in libcommon/scheme.h. */
struct qspec {
    enum qgrid     grid;
    int            bits;       /* of a code */
    int            symmetric;  /* 0: an int8 zero point beside each scale; int grids only */
    enum qstrategy strategy;
    int            group;      /* columns that share a scale: of GROUP, TENSOR_GROUP and BLOCK */
    int            block_rows; /* rows that share a scale: of BLOCK */
    enum dtype     scale;      /* T, DT_F8_E4M3 (with a global scale), DT_F8_E8M0 */
    enum dtype     t;          /* T: BF16, F16 or F32, the model's type and that of the stored scale */
    int            v10;        /* scales and the loop in f32, rounded to T when stored: LLM Compressor 0.10's GPTQ */
};

HD static inline uint32_t
f32_bits(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof(u));
    return u;
}

HD static inline float
f32_of_bits(uint32_t u)
{
    float x;

    memcpy(&x, &u, sizeof(x));
    return x;
}

HD static inline float
f32_abs(float x)
{
    return f32_of_bits(f32_bits(x) & 0x7fffffffu);
}

/* Bounds are never NaN; a NaN x gives lo, so that no conversion to int is undefined. */
HD static inline float
f32_clamp(float x, float lo, float hi)
{
    x = x > lo ? x : lo;
    return x < hi ? x : hi;
}

/* To a whole number, |x| <= 2^22: 1.5 * 2^23 has no bits below one. Loses the sign of zero. */
HD static inline float
f32_rne(float x)
{
    return (x + 12582912.0f) - 12582912.0f;
}

/* |x| with bits below the drop-th rounded away. */
HD static inline float
f32_drop(float a, int drop)
{
    uint32_t u = f32_bits(a);

    u += (1u << (drop - 1)) - 1 + ((u >> drop) & 1);
    return f32_of_bits(u & ~((1u << drop) - 1));
}

/* bf16:  s eeeeeeee mmmmmmm, the upper half of an f32. */
HD static inline float
bf16_round(float x)
{
    uint32_t u = f32_bits(x), r = u + 0x7fff + ((u >> 16) & 1);
    int32_t size = (int32_t)(u & 0x7fffffffu);

    return f32_of_bits((size > 0x7f800000 ? u | 0x400000u : r) & 0xffff0000u); /* NaN stays one */
}

HD static inline uint16_t
bf16_from_f32(float x)
{
    return (uint16_t)(f32_bits(bf16_round(x)) >> 16);
}

HD static inline float
bf16_to_f32(uint16_t h)
{
    return f32_of_bits((uint32_t)h << 16);
}

/* f16:  s eeeee mmmmmmmmmm, bias 15. Below 2^-14 the step is 2^-24, which is the last bit of numbers in [0.5, 1). */
HD static inline float
f16_round(float x)
{
    uint32_t sign = f32_bits(x) & 0x80000000u;
    float a = f32_abs(x), n = f32_drop(a, 13), s = (a + 0.75f) - 0.75f;

    n = n > 65504.0f ? f32_of_bits(0x7f800000u) : n;
    n = a < 0x1p-14f ? s : n;
    n = a == a ? n : f32_of_bits(0x7fc00000u);
    return f32_of_bits(f32_bits(n) | sign);
}

HD static inline uint16_t
f16_from_f32(float x)
{
    float r = f16_round(x), a = f32_abs(r);
    uint32_t u = f32_bits(a), h = (u >> 13) - (112u << 10);

    h = a < 0x1p-14f ? (uint32_t)(a * 0x1p24f) : h;
    h = u > 0x7f800000u ? 0x7e00 : u == 0x7f800000u ? 0x7c00 : h;
    return (uint16_t)(h | (f32_bits(r) >> 31) << 15);
}

HD static inline float
f16_to_f32(uint16_t h)
{
    uint32_t e = (h >> 10) & 31, m = h & 1023u, sign = (uint32_t)(h >> 15) << 31;
    float a = e == 0 ? (float)m * 0x1p-24f : f32_of_bits((e == 31 ? 0x7f800000u : (e + 112) << 23) | m << 13);

    return f32_of_bits(f32_bits(a) | sign);
}

/* T(x) */
HD static inline float
rt(float x, enum dtype t)
{
    return t == DT_BF16 ? bf16_round(x) : t == DT_F16 ? f16_round(x) : x;
}

/* FP4 E2M1: 0 .5 1 1.5 2 3 4 6.  Ties go to the even code; |x| > 6 saturates. */
HD static inline uint8_t
e2m1_from_f32(float x)
{
    float a = f32_abs(x);
    int m = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f)
          + (a > 2.5f)  + (a >= 3.5f)  + (a > 5.0f);

    return (uint8_t)(m | (int)(f32_bits(x) >> 31) << 3);
}

HD static inline float
e2m1_to_f32(uint8_t c)
{
    int m = c & 7;
    float a = m < 4 ? 0.5f * (float)m : m < 6 ? (float)(m - 2) : (float)(2 * m - 8);

    return c & 8 ? -a : a;
}

/* The value itself, sign of zero kept. Below 1 the step is .5, which is the last bit of numbers in [2^22, 2^23). */
HD static inline float
e2m1_round(float x)
{
    float a = f32_abs(x), b = a < 6.0f ? a : 6.0f;
    float n = f32_drop(b, 22), s = (b + 6291456.0f) - 6291456.0f;

    n = b < 1.0f ? s : n;
    return f32_of_bits(f32_bits(n) | (f32_bits(x) & 0x80000000u));
}

/* FP8 E4M3FN:  s eeee mmm, bias 7, largest 448 = 0x7e, 0x7f and 0xff NaN, no infinity; |x| > 448 saturates.
 * Below 2^-6 the step is 2^-9, which is the last bit of numbers in [2^14, 2^15). */
HD static inline float
e4m3_round(float x)
{
    uint32_t sign = f32_bits(x) & 0x80000000u;
    float a = f32_abs(x), b = a < 448.0f ? a : 448.0f;
    float n = f32_drop(b, 20), s = (b + 24576.0f) - 24576.0f;

    n = b < 0x1p-6f ? s : n;
    n = a == a ? n : f32_of_bits(0x7fc00000u);
    return f32_of_bits(f32_bits(n) | sign);
}

/* The codes of values on the grids, as wide as the values so that vector loops need not change width. */
HD static inline uint32_t
e4m3_bits(float v)
{
    float a = f32_abs(v), small = a < 0x1p-6f ? a : 0.0f;
    uint32_t c = (f32_bits(a) >> 20) - (120u << 3), sub = (uint32_t)(int32_t)(small * 512.0f);

    c = a < 0x1p-6f ? sub : c;
    c = a == a ? c : 0x7f;
    return c | (f32_bits(v) >> 31) << 7;
}

HD static inline uint32_t
e2m1_bits(float v)
{
    float a = f32_abs(v), m = a < 4.0f ? a + 2.0f : 0.5f * a + 4.0f;

    m = a < 2.0f ? a + a : m;
    return (uint32_t)(int32_t)m | (f32_bits(v) >> 31) << 3;
}

HD static inline uint8_t
e4m3_from_f32(float x)
{
    return (uint8_t)e4m3_bits(e4m3_round(x));
}

HD static inline float
e4m3_to_f32(uint8_t c)
{
    uint32_t e = (c >> 3) & 15, m = c & 7u, sign = (uint32_t)(c >> 7) << 31;
    float a = e == 0 ? (float)m * 0x1p-9f : f32_of_bits((e + 120) << 23 | m << 20);

    a = (c & 0x7f) == 0x7f ? f32_of_bits(0x7fc00000u) : a;
    return f32_of_bits(f32_bits(a) | sign);
}

/* E8M0: the byte E means 2^(E - 127). E = 0 is a subnormal f32, E = 255 (from magnitudes above 1.75 2^127) infinity. */
HD static inline float
e8m0_to_f32(uint8_t e)
{
    return f32_of_bits(e == 0 ? 0x00400000u : (uint32_t)e << 23);
}

HD static inline uint8_t
e8m0_from_f32(float pow2)
{
    return (uint8_t)(f32_bits(pow2) >> 23);
}

/* The exponent for a group whose largest magnitude is a: the next power of two when the mantissa is at least 1.75, less
 * off = floor(log2(largest grid value)): 2 for e2m1, 8 for e4m3. */
HD static inline uint8_t
e8m0_of_absmax(float a, int off)
{
    int e = (int)((f32_bits(a) + (1u << 21)) >> 23 & 0xff);

    return (uint8_t)(e == 255 ? e : e < off ? 0 : e - off);
}

HD static inline float
q_min(const struct qspec *s)
{
    return s->grid == GRID_INT ? -(float)(1 << (s->bits - 1)) : s->grid == GRID_E2M1 ? -6.0f : -448.0f;
}

HD static inline float
q_max(const struct qspec *s)
{
    return s->grid == GRID_INT ? (float)((1 << (s->bits - 1)) - 1) : s->grid == GRID_E2M1 ? 6.0f : 448.0f;
}

/* int b: clamped before it is rounded. */
HD static inline float
int_round(float x, float lo, float hi)
{
    return f32_rne(f32_clamp(x, lo, hi));
}

/* The grid value nearest to t. */
HD static inline float
q_grid(const struct qspec *s, float t)
{
    return s->grid == GRID_INT  ? int_round(t, q_min(s), q_max(s))
         : s->grid == GRID_E2M1 ? e2m1_round(t) : e4m3_round(t);
}

/* Between a grid value and its code: the low byte of the bits. */
HD static inline uint32_t
q_bits(const struct qspec *s, float k)
{
    return s->grid == GRID_INT ? (uint32_t)(int32_t)k : s->grid == GRID_E2M1 ? e2m1_bits(k) : e4m3_bits(k);
}

HD static inline uint8_t
q_code(const struct qspec *s, float k)
{
    return (uint8_t)q_bits(s, k);
}

HD static inline float
q_value(const struct qspec *s, uint8_t code)
{
    return s->grid == GRID_INT ? (float)(int8_t)code : s->grid == GRID_E2M1 ? e2m1_to_f32(code) : e4m3_to_f32(code);
}

/* What weights are divided by: a scale of type e4m3 is relative to the tensor's global scale. */
HD static inline float
q_step(const struct qspec *s, float scale, float global_scale)
{
    return s->scale == DT_F8_E4M3 ? scale / global_scale : scale;
}

/* True when steps are of type T, and products and quotients of T values are T values. */
HD static inline int
q_in_t(const struct qspec *s)
{
    return s->scale == s->t;
}

/* Plain rounding of w (a value of T), as compressed-tensors does it on saving: quotient and sum in T, too. The sum
 * turns -0 into +0 as the library's symmetric zero point does, but a small negative w still rounds to -0. */
HD static inline float
q_round(const struct qspec *s, float w, float step, float zero)
{
    float t = w / step;

    if (q_in_t(s))
        t = rt(rt(t, s->t) + zero, s->t);
    else
        t = t + zero;
    return q_grid(s, t);
}

/* Rounding in the column loop of GPTQ, where w is any f32. There is no -0: the library rounds the result again when
 * it saves, which removes it. */
HD static inline float
q_round_loop(const struct qspec *s, float w, float step, float zero)
{
    return q_grid(s, w / step + zero) + 0.0f;
}

/* The value of k that inference will see. */
HD static inline float
q_dequant(const struct qspec *s, float k, float step, float zero)
{
    return rt((k - zero) * step, s->t);
}

/* The same as the loop sees it: in f32 for global scales and for v10. */
HD static inline float
q_dequant_loop(const struct qspec *s, float k, float step, float zero)
{
    float q = (k - zero) * step;

    return q_in_t(s) && !s->v10 ? rt(q, s->t) : q;
}

/* The code to store for the loop's value q of grid value k. v10 rounds q and the scale to T and then rounds again. */
HD static inline uint8_t
q_code_loop(const struct qspec *s, float k, float q, float scale, float global_scale, float zero)
{
    float step = q_step(s, q_in_t(s) ? rt(scale, s->t) : scale, global_scale);

    return q_code(s, s->v10 ? q_round(s, rt(q, s->t), step, zero) : k);
}

#define Q_ZERO 1e-8f /* magnitudes up to this are zeros to keep, where v10 keeps zeros */

/* Scales of a [rows, cols] weight are a [q_scale_rows, q_scale_cols] matrix. */
HD static inline int
q_scale_rows(const struct qspec *s, int rows)
{
    return s->strategy == STRATEGY_TENSOR ? 1
         : s->strategy == STRATEGY_BLOCK ? (rows + s->block_rows - 1) / s->block_rows : rows;
}

HD static inline int
q_scale_cols(const struct qspec *s, int cols)
{
    return s->strategy == STRATEGY_TENSOR || s->strategy == STRATEGY_CHANNEL ? 1
         : (cols + s->group - 1) / s->group;
}

HD static inline int
q_scale_row(const struct qspec *s, int row)
{
    return s->strategy == STRATEGY_TENSOR ? 0 : s->strategy == STRATEGY_BLOCK ? row / s->block_rows : row;
}

HD static inline int
q_scale_col(const struct qspec *s, int col)
{
    return s->strategy == STRATEGY_TENSOR || s->strategy == STRATEGY_CHANNEL ? 0 : col / s->group;
}

HD static inline size_t
q_scale_index(const struct qspec *s, int row, int col, int cols)
{
    return (size_t)q_scale_row(s, row) * (size_t)q_scale_cols(s, cols) + (size_t)q_scale_col(s, col);
}

#endif
