/* test-recipe-library - recipes of LLM Compressor's examples and tests, and which module gets what: t/data/library/
 * recipes.json, made by t/peer/recipes_map.py from what the library itself does. And what is refused by name. */
#include "../../libcommon/buf.h"
#include "../../libcommon/recipe.h"
#include "unit.h"

enum { BYTES_MAX = 1 << 20, CASES_MIN = 100 };

static bool
nothing(const json_t *v)
{
    return v == NULL || json_is_null(v) || json_is_false(v) || (json_is_object(v) && json_object_size(v) == 0);
}

static bool
same(const char *key, const json_t *a, const json_t *b)
{
    const char *s = json_string_value(a), *t = json_string_value(b);

    if (strcmp(key, "actorder") == 0 && s != NULL && t != NULL) /* two names of one */
        return true;
    return nothing(a) ? nothing(b) : json_equal(a, b);
}

static void
same_args(const char *where, const char *part, json_t *got, json_t *want)
{
    const char *key;
    json_t *v;

    if (json_is_object(got) != json_is_object(want))
        fail_msg("%s: %s is there in one", where, part);
    json_object_foreach(want, key, v)
        if (!same(key, json_object_get(got, key), v))
            fail_msg("%s: %s: %s differs", where, part, key);
    json_object_foreach(got, key, v)
        if (strcmp(key, "zp_dtype") != 0 && !same(key, v, json_object_get(want, key)))
            fail_msg("%s: %s: %s is more", where, part, key);
}

static void
same_scheme(const char *where, const struct recipe_group *g, json_t *want)
{
    json_t *got;

    assert_int_equal(recipe_group_config(g, &got), RC_OK);
    same_args(where, "weights", json_object_get(got, "weights"), json_object_get(want, "weights"));
    same_args(where, "input_activations", json_object_get(got, "input_activations"),
        json_object_get(want, "input_activations"));
    if (!json_equal(json_object_get(got, "format"), json_object_get(want, "format")))
        fail_msg("%s: format differs", where);
    json_decref(got);
}

static void
same_map(const char *from, struct recipe *r, json_t *modules, const char *letters, json_t *schemes, json_t *used)
{
    char where[512];
    json_t *m;
    size_t i;

    assert_int_equal(strlen(letters), json_array_size(modules));
    json_array_foreach(modules, i, m)
    {
        const char *name = json_string_value(json_array_get(m, 0));
        int g = recipe_find(r, name, json_string_value(json_array_get(m, 1)), NULL);

        snprintf(where, sizeof(where), "%s: %s", from, name);
        if ((g < 0) != (letters[i] == '.'))
            fail_msg("%s: %s", where, g < 0 ? "has no scheme" : "has a scheme");
        if (g >= 0)
            same_scheme(where, &r->groups[g], json_array_get(schemes,
                (size_t)json_integer_value(json_array_get(used, (size_t)(letters[i] - 'a')))));
    }
}

static void
test_library(void **state)
{
    const char *path = "t/data/library/recipes.json", *from, *family;
    json_t *all, *c, *maps, *letters;
    struct buf b = { 0 };
    size_t i;

    (void)state;
    assert_int_equal(buf_read_file(&b, path, BYTES_MAX), RC_OK);
    assert_int_equal(jread_mem(&all, b.s, b.len, path), RC_OK);
    assert_true(json_array_size(json_object_get(all, "cases")) >= CASES_MIN);
    json_array_foreach(json_object_get(all, "cases"), i, c)
    {
        char *text = json_dumps(json_object_get(c, "recipe"), 0);
        struct recipe *r;

        from = json_string_value(json_object_get(c, "from"));
        maps = json_object_get(c, "maps");
        json_object_foreach(maps, family, letters)
        {
            if (recipe_read_mem(&r, text, strlen(text), from, NULL) != RC_OK)
                fail_msg("%s", err_text());
            same_map(from, r, json_object_get(json_object_get(all, "modules"), family), json_string_value(letters),
                json_object_get(all, "schemes"), json_object_get(c, "schemes"));
            recipe_free(r);
        }
        free(text);
    }
    json_decref(all);
    buf_free(&b);
}

/* Every modifier of the library that is not ours. */
static void
test_other_modifiers(void **state)
{
    static const char *const names[] = { "AWQModifier", "AutoRoundModifier", "ConstantPruningModifier",
        "IMatrixGatherer", "LogarithmicEqualizationModifier", "MagnitudePruningModifier", "QuIPModifier",
        "REAPPruningModifier", "SmoothQuantModifier", "SparseGPTModifier", "SpinQuantModifier",
        "WandaPruningModifier" };
    char text[256], want[256];
    struct recipe *r;

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(text, sizeof(text), "a_stage:\n  b_modifiers:\n    %s: {}\n    GPTQModifier: {scheme: W4A16}\n",
            names[i]);
        snprintf(want, sizeof(want), "r.yaml: line 3: modifier %s is not supported", names[i]);
        assert_int_equal(recipe_read_mem(&r, text, strlen(text), "r.yaml", NULL), RC_DATA);
        if (strncmp(err_text(), want, strlen(want)) != 0)
            fail_msg("%s", err_text());
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_library),
        cmocka_unit_test(test_other_modifiers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
