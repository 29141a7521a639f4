/* cuda - the device behind the cuda backend: memory, copies, launches, what the library says when it fails
 *
 * Members of struct backend take pointers to the host's memory or to pieces of the device's (kernels/backend.h). Three
 * streams: `in` copies to the device, `run` computes, `out` copies back, all through pinned buffers, two of each. A
 * member allocates all that it needs before it changes anything of its caller's, so that RC_OS, out of device memory,
 * means that the host may do the work instead: ON_DEVICE.
 *
 * A member that finds its operands on the device leaves its work in `run` and returns; the order there is that of the
 * calls. What `in` writes for a later member must not come before that: cuda_upload() sees to it. Whatever the host
 * reads has been waited for. Weights go their own way: `in` copies and converts them while `run` computes, and `run`
 * waits for them where they are used. Memory that `run` may still use is given back after it was waited for, but for
 * pieces of activations, which only `run`, and uploads behind it, will touch again.
 */
#ifndef LLMC_CUDA_CUDA_H
#define LLMC_CUDA_CUDA_H

#include "place.h"
#include "team.cuh"

#include <cublas_v2.h>
#include <cusolverDn.h>

enum { CUDA_INPUTS = 3 };

/* Device buffers that members reuse; each holds what its name says, or whatever the member wants. */
enum cuda_slot {
    SLOT_IN,                       /* CUDA_INPUTS by 2 of a flow */
    SLOT_OUT = SLOT_IN + 2 * CUDA_INPUTS, /* 2 of a flow */
    SLOT_A = SLOT_OUT + 2, SLOT_B, SLOT_C, SLOT_D, SLOT_E, SLOT_F, SLOT_G, SLOT_H, SLOT_I, SLOT_J,
    SLOT_RAW, /* weights as the checkpoint has them, of `in` */
    SLOT_COUNT
};

/* Pieces outlive members. What is given back serves again for the same use, but for what is another process's: lent. */
enum cuda_use { USE_WEIGHT, USE_HELD, USE_SHARED, USE_LENT, USE_COUNT };

struct cuda_piece {
    char         *p;
    size_t        bytes;
    enum cuda_use use;
    bool          taken;
};

struct cuda {
    struct backend     cpu;  /* for what does not fit, without gaps */
    struct dev        *host; /* its device */
    cudaStream_t       in, run, out;
    cudaEvent_t        in_done[2], run_done[2], out_done[2];
    cublasHandle_t     blas;
    cusolverDnHandle_t solver; /* NULL until the first factorisation */
    void              *workspace; /* of blas */
    size_t             budget, slots, pieces, taken[USE_COUNT]; /* bytes: allowed, in slots, in pieces, of these used */
    struct cuda_piece *piece;
    size_t             piece_count, piece_cap;
    unsigned           member; /* counts calls, so that a slot's owner is known */
    int                next_in;  /* the pinned buffer that the next copy takes */
    bool               busy;     /* `run` has work that nobody has waited for */
    bool               followed; /* `in` goes on after what `run` had when the member began */
    cudaEvent_t        turn;     /* there */
    struct {
        void    *p;
        size_t   bytes;
        unsigned member;
    } slot[SLOT_COUNT];
    struct {
        void  *p;
        size_t bytes;
    } pin[4]; /* 2 inward, 2 outward */
};

static inline struct cuda *
cuda_of(struct dev *dev)
{
    return (struct cuda *)dev->impl;
}

/* As cuda_failed(). */
int cublas_failed(cublasStatus_t s, const char *what);
int cusolver_failed(cusolverStatus_t s, const char *what);

#define CUBLAS_TRY(expr)   CALL_TRY(cublasStatus_t, CUBLAS_STATUS_SUCCESS, cublas_failed, expr)
#define CUSOLVER_TRY(expr) CALL_TRY(cusolverStatus_t, CUSOLVER_STATUS_SUCCESS, cusolver_failed, expr)

/* The member's result from the device or, where that has no room, from the cpu backend. */
#define ON_DEVICE(c, device, on_host)                     \
    do {                                                  \
        int rc_;                                          \
        cuda_begin(c);                                    \
        rc_ = (device);                                   \
        (void)cuda_settle(c, rc_);                        \
        return rc_ == RC_OS ? (on_host) : rc_;            \
    } while (0)

void cuda_begin(struct cuda *c);
/* Waits for what a member that failed had begun. */
int cuda_settle(struct cuda *c, int rc);
/* Waits for `run` and `in`. */
void cuda_idle(struct cuda *c);

/* At least bytes on the device, this member's until it returns. */
int cuda_need(struct cuda *c, int slot, size_t bytes, void **out);
/* Bytes of budget that a member may still ask for. */
size_t cuda_room(const struct cuda *c);
bool cuda_fits(const struct cuda *c, enum cuda_use use, size_t bytes);
int cuda_take(struct cuda *c, enum cuda_use use, size_t bytes, void **out);
void cuda_give(struct cuda *c, const void *p);
/* What another process has allocated is a piece until it is given back; c does not free it. */
int cuda_lend(struct cuda *c, void *p, size_t bytes);
/* p points into a taken piece of activations, shared and lent ones among them. */
bool cuda_has(const struct cuda *c, const void *p);

/* Copies between pageable host and device memory, pinned piece by piece. What is launched on `run` afterwards sees an
 * upload, what was launched before the member does not; a download sees what was launched before, and has ended when it
 * returns. cuda_send() is an upload that `run` neither sees nor holds up. */
int cuda_upload(struct cuda *c, void *to, const void *from, size_t bytes);
int cuda_send(struct cuda *c, void *to, const void *from, size_t bytes);
int cuda_download(struct cuda *c, void *to, const void *from, size_t bytes);
/* cuda_download() of what `run` had launched when event was recorded, piece by piece into take(ctx, offset, data). */
int cuda_drain(struct cuda *c, cudaEvent_t event, const void *from, size_t bytes,
    void (*take)(void *ctx, struct pool *pool, size_t at, const void *data, size_t bytes), void *ctx);

/* Pinned buffers as large as copies of any size need them. */
int cuda_pins(struct cuda *c);
/* p itself if the device has it, else what the slot holds after an upload. */
int cuda_param(struct cuda *c, int slot, const void *p, size_t bytes, const void **out);

/* Operands as the host reaches them, for the cpu backend: those that the device has are copied, and copied back where
 * they are written. rc tells whether all went well so far; cuda_return() ends it. */
enum { BORROW_READ = 1, BORROW_WRITE = 2, BORROWED_MAX = 5 };

struct borrow {
    struct cuda *c;
    int          rc, count;
    struct {
        void  *device, *host;
        size_t bytes;
        int    way;
    } of[BORROWED_MAX];
};

void *cuda_borrow(struct borrow *b, const void *p, size_t bytes, int way);
int cuda_return(struct borrow *b, int rc);

/* Rows of width bytes each, stride bytes apart. */
struct part {
    const void *p;
    size_t      stride, width;
};

/* Rows in, computed, and out again, step at a time, with copies both ways beside the computation. Rows that launch()
 * sees lie width bytes apart. The output may be an input. What the device has is not copied, unless rows are apart; if
 * it has all, nothing is waited for. */
struct flow {
    int         rows, step;
    struct part in[CUDA_INPUTS];
    struct part out; /* p NULL: none */
    /* launches on c->run */
    int       (*launch)(struct cuda *c, void *ctx, int row0, int rows, void *const *in, void *out);
    void       *ctx;
};

int cuda_flow(struct cuda *c, const struct flow *f);
/* Rows of one step, a multiple of unit, where results do not depend on it. */
int cuda_step(const struct flow *f, int unit);

#ifdef __CUDACC__

template <class K> int
cuda_launch_on(cudaStream_t s, int blocks, int height, const typename K::args &a)
{
    CUDA_TRY(cudaFuncSetAttribute(team_entry<K>, cudaFuncAttributeMaxDynamicSharedMemorySize,
        (int)sizeof(typename K::shared)));
    team_entry<K><<<dim3((unsigned)blocks, (unsigned)height), K::THREADS, sizeof(typename K::shared), s>>>(a);
    CUDA_TRY(cudaGetLastError());
    return RC_OK;
}

#else

/* t/cuda-host runs the kernel as a loop. */
template <class K> int
cuda_launch_on(cudaStream_t s, int blocks, int height, const typename K::args &a)
{
    CUDA_TRY(host_launch(s, sizeof(typename K::shared), blocks, height,
        [=] { team_run<K>(blocks, height, a); }));
    return RC_OK;
}

#endif

template <class K> int
cuda_launch(struct cuda *c, int blocks, int height, const typename K::args &a)
{
    c->busy = true;
    return cuda_launch_on<K>(c->run, blocks, height, a);
}

/* Blocks of THREADS for count elements, where threads take more than one. */
static inline int
cuda_blocks(size_t count, int threads)
{
    size_t blocks = (count + (size_t)threads - 1) / (size_t)threads;

    return blocks > 65535 ? 65535 : (int)blocks;
}

/* Members. */
void *cuda_alloc(struct dev *dev, size_t bytes);
bool cuda_release(struct dev *dev, void *p);
bool cuda_holds(struct dev *dev, const void *p);
int cuda_copy(struct dev *dev, void *to, size_t to_stride, const void *from, size_t from_stride, size_t width,
    int rows);
int cuda_zero(struct dev *dev, void *p, size_t bytes);
int cuda_share_make(struct dev *dev, struct share **out, void *note, size_t note_bytes, size_t bytes, int slots);
int cuda_share_open(struct dev *dev, struct share **out, const void *note, size_t note_bytes, size_t bytes, int slots);
int cuda_share_put(struct dev *dev, struct share *s, int slot, size_t at, const void *x, size_t bytes, bool last);
int cuda_share_get(struct dev *dev, struct share *s, int slot, const void **x);
void cuda_share_close(struct dev *dev, struct share *s);
int cuda_gather(struct dev *dev, void *y, const void *x, const int *rows, int count, enum dtype dt, int n);
int cuda_add_rows(struct dev *dev, void *x, const int *rows, const float *weights, const void *y, int count,
    enum dtype dt, int n);
int cuda_weight_pack(struct dev *dev, struct weight **out, const void *w, enum dtype wdt, enum dtype dt, int n, int k);
void cuda_weight_free(struct dev *dev, struct weight *w);
bool cuda_weight_fits(struct dev *dev, size_t bytes);
int cuda_matmul(struct dev *dev, void *y, enum dtype ydt, const void *x, enum dtype dt, int rows,
    const struct weight *w, const void *bias);
int cuda_rmsnorm(struct dev *dev, void *y, const void *x, const void *w, enum dtype dt, int rows, int n, float eps,
    enum norm norm);
int cuda_rope(struct dev *dev, void *x, enum dtype dt, int rows, int heads, int head_dim, int ld, const void *cos_t,
    const void *sin_t, int rotary_dim, int tokens);
int cuda_attention(struct dev *dev, void *o, const void *q, int ldq, const void *k, int ldk, const void *v, int ldv,
    enum dtype dt, int rows, const struct attn_args *a);
int cuda_act_mul(struct dev *dev, void *y, const void *g, const void *u, enum dtype dt, size_t count, enum act act);
int cuda_scale(struct dev *dev, void *x, enum dtype dt, size_t count, float s);
int cuda_add(struct dev *dev, void *x, const void *y, enum dtype dt, size_t count);
int cuda_nll(struct dev *dev, double *nll, const void *h, enum dtype dt, int rows, const struct weight *head,
    const int32_t *target, float softcap, float logit_scale);
int cuda_round_act(struct dev *dev, void *y, const void *x, enum dtype dt, int rows, int n, const struct rounding *r);
int cuda_range(struct dev *dev, float *range, const void *x, enum dtype dt, int rows, int n, int parts);
int cuda_syrk(struct dev *dev, double *acc, const void *x, enum dtype dt, int rows, int n, const int16_t *e);
int cuda_cross(struct dev *dev, double *acc, const void *xf, const void *x, enum dtype dt, int rows, int n,
    const int16_t *ef, const int16_t *e);
int cuda_colsq(struct dev *dev, float *diag, const void *x, enum dtype dt, int rows, int n);
int cuda_distance(struct dev *dev, double *sums, const void *x, const void *xf, enum dtype dt, size_t count);
int cuda_scales(struct dev *dev, const struct qspec *spec, const struct scale_opts *o, const float *w, int rows,
    int cols, float global_scale, float *scale, int8_t *zero);
int cuda_factor(struct dev *dev, float *l, uint8_t *dead, const double *h, double s, const int *order, double damp,
    int n);
int cuda_gptq(struct dev *dev, struct gptq_job *job);
void cuda_gptq_batch(struct dev *dev, struct gptq_job *const *jobs, int count, int *rc);
int cuda_correction(struct dev *dev, float *m, const double *c, const double *h, double s, const float *l, int n);
int cuda_correct(struct dev *dev, float *y, const float *w, const float *m, int rows, int n);

#endif
