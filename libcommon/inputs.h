/* inputs - scales of activations: from what calibration saw to the tensors of a checkpoint, and from those to the
 * rounding of the forward pass
 *
 * Static scales belong to the inputs of a module ("input_scale", "input_zero_point", "input_global_scale") or to the
 * keys and values that an attention caches ("k_scale", "v_scale"); formulas are those of weights, on the extremes of
 * all tokens of all samples, zero among them. Ranges are {-min, max} as in struct hess.
 */
#ifndef LLMC_INPUTS_H
#define LLMC_INPUTS_H

#include "weights.h"

void inputs_free(struct inputs *in);

/* How activations of type t (BF16, F32) are rounded under a: all of *out but static scales. */
void inputs_rounding(const struct qargs *a, enum dtype t, struct rounding *out);

/* Adds the tensors of a scheme's static inputs, if it has any. t is the model's type. RC_OS. */
int inputs_pack(struct packed_tensors *p, const char *module, const struct scheme *s, enum dtype t,
    const float range[2]);
/* k_scale and v_scale; range [2 heads][2], those of keys first; heads that share a scale are merged. RC_OS. */
int inputs_pack_cache(struct packed_tensors *p, const char *attention, const struct qargs *a, enum dtype t, int heads,
    const float *range);

/* The rounding of a module's inputs of type t, from a checkpoint; *out is replaced and not to be copied, since it may
 * point into itself. RC_DATA: a scale is missing, of another shape, or not finite and positive. */
int inputs_find(struct inputs *out, const char *module, const struct scheme *s, enum dtype t, weights_find_fn *find,
    void *ctx);
/* The same of what an attention caches: which is "k" or "v". */
int inputs_find_cache(struct inputs *out, const char *attention, const char *which, const struct qargs *a, enum dtype t,
    int heads, weights_find_fn *find, void *ctx);

#endif
