/* ahead - weights of the next step on their way to the device while it computes the one at hand (fwd_fetch) */
#ifndef LLMC_AHEAD_H
#define LLMC_AHEAD_H

#include "original.h"

/* capturing: the step's inputs are being emitted with weights as they stood; else its blocks go on through weights as
 * they are now. Only the source's weights are known before their step: those of compressed modules are not. */
void ahead_fetch(struct fwd *f, struct original *o, const struct run *run, int step, int last, bool capturing);

#endif
