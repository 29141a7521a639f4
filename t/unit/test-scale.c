/* scales, plain rounding, packing and schemes against every rtn_ vector, bit for bit */
#include "../../kernels/cpu/lanes.h"
#include "../../kernels/pack.h"
#include "../../kernels/scale.h"
#include "../../libcommon/observer.h"
#include "golden.h"

#include <math.h>

struct rounded {
    struct scheme s;
    struct qspec  q;
    int           rows, cols, srows, scols;
    float        *w, *scale, global;
    int8_t       *zero;
    uint8_t      *codes;
};

static void
same(const char *name, const struct tensor *want, const void *got, size_t bytes)
{
    if (want->bytes != bytes || memcmp(want->data, got, bytes) != 0)
        fail_msg("%s: %s differs", name, want->name);
}

/* In two ranges of rows where the scheme lets it. */
static void
round_all(struct rounded *r)
{
    int cut = r->q.strategy == STRATEGY_TENSOR || r->q.strategy == STRATEGY_BLOCK ? 0 : r->rows / 3;
    size_t n = (size_t)r->rows * (size_t)r->cols, at = (size_t)cut * (size_t)r->cols;
    size_t k = (size_t)(cut * r->scols);
    struct scales sc;

    r->srows = q_scale_rows(&r->q, r->rows);
    r->scols = q_scale_cols(&r->q, r->cols);
    k = (size_t)(cut * r->scols);
    r->scale = mem_alloc((size_t)(r->srows * r->scols), sizeof(*r->scale));
    r->zero = mem_zalloc((size_t)(r->srows * r->scols), 1);
    r->codes = mem_alloc(n, 1);
    assert_true(r->scale != NULL && r->zero != NULL && r->codes != NULL);
    r->global = scheme_global(&r->s) ? scale_global(scale_absmax(r->w, n), r->q.t) : 1;
    if (cut > 0)
        scale_rows(&r->q, NULL, r->w, cut, r->cols, r->global, r->scale, r->zero);
    scale_rows(&r->q, NULL, r->w + at, r->rows - cut, r->cols, r->global, r->scale + k, r->zero + k);
    scale_store(&r->q, r->scale, (size_t)(r->srows * r->scols));
    sc = (struct scales){ r->scale, r->q.symmetric ? NULL : r->zero, r->global };
    round_rows(&r->q, &sc, r->w, 0, r->rows / 2, r->cols, r->codes);
    at = (size_t)(r->rows / 2) * (size_t)r->cols;
    round_rows(&r->q, &sc, r->w + at, r->rows / 2, r->rows - r->rows / 2, r->cols, r->codes + at);
}

static void
rounded_free(struct rounded *r)
{
    mem_free(r->w);
    mem_free(r->scale);
    mem_free(r->zero);
    mem_free(r->codes);
}

static void
check_scales(const char *name, const struct golden *g, const struct rounded *r)
{
    size_t n = (size_t)(r->srows * r->scols), words = pack_zero_words(r->q.bits, r->rows);
    const struct tensor *t = golden_get(g, "weight_scale");
    uint8_t *bytes = mem_alloc(n, 4);
    uint32_t *z = mem_alloc(words * (size_t)r->scols, sizeof(*z));
    int8_t *back = mem_alloc(n, 1);

    for (size_t i = 0; i < n; i++) {
        if (r->q.scale == DT_F8_E4M3)
            bytes[i] = e4m3_from_f32(r->scale[i]);
        else if (r->q.scale == DT_F8_E8M0)
            bytes[i] = e8m0_from_f32(r->scale[i]);
    }
    if (r->q.scale == r->q.t)
        assert_true(dtype_from_f32(bytes, r->scale, r->q.t, n));
    same(name, t, bytes, n * dtype_size(t->dtype));
    if (scheme_global(&r->s))
        same(name, golden_get(g, "weight_global_scale"), &r->global, sizeof(r->global));
    if (!r->q.symmetric) {
        pack_zeros(r->q.bits, r->zero, r->rows, r->scols, z);
        same(name, golden_get(g, "weight_zero_point"), z, words * (size_t)r->scols * sizeof(*z));
        unpack_zeros(r->q.bits, z, r->rows, r->scols, back);
        assert_memory_equal(back, r->zero, n);
    }
    mem_free(bytes);
    mem_free(z);
    mem_free(back);
}

static void
check_codes(const char *name, const struct golden *g, const struct rounded *r)
{
    enum pack layout = scheme_pack(&r->s);
    const struct tensor *t = golden_get(g, layout == PACK_BYTES ? "weight" : "weight_packed");
    size_t n = (size_t)r->rows * (size_t)r->cols, bytes = pack_row_bytes(layout, r->q.bits, r->cols) * (size_t)r->rows;
    struct scales sc = { r->scale, r->q.symmetric ? NULL : r->zero, r->global };
    uint8_t *packed = mem_alloc(bytes, 1), *codes = mem_alloc(n, 1);
    int64_t shape[2] = { r->rows, r->cols };
    float *w = mem_alloc(n, sizeof(*w));

    pack_rows(layout, r->q.bits, r->codes, r->rows, r->cols, packed);
    same(name, t, packed, bytes);
    if (layout == PACK_WORDS)
        same(name, golden_get(g, "weight_shape"), shape, sizeof(shape));
    unpack_rows(layout, r->q.bits, packed, r->rows, r->cols, codes);
    assert_memory_equal(codes, r->codes, n);

    /* What inference sees rounds to the codes it came from, but for the sign of zero; of 8 bits, product and quotient
     * rounded to bf16 can lose the last. */
    dequant_rows(&r->q, &sc, r->codes, 0, r->rows, r->cols, w);
    round_rows(&r->q, &sc, w, 0, r->rows, r->cols, codes);
    for (size_t i = 0; i < n; i++)
        if (fabsf(q_value(&r->q, codes[i]) - q_value(&r->q, r->codes[i])) > (r->q.grid == GRID_INT && r->q.bits == 8))
            fail_msg("%s: code %zu is %d, was %d", name, i, codes[i], r->codes[i]);
    mem_free(packed);
    mem_free(codes);
    mem_free(w);
}

/* Inputs: extremes of all samples (static_minmax), of the last one only for 0.10's memoryless observer. */
static void
check_input(const char *name, const struct golden *g, const struct scheme *s)
{
    struct golden common;
    struct extremes x;
    struct qspec q;
    size_t count, skip;
    uint16_t stored;
    float *act, v;

    if (!scheme_input_static(s))
        return;
    golden_open(&common, "common", "inputs");
    act = golden_floats(golden_get(&common, "activations"), &count);
    skip = strcmp(s->input.observer, "memoryless_minmax") == 0 ? count - count / 8 : 0;
    x = scale_extremes(act + skip, count - skip);
    scheme_args_qspec(&s->input, DT_BF16, &q);
    if (q.strategy == STRATEGY_TENSOR_GROUP) {
        v = scale_global(-x.min > x.max ? -x.min : x.max, DT_BF16);
        same(name, golden_get(g, "input_global_scale"), &v, sizeof(v));
    } else {
        scale_of_extremes(&q, x, 1, &v, NULL);
        stored = bf16_from_f32(v);
        same(name, golden_get(g, "input_scale"), &stored, sizeof(stored));
    }
    mem_free(act);
    golden_close(&common);
}

static void
check_rtn(const char *version, const char *name, void *ctx)
{
    const struct tensor *t;
    struct rounded r = { 0 };
    struct golden g;
    size_t count;
    char where[300];

    (void)ctx;
    golden_open(&g, version, name);
    snprintf(where, sizeof(where), "%s/%s", version, name);
    golden_scheme(&g, &r.s);
    scheme_qspec(&r.s, DT_BF16, false, &r.q);
    t = golden_get(&g, "input.weight");
    r.rows = (int)t->shape[0];
    r.cols = (int)t->shape[1];
    assert_int_equal(scheme_check(&r.s, r.rows, r.cols), RC_OK);
    r.w = golden_floats(t, &count);
    round_all(&r);
    check_scales(where, &g, &r);
    check_codes(where, &g, &r);
    check_input(where, &g, &r.s);
    rounded_free(&r);
    golden_close(&g);
}

static void
rtn_vectors(void **state)
{
    (void)state;
    assert_int_equal(golden_each("llmc-0.10", "rtn_", check_rtn, NULL), 21);
    assert_int_equal(golden_each("llmc-0.14", "rtn_", check_rtn, NULL), 27);
}

/* --- searches --- */

enum { SEARCH_ROWS = 5, SEARCH_COLS = 384 };

struct problem {
    struct qspec      q;
    struct scale_opts o;
    float             w[SEARCH_ROWS * SEARCH_COLS], diag[SEARCH_COLS], global;
    float             scale[SEARCH_ROWS * SEARCH_COLS];
    int8_t            zero[SEARCH_ROWS * SEARCH_COLS];
};

/* Weights with a long tail, columns of very different importance, one group all zero, one column without input. */
static void
problem_make(struct problem *p, const struct scheme *s, const char *observer)
{
    uint32_t state = 7;

    scheme_qspec(s, DT_BF16, false, &p->q);
    assert_int_equal(observer_opts(observer, NULL, &p->q, &p->o), RC_OK);
    for (int i = 0; i < SEARCH_ROWS * SEARCH_COLS; i++) {
        float sum = 0;

        for (int j = 0; j < 4; j++, state = state * 1664525u + 1013904223u)
            sum += (float)(state >> 8) * 0x1p-24f - 0.5f;
        p->w[i] = i < 128 ? 0 : bf16_round(sum * sum * sum * 0.3f + sum * 0.01f);
    }
    for (int j = 0; j < SEARCH_COLS; j++)
        p->diag[j] = j == 200 ? 0 : (float)(1 + (j * 7919 % 97)) * (j % 13 == 0 ? 30.0f : 0.1f);
    p->o.diag = observer_weighted(observer) ? p->diag : NULL;
    p->global = scheme_global(s) ? scale_global(scale_absmax(p->w, SEARCH_ROWS * SEARCH_COLS), DT_BF16) : 1;
}

/* In double, with exact division, from the definition. */
static double
region_error(const struct problem *p, int row, int col, float scale, float zero)
{
    float step = q_step(&p->q, scale, p->global);
    double sum = 0;

    for (int r = 0; r < SEARCH_ROWS; r++) {
        for (int c = 0; c < SEARCH_COLS; c++) {
            float w = p->w[r * SEARCH_COLS + c];
            double e;

            if (q_scale_row(&p->q, r) != row || q_scale_col(&p->q, c) != col)
                continue;
            e = fabs((double)(q_grid(&p->q, w / step + zero) - zero) * (double)step - (double)w);
            sum += pow(e, p->o.norm) * (p->o.diag != NULL ? (double)p->o.diag[c] : 1.0);
        }
    }
    return sum;
}

static struct extremes
region_range(const struct problem *p, int row, int col)
{
    struct extremes x = { 0, 0 };

    for (int r = 0; r < SEARCH_ROWS; r++)
        for (int c = 0; c < SEARCH_COLS; c++)
            if (q_scale_row(&p->q, r) == row && q_scale_col(&p->q, c) == col)
                x = scale_merge(x, scale_extremes(&p->w[r * SEARCH_COLS + c], 1));
    return x;
}

/* No candidate is better than what was chosen, but for rounding; minmax is one of them. */
static void
check_least(const char *name, const struct problem *p, int row, int col)
{
    size_t k = (size_t)row * (size_t)q_scale_cols(&p->q, SEARCH_COLS) + (size_t)col;
    struct extremes x = region_range(p, row, col);
    double got = region_error(p, row, col, p->scale[k], p->q.symmetric ? 0 : p->zero[k]);

    for (int i = 0; i <= p->o.steps; i++) {
        float f = i == 0 ? 1 : p->o.hi - (p->o.hi - p->o.lo) * (float)(i - 1) / (float)(p->o.steps - 1), scale;
        int8_t zero = 0;
        double e;

        scale_of_extremes(&p->q, (struct extremes){ x.min * f, x.max * f }, p->global, &scale, &zero);
        e = region_error(p, row, col, scale, zero);
        if (got > e * 1.0001)
            fail_msg("%s: scale %d, %d: error %g, factor %g has %g", name, row, col, got, (double)f, e);
    }
}

static void
search_is_least(void **state)
{
    static const char *const observers[] = { "imatrix_mse", "memoryless_mse", "nvfp4_expanded_mse",
        "nvfp4_expanded_imatrix" };
    static struct problem p;
    const char *name;
    struct scheme s;

    (void)state;
    for (int i = 0; (name = scheme_preset(i)) != NULL; i++) {
        assert_int_equal(scheme_find(&s, name, false), RC_OK);
        for (int j = 0; s.has_weights && j < 4; j++) {
            problem_make(&p, &s, observers[j]);
            scale_rows(&p.q, &p.o, p.w, SEARCH_ROWS, SEARCH_COLS, p.global, p.scale, p.q.symmetric ? NULL : p.zero);
            for (int r = 0; r < q_scale_rows(&p.q, SEARCH_ROWS); r++)
                for (int c = 0; c < q_scale_cols(&p.q, SEARCH_COLS); c++)
                    check_least(name, &p, r, c);
        }
    }
}

/* Every instruction set's inner loop, odd lengths and norms too. */
static void
errors_same_bits(void **state)
{
    static const struct lanes *const tables[] = { &lanes_avx512, &lanes_avx2, &lanes_c };
    static const double norms[] = { 2, 2.4, 3 };
    static const int lengths[] = { 1, 15, 16, 31, 33, 127, 384 };
    static struct problem p;
    struct candidate_scale want[2], got[2];
    const char *name;
    struct scheme s;

    (void)state;
    for (int i = 0; (name = scheme_preset(i)) != NULL; i++) {
        assert_int_equal(scheme_find(&s, name, false), RC_OK);
        if (!s.has_weights)
            continue;
        problem_make(&p, &s, "imatrix_mse");
        for (int k = 0; k < 2 * 3 * 7 * 3; k++) {
            const struct lanes *t = tables[k % 3];
            const float *diag = k / 63 == 0 ? p.diag : NULL;
            double norm = norms[k / 3 % 3];
            int n = lengths[k / 9 % 7];

            for (int c = 0; c < 2; c++)
                want[c] = got[c] = (struct candidate_scale){ .step = c == 0 ? 0.01171875f : 0.0034f, .zero = (float)c };
            scale_errors(&p.q, p.w + 130, diag, n, norm, want, 2);
            if (!lanes_usable(t))
                continue;
            t->scale_errors(&p.q, p.w + 130, diag, n, norm, got, 2);
            for (int c = 0; c < 2; c++)
                if (memcmp(&want[c].error, &got[c].error, sizeof(float)) != 0)
                    fail_msg("%s %s n %d norm %g: %g, want %g", name, t->name, n, norm, (double)got[c].error,
                        (double)want[c].error);
        }
    }
}

/* The backends' whole matrices, with any number of threads, are scale_rows(). */
static void
backends_agree(void **state)
{
    static const char *const names[] = { "ref", "cpu", "cpu" };
    static struct problem p;
    static float scale[SEARCH_ROWS * SEARCH_COLS];
    static int8_t zero[SEARCH_ROWS * SEARCH_COLS];
    const struct backend *bk;
    const char *name;
    struct scheme s;
    struct dev *dev;

    (void)state;
    for (int k = 0; k < 3; k++) {
        struct dev_opts o = { .threads = k + 1 };

        assert_int_equal(backend_find(&bk, names[k]), RC_OK);
        assert_int_equal(bk->open(&dev, &o), RC_OK);
        for (int i = 0; (name = scheme_preset(i)) != NULL; i++) {
            size_t n;

            assert_int_equal(scheme_find(&s, name, false), RC_OK);
            if (!s.has_weights)
                continue;
            problem_make(&p, &s, "imatrix_mse");
            n = (size_t)q_scale_rows(&p.q, SEARCH_ROWS) * (size_t)q_scale_cols(&p.q, SEARCH_COLS);
            scale_rows(&p.q, &p.o, p.w, SEARCH_ROWS, SEARCH_COLS, p.global, p.scale, p.q.symmetric ? NULL : p.zero);
            assert_int_equal(bk->scales(dev, &p.q, &p.o, p.w, SEARCH_ROWS, SEARCH_COLS, p.global, scale,
                p.q.symmetric ? NULL : zero), RC_OK);
            assert_memory_equal(scale, p.scale, n * sizeof(*scale));
            if (!p.q.symmetric)
                assert_memory_equal(zero, p.zero, n);
        }
        bk->close(dev);
    }
}

static void
observer_kwargs(void **state)
{
    static const struct {
        const char *name, *kwargs, *error; /* NULL: accepted */
    } cases[] = {
        { "minmax", "{\"averaging_constant\": 0.01}", NULL },
        { "minmax", "{\"grid\": 20}", "observer_kwargs: grid does not go with observer minmax" },
        { "mse", "{\"maxshrink\": 0.5, \"patience\": 3, \"strict\": true}", NULL },
        { "mse", "{\"maxshrink\": 1.5}", "observer_kwargs: maxshrink is 1.5, want 0 to 1" },
        { "mse", "{\"grid\": 0}", "observer_kwargs: grid is 0, want 1 to 1023" },
        { "mse", "{\"grid\": 1024}", "observer_kwargs: grid is 1024, want 1 to 1023" },
        { "mse", "{\"norm\": 0}", "observer_kwargs: norm is 0, want more than 0" },
        { "mse", "{\"expand\": 0.5}", "observer_kwargs: expand is 0.5, want 1 to 16" },
        { "mse", "{\"norm\": \"2\"}", "observer_kwargs: norm is not a number" },
        { "imatrix_mse", "{\"maxshrnk\": 0.5}", "observer_kwargs: unknown key maxshrnk" },
        { "imatrix_mse", "{\"patience\": \"x\"}", "observer_kwargs: patience is not a number" },
        { "imatrix_mse", "{\"maxshrink\": 1, \"grid\": 1023}", NULL },
    };
    struct qspec q = { .grid = GRID_INT, .bits = 4, .symmetric = 1, .strategy = STRATEGY_GROUP, .group = 64,
        .scale = DT_BF16, .t = DT_BF16 };
    struct scale_opts o;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *kwargs = json_loads(cases[i].kwargs, 0, NULL);

        assert_int_equal(observer_opts(cases[i].name, kwargs, &q, &o), cases[i].error == NULL ? RC_OK : RC_DATA);
        if (cases[i].error != NULL)
            assert_string_equal(err_text(), cases[i].error);
        else
            assert_true(o.steps <= SCALE_STEPS_MAX);
        json_decref(kwargs);
    }
    assert_int_equal(observer_opts("mse", NULL, &q, &o), RC_OK);
    assert_true(o.steps == 21 && o.hi == 1.0f && fabsf(o.lo - 0.8f) < 1e-6f && o.norm == 2.4);
    assert_true(observer_weighted("imatrix_mse") && !observer_weighted("mse"));
    assert_true(o.observer == OBSERVER_SEARCH);
    assert_int_equal(observer_opts("static_minmax", NULL, &q, &o), RC_OK);
    assert_true(o.observer == OBSERVER_MINMAX);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rtn_vectors), cmocka_unit_test(search_is_least), cmocka_unit_test(errors_same_bits),
        cmocka_unit_test(backends_agree), cmocka_unit_test(observer_kwargs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
