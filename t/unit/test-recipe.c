/* test-recipe - which module gets which scheme; LLM Compressor's files; what is refused. Runs from
 * the top of the tree. */
#include "golden.h"

#include "../../libcommon/recipe.h"

#include <stdarg.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static struct recipe *
read_file(const char *name)
{
    struct recipe *r;
    char path[256];

    snprintf(path, sizeof(path), "t/data/recipes/%s", name);
    if (recipe_read(&r, path, NULL) != RC_OK)
        fail_msg("%s", err_text());
    return r;
}

static struct recipe *
read_text(const char *text)
{
    struct recipe *r;

    if (recipe_read_mem(&r, text, strlen(text), "r.yaml", NULL) != RC_OK)
        fail_msg("%s", err_text());
    return r;
}

/* The two levels around one modifier's arguments in flow style. */
static struct recipe *
read_args(const char *modifier, const char *args)
{
    char text[2048];

    snprintf(text, sizeof(text), "a_stage:\n  b_modifiers:\n    %s: {%s}\n", modifier, args);
    return read_text(text);
}

static void
refuses(const char *text, const char *sentence)
{
    struct recipe *r;

    if (recipe_read_mem(&r, text, strlen(text), "r.yaml", NULL) != RC_DATA)
        fail_msg("%s\naccepted, want \"%s\"", text, sentence);
    if (strcmp(err_text(), sentence) != 0)
        fail_msg("%s\n\"%s\"\nwant\n\"%s\"", text, err_text(), sentence);
    assert_null(r);
}

/* As refuses, of arguments; sentence without "r.yaml: line 3: MODIFIER: ". */
static void
refuses_args(const char *modifier, const char *args, const char *sentence)
{
    char text[2048], full[512];

    snprintf(text, sizeof(text), "a_stage:\n  b_modifiers:\n    %s: {%s}\n", modifier, args);
    snprintf(full, sizeof(full), "r.yaml: line 3: %s: %s", modifier, sentence);
    refuses(text, full);
}

/* --- files --- */

static void
test_shipped(void **state)
{
    struct recipe *file, *preset;
    json_t *a, *b;
    char path[256], *p;
    int n = 0;

    (void)state;
    for (int i = 0; scheme_preset(i) != NULL; i++) {
        if (strcmp(scheme_preset(i), "UNQUANTIZED") == 0)
            continue;
        snprintf(path, sizeof(path), "share/recipes/%s.yaml", scheme_preset(i));
        for (p = path; *p != '\0'; p++)
            *p = (char)(*p >= 'A' && *p <= 'Z' ? *p - 'A' + 'a' : *p);
        if (recipe_read(&file, path, NULL) != RC_OK)
            fail_msg("%s", err_text());
        assert_int_equal(recipe_preset(&preset, scheme_preset(i), 0, true, NULL, false, false), RC_OK);
        assert_int_equal(recipe_json(file, &a), RC_OK);
        assert_int_equal(recipe_json(preset, &b), RC_OK);
        if (!json_equal(json_object_get(a, "groups"), json_object_get(b, "groups")))
            fail_msg("%s", path);
        json_decref(a);
        json_decref(b);
        recipe_free(file);
        recipe_free(preset);
        n++;
    }
    assert_int_equal(n, 30);
}

/* FILE: what each group is, "name gptq|rtn scheme order damp block targets". */
static void
test_files(void **state)
{
    static const char *const want[][4] = {
        { "minimal.yaml", "group_0 gptq W4A16 static 0.01 128 [\"Linear\"]" },
        { "minimal.json", "group_0 gptq W4A16 static 0.01 128 [\"Linear\"]" },
        { "minimal.md", "group_0 gptq W4A16 static 0.01 128 [\"Linear\"]" },
        { "saved.yaml", "group_0 gptq W4A16 static 0.01 128 [\"Linear\"]" },
        { "saved-tag.yaml", "group_0 gptq W4A16 static 0.01 128 [\"Linear\"]" },
        { "w8a8.yaml", "group_0 gptq  none 0.001 128 [\"Linear\"]" },
        { "actorder.yaml", "group_0 gptq  weight 0.01 64 [\"Linear\"]" },
        { "mixed.yaml", "down rtn FP8_DYNAMIC none 0.01 128 [\"re:.*\\\\.down_proj$\"]",
            "others rtn NVFP4 none 0.01 128 [\"re:.*self_attn\\\\.(k|o|q|v)_proj$\",\"re:.*\\\\.(gate|up)_proj$\"]" },
        { "two.yaml", "group_0 rtn FP8_DYNAMIC none 0.01 128 [\"re:.*self_attn\\\\.(k|q|o|v)_proj$\"]",
            "group_0 gptq W4A16 static 0.001 128 [\"re:.*mlp\\\\.(down|gate|up)_proj$\"]" },
        { "adopted.yaml", "group_0 gptq W4A16_ASYM weight 0.02 128 [\"Linear\"]",
            "group_1 gptq  none 0.02 128 [\"re:.*v_proj\"]" },
        { "presets.yaml", "group_0 gptq NVFP4A16 static 0.01 128 [\"re:.*mlp.*\"]",
            "group_1 gptq W8A16 static 0.01 128 [\"Linear\"]",
            "group_2 rtn UNQUANTIZED unset 0 0 [\"re:.*o_proj\"]" },
        { "stages.yaml", "group_0 gptq W4A16 static 0.01 128 [\"re:.*mlp.*\"]",
            "group_0 gptq W8A16 static 0.01 128 [\"re:.*self_attn.*\"]",
            "group_0 gptq W8A16 static 0.01 128 [\"lm_head\"]" },
        { "moe.yaml", "group_0 gptq NVFP4A16 static 0.01 128 [\"Linear\"]" },
        { "cache.yaml", NULL },
        { "observers.yaml", "group_0 gptq  static 0.01 128 [\"Linear\"]" },
    };
    static const char *const orders[] = { "unset", "none", "static", "weight" };
    char got[512], *targets;

    (void)state;
    for (size_t i = 0; i < COUNT(want); i++) {
        struct recipe *r = read_file(want[i][0]);

        for (int g = 0; g < 3; g++) {
            const struct recipe_group *p = &r->groups[g];

            assert_int_equal(g < r->group_count, want[i][g + 1] != NULL);
            if (g >= r->group_count)
                break;
            targets = json_dumps(p->targets, JSON_COMPACT);
            snprintf(got, sizeof(got), "%s %s %s %s %g %d %s", p->name, p->gptq ? "gptq" : "rtn",
                p->scheme.name, orders[p->scheme.weights.actorder], p->dampening_frac, p->block_size, targets);
            if (strcmp(got, want[i][g + 1]) != 0)
                fail_msg("%s: %s, want %s", want[i][0], got, want[i][g + 1]);
            assert_int_equal(p->actorder, p->scheme.weights.actorder >= ACTORDER_STATIC);
            assert_int_equal(recipe_needs_hessian(r, g), p->gptq);
            free(targets);
        }
        recipe_free(r);
    }
}

static void
test_details(void **state)
{
    struct recipe *r = read_file("w8a8.yaml");

    (void)state;
    assert_int_equal(r->groups[0].scheme.weights.bits, 8);
    assert_false(r->groups[0].scheme.input.symmetric);
    assert_int_equal(r->groups[0].scheme.input.dynamic, DYNAMIC_YES);
    assert_string_equal(r->modifiers[0].ignore[1].match.text, "re:.*vision_tower.*");
    recipe_free(r);
    r = read_file("observers.yaml");
    assert_string_equal(r->groups[0].scheme.weights.observer, "imatrix_mse");
    assert_int_equal(json_integer_value(json_object_get(r->groups[0].weight_kwargs, "grid")), 100);
    assert_int_equal(json_object_size(r->groups[0].input_kwargs), 1);
    recipe_free(r);
    r = read_file("presets.yaml");
    assert_string_equal(r->groups[1].scheme.weights.observer, "mse");
    assert_false(r->groups[2].scheme.has_weights);
    recipe_free(r);
    r = read_file("stages.yaml");
    assert_int_equal(r->modifier_count, 3);
    assert_string_equal(r->modifiers[1].stage, "second");
    assert_string_equal(r->modifiers[1].group, "attention");
    assert_string_equal(r->modifiers[2].group, "more");
    recipe_free(r);
    assert_int_equal(recipe_read(&r, "t/data/recipes/nowhere.yaml", NULL), RC_NOINPUT);
    assert_null(r);
}

/* --- round trips --- */

static json_t *
json_of(const struct recipe *r)
{
    json_t *j;

    if (recipe_json(r, &j) != RC_OK)
        fail_msg("%s", err_text());
    return j;
}

/* Through the plan's JSON as text, and through recipe.yaml: the same groups, modifiers, matches. */
static void
round_trip(const struct recipe *r, const char *name)
{
    json_t *a = json_of(r), *b, *c;
    struct recipe *again;
    char *text;

    assert_int_equal(jdump(a, true, &text), RC_OK);
    assert_int_equal(jread_mem(&b, text, strlen(text), "plan"), RC_OK);
    mem_free(text);
    if (r->group_count > 0) {
        if (recipe_from_json(&again, b) != RC_OK)
            fail_msg("%s: %s", name, err_text());
        c = json_of(again);
        if (!json_equal(a, c) || !json_equal(a, b))
            fail_msg("%s: JSON differs", name);
        json_decref(c);
        recipe_free(again);
    }
    json_decref(b);
    assert_int_equal(recipe_yaml(r, &text), RC_OK);
    if (recipe_read_mem(&again, text, strlen(text), "recipe.yaml", NULL) != RC_OK)
        fail_msg("%s: %s\n%s", name, err_text(), text);
    b = json_of(again);
    if (!json_equal(json_object_get(a, "groups"), json_object_get(b, "groups")))
        fail_msg("%s: YAML differs:\n%s", name, text);
    assert_int_equal(again->modifier_count, r->modifier_count);
    for (int i = 0; i < r->modifier_count; i++)
        assert_int_equal(again->modifiers[i].ignore_count, r->modifiers[i].ignore_count);
    mem_free(text);
    json_decref(a);
    json_decref(b);
    recipe_free(again);
}

static void
test_round_trips(void **state)
{
    DIR *d = opendir("t/data/recipes");
    struct dirent *e;
    struct recipe *r;
    int n = 0;

    (void)state;
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        r = read_file(e->d_name);
        round_trip(r, e->d_name);
        recipe_free(r);
        n++;
    }
    (void)closedir(d);
    assert_true(n >= 15);
    for (int i = 0; scheme_preset(i) != NULL; i++) {
        assert_int_equal(recipe_preset(&r, scheme_preset(i), 0, i % 2 == 0, NULL, false, false), RC_OK);
        round_trip(r, scheme_preset(i));
        recipe_free(r);
    }
    r = read_args("GPTQModifier", "scheme: W4A16, actorder: null, dampening_frac: 1.0e-30, ignore: "
        "['a: b', \"\\u2028\", 'yes', '1', 're:[\"\\\\]', '']");
    round_trip(r, "strings");
    recipe_free(r);
    r = read_text("a_stage: {q_modifiers: {GPTQModifier: {scheme: W4A16, targets: a}}}\n"
        "b_stage: {w_modifiers: {GPTQModifier: {scheme: W4A16, targets: b}}}\n"
        "c_stage: {q_modifiers: {GPTQModifier: {scheme: W8A16, targets: c}, QuantizationModifier: "
        "{scheme: FP8, targets: d}}, q_1_modifiers: {GPTQModifier: {scheme: W8A8, targets: e}}}\n");
    round_trip(r, "namesakes");
    recipe_free(r);
}

static void
test_yaml(void **state)
{
    struct recipe *r;
    char *text;

    (void)state;
    assert_int_equal(recipe_preset(&r, "w4a16", 0, true, NULL, false, false), RC_OK);
    assert_int_equal(recipe_yaml(r, &text), RC_OK);
    assert_string_equal(text,
        "default_stage:\n"
        "  default_modifiers:\n"
        "    GPTQModifier:\n"
        "      targets: [Linear]\n"
        "      ignore: [lm_head]\n"
        "      scheme: W4A16\n"
        "      weight_observer: imatrix_mse\n"
        "      bypass_divisibility_checks: false\n"
        "      block_size: 128\n"
        "      dampening_frac: 0.01\n"
        "      actorder: static\n");
    mem_free(text);
    recipe_free(r);
    assert_int_equal(recipe_preset(&r, "W4A16", 64, false, NULL, false, false), RC_OK);
    assert_string_equal(r->groups[0].scheme.name, "W4A16");
    assert_int_equal(r->groups[0].scheme.weights.group, 64);
    assert_false(r->groups[0].gptq);
    assert_int_equal(recipe_yaml(r, &text), RC_OK);
    assert_non_null(strstr(text, "            group_size: 64\n            strategy: group\n"));
    mem_free(text);
    recipe_free(r);
    assert_int_equal(recipe_preset(&r, "W8A8", -1, true, NULL, false, false), RC_OK);
    assert_int_equal(r->groups[0].scheme.weights.strategy, ARGS_CHANNEL);
    recipe_free(r);
    assert_int_equal(recipe_preset(&r, "W5A99", 0, true, NULL, false, false), RC_DATA);
    assert_string_equal(err_text(), "W5A99: unknown scheme");
    assert_null(r);
    assert_int_equal(recipe_preset(&r, "FP8", 32, true, NULL, false, false), RC_DATA);
    assert_string_equal(err_text(), "a group size can be chosen for integer weights only");
}

/* A plan whose groups are not those that its modifiers give. */
static void
test_plan_changed(void **state)
{
    struct recipe *r, *again;
    json_t *j, *g;

    (void)state;
    assert_int_equal(recipe_preset(&r, "W8A16", 0, true, NULL, false, false), RC_OK);
    j = json_of(r);
    g = json_array_get(json_object_get(j, "groups"), 0);
    json_object_set_new(g, "block_size", json_integer(64));
    assert_int_equal(recipe_from_json(&again, j), RC_DATA);
    assert_string_equal(err_text(), "the recipe's groups do not follow from its modifiers");
    json_object_del(j, "modifiers");
    assert_int_equal(recipe_from_json(&again, j), RC_DATA);
    assert_string_equal(err_text(), "the recipe has no groups");
    assert_null(again);
    json_decref(j);
    recipe_free(r);
}

/* Configurations that the libraries wrote give back their schemes. */
static void
test_configs(void **state)
{
    (void)state;
    for (const char *const *v = golden_versions; *v != NULL; v++) {
        json_t *all, *config, *group, *got;
        const char *key, *name;
        struct recipe *r;

        golden_json(&all, *v, "configs");
        json_object_foreach(all, key, config) {
            int i = 0;

            if (recipe_from_config(&r, config) != RC_OK)
                fail_msg("%s/%s: %s", *v, key, err_text());
            json_object_foreach(json_object_get(config, "config_groups"), name, group) {
                assert_int_equal(scheme_json(&r->groups[i].scheme, r->groups[i].targets, &got), RC_OK);
                for (int side = 0; side < 2; side++) { /* what chose the scales is not read */
                    const char *part = side == 0 ? "weights" : "input_activations";

                    json_object_del(json_object_get(got, part), "observer");
                    json_object_del(json_object_get(group, part), "observer");
                    json_object_del(json_object_get(got, part), "actorder");
                    json_object_del(json_object_get(group, part), "actorder");
                }
                if (json_is_null(json_object_get(group, "format")))
                    json_object_del(got, "format");
                json_object_update_missing(got, group);
                if (!json_equal(got, group))
                    fail_msg("%s/%s differs", *v, key);
                json_decref(got);
                i++;
            }
            assert_int_equal(i, r->group_count);
            recipe_free(r);
        }
        json_decref(all);
    }
}

/* --- modules --- */

static int
matches(const char *entry, const char *name, const char *classes)
{
    struct match m;
    int kind;

    if (match_init(&m, entry) != RC_OK)
        fail_msg("%s", err_text());
    kind = match_module(&m, name, classes);
    match_free(&m);
    return kind;
}

static void
test_match(void **state)
{
    static const struct {
        const char *entry, *name;
        enum match_kind kind;
    } rows[] = {
        { "re:model.layers.1", "model.layers.1.mlp.up_proj", MATCH_REGEX },
        { "re:model.layers.1", "model.layers.10.mlp.up_proj", MATCH_REGEX },
        { "re:model.layers.1", "model.layers.19.mlp.up_proj", MATCH_REGEX },
        { "re:model.layers.1", "model.layers.2.mlp.up_proj", MATCH_NO },
        { "re:model.layers.1", "modelxlayersx1", MATCH_REGEX },
        { "re:layers.1", "model.layers.1.mlp.up_proj", MATCH_NO }, /* from the start */
        { "re:.*layers\\.1\\.", "model.layers.10.mlp.up_proj", MATCH_NO },
        { "re:model.layers.1$", "model.layers.1.mlp", MATCH_NO },
        { "re:.*self_attn\\.(q|k|v)_proj$", "model.layers.3.self_attn.k_proj", MATCH_REGEX },
        { "re:.*self_attn\\.(q|k|v)_proj$", "model.layers.3.self_attn.o_proj", MATCH_NO },
        { "re:a|b", "bc", MATCH_REGEX },
        { "re:", "anything", MATCH_REGEX },
        { "re:Linear", "x", MATCH_NO }, /* never a class */
        { "model.layers.1", "model.layers.1", MATCH_NAME },
        { "model.layers.1", "model.layers.10", MATCH_NO },
        { "lm_head", "model.lm_head", MATCH_NO },
        { "Linear", "model.lm_head", MATCH_CLASS },
        { "Router", "model.lm_head", MATCH_CLASS },
        { "Lin", "model.lm_head", MATCH_NO },
        { "Router Linear", "model.lm_head", MATCH_NO },
        { "", "model.lm_head", MATCH_NO },
        { "linear", "model.lm_head", MATCH_NO },
        { "Linear", "Linear", MATCH_NAME },
        /* Python's syntax */
        { "re:(?P<l>a)(?P=l)\\Z", "aa", MATCH_REGEX },
        { "re:a\\Z", "a\n", MATCH_NO },
        { "re:a$", "a\n", MATCH_REGEX },
        { "re:a\\vb", "a\nb", MATCH_NO },
        { "re:\\x61\\u0062\\U00000063", "abc", MATCH_REGEX },
        { "re:a{,2}b", "aab", MATCH_REGEX },
        { "re:a{,2}b", "a{,2}b", MATCH_NO },
        { "re:a{x}", "a{x}", MATCH_REGEX },
        { "re:a{ 1}", "a{ 1}", MATCH_REGEX },
        { "re:[[:a]", ":", MATCH_REGEX },
        { "re:[[:alpha:]]", "a]", MATCH_REGEX },
        { "re:[[:alpha:]]", "b", MATCH_NO },
        { "re:[]x]", "]", MATCH_REGEX },
        { "re:(?i)ABC", "abc", MATCH_REGEX },
        { "re:a(?i:B)c", "abc", MATCH_REGEX },
        { "re:(?#no)a(?#yes)b", "ab", MATCH_REGEX },
        { "re:(a)?b(?(1)c|d)", "bd", MATCH_REGEX },
        { "re:(?P<x>a)?b(?(x)c|d)", "abc", MATCH_REGEX },
        { "re:(?!lm_head)", "lm_head", MATCH_NO },
        { "re:.*(?<!down)_proj$", "down_proj", MATCH_NO },
        { "re:\\w+\\.\xc3\xa9$", "\xc3\x89.\xc3\xa9", MATCH_REGEX },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++)
        if (matches(rows[i].entry, rows[i].name, "Router Linear") != (int)rows[i].kind)
            fail_msg("%s with %s is not %d", rows[i].entry, rows[i].name, (int)rows[i].kind);
    assert_int_equal(matches("Linear", "x", ""), MATCH_NO);
    assert_int_equal(matches("re:(a|aa)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", ""), MATCH_ERROR);
    assert_string_equal(err_text(), "pattern \"re:(a|aa)+$\" cannot be matched with "
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac: too many steps");
    assert_int_equal(matches("re:a", "\xff", ""), MATCH_ERROR);
}

static void
test_bad_patterns(void **state)
{
    static const char *const rows[][2] = {
        { "re:.*(q_proj", "pattern \"re:.*(q_proj\": missing closing parenthesis" },
        { "re:*a", "pattern \"re:*a\": quantifier does not follow a repeatable item" },
        { "re:[a", "pattern \"re:[a\": missing ] at character 4" },
        { "re:a\\", "pattern \"re:a\\\": pattern ends in an escape at character 5" },
        { "re:\\h", "pattern \"re:\\h\": unknown escape at character 4" },
        { "re:a\\Qb\\E", "pattern \"re:a\\Qb\\E\": unknown escape at character 5" },
        { "re:[\\Z]", "pattern \"re:[\\Z]\": unknown escape at character 5" },
        { "re:\\x1", "pattern \"re:\\x1\": incomplete escape at character 4" },
        { "re:\\01", "pattern \"re:\\01\": octal codes and references above 9 are not supported at character 4" },
        { "re:(*FAIL)", "pattern \"re:(*FAIL)\": nothing to repeat at character 4" },
        { "re:(?R)", "pattern \"re:(?R)\": unknown group or flag at character 4" },
        { "re:(?<n>a)", "pattern \"re:(?<n>a)\": unknown group or flag at character 4" },
        { "re:(?x) a", "pattern \"re:(?x) a\": unknown group or flag at character 4" },
        { "re:a(?i)b", "pattern \"re:a(?i)b\": flags that are not at the start at character 5" },
        { "re:(?#a", "pattern \"re:(?#a\": missing ) at character 4" },
    };
    struct match m;
    char longer[5000];

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (match_init(&m, rows[i][0]) != RC_DATA)
            fail_msg("%s: accepted", rows[i][0]);
        assert_string_equal(err_text(), rows[i][1]);
    }
    memset(longer, 'a', sizeof(longer) - 1);
    memcpy(longer, "re:", 3);
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(match_init(&m, longer), RC_DATA);
    assert_string_equal(err_text(),
        "pattern \"re:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...\" is longer than 4096 bytes");
}

/* GROUP of each module, and why when there is none. */
static void
finds(struct recipe *r, const char *module, const char *classes, int group, const char *why)
{
    const char *got_why;
    int got = recipe_find(r, module, classes, &got_why);

    if (got != group || strcmp(got_why, why) != 0)
        fail_msg("%s: %d \"%s\", want %d \"%s\"", module, got, got_why, group, why);
}

static void
test_precedence(void **state)
{
    struct recipe *r = read_args("QuantizationModifier", "config_groups: {"
        "a: {targets: [Linear, Embedding], weights: {num_bits: 4, strategy: channel}},"
        "b: {targets: ['re:.*up_proj', 're:zz'], weights: {num_bits: 5, strategy: channel}},"
        "c: {targets: [m.1.up_proj], weights: {num_bits: 6, strategy: channel}},"
        "d: {targets: ['re:.*proj', Base], weights: {num_bits: 7, strategy: channel}}}, "
        "ignore: [lm_head, 're:.*gate$', Router]");

    (void)state;
    finds(r, "m.0.x", "Linear", 0, "");
    finds(r, "m.0.up_proj", "Linear", 3, "");  /* "re:.*proj" sorts before "re:.*up_proj" */
    finds(r, "m.1.up_proj", "Linear", 2, "");  /* a name beats both */
    finds(r, "m.0.q_proj", "Linear", 3, "");   /* a regular expression beats a class */
    finds(r, "m.0.y", "Sub Base Linear", 3, ""); /* of classes the alphabetically first */
    finds(r, "zz", "Linear", 1, "");
    finds(r, "m.embed", "Embedding", 0, "");
    finds(r, "m.norm", "RMSNorm", -1, "no target matches");
    finds(r, "lm_head", "Linear", -1, "ignored by lm_head");
    finds(r, "m.0.gate", "Linear", -1, "ignored by re:.*gate$");
    finds(r, "m.0.gate_proj", "Router Linear", -1, "ignored by Router");
    assert_int_equal(recipe_check_used(r), RC_OK);
    assert_int_equal(recipe_find(r, "m.0.x", "Linear", NULL), 0);
    recipe_free(r);
}

static void
check_says(struct recipe *r, const char *sentence)
{
    assert_int_equal(recipe_check_used(r), RC_DATA);
    assert_string_equal(err_text(), sentence);
    recipe_free(r);
}

static void
test_unused(void **state)
{
    struct recipe *r = read_args("GPTQModifier", "scheme: W4A16, targets: ['re:.*q_proj', 're:.*k_porj']");

    (void)state;
    finds(r, "m.q_proj", "Linear", 0, "");
    check_says(r, "r.yaml: target \"re:.*k_porj\" matches no module");
    r = read_args("GPTQModifier", "scheme: W4A16, ignore: [lm_head, 're:.*vision.*']");
    finds(r, "m.q_proj", "Linear", 0, "");
    finds(r, "lm_head", "Linear", -1, "ignored by lm_head");
    assert_int_equal(recipe_check_used(r), RC_OK); /* a warning */
    recipe_free(r);
    r = read_args("GPTQModifier", "scheme: W4A16, ignore: [lm_haed]");
    finds(r, "m.q_proj", "Linear", 0, "");
    check_says(r, "r.yaml: ignore entry \"lm_haed\" matches no module");
    r = read_args("GPTQModifier", "scheme: W4A16, targets: ['re:(a|aa)+$', Linear]");
    finds(r, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", "Linear", 0, "");
    check_says(r, "r.yaml: pattern \"re:(a|aa)+$\" cannot be matched with "
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac: too many steps");
    assert_int_equal(recipe_preset(&r, "W4A16", 0, true, NULL, false, false), RC_OK);
    finds(r, "m.q_proj", "Linear", 0, "");
    check_says(r, "ignore entry \"lm_head\" matches no module");

    r = read_file("cache.yaml");
    assert_int_equal(recipe_check_used(r), RC_OK);
    recipe_free(r);
    check_says(read_args("QuantizationModifier", "scheme: FP8, input_observer: mse"),
        "r.yaml: group_0: observer \"mse\" of inputs is not supported; there is static_minmax, and minmax and "
        "memoryless_minmax, which are done alike");
    check_says(read_args("QuantizationModifier", "config_groups: {g: {targets: Linear, weights: {}, "
        "input_activations: {strategy: group, group_size: 32}}}"),
        "r.yaml: g: static scales of inputs are not supported but for strategy tensor");
    check_says(read_file("observers.yaml"), "t/data/recipes/observers.yaml: group_0: "
        "observer_kwargs of inputs are not supported");
    check_says(read_args("GPTQModifier", "config_groups: {g: {targets: Linear, weights: {observer: "
        "minmax, observer_kwargs: {x: 1}}}}"), "r.yaml: g: observer_kwargs: x does not go with observer minmax");
}

static void
test_modifiers(void **state)
{
    struct recipe *r = read_file("two.yaml");

    (void)state;
    finds(r, "m.0.self_attn.q_proj", "Linear", 0, "");
    finds(r, "m.0.mlp.up_proj", "Linear", 1, "");
    finds(r, "lm_head", "Linear", -1, "ignored by lm_head");
    assert_int_equal(recipe_check_used(r), RC_OK);
    recipe_free(r);

    r = read_file("presets.yaml");
    finds(r, "m.0.mlp.up_proj", "Linear", 0, "");
    finds(r, "m.0.self_attn.o_proj", "Linear", -1, "left alone by re:.*o_proj");
    finds(r, "m.0.self_attn.q_proj", "Linear", 1, "");
    recipe_free(r);

    r = read_text("a_stage:\n  x_modifiers:\n    GPTQModifier: {scheme: W4A16, ignore: ['re:.*attn.*']}\n"
        "  y_modifiers:\n    QuantizationModifier: {scheme: W8A8, targets: ['re:.*attn.*']}\n");
    finds(r, "m.0.attn.q", "Linear", 1, "");
    finds(r, "m.0.mlp.up", "Linear", 0, "");
    assert_int_equal(recipe_check_used(r), RC_OK);
    recipe_free(r);

    r = read_text("a_stage:\n  x_modifiers:\n    GPTQModifier: {scheme: W4A16}\n"
        "  y_modifiers:\n    QuantizationModifier: {scheme: W8A8, targets: ['re:.*attn.*']}\n");
    finds(r, "m.0.mlp.up", "Linear", 0, "");
    finds(r, "m.0.attn.q", "Linear", 0, "");
    check_says(r, "r.yaml: m.0.attn.q: GPTQModifier of x_modifiers compresses it, and "
        "QuantizationModifier of y_modifiers again");

    r = read_text("a_stage:\n  x_modifiers:\n    GPTQModifier: {scheme: W4A16, ignore: ['re:.*attn.*']}\n"
        "  y_modifiers:\n    GPTQModifier: {scheme: W8A8, ignore: ['re:.*mlp.*']}\n");
    finds(r, "m.0.attn.q", "Linear", 1, "");
    finds(r, "m.0.mlp.up", "Linear", 0, "");
    check_says(r, "r.yaml: m.0.mlp.up: target \"Linear\" compresses it, but \"Linear\" of another "
        "modifier goes first for readers of the checkpoint");

    r = read_file("adopted.yaml");
    finds(r, "m.0.v_proj", "Linear", 1, "");
    finds(r, "m.0.q_proj", "Linear", 0, "");
    finds(r, "lm_head", "Linear", -1, "ignored by lm_head");
    assert_true(recipe_needs_hessian(r, 0));
    recipe_free(r);
}

/* --- arguments --- */

static void
test_actorder(void **state)
{
    static const struct {
        const char *modifier, *scheme;
        enum actorder want; /* UNSET: refused */
    } rows[] = {
        { "", "", ACTORDER_STATIC },
        { "", ", actorder: null", ACTORDER_STATIC },
        { "", ", actorder: false", ACTORDER_STATIC },
        { "", ", actorder: weight", ACTORDER_WEIGHT },
        { "", ", actorder: Static", ACTORDER_STATIC },
        { "actorder: null, ", "", ACTORDER_NONE },
        { "actorder: weight, ", "", ACTORDER_WEIGHT },
        { "actorder: STATIC, ", ", actorder: weight", ACTORDER_STATIC }, /* names of the same */
        { "actorder: weight, ", ", actorder: weight", ACTORDER_WEIGHT },
        { "actorder: null, ", ", actorder: weight", ACTORDER_UNSET },
        { "actorder: null, ", ", actorder: null", ACTORDER_NONE },
    };
    char args[512];

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct recipe *r;

        snprintf(args, sizeof(args), "%sconfig_groups: {g: {targets: [Linear], weights: "
            "{num_bits: 4, group_size: 32%s}}}", rows[i].modifier, rows[i].scheme);
        if (rows[i].want == ACTORDER_UNSET) {
            refuses_args("GPTQModifier", args, "g: actorder of the modifier and of its scheme differ");
            continue;
        }
        r = read_args("GPTQModifier", args);
        assert_int_equal(r->groups[0].scheme.weights.actorder, rows[i].want);
        assert_int_equal(r->groups[0].actorder, rows[i].want != ACTORDER_NONE);
        recipe_free(r);
    }
}

/* As 0.10 resolves it: the modifier's order reaches strategy group alone, and "group" is one. */
static void
test_v10(void **state)
{
    static const struct {
        const char *args;
        enum actorder want;  /* UNSET: refused */
        const char *says;
    } rows[] = {
        { "scheme: W4A16", ACTORDER_STATIC, NULL },
        { "scheme: W4A16, actorder: group", ACTORDER_GROUP, NULL },
        { "scheme: W4A16, actorder: null", ACTORDER_NONE, NULL },
        { "scheme: W8A16", ACTORDER_NONE, NULL }, /* a channel */
        { "scheme: W8A8, actorder: group", ACTORDER_NONE, NULL },
        { "scheme: NVFP4A16", ACTORDER_NONE, NULL },
        { "scheme: NVFP4A16, actorder: weight", ACTORDER_NONE, NULL },
        { "scheme: MXFP4A16", ACTORDER_STATIC, NULL },
        { "scheme: MXFP4A16, actorder: group", ACTORDER_UNSET, "wants integers with strategy group" },
        { "scheme: W4A8, actorder: group", ACTORDER_UNSET, "wants format pack-quantized" },
        { "config_groups: {g: {targets: [Linear], weights: {num_bits: 4, group_size: 32, actorder: true}}}",
            ACTORDER_GROUP, NULL },
        { "actorder: dynamic, config_groups: {g: {targets: [Linear], weights: {num_bits: 4, group_size: 32, "
            "actorder: group}}}", ACTORDER_DYNAMIC, NULL },
        { "actorder: static, config_groups: {g: {targets: [Linear], weights: {num_bits: 4, group_size: 32, "
            "actorder: group}}}", ACTORDER_UNSET, "actorder of the modifier and of its scheme differ" },
        { "config_groups: {g: {targets: [Linear], weights: {num_bits: 4, type: float, strategy: tensor_group, "
            "group_size: 16, actorder: weight}}}", ACTORDER_WEIGHT, NULL },
        { "config_groups: {g: {targets: [Linear], weights: {num_bits: 8, strategy: channel, actorder: weight}}}",
            ACTORDER_UNSET, "wants strategy group or tensor_group" },
        { "config_groups: {g: {targets: [Linear], weights: {num_bits: 3, strategy: channel}}}", ACTORDER_UNSET,
            "packs integers of 4 and 8 bits" },
        { "scheme: FP8_BLOCK", ACTORDER_UNSET, "has no GPTQ of blocks" },
        { "scheme: W3A16", ACTORDER_UNSET, "W3A16: LLM Compressor 0.10 has no such scheme" },
    };
    const struct recipe_opts v10 = { .v10 = true };
    char text[512];
    struct recipe *r;

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        int rc;

        snprintf(text, sizeof(text), "a_stage:\n  b_modifiers:\n    GPTQModifier: {%s}\n", rows[i].args);
        rc = recipe_read_mem(&r, text, strlen(text), "r.yaml", &v10);
        if ((rc == RC_OK) != (rows[i].says == NULL) || (rc != RC_OK && strstr(err_text(), rows[i].says) == NULL))
            fail_msg("%s: %s", rows[i].args, rc == RC_OK ? "accepted" : err_text());
        if (rc != RC_OK)
            continue;
        assert_int_equal(r->groups[0].scheme.weights.actorder, rows[i].want);
        assert_int_equal(r->groups[0].actorder, rows[i].want != ACTORDER_NONE);
        recipe_free(r);
    }
    assert_int_equal(recipe_preset(&r, "w8a16", 0, true, NULL, true, false), RC_OK);
    assert_int_equal(r->groups[0].scheme.weights.strategy, ARGS_CHANNEL);
    assert_string_equal(r->groups[0].scheme.weights.observer, "memoryless_minmax");
    recipe_free(r);
    snprintf(text, sizeof(text), "a_stage: {b_modifiers: {QuantizationModifier: {config_groups: {g: {targets: [Linear], "
        "weights: {num_bits: 4, group_size: 32, actorder: group}}}}}}");
    assert_int_equal(recipe_read_mem(&r, text, strlen(text), "r.yaml", &v10), RC_OK);
    check_says(r, "r.yaml: g: actorder group wants GPTQModifier");
}

/* Stages whose name starts with what is asked for. */
static void
test_stage(void **state)
{
    static const char text[] = "first_stage: {a_modifiers: {SmoothQuantModifier: {}}}\n"
        "quant_1_stage: {a_modifiers: {GPTQModifier: {scheme: W4A16}}}\n"
        "quant_2_stage: {a_modifiers: {GPTQModifier: {scheme: W8A16}}}\n";
    static const struct {
        const char *stage;
        int         groups;
    } rows[] = { { "quant", 2 }, { "quant_2", 1 }, { "quant_1_stage", 1 }, { "first", 0 }, { "Quant", 0 } };
    struct recipe *r;

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct recipe_opts o = { .stage = rows[i].stage };
        int rc = recipe_read_mem(&r, text, strlen(text), "r.yaml", &o);

        assert_int_equal(rc, rows[i].groups > 0 ? RC_OK : RC_DATA);
        if (rc == RC_OK)
            assert_int_equal(r->group_count, rows[i].groups);
        recipe_free(r);
    }
    assert_string_equal(err_text(), "r.yaml: no modifier in a stage whose name starts with Quant");
}

static void
test_observers(void **state)
{
    static const char *const names[][2] = {
        { "minmax", "minmax" }, { "static_minmax", "static_minmax" }, { "Memoryless-MinMax", "memoryless_minmax" },
        { "mse", "mse" }, { "memoryless mse", "memoryless_mse" }, { "imatrix_mse", "imatrix_mse" },
        { "nvfp4_expanded_mse", "nvfp4_expanded_mse" }, { "nvfp4_expanded_imatrix", "nvfp4_expanded_imatrix" },
    };
    struct recipe *r;
    char args[256];

    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        snprintf(args, sizeof(args), "scheme: FP8, weight_observer: %s, input_observer: %s, output_observer: mse",
            names[i][0], names[i][0]);
        r = read_args("GPTQModifier", args);
        assert_string_equal(r->groups[0].scheme.weights.observer, names[i][1]);
        assert_string_equal(r->groups[0].scheme.input.observer, names[i][1]);
        recipe_free(r);
    }
    r = read_args("GPTQModifier", "scheme: W8A8, observer: {weights: mse, input: minmax}");
    assert_string_equal(r->groups[0].scheme.weights.observer, "mse");
    assert_string_equal(r->groups[0].scheme.input.observer, ""); /* at run time */
    recipe_free(r);
}

static void
test_values(void **state)
{
    struct recipe *r = read_args("GPTQModifier", "scheme: w4a16, targets: Linear, ignore: null, "
        "dampening_frac: 1e-3, block_size: 4096, bypass_divisibility_checks: yes, group: x, index: null, "
        "sequential_targets: [Layer], kv_cache_scheme: null, observer: null, batched_quantization: 4, update: 1.5");

    (void)state;
    assert_true(r->groups[0].dampening_frac == 1e-3);
    assert_int_equal(r->groups[0].block_size, 4096);
    assert_true(r->bypass_divisibility);
    assert_string_equal(r->modifiers[0].group, "x");
    recipe_free(r);
    r = read_args("GPTQModifier", "scheme: W4A16, dampening_frac: 1, batched_quantization: auto");
    assert_true(r->groups[0].dampening_frac == 1);
    recipe_free(r);
    r = read_args("GPTQModifier", "scheme: W4A16, dampening_frac: null");
    assert_true(r->groups[0].dampening_frac == 0.01);
    recipe_free(r);
    r = read_args("GPTQModifier", "config_groups: {g: {targets: [Linear], weights: {type: float, num_bits: 8, "
        "strategy: block, block_structure: 64x32}, format: float-quantized}}");
    assert_int_equal(r->groups[0].scheme.weights.block[1], 32);
    recipe_free(r);
}

static void
test_refused_modifiers(void **state)
{
    static const char *const names[] = { "AWQModifier", "SmoothQuantModifier", "SparseGPTModifier",
        "WandaPruningModifier", "SpinQuantModifier", "QuIPModifier", "AutoRoundModifier", "GPTQ", "gptqmodifier" };
    char text[256], sentence[256];

    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        snprintf(text, sizeof(text), "# c\nquant_stage:\n  quant_modifiers:\n    %s:\n      ignore: [x]\n",
            names[i]);
        snprintf(sentence, sizeof(sentence), "r.yaml: line 4: modifier %s is not supported; "
            "llmc does GPTQModifier and QuantizationModifier", names[i]);
        refuses(text, sentence);
    }
}

static void
test_refused_stages(void **state)
{
    (void)state;
    refuses("", "r.yaml: empty document");
    refuses("- a\n", "r.yaml: not a mapping of stages");
    refuses("GPTQModifier:\n  scheme: W4A16\n", "r.yaml: line 1: \"GPTQModifier\" is not a stage; "
        "names of stages end in _stage");
    refuses("_stage: {}\n", "r.yaml: line 1: \"_stage\" is not a stage; names of stages end in _stage");
    refuses("a_stage: 1\n", "r.yaml: line 1: \"a_stage\" is not a stage; names of stages end in _stage");
    refuses("a_stage: {}\nargs: {x: 1}\n", "r.yaml: line 2: \"args\" is not a stage; names of stages end in _stage");
    refuses("a_stage:\n  b: {}\n", "r.yaml: line 2: \"b\" is not a group of modifiers; "
        "names of groups end in _modifiers");
    refuses("a_stage:\n  b_modifiers: []\n", "r.yaml: line 2: \"b_modifiers\" is not a group of modifiers; "
        "names of groups end in _modifiers");
    refuses("a_stage:\n  b_modifiers: {}\n", "r.yaml: no modifier");
    refuses("a_stage:\n  b_modifiers:\n    GPTQModifier:\n",
        "r.yaml: line 3: GPTQModifier: arguments are not a mapping");
    refuses("a_stage:\n  b_modifiers:\n    GPTQModifier:\n      scheme: W4A16\n\n      damping_frac: 0.1\n",
        "r.yaml: line 6: GPTQModifier: unknown argument damping_frac");
    refuses("a_stage:\n  b_modifiers:\n    GPTQModifier:\n      scheme: W4A16\n      scheme: W8A16\n",
        "r.yaml: line 5: key \"scheme\" stands twice");
    refuses("a_stage:\n  b_modifiers:\n    GPTQModifier:\n      config_groups:\n        g:\n          targets: [x]\n"
        "          weights:\n            num_bits: 4\n            nbits: 4\n",
        "r.yaml: line 9: GPTQModifier: g: weights: nbits: unknown key");
    refuses("a_stage:\n  b_modifiers:\n    GPTQModifier:\n      scheme: W4A16\n      ignore: ['re:(']\n",
        "r.yaml: line 5: GPTQModifier: pattern \"re:(\": missing closing parenthesis");
    refuses("a_stage:\n  b_modifiers:\n    QuantizationModifier: {scheme: W4A16}\n    GPTQModifier: {ignore: [x]}\n",
        "r.yaml: line 4: GPTQModifier: without scheme and config_groups it cannot have targets, ignore, "
        "observers or kv_cache_scheme");
    refuses("a_stage:\n  b_modifiers:\n    GPTQModifier: {scheme: W4A16}\n  c_modifiers:\n    GPTQModifier: {}\n",
        "r.yaml: line 5: GPTQModifier: without scheme and config_groups it can follow QuantizationModifier only");
    refuses("a_stage:\n  b_modifiers:\n    GPTQModifier: {scheme: W4A16}\n    QuantizationModifier: {scheme: W8A8,\n"
        "      bypass_divisibility_checks: true}\n", "r.yaml: line 4: QuantizationModifier: "
        "bypass_divisibility_checks differs from the modifier before");
}

#define NO_CACHE "kv_cache_scheme: not supported but for 8-bit floats, not dynamic, strategy tensor or attn_head"

static void
test_refused_args(void **state)
{
    static const char *const rows[][2] = {
        { "", "neither scheme nor config_groups" },
        { "targets: [Linear], config_groups: {}", "neither scheme nor config_groups" },
        { "scheme: {}", "neither scheme nor config_groups" },
        { "scheme: W4A16, config_groups: {}", "scheme and config_groups exclude each other" },
        { "scheme: W9A16", "W9A16: unknown scheme" },
        { "scheme: {W4A16: {x: 1}}", "W4A16 is not a list of strings" },
        { "scheme: {W4A16: []}", "group_0 has no targets" },
        { "scheme: {W4A16: null}", "W4A16 is not a list of strings" },
        { "scheme: {weights: Linear}", "weights: unknown scheme" },
        { "scheme: [W4A16]", "scheme is neither a name nor a mapping from names to targets" },
        { "scheme: {W4A16: [a, b], W8A16: [c, b]}", "target \"b\" stands in group_0 and in group_1" },
        { "scheme: W4A16, targets: {a: b}", "targets is not a list of strings" },
        { "scheme: W4A16, targets: [1]", "targets is not a list of strings" },
        { "scheme: W4A16, ignore: 3", "ignore is not a list of strings" },
        { "scheme: W4A16, dampening_frac: -0.1", "dampening_frac is negative" },
        { "scheme: W4A16, dampening_frac: little", "dampening_frac is not a number" },
        { "scheme: W4A16, dampening_frac: ''", "dampening_frac is not a number" },
        { "scheme: W4A16, dampening_frac: 1e999", "dampening_frac is not a number" },
        { "scheme: W4A16, dampening_frac: [1]", "dampening_frac is not a number" },
        { "scheme: W4A16, block_size: 0", "block_size is 0, want 1 to 1048576" },
        { "scheme: W4A16, block_size: 1.5", "block_size is not an integer" },
        { "scheme: W4A16, actorder: group", "actorder group is not supported but with --compat 0.10; there are static, weight, null" },
        { "scheme: W4A16, actorder: Dynamic", "actorder Dynamic is not supported but with --compat 0.10; there are static, weight, null" },
        { "scheme: W4A16, actorder: true", "actorder is not static, weight or null" },
        { "scheme: W4A16, actorder: sometimes", "actorder is not static, weight or null" },
        { "scheme: W4A16, bypass_divisibility_checks: 1", "bypass_divisibility_checks is not true or false" },
        { "scheme: W4A16, sequential_targets: 1", "sequential_targets is not a list of strings" },
        { "scheme: W4A16, batched_quantization: many", "batched_quantization: unknown value" },
        { "scheme: W4A16, start: now", "start: unknown value" },
        { "scheme: W4A16, group: 1", "group is not a string" },
        { "scheme: W4A16, weight_observer: percentile", "observer: unknown value percentile" },
        { "scheme: W4A16, weight_observer: minma", "observer: unknown value minma" },
        { "scheme: W4A16, input_observer: [mse]", "input_observer is not a string" },
        { "scheme: W4A16, observer: mse", "observer is not a mapping" },
        { "scheme: W4A16, observer: {weight: mse}", "observer: unknown key weight; there are weights, input, output" },
        { "scheme: W4A16, observer: {weights: 1}", "observer: weights is not a string" },
        { "scheme: W4A16, weight_observer: mse, observer: {weights: mse}",
            "observer excludes weight_observer, input_observer and output_observer" },
        { "scheme: W4A16, kv_cache_scheme: {num_bits: 9}", "kv_cache_scheme: inputs: num_bits is 9, want 1 to 8" },
        { "scheme: W4A16, kv_cache_scheme: {bits: 8}", "kv_cache_scheme: bits: unknown key" },
        { "scheme: W4A16, kv_cache_scheme: 8", "kv_cache_scheme is not a mapping" },
        { "scheme: W4A16, kv_cache_scheme: {num_bits: 8, type: int}", NO_CACHE },
        { "scheme: W4A16, kv_cache_scheme: {num_bits: 4, type: float}", NO_CACHE },
        { "scheme: W4A16, kv_cache_scheme: {type: float, strategy: token, dynamic: true}", NO_CACHE },
        { "scheme: W4A16, kv_cache_scheme: {type: float, strategy: group, group_size: 16}", NO_CACHE },
        { "scheme: W4A16, kv_cache_scheme: {type: float, symmetric: false}",
            "kv_cache_scheme: inputs: float numbers must be symmetric" },
        { "scheme: W4A16, kv_cache_scheme: {type: float, observer: mse}", "kv_cache_scheme: observer \"mse\" is not "
            "supported; there is static_minmax, and minmax and memoryless_minmax, which are done alike" },
        { "scheme: W4A16, kv_cache_scheme: {type: float, observer_kwargs: {averaging_constant: 0.1}}",
            "kv_cache_scheme: observer_kwargs are not supported" },
        { "scheme: W4A16, config_groups: 1", "config_groups is not a mapping" },
        { "scheme: W4A16, smoothing_strength: 0.8", "unknown argument smoothing_strength" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++)
        refuses_args("GPTQModifier", rows[i][0], rows[i][1]);
    refuses_args("QuantizationModifier", "", "neither scheme nor config_groups");
    refuses_args("QuantizationModifier", "scheme: W4A16, dampening_frac: 0.1", "unknown argument dampening_frac");
    refuses_args("QuantizationModifier", "scheme: W4A16, actorder: null", "unknown argument actorder");
    refuses_args("GPTQModifier", "scheme: W4A16, observer: {weights: mse}, input_observer: mse",
        "observer excludes weight_observer, input_observer and output_observer");
}

/* Of all modifiers there is one; it survives the plan and config.json. */
static void
test_cache(void **state)
{
    static const char two[] = "a_stage:\n  b_modifiers:\n"
        "    QuantizationModifier: {kv_cache_scheme: {num_bits: 8, type: float, strategy: attn_head}}\n"
        "    GPTQModifier: {scheme: W4A16, kv_cache_scheme: {num_bits: 8, type: float%s}}\n";
    struct recipe *r = read_file("cache.yaml"), *back;
    char text[512];
    json_t *j;

    (void)state;
    assert_true(r->has_cache && r->group_count == 0);
    assert_int_equal(r->cache.strategy, ARGS_TENSOR);
    assert_true(r->cache.type == QTYPE_FLOAT && r->cache.bits == 8);
    assert_int_equal(recipe_json(r, &j), RC_OK);
    assert_int_equal(recipe_from_json(&back, j), RC_OK);
    assert_true(back->has_cache && back->group_count == 0);
    assert_memory_equal(&r->cache, &back->cache, sizeof(r->cache));
    json_decref(j);
    recipe_free(back);
    recipe_observer_done(&r->cache);
    assert_string_equal(r->cache.observer, "static_minmax");
    j = json_pack("{s:{}, s:[], s:o}", "config_groups", "ignore", "kv_cache_scheme", scheme_args_json(&r->cache));
    assert_int_equal(recipe_from_config(&back, j), RC_OK);
    assert_true(back->has_cache && back->cache.strategy == ARGS_TENSOR);
    json_decref(j);
    recipe_free(back);
    recipe_free(r);
    snprintf(text, sizeof(text), two, ", strategy: attn_head");
    r = read_text(text);
    assert_true(r->has_cache && r->cache.strategy == ARGS_ATTN_HEAD && r->group_count == 1);
    recipe_free(r);
    snprintf(text, sizeof(text), two, "");
    refuses(text, "r.yaml: line 4: GPTQModifier: kv_cache_scheme differs from that of the modifier before");
}

static void
test_refused_groups(void **state)
{
    static const char *const rows[][2] = {
        { "[Linear]", "g has no targets" },
        { "{weights: {num_bits: 4}}", "g has no targets" },
        { "{targets: [], weights: {}}", "g has no targets" },
        { "{targets: [Linear]}", "g: no weights" },
        { "{targets: [Linear], weights: null}", "g: no weights" },
        { "{targets: [Linear], weights: 4}", "g: weights is not a mapping" },
        { "{targets: [Linear], wieghts: {}}", "g: unknown key wieghts" },
        { "{targets: [Linear], weights: {}, output_activations: {}}", "g: output_activations are not supported" },
        { "{targets: [Linear], weights: {}, format: 1}", "g: format is not a string" },
        { "{targets: [Linear], weights: {}, format: mixed-precision}", "g: format: unknown value mixed-precision" },
        { "{targets: [Linear], weights: {num_bits: 9, group_size: 8}}", "g: weights: num_bits is 9, want 1 to 8" },
        { "{targets: [Linear], weights: {type: text}}", "g: weights: type: unknown value text" },
        { "{targets: [Linear], weights: {strategy: group}}", "g: weights: group_size is 0 with strategy group" },
        { "{targets: [Linear], weights: {actorder: group, group_size: 8}}",
            "g: weights: actorder group is not supported but with --compat 0.10" },
        { "{targets: [Linear], weights: {actorder: true}}", "g: weights: actorder: unknown value true" },
        { "{targets: [Linear], weights: {observer: x}}", "g: weights: observer: unknown value x" },
        { "{targets: [Linear], weights: {observer: 1}}", "g: weights: observer is not a string" },
        { "{targets: [Linear], weights: {observer_kwargs: 1}}", "g: weights: observer_kwargs is not a mapping" },
        { "{targets: [Linear], weights: {zp_dtype: torch.float8_e4m3fn}}",
            "g: weights: zp_dtype: torch.float8_e4m3fn does not go with type int" },
        { "{targets: [Linear], weights: {num_bits: "
            "1111111111111111111111111111111111111111111111111111111111111111111.0}}", "g: weights: num_bits: " },
        { "{targets: [Linear], weights: {}, input_activations: {strategy: channel}}",
            "g: inputs: strategy channel is for weights" },
        { "{targets: [Linear], weights: {}, input_activations: {strategy: token}}",
            "g: inputs: strategy token must be dynamic" },
    };
    char text[1024], sentence[512];
    struct recipe *r;

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        snprintf(text, sizeof(text), "a_stage:\n  b_modifiers:\n    GPTQModifier: {config_groups: {g: %s}}\n",
            rows[i][0]);
        snprintf(sentence, sizeof(sentence), "r.yaml: line 3: GPTQModifier: %s", rows[i][1]);
        if (recipe_read_mem(&r, text, strlen(text), "r.yaml", NULL) != RC_DATA)
            fail_msg("%s: accepted", rows[i][0]);
        if (strncmp(err_text(), sentence, strlen(sentence)) != 0)
            fail_msg("%s\n\"%s\"\nwant\n\"%s\"", text, err_text(), sentence);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shipped), cmocka_unit_test(test_files), cmocka_unit_test(test_details),
        cmocka_unit_test(test_round_trips), cmocka_unit_test(test_yaml), cmocka_unit_test(test_plan_changed),
        cmocka_unit_test(test_configs), cmocka_unit_test(test_match), cmocka_unit_test(test_bad_patterns),
        cmocka_unit_test(test_precedence), cmocka_unit_test(test_unused), cmocka_unit_test(test_modifiers),
        cmocka_unit_test(test_actorder), cmocka_unit_test(test_v10), cmocka_unit_test(test_stage), cmocka_unit_test(test_observers), cmocka_unit_test(test_values),
        cmocka_unit_test(test_refused_modifiers), cmocka_unit_test(test_refused_stages),
        cmocka_unit_test(test_refused_args), cmocka_unit_test(test_refused_groups), cmocka_unit_test(test_cache),
    };

    return cmocka_run_group_tests_name("recipe", tests, NULL, NULL);
}
