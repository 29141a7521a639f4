/* beat - a process's sign of life, and its neighbours' */
#include "beat.h"

#include "buf.h"
#include "clock.h"
#include "file.h"
#include "msg.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 256, GAP_SECONDS = 5 };

static const char *const stages[BEAT_STAGES] = { NULL, "calib", "gptq" };

/* --- signs --- */

void
sign_host(char out[65])
{
    memset(out, 0, 65);
    if (gethostname(out, 64) != 0 || out[0] == '\0')
        (void)snprintf(out, 65, "localhost");
}

int
sign_path(char out[BEAT_PATH_MAX], const char *dir, int rank, const char *stage)
{
    int n = snprintf(out, BEAT_PATH_MAX, "%s/%d%s%s", dir, rank, stage != NULL ? "." : "", stage != NULL ? stage : "");

    return n < 0 || n >= BEAT_PATH_MAX ? err_set(RC_DATA, "%s: path is too long", dir) : RC_OK;
}

bool
sign_read(struct sign *s, const char *path)
{
    struct buf b = { 0 };
    struct stat st;
    bool ok;

    *s = (struct sign){ 0 };
    if (stat(path, &st) != 0 || buf_read_file(&b, path, LINE_MAX_BYTES) != RC_OK)
        return false;
    s->stamp = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    ok = b.s != NULL && sscanf(b.s, "%64s %ld %15s %d %16s", s->host, &s->pid, s->state, &s->number, s->job) >= 3;
    buf_free(&b);
    return ok && s->pid > 0;
}

/* A process that is dead but not waited for, as where the first process of a container does not, is still there. */
static bool
zombie(long pid)
{
    char path[64], line[LINE_MAX_BYTES], *state;
    bool is = false;
    FILE *f;

    (void)snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
    if ((f = fopen(path, "re")) == NULL)
        return false;
    if (fgets(line, sizeof(line), f) != NULL && (state = strrchr(line, ')')) != NULL)
        is = strncmp(state, ") Z", 3) == 0 || strncmp(state, ") X", 3) == 0;
    (void)fclose(f);
    return is;
}

bool
sign_alive(const struct sign *s, const char *host)
{
    return strcmp(s->host, host) != 0 || ((kill((pid_t)s->pid, 0) == 0 || errno != ESRCH) && !zombie(s->pid));
}

static int
tell(const struct beat *b, const char *state, int number)
{
    char line[LINE_MAX_BYTES];
    int n = snprintf(line, sizeof(line), "%s %ld %s %d %s\n", b->host, (long)getpid(), state, number, b->job);

    return file_publish(b->path, line, (size_t)n);
}

/* --- the neighbours --- */

static int
limit_of(const struct beat *b)
{
    struct sign s;

    if (b->limit > 0)
        return b->limit;
    return sign_read(&s, b->stage[0].path) && strcmp(s.state, "running") == 0 ? s.number : 0;
}

static void
look_at(const struct beat *b, struct neighbour *n, double t, double woke)
{
    struct sign s;
    int limit;

    if (!sign_read(&s, n->path) || strcmp(s.state, "running") != 0 || strcmp(s.host, b->host) != 0) {
        n->seen = false;
        return;
    }
    if (s.stamp != n->stamp) { /* what an earlier run has left does not change, nor is it of our group */
        n->seen = n->seen || n->stamp != 0 || s.stamp >= b->born || getpgid((pid_t)s.pid) == getpgrp();
        n->stamp = s.stamp;
        n->heard = t;
    }
    if (n->seen && (limit = limit_of(b)) > 0 && t - (n->heard > woke ? n->heard : woke) > limit &&
        sign_alive(&s, b->host)) {
        msg_error(NULL, "process %ld, the next in our pipe, shows no sign of life for %d seconds (stopped?): killed",
            s.pid, limit);
        (void)kill((pid_t)s.pid, SIGKILL);
        n->seen = false;
    }
}

static void *
beat(void *arg)
{
    struct beat *b = arg;
    struct timespec t;
    double now, woke;

    (void)pthread_mutex_lock(&b->lock);
    while (!b->end) {
        (void)clock_gettime(CLOCK_REALTIME, &t);
        t.tv_sec += BEAT_SECONDS;
        (void)pthread_cond_timedwait(&b->ended, &b->lock, &t);
        if (b->end)
            break;
        now = clock_seconds();
        if (now - b->looked > GAP_SECONDS)
            b->woke = now;
        b->looked = now;
        woke = b->woke;
        (void)pthread_mutex_unlock(&b->lock); /* a file system may keep us waiting */
        (void)utimensat(AT_FDCWD, b->path, NULL, 0);
        for (int i = 0; i < BEAT_STAGES - 1; i++)
            look_at(b, &b->stage[i], now, woke);
        (void)pthread_mutex_lock(&b->lock);
    }
    (void)pthread_mutex_unlock(&b->lock);
    return NULL;
}

double
beat_woke(struct beat *b)
{
    double woke;

    (void)pthread_mutex_lock(&b->lock);
    woke = clock_seconds() - b->looked > GAP_SECONDS && b->beating ? clock_seconds() : b->woke;
    (void)pthread_mutex_unlock(&b->lock);
    return woke;
}

int
beat_open(struct beat *b, const char *dir, int rank, const char *stage, int limit, const char *job)
{
    sigset_t all, old;
    struct sign s;
    int at = 0, rc;

    *b = (struct beat){ .limit = limit, .lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER };
    sign_host(b->host);
    (void)snprintf(b->job, sizeof(b->job), "%s", job);
    TRY(file_mkdir(dir));
    for (int i = 0; i < BEAT_STAGES; i++)
        if (stage == stages[i] || (stage != NULL && stages[i] != NULL && strcmp(stage, stages[i]) == 0))
            TRY(sign_path(b->path, dir, rank, stages[i]));
        else if (at < BEAT_STAGES - 1)
            TRY(sign_path(b->stage[at++].path, dir, rank, stages[i]));
    TRY(tell(b, "running", limit));
    if (!sign_read(&s, b->path))
        return err_set(RC_IO, "%s: cannot read: %s", b->path, strerror(errno));
    b->born = s.stamp;
    b->looked = clock_seconds();
    (void)sigfillset(&all); /* signals are the main thread's */
    (void)pthread_sigmask(SIG_BLOCK, &all, &old);
    rc = pthread_create(&b->thread, NULL, beat, b);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0)
        return err_set(RC_OS, "cannot start a thread: %s", strerror(rc));
    b->beating = true;
    return RC_OK;
}

void
beat_close(struct beat *b, int rc)
{
    if (!b->beating)
        return;
    (void)pthread_mutex_lock(&b->lock);
    b->end = true;
    (void)pthread_cond_signal(&b->ended);
    (void)pthread_mutex_unlock(&b->lock);
    (void)pthread_join(b->thread, NULL);
    b->beating = false;
    (void)tell(b, rc == RC_OK ? "done" : "failed", rc);
}
