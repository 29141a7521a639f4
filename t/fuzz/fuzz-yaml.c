/* fuzz-yaml - what is accepted is JSON with lines in range; a recipe in it is the same after it was
 * saved, as YAML and in a plan. Inputs: t/data/recipes, share/recipes. */
#include "../../libcommon/mem.h"
#include "../../libcommon/recipe.h"
#include "../../libcommon/yaml.h"
#include "fuzz.h"

#include <string.h>

static void
check_lines(const json_t *v, const struct yaml_lines *lines, size_t bytes)
{
    const char *key;
    json_t *one;
    size_t i;

    json_array_foreach(v, i, one)
        check_lines(one, lines, bytes);
    json_object_foreach((json_t *)(uintptr_t)v, key, one) {
        FUZZ_CHECK(yaml_line(lines, v, key) <= bytes);
        check_lines(one, lines, bytes);
    }
}

static void
check_tree(const json_t *j)
{
    char *text = json_dumps(j, JSON_ENCODE_ANY);
    json_t *again;

    FUZZ_CHECK(text != NULL);
    again = json_loads(text, JSON_DECODE_ANY, NULL);
    FUZZ_CHECK(again != NULL && json_equal(j, again));
    json_decref(again);
    mem_free(text);
}

static void
check_recipe(struct recipe *r)
{
    struct recipe *again;
    json_t *a, *b;
    char *text;

    FUZZ_CHECK(recipe_json(r, &a) == RC_OK);
    if (r->group_count > 0) {
        FUZZ_CHECK(recipe_from_json(&again, a) == RC_OK);
        FUZZ_CHECK(recipe_json(again, &b) == RC_OK && json_equal(a, b));
        json_decref(b);
        recipe_free(again);
    }
    FUZZ_CHECK(recipe_yaml(r, &text) == RC_OK);
    FUZZ_CHECK(recipe_read_mem(&again, text, strlen(text), "again", NULL) == RC_OK);
    FUZZ_CHECK(recipe_json(again, &b) == RC_OK);
    FUZZ_CHECK(json_equal(json_object_get(a, "groups"), json_object_get(b, "groups")));
    mem_free(text);
    json_decref(a);
    json_decref(b);
    recipe_free(again);
    (void)recipe_find(r, "model.layers.0.mlp.down_proj", "Linear", NULL);
    (void)recipe_find(r, "lm_head", "Head Linear", NULL);
    (void)recipe_check_used(r);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct yaml_lines lines = { 0 };
    struct recipe *r;
    json_t *j;

    if (yaml_read_mem(&j, &lines, (const char *)data, bytes, "input") == RC_OK) {
        check_lines(j, &lines, bytes + 1);
        check_tree(j);
        json_decref(j);
        if (recipe_read_mem(&r, (const char *)data, bytes, "input", NULL) == RC_OK) {
            check_recipe(r);
            recipe_free(r);
        }
    } else {
        FUZZ_CHECK(j == NULL);
    }
    yaml_lines_free(&lines);
    (void)yaml_read_mem(&j, NULL, (const char *)data, bytes, "input.md");
    json_decref(j);
    return 0;
}
