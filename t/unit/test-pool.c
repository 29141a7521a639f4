/* test-pool - every tile once, by workers that exist, however many threads there are */
#include "unit.h"

#include "../../libcommon/pool.h"
#include "../../libcommon/msg.h"

#include <stdatomic.h>

enum { TILES_MAX = 1000 };

struct job {
    atomic_int times[TILES_MAX];
    atomic_int workers[8];
    int        threads;
    atomic_bool bad;
};

static void
count_tile(void *ctx, int tile, int worker)
{
    struct job *job = ctx;

    if (tile < 0 || tile >= TILES_MAX || worker < 0 || worker >= job->threads) {
        atomic_store(&job->bad, true);
        return;
    }
    atomic_fetch_add(&job->times[tile], 1);
    atomic_fetch_add(&job->workers[worker], 1);
}

static void
test_once(void **state)
{
    static const int tiles[] = { 0, 1, 2, 7, TILES_MAX };
    static struct job job;
    struct pool *p;
    int sum;

    (void)state;
    for (int threads = 1; threads <= 8; threads++) {
        assert_int_equal(pool_open(&p, threads), RC_OK);
        assert_int_equal(pool_threads(p), threads);
        for (size_t i = 0; i < COUNT(tiles); i++) {
            memset(&job, 0, sizeof(job));
            job.threads = threads;
            pool_run(p, tiles[i], count_tile, &job);
            assert_false(job.bad);
            for (int t = 0; t < TILES_MAX; t++)
                assert_int_equal(job.times[t], t < tiles[i] ? 1 : 0);
            sum = 0;
            for (int w = 0; w < threads; w++)
                sum += job.workers[w];
            assert_int_equal(sum, tiles[i]);
        }
        pool_close(p);
    }
}

/* Many short jobs: a worker that wakes late must not take a tile of the next one. */
static void
test_repeated(void **state)
{
    static struct job job;
    struct pool *p;

    (void)state;
    assert_int_equal(pool_open(&p, 4), RC_OK);
    for (int round = 0; round < 2000; round++) {
        memset(&job, 0, sizeof(job));
        job.threads = 4;
        pool_run(p, 3, count_tile, &job);
        assert_int_equal(job.times[0] + job.times[1] + job.times[2], 3);
        assert_false(job.bad);
    }
    pool_close(p);
}

static void
test_defaults(void **state)
{
    struct pool *p;

    (void)state;
    assert_true(pool_cpus() >= 1);
    assert_int_equal(pool_open(&p, 0), RC_OK);
    assert_int_equal(pool_threads(p), pool_cpus());
    pool_close(p);
    pool_close(NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_once), cmocka_unit_test(test_repeated), cmocka_unit_test(test_defaults),
    };

    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
