/* forward - one decoder layer, capture point by capture point, over blocks of samples
 *
 * A block holds whole samples of one length or several. Its state is what entering a point needs: the residual stream,
 * and for POINT_O and POINT_DOWN the input itself, which is the result of everything before. Weights come from a
 * callback as dense rows, are packed once for all blocks, and are dropped by the caller's order:
 *
 *     fwd_open, fwd_begin for each block
 *     each layer: fwd_norms;  each point p: [fwd_input -> capture]; fwd_load the point's modules; fwd_step every block;
 *     fwd_unload
 *
 * fwd_step(p) applies the modules of point p and moves the block to the next point (of the next layer after DOWN).
 */
#ifndef LLMC_FORWARD_H
#define LLMC_FORWARD_H

#include "arch.h"

/* Dense rows of a tensor; data lives until fwd_dense_free. */
struct dense {
    enum dtype  dtype;
    int         rows, cols; /* cols 1 for vectors */
    const void *data;
    void       *own; /* mem_free: data is a copy */
};

typedef int fwd_dense_fn(void *ctx, const char *tensor, struct dense *out);

struct fwd_block {
    int         samples, rows;
    int        *tokens;  /* [samples] rows of each */
    enum point  point;   /* entered next */
    void       *hidden;  /* [rows, arch.hidden] of type dt */
    void       *pending; /* [rows, width of point] at POINT_O and POINT_DOWN, else NULL */
    float      *cache;   /* [2 kv_heads, 2] -min and max of keys, then of values, of the attention last done; or NULL */
};

struct fwd {
    const struct backend *bk;
    struct dev           *dev;
    const struct arch    *arch;
    enum dtype            dt; /* of activations: BF16 or F32 */
    bool                  eager; /* attention rounds as struct attn_args says */
    fwd_dense_fn         *dense;
    void                 *ctx;
    struct weight        *w[ROLE_COUNT];
    void                 *bias[ROLE_COUNT];
    void                 *norm[2]; /* of the layer: before attention, before the MLP */
    void                 *cos_t, *sin_t;
    int                   rope_tokens; /* of the tables; 0: none yet */
    bool                  watch_cache; /* the caller sets it: attention leaves ranges in blocks */
    void                 *scratch[4];
    size_t                scratch_bytes[4];
};

int  fwd_open(struct fwd *f, const struct backend *bk, struct dev *dev, const struct arch *a, enum dtype dt,
    fwd_dense_fn *dense, void *ctx);
void fwd_close(struct fwd *f);

int  fwd_block_init(const struct fwd *f, struct fwd_block *b, const int *tokens, int samples);
void fwd_block_free(struct fwd_block *b);
/* [rows]; RC_DATA: an id beyond the vocabulary */
int  fwd_begin(struct fwd *f, struct fwd_block *b, const int32_t *ids);

int  fwd_norms(struct fwd *f, int layer);
int  fwd_load(struct fwd *f, int layer, enum role r); /* RC_DATA: wrong shape, not finite */
void fwd_unload(struct fwd *f, enum role r);

/* The rows that modules of b->point see; valid until the next call on f. */
int fwd_input(struct fwd *f, const struct fwd_block *b, const void **x);
int fwd_step(struct fwd *f, struct fwd_block *b);

/* After the last layer: final norm into *h (valid until the next call), for logits. */
int fwd_final(struct fwd *f, const struct fwd_block *b, const void **h);
int fwd_head(struct fwd *f, struct weight **out);

#endif
