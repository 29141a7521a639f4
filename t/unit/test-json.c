/* test-json - bounds of the reader, typed look-up, and what is written */
#include "unit.h"

#include "../../libcommon/json.h"
#include "../../libcommon/mem.h"

static json_t *
read_text(const char *text)
{
    json_t *j;

    if (jread_mem(&j, text, strlen(text), "text") != RC_OK)
        fail_msg("%s", err_text());
    return j;
}

static void
test_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        { "", "text: JSON line" },
        { "{", "text: JSON line 1" },
        { "{\"a\": 1, \"a\": 2}", "duplicate object key" },
        { "{} x", "end of file expected" },
        { "[1,]", "text: JSON line 1 column 4" },
        { "{\"a\": NaN}", "text: JSON line 1" },
        { "{\"a\": 1e999}", "real number overflow" },
        { "{\"a\": \"\xff\"}", "text: " },
        { "{'a': 1}", "text: JSON" },
        { "[\"\\ud800\"]", "text: JSON" },
        { "\"x\"", "text: JSON" },
    };
    char deep[2 * JSON_DEPTH_MAX + 8];
    int64_t a;
    json_t *j;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        if (jread_mem(&j, bad[i].text, strlen(bad[i].text), "text") != RC_DATA)
            fail_msg("%s: accepted", bad[i].text);
        assert_says(err_text(), bad[i].says);
        assert_null(j);
    }
    for (int levels = JSON_DEPTH_MAX; levels <= JSON_DEPTH_MAX + 1; levels++) {
        memset(deep, '[', (size_t)levels);
        memset(deep + levels, ']', (size_t)levels);
        assert_int_equal(jread_mem(&j, deep, (size_t)(2 * levels), "deep"), levels > JSON_DEPTH_MAX ? RC_DATA : RC_OK);
        json_decref(j);
    }
    assert_string_equal(err_text(), "deep: JSON nests deeper than 64 levels");
    j = read_text("[\"[[[\\\"[[[\"]"); /* brackets in strings are not levels */
    json_decref(j);
    j = read_text("{\"a\": 1000000000000000019884624838656, \"b\": 7}"); /* as tokenizers say: no limit */
    assert_int_equal(jget_int(j, "a", 0, 0, 1 << 30, &a), RC_DATA);
    assert_int_equal(jget_int(j, "b", 0, 0, 1 << 30, &a), RC_OK);
    assert_int_equal(a, 7);
    json_decref(j);
}

static void
test_files(void **state)
{
    json_t *j;

    (void)state;
    unit_text("f", "{\"a\": [1, 2]}\n");
    assert_int_equal(jread_file(&j, "f"), RC_OK);
    assert_int_equal(json_array_size(json_object_get(j, "a")), 2);
    json_decref(j);
    unit_text("f", "{\n \"a\": }");
    assert_int_equal(jread_file(&j, "f"), RC_DATA);
    assert_says(err_text(), "f: JSON line 2 column");
    unit_text("f", "");
    assert_int_equal(jread_file(&j, "f"), RC_DATA);
    assert_int_equal(jread_file(&j, "nowhere"), RC_NOINPUT);
    assert_null(j);
}

static void
test_get(void **state)
{
    json_t *j = read_text("{\"i\": 7, \"neg\": -3, \"r\": 0.5, \"whole\": 1e4, \"b\": true, \"s\": \"x\", "
        "\"z\": null}");
    const char *s;
    int64_t i;
    double d;
    bool b;

    (void)state;
    assert_int_equal(jget_int(j, "i", 1, 0, 10, &i), RC_OK);
    assert_int_equal(i, 7);
    assert_int_equal(jget_int(j, "whole", 1, 0, 10000, &i), RC_OK);
    assert_int_equal(i, 10000);
    assert_int_equal(jget_int(j, "none", -5, 0, 10, &i), RC_OK); /* a default may lie outside */
    assert_int_equal(i, -5);
    assert_int_equal(jget_int(j, "z", 4, 0, 10, &i), RC_OK);
    assert_int_equal(i, 4);
    assert_int_equal(jget_int(j, "neg", 1, 0, 10, &i), RC_DATA);
    assert_string_equal(err_text(), "\"neg\" is -3, want 0 to 10");
    assert_int_equal(jget_int(j, "r", 1, 0, 10, &i), RC_DATA);
    assert_string_equal(err_text(), "\"r\" is not an integer");
    assert_int_equal(jget_int(j, "s", 1, 0, 10, &i), RC_DATA);
    assert_int_equal(jget_real(j, "r", 1, &d), RC_OK);
    assert_true(d == 0.5);
    assert_int_equal(jget_real(j, "i", 1, &d), RC_OK);
    assert_true(d == 7);
    assert_int_equal(jget_real(j, "b", 1, &d), RC_DATA);
    assert_int_equal(jget_real(j, "z", 2, &d), RC_OK);
    assert_true(d == 2);
    assert_int_equal(jget_bool(j, "b", false, &b), RC_OK);
    assert_true(b);
    assert_int_equal(jget_bool(j, "none", true, &b), RC_OK);
    assert_true(b);
    assert_int_equal(jget_bool(j, "i", true, &b), RC_DATA);
    assert_string_equal(err_text(), "\"i\" is not true or false");
    assert_int_equal(jget_str(j, "s", NULL, &s), RC_OK);
    assert_string_equal(s, "x");
    assert_int_equal(jget_str(j, "none", "d", &s), RC_OK);
    assert_string_equal(s, "d");
    assert_int_equal(jget_str(j, "b", NULL, &s), RC_DATA);
    json_decref(j);
    assert_int_equal(jget_int(NULL, "i", 3, 0, 10, &i), RC_OK); /* no object at all: the default */
    assert_int_equal(i, 3);
}

static void
test_dump(void **state)
{
    json_t *j = read_text("{\"b\": [1, {}], \"a\": \"\\u00e9\"}");
    char *text;

    (void)state;
    assert_int_equal(jdump(j, true, &text), RC_OK);
    assert_string_equal(text, "{\n  \"a\": \"\xc3\xa9\",\n  \"b\": [\n    1,\n    {}\n  ]\n}\n");
    mem_free(text);
    assert_int_equal(jdump(j, false, &text), RC_OK);
    assert_true(strncmp(text, "{\n  \"b\"", 7) == 0);
    mem_free(text);
    json_decref(j);
}

static void
test_strings(void **state)
{
    struct buf b = { 0 };

    (void)state;
    jput_str(&b, "a\"b\\c\n\x1f\x7f\xc3\xa9\xff\xe2\x82");
    assert_string_equal(b.s, "\"a\\\"b\\\\c\\u000a\\u001f\\u007f\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    buf_free(&b);
}

/* Every code point, written as the standard says, and every second byte wrong. */
static void
test_utf8(void **state)
{
    char s[4];
    size_t n;

    (void)state;
    for (unsigned c = 0; c < 0x110000; c++) {
        n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        s[0] = (char)(n == 1 ? c : n == 2 ? 0xc0 | c >> 6 : n == 3 ? 0xe0 | c >> 12 : 0xf0 | c >> 18);
        for (size_t i = 1; i < n; i++)
            s[i] = (char)(0x80 | (c >> 6 * (n - 1 - i) & 63));
        if (jutf8(s, n) != (c >= 0xd800 && c < 0xe000 ? 0 : n))
            fail_msg("U+%04X", c);
        if (n > 1 && (jutf8(s, n - 1) != 0 || (s[n - 1] ^= 0x40, jutf8(s, n)) != 0))
            fail_msg("U+%04X cut or broken", c);
    }
    assert_int_equal(jutf8("\x80", 1), 0);
    assert_int_equal(jutf8("\xc1\xbf", 2), 0);
    assert_int_equal(jutf8("\xe0\x9f\xbf", 3), 0);
    assert_int_equal(jutf8("\xf0\x8f\xbf\xbf", 4), 0);
    assert_int_equal(jutf8("\xf4\x90\x80\x80", 4), 0);
    assert_int_equal(jutf8("\xf8\x88\x80\x80", 4), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused), cmocka_unit_test(test_files), cmocka_unit_test(test_get),
        cmocka_unit_test(test_dump), cmocka_unit_test(test_strings), cmocka_unit_test(test_utf8),
    };

    return cmocka_run_group_tests_name("json", tests, unit_begin, unit_end);
}
