/* peers - which of the other ranks are still there */
#include "peers.h"

#include "clock.h"
#include "mem.h"
#include "msg.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OVERTAKE_SECONDS = 5 };

static bool
read_sign(const struct peers *p, int rank, struct sign *s)
{
    char path[BEAT_PATH_MAX];

    return sign_path(path, p->dir, rank, NULL) == RC_OK && sign_read(s, path);
}

int
peers_open(struct peers *p, const char *dir, int rank, int ranks, int timeout, const char *job)
{
    *p = (struct peers){ .rank = rank, .ranks = ranks, .timeout = timeout };
    p->dir = mem_strdup(dir);
    p->peer = mem_zalloc((size_t)ranks, sizeof(*p->peer));
    if (p->dir == NULL || p->peer == NULL)
        return RC_OS;
    for (int r = 0; r < ranks; r++)
        p->peer[r].heard = clock_seconds();
    return beat_open(&p->beat, dir, rank, NULL, timeout, job);
}

void
peers_close(struct peers *p, int rc)
{
    beat_close(&p->beat, rc);
    mem_free(p->dir);
    mem_free(p->peer);
    *p = (struct peers){ 0 };
}

/* A rank that died before we came leaves what an earlier run may have left as well, unless it says which. */
static bool
of_this_run(const struct peers *p, const struct peer *r, const struct sign *s)
{
    return r->seen || s->stamp >= p->beat.born || (s->job[0] != '\0' && strcmp(s->job, p->beat.job) == 0);
}

static int
check_one(struct peers *p, int rank)
{
    double woke = beat_woke(&p->beat), silent;
    struct peer *r = &p->peer[rank];
    struct sign s;
    bool there = read_sign(p, rank, &s), alive = there && sign_alive(&s, p->beat.host), here;

    if (there && !alive && (there = read_sign(p, rank, &s))) /* it may have ended well after we read */
        alive = sign_alive(&s, p->beat.host);
    here = there && strcmp(s.host, p->beat.host) == 0;
    if (there && strcmp(s.state, "running") == 0) {
        bool moved = s.stamp != r->stamp && (r->stamp != 0 || of_this_run(p, r, &s));

        if (moved && alive) { /* an older file must be seen to change before it counts */
            r->seen = true;
            r->heard = clock_seconds();
        }
        if (of_this_run(p, r, &s) && !alive)
            return err_set(RC_RETRY, "rank %d: process %ld on %s is gone", rank, s.pid, s.host);
    } else if (there && of_this_run(p, r, &s)) {
        if (strcmp(s.state, "failed") == 0)
            return err_set(RC_RETRY, "rank %d: failed with exit status %d, process %ld on %s", rank, s.number, s.pid,
                s.host);
        if (!r->done)
            r->heard = clock_seconds();
        r->done = true;
    }
    r->stamp = there ? s.stamp : r->stamp;
    silent = clock_seconds() - (r->heard > woke ? r->heard : woke);
    if (r->done || silent < p->timeout)
        return RC_OK;
    if (!r->seen)
        return err_set(RC_RETRY, "rank %d: has not started within %d seconds", rank, p->timeout);
    return err_set(RC_RETRY, "rank %d: no sign of life for %d seconds from process %ld on %s%s", rank, p->timeout,
        s.pid, s.host, here ? " (stopped?)" : "");
}

int
peers_check(struct peers *p)
{
    double t = clock_seconds();

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

    return !r->done || clock_seconds() - r->heard < OVERTAKE_SECONDS ? RC_OK :
        err_set(RC_RETRY, "rank %d: has ended before the others", rank);
}

int
peers_none(const char *dir)
{
    struct peers p = { .dir = mem_strdup(dir) };
    struct dirent *e;
    DIR *d = opendir(dir);
    int rc = p.dir != NULL ? RC_OK : RC_OS;

    sign_host(p.beat.host);
    while (d != NULL && rc == RC_OK && (e = readdir(d)) != NULL) {
        int rank = atoi(e->d_name);
        struct sign s;

        if (e->d_name[0] < '0' || e->d_name[0] > '9' || strchr(e->d_name, '.') != NULL || !read_sign(&p, rank, &s) ||
            strcmp(s.state, "running") != 0)
            continue;
        if (strcmp(s.host, p.beat.host) == 0 ? sign_alive(&s, p.beat.host) :
            (int64_t)time(NULL) - s.stamp / 1000000000 < PEERS_FRESH_SECONDS)
            rc = err_set(RC_RETRY, "rank %d: process %ld on %s is at work", rank, s.pid, s.host);
    }
    if (d != NULL)
        (void)closedir(d);
    mem_free(p.dir);
    return rc;
}
