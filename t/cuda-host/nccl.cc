/* nccl - a stand-in for NCCL between processes of one host; for tests, never installed
 *
 * Ranks meet in a file of the working directory, where each has a buffer and two counters: operations posted, and
 * operations whose result was taken. An operation is ready when all have posted theirs; the next one is posted when
 * all have taken this one. LLMC_CUDA_FAIL=nccl:N makes the Nth operation of a rank fail.
 */
#include "nccl.h"

#include "host.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

namespace {

const size_t VALUES = 2 << 20; /* of a buffer: the largest operation */
enum { RANKS_MAX = 16 };

struct meeting {
    std::atomic<int>  joined;
    std::atomic<long> posted[RANKS_MAX], taken[RANKS_MAX];
    double            data[][VALUES];
};

}

struct host_nccl {
    meeting    *m;
    size_t      bytes;
    std::string name;
    int         rank, ranks;
    long        begun;   /* operations, in order of their calls */
    bool        waiting; /* the first that is not done has been posted */
};

const char *
ncclGetErrorString(ncclResult_t r)
{
    return r == ncclSuccess ? "no error" : r == ncclInvalidArgument ? "invalid argument"
        : r == ncclRemoteError ? "remote process exited or there was a network error" : "unhandled system error";
}

ncclResult_t
ncclGetUniqueId(ncclUniqueId *id)
{
    memset(id, 0, sizeof(*id));
    snprintf(id->internal, sizeof(id->internal), "nccl-host.%d", (int)getpid());
    return ncclSuccess;
}

ncclResult_t
ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank)
{
    host_nccl *c;
    void *p;
    int fd;

    if (ranks > RANKS_MAX || rank < 0 || rank >= ranks)
        return ncclInvalidArgument;
    if ((fd = open(id.internal, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0)
        return ncclSystemError;
    c = new host_nccl{ NULL, sizeof(meeting) + (size_t)ranks * VALUES * sizeof(double), id.internal, rank, ranks, 0,
        false };
    p = ftruncate(fd, (off_t)c->bytes) != 0 ? MAP_FAILED
        : mmap(NULL, c->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    if (p == MAP_FAILED) {
        delete c;
        return ncclSystemError;
    }
    c->m = (meeting *)p;
    c->m->joined++;
    while (c->m->joined < ranks)
        usleep(100);
    (void)unlink(c->name.c_str()); /* whoever comes first */
    *comm = c;
    return ncclSuccess;
}

ncclResult_t
ncclCommDestroy(ncclComm_t c)
{
    (void)munmap(c->m, c->bytes);
    delete c;
    return ncclSuccess;
}

ncclResult_t
ncclCommAbort(ncclComm_t c)
{
    return ncclCommDestroy(c);
}

ncclResult_t
ncclCommGetAsyncError(ncclComm_t, ncclResult_t *state)
{
    *state = ncclSuccess;
    return ncclSuccess;
}

static ncclResult_t
reduce(const void *from, void *to, size_t count, bool takes, ncclComm_t c, cudaStream_t s)
{
    size_t bytes = count * sizeof(double);
    long k;

    if (count > VALUES || !host_has(from, bytes) || !host_has(to, bytes))
        return ncclInvalidArgument;
    if (host_fails("nccl"))
        return ncclRemoteError;
    k = ++c->begun;
    return s->put([=] {
        double *d = (double *)to;

        for (size_t i = 0; takes && i < count; i++) {
            double sum = 0;

            for (int r = 0; r < c->ranks; r++)
                sum += c->m->data[r][i];
            d[i] = sum;
        }
        c->m->taken[c->rank] = k;
        c->waiting = false;
    }, [=] {
        if (!c->waiting) {
            for (int r = 0; r < c->ranks; r++)
                if (c->m->taken[r] < k - 1)
                    return false;
            memcpy(c->m->data[c->rank], from, bytes);
            c->m->posted[c->rank] = k;
            c->waiting = true;
        }
        for (int r = 0; r < c->ranks; r++)
            if (c->m->posted[r] < k)
                return false;
        return true;
    }) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t
ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t t, ncclRedOp_t op, ncclComm_t c,
    cudaStream_t s)
{
    return t == ncclFloat64 && op == ncclSum ? reduce(from, to, count, true, c, s) : ncclInvalidArgument;
}

ncclResult_t
ncclReduce(const void *from, void *to, size_t count, ncclDataType_t t, ncclRedOp_t op, int root, ncclComm_t c,
    cudaStream_t s)
{
    return t == ncclFloat64 && op == ncclSum && root >= 0 && root < c->ranks
        ? reduce(from, to, count, root == c->rank, c, s) : ncclInvalidArgument;
}
