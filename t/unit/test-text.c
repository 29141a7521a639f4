/* test-text - samples from text, JSON lines, and compressed files */
#include "unit.h"

#include "../../libcommon/msg.h"
#include "../../libcommon/safetensors.h"
#include "../../libcommon/text.h"

static struct text_opts opts;
static char             demo[4096]; /* the directory that the tests are started in, where the demo texts are */

static struct text *
open_bytes(const char *data, size_t len, int want)
{
    struct text *t = NULL;

    unit_write("data", data, len);
    assert_int_equal(text_open(&t, "data", &opts), want);
    return t;
}

static void
done(struct text *t)
{
    text_close(t);
    opts = (struct text_opts){ 0 };
}

/* The next sample is such ids, the text's words, or the end. */
static struct text_sample
want_ids(struct text *t, const int32_t *ids, size_t n)
{
    struct text_sample s;

    assert_int_equal(text_next(t, &s), RC_OK);
    assert_int_equal(s.kind, TEXT_IDS);
    assert_int_equal(s.count, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(s.ids[i], ids[i]);
    return s;
}

static struct text_sample
want_text(struct text *t, const char *text)
{
    struct text_sample s;

    assert_int_equal(text_next(t, &s), RC_OK);
    assert_int_equal(s.kind, TEXT_PLAIN);
    assert_int_equal(s.len, strlen(text));
    assert_memory_equal(s.text, text, s.len);
    return s;
}

static void
want_end(struct text *t)
{
    struct text_sample s;

    assert_int_equal(text_next(t, &s), RC_RETRY);
    assert_int_equal(text_next(t, &s), RC_RETRY);
}

static void
test_lines(void **state)
{
    static const char data[] =
        "\n{\"text\": \"a\\u0000b \\ud83d\\ude00\"}\n\n {\"input_ids\": [3, 1, 2]}\r\n{\"text\":\"last\"}";
    struct text *t = open_bytes(data, sizeof(data) - 1, RC_OK);
    struct text_sample s;

    (void)state;
    assert_int_equal(text_next(t, &s), RC_OK);
    assert_int_equal(s.len, 8);
    assert_memory_equal(s.text, "a\0b \xf0\x9f\x98\x80", 8);
    assert_int_equal(s.line, 2);
    assert_int_equal(text_next(t, &s), RC_OK);
    assert_true(s.kind == TEXT_IDS && !s.stream && s.count == 3 && s.ids[0] == 3 && s.ids[2] == 2);
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
    assert_int_equal(text_next(t, &s), RC_OK);
    assert_string_equal(s.text, "a");
    done(t);
}

static void
test_bad(void **state)
{
    static const struct { const char *data, *why; } cases[] = {
        { "{\"text\":\"a\"}\n{\"text\": 1}\n", "line 2: neither \"input_ids\", \"text\", \"messages\"" },
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
    done(open_bytes("PAR1\1\2", 6, RC_DATA));
    assert_says(err_text(), "data: is a Parquet file");
    assert_int_equal(text_open(&t, "nonexistent/file", &opts), RC_NOINPUT);
    assert_null(t);
}

/* Compressed by the usual programs; cut short it is bad data. */
static void
test_compressed(void **state)
{
    static const char *const programs[] = { "gzip", "zstd", "xz" };
    char command[8192];
    struct text_sample s;
    struct text *t = NULL;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(command, sizeof(command),
            "for i in 1 2 3 4 5 6 7 8 9; do cat '%s/share/demo/eval.jsonl'; done | %s -c >whole && head -c 9000 whole "
            ">cut", demo, programs[i]);
        assert_int_equal(system(command), 0);
        assert_int_equal(text_open(&t, "whole", &opts), RC_OK);
        assert_int_equal(text_next(t, &s), RC_OK);
        assert_int_equal(s.line, 1);
        assert_true(s.len > 100);
        text_close(t);
        if (text_open(&t, "cut", &opts) == RC_OK) {
            int rc;

            while ((rc = text_next(t, &s)) == RC_OK)
                ;
            assert_int_equal(rc, RC_DATA);
            text_close(t);
        }
    }
}

static void
test_columns(void **state)
{
    static const char lines[] =
        "{\"prompt\": \"a\", \"response\": \"b\", \"q\": \"c\", \"ids\": [7, 8], \"attention_mask\": [0, 1]}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"ids\": [[1]], \"prompt\": 1}\n";
    static const struct { const char *columns, *why; } cases[] = {
        { "q", "line 2: no \"q\" that is text, ids or messages" }, { "q,prompt", "line 2: no string \"q\"" },
        { "ids", "line 2: \"ids\" item 0 is not a token id" }, { "messages", "line 1: no \"messages\" that is" },
    };
    struct text_sample s;
    struct text *t;

    (void)state;
    t = open_bytes(lines, sizeof(lines) - 1, RC_OK);
    assert_int_equal(text_next(t, &s), RC_OK);
    assert_int_equal(s.kind, TEXT_CHAT);
    assert_int_equal(json_array_size(s.messages), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(s.messages, 0), "role")), "user");
    assert_string_equal(json_string_value(json_object_get(json_array_get(s.messages, 0), "content")), "a");
    assert_string_equal(json_string_value(json_object_get(json_array_get(s.messages, 1), "role")), "assistant");
    assert_string_equal(json_string_value(json_object_get(json_array_get(s.messages, 1), "content")), "b");
    assert_int_equal(text_next(t, &s), RC_OK);
    assert_int_equal(s.kind, TEXT_CHAT);
    assert_int_equal(json_array_size(s.messages), 1);
    done(t);
    for (size_t i = 0; i < COUNT(cases); i++) {
        int rc;

        opts.columns = cases[i].columns;
        t = open_bytes(lines, sizeof(lines) - 1, RC_OK);
        while ((rc = text_next(t, &s)) == RC_OK)
            ;
        assert_int_equal(rc, RC_DATA);
        assert_says(err_text(), cases[i].why);
        done(t);
    }
    opts.columns = "ids";
    t = open_bytes(lines, sizeof(lines) - 1, RC_OK);
    (void)want_ids(t, (const int32_t[]){ 8 }, 1);
    done(t);
    opts.columns = "q,prompt";
    t = open_bytes(lines, sizeof(lines) - 1, RC_OK);
    assert_int_equal(text_next(t, &s), RC_OK);
    assert_string_equal(json_string_value(json_object_get(json_array_get(s.messages, 0), "content")), "c");
    assert_string_equal(json_string_value(json_object_get(json_array_get(s.messages, 1), "content")), "a");
    done(t);
    for (size_t i = 0; i < 4; i++) {
        opts.columns = ((const char *[]){ "", "a,", ",b", "a,b,c" })[i];
        done(open_bytes(lines, sizeof(lines) - 1, RC_USAGE));
        assert_says(err_text(), "want one name or two");
    }
}

static void
test_padding(void **state)
{
    static const char lines[] = "{\"input_ids\": [0, 0, 5, 6], \"attention_mask\": [0, 0, 1, 1]}\n"
        "{\"input_ids\": [5, 6, 0], \"attention_mask\": [true, true, false]}\n"
        "{\"input_ids\": [5, 6], \"attention_mask\": [0, 0]}\n{\"input_ids\": [5], \"attention_mask\": null}\n";
    static const struct { const char *mask, *why; } cases[] = {
        { "[1, 0, 1]", "attention_mask is 0 at 1" }, { "[1, 1]", "no list as long" }, { "3", "no list as long" },
        { "[1, 2, 1]", "item 1 is neither" }, { "[1, \"1\", 1]", "item 1 is neither" },
    };
    struct text_sample s;
    struct text *t;
    char line[128];

    (void)state;
    t = open_bytes(lines, sizeof(lines) - 1, RC_OK);
    (void)want_ids(t, (const int32_t[]){ 5, 6 }, 2);
    (void)want_ids(t, (const int32_t[]){ 5, 6 }, 2);
    (void)want_ids(t, NULL, 0);
    (void)want_ids(t, (const int32_t[]){ 5 }, 1);
    want_end(t);
    done(t);
    opts.keep_padding = true;
    t = open_bytes(lines, sizeof(lines) - 1, RC_OK);
    assert_int_equal(text_next(t, &s), RC_DATA);
    assert_says(err_text(), "line 1: padding before tokens cannot be counted");
    (void)want_ids(t, (const int32_t[]){ 5, 6, 0 }, 3);
    (void)want_ids(t, (const int32_t[]){ 5, 6 }, 2);
    done(t);
    for (size_t i = 0; i < COUNT(cases); i++) {
        (void)snprintf(line, sizeof(line), "{\"input_ids\": [1, 2, 3], \"attention_mask\": %s}", cases[i].mask);
        t = open_bytes(line, strlen(line), RC_OK);
        assert_int_equal(text_next(t, &s), RC_DATA);
        assert_says(err_text(), cases[i].why);
        done(t);
    }
}

/* --- directories and tars --- */

static void
test_directory(void **state)
{
    struct text_sample s;
    struct text *t;
    int first;

    (void)state;
    assert_int_equal(system("mkdir -p dir/b dir/.git empty && printf one >dir/c && printf two | gzip >dir/b/x && "
        "printf '{\"text\": \"three\"}\\n{\"text\": \"four\"}\\n' >dir/b/y.jsonl && printf no >dir/.hidden && "
        "printf no >dir/.git/x && : >dir/a"), 0);
    assert_int_equal(text_open(&t, "dir", &opts), RC_OK);
    s = want_text(t, "two");
    first = s.source;
    assert_true(s.stream);
    assert_string_equal(text_name(t), "dir/b/x");
    s = want_text(t, "three");
    assert_int_not_equal(s.source, first);
    assert_false(s.stream);
    (void)want_text(t, "four");
    (void)want_text(t, "one");
    want_end(t);
    text_close(t);
    unit_text("dir/b/z", "{\"text\": 1}");
    assert_int_equal(text_open(&t, "dir/b", &opts), RC_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(text_next(t, &s), RC_OK);
    assert_int_equal(text_next(t, &s), RC_DATA);
    assert_says(err_text(), "dir/b/z: line 1: neither");
    text_close(t);
    assert_int_equal(text_open(&t, "empty", &opts), RC_DATA);
    assert_string_equal(err_text(), "empty: no files");
}

static void
test_tar(void **state)
{
    struct text *t;

    (void)state;
    assert_int_equal(system("mkdir -p in && printf one >in/c && "
        "printf '{\"text\": \"three\"}\\n{\"text\": \"four\"}\\n' >in/y && "
        "tar cJf in.tar.xz in/y in/c && tar cf in.tar in/y in/c && head -c 520 in.tar >cut.tar && cp in.tar in/z.tar"),
        0);
    for (int i = 0; i < 3; i++) { /* also one in a directory */
        assert_int_equal(text_open(&t, i == 0 ? "in.tar" : i == 1 ? "in.tar.xz" : "in", &opts), RC_OK);
        if (i == 2) {
            (void)want_text(t, "one");
            (void)want_text(t, "three");
            (void)want_text(t, "four");
        }
        (void)want_text(t, "three");
        assert_string_equal(text_name(t), i == 0 ? "in.tar(in/y)" : i == 1 ? "in.tar.xz(in/y)" : "in/z.tar(in/y)");
        (void)want_text(t, "four");
        (void)want_text(t, "one");
        want_end(t);
        text_close(t);
    }
    assert_int_equal(text_open(&t, "cut.tar", &opts), RC_DATA);
    assert_says(err_text(), "cut.tar: cannot read: ");
    assert_null(t);
}

/* --- token files --- */

static struct text *
open_npy(const char *dict, int version, const void *data, size_t bytes, int want)
{
    char file[4096] = "\x93NUMPY";
    size_t n = strlen(dict), at = version == 1 ? 10 : 12;

    file[6] = (char)version;
    file[8] = (char)(n & 255);
    file[9] = (char)(n >> 8);
    memcpy(file + at, dict, n);
    memcpy(file + at + n, data, bytes);
    return open_bytes(file, at + n + bytes, want);
}

static void
test_npy(void **state)
{
    static const int32_t i4[] = { 1, 2, 3, 4, 5, 6 };
    static const int64_t i8[] = { 1, 2, 3 }, large[] = { 1, 1LL << 31 }, negative[] = { -1 };
    static const uint16_t u2[] = { 65535, 0 };
    static const struct { const char *dict, *why; } cases[] = {
        { "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", "npy: type '<f4', want int32" },
        { "{'descr': '>i4', 'fortran_order': False, 'shape': (3,)}", "npy: type '>i4', want int32" },
        { "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (3,)}", "npy: type ?, want int32" },
        { "{'descr': '<i4', 'fortran_order': True, 'shape': (2, 3)}", "npy: want rows one after the other" },
        { "{'descr': '<i4', 'fortran_order': False, 'shape': ()}", "npy: shape ()" },
        { "{'descr': '<i4', 'fortran_order': False, 'shape': (1, 2, 3)}", "npy: shape (3)}" },
        { "{'descr': '<i4', 'fortran_order': False, 'shape': (1, -2)}", "npy: shape (-2)}" },
        { "{'descr': '<i4', 'fortran_order': False, 'shape': (1", "npy: shape (" },
        { "{'descr': '<i4', 'fortran_order': False, 'shape': (9, 999999999999)}", "rows of 999999999999 tokens" },
        { "{'descr': '<i4', 'fortran_order': False, 'shape': (9, 0)}", "rows of 0 tokens" },
        { "{'descr': '<i4', 'fortran_order': False, 'shape': (2147483648, 1)}", "2147483648 samples, want 2147483647" },
        { "{}", "npy: type ?" }, { "{'descr': '<i4'}", "npy: header without a shape" },
        { "{'descr': '<i4', 'shape': (2,)}", "npy: want rows" },
    };
    struct text_sample s;
    struct text *t;

    (void)state;
    t = open_npy("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }\n", 1, i4, sizeof(i4), RC_OK);
    s = want_ids(t, i4, 3);
    assert_false(s.stream);
    s = want_ids(t, i4 + 3, 3);
    assert_int_equal(s.line, 2);
    want_end(t);
    done(t);
    t = open_npy("{'descr': '<i8', 'fortran_order': True, 'shape': (3,), }", 2, i8, sizeof(i8), RC_OK);
    s = want_ids(t, i4, 3);
    assert_true(s.stream);
    want_end(t);
    done(t);
    t = open_npy("{'descr':'<u2','fortran_order':False,'shape':(2,)}", 3, u2, sizeof(u2), RC_OK);
    (void)want_ids(t, (const int32_t[]){ 65535, 0 }, 2);
    done(t);
    for (size_t i = 0; i < COUNT(cases); i++) {
        done(open_npy(cases[i].dict, 1, i4, sizeof(i4), RC_DATA));
        assert_says(err_text(), cases[i].why);
    }
    done(open_npy("{}", 4, i4, 4, RC_DATA));
    assert_says(err_text(), "npy: version 4");
    done(open_bytes("\x93NUMPY\1\0\xff\0{", 11, RC_DATA));
    assert_says(err_text(), "npy: header of 255 bytes does not fit");
    for (int i = 0; i < 4; i++) {
        static const char *const why[] = { "item 1 is not a token id", "item 0 is not a token id",
            "ends inside sample 2", "more bytes than its shape says" };

        t = i == 0 ? open_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (2,)}", 1, large, 16, RC_OK) :
            i == 1 ? open_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}", 1, negative, 8, RC_OK) :
                     open_npy("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 2)}", 1, i4, i == 2 ? 12 : 20,
                         RC_OK);
        while (text_next(t, &s) == RC_OK)
            ;
        assert_says(err_text(), why[i]);
        done(t);
    }
}

static struct text *
open_rows(struct tensor *v, size_t n, int want)
{
    struct text *t = NULL;

    assert_int_equal(st_publish("data", v, n, NULL, 0), RC_OK);
    assert_int_equal(text_open(&t, "data", &opts), want);
    return t;
}

static void
test_rows(void **state)
{
    static const int32_t ids[] = { 1, 2, 3, 4, 5, 6 };
    static const int64_t wide[] = { 1, 2, 3, 4, 5, 6 }, mask[] = { 1, 1, 0, 1, 0, 0 };
    static const int64_t lengths[] = { 2, 4 }, odd[] = { 2, 3 };
    static const uint8_t bits[] = { 1, 1, 0, 1, 0, 1 };
    struct text_sample s;
    struct text *t;

    (void)state;
    t = open_rows((struct tensor[]){ tensor_2d("input_ids", DT_I64, 2, 3, wide) }, 1, RC_OK);
    s = want_ids(t, ids, 3);
    assert_false(s.stream);
    (void)want_ids(t, ids + 3, 3);
    want_end(t);
    done(t);
    for (int keep = 0; keep < 2; keep++) {
        opts.keep_padding = keep;
        t = open_rows((struct tensor[]){ tensor_2d("input_ids", DT_I32, 2, 3, ids),
            tensor_2d("attention_mask", DT_I64, 2, 3, mask) }, 2, RC_OK);
        (void)want_ids(t, ids, keep ? 3 : 2);
        (void)want_ids(t, ids + 3, keep ? 3 : 1);
        done(t);
    }
    t = open_rows((struct tensor[]){ tensor_1d("input_ids", DT_I32, 6, ids), tensor_1d("lengths", DT_I64, 2, lengths) },
        2, RC_OK); /* as in tokens/ of a work directory */
    s = want_ids(t, ids, 2);
    assert_false(s.stream);
    s = want_ids(t, ids + 2, 4);
    assert_int_equal(s.line, 2);
    want_end(t);
    done(t);
    t = open_rows((struct tensor[]){ tensor_2d("input_ids", DT_I32, 2, 3, ids), tensor_1d("lengths", DT_I64, 2, odd) },
        2, RC_OK);
    (void)want_ids(t, ids, 2);
    (void)want_ids(t, ids + 3, 3);
    want_end(t);
    done(t);
    t = open_rows((struct tensor[]){ tensor_1d("input_ids", DT_I32, 6, ids) }, 1, RC_OK);
    s = want_ids(t, ids, 6);
    assert_true(s.stream);
    done(t);
    t = open_rows((struct tensor[]){ tensor_2d("input_ids", DT_I32, 2, 3, ids),
        tensor_2d("attention_mask", DT_U8, 2, 3, bits) }, 2, RC_OK);
    (void)want_ids(t, ids, 2);
    assert_int_equal(text_next(t, &s), RC_DATA);
    assert_says(err_text(), "data: sample 2: attention_mask is 0 at 1");
    done(t);
}

static void
test_bad_rows(void **state)
{
    static const int32_t ids[] = { 1, 2, 3, 4, 5, 6 };
    static const int64_t lengths[] = { 2, 4 }, odd[] = { 2, 3 };
    static const uint8_t bits[] = { 1, 1, 0, 1, 0, 1 };

    (void)state;
    done(open_rows((struct tensor[]){ tensor_1d("x", DT_I32, 6, ids) }, 1, RC_DATA));
    assert_says(err_text(), "data: no tensor input_ids");
    done(open_rows((struct tensor[]){ tensor_1d("input_ids", DT_F32, 6, ids) }, 1, RC_DATA));
    assert_says(err_text(), "data: input_ids is F32");
    for (int i = 0; i < 6; i++) {
        static const char *const why[] = { "lengths sum to 5, input_ids has 6 tokens",
            "lengths: item 1 is not a length", "lengths has 2 items for 3 samples", "attention_mask wants input_ids",
            "attention_mask is U8 [3, 2]", "both attention_mask and lengths" };
        struct tensor flat = tensor_1d("input_ids", DT_I32, 6, ids), rows = tensor_2d("input_ids", DT_I32, 3, 2, ids);
        struct tensor row2 = tensor_2d("input_ids", DT_I32, 2, 3, ids);
        struct tensor v[3];

        v[0] = i == 0 ? flat : i == 1 ? row2 : i == 2 ? rows : i == 3 ? flat : row2;
        v[1] = i == 0 ? tensor_1d("lengths", DT_I64, 2, odd) : i < 3 ? tensor_1d("lengths", DT_I64, 2, lengths) :
            i == 3 ? tensor_1d("attention_mask", DT_U8, 6, bits) :
            i == 4 ? tensor_2d("attention_mask", DT_U8, 3, 2, bits) : tensor_2d("attention_mask", DT_U8, 2, 3, bits);
        v[2] = tensor_1d("lengths", DT_I64, 2, odd);
        done(open_rows(v, i == 5 ? 3 : 2, RC_DATA));
        assert_says(err_text(), why[i]);
    }
    done(open_rows((struct tensor[]){ tensor_2d("input_ids", DT_I32, 3, 0, ids) }, 1, RC_DATA));
    assert_says(err_text(), "data: rows of 0 tokens");
    done(open_bytes("\x10\0\0\0\0\0\0\0{\"input_ids\": {}", 20, RC_DATA)); /* cut */
    assert_says(err_text(), "data: header of 16 bytes does not fit");
}

static int
begin(void **state)
{
    return getcwd(demo, sizeof(demo)) != NULL ? unit_begin(state) : -1;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines), cmocka_unit_test(test_plain), cmocka_unit_test(test_bad),
        cmocka_unit_test(test_mark), cmocka_unit_test(test_compressed), cmocka_unit_test(test_columns),
        cmocka_unit_test(test_padding), cmocka_unit_test(test_directory), cmocka_unit_test(test_tar),
        cmocka_unit_test(test_npy),
        cmocka_unit_test(test_rows), cmocka_unit_test(test_bad_rows),
    };

    return cmocka_run_group_tests(tests, begin, unit_end);
}
