/* pool - threads over fixed tiles */
#include "pool.h"

#include "mem.h"
#include "msg.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* A wait of less than that is done without sleeping, which takes a processor longer to end. Of the order of 10 us. */
enum { SPINS = 256 };

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t  start, done;
    pthread_t      *threads;
    int             count;  /* workers, the caller included */
    atomic_int      active; /* workers in the current job, the caller left out */
    atomic_ulong    job;    /* its number; a change wakes the workers */
    bool            open;   /* workers may still join */
    bool            quit;
    int             tiles;
    atomic_int      next;
    void          (*fn)(void *ctx, int tile, int worker);
    void           *ctx;
};

struct worker {
    struct pool *pool;
    int          id;
};

static inline void
relax(void)
{
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
}

static void
take_tiles(struct pool *p, int worker)
{
    int tile;

    while ((tile = atomic_fetch_add(&p->next, 1)) < p->tiles)
        p->fn(p->ctx, tile, worker);
}

/* A worker that comes when all tiles are taken has no part in the job, and nobody waits for it. */
static void *
work(void *arg)
{
    struct worker w = *(struct worker *)arg;
    struct pool *p = w.pool;
    unsigned long seen = 0;

    mem_free(arg);
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load(&p->job) == seen; i++)
            relax();
        (void)pthread_mutex_lock(&p->lock);
        while ((p->job == seen || !p->open) && !p->quit)
            (void)pthread_cond_wait(&p->start, &p->lock);
        if (p->quit) {
            (void)pthread_mutex_unlock(&p->lock);
            return NULL;
        }
        seen = p->job;
        p->active++;
        (void)pthread_mutex_unlock(&p->lock);
        take_tiles(p, w.id);
        (void)pthread_mutex_lock(&p->lock);
        if (--p->active == 0 && !p->open)
            (void)pthread_cond_signal(&p->done);
        (void)pthread_mutex_unlock(&p->lock);
    }
}

/* Signals are the main thread's, which may have to leave a read(2). */
static int
start_worker(pthread_t *thread, struct worker *w)
{
    sigset_t all, old;
    int rc;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &old);
    rc = pthread_create(thread, NULL, work, w);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

int
pool_open(struct pool **out, int threads)
{
    struct pool *p = mem_zalloc(1, sizeof(*p));
    struct worker *w;
    int rc;

    *out = NULL;
    if (p == NULL)
        return RC_OS;
    if (threads <= 0)
        threads = pool_cpus();
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_cond_init(&p->start, NULL);
    (void)pthread_cond_init(&p->done, NULL);
    p->count = 1;
    if ((p->threads = mem_zalloc((size_t)threads, sizeof(*p->threads))) == NULL)
        goto fail;
    while (p->count < threads) {
        if ((w = mem_alloc(1, sizeof(*w))) == NULL)
            goto fail;
        *w = (struct worker){ p, p->count };
        if ((rc = start_worker(&p->threads[p->count], w)) != 0) {
            mem_free(w);
            (void)err_set(RC_OS, "cannot start thread %d: %s", p->count, strerror(rc));
            goto fail;
        }
        p->count++;
    }
    *out = p;
    return RC_OK;
fail:
    pool_close(p);
    return RC_OS;
}

void
pool_close(struct pool *p)
{
    if (p == NULL)
        return;
    (void)pthread_mutex_lock(&p->lock);
    p->quit = true;
    (void)pthread_cond_broadcast(&p->start);
    (void)pthread_mutex_unlock(&p->lock);
    for (int i = 1; i < p->count; i++)
        (void)pthread_join(p->threads[i], NULL);
    (void)pthread_cond_destroy(&p->start);
    (void)pthread_cond_destroy(&p->done);
    (void)pthread_mutex_destroy(&p->lock);
    mem_free(p->threads);
    mem_free(p);
}

int
pool_threads(const struct pool *p)
{
    return p->count;
}

void
pool_run(struct pool *p, int tiles, void (*fn)(void *ctx, int tile, int worker), void *ctx)
{
    if (p->count == 1 || tiles <= 1) {
        for (int i = 0; i < tiles; i++)
            fn(ctx, i, 0);
        return;
    }
    (void)pthread_mutex_lock(&p->lock);
    p->fn = fn;
    p->ctx = ctx;
    p->tiles = tiles;
    atomic_store(&p->next, 0);
    p->open = true;
    p->job++;
    (void)pthread_cond_broadcast(&p->start);
    (void)pthread_mutex_unlock(&p->lock);
    take_tiles(p, 0);
    for (int i = 0; i < SPINS && atomic_load(&p->active) > 0; i++)
        relax();
    (void)pthread_mutex_lock(&p->lock);
    p->open = false;
    while (p->active > 0)
        (void)pthread_cond_wait(&p->done, &p->lock);
    (void)pthread_mutex_unlock(&p->lock);
}

/* cgroup v2: "MAX PERIOD" in microseconds, MAX may be the word max. */
static int
cgroup_cpus(void)
{
    long quota = 0, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");

    if (f == NULL)
        return 0;
    if (fscanf(f, "%ld %ld", &quota, &period) != 2 || quota <= 0 || period <= 0)
        quota = 0;
    (void)fclose(f);
    return quota > 0 ? (int)((quota + period - 1) / period) : 0;
}

int
pool_cpus(void)
{
    cpu_set_t set;
    int n = 1, limit = cgroup_cpus();

    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        n = CPU_COUNT(&set);
    if (limit > 0 && limit < n)
        n = limit;
    return n < 1 ? 1 : n;
}
