/* clock - seconds of a clock that only goes forward, also while we are stopped; safe in a signal handler */
#ifndef LLMC_CLOCK_H
#define LLMC_CLOCK_H

#include <time.h>

static inline double
clock_seconds(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
