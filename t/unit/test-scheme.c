/* presets and their configurations against the libraries' own, and the rules between fields */
#include "golden.h"

static json_t *
group_0(json_t *configs, const char *key)
{
    return json_object_get(json_object_get(json_object_get(configs, key), "config_groups"), "group_0");
}

/* Every preset of the two versions writes the library's configuration. */
static void
configurations(void **state)
{
    (void)state;
    for (const char *const *v = golden_versions; *v != NULL; v++) {
        json_t *all, *cfg, *got, *targets = json_pack("[s]", "Linear");
        const char *key;
        int count = 0;

        golden_json(&all, *v, "configs");
        json_object_foreach(all, key, cfg) {
            struct scheme s;

            if (strchr(key, '+') != NULL || strcmp(key, "mixed-precision") == 0)
                continue;
            assert_int_equal(scheme_find(&s, key, strcmp(*v, "llmc-0.10") == 0), RC_OK);
            assert_int_equal(scheme_json(&s, targets, &got), RC_OK);
            if (!json_equal(got, group_0(all, key)))
                fail_msg("%s/%s is\n%s\nwant\n%s", *v, key, json_dumps(got, JSON_SORT_KEYS),
                    json_dumps(group_0(all, key), JSON_SORT_KEYS));
            assert_string_equal(scheme_format_name(s.format), json_string_value(json_object_get(cfg, "format")));
            json_decref(got);
            count++;
        }
        assert_int_equal(count, v == golden_versions ? 14 : 29);
        json_decref(targets);
        json_decref(all);
    }
}

static void
names(void **state)
{
    struct scheme s, t;
    int n = 0;

    (void)state;
    for (; scheme_preset(n) != NULL; n++)
        assert_int_equal(scheme_find(&s, scheme_preset(n), false), RC_OK);
    assert_int_equal(n, 31);
    assert_int_equal(scheme_find(&s, "w4a16_asym", false), RC_OK);
    assert_string_equal(s.name, "W4A16_ASYM");
    assert_int_equal(scheme_find(&t, "W9A16", false), RC_DATA);
    assert_string_equal(err_text(), "W9A16: unknown scheme");
    assert_int_equal(scheme_find(&s, "unquantized", false), RC_OK);
    assert_false(s.has_weights);
}

static void
groups(void **state)
{
    struct scheme s;
    struct qspec q;
    json_t *got, *targets = json_array();

    (void)state;
    assert_int_equal(scheme_find(&s, "W4A16", false), RC_OK);
    assert_int_equal(scheme_set_group(&s, 64), RC_OK);
    scheme_qspec(&s, DT_F16, false, &q);
    assert_true(q.strategy == STRATEGY_GROUP && q.group == 64 && q.scale == DT_F16);
    assert_int_equal(scheme_check(&s, 8, 192), RC_OK);
    assert_int_equal(scheme_check(&s, 8, 32), RC_OK);
    assert_int_equal(scheme_check(&s, 8, 100), RC_DATA);
    assert_string_equal(err_text(), "100 columns are not a multiple of group size 64");
    assert_int_equal(scheme_check(&s, 0, 64), RC_DATA);
    assert_int_equal(scheme_set_group(&s, -1), RC_OK);
    assert_int_equal(s.weights.strategy, ARGS_CHANNEL);
    assert_int_equal(scheme_check(&s, 8, 100), RC_OK);
    assert_int_equal(scheme_json(&s, targets, &got), RC_OK);
    assert_true(json_is_null(json_object_get(json_object_get(got, "weights"), "group_size")));
    json_decref(got);
    json_decref(targets);
    assert_int_equal(scheme_set_group(&s, 0), RC_DATA);
    assert_int_equal(scheme_find(&s, "NVFP4A16", false), RC_OK);
    assert_int_equal(scheme_set_group(&s, 32), RC_DATA);
    assert_int_equal(scheme_check(&s, 8, 13), RC_DATA);
    assert_true(scheme_global(&s) && scheme_pack(&s) == PACK_NIBBLES && !scheme_input_static(&s));
    assert_int_equal(scheme_find(&s, "NVFP4", false), RC_OK);
    assert_true(scheme_input_static(&s));
    assert_int_equal(scheme_find(&s, "FP8_BLOCK", false), RC_OK);
    assert_int_equal(scheme_check(&s, 100, 256), RC_OK);
    assert_int_equal(scheme_check(&s, 100, 576), RC_DATA);
    assert_string_equal(err_text(), "576 columns are not a multiple of the inputs' group size 128");
}

/* "key=value ..." on top of scheme_init; a key starting with + is of the input. */
static int
build(struct scheme *s, const char *text)
{
    char copy[256], *save = NULL;

    scheme_init(s);
    scheme_args_init(&s->input);
    snprintf(copy, sizeof(copy), "%s", text);
    for (char *t = strtok_r(copy, " ", &save); t != NULL; t = strtok_r(NULL, " ", &save)) {
        char *eq = strchr(t, '=');
        int rc;

        *eq = '\0';
        if (t[0] == '+')
            s->has_input = true;
        if ((rc = strcmp(t, "format") == 0 ? scheme_set_format(s, eq + 1)
                 : scheme_set(t[0] == '+' ? &s->input : &s->weights, t[0] == '+' ? t + 1 : t, eq + 1)) != RC_OK)
            return rc;
    }
    return scheme_finish(s);
}

static void
good_fields(void **state)
{
    struct scheme s;

    (void)state;
    assert_int_equal(build(&s, "num_bits=3 group_size=64 actorder=static"), RC_OK);
    assert_true(s.weights.strategy == ARGS_GROUP && s.format == QFORMAT_PACK && scheme_ordered(&s));
    assert_string_equal(s.weights.observer, "memoryless_minmax");
    assert_int_equal(build(&s, "num_bits=8 group_size=-1 +num_bits=8 +strategy=token +dynamic=true"), RC_OK);
    assert_true(s.weights.strategy == ARGS_CHANNEL && s.weights.group == 0 && s.format == QFORMAT_INT);
    assert_string_equal(s.input.observer, "");
    assert_int_equal(build(&s, "type=FLOAT strategy=block block_structure=[64,128] format=float-quantized"), RC_OK);
    assert_true(s.weights.block[0] == 64 && s.weights.block[1] == 128 && s.format == QFORMAT_FLOAT);
    assert_int_equal(build(&s, "type=float block_structure=32x16"), RC_OK);
    assert_true(s.weights.block[0] == 32 && s.weights.strategy == ARGS_BLOCK && s.format == QFORMAT_NAIVE);
    assert_int_equal(build(&s, "type=float num_bits=4 group_size=32"), RC_OK);
    assert_true(s.weights.scale_dtype == DT_U8 && s.format == QFORMAT_MXFP4);
    assert_int_equal(build(&s, "type=float num_bits=4 strategy=tensor_group group_size=16 "
        "scale_dtype=float8_e4m3fn"), RC_OK);
    assert_int_equal(s.format, QFORMAT_NVFP4);
    assert_int_equal(build(&s, "num_bits=4 group_size=128 +strategy=token +dynamic=true format=pack-quantized"), RC_OK);
    assert_int_equal(scheme_pack(&s), PACK_WORDS);
    assert_int_equal(build(&s, "type=float +type=float format=dense"), RC_OK);
    assert_true(scheme_input_static(&s));
    assert_string_equal(s.input.observer, "minmax");
}

static void
bad_fields(void **state)
{
    static const struct {
        const char *text, *error;
    } bad[] = {
        { "num_bits=9", "weights: num_bits is 9, want 1 to 8" },
        { "type=float num_bits=5", "weights: num_bits is 5, want 4 or 8" },
        { "type=float symmetric=false", "weights: float numbers must be symmetric" },
        { "strategy=channel group_size=64", "weights: group_size is 64 with strategy channel" },
        { "strategy=group", "weights: group_size is 0 with strategy group" },
        { "strategy=group group_size=-1", "weights: group_size is -1 with strategy group" },
        { "strategy=block", "weights: block_structure and strategy block go together" },
        { "strategy=token", "weights: strategy token is for inputs" },
        { "dynamic=true", "weights: dynamic is for inputs" },
        { "actorder=group", "weights: actorder group is not supported but with --compat 0.10" },
        { "type=float num_bits=4", "weights: 4-bit floats want tensor_group of 16 with scales float8_e4m3fn, "
                                   "or group of 32 with scales uint8" },
        { "type=float group_size=64 scale_dtype=uint8", "weights: 8-bit floats want group of 32 with scales uint8, or "
                                                        "scale_dtype null" },
        { "scale_dtype=uint8", "weights: integers want scale_dtype null and another strategy than tensor_group" },
        { "+strategy=channel", "inputs: strategy channel is for weights" },
        { "+actorder=static", "inputs: actorder is for weights" },
        { "+strategy=token", "inputs: strategy token must be dynamic" },
        { "+dynamic=local", "inputs: dynamic local wants strategy tensor_group" },
        { "+strategy=attn_head +dynamic=true", "inputs: strategy attn_head cannot be dynamic" },
        { "num_bits=4 format=mxfp4-pack-quantized", "format mxfp4-pack-quantized cannot hold these weights, want "
                                                    "pack-quantized" },
        { "num_bits=four", "num_bits: four is not a number in range" },
        { "group_size=99999999999", "group_size: 99999999999 is not a number in range" },
        { "block_structure=[128]", "block_structure: [128] is not [rows, columns]" },
        { "block_structure=0x4", "block_structure: 0x4 is not [rows, columns]" },
        { "type=complex", "type: unknown value complex" },
        { "actorder=true", "actorder: unknown value true" },
        { "observer=a-name-that-is-much-too-long-to-be-one", "observer: unknown value "
                                                             "a-name-that-is-much-too-long-to-be-one" },
        { "observer_kwargs={\"a\":1}", "observer_kwargs: unknown value {\"a\":1}" },
        { "colour=red", "colour: unknown key" },
        { "format=mixed-precision", "format: unknown value mixed-precision" },
    };
    struct scheme s;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_int_equal(build(&s, bad[i].text), RC_DATA);
        assert_string_equal(err_text(), bad[i].error);
    }
    assert_int_equal(scheme_find(&s, "UNQUANTIZED", false), RC_OK);
    assert_int_equal(scheme_finish(&s), RC_DATA);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configurations),
        cmocka_unit_test(names),
        cmocka_unit_test(groups),
        cmocka_unit_test(good_fields),
        cmocka_unit_test(bad_fields),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
