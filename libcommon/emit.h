/* emit - what llmc-calib sends of a block that enters a capture point
 *
 * Its inputs, if somebody wants them: alone, or in pairs with the original's; of each expert; and the ranges of what
 * its attention has cached. Nothing of a block that is kept out of the sums.
 */
#ifndef LLMC_EMIT_H
#define LLMC_EMIT_H

#include "original.h"
#include "stream.h"

struct emit {
    struct run       *run;
    struct fwd       *fwd;
    struct original  *original;
    struct stream_out out;
    bool             *want;       /* by point (arch_point_total): somebody wants its inputs in the step at hand, */
    bool              want_cache; /* and the ranges of its cache */
};

/* Sets want and want_cache for a step; wants NULL: nobody wants anything. RC_OS. */
int emit_look(struct emit *e, int step, bool (*wants)(const struct plan *p, const struct task *t));
/* block: its number in the plan; bf: the original's block, NULL without a second stream. RC_IO: also where the reader
 * went away. */
int emit_block(struct emit *e, int step, int block, const struct fwd_block *b, const struct fwd_block *bf);

#endif
