/* scales - a task's weights and the scales they are rounded with
 *
 * Scales are chosen from the source's weights before anything is rounded, by the observer that the recipe names.
 */
#ifndef LLMC_SCALES_H
#define LLMC_SCALES_H

#include "hess.h"
#include "run.h"

struct task_weights {
    float  *w;            /* [rows of the task, cols] exact from T */
    float  *scale;        /* [q_scale_rows, q_scale_cols] as stored */
    int8_t *zero;         /* NULL: symmetric */
    float   global_scale; /* shared with the modules that the runtime fuses with it; 1: none */
};

/* diag [cols]: what weighted searches weigh columns by; NULL: all alike. RC_DATA: weights are not finite, or of another
 * shape than the plan's. */
int  scales_choose(struct task_weights *out, struct run *run, const struct task *t, const struct qspec *q,
    const float *diag);
void scales_free(struct task_weights *w);

/* The diagonal of H over its mean, so that sums of it are of any size's order; [n]. */
void scales_diag(const struct hess *h, float *diag);

#endif
