/* test-text - samples from text, JSON lines, and compressed files */
#include "../../libcommon/archive.h"
#include "../../libcommon/msg.h"
#include "../../libcommon/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char path[64];

static struct text *
open_bytes(const char *data, size_t len, int want)
{
    struct text *t = NULL;
    int fd;

    (void)strcpy(path, P_tmpdir "/llmc-text.XXXXXX");
    assert_true((fd = mkstemp(path)) >= 0);
    assert_true(write(fd, data, len) == (ssize_t)len);
    (void)close(fd);
    assert_int_equal(text_open(&t, path), want);
    return t;
}

static void
done(struct text *t)
{
    text_close(t);
    (void)unlink(path);
}

static void
test_lines(void **state)
{
    static const char data[] =
        "\n{\"text\": \"a\\u0000b \\ud83d\\ude00\"}\n\n {\"input_ids\": [3, 1, 2]}\r\n{\"text\":\"last\"}";
    struct text *t = open_bytes(data, sizeof(data) - 1, RC_OK);
    struct text_sample s;

    (void)state;
    assert_true(text_is_lines(t));
    assert_int_equal(text_next(t, &s), RC_OK);
    assert_int_equal(s.len, 8);
    assert_memory_equal(s.text, "a\0b \xf0\x9f\x98\x80", 8);
    assert_int_equal(s.line, 2);
    assert_int_equal(text_next(t, &s), RC_OK);
    assert_true(s.has_ids && s.count == 3 && s.ids[0] == 3 && s.ids[2] == 2);
    assert_int_equal(text_next(t, &s), RC_OK);
    assert_string_equal(s.text, "last");
    assert_int_equal(text_next(t, &s), RC_RETRY);
    done(t);
}

static void
test_plain(void **state)
{
    static const char data[] = "cut \xe2\x82 end \xff\xed\xa0\x80";
    struct text *t = open_bytes(data, sizeof(data) - 1, RC_OK);
    struct text_sample s;

    (void)state;
    assert_false(text_is_lines(t));
    assert_int_equal(text_next(t, &s), RC_OK);
    assert_string_equal(s.text, "cut \xef\xbf\xbd end \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    assert_int_equal(text_next(t, &s), RC_RETRY);
    done(t);
    t = open_bytes("", 0, RC_OK);
    assert_int_equal(text_next(t, &s), RC_RETRY);
    done(t);
    t = open_bytes("begin 644 x\n#86)C\n`\nend\n", 25, RC_OK); /* no archive */
    assert_int_equal(text_next(t, &s), RC_OK);
    assert_int_equal(s.len, 25);
    done(t);
    t = open_bytes(" \n\t", 3, RC_OK); /* a text of spaces is a text */
    assert_int_equal(text_next(t, &s), RC_OK);
    assert_int_equal(s.len, 3);
    done(t);
}

static void
test_mark(void **state)
{
    static const char data[] = "\xef\xbb\xbf{\"text\": \"a\"}\n";
    struct text *t = open_bytes(data, sizeof(data) - 1, RC_OK);
    struct text_sample s;

    (void)state;
    assert_true(text_is_lines(t));
    assert_int_equal(text_next(t, &s), RC_OK);
    assert_string_equal(s.text, "a");
    done(t);
}

static void
test_bad(void **state)
{
    static const struct { const char *data, *why; } cases[] = {
        { "{\"text\":\"a\"}\n{\"text\": 1}\n", "line 2: neither \"input_ids\" nor a string \"text\"" },
        { "{\"text\":\"a\"}\n{\"text\": \n", "line 2: JSON" },
        { "{\"text\":\"a\"}\n{\"input_ids\": 1}\n", "line 2: \"input_ids\" is not a list" },
        { "{\"text\":\"a\"}\n{\"input_ids\": [1, -1]}\n", "line 2: \"input_ids\" item 1 is not a token id" },
        { "{\"text\":\"a\"}\n{\"text\": \"\xff\"}\n", "line 2: JSON" },
        { "{\"text\":\"a\"}\n\n{\"text\": \"\\ud800\"}\n", "line 3: JSON" }, /* half a pair */
        { "{\"text\":\"a\"}\nplain\n", "line 2: JSON" },
        { "{\"text\":\"a\"}\n{\"input_ids\": [1, 2.5]}\n", "line 2: \"input_ids\" item 1 is not a token id" },
        { "{\"text\":\"a\"}\n{\"input_ids\": [2147483648]}\n", "line 2: \"input_ids\" item 0 is not a token id" },
    };
    struct text_sample s;
    struct text *t = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        t = open_bytes(cases[i].data, strlen(cases[i].data), RC_OK);
        assert_int_equal(text_next(t, &s), RC_OK);
        assert_int_equal(text_next(t, &s), RC_DATA);
        if (strstr(err_text(), cases[i].why) == NULL)
            fail_msg("message is \"%s\", want \"%s\"", err_text(), cases[i].why);
        done(t);
    }
    assert_int_equal(text_open(&t, "/nonexistent/file"), RC_NOINPUT);
    assert_int_equal(text_open(&t, "/"), RC_IO);
}

/* Compressed by the usual programs; cut short it is bad data. */
static void
test_compressed(void **state)
{
    static const char *const programs[] = { "gzip", "zstd", "xz" };
    char dir[] = P_tmpdir "/llmc-text.XXXXXX", command[512], whole[64], cut[64];
    struct text_sample s;
    struct text *t = NULL;

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(whole, sizeof(whole), "%s/whole", dir);
    (void)snprintf(cut, sizeof(cut), "%s/cut", dir);
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(command, sizeof(command),
            "for i in 1 2 3 4 5 6 7 8 9; do cat share/demo/eval.jsonl; done | %s -c >%s && head -c 9000 %s >%s",
            programs[i], whole, whole, cut);
        assert_int_equal(system(command), 0);
        assert_int_equal(text_open(&t, whole), RC_OK);
        assert_true(text_is_lines(t));
        assert_int_equal(text_next(t, &s), RC_OK);
        assert_true(s.len > 100);
        text_close(t);
        if (text_open(&t, cut) == RC_OK) {
            int rc;

            while ((rc = text_next(t, &s)) == RC_OK)
                ;
            assert_int_equal(rc, RC_DATA);
            text_close(t);
        }
    }
    (void)unlink(whole);
    (void)unlink(cut);
    (void)rmdir(dir);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines), cmocka_unit_test(test_plain), cmocka_unit_test(test_bad),
        cmocka_unit_test(test_mark),
        cmocka_unit_test(test_compressed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
