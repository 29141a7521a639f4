/* experts - what the router of a layer did, for the log and for whoever watches */
#ifndef LLMC_EXPERTS_H
#define LLMC_EXPERTS_H

#include "run.h"

/* Tokens that the router gave each expert of the step's layer (fwd.route.tokens), of this rank's blocks: an event
 * "experts" in the log, and a warning where experts are calibrated with those alone and some got too few. */
int experts_report(struct run *run, const struct fwd *f, int step);

#endif
