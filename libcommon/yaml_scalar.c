/* yaml_scalar - what a plain scalar means, and how to write one */
#include "yaml.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS  "0123456789"
#define HEX     DIGITS "abcdefABCDEF"
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

static bool
one_of(const char *s, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcmp(s, *words) == 0)
            return true;
    return false;
}

/* Length of "(:[0-5]?[0-9])+" at s: the further digits of a number in base 60. */
static size_t
sixtieths(const char *s)
{
    const char *p = s;

    while (*p == ':' && strchr(DIGITS, p[1]) != NULL && p[1] != '\0')
        p += p[1] <= '5' && p[2] >= '0' && p[2] <= '9' ? 3 : 2;
    return (size_t)(p - s);
}

/* Base of an integer as YAML 1.1 writes it, *digits past its prefix; 0: not one. s has no sign. */
static int
int_base(const char *s, const char **digits)
{
    size_t n = strspn(s, DIGITS "_");

    *digits = s + 2;
    if (strncmp(s, "0b", 2) == 0 && s[2] != '\0' && s[2 + strspn(s + 2, "01_")] == '\0')
        return 2;
    if (strncmp(s, "0x", 2) == 0 && s[2] != '\0' && s[2 + strspn(s + 2, HEX "_")] == '\0')
        return 16;
    *digits = s;
    if (*s == '0' && s[1] != '\0')
        return s[strspn(s, "01234567_")] == '\0' ? 8 : 0;
    if (*s < '0' || *s > '9')
        return 0;
    if (s[n] == '\0')
        return 10;
    return sixtieths(s + n) > 0 && s[n + sixtieths(s + n)] == '\0' ? 60 : 0;
}

static int
digit_value(char c)
{
    return c >= 'a' ? c - 'a' + 10 : c >= 'A' ? c - 'A' + 10 : c - '0';
}

/* *v = *v * base - d: negative numbers reach further. False: out of range. */
static bool
push_digit(int64_t *v, int base, int d)
{
    return !__builtin_mul_overflow(*v, base, v) && !__builtin_sub_overflow(*v, d, v);
}

/* Text that int_base() took for one: digits and underscores, in base 60 also colons. */
static int
int_value(const char *s, int base, bool negative, json_t **out)
{
    int64_t v = 0;
    int part = 0, digits = 0;
    bool fits = true;

    for (; *s != '\0' && fits; s++) {
        if (*s == '_')
            continue;
        digits++;
        if (base != 60) {
            fits = push_digit(&v, base, digit_value(*s));
        } else if (*s == ':') { /* the parts after the first are below 60 */
            fits = push_digit(&v, 1, part) && !__builtin_mul_overflow(v, 60, &v);
            part = 0;
        } else if ((fits = part < INT_MAX / 10 - 1)) {
            part = part * 10 + digit_value(*s);
        }
    }
    if (base == 60)
        fits = fits && push_digit(&v, 1, part);
    if (digits == 0)
        return err_set(RC_DATA, "integer has no digits");
    if (!fits || (!negative && __builtin_sub_overflow((int64_t)0, v, &v)))
        return err_set(RC_DATA, "integer is out of range");
    *out = json_integer(v);
    return RC_OK;
}

/* Length of an exponent, whose sign YAML 1.1 wants; 0: none. */
static size_t
exponent(const char *s)
{
    size_t n;

    if ((*s != 'e' && *s != 'E') || (s[1] != '-' && s[1] != '+'))
        return 0;
    n = strspn(s + 2, DIGITS);
    return n > 0 ? n + 2 : 0;
}

/* "1_0.5e+3", ".5" without a sign, "1:30.5" */
static bool
is_float(const char *text, bool *sixty)
{
    const char *s = text + (*text == '-' || *text == '+');
    size_t n = strspn(s, DIGITS "_");

    *sixty = false;
    if (*s == '.' && s == text && s[1] >= '0' && s[1] <= '9') {
        s += 1 + strspn(s + 1, DIGITS "_");
        return s[exponent(s)] == '\0';
    }
    if (*s < '0' || *s > '9')
        return false;
    s += n;
    *sixty = sixtieths(s) > 0;
    s += sixtieths(s);
    if (*s != '.')
        return false;
    s += 1 + strspn(s + 1, DIGITS "_");
    return s[*sixty ? 0 : exponent(s)] == '\0';
}

static int
float_value(const char *text, bool sixty, json_t **out)
{
    char clean[128], *end, *s = clean;
    size_t n = 0;
    double v = 0, sign = *text == '-' ? -1 : 1;

    for (text += *text == '-' || *text == '+'; *text != '\0'; text++)
        if (*text != '_') {
            if (n == sizeof(clean) - 1)
                return err_set(RC_DATA, "number is longer than %zu digits", sizeof(clean) - 1);
            clean[n++] = *text;
        }
    clean[n] = '\0';
    for (;; s = end + 1) {
        v = v * 60 + strtod(s, &end);
        if (!sixty || *end != ':')
            break;
    }
    if (!isfinite(v))
        return err_set(RC_DATA, "number is out of range");
    *out = json_real(sign * v);
    return RC_OK;
}

int
yaml_scalar(json_t **out, const char *s)
{
    static const char *const nulls[] = { "", "~", "null", "Null", "NULL", NULL };
    static const char *const yes[] = { "true", "True", "TRUE", "yes", "Yes", "YES", "on", "On",
        "ON", NULL };
    static const char *const no[] = { "false", "False", "FALSE", "no", "No", "NO", "off", "Off",
        "OFF", NULL };
    static const char *const infinite[] = { ".inf", ".Inf", ".INF", NULL };
    static const char *const nans[] = { ".nan", ".NaN", ".NAN", NULL };
    const char *digits, *unsigned_s = s + (*s == '-' || *s == '+');
    bool sixty;
    int base, rc = RC_OK;

    *out = NULL;
    if (one_of(s, nulls))
        *out = json_null();
    else if (one_of(s, yes) || one_of(s, no))
        *out = json_boolean(one_of(s, yes));
    else if (one_of(unsigned_s, infinite) || one_of(s, nans))
        rc = err_set(RC_DATA, "number is not finite");
    else if ((base = int_base(unsigned_s, &digits)) != 0)
        rc = int_value(digits, base, *s == '-', out);
    else if (is_float(s, &sixty))
        rc = float_value(s, sixty, out);
    else
        *out = json_string(s);
    return rc != RC_OK || *out != NULL ? rc : err_set(RC_DATA, "value is not UTF-8 text");
}

/* --- writing --- */

/* A letter, then what has no meaning in YAML inside of a word, and no other meaning as a whole. */
static bool
is_plain(const char *s)
{
    json_t *v;
    bool plain;

    if (*s == '\0' || strchr(LETTERS, *s) == NULL ||
        s[strspn(s, LETTERS DIGITS "_.-/")] != '\0' || yaml_scalar(&v, s) != RC_OK)
        return false;
    plain = json_is_string(v);
    json_decref(v);
    return plain;
}

/* Of n bytes, which jutf8() measured. */
static unsigned
code_point(const char *s, size_t n)
{
    unsigned c = (unsigned char)*s & (0xffu >> (n + 1));

    for (size_t i = 1; i < n; i++)
        c = c << 6 | ((unsigned char)s[i] & 63u);
    return c;
}

void
yaml_put_str(struct buf *b, const char *s)
{
    size_t n, left = strlen(s);
    char one[2] = { 0 };

    if (is_plain(s)) {
        buf_puts(b, s);
        return;
    }
    buf_puts(b, "\"");
    for (; left > 0; s += n, left -= n) {
        if ((n = jutf8(s, left)) == 0) {
            buf_puts(b, "\\uFFFD");
            n = 1;
        } else if (n > 1) {
            buf_printf(b, "\\U%08X", code_point(s, n)); /* some are breaks, some not allowed */
        } else if (*s == '"' || *s == '\\') {
            buf_printf(b, "\\%c", *s);
        } else if (*s < ' ' || *s == 0x7f) {
            buf_printf(b, "\\x%02X", (unsigned)*s);
        } else {
            one[0] = *s;
            buf_puts(b, one);
        }
    }
    buf_puts(b, "\"");
}

void
yaml_put_real(struct buf *b, double d)
{
    char text[40], *e;

    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(text, sizeof(text), "%.*g", digits, d);
        if (strtod(text, NULL) == d)
            break;
    }
    e = strchr(text, 'e');
    if (strchr(text, '.') != NULL)
        buf_puts(b, text);
    else if (e == NULL)
        buf_printf(b, "%s.0", text);
    else
        buf_printf(b, "%.*s.0%s", (int)(e - text), text, e);
}
