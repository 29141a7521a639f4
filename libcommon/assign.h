/* assign - which rank runs which blocks and compresses which rows
 *
 * Blocks go by their tokens, the longest first, each to the rank with the fewest. The tasks of a step go by their cost
 * in the same way; a rank that has any task of an input pays for its factorisation (n^3 / 3), once, and for each row
 * n^2. Then the largest task of the busiest rank is cut by rows again and again, while that shortens the step.
 *
 * Nothing here decides a byte of the result: rows are independent, and sums are exact.
 */
#ifndef LLMC_ASSIGN_H
#define LLMC_ASSIGN_H

#include "plan.h"

/* Multiply-adds. */
double assign_factor_cost(int cols);
double assign_input_cost(const struct plan *p, const struct task *t); /* factorisation; of corrected ones, all of M */
double assign_rows_cost(const struct plan *p, const struct task *t); /* without that */

/* Cuts and assigns anew whatever is not done; a module of which a part is done keeps its cuts. Sets p->ranks. RC_OS. */
int assign_ranks(struct plan *p, int ranks);

/* Whether task i of the step whose first is first_task is its rank's first of its input, and so pays for the factor. */
bool assign_pays(const struct plan *p, int first_task, int i);

#endif
