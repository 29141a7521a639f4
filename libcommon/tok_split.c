/* tok_split - normalisers and pre-tokenizers of a tokenizer */
#define PCRE2_CODE_UNIT_WIDTH 8

#include "tok_split.h"

#include "mem.h"
#include "tok_bpe.h"
#include "tok_nfc.h"
#include "tok_regex.h"

#include <pcre2.h>
#include <string.h>

enum { STACK_BYTES_MAX = 1 << 28, LETTERS = 64 };

#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* --- reading --- */

/* A pattern in PCRE2's spelling. */
static int
compile(struct split_step *s, const struct buf *spelled, const char *pattern, bool literal)
{
    uint32_t options = PCRE2_UTF | PCRE2_NO_UTF_CHECK | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
    size_t at;
    int code;

    if (!buf_ok(spelled))
        return RC_OS;
    s->regex = pcre2_compile((const unsigned char *)spelled->s, spelled->len, options, &code, &at, NULL);
    if (s->regex == NULL)
        return err_set(RC_DATA, "pattern \"%.200s\" is not supported: error %d", pattern, code);
    (void)pcre2_jit_compile(s->regex, PCRE2_JIT_COMPLETE); /* slower without */
    return RC_OK;
}

static int
new_step(struct split_step *list, int *count, enum split_kind kind, struct split_step **out)
{
    if (*count == SPLIT_STEPS_MAX)
        return err_set(RC_DATA, "more than %d steps", SPLIT_STEPS_MAX);
    *out = &list[(*count)++];
    **out = (struct split_step){ .kind = kind };
    return RC_OK;
}

/* A step that cuts by a pattern; spelled is taken over. */
static int
add_spelled(struct splitter *s, struct buf *spelled, const char *pattern, bool literal,
    enum split_behaviour behaviour, bool invert)
{
    struct split_step *st = NULL;
    int rc = new_step(s->pre, &s->pre_count, SPLIT_REGEX, &st);

    if (rc == RC_OK) {
        st->behaviour = behaviour;
        st->invert = invert;
        rc = compile(st, spelled, pattern, literal);
    }
    buf_free(spelled);
    return rc;
}

static int
compile_pattern(struct split_step *s, const char *pattern, bool literal)
{
    struct buf spelled = { 0 };
    int rc = RC_OK;

    if (literal)
        buf_puts(&spelled, pattern);
    else
        rc = regex_translate(pattern, &spelled);
    if (rc == RC_OK)
        rc = compile(s, &spelled, pattern, literal);
    buf_free(&spelled);
    return rc;
}

static int
add_regex(struct splitter *s, const char *pattern, bool literal, enum split_behaviour behaviour, bool invert)
{
    struct split_step *st = NULL;

    TRY(new_step(s->pre, &s->pre_count, SPLIT_REGEX, &st));
    st->behaviour = behaviour;
    st->invert = invert;
    return compile_pattern(st, pattern, literal);
}

static int
keep(char **out, const char *text)
{
    *out = mem_strdup(text);
    return *out != NULL ? RC_OK : RC_OS;
}

/* {"String": "x"} or {"Regex": "x"} */
static int
pattern_of(const json_t *obj, const char **text, bool *literal)
{
    const json_t *p = json_object_get(obj, "pattern"), *s = json_object_get(p, "String"), *r = json_object_get(p,
        "Regex");

    *literal = s != NULL;
    s = s != NULL ? s : r;
    if ((*text = json_string_value(s)) == NULL)
        return err_set(RC_DATA, "a pattern is neither String nor Regex");
    return strlen(*text) == json_string_length(s) ? RC_OK : err_set(RC_DATA, "a pattern with NUL is not supported");
}

static int
read_normaliser(struct splitter *s, const json_t *obj)
{
    const char *type, *text;
    struct split_step *st = NULL;
    bool literal;

    TRY(jget_str(obj, "type", "", &type));
    if (strcmp(type, "NFC") == 0)
        return new_step(s->norm, &s->norm_count, SPLIT_NFC, &st);
    if (strcmp(type, "ByteLevel") == 0)
        return new_step(s->norm, &s->norm_count, SPLIT_LETTERS, &st);
    if (strcmp(type, "Prepend") == 0) {
        TRY(new_step(s->norm, &s->norm_count, SPLIT_PREPEND, &st));
        TRY(jget_str(obj, "prepend", "", &text));
        return keep(&st->to, text);
    }
    if (strcmp(type, "Replace") == 0) {
        TRY(new_step(s->norm, &s->norm_count, SPLIT_REPLACE, &st));
        TRY(jget_str(obj, "content", "", &text));
        TRY(keep(&st->to, text));
        TRY(pattern_of(obj, &text, &literal));
        return compile_pattern(st, text, literal);
    }
    return err_set(RC_DATA, "normalizer \"%s\" is not supported", type);
}

static int
read_behaviour(const json_t *obj, enum split_behaviour *out)
{
    static const char *const names[] = { "Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous" };
    const char *name;

    TRY(jget_str(obj, "behavior", "Isolated", &name));
    for (int i = 0; i < 5; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum split_behaviour)i;
            return RC_OK;
        }
    return err_set(RC_DATA, "behavior \"%s\" is not supported", name);
}

static int
read_split(struct splitter *s, const json_t *obj)
{
    enum split_behaviour behaviour;
    bool invert, literal;
    const char *text;

    TRY(pattern_of(obj, &text, &literal));
    TRY(read_behaviour(obj, &behaviour));
    TRY(jget_bool(obj, "invert", false, &invert));
    return add_regex(s, text, literal, behaviour, invert);
}

static int
read_byte_level(struct splitter *s, const json_t *obj)
{
    struct split_step *st = NULL;
    bool prefix, regex;

    TRY(jget_bool(obj, "add_prefix_space", true, &prefix));
    TRY(jget_bool(obj, "use_regex", true, &regex));
    s->byte_level = true;
    if (prefix)
        TRY(new_step(s->pre, &s->pre_count, SPLIT_PREFIX_SPACE, &st));
    return regex ? add_regex(s, GPT2_PATTERN, false, SPLIT_ISOLATED, false) : RC_OK;
}

static int
read_metaspace(struct splitter *s, const json_t *obj)
{
    const char *replacement, *scheme;
    struct split_step *st = NULL;
    bool prefix;

    TRY(new_step(s->pre, &s->pre_count, SPLIT_METASPACE, &st));
    TRY(jget_str(obj, "replacement", "\xe2\x96\x81", &replacement));
    TRY(jget_str(obj, "prepend_scheme", "always", &scheme));
    TRY(jget_bool(obj, "split", true, &st->split));
    TRY(keep(&st->to, replacement));
    if (strcmp(scheme, "never") == 0)
        return RC_OK;
    TRY(jget_bool(obj, "add_prefix_space", true, &prefix));
    if (!prefix)
        return err_set(RC_DATA, "add_prefix_space does not match prepend_scheme \"%s\"", scheme);
    if (strcmp(scheme, "first") != 0 && strcmp(scheme, "always") != 0)
        return err_set(RC_DATA, "prepend_scheme \"%s\" is not supported", scheme);
    st->first_only = strcmp(scheme, "first") == 0;
    return keep(&st->from, replacement); /* from: prepended */
}

static int
read_pre(struct splitter *s, const json_t *obj)
{
    enum split_behaviour behaviour;
    struct buf spelled = { 0 };
    struct split_step *st = NULL;
    const char *type;
    bool each;

    TRY(jget_str(obj, "type", "", &type));
    if (s->byte_level) { /* what follows sees letters in place of bytes, and so does the model */
        TRY(new_step(s->pre, &s->pre_count, SPLIT_LETTERS, &st));
        s->byte_level = false;
    }
    if (strcmp(type, "Split") == 0)
        return read_split(s, obj);
    if (strcmp(type, "ByteLevel") == 0)
        return read_byte_level(s, obj);
    if (strcmp(type, "Digits") == 0) {
        TRY(jget_bool(obj, "individual_digits", false, &each));
        regex_digits(&spelled, each);
        return add_spelled(s, &spelled, type, false, SPLIT_ISOLATED, false);
    }
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace(s, obj);
    if (strcmp(type, "Whitespace") == 0) {
        regex_whitespace(&spelled);
        return add_spelled(s, &spelled, type, false, SPLIT_REMOVED, true);
    }
    if (strcmp(type, "WhitespaceSplit") == 0)
        return add_regex(s, "\\s", false, SPLIT_REMOVED, false);
    if (strcmp(type, "Punctuation") == 0) {
        TRY(read_behaviour(obj, &behaviour));
        regex_punctuation(&spelled);
        return add_spelled(s, &spelled, type, false, behaviour, false);
    }
    return err_set(RC_DATA, "pre_tokenizer \"%s\" is not supported", type);
}

/* One object, or those of a Sequence under its key. */
static int
read_list(struct splitter *s, const json_t *obj, const char *key, int (*read)(struct splitter *s, const json_t *obj))
{
    const json_t *list = json_object_get(obj, key);
    const char *type;

    if (obj == NULL || json_is_null(obj))
        return RC_OK;
    TRY(jget_str(obj, "type", "", &type));
    if (strcmp(type, "Sequence") != 0)
        return read(s, obj);
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(read(s, json_array_get(list, i)));
    return RC_OK;
}

int
split_open(struct splitter *s, const json_t *normalizer, const json_t *pre)
{
    int rc;

    *s = (struct splitter){ 0 };
    if ((rc = read_list(s, normalizer, "normalizers", read_normaliser)) == RC_OK)
        rc = read_list(s, pre, "pretokenizers", read_pre);
    if (rc != RC_OK)
        split_close(s);
    return rc;
}

static void
step_free(struct split_step *s)
{
    mem_free(s->from);
    mem_free(s->to);
    pcre2_code_free(s->regex);
}

void
split_close(struct splitter *s)
{
    for (int i = 0; i < s->norm_count; i++)
        step_free(&s->norm[i]);
    for (int i = 0; i < s->pre_count; i++)
        step_free(&s->pre[i]);
    *s = (struct splitter){ 0 };
}

/* --- pieces --- */

void
pieces_free(struct pieces *p)
{
    buf_free(&p->text);
    mem_free(p->v);
    mem_free(p->spare);
    pcre2_match_data_free(p->match);
    pcre2_match_context_free(p->context);
    pcre2_jit_stack_free(p->stack);
    *p = (struct pieces){ 0 };
}

static int
add_piece(struct pieces *p, size_t at, size_t len, bool first)
{
    struct piece *v;

    if (p->count == p->cap) {
        if ((v = mem_grow(p->v, &p->cap, p->count + 1, sizeof(*v))) == NULL)
            return RC_OS;
        p->v = v;
    }
    p->v[p->count++] = (struct piece){ at, len, first };
    return RC_OK;
}

/* What was cut so far becomes the input of the next step. */
static void
turn(struct pieces *p)
{
    struct piece *v = p->v;
    size_t count = p->count, cap = p->cap;

    p->v = p->spare;
    p->cap = p->spare_cap;
    p->count = 0;
    p->spare = v;
    p->spare_count = count;
    p->spare_cap = cap;
}

/* Appends text[0, len) with from replaced by to. */
static void
replace_all(struct buf *out, const char *text, size_t len, const char *from, const char *to)
{
    size_t nf = strlen(from), nt = strlen(to);
    const char *end = text + len, *hit;

    while ((hit = memmem(text, (size_t)(end - text), from, nf)) != NULL) {
        buf_add(out, text, (size_t)(hit - text));
        buf_add(out, to, nt);
        text = hit + nf;
    }
    buf_add(out, text, (size_t)(end - text));
}

/* A long match of a repeated group does not fit the stack that PCRE2 starts with. */
static int
match_at(const struct split_step *st, struct pieces *p, const unsigned char *text, size_t len, size_t at)
{
    int n = pcre2_match(st->regex, text, len, at, PCRE2_NO_UTF_CHECK, p->match, p->context);

    if (n != PCRE2_ERROR_JIT_STACKLIMIT || p->context != NULL)
        return n;
    p->context = pcre2_match_context_create(NULL);
    p->stack = pcre2_jit_stack_create(1 << 16, STACK_BYTES_MAX, NULL);
    if (p->context == NULL || p->stack == NULL)
        return PCRE2_ERROR_NOMEMORY;
    pcre2_jit_stack_assign(p->context, NULL, p->stack);
    return pcre2_match(st->regex, text, len, at, PCRE2_NO_UTF_CHECK, p->match, p->context);
}

/* Over the matches in a text. An empty one counts unless it touches the match before it. */
struct walk {
    const unsigned char *text;
    size_t               len, at, last; /* last: where the match before ended */
    size_t               start, end;    /* the match */
};

/* RC_RETRY: there is none any more. */
static int
next_match(const struct split_step *st, struct pieces *p, struct walk *w)
{
    if (p->match == NULL && (p->match = pcre2_match_data_create(8, NULL)) == NULL)
        return err_set(RC_OS, "out of memory");
    while (w->at < w->len) {
        int n = match_at(st, p, w->text, w->len, w->at);

        if (n == PCRE2_ERROR_NOMATCH)
            return RC_RETRY;
        if (n < 0)
            return err_set(RC_DATA, "pattern fails on this text: error %d", n);
        w->start = pcre2_get_ovector_pointer(p->match)[0];
        w->end = w->at = pcre2_get_ovector_pointer(p->match)[1];
        if (w->start == w->end) {
            for (w->at++; w->at < w->len && (w->text[w->at] & 0xc0) == 0x80;)
                w->at++;
            if (w->start == w->last && w->last > 0)
                continue;
        }
        w->last = w->end;
        return RC_OK;
    }
    return RC_RETRY;
}

static int
replace_matches(const struct split_step *st, struct pieces *p, struct buf *out)
{
    struct walk w = { .text = (const unsigned char *)p->text.s, .len = p->text.len };
    size_t done = 0;
    int rc;

    while ((rc = next_match(st, p, &w)) == RC_OK) {
        buf_add(out, w.text + done, w.start - done);
        buf_puts(out, st->to);
        done = w.end;
    }
    buf_add(out, w.text + done, w.len - done);
    return rc == RC_RETRY ? RC_OK : rc;
}

/* The letters that stand for len bytes of *text from `at` on; out may be that text. */
static void
add_letters(struct buf *out, const struct buf *text, size_t at, size_t len)
{
    char some[2 * LETTERS];

    for (size_t i = 0, n = 0; i < len && !out->failed; n = 0) {
        for (int k = 0; k < LETTERS && i < len; k++, i++) {
            unsigned c = (unsigned)bpe_letter((unsigned char)text->s[at + i]);

            if (c >= 0x80)
                some[n++] = (char)(0xc0 | c >> 6);
            some[n++] = (char)(c < 0x80 ? c : 0x80 | (c & 0x3f));
        }
        buf_add(out, some, n);
    }
}

int
pieces_set(struct pieces *p, const char *text, size_t len, bool first)
{
    p->count = 0;
    p->text.len = 0;
    buf_add(&p->text, text, len);
    if (!buf_ok(&p->text))
        return RC_OS;
    return len == 0 ? RC_OK : add_piece(p, 0, len, first);
}

int
split_normalise(const struct splitter *s, const char *text, size_t len, bool first, struct pieces *p)
{
    struct buf tmp = { 0 };
    int rc = RC_OK;

    p->count = 0;
    p->text.len = 0;
    buf_add(&p->text, text, len);
    for (int i = 0; i < s->norm_count && rc == RC_OK; i++) {
        const struct split_step *st = &s->norm[i];

        tmp.len = 0;
        if (st->kind == SPLIT_NFC) {
            rc = nfc_add(&tmp, p->text.s, p->text.len);
        } else if (st->kind == SPLIT_PREPEND) {
            if (p->text.len > 0)
                buf_puts(&tmp, st->to);
            buf_add(&tmp, p->text.s, p->text.len);
        } else if (st->kind == SPLIT_LETTERS) {
            add_letters(&tmp, &p->text, 0, p->text.len);
        } else {
            rc = replace_matches(st, p, &tmp);
        }
        p->text.len = 0;
        buf_add(&p->text, tmp.s != NULL ? tmp.s : "", tmp.len);
    }
    if (rc == RC_OK && (!buf_ok(&tmp) || !buf_ok(&p->text)))
        rc = RC_OS;
    buf_free(&tmp);
    return rc != RC_OK || p->text.len == 0 ? rc : add_piece(p, 0, p->text.len, first);
}

/* The part of a piece before `from`, after `to` or in between, match or not, placed as the behaviour says. An empty
 * match makes an empty part, which can be merged with; those that stay empty go in the end. */
static int
place(struct pieces *p, const struct split_step *st, const struct piece *in, size_t from, size_t to, bool match,
    bool *previous)
{
    size_t at = in->at + from;
    bool merge = p->count > p->floor && p->v[p->count - 1].at + p->v[p->count - 1].len == at;

    match = match != st->invert;
    if (st->behaviour == SPLIT_REMOVED && match)
        return RC_OK;
    merge = merge && ((st->behaviour == SPLIT_CONTIGUOUS && match == *previous) ||
        (st->behaviour == SPLIT_PREVIOUS && match && !*previous) ||
        (st->behaviour == SPLIT_NEXT && !match && *previous));
    *previous = match;
    if (!merge)
        return add_piece(p, at, to - from, in->first && from == 0);
    p->v[p->count - 1].len += to - from;
    return RC_OK;
}

static void
drop_empty(struct pieces *p)
{
    size_t n = p->floor;

    for (size_t i = p->floor; i < p->count; i++)
        if (p->v[i].len > 0)
            p->v[n++] = p->v[i];
    p->count = n;
}

static int
split_regex(const struct split_step *st, struct pieces *p, const struct piece *in)
{
    struct walk w = { .text = (const unsigned char *)p->text.s + in->at, .len = in->len };
    bool previous = false, empty = false;
    size_t from = 0;
    int rc;

    p->floor = p->count;
    while ((rc = next_match(st, p, &w)) == RC_OK) {
        empty |= w.start == w.end;
        if (w.start > from)
            TRY(place(p, st, in, from, w.start, false, &previous));
        TRY(place(p, st, in, w.start, w.end, true, &previous));
        from = w.end;
    }
    if (rc != RC_RETRY)
        return rc;
    if (from < in->len)
        TRY(place(p, st, in, from, in->len, false, &previous));
    if (empty)
        drop_empty(p);
    return RC_OK;
}

static int
letters(struct pieces *p, const struct piece *in)
{
    size_t at = p->text.len;

    add_letters(&p->text, &p->text, in->at, in->len);
    return buf_ok(&p->text) ? add_piece(p, at, p->text.len - at, in->first) : RC_OS;
}

/* A changed copy of the piece at the end of the text. */
static int
prefix_space(struct pieces *p, const struct piece *in)
{
    size_t at = p->text.len;
    char *copy;

    if (p->text.s[in->at] == ' ')
        return add_piece(p, in->at, in->len, in->first);
    if ((copy = mem_alloc(in->len, 1)) == NULL)
        return RC_OS;
    memcpy(copy, p->text.s + in->at, in->len);
    buf_puts(&p->text, " ");
    buf_add(&p->text, copy, in->len);
    mem_free(copy);
    return buf_ok(&p->text) ? add_piece(p, at, in->len + 1, in->first) : RC_OS;
}

static int
metaspace(const struct split_step *st, struct pieces *p, const struct piece *in)
{
    size_t at = p->text.len, n = strlen(st->to);
    struct buf b = { 0 };
    int rc = RC_OK;

    replace_all(&b, p->text.s + in->at, in->len, " ", st->to);
    if (st->from != NULL && (!st->first_only || in->first) && !(b.len >= n && memcmp(b.s, st->to, n) == 0))
        buf_puts(&p->text, st->from);
    buf_add(&p->text, b.s, b.len);
    if (!buf_ok(&b) || !buf_ok(&p->text))
        rc = RC_OS;
    buf_free(&b);
    if (rc != RC_OK || !st->split)
        return rc != RC_OK ? rc : add_piece(p, at, p->text.len - at, in->first);
    for (size_t from = at, i = at + 1; i <= p->text.len; i++) /* cut before each replacement */
        if (i == p->text.len || (p->text.len - i >= n && memcmp(p->text.s + i, st->to, n) == 0)) {
            TRY(add_piece(p, from, i - from, in->first && from == at));
            from = i;
        }
    return RC_OK;
}

int
split_words(const struct splitter *s, struct pieces *p)
{
    for (int i = 0; i < s->pre_count; i++) {
        const struct split_step *st = &s->pre[i];

        turn(p);
        for (size_t k = 0; k < p->spare_count; k++) {
            const struct piece in = p->spare[k];

            if (st->kind == SPLIT_REGEX)
                TRY(split_regex(st, p, &in));
            else if (st->kind == SPLIT_PREFIX_SPACE)
                TRY(prefix_space(p, &in));
            else if (st->kind == SPLIT_LETTERS)
                TRY(letters(p, &in));
            else
                TRY(metaspace(st, p, &in));
        }
    }
    return RC_OK;
}
