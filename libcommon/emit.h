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

/* Frames go to fd; shared: through memory shared with the reader, with room for the largest of the blocks' inputs. */
void emit_open(struct emit *e, int fd, bool shared, const struct fwd_block *blocks, int count);
/* block: its number in the plan; bf: the original's block, NULL without a second stream. RC_IO: also where the reader
 * went away. */
int emit_block(struct emit *e, int step, int block, const struct fwd_block *b, const struct fwd_block *bf);

#endif
