/* json - bounded reading of JSON, typed look-up with ranges, and writing */
#include "json.h"

#include "mem.h"

#include <math.h>
#include <string.h>

/* jansson recurses per level: count brackets first, outside strings. */
static int
check_depth(const char *s, size_t len, const char *subject)
{
    int depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < len; i++) {
        if (in_string) {
            if (s[i] == '\\')
                i++;
            else if (s[i] == '"')
                in_string = false;
        } else if (s[i] == '"') {
            in_string = true;
        } else if (s[i] == '{' || s[i] == '[') {
            if (++depth > JSON_DEPTH_MAX)
                return err_set(RC_DATA, "%s: JSON nests deeper than %d levels", subject, JSON_DEPTH_MAX);
        } else if (s[i] == '}' || s[i] == ']') {
            depth--;
        }
    }
    return RC_OK;
}

int
jread_mem(json_t **out, const char *text, size_t len, const char *subject)
{
    size_t flags = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL;
    json_error_t e;
    int rc;

    *out = NULL;
    if ((rc = check_depth(text, len, subject)) != RC_OK)
        return rc;
    *out = json_loadb(text, len, flags, &e);
    if (*out == NULL && json_error_code(&e) == json_error_numeric_overflow) /* then no number of it is an integer */
        *out = json_loadb(text, len, flags | JSON_DECODE_INT_AS_REAL, &e);
    if (*out == NULL)
        return err_set(RC_DATA, "%s: JSON line %d column %d: %s", subject, e.line, e.column, e.text);
    return RC_OK;
}

int
jread_file(json_t **out, const char *path)
{
    struct buf b = { 0 };
    int rc;

    *out = NULL;
    if ((rc = buf_read_file(&b, path, JSON_BYTES_MAX)) == RC_OK)
        rc = jread_mem(out, b.s != NULL ? b.s : "", b.len, path);
    buf_free(&b);
    return rc;
}

static const json_t *
lookup(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);

    return json_is_null(v) ? NULL : v;
}

int
jget_int(const json_t *obj, const char *key, int64_t def, int64_t min, int64_t max, int64_t *out)
{
    const json_t *v = lookup(obj, key);
    double d = json_number_value(v);

    *out = def;
    if (v == NULL)
        return RC_OK;
    if (json_is_integer(v)) {
        *out = json_integer_value(v);
    } else if (json_is_real(v) && fabs(d) < 9e15 && d == rint(d)) {
        *out = (int64_t)d; /* 10000.0 where an integer is meant */
    } else {
        return err_set(RC_DATA, "\"%s\" is not an integer", key);
    }
    if (*out < min || *out > max)
        return err_set(RC_DATA, "\"%s\" is %lld, want %lld to %lld", key, (long long)*out, (long long)min,
            (long long)max);
    return RC_OK;
}

int
jget_real(const json_t *obj, const char *key, double def, double *out)
{
    const json_t *v = lookup(obj, key);

    *out = def;
    if (v == NULL)
        return RC_OK;
    if (!json_is_number(v) || !isfinite(json_number_value(v)))
        return err_set(RC_DATA, "\"%s\" is not a finite number", key);
    *out = json_number_value(v);
    return RC_OK;
}

int
jget_bool(const json_t *obj, const char *key, bool def, bool *out)
{
    const json_t *v = lookup(obj, key);

    *out = def;
    if (v == NULL)
        return RC_OK;
    if (!json_is_boolean(v))
        return err_set(RC_DATA, "\"%s\" is not true or false", key);
    *out = json_is_true(v);
    return RC_OK;
}

int
jget_str(const json_t *obj, const char *key, const char *def, const char **out)
{
    const json_t *v = lookup(obj, key);

    *out = def;
    if (v == NULL)
        return RC_OK;
    if (!json_is_string(v))
        return err_set(RC_DATA, "\"%s\" is not a string", key);
    *out = json_string_value(v);
    return RC_OK;
}

int
jdump(const json_t *root, bool sorted, char **out)
{
    struct buf b = { 0 };
    char *s = json_dumps(root, JSON_INDENT(2) | JSON_ENCODE_ANY | (sorted ? JSON_SORT_KEYS : JSON_PRESERVE_ORDER));

    *out = NULL;
    if (s == NULL)
        return err_set(RC_OS, "cannot write JSON");
    buf_puts(&b, s);
    buf_puts(&b, "\n");
    mem_free(s);
    if (!buf_ok(&b))
        return RC_OS;
    *out = b.s;
    return RC_OK;
}

size_t
jutf8(const char *s, size_t len)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4 || n > len)
        return 0;
    /* Overlong forms, surrogates, and what lies beyond U+10FFFF show in the second byte. */
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

void
jput_str(struct buf *b, const char *s)
{
    size_t len = strlen(s), n;

    buf_puts(b, "\"");
    for (; len > 0; s += n, len -= n) {
        if ((n = jutf8(s, len)) == 0) {
            buf_puts(b, "\xef\xbf\xbd");
            n = 1;
        } else if (*s == '"' || *s == '\\') {
            buf_printf(b, "\\%c", *s);
        } else if ((unsigned char)*s < 0x20 || *s == 0x7f) {
            buf_printf(b, "\\u%04x", (unsigned)*s);
        } else {
            buf_add(b, s, n);
        }
    }
    buf_puts(b, "\"");
}
