/* shares - a limit of memory, shared between the stages of the pipelines that run on one machine */
#ifndef LLMC_SHARES_H
#define LLMC_SHARES_H

#include "budget.h"

extern const char *const budget_stages[BUDGET_STAGES]; /* "llmc-calib", ... */

/* Of the work directory's plan, for `pipelines` ranks here; memory 0: budget_limit(); threads 0: as many as
 * stages take that are not told. What stage[] and the whole of one pipeline need in the first way that fits. RC_OS:
 * none does. */
int shares_find(struct budget stage[BUDGET_STAGES], struct budget *all, struct budget_way *way, const char *dir,
    size_t memory, int pipelines, int threads);

#endif
