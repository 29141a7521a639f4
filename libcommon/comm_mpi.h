/* comm_mpi - what the communicators that begin with MPI share: its start and end, grids, heads of sums */
#ifndef LLMC_COMM_MPI_H
#define LLMC_COMM_MPI_H

#include "comm.h"

#include <mpi.h>

/* In the order of tags of one input. */
enum mpi_tag { TAG_GRID, TAG_HEAD, TAG_PART, TAG_WHOLE, TAGS };

struct mpi_grid;

/* c->own of each of them begins with it. */
struct mpi_own {
    struct mpi_grid *grids; /* on their way to the others */
    MPI_Request      grid_in[ARCH_POINTS_MAX];
    bool             asked[ARCH_POINTS_MAX];
    bool             ready; /* MPI is */
};

/* Heads (hess.h) of one sum, from every rank that gives to every one that takes. */
struct mpi_heads {
    char        *all;      /* [ranks][bytes], ours at our place */
    size_t       bytes;
    MPI_Request *in, *out; /* [ranks] each */
    int          left;
};

#define MPI_TRY(call) TRY(mpi_check((call), #call))

int  mpi_check(int status, const char *what); /* RC_UNAVAILABLE with MPI's words */
int  mpi_tag(enum mpi_tag tag, enum point point);
bool mpi_usable(const struct comm *c);
/* bytes: of the kind's own. RC_USAGE: no launcher, or it counts differently. */
int  mpi_open(struct comm *c, size_t bytes);
void mpi_close(struct comm *c, int rc);
int  mpi_give_grid(struct comm *c, int step, enum point point, const struct hess *h);
int  mpi_take_grid(struct comm *c, int step, enum point point, struct hess *h, bool *done);
/* Frees grids that everybody has, as they do when a sum that was begun after them is complete. */
int  mpi_collect_grids(struct comm *c);

int  mpi_heads_start(struct comm *c, const struct comm_sum *s, struct mpi_heads *h);
/* Adds what has come to the sum; *done: all has, and ours has left. */
int  mpi_heads_test(struct comm *c, const struct comm_sum *s, struct mpi_heads *h, bool *done);
void mpi_heads_free(struct mpi_heads *h);

/* Everybody takes part in every sum. */
bool mpi_waits(const struct comm *c, const struct comm_sum *s, int rank);

/* Finished modules between work directories that are each rank's own (comm_share.c). */
int  mpi_share_open(struct comm *c);
int  mpi_share_go_on(struct comm *c, bool *idle);
void mpi_share_close(struct comm *c);

#endif
