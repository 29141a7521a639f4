/* test-tok - token ids against those of the tokenizers library, and what is refused */
#include "../../libcommon/buf.h"
#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../../libcommon/text.h"
#include "../../libcommon/tok.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static const char *const styles[] = { "gpt2", "gpt2-prefix", "llama3", "qwen", "smollm2" };

static void
read_whole(struct buf *b, const char *path)
{
    assert_int_equal(buf_read_file(b, path, 1 << 24), RC_OK);
}

/* One line of ids; returns the next line. */
static const char *
expect_ids(const struct tok *t, const char *text, size_t len, bool special, const char *want, const char *where)
{
    struct tok_ids ids = { 0 };
    char *end;
    size_t n = 0;

    assert_int_equal(tok_encode(t, text, len, special, &ids), RC_OK);
    while (*want != '\n') {
        long id = strtol(want, &end, 10);

        assert_true(end != want);
        if (n >= ids.count || ids.v[n] != id)
            fail_msg("%s: token %zu of \"%.60s\" is %d, want %ld", where, n, text, n < ids.count ? (int)ids.v[n] : -1,
                id);
        n++;
        want = *end == ' ' ? end + 1 : end;
    }
    assert_int_equal(n, ids.count);
    tok_ids_free(&ids);
    return want + 1;
}

static void
check_style(const char *name)
{
    char path[256];
    struct buf hard = { 0 }, want = { 0 };
    struct text_sample s;
    struct text *text;
    struct tok *t;
    const char *line;

    (void)snprintf(path, sizeof(path), "t/data/tok/%s.json", name);
    assert_int_equal(tok_open(&t, path), RC_OK);
    (void)snprintf(path, sizeof(path), "t/data/tok/%s.ids", name);
    read_whole(&want, path);
    read_whole(&hard, "t/data/tok/hard.txt");
    line = expect_ids(t, hard.s, hard.len, true, want.s, name);
    for (const char *c = hard.s, *end = hard.s + hard.len; c <= end;) {
        const char *nl = memchr(c, '\n', (size_t)(end - c));
        size_t len = nl != NULL ? (size_t)(nl - c) : (size_t)(end - c);

        line = expect_ids(t, c, len, false, line, name);
        c += len + 1;
    }
    assert_int_equal(text_open(&text, "t/data/tok/hard-invalid.txt"), RC_OK);
    assert_int_equal(text_next(text, &s), RC_OK);
    line = expect_ids(t, s.text, s.len, false, line, name);
    assert_int_equal(*line, '\0');
    text_close(text);
    tok_close(t);
    buf_free(&hard);
    buf_free(&want);
}

static void
test_styles(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(styles) / sizeof(styles[0]); i++)
        check_style(styles[i]);
}

static void
test_ids(void **state)
{
    struct tok *t;

    (void)state;
    assert_int_equal(tok_open(&t, "t/data/tok/llama3.json"), RC_OK);
    assert_int_equal(tok_id(t, "<|endoftext|>"), 0);
    assert_int_equal(tok_id(t, "<|bos|>"), 1);
    assert_int_equal(tok_id(t, "no such token"), -1);
    assert_int_equal(tok_vocab(t), tok_id(t, "<|x|>") + 1);
    tok_close(t);
}

/* A word of a megabyte must not take quadratic time: the test would not end. */
static void
test_long_word(void **state)
{
    enum { N = 1 << 20 };
    char *text = mem_alloc(N, 1);
    struct tok_ids ids = { 0 };
    struct tok *t;

    (void)state;
    for (int i = 0; i < N; i++)
        text[i] = "aebthxs"[(i * 7 + i / 3) % 7];
    assert_int_equal(tok_open(&t, "t/data/tok/gpt2.json"), RC_OK);
    assert_int_equal(tok_encode(t, text, N, false, &ids), RC_OK);
    assert_true(ids.count > N / 8 && ids.count < N);
    tok_ids_free(&ids);
    tok_close(t);
    mem_free(text);
}

static struct tok *
open_text(const char *json, int want)
{
    char path[] = "/tmp/llmc-tok.XXXXXX";
    int fd = mkstemp(path);
    struct tok *t = NULL;

    assert_true(fd >= 0);
    assert_true(write(fd, json, strlen(json)) == (ssize_t)strlen(json));
    (void)close(fd);
    assert_int_equal(tok_open(&t, path), want);
    (void)unlink(path);
    return t;
}

#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"<unk>\":3,\"<0xC3>\":4,\"<0xA9>\":5," \
              "\"\xe2\x96\x81\":6,\"\xe2\x96\x81" "a\":7},\"merges\":[\"a b\",[\"\xe2\x96\x81\",\"a\"]]"

static void
expect(const char *json, const char *text, const int *want, size_t count)
{
    struct tok *t = open_text(json, RC_OK);
    struct tok_ids ids = { 0 };

    assert_int_equal(tok_encode(t, text, strlen(text), true, &ids), RC_OK);
    assert_int_equal(ids.count, count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(ids.v[i], want[i]);
    tok_ids_free(&ids);
    tok_close(t);
}

static void
test_sentencepiece_style(void **state)
{
    (void)state;
    expect("{" MODEL ",\"byte_fallback\":true,\"unk_token\":\"<unk>\",\"fuse_unk\":true},\"normalizer\":{\"type\":\"Sequence\","
        "\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
        "\"content\":\"\xe2\x96\x81\"}]}}", "ab \xc3\xa9zz", (const int[]){ 6, 2, 6, 4, 5, 3 }, 6);
    expect("{" MODEL ",\"unk_token\":\"<unk>\"},\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\","
        "\"prepend_scheme\":\"always\",\"split\":true}}", "a bz", (const int[]){ 7, 6, 1, 3 }, 4);
    expect("{" MODEL "}}", "abzab", (const int[]){ 2, 2 }, 2); /* no unknown token: dropped */
}

static void
test_splits(void **state)
{
#define SPLIT(behaviour, invert) "{" MODEL "},\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"b\"},\"behavior\":\"" \
    behaviour "\",\"invert\":" invert "}}"
    (void)state;
    expect(SPLIT("Isolated", "false"), "abab", (const int[]){ 0, 1, 0, 1 }, 4);
    expect(SPLIT("Removed", "false"), "abab", (const int[]){ 0, 0 }, 2);
    expect(SPLIT("MergedWithPrevious", "false"), "abab", (const int[]){ 2, 2 }, 2);
    expect(SPLIT("MergedWithNext", "false"), "abab", (const int[]){ 0, 1, 0, 1 }, 4);
    expect(SPLIT("Removed", "true"), "abab", (const int[]){ 1, 1 }, 2);
}

static void
test_refused(void **state)
{
    static const struct { const char *json, *why; } cases[] = {
        { "{\"model\":{\"type\":\"Unigram\"}}", "model \"Unigram\" is not supported; there is BPE" },
        { "{}", "no \"model\"" },
        { "{" MODEL "},\"normalizer\":{\"type\":\"NFKC\"}}", "normalizer \"NFKC\" is not supported" },
        { "{" MODEL "},\"pre_tokenizer\":{\"type\":\"Bert\"}}", "pre_tokenizer \"Bert\" is not supported" },
        { "{" MODEL "},\"post_processor\":{\"type\":\"RobertaProcessing\"}}",
            "post_processor \"RobertaProcessing\" is not supported" },
        { "{" MODEL ",\"dropout\":0.1}}", "dropout is not supported" },
        { "{" MODEL ",\"end_of_word_suffix\":\"</w>\"}}", "subword prefixes and suffixes are not supported" },
        { "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}",
            "merges: \"a b\" and its halves are not all in the vocab" },
        { "{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "vocab: id of \"a\" is not a token id" },
        { "{" MODEL "},\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}}",
            "pattern \"(\" is not supported" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_null(open_text(cases[i].json, RC_DATA));
        if (strstr(err_text(), cases[i].why) == NULL)
            fail_msg("message is \"%s\", want \"%s\"", err_text(), cases[i].why);
    }
    assert_null(open_text("{\"model\"", RC_DATA));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_styles), cmocka_unit_test(test_ids), cmocka_unit_test(test_long_word),
        cmocka_unit_test(test_sentencepiece_style), cmocka_unit_test(test_splits), cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
