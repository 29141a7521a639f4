/* nccl - sums of f64 over the devices of ranks: kernels/reduce.h by NCCL
 *
 * Sums are cut into pieces, which all ranks take in the same order. Two pieces are under way at a time, each with a
 * pinned buffer and one on the device: `in` copies it there, `run` reduces it, `out` copies it back.
 */
#include "place.h"

extern "C" {
#include "../reduce.h"
}

#include <nccl.h>

enum { SLOTS = 2 };

static const size_t PIECE = 2 << 20; /* values */

struct slot {
    double            *host, *device;
    cudaEvent_t        in_done, run_done, out_done;
    struct reduce_sum *sum; /* NULL: free */
    size_t             count;
};

struct reduce {
    ncclComm_t          comm;
    int                 rank;
    cudaStream_t        in, run, out;
    struct slot         slot[SLOTS];
    int                 next; /* the slot that is filled next; the other one is older */
    struct reduce_sum **queue; /* begun, and not all in slots yet */
    int                 queued, room;
};

static int
nccl_failed(ncclResult_t e, const char *what)
{
    return err_set(RC_UNAVAILABLE, "NCCL: %s: %s", ncclGetErrorString(e), what);
}

#define NCCL_TRY(expr) CALL_TRY(ncclResult_t, ncclSuccess, nccl_failed, expr)

static int
get_id(void *id)
{
    static_assert(sizeof(ncclUniqueId) == REDUCE_ID_BYTES, "the size of NCCL's id");
    ncclUniqueId u;

    NCCL_TRY(ncclGetUniqueId(&u));
    memcpy(id, &u, sizeof(u));
    return RC_OK;
}

static void
close_nccl(struct reduce *r, bool whole)
{
    if (r == NULL)
        return;
    if (r->comm != NULL)
        (void)(whole ? ncclCommDestroy(r->comm) : ncclCommAbort(r->comm));
    for (struct slot &s : r->slot) {
        for (cudaEvent_t e : { s.in_done, s.run_done, s.out_done })
            if (e != NULL)
                (void)cudaEventDestroy(e);
        (void)cudaFreeHost(s.host);
        (void)cudaFree(s.device);
    }
    for (cudaStream_t s : { r->in, r->run, r->out })
        if (s != NULL)
            (void)cudaStreamDestroy(s);
    mem_free(r->queue);
    mem_free(r);
}

static int
open_all(struct reduce *r, const void *id, int ranks)
{
    ncclUniqueId u;

    memcpy(&u, id, sizeof(u));
    TRY(choose_device());
    for (cudaStream_t *s : { &r->in, &r->run, &r->out })
        CUDA_TRY(cudaStreamCreateWithFlags(s, cudaStreamNonBlocking));
    for (struct slot &s : r->slot) {
        for (cudaEvent_t *e : { &s.in_done, &s.run_done, &s.out_done })
            CUDA_TRY(cudaEventCreateWithFlags(e, cudaEventDisableTiming));
        CUDA_TRY(cudaMallocHost((void **)&s.host, PIECE * sizeof(double)));
        CUDA_TRY(cudaMalloc((void **)&s.device, PIECE * sizeof(double)));
    }
    NCCL_TRY(ncclCommInitRank(&r->comm, ranks, u, r->rank));
    return RC_OK;
}

static int
open_nccl(struct reduce **out, const void *id, int rank, int ranks)
{
    struct reduce *r = (struct reduce *)mem_zalloc(1, sizeof(*r));
    int rc;

    *out = NULL;
    if (r == NULL)
        return RC_OS;
    r->rank = rank;
    if ((rc = open_all(r, id, ranks)) != RC_OK) {
        close_nccl(r, false);
        return rc == RC_OS ? RC_UNAVAILABLE : rc; /* the others are waiting: there is no way round it */
    }
    *out = r;
    return RC_OK;
}

static int
begin(struct reduce *r, struct reduce_sum *s)
{
    if (r->queued == r->room) {
        struct reduce_sum **q = (struct reduce_sum **)mem_alloc(2 * (size_t)r->room + 16, sizeof(*q));

        if (q == NULL)
            return RC_OS;
        if (r->queued > 0)
            memcpy(q, r->queue, (size_t)r->queued * sizeof(*q));
        mem_free(r->queue);
        r->queue = q;
        r->room = 2 * r->room + 16;
    }
    s->taken = s->returned = 0;
    r->queue[r->queued++] = s;
    return RC_OK;
}

static bool
takes(const struct reduce *r, const struct reduce_sum *s)
{
    return s->root == REDUCE_EVERYBODY || s->root == r->rank;
}

/* A piece of the first sum of the queue, on its way. */
static int
fill(struct reduce *r, struct slot *t)
{
    struct reduce_sum *s = r->queue[0];
    size_t count = s->count - s->taken < PIECE ? s->count - s->taken : PIECE, bytes = count * sizeof(double);

    if (s->gives) {
        memcpy(t->host, s->data + s->taken, bytes);
        CUDA_TRY(cudaMemcpyAsync(t->device, t->host, bytes, cudaMemcpyHostToDevice, r->in));
    } else {
        CUDA_TRY(cudaMemsetAsync(t->device, 0, bytes, r->in));
    }
    CUDA_TRY(cudaEventRecord(t->in_done, r->in));
    CUDA_TRY(cudaStreamWaitEvent(r->run, t->in_done, 0));
    if (s->root == REDUCE_EVERYBODY)
        NCCL_TRY(ncclAllReduce(t->device, t->device, count, ncclFloat64, ncclSum, r->comm, r->run));
    else
        NCCL_TRY(ncclReduce(t->device, t->device, count, ncclFloat64, ncclSum, s->root, r->comm, r->run));
    CUDA_TRY(cudaEventRecord(t->run_done, r->run));
    CUDA_TRY(cudaStreamWaitEvent(r->out, t->run_done, 0));
    if (takes(r, s))
        CUDA_TRY(cudaMemcpyAsync(t->host, t->device, bytes, cudaMemcpyDeviceToHost, r->out));
    CUDA_TRY(cudaEventRecord(t->out_done, r->out));
    t->sum = s;
    t->count = count;
    if ((s->taken += count) == s->count)
        memmove(r->queue, r->queue + 1, (size_t)--r->queued * sizeof(*r->queue));
    return RC_OK;
}

/* *there: the slot is free now. */
static int
empty(struct reduce *r, struct slot *t, bool *there)
{
    ncclResult_t state = ncclSuccess;
    cudaError_t e;

    *there = true;
    if (t->sum == NULL)
        return RC_OK;
    NCCL_TRY(ncclCommGetAsyncError(r->comm, &state));
    if (state != ncclSuccess && state != ncclInProgress)
        return nccl_failed(state, "a sum between devices");
    if ((e = cudaEventQuery(t->out_done)) == cudaErrorNotReady) {
        *there = false;
        return RC_OK;
    }
    CUDA_TRY(e);
    if (takes(r, t->sum))
        memcpy(t->sum->data + t->sum->returned, t->host, t->count * sizeof(double));
    t->sum->returned += t->count;
    t->sum = NULL;
    return RC_OK;
}

static int
test(struct reduce *r)
{
    for (;;) {
        struct slot *t = &r->slot[r->next];
        bool there;

        TRY(empty(r, t, &there));
        if (!there)
            return RC_OK;
        if (r->queued > 0)
            TRY(fill(r, t));
        r->next = (r->next + 1) % SLOTS;
        if (r->queued == 0 && r->slot[r->next].sum == NULL)
            return RC_OK;
    }
}

extern "C" const struct reduce_table reduce_nccl = {
    .version = REDUCE_VERSION, .id = get_id, .open = open_nccl, .close = close_nccl, .begin = begin, .test = test,
};
