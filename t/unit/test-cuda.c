/* test-cuda - the cuda backend against ref and cpu, on the stand-in of t/cuda-host or, with LLMC_CUDA set, on a device
 *
 * Where only roundings and orders of our own are at work, bytes must be those of cpu: element-wise operations,
 * RMSNorm, RoPE, ranges, rounding, scales, and GPTQ given the factor. A device's exp, tanh, erf and log are CUDA's,
 * so such cases have a tolerance there.
 */
#include "../../kernels/cpu/gptq.h"
#include "../../kernels/dev.h"
#include "../../kernels/factor.h"
#include "../../kernels/scale.h"
#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "placed.h"
#include "stand_in.h"
#include "unit.h"

#include <dlfcn.h>
#include <limits.h>
#include <math.h>

static const int sizes[] = { 1, 2, 31, 33, 127, 300 };

static const struct backend *ref, *cpu, *cuda;
static struct dev *dref, *dcpu, *dcuda;
static bool on_host; /* the stand-in */
static void (*watch)(size_t bytes[3], char *text, size_t size); /* of the stand-in, or NULL */
static bool placing; /* operands lie on the device */

static uint64_t seed = 88172645463325252ULL;

/* In [-1, 1). */
static double
uniform(void)
{
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    return (double)((int64_t)seed >> 11) * 0x1p-52;
}

static void *
need(size_t count, size_t size)
{
    void *p = mem_zalloc(count > 0 ? count : 1, size);

    assert_non_null(p);
    return p;
}

static void *
values(size_t count, enum dtype dt)
{
    float *f = need(count, sizeof(*f));

    for (size_t i = 0; i < count; i++)
        f[i] = (float)uniform();
    if (dt != DT_F32)
        assert_true(dtype_from_f32(f, f, dt, count));
    return f;
}

static void *
copy_of(const void *p, size_t bytes)
{
    void *c = need(bytes, 1);

    memcpy(c, p, bytes);
    return c;
}

static double
value(const void *p, enum dtype dt, size_t i)
{
    return dt == DT_BF16 ? (double)bf16_to_f32(((const uint16_t *)p)[i]) : (double)((const float *)p)[i];
}

#define ok(expr)                                               \
    do {                                                       \
        int rc_ = (expr);                                      \
        if (rc_ != RC_OK)                                      \
            fail_msg("%s: %d %s", #expr, rc_, err_text());     \
    } while (0)

static void
same(const char *what, const void *a, const void *b, enum dtype dt, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (memcmp((const char *)a + i * dtype_size(dt), (const char *)b + i * dtype_size(dt), dtype_size(dt)) != 0)
            fail_msg("%s %s: [%zu] of %zu is %.9g, want %.9g", what, dtype_name(dt), i, count, value(a, dt, i),
                value(b, dt, i));
}

static void
near(const char *what, const void *a, const void *b, enum dtype dt, size_t count, double tol)
{
    for (size_t i = 0; i < count; i++) {
        double x = value(a, dt, i), y = value(b, dt, i);

        if (!(fabs(x - y) <= tol * (1 + fabs(y))))
            fail_msg("%s %s: [%zu] of %zu is %.9g, want %.9g", what, dtype_name(dt), i, count, x, y);
    }
}

static double
tolerance(enum dtype dt)
{
    return dt == DT_BF16 ? 0x1p-7 : 3e-6;
}

/* --- elements and rows --- */

static void
elements_at(size_t n, enum dtype dt)
{
    static const enum act acts[] = { ACT_SILU, ACT_GELU_TANH, ACT_GELU };
    size_t bytes = n * dtype_size(dt);
    void *x = values(n, dt), *y = values(n, dt), *a = copy_of(x, bytes), *b = copy_of(x, bytes);

    ok(cuda->add(dcuda, a, y, dt, n));
    ok(cpu->add(dcpu, b, y, dt, n));
    same("add", a, b, dt, n);
    ok(cuda->scale(dcuda, a, dt, n, 0.3f));
    ok(cpu->scale(dcpu, b, dt, n, 0.3f));
    same("scale", a, b, dt, n);
    for (size_t i = 0; i < COUNT(acts); i++) {
        ok(cuda->act_mul(dcuda, a, x, y, dt, n, acts[i]));
        ok(cpu->act_mul(dcpu, b, x, y, dt, n, acts[i]));
        if (on_host || acts[i] != ACT_GELU)
            same("act_mul", a, b, dt, n);
        else
            near("act_mul", a, b, dt, n, tolerance(dt));
    }
    mem_free(x);
    mem_free(y);
    mem_free(a);
    mem_free(b);
}

static void
norms_at(int rows, int n, enum dtype dt)
{
    size_t count = (size_t)rows * (size_t)n;
    void *x = values(count, dt), *w = values((size_t)n, dt), *a = need(count, 4), *b = need(count, 4);

    for (int k = NORM_TWICE; k <= NORM_ONCE; k++) {
        ok(cuda->rmsnorm(dcuda, a, x, w, dt, rows, n, 1e-5f, (enum norm)k));
        ok(cpu->rmsnorm(dcpu, b, x, w, dt, rows, n, 1e-5f, (enum norm)k));
        same("rmsnorm", a, b, dt, count);
    }
    ok(cuda->rmsnorm(dcuda, x, x, w, dt, rows, n, 1e-5f, NORM_ONCE));
    same("rmsnorm in place", x, b, dt, count);
    mem_free(x);
    mem_free(w);
    mem_free(a);
    mem_free(b);
}

static void
test_elements(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (int t = 0; t < 2; t++) {
            elements_at((size_t)sizes[i] * 7, t == 0 ? DT_BF16 : DT_F32);
            norms_at(sizes[i], sizes[COUNT(sizes) - 1 - i], t == 0 ? DT_BF16 : DT_F32);
        }
    if (placing || getenv("LLMC_TEST_SMALL") != NULL) /* compute-sanitizer is slow */
        return;
    elements_at(9000001, DT_BF16); /* more than one step */
    norms_at(2100, 4097, DT_BF16);
}

static void
test_rope(void **state)
{
    enum { ROWS = 14, HEADS = 3, DIM = 16, ROT = 12, TOKENS = 7, LD = 60 };

    (void)state;
    for (int t = 0; t < 2; t++) {
        enum dtype dt = t == 0 ? DT_BF16 : DT_F32;
        void *a = values(ROWS * LD, dt), *b = copy_of(a, ROWS * LD * dtype_size(dt));
        void *c = values(TOKENS * ROT / 2, dt), *s = values(TOKENS * ROT / 2, dt);

        ok(cuda->rope(dcuda, a, dt, ROWS, HEADS, DIM, LD, c, s, ROT, TOKENS));
        ok(cpu->rope(dcpu, b, dt, ROWS, HEADS, DIM, LD, c, s, ROT, TOKENS));
        same("rope", a, b, dt, ROWS * LD);
        mem_free(a);
        mem_free(b);
        mem_free(c);
        mem_free(s);
    }
}

/* q, k, v side by side in one row, as the forward pass has them. */
static void
attention_at(enum dtype dt, const struct attn_args *a, int sequences)
{
    int d = a->head_dim, rows = sequences * a->tokens, ld = (a->heads + 2 * a->kv_heads) * d;
    size_t count = (size_t)rows * (size_t)(a->heads * d), size = dtype_size(dt);
    char *x = values((size_t)rows * (size_t)ld, dt), *k = x + (size_t)(a->heads * d) * size;
    void *o = need(count, 4), *want = need(count, 4);

    ok(cuda->attention(dcuda, o, x, ld, k, ld, k + (size_t)(a->kv_heads * d) * size, ld, dt, rows, a));
    ok(ref->attention(dref, want, x, ld, k, ld, k + (size_t)(a->kv_heads * d) * size, ld, dt, rows, a));
    near("attention", o, want, dt, count, dt == DT_BF16 ? 0x1p-7 : 2e-5);
    mem_free(x);
    mem_free(o);
    mem_free(want);
}

static void
test_attention(void **state)
{
    static const struct attn_args cases[] = {
        { .heads = 1, .kv_heads = 1, .head_dim = 2, .tokens = 1, .scale = 1 },
        { .heads = 3, .kv_heads = 1, .head_dim = 64, .tokens = 65, .scale = 0.125f },
        { .heads = 4, .kv_heads = 2, .head_dim = 34, .tokens = 130, .scale = 0.2f },
        { .heads = 2, .kv_heads = 2, .head_dim = 128, .tokens = 33, .scale = 0.3f, .softcap = 5 },
        { .heads = 2, .kv_heads = 1, .head_dim = 130, .tokens = 34, .scale = 2, .window = 3 },
        { .heads = 2, .kv_heads = 1, .head_dim = 16, .tokens = 150, .scale = 8, .window = 37 },
        { .heads = 4, .kv_heads = 2, .head_dim = 34, .tokens = 130, .scale = 0.2f, .eager = true },
        { .heads = 2, .kv_heads = 1, .head_dim = 16, .tokens = 150, .scale = 0.25f, .window = 37, .softcap = 5,
            .eager = true },
        { .heads = 1, .kv_heads = 1, .head_dim = 258, .tokens = 3, .scale = 0.1f }, /* the host's */
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        for (int t = 0; t < 2; t++)
            attention_at(t == 0 ? DT_BF16 : DT_F32, &cases[i], 2);
}

/* --- products --- */

static void
matmul_at(enum dtype dt, enum dtype wdt, int rows, int n, int k, bool bias)
{
    void *x = values((size_t)rows * (size_t)k, dt), *w = values((size_t)n * (size_t)k, wdt), *b = values((size_t)n, dt);
    size_t count = (size_t)rows * (size_t)n;
    void *y = need(count, 4), *want = need(count, 4);
    struct weight *wr, *wc;

    ok(ref->weight_pack(dref, &wr, w, wdt, dt, n, k));
    ok(cuda->weight_pack(dcuda, &wc, w, wdt, dt, n, k));
    for (int t = 0; t < 2; t++) {
        enum dtype ydt = t == 0 ? dt : DT_F32;

        ok(ref->matmul(dref, want, ydt, x, dt, rows, wr, bias ? b : NULL));
        ok(cuda->matmul(dcuda, y, ydt, x, dt, rows, wc, bias ? b : NULL));
        near("matmul", y, want, ydt, count, tolerance(ydt) * (ydt == DT_F32 ? sqrt(k) : 1));
    }
    ref->weight_free(dref, wr);
    cuda->weight_free(dcuda, wc);
    mem_free(x);
    mem_free(w);
    mem_free(b);
    mem_free(y);
    mem_free(want);
}

static void
test_matmul(void **state)
{
    static const enum dtype of[] = { DT_BF16, DT_F16, DT_F32 };

    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (size_t t = 0; t < COUNT(of); t++) {
            matmul_at(DT_BF16, of[t], sizes[i], sizes[COUNT(sizes) - 1 - i], 33, t == 1);
            matmul_at(DT_F32, of[t], 3, sizes[i], sizes[COUNT(sizes) - 1 - i], t == 2);
        }
    matmul_at(DT_BF16, DT_BF16, 4100, 3, 2, true); /* three steps */
}

static void
test_nll(void **state)
{
    enum { ROWS = 70, VOCAB = 1300, HIDDEN = 33 };
    int32_t target[ROWS];
    double a[ROWS], b[ROWS];

    (void)state;
    for (int i = 0; i < ROWS; i++)
        target[i] = i % 5 == 0 ? -1 : i * 17 % VOCAB;
    for (int i = 0; i < 4; i++) {
        enum dtype dt = i % 2 == 0 ? DT_BF16 : DT_F32;
        void *h = values(ROWS * HIDDEN, dt), *w = values(VOCAB * HIDDEN, dt);
        struct weight *wr, *wc;

        ok(ref->weight_pack(dref, &wr, w, dt, dt, VOCAB, HIDDEN));
        ok(cuda->weight_pack(dcuda, &wc, w, dt, dt, VOCAB, HIDDEN));
        ok(ref->nll(dref, a, h, dt, ROWS, wr, target, i < 2 ? 0 : 5, 0.5f));
        ok(cuda->nll(dcuda, b, h, dt, ROWS, wc, target, i < 2 ? 0 : 5, 0.5f));
        for (int r = 0; r < ROWS; r++)
            if (!(fabs(a[r] - b[r]) <= (dt == DT_BF16 ? 2e-2 : 1e-5)))
                fail_msg("nll of row %d is %g, want %g", r, b[r], a[r]);
        ref->weight_free(dref, wr);
        cuda->weight_free(dcuda, wc);
        mem_free(h);
        mem_free(w);
    }
}

/* --- rows and memory --- */

static void
rows_at(enum dtype dt, int count, int n, bool device)
{
    size_t size = dtype_size(dt), bytes = (size_t)(3 * count) * (size_t)n * size, part = bytes / 3;
    char *x = values((size_t)(3 * count) * (size_t)n, dt), *y = values((size_t)count * (size_t)n, dt);
    char *want = copy_of(x, bytes), *picked = need(part, 1), *there_x = x, *there_y = y;
    float *weights = need((size_t)count, sizeof(*weights));
    int *rows = need((size_t)count, sizeof(*rows));

    for (int i = 0; i < count; i++) {
        rows[i] = 3 * i + i % 2;
        weights[i] = (float)uniform();
    }
    if (device) {
        there_x = cuda->alloc(dcuda, bytes);
        there_y = cuda->alloc(dcuda, part);
        assert_true(there_x != NULL && there_y != NULL);
        ok(backend_move(cuda, dcuda, there_x, x, bytes));
        ok(backend_move(cuda, dcuda, there_y, y, part));
    }
    ok(ref->add_rows(dref, want, rows, weights, y, count, dt, n));
    ok(cuda->add_rows(dcuda, there_x, rows, weights, there_y, count, dt, n));
    ok(ref->add_rows(dref, want, NULL, weights, y, count, dt, n));
    ok(cuda->add_rows(dcuda, there_x, NULL, weights, there_y, count, dt, n));
    ok(backend_move(cuda, dcuda, x, there_x, bytes));
    same("add_rows", x, want, dt, (size_t)(3 * count) * (size_t)n);
    ok(ref->gather(dref, picked, want, rows, count, dt, n));
    ok(cuda->gather(dcuda, there_y, there_x, rows, count, dt, n));
    ok(backend_move(cuda, dcuda, y, there_y, part));
    same("gather", y, picked, dt, (size_t)count * (size_t)n);
    ok(cuda->gather(dcuda, y, there_x, rows, count, dt, n)); /* one here, one there */
    same("gather", y, picked, dt, (size_t)count * (size_t)n);
    if (device)
        assert_true(cuda->release(dcuda, there_x) && cuda->release(dcuda, there_y));
    mem_free(x);
    mem_free(y);
    mem_free(want);
    mem_free(picked);
    mem_free(weights);
    mem_free(rows);
}

/* Columns of a matrix, from everywhere to everywhere. */
static void
columns_at(int ways)
{
    enum { ROWS = 5, LD = 300, WIDTH = 100 };
    char *x = values(ROWS * LD, DT_F32), *y = need(ROWS * WIDTH, 4), *dx = x, *dy = y;

    if ((ways & 1) != 0) {
        assert_non_null(dx = cuda->alloc(dcuda, ROWS * LD * 4));
        ok(backend_move(cuda, dcuda, dx, x, ROWS * LD * 4));
    }
    if ((ways & 2) != 0)
        assert_non_null(dy = cuda->alloc(dcuda, ROWS * WIDTH * 4));
    ok(cuda->zero(dcuda, dy, ROWS * WIDTH * 4));
    ok(cuda->copy(dcuda, dy, WIDTH * 4, dx + 40, LD * 4, WIDTH * 4, ROWS));
    ok(backend_move(cuda, dcuda, y, dy, ROWS * WIDTH * 4));
    for (size_t r = 0; r < ROWS; r++)
        assert_memory_equal(y + r * WIDTH * 4, x + r * LD * 4 + 40, WIDTH * 4);
    assert_int_equal(cuda->release(dcuda, dx), (ways & 1) != 0);
    assert_int_equal(cuda->release(dcuda, dy), (ways & 2) != 0);
    assert_false(cuda->release(dcuda, dx) || cuda->holds(dcuda, dx));
    mem_free(x);
    mem_free(y);
}

static void
test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (int t = 0; t < 4; t++)
            rows_at(t % 2 == 0 ? DT_BF16 : DT_F32, sizes[i], sizes[COUNT(sizes) - 1 - i], t < 2);
    for (int ways = 0; ways < 4; ways++)
        columns_at(ways);
}

/* --- Hessians --- */

/* Small whole numbers: products are exact in any order, so sums must be ref's to the bit. */
static void
syrk_at(int rows, int n, enum dtype dt)
{
    size_t count = (size_t)n * (size_t)(n + 1) / 2, square = (size_t)n * (size_t)n;
    float *f = need((size_t)rows * (size_t)n, sizeof(*f)), *g = need((size_t)rows * (size_t)n, sizeof(*g));
    float *da = need((size_t)n, 4), *db = need((size_t)n, 4);
    double *a = need(square, sizeof(*a)), *b = need(square, sizeof(*b));
    int16_t *e = need(2 * (size_t)n, sizeof(*e));

    for (size_t i = 0; i < (size_t)rows * (size_t)n; i++) {
        f[i] = (float)(int)(uniform() * 8);
        g[i] = (float)(int)(uniform() * 8);
    }
    for (int i = 0; i < 2 * n; i++)
        e[i] = (int16_t)(i % 5 - 2);
    for (size_t i = 0; i < square; i++)
        a[i] = b[i] = 64; /* sums go on */
    if (dt == DT_BF16) {
        (void)dtype_from_f32(f, f, dt, (size_t)rows * (size_t)n);
        (void)dtype_from_f32(g, g, dt, (size_t)rows * (size_t)n);
    }
    ok(ref->syrk(dref, a, f, dt, rows, n, e));
    ok(cuda->syrk(dcuda, b, f, dt, rows, n, e));
    for (size_t i = 0; i < count; i++)
        if (a[i] != b[i])
            fail_msg("syrk %d x %d: [%zu] is %g, want %g", rows, n, i, b[i], a[i]);
    ok(ref->cross(dref, a, g, f, dt, rows, n, e + n, e));
    ok(cuda->cross(dcuda, b, g, f, dt, rows, n, e + n, e));
    for (size_t i = 0; i < square; i++)
        if (a[i] != b[i])
            fail_msg("cross %d x %d: [%zu] is %g, want %g", rows, n, i, b[i], a[i]);
    ok(cpu->colsq(dcpu, da, f, dt, rows, n));
    ok(cuda->colsq(dcuda, db, f, dt, rows, n));
    same("colsq", db, da, DT_F32, (size_t)n);
    mem_free(f);
    mem_free(g);
    mem_free(a);
    mem_free(b);
    mem_free(e);
    mem_free(da);
    mem_free(db);
}

static void
test_syrk(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (int t = 0; t < 2; t++)
            syrk_at(sizes[i], sizes[COUNT(sizes) - 1 - i], t == 0 ? DT_BF16 : DT_F32);
    syrk_at(2500, 520, DT_BF16); /* three chunks, three panels */
}

/* --- activations --- */

static void
round_at(const struct qspec *q, bool dynamic, int rows, int n, int parts)
{
    size_t count = (size_t)rows * (size_t)n;
    void *x = values(count, q->t), *a = need(count, 4), *b = need(count, 4);
    float *scale = need((size_t)parts, sizeof(*scale)), range[2][2 * 300] = { { 0.1f }, { 0.1f } };
    int8_t *zero = need((size_t)parts, 1);
    struct rounding r = { *q, dynamic, q->scale == DT_F8_E4M3 ? 200 : 1, parts, scale, q->symmetric ? NULL : zero };

    for (int i = 0; i < parts; i++) {
        scale[i] = q->scale == DT_F8_E4M3 ? 4 : rt(0.01f * (float)(i + 1), q->t);
        zero[i] = (int8_t)(i - 3);
    }
    ok(ref->round_act(dref, a, x, q->t, rows, n, &r));
    ok(cuda->round_act(dcuda, b, x, q->t, rows, n, &r));
    same("round_act", b, a, q->t, count);
    ok(ref->range(dref, range[0], x, q->t, rows, n, parts));
    ok(cuda->range(dcuda, range[1], x, q->t, rows, n, parts));
    assert_memory_equal(range[0], range[1], sizeof(range[0]));
    ((float *)x)[count / 2 * dtype_size(q->t) / 4] = NAN;
    assert_int_equal(cuda->range(dcuda, range[1], x, q->t, rows, n, parts), RC_NUMERIC);
    assert_int_equal(cuda->round_act(dcuda, x, x, q->t, rows, n, &r), RC_NUMERIC);
    mem_free(x);
    mem_free(a);
    mem_free(b);
    mem_free(scale);
    mem_free(zero);
}

static void
test_round(void **state)
{
    static const struct qspec specs[] = {
        { GRID_INT, 8, 1, STRATEGY_CHANNEL, 0, 0, DT_BF16, DT_BF16, 0 },
        { GRID_INT, 8, 0, STRATEGY_TENSOR, 0, 0, DT_BF16, DT_BF16, 0 },
        { GRID_INT, 4, 0, STRATEGY_GROUP, 16, 0, DT_F32, DT_F32, 0 },
        { GRID_E4M3, 8, 1, STRATEGY_GROUP, 128, 0, DT_BF16, DT_BF16, 0 },
        { GRID_E2M1, 4, 1, STRATEGY_TENSOR_GROUP, 16, 0, DT_F8_E4M3, DT_BF16, 0 },
        { GRID_E4M3, 8, 1, STRATEGY_GROUP, 32, 0, DT_F8_E8M0, DT_BF16, 0 },
    };

    (void)state;
    for (size_t k = 0; k < COUNT(specs); k++)
        for (size_t i = 0; i < COUNT(sizes); i++) {
            round_at(&specs[k], true, 5, sizes[i] * 2, 1);
            round_at(&specs[k], false, sizes[i], 300, specs[k].strategy == STRATEGY_TENSOR ? 1 : 10);
        }
}

/* --- schemes: scales and GPTQ --- */

static const struct qspec kinds[] = {
    { GRID_INT, 4, 1, STRATEGY_GROUP, 32, 0, DT_BF16, DT_BF16, 0 },
    { GRID_INT, 4, 0, STRATEGY_GROUP, 128, 0, DT_BF16, DT_BF16, 0 },
    { GRID_INT, 3, 1, STRATEGY_CHANNEL, 0, 0, DT_F16, DT_F16, 0 },
    { GRID_INT, 8, 1, STRATEGY_TENSOR, 0, 0, DT_F32, DT_F32, 0 },
    { GRID_INT, 2, 0, STRATEGY_GROUP, 64, 0, DT_BF16, DT_BF16, 1 },
    { GRID_E4M3, 8, 1, STRATEGY_BLOCK, 48, 32, DT_BF16, DT_BF16, 0 },
    { GRID_E4M3, 8, 1, STRATEGY_CHANNEL, 0, 0, DT_F16, DT_F16, 0 },
    { GRID_E2M1, 4, 1, STRATEGY_TENSOR_GROUP, 16, 0, DT_F8_E4M3, DT_BF16, 0 },
    { GRID_E2M1, 4, 1, STRATEGY_GROUP, 32, 0, DT_F8_E8M0, DT_BF16, 0 },
    { GRID_E4M3, 8, 1, STRATEGY_GROUP, 32, 0, DT_F8_E8M0, DT_BF16, 0 },
};

struct problem {
    struct qspec q;
    int          rows, cols;
    float       *w, *scale, *l, global;
    int8_t      *zero;
    double      *h;
    int         *order;
    uint8_t     *dead, *codes[2];
};

static size_t
scale_count(const struct problem *p)
{
    return (size_t)q_scale_rows(&p->q, p->rows) * (size_t)q_scale_cols(&p->q, p->cols);
}

/* H = X'X of correlated inputs; every 7th column but the first never saw a value. */
static void
problem_make(struct problem *p, const struct qspec *q, int rows, int cols)
{
    size_t n = (size_t)cols, r = (size_t)rows, k = 0, inputs = n + 8;
    double *x = need(inputs * n, sizeof(*x));

    *p = (struct problem){ .q = *q, .rows = rows, .cols = cols, .global = 1 };
    p->w = need(r * n, sizeof(*p->w));
    for (size_t i = 0; i < r * n; i++)
        p->w[i] = rt((float)(uniform() * uniform() * 0.1), q->t);
    for (size_t t = 0; t < inputs; t++) {
        double common = uniform();

        for (size_t i = 0; i < n; i++)
            x[t * n + i] = i % 7 == 6 ? 0 : (uniform() + common) * (1 + 3 * (i % 5 == 0));
    }
    p->h = need(n * (n + 1) / 2, sizeof(*p->h));
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++, k++)
            for (size_t t = 0; t < inputs; t++)
                p->h[k] += x[t * n + i] * x[t * n + j];
    mem_free(x);
    p->scale = need(scale_count(p), sizeof(*p->scale));
    p->zero = need(scale_count(p), 1);
    p->l = need(n * n, sizeof(*p->l));
    p->order = need(n, sizeof(*p->order));
    p->dead = need(n, 1);
    p->codes[0] = need(r * n, 1);
    p->codes[1] = need(r * n, 1);
    if (q->strategy == STRATEGY_TENSOR_GROUP)
        p->global = scale_global(scale_absmax(p->w, r * n), q->t);
    ok(factor_order(p->order, p->h, true, cols));
}

static void
problem_free(struct problem *p)
{
    mem_free(p->w);
    mem_free(p->scale);
    mem_free(p->zero);
    mem_free(p->h);
    mem_free(p->l);
    mem_free(p->order);
    mem_free(p->dead);
    mem_free(p->codes[0]);
    mem_free(p->codes[1]);
}

static void
scales_of(struct problem *p)
{
    float *diag = need((size_t)p->cols, sizeof(*diag)), *scale = need(scale_count(p), sizeof(*scale));
    int8_t *zero = need(scale_count(p), 1);
    const struct scale_opts ways[] = {
        { .observer = OBSERVER_SEARCH, .norm = 2, .lo = 0.3f, .hi = 1.1f, .steps = 200 },
        { .observer = OBSERVER_SEARCH, .norm = 3, .lo = 0.5f, .hi = 1, .steps = 1 },
        { .observer = OBSERVER_SEARCH, .norm = 2.4, .lo = 0.2f, .hi = 1, .steps = 7, .diag = diag },
        { .observer = OBSERVER_SEARCH, .norm = 2, .lo = 0.2f, .hi = 1, .steps = 21, .diag = diag },
        { .observer = OBSERVER_MINMAX },
    };

    for (int i = 0; i < p->cols; i++)
        diag[i] = (float)packed_at(p->h, i, i);
    for (size_t i = 0; i < COUNT(ways); i++) {
        scale_rows(&p->q, &ways[i], p->w, p->rows, p->cols, p->global, scale, p->q.symmetric ? NULL : zero);
        ok(cuda->scales(dcuda, &p->q, &ways[i], p->w, p->rows, p->cols, p->global, p->scale,
            p->q.symmetric ? NULL : p->zero));
        same("scales", p->scale, scale, DT_F32, scale_count(p));
        if (!p->q.symmetric)
            assert_memory_equal(p->zero, zero, scale_count(p));
    }
    mem_free(diag);
    mem_free(scale);
    mem_free(zero);
}

static struct gptq_job
job_of(struct problem *p, int which, int row0, int rows)
{
    size_t at = (size_t)row0 * (size_t)p->cols;

    return (struct gptq_job){
        .spec = &p->q, .rows = rows, .cols = p->cols, .row0 = row0, .w = p->w + at, .scale = p->scale,
        .zero = p->q.symmetric ? NULL : p->zero, .global_scale = p->global, .order = p->order, .l = p->l,
        .dead = p->dead, .want_rtn = true, .codes = p->codes[which] + at,
    };
}

/* The device's factor against cpu's; then codes and losses from the same one: bytes. */
static void
gptq_at(const struct qspec *q, int rows, int cols)
{
    size_t n = (size_t)cols;
    struct gptq_job a, b;
    struct problem p;
    float *l = need(n * n, sizeof(*l));

    problem_make(&p, q, rows, cols);
    scales_of(&p);
    ok(cpu->factor(dcpu, l, p.dead, p.h, 2.0 / cols, p.order, 0.01, cols));
    ok(cuda->factor(dcuda, p.l, p.dead, p.h, 2.0 / cols, p.order, 0.01, cols));
    for (size_t i = 0; i < n; i++)
        near("factor", p.l + i * n, l + i * n, DT_F32, i + 1, 1e-3);
    a = job_of(&p, 0, 0, rows);
    b = job_of(&p, 1, 0, rows);
    ok(cpu->gptq(dcpu, &a));
    ok(cuda->gptq(dcuda, &b));
    assert_memory_equal(p.codes[0], p.codes[1], (size_t)rows * n);
    assert_true(a.loss == b.loss && a.rtn_loss == b.rtn_loss);
    for (int r = 0; r < rows; r += 13) {
        b = job_of(&p, 1, r, rows - r < 13 ? rows - r : 13);
        memset(b.codes, 0xff, (size_t)b.rows * n);
        ok(cuda->gptq(dcuda, &b));
    }
    assert_memory_equal(p.codes[0], p.codes[1], (size_t)rows * n);
    mem_free(l);
    problem_free(&p);
}

static void
test_gptq(void **state)
{
    (void)state;
    for (size_t k = 0; k < COUNT(kinds); k++)
        for (size_t i = 0; i < COUNT(sizes); i++)
            gptq_at(&kinds[k], sizes[i], i < 5 ? sizes[4 - i] : 300);
    gptq_at(&kinds[0], 70, 257);
    gptq_at(&kinds[7], 33, 400);
}

/* Some alike, one of other rows, one that the kernel leaves to the host: the codes of each alone. Those alike are one
 * launch of each kernel. */
static void
batch_at(const struct qspec *q, int rows, int cols, int alike)
{
    enum { JOBS = 5 };
    struct problem p[JOBS];
    struct gptq_job want[JOBS], got[JOBS], *jobs[JOBS];
    int *other = need((size_t)cols, sizeof(*other)), rc[JOBS];
    char calls[256];
    size_t bytes[3];

    for (int i = 0; i < JOBS; i++) {
        problem_make(&p[i], q, i == alike ? rows + 3 : rows, cols);
        for (int k = 0; q->v10 != 0 && k < rows * cols; k += 5)
            p[i].w[k] = 0; /* what keep_zeros is about */
        scales_of(&p[i]);
        ok(cpu->factor(dcpu, p[i].l, p[i].dead, p[i].h, 2.0 / cols, p[i].order, 0.01, cols));
        want[i] = job_of(&p[i], 0, 0, p[i].rows);
        got[i] = job_of(&p[i], 1, 0, p[i].rows);
        jobs[i] = &got[i];
    }
    for (int i = 0; i < cols; i++)
        other[i] = q_scale_col(q, cols - 1 - i);
    if (q->strategy == STRATEGY_GROUP)
        want[4].scale_col = got[4].scale_col = other;
    want[3].keep_zeros = got[3].keep_zeros = q->v10 != 0;
    if (watch != NULL)
        watch(bytes, calls, sizeof(calls));
    backend_gptq(cuda, dcuda, jobs, alike, rc);
    if (watch != NULL)
        watch(bytes, NULL, 0);
    for (int i = 0, k = 0; watch != NULL && alike > 0; i++) {
        if (calls[i] == '\0') {
            assert_int_equal(k, 5); /* load, sweep, store, load, sweep */
            break;
        }
        k += calls[i] == 'k';
    }
    backend_gptq(cuda, dcuda, jobs + alike, JOBS - alike, rc + alike);
    for (int i = 0; i < JOBS; i++) {
        ok(cpu->gptq(dcpu, &want[i]));
        ok(rc[i]);
        assert_memory_equal(p[i].codes[1], p[i].codes[0], (size_t)p[i].rows * (size_t)cols);
        assert_true(want[i].loss == got[i].loss && want[i].rtn_loss == got[i].rtn_loss);
        problem_free(&p[i]);
    }
    mem_free(other);
}

static void
test_batch(void **state)
{
    (void)state;
    batch_at(&kinds[0], 40, 130, 3);
    batch_at(&kinds[4], 33, 64, 3);
    batch_at(&kinds[7], 31, 48, 3);
    batch_at(&kinds[6], 7, 33, 0);
}

static void
test_not_positive(void **state)
{
    struct problem p;

    (void)state;
    problem_make(&p, &kinds[0], 4, 40);
    p.h[39 * 40 / 2 + 3] = 1e9;
    assert_int_equal(cuda->factor(dcuda, p.l, p.dead, p.h, 1, p.order, 0.01, 40), RC_NUMERIC);
    assert_says(err_text(), "not positive definite at column");
    p.h[39 * 40 / 2 + 3] = NAN;
    assert_int_equal(cuda->factor(dcuda, p.l, p.dead, p.h, 1, p.order, 0.01, 40), RC_NUMERIC);
    problem_free(&p);
}

/* --- memory --- */

/* With room for little, rows go piece by piece and large things to the host: the same results. */
static void
test_small_memory(void **state)
{
    struct dev_opts o = { .threads = 2, .device_bytes = 128 << 20 };
    struct dev *all = dcuda;
    int count;

    (void)state;
    ok(cuda->open(&dcuda, &o));
    gptq_at(&kinds[0], 127, 300);
    matmul_at(DT_BF16, DT_BF16, 5, 33, 31, true);
    matmul_at(DT_F32, DT_BF16, 2, 3000, 9000, true); /* 108 MB: not on the device */
    elements_at(9000001, DT_F32);
    cuda->close(dcuda);
    dcuda = all;
    for (count = 0; count < 3; count++) {
        o.device_bytes = (size_t)1 << 20;
        assert_int_equal(cuda->open(&dcuda, &o), RC_UNAVAILABLE);
    }
    assert_says(err_text(), "device memory");
    dcuda = all;
}

/* --- set-up --- */

static int
find(const char *name, struct backend *copy, const struct backend **out, struct dev **dev)
{
    struct dev_opts o = { .threads = 2 };
    const struct backend *b;

    if (backend_find(&b, name) != RC_OK || b->open(dev, &o) != RC_OK) {
        printf("# %s: %s\n", name, err_text());
        return -1;
    }
    *copy = *b; /* backend_find() has room for one */
    *out = copy;
    return 0;
}

static void
begin(void)
{
    static struct backend copies[3];

    if (find("ref", &copies[0], &ref, &dref) != 0 || find("cpu", &copies[1], &cpu, &dcpu) != 0 ||
        find("cuda", &copies[2], &cuda, &dcuda) != 0)
        fail();
}

static void
test_begin(void **state)
{
    (void)state;
    begin();
}

/* The stand-in does work as late as it may, or at once, and its threads run upwards or downwards. */
static void
test_begin_late(void **state)
{
    (void)state;
    (void)setenv("LLMC_CUDA_HOST", "late", 1);
    begin();
}

static void
test_begin_now_down(void **state)
{
    (void)state;
    (void)setenv("LLMC_CUDA_HOST", "now,down", 1);
    begin();
}

static void
test_end(void **state)
{
    (void)state;
    ref->close(dref);
    cpu->close(dcpu);
    cuda->close(dcuda);
}

/* All operands on the device, every other one, and the others: in place and mixed. Where nothing else gets memory there
 * the host borrows them. */
static void
placed_at(unsigned pattern, bool starve)
{
    struct dev_opts o = { .threads = 2 };
    const struct backend *bare = cuda;
    struct dev *roomy = dcuda;
    struct backend with;

    placed_make(&with, bare, pattern);
    cuda = &with;
    placing = true;
    ok(cuda->open(&dcuda, &o));
    if (starve)
        (void)setenv("LLMC_CUDA_FAIL", "malloc:1+", 1);
    placed.starve = starve;
    test_elements(NULL);
    test_rope(NULL);
    test_attention(NULL);
    test_matmul(NULL);
    test_nll(NULL);
    test_syrk(NULL);
    test_round(NULL);
    placed.starve = placing = false;
    (void)unsetenv("LLMC_CUDA_FAIL");
    cuda->close(dcuda);
    dcuda = roomy;
    cuda = bare;
}

static void
test_placed(void **state)
{
    static const unsigned patterns[] = { 0xff, 0x55, 0xaa };

    (void)state;
    if (on_host && strcmp(getenv("LLMC_CUDA_HOST"), "late") != 0) { /* the rest takes its time */
        placed_at(patterns[1], false);
        return;
    }
    for (size_t i = 0; i < COUNT(patterns); i++)
        placed_at(patterns[i], false);
    if (on_host)
        placed_at(patterns[2], true);
}

#define TESTS                                                                                            \
    cmocka_unit_test(test_elements), cmocka_unit_test(test_rope), cmocka_unit_test(test_attention),      \
    cmocka_unit_test(test_matmul), cmocka_unit_test(test_nll), cmocka_unit_test(test_rows),              \
    cmocka_unit_test(test_syrk), cmocka_unit_test(test_round), cmocka_unit_test(test_placed),            \
    cmocka_unit_test(test_gptq), cmocka_unit_test(test_batch), cmocka_unit_test(test_not_positive),      \
    cmocka_unit_test(test_small_memory), cmocka_unit_test(test_end)

int
main(void)
{
    const struct CMUnitTest device[] = { cmocka_unit_test(test_begin), TESTS };
    const struct CMUnitTest host[] = {
        cmocka_unit_test(test_begin_late), TESTS, cmocka_unit_test(test_begin_now_down), TESTS,
    };

    if (getenv("LLMC_CUDA") != NULL && strstr(getenv("LLMC_CUDA"), "cuda-host") == NULL)
        return cmocka_run_group_tests(device, NULL, NULL);
    on_host = true;
    if (getenv("LLMC_CUDA") == NULL && stand_in() == NULL) {
        printf("1..0 # SKIP no C++ compiler has built the stand-in\n");
        return 0;
    }
    if (getenv("LLMC_CUDA") == NULL)
        (void)setenv("LLMC_CUDA", stand_in(), 1);
    *(void **)&watch = dlsym(dlopen(getenv("LLMC_CUDA"), RTLD_NOW | RTLD_LOCAL), "host_watch");
    return cmocka_run_group_tests(host, NULL, NULL);
}
