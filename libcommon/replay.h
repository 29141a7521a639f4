/* replay - the measured times of a run on another number of ranks
 *
 * A step takes as long as its slowest rank: its share of the tokens, of what calibration took altogether; then its
 * rows, each as long as rows of that module took, and the factors that they need. Between the two the sums travel, at
 * an assumed speed, and nothing of that is counted as hidden. What is the same for any number of ranks is left out:
 * making the plan, writing the checkpoint.
 */
#ifndef LLMC_REPLAY_H
#define LLMC_REPLAY_H

#include "arch.h"
#include "report.h"

struct replay {
    int    ranks;
    double seconds, calibrate, reduce, compress; /* of the slowest rank of each step */
    double longest, imbalance;   /* task; compression's, steps' slowest rank over the mean */
};

struct replay_opts {
    double  link;    /* bytes a second into and out of a rank */
    double  latency; /* seconds of a message */
    int64_t tokens;  /* as if there were so many, in blocks as long as the plan's on average; 0: as there were */
};

/* Cuts and assigns p anew, as if nothing was done; p must have been read for this alone. */
int replay(struct replay *out, const struct report *r, struct plan *p, const struct arch *a,
    const struct replay_opts *o, int ranks);

#endif
