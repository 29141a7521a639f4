/* comm - how the ranks of a run add up their Hessians
 *
 * A communicator is a row of a table: self (one rank), mpi (where compiled in and under an MPI launcher), nccl (the
 * same, with sums between devices; only where asked for), files (partial sums in the work directory: needs nothing but
 * a file system that all ranks see). What passes:
 *
 *   - the grid of each input, from the owner of the plan's first block to everybody: comm_grid;
 *   - each input's sum, from all ranks with blocks to all ranks with tasks of it: comm_start for every input of the
 *     step, then comm_next until it says that all are there. Additions are exact, so any order gives the same bytes.
 *
 * Nobody waits for one who left: whoever waits looks at the others (peers.h), and a rank that failed, is gone, has not
 * started or is silent for the time limit ends the wait with RC_RETRY and a sentence that names it.
 */
#ifndef LLMC_COMM_H
#define LLMC_COMM_H

#include "hess.h"
#include "peers.h"
#include "run.h"

struct comm {
    const struct comm_kind *kind;
    struct run  *run;
    int          rank, ranks;
    struct peers peers;
    bool        *gives;                /* by rank: it has blocks */
    char         partition[DIGEST_HEX]; /* of blocks over ranks */
    void        *own, *share;          /* of the kind */
};

/* One input's sum on its way. */
struct comm_sum {
    int          step;
    enum point   point;
    struct hess *h;     /* ours; where takes[our rank], the whole sum in the end */
    const bool  *takes; /* by rank: it wants the whole sum */
    bool         done, returned;
    void        *own;   /* of the kind */
};

struct comm_kind {
    const char *name;
    bool (*usable)(const struct comm *c); /* chosen without being asked for */
    int  (*open)(struct comm *c);
    void (*close)(struct comm *c, int rc);
    int  (*give_grid)(struct comm *c, int step, enum point point, const struct hess *h);
    int  (*take_grid)(struct comm *c, int step, enum point point, struct hess *h, bool *done); /* called until done */
    int  (*start)(struct comm *c, struct comm_sum *s);
    int  (*test)(struct comm *c, struct comm_sum *s); /* goes on with it as far as it can; sets done */
    bool (*waits)(const struct comm *c, const struct comm_sum *s, int rank); /* for something of that rank's */
    void (*forget)(struct comm_sum *s); /* frees s->own, done or not; may be NULL */
    void (*drop)(struct comm *c, int step); /* the step is compressed: nobody wants its sums any more */
    /* Finished modules between work directories that are each rank's own; NULL: cannot do that. */
    int  (*share_open)(struct comm *c);
    int  (*share_go_on)(struct comm *c, bool *idle);
    void (*share_close)(struct comm *c);
};

extern const struct comm_kind comm_self, comm_files, comm_mpi, comm_nccl;

/* name NULL: the best that is usable. RC_UNAVAILABLE, RC_USAGE (not for so many ranks). */
int  comm_open(struct comm *c, struct run *run, const char *name, int timeout);
void comm_close(struct comm *c, int rc); /* tells the others rc; harmless on a zeroed struct */

/* RC_RETRY, naming a rank that the others cannot wait for. Cheap: looks once a second. Shares what is finished. */
int comm_check(struct comm *c);

/* The work directory is this rank's alone: what a rank has finished is sent to all others, from now on by whatever
 * waits here. All begin with what any of them has. Nobody can look after others then: that is the launcher's. RC_USAGE:
 * not by this communicator. */
int comm_share(struct comm *c);
/* Sends and takes the rest; *idle: nothing of ours is on its way. */
int comm_share_rest(struct comm *c, bool *idle);

/* The exponents of a Hessian that has none yet, from whoever has the plan's first block; its owner has called
 * comm_give_grid. Waits. */
int comm_give_grid(struct comm *c, int step, enum point point, const struct hess *h);
int comm_take_grid(struct comm *c, int step, enum point point, struct hess *h);

int comm_start(struct comm *c, struct comm_sum *s);
/* Waits for the next of count sums to be complete; *out NULL: all were. */
int comm_next(struct comm *c, struct comm_sum *s, int count, struct comm_sum **out);
/* After each sum that was started, complete or given up. */
void comm_forget(struct comm *c, struct comm_sum *s);

void comm_drop(struct comm *c, int step);

#endif
