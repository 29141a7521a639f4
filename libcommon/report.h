/* report - what the log of a work directory says about a run
 *
 * Events of log/TOOL.RANK.jsonl by task and by step and rank; of several runs over one directory, the last of each.
 * Times are seconds, moments those of the hosts' clocks. Lines that are cut or no JSON are skipped and counted.
 *
 * The sums of a step are under way from when the last rank has begun to reduce (before that one waits for its samples)
 * until a rank has the last of its sums. What of that lies inside a task of the same rank is hidden behind compression.
 */
#ifndef LLMC_REPORT_H
#define LLMC_REPORT_H

#include "plan.h"

struct report_task {
    bool   there;
    char   method[24];
    int    rank;
    double end, seconds, factor;   /* moment; of it all, of the factor that it paid for */
    double loss, rtn_loss, damp;   /* NAN: none */
};

/* One rank in one step. */
struct report_cell {
    int    calib, hessian, gptq;   /* run, as counted by their "start" */
    double step, waited;           /* of llmc-calib: all, and for modules */
    double products, handover;     /* of llmc-hessian: X'X; Hessians that were handed to llmc-gptq */
    double begun, last;            /* moments: reduction begins, last sum is there; 0: none */
    double lag, reduce, hidden;    /* others begin later; after that; of it, inside a task */
    double compress, factor, publish, state; /* publish: within compress */
    double first_task, last_task;  /* moments */
    double apart[2], size[2];      /* |x_f - x|^2, |x_f|^2 behind the step: of blocks in the sums, of those kept out */
};

struct report_rank {
    char host[65];
    int  threads;
    int  run[3];                   /* starts of calib, hessian, gptq */
};

struct report {
    const struct plan  *p;
    int                 ranks, bad_lines;
    struct report_task *tasks;     /* [p->task_count] */
    struct report_cell *cells;     /* [p->step_count][ranks] */
    struct report_rank *rank;      /* [ranks] */
    double              first, last; /* moments */
};

/* The plan must outlive it. RC_NOINPUT: there is no log. */
int  report_read(struct report *r, const struct plan *p);
void report_free(struct report *r);

struct report_cell *report_cell(const struct report *r, int step, int rank);
/* |x_f - x|^2 over |x_f|^2 behind a step, of all ranks: of blocks in the sums, of those kept out (NAN: none). false:
 * the log has neither. */
bool report_distance(const struct report *r, int step, double distance[2]);

#endif
