/* predict - what a plan will take, by rates that are measured on this machine
 *
 * A step takes as long as its slowest rank: the forward pass and the products of its own tokens, then its own tasks.
 * Between the two the sums travel: a rank with tasks gets 2 (ranks - 1) / ranks of each sum's bytes at the assumed
 * speed of a link, and nothing of that is counted as hidden. Products of an expert's own input are not counted, nor is
 * what is the same for any number of ranks: making the plan, writing the checkpoint.
 */
#ifndef LLMC_PREDICT_H
#define LLMC_PREDICT_H

#include "plan.h"

struct rates { /* multiply-adds a second of all threads; bytes a second */
    double forward, products, factor, rows, link;
    int    threads;
};

struct prediction {
    int    ranks;
    double seconds;
    double calibrate, reduce, compress; /* of these */
    double longest;     /* task, seconds */
    double imbalance;   /* of compression: the busiest rank over the mean, whole run */
    double memory;      /* of one rank's three processes at one moment, bytes (budget.h) */
    double least;       /* the same with states on disk and one frame at a time */
    double disk;        /* work directory and checkpoint's weights, bytes */
    double one;         /* seconds of one rank */
};

/* About a second of arithmetic. */
int predict_rates(struct rates *r, const struct backend *bk, struct dev *dev, enum dtype dt);

struct predict_step { /* seconds of its slowest rank */
    double calibrate, reduce, compress;
};

/* As the plan is assigned; steps: [p->step_count], or NULL. Blocks must be there. */
int predict_assigned(struct prediction *out, const struct plan *p, const struct arch *a, const struct rates *r,
    struct predict_step *steps);
/* Assigns the plan to so many ranks first. */
int predict(struct prediction *out, struct plan *p, const struct arch *a, const struct rates *r, int ranks);

#endif
