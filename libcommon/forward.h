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
 * Where a layer has experts, everything from norm(x) on is computed at POINT_DOWN: what enters it for all experts would
 * be many times the residual stream. A step over POINT_MLP alone does nothing there.
 *
 * fwd_step(p) applies the modules of point p and moves the block to the next point (of the next layer after DOWN).
 *
 * States of blocks, and all that these functions return as inputs, lie on the device where it has room: fwd_read().
 */
#ifndef LLMC_FORWARD_H
#define LLMC_FORWARD_H

#include "arch.h"
#include "spill.h"

/* Dense rows of a tensor; data lives until fwd_dense_free. */
struct dense {
    enum dtype  dtype;
    int         rows, cols; /* cols 1 for vectors */
    const void *data;
    void       *own; /* data is a copy */
    const struct st_file *st; /* NULL, or the mapped file that data lies in */
};

void dense_free(struct dense *d); /* also tells the system that pages of a mapped file will not be needed */

typedef int fwd_dense_fn(void *ctx, const char *tensor, struct dense *out);

/* How activations are rounded, and the scales that it points to: do not copy. */
struct inputs {
    bool            on; /* false: not rounded */
    struct rounding r;
    float          *scale; /* [r.parts], owned; NULL: dynamic */
    int8_t          zero;
};

/* Of the inputs of a module; or, cache "k" or "v", of what an attention caches. *out is replaced. */
typedef int fwd_inputs_fn(void *ctx, const char *module, const char *cache, struct inputs *out);

struct fwd_block {
    const struct backend *bk;
    struct dev *dev;
    int         samples, rows;
    int        *tokens;  /* [samples] rows of each */
    enum point  point;   /* entered next */
    void       *hidden;  /* [rows, arch.hidden] of type dt */
    void       *pending; /* [rows, width of point] where fwd_pending says so, else NULL */
    void       *room;    /* where what is pending lies, kept from step to step: clearing new pages takes seconds */
    size_t      room_bytes, room_least; /* at once for the widest point: a hole that is left would stay empty */
    struct spill *spill; /* holds what the device has no room for; NULL: memory does */
    float      *cache;   /* [2 kv_heads, 2] -min and max of keys, then of values, of the attention last done; or NULL */
};

struct fwd_linear {
    struct weight *w; /* NULL: not loaded */
    void          *bias;
    int            cols;
    struct inputs  in;
};

struct fwd_rope {
    void *cos_t, *sin_t;
    int   tokens; /* of the tables; 0: none yet */
};

/* Experts of each row of a block; rows of an expert are in order. */
struct fwd_route {
    int      cap;     /* of the arrays, in rows */
    int     *expert;  /* [rows, experts_per_token] */
    float   *weight;  /* likewise */
    int     *rows;    /* of the expert asked last */
    float   *weights; /* of the same */
    int64_t *tokens;  /* [experts] routed so far; the caller clears it */
};

enum { FWD_EXPERT_ROLES = 3, FWD_SCRATCH = 8 };

/* Weights that were fetched before their turn. */
struct fwd_ahead {
    int               layer, first, end; /* layer -1: none */
    fwd_dense_fn     *dense;
    struct fwd_linear *linear;           /* as in struct fwd */
    struct fwd_linear (*expert)[FWD_EXPERT_ROLES];
};

struct fwd {
    const struct backend *bk;
    struct dev           *dev;
    const struct arch    *arch;
    enum dtype            dt; /* of activations: BF16 or F32 */
    bool                  eager; /* attention rounds as struct attn_args says */
    fwd_dense_fn         *dense;
    void                 *ctx;
    struct spill         *spill; /* the caller sets it: states of blocks lie there; NULL: in memory */
    fwd_inputs_fn        *inputs; /* the caller sets it: inputs and caches are rounded so; NULL: not at all */
    struct inputs         cache[2]; /* of the loaded layer: keys, values */
    const struct fwd_block *stepped;
    const void           *rounded_x;  /* whose rounded values scratch holds, */
    const struct rounding *rounded_by; /* and by what; NULL: nobody's */
    bool                  watch_cache; /* the caller sets it: attention leaves ranges in blocks */
    int                   layer;  /* whose norms are loaded; -1: none's */
    struct fwd_linear    *linear;        /* [ROLE_COUNT] */
    struct fwd_linear   (*expert)[FWD_EXPERT_ROLES]; /* [arch.experts] gate, up, down; NULL: none */
    struct fwd_ahead      ahead;
    void                 *norm[NORM_ID_COUNT];
    struct fwd_rope       rope[2]; /* of layers that do not slide, and of those that do */
    struct fwd_route      route;
    void                 *scratch[FWD_SCRATCH];
    size_t                scratch_bytes[FWD_SCRATCH];
};

int  fwd_open(struct fwd *f, const struct backend *bk, struct dev *dev, const struct arch *a, enum dtype dt,
    fwd_dense_fn *dense, void *ctx);
void fwd_close(struct fwd *f);

int  fwd_block_init(const struct fwd *f, struct fwd_block *b, const int *tokens, int samples);
void fwd_block_free(struct fwd_block *b);
int  fwd_block_wait(struct fwd_block *b, size_t bytes); /* makes room for what is pending; RC_OS */
void fwd_block_idle(struct fwd_block *b); /* its turn is over for now */
void fwd_block_hand_on(struct fwd_block *from, struct fwd_block *to); /* room, where nothing is pending */
/* A state's memory, on the device if that has room; RC_OS. */
void *fwd_block_alloc(const struct fwd_block *b, size_t count, size_t size);
void fwd_block_release(const struct fwd_block *b, void *p);
/* [rows]; RC_DATA: an id beyond the vocabulary */
int  fwd_begin(struct fwd *f, struct fwd_block *b, const int32_t *ids);

int  fwd_norms(struct fwd *f, int layer); /* enters the layer, unless that is where we are */
/* What steps over points [first, end) of the layer need. RC_DATA: wrong shape. */
int  fwd_load(struct fwd *f, int first, int end);
void fwd_unload(struct fwd *f);
/* What fwd_load(first, end) of a layer will want, by dense: on its way to the device while that computes, if there is
 * room; else nothing is done. Errors are left to fwd_load. */
void fwd_fetch(struct fwd *f, fwd_dense_fn *dense, int layer, int first, int end);

/* Width of what waits beside the residual stream where a layer's point is entered; 0: nothing. */
int fwd_pending(const struct arch *a, int layer, enum point p);
int fwd_pending_most(const struct arch *a); /* of all layers and points */
/* The rows that modules of b->point see; valid until the next call on f. */
int fwd_input(struct fwd *f, const struct fwd_block *b, const void **x);
int fwd_step(struct fwd *f, struct fwd_block *b);

/* Of a layer with experts, at POINT_MLP or POINT_DOWN: *x = norm(x), and which experts get which rows of it. The
 * router must be loaded (fwd_load_router, or all of POINT_DOWN). */
int fwd_route(struct fwd *f, const struct fwd_block *b, const void **x);
int fwd_load_router(struct fwd *f);
void fwd_route_count(struct fwd *f, const struct fwd_block *b); /* adds the rows of each expert to route.tokens */
/* After fwd_route: inputs of expert e at b->point, of all rows or of those routed to it; *rows may be 0. Expert -1 is
 * the shared one at POINT_DOWN. Valid until the next call on f. */
int fwd_expert_input(struct fwd *f, const struct fwd_block *b, const void *x, int e, bool all, const void **in,
    int *rows);

/* bytes of x, wherever it lies, as the host can read them: *host is x itself or the copy *own, which is mem_free'd. */
int fwd_read(const struct backend *bk, struct dev *dev, const void *x, size_t bytes, const void **host, void **own);

/* After the last layer: final norm into *h (valid until the next call), for logits. */
int fwd_final(struct fwd *f, const struct fwd_block *b, const void **h);
int fwd_head(struct fwd *f, struct weight **out);
/* [rows, vocab] f32, as the model gives them: of T, then scaled and capped */
int fwd_logits(struct fwd *f, float *logits, const void *h, int rows, const struct weight *head);
/* backend nll() of the same */
int fwd_nll(struct fwd *f, double *nll, const void *h, int rows, const struct weight *head, const int32_t *target);

#endif
