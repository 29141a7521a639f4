/* ops - the inner loops of the cpu backend, one table for each instruction set
 *
 * kernels/cpu/ops_impl.h is compiled once for each (ops_c.c, ops_avx2.c, ops_avx512.c). Reductions run over OPS_LANES
 * fixed lanes and no variant contracts or reorders, so that all tables give the same bytes.
 */
#ifndef LLMC_CPU_OPS_H
#define LLMC_CPU_OPS_H

#include "../backend.h"

#include <stddef.h>

enum {
    OPS_LANES  = 16, /* of a reduction, and columns of a panel */
    OPS_MR     = 8,  /* rows of a micro-tile: half a panel */
    OPS_NV_MAX = 3,  /* panels across a micro-tile */
    DISTANCE_PART = 512,
    SOFTMAX_KEYS = 128, /* of a partial sum of softmax_cols */
};

struct ops {
    const char *name;

    /* Rows of n: y = T(T(x r) w), r = 1 / sqrt(mean(x^2) + eps); with unit offset y = T(x r (1 + w)). */
    void (*rmsnorm)(void *y, const void *x, const void *w, enum dtype dt, int n, float eps, enum norm norm);
    void (*rope)(void *x, enum dtype dt, int half, const void *cos_t, const void *sin_t);
    void (*act_mul)(void *y, const void *g, const void *u, enum dtype dt, size_t n, enum act act);
    void (*add)(void *x, const void *y, enum dtype dt, size_t n);

    /* In place on s[n]: e^(x - max x), x = scale s; returns the sum, by which the caller divides. softcap 0: none. */
    float (*softmax)(float *s, int n, float scale, float softcap);
    /* Scores s[keys][16 nv] (stride ld), a column for each query, which sees keys first[c] <= key < end[c]: p panels of
     * [pairs][16] u32, pstride apart, become bf16 e^(x - max x), x = scale s, 0 for keys not seen and for an odd last
     * one; sum[c] is that of the exponentials before rounding: two chains, of even and odd keys, in each 128 keys. */
    void (*softmax_cols)(uint32_t *p, size_t pstride, float *s, int ld, int keys, int nv, float scale, float softcap,
        const int32_t *first, const int32_t *end, float *sum);
    /* The same panels as a model that materialises its scores rounds them: T(e / sum e), x = T(T(s) scale), and with a
     * softcap T(T(tanh T(x / softcap)) softcap). Values whose bf16 would be denormal become 0. s is spoilt. */
    void (*eager_cols)(uint32_t *p, size_t pstride, float *s, int ld, int keys, int nv, float scale, float softcap,
        const int32_t *first, const int32_t *end);
    /* log sum exp of n values, each T-rounded already. */
    double (*logsumexp)(const float *s, int n, float scale, float softcap);

    /* Panels of 16 columns, pstride apart: p[pairs][16] u32 = {x[2p][j], x[2p+1][j]}, j < width, an odd last row paired
     * with zero: contraction over rows. Lanes beyond width are zero. */
    void (*pack_rows)(uint32_t *p, size_t pstride, const uint16_t *x, size_t ld, int rows, int width);
    /* p[pairs][16] u32 = {x[r][2p], x[r][2p+1]}, r < rows <= 16, cols even or its last paired with zero. */
    void (*pack_cols)(uint32_t *p, const uint16_t *x, size_t ld, int rows, int cols);
    /* c[OPS_MR][16 nv] (row stride ldc) = or += sum over pairs of a[p][0..7] b[p][..]: within a pair first the odd
     * element by fma, then the even one, as vdpbf16ps does. b panels are bstride u32 apart. */
    void (*dot)(float *c, int ldc, const uint32_t *a, const uint32_t *b, size_t bstride, int pairs, int nv, bool add);
    /* acc[j] += rne(c[j] / (ui u[j])) (ui u[j]) for each of so many c, cstride apart; all factors are powers of two.
     * Exact while |sum| < 2^51 units. */
    void (*grid_add)(double *acc, const float *c, size_t cstride, int count, int n, double ui, const double *u);

    /* sums[2] = |xf - x|^2, |xf|^2 of n values, in f32 over DISTANCE_PART of them, then in f64. */
    void (*distance)(double *sums, const void *x, const void *xf, enum dtype dt, size_t n);

    /* Raises range to {-min, max} of x[n]; returns NaN if any is not finite, else 0. */
    float (*range)(float range[2], const float *x, int n);
    /* In place: the values that x[n] have after rounding with one step; the product is left to be rounded to T. */
    void (*round_act)(float *x, int n, const struct qspec *spec, float step, float zero);

    void (*to_f32)(float *y, const uint16_t *x, size_t n);
    void (*from_f32)(uint16_t *y, const float *x, size_t n);
    void (*scaled)(uint16_t *y, const float *x, float by, size_t n); /* bf16 of x by */
};

/* avx512_fma: AVX-512 with bf16, but products of pairs by f32 multiply-adds. */
extern const struct ops ops_c, ops_avx2, ops_avx512, ops_avx512_fma;

/* The best table for this processor; LLMC_ISA=c|avx2|avx512|avx512fma in the environment asks for one that is not above
 * it (tests). */
const struct ops *ops_find(void);
bool              ops_usable(const struct ops *o); /* on this processor */
/* oneDNN multiplies bf16 faster than f32 where this table is the one found. */
bool ops_bf16_products(const struct ops *o);

#endif
