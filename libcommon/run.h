/* run - what every stage opens: the plan, its model, a backend, the log
 *
 * Options that all stages share are RUN_OPTS rows in a tool's table. Rank and number of ranks come from the flags, else
 * from the launcher's environment; the log says from which.
 */
#ifndef LLMC_RUN_H
#define LLMC_RUN_H

#include "beat.h"
#include "budget.h"
#include "clock.h"
#include "event.h"
#include "forward.h"
#include "opt.h"
#include "plan.h"

struct run_opts {
    const char *dir, *backend;
    int         threads, rank, ranks;
    size_t      device_bytes, memory;
    bool        quiet, any_ranks; /* the plan's number of ranks is nothing to this stage */
};

#define RUN_OPTS_DEFAULT { .dir = ".", .rank = -1 }

#define RUN_OPTS(o)                                                                                            \
    OPT_STR('C', "workdir", &(o)->dir, "dir", "work directory (default: the current one)"),                    \
    OPT_INT('j', "threads", &(o)->threads, 1, 4096, "n", "threads (default: the processors that we may use)"), \
    OPT_STR(0, "backend", &(o)->backend, "name", "arithmetic: cpu, cuda, ref (default: the fastest here)"),    \
    OPT_SIZE(0, "device-memory", &(o)->device_bytes, "bytes",                                                  \
        "of a GPU's memory to use, as in 16G (default: nine tenths of what is free)"),                         \
    OPT_SIZE(0, "memory", &(o)->memory, "bytes",                                                               \
        "that we may use, as in 4G (default: the cgroup's or the machine's)"),                                 \
    OPT_INT(0, "rank", &(o)->rank, 0, 1 << 20, "n", "our rank (default: from the launcher, else 0)"),          \
    OPT_INT(0, "ranks", &(o)->ranks, 1, 1 << 20, "n", "number of ranks (default: from the launcher, else 1)"), \
    OPT_FLAG('q', "quiet", &(o)->quiet, "no progress")

struct run {
    struct plan           plan;
    struct model          model;
    struct arch           arch;
    const struct backend *bk;
    struct dev           *dev;
    struct event_log      log;
    enum dtype            dt; /* of activations: BF16 for a BF16 model, else F32 */
    int                   rank, ranks;
    char                  job[BEAT_JOB]; /* of ours and no earlier launch, where it has a name */
    struct beat           beat; /* of several ranks' calib and gptq; that of llmc-hessian is in peers.h */
    size_t                memory; /* bytes that we may use, */
    bool                  memory_asked; /* as an option said */
};

/* Reads the plan, opens model and backend; RC_DATA when the model is not the one that the plan was made from. */
int run_open(struct run *run, const char *tool, const struct run_opts *o);
/* Flushes stdout (RC_IO), ends the log, frees; returns the worse of rc and that. */
int run_close(struct run *run, int rc);

/* Whose memory a struct budget is about. run_budget tells the log, and on stderr a terminal or whoever gave --memory,
 * what is needed; RC_OS: more than there is. */
struct budget_of run_budget_of(const struct run *run);
int run_budget(struct run *run, const struct budget *b);
int run_need(struct run *run, enum budget_stage stage); /* the same of a stage that has one way to work */

/* The second line of --version. */
const char *run_built_with(void);

/* fwd_dense_fn over a run: a compressed module's rows as inference computes them, else the source's. */
int run_dense(void *run, const char *tensor, struct dense *out);
/* The source's rows, compressed or not. */
int run_source_dense(void *run, const char *tensor, struct dense *out);

/* Has the system read what this rank will need of a layer's source weights, unless they are more than a part of the
 * memory that we may use. A layer behind the last one is none. */
void run_ahead(struct run *run, int layer);

/* Blocks of this rank, in order: the next index after `after`, or -1. */
int run_next_block(const struct run *run, int after);
/* Token ids of a block; free both with mem_free. RC_DATA when they are not what the plan says. */
int run_block_tokens(const struct run *run, int block, int32_t **ids, int **lengths);

#endif
