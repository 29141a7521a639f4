/* test-kernels - the cpu backend against ref, every instruction set against every other, any number of threads */
#include "../../kernels/cpu/ops.h"
#include "../../libcommon/mem.h"
#include "pair.h"

#include <math.h>

static const int sizes[] = { 1, 2, 31, 33, 127, 300 };

enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

static uint64_t seed = 88172645463325252ULL;

static float
uniform(void)
{
    return (float)(unit_random(&seed) >> 40) / (float)(1 << 24) * 2 - 1;
}

/* count values of type dt in [-1, 1]. */
static void *
random_values(size_t count, enum dtype dt)
{
    float *f = mem_alloc(count + 64, sizeof(*f));

    for (size_t i = 0; i < count; i++)
        f[i] = uniform();
    if (dt == DT_BF16)
        assert_true(dtype_from_f32(f, f, dt, count));
    return f;
}

static double
value(const void *p, enum dtype dt, size_t i)
{
    return dt == DT_BF16 ? (double)bf16_to_f32(((const uint16_t *)p)[i]) : (double)((const float *)p)[i];
}

static void
expect_close(const char *what, const void *a, const void *b, enum dtype dt, size_t count, double tol)
{
    for (size_t i = 0; i < count; i++) {
        double x = value(a, dt, i), y = value(b, dt, i);

        if (!(fabs(x - y) <= tol * (1 + fabs(x))))
            fail_msg("%s: element %zu is %.9g, want %.9g", what, i, y, x);
    }
}

/* One rounding of bf16, or of f32 sums. */
static double
tolerance(enum dtype dt)
{
    return dt == DT_BF16 ? 0x1p-7 : 2e-5;
}

static void
matmul_case(struct pair *p, enum dtype dt, int rows, int n, int k, bool with_bias)
{
    void *x = random_values((size_t)rows * (size_t)k, dt), *w = random_values((size_t)n * (size_t)k, dt);
    void *bias = with_bias ? random_values((size_t)n, dt) : NULL;
    size_t count = (size_t)rows * (size_t)n;
    void *a = mem_alloc(count, 4), *b = mem_alloc(count, 4);
    struct weight *wr, *wc;

    assert_int_equal(backend_ref.weight_pack(p->ref, &wr, w, dt, dt, n, k), RC_OK);
    assert_int_equal(backend_cpu.weight_pack(p->cpu, &wc, w, dt, dt, n, k), RC_OK);
    for (int f32 = 0; f32 < 2; f32++) {
        enum dtype ydt = f32 ? DT_F32 : dt;

        assert_int_equal(backend_ref.matmul(p->ref, a, ydt, x, dt, rows, wr, bias), RC_OK);
        assert_int_equal(backend_cpu.matmul(p->cpu, b, ydt, x, dt, rows, wc, bias), RC_OK);
        expect_close("matmul", a, b, ydt, count, tolerance(ydt));
    }
    backend_ref.weight_free(p->ref, wr);
    backend_cpu.weight_free(p->cpu, wc);
    mem_free(x);
    mem_free(w);
    mem_free(bias);
    mem_free(a);
    mem_free(b);
}

static void
test_matmul(void **state)
{
    static const char *const isas[] = { NULL, "avx2", "c" };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct pair p;

        open_pair(&p, isas[i], 2);
        for (int s = 0; s < SIZES; s++) {
            matmul_case(&p, DT_BF16, sizes[s], sizes[(s + 1) % SIZES], sizes[(s + 2) % SIZES], s % 2 == 0);
            matmul_case(&p, DT_F32, sizes[s], sizes[(s + 2) % SIZES], sizes[(s + 1) % SIZES], s % 2 == 1);
        }
        matmul_case(&p, DT_BF16, 300, 1100, 33, true); /* a second chunk of columns and of rows */
        close_pair(&p);
    }
}

/* Of one backend the same bytes as its products and act_mul() one after the other. */
static void
gated_case(const struct backend *bk, struct dev *dev, enum dtype dt, int rows, int n, int k, bool with_bias, enum act act)
{
    size_t size = dtype_size(dt), count = (size_t)rows * (size_t)n;
    void *x = random_values((size_t)rows * (size_t)k, dt), *h = mem_alloc(count, size), *want = mem_alloc(count, size);
    void *w[2], *bias[2] = { NULL, NULL }, *y[2];
    struct weight *pw[2];

    for (int i = 0; i < 2; i++) {
        w[i] = random_values((size_t)n * (size_t)k, dt);
        if (with_bias)
            bias[i] = random_values((size_t)n, dt);
        y[i] = mem_alloc(count, size);
        assert_int_equal(bk->weight_pack(dev, &pw[i], w[i], dt, dt, n, k), RC_OK);
        assert_int_equal(bk->matmul(dev, y[i], dt, x, dt, rows, pw[i], bias[i]), RC_OK);
    }
    assert_int_equal(bk->act_mul(dev, want, y[0], y[1], dt, count, act), RC_OK);
    memset(h, 0xff, count * size);
    assert_int_equal(bk->gated(dev, h, x, dt, rows, (const struct weight *const *)pw, (const void *const *)bias, act),
        RC_OK);
    assert_memory_equal(h, want, count * size);
    for (int i = 0; i < 2; i++) {
        bk->weight_free(dev, pw[i]);
        mem_free(w[i]);
        mem_free(bias[i]);
        mem_free(y[i]);
    }
    mem_free(x);
    mem_free(h);
    mem_free(want);
}

static void
test_gated(void **state)
{
    static const char *const isas[] = { NULL, "avx2", "c" };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct pair p;

        open_pair(&p, isas[i], 2);
        for (int s = 0; s < SIZES; s++)
            for (int f32 = 0; f32 < 2; f32++) {
                enum dtype dt = f32 ? DT_F32 : DT_BF16;
                enum act act = (enum act)(s % (ACT_GELU + 1));

                gated_case(&backend_cpu, p.cpu, dt, sizes[s], sizes[(s + 1) % SIZES], sizes[(s + 2) % SIZES],
                    s % 2 == 0, act);
                gated_case(&backend_ref, p.ref, dt, sizes[s], sizes[(s + 2) % SIZES], sizes[(s + 1) % SIZES],
                    s % 2 == 1, act);
            }
        gated_case(&backend_cpu, p.cpu, DT_BF16, 0, 16, 32, false, ACT_SILU);
        gated_case(&backend_cpu, p.cpu, DT_BF16, 300, 2100, 33, true, ACT_SILU); /* several chunks of columns */
        close_pair(&p);
    }
}

static void
elementwise_case(struct pair *p, enum dtype dt, int rows, int n)
{
    size_t count = (size_t)rows * (size_t)n;
    void *x = random_values(count, dt), *w = random_values((size_t)n, dt), *u = random_values(count, dt);
    void *a = mem_alloc(count, 4), *b = mem_alloc(count, 4);

    for (int norm = NORM_TWICE; norm <= NORM_ONCE; norm++) {
        assert_int_equal(backend_ref.rmsnorm(p->ref, a, x, w, dt, rows, n, 1e-5f, (enum norm)norm), RC_OK);
        assert_int_equal(backend_cpu.rmsnorm(p->cpu, b, x, w, dt, rows, n, 1e-5f, (enum norm)norm), RC_OK);
        expect_close("rmsnorm", a, b, dt, count, tolerance(dt));
    }
    for (int act = ACT_SILU; act <= ACT_GELU; act++) {
        assert_int_equal(backend_ref.act_mul(p->ref, a, x, u, dt, count, (enum act)act), RC_OK);
        assert_int_equal(backend_cpu.act_mul(p->cpu, b, x, u, dt, count, (enum act)act), RC_OK);
        expect_close("act_mul", a, b, dt, count, tolerance(dt));
    }
    memcpy(a, x, count * dtype_size(dt));
    memcpy(b, x, count * dtype_size(dt));
    assert_int_equal(backend_ref.add(p->ref, a, u, dt, count), RC_OK);
    assert_int_equal(backend_cpu.add(p->cpu, b, u, dt, count), RC_OK);
    expect_close("add", a, b, dt, count, 0);
    mem_free(x);
    mem_free(w);
    mem_free(u);
    mem_free(a);
    mem_free(b);
}

static void
test_elementwise(void **state)
{
    struct pair p;

    (void)state;
    open_pair(&p, NULL, 2);
    for (int s = 0; s < SIZES; s++) {
        elementwise_case(&p, DT_BF16, sizes[s], sizes[SIZES - 1 - s]);
        elementwise_case(&p, DT_F32, sizes[s], sizes[SIZES - 1 - s]);
    }
    close_pair(&p);
}

static void
attention_case(struct pair *p, enum dtype dt, const struct attn_args *a, int samples)
{
    int rows = samples * a->tokens, ldq = a->heads * a->head_dim, ldk = a->kv_heads * a->head_dim;
    void *q = random_values((size_t)rows * (size_t)ldq, dt), *k = random_values((size_t)rows * (size_t)ldk, dt);
    void *v = random_values((size_t)rows * (size_t)ldk, dt);
    size_t count = (size_t)rows * (size_t)ldq;
    void *x = mem_alloc(count, 4), *y = mem_alloc(count, 4);

    assert_int_equal(backend_ref.attention(p->ref, x, q, ldq, k, ldk, v, ldk, dt, rows, a), RC_OK);
    assert_int_equal(backend_cpu.attention(p->cpu, y, q, ldq, k, ldk, v, ldk, dt, rows, a), RC_OK);
    expect_close("attention", x, y, dt, count, tolerance(dt));
    mem_free(q);
    mem_free(k);
    mem_free(v);
    mem_free(x);
    mem_free(y);
}

static void
test_attention(void **state)
{
    static const struct attn_args cases[] = {
        { .heads = 1, .kv_heads = 1, .head_dim = 2, .tokens = 1, .scale = 1 },
        { .heads = 3, .kv_heads = 1, .head_dim = 64, .tokens = 65, .scale = 0.125f },
        { .heads = 4, .kv_heads = 2, .head_dim = 34, .tokens = 130, .scale = 0.2f },
        { .heads = 2, .kv_heads = 2, .head_dim = 128, .tokens = 33, .scale = 0.3f, .softcap = 5 },
        { .heads = 2, .kv_heads = 1, .head_dim = 16, .tokens = 150, .scale = 0.25f, .window = 37 },
        { .heads = 4, .kv_heads = 2, .head_dim = 34, .tokens = 130, .scale = 0.2f, .eager = true },
        { .heads = 2, .kv_heads = 1, .head_dim = 16, .tokens = 150, .scale = 0.25f, .window = 37, .softcap = 5,
            .eager = true },
    };

    (void)state;
    for (int isa = 0; isa < 2; isa++) {
        struct pair p;

        open_pair(&p, isa == 0 ? NULL : "avx2", 3);
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            attention_case(&p, DT_BF16, &cases[i], 2);
            attention_case(&p, DT_F32, &cases[i], 2);
        }
        close_pair(&p);
    }
}

static void
test_rope(void **state)
{
    enum { ROWS = 14, HEADS = 3, DIM = 16, ROT = 12, TOKENS = 7 };
    struct pair p;

    (void)state;
    open_pair(&p, NULL, 2);
    for (int i = 0; i < 2; i++) {
        enum dtype dt = i == 0 ? DT_BF16 : DT_F32;
        void *x = random_values(ROWS * HEADS * DIM, dt), *y = mem_alloc(ROWS * HEADS * DIM, 4);
        void *c = random_values(TOKENS * ROT / 2, dt), *s = random_values(TOKENS * ROT / 2, dt);

        memcpy(y, x, ROWS * HEADS * DIM * dtype_size(dt));
        assert_int_equal(backend_ref.rope(p.ref, x, dt, ROWS, HEADS, DIM, HEADS * DIM, c, s, ROT, TOKENS), RC_OK);
        assert_int_equal(backend_cpu.rope(p.cpu, y, dt, ROWS, HEADS, DIM, HEADS * DIM, c, s, ROT, TOKENS), RC_OK);
        expect_close("rope", x, y, dt, ROWS * HEADS * DIM, dt == DT_BF16 ? 0 : 1e-6);
        mem_free(x);
        mem_free(y);
        mem_free(c);
        mem_free(s);
    }
    close_pair(&p);
}

static void
test_nll(void **state)
{
    enum { ROWS = 70, VOCAB = 1300, HIDDEN = 33 };
    struct pair p;
    int32_t target[ROWS];
    double a[ROWS], b[ROWS];

    (void)state;
    open_pair(&p, NULL, 2);
    for (int i = 0; i < ROWS; i++)
        target[i] = i % 5 == 0 ? -1 : i * 17 % VOCAB;
    for (int i = 0; i < 4; i++) {
        enum dtype dt = i % 2 == 0 ? DT_BF16 : DT_F32;
        void *h = random_values(ROWS * HIDDEN, dt), *w = random_values(VOCAB * HIDDEN, dt);
        struct weight *wr, *wc;

        assert_int_equal(backend_ref.weight_pack(p.ref, &wr, w, dt, dt, VOCAB, HIDDEN), RC_OK);
        assert_int_equal(backend_cpu.weight_pack(p.cpu, &wc, w, dt, dt, VOCAB, HIDDEN), RC_OK);
        assert_int_equal(backend_ref.nll(p.ref, a, h, dt, ROWS, wr, target, i < 2 ? 0 : 3, 1.5f), RC_OK);
        assert_int_equal(backend_cpu.nll(p.cpu, b, h, dt, ROWS, wc, target, i < 2 ? 0 : 3, 1.5f), RC_OK);
        for (int r = 0; r < ROWS; r++)
            assert_true(fabs(a[r] - b[r]) < (dt == DT_BF16 ? 0.05 : 1e-4));
        backend_ref.weight_free(p.ref, wr);
        backend_cpu.weight_free(p.cpu, wc);
        mem_free(h);
        mem_free(w);
    }
    close_pair(&p);
}

static void
syrk_case(enum dtype dt, int rows, int n)
{
    size_t count = (size_t)n * ((size_t)n + 1) / 2;
    void *x = random_values((size_t)rows * (size_t)n, dt);
    double *ref = mem_zalloc(count, 8), *want = mem_zalloc(count, 8), *got = mem_zalloc(count, 8);
    int16_t *e = mem_alloc((size_t)n, sizeof(*e));
    static const struct { const char *isa; int threads; } runs[] = { { NULL, 1 }, { NULL, 3 }, { "avx2", 2 }, { "c",
        1 } };

    for (int i = 0; i < n; i++)
        e[i] = (int16_t)(-12 - i % 3);
    for (size_t r = 0; r < 4; r++) {
        struct pair p;

        open_pair(&p, runs[r].isa, runs[r].threads);
        memset(got, 0, count * sizeof(*got));
        assert_int_equal(backend_cpu.syrk(p.cpu, got, x, dt, rows, n, e), RC_OK);
        if (r == 0) {
            assert_int_equal(backend_ref.syrk(p.ref, ref, x, dt, rows, n, e), RC_OK);
            memcpy(want, got, count * sizeof(*got));
            for (size_t i = 0; i < count; i++)
                assert_true(fabs(ref[i] - got[i]) < 1e-6 * rows + 1e-6);
        }
        /* f32 products are the library's: its kernel is the same in all runs here */
        assert_memory_equal(want, got, count * sizeof(*got));
        close_pair(&p);
    }
    mem_free(x);
    mem_free(ref);
    mem_free(want);
    mem_free(got);
    mem_free(e);
}

/* X_f'X in f64, each chunk on the grid: what both backends must add, the fast one but for its f32 sums. */
static void
cross_case(enum dtype dt, int rows, int n)
{
    size_t count = (size_t)n * (size_t)n;
    void *x = random_values((size_t)rows * (size_t)n, dt), *xf = random_values((size_t)rows * (size_t)n, dt);
    double *ref = mem_zalloc(count, 8), *first = mem_zalloc(count, 8), *got = mem_zalloc(count, 8);
    int16_t *e = mem_alloc((size_t)n, sizeof(*e)), *ef = mem_alloc((size_t)n, sizeof(*ef));
    static const struct { const char *isa; int threads; } runs[] = { { NULL, 1 }, { NULL, 3 }, { "avx2", 2 }, { "c",
        1 } };

    for (int i = 0; i < n; i++) {
        e[i] = (int16_t)(-12 - i % 3);
        ef[i] = (int16_t)(-10 - i % 5);
    }
    for (size_t r = 0; r < COUNT(runs); r++) {
        struct pair p;

        open_pair(&p, runs[r].isa, runs[r].threads);
        memset(got, 0, count * 8);
        assert_int_equal(backend_cpu.cross(p.cpu, got, xf, x, dt, rows, n, ef, e), RC_OK);
        if (r == 0) {
            assert_int_equal(backend_ref.cross(p.ref, ref, xf, x, dt, rows, n, ef, e), RC_OK);
            memcpy(first, got, count * 8);
        }
        close_pair(&p);
        assert_memory_equal(got, first, count * 8);
    }
    for (size_t i = 0; i < count; i++) {
        double unit = ldexp(1, ef[i / (size_t)n] + e[i % (size_t)n]);

        if (!(fabs(got[i] - ref[i]) <= 2 * unit + 1e-5 * sqrt(rows)) || fmod(got[i], unit) != 0)
            fail_msg("cross %d x %d: [%zu] is %g, want %g", rows, n, i, got[i], ref[i]);
    }
    mem_free(x);
    mem_free(xf);
    mem_free(ref);
    mem_free(first);
    mem_free(got);
    mem_free(e);
    mem_free(ef);
}

static void
test_cross(void **state)
{
    (void)state;
    for (int s = 0; s < SIZES; s++) {
        cross_case(DT_BF16, sizes[SIZES - 1 - s], sizes[s]);
        cross_case(DT_F32, sizes[SIZES - 1 - s], sizes[s]);
    }
    cross_case(DT_BF16, 1100, 50);
    cross_case(DT_F32, 1100, 50);
    cross_case(DT_BF16, 600, 300);
}

static void
test_syrk(void **state)
{
    (void)state;
    for (int s = 0; s < SIZES; s++) {
        syrk_case(DT_BF16, sizes[SIZES - 1 - s], sizes[s]);
        syrk_case(DT_F32, sizes[SIZES - 1 - s], sizes[s]);
    }
    syrk_case(DT_BF16, 1100, 50);
    syrk_case(DT_BF16, 600, 300);
}

/* Tables beside that of plain C which this processor can run; NULL ends them. */
static const struct ops *const *
fast_tables(void)
{
    static const struct ops *const all[] = { &ops_avx2, &ops_avx512, &ops_avx512_fma };
    static const struct ops *usable[4];
    int n = 0;

    for (int i = 0; i < 3; i++)
        if (ops_usable(all[i]))
            usable[n++] = all[i];
    usable[n] = NULL;
    if (n == 0)
        skip();
    return usable;
}

/* Chains of all lengths around those that a table cuts them into, beside plain C. */
static void
test_dot_same_bits(void **state)
{
    enum { PAIRS = 301, WIDTH = OPS_NV_MAX * OPS_LANES };
    static const int lengths[] = { 1, 32, 127, 128, 129, 256, PAIRS };
    uint32_t a[PAIRS * OPS_LANES], b[OPS_NV_MAX * PAIRS * OPS_LANES];
    float want[OPS_MR * WIDTH], got[OPS_MR * WIDTH];

    (void)state;
    for (size_t i = 0; i < sizeof(a) / 4; i++)
        a[i] = (uint32_t)bf16_from_f32(uniform()) | (uint32_t)bf16_from_f32(uniform()) << 16;
    for (size_t i = 0; i < sizeof(b) / 4; i++)
        b[i] = (uint32_t)bf16_from_f32(uniform()) | (uint32_t)bf16_from_f32(uniform()) << 16;
    for (const struct ops *const *t = fast_tables(); *t != NULL; t++)
        for (int nv = 1; nv <= OPS_NV_MAX; nv++)
            for (size_t l = 0; l < sizeof(lengths) / sizeof(*lengths); l++) {
                memset(want, 0, sizeof(want)); /* columns that are not of nv stay */
                memset(got, 0, sizeof(got));
                for (int add = 0; add < 2; add++) {
                    ops_c.dot(want, WIDTH, a + OPS_MR, b, PAIRS * OPS_LANES, lengths[l], nv, add);
                    (*t)->dot(got, WIDTH, a + OPS_MR, b, PAIRS * OPS_LANES, lengths[l], nv, add);
                    assert_memory_equal(want, got, sizeof(want));
                }
            }
}

/* Norms, softmax and activations give the same bits in every table. */
static void
test_ops_same_bits(void **state)
{
    enum { N = 203 };
    uint16_t x[N], w[N], want[N], got[N];
    float s[N], s2[N], f[N];

    (void)state;
    for (int i = 0; i < N; i++) {
        f[i] = uniform() * 20;
        x[i] = bf16_from_f32(uniform() * 8);
        w[i] = bf16_from_f32(uniform());
    }
    x[3] = bf16_from_f32(-87.3f); /* silu makes products below the normal range of these */
    x[4] = bf16_from_f32(-91.0f);
    x[N - 1] = bf16_from_f32(-86.5f);
    w[3] = w[N - 1] = bf16_from_f32(1e-4f);
    ops_c.act_mul(want, x, w, DT_BF16, N, ACT_SILU);
    memcpy(s, f, sizeof(f));
    ops_c.softmax(s, N, 0.3f, 0);
    for (const struct ops *const *t = fast_tables(); *t != NULL; t++) {
        (*t)->act_mul(got, x, w, DT_BF16, N, ACT_SILU);
        assert_memory_equal(want, got, sizeof(want));
        memcpy(s2, f, sizeof(f));
        (*t)->softmax(s2, N, 0.3f, 0);
        assert_memory_equal(s, s2, sizeof(s));
        assert_true((*t)->logsumexp(f, N, 1, 0) == ops_c.logsumexp(f, N, 1, 0));
    }
}

/* Norms of each kind, rotation of two halves, sums: whole vectors and a rest; values whose bf16 would be denormal. */
static void
test_bf16_rows_same_bits(void **state)
{
    enum { N = 203 };
    uint16_t x[N], w[N], want[N], got[N];

    (void)state;
    for (int i = 0; i < N; i++) {
        x[i] = bf16_from_f32(i % 9 == 0 ? uniform() * 0x1p-125f : uniform() * 8);
        w[i] = bf16_from_f32(uniform());
    }
    for (const struct ops *const *t = fast_tables(); *t != NULL; t++) {
        for (int norm = NORM_TWICE; norm <= NORM_ONCE; norm++) {
            ops_c.rmsnorm(want, x, w, DT_BF16, N, 1e-5f, (enum norm)norm);
            (*t)->rmsnorm(got, x, w, DT_BF16, N, 1e-5f, (enum norm)norm);
            assert_memory_equal(want, got, sizeof(want));
        }
        memcpy(want, x, sizeof(x));
        memcpy(got, x, sizeof(x));
        ops_c.rope(want, DT_BF16, N / 2, w, w + N / 2);
        (*t)->rope(got, DT_BF16, N / 2, w, w + N / 2);
        assert_memory_equal(want, got, sizeof(want));
        ops_c.add(want, x, DT_BF16, N);
        (*t)->add(got, x, DT_BF16, N);
        assert_memory_equal(want, got, sizeof(want));
    }
}

/* Scores with a window, lanes that see a single key, and values whose bf16 would be denormal. */
static void
test_softmax_cols_same_bits(void **state)
{
    enum { KEYS = 301, NV = 2, LD = 48, PAIRS = (KEYS + 1) / 2 };
    static float s[KEYS * LD], given[KEYS * LD];
    static uint32_t p[NV * PAIRS * OPS_LANES], want[NV * PAIRS * OPS_LANES];
    static uint16_t x[OPS_LANES * KEYS];
    int32_t first[NV * OPS_LANES], end[NV * OPS_LANES];
    float sum[NV * OPS_LANES], want_sum[NV * OPS_LANES];

    (void)state;
    for (int i = 0; i < KEYS * LD; i++)
        given[i] = uniform() * 300;
    for (int i = 0; i < OPS_LANES * KEYS; i++)
        x[i] = (uint16_t)(uniform() * 32000);
    for (int i = 0; i < NV * OPS_LANES; i++) {
        first[i] = i * 3;
        end[i] = i % 7 == 0 ? first[i] + 1 : KEYS - 40 + i;
        end[i] = end[i] < KEYS ? end[i] : KEYS;
    }
    for (const struct ops *const *t = fast_tables(); *t != NULL; t++) {
        for (float cap = 0; cap <= 30; cap += 30) {
            memcpy(s, given, sizeof(given));
            ops_c.softmax_cols(want, PAIRS * OPS_LANES, s, LD, KEYS, NV, 0.3f, cap, first, end, want_sum);
            assert_true(want_sum[7] == 1.0f && want[7] == 0); /* lane 7 sees key 21 alone */
            assert_int_equal(want[(21 / 2) * OPS_LANES + 7], 0x3f800000);
            memcpy(s, given, sizeof(given));
            (*t)->softmax_cols(p, PAIRS * OPS_LANES, s, LD, KEYS, NV, 0.3f, cap, first, end, sum);
            assert_memory_equal(want, p, sizeof(p));
            assert_memory_equal(want_sum, sum, sizeof(sum));

            memcpy(s, given, sizeof(given));
            ops_c.eager_cols(want, PAIRS * OPS_LANES, s, LD, KEYS, NV, 0.3f, cap, first, end);
            assert_int_equal(want[(21 / 2) * OPS_LANES + 7], 0x3f800000);
            memcpy(s, given, sizeof(given));
            (*t)->eager_cols(p, PAIRS * OPS_LANES, s, LD, KEYS, NV, 0.3f, cap, first, end);
            assert_memory_equal(want, p, sizeof(p));
        }
        ops_c.pack_cols(want, x, KEYS, 13, KEYS);
        (*t)->pack_cols(p, x, KEYS, 13, KEYS);
        assert_memory_equal(want, p, PAIRS * OPS_LANES * sizeof(*p));
    }
}

/* What surrounds products: panels, whole and not, sums on a grid, values scaled to bf16 with NaN and denormal ones. */
static void
test_product_ends_same_bits(void **state)
{
    enum { ROWS = 37, COLS = 75, PANELS = (COLS + OPS_LANES - 1) / OPS_LANES, PAIRS = (ROWS + 1) / 2, COUNT = 3 };
    static uint32_t want[PANELS * PAIRS * OPS_LANES], got[PANELS * PAIRS * OPS_LANES];
    static float c[COUNT * COLS];
    uint16_t x[ROWS * COLS], y[COLS], z[COLS];
    double sum[COLS], acc[COLS], u[COLS], exact;

    (void)state;
    for (int i = 0; i < ROWS * COLS; i++)
        x[i] = (uint16_t)(uniform() * 32000);
    for (int i = 0; i < COUNT * COLS; i++)
        c[i] = i % 11 == 0 ? NAN : i % 7 == 0 ? uniform() * 0x1p-126f : uniform() * 100;
    for (int i = 0; i < COLS; i++)
        u[i] = ldexp(1, -i % 13);
    for (const struct ops *const *t = fast_tables(); *t != NULL; t++) {
        for (int width = 1; width <= COLS; width += 37) {
            ops_c.pack_rows(want, PAIRS * OPS_LANES, x, COLS, ROWS, width);
            (*t)->pack_rows(got, PAIRS * OPS_LANES, x, COLS, ROWS, width);
            assert_memory_equal(want, got, (size_t)((width + OPS_LANES - 1) / OPS_LANES) * PAIRS * OPS_LANES * 4);
        }
        ops_c.scaled(y, c, 0.7f, COLS);
        (*t)->scaled(z, c, 0.7f, COLS);
        assert_memory_equal(y, z, sizeof(y));
    }
    for (int i = 0; i < COUNT * COLS; i++)
        c[i] = uniform() * 100;
    for (const struct ops *const *t = fast_tables(); *t != NULL; t++) {
        memset(sum, 0, sizeof(sum));
        memset(acc, 0, sizeof(acc));
        ops_c.grid_add(sum, c, COLS, COUNT, COLS - 2, 0x1p-10, u);
        (*t)->grid_add(acc, c, COLS, COUNT, COLS - 2, 0x1p-10, u);
        assert_memory_equal(sum, acc, sizeof(sum));
        assert_true(acc[COLS - 2] == 0 && acc[COLS - 1] == 0);
    }
    for (int i = 0; i < COLS - 2; i++) {
        exact = 0;
        for (int k = 0; k < COUNT; k++)
            exact += rint((double)c[k * COLS + i] / (0x1p-10 * u[i])) * (0x1p-10 * u[i]);
        assert_true(sum[i] == exact);
    }
}

static void
test_backend_find(void **state)
{
    const struct backend *b;

    (void)state;
    assert_int_equal(backend_find(&b, "ref"), RC_OK);
    assert_string_equal(b->name, "ref");
    assert_int_equal(backend_find(&b, NULL), RC_OK);
    assert_true(strcmp(b->name, "cpu") == 0 || strcmp(b->name, "cuda") == 0);
    assert_non_null(b->gptq);
    assert_int_equal(backend_find(&b, "abacus"), RC_UNAVAILABLE);
    assert_non_null(strstr(err_text(), "backend \"abacus\" is not compiled in; there are cpu, ref"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul), cmocka_unit_test(test_gated),
        cmocka_unit_test(test_elementwise), cmocka_unit_test(test_attention),
        cmocka_unit_test(test_rope), cmocka_unit_test(test_nll), cmocka_unit_test(test_syrk),
        cmocka_unit_test(test_cross),
        cmocka_unit_test(test_dot_same_bits), cmocka_unit_test(test_ops_same_bits),
        cmocka_unit_test(test_softmax_cols_same_bits), cmocka_unit_test(test_bf16_rows_same_bits),
        cmocka_unit_test(test_product_ends_same_bits),
        cmocka_unit_test(test_backend_find),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
