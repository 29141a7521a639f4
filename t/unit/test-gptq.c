/* factor and gptq: golden vectors, cpu against ref, threads, cuts by rows, failures */
#include "../../kernels/cpu/gptq.h"
#include "../../kernels/cpu/lanes.h"
#include "../../kernels/dev.h"
#include "../../kernels/factor.h"
#include "../../kernels/pack.h"
#include "../../kernels/ref/gptq.h"
#include "../../kernels/scale.h"
#include "../../libcommon/weights.h"
#include "golden.h"

#include <math.h>

/* A problem with everything that a job needs, and room for its answers. */
struct problem {
    struct qspec q;
    int          rows, cols, scale_cols;
    float       *w, *scale, *l, global;
    int8_t      *zero;
    int         *scale_col; /* of actorder group, else NULL */
    double      *h, s, damp;
    bool         keep_zeros;
    int         *order;
    uint8_t     *dead, *codes;
};

static void *
need(size_t count, size_t size)
{
    void *p = mem_zalloc(count > 0 ? count : 1, size);

    assert_non_null(p);
    return p;
}

static void
problem_alloc(struct problem *p)
{
    size_t n = (size_t)p->cols, rows = (size_t)p->rows;

    p->scale_cols = q_scale_cols(&p->q, p->cols);
    p->scale = need((size_t)(q_scale_rows(&p->q, p->rows) * p->scale_cols), sizeof(*p->scale));
    p->zero = need((size_t)(q_scale_rows(&p->q, p->rows) * p->scale_cols), 1);
    p->l = need(n * n, sizeof(*p->l));
    p->order = need(n, sizeof(*p->order));
    p->dead = need(n, 1);
    p->codes = need(rows * n, 1);
}

static void
problem_free(struct problem *p)
{
    mem_free(p->w);
    mem_free(p->scale);
    mem_free(p->zero);
    mem_free(p->scale_col);
    mem_free(p->h);
    mem_free(p->l);
    mem_free(p->order);
    mem_free(p->dead);
    mem_free(p->codes);
}

static void
problem_scales(struct problem *p)
{
    p->global = p->q.strategy == STRATEGY_TENSOR_GROUP
        ? scale_global(scale_absmax(p->w, (size_t)p->rows * (size_t)p->cols), p->q.t) : 1;
    scale_rows(&p->q, NULL, p->w, p->rows, p->cols, p->global, p->scale, p->zero);
}

static struct gptq_job
problem_job(struct problem *p, int row0, int rows)
{
    size_t at = (size_t)row0 * (size_t)p->cols;

    return (struct gptq_job){
        .spec = &p->q, .rows = rows, .cols = p->cols, .row0 = row0, .w = p->w + at, .scale = p->scale,
        .zero = p->q.symmetric ? NULL : p->zero, .global_scale = p->global, .order = p->order, .l = p->l,
        .scale_col = p->scale_col, .keep_zeros = p->keep_zeros,
        .dead = p->dead, .want_rtn = true, .codes = p->codes + at,
    };
}

static struct backend_pair {
    const char *name;
    int (*factor)(struct dev *, float *, uint8_t *, const double *, double, const int *, double, int);
    int (*gptq)(struct dev *, struct gptq_job *);
} backends[] = {
    { "ref", ref_factor, ref_gptq },
    { "cpu", cpu_factor, cpu_gptq },
};

/* Groups of columns in the order in which they are rounded. */
static void
order_groups(struct problem *p)
{
    size_t n = (size_t)p->cols;
    float *w = p->w, *moved = need((size_t)p->rows * n, sizeof(*moved));

    p->scale_col = need(n, sizeof(*p->scale_col));
    for (int i = 0; i < p->cols; i++) {
        int c = p->order[p->cols - 1 - i];

        p->scale_col[c] = i / p->q.group;
        for (int r = 0; r < p->rows; r++)
            moved[(size_t)r * n + (size_t)i] = w[(size_t)r * n + (size_t)c];
    }
    p->w = moved;
    problem_scales(p);
    p->w = w;
    mem_free(moved);
}

/* --- golden vectors --- */

/* Those of make_zeros.py. */
static void
plant_zeros(struct problem *p)
{
    for (int r = 0; r < p->rows; r++)
        for (int c = 0; c < p->cols; c++)
            if ((7 * r + 3 * c) % 5 == 0)
                p->w[r * p->cols + c] = 0;
    p->keep_zeros = true;
}

static void
golden_problem(struct problem *p, const struct golden *g, bool v10, struct scheme *s)
{
    struct golden common;
    size_t count;
    float *h;

    golden_open(&common, "common", "inputs");
    golden_scheme(g, s);
    scheme_qspec(s, DT_BF16, v10, &p->q);
    p->rows = 64;
    p->cols = 256;
    p->s = 1.0 / 8;
    p->damp = json_number_value(json_object_get(g->meta, "dampening_frac"));
    p->w = golden_floats(golden_get(&common, "weight"), &count);
    if (strstr(json_string_value(json_object_get(g->meta, "case")), "zeros") != NULL)
        plant_zeros(p);
    h = golden_floats(golden_get(&common, "hessian_sum"), &count);
    p->h = need(256 * 257 / 2, sizeof(*p->h));
    for (int i = 0, k = 0; i < 256; i++)
        for (int j = 0; j <= i; j++)
            p->h[k++] = (double)h[i * 256 + j];
    mem_free(h);
    problem_alloc(p);
    problem_scales(p);
    assert_int_equal(factor_order(p->order, p->h, scheme_ordered(s), p->cols), RC_OK);
    if (scheme_order_group(s))
        order_groups(p);
    golden_close(&common);
}

/* 0.14 rounds 8-bit integers once more when it saves, which moves a few (quant.h, q_round); so does this. */
static void
resave(struct problem *p)
{
    struct scales sc = { p->scale, p->q.symmetric ? NULL : p->zero, p->global };
    float *w = need((size_t)p->rows * (size_t)p->cols, sizeof(*w));

    dequant_rows(&p->q, &sc, p->codes, 0, p->rows, p->cols, w);
    round_rows(&p->q, &sc, w, 0, p->rows, p->cols, p->codes);
    mem_free(w);
}

/* What is stored of them, bit for bit. */
static void
compare_scales(const char *where, const struct golden *g, const struct scheme *s, const struct problem *p)
{
    struct rounded r = { .scheme = s, .t = p->q.t, .rows = p->rows, .cols = p->cols, .codes = p->codes,
        .scale = p->scale, .zero = p->zero, .scale_col = p->scale_col, .global_scale = p->global };
    struct packed_tensors packed;

    assert_int_equal(weights_pack(&packed, "m", &r), RC_OK);
    assert_int_equal(packed.count, g->count - (golden_find(g, "weight_qdq") != NULL));
    for (size_t i = 1; i < packed.count; i++) { /* codes come first */
        const struct tensor *t = golden_get(g, packed.t[i].name + 2);

        if (t->dtype != packed.t[i].dtype || t->bytes != packed.t[i].bytes ||
            memcmp(t->data, packed.t[i].data, t->bytes) != 0)
            fail_msg("%s: %s differs", where, t->name);
    }
    weights_pack_free(&packed);
}

/* Codes may differ in 0.5 % of places, the loss by 1e-3. */
static void
compare(const char *where, const struct golden *g, const struct scheme *s, const struct problem *p, double loss)
{
    enum pack layout = scheme_pack(s);
    size_t n = (size_t)p->rows * (size_t)p->cols, bad = 0;
    double want = json_number_value(json_object_get(g->meta, "loss"));
    uint8_t *codes = need(n, 1);

    unpack_rows(layout, p->q.bits, golden_get(g, layout == PACK_BYTES ? "weight" : "weight_packed")->data, p->rows,
        p->cols, codes);
    for (size_t i = 0; i < n; i++)
        bad += codes[i] != p->codes[i];
    compare_scales(where, g, s, p);
    if (getenv("VERBOSE") != NULL)
        printf("# %-40s %4zu codes differ, loss %.6g want %.6g\n", where, bad, loss, want);
    if (bad * 200 > n || fabs(loss - want) > 1e-3 * want)
        fail_msg("%s: %zu codes differ, loss %g, want %g", where, bad, loss, want);
    mem_free(codes);
}

static void
check_gptq(const char *version, const char *name, void *ctx)
{
    struct problem p = { 0 };
    struct gptq_job job;
    struct scheme s;
    struct golden g;
    struct dev *dev = ctx;
    char where[300];

    golden_open(&g, version, name);
    golden_problem(&p, &g, strcmp(version, "llmc-0.10") == 0, &s);
    for (int b = 0; b < 2; b++) {
        snprintf(where, sizeof(where), "%s/%s %s", version, name, backends[b].name);
        job = problem_job(&p, 0, p.rows);
        if (strstr(name, "fallback") != NULL) { /* of H = -I: the library's identity is one here */
            memset(p.l, 0, 256 * 256 * sizeof(*p.l));
            for (size_t i = 0; i < 256; i++)
                p.l[i * 257] = 1;
        } else if (backends[b].factor(dev, p.l, p.dead, p.h, p.s, p.order, p.damp, p.cols) != RC_OK) {
            fail_msg("%s: %s", where, err_text());
        }
        if (backends[b].gptq(dev, &job) != RC_OK)
            fail_msg("%s: %s", where, err_text());
        if (strstr(name, "fallback") == NULL)
            assert_true(job.rtn_loss > job.loss);
        if (p.q.grid == GRID_INT && p.q.bits == 8 && !p.q.v10)
            resave(&p);
        compare(where, &g, &s, &p, job.loss);
    }
    problem_free(&p);
    golden_close(&g);
}

static void
gptq_vectors(void **state)
{
    assert_int_equal(golden_each("llmc-0.10", "gptq_", check_gptq, *state), 23);
    assert_int_equal(golden_each("llmc-0.14", "gptq_", check_gptq, *state), 19);
}

/* --- problems of our own --- */

static const struct kind {
    const char *name;
    struct qspec q;
} kinds[] = {
    { "int4 g32", { GRID_INT, 4, 1, STRATEGY_GROUP, 32, 0, DT_BF16, DT_BF16, 0 } },
    { "int4 g128 asym", { GRID_INT, 4, 0, STRATEGY_GROUP, 128, 0, DT_BF16, DT_BF16, 0 } },
    { "int3 channel f16", { GRID_INT, 3, 1, STRATEGY_CHANNEL, 0, 0, DT_F16, DT_F16, 0 } },
    { "int8 tensor f32", { GRID_INT, 8, 1, STRATEGY_TENSOR, 0, 0, DT_F32, DT_F32, 0 } },
    { "int2 g64 v10", { GRID_INT, 2, 0, STRATEGY_GROUP, 64, 0, DT_BF16, DT_BF16, 1 } },
    { "fp8 block", { GRID_E4M3, 8, 1, STRATEGY_BLOCK, 48, 32, DT_BF16, DT_BF16, 0 } },
    { "fp8 channel f16", { GRID_E4M3, 8, 1, STRATEGY_CHANNEL, 0, 0, DT_F16, DT_F16, 0 } },
    { "nvfp4", { GRID_E2M1, 4, 1, STRATEGY_TENSOR_GROUP, 16, 0, DT_F8_E4M3, DT_BF16, 0 } },
    { "mxfp4", { GRID_E2M1, 4, 1, STRATEGY_GROUP, 32, 0, DT_F8_E8M0, DT_BF16, 0 } },
    { "mxfp8", { GRID_E4M3, 8, 1, STRATEGY_GROUP, 32, 0, DT_F8_E8M0, DT_BF16, 0 } },
};

enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

/* Uniform in [-1, 1). */
static double
noise(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)((int64_t)*state >> 11) * 0x1p-52;
}

/* H = X'X of correlated inputs; every 7th column but the first never saw a value. */
static double *
hessian(int n, uint64_t *seed)
{
    int rows = n + 8;
    double *x = need((size_t)rows * (size_t)n, sizeof(*x)), *h = need((size_t)n * (size_t)(n + 1) / 2, sizeof(*h));
    size_t k = 0;

    for (int r = 0; r < rows; r++) {
        double common = noise(seed);

        for (int i = 0; i < n; i++)
            x[r * n + i] = i % 7 == 6 ? 0 : (noise(seed) + common) * (1 + 3 * (i % 5 == 0));
    }
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++, k++)
            for (int r = 0; r < rows; r++)
                h[k] += x[r * n + i] * x[r * n + j];
    mem_free(x);
    return h;
}

static void
problem_make(struct problem *p, const struct qspec *q, int rows, int cols, uint64_t seed)
{
    *p = (struct problem){ .q = *q, .rows = rows, .cols = cols, .s = 2.0 / cols, .damp = 0.01 };
    p->w = need((size_t)rows * (size_t)cols, sizeof(*p->w));
    for (int i = 0; i < rows * cols; i++)
        p->w[i] = rt((float)(noise(&seed) * noise(&seed) * 0.1), q->t);
    p->h = hessian(cols, &seed);
    problem_alloc(p);
    problem_scales(p);
    assert_int_equal(factor_order(p->order, p->h, true, cols), RC_OK);
}

/* Half of d (H + lambda I) d', d what the codes lose: what the loss must be. */
static double
true_loss(const struct problem *p)
{
    struct qspec q = p->q;
    struct scales sc = { p->scale, q.symmetric ? NULL : p->zero, p->global };
    size_t n = (size_t)p->cols;
    float *v = need((size_t)p->rows * n, sizeof(*v));
    double sum = 0, lambda = factor_damping(p->dead, p->h, p->s, p->damp, p->cols);

    if (q.scale != q.t || q.v10)
        q.t = DT_F32; /* the loop's product is not rounded */
    if (p->q.scale == p->q.t)
        q.scale = q.t;
    dequant_rows(&q, &sc, p->codes, 0, p->rows, p->cols, v);
    for (int r = 0; r < p->rows; r++)
        for (int i = 0; i < p->cols; i++)
            for (int j = 0; j < p->cols; j++) {
                size_t a = (size_t)r * n + (size_t)i, b = (size_t)r * n + (size_t)j;
                double h = p->s * packed_at(p->h, i, j) + (i == j ? lambda : 0);

                if (!p->dead[i] && !p->dead[j])
                    sum += h * ((double)p->w[a] - (double)v[a]) * ((double)p->w[b] - (double)v[b]) / 2;
            }
    mem_free(v);
    return sum;
}

static void
against_ref_at(struct dev *dev, const struct kind *k, int rows, int cols)
{
    struct problem p;
    struct gptq_job ref, cpu;
    size_t n = (size_t)rows * (size_t)cols, bad = 0;
    uint8_t *codes = need(n, 1);
    double loss;

    problem_make(&p, &k->q, rows, cols, (uint64_t)(rows * 1000 + cols));
    assert_int_equal(ref_factor(dev, p.l, p.dead, p.h, p.s, p.order, p.damp, cols), RC_OK);
    ref = problem_job(&p, 0, rows);
    assert_int_equal(ref_gptq(dev, &ref), RC_OK);
    memcpy(codes, p.codes, n);
    assert_int_equal(cpu_factor(dev, p.l, p.dead, p.h, p.s, p.order, p.damp, cols), RC_OK);
    cpu = problem_job(&p, 0, rows);
    assert_int_equal(cpu_gptq(dev, &cpu), RC_OK);
    for (size_t i = 0; i < n; i++)
        bad += codes[i] != p.codes[i];
    loss = p.q.v10 ? cpu.loss : true_loss(&p);
    if (bad * 100 > n || fabs(ref.loss - cpu.loss) > 2e-3 * ref.loss || fabs(loss - cpu.loss) > 1e-4 * loss ||
        fabs(ref.rtn_loss - cpu.rtn_loss) > 1e-4 * ref.rtn_loss)
        fail_msg("%s [%d, %d]: %zu codes differ, losses %g %g true %g, plain %g %g", k->name, rows, cols, bad, ref.loss,
            cpu.loss, loss, ref.rtn_loss, cpu.rtn_loss);
    mem_free(codes);
    problem_free(&p);
}

static void
against_ref(void **state)
{
    static const int sizes[] = { 1, 2, 31, 33, 127, 130 };

    for (int k = 0; k < KINDS; k++)
        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
            against_ref_at(*state, &kinds[k], 1 + 3 * k, sizes[i]);
            against_ref_at(*state, &kinds[k], sizes[i], 64);
        }
    against_ref_at(*state, &kinds[0], 50, 257);
    against_ref_at(*state, &kinds[7], 50, 288);
}

/* Factor, codes and losses of the whole at once by one thread are those of 2 and 3 threads, codes those of any cut by
 * rows, and all are the same for every variant of the inner loops. */
static void
same_bytes_of(const struct kind *k, int rows, int cols)
{
    static const struct lanes *const variants[] = { &lanes_c, &lanes_avx2, &lanes_avx512 };
    struct problem p;
    struct gptq_job one, job;
    size_t n = (size_t)rows * (size_t)cols, square = (size_t)cols * (size_t)cols;
    uint8_t *codes = need(n, 1);
    float *l = need(square, sizeof(*l));

    problem_make(&p, &k->q, rows, cols, 7);
    for (int threads = 1; threads <= 3; threads++) {
        struct dev dev = { 0 };

        assert_int_equal(pool_open(&dev.pool, threads), RC_OK);
        memset(p.l, 0, square * sizeof(*p.l));
        setenv("LLMC_ISA", variants[threads - 1]->name, true);
        assert_int_equal(cpu_factor(&dev, p.l, p.dead, p.h, p.s, p.order, p.damp, cols), RC_OK);
        unsetenv("LLMC_ISA");
        job = problem_job(&p, 0, rows);
        assert_int_equal(cpu_gptq(&dev, &job), RC_OK);
        if (threads == 1) {
            memcpy(codes, p.codes, n);
            memcpy(l, p.l, square * sizeof(*l));
            one = job;
        }
        for (int r = 0; r < cols; r++)
            assert_memory_equal(l + r * cols, p.l + r * cols, (size_t)(r + 1) * sizeof(*l));
        assert_memory_equal(codes, p.codes, n);
        assert_true(one.loss == job.loss && one.rtn_loss == job.rtn_loss);
        for (int v = 0; v < 3; v++) {
            if (!lanes_usable(variants[v]))
                continue;
            for (int r = 0, step = 1 + 13 * threads; r < rows; r += step) {
                job = problem_job(&p, r, rows - r < step ? rows - r : step);
                memset(job.codes, 0, (size_t)job.rows * (size_t)cols);
                assert_int_equal(cpu_gptq_lanes(&dev, variants[v], &job), RC_OK);
            }
            if (memcmp(codes, p.codes, n) != 0)
                fail_msg("%s: %s differs", k->name, variants[v]->name);
        }
        pool_close(dev.pool);
    }
    mem_free(codes);
    mem_free(l);
    problem_free(&p);
}

static void
same_bytes(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++)
        same_bytes_of(&kinds[k], 61, 160);
    same_bytes_of(&kinds[0], 101, 608);
}

extern void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info);

static void
factor_against_lapack(void **state)
{
    static const int sizes[] = { 1, 2, 31, 33, 127, 255, 256, 257, 520 };

    for (size_t k = 0; k < sizeof(sizes) / sizeof(*sizes); k++) {
        int n = sizes[k], info = 0;
        struct problem p;
        double *a = need((size_t)(n * n), sizeof(*a)), lambda, scale = 0;

        problem_make(&p, &kinds[0].q, 1, n, 3);
        assert_int_equal(cpu_factor(*state, p.l, p.dead, p.h, p.s, p.order, p.damp, n), RC_OK);
        lambda = factor_damping(p.dead, p.h, p.s, p.damp, n);
        for (int i = 0; i < n; i++)
            for (int j = 0; j <= i; j++)
                a[i * n + j] = p.s * packed_at(p.h, p.order[i], p.order[j]) +
                    (i == j ? lambda + p.dead[p.order[i]] : 0);
        dpotrf_("U", &n, a, &n, &info); /* row-major lower */
        assert_int_equal(info, 0);
        for (int i = 0; i < n; i++)
            scale = a[i * n + i] > scale ? a[i * n + i] : scale;
        for (int i = 0; i < n; i++)
            for (int j = 0; j <= i; j++)
                if (fabs((double)p.l[i * n + j] - a[i * n + j]) > 2e-5 * scale)
                    fail_msg("n %d: L[%d][%d] is %g, want %g", n, i, j, (double)p.l[i * n + j], a[i * n + j]);
        mem_free(a);
        problem_free(&p);
    }
}

static void
orders(void **state)
{
    /* diagonals 2 0 5 2 0 5: processed 2 5 0 3 1 4 */
    static const double h[] = { 2, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5 };
    static const int want[] = { 4, 1, 3, 0, 5, 2 }, natural[] = { 5, 4, 3, 2, 1, 0 };
    uint8_t dead[6];
    int order[6];

    (void)state;
    assert_int_equal(factor_order(order, h, true, 6), RC_OK);
    assert_memory_equal(order, want, sizeof(want));
    assert_int_equal(factor_order(order, h, false, 6), RC_OK);
    assert_memory_equal(order, natural, sizeof(natural));
    assert_true(factor_damping(dead, h, 0.5, 0.1, 6) == 0.1 * (1 + 1 + 2.5 + 1 + 1 + 2.5) / 6);
    assert_true(dead[1] == 1 && dead[4] == 1 && dead[0] == 0);
}

/* An input without any value: all columns are dead and become the code of zero. */
static void
all_dead(void **state)
{
    struct problem p;

    for (int b = 0; b < 2; b++) {
        struct gptq_job job;

        problem_make(&p, &kinds[1].q, 5, 128, 11);
        memset(p.h, 0, 128 * 129 / 2 * sizeof(*p.h));
        assert_int_equal(backends[b].factor(*state, p.l, p.dead, p.h, p.s, p.order, p.damp, p.cols), RC_OK);
        job = problem_job(&p, 0, 5);
        assert_int_equal(backends[b].gptq(*state, &job), RC_OK);
        assert_true(job.loss == 0 && job.rtn_loss == 0);
        for (int i = 0; i < 5 * 128; i++)
            assert_int_equal((int8_t)p.codes[i], p.zero[i / 128]);
        problem_free(&p);
    }
}

static void
failures(void **state)
{
    for (int b = 0; b < 2; b++) {
        struct problem p;
        struct gptq_job job;
        size_t last = 300 * 301 / 2 - 1;
        double keep;

        problem_make(&p, &kinds[0].q, 3, 300, 5);
        keep = p.h[last];
        for (int i = 0; i < 3; i++) {
            p.h[last] = i == 0 ? -keep : i == 1 ? (double)NAN : (double)INFINITY;
            assert_int_equal(backends[b].factor(*state, p.l, p.dead, p.h, p.s, p.order, p.damp, p.cols), RC_NUMERIC);
            assert_non_null(strstr(err_text(), "not positive definite at column"));
        }
        p.h[last] = keep;
        p.h[last - 1] = (double)NAN;
        assert_int_equal(backends[b].factor(*state, p.l, p.dead, p.h, p.s, p.order, p.damp, p.cols), RC_NUMERIC);
        p.h[last - 1] = 0;
        p.damp = 1;
        assert_int_equal(backends[b].factor(*state, p.l, p.dead, p.h, p.s, p.order, p.damp, p.cols), RC_OK);
        p.w[301] = NAN;
        job = problem_job(&p, 0, 3);
        assert_int_equal(backends[b].gptq(*state, &job), RC_NUMERIC);
        assert_string_equal(err_text(), "loss is not finite");
        problem_free(&p);
    }
}

static int
setup(void **state)
{
    static struct dev dev;

    *state = &dev;
    return pool_open(&dev.pool, 2);
}

static int
teardown(void **state)
{
    pool_close(((struct dev *)*state)->pool);
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gptq_vectors),
        cmocka_unit_test(against_ref),
        cmocka_unit_test(same_bytes),
        cmocka_unit_test(factor_against_lapack),
        cmocka_unit_test(orders),
        cmocka_unit_test(all_dead),
        cmocka_unit_test(failures),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
