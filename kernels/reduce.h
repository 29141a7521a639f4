/* reduce - sums of f64 over the devices of ranks by NCCL
 *
 * A shared object (library.h) that is loaded when --comm nccl asks for it; kernels/cuda/nccl.cu. Values are integers of
 * a grid (hess.h), whose additions are exact: whatever order NCCL takes, bytes are the same.
 *
 * All ranks begin the same sums in the same order. Host memory is copied through pinned pieces, two at a time, so that
 * copies and reduction overlap; device memory taken does not depend on the size of a sum.
 */
#ifndef LLMC_REDUCE_H
#define LLMC_REDUCE_H

#include <stdbool.h>
#include <stddef.h>

enum { REDUCE_VERSION = 1, REDUCE_ID_BYTES = 128, REDUCE_EVERYBODY = -1, REDUCE_NOBODY = -2 };

struct reduce;

struct reduce_sum {
    double *data;  /* [count]: ours; the whole sum in the end where root says so */
    size_t  count;
    bool    gives; /* ours is not all zeros */
    int     root;  /* the rank that wants the whole, or REDUCE_EVERYBODY */
    size_t  taken, returned; /* how far it is */
};

struct reduce_table {
    int version;
    /* What open wants on all ranks; from one of them. */
    int  (*id)(void *id);
    /* All ranks call it, and it waits for them. RC_UNAVAILABLE: no device, or what NCCL says. The device is that of our
     * place on this machine. */
    int  (*open)(struct reduce **out, const void *id, int rank, int ranks);
    /* whole: all that was begun is complete; else what is under way is given up. NULL is fine. */
    void (*close)(struct reduce *r, bool whole);
    /* s stays the caller's, and there, until test says so or close returns. */
    int  (*begin)(struct reduce *r, struct reduce_sum *s);
    /* Goes on with all that was begun, as far as it can without waiting. Complete: s->returned == s->count. */
    int  (*test)(struct reduce *r);
};

bool reduce_built(void);
/* RC_UNAVAILABLE: not here, cannot be loaded, of another version. */
int  reduce_load(const struct reduce_table **out);

#endif
