/* forward_impl - what the parts of the forward pass share, for forward*.c alone */
#ifndef LLMC_FORWARD_IMPL_H
#define LLMC_FORWARD_IMPL_H

#include "forward.h"

/* Uses of scratch. */
enum fwd_use { FWD_NORM, FWD_A, FWD_B, FWD_C, FWD_FUSED };

/* count values of type f->dt, valid until the same use is asked again; NULL: no memory */
void *fwd_scratch(struct fwd *f, enum fwd_use use, size_t count);
/* y = W x + bias; RC_BUG: not loaded */
int fwd_mul(struct fwd *f, const struct fwd_linear *l, void *y, const void *x, int rows);

#endif
