/* forward_impl - what the parts of the forward pass share, for forward*.c alone */
#ifndef LLMC_FORWARD_IMPL_H
#define LLMC_FORWARD_IMPL_H

#include "forward.h"

/* Uses of scratch. */
enum fwd_use { FWD_NORM, FWD_A, FWD_B, FWD_C, FWD_FUSED, FWD_SUM, FWD_ROUTE, FWD_ROUND };

/* forward_memory.c */
/* The device's memory or, where it has none, the host's; NULL: RC_OS. fwd_free takes either. */
void *fwd_alloc(const struct fwd *f, size_t count, size_t size);
void fwd_free(const struct fwd *f, void *p);
/* *p, from mem_alloc, moves to the device if that has room; as it was on failure. */
int fwd_place(const struct fwd *f, void **p, size_t bytes);
/* count values of type f->dt, valid until the same use is asked again; NULL: no memory. Those of FWD_ROUTE are the
 * host's. */
void *fwd_scratch(struct fwd *f, enum fwd_use use, size_t count);
/* h [rows, width] = act(gate x) * (up x) */
int fwd_gated(struct fwd *f, void *h, const struct fwd_linear *gate, const struct fwd_linear *up, const void *x,
    int rows, int width);
/* x += m norm(y), y [rows, hidden] is overwritten */
int fwd_add_residual(struct fwd *f, struct fwd_block *b, void *y, enum norm_id norm);
void fwd_route_free(struct fwd_route *r);
int fwd_step_moe(struct fwd *f, struct fwd_block *b);
/* y = W x + bias, x rounded first where the module's inputs are; RC_BUG: not loaded */
int fwd_mul(struct fwd *f, const struct fwd_linear *l, void *y, const void *x, int rows);

/* forward_round.c */
int  fwd_round_load(struct fwd *f, const char *module, struct fwd_linear *l);
int  fwd_round_load_cache(struct fwd *f);
/* Points *x [rows, l's columns] to its rounded values if there are any. Those of the last call serve again for the same
 * x until fwd_round_forget(), which is due before x changes. */
int  fwd_round_input(struct fwd *f, const struct fwd_linear *l, const void **x, int rows);
void fwd_round_forget(struct fwd *f);
/* Keys and values of consecutive samples, in place. */
int  fwd_round_cache(struct fwd *f, void *k, void *v, int rows);

#endif
