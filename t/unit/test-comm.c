/* test-comm - ranks as processes: any partition gives the same bytes, and nobody waits for one who left */
#include "../../kernels/dev.h"
#include "../../libcommon/comm.h"
#include "../../libcommon/file.h"
#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "unit.h"

#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { N = 33, BLOCKS = 9, ROWS = 40, RANKS_MAX = 5, TIMEOUT = 3 };

static uint64_t seed = 0x9e3779b97f4a7c15ULL;

static uint32_t
random_bits(void)
{
    return (uint32_t)(unit_random(&seed) >> 32);
}

struct set {
    const struct backend *bk;
    struct dev           *dev;
    float                 x[BLOCKS][ROWS * N];
    int                   rows[BLOCKS];
    struct block          blocks[BLOCKS];
    char                  dir[2];
};

/* Channels from 2^-20 to 2^20. */
static void
fill(struct set *s)
{
    for (int b = 0; b < BLOCKS; b++) {
        s->rows[b] = 1 + (int)(random_bits() % ROWS);
        for (int i = 0; i < s->rows[b] * N; i++)
            s->x[b][i] = (float)ldexp((double)(random_bits() >> 8) / (1 << 24) - 0.5, i % N % 5 * 10 - 20);
    }
}

/* Every block, by one. */
static void
whole(struct set *s, struct hess *h)
{
    assert_int_equal(hess_init(h, N, true, 2), RC_OK);
    assert_int_equal(hess_choose_grid(h, s->bk, s->dev, s->x[0], DT_F32, s->rows[0]), RC_OK);
    for (int b = 0; b < BLOCKS; b++)
        assert_int_equal(hess_add(h, s->bk, s->dev, s->x[b], DT_F32, s->rows[b], 2), RC_OK);
}

static void
as_rank(const struct set *s, struct run *run, int rank, int ranks)
{
    *run = (struct run){ .rank = rank, .ranks = ranks, .bk = s->bk, .dev = s->dev, .log = { .fd = -1 } };
    run->plan.dir = (char *)(uintptr_t)s->dir;
    run->plan.blocks = (struct block *)(uintptr_t)s->blocks;
    run->plan.block_count = BLOCKS;
    run->plan.ranks = ranks;
    memcpy(run->plan.fingerprint, "of the test", 12);
}

/* One rank's part in one step: its blocks in an order of its own; whoever takes checks. */
static int
one_rank(struct set *s, int rank, int ranks, const bool *takes, const struct hess *want)
{
    struct comm_sum sum = { .step = 3, .point = POINT_O, .takes = takes }, *next;
    struct run run;
    struct comm c;
    struct hess h;

    as_rank(s, &run, rank, ranks);
    TRY(comm_open(&c, &run, "files", 20));
    TRY(hess_init(&h, N, true, 2));
    if (s->blocks[0].rank == rank) {
        TRY(hess_choose_grid(&h, s->bk, s->dev, s->x[0], DT_F32, s->rows[0]));
        TRY(comm_give_grid(&c, 3, POINT_O, &h));
    } else {
        TRY(comm_take_grid(&c, 3, POINT_O, &h));
    }
    for (int i = 0, first = (int)(random_bits() % BLOCKS); i < BLOCKS; i++) {
        int b = (first + i) % BLOCKS;

        if (s->blocks[b].rank == rank)
            TRY(hess_add(&h, s->bk, s->dev, s->x[b], DT_F32, s->rows[b], 2));
    }
    sum.h = &h;
    TRY(comm_start(&c, &sum));
    TRY(comm_next(&c, &sum, 1, &next));
    if (next != &sum)
        return RC_BUG;
    if (takes[rank] && (memcmp(h.sum, want->sum, hess_entries(N) * sizeof(double)) != 0 ||
        memcmp(h.range, want->range, 4 * sizeof(float)) != 0 || h.rows != want->rows ||
        h.sequences != want->sequences))
        return RC_DIFFER;
    TRY(comm_next(&c, &sum, 1, &next));
    comm_forget(&c, &sum);
    comm_close(&c, RC_OK);
    hess_free(&h);
    return next == NULL ? RC_OK : RC_BUG;
}

static int
ended(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void
test_partitions(void **state)
{
    struct set *s = *state;
    struct hess want;

    fill(s);
    whole(s, &want);
    for (int trial = 0; trial < 12; trial++) {
        int ranks = 2 + (int)(random_bits() % (RANKS_MAX - 1));
        bool takes[RANKS_MAX] = { 0 };
        pid_t pid[RANKS_MAX];

        for (int b = 0; b < BLOCKS; b++)
            s->blocks[b].rank = (int)(random_bits() % (uint32_t)ranks); /* some may have none */
        for (int r = 0; r < ranks; r++)
            takes[r] = random_bits() % 2 == 0;
        for (int r = 0; r < ranks; r++) { /* what earlier trials have left there is of other partitions */
            random_bits();
            if ((pid[r] = fork()) == 0) {
                int rc = one_rank(s, r, ranks, takes, &want);

                if (rc != RC_OK)
                    msg_error(NULL, "%s", err_text());
                _exit(rc);
            }
        }
        for (int r = 0; r < ranks; r++)
            assert_int_equal(ended(pid[r]), RC_OK);
    }
    hess_free(&want);
}

/* A partial sum that a crash has spoiled is as good as not there. */
static void
test_spoiled(void **state)
{
    struct set *s = *state;
    const bool takes[2] = { true, false };
    struct hess want;
    pid_t pid;
    int fd;

    whole(s, &want); /* of the same data: the plan is the same */
    for (int b = 0; b < BLOCKS; b++)
        s->blocks[b].rank = b % 2;
    if ((pid = fork()) == 0)
        _exit(one_rank(s, 1, 2, takes, &want));
    assert_int_equal(one_rank(s, 0, 2, takes, &want), RC_OK);
    assert_int_equal(ended(pid), RC_OK);
    assert_true((fd = open("hessian/3/o.1.safetensors", O_RDWR)) >= 0);
    assert_int_equal(pwrite(fd, "spoiled", 7, lseek(fd, 0, SEEK_END) - 2000), 7);
    (void)close(fd);
    if ((pid = fork()) == 0) {
        (void)usleep(300000);
        _exit(one_rank(s, 1, 2, takes, &want));
    }
    assert_int_equal(one_rank(s, 0, 2, takes, &want), RC_OK);
    assert_int_equal(ended(pid), RC_OK);
    hess_free(&want);
}

/* What we are told of rank 1 of 2 within some seconds, while it does what the child does. */
static void
expect_lost(struct set *s, pid_t pid, int seconds, const char *says)
{
    struct timespec t = { 0, 20000000 };
    struct run run;
    struct comm c;
    int rc = RC_OK, status;

    as_rank(s, &run, 0, 2);
    assert_int_equal(comm_open(&c, &run, "files", TIMEOUT), RC_OK);
    for (int i = 0; i < seconds * 50 && rc == RC_OK; i++) {
        (void)nanosleep(&t, NULL);
        if (pid > 0)
            (void)waitpid(pid, &status, WNOHANG); /* else it stays a process */
        rc = comm_check(&c);
    }
    assert_int_equal(rc, RC_RETRY);
    assert_says(err_text(), "rank 1: ");
    assert_says(err_text(), says);
    comm_close(&c, rc);
}

static pid_t
other(struct set *s, int rc, int then)
{
    pid_t pid = fork();
    struct run run;
    struct comm c;

    if (pid != 0)
        return pid;
    (void)usleep(200000); /* a sign older than the watcher's own is not of this run */
    as_rank(s, &run, 1, 2);
    if (comm_open(&c, &run, "files", 60) != RC_OK)
        _exit(RC_BUG);
    (void)usleep(400000);
    if (then == 0)
        comm_close(&c, rc);
    else
        (void)raise(then);
    _exit(0);
}

static void
clear(void)
{
    (void)unlink("ranks/0");
    (void)unlink("ranks/1");
}

static void
test_lost(void **state)
{
    struct set *s = *state;
    pid_t pid;

    clear();
    expect_lost(s, pid = other(s, RC_NUMERIC, 0), 40, "failed with exit status 76");
    (void)waitpid(pid, NULL, 0); /* it may still be leaving, and what it leaves must not be the next one's */
    clear();
    expect_lost(s, pid = other(s, 0, SIGKILL), 40, "is gone");
    (void)waitpid(pid, NULL, 0);
    clear();
    expect_lost(s, pid = other(s, 0, SIGSTOP), 40, "no sign of life");
    (void)kill(pid, SIGKILL);
    (void)ended(pid);
    expect_lost(s, 0, 40, "has not started"); /* what a dead one left there is no sign of life */
}

/* It ended well, but has not given what we wait for. */
static void
test_left_early(void **state)
{
    struct set *s = *state;
    const bool takes[2] = { true, false };
    struct comm_sum sum = { .step = 4, .point = POINT_O, .takes = takes }, *next;
    struct run run;
    struct comm c;
    struct hess h;
    pid_t pid;

    clear();
    for (int b = 0; b < BLOCKS; b++)
        s->blocks[b].rank = b % 2;
    pid = other(s, RC_OK, 0);
    as_rank(s, &run, 0, 2);
    assert_int_equal(comm_open(&c, &run, "files", 60), RC_OK);
    assert_int_equal(hess_init(&h, N, true, 0), RC_OK);
    sum.h = &h;
    assert_int_equal(comm_start(&c, &sum), RC_OK);
    assert_int_equal(comm_next(&c, &sum, 1, &next), RC_RETRY);
    assert_says(err_text(), "rank 1: has ended before the others");
    comm_forget(&c, &sum);
    comm_close(&c, RC_RETRY);
    hess_free(&h);
    assert_int_equal(ended(pid), 0);
}

static void
test_refused(void **state)
{
    struct set *s = *state;
    struct run run;
    struct comm c;

    as_rank(s, &run, 0, 2);
    assert_int_equal(comm_open(&c, &run, "self", TIMEOUT), RC_USAGE);
    comm_close(&c, RC_OK);
    assert_int_equal(comm_open(&c, &run, "pigeon", TIMEOUT), RC_UNAVAILABLE);
    comm_close(&c, RC_OK);
}

static int
setup(void **state)
{
    struct set *s = calloc(1, sizeof(*s));
    struct dev_opts o = { .threads = 1 };

    (void)snprintf(s->dir, sizeof(s->dir), ".");
    *state = s;
    return unit_begin(state) != 0 || backend_find(&s->bk, "ref") != RC_OK || s->bk->open(&s->dev, &o) != RC_OK;
}

static int
teardown(void **state)
{
    struct set *s = *state;

    s->bk->close(s->dev);
    free(s);
    return unit_end(state);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_partitions), cmocka_unit_test(test_spoiled), cmocka_unit_test(test_lost),
        cmocka_unit_test(test_left_early), cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
