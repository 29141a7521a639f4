/* correct - targets that make up for what the modules before have lost
 *
 * GPTQ rounds a module so that it reproduces its own outputs on the inputs it will get, which carry the error of
 * everything before. With pairs of inputs (original.h) it can aim at the original's outputs instead: W is replaced by
 *
 *     W* = W (C + lambda I) (H + lambda I)^-1 = W + W M,   M = (C - H) (H + lambda I)^-1
 *
 * (kernels/ref/correct.c), and everything after, from the choice of scales on, works on W*. lambda is correct_lambda
 * times the mean diagonal of H, and more where there are few tokens for many channels: sums over T tokens leave M a
 * noise that grows with n / T, so with fewer than CORRECT_TOKENS n of them lambda is CORRECT_TOKENS n / T times that.
 */
#ifndef LLMC_CORRECT_H
#define LLMC_CORRECT_H

#include "hess.h"
#include "run.h"

enum { CORRECT_TOKENS = 8 };

/* What lambda is in units of the mean diagonal. */
double correct_lambda(double lambda, int n, int64_t tokens);

struct correction {
    float *m;        /* M [n, n]; NULL: none */
    double lambda;   /* as used, in the same units */
    double distance; /* of the inputs from the original's: hess_distance() */
};

/* Of a Hessian of pairs. lambda grows tenfold, in logged steps, until H + lambda I is positive definite. RC_DATA: not
 * of pairs. RC_NUMERIC: it never is. */
int  correct_open(struct correction *c, struct run *run, const struct hess *h, const char *task, double lambda);
void correct_close(struct correction *c);

/* W* of rows [rows, n] of a module, from the source's: mem_free it. RC_NUMERIC: not finite. */
int correct_rows(float **out, struct run *run, const float *w, const float *m, int rows, int n);

/* After GPTQ of corrected weights: logs what was lost of their outputs, and what GPTQ and plain rounding of the
 * source's own weights, with scales of their own, would have lost; the last of these in job->rtn_loss, too. Both are
 * estimates: what they lose on a sample of rows (scales_every), over what the corrected weights lose on the same rows,
 * times the loss of all rows. */
int correct_compare(struct gptq_job *job, struct run *run, const struct task *t, const struct correction *c,
    const float *diag);

#endif
