/* jinja_lex - a Jinja template as tokens */
#include "jinja_lex.h"

#include "mem.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>

enum { TOKENS_MAX = 1 << 20, BRACKETS_MAX = 64, INTEGER_MAX = 18 };

struct lexer {
    struct jinja_tokens *t;
    const char          *s, *end, *at;
    int                  line;
    bool                 line_starts; /* what was read last ended with a newline */
};

bool
jinja_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
        (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool
is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int
add(struct lexer *l, struct jinja_token tok)
{
    struct jinja_token *v = mem_grow(l->t->v, &l->t->cap, l->t->count + 1, sizeof(*v));

    if (v == NULL) {
        json_decref(tok.value);
        return RC_OS;
    }
    l->t->v = v;
    tok.line = l->line;
    v[l->t->count++] = tok;
    return l->t->count < TOKENS_MAX ? RC_OK : err_set(RC_DATA, "more than %d tokens", TOKENS_MAX);
}

/* Goes on to p, counting lines. */
static void
advance(struct lexer *l, const char *p)
{
    for (; l->at < p; l->at++)
        l->line += *l->at == '\n';
}

static const char *
skip_space(const char *s, const char *end)
{
    while (s < end) {
        uint32_t c;
        size_t n = utf8_decode(s, (size_t)(end - s), &c);

        if (!jinja_is_space(c))
            break;
        s += n;
    }
    return s;
}

/* Where the white space that ends s[0, end) starts. */
static const char *
strip_end(const char *s, const char *end)
{
    while (end > s) {
        const char *p = end;
        uint32_t c;

        do
            p--;
        while (p > s && ((unsigned char)*p & 0xc0) == 0x80);
        (void)utf8_decode(p, (size_t)(end - p), &c);
        if (!jinja_is_space(c))
            break;
        end = p;
    }
    return end;
}

/* The end of the text before a tag at p: "-" takes the white space away, and without a sign a statement or comment
 * takes what is before it on its line, if that is white space alone. */
static const char *
text_end(const struct lexer *l, const char *p)
{
    const char *end = p, *start;

    if (p[2] == '-')
        return strip_end(l->at, p);
    if (p[1] == '{' || p[2] == '+')
        return p;
    for (start = p; start > l->at && start[-1] != '\n';)
        start--;
    if (start > l->at || l->line_starts)
        end = strip_end(start, p) == start ? start : p;
    return end;
}

/* --- inside a tag --- */

static int
bad(const char *what)
{
    return err_set(RC_DATA, "%s", what);
}

static int
hex_escape(const char **p, const char *end, int digits, struct buf *out)
{
    char hex[9] = "", utf8[4];
    uint32_t c;
    int n = 0;

    if (end - *p < digits)
        return bad("an escape is cut");
    memcpy(hex, *p, (size_t)digits);
    if (strspn(hex, "0123456789abcdefABCDEF") != (size_t)digits)
        return bad("an escape is no number");
    c = (uint32_t)strtoul(hex, NULL, 16);
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return bad("an escape is no character");
    *p += digits;
    if (c < 0x80) {
        utf8[n++] = (char)c;
    } else if (c < 0x800) {
        utf8[n++] = (char)(0xc0 | c >> 6);
        utf8[n++] = (char)(0x80 | (c & 0x3f));
    } else {
        if (c < 0x10000) {
            utf8[n++] = (char)(0xe0 | c >> 12);
        } else {
            utf8[n++] = (char)(0xf0 | c >> 18);
            utf8[n++] = (char)(0x80 | (c >> 12 & 0x3f));
        }
        utf8[n++] = (char)(0x80 | (c >> 6 & 0x3f));
        utf8[n++] = (char)(0x80 | (c & 0x3f));
    }
    buf_add(out, utf8, (size_t)n);
    return RC_OK;
}

/* As Python reads a literal; an escape that it does not know stays with its backslash. */
static int
add_string(struct lexer *l)
{
    static const char letters[] = "abfnrtv\\'\"", codes[] = "\a\b\f\n\r\t\v\\'\"";
    const char *p = l->at + 1, quote = *l->at, *hit;
    struct buf b = { 0 };
    json_t *value;
    int rc = RC_OK;

    buf_puts(&b, "");
    while (p < l->end && *p != quote && rc == RC_OK) {
        if (*p != '\\' || p + 1 == l->end) {
            buf_add(&b, p++, 1);
            continue;
        }
        p += 2;
        if (p[-1] == 'x' || p[-1] == 'u' || p[-1] == 'U')
            rc = hex_escape(&p, l->end, p[-1] == 'x' ? 2 : p[-1] == 'u' ? 4 : 8, &b);
        else if (p[-1] == 'N' || is_digit(p[-1]))
            rc = bad("an octal or named escape is not supported");
        else if (p[-1] != '\0' && (hit = strchr(letters, p[-1])) != NULL)
            buf_add(&b, &codes[hit - letters], 1);
        else if (p[-1] != '\n') /* a newline vanishes */
            buf_add(&b, p - 2, 2);
    }
    if (rc == RC_OK && p == l->end)
        rc = bad("a string without end");
    value = rc == RC_OK && buf_ok(&b) ? json_stringn(b.s, b.len) : NULL;
    buf_free(&b);
    if (rc == RC_OK && value == NULL)
        rc = err_set(RC_OS, "out of memory");
    if (rc == RC_OK)
        rc = add(l, (struct jinja_token){ .kind = JT_CONST, .value = value });
    advance(l, p + (p < l->end));
    return rc;
}

static int
add_number(struct lexer *l)
{
    const char *p = l->at;
    char text[64];
    bool real;
    json_t *value;

    while (p < l->end && is_digit(*p))
        p++;
    real = p + 1 < l->end && *p == '.' && is_digit(p[1]);
    if (real)
        for (p++; p < l->end && is_digit(*p);)
            p++;
    if (p - l->at >= (real ? (int)sizeof(text) : INTEGER_MAX + 1) || (p < l->end && is_name(*p)))
        return bad("a number of this form is not supported");
    memcpy(text, l->at, (size_t)(p - l->at));
    text[p - l->at] = '\0';
    value = real ? json_real(strtod(text, NULL)) : json_integer(strtoll(text, NULL, 10));
    if (value == NULL)
        return err_set(RC_OS, "out of memory");
    advance(l, p);
    return add(l, (struct jinja_token){ .kind = JT_CONST, .value = value });
}

static int
add_operator(struct lexer *l, char *brackets, int *depth)
{
    static const char twos[][3] = { "==", "!=", "<=", ">=", "//", "**" }, singles[] = "+-*/%~[](){}<>=.:|,",
        open[] = "[({", shut[] = "])}";
    const char *p = l->at, *hit;
    int op = *p;

    if (*p == '\0' || (strchr(singles, *p) == NULL && *p != '!'))
        return bad("a character that starts no token");
    for (size_t i = 0; i < sizeof(twos) / sizeof(twos[0]); i++)
        if (p + 1 < l->end && p[0] == twos[i][0] && p[1] == twos[i][1])
            op = p[0] | p[1] << 8;
    if (op == '!')
        return bad("a character that starts no token");
    if ((hit = strchr(open, op)) != NULL && op < 256) {
        if (*depth == BRACKETS_MAX)
            return bad("brackets nest too deep");
        brackets[(*depth)++] = shut[hit - open];
    } else if (op < 256 && strchr(shut, op) != NULL && (*depth == 0 || brackets[--*depth] != op)) {
        return bad("a bracket that was not opened");
    }
    advance(l, p + (op < 256 ? 1 : 2));
    return add(l, (struct jinja_token){ .kind = JT_OP, .op = op });
}

/* The tag's end at p, its length with the white space that it takes; 0: none. */
static size_t
tag_end(const struct lexer *l, const char *p, char last, const char **next)
{
    size_t sign = *p == '-' || *p == '+' ? 1 : 0;

    if ((size_t)(l->end - p) < sign + 2 || p[sign] != last || p[sign + 1] != '}' || (last == '}' && *p == '+'))
        return 0;
    *next = p + sign + 2;
    if (*p == '-')
        *next = skip_space(*next, l->end);
    else if (sign == 0 && last != '}' && *next < l->end && **next == '\n')
        (*next)++;
    return sign + 2;
}

static int
read_tag(struct lexer *l, bool block)
{
    char brackets[BRACKETS_MAX], last = block ? '%' : '}';
    const char *next;
    int depth = 0;

    for (;;) {
        advance(l, skip_space(l->at, l->end));
        if (l->at == l->end)
            return bad("a tag without end");
        if (depth == 0 && tag_end(l, l->at, last, &next) > 0)
            break;
        if (*l->at == '\'' || *l->at == '"') {
            TRY(add_string(l));
        } else if (is_digit(*l->at)) {
            TRY(add_number(l));
        } else if (is_name(*l->at)) {
            const char *p = l->at, *from = p;

            while (p < l->end && is_name(*p))
                p++;
            advance(l, p);
            TRY(add(l, (struct jinja_token){ .kind = JT_NAME, .s = from, .len = (size_t)(p - from) }));
        } else {
            TRY(add_operator(l, brackets, &depth));
        }
    }
    TRY(add(l, (struct jinja_token){ .kind = block ? JT_BLOCK_END : JT_VAR_END }));
    l->line_starts = next[-1] == '\n';
    advance(l, next);
    return RC_OK;
}

static int
skip_comment(struct lexer *l)
{
    const char *p = l->at + 2, *next = NULL;

    while (p < l->end && tag_end(l, p, '#', &next) == 0)
        p++;
    if (p == l->end)
        return bad("a comment without end");
    l->line_starts = next[-1] == '\n';
    advance(l, next);
    return RC_OK;
}

static int
lex(struct lexer *l)
{
    l->line_starts = true;
    while (l->at < l->end) {
        const char *p = l->at, *end;

        while (p + 1 < l->end && !(p[0] == '{' && (p[1] == '{' || p[1] == '%' || p[1] == '#')))
            p++;
        if (p + 1 >= l->end)
            p = l->end;
        end = p < l->end ? text_end(l, p) : p; /* p[2] may be the NUL after the source */
        if (end > l->at)
            TRY(add(l, (struct jinja_token){ .kind = JT_TEXT, .s = l->at, .len = (size_t)(end - l->at) }));
        if (p > l->at)
            l->line_starts = false; /* a tag ends with its own */
        advance(l, p);
        if (p == l->end)
            break;
        if (p[1] == '#') {
            TRY(skip_comment(l));
            continue;
        }
        TRY(add(l, (struct jinja_token){ .kind = p[1] == '%' ? JT_BLOCK_BEGIN : JT_VAR_BEGIN }));
        advance(l, p + 2 + (p[2] == '-' || p[2] == '+'));
        TRY(read_tag(l, p[1] == '%'));
    }
    return add(l, (struct jinja_token){ .kind = JT_EOF });
}

int
jinja_lex(struct jinja_tokens *t, const char *text, size_t len)
{
    struct lexer l = { .t = t, .line = 1 };
    int rc;

    *t = (struct jinja_tokens){ 0 };
    buf_puts(&t->source, "");
    for (size_t i = 0; i < len; i++)
        if (text[i] != '\r')
            buf_add(&t->source, &text[i], 1);
        else if (i + 1 == len || text[i + 1] != '\n')
            buf_add(&t->source, "\n", 1);
    if (!buf_ok(&t->source))
        return RC_OS;
    if (t->source.len > 0 && t->source.s[t->source.len - 1] == '\n')
        t->source.s[--t->source.len] = '\0';
    l.s = l.at = t->source.s;
    l.end = l.s + t->source.len;
    if ((rc = lex(&l)) != RC_OK)
        (void)err_at(rc, "line %d", l.line);
    return rc;
}

void
jinja_lex_free(struct jinja_tokens *t)
{
    for (size_t i = 0; i < t->count; i++)
        json_decref(t->v[i].value);
    mem_free(t->v);
    buf_free(&t->source);
    *t = (struct jinja_tokens){ 0 };
}
