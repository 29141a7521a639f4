/* progress - how far a tool is, its rate, and the time left: a status line on a terminal, elsewhere a line at times */
#ifndef LLMC_PROGRESS_H
#define LLMC_PROGRESS_H

#include "msg.h"

struct progress {
    const char *tool, *unit; /* "llmc-gptq", "modules" */
    int         done, total;
    double      start, said; /* clock: at the start, at the last plain line */
};

void progress_start(struct progress *p, const char *tool, const char *unit, int total);
/* One more is done; what: "step 3 of 12", of the unit that follows. */
void progress_step(struct progress *p, const char *what, ...) PRINTF(2, 3);

#endif
