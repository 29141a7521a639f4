/* scales, plain rounding, packing and schemes against every rtn_ vector, bit for bit */
#include "../../kernels/pack.h"
#include "../../kernels/scale.h"
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
    scheme_input_qspec(s, DT_BF16, &q);
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rtn_vectors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
