/* state - hidden states entering a step, saved so that a restart need not run the model from the start
 *
 * State is a cache: it follows from the tokens and the compressed weights, so a missing one only costs forward passes.
 */
#ifndef LLMC_STATE_H
#define LLMC_STATE_H

#include "run.h"

/* Where states and frames lie, so that llmc-calib stays within its memory. */
struct state_place {
    struct spill *spill;       /* a file for states; NULL: memory. spill_close it after the blocks */
    size_t        frame_bytes; /* of the largest input */
    int           frames;      /* in shared memory; 0: none */
};

/* Says what is needed. piped: frames have a reader. RC_OS: more than there is, however it is done; RC_CANTCREATE. */
int state_place(struct state_place *out, struct run *run, bool piped);

/* original: of the second stream (original.h). */
int state_save(struct run *run, int step, int block, const struct fwd_block *b, bool original);
/* b is initialised for its tokens */
int state_load(struct run *run, int step, int block, struct fwd_block *b, bool original);
/* Of all these blocks, and of the second stream unless NULL; then those at other steps go. */
int state_save_all(struct run *run, int step, const int *ids, int count, const struct fwd_block *blocks,
    const struct fwd_block *original);
/* The latest step, at most `step`, whose states of all these blocks exist, of all streams; 0: none. */
int state_find(const struct run *run, int step, const int *blocks, int count);
/* Removes the states of these blocks at all other steps. */
void state_drop(const struct run *run, int step, const int *blocks, int count);

#endif
