/* scale_impl - errors_of(), the inner loop of a scale search; included where it is compiled for an instruction set
 *
 * SCALE_TARGET, when defined, is the attribute that chooses it. Fixed lanes, no contraction: the same bits in each.
 */
#include "scale.h"
#include "scale_of.h"
#include "special.h"

#ifndef SCALE_TARGET
#define SCALE_TARGET
#endif

#define SCALE_INLINE SCALE_TARGET static inline __attribute__((always_inline))

SCALE_INLINE void
errors_for(const float *restrict w, const float *restrict diag, int n, double norm, struct candidate_scale *c,
    int count, const struct qspec s)
{
    int whole = n / SCALE_LANES * SCALE_LANES;

    for (int k = 0; k < count; k++) {
        float sum[SCALE_LANES] = { 0 }, step = c[k].step, zero = c[k].zero, inverse = 1.0f / step, total = 0;

        for (int i = 0; i < whole; i += SCALE_LANES)
            for (int j = 0; j < SCALE_LANES; j++)
                sum[j] += scale_power(scale_error(&s, w[i + j], inverse, step, zero),
                    diag != NULL ? diag[i + j] : 1.0f, norm);
        for (int i = whole; i < n; i++)
            sum[i - whole] += scale_power(scale_error(&s, w[i], inverse, step, zero),
                diag != NULL ? diag[i] : 1.0f, norm);
        for (int j = 0; j < SCALE_LANES; j++)
            total += sum[j];
        c[k].error += total;
    }
}

/* The norm and the presence of diag as constants. */
SCALE_INLINE void
errors_norm(const float *w, const float *diag, int n, double norm, struct candidate_scale *c, int count,
    const struct qspec s)
{
    if (norm == 2.0 && diag != NULL)
        errors_for(w, diag, n, 2.0, c, count, s);
    else if (norm == 2.0)
        errors_for(w, NULL, n, 2.0, c, count, s);
    else
        errors_for(w, diag, n, norm, c, count, s);
}

SCALE_TARGET static void
errors_of(const struct qspec *spec, const float *w, const float *diag, int n, double norm, struct candidate_scale *c,
    int count)
{
    if (spec->grid == GRID_INT)
        errors_norm(w, diag, n, norm, c, count, QSPEC_CONST(spec, GRID_INT, DT_F32, DT_F32));
    else if (spec->grid == GRID_E4M3)
        errors_norm(w, diag, n, norm, c, count, QSPEC_CONST(spec, GRID_E4M3, DT_F32, DT_F32));
    else
        errors_norm(w, diag, n, norm, c, count, QSPEC_CONST(spec, GRID_E2M1, DT_F32, DT_F32));
}
