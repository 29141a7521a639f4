/* ahead - weights of the next step on their way to the device while it computes the one at hand */
#include "ahead.h"

void
ahead_fetch(struct fwd *f, struct original *o, const struct run *run, int step, int last, bool capturing)
{
    const struct step *next = &run->plan.steps[step + 1];

    if (step >= last)
        return;
    if (run->plan.sequential != SEQUENTIAL_INPUT) {
        if (capturing == (run->plan.sequential == SEQUENTIAL_NONE))
            fwd_fetch(f, run_source_dense, next->layer, 0, POINT_COUNT);
    } else if (o->on && !capturing && step + 1 < last) {
        fwd_fetch(&o->fwd, run_source_dense, next->layer, next->first_point, next->end_point);
    }
}
