/* match - which modules a recipe's target or ignore entry means */
#define PCRE2_CODE_UNIT_WIDTH 8

#include "match.h"

#include "buf.h"
#include "mem.h"

#include <ctype.h>
#include <pcre2.h>
#include <string.h>

enum { PATTERN_BYTES_MAX = 4096, STEPS_MAX = 1000000 };

/* --- Python's syntax into PCRE2's --- */

struct translator {
    const char *text; /* the whole entry */
    const char *s;    /* what is left of it */
    struct buf  out;
};

static int
refuse(const struct translator *t, const char *what)
{
    return err_set(RC_DATA, "pattern \"%s\": %s at character %zu", t->text, what,
        (size_t)(t->s - t->text) + 1);
}

static int
copy(struct translator *t, size_t n)
{
    buf_add(&t->out, t->s, n);
    t->s += n;
    return RC_OK;
}

/* \xHH, \uHHHH, \UHHHHHHHH */
static int
translate_code(struct translator *t)
{
    size_t want = t->s[1] == 'x' ? 2 : t->s[1] == 'u' ? 4 : 8, n = 0;

    while (n < want && isxdigit((unsigned char)t->s[2 + n]))
        n++;
    if (n < want)
        return refuse(t, "incomplete escape");
    buf_printf(&t->out, "\\x{%.*s}", (int)want, t->s + 2);
    t->s += 2 + want;
    return RC_OK;
}

static int
translate_escape(struct translator *t, bool in_class)
{
    char c = t->s[1];

    if (c == '\0')
        return refuse(t, "pattern ends in an escape");
    if (!isalnum((unsigned char)c))
        return copy(t, 2);
    if (isdigit((unsigned char)c)) {
        if (in_class || c == '0' || isdigit((unsigned char)t->s[2]))
            return refuse(t, "octal codes and references above 9 are not supported");
        return copy(t, 2);
    }
    if (c == 'x' || c == 'u' || c == 'U')
        return translate_code(t);
    if (c == 'v' || (c == 'Z' && !in_class)) { /* of PCRE2: a class; also before a last newline */
        buf_puts(&t->out, c == 'v' ? "\\x0b" : "\\z");
        t->s += 2;
        return RC_OK;
    }
    return strchr(in_class ? "dDsSwWafnrtb" : "dDsSwWafnrtbBA", c) != NULL ? copy(t, 2)
        : refuse(t, "unknown escape");
}

/* [...]; of PCRE2 alone: classes in it, as "[[:alpha:]]". */
static int
translate_class(struct translator *t)
{
    const char *start = t->s;
    int rc = RC_OK;

    (void)copy(t, 1);
    if (*t->s == '^')
        (void)copy(t, 1);
    if (*t->s == ']') {
        buf_puts(&t->out, "\\]");
        t->s++;
    }
    while (*t->s != ']' && rc == RC_OK) {
        if (*t->s == '\0') {
            t->s = start;
            return refuse(t, "missing ]");
        }
        if (*t->s == '\\')
            rc = translate_escape(t, true);
        else if (*t->s == '[') {
            buf_puts(&t->out, "\\[");
            t->s++;
        } else
            (void)copy(t, 1);
    }
    return rc == RC_OK ? copy(t, 1) : rc;
}

/* {n} {n,} {,m} {n,m} {,} repeat, any other brace is itself. */
static int
translate_brace(struct translator *t)
{
    size_t lo = strspn(t->s + 1, "0123456789"), hi = 0;
    const char *p = t->s + 1 + lo;
    bool range = *p == ',';

    if (range)
        hi = strspn(p + 1, "0123456789");
    if (p[range ? 1 + hi : 0] != '}' || (lo == 0 && !range)) {
        buf_puts(&t->out, "\\{");
        t->s++;
        return RC_OK;
    }
    buf_printf(&t->out, "{%.*s", lo > 0 ? (int)lo : 1, lo > 0 ? t->s + 1 : "0");
    t->s = p;
    return copy(t, range ? 2 + hi : 1);
}

/* (?flags) at the start alone, (?flags:...), (?flags-flags:...) */
static int
translate_flags(struct translator *t)
{
    size_t n = strspn(t->s + 2, "ims-");

    if (n > 0 && t->s[2 + n] == ')' && t->out.len == 0 && t->s[2] != '-')
        return copy(t, n + 3);
    if (n > 0 && t->s[2 + n] == ')')
        return refuse(t, "flags that are not at the start");
    return n > 0 && t->s[2 + n] == ':' ? copy(t, n + 3) : refuse(t, "unknown group or flag");
}

/* (...), (?...) and, of PCRE2 alone, (*...) */
static int
translate_group(struct translator *t)
{
    const char *s = t->s + 2, *end;
    size_t n;

    if (t->s[1] == '*')
        return refuse(t, "nothing to repeat");
    if (t->s[1] != '?')
        return copy(t, 1);
    if (*s == '#') {
        if ((end = strchr(s, ')')) == NULL)
            return refuse(t, "missing )");
        t->s = end + 1;
        return RC_OK;
    }
    if (*s == ':' || *s == '=' || *s == '!' || *s == '>')
        return copy(t, 3);
    if ((*s == '<' && (s[1] == '=' || s[1] == '!')) || (*s == 'P' && (s[1] == '<' || s[1] == '=')))
        return copy(t, 4);
    if (*s != '(')
        return translate_flags(t);
    n = strcspn(++s, ")"); /* (?(1)yes|no), (?(name)yes|no) */
    if (s[n] == '\0' || n == 0)
        return refuse(t, "missing )");
    if (s[strspn(s, "0123456789")] == ')')
        buf_printf(&t->out, "(?(%.*s)", (int)n, s);
    else
        buf_printf(&t->out, "(?(<%.*s>)", (int)n, s);
    t->s = s + n + 1;
    return RC_OK;
}

static int
translate(struct translator *t)
{
    int rc = RC_OK;

    while (*t->s != '\0' && rc == RC_OK) {
        switch (*t->s) {
        case '\\':
            rc = translate_escape(t, false);
            break;
        case '[':
            rc = translate_class(t);
            break;
        case '{':
            rc = translate_brace(t);
            break;
        case '(':
            rc = translate_group(t);
            break;
        default:
            rc = copy(t, 1);
        }
    }
    buf_puts(&t->out, "");
    return rc == RC_OK && !buf_ok(&t->out) ? RC_OS : rc;
}

/* --- entries --- */

static int
compile(struct match *m)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    struct translator t = { .text = m->text, .s = m->text + 3 };
    unsigned char why[128];
    int code, rc = RC_OK;
    size_t at;

    if (context == NULL)
        return err_set(RC_OS, "out of memory");
    (void)pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    if (strlen(m->text) > PATTERN_BYTES_MAX)
        rc = err_set(RC_DATA, "pattern \"%.40s...\" is longer than %d bytes", m->text,
            PATTERN_BYTES_MAX);
    else if ((rc = translate(&t)) == RC_OK) {
        m->regex = pcre2_compile((const unsigned char *)t.out.s, PCRE2_ZERO_TERMINATED,
            PCRE2_ANCHORED | PCRE2_UTF | PCRE2_UCP, &code, &at, context);
        if (m->regex == NULL) {
            (void)pcre2_get_error_message(code, why, sizeof(why));
            rc = err_set(RC_DATA, "pattern \"%s\": %s", m->text, (const char *)why);
        }
    }
    buf_free(&t.out);
    pcre2_compile_context_free(context);
    return rc;
}

int
match_init(struct match *m, const char *text)
{
    int rc = RC_OK;

    *m = (struct match){ .text = mem_strdup(text) };
    if (m->text == NULL)
        return RC_OS;
    if (strncmp(text, "re:", 3) == 0 && (rc = compile(m)) != RC_OK)
        match_free(m);
    return rc;
}

void
match_free(struct match *m)
{
    pcre2_code_free(m->regex);
    mem_free(m->text);
    *m = (struct match){ 0 };
}

static bool
one_of(const char *text, const char *classes)
{
    size_t len = strlen(text), n;

    for (; *classes != '\0'; classes += n + strspn(classes + n, " ")) {
        n = strcspn(classes, " ");
        if (n == len && memcmp(classes, text, n) == 0)
            return true;
    }
    return false;
}

enum match_kind
match_module(const struct match *m, const char *name, const char *classes)
{
    pcre2_match_context *context;
    pcre2_match_data *data;
    int n = PCRE2_ERROR_NOMEMORY;

    if (m->regex == NULL)
        return strcmp(m->text, name) == 0 ? MATCH_NAME : one_of(m->text, classes) ? MATCH_CLASS
            : MATCH_NO;
    context = pcre2_match_context_create(NULL);
    data = pcre2_match_data_create_from_pattern(m->regex, NULL);
    if (context != NULL && data != NULL) {
        (void)pcre2_set_match_limit(context, STEPS_MAX);
        n = pcre2_match(m->regex, (const unsigned char *)name, strlen(name), 0, 0, data, context);
    }
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    if (n >= 0 || n == PCRE2_ERROR_NOMATCH)
        return n >= 0 ? MATCH_REGEX : MATCH_NO;
    (void)err_set(RC_DATA, "pattern \"%s\" cannot be matched with %s: %s", m->text, name,
        n == PCRE2_ERROR_NOMEMORY ? "out of memory" : n == PCRE2_ERROR_MATCHLIMIT ? "too many steps"
        : "error of PCRE2");
    return MATCH_ERROR;
}
