/* test-round - rounding of activations: by search over the grid, beside compressed-tensors, cpu beside ref */
#include "../../kernels/scale.h"
#include "../../libcommon/inputs.h"
#include "../../libcommon/mem.h"
#include "../../libcommon/safetensors.h"
#include "pair.h"

#include <math.h>

/* As in t/peer/make_round.py. */
static const struct kind {
    const char  *name;
    struct qargs args;
} kinds[] = {
    { "int8_token", { .bits = 8, .symmetric = true, .strategy = ARGS_TOKEN, .dynamic = DYNAMIC_YES } },
    { "int8_token_asym", { .bits = 8, .strategy = ARGS_TOKEN, .dynamic = DYNAMIC_YES } },
    { "int4_token", { .bits = 4, .symmetric = true, .strategy = ARGS_TOKEN, .dynamic = DYNAMIC_YES } },
    { "fp8_token", { .bits = 8, QTYPE_FLOAT, true, ARGS_TOKEN, .dynamic = DYNAMIC_YES } },
    { "fp8_tensor", { .bits = 8, QTYPE_FLOAT, true, ARGS_TENSOR, .dynamic = DYNAMIC_YES } },
    { "fp8_group", { .bits = 8, QTYPE_FLOAT, true, ARGS_GROUP, .group = 128, .dynamic = DYNAMIC_YES } },
    { "mxfp8", { 8, QTYPE_FLOAT, true, ARGS_GROUP, .group = 32, .dynamic = DYNAMIC_YES, .scale_dtype = DT_U8 } },
    { "mxfp4", { 4, QTYPE_FLOAT, true, ARGS_GROUP, .group = 32, .dynamic = DYNAMIC_YES, .scale_dtype = DT_U8 } },
    { "nvfp4", { 4, QTYPE_FLOAT, true, ARGS_TENSOR_GROUP, .group = 16, .dynamic = DYNAMIC_LOCAL,
        .scale_dtype = DT_F8_E4M3 } },
    { "fp8_static", { .bits = 8, QTYPE_FLOAT, true, ARGS_TENSOR } },
    { "int8_static", { .bits = 8, .symmetric = true, .strategy = ARGS_TENSOR } },
    { "int8_static_asym", { .bits = 8, .strategy = ARGS_TENSOR } },
};

static const char *const isas[] = { NULL, "avx2", "c" };

static uint64_t seed = 88172645463325252ULL;

/* Normal-like, of very different size from row to row and column to column. */
static void
fill(void *x, enum dtype dt, int rows, int n)
{
    for (int i = 0; i < rows * n; i++) {
        float f;

        (void)unit_random(&seed);
        f = (float)(int32_t)(seed >> 32) * 0x1p-31f * exp2f((float)(seed & 15) - 8 + (float)(i / n % 5) * 3);
        f = (seed >> 8 & 31) == 0 ? 0 : f;
        if (dt == DT_BF16)
            ((uint16_t *)x)[i] = bf16_from_f32(f);
        else
            ((float *)x)[i] = f;
    }
}

static float
value(const void *x, enum dtype dt, int i)
{
    return dt == DT_BF16 ? bf16_to_f32(((const uint16_t *)x)[i]) : ((const float *)x)[i];
}

/* A rounding as calibration would have left it: scales of what it saw. */
static void
set_up(const struct kind *k, enum dtype dt, const float range[2], float *scale, int8_t *zero, struct rounding *r)
{
    inputs_rounding(&k->args, dt, r);
    if (k->args.strategy == ARGS_TENSOR_GROUP)
        r->global_scale = scale_global(range[0] > range[1] ? range[0] : range[1], dt);
    if (r->dynamic)
        return;
    scale_of_extremes(&r->spec, (struct extremes){ -range[0], range[1] }, 1, scale, zero);
    r->scale = scale;
    r->zero = k->args.symmetric ? NULL : zero;
}

/* --- by search: nothing here but the definitions of the formats --- */

/* All values of a grid, ascending; the index is that of an even code where index and code agree in parity. */
static int
grid_values(const struct qargs *a, double *v)
{
    static const double fp4[] = { 0, .5, 1, 1.5, 2, 3, 4, 6 };
    int n = 0, half;

    if (a->type == QTYPE_INT) {
        for (int i = -(1 << (a->bits - 1)); i < 1 << (a->bits - 1); i++)
            v[n++] = i;
        return n;
    }
    half = a->bits == 4 ? 8 : 127;
    for (int i = half - 1; i >= -(half - 1); i--) {
        int c = i < 0 ? -i : i;
        double m = a->bits == 4 ? fp4[c] : c < 8 ? c * 0x1p-9 : (8 + c % 8) * pow(2, c / 8 - 10);

        v[n++] = i > 0 ? -m : m;
    }
    return n;
}

/* Nearest value, of two the one with the even code: codes of neighbours differ in parity, and that of 0 is even. */
static double
nearest(const double *v, int n, double t)
{
    int best = 0, zero = 0;

    while (v[zero] != 0)
        zero++;
    for (int i = 1; i < n; i++) {
        double d = fabs(t - v[i]), e = fabs(t - v[best]);

        if (d < e || (d == e && (i - zero) % 2 == 0))
            best = i;
    }
    return v[best];
}

/* To bf16 by its definition: a multiple of the step at its binade. */
static double
to_t(enum dtype dt, double x)
{
    int e;

    if (dt == DT_F32)
        return (double)(float)x;
    if (x == 0)
        return 0;
    (void)frexp(x, &e);
    e = e < -125 ? -125 : e;
    return ldexp(nearbyint(ldexp(x, 8 - e)), e - 8);
}

static double
e4m3(double x)
{
    struct qargs a = { .bits = 8, .type = QTYPE_FLOAT };
    double v[256];
    int n = grid_values(&a, v);

    return nearest(v, n, x);
}

struct by_search {
    const struct qargs *a;
    enum dtype          dt;
    double              v[256];
    int                 n;
    double              global;
};

/* Scale and zero point of values with these extremes. */
static double
search_scale(const struct by_search *s, double lo, double hi, double *zero)
{
    const struct qargs *a = s->a;
    double max = fmax(-lo, hi), top = s->v[s->n - 1], bottom = s->v[0], scale;
    int e;

    *zero = 0;
    if (a->scale_dtype == DT_U8) { /* the power of two that puts max below 7/8 of the top's binade */
        if (max == 0)
            return 0x1p-127;
        e = ilogb(max);
        e += max >= ldexp(1.75, e);
        e -= a->bits == 4 ? 2 : 8;
        return ldexp(1, e < -127 ? -127 : e);
    }
    if (a->scale_dtype == DT_F8_E4M3) {
        scale = e4m3((double)(float)(to_t(s->dt, max / top) * s->global));
        return scale == 0 ? 0.125 : scale;
    }
    if (a->symmetric)
        scale = to_t(s->dt, max / ((top - bottom) / 2));
    else
        scale = to_t(s->dt, to_t(s->dt, hi - lo) / (top - bottom));
    if (scale == 0)
        scale = s->dt == DT_BF16 ? 0x1p-7 : 0x1p-23;
    else if (!a->symmetric)
        *zero = fmin(fmax(nearbyint(to_t(s->dt, bottom - to_t(s->dt, lo / scale))), bottom), top);
    return scale;
}

static double
search_value(const struct by_search *s, double x, double scale, double zero)
{
    double t;

    if (s->a->scale_dtype == DT_F8_E4M3) {
        scale = (double)(float)(scale / s->global);
        t = (double)(float)(x / scale);
    } else if (s->a->scale_dtype == DT_U8) {
        t = x / scale;
    } else {
        t = to_t(s->dt, to_t(s->dt, x / scale) + zero);
    }
    return to_t(s->dt, (double)(float)((nearest(s->v, s->n, t) - zero) * scale));
}

static int
group_of(const struct qargs *a, int n)
{
    return a->group > 0 ? a->group : n;
}

static void
search_case(struct pair *p, const struct kind *k, enum dtype dt, int rows, int n)
{
    struct by_search s = { .a = &k->args, .dt = dt };
    bool whole = k->args.strategy == ARGS_TENSOR;
    float range[2] = { 0, 0 }, scale;
    void *x = mem_alloc((size_t)rows * (size_t)n, 4), *y = mem_alloc((size_t)rows * (size_t)n, 4);
    struct rounding r;
    int8_t zero = 0;

    fill(x, dt, rows, n);
    s.n = grid_values(s.a, s.v);
    assert_int_equal(backend_cpu.range(p->cpu, range, x, dt, rows, n, 1), RC_OK);
    if (k->args.dynamic != DYNAMIC_YES)
        range[0] *= 0.5f; /* some values saturate */
    set_up(k, dt, range, &scale, &zero, &r);
    s.global = (double)r.global_scale;
    assert_int_equal(backend_cpu.round_act(p->cpu, y, x, dt, rows, n, &r), RC_OK);
    for (int i = 0; i < rows; i++)
        for (int c = 0, w; c < n; c += w) {
            double lo = 0, hi = 0, z, sc;

            w = n - c < group_of(s.a, n) ? n - c : group_of(s.a, n);
            for (int j = whole ? 0 : i * n + c; j < (whole ? rows * n : i * n + c + w); j++) {
                lo = fmin(lo, (double)value(x, dt, j));
                hi = fmax(hi, (double)value(x, dt, j));
            }
            if (!r.dynamic) {
                lo = -(double)range[0];
                hi = (double)range[1];
            }
            sc = search_scale(&s, lo, hi, &z);
            for (int j = i * n + c; j < i * n + c + w; j++) {
                double want = search_value(&s, (double)value(x, dt, j), sc, z), got = (double)value(y, dt, j);

                if (want != got)
                    fail_msg("%s, %s, %d x %d: %d of %.9g is %.9g, want %.9g", k->name, dtype_name(dt), rows, n, j,
                        (double)value(x, dt, j), got, want);
            }
        }
    mem_free(x);
    mem_free(y);
}

static void
test_search(void **state)
{
    struct pair p;

    (void)state;
    open_pair(&p, NULL, 2);
    for (size_t k = 0; k < COUNT(kinds); k++) {
        search_case(&p, &kinds[k], DT_BF16, 37, 160);
        search_case(&p, &kinds[k], DT_F32, 5, 300);
        search_case(&p, &kinds[k], DT_BF16, 1, 1);
    }
    close_pair(&p);
}

/* --- cpu beside ref --- */

static void
agree(struct pair *p, const struct kind *k, enum dtype dt, int rows, int n)
{
    size_t count = (size_t)rows * (size_t)n, bytes = count * dtype_size(dt);
    void *x = mem_alloc(count, 4), *a = mem_alloc(count, 4), *b = mem_alloc(count, 4);
    float range[2] = { 0, 0 }, same[2] = { 0, 0 }, scale;
    struct rounding r;
    int8_t zero = 0;

    fill(x, dt, rows, n);
    assert_int_equal(backend_ref.range(p->ref, range, x, dt, rows, n, 1), RC_OK);
    assert_int_equal(backend_cpu.range(p->cpu, same, x, dt, rows, n, 1), RC_OK);
    assert_memory_equal(range, same, sizeof(range));
    set_up(k, dt, range, &scale, &zero, &r);
    assert_int_equal(backend_ref.round_act(p->ref, a, x, dt, rows, n, &r), RC_OK);
    assert_int_equal(backend_cpu.round_act(p->cpu, b, x, dt, rows, n, &r), RC_OK);
    assert_memory_equal(a, b, bytes);
    assert_int_equal(backend_cpu.round_act(p->cpu, x, x, dt, rows, n, &r), RC_OK); /* in place */
    assert_memory_equal(a, x, bytes);
    mem_free(x);
    mem_free(a);
    mem_free(b);
}

static void
test_agreement(void **state)
{
    static const int sizes[] = { 1, 2, 31, 33, 127, 288 };

    (void)state;
    for (size_t i = 0; i < COUNT(isas); i++) {
        struct pair p;

        open_pair(&p, isas[i], 1 + (int)i);
        for (size_t k = 0; k < COUNT(kinds); k++)
            for (size_t s = 0; s < COUNT(sizes); s++) {
                agree(&p, &kinds[k], DT_BF16, sizes[s], sizes[COUNT(sizes) - 1 - s]);
                agree(&p, &kinds[k], DT_F32, sizes[s], sizes[COUNT(sizes) - 1 - s]);
            }
        close_pair(&p);
    }
}

static void
test_parts(void **state)
{
    enum { ROWS = 70, HEADS = 3, DIM = 20, N = HEADS * DIM };
    float a[2 * HEADS] = { 0 }, b[2 * HEADS] = { 0 }, scale[HEADS];
    uint16_t x[ROWS * N], y[ROWS * N], z[ROWS * N];
    const struct kind *fp8 = &kinds[9];
    struct rounding r, one;
    struct pair p;

    (void)state;
    open_pair(&p, NULL, 2);
    fill(x, DT_BF16, ROWS, N);
    assert_int_equal(backend_ref.range(p.ref, a, x, DT_BF16, ROWS, N, HEADS), RC_OK);
    assert_int_equal(backend_cpu.range(p.cpu, b, x, DT_BF16, ROWS, N, HEADS), RC_OK);
    assert_memory_equal(a, b, sizeof(a));
    inputs_rounding(&fp8->args, DT_BF16, &r);
    for (int h = 0; h < HEADS; h++)
        scale_of_extremes(&r.spec, (struct extremes){ -a[2 * h], a[2 * h + 1] }, 1, &scale[h], NULL);
    r.parts = HEADS;
    r.scale = scale;
    assert_int_equal(backend_cpu.round_act(p.cpu, y, x, DT_BF16, ROWS, N, &r), RC_OK);
    assert_int_equal(backend_ref.round_act(p.ref, z, x, DT_BF16, ROWS, N, &r), RC_OK);
    assert_memory_equal(y, z, sizeof(y));
    for (int h = 0; h < HEADS; h++) { /* a head by itself */
        uint16_t part[ROWS * DIM];

        one = r;
        one.parts = 1;
        one.scale = scale + h;
        for (int i = 0; i < ROWS; i++)
            memcpy(part + i * DIM, x + i * N + h * DIM, DIM * sizeof(*x));
        assert_int_equal(backend_ref.round_act(p.ref, part, part, DT_BF16, ROWS, DIM, &one), RC_OK);
        for (int i = 0; i < ROWS; i++)
            assert_memory_equal(part + i * DIM, y + i * N + h * DIM, DIM * sizeof(*x));
    }
    close_pair(&p);
}

/* What is not finite must not become a number. */
static void
test_not_finite(void **state)
{
    static const float odd[] = { NAN, INFINITY, -INFINITY };
    struct pair p;

    (void)state;
    open_pair(&p, NULL, 2);
    for (size_t i = 0; i < COUNT(odd); i++)
        for (int at = 0; at < 40 * 33; at += 263) {
            float x[40 * 33] = { 0 }, range[2] = { 0, 0 }, scale = 1;
            struct rounding r;

            for (size_t k = 0; k < COUNT(kinds); k++) {
                inputs_rounding(&kinds[k].args, DT_F32, &r);
                r.scale = &scale;
                x[at] = odd[i];
                assert_int_equal(backend_ref.round_act(p.ref, x, x, DT_F32, 40, 33, &r), RC_NUMERIC);
                x[at] = odd[i];
                assert_int_equal(backend_cpu.round_act(p.cpu, x, x, DT_F32, 40, 33, &r), RC_NUMERIC);
            }
            x[at] = odd[i];
            assert_int_equal(backend_ref.range(p.ref, range, x, DT_F32, 40, 33, 1), RC_NUMERIC);
            assert_int_equal(backend_cpu.range(p.cpu, range, x, DT_F32, 40, 33, 1), RC_NUMERIC);
        }
    close_pair(&p);
}

/* --- beside compressed-tensors --- */

static const struct tensor *
get(const struct st_file *st, const char *fmt, const char *name, const char *tag)
{
    const struct tensor *t;
    char full[64];

    (void)snprintf(full, sizeof(full), fmt, name, tag);
    assert_int_equal(st_get(st, full, &t), RC_OK);
    return t;
}

static void
peer_case(struct pair *p, const struct st_file *st, const struct kind *k, enum dtype dt)
{
    const char *tag = dt == DT_BF16 ? "bf16" : "f32";
    const struct tensor *x = get(st, "%s.%s", "x", tag), *want = get(st, "%s.%s", k->name, tag);
    int rows = (int)x->shape[0], n = (int)x->shape[1];
    float range[2] = { 0, 0 }, scale, *y = mem_alloc((size_t)rows * (size_t)n, 4), seen[2], theirs;
    struct rounding r;
    int8_t zero = 0;

    if (k->args.dynamic == DYNAMIC_NO) {
        memcpy(seen, get(st, "%s.range.%s", k->name, tag)->data, sizeof(seen));
        range[0] = -seen[0];
        range[1] = seen[1];
    }
    set_up(k, dt, range, &scale, &zero, &r);
    if (k->args.dynamic == DYNAMIC_LOCAL)
        memcpy(&r.global_scale, get(st, "%s.global_scale.%s", k->name, tag)->data, sizeof(float));
    if (k->args.dynamic == DYNAMIC_NO) {
        const struct tensor *z = get(st, "%s.zero.%s", k->name, tag);

        assert_true(dtype_to_f32(&theirs, get(st, "%s.scale.%s", k->name, tag)->data, dt, 1));
        assert_true(theirs == scale);
        assert_int_equal(zero, *(const int8_t *)z->data);
    }
    assert_int_equal(backend_cpu.round_act(p->cpu, y, x->data, dt, rows, n, &r), RC_OK);
    for (int i = 0; i < rows * n; i++)
        if (!(value(y, dt, i) == value(want->data, dt, i)))
            fail_msg("%s.%s: %d of %.9g is %.9g, want %.9g", k->name, tag, i, (double)value(x->data, dt, i),
                (double)value(y, dt, i), (double)value(want->data, dt, i));
    mem_free(y);
}

static void
test_peer(void **state)
{
    struct st_file st;
    struct pair p;

    (void)state;
    open_pair(&p, NULL, 2);
    assert_int_equal(st_open(&st, "t/data/round.safetensors"), RC_OK);
    for (size_t k = 0; k < COUNT(kinds); k++) {
        peer_case(&p, &st, &kinds[k], DT_BF16);
        peer_case(&p, &st, &kinds[k], DT_F32);
    }
    st_close(&st);
    close_pair(&p);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_search), cmocka_unit_test(test_agreement), cmocka_unit_test(test_parts),
        cmocka_unit_test(test_not_finite), cmocka_unit_test(test_peer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
