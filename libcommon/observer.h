/* observer - how scales are chosen, by LLM Compressor's names
 *
 * A table: each name is a plain range (minmax and its kin) or a search over scales (kernels/scale.h). For weights the
 * running forms of a name mean the memoryless one, as they do in LLM Compressor: weights do not change. observer_kwargs
 * of searches are its: maxshrink, grid, norm, expand; others of its keys are read and change nothing here.
 */
#ifndef LLMC_OBSERVER_H
#define LLMC_OBSERVER_H

#include "../kernels/scale.h"

#include <jansson.h>
#include <stdbool.h>

/* The table's spelling of a name in any case, with hyphens or spaces for underscores; RC_DATA: unknown. */
int  observer_find(const char *text, const char **name);
/* Searches that weigh columns by the diagonal of H need calibration. */
bool observer_weighted(const char *name);

/* For weights of spec; kwargs NULL: none; ->diag and ->errors are the caller's. RC_DATA: kwargs that the library would
 * not take. */
int observer_opts(const char *name, const json_t *kwargs, const struct qspec *spec, struct scale_opts *out);

#endif
