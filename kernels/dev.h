/* dev - what the host backends' devices and weights have in common, so that ref can stand in for a member left out */
#ifndef LLMC_DEV_H
#define LLMC_DEV_H

#include "../libcommon/pool.h"
#include "backend.h"

struct dev {
    struct pool *pool;
    void        *impl; /* the backend's own */
};

struct weight {
    int        n, k;
    enum dtype dt;    /* of activations */
    void      *plain; /* [n, k] of type dt: ref */
    void      *impl;  /* packed: the backend's own */
};

extern const struct backend backend_ref, backend_cpu;

/* What tells a shared object of another version. */
#define BACKEND_SIZES                                                                                     \
    { sizeof(struct backend), sizeof(struct dev), sizeof(struct weight), sizeof(struct dev_opts),         \
      sizeof(struct attn_args), sizeof(struct gptq_job), sizeof(struct rounding), sizeof(struct qspec),   \
      sizeof(struct scale_opts) }

enum { BACKEND_SIZE_COUNT = 9 };

void backend_fill(struct backend *b); /* members that are left out, from ref */

#endif
