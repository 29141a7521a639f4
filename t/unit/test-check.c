/* which modules are loaded as one, and which schemes can be */
#include "../../libcommon/check.h"
#include "../../libcommon/msg.h"
#include "unit.h"

#include <string.h>

static void
test_names(void **state)
{
    (void)state;
    assert_true(check_fused_names("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"));
    assert_true(check_fused_names("model.layers.0.self_attn.v_proj", "model.layers.0.self_attn.q_proj"));
    assert_true(check_fused_names("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"));
    assert_true(check_fused_names("b.experts.7.w1", "b.experts.7.w3"));
    assert_true(check_fused_names("q_proj", "k_proj"));
    assert_false(check_fused_names("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.k_proj"));
    assert_false(check_fused_names("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.o_proj"));
    assert_false(check_fused_names("model.layers.0.mlp.gate_proj", "model.layers.0.mlp.down_proj"));
    assert_false(check_fused_names("b.experts.7.w1", "b.experts.7.w2"));
    assert_false(check_fused_names("a.q_proj", "ab.k_proj"));
    assert_false(check_fused_names("a.b.q_proj", "b.q_proj"));
    assert_false(check_fused_names("", ""));
}

static void
test_schemes(void **state)
{
    struct scheme a, b;

    (void)state;
    for (int i = 0; scheme_preset(i) != NULL; i++)
        for (int k = 0; scheme_preset(k) != NULL; k++) {
            bool same = i == k;

            assert_int_equal(scheme_find(&a, scheme_preset(i), false), RC_OK);
            assert_int_equal(scheme_find(&b, scheme_preset(k), false), RC_OK);
            if ((strcmp(a.name, "W8A8") == 0 && strcmp(b.name, "INT8") == 0) ||
                (strcmp(a.name, "INT8") == 0 && strcmp(b.name, "W8A8") == 0))
                same = true;
            if (check_fused_schemes(&a, &b) != same)
                fail_msg("%s and %s", a.name, b.name);
        }
    assert_int_equal(scheme_find(&a, "W4A16", false), RC_OK);
    b = a;
    memcpy(b.weights.observer, "mse", sizeof("mse"));
    b.weights.actorder = ACTORDER_STATIC;
    assert_true(check_fused_schemes(&a, &b)); /* what chose the codes is of no account */
    b.weights.group = 64;
    assert_false(check_fused_schemes(&a, &b));
    b = a;
    b.format = QFORMAT_INT;
    assert_false(check_fused_schemes(&a, &b));
}

static void
test_rules(void **state)
{
    (void)state;
    for (int i = 0; i < CHECK_RULE_COUNT; i++) {
        assert_non_null(check_rules[i].name);
        assert_non_null(check_rules[i].sentence);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(check_rules[i].name, check_rules[k].name);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_schemes),
        cmocka_unit_test(test_rules),
    };

    return cmocka_run_group_tests_name("check", tests, NULL, NULL);
}
