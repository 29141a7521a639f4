/* test-chat - chat templates against transformers' renderer, and what is refused
 *
 * LLMC_CHAT=dir takes templates and what is wanted from another directory that t/peer/make_chat.py has filled.
 */
#include "unit.h"

#include "../../libcommon/chat.h"
#include "../../libcommon/digest.h"
#include "../../libcommon/jinja.h"
#include "../../libcommon/json.h"
#include "../../libcommon/msg.h"

enum { CHATS = 200, DAY = 1721952000 /* 2024-07-26 */ };

static char   start[4096]; /* the directory that tests are started in */
static json_t *chats[CHATS];

static char *
read_file(const char *dir, const char *name, size_t *bytes)
{
    char path[8192];

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return unit_read(path, bytes);
}

static void
read_chats(const char *dir)
{
    size_t bytes;
    char *text = read_file(dir, "conversations.jsonl", &bytes), *line = text;

    for (int i = 0; i < CHATS; i++) {
        char *end = strchr(line, '\n');

        assert_non_null(end);
        assert_int_equal(jread_mem(&chats[i], line, (size_t)(end - line), "conversations"), RC_OK);
        line = end + 1;
    }
    assert_int_equal(*line, '\0');
    free(text);
}

static void
free_chats(void)
{
    for (int i = 0; i < CHATS; i++)
        json_decref(chats[i]);
}

/* Counts conversations that we refuse and the renderer does not: lists printed as Python writes them. */
static int
check_template(const char *dir, const char *name)
{
    char want_name[512], hex[DIGEST_HEX];
    const char *const set[] = { "today=2024-07-26", "bos_token=\"<s>\"", "eos_token=\"</s>\"", NULL };
    size_t bytes, want_bytes;
    char *text = read_file(dir, name, &bytes), *want, *line;
    int refused = 0;
    struct chat *c;

    (void)snprintf(want_name, sizeof(want_name), "%.*s.want", (int)(strlen(name) - 6), name);
    line = want = read_file(dir, want_name, &want_bytes);
    unit_write("chat_template.jinja", text, bytes);
    if (chat_open(&c, ".", set) != RC_OK)
        fail_msg("%s: %s", name, err_text());
    for (int i = 0; i < CHATS; i++) {
        char *end = strchr(line, '\n');
        struct buf out = { 0 };
        int rc = chat_render(c, json_object_get(chats[i], "messages"), &out);

        assert_non_null(end);
        *end = '\0';
        if (rc == RC_OK) {
            assert_int_equal(digest_mem(out.s != NULL ? out.s : "", out.len, hex), RC_OK);
            if (strncmp(line, hex, 16) != 0 || strlen(line) != 16)
                fail_msg("%s: conversation %d is \"%.300s\"", name, i + 1, out.s);
        } else {
            assert_int_equal(rc, RC_DATA);
            if (strcmp(line, "-") != 0) {
                assert_says(err_text(), " is not supported");
                refused++;
            }
        }
        buf_free(&out);
        line = end + 1;
    }
    chat_close(c);
    free(text);
    free(want);
    return refused;
}

static void
test_layouts(void **state)
{
    char dir[8192];
    const char *other = getenv("LLMC_CHAT");
    struct dirent *e;
    int count = 0;
    DIR *d;

    (void)state;
    (void)snprintf(dir, sizeof(dir), "%s/t/data/chat", start);
    if (other != NULL)
        (void)snprintf(dir, sizeof(dir), "%s", other);
    read_chats(dir);
    d = opendir(dir);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL)
        if (strlen(e->d_name) > 6 && strcmp(e->d_name + strlen(e->d_name) - 6, ".jinja") == 0) {
            int refused = check_template(dir, e->d_name);

            assert_true(other != NULL || refused <= 4);
            if (other != NULL)
                print_message("%s: %d refused\n", e->d_name, refused);
            count++;
        }
    assert_int_equal(closedir(d), 0);
    assert_true(other != NULL || count == 13);
    free_chats();
}

/* --- the language --- */

static json_t *
context(void)
{
    json_t *c = NULL;
    static const char text[] = "{\"d\": {\"a\": 1, \"b\": \"x\", \"n\": {\"m\": [0, {\"k\": \"K\"}]}},"
        " \"l\": [1, 2, 3], \"f\": 6.02e23,"
        " \"ms\": [{\"role\": \"user\", \"n\": 1}, {\"role\": \"tool\"}, {\"role\": \"user\", \"n\": 0}]}";

    assert_int_equal(jread_mem(&c, text, sizeof(text) - 1, "context"), RC_OK);
    return c;
}

static int
render(const char *template, size_t len, const json_t *c, int64_t today, struct buf *out)
{
    struct jinja *j;
    int rc = jinja_open(&j, template, len);

    if (rc == RC_OK)
        rc = jinja_render(j, c, today, out);
    else
        assert_null(j);
    jinja_close(j);
    return rc;
}

static void
test_cases(void **state)
{
    char dir[8192], *text, *line, *end;
    json_t *c = context(), *pair;
    size_t bytes;
    int count = 0;

    (void)state;
    (void)snprintf(dir, sizeof(dir), "%s/t/data/chat", start);
    text = line = read_file(dir, "cases.jsonl", &bytes);
    for (; (end = strchr(line, '\n')) != NULL; line = end + 1, count++) {
        const json_t *template, *want;
        struct buf out = { 0 };
        int rc;

        assert_int_equal(jread_mem(&pair, line, (size_t)(end - line), "case"), RC_OK);
        template = json_array_get(pair, 0);
        want = json_array_get(pair, 1);
        buf_puts(&out, "");
        rc = render(json_string_value(template), json_string_length(template), c, DAY, &out);
        if (rc != (json_is_null(want) ? RC_DATA : RC_OK))
            fail_msg("%s: status %d, %s", json_string_value(template), rc, rc != RC_OK ? err_text() : out.s);
        if (rc == RC_OK && strcmp(out.s, json_string_value(want)) != 0)
            fail_msg("%s: \"%s\", want \"%s\"", json_string_value(template), out.s, json_string_value(want));
        buf_free(&out);
        json_decref(pair);
    }
    assert_true(count > 70);
    free(text);
    json_decref(c);
}

static const struct { const char *template, *why; } refused[] = {
    /* when opened */
    { "{% include 'x' %}", "line 1: statement \"include\" is not supported" },
    { "\n\n{% call f() %}", "line 3: statement \"call\" is not supported" },
    { "{% raw %}{% endraw %}", "statement \"raw\"" }, { "{% extends 'x' %}", "statement \"extends\"" },
    { "{% for x in l recursive %}{% endfor %}", "recursive loops" }, { "{% if 1 %}", "no \"elif\" before the end" },
    { "{% for x in l %}a", "no \"else\" before the end" }, { "{% endif %}", "statement \"endif\" is not supported" },
    { "{% if 1 %}{% macro m() %}{% endmacro %}{% endif %}", "a macro within another statement" },
    { "{% break %}", "break or continue outside" }, { "{{ 1 < 2 < 3 }}", "chained comparisons" },
    { "{{ 2 ** 3 }}", "** is not supported" }, { "{{ f(*l) }}", "arguments with *" }, { "{{ x", "a tag without end" },
    { "{{ 'x }}", "a string without end" }, { "{# x", "a comment without end" }, { "{{ 1a }}",
    "a number of this form" },
    { "{{ ) }}", "a bracket that was not opened" }, { "{{ (] }}", "a bracket that was not opened" },
    { "{{ 1 2 }}", "more in an expression" }, { "{% if 1 2 %}{% endif %}", "more in a statement" }, { "{{ }}",
    "no expression" },
    { "{{ 'a' is string is string }}", "tests cannot be chained" }, { "{{ ! }}", "starts no token" },
    { "{{ '\\N{DASH}' }}", "octal or named escape" }, { "{{ '\\ud800' }}", "an escape is no character" },
    { "{{ a.b.1.c.'x' }}", "no name" }, { "{% set 1 = 2 %}", "no name" }, { "{% for x of l %}", "for without in" },
    { "{{ $ }}", "starts no token" }, { "\xff", "not UTF-8 at byte 0" },
    /* when rendered */
    { "a\n{{ l | shuffle }}", "template line 2: filter \"shuffle\" of a list is not supported" },
    { "{{ 1 is prime }}", "test \"prime\" is not supported for an integer" },
    { "{{ 'a'.encode() }}", "method \"encode\" of a string is not supported" },
    { "{{ d.items }}", "method \"items\" of a dict is not supported without a call" },
    { "{{ lipsum() }}", "function \"lipsum\" is not supported" }, { "{{ l }}", "the text of a list is not supported" },
    { "{{ namespace() }}", "the text of a namespace" }, { "{{ {'a': 1, 2: 3} }}", "a key: an integer, want" },
    { "{{ {1: 2} | tojson }}", "a dict of integers is not supported" }, { "{{ {1: 2, 'a': 3} }}", "a key: a string" },
    { "{{ loop.x }}", "\"x\" of \"loop\", which is undefined" },
    { "{% for x in l %}{{ loop.cycle(1) }}{% endfor %}", "loop.cycle is not supported" },
    { "{{ 'é'.upper() }}", "upper of other letters than ASCII's" }, { "{{ l.__class__ }}", "member \"__class__\"" },
    { "{{ q() }}", "a call of \"q\", which is undefined" }, { "{{ [u] }}", "a list: \"u\" is undefined" },
    { "{{ 'a' | safe + 'b' }}", "text marked safe" }, { "{{ 'a' | safe | trim }}", "text marked safe" },
    { "{{ 'a' % 1 }}", "operator \"%\" of a string and an integer" }, { "{{ raise_exception('no ' ~ 1) }}",
    "the template says: no 1" },
    { "{{ strftime_now('%d') }}", "set one: today=YYYY-MM-DD" },
    { "{{ 9223372036854775 * 9223372036854775 }}", "an integer beyond 64 bits" },
    /* bounds */
    { "{% set l = range(99999) %}{% for a in l %}{% for b in l %}{% endfor %}{% endfor %}x",
        "more than 16777216 steps" },
    { "{% set l = range(99999) %}{% for a in l %}{% for b in l if 0 %}{% endfor %}{% endfor %}",
    "more than 16777216 steps" },
    { "{% for a in range(99999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}", "template line 1: " },
    { "{% set ns = namespace(x='abcdefgh') %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "more than" },
    { "{% set ns = namespace(x=[]) %}{% for a in range(999) %}{% set ns.x = [ns.x] %}{% endfor %}", "nest too deep" },
    { "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "too deep" }, { "{{ range(100001) }}", "range of more than" },
};

static void
test_refused(void **state)
{
    json_t *c = context();

    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        struct buf out = { 0 };
        int rc = render(refused[i].template, strlen(refused[i].template), c, -1, &out);

        if (rc != RC_DATA)
            fail_msg("%s: status %d, want \"%s\"", refused[i].template, rc, refused[i].why);
        assert_says(err_text(), refused[i].why);
        buf_free(&out);
    }
    json_decref(c);
}

/* Nesting of all kinds, deeper than is allowed, ends in a message. */
static void
test_nesting(void **state)
{
    static const struct { const char *open, *shut; } kinds[] = { { "{% if 1 %}", "{% endif %}" }, { "{{ (", "" },
        { "{{ -", "" },
        { "{{ [", "" }, { "{{ not ", "" }, { "{{ 1 if 1 else ", "" }, { "{% for x in l %}", "{% endfor %}" },
        { "{{ f(", "" } };
    struct buf b = { 0 }, out = { 0 };

    (void)state;
    for (size_t k = 0; k < COUNT(kinds); k++) {
        int opens = strcmp(kinds[k].open, "{{ not ") == 0 ? 200 : 5000, skip = kinds[k].open[1] == '{' ? 3 : 0;

        b.len = 0;
        for (int i = 0; i < opens; i++)
            buf_puts(&b, kinds[k].open + (i > 0 ? skip : 0));
        if (skip > 0)
            buf_puts(&b, " 1 }}");
        for (int i = 0; i < opens; i++)
            buf_puts(&b, kinds[k].shut);
        assert_true(buf_ok(&b));
        assert_int_equal(render(b.s, b.len, NULL, -1, &out), RC_DATA);
        if (strstr(err_text(), "too deep") == NULL)
            fail_msg("%s: %s", kinds[k].open, err_text());
    }
    buf_free(&b);
    buf_free(&out);
}

/* --- where templates are --- */

static void
expect_chat(const char *const *set, int want, const char *says)
{
    json_t *m = json_pack("[{s:s, s:s}]", "role", "user", "content", "hi");
    struct buf out = { 0 };
    struct chat *c;
    int rc = chat_open(&c, ".", set);

    if (rc == RC_OK)
        rc = chat_render(c, m, &out);
    else
        assert_null(c);
    assert_int_equal(rc, want);
    if (rc == RC_OK)
        assert_string_equal(out.s, says);
    else
        assert_says(err_text(), says);
    chat_close(c);
    buf_free(&out);
    json_decref(m);
}

static void
test_sources(void **state)
{
    static const char *const none[] = { NULL }, *const mode[] = { "mode=false", NULL },
        *const word[] = { "mode=a b", NULL },
        *const bad[] = { "mode", NULL }, *const day[] = { "today=2024-02-30", NULL }, *const odd[] = { "today=x",
        NULL };

    (void)state;
    (void)remove("chat_template.jinja");
    expect_chat(none, RC_NOINPUT, ".: the model has no chat template");
    unit_text("tokenizer_config.json", "{\"bos_token\": {\"content\": \"<b>\"}, \"eos_token\": null}");
    expect_chat(none, RC_NOINPUT, "no chat template");
    unit_text("tokenizer_config.json", "{\"bos_token\": {\"content\": \"<b>\"}, \"chat_template\": "
        "\"{{ bos_token }}{{ messages[0].content }}{{ tools is none }}{{ eos_token }}{{ mode }}"
        "{{ add_generation_prompt }}\"}");
    expect_chat(none, RC_OK, "<b>hiTrueFalse");
    expect_chat(mode, RC_OK, "<b>hiTrueFalseFalse");
    expect_chat(word, RC_OK, "<b>hiTruea bFalse");
    expect_chat(bad, RC_USAGE, "\"mode\", want NAME=VALUE");
    expect_chat(day, RC_USAGE, "today is \"2024-02-30\", want YYYY-MM-DD");
    expect_chat(odd, RC_USAGE, "today is \"x\"");
    unit_text("special_tokens_map.json", "{\"bos_token\": \"<other>\", \"eos_token\": \"</e>\"}");
    expect_chat(none, RC_OK, "<b>hiTrue</e>False");
    unit_text("chat_template.jinja", "file\n");
    expect_chat(none, RC_OK, "file");
    (void)remove("chat_template.jinja");
    unit_text("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"t\"}, "
        "{\"name\": \"default\", \"template\": \"d\"}]}");
    expect_chat(none, RC_OK, "d");
    unit_text("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"t\"}]}");
    expect_chat(none, RC_DATA, "neither a template nor has one named default");
    unit_text("tokenizer_config.json", "{\"chat_template\": \"{% include 'x' %}\"}");
    expect_chat(none, RC_DATA,
        "./tokenizer_config.json: chat template: line 1: statement \"include\" is not supported");
    unit_text("tokenizer_config.json", "{\"chat_template\": \"{{ raise_exception('no') }}\"}");
    expect_chat(none, RC_DATA, "./tokenizer_config.json: template line 1: the template says: no");
}

static int
begin(void **state)
{
    return getcwd(start, sizeof(start)) != NULL ? unit_begin(state) : -1;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts), cmocka_unit_test(test_cases), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_nesting), cmocka_unit_test(test_sources),
    };

    return cmocka_run_group_tests(tests, begin, unit_end);
}
