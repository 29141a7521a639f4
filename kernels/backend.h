/* backend - the only door to arithmetic
 *
 * A stage sees struct backend and an opaque struct dev. A row of the table leaves out what it does not do better than
 * the plain loops of kernels/ref: backend_find() fills such members in from ref. Every operation gives the same bytes
 * for any number of threads: tiles and summation orders are fixed. Matrices are row-major. Letters are the
 * literature's: W weights [out, in], X inputs [rows, in], H = X'X, L its factor.
 *
 * Activations, and the vectors and tables beside them, lie in host memory or in what alloc() gave: memory of a device,
 * which the host cannot read. Any mixture is right. A member whose matrices all lie there returns while the device is
 * still at work, and what is asked of it next sees the result; any other has ended. All else is the host's. What does
 * not fit the memory of the cuda backend (kernels/cuda) the cpu backend does, wherever it lies.
 *
 * All functions return RC_OK or an RC_ code with err_set().
 */
#ifndef LLMC_BACKEND_H
#define LLMC_BACKEND_H

#include "../libcommon/dtype.h"
#include "scale.h"

#include <stdbool.h>
#include <stdint.h>

struct dev;
struct pool;
struct share;

struct dev_opts {
    int    threads;      /* 0: what the process may use */
    size_t device_bytes; /* of an accelerator's memory; 0: nine tenths of what is free */
};

/* A weight as the forward pass wants it: packed once, used for every block of rows. */
struct weight;

/* Activations are BF16 or F32 throughout one run; sums are always f32. "T(x)" rounds to that type. */
struct attn_args {
    int   heads, kv_heads, head_dim;
    int   tokens;    /* of one sequence; causal */
    float scale;     /* of q k' before the softmax */
    int   window;    /* key j is visible to query i if i - window < j <= i; 0: all j <= i */
    float softcap;   /* c tanh(x / c) of the scaled scores; 0: none */
    bool  eager;     /* round as transformers' eager attention: T(T(q k') scale), T(e / sum e) */
};

/* Rows of one exact product in a Hessian: the largest error-free unit of summation (libcommon/hess.h). */
enum { HESS_CHUNK = 1024 };

/* A module may be cut into rows at multiples of this for correct(). */
enum { CORRECT_ROWS = 64 };

enum act { ACT_SILU, ACT_GELU_TANH, ACT_GELU };

/* Families differ in when x / rms(x) is rounded: T(T(x / rms) w), T(x / rms (1 + w)), T(x / rms w). */
enum norm { NORM_TWICE, NORM_UNIT_OFFSET, NORM_ONCE };

/* One set of rows to round against one factor. Column p of the factor is column order[p] of W; columns are taken
 * from p = cols - 1 down to 0 (kernels/ref/gptq.c has the derivation). Scales are those of the whole module, of which
 * w holds rows from row0 on. Rows are independent: cutting a module by rows changes no byte of codes. */
struct gptq_job {
    const struct qspec *spec;
    int            rows, cols;
    int            row0;         /* the module's row of w's first one */
    const float   *w;            /* [rows, cols] values to round; exact from spec->t unless they were corrected */
    const float   *target;       /* [rows, cols] what losses are against; NULL: w */
    const float   *scale;        /* [q_scale_rows, q_scale_cols] of the module, as stored (v10: before that) */
    const int8_t  *zero;         /* as scale, or NULL when symmetric */
    float          global_scale; /* of tensor-group schemes, else 1 */
    const int     *order;        /* [cols] */
    const float   *l;            /* [cols, cols] lower, from factor() */
    const uint8_t *dead;         /* [cols], natural order: column never saw a value and becomes zero */
    const int     *scale_col;    /* [cols], natural order: its column of scales; NULL: as the scheme has it */
    bool           keep_zeros;   /* v10: weights that are 0 (up to Q_ZERO) take no part of other columns' errors */
    bool           want_rtn;     /* rtn_loss is wanted; it takes as long again */
    uint8_t       *codes;        /* out [rows, cols], natural order, one code a byte: see quant.h */
    double         loss;         /* out: sum of e^2 / 2, e_p = sum_{q >= p} d_q L_qp, d = target - q, in units of H */
    double         rtn_loss;     /* out: the same for plain rounding with these scales; 0 if not wanted */
};

/* How activations are rounded before a product, as compressed-tensors emulates the runtime. Static: every row is cut
 * into parts of equal width that have one scale each. Dynamic: scales follow from the values, for each row (CHANNEL),
 * for groups of columns in it (GROUP, TENSOR_GROUP: of spec.group, the last may be short) or for all rows (TENSOR). */
struct rounding {
    struct qspec  spec; /* t is the type of activations; scale is T, or e4m3 under a global scale, or e8m0 */
    bool          dynamic;
    float         global_scale; /* 1 without one */
    int           parts;
    const float  *scale; /* [parts], static */
    const int8_t *zero;  /* the same, NULL when symmetric */
};

struct backend {
    const char *name;
    bool        host; /* a device is threads alone: there may be several, to be used side by side */

    int  (*open)(struct dev **dev, const struct dev_opts *o); /* RC_UNAVAILABLE: not on this machine */
    void (*close)(struct dev *dev);

    /* --- memory of the device --- */
    /* NULL: it has no room, or it is the host. The caller then takes the host's. */
    void *(*alloc)(struct dev *dev, size_t bytes);
    bool  (*release)(struct dev *dev, void *p);    /* false: not from alloc(), NULL among it */
    bool  (*holds)(struct dev *dev, const void *p); /* p points into what alloc() gave */
    /* Rows of width bytes, strides apart, from one place to another. */
    int   (*copy)(struct dev *dev, void *to, size_t to_stride, const void *from, size_t from_stride, size_t width,
             int rows);
    int   (*zero)(struct dev *dev, void *p, size_t bytes);

    /* --- slots of device memory between two processes of one machine --- */
    /* The writer: so many of bytes each, a multiple of 4096; what open takes is written to note. RC_UNAVAILABLE,
     * RC_OS: there are none, and the host's memory does. */
    int   (*share_make)(struct dev *dev, struct share **out, void *note, size_t note_bytes, size_t bytes, int slots);
    /* The reader: the same slots. */
    int   (*share_open)(struct dev *dev, struct share **out, const void *note, size_t note_bytes, size_t bytes,
             int slots);
    /* x into a slot that the reader is done with; last: that was all of it, and the reader may be told. */
    int   (*share_put)(struct dev *dev, struct share *s, int slot, size_t at, const void *x, size_t bytes, bool last);
    /* What was put; members read it in place. */
    int   (*share_get)(struct dev *dev, struct share *s, int slot, const void **x);
    void  (*share_close)(struct dev *dev, struct share *s); /* the reader first */

    /* --- forward pass: dt is the type of activations --- */
    int  (*weight_pack)(struct dev *dev, struct weight **out, const void *w, enum dtype wdt, enum dtype dt, int n,
        int k);
    void (*weight_free)(struct dev *dev, struct weight *w);
    /* Whether the device has room for bytes more of weights, of type dt, which then are on their way while it computes:
     * worth packing before their turn. Never where the device is the host. */
    bool (*weight_fits)(struct dev *dev, size_t bytes);
    /* y[rows, n] = T(x[rows, k] W' + bias); bias [n] of type dt or NULL. ydt is dt or F32. */
    int  (*matmul)(struct dev *dev, void *y, enum dtype ydt, const void *x, enum dtype dt, int rows,
        const struct weight *w,
             const void *bias);
    /* norm of rows; y may be x */
    int  (*rmsnorm)(struct dev *dev, void *y, const void *x, const void *w, enum dtype dt, int rows, int n, float eps,
             enum norm norm);
    /* in place on [rows, heads, head_dim] with row stride ld elements; cos, sin [tokens, rotary_dim / 2] of type dt;
     * row r is position r % tokens */
    int  (*rope)(struct dev *dev, void *x, enum dtype dt, int rows, int heads, int head_dim, int ld, const void *cos_t,
             const void *sin_t, int rotary_dim, int tokens);
    /* o[rows, heads * head_dim] = sum T(e) v / sum e, e = exp(s - max s), from q, k, v with row strides ldq, ldk,
     * ldv; rows is a multiple of a->tokens */
    int  (*attention)(struct dev *dev, void *o, const void *q, int ldq, const void *k, int ldk, const void *v, int ldv,
             enum dtype dt, int rows, const struct attn_args *a);
    /* y = T(T(act(g)) * u), count elements */
    int  (*act_mul)(struct dev *dev, void *y, const void *g, const void *u, enum dtype dt, size_t count, enum act act);
    /* h[rows, n] = the same of g = T(x Wg' + bg) and u = T(x Wu' + bu), which are not kept; w and bias are gate's, then
     * up's. NULL, on accelerators: matmul() and act_mul() one after the other. */
    int  (*gated)(struct dev *dev, void *h, const void *x, enum dtype dt, int rows, const struct weight *const w[2],
        const void *const bias[2], enum act act);
    /* x = T(x s) */
    int  (*scale)(struct dev *dev, void *x, enum dtype dt, size_t count, float s);
    /* x = T(x + y) */
    int  (*add)(struct dev *dev, void *x, const void *y, enum dtype dt, size_t count);
    /* y[i] = x[rows[i]], i < count, of rows of n */
    int  (*gather)(struct dev *dev, void *y, const void *x, const int *rows, int count, enum dtype dt, int n);
    /* x[rows[i]] = T(x + T(weights[i] y[i])); no row twice; rows NULL: row i */
    int  (*add_rows)(struct dev *dev, void *x, const int *rows, const float *weights, const void *y, int count,
             enum dtype dt, int n);
    /* nll[rows] = -log softmax(h[rows, k] W')[target]; natural log, f64 per row; target < 0: row is skipped, nll 0 */
    int  (*nll)(struct dev *dev, double *nll, const void *h, enum dtype dt, int rows, const struct weight *head,
             const int32_t *target, float softcap, float logit_scale);

    /* y = the values that rows of n activations have after rounding, T(code - zero times step); y may be x.
     * RC_NUMERIC: a value is not finite. */
    int  (*round_act)(struct dev *dev, void *y, const void *x, enum dtype dt, int rows, int n,
             const struct rounding *r);

    /* --- Hessians --- */
    /* range[parts][2], -min and max of columns [p n / parts, (p + 1) n / parts): raised by what all rows hold. Starts
     * at 0, since 0 counts as seen. RC_NUMERIC: a value is not finite. */
    int  (*range)(struct dev *dev, float *range, const void *x, enum dtype dt, int rows, int n, int parts);
    /* acc, packed lower [n (n + 1) / 2] f64, row by row: += the products X'X of chunks of HESS_CHUNK rows, each
     * rounded to the grid 2^(e[i] + e[j]) (libcommon/hess.h) so that the additions are exact. x is BF16 or F32. */
    int  (*syrk)(struct dev *dev, double *acc, const void *x, enum dtype dt, int rows, int n, const int16_t *e);
    /* acc [n, n] f64: += the products X_f'X of the same chunks, entry (i, j) rounded to the grid 2^(ef[i] + e[j]) */
    int  (*cross)(struct dev *dev, double *acc, const void *xf, const void *x, enum dtype dt, int rows, int n,
        const int16_t *ef, const int16_t *e);
    /* diag[n] f32: sum of squares of the columns of the first chunk, by which the grid is chosen */
    int  (*colsq)(struct dev *dev, float *diag, const void *x, enum dtype dt, int rows, int n);
    /* sums[2] = |xf - x|^2, |xf|^2 of count values; in f32 over a few hundred of them, then in f64 */
    int  (*distance)(struct dev *dev, double *sums, const void *x, const void *xf, enum dtype dt, size_t count);

    /* --- GPTQ --- */
    /* scale_rows() of a whole matrix or of a range of rows (kernels/scale.h); the same bytes from every backend */
    int  (*scales)(struct dev *dev, const struct qspec *spec, const struct scale_opts *o, const float *w, int rows,
        int cols, float global_scale, float *scale, int8_t *zero);
    /* L L' = s H[order][order] + lambda I, lower, f32, in a full [n, n] matrix (the strict upper part is undefined).
     * h packed lower f64. Dead columns (diagonal 0) get diagonal 1 first and are marked. lambda = damp times the
     * mean diagonal after that. RC_NUMERIC: not positive definite, or not finite. */
    int  (*factor)(struct dev *dev, float *l, uint8_t *dead, const double *h, double s, const int *order, double damp,
        int n);
    int  (*gptq)(struct dev *dev, struct gptq_job *job); /* RC_OS, RC_NUMERIC: a result is not finite */
    /* The same of several, rc[i] of the i-th: those that follow one another and are of one shape and kind, as experts
     * are, at once. NULL, on hosts: backend_gptq() takes them one by one. */
    void (*gptq_batch)(struct dev *dev, struct gptq_job *const *jobs, int count, int *rc);
    /* M = s (C - H) (L L')^-1, [n, n] f32; c [n, n], h packed lower, f64; l from factor() of H in the natural order */
    int  (*correction)(struct dev *dev, float *m, const double *c, const double *h, double s, const float *l, int n);
    /* y = w + w M; w, y [rows, n], not the same. Rows are tiled from the first one: cutting a module at multiples of
     * CORRECT_ROWS changes no byte. */
    int  (*correct)(struct dev *dev, float *y, const float *w, const float *m, int rows, int n);
};

/* copy() of bytes on end. */
static inline int
backend_move(const struct backend *bk, struct dev *dev, void *to, const void *from, size_t bytes)
{
    return bk->copy(dev, to, bytes, from, bytes, bytes, 1);
}

void backend_gptq(const struct backend *bk, struct dev *dev, struct gptq_job *const *jobs, int count, int *rc);

/* NULL name: the best available on this machine. RC_UNAVAILABLE names what there is. */
int backend_find(const struct backend **out, const char *name);
/* The names there are, comma separated, for --version; nothing is loaded. */
const char *backend_names(void);
bool        backend_cuda_built(void);
/* Bytes of a value of a weight that the cpu backend has packed, for activations of type dt: bf16 is widened where
 * products of bf16 are not faster than those of f32. */
size_t      backend_cpu_packed(enum dtype dt);
/* After backend_find() without a name: why a backend that is built was not taken, or "". */
const char *backend_note(void);

struct pool *dev_pool(struct dev *dev); /* of host backends, for work beside the kernels */

#endif
