/* test-correct - targets that make up for earlier losses: sums of pairs, the correction, losses against the target */
#include "../../kernels/factor.h"
#include "../../libcommon/correct.h"
#include "../../libcommon/mem.h"
#include "../../libcommon/scales.h"
#include "pair.h"

#include <math.h>

static uint64_t seed = 0x9e3779b97f4a7c15ULL;

static double
uniform(void)
{
    return (double)(unit_random(&seed) >> 40) / (1 << 24) - 0.5;
}

/* --- sums of pairs --- */

enum { N = 37, BLOCKS = 6, ROWS_MAX = 1100 };

/* Inputs of the original and, near them, those of a compressed model. */
struct set {
    struct dev *dev;
    uint16_t    x[BLOCKS][ROWS_MAX * N], xf[BLOCKS][ROWS_MAX * N];
    int         rows[BLOCKS];
};

static void
fill(struct set *s, double spread)
{
    for (int b = 0; b < BLOCKS; b++) {
        s->rows[b] = 1 + (int)(unit_random(&seed) % (b == 2 ? ROWS_MAX : 90));
        for (int i = 0; i < s->rows[b] * N; i++) {
            double v = uniform() * pow(2, spread * (i % N % 9 - 4));

            s->xf[b][i] = bf16_from_f32((float)v);
            s->x[b][i] = i % N == 5 ? 0 : bf16_from_f32((float)(v + 0.2 * uniform()));
        }
    }
}

/* Blocks order[first] to order[end - 1]; grid NULL: chosen from the first block. */
static void
sum_of(struct set *s, struct hess *h, const int *order, int first, int end, const struct hess *grid)
{
    assert_int_equal(hess_init(h, N, true, 0), RC_OK);
    assert_int_equal(hess_pairs(h), RC_OK);
    if (grid != NULL) {
        memcpy(h->grid, grid->grid, hess_exponents(h) * sizeof(*h->grid));
        h->has_grid = true;
    } else {
        assert_int_equal(hess_choose_grid(h, &backend_cpu, s->dev, s->x[0], DT_BF16, s->rows[0]), RC_OK);
        assert_int_equal(hess_choose_cross_grid(h, &backend_cpu, s->dev, s->xf[0], DT_BF16, s->rows[0]), RC_OK);
    }
    for (int i = first; i < end; i++) {
        int b = order[i];

        assert_int_equal(hess_add(h, &backend_cpu, s->dev, s->x[b], DT_BF16, s->rows[b], 1), RC_OK);
        assert_int_equal(hess_add_cross(h, &backend_cpu, s->dev, s->xf[b], s->x[b], DT_BF16, s->rows[b]), RC_OK);
    }
}

static void
same(const struct hess *a, const struct hess *b)
{
    assert_true(a->pairs && b->pairs);
    assert_int_equal(hess_count(a), N * (N + 1) / 2 + N * N + N);
    assert_memory_equal(a->sum, b->sum, hess_count(a) * sizeof(*a->sum));
    assert_memory_equal(a->grid, b->grid, hess_exponents(a) * sizeof(*a->grid));
    assert_true(a->rows == b->rows && a->sequences == b->sequences);
}

/* Against sums in f64 of the products themselves. */
static void
check_values(const struct set *s, const struct hess *h)
{
    double apart = 0, size = 0;

    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double want = 0, scale = 0, got = hess_cross(h)[i * N + j];

            for (int b = 0; b < BLOCKS; b++)
                for (int r = 0; r < s->rows[b]; r++) {
                    double f = (double)bf16_to_f32(s->xf[b][r * N + i]), q = (double)bf16_to_f32(s->x[b][r * N + j]);

                    want += f * q;
                    scale += fabs(f * q);
                    if (i == j) {
                        apart += (f - q) * (f - q);
                        size += f * f;
                    }
                }
            if (!(fabs(got - want) <= 4e-6 * scale + BLOCKS * 2 * ldexp(1, h->grid[N + i] + h->grid[j])))
                fail_msg("C[%d][%d] is %g, want %g", i, j, got, want);
        }
    if (!(fabs(hess_distance(h) - apart / size) <= 1e-5))
        fail_msg("distance is %g, want %g", hess_distance(h), apart / size);
}

static void
shuffle(int *order)
{
    for (int i = BLOCKS - 1; i > 0; i--) {
        int k = (int)(unit_random(&seed) % (unsigned)(i + 1)), t = order[i];

        order[i] = order[k];
        order[k] = t;
    }
}

/* Any partition of the blocks, in any order, merged in any order, from a file or from what ranks send. */
static void
test_partitions(void **state)
{
    static struct set s;
    struct dev_opts o = { .threads = 2 };

    (void)state;
    assert_int_equal(backend_cpu.open(&s.dev, &o), RC_OK);
    for (int round = 0; round < 8; round++) {
        int order[BLOCKS] = { 0, 1, 2, 3, 4, 5 }, a, b;
        struct hess whole, parts[3], back;
        struct st_file st;
        char *head;

        fill(&s, round % 4);
        sum_of(&s, &whole, order, 0, BLOCKS, NULL);
        assert_int_equal(hess_check(&whole), RC_OK);
        check_values(&s, &whole);
        shuffle(order);
        a = (int)(unit_random(&seed) % (BLOCKS + 1));
        b = a + (int)(unit_random(&seed) % (unsigned)(BLOCKS + 1 - a));
        sum_of(&s, &parts[0], order, 0, a, &whole);
        sum_of(&s, &parts[1], order, a, b, &whole);
        sum_of(&s, &parts[2], order, b, BLOCKS, &whole);
        assert_int_equal(hess_publish(&parts[0], "part.safetensors", true, NULL, 0), RC_OK);
        assert_int_equal(hess_read(&back, "part.safetensors", &st), RC_OK);
        same(&parts[0], &back);
        st_close(&st);
        assert_int_equal(hess_merge(&parts[2], &back), RC_OK);
        head = mem_alloc(hess_head_bytes(&parts[1]), 1);
        hess_head_write(&parts[1], head);
        assert_int_equal(hess_head_merge(&parts[2], head, hess_head_bytes(&parts[1])), RC_OK);
        for (size_t i = 0; i < hess_count(&whole); i++)
            parts[2].sum[i] += parts[1].sum[i];
        same(&whole, &parts[2]);
        mem_free(head);
        hess_free(&back);
        hess_free(&whole);
        for (int i = 0; i < 3; i++)
            hess_free(&parts[i]);
    }
    backend_cpu.close(s.dev);
}

/* Sums with and without pairs do not mix, nor do grids of x_f; one that outgrows its grid is named. */
static void
test_refused(void **state)
{
    static struct set s;
    struct dev_opts o = { .threads = 1 };
    int order[BLOCKS] = { 0, 1, 2, 3, 4, 5 };
    struct hess h, plain, other;
    char *head;

    (void)state;
    assert_int_equal(backend_cpu.open(&s.dev, &o), RC_OK);
    fill(&s, 1);
    sum_of(&s, &h, order, 0, BLOCKS, NULL);
    assert_int_equal(hess_init(&plain, N, true, 0), RC_OK);
    assert_int_equal(hess_merge(&h, &plain), RC_DATA);
    sum_of(&s, &other, order, 0, BLOCKS, &h);
    other.grid[N + 3]++;
    head = mem_alloc(hess_head_bytes(&other), 1);
    hess_head_write(&other, head);
    assert_int_equal(hess_head_merge(&h, head, hess_head_bytes(&other)), RC_DATA);
    assert_says(err_text(), "different grids");
    h.grid[N + 7] = -60;
    assert_int_equal(hess_check(&h), RC_NUMERIC);
    assert_says(err_text(), "channel 7 of the original's inputs");
    mem_free(head);
    hess_free(&h);
    hess_free(&plain);
    hess_free(&other);
    backend_cpu.close(s.dev);
}

/* --- the correction --- */

/* Inputs with strong directions, as real ones have; H and C as they are summed, W, and a factor. */
struct problem {
    int      rows, n, tokens;
    double  *x, *xf, *h, *c; /* h packed lower */
    float   *w, *l, *m, *y;
    int     *order;
    uint8_t *dead;
};

static void
problem_make(struct problem *p, int rows, int n)
{
    size_t ld = (size_t)n, at = 0;

    *p = (struct problem){ .rows = rows, .n = n, .tokens = 3 * n + 5 };
    p->x = mem_zalloc(ld * (size_t)p->tokens, 8);
    p->xf = mem_zalloc(ld * (size_t)p->tokens, 8);
    p->h = mem_zalloc(ld * (ld + 1) / 2, 8);
    p->c = mem_zalloc(ld * ld, 8);
    p->w = mem_zalloc((size_t)rows * ld, 4);
    p->y = mem_zalloc((size_t)rows * ld, 4);
    p->l = mem_zalloc(ld * ld, 4);
    p->m = mem_zalloc(ld * ld, 4);
    p->order = mem_zalloc(ld, sizeof(int));
    p->dead = mem_zalloc(ld, 1);
    for (size_t t = 0; t < (size_t)p->tokens; t++) {
        double common = uniform();

        for (size_t i = 0; i < ld; i++) {
            p->xf[t * ld + i] = uniform() + common * (double)(i % 5);
            p->x[t * ld + i] = i == 3 ? 0 : p->xf[t * ld + i] * 0.9 + 0.1 * uniform() +
                0.1 * p->xf[t * ld + (i + 1) % ld];
        }
    }
    for (size_t i = 0; i < ld; i++)
        for (size_t j = 0; j < ld; j++)
            for (size_t t = 0; t < (size_t)p->tokens; t++)
                p->c[i * ld + j] += p->xf[t * ld + i] * p->x[t * ld + j];
    for (size_t i = 0; i < ld; i++)
        for (size_t j = 0; j <= i; j++, at++)
            for (size_t t = 0; t < (size_t)p->tokens; t++)
                p->h[at] += p->x[t * ld + i] * p->x[t * ld + j];
    for (size_t i = 0; i < (size_t)rows * ld; i++)
        p->w[i] = (float)uniform();
    for (int i = 0; i < n; i++)
        p->order[i] = i;
}

static void
problem_free(struct problem *p)
{
    mem_free(p->x);
    mem_free(p->xf);
    mem_free(p->h);
    mem_free(p->c);
    mem_free(p->w);
    mem_free(p->y);
    mem_free(p->l);
    mem_free(p->m);
    mem_free(p->order);
    mem_free(p->dead);
}

/* y (H + lambda I) = w (C + lambda I) by Gaussian elimination with pivots: the formula of the manual, as it stands. */
static void
plain_target(const struct problem *p, double lambda, const float *w, double *y)
{
    size_t n = (size_t)p->n;
    double *a = mem_zalloc(n * (n + 1), 8);

    for (size_t j = 0; j < n; j++) {
        for (size_t i = 0; i < n; i++) {
            a[j * (n + 1) + i] = packed_at(p->h, (int)i, (int)j) + (i == j ? lambda + p->dead[i] : 0);
            a[j * (n + 1) + n] += (double)w[i] * (p->c[i * n + j] + (i == j ? lambda + p->dead[i] : 0));
        }
    }
    for (size_t k = 0; k < n; k++) {
        size_t best = k;

        for (size_t i = k + 1; i < n; i++)
            best = fabs(a[i * (n + 1) + k]) > fabs(a[best * (n + 1) + k]) ? i : best;
        for (size_t j = k; j <= n; j++) {
            double t = a[k * (n + 1) + j];

            a[k * (n + 1) + j] = a[best * (n + 1) + j];
            a[best * (n + 1) + j] = t;
        }
        for (size_t i = k + 1; i < n; i++)
            for (size_t j = n + 1; j-- > k;)
                a[i * (n + 1) + j] -= a[k * (n + 1) + j] * a[i * (n + 1) + k] / a[k * (n + 1) + k];
    }
    for (size_t k = n; k-- > 0;) {
        y[k] = a[k * (n + 1) + n];
        for (size_t j = k + 1; j < n; j++)
            y[k] -= a[k * (n + 1) + j] * y[j];
        y[k] /= a[k * (n + 1) + k];
    }
    mem_free(a);
}

/* Sum over tokens of (w x_f - y x)^2. */
static double
apart(const struct problem *p, const float *w, const float *y)
{
    double sum = 0;

    for (int t = 0; t < p->tokens; t++) {
        double d = 0;

        for (int i = 0; i < p->n; i++)
            d += (double)w[i] * p->xf[t * p->n + i] - (double)y[i] * p->x[t * p->n + i];
        sum += d * d;
    }
    return sum;
}

static void
target_of(struct problem *p, const struct backend *bk, struct dev *dev, double damp)
{
    assert_int_equal(bk->factor(dev, p->l, p->dead, p->h, 1, p->order, damp, p->n), RC_OK);
    assert_int_equal(bk->correction(dev, p->m, p->c, p->h, 1, p->l, p->n), RC_OK);
    assert_int_equal(bk->correct(dev, p->y, p->w, p->m, p->rows, p->n), RC_OK);
}

static void
correction_case(int rows, int n, double damp)
{
    struct problem p;
    struct pair dev;
    double *want, lambda;
    float *first;

    problem_make(&p, rows, n);
    want = mem_alloc((size_t)n, 8);
    first = mem_alloc((size_t)rows * (size_t)n, 4);
    open_pair(&dev, NULL, 1);
    lambda = factor_damping(p.dead, p.h, 1, damp, n);
    for (int b = 0; b < 2; b++) {
        target_of(&p, b == 0 ? &backend_ref : &backend_cpu, b == 0 ? dev.ref : dev.cpu, damp);
        for (int r = 0; r < rows; r++) {
            const float *w = p.w + (size_t)r * (size_t)n, *y = p.y + (size_t)r * (size_t)n;

            plain_target(&p, lambda, w, want);
            for (int i = 0; i < n; i++)
                if (!(fabs((double)y[i] - want[i]) <= (b == 0 ? 1e-4 : 3e-4)))
                    fail_msg("%s %d x %d, lambda %g: [%d][%d] is %g, want %g", b == 0 ? "ref" : "cpu", rows, n, damp,
                        r, i, (double)y[i], want[i]);
            if (n > 4 && !(apart(&p, w, y) < apart(&p, w, w)))
                fail_msg("%d x %d, row %d: %g is no nearer than %g", rows, n, r, apart(&p, w, y), apart(&p, w, w));
        }
    }
    memcpy(first, p.y, (size_t)rows * (size_t)n * 4);
    close_pair(&dev);
    open_pair(&dev, NULL, 3); /* threads, and cuts by rows, change no byte */
    memset(p.y, 0, (size_t)rows * (size_t)n * 4);
    target_of(&p, &backend_cpu, dev.cpu, damp);
    assert_memory_equal(p.y, first, (size_t)rows * (size_t)n * 4);
    memset(p.y, 0, (size_t)rows * (size_t)n * 4);
    for (int r = 0, part; r < rows; r += part) {
        part = r + 2 * CORRECT_ROWS < rows && r > 0 ? 2 * CORRECT_ROWS : r + CORRECT_ROWS < rows ? CORRECT_ROWS :
            rows - r;
        assert_int_equal(backend_cpu.correct(dev.cpu, p.y + (size_t)r * (size_t)n, p.w + (size_t)r * (size_t)n, p.m, part,
            n), RC_OK);
    }
    assert_memory_equal(p.y, first, (size_t)rows * (size_t)n * 4);
    close_pair(&dev);
    mem_free(want);
    mem_free(first);
    problem_free(&p);
}

static void
test_correction(void **state)
{
    (void)state;
    correction_case(1, 1, 0.3);
    correction_case(3, 2, 0.3);
    correction_case(5, 31, 0.1);
    correction_case(7, 33, 1);
    correction_case(70, 64, 0.3);
    correction_case(200, 127, 0.3);
}

/* Inputs that are the original's ask for nothing. */
static void
test_same_inputs(void **state)
{
    struct problem p;
    struct pair dev;

    (void)state;
    problem_make(&p, 9, 50);
    for (int i = 0; i < 50; i++)
        for (int j = 0; j < 50; j++)
            p.c[i * 50 + j] = packed_at(p.h, i, j);
    open_pair(&dev, NULL, 1);
    target_of(&p, &backend_cpu, dev.cpu, 0.3);
    assert_memory_equal(p.y, p.w, 9 * 50 * 4);
    target_of(&p, &backend_ref, dev.ref, 0.3);
    assert_memory_equal(p.y, p.w, 9 * 50 * 4);
    close_pair(&dev);
    problem_free(&p);
}

/* Losses against a target, of GPTQ and of plain rounding: cpu as ref, and with the target w as without one. */
static void
test_losses(void **state)
{
    enum { ROWS = 50, COLS = 128 };
    struct qspec q = { .grid = GRID_INT, .bits = 4, .strategy = STRATEGY_CHANNEL, .symmetric = true, .t = DT_BF16,
        .scale = DT_BF16 };
    float scale[ROWS];
    uint8_t codes[2][ROWS * COLS];
    struct gptq_job job[2], plain;
    struct problem p;
    struct pair dev;

    (void)state;
    problem_make(&p, ROWS, COLS);
    open_pair(&dev, NULL, 2);
    for (int r = 0; r < ROWS; r++)
        scale[r] = 0.0625f;
    for (int i = 0; i < ROWS * COLS; i++)
        p.w[i] = bf16_to_f32(bf16_from_f32(p.w[i]));
    target_of(&p, &backend_ref, dev.ref, 0.3);
    assert_int_equal(backend_ref.factor(dev.ref, p.l, p.dead, p.h, 1, p.order, 0.01, COLS), RC_OK);
    for (int b = 0; b < 2; b++) {
        job[b] = (struct gptq_job){ .spec = &q, .rows = ROWS, .cols = COLS, .w = p.w, .target = p.y, .scale = scale,
            .global_scale = 1, .order = p.order, .l = p.l, .dead = p.dead, .want_rtn = true, .codes = codes[b] };
        assert_int_equal((b == 0 ? backend_ref : backend_cpu).gptq(b == 0 ? dev.ref : dev.cpu, &job[b]), RC_OK);
    }
    assert_true(fabs(job[0].rtn_loss / job[1].rtn_loss - 1) < 1e-4);
    assert_true(fabs(job[0].loss / job[1].loss - 1) < 1e-2); /* codes may differ by a tie */
    plain = job[1];
    plain.target = NULL;
    assert_int_equal(backend_cpu.gptq(dev.cpu, &plain), RC_OK);
    assert_memory_equal(codes[1], plain.codes, sizeof(codes[1]));
    assert_true(plain.loss < job[1].loss);
    job[1].target = p.w;
    assert_int_equal(backend_cpu.gptq(dev.cpu, &job[1]), RC_OK);
    assert_true(fabs(plain.loss / job[1].loss - 1) < 1e-4);
    assert_true(fabs(plain.rtn_loss / job[1].rtn_loss - 1) < 1e-6);
    close_pair(&dev);
    problem_free(&p);
}

/* --- what is reported --- */

static void
distance_case(enum dtype dt, size_t n, const char *isa, int threads, double first[2])
{
    size_t size = dtype_size(dt);
    char *x = mem_alloc(n, size), *xf = mem_alloc(n, size);
    double ref[2], cpu[2];
    struct pair dev;

    seed = 0x1234567 + n;
    for (size_t i = 0; i < n; i++) {
        float f = (float)uniform() * (i % 7 == 3 ? 900 : 1), v = f + 0.1f * (float)uniform();

        (void)dtype_from_f32(x + i * size, &v, dt, 1);
        (void)dtype_from_f32(xf + i * size, &f, dt, 1);
    }
    open_pair(&dev, isa, threads);
    assert_int_equal(backend_ref.distance(dev.ref, ref, x, xf, dt, n), RC_OK);
    assert_int_equal(backend_cpu.distance(dev.cpu, cpu, x, xf, dt, n), RC_OK);
    for (int k = 0; k < 2; k++)
        if (!(fabs(cpu[k] - ref[k]) <= 1e-6 * ref[k]))
            fail_msg("%zu of %s: %g, want %g", n, dtype_name(dt), cpu[k], ref[k]);
    assert_true(n == 0 || (ref[0] > 0 && ref[0] < ref[1]));
    if (first[1] == 0)
        memcpy(first, cpu, sizeof(cpu));
    assert_memory_equal(first, cpu, sizeof(cpu));
    close_pair(&dev);
    mem_free(x);
    mem_free(xf);
}

/* cpu as ref, with the same bytes from every instruction set and for any number of threads. */
static void
test_distance(void **state)
{
    static const size_t counts[] = { 0, 1, 2, 31, 33, 127, 511, 513, 70000, 200001 };

    (void)state;
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        for (int d = 0; d < 2; d++) {
            double first[2] = { 0 };

            distance_case(d == 0 ? DT_BF16 : DT_F32, counts[i], NULL, 1, first);
            distance_case(d == 0 ? DT_BF16 : DT_F32, counts[i], "c", 3, first);
            distance_case(d == 0 ? DT_BF16 : DT_F32, counts[i], "avx2", 2, first);
        }
}

/* Rows that are compared are whole units, an eighth of them or all. */
static void
test_thin(void **state)
{
    struct qspec group = { .strategy = STRATEGY_GROUP }, tensor = { .strategy = STRATEGY_TENSOR },
        block = { .strategy = STRATEGY_BLOCK, .block_rows = 128 };
    int rows[1000], got[1000];

    (void)state;
    for (int i = 0; i < 1000; i++)
        rows[i] = i;
    assert_int_equal(scales_every(&group, 1), 1);
    assert_int_equal(scales_every(&group, 192), 3);
    assert_int_equal(scales_every(&group, 100000), SCALES_SHARE);
    assert_int_equal(scales_every(&tensor, 100000), 1);
    assert_int_equal(scales_every(&block, 300), 2);
    assert_int_equal(scales_every(&block, 100), 1);
    assert_int_equal(scales_thin(got, rows, sizeof(int), 1000, scales_unit(&group), 8), 125);
    for (int i = 0; i < 125; i++)
        assert_int_equal(got[i], 8 * i);
    assert_int_equal(scales_thin(rows, rows, sizeof(int), 1000, scales_unit(&block), 3), 3 * 128);
    for (int i = 0; i < 3 * 128; i++)
        assert_int_equal(rows[i], i / 128 * 3 * 128 + i % 128);
}

static void
test_lambda(void **state)
{
    (void)state;
    assert_true(correct_lambda(0.3, 100, 100 * CORRECT_TOKENS) == 0.3);
    assert_true(correct_lambda(0.3, 100, 1 << 20) == 0.3);
    assert_true(fabs(correct_lambda(0.3, 100, 100) - 0.3 * CORRECT_TOKENS) < 1e-12);
    assert_true(correct_lambda(0.3, 100, 0) == 0.3); /* no sum, no division */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_partitions), cmocka_unit_test(test_refused), cmocka_unit_test(test_correction),
        cmocka_unit_test(test_same_inputs), cmocka_unit_test(test_losses), cmocka_unit_test(test_lambda),
        cmocka_unit_test(test_distance), cmocka_unit_test(test_thin),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
