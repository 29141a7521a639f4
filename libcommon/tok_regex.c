/* tok_regex - the patterns of tokenizer.json, written for Oniguruma with Unicode 16, spelled for PCRE2 */
#include "tok_regex.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { DEPTH_MAX = 32 };

/* Assigned after Unicode 14, with their general categories. */
static const struct { uint32_t first, last; const char *category; } newer[] = {
    { 0x897, 0x897, "Mn" }, { 0xcf3, 0xcf3, "Mc" }, { 0xece, 0xece, "Mn" }, { 0x1b4e, 0x1b4f, "Po" },
    { 0x1b7f, 0x1b7f, "Po" }, { 0x1c89, 0x1c89, "Lu" }, { 0x1c8a, 0x1c8a, "Ll" }, { 0x2427, 0x2429, "So" },
    { 0x2ffc, 0x2fff, "So" }, { 0x31e4, 0x31e5, "So" }, { 0x31ef, 0x31ef, "So" }, { 0xa7cb, 0xa7cc, "Lu" },
    { 0xa7cd, 0xa7cd, "Ll" }, { 0xa7da, 0xa7da, "Lu" }, { 0xa7db, 0xa7db, "Ll" }, { 0xa7dc, 0xa7dc, "Lu" },
    { 0x105c0, 0x105f3, "Lo" }, { 0x10d40, 0x10d49, "Nd" }, { 0x10d4a, 0x10d4d, "Lo" }, { 0x10d4e, 0x10d4e, "Lm" },
    { 0x10d4f, 0x10d4f, "Lo" }, { 0x10d50, 0x10d65, "Lu" }, { 0x10d69, 0x10d6d, "Mn" }, { 0x10d6e, 0x10d6e, "Pd" },
    { 0x10d6f, 0x10d6f, "Lm" }, { 0x10d70, 0x10d85, "Ll" }, { 0x10d8e, 0x10d8f, "Sm" }, { 0x10ec2, 0x10ec4, "Lo" },
    { 0x10efc, 0x10eff, "Mn" }, { 0x1123f, 0x11240, "Lo" }, { 0x11241, 0x11241, "Mn" }, { 0x11380, 0x11389, "Lo" },
    { 0x1138b, 0x1138b, "Lo" }, { 0x1138e, 0x1138e, "Lo" }, { 0x11390, 0x113b5, "Lo" }, { 0x113b7, 0x113b7, "Lo" },
    { 0x113b8, 0x113ba, "Mc" }, { 0x113bb, 0x113c0, "Mn" }, { 0x113c2, 0x113c2, "Mc" }, { 0x113c5, 0x113c5, "Mc" },
    { 0x113c7, 0x113ca, "Mc" }, { 0x113cc, 0x113cd, "Mc" }, { 0x113ce, 0x113ce, "Mn" }, { 0x113cf, 0x113cf, "Mc" },
    { 0x113d0, 0x113d0, "Mn" }, { 0x113d1, 0x113d1, "Lo" }, { 0x113d2, 0x113d2, "Mn" }, { 0x113d3, 0x113d3, "Lo" },
    { 0x113d4, 0x113d5, "Po" }, { 0x113d7, 0x113d8, "Po" }, { 0x113e1, 0x113e2, "Mn" }, { 0x116d0, 0x116e3, "Nd" },
    { 0x1171e, 0x1171e, "Mc" }, { 0x11b00, 0x11b09, "Po" }, { 0x11bc0, 0x11be0, "Lo" }, { 0x11be1, 0x11be1, "Po" },
    { 0x11bf0, 0x11bf9, "Nd" }, { 0x11f00, 0x11f01, "Mn" }, { 0x11f02, 0x11f02, "Lo" }, { 0x11f03, 0x11f03, "Mc" },
    { 0x11f04, 0x11f10, "Lo" }, { 0x11f12, 0x11f33, "Lo" }, { 0x11f34, 0x11f35, "Mc" }, { 0x11f36, 0x11f3a, "Mn" },
    { 0x11f3e, 0x11f3f, "Mc" }, { 0x11f40, 0x11f40, "Mn" }, { 0x11f41, 0x11f41, "Mc" }, { 0x11f42, 0x11f42, "Mn" },
    { 0x11f43, 0x11f4f, "Po" }, { 0x11f50, 0x11f59, "Nd" }, { 0x11f5a, 0x11f5a, "Mn" }, { 0x1342f, 0x1342f, "Lo" },
    { 0x13439, 0x1343f, "Cf" }, { 0x13440, 0x13440, "Mn" }, { 0x13441, 0x13446, "Lo" }, { 0x13447, 0x13455, "Mn" },
    { 0x13460, 0x143fa, "Lo" }, { 0x16100, 0x1611d, "Lo" }, { 0x1611e, 0x16129, "Mn" }, { 0x1612a, 0x1612c, "Mc" },
    { 0x1612d, 0x1612f, "Mn" }, { 0x16130, 0x16139, "Nd" }, { 0x16d40, 0x16d42, "Lm" }, { 0x16d43, 0x16d6a, "Lo" },
    { 0x16d6b, 0x16d6c, "Lm" }, { 0x16d6d, 0x16d6f, "Po" }, { 0x16d70, 0x16d79, "Nd" }, { 0x18cff, 0x18cff, "Lo" },
    { 0x1b132, 0x1b132, "Lo" }, { 0x1b155, 0x1b155, "Lo" }, { 0x1cc00, 0x1ccef, "So" }, { 0x1ccf0, 0x1ccf9, "Nd" },
    { 0x1cd00, 0x1ceb3, "So" }, { 0x1d2c0, 0x1d2d3, "No" }, { 0x1df25, 0x1df2a, "Ll" }, { 0x1e030, 0x1e06d, "Lm" },
    { 0x1e08f, 0x1e08f, "Mn" }, { 0x1e4d0, 0x1e4ea, "Lo" }, { 0x1e4eb, 0x1e4eb, "Lm" }, { 0x1e4ec, 0x1e4ef, "Mn" },
    { 0x1e4f0, 0x1e4f9, "Nd" }, { 0x1e5d0, 0x1e5ed, "Lo" }, { 0x1e5ee, 0x1e5ef, "Mn" }, { 0x1e5f0, 0x1e5f0, "Lo" },
    { 0x1e5f1, 0x1e5fa, "Nd" }, { 0x1e5ff, 0x1e5ff, "Po" }, { 0x1f6dc, 0x1f6dc, "So" }, { 0x1f774, 0x1f776, "So" },
    { 0x1f77b, 0x1f77f, "So" }, { 0x1f7d9, 0x1f7d9, "So" }, { 0x1f8b2, 0x1f8bb, "So" }, { 0x1f8c0, 0x1f8c1, "So" },
    { 0x1fa75, 0x1fa77, "So" }, { 0x1fa87, 0x1fa89, "So" }, { 0x1fa8f, 0x1fa8f, "So" }, { 0x1faad, 0x1faaf, "So" },
    { 0x1fabb, 0x1fabf, "So" }, { 0x1fac6, 0x1fac6, "So" }, { 0x1face, 0x1facf, "So" }, { 0x1fada, 0x1fadc, "So" },
    { 0x1fadf, 0x1fadf, "So" }, { 0x1fae8, 0x1fae9, "So" }, { 0x1faf7, 0x1faf8, "So" }, { 0x1fbcb, 0x1fbef, "So" },
    { 0x2b739, 0x2b739, "Lo" }, { 0x2ebf0, 0x2ee5d, "Lo" }, { 0x31350, 0x323af, "Lo" },
};

static const struct { const char *script, *newer; } scripts[] = {
    { "Arabic", "\\x{897}\\x{10ec2}-\\x{10ec4}\\x{10efc}-\\x{10eff}" },
    { "Cyrillic", "\\x{1c89}-\\x{1c8a}\\x{1e030}-\\x{1e06d}\\x{1e08f}" },
    { "Devanagari", "\\x{11b00}-\\x{11b09}" },
    { "Greek", "" },
    { "Han", "\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}" },
    { "Hangul", "" },
    { "Hebrew", "" },
    { "Hiragana", "\\x{1b132}" },
    { "Katakana", "\\x{1b155}" },
    { "Latin", "\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{1df25}-\\x{1df2a}" },
    { "Thai", "" },
};

/* White_Space, and all else; PCRE2's \s takes U+180E for a space as well. */
#define SPACES "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NO_SPACES "\\x00-\\x08\\x0e-\\x1f\\x21-\\x84\\x86-\\x9f\\xa1-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}" \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"

/* Letters of words that are neither letters, marks nor numbers: circled and squared Latin. */
#define CIRCLED "\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}"

/* Punctuation that the library's table does not have: its \p{P} is of an early Unicode. */
#define NO_PUNCTUATION \
    "\\x{61d}\\x{9fd}\\x{a76}\\x{c77}\\x{c84}\\x{1b4e}-\\x{1b4f}\\x{1b7d}-\\x{1b7f}\\x{2e43}-\\x{2e4f}" \
    "\\x{2e52}-\\x{2e5d}\\x{10d6e}\\x{10ead}\\x{10f55}-\\x{10f59}\\x{10f86}-\\x{10f89}\\x{113d4}-\\x{113d5}" \
    "\\x{113d7}-\\x{113d8}\\x{1144b}-\\x{1144f}\\x{1145a}-\\x{1145b}\\x{1145d}\\x{11660}-\\x{1166c}\\x{116b9}" \
    "\\x{1183b}\\x{11944}-\\x{11946}\\x{119e2}\\x{11a3f}-\\x{11a46}\\x{11a9a}-\\x{11a9c}\\x{11a9e}-\\x{11aa2}" \
    "\\x{11b00}-\\x{11b09}\\x{11be1}\\x{11c41}-\\x{11c45}\\x{11c70}-\\x{11c71}\\x{11ef7}-\\x{11ef8}" \
    "\\x{11f43}-\\x{11f4f}\\x{11fff}\\x{12ff1}-\\x{12ff2}\\x{16d6d}-\\x{16d6f}\\x{16e97}-\\x{16e9a}\\x{16fe2}" \
    "\\x{1e5ff}\\x{1e95e}-\\x{1e95f}"

struct reader {
    const char *pattern, *p;
    struct buf *out;
    size_t      atom;             /* where the last atom starts in out; SIZE_MAX: nothing to repeat */
    size_t      open[DEPTH_MAX];  /* where open groups start */
    int         depth, caseless;  /* depth at which (?i: opened + 1; 0: not */
};

static int
refuse(const struct reader *r, const char *what)
{
    return err_set(RC_DATA, "pattern \"%.200s\" is not supported: %s at byte %td", r->pattern, what, r->p - r->pattern);
}

/* --- items of a class --- */

static void
add_category(struct buf *out, const char *name)
{
    size_t len = strlen(name);

    buf_printf(out, "\\p{%s}", name);
    for (size_t i = 0; i < sizeof(newer) / sizeof(newer[0]); i++)
        if (strncmp(newer[i].category, name, len) == 0)
            buf_printf(out, "\\x{%x}-\\x{%x}", (unsigned)newer[i].first, (unsigned)newer[i].last);
}

static void
add_word(struct buf *out, const char *also)
{
    static const char *const parts[] = { "L", "M", "Nd", "Nl", "Pc" };

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        add_category(out, parts[i]);
    buf_puts(out, CIRCLED);
    buf_puts(out, also);
}

static bool
is_category(const char *name)
{
    static const char all[] = "L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp ";
    size_t len = strlen(name);

    for (const char *c = all; *c != '\0'; c = strchr(c, ' ') + 1)
        if (strncmp(c, name, len) == 0 && c[len] == ' ')
            return true;
    return false;
}

/* {Name} after \p: its items. */
static int
property(struct reader *r)
{
    char name[16];
    const char *end = *r->p == '{' ? strchr(r->p, '}') : NULL;
    size_t len = end != NULL ? (size_t)(end - r->p) - 1 : 0;

    if (end == NULL || len == 0 || len >= sizeof(name))
        return refuse(r, "this property");
    memcpy(name, r->p + 1, len);
    name[len] = '\0';
    if (is_category(name)) {
        add_category(r->out, name);
        r->p = end + 1;
        return RC_OK;
    }
    for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
        if (strcmp(name, scripts[i].script) == 0) {
            buf_printf(r->out, "\\p{sc:%s}%s", name, scripts[i].newer);
            r->p = end + 1;
            return RC_OK;
        }
    return refuse(r, "this property");
}

/* \x41, \x{1f600} or \u0041: r->p is after the letter. */
static int
code_point(struct reader *r, char letter)
{
    bool brace = letter == 'x' && *r->p == '{';
    size_t len = strspn(r->p + brace, "0123456789abcdefABCDEF");

    if (!brace && len > (letter == 'x' ? 2U : 4U))
        len = letter == 'x' ? 2 : 4;
    if (len == 0 || len > 6 || (letter == 'u' && len != 4) || (brace && r->p[1 + len] != '}'))
        return refuse(r, "this code point");
    buf_printf(r->out, "\\x{%.*s}", (int)len, r->p + brace);
    r->p += len + (brace ? 2 : 0);
    return RC_OK;
}

/* After the backslash; in or outside a class. *set: it stands for several characters. */
static int
escape(struct reader *r, bool in_class, bool *set)
{
    char c = *r->p++;
    bool negated = c == 'S' || c == 'D' || c == 'W' || c == 'P';

    *set = c != '\0' && strchr("sSdDwWpPh", c) != NULL;
    if (!*set) {
        if (c == 'x' || c == 'u')
            return code_point(r, c);
        if (c == 'v')
            buf_puts(r->out, "\\x0b");
        else if (c != '\0' && strchr("aefnrt", c) != NULL)
            buf_printf(r->out, "\\%c", c);
        else if (!in_class && c != '\0' && strchr("AzZ", c) != NULL)
            buf_printf(r->out, "\\%c", c);
        else if (c > ' ' && strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^`{|}~", c) != NULL)
            buf_printf(r->out, "\\%c", c);
        else if (c == ' ' || c == '_' || (c & 0x80) != 0)
            buf_add(r->out, &c, 1);
        else
            return r->p--, refuse(r, "this escape");
        return RC_OK;
    }
    if (in_class && negated && c != 'S')
        return refuse(r, "a negated escape in a class");
    if (!in_class)
        buf_puts(r->out, negated && c != 'S' ? "[^" : "[");
    if (c == 's' || c == 'S')
        buf_puts(r->out, c == 's' ? SPACES : NO_SPACES);
    else if (c == 'd' || c == 'D')
        add_category(r->out, "Nd");
    else if (c == 'w' || c == 'W')
        add_word(r->out, in_class ? "" : "\\xb2\\xb3\\xb9\\xbc-\\xbe"); /* as Oniguruma has it */
    else if (c == 'h')
        buf_puts(r->out, "0-9A-Fa-f");
    else
        TRY(property(r));
    if (!in_class)
        buf_puts(r->out, "]");
    return RC_OK;
}

/* After the bracket. A class within a class is a union: its brackets go. */
static int
class(struct reader *r)
{
    int depth = 1;
    bool set = false, start = true;

    buf_puts(r->out, "[");
    if (*r->p == '^') {
        buf_puts(r->out, "^");
        r->p++;
    }
    for (; depth > 0; start = false) {
        char c = *r->p++;

        if (c == '\0')
            return r->p--, refuse(r, "a class without end");
        if (c == ']' && !start) {
            depth--;
            set = true;
        } else if (c == '[') {
            if (*r->p == ':' || *r->p == '^' || *r->p == ']' || r->p[-2] == '-')
                return refuse(r, "this class in a class");
            depth++;
        } else if (c == '&' && *r->p == '&') {
            return refuse(r, "an intersection");
        } else if (c == '\\') {
            TRY(escape(r, true, &set));
        } else {
            if (c == ']' || (c == '-' && set))
                buf_puts(r->out, "\\");
            buf_add(r->out, &c, 1);
            set = false;
        }
    }
    buf_puts(r->out, "]");
    return RC_OK;
}

/* --- groups and repeats --- */

static int
group(struct reader *r)
{
    static const char *const kinds[] = { "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:" };
    const char *at = r->p;

    if (strncmp(at, "(?i)", 4) == 0 && at == r->pattern) {
        buf_puts(r->out, "(?i)");
        r->p += 4;
        r->caseless = 1;
        return RC_OK;
    }
    if (r->depth == DEPTH_MAX)
        return refuse(r, "more groups within groups");
    r->open[r->depth++] = r->out->len;
    r->atom = SIZE_MAX;
    if (at[1] != '?') {
        buf_puts(r->out, "(?:"); /* nothing reads what a group caught */
        r->p++;
        return RC_OK;
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strncmp(at, kinds[i], strlen(kinds[i])) == 0) {
            buf_puts(r->out, kinds[i]);
            r->p += strlen(kinds[i]);
            if (i == 6 && r->caseless == 0)
                r->caseless = r->depth;
            return RC_OK;
        }
    return refuse(r, "this group");
}

/* Puts what was written since the atom in a group. */
static void
wrap(struct reader *r, char after)
{
    struct buf tail = { 0 };

    buf_add(&tail, r->out->s + r->atom, r->out->len - r->atom);
    r->out->len = r->atom;
    buf_puts(r->out, "(?:");
    buf_add(r->out, tail.s, tail.len);
    buf_printf(r->out, ")%c", after);
    r->out->failed |= tail.failed;
    buf_free(&tail);
}

/* {n}, {n,}, {n,m} or {,m}; then "+" repeats it all, and "?" after {n} makes it optional. */
static int
interval(struct reader *r)
{
    size_t low = strspn(r->p + 1, "0123456789"), comma = r->p[1 + low] == ',';
    size_t high = comma ? strspn(r->p + 2 + low, "0123456789") : 0, len = 2 + low + comma + high;

    if (r->p[len - 1] != '}' || low + high == 0) { /* no interval: the brace itself */
        r->atom = r->out->len;
        buf_puts(r->out, "\\{");
        r->p++;
        return RC_OK;
    }
    if (r->atom == SIZE_MAX)
        return refuse(r, "a repeat of nothing");
    buf_puts(r->out, low == 0 ? "{0" : "{");
    buf_add(r->out, r->p + 1, len - 1);
    r->p += len;
    if (*r->p == '+' || (*r->p == '?' && !comma))
        wrap(r, *r->p++);
    else if (*r->p == '?')
        buf_add(r->out, r->p++, 1);
    r->atom = SIZE_MAX;
    return RC_OK;
}

static int
repeat(struct reader *r)
{
    if (r->atom == SIZE_MAX)
        return refuse(r, "a repeat of nothing or of a repeat");
    buf_add(r->out, r->p++, 1);
    if (*r->p == '+' || *r->p == '?')
        buf_add(r->out, r->p++, 1);
    r->atom = SIZE_MAX;
    return RC_OK;
}

static int
literal(struct reader *r)
{
    static const char *const ligatures[] = { "ss", "ff", "fi", "fl", "st" };
    size_t n = 1;

    if (r->caseless != 0) {
        if ((*r->p & 0x80) != 0)
            return refuse(r, "this letter without case");
        for (size_t i = 0; i < sizeof(ligatures) / sizeof(ligatures[0]); i++)
            if (strncasecmp(r->p, ligatures[i], 2) == 0)
                return refuse(r, "letters that are also one, without case");
    }
    while ((r->p[n] & 0xc0) == 0x80)
        n++;
    r->atom = r->out->len;
    if (*r->p == ']' || *r->p == '}')
        buf_puts(r->out, "\\");
    buf_add(r->out, r->p, n);
    r->p += n;
    return RC_OK;
}

static int
close_group(struct reader *r)
{
    if (r->depth == 0)
        return refuse(r, "a closing parenthesis");
    if (r->caseless == r->depth)
        r->caseless = 0;
    r->atom = r->open[--r->depth];
    buf_add(r->out, r->p++, 1);
    return RC_OK;
}

static int
next(struct reader *r)
{
    size_t at = r->out->len;
    bool set;

    switch (*r->p) {
    case '(':
        return group(r);
    case ')':
        return close_group(r);
    case '*': case '+': case '?':
        return repeat(r);
    case '{':
        return interval(r);
    case '|': case '^': case '$':
        buf_add(r->out, r->p++, 1);
        r->atom = SIZE_MAX;
        return RC_OK;
    case '[':
        r->p++;
        TRY(class(r));
        break;
    case '\\':
        r->p++;
        TRY(escape(r, false, &set));
        break;
    case '.':
        buf_add(r->out, r->p++, 1);
        break;
    default:
        return literal(r);
    }
    r->atom = at;
    return RC_OK;
}

int
regex_translate(const char *pattern, struct buf *out)
{
    struct reader r = { .pattern = pattern, .p = pattern, .out = out, .atom = SIZE_MAX };

    buf_puts(out, "");
    while (*r.p != '\0' && buf_ok(out))
        TRY(next(&r));
    if (r.depth > 0)
        return refuse(&r, "a group without end");
    return buf_ok(out) ? RC_OK : RC_OS;
}

/* --- fixed patterns --- */

#define JOINERS "\\x{200c}\\x{200d}"

void
regex_whitespace(struct buf *out)
{
    buf_puts(out, "[");
    add_word(out, JOINERS);
    buf_puts(out, "]+|[^" SPACES);
    add_word(out, JOINERS);
    buf_puts(out, "]+");
}

void
regex_punctuation(struct buf *out)
{
    buf_puts(out, "[!-/:-@\\[-`{-~]|(?![" NO_PUNCTUATION "])[\\p{P}\\x{166d}\\x{111c9}]");
}

void
regex_digits(struct buf *out, bool individual)
{
    buf_puts(out, "[\\x{11de0}-\\x{11de9}\\x{16ff4}-\\x{16ff6}"); /* of Unicode 17, which this one has */
    add_category(out, "N");
    buf_puts(out, individual ? "]" : "]+");
}

bool
regex_is_word(uint32_t c)
{
    const char *category = utf8proc_category_string((utf8proc_int32_t)c);
    size_t low = 0, high = sizeof(newer) / sizeof(newer[0]);

    if (c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
        (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189))
        return true;
    while (low < high) {
        size_t mid = (low + high) / 2;

        if (c > newer[mid].last)
            low = mid + 1;
        else
            high = mid;
    }
    if (low < sizeof(newer) / sizeof(newer[0]) && c >= newer[low].first)
        category = newer[low].category;
    return *category == 'L' || *category == 'M' || strcmp(category, "Nd") == 0 || strcmp(category, "Nl") == 0 ||
        strcmp(category, "Pc") == 0;
}
