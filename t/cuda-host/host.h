/* host - what the stand-ins of CUDA and NCCL share: streams, what shall fail, which memory is the device's */
#ifndef LLMC_T_HOST_H
#define LLMC_T_HOST_H

#include "cuda_runtime.h"

#include <deque>

/* Work that waits for ready, which may be empty: always. */
struct host_work {
    std::function<void()> run;
    std::function<bool()> ready;
};

struct host_stream {
    std::deque<host_work> queue;
    long                  begun; /* pieces of work taken off the queue */

    void        run_to(long at);
    bool        try_to(long at); /* false: something of it is not ready */
    bool        step();
    cudaError_t put(std::function<void()> run, std::function<bool()> ready = nullptr);

    long
    end() const
    {
        return begun + (long)queue.size();
    }
};

/* An event is a place in a stream: all before it. */
struct host_event {
    cudaStream_t stream;
    long         at;
};

/* Counts a call; true if it shall fail. */
bool host_fails(const char *name);
/* Whether these bytes are the device's. */
bool host_has(const void *p, size_t bytes);

#endif
