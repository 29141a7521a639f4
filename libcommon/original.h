/* original - the second stream of hidden states: what the original model computes for the same tokens
 *
 * Where targets are corrected (llmc-gptq(1)), llmc-calib runs every block twice: through the model as it stands, and,
 * with weights of the source, through the original. Both enter each point together, so that their inputs are pairs,
 * row by row. Where experts get the rows that are routed to them, both streams take the rows that the compressed model
 * routes.
 *
 *     original_open; the caller fills blocks as it does its own
 *     each step: original_pass, which needs no weight that is compressed; or, where inputs of several points are sent
 *     on the way, as the first stream: original_load, original_step of every block; original_unload
 */
#ifndef LLMC_ORIGINAL_H
#define LLMC_ORIGINAL_H

#include "run.h"

/* Distances are for a report alone: of so many blocks of the sums one is looked at. */
enum { ORIGINAL_SHARE = 8 };

struct original {
    bool              on;     /* false: all functions do nothing */
    struct run       *run;
    struct fwd        fwd;
    struct fwd_block *blocks; /* as many as the caller's, in its order */
    int               count;
    int               passed; /* the last step that all blocks are through, or -1 */
};

int  original_open(struct original *o, struct run *run, int blocks, bool eager);
void original_close(struct original *o); /* harmless on a zeroed struct */

int  original_norms(struct original *o, int layer);
/* Weights for points [first, end) of a layer, or of its router alone where first is end. */
int  original_load(struct original *o, int layer, int first, int end);
void original_unload(struct original *o);
int  original_step(struct original *o, struct fwd_block *b);
/* All blocks through a step, unless they are through it (o->passed): they wait for nobody, so it is done while others
 * compress its modules. RC_RETRY: told to stop. */
int  original_pass(struct original *o, int step);

/* The input of b's point. */
int  original_input(struct original *o, const struct fwd_block *b, const void **x);
/* Of experts: x = norm(x) with the routes that the first stream has just taken for the same rows; then of expert e. */
int  original_route(struct original *o, const struct fwd_block *b, const struct fwd *first, const void **x);
int  original_expert(struct original *o, const struct fwd_block *b, const void *x, int e, bool all, const void **in);

/* A copy of b to go on with, while b waits. */
int  original_copy(const struct fwd *f, struct fwd_block *to, const struct fwd_block *b);

/* How far what follows a step is from the original: sums over rows of |x_f - x|^2 and of |x_f|^2, of what waits at b's
 * point or else of the residual stream. */
int  original_distance(const struct original *o, const struct fwd_block *b, int i, double *apart, double *size);

#endif
