/* scales - a task's weights and the scales they are rounded with
 *
 * Scales are chosen from the source's weights before anything is rounded, by the observer that the recipe names.
 */
#ifndef LLMC_SCALES_H
#define LLMC_SCALES_H

#include "hess.h"
#include "run.h"

/* What is compared for a report alone is looked at on every so many-th row of a task, at least SCALES_ROWS of them. */
enum { SCALES_SHARE = 8, SCALES_ROWS = 64 };

struct task_weights {
    int     rows;         /* of the task, or those that were kept */
    float  *w;            /* [rows, cols] exact from T; or corrected */
    float  *scale;        /* [q_scale_rows, q_scale_cols] as stored */
    int8_t *zero;         /* NULL: symmetric */
    int    *scale_col;    /* [cols] the group of each column; NULL: of neighbours */
    float   global_scale; /* shared with the modules that the runtime fuses with it; 1: none */
};

/* diag [cols]: what weighted searches weigh columns by; NULL: all alike. order [cols]: column at each position of the
 * factor, where groups are of columns in the order in which they are rounded, from the last position down; NULL: of
 * neighbours. m: correct the weights first (correct.h); NULL: do not. every: 1, or of every so many-th row alone
 * (scales_every). RC_DATA: weights are not finite, or of another shape than the plan's. */
int  scales_choose(struct task_weights *out, struct run *run, const struct task *t, const struct qspec *q,
    const float *diag, const int *order, const float *m, int every);
void scales_free(struct task_weights *w);

/* How thin rows may be taken without changing what the scheme does to them: 1 if all share a scale. */
int  scales_every(const struct qspec *q, int rows);
/* Those rows of an array, `bytes` each: the number of them. unit: rows that share scales. out may be in. */
int  scales_thin(void *out, const void *in, size_t bytes, int rows, int unit, int every);
int  scales_unit(const struct qspec *q);

/* Whether so many weights of the task's module are 0 that LLM Compressor 0.10 keeps them: a twentieth. */
int scales_sparse(struct run *run, const struct task *t, bool *sparse);

/* The diagonal of H over its mean, so that sums of it are of any size's order; [n]. */
void scales_diag(const struct hess *h, float *diag);

#endif
