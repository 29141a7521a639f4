/* place - which device is ours, and what CUDA's runtime says when it fails */
#ifndef LLMC_CUDA_PLACE_H
#define LLMC_CUDA_PLACE_H

#include "c.h"

#include <cuda_runtime.h>

/* RC_OS: out of device or pinned memory; else RC_UNAVAILABLE. The text is the library's. */
static inline int
cuda_failed(cudaError_t e, const char *what)
{
    (void)cudaGetLastError(); /* an error that does not stick must not be the next call's */
    return err_set(e == cudaErrorMemoryAllocation ? RC_OS : RC_UNAVAILABLE, "CUDA: %s: %s", cudaGetErrorString(e),
        what);
}

#define CALL_TRY(type, ok, failed, expr)  \
    do {                                  \
        type st_ = (expr);                \
        if (st_ != ok)                    \
            return failed(st_, #expr);    \
    } while (0)
#define CUDA_TRY(expr) CALL_TRY(cudaError_t, cudaSuccess, cuda_failed, expr)

/* RC_UNAVAILABLE: there is none. */
static inline int
count_devices(int *count)
{
    cudaError_t e = cudaGetDeviceCount(count);

    if (e != cudaSuccess || *count == 0)
        return err_set(RC_UNAVAILABLE, "no CUDA device: %s", e != cudaSuccess ? cudaGetErrorString(e) : "none is here");
    return RC_OK;
}

/* Makes the device of our place on this machine, as the launcher says it, the current one. */
static inline int
choose_device()
{
    static const char *const names[] = {
        "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PMI_LOCAL_RANK", "SLURM_LOCALID",
    };
    int count, place = 0;

    TRY(count_devices(&count));
    for (const char *name : names) {
        const char *s = getenv(name);

        if (s != NULL && *s >= '0' && *s <= '9') {
            place = atoi(s);
            break;
        }
    }
    CUDA_TRY(cudaSetDevice(place % count));
    return RC_OK;
}

#endif
