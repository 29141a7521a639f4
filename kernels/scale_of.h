/* scale_of - the scale and zero point of one region, for C and for nvcc; kernels/scale.h has the rules */
#ifndef LLMC_SCALE_OF_H
#define LLMC_SCALE_OF_H

#include "quant.h"

#include <math.h>

#define SCALE_OF HD static inline __attribute__((always_inline))

/* The type in which scales are computed. */
HD static inline enum dtype
scale_type(const struct qspec *spec)
{
    return spec->v10 ? DT_F32 : spec->t;
}

HD static inline float
scale_epsilon(enum dtype t)
{
    return t == DT_BF16 ? 0x1p-7f : t == DT_F16 ? 0x1p-10f : 0x1p-23f;
}

HD static inline int8_t
scale_zero_point(const struct qspec *spec, float min, float scale)
{
    enum dtype t = scale_type(spec);

    if (scale == 0 && min == 0)
        return 0; /* 0 / 0 in the library, which its cast to int8 makes 0 */
    return (int8_t)int_round(rt(q_min(spec) - rt(min / scale, t), t), q_min(spec), q_max(spec));
}

/* min <= 0 <= max. zero may be NULL when spec is symmetric. */
HD static inline void
scale_of_range(const struct qspec *spec, float min, float max, float global_scale, float *scale, int8_t *zero)
{
    enum dtype t = scale_type(spec);
    float a = -min > max ? -min : max, range = q_max(spec) - q_min(spec), s, eps = scale_epsilon(t);

    if (spec->scale == DT_F8_E8M0) {
        s = e8m0_to_f32(e8m0_of_absmax(a, spec->grid == GRID_E2M1 ? 2 : 8));
    } else if (spec->scale == DT_F8_E4M3) {
        s = e4m3_round(rt(a / q_max(spec), t) * global_scale);
        eps = 0.125f;
    } else if (spec->grid != GRID_INT) {
        s = rt(a / q_max(spec), t);
    } else if (spec->symmetric) {
        s = rt(a / (range / 2), t);
    } else {
        s = rt(rt(max - min, t) / range, t);
        *zero = scale_zero_point(spec, min, s);
    }
    *scale = s == 0 ? eps : s;
}

/* Factor i of a search: 1, then steps of them from hi down to lo. */
HD static inline float
scale_factor(float lo, float hi, int steps, int i)
{
    return i == 0 ? 1.0f : steps == 1 ? hi : hi - (hi - lo) * (float)(i - 1) / (float)(steps - 1);
}

/* d |e|^norm: 2 and 3 without a call. */
SCALE_OF float
scale_power(float e, float d, double norm)
{
    float a = f32_abs(e);

    return norm == 2.0 ? e * e * d : norm == 3.0 ? e * e * a * d : powf(a, (float)norm) * d;
}

/* Rounding by the reciprocal: a choice among scales needs no exact ties. */
SCALE_OF float
scale_error(const struct qspec *s, float w, float inverse, float step, float zero)
{
    return (q_grid(s, w * inverse + zero) - zero) * step - w;
}

#endif
