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

/* How a region's range is chosen. MINMAX takes its extremes. */
enum observer { OBSERVER_MINMAX, OBSERVER_COUNT };

struct scale_opts {
    enum observer observer;
    const float  *diag; /* of H, [cols]: weights of a search; NULL: all alike */
    double        max_shrink, norm; /* of a search */
    int           grid, patience;
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

/* What is written to disk of a scale: rounded to T (v10 keeps more in the loop), unchanged for e4m3 and e8m0. */
void scale_store(const struct qspec *spec, float *scale, size_t count);

#endif
