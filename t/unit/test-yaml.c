/* test-yaml - scalars as PyYAML has them, aliases, tags, lines, and what is refused */
#include "unit.h"

#include "../../libcommon/mem.h"
#include "../../libcommon/yaml.h"

#define NOT_UTF8 "a\xffz"

/* As one line of JSON; free it. */
static char *
as_json(const char *text, const char *subject)
{
    json_t *j;
    char *s;

    if (yaml_read_mem(&j, NULL, text, strlen(text), subject) != RC_OK)
        fail_msg("%s: %s", text, err_text());
    s = json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY);
    json_decref(j);
    return s;
}

static void
reads(const char *text, const char *json)
{
    char *got = as_json(text, "text");

    if (strcmp(got, json) != 0)
        fail_msg("%s is %s, want %s", text, got, json);
    free(got);
}

static void
test_scalars(void **state)
{
    static const char *const pairs[][2] = {
        { "~", "null" }, { "null", "null" }, { "NULL", "null" }, { "nUll", "\"nUll\"" },
        { "yes", "true" }, { "On", "true" }, { "TRUE", "true" }, { "tRUE", "\"tRUE\"" },
        { "no", "false" }, { "off", "false" }, { "False", "false" }, { "y", "\"y\"" },
        { "'yes'", "\"yes\"" }, { "\"1\"", "\"1\"" }, { "!!str 1", "\"1\"" }, { "''", "\"\"" },
        { "0", "0" }, { "-0", "0" }, { "+12", "12" }, { "1_000", "1000" }, { "_1", "\"_1\"" },
        { "0x1F", "31" }, { "-0x_ff", "-255" }, { "0b1_01", "5" }, { "017", "15" }, { "0_7", "7" },
        { "08", "\"08\"" }, { "0o17", "\"0o17\"" }, { "0b2", "\"0b2\"" }, { "0xg", "\"0xg\"" },
        { "1:30", "90" }, { "-190:20:30", "-685230" }, { "0:30", "\"0:30\"" },
        { "1:60", "\"1:60\"" },
        { "9223372036854775807", "9223372036854775807" },
        { "-9223372036854775808", "-9223372036854775808" },
        { "1.5", "1.5" }, { "1.", "1.0" }, { "+1_0.2_5", "10.25" }, { ".5", "0.5" },
        { "-.5", "\"-.5\"" }, { "1.0e+3", "1000.0" }, { "2.5E-1", "0.25" }, { "1:30.5", "90.5" },
        { "1e3", "\"1e3\"" }, { "1.0e3", "\"1.0e3\"" }, { "1.0e+", "\"1.0e+\"" }, { ".", "\".\"" },
        { "-", "[null]" }, { "2026-01-01", "\"2026-01-01\"" }, { "=", "\"=\"" },
        { "!!int '7'", "7" }, { "!!float 7", "7.0" }, { "!!float 7.5", "7.5" },
        { "!!bool 'no'", "false" }, { "!!null ''", "null" }, { "!!int 0x10", "16" },
        { "re:.*q_proj$", "\"re:.*q_proj$\"" }, { "'a''b'", "\"a'b\"" }, { "\"\\x41\\n\"", "\"A\\n\"" },
    };

    (void)state;
    for (size_t i = 0; i < COUNT(pairs); i++)
        reads(pairs[i][0], pairs[i][1]);
}

static void
test_trees(void **state)
{
    (void)state;
    reads("a: 1\nb: [x, {y: z}]\nc:\n- d\n-\n", "{\"a\":1,\"b\":[\"x\",{\"y\":\"z\"}],\"c\":[\"d\",null]}");
    reads("%YAML 1.1\n---\na: |\n  x\n  y\n...\n", "{\"a\":\"x\\ny\\n\"}");
    reads("a: &x [1, 2]\nb: *x\n", "{\"a\":[1,2],\"b\":[1,2]}");
    reads("k: &k name\n*k : 1\n", "{\"k\":\"name\",\"name\":1}");
    reads("a: &x {b: &y [1]}\nc: *y\nd: [*x, *x]\n",
        "{\"a\":{\"b\":[1]},\"c\":[1],\"d\":[{\"b\":[1]},{\"b\":[1]}]}");
    reads("!!map {a: !!seq [1]}", "{\"a\":[1]}");
    reads("a: !!python/object/apply:some.Enum\n- static\n", "{\"a\":\"static\"}");
    reads("a: &e !!python/object/apply:some.Enum [group]\nb: *e\n", "{\"a\":\"group\",\"b\":\"group\"}");
    reads("a: !!python/object/apply:llmcompressor.sentinel.Sentinel [unset, /x/sentinel.py]\n", "{\"a\":\"unset\"}");
    reads("a: !!python/tuple [1, [2]]\n", "{\"a\":[1,[2]]}");
    reads("{\"a\":1,\"b\":[true,null,\"\\u00e9\"]}", "{\"a\":1,\"b\":[true,null,\"\xc3\xa9\"]}");
    /* JSON that is not YAML 1.1 */
    reads("\t{\"a\": \"\\ud83d\\ude00\"}", "{\"a\":\"\xf0\x9f\x98\x80\"}");
    reads("{\n\t\"a\":\t1e-2\n}", "{\"a\":\"1e-2\"}"); /* is YAML, and there a string */
}

static void
test_refused(void **state)
{
    static const char *const bad[][2] = {
        { "", "text: empty document" },
        { "# nothing\n", "text: empty document" },
        { "a: 1\nb: 2\na: 3\n", "text: line 3: key \"a\" stands twice" },
        { "a: {b: 1,\n b: 2}", "text: line 2: key \"b\" stands twice" },
        { "a: 1\n1: 2\n", "text: line 2: a key is not a string" },
        { "on: 1\n", "text: line 1: a key is not a string" },
        { "? [a]\n: 1\n", "text: line 1: a key is not a string" },
        { "a: &x {b: 1}\nc:\n  <<: *x\n", "text: line 3: merge keys are not supported" },
        { "a: 1\n---\nb: 1\n", "text: line 2: more than one document" },
        { "a: .inf", "text: line 1: number is not finite" },
        { "a: [1,\n -.INF]", "text: line 2: number is not finite" },
        { "a: .NaN", "text: line 1: number is not finite" },
        { "a: 1.0e+999", "text: line 1: number is out of range" },
        { "a: 9223372036854775808", "text: line 1: integer is out of range" },
        { "a: -0x8000000000000001", "text: line 1: integer is out of range" },
        { "a: 99999999999:1", "text: line 1: integer is out of range" },
        { "a: 0x_", "text: line 1: integer has no digits" },
        { "a: !!int x", "text: line 1: value is not of type int" },
        { "a: !!bool 1", "text: line 1: value is not of type bool" },
        { "a: !!null 0", "text: line 1: value is not of type null" },
        { "a: !!float x", "text: line 1: value is not of type float" },
        { "a: !!int 0b_", "text: line 1: integer has no digits" },
        { "a: !mine 1", "text: line 1: unknown tag !mine" },
        { "a: !!binary aGk=", "text: line 1: unknown tag tag:yaml.org,2002:binary" },
        { "a: !!set {x}", "text: line 1: unknown tag tag:yaml.org,2002:set" },
        { "!!seq {a: 1}", "text: line 1: unknown tag tag:yaml.org,2002:seq" },
        { "a: !!python/object/apply:os.system [a, b]", "text: line 1: a value of Python is not an enum" },
        { "a: !!python/object/apply:e [[x]]", "text: line 1: a value of Python is not an enum" },
        { "a: !!python/object/apply:e {args: [x]}",
            "text: line 1: unknown tag tag:yaml.org,2002:python/object/apply:e" },
        { "a: !!python/object/apply:e x", "text: line 1: unknown tag tag:yaml.org,2002:python/object/apply:e" },
        { "a: !!python/tuple {x: 1}", "text: line 1: unknown tag tag:yaml.org,2002:python/tuple" },
        { "a: *x", "text: line 1: alias \"x\" names nothing" },
        { "a: &x\n  b: *x\n", "text: line 2: alias \"x\" stands inside of what it names" },
        { "a: &x 1\nb: &x 2\n", "text: line 2: anchor \"x\" stands twice" },
        { "a: [b\nc: d\n", "text: line 2: " },
        { "a:\n\tb: c\n", "text: line 2: " },
        { "a: \"\\x00\"", "text: line 1: value contains a NUL byte" },
        { "{\"a\": \"\\u0000\"}", "text: line 1: value contains a NUL byte" },
        { "{\"a\": 1, \"a\": 2}", "text: line 1: key \"a\" stands twice" },
        { "a: \xff", "text: byte 3: " },
    };
    json_t *j;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        if (yaml_read_mem(&j, NULL, bad[i][0], strlen(bad[i][0]), "text") != RC_DATA)
            fail_msg("%s: accepted", bad[i][0]);
        if (strncmp(err_text(), bad[i][1], strlen(bad[i][1])) != 0)
            fail_msg("%s: \"%s\", want \"%s\"", bad[i][0], err_text(), bad[i][1]);
        assert_null(j);
    }
}

static int
read_buf(struct buf *b)
{
    json_t *j;
    int rc;

    assert_true(buf_ok(b));
    rc = yaml_read_mem(&j, NULL, b->s, b->len, "text");
    json_decref(j);
    buf_free(b);
    return rc;
}

/* What a document stands for is bounded, not only its bytes. */
static void
test_bounds(void **state)
{
    struct buf b = { 0 };

    (void)state;
    for (int levels = JSON_DEPTH_MAX; levels <= JSON_DEPTH_MAX + 1; levels++) {
        for (int i = 0; i < levels; i++)
            buf_puts(&b, "[");
        for (int i = 0; i < levels; i++)
            buf_puts(&b, "]");
        assert_int_equal(read_buf(&b), levels > JSON_DEPTH_MAX ? RC_DATA : RC_OK);
    }
    assert_string_equal(err_text(), "text: line 1: nests deeper than 64 levels");
    for (int i = 0; i < 200000; i++)
        buf_puts(&b, "{a: [");
    assert_int_equal(read_buf(&b), RC_DATA);

    buf_puts(&b, "- &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for (int i = 1; i < 20; i++) {
        buf_printf(&b, "- &a%d [", i);
        for (int k = 0; k < 10; k++)
            buf_printf(&b, "*a%d, ", i - 1);
        buf_puts(&b, "]\n");
    }
    assert_int_equal(read_buf(&b), RC_DATA);
    assert_string_equal(err_text(), "text: line 5: document is too large");

    buf_puts(&b, "- &a \"");
    for (int i = 0; i < 1000; i++)
        buf_puts(&b, "0123456789");
    buf_puts(&b, "\"\n");
    for (int i = 0; i < 1000; i++)
        buf_puts(&b, "- *a\n");
    assert_int_equal(read_buf(&b), RC_DATA);
    assert_says(err_text(), "document is too large");

    buf_puts(&b, "- &a0 [x]\n");
    for (int i = 1; i < 80; i++)
        buf_printf(&b, "- &a%d [*a%d]\n", i, i - 1);
    assert_int_equal(read_buf(&b), RC_DATA);
    assert_string_equal(err_text(), "text: line 64: nests deeper than 64 levels");

    for (int i = 0; i < 1 << 19; i++)
        buf_puts(&b, "- abcdefg\n");
    assert_int_equal(read_buf(&b), RC_DATA);
    assert_string_equal(err_text(), "text: longer than 4194304 bytes");
}

static void
test_files(void **state)
{
    json_t *j;
    char *s;

    (void)state;
    assert_int_equal(yaml_read_file(&j, NULL, "nowhere"), RC_NOINPUT);
    assert_null(j);
    unit_text("f.yaml", "a: 1\n");
    assert_int_equal(yaml_read_file(&j, NULL, "f.yaml"), RC_OK);
    json_decref(j);
    unit_text("f.yaml", "");
    assert_int_equal(yaml_read_file(&j, NULL, "f.yaml"), RC_DATA);
    assert_string_equal(err_text(), "f.yaml: empty document");

    s = as_json("---\na: 1\n---\n# title\n---\n[not yaml", "card.md");
    assert_string_equal(s, "{\"a\":1}");
    free(s);
    s = as_json("---\r\na: 1\r\n---", "CARD.MD");
    assert_string_equal(s, "{\"a\":1}");
    free(s);
    assert_int_equal(yaml_read_mem(&j, NULL, "---\na: [\n---\n", 13, "card.md"), RC_DATA);
    assert_says(err_text(), "card.md: line ");
    assert_int_equal(yaml_read_mem(&j, NULL, "---\na: 1\n\nb: .inf\n---\n", 23, "card.md"), RC_DATA);
    assert_string_equal(err_text(), "card.md: line 4: number is not finite");
    assert_int_equal(yaml_read_mem(&j, NULL, "a: 1\n---\n", 9, "card.md"), RC_DATA);
    assert_string_equal(err_text(), "card.md: no front matter between lines of ---");
    assert_int_equal(yaml_read_mem(&j, NULL, "---\na: 1\n--- \n", 14, "card.md"), RC_DATA);
    assert_int_equal(yaml_read_mem(&j, NULL, "---\n---\n", 8, "card.md"), RC_DATA);
    assert_string_equal(err_text(), "card.md: empty document");
}

static void
test_lines(void **state)
{
    static const char text[] = "# c\na: 1\nb:\n  a: &x {k: 1}\n\n  c: *x\n";
    struct yaml_lines lines = { 0 };
    const json_t *b;
    json_t *j;

    (void)state;
    assert_int_equal(yaml_read_mem(&j, &lines, text, strlen(text), "text"), RC_OK);
    b = json_object_get(j, "b");
    assert_int_equal(yaml_line(&lines, j, "a"), 2);
    assert_int_equal(yaml_line(&lines, j, "b"), 3);
    assert_int_equal(yaml_line(&lines, b, "a"), 4);
    assert_int_equal(yaml_line(&lines, b, "c"), 6);
    assert_int_equal(yaml_line(&lines, json_object_get(b, "a"), "k"), 4);
    assert_int_equal(yaml_line(&lines, json_object_get(b, "c"), "k"), 0);
    assert_int_equal(yaml_line(&lines, b, "none"), 0);
    assert_int_equal(yaml_line(NULL, b, "a"), 0);
    json_decref(j);
    yaml_lines_free(&lines);

    assert_int_equal(yaml_read_mem(&j, &lines, "---\na: 1\n---\n", 13, "x.md"), RC_OK);
    assert_int_equal(yaml_line(&lines, j, "a"), 2);
    json_decref(j);
    yaml_lines_free(&lines);
    assert_int_equal(yaml_read_mem(&j, &lines, "{\"a\": \"\\ud83d\\ude00\"}", 21, "x"), RC_OK);
    assert_int_equal(yaml_line(&lines, j, "a"), 0);
    json_decref(j);
    yaml_lines_free(&lines);
}

/* Every character, words that mean something else, and numbers read back as they were. */
static void
test_written(void **state)
{
    static const char *const words[] = { "", "yes", "null", "~", "1", "-", "a: b", "a #b", "[a]", "*a",
        "&a", "re:.*\\.q$", "'", "\"", "\\", "Linear", "model.layers.0", NOT_UTF8, " a", "a ", "=",
        "<<", "0x1", "e", ".5", "No" };
    static const double numbers[] = { 0, -0.0, 1, 0.01, 1e-5, 1e300, -2.5e-300, 0.1 + 0.2, 123456789 };
    struct buf b = { 0 };
    json_t *j;
    char s[8];

    (void)state;
    for (size_t i = 0; i < COUNT(words); i++) {
        yaml_put_str(&b, words[i]);
        assert_int_equal(yaml_read_mem(&j, NULL, b.s, b.len, "word"), RC_OK);
        assert_string_equal(json_string_value(j), strcmp(words[i], NOT_UTF8) == 0 ? "a\xef\xbf\xbdz"
            : words[i]);
        json_decref(j);
        buf_free(&b);
    }
    for (unsigned c = 1; c < 0x110000; c += c < 0x3000 ? 1 : 97) {
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

        s[0] = (char)(n == 1 ? c : n == 2 ? 0xc0 | c >> 6 : n == 3 ? 0xe0 | c >> 12 : 0xf0 | c >> 18);
        for (size_t i = 1; i < n; i++)
            s[i] = (char)(0x80 | (c >> 6 * (n - 1 - i) & 63));
        s[n] = '\0';
        if (jutf8(s, n) == 0)
            continue;
        yaml_put_str(&b, s);
        if (yaml_read_mem(&j, NULL, b.s, b.len, "char") != RC_OK || strcmp(json_string_value(j), s) != 0)
            fail_msg("U+%04X as %s", c, b.s);
        json_decref(j);
        buf_free(&b);
    }
    for (size_t i = 0; i < COUNT(numbers); i++) {
        yaml_put_real(&b, numbers[i]);
        assert_int_equal(yaml_read_mem(&j, NULL, b.s, b.len, "number"), RC_OK);
        if (!json_is_real(j) || json_real_value(j) != numbers[i])
            fail_msg("%g as %s", numbers[i], b.s);
        json_decref(j);
        buf_free(&b);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars), cmocka_unit_test(test_trees), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_bounds), cmocka_unit_test(test_files), cmocka_unit_test(test_lines),
        cmocka_unit_test(test_written),
    };

    return cmocka_run_group_tests_name("yaml", tests, unit_begin, unit_end);
}
