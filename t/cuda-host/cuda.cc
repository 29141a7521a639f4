/* cuda - a stand-in for CUDA's runtime, cuBLAS and cuSOLVER on the host; for tests, never installed
 *
 * Streams are queues of work. Nothing runs before something waits for it, so a missing wait reads what is not there
 * yet; with LLMC_CUDA_HOST=now all runs at once, as early as it can, so a buffer that is written to too soon shows.
 * LLMC_CUDA_HOST=down also turns the order of threads and blocks (team.cuh). Values separate by commas.
 *
 * Device memory is the host's, full of NaN at first; under sanitizers what reaches beyond it is found. There are
 * LLMC_CUDA_MEMORY bytes of it (8 GiB).
 *
 * LLMC_CUDA_COUNT=FILE gets a line of each process at its end: its name, bytes copied to the device, back, and inside.
 * host_watch() has the calls in their order, a letter each: u, d, i copies to the device, back and inside, k a kernel,
 * g a product, w a wait of the host that finds work to do; G: a product is done.
 *
 * LLMC_CUDA_FAIL=CALL:N[+] makes the Nth CALL fail, counted from 1, or with + that and all after it: device, malloc,
 * pinned, copy, launch, gemm, potrf, nccl, ipc. A failed launch is found when its work is waited for, and sticks, as
 * on a device.
 */
#include "cusolverDn.h"

#include "../../kernels/cuda/c.h"
#include "../../kernels/cuda/team.cuh"

#include "host.h"

#include <cblas.h>
#include <errno.h>
#include <unistd.h>

#include <map>

int team_down;
std::recursive_mutex host_lock;

namespace {

enum { SHARED_MAX = 99 << 10 }; /* the least of our targets: sm_120 */

struct call {
    const char *name;
    long        count;
} calls[] = { { "device", 0 }, { "malloc", 0 }, { "pinned", 0 }, { "copy", 0 }, { "launch", 0 }, { "gemm", 0 },
    { "potrf", 0 }, { "nccl", 0 }, { "ipc", 0 } };

cudaError_t last_error, sticky;
size_t taken;
std::map<void *, size_t> device_memory;

struct counts {
    size_t to, back, inside, launches;
    char  *watch; /* where calls are written */
    size_t left;

    ~counts()
    {
        const char *path = getenv("LLMC_CUDA_COUNT");
        FILE *f = path != NULL && to + back + inside + launches > 0 ? fopen(path, "a") : NULL;

        if (f == NULL)
            return;
        (void)fprintf(f, "%s\t%zu\t%zu\t%zu\t%zu\n", program_invocation_short_name, to, back, inside, launches);
        (void)fclose(f);
    }
} count;

void
note(char c)
{
    if (count.watch == NULL || count.left < 2)
        return;
    *count.watch++ = c;
    *count.watch = '\0';
    count.left--;
}

void
moved(cudaMemcpyKind kind, size_t bytes)
{
    (kind == cudaMemcpyHostToDevice ? count.to : kind == cudaMemcpyDeviceToHost ? count.back : count.inside) += bytes;
    note(kind == cudaMemcpyHostToDevice ? 'u' : kind == cudaMemcpyDeviceToHost ? 'd' : 'i');
}

bool
asked(const char *what)
{
    const char *s = getenv("LLMC_CUDA_HOST");

    return s != NULL && strstr(s, what) != NULL;
}

cudaError_t
keep(cudaError_t e)
{
    if (e != cudaSuccess)
        last_error = e;
    return e;
}

size_t
memory_bytes()
{
    const char *s = getenv("LLMC_CUDA_MEMORY");

    return s != NULL ? strtoull(s, NULL, 10) : (size_t)8 << 30;
}

}

/* Bytes copied so far; calls from now on are written to text. */
extern "C" void
host_watch(size_t bytes[3], char *text, size_t size)
{
    bytes[0] = count.to;
    bytes[1] = count.back;
    bytes[2] = count.inside;
    count.watch = text;
    count.left = size;
    if (size > 0)
        *text = '\0';
}

bool
host_fails(const char *name)
{
    const char *s = getenv("LLMC_CUDA_FAIL");
    size_t len = strlen(name);
    char *end;
    long at;

    for (call &c : calls)
        if (strcmp(c.name, name) == 0) {
            c.count++;
            if (s == NULL || strncmp(s, name, len) != 0 || s[len] != ':')
                return false;
            at = strtol(s + len + 1, &end, 10);
            return c.count == at || (*end == '+' && c.count > at);
        }
    abort();
}

bool
host_has(const void *p, size_t bytes)
{
    auto it = device_memory.upper_bound(const_cast<void *>(p));

    if (it == device_memory.begin())
        return false;
    --it;
    return (const char *)p + bytes <= (const char *)it->first + it->second;
}

size_t
host_bytes(void *p)
{
    return device_memory.count(p) != 0 ? device_memory[p] : 0;
}

void
host_opened(void *p, size_t bytes)
{
    device_memory[p] = bytes;
}

void
host_closed(void *p)
{
    device_memory.erase(p);
}

void
host_stream::run_to(long at)
{
    std::lock_guard<std::recursive_mutex> locked(host_lock);

    if (begun < at && !queue.empty())
        note('w');
    while (begun < at && !queue.empty())
        if (!step())
            usleep(50);
}

bool
host_stream::try_to(long at)
{
    std::lock_guard<std::recursive_mutex> locked(host_lock);

    while (begun < at && !queue.empty())
        if (!step())
            return false;
    return true;
}

/* The first of the queue, if it can. */
bool
host_stream::step()
{
    host_work w = queue.front();

    if (sticky == cudaSuccess && w.ready && !w.ready())
        return false;
    queue.pop_front();
    begun++;
    if (sticky == cudaSuccess)
        w.run();
    return true;
}

cudaError_t
host_stream::put(std::function<void()> run, std::function<bool()> ready)
{
    std::lock_guard<std::recursive_mutex> locked(host_lock);

    queue.push_back({ run, ready });
    if (asked("now"))
        (void)try_to(end());
    return sticky != cudaSuccess ? keep(sticky) : cudaSuccess;
}

const char *
cudaGetErrorString(cudaError_t e)
{
    return e == cudaSuccess ? "no error" : e == cudaErrorMemoryAllocation ? "out of memory"
         : e == cudaErrorNotReady ? "device not ready" : e == cudaErrorNoDevice ? "no CUDA-capable device is detected"
         : e == cudaErrorLaunchFailure ? "unspecified launch failure" : "invalid argument";
}

cudaError_t
cudaGetLastError()
{
    cudaError_t e = sticky != cudaSuccess ? sticky : last_error;

    last_error = cudaSuccess;
    return e;
}

cudaError_t
cudaGetDeviceCount(int *count)
{
    team_down = asked("down");
    *count = 1;
    return host_fails("device") ? keep(cudaErrorNoDevice) : cudaSuccess;
}

cudaError_t
cudaSetDevice(int device)
{
    return device == 0 ? cudaSuccess : keep(cudaErrorInvalidValue);
}

cudaError_t
cudaMemGetInfo(size_t *available, size_t *total)
{
    *total = memory_bytes();
    *available = *total - taken;
    return cudaSuccess;
}

cudaError_t
cudaMalloc(void **p, size_t bytes)
{
    if (sticky != cudaSuccess)
        return keep(sticky);
    *p = NULL;
    /* What other processes may open lies on pages of its own (ipc.cc). */
    if (host_fails("malloc") || taken + bytes > memory_bytes() ||
        (*p = bytes % 4096 == 0 && bytes > 0 ? aligned_alloc(4096, bytes) : malloc(bytes)) == NULL)
        return keep(cudaErrorMemoryAllocation);
    memset(*p, 0xff, bytes);
    taken += bytes;
    device_memory[*p] = bytes;
    return cudaSuccess;
}

cudaError_t
cudaFree(void *p)
{
    if (p == NULL)
        return cudaSuccess;
    if (device_memory.count(p) == 0)
        return keep(cudaErrorInvalidValue);
    taken -= device_memory[p];
    device_memory.erase(p);
    free(p);
    return cudaSuccess;
}

cudaError_t
cudaMallocHost(void **p, size_t bytes)
{
    *p = NULL;
    return host_fails("pinned") || (*p = malloc(bytes)) == NULL ? keep(cudaErrorMemoryAllocation) : cudaSuccess;
}

cudaError_t
cudaFreeHost(void *p)
{
    free(p);
    return cudaSuccess;
}

cudaError_t
cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t s)
{
    if (host_fails("copy") || host_has(to, bytes) != (kind != cudaMemcpyDeviceToHost) ||
        host_has(from, bytes) != (kind != cudaMemcpyHostToDevice))
        return keep(cudaErrorInvalidValue);
    moved(kind, bytes);
    return s->put([=] { memcpy(to, from, bytes); });
}

cudaError_t
cudaMemcpy2DAsync(void *to, size_t to_stride, const void *from, size_t from_stride, size_t width, size_t rows,
    cudaMemcpyKind kind, cudaStream_t s)
{
    size_t last = rows > 0 ? rows - 1 : 0;

    if (host_fails("copy") || width > to_stride || width > from_stride ||
        host_has(to, last * to_stride + width) != (kind != cudaMemcpyDeviceToHost) ||
        host_has(from, last * from_stride + width) != (kind != cudaMemcpyHostToDevice))
        return keep(cudaErrorInvalidValue);
    moved(kind, width * rows);
    return s->put([=] {
        for (size_t r = 0; r < rows; r++)
            memcpy((char *)to + r * to_stride, (const char *)from + r * from_stride, width);
    });
}

cudaError_t
cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s)
{
    return host_has(p, bytes) ? s->put([=] { memset(p, value, bytes); }) : keep(cudaErrorInvalidValue);
}

cudaError_t
cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = new host_stream();
    return cudaSuccess;
}

cudaError_t
cudaStreamDestroy(cudaStream_t s)
{
    s->run_to(s->end());
    host_event_forget(s);
    delete s;
    return cudaSuccess;
}

cudaError_t
cudaStreamSynchronize(cudaStream_t s)
{
    s->run_to(s->end());
    return sticky != cudaSuccess ? keep(sticky) : cudaSuccess;
}

cudaError_t
cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    cudaStream_t of = e->stream;
    long at = e->at;

    if (e->shared != NULL)
        return s->put([] { }, host_event_ready(e));
    return of == NULL || of == s ? cudaSuccess : s->put([] { }, [=] { return of->try_to(at); });
}

cudaError_t
cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags)
{
    *e = new host_event();
    (*e)->fd = -1;
    return (flags & cudaEventInterprocess) != 0 ? keep(host_event_make(*e)) : cudaSuccess;
}

cudaError_t
cudaEventDestroy(cudaEvent_t e)
{
    host_event_free(e);
    delete e;
    return cudaSuccess;
}

cudaError_t
cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    std::lock_guard<std::recursive_mutex> locked(host_lock);

    if (e->shared != NULL)
        host_event_record(e, s);
    e->stream = s;
    e->at = s->end();
    return cudaSuccess;
}

cudaError_t
cudaEventQuery(cudaEvent_t e)
{
    if (e->stream != NULL && !e->stream->try_to(e->at))
        return cudaErrorNotReady;
    return sticky != cudaSuccess ? keep(sticky) : cudaSuccess;
}

cudaError_t
cudaEventSynchronize(cudaEvent_t e)
{
    if (e->stream != NULL)
        e->stream->run_to(e->at);
    return sticky != cudaSuccess ? keep(sticky) : cudaSuccess;
}

cudaError_t
host_launch(cudaStream_t s, size_t shared, int blocks, int height, std::function<void()> run)
{
    if (shared > SHARED_MAX || blocks < 1 || height < 1 || height > 65535)
        return keep(cudaErrorInvalidValue);
    if (host_fails("launch"))
        return s->put([] { sticky = cudaErrorLaunchFailure; });
    note('k');
    count.launches++;
    return s->put(run);
}

/* --- cuBLAS --- */

struct host_blas {
    cudaStream_t stream;
};

const char *
cublasGetStatusString(cublasStatus_t s)
{
    return s == CUBLAS_STATUS_SUCCESS ? "CUBLAS_STATUS_SUCCESS" : s == CUBLAS_STATUS_ALLOC_FAILED
        ? "CUBLAS_STATUS_ALLOC_FAILED" : s == CUBLAS_STATUS_EXECUTION_FAILED ? "CUBLAS_STATUS_EXECUTION_FAILED"
        : "CUBLAS_STATUS_INVALID_VALUE";
}

cublasStatus_t
cublasCreate(cublasHandle_t *h)
{
    *h = new host_blas();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasDestroy(cublasHandle_t h)
{
    delete h;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasSetStream(cublasHandle_t h, cudaStream_t s)
{
    h->stream = s;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasSetWorkspace(cublasHandle_t, void *p, size_t bytes)
{
    return host_has(p, bytes) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t
cublasSetMathMode(cublasHandle_t, cublasMath_t)
{
    return CUBLAS_STATUS_SUCCESS;
}

/* An operand, its rows or columns contiguous, as f32. */
static float *
widened(const void *p, cudaDataType_t t, int ld, int rows, int cols)
{
    float *f = (float *)malloc((size_t)rows * (size_t)cols * sizeof(*f));

    for (size_t c = 0; c < (size_t)cols; c++)
        for (size_t r = 0; r < (size_t)rows; r++)
            f[c * (size_t)rows + r] = act_get(p, t == CUDA_R_16BF ? DT_BF16 : DT_F32, c * (size_t)ld + r);
    return f;
}

cublasStatus_t
cublasGemmEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const void *alpha,
    const void *a, cudaDataType_t at, int lda, const void *b, cudaDataType_t bt, int ldb, const void *beta, void *c,
    cudaDataType_t ct, int ldc, cublasComputeType_t compute, cublasGemmAlgo_t)
{
    float one = *(const float *)alpha, keep_c = *(const float *)beta;
    int ar = ta == CUBLAS_OP_N ? m : k, ac = ta == CUBLAS_OP_N ? k : m;
    int br = tb == CUBLAS_OP_N ? k : n, bc = tb == CUBLAS_OP_N ? n : k;

    if (compute != CUBLAS_COMPUTE_32F || lda < ar || ldb < br || ldc < m || at != bt || m < 1 || n < 1 || k < 1 ||
        !host_has(c, 1) || !host_has(a, 1) || !host_has(b, 1))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (host_fails("gemm"))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    note('g');
    return h->stream->put([=] {
        float *fa = widened(a, at, lda, ar, ac), *fb = widened(b, bt, ldb, br, bc);
        float *fc = (float *)calloc((size_t)m * (size_t)n, sizeof(*fc));

        note('G');
        cblas_sgemm(CblasColMajor, ta == CUBLAS_OP_N ? CblasNoTrans : CblasTrans, tb == CUBLAS_OP_N ? CblasNoTrans :
            CblasTrans, m, n, k, one, fa, ar, fb, br, 0, fc, m);
        for (size_t j = 0; j < (size_t)n; j++)
            for (size_t i = 0; i < (size_t)m; i++) {
                size_t to = j * (size_t)ldc + i;
                enum dtype dt = ct == CUDA_R_16BF ? DT_BF16 : DT_F32;

                act_put(c, dt, to, fc[j * (size_t)m + i] + (keep_c != 0 ? keep_c * act_get(c, dt, to) : 0));
            }
        free(fa);
        free(fb);
        free(fc);
    }) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

/* --- cuSOLVER --- */

struct host_solver {
    cudaStream_t stream;
};

extern "C" void spotrf_(const char *uplo, const int *n, float *a, const int *lda, int *info);

cusolverStatus_t
cusolverDnCreate(cusolverDnHandle_t *h)
{
    *h = new host_solver();
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t
cusolverDnDestroy(cusolverDnHandle_t h)
{
    delete h;
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t
cusolverDnSetStream(cusolverDnHandle_t h, cudaStream_t s)
{
    h->stream = s;
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t
cusolverDnSpotrf_bufferSize(cusolverDnHandle_t, cublasFillMode_t, int n, float *, int, int *lwork)
{
    *lwork = n;
    return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t
cusolverDnSpotrf(cusolverDnHandle_t h, cublasFillMode_t uplo, int n, float *a, int lda, float *work, int lwork,
    int *info)
{
    if (lda < n || !host_has(a, 1) || !host_has(work, (size_t)lwork * sizeof(*work)) ||
        !host_has(info, sizeof(*info)))
        return CUSOLVER_STATUS_INVALID_VALUE;
    if (host_fails("potrf"))
        return CUSOLVER_STATUS_EXECUTION_FAILED;
    return h->stream->put([=] { spotrf_(uplo == CUBLAS_FILL_MODE_UPPER ? "U" : "L", &n, a, &lda, info); }) ==
        cudaSuccess ? CUSOLVER_STATUS_SUCCESS : CUSOLVER_STATUS_EXECUTION_FAILED;
}
