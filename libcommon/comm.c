/* comm - how the ranks of a run add up their Hessians */
#include "comm.h"

#include "mem.h"
#include "msg.h"
#include "stop.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { PAUSE_US_FIRST = 20, PAUSE_US_LAST = 2000 };

static const struct comm_kind *const kinds[] = {
    &comm_self,
#ifdef LLMC_MPI
    &comm_mpi, &comm_nccl,
#endif
    &comm_files,
};

enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static const struct comm_kind *
find(const struct comm *c, const char *name)
{
    for (size_t i = 0; i < KINDS; i++)
        if (name != NULL ? strcmp(kinds[i]->name, name) == 0 : kinds[i]->usable(c))
            return kinds[i];
    return NULL;
}

/* What partial sums hold is decided by the plan and by which block is whose. */
static int
partition(struct comm *c)
{
    const struct plan *p = &c->run->plan;
    struct digest d;

    digest_init(&d);
    digest_str(&d, p->fingerprint);
    digest_add(&d, &p->ranks, sizeof(p->ranks));
    for (int b = 0; b < p->block_count; b++)
        digest_add(&d, &p->blocks[b].rank, sizeof(p->blocks[b].rank));
    return digest_hex(&d, c->partition);
}

int
comm_open(struct comm *c, struct run *run, const char *name, int timeout)
{
    char dir[PATH_MAX];

    *c = (struct comm){ .run = run, .rank = run->rank, .ranks = run->ranks };
    if ((c->kind = find(c, name)) == NULL)
        return err_set(RC_UNAVAILABLE, "communicator %s is not compiled in", name != NULL ? name : "");
    if (c->kind == &comm_self && c->ranks > 1)
        return err_set(RC_USAGE, "communicator self is for one rank, not %d", c->ranks);
    if ((c->gives = mem_zalloc((size_t)c->ranks, sizeof(*c->gives))) == NULL)
        return RC_OS;
    for (int b = 0; b < run->plan.block_count; b++)
        c->gives[run->plan.blocks[b].rank] = true;
    TRY(partition(c));
    if (c->ranks > 1) {
        TRY(plan_path(&run->plan, dir, "ranks"));
        TRY(peers_open(&c->peers, dir, c->rank, c->ranks, timeout, run->job));
    }
    TRY(c->kind->open(c));
    event_emit(&run->log, "communicator", EVENT_STR("name", c->kind->name), EVENT_INT("ranks", c->ranks));
    return RC_OK;
}

void
comm_close(struct comm *c, int rc)
{
    peers_close(&c->peers, rc); /* first: what follows may wait for the others */
    if (c->share != NULL)
        c->kind->share_close(c);
    if (c->kind != NULL)
        c->kind->close(c, rc);
    mem_free(c->gives);
    *c = (struct comm){ 0 };
}

int
comm_check(struct comm *c)
{
    bool idle;

    if (c->share != NULL)
        TRY(c->kind->share_go_on(c, &idle));
    return peers_check(&c->peers);
}

int
comm_share(struct comm *c)
{
    if (c->kind->share_open == NULL)
        return err_set(RC_USAGE, "--scratch needs communicator mpi, not %s", c->kind->name);
    c->peers.ranks = 1;
    return c->kind->share_open(c);
}

int
comm_share_rest(struct comm *c, bool *idle)
{
    *idle = true;
    return c->share != NULL ? c->kind->share_go_on(c, idle) : RC_OK;
}

/* Between two looks at what others have sent; *us starts at 0. Growing by a quarter wastes a fifth of a wait. */
static int
comm_pause(struct comm *c, long *us)
{
    struct timespec t = { 0 };

    *us = *us == 0 ? PAUSE_US_FIRST : *us * 5 / 4 < PAUSE_US_LAST ? *us * 5 / 4 : PAUSE_US_LAST;
    t.tv_nsec = *us * 1000;
    (void)nanosleep(&t, NULL);
    TRY(stop_check());
    return comm_check(c);
}

int
comm_give_grid(struct comm *c, int step, enum point point, const struct hess *h)
{
    return c->kind->give_grid(c, step, point, h);
}

int
comm_take_grid(struct comm *c, int step, enum point point, struct hess *h)
{
    bool done = false;
    long us = 0;

    for (;;) {
        TRY(c->kind->take_grid(c, step, point, h, &done));
        if (done)
            break;
        TRY(comm_pause(c, &us));
        TRY(peers_expect(&c->peers, c->run->plan.blocks[0].rank));
    }
    h->has_grid = true;
    return RC_OK;
}

int
comm_start(struct comm *c, struct comm_sum *s)
{
    s->done = s->returned = false;
    return c->kind->start(c, s);
}

static int
expect_givers(const struct comm *c, const struct comm_sum *s)
{
    for (int r = 0; r < c->ranks; r++)
        if (!s->done && r != c->rank && c->kind->waits(c, s, r))
            TRY(peers_expect(&c->peers, r));
    return RC_OK;
}

int
comm_next(struct comm *c, struct comm_sum *s, int count, struct comm_sum **out)
{
    int left = 1;
    long us = 0;

    *out = NULL;
    while (left > 0) {
        left = 0;
        for (int i = 0; i < count; i++) {
            if (s[i].returned)
                continue;
            if (!s[i].done)
                TRY(c->kind->test(c, &s[i]));
            if (s[i].done) {
                s[i].returned = true;
                *out = &s[i];
                return RC_OK;
            }
            left++;
        }
        if (left > 0)
            TRY(comm_pause(c, &us));
        for (int i = 0; i < count; i++)
            TRY(expect_givers(c, &s[i]));
    }
    return RC_OK;
}

void
comm_forget(struct comm *c, struct comm_sum *s)
{
    if (c->kind->forget != NULL)
        c->kind->forget(s);
}

void
comm_drop(struct comm *c, int step)
{
    if (c->kind->drop != NULL)
        c->kind->drop(c, step);
}
