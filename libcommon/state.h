/* state - hidden states entering a step, saved so that a restart need not run the model from the start
 *
 * State is a cache: it follows from the tokens and the compressed weights, so a missing one only costs forward passes.
 */
#ifndef LLMC_STATE_H
#define LLMC_STATE_H

#include "run.h"

/* original: of the second stream (original.h). */
int state_save(struct run *run, int step, int block, const struct fwd_block *b, bool original);
/* b is initialised for its tokens */
int state_load(struct run *run, int step, int block, struct fwd_block *b, bool original);
/* The latest step, at most `step`, whose states of all these blocks exist, of all streams; 0: none. */
int state_find(const struct run *run, int step, const int *blocks, int count);
/* Removes the states of these blocks at all other steps. */
void state_drop(const struct run *run, int step, const int *blocks, int count);

#endif
