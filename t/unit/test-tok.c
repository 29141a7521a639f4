/* test-tok - token ids against those of the tokenizers library, and what is refused */
#include "../../libcommon/buf.h"
#include "../../libcommon/file.h"
#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../../libcommon/text.h"
#include "../../libcommon/tok.h"
#include "../../libcommon/tok_bpe.h"

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
expect_ids(const struct tok *t, const char *text, size_t len, enum tok_special special, const char *want,
    const char *where)
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
    line = expect_ids(t, hard.s, hard.len, TOK_SPECIAL, want.s, name);
    for (const char *c = hard.s, *end = hard.s + hard.len; c <= end;) {
        const char *nl = memchr(c, '\n', (size_t)(end - c));
        size_t len = nl != NULL ? (size_t)(nl - c) : (size_t)(end - c);

        line = expect_ids(t, c, len, TOK_BARE, line, name);
        c += len + 1;
    }
    assert_int_equal(text_open(&text, "t/data/tok/hard-invalid.txt", &(struct text_opts){ 0 }), RC_OK);
    assert_int_equal(text_next(text, &s), RC_OK);
    line = expect_ids(t, s.text, s.len, TOK_BARE, line, name);
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
    char path[] = P_tmpdir "/llmc-tok.XXXXXX";
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
    expect("{" MODEL ",\"byte_fallback\":true,\"unk_token\":\"<unk>\",\"fuse_unk\":true},"
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
        "\"content\":\"\xe2\x96\x81\"}]}}", "ab \xc3\xa9zz", (const int[]){ 6, 2, 6, 4, 5, 3 }, 6);
    expect("{" MODEL ",\"unk_token\":\"<unk>\"},"
        "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\","
        "\"prepend_scheme\":\"always\",\"split\":true}}", "a bz", (const int[]){ 7, 6, 1, 3 }, 4);
    expect("{" MODEL "}}", "abzab", (const int[]){ 2, 2 }, 2); /* no unknown token: dropped */
}

static void
test_splits(void **state)
{
#define SPLIT(behaviour, invert) "{" MODEL "}," \
    "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"b\"}," \
    "\"behavior\":\"" behaviour "\",\"invert\":" invert "}}"
    (void)state;
    expect(SPLIT("Isolated", "false"), "abab", (const int[]){ 0, 1, 0, 1 }, 4);
    expect(SPLIT("Removed", "false"), "abab", (const int[]){ 0, 0 }, 2);
    expect(SPLIT("MergedWithPrevious", "false"), "abab", (const int[]){ 2, 2 }, 2);
    expect(SPLIT("MergedWithNext", "false"), "abab", (const int[]){ 0, 1, 0, 1 }, 4);
    expect(SPLIT("Removed", "true"), "abab", (const int[]){ 1, 1 }, 2);
}

/* Patterns as Oniguruma reads them; each piece that matches is dropped, or kept alone when inverted. */
static void
test_patterns(void **state)
{
    static const struct { const char *regex, *behaviour, *invert, *text; int want[4]; size_t count; } cases[] = {
        { "(?=b)", "Isolated", "false", "abab", { 0, 1, 0, 1 }, 4 }, /* empty matches cut */
        { "(?=b)", "MergedWithPrevious", "true", "abab", { 0, 1, 0, 1 }, 4 },
        { "b", "Contiguous", "false", "abba", { 0, 1, 1, 0 }, 4 },
        { "(?:ab){1,2}+", "Removed", "false", "ababab", { 0 }, 0 }, /* a repeat of the repeat */
        { "[x[b]]", "Removed", "false", "abab", { 0, 0 }, 2 },
        { "a{,2}", "Removed", "true", "aaab", { 0, 0, 0 }, 3 },
        { "a{2}?", "Removed", "true", "aaab", { 0, 0 }, 2 },
        { "a{", "Removed", "false", "ba{", { 1 }, 1 },
        { "[]a]", "Removed", "false", "]ab", { 1 }, 1 },
        { "\\\\u0061|\\\\x{7a}", "Removed", "false", "azb", { 1 }, 1 },
        { "^b|b$", "Removed", "false", "ab\nba", { 0, 3, 0 }, 3 }, /* of every line */
        { "(?i:A)", "Removed", "false", "ab", { 1 }, 1 },
        { "\\\\h", "Removed", "false", "ag", { 3 }, 1 }, /* a hexadecimal digit */
        { "\\\\w", "Removed", "true", "\xcc\x81", { 3 }, 1 }, /* marks are of words */
        { "\\\\p{L}", "Removed", "true", "\xe1\xb2\x89", { 3 }, 1 }, /* U+1C89, of Unicode 16 */
        { "\\\\p{Han}", "Removed", "true", "\xe3\x80\x81", { 0 }, 0 }, /* U+3001 is of several scripts */
        { "\\\\s", "Removed", "true", "\xe1\xa0\x8e", { 0 }, 0 }, /* U+180E is no space any more */
        { "[^\\\\S]|\\\\P{L}", "Removed", "true", "a b", { 3 }, 1 },
    };
    char json[1024];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        (void)snprintf(json, sizeof(json), "{" MODEL ",\"unk_token\":\"<unk>\"},\"pre_tokenizer\":{\"type\":\"Split\","
            "\"pattern\":{\"Regex\":\"%s\"},\"behavior\":\"%s\",\"invert\":%s}}", cases[i].regex, cases[i].behaviour,
            cases[i].invert);
        expect(json, cases[i].text, cases[i].want, cases[i].count);
    }
}

static void
test_added(void **state)
{
#define ADDED(id, content, flags) "{\"id\":" id ",\"content\":\"" content "\"" flags "}"
    static const char json[] = "{" MODEL ",\"unk_token\":\"<unk>\"},\"added_tokens\":["
        ADDED("8", "<x>", ",\"special\":true,\"rstrip\":true") "," ADDED("9", "  ", ",\"normalized\":false") ","
        ADDED("10", "<w>", ",\"normalized\":false,\"single_word\":true") "," ADDED("11", "bb", ",\"lstrip\":true") ","
        ADDED("12", "bba", "") "]}";
    static const struct { const char *text; int want[5]; size_t count; } cases[] = {
        { "<x>   a", { 8, 9, 3, 0 }, 4 }, /* the spaces that <x> took are looked at again */
        { "<x>     a", { 8, 9, 9, 3, 0 }, 5 },
        { "\xe2\x92\xb6<w>", { 3, 3, 3, 3 }, 4 }, /* a circled letter is of a word */
        { "\xe1\xb2\x89<w>b", { 3, 3, 3, 3, 1 }, 5 },
        { "_<w>", { 3, 3, 3, 3 }, 4 },
        { "\xc2\xb2<w>", { 3, 10 }, 2 },
        { " <w>a", { 3, 3, 3, 3, 0 }, 5 },
        { "a  bb", { 0, 9, 11 }, 3 },
        { "a bb", { 0, 11 }, 2 },
        { "abbab", { 0, 12, 1 }, 3 }, /* the longest */
        { "b bba", { 1, 3, 12 }, 3 },
        { "", { 0 }, 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        expect(json, cases[i].text, cases[i].want, cases[i].count);
    /* A pre-tokenizer that leaves nothing of one stretch has words of the next. */
    expect("{" MODEL "},\"added_tokens\":[" ADDED("8", "!", "") "],\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":"
        "{\"Regex\":\"a\"},\"behavior\":\"Removed\",\"invert\":false}}", "aa!b", (const int[]){ 8, 1 }, 2);
}

/* Metaspace with "first" is about the text's start, not that of every piece; steps after ByteLevel see letters. */
static void
test_steps(void **state)
{
    (void)state;
    expect("{" MODEL "},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},"
        "{\"type\":\"Metaspace\",\"prepend_scheme\":\"first\"}]}}", "a a", (const int[]){ 7, 0 }, 2);
    expect("{" MODEL "},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},"
        "{\"type\":\"Metaspace\",\"prepend_scheme\":\"first\"}]}}", " a", (const int[]){ 0 }, 1);
    expect("{\"model\":{\"vocab\":{\"a\":0,\"\xc4\xa0\":1,\"1\":2,\"\xc4\xa0" "1\":3,\"\xc3\xa9\":4},"
        "\"merges\":[\"\xc4\xa0 1\"]},\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
        "{\"type\":\"Digits\",\"individual_digits\":true}]}}", "a 1\xe9\x80\x80", (const int[]){ 0, 1, 2, 4 }, 4);
}

static void
test_long_match(void **state)
{
    enum { N = 1 << 18 };
    char *text = mem_alloc(N, 1);
    struct tok_ids ids = { 0 };
    struct tok *t;

    (void)state;
    memset(text, 'a', N);
    t = open_text("{" MODEL "},\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?:a|bc)+\"},"
        "\"behavior\":\"Isolated\",\"invert\":false}}", RC_OK);
    assert_int_equal(tok_encode(t, text, N, false, &ids), RC_OK);
    assert_int_equal(ids.count, N);
    tok_ids_free(&ids);
    tok_close(t);
    mem_free(text);
}

/* Tokens that are not in the vocabulary are numbered from its size on; a token twice is one. */
static void
test_numbers(void **state)
{
    static const char json[] = "{" MODEL "},\"added_tokens\":["
        "{\"id\":50,\"content\":\"<x>\"},{\"id\":2,\"content\":\"ab\"},"
        "{\"id\":60,\"content\":\"<y>\"},{\"id\":50,\"content\":\"<x>\",\"rstrip\":true}]}";
    struct tok *t = open_text(json, RC_OK);
    struct tok_ids ids = { 0 };

    (void)state;
    assert_int_equal(tok_id(t, "<x>"), 8);
    assert_int_equal(tok_id(t, "ab"), 2);
    assert_int_equal(tok_id(t, "<y>"), 9);
    assert_int_equal(tok_vocab(t), 10);
    assert_int_equal(tok_encode(t, "<x> \t<y>", 8, true, &ids), RC_OK);
    assert_int_equal(ids.count, 2);
    assert_int_equal(tok_encode(t, "a\xc3", 2, true, &ids), RC_DATA);
    assert_non_null(strstr(err_text(), "text is not UTF-8 at byte 1"));
    tok_ids_free(&ids);
    tok_close(t);
}

/* A text that has what the template adds gets no second one, unless asked. */
static void
test_special(void **state)
{
    static const char json[] = "{" MODEL "},\"added_tokens\":[{\"id\":8,\"content\":\"<x>\",\"special\":true},"
        "{\"id\":9,\"content\":\"<y>\",\"special\":true}],"
        "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
        "{\"SpecialToken\":{\"id\":\"<x>\"}},{\"SpecialToken\":{\"id\":\"<x>\"}},{\"Sequence\":{\"id\":\"A\"}},"
        "{\"SpecialToken\":{\"id\":\"<y>\"}}],\"special_tokens\":{\"<x>\":{\"ids\":[8]},\"<y>\":{\"ids\":[9]}}}}";
    static const struct { const char *text; enum tok_special special; int ids[8], count; } cases[] = {
        { "ab", TOK_BARE, { 2 }, 1 }, { "ab", TOK_SPECIAL, { 8, 8, 2, 9 }, 4 },
        { "ab", TOK_SPECIAL_ONCE, { 8, 8, 2, 9 }, 4 }, { "<x><x>ab<y>", TOK_SPECIAL, { 8, 8, 8, 8, 2, 9, 9 }, 7 },
        { "<x><x>ab<y>", TOK_SPECIAL_ONCE, { 8, 8, 2, 9 }, 4 },
        { "<x>ab", TOK_SPECIAL_ONCE, { 8, 8, 8, 2, 9 }, 5 }, { "<x><x>", TOK_SPECIAL_ONCE, { 8, 8, 9 }, 3 },
        { "ab<y>", TOK_SPECIAL_ONCE, { 8, 8, 2, 9 }, 4 }, { "", TOK_SPECIAL_ONCE, { 8, 8, 9 }, 3 },
        { "<y>", TOK_SPECIAL_ONCE, { 8, 8, 9 }, 3 },
    };
    struct tok *t = open_text(json, RC_OK);

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tok_ids ids = { 0 };

        assert_int_equal(bpe_add_ids(&ids, (const int32_t[]){ 8, 8 }, 2), RC_OK); /* what is there stays */
        assert_int_equal(tok_encode(t, cases[i].text, strlen(cases[i].text), cases[i].special, &ids), RC_OK);
        assert_int_equal(ids.count, 2 + cases[i].count);
        for (int k = 0; k < cases[i].count; k++)
            assert_int_equal(ids.v[2 + k], cases[i].ids[k]);
        tok_ids_free(&ids);
    }
    tok_close(t);
}

/* What tokenizer_config.json says of tokens to add goes before tokenizer.json's post-processor. */
static void
test_config(void **state)
{
    static const char json[] = "{" MODEL "},\"added_tokens\":[{\"content\":\"<x>\"},{\"content\":\"<y>\"}],"
        "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<y>\"}},"
        "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<y>\":{\"ids\":[9]}}}}";
    static const struct { const char *config; int rc, ids[4], count; } cases[] = {
        { "{\"bos_token\": \"<x>\"}", RC_OK, { 9, 2 }, 2 },
        { "{\"bos_token\": \"<x>\", \"add_bos_token\": true}", RC_OK, { 8, 2 }, 2 },
        { "{\"bos_token\": \"<x>\", \"add_bos_token\": false}", RC_OK, { 2 }, 1 },
        { "{\"bos_token\": \"<x>\", \"add_bos_token\": null}", RC_OK, { 2 }, 1 },
        { "{\"bos_token\": null, \"add_bos_token\": true}", RC_OK, { 2 }, 1 },
        { "{\"eos_token\": {\"content\": \"<x>\"}, \"add_eos_token\": true}", RC_OK, { 2, 8 }, 2 },
        { "{\"bos_token\": \"<z>\", \"add_bos_token\": true}", RC_DATA, { 0 }, 0 },
        { "{\"bos_token\": 1, \"add_bos_token\": true}", RC_DATA, { 0 }, 0 },
        { "{\"add_bos_token\": 1}", RC_DATA, { 0 }, 0 }, { "{", RC_DATA, { 0 }, 0 },
    };
    char dir[] = P_tmpdir "/llmc-tok.XXXXXX", path[64];
    struct tok *t;

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(tok_open_model(&t, dir), RC_NOINPUT);
    assert_null(t);
    assert_non_null(strstr(err_text(), "tokenizer.json: "));
    (void)snprintf(path, sizeof(path), "%s/tokenizer.model", dir);
    assert_int_equal(file_publish(path, "", 0), RC_OK);
    assert_int_equal(tok_open_model(&t, dir), RC_NOINPUT);
    assert_non_null(strstr(err_text(), "has tokenizer.model, but no tokenizer.json"));
    (void)unlink(path);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tok_ids ids = { 0 };

        (void)snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
        assert_int_equal(file_publish(path, json, strlen(json)), RC_OK);
        (void)snprintf(path, sizeof(path), "%s/tokenizer_config.json", dir);
        assert_int_equal(file_publish(path, cases[i].config, strlen(cases[i].config)), RC_OK);
        assert_int_equal(tok_open_model(&t, dir), cases[i].rc);
        if (cases[i].rc != RC_OK) {
            assert_null(t);
            assert_non_null(strstr(err_text(), "tokenizer_config.json: "));
            continue;
        }
        assert_int_equal(tok_encode(t, "ab", 2, TOK_SPECIAL, &ids), RC_OK);
        assert_int_equal(ids.count, cases[i].count);
        for (int k = 0; k < cases[i].count; k++)
            assert_int_equal(ids.v[k], cases[i].ids[k]);
        tok_ids_free(&ids);
        tok_close(t);
    }
    (void)unlink(path);
    (void)snprintf(path, sizeof(path), "%s/tokenizer.json", dir);
    (void)unlink(path);
    (void)rmdir(dir);
}

static const struct { const char *regex, *why; } refused[] = {
    { "a&&b|[a&&b]", "an intersection at byte 8" }, { "[a[^b]]", "this class in a class" },
    { "[a-[b]]", "this class in a class" },
    { "[[:alpha:]]", "this class in a class" }, { "[\\\\P{L}]", "a negated escape in a class" },
    { "\\\\p{Greekish}", "this property" }, { "\\\\pL", "this property" }, { "\\\\p{^L}", "this property" },
    { "\\\\b", "this escape" }, { "\\\\X", "this escape" }, { "\\\\1", "this escape" }, { "a\\\\", "this escape" },
    { "\\\\u12", "this code point" }, { "\\\\x{1", "this code point" }, { "[a", "a class without end" },
    { "(a", "a group without end" }, { "a)", "a closing parenthesis" }, { "a**", "a repeat" }, { "*a", "a repeat" },
    { "|{2}", "a repeat of nothing" }, { "(?x:a)", "this group" }, { "(?<n>a)", "this group" },
    { "a(?i)b", "this group" }, { "(?i:ss)", "letters that are also one" },
    { "(?i:\xc3\xa9)", "this letter without case" }, { "[b-a]", "error" },
    { "((((((((((((((((((((((((((((((((((", "more groups within groups" },
};

static void
test_refused(void **state)
{
#define POST(single) "{" MODEL "},\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[" single "]," \
    "\"special_tokens\":{\"x\":{\"ids\":[1]}}}}"
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
        { POST("{\"Sequence\":{\"id\":\"A\"}},{\"Sequence\":{\"id\":\"A\"}}"), "want \"$A\" once" },
        { POST("{\"SpecialToken\":{\"id\":\"x\"}}"), "template without \"$A\"" },
        { POST("{\"SpecialToken\":{\"id\":\"y\"}},{\"Sequence\":{\"id\":\"A\"}}"), "names a token without ids" },
        { "{" MODEL "},\"pre_tokenizer\":{\"type\":\"Metaspace\",\"add_prefix_space\":false}}",
            "add_prefix_space does not match prepend_scheme \"always\"" },
        { "{" MODEL "},\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"last\"}}",
            "prepend_scheme \"last\" is not supported" },
        { "{" MODEL "},\"pre_tokenizer\":{\"type\":\"Punctuation\",\"behavior\":\"X\"}}",
            "behavior \"X\" is not supported" },
        { "{" MODEL "},\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},\"content\":\"b\"}}",
            "pattern \"(\" is not supported" },
        { "{" MODEL "},\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\\u0000\"},\"content\":\"\"}}",
            "a pattern with NUL is not supported" },
        { "{" MODEL "},\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x+\"},\"content\":\"\"},"
            "\"added_tokens\":[{\"id\":9,\"content\":\"xx\",\"normalized\":true}]}",
            "added token \"xx\" is normalised to nothing" },
        { "{" MODEL ",\"continuing_subword_prefix\":\"##\"}}", "subword prefixes and suffixes are not supported" },
        { "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", "merges: an entry is no pair" },
        { "{\"model\":{\"vocab\":{},\"merges\":[]}}", "model has no vocab" },
        { "{\"model\":{\"vocab\":{\"a\":0}}}", "model has no merges" },
    };

    char json[1024];
    struct tok *t;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_null(open_text(cases[i].json, RC_DATA));
        if (strstr(err_text(), cases[i].why) == NULL)
            fail_msg("message is \"%s\", want \"%s\"", err_text(), cases[i].why);
    }
    assert_null(open_text("{\"model\"", RC_DATA));
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        (void)snprintf(json, sizeof(json), "{" MODEL "},\"pre_tokenizer\":{\"type\":\"Split\","
            "\"pattern\":{\"Regex\":\"%s\"},\"behavior\":\"Isolated\",\"invert\":false}}", refused[i].regex);
        assert_null(open_text(json, RC_DATA));
        if (strstr(err_text(), refused[i].why) == NULL)
            fail_msg("message of \"%s\" is \"%s\", want \"%s\"", refused[i].regex, err_text(), refused[i].why);
    }
    assert_null(open_text("", RC_DATA));
    assert_int_equal(tok_open(&t, "no such file"), RC_NOINPUT);
    assert_null(t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_styles), cmocka_unit_test(test_ids), cmocka_unit_test(test_long_word),
        cmocka_unit_test(test_sentencepiece_style), cmocka_unit_test(test_splits),
        cmocka_unit_test(test_patterns), cmocka_unit_test(test_added), cmocka_unit_test(test_steps),
        cmocka_unit_test(test_long_match), cmocka_unit_test(test_refused), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_special), cmocka_unit_test(test_config),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
