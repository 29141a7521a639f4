/* test-forward - the forward pass against what transformers computed for tiny random models (t/peer/make_tiny.py)
 *
 * In f32 hidden states must agree to rounding of sums. In bf16 two right answers differ, since a rounding that falls
 * the other way is carried on: ours must be as close to the f32 run as that of transformers is.
 */
#include "../../libcommon/json.h"
#include "../../libcommon/mem.h"
#include "model.h"

#include <math.h>

static const char *const models[] = { "base", "bias", "llama3", "yarn", "linear", "dynamic", "headdim", "f16", "f32",
    "sharded" };

enum { ROWS = 96, TOKENS = 48, LAYERS = 3, HIDDEN = 64 };

static void
begin(struct setup *s, const char *name, const char *backend, enum dtype dt)
{
    static const int32_t tokens[2] = { TOKENS, TOKENS };
    char dir[256], expected[256];

    (void)snprintf(dir, sizeof(dir), "t/data/tiny/%s", name);
    (void)snprintf(expected, sizeof(expected), "t/data/tiny/%s.expected.safetensors", name);
    setup_open(s, name, dir, expected, backend, dt, tokens, 2);
}

static const float *
wanted(struct setup *s, const char *format, int l)
{
    char name[32];
    const struct tensor *t;

    (void)snprintf(name, sizeof(name), format, l);
    assert_int_equal(st_get(&s->want, name, &t), RC_OK);
    return t->data;
}

/* Root mean square of a - b. */
static double
distance(const float *a, const float *b)
{
    double sum = 0;

    for (int i = 0; i < ROWS * HIDDEN; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum / (ROWS * HIDDEN));
}

static void
check_f32(const char *name, const char *backend)
{
    static const float zero[ROWS * HIDDEN];
    struct setup s = { 0 };

    begin(&s, name, backend, DT_F32);
    for (int l = 0; l <= LAYERS; l++) {
        const float *want = wanted(&s, "hidden32.%d", l);

        if (l > 0)
            setup_layer(&s, l - 1);
        if (!(distance(s.block.hidden, want) <= 4e-6 * distance(want, zero)))
            fail_msg("%s, %s: hidden states after layer %d are off by %g of %g", name, backend, l,
                distance(s.block.hidden, want), distance(want, zero));
    }
    setup_close(&s);
}

static void
check_bf16(const char *name)
{
    float got[ROWS * HIDDEN];
    struct setup s = { 0 };

    begin(&s, name, "cpu", DT_BF16);
    for (int l = 1; l <= LAYERS && s.src.arch.dtype == DT_BF16; l++) {
        const float *f32 = wanted(&s, "hidden32.%d", l), *bf16 = wanted(&s, "hidden.%d", l);

        setup_layer(&s, l - 1);
        assert_true(dtype_to_f32(got, s.block.hidden, DT_BF16, ROWS * HIDDEN));
        if (!(distance(got, f32) <= 1.15 * distance(bf16, f32)))
            fail_msg("%s: after layer %d ours is %g from f32, that of transformers %g", name, l, distance(got, f32),
                distance(bf16, f32));
        assert_true(distance(got, bf16) <= 1.5 * distance(bf16, f32)); /* two independent roundings: sqrt 2 */
    }
    setup_close(&s);
}

static void
test_f32(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(models); i++)
        check_f32(models[i], "cpu");
    check_f32("bias", "ref");
    check_f32("llama3", "ref");
}

static void
test_bf16(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(models); i++)
        check_bf16(models[i]);
}

static void
test_nll(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(models); i++) {
        int32_t target[ROWS];
        double nll[ROWS];
        struct setup s = { 0 };
        const struct tensor *ids;
        struct weight *head;
        const float *want;
        const void *h;

        begin(&s, models[i], "cpu", DT_F32);
        want = wanted(&s, "nll32", 0);
        for (int l = 0; l < LAYERS; l++)
            setup_layer(&s, l);
        assert_int_equal(st_get(&s.want, "input_ids", &ids), RC_OK);
        for (int r = 0; r < ROWS; r++)
            target[r] = (r + 1) % TOKENS == 0 ? -1 : ((const int32_t *)ids->data)[r + 1];
        assert_int_equal(fwd_head(&s.fwd, &head), RC_OK);
        assert_int_equal(fwd_final(&s.fwd, &s.block, &h), RC_OK);
        assert_int_equal(fwd_nll(&s.fwd, nll, h, ROWS, head, target), RC_OK);
        for (int r = 0, k = 0; r < ROWS; r++)
            if (target[r] >= 0 && fabs(nll[r] - (double)want[k++]) > 2e-4)
                fail_msg("%s: row %d scores %g, want %g", models[i], r, nll[r], (double)want[k - 1]);
        s.bk->weight_free(s.dev, head);
        setup_close(&s);
    }
}

static int
read_config(const char *text)
{
    struct arch a;
    json_t *j;
    int rc;

    assert_int_equal(jread_mem(&j, text, strlen(text), "config"), RC_OK);
    rc = arch_read(&a, j);
    json_decref(j);
    return rc;
}

static void
test_configs(void **state)
{
#define DIMS "\"hidden_size\":64,\"num_hidden_layers\":1,\"num_attention_heads\":4,\"intermediate_size\":8,\"vocab_size\":9"
    (void)state;
    assert_int_equal(read_config("{\"model_type\":\"llama\"," DIMS "}"), RC_OK);
    assert_int_equal(read_config("{\"model_type\":\"mamba\"," DIMS "}"), RC_DATA);
    assert_says(err_text(), "config.json: model_type \"mamba\" is not supported; there are llama");
    assert_int_equal(read_config("{" DIMS "}"), RC_DATA);
    assert_says(err_text(), "no \"model_type\"");
    assert_int_equal(read_config("{\"model_type\":\"llama\"}"), RC_DATA);
    assert_says(err_text(), "no \"hidden_size\"");
    assert_int_equal(read_config("{\"model_type\":\"llama\",\"num_key_value_heads\":3," DIMS "}"), RC_DATA);
    assert_says(err_text(), "4 attention heads do not share 3");
    assert_int_equal(read_config("{\"model_type\":\"llama\",\"hidden_act\":\"relu\"," DIMS "}"), RC_DATA);
    assert_says(err_text(), "hidden_act \"relu\"");
    assert_int_equal(read_config("{\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"su\"}," DIMS "}"), RC_DATA);
    assert_says(err_text(), "rope_type \"su\"");
    assert_int_equal(read_config("{\"model_type\":\"llama\",\"torch_dtype\":\"int8\"," DIMS "}"), RC_DATA);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32), cmocka_unit_test(test_bf16), cmocka_unit_test(test_nll),
        cmocka_unit_test(test_configs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
