/* scale - scales and zero points from the original weights
 *
 * Arithmetic is done in T (f32 when spec->v10), as the libraries do it, so that what is returned is what is stored. A
 * call sees a range of rows; ranges may go to different threads and give the same values as one call. A range of a
 * BLOCK scheme starts at a multiple of block_rows; a TENSOR scheme needs absmax and extremes of the whole matrix: one
 * call with all rows, or scale_extremes() of the parts, merged, and scale_of_extremes().
 *
 * With tensor-group scales the global scale comes first, from the largest magnitude of all weights that share it
 * (q,k,v; gate,up): scale_global(absmax, t).
 *
 * Weights must be finite. Nothing here allocates, fails or knows files.
 */
#ifndef LLMC_SCALE_H
#define LLMC_SCALE_H

#include "quant.h"

/* How a region's range is chosen. MINMAX takes its extremes. SEARCH tries them times 1 and times `steps` factors from
 * hi down to lo, evenly spaced, and takes the first that gives the least
 *
 *     sum over its weights of d_j |w_rj - q_rj|^norm,    d_j = diag[j], or 1 without one,
 *
 * where q is what the scale of that range, as stored, makes of w by rounding to nearest. With d_j = H_jj and norm 2
 * that is the diagonal part of GPTQ's loss. Sums are kept in SCALE_LANES parts, so that all implementations of
 * scale_errors_fn agree to the bit. */
enum observer { OBSERVER_MINMAX, OBSERVER_SEARCH };

enum { SCALE_LANES = 16, SCALE_STEPS_MAX = 1024 };

struct candidate_scale {
    float scale, step, zero; /* as stored; what weights are divided by */
    float factor;
    float error;
};

/* Adds to error of each of count candidates that of w[n]; diag [n] or NULL. */
typedef void scale_errors_fn(const struct qspec *spec, const float *w, const float *diag, int n, double norm,
    struct candidate_scale *c, int count);

struct scale_opts {
    enum observer    observer;
    const float     *diag; /* [cols]; NULL: all alike */
    double           norm;
    float            lo, hi;
    int              steps; /* at most SCALE_STEPS_MAX */
    scale_errors_fn *errors; /* NULL: the plain one */
};

struct extremes {
    float min, max; /* min <= 0 <= max */
};

struct extremes scale_extremes(const float *w, size_t count);
struct extremes scale_merge(struct extremes a, struct extremes b);
float           scale_absmax(const float *w, size_t count);

/* 2688 / absmax in two roundings to T; 1 when that is not finite. */
float scale_global(float absmax, enum dtype t);

/* One region. zero may be NULL when spec is symmetric. global_scale: 1 without one. */
void scale_of_extremes(const struct qspec *spec, struct extremes x, float global_scale, float *scale, int8_t *zero);

/* rows of w [rows, cols], values of T, into scale and zero [q_scale_rows(rows), q_scale_cols(cols)], zero NULL when
 * symmetric; opts NULL: MINMAX. */
void scale_rows(const struct qspec *spec, const struct scale_opts *opts, const float *w, int rows, int cols,
    float global_scale, float *scale, int8_t *zero);

scale_errors_fn scale_errors;

/* What is written to disk of a scale: rounded to T (v10 keeps more in the loop), unchanged for e4m3 and e8m0. */
void scale_store(const struct qspec *spec, float *scale, size_t count);

#endif
