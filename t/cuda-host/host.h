/* host - what the stand-ins of CUDA and NCCL share: streams, what shall fail, which memory is the device's */
#ifndef LLMC_T_HOST_H
#define LLMC_T_HOST_H

#include "cuda_runtime.h"

#include <deque>
#include <mutex>

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

/* An event is a place in a stream: all before it. One that other processes see counts in memory that they share. */
struct host_event {
    cudaStream_t stream;
    long         at;
    struct host_shared_event *shared; /* or NULL */
    int          fd;                  /* of its memory, in the process that made it; else -1 */
};

/* ipc.cc: what happens where an event of several processes is recorded and waited for. */
void                  host_event_record(cudaEvent_t e, cudaStream_t s);
std::function<bool()> host_event_ready(cudaEvent_t e);
cudaError_t           host_event_make(cudaEvent_t e);
void                  host_event_free(cudaEvent_t e);
void                  host_event_forget(cudaStream_t s); /* it goes */

/* Memory of the device that another process has, or ours that it may open. */
void  host_opened(void *p, size_t bytes);
void  host_closed(void *p);
/* bytes of the whole allocation at p; 0: none begins there. */
size_t host_bytes(void *p);

/* The threads of a process that call the stand-in, of which one sees to it that work goes on while the other sleeps. */
extern std::recursive_mutex host_lock;

/* Counts a call; true if it shall fail. */
bool host_fails(const char *name);
/* Whether these bytes are the device's. */
bool host_has(const void *p, size_t bytes);

#endif
