/* peers - which of the other ranks are still there */
#include "peers.h"

#include "buf.h"
#include "file.h"
#include "mem.h"
#include "msg.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BEAT_SECONDS = 1, OVERTAKE_SECONDS = 5, LINE_MAX_BYTES = 256 };

static double
now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int64_t
stamp_of(const struct stat *st)
{
    return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static int
peer_path(const struct peers *p, int rank, char *out)
{
    int n = snprintf(out, PATH_MAX, "%s/%d", p->dir, rank);

    return n < 0 || n >= PATH_MAX ? err_set(RC_DATA, "%s: path is too long", p->dir) : RC_OK;
}

static void
name_host(struct peers *p)
{
    if (gethostname(p->host, sizeof(p->host) - 1) != 0 || p->host[0] == '\0')
        (void)snprintf(p->host, sizeof(p->host), "localhost");
}

static int
tell(const struct peers *p, const char *state)
{
    char path[PATH_MAX], line[LINE_MAX_BYTES];
    int n = snprintf(line, sizeof(line), "%s %ld %s\n", p->host, (long)getpid(), state);

    TRY(peer_path(p, p->rank, path));
    return file_publish(path, line, (size_t)n);
}

/* A thread of its own, so that long arithmetic is no silence, and a stopped process is. */
static void *
beat(void *arg)
{
    struct peers *p = arg;
    char path[PATH_MAX];
    struct timespec t;

    if (peer_path(p, p->rank, path) != RC_OK)
        return NULL;
    (void)pthread_mutex_lock(&p->lock);
    while (!p->end) {
        (void)clock_gettime(CLOCK_REALTIME, &t);
        t.tv_sec += BEAT_SECONDS;
        (void)pthread_cond_timedwait(&p->ended, &p->lock, &t);
        if (!p->end)
            (void)utimensat(AT_FDCWD, path, NULL, 0);
    }
    (void)pthread_mutex_unlock(&p->lock);
    return NULL;
}

int
peers_open(struct peers *p, const char *dir, int rank, int ranks, int timeout)
{
    char path[PATH_MAX];
    sigset_t all, old;
    struct stat st;
    int rc;

    *p = (struct peers){ .rank = rank, .ranks = ranks, .timeout = timeout, .lock = PTHREAD_MUTEX_INITIALIZER,
        .ended = PTHREAD_COND_INITIALIZER };
    p->dir = mem_strdup(dir);
    p->peer = mem_zalloc((size_t)ranks, sizeof(*p->peer));
    if (p->dir == NULL || p->peer == NULL)
        return RC_OS;
    name_host(p);
    TRY(file_mkdir(dir));
    TRY(tell(p, "running"));
    TRY(peer_path(p, rank, path));
    if (stat(path, &st) != 0)
        return err_set(RC_IO, "%s: cannot read: %s", path, strerror(errno));
    p->born = stamp_of(&st);
    for (int r = 0; r < ranks; r++)
        p->peer[r].heard = now();
    (void)sigfillset(&all); /* signals are the main thread's */
    (void)pthread_sigmask(SIG_BLOCK, &all, &old);
    rc = pthread_create(&p->beat, NULL, beat, p);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0)
        return err_set(RC_OS, "cannot start a thread: %s", strerror(rc));
    p->beating = true;
    return RC_OK;
}

void
peers_close(struct peers *p, int rc)
{
    char state[32] = "done";

    if (p->beating) {
        (void)pthread_mutex_lock(&p->lock);
        p->end = true;
        (void)pthread_cond_signal(&p->ended);
        (void)pthread_mutex_unlock(&p->lock);
        (void)pthread_join(p->beat, NULL);
        if (rc != RC_OK)
            (void)snprintf(state, sizeof(state), "failed %d", rc);
        (void)tell(p, state);
    }
    mem_free(p->dir);
    mem_free(p->peer);
    *p = (struct peers){ 0 };
}

struct sign {
    char    host[65], state[16];
    long    pid;
    int     code;
    int64_t stamp;
};

/* False: there is no such file, or not ours. */
static bool
read_sign(const struct peers *p, int rank, struct sign *s)
{
    char path[PATH_MAX];
    struct buf b = { 0 };
    struct stat st;
    bool ok;

    *s = (struct sign){ 0 };
    if (peer_path(p, rank, path) != RC_OK || stat(path, &st) != 0 ||
        buf_read_file(&b, path, LINE_MAX_BYTES) != RC_OK)
        return false;
    s->stamp = stamp_of(&st);
    ok = b.s != NULL && sscanf(b.s, "%64s %ld %15s %d", s->host, &s->pid, s->state, &s->code) >= 3;
    buf_free(&b);
    return ok;
}

static bool
alive(const struct peers *p, const struct sign *s)
{
    return strcmp(s->host, p->host) != 0 || kill((pid_t)s->pid, 0) == 0 || errno != ESRCH;
}

static int
check_one(struct peers *p, int rank)
{
    struct peer *r = &p->peer[rank];
    struct sign s;
    bool there = read_sign(p, rank, &s), here = there && strcmp(s.host, p->host) == 0;

    if (there && strcmp(s.state, "running") == 0) {
        bool moved = s.stamp != r->stamp && (r->stamp != 0 || s.stamp >= p->born);

        if (moved && alive(p, &s)) { /* an older file must be seen to change before it counts */
            r->seen = true;
            r->heard = now();
        }
        if ((r->seen || s.stamp >= p->born) && !alive(p, &s))
            return err_set(RC_RETRY, "rank %d: process %ld on %s is gone", rank, s.pid, s.host);
    } else if (there && (r->seen || s.stamp >= p->born)) {
        if (strcmp(s.state, "failed") == 0)
            return err_set(RC_RETRY, "rank %d: failed with exit status %d, process %ld on %s", rank, s.code, s.pid,
                s.host);
        if (!r->done)
            r->heard = now();
        r->done = true;
    }
    r->stamp = there ? s.stamp : r->stamp;
    if (r->done || now() - r->heard < p->timeout)
        return RC_OK;
    if (!r->seen)
        return err_set(RC_RETRY, "rank %d: has not started within %d seconds", rank, p->timeout);
    return err_set(RC_RETRY, "rank %d: no sign of life for %d seconds from process %ld on %s%s", rank, p->timeout,
        s.pid, s.host, here ? " (stopped?)" : "");
}

int
peers_check(struct peers *p)
{
    double t = now();

    if (p->ranks < 2 || t - p->checked < BEAT_SECONDS)
        return RC_OK;
    p->checked = t;
    for (int r = 0; r < p->ranks; r++)
        if (r != p->rank)
            TRY(check_one(p, r));
    return RC_OK;
}

int
peers_expect(const struct peers *p, int rank)
{
    const struct peer *r = &p->peer[rank];

    return !r->done || now() - r->heard < OVERTAKE_SECONDS ? RC_OK :
        err_set(RC_RETRY, "rank %d: has ended before the others", rank);
}

int
peers_none(const char *dir)
{
    struct peers p = { .dir = mem_strdup(dir) };
    struct dirent *e;
    DIR *d = opendir(dir);
    int rc = p.dir != NULL ? RC_OK : RC_OS;

    name_host(&p);
    while (d != NULL && rc == RC_OK && (e = readdir(d)) != NULL) {
        int rank = atoi(e->d_name);
        struct sign s;

        if (e->d_name[0] < '0' || e->d_name[0] > '9' || strchr(e->d_name, '.') != NULL || !read_sign(&p, rank, &s) ||
            strcmp(s.state, "running") != 0)
            continue;
        if (strcmp(s.host, p.host) == 0 ? alive(&p, &s) : (int64_t)time(NULL) - s.stamp / 1000000000 <
            PEERS_FRESH_SECONDS)
            rc = err_set(RC_RETRY, "rank %d: process %ld on %s is at work", rank, s.pid, s.host);
    }
    if (d != NULL)
        (void)closedir(d);
    mem_free(p.dir);
    return rc;
}
