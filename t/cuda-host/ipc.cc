/* ipc - memory and events of the device that two processes have, on the stand-in (cuda.cc)
 *
 * Memory that is asked for a handle becomes pages of a file without a name, which the other process opens as
 * /proc/PID/fd/N. An event counts how often it was recorded, and how far the work before it has come. Nobody may be
 * waiting in the process that records it, so a thread does its work, a little late: whoever reads without waiting for
 * the event reads too soon.
 */
#include "host.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <map>
#include <thread>
#include <utility>
#include <vector>

enum { PAGE = 4096, LATE_US = 2000 };

struct host_shared_event {
    std::atomic<long> recorded, done;
};

struct handle {
    int    pid, fd;
    size_t bytes;
};

namespace {

/* Goes on with streams whose events others wait for. */
struct helper {
    std::thread                               thread;
    std::vector<std::pair<cudaStream_t, long>> work;
    std::atomic<bool>                         stop { false };

    void
    go()
    {
        while (!stop) {
            (void)usleep(LATE_US);
            std::lock_guard<std::recursive_mutex> locked(host_lock);
            while (!work.empty() && work.front().first->try_to(work.front().second))
                work.erase(work.begin());
        }
    }

    ~helper()
    {
        stop = true;
        if (thread.joinable())
            thread.join();
    }
} helper;

std::map<void *, int> files; /* of our memory, by where it is */

void *
map_file(int fd, size_t bytes, void *at)
{
    void *p = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (at != NULL ? MAP_FIXED : 0), fd, 0);

    return p == MAP_FAILED ? NULL : p;
}

int
make_file(size_t bytes)
{
    int fd = memfd_create("cuda-host", MFD_CLOEXEC);

    if (fd >= 0 && ftruncate(fd, (off_t)bytes) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

void *
open_file(const handle &h)
{
    char path[64];
    struct stat st;
    void *p = NULL;
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", h.pid, h.fd);
    if ((fd = open(path, O_RDWR | O_CLOEXEC)) < 0)
        return NULL;
    if (fstat(fd, &st) == 0 && (size_t)st.st_size == h.bytes)
        p = map_file(fd, h.bytes, NULL);
    (void)close(fd);
    return p;
}

}

cudaError_t
cudaIpcGetMemHandle(cudaIpcMemHandle_t *out, void *p)
{
    size_t bytes = host_bytes(p);
    handle h = { (int)getpid(), -1, bytes };
    std::vector<char> was((char *)p, (char *)p + bytes);

    if (host_fails("ipc") || bytes == 0 || bytes % PAGE != 0)
        return cudaErrorInvalidValue;
    if (files.count(p) != 0)
        (void)close(files[p]);
    if ((h.fd = make_file(bytes)) < 0 || map_file(h.fd, bytes, p) == NULL)
        return cudaErrorMemoryAllocation;
    memcpy(p, was.data(), bytes);
    files[p] = h.fd;
    memset(out, 0, sizeof(*out));
    memcpy(out, &h, sizeof(h));
    return cudaSuccess;
}

cudaError_t
cudaIpcOpenMemHandle(void **p, cudaIpcMemHandle_t in, unsigned)
{
    handle h;

    memcpy(&h, &in, sizeof(h));
    if (host_fails("ipc") || (*p = open_file(h)) == NULL)
        return cudaErrorInvalidValue;
    host_opened(*p, h.bytes);
    return cudaSuccess;
}

cudaError_t
cudaIpcCloseMemHandle(void *p)
{
    size_t bytes = host_bytes(p);

    if (bytes == 0)
        return cudaErrorInvalidValue;
    host_closed(p);
    (void)munmap(p, bytes);
    return cudaSuccess;
}

cudaError_t
host_event_make(cudaEvent_t e)
{
    if ((e->fd = make_file(PAGE)) < 0)
        return cudaErrorMemoryAllocation;
    e->shared = (struct host_shared_event *)map_file(e->fd, PAGE, NULL);
    return e->shared != NULL ? cudaSuccess : cudaErrorMemoryAllocation;
}

void
host_event_free(cudaEvent_t e)
{
    if (e->shared != NULL)
        (void)munmap(e->shared, PAGE);
    if (e->fd >= 0)
        (void)close(e->fd);
}

void
host_event_record(cudaEvent_t e, cudaStream_t s)
{
    struct host_shared_event *shared = e->shared;
    long n = ++shared->recorded;

    (void)s->put([=] { shared->done = n; });
    helper.work.push_back({ s, s->end() });
    if (!helper.thread.joinable())
        helper.thread = std::thread([] { helper.go(); });
}

void
host_event_forget(cudaStream_t s)
{
    std::lock_guard<std::recursive_mutex> locked(host_lock);
    size_t kept = 0;

    for (auto &w : helper.work)
        if (w.first != s)
            helper.work[kept++] = w;
    helper.work.resize(kept);
}

std::function<bool()>
host_event_ready(cudaEvent_t e)
{
    struct host_shared_event *shared = e->shared;
    long n = shared->recorded;

    return [=] { return shared->done >= n; };
}

cudaError_t
cudaIpcGetEventHandle(cudaIpcEventHandle_t *out, cudaEvent_t e)
{
    handle h = { (int)getpid(), e->fd, PAGE };

    if (host_fails("ipc") || e->shared == NULL)
        return cudaErrorInvalidValue;
    memset(out, 0, sizeof(*out));
    memcpy(out, &h, sizeof(h));
    return cudaSuccess;
}

cudaError_t
cudaIpcOpenEventHandle(cudaEvent_t *e, cudaIpcEventHandle_t in)
{
    handle h;
    void *p;

    memcpy(&h, &in, sizeof(h));
    if (host_fails("ipc") || (p = open_file(h)) == NULL)
        return cudaErrorInvalidValue;
    *e = new host_event();
    (*e)->fd = -1;
    (*e)->shared = (struct host_shared_event *)p;
    return cudaSuccess;
}
