/* test-tok-cases - every normalizer, pre-tokenizer and kind of token against what the tokenizers library makes of it */
#include "unit.h"

#include "../../libcommon/json.h"
#include "../../libcommon/tok.h"

static json_t *lines[256];
static size_t  count;

static int
read_lines(void **state)
{
    struct buf b = { 0 };

    (void)state;
    if (buf_read_file(&b, "t/data/tok/cases.jsonl", 1 << 24) != RC_OK)
        return -1;
    for (char *s = b.s, *nl; (nl = strchr(s, '\n')) != NULL && count < COUNT(lines); s = nl + 1)
        if (jread_mem(&lines[count++], s, (size_t)(nl - s), "cases.jsonl") != RC_OK)
            return -1;
    buf_free(&b);
    return 0;
}

static int
free_lines(void **state)
{
    (void)state;
    while (count > 0)
        json_decref(lines[--count]);
    return 0;
}

/* The base of a case with its changes, opened from a file. */
static struct tok *
open_case(const json_t *c)
{
    const char *base = json_string_value(json_object_get(c, "base"));
    json_t *j = json_deep_copy(json_object_get(json_object_get(lines[0], "base"), base)), *value;
    char path[] = P_tmpdir "/llmc-tok.XXXXXX", *text;
    struct tok *t = NULL;
    const char *key;
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    json_object_foreach(json_object_get(c, "set"), key, value)
    {
        if (strcmp(key, "model") == 0)
            assert_int_equal(json_object_update(json_object_get(j, key), value), 0);
        else
            assert_int_equal(json_object_set(j, key, value), 0);
    }
    assert_int_equal(jdump(j, false, &text), RC_OK);
    unit_text(path, text);
    if (tok_open(&t, path) != RC_OK)
        fail_msg("%s", err_text());
    (void)close(fd);
    (void)unlink(path);
    free(text);
    json_decref(j);
    return t;
}

static void
check_text(const struct tok *t, const char *name, size_t text_index, const json_t *text, const json_t *want)
{
    struct tok_ids ids = { 0 };
    int rc = tok_encode(t, json_string_value(text), json_string_length(text), true, &ids);
    size_t n = json_array_size(want);

    if (json_is_null(want)) {
        assert_int_equal(rc, RC_DATA);
        return;
    }
    assert_int_equal(rc, RC_OK);
    for (size_t i = 0; i < n && i < ids.count; i++)
        if (ids.v[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("%s, text %zu: id %zu is %d, want %d", name, text_index, i, (int)ids.v[i],
                (int)json_integer_value(json_array_get(want, i)));
    if (n != ids.count)
        fail_msg("%s, text %zu: %zu ids, want %zu", name, text_index, ids.count, n);
    tok_ids_free(&ids);
}

static void
test_cases(void **state)
{
    const json_t *texts = json_object_get(lines[0], "texts");

    (void)state;
    assert_true(count > 50);
    for (size_t i = 1; i < count; i++) {
        const json_t *ids = json_object_get(lines[i], "ids");
        struct tok *t = open_case(lines[i]);

        assert_int_equal(json_array_size(ids), json_array_size(texts));
        for (size_t k = 0; k < json_array_size(texts); k++)
            check_text(t, json_string_value(json_object_get(lines[i], "name")), k, json_array_get(texts, k),
                json_array_get(ids, k));
        tok_close(t);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_cases) };

    return cmocka_run_group_tests(tests, read_lines, free_lines);
}
