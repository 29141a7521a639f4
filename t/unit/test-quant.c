/* number formats: all codes, every midpoint between neighbours, and the libraries' own tables */
#include "../../kernels/quant.h"
#include "golden.h"

#include <math.h>

static float
to_bf16(uint32_t h)
{
    return bf16_to_f32((uint16_t)h);
}

static float
to_f16(uint32_t h)
{
    return f16_to_f32((uint16_t)h);
}

static float
to_e4m3(uint32_t h)
{
    return e4m3_to_f32((uint8_t)h);
}

static float
to_e2m1(uint32_t h)
{
    return e2m1_to_f32((uint8_t)h);
}

static uint32_t
of_bf16(float x)
{
    return bf16_from_f32(x);
}

static uint32_t
of_f16(float x)
{
    return f16_from_f32(x);
}

static uint32_t
of_e4m3(float x)
{
    return e4m3_from_f32(x);
}

static uint32_t
of_e2m1(float x)
{
    return e2m1_from_f32(x);
}

/* Codes of each format count up with the magnitude from 0 to max, the sign bit above them. */
static const struct format {
    const char *name;
    uint32_t    max, sign;
    float       (*to)(uint32_t);
    uint32_t    (*of)(float);
    float       (*round)(float);
} formats[] = {
    { "bf16", 0x7f7f, 0x8000, to_bf16, of_bf16, bf16_round }, { "f16", 0x7bff, 0x8000, to_f16, of_f16, f16_round },
    { "e4m3", 0x7e, 0x80, to_e4m3, of_e4m3, e4m3_round }, { "e2m1", 7, 8, to_e2m1, of_e2m1, e2m1_round },
};

/* The value that a code means, from the layout of its bits alone. */
static double
meaning(uint32_t code, int mant, int bias)
{
    uint32_t e = code >> mant, m = code & ((1u << mant) - 1);

    return e == 0 ? ldexp(m, 1 - bias - mant) : ldexp((double)m + (double)(1u << mant), (int)e - bias - mant);
}

static void
values(void **state)
{
    static const int mant[] = { 7, 10, 3, 1 }, bias[] = { 127, 15, 7, 1 };

    (void)state;
    for (int f = 0; f < 4; f++)
        for (uint32_t c = 0; c <= formats[f].max; c++) {
            assert_true((double)formats[f].to(c) == meaning(c, mant[f], bias[f]));
            assert_true((double)formats[f].to(c | formats[f].sign) == -meaning(c, mant[f], bias[f]));
        }
    for (int e = 0; e < 255; e++) {
        assert_true(e8m0_to_f32((uint8_t)e) == ldexpf(1, e - 127));
        assert_int_equal(e8m0_from_f32(e8m0_to_f32((uint8_t)e)), e);
    }
}

static void
expect(const struct format *f, float x, uint32_t code)
{
    for (uint32_t sign = 0; sign <= 1; sign++) {
        float v = sign ? -x : x;
        uint32_t want = code | (sign ? f->sign : 0), got = f->of(v);

        if (got != want || f32_bits(f->round(v)) != f32_bits(f->to(want)))
            fail_msg("%s of %a is %#x, rounded %a, want %#x", f->name, (double)v, got, (double)f->round(v), want);
    }
}

/* Every value, the midpoint to the next one and its two neighbours among f32: ties to the even code. */
static void
rounding(void **state)
{
    (void)state;
    for (const struct format *f = formats; f < formats + 4; f++) {
        expect(f, f->to(f->max), f->max);
        for (uint32_t c = 0; c < f->max; c++) {
            float lo = f->to(c), hi = f->to(c + 1), mid = (float)(((double)lo + (double)hi) / 2);

            expect(f, lo, c);
            expect(f, mid, c + (c & 1));
            expect(f, nextafterf(mid, -1), c);
            expect(f, nextafterf(mid, INFINITY), c + 1);
        }
    }
}

/* The code of a format nearest to |x|, of two as near the even one, by bisection over all values; saturates. */
static uint32_t
nearest(const struct format *f, double x)
{
    uint32_t lo = 0, hi = f->max;

    while (hi - lo > 1) {
        uint32_t mid = (lo + hi) / 2;

        if ((double)f->to(mid) <= x)
            lo = mid;
        else
            hi = mid;
    }
    if (x >= (double)f->to(hi))
        return hi;
    return x - (double)f->to(lo) < (double)f->to(hi) - x ? lo : x - (double)f->to(lo) > (double)f->to(hi) - x ? hi
        : lo + (lo & 1);
}

/* The nearest of all integers of b bits, one after the other. */
static int
nearest_int(double x, int b)
{
    int best = -(1 << (b - 1));

    x = fmin(fmax(x, -1e6), 1e6); /* distances are exact, and the same integer is the nearest */
    for (int k = best + 1; k < 1 << (b - 1); k++)
        if (fabs(x - k) < fabs(x - best) || (fabs(x - k) == fabs(x - best) && k % 2 == 0))
            best = k;
    return best;
}

/* Exponent of the next power of two from 1.75 of the one before on, less off; as a byte. */
static int
nearest_power(double a, int off)
{
    int e;
    double m = frexp(a, &e) * 2; /* a = m 2^(e - 1), 1 <= m < 2 */

    if (a == 0)
        return 0;
    if (e == 128 && m >= 1.75) /* 2^128 is none, and says so whatever off is */
        return 255;
    e += 126 - off + (m >= 1.75);
    return e < 0 ? 0 : e;
}

static void
brute_one(float x)
{
    float a = fabsf(x);
    uint32_t minus = signbit(x) != 0;

    for (const struct format *f = formats; f < formats + 4; f++) {
        uint32_t want = nearest(f, (double)a), got = f->of(x);

        if (f < formats + 2 && a > f->to(f->max)) /* bf16 and f16 go to infinity, half a step from there */
            continue;
        if (got != (want | (minus ? f->sign : 0)) || f32_bits(f->round(x)) != f32_bits(f->to(got)))
            fail_msg("%s of %a is %#x, want %#x", f->name, (double)x, got, want);
    }
    for (int b = 1; b <= 8; b++) {
        struct qspec s = { .grid = GRID_INT, .bits = b, .symmetric = 1 };

        if ((int)q_grid(&s, x) != nearest_int((double)x, b))
            fail_msg("int%d of %a is %g", b, (double)x, (double)q_grid(&s, x));
    }
    for (int off = 2; off <= 8; off += 6)
        if (e8m0_of_absmax(a, off) != nearest_power((double)a, off))
            fail_msg("e8m0 of %a less %d is %d, want %d", (double)a, off, e8m0_of_absmax(a, off),
                nearest_power((double)a, off));
}

/* All values of bf16 and of f16. */
static void
brute_force(void **state)
{
    int count = 0;

    (void)state;
    for (int f = 0; f < 2; f++)
        for (uint32_t h = 0; h < 65536; h++) {
            float x = formats[f].to(h);

            if (isfinite(x)) {
                brute_one(x);
                count++;
            } else if (isinf(x)) { /* saturates, or stays what it is */
                assert_int_equal(e4m3_from_f32(x) & 0x7f, 0x7e);
                assert_int_equal(e2m1_from_f32(x) & 7, 7);
                assert_true(isinf(bf16_round(x)) && isinf(f16_round(x)));
            } else {
                assert_true(isnan(e4m3_round(x)) && isnan(bf16_round(x)) && isnan(f16_round(x)));
            }
        }
    assert_int_equal(count, 2 * 65536 - 2 * 128 - 2 * 1024);
}

static void
out_of_range(void **state)
{
    (void)state;
    assert_int_equal(e4m3_from_f32(465), 0x7e);
    assert_int_equal(e4m3_from_f32(-INFINITY), 0xfe);
    assert_int_equal(e2m1_from_f32(1e30f), 7);
    assert_int_equal(f16_from_f32(65519.99f), 0x7bff);
    assert_int_equal(f16_from_f32(65520), 0x7c00);
    assert_int_equal(f16_from_f32(-INFINITY), 0xfc00);
    assert_int_equal(bf16_from_f32(3.4e38f), 0x7f80);
    assert_true(isinf(f16_to_f32(0x7c00)) && isnan(f16_to_f32(0x7c01)) && isnan(bf16_to_f32(0x7f81)));
    assert_true(isnan(e4m3_to_f32(0x7f)) && isnan(e4m3_to_f32(0xff)));
    assert_true(isnan(bf16_round(NAN)) && isnan(f16_round(-NAN)) && isnan(e4m3_round(NAN)));
    assert_int_equal(e4m3_from_f32(NAN) & 0x7f, 0x7f);
    assert_true(isnan(f16_to_f32(f16_from_f32(NAN))));
    assert_true(int_round(NAN, -8, 7) == -8);
}

/* Clamped, then rounded half to even, in steps of an eighth. */
static void
integers(void **state)
{
    (void)state;
    for (int b = 1; b <= 8; b++) {
        struct qspec s = { .grid = GRID_INT, .bits = b, .symmetric = 1, .strategy = STRATEGY_CHANNEL, .t = DT_BF16 };
        int lo = -(1 << (b - 1)), hi = (1 << (b - 1)) - 1;

        assert_true((int)q_min(&s) == lo && (int)q_max(&s) == hi);
        for (int i = 8 * (lo - 2); i <= 8 * (hi + 2); i++) {
            int k = i >> 3, part = i & 7;
            int want = part > 4 || (part == 4 && k % 2 != 0) ? k + 1 : k;

            want = want < lo ? lo : want > hi ? hi : want;
            assert_true((int)q_grid(&s, (float)i / 8) == want);
            assert_true(q_value(&s, q_code(&s, (float)want)) == (float)want);
        }
    }
}

/* The worked example of double rounding: 3.49315 becomes 3.5 in bf16 and then 4. */
static void
in_the_models_type(void **state)
{
    struct qspec s = { .grid = GRID_INT, .bits = 4, .symmetric = 1, .strategy = STRATEGY_CHANNEL, .scale = DT_BF16,
        .t = DT_BF16 };
    float w = bf16_round(0.007781982f), step = bf16_round(0.002227783f);

    (void)state;
    assert_true(q_round(&s, w, step, 0) == 4);
    assert_true(q_round_loop(&s, w, step, 0) == 3);
    assert_true(q_dequant(&s, 7, step, 0) == bf16_round(7 * step));
    assert_true(q_dequant_loop(&s, 7, step, 0) == bf16_round(7 * step));
    s.v10 = 1;
    assert_true(q_dequant_loop(&s, 7, step, 0) == 7 * step);
    s.grid = GRID_E2M1;
    s.scale = DT_F8_E4M3;
    assert_int_equal(q_code(&s, q_round(&s, -0.01f, 1, 0)), 8);
    assert_int_equal(q_code(&s, q_round(&s, -0.0f, 1, 0)), 0);
    assert_int_equal(q_code(&s, q_round_loop(&s, -0.01f, 1, 0)), 0);
}

static double
number(json_t *table, const char *key, size_t i)
{
    json_t *v = json_array_get(json_object_get(table, key), i);

    return json_is_string(v) ? (double)INFINITY : json_number_value(v);
}

static void
mx_table(json_t *t, const char *key, int off)
{
    json_t *mx = json_object_get(json_object_get(t, "mx_scale"), key);
    size_t n = json_array_size(json_object_get(mx, "amax"));

    for (size_t i = 0; i < n; i++)
        assert_true(e8m0_to_f32(e8m0_of_absmax((float)number(mx, "amax", i), off)) == (float)number(mx, "scale", i));
}

static void
tables(void **state)
{
    (void)state;
    for (const char *const *v = golden_versions; *v != NULL; v++) {
        json_t *t, *a, *b;

        golden_json(&t, *v, "tables");
        a = json_object_get(t, "fp4_round");
        for (size_t i = 0; i < json_array_size(json_object_get(a, "x")); i++) {
            float y = e2m1_round((float)number(a, "x", i));

            assert_true(y == (float)number(a, "y", i));
            assert_int_equal(signbit(y) != 0, json_is_true(json_array_get(json_object_get(a, "negzero"), i)));
        }
        b = json_object_get(t, "fp8_e4m3");
        for (size_t i = 0; i < json_array_size(json_object_get(b, "x")); i++) {
            assert_int_equal(e4m3_from_f32((float)number(b, "x", i)), (int)number(b, "bits", i));
            assert_true(e4m3_round((float)number(b, "x", i)) == (float)number(b, "y", i));
        }
        mx_table(t, "MXFP4A16_bfloat16", 2);
        mx_table(t, "MXFP4A16_float32", 2);
        mx_table(t, "MXFP8A16_bfloat16", 8);
        mx_table(t, "MXFP8A16_float32", 8);
        json_decref(t);
    }
}

static void
dtypes(void **state)
{
    float x[4] = { 1, -0.5f, 448, 0x1p-9f }, y[4];
    uint8_t raw[33];

    (void)state;
    for (enum dtype t = DT_BOOL; t < DT_COUNT; t = (enum dtype)(t + 1)) {
        assert_int_equal(dtype_find(dtype_name(t)), t);
        if (dtype_torch(t) != NULL)
            assert_int_equal(dtype_find(dtype_torch(t)), t);
        if (dtype_from_f32(raw + 1, x, t, 4)) { /* unaligned */
            assert_true(dtype_to_f32(y, raw + 1, t, 4));
            assert_memory_equal(x, y, sizeof(x));
        }
    }
    for (int i = 0; i < 4; i++)
        raw[i] = e4m3_from_f32(x[i]);
    assert_true(dtype_to_f32(y, raw, DT_F8_E4M3, 4));
    assert_memory_equal(x, y, sizeof(x));
    assert_false(dtype_to_f32(y, raw, DT_I8, 4));
    assert_false(dtype_from_f32(raw, x, DT_F8_E4M3, 4));
    assert_int_equal(dtype_find("bf17"), DT_NONE);
    assert_int_equal(dtype_size(DT_F64), 8);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(rounding),
        cmocka_unit_test(brute_force),
        cmocka_unit_test(out_of_range),
        cmocka_unit_test(integers),
        cmocka_unit_test(in_the_models_type),
        cmocka_unit_test(tables),
        cmocka_unit_test(dtypes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
