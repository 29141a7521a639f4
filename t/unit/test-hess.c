/* test-hess - sums are exact: any partition and order of the blocks gives the same bytes */
#include "../../libcommon/hess.h"
#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../../kernels/dev.h"
#include "unit.h"

#include <math.h>

enum { N = 37, BLOCKS = 7, ROWS_MAX = 90 };

static uint64_t seed = 0x9e3779b97f4a7c15ULL;

static uint32_t
random_bits(void)
{
    return (uint32_t)(unit_random(&seed) >> 32);
}

struct set {
    const struct backend *bk;
    struct dev           *dev;
    uint16_t              x[BLOCKS][ROWS_MAX * N];
    int                   rows[BLOCKS];
};

/* Channels of very different size, some silent in the first block, some always. */
static void
fill(struct set *s, double spread)
{
    for (int b = 0; b < BLOCKS; b++) {
        s->rows[b] = 1 + (int)(random_bits() % ROWS_MAX);
        for (int r = 0; r < s->rows[b]; r++)
            for (int i = 0; i < N; i++) {
                double v = ((double)(random_bits() >> 8) / (1 << 24) - 0.5) * pow(2, spread * (i % 9 - 4));

                if (i == 5 || (i == 6 && b == 0))
                    v = 0;
                s->x[b][r * N + i] = bf16_from_f32((float)v);
            }
    }
}

static void
sum_of(struct set *s, struct hess *h, const int *order, int first, int end, const struct hess *grid)
{
    assert_int_equal(hess_init(h, N, true, 1), RC_OK);
    if (grid != NULL) {
        memcpy(h->grid, grid->grid, N * sizeof(*h->grid));
        h->has_grid = true;
    } else {
        assert_int_equal(hess_choose_grid(h, s->bk, s->dev, s->x[0], DT_BF16, s->rows[0]), RC_OK);
    }
    for (int i = first; i < end; i++)
        assert_int_equal(hess_add(h, s->bk, s->dev, s->x[order[i]], DT_BF16, s->rows[order[i]], 1), RC_OK);
}

static void
shuffle(int *order)
{
    for (int i = BLOCKS - 1; i > 0; i--) {
        int k = (int)(random_bits() % (unsigned)(i + 1)), t = order[i];

        order[i] = order[k];
        order[k] = t;
    }
}

static void
same(const struct hess *a, const struct hess *b)
{
    assert_memory_equal(a->sum, b->sum, (size_t)N * (N + 1) / 2 * sizeof(double));
    assert_memory_equal(a->grid, b->grid, N * sizeof(*a->grid));
    assert_true(a->rows == b->rows && a->sequences == b->sequences);
    assert_int_equal(a->ranges, b->ranges);
    if (a->ranges > 0)
        assert_memory_equal(a->range, b->range, (size_t)a->ranges * 2 * sizeof(*a->range));
}

static void
open_set(struct set *s)
{
    struct dev_opts o = { .threads = 2 };

    assert_int_equal(backend_find(&s->bk, "cpu"), RC_OK);
    assert_int_equal(s->bk->open(&s->dev, &o), RC_OK);
}

static void
test_partitions(void **state)
{
    static struct set s;

    (void)state;
    open_set(&s);
    for (int round = 0; round < 20; round++) {
        int order[BLOCKS] = { 0, 1, 2, 3, 4, 5, 6 };
        struct hess whole, parts[3], back;
        struct st_file st;
        int a, b;

        fill(&s, round % 4);
        sum_of(&s, &whole, order, 0, BLOCKS, NULL);
        assert_int_equal(hess_check(&whole), RC_OK);
        shuffle(order);
        a = (int)(random_bits() % (BLOCKS + 1));
        b = a + (int)(random_bits() % (unsigned)(BLOCKS + 1 - a));
        sum_of(&s, &parts[0], order, 0, a, &whole);
        sum_of(&s, &parts[1], order, a, b, &whole);
        sum_of(&s, &parts[2], order, b, BLOCKS, &whole);
        assert_int_equal(hess_merge(&parts[2], &parts[0]), RC_OK);
        assert_int_equal(hess_merge(&parts[2], &parts[1]), RC_OK);
        same(&whole, &parts[2]);
        assert_int_equal(hess_publish(&whole, "whole.safetensors", true, NULL, 0), RC_OK);
        assert_int_equal(hess_read(&back, "whole.safetensors", &st), RC_OK);
        same(&whole, &back);
        st_close(&st);
        (void)unlink("whole.safetensors");
        hess_free(&back);
        hess_free(&whole);
        for (int i = 0; i < 3; i++)
            hess_free(&parts[i]);
    }
    s.bk->close(s.dev);
}

/* Extremes of all blocks, whoever saw them; the last block's alone would be wrong. */
static void
test_ranges(void **state)
{
    static struct set s;
    float lo = 0, hi = 0, heads[4] = { 1, 0, 0.5f, 2 }, more[4] = { 0, 3, 0.25f, 2.5f };
    struct hess h[2], back, all;
    struct st_file st;

    (void)state;
    open_set(&s);
    fill(&s, 1);
    for (int b = 0; b < BLOCKS; b++)
        for (int i = 0; i < s.rows[b] * N; i++) {
            float v = bf16_to_f32(s.x[b][i]);

            lo = v < lo ? v : lo;
            hi = v > hi ? v : hi;
        }
    for (int i = 0; i < 2; i++) { /* without sums, and so without a grid */
        assert_int_equal(hess_init(&h[i], N, false, 3), RC_OK);
        for (int b = i; b < BLOCKS; b += 2)
            assert_int_equal(hess_add(&h[i], s.bk, s.dev, s.x[b], DT_BF16, s.rows[b], 1), RC_OK);
        assert_int_equal(hess_add_ranges(&h[i], i == 0 ? heads : more, 2), RC_OK);
        assert_int_equal(hess_add_ranges(&h[i], heads, 1), RC_DATA);
    }
    assert_true(h[0].range[0] != -lo || h[0].range[1] != hi || h[1].range[0] != -lo || h[1].range[1] != hi);
    assert_int_equal(hess_merge(&h[0], &h[1]), RC_OK);
    assert_int_equal(hess_check(&h[0]), RC_OK);
    assert_true(h[0].range[0] == -lo && h[0].range[1] == hi);
    assert_memory_equal(h[0].range + 2, ((float[]){ 1, 3, 0.5f, 2.5f }), 4 * sizeof(float));
    assert_int_equal(hess_publish(&h[0], "ranges.safetensors", false, NULL, 0), RC_OK);
    assert_int_equal(hess_read(&back, "ranges.safetensors", &st), RC_OK);
    assert_true(back.sum == NULL && back.n == N && back.ranges == 3 && back.rows == h[0].rows &&
        back.sequences == BLOCKS);
    assert_memory_equal(back.range, h[0].range, 6 * sizeof(float));
    st_close(&st);
    hess_free(&back);
    sum_of(&s, &all, (const int[]){ 0, 1, 2, 3, 4, 5, 6 }, 0, BLOCKS, NULL);
    assert_true(all.range[0] == -lo && all.range[1] == hi);
    assert_int_equal(hess_merge(&all, &h[0]), RC_DATA); /* other parts */
    assert_int_equal(hess_publish(&all, "ranges.safetensors", false, NULL, 0), RC_OK);
    assert_int_equal(hess_read_ranges(&back, "ranges.safetensors", &st), RC_OK);
    assert_true(back.sum == NULL && back.ranges == 1 && back.range[0] == -lo && back.range[1] == hi);
    st_close(&st);
    hess_free(&back);
    s.x[0][5] = 0x7fc0; /* NaN */
    assert_int_equal(hess_add(&h[1], s.bk, s.dev, s.x[0], DT_BF16, s.rows[0], 1), RC_NUMERIC);
    for (int i = 0; i < 2; i++)
        hess_free(&h[i]);
    hess_free(&all);
    s.bk->close(s.dev);
}

/* Against sums in double: f32 products, and half a unit of the grid for each block. */
static void
test_accuracy(void **state)
{
    static struct set s;
    int order[BLOCKS] = { 0, 1, 2, 3, 4, 5, 6 };
    struct hess h;

    (void)state;
    open_set(&s);
    fill(&s, 2);
    sum_of(&s, &h, order, 0, BLOCKS, NULL);
    for (int i = 0; i < N; i++)
        for (int j = 0; j <= i; j++) {
            double want = 0;

            for (int b = 0; b < BLOCKS; b++)
                for (int r = 0; r < s.rows[b]; r++)
                    want += (double)bf16_to_f32(s.x[b][r * N + i]) * (double)bf16_to_f32(s.x[b][r * N + j]);
            assert_true(fabs(h.sum[i * (i + 1) / 2 + j] - want) <=
                2e-6 * sqrt(hess_diag(&h, i) * hess_diag(&h, j)) + BLOCKS * ldexp(0.5, h.grid[i] + h.grid[j]));
        }
    hess_free(&h);
    s.bk->close(s.dev);
}

static void
test_overflow(void **state)
{
    static struct set s;
    struct hess h;

    (void)state;
    open_set(&s);
    fill(&s, 0);
    for (int i = 0; i < s.rows[0] * N; i++)
        s.x[0][i] = bf16_from_f32(1e-3f);
    for (int i = 0; i < s.rows[1]; i++)
        s.x[1][i * N + 3] = bf16_from_f32(1e3f);
    sum_of(&s, &h, (const int[]){ 0, 1 }, 0, 2, NULL);
    assert_int_equal(hess_check(&h), RC_NUMERIC);
    assert_says(err_text(), "Hessian channel 3 is");
    assert_says(err_text(), "beyond its grid's limit");
    hess_free(&h);
    s.x[0][7] = 0x7f80; /* infinity */
    assert_int_equal(hess_init(&h, N, true, 0), RC_OK);
    assert_int_equal(hess_choose_grid(&h, s.bk, s.dev, s.x[0], DT_BF16, s.rows[0]), RC_NUMERIC);
    assert_says(err_text(), "input channel 7 is not finite");
    hess_free(&h);
    s.bk->close(s.dev);
}

static void
test_merge(void **state)
{
    struct hess a, b;

    (void)state;
    assert_int_equal(hess_init(&a, 2, true, 0), RC_OK);
    assert_int_equal(hess_init(&b, 2, true, 0), RC_OK);
    a.has_grid = b.has_grid = true;
    a.grid[0] = -3;
    b.grid[1] = -1;
    a.sum[0] = ldexp(5, -6);
    b.sum[0] = 2;
    b.sum[2] = 0.25;
    a.sequences = 3;
    b.sequences = 4;
    assert_int_equal(hess_merge(&a, &b), RC_OK); /* the coarser grid: 2^0 for (0, 0), 2^0 for (1, 1) */
    assert_true(a.grid[0] == 0 && a.grid[1] == 0 && a.sequences == 7);
    assert_true(a.sum[0] == 2 && a.sum[2] == 0);
    hess_free(&b);
    assert_int_equal(hess_init(&b, 3, true, 0), RC_OK);
    assert_int_equal(hess_merge(&a, &b), RC_DATA);
    assert_says(err_text(), "2 and 3 channels");
    hess_free(&a);
    hess_free(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_partitions), cmocka_unit_test(test_accuracy), cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_merge), cmocka_unit_test(test_ranges),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
