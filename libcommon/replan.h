/* replan - give what is not done of a plan to another number of ranks
 *
 * Links under weights/ are those of the new tasks before tasks.tsv names them, and those of the old ones go last; a
 * replan that was killed is done again by the same call. Hidden states stay where they are: they belong to blocks.
 */
#ifndef LLMC_REPLAN_H
#define LLMC_REPLAN_H

#include "plan.h"

/* RC_RETRY: a rank is at work on this machine. */
int replan_plan(struct plan *p, int ranks);
int replan(const char *dir, int ranks);

#endif
