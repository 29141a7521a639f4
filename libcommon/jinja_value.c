/* jinja_value - the values of a rendering: what Python makes of them */
#include "jinja_ast.h"
#include "json.h"
#include "mem.h"
#include "utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the pool --- */

void
jinja_pool_free(struct jinja_pool *p)
{
    for (size_t i = 0; i < p->count; i++)
        json_decref(p->v[i]);
    mem_free(p->v);
    *p = (struct jinja_pool){ 0 };
}

struct jinja_value
jinja_json(json_t *j)
{
    return (struct jinja_value){ .type = JV_JSON, .j = j };
}

struct jinja_value
jinja_undefined(const char *name)
{
    return (struct jinja_value){ .type = JV_UNDEFINED, .name = name };
}

struct jinja_value
jinja_bool(bool b)
{
    return jinja_json(b ? json_true() : json_false());
}

int
jinja_own(struct jinja_pool *p, json_t *j, struct jinja_value *out)
{
    json_t **v = j != NULL ? mem_grow(p->v, &p->cap, p->count + 1, sizeof(json_t *)) : NULL;

    if (v == NULL) {
        json_decref(j);
        return err_set(RC_OS, "out of memory");
    }
    p->v = v;
    v[p->count++] = j;
    p->bytes += 32 + json_string_length(j) + 16 * json_array_size(j);
    if (p->bytes > JINJA_BYTES_MAX)
        return err_set(RC_DATA, "values of more than %d bytes", JINJA_BYTES_MAX);
    *out = jinja_json(j);
    return RC_OK;
}

/* Levels of lists and dicts, counted to one more than there may be. */
static int
levels(const json_t *j, int max)
{
    const char *key;
    int most = 0, n;
    json_t *v;

    if (max == 0 || (!json_is_array(j) && !json_is_object(j)))
        return 0;
    for (size_t i = 0; i < json_array_size(j); i++)
        most = (n = levels(json_array_get(j, i), max - 1)) > most ? n : most;
    json_object_foreach((json_t *)(uintptr_t)j, key, v)
    {
        most = (n = levels(v, max - 1)) > most ? n : most;
    }
    return 1 + most;
}

int
jinja_own_built(struct jinja_pool *p, json_t *j, struct jinja_value *out)
{
    TRY(jinja_own(p, j, out));
    return levels(j, JSON_DEPTH_MAX + 2) <= JSON_DEPTH_MAX + 1 ? RC_OK : err_set(RC_DATA, "values nest too deep");
}

int
jinja_own_text(struct jinja_pool *p, const struct buf *b, struct jinja_value *out)
{
    return jinja_own(p, buf_ok(b) ? json_stringn(b->s != NULL ? b->s : "", b->len) : NULL, out);
}

/* --- what a value is --- */

const char *
jinja_type_name(const struct jinja_value *v)
{
    static const char *const names[] = { [JSON_OBJECT] = "a dict", [JSON_ARRAY] = "a list", [JSON_STRING] = "a string",
        [JSON_INTEGER] = "an integer", [JSON_REAL] = "a number", [JSON_TRUE] = "true", [JSON_FALSE] = "false",
        [JSON_NULL] = "none" };
    static const char *const others[] = { [JV_UNDEFINED] = "undefined",
        [JV_PAIRS] = "a dict of integers", [JV_NAMESPACE] = "a namespace",
        [JV_MACRO] = "a macro", [JV_LOOP] = "the loop", [JV_FUNCTION] = "a function" };

    return v->type == JV_JSON ? names[json_typeof(v->j)] : others[v->type];
}

int
jinja_want(const struct jinja_value *v, const char *what, json_t **out)
{
    *out = v->j;
    if (v->safe)
        return err_set(RC_DATA, "%s: text marked safe is not supported but in output", what);
    if (v->type == JV_JSON)
        return RC_OK;
    if (v->type == JV_UNDEFINED)
        return err_set(RC_DATA, "%s: \"%.64s\" is undefined", what, v->name != NULL ? v->name : "?");
    return err_set(RC_DATA, "%s: %s is not supported here", what, jinja_type_name(v));
}

int
jinja_want_text(const struct jinja_value *v, const char *what, const char **s, size_t *len)
{
    json_t *j;

    TRY(jinja_want(v, what, &j));
    if (!json_is_string(j))
        return err_set(RC_DATA, "%s: %s, want a string", what, jinja_type_name(v));
    *s = json_string_value(j);
    *len = json_string_length(j);
    return RC_OK;
}

int
jinja_want_int(const struct jinja_value *v, const char *what, int64_t *out)
{
    json_t *j;

    TRY(jinja_want(v, what, &j));
    if (!json_is_integer(j) && !json_is_boolean(j))
        return err_set(RC_DATA, "%s: %s, want an integer", what, jinja_type_name(v));
    *out = json_is_integer(j) ? json_integer_value(j) : json_is_true(j);
    return RC_OK;
}

bool
jinja_truth(const struct jinja_value *v)
{
    if (v->type != JV_JSON)
        return v->type != JV_UNDEFINED;
    switch (json_typeof(v->j)) {
    case JSON_OBJECT:
        return json_object_size(v->j) > 0;
    case JSON_ARRAY:
        return json_array_size(v->j) > 0;
    case JSON_STRING:
        return json_string_length(v->j) > 0;
    case JSON_INTEGER:
        return json_integer_value(v->j) != 0;
    case JSON_REAL:
        return json_real_value(v->j) != 0;
    default:
        return json_is_true(v->j);
    }
}

static bool
is_number(const json_t *j)
{
    return json_is_number(j) || json_is_boolean(j);
}

static double
number(const json_t *j)
{
    return json_is_boolean(j) ? json_is_true(j) : json_number_value(j);
}

/* Readers of JSON bound its depth. */
static bool
json_same(const json_t *a, const json_t *b)
{
    const char *key;
    json_t *v;

    if (is_number(a) && is_number(b)) {
        if (json_is_integer(a) && json_is_integer(b))
            return json_integer_value(a) == json_integer_value(b);
        return number(a) == number(b);
    }
    if (json_typeof(a) != json_typeof(b))
        return false;
    if (json_is_array(a)) {
        bool same = json_array_size(a) == json_array_size(b);

        for (size_t i = 0; same && i < json_array_size(a); i++)
            same = json_same(json_array_get(a, i), json_array_get(b, i));
        return same;
    }
    if (!json_is_object(a))
        return json_equal(a, b);
    if (json_object_size(a) != json_object_size(b))
        return false;
    json_object_foreach((json_t *)(uintptr_t)a, key, v)
    {
        const json_t *other = json_object_get(b, key);

        if (other == NULL || !json_same(v, other))
            return false;
    }
    return true;
}

bool
jinja_equal(const struct jinja_value *a, const struct jinja_value *b)
{
    if (a->type != b->type)
        return false;
    if (a->type == JV_JSON)
        return json_same(a->j, b->j);
    return a->type == JV_UNDEFINED || (a->j == b->j && a->macro == b->macro && a->loop == b->loop &&
        a->name == b->name);
}

/* --- text of values --- */

/* As repr() writes a float: the least digits that read back as the same. */
static void
add_real(struct buf *out, double x)
{
    char digits[32], text[64];
    int precision = 0, exponent, n = 0;

    do
        (void)snprintf(text, sizeof(text), "%.*e", precision, fabs(x));
    while (precision++ < 17 && strtod(text, NULL) != fabs(x));
    exponent = atoi(strchr(text, 'e') + 1);
    for (const char *p = text; *p != 'e'; p++)
        if (*p != '.')
            digits[n++] = *p;
    digits[n] = '\0';
    if (signbit(x))
        buf_puts(out, "-");
    if (exponent < -4 || exponent >= 16) {
        buf_printf(out, n > 1 ? "%c.%s" : "%c%s", digits[0], digits + 1);
        buf_printf(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0) {
        buf_printf(out, "0.%.*s%s", -exponent - 1, "000", digits);
        return;
    }
    for (int i = 0; i <= exponent || i < n; i++) {
        buf_add(out, i < n ? &digits[i] : "0", 1);
        if (i == exponent)
            buf_puts(out, ".");
    }
    if (n <= exponent + 1)
        buf_puts(out, "0");
}

int
jinja_str(struct buf *out, const struct jinja_value *v)
{
    if (v->type == JV_UNDEFINED)
        return RC_OK;
    if (v->type != JV_JSON || json_is_array(v->j) || json_is_object(v->j))
        return err_set(RC_DATA, "the text of %s is not supported", jinja_type_name(v));
    switch (json_typeof(v->j)) {
    case JSON_STRING:
        buf_add(out, json_string_value(v->j), json_string_length(v->j));
        break;
    case JSON_INTEGER:
        buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v->j));
        break;
    case JSON_REAL:
        add_real(out, json_real_value(v->j));
        break;
    default:
        buf_puts(out, json_is_true(v->j) ? "True" : json_is_null(v->j) ? "None" : "False");
    }
    return RC_OK;
}

static void
dump_string(struct buf *out, const char *s, size_t len, bool ascii)
{
    static const char letters[] = "\"\\\b\f\n\r\t", codes[] = "\"\\bfnrt";

    buf_puts(out, "\"");
    for (size_t i = 0, n; i < len; i += n) {
        const char *hit = s[i] != '\0' ? strchr(letters, s[i]) : NULL;
        uint32_t c;

        n = utf8_decode(s + i, len - i, &c);
        if (hit != NULL)
            buf_printf(out, "\\%c", codes[hit - letters]);
        else if (c < 0x20 || (ascii && c >= 0x7f && c < 0x10000))
            buf_printf(out, ascii && c == 0x7f ? "\x7f" : "\\u%04x", c);
        else if (ascii && c >= 0x10000)
            buf_printf(out, "\\u%04x\\u%04x", 0xd7c0 + (c >> 10), 0xdc00 + (c & 0x3ff));
        else
            buf_add(out, s + i, n);
    }
    buf_puts(out, "\"");
}

static void
new_line(struct buf *out, int indent, int level)
{
    if (indent >= 0)
        buf_printf(out, "\n%*s", indent * level, "");
}

static int
dump(struct buf *out, const json_t *j, int indent, bool ascii, int level)
{
    bool object = json_is_object(j), first = true;
    struct jinja_value v = jinja_json((json_t *)(uintptr_t)j);
    const char *key;
    json_t *item;

    if (level > JINJA_DEPTH_MAX)
        return err_set(RC_DATA, "tojson: nests too deep");
    if (json_is_string(j)) {
        dump_string(out, json_string_value(j), json_string_length(j), ascii);
        return RC_OK;
    }
    if (json_is_boolean(j) || json_is_null(j)) {
        buf_puts(out, json_is_true(j) ? "true" : json_is_null(j) ? "null" : "false");
        return RC_OK;
    }
    if (!object && !json_is_array(j))
        return jinja_str(out, &v);
    buf_puts(out, object ? "{" : "[");
    for (size_t i = 0; i < json_array_size(j); i++) {
        if (i > 0)
            buf_puts(out, indent >= 0 ? "," : ", ");
        new_line(out, indent, level + 1);
        TRY(dump(out, json_array_get(j, i), indent, ascii, level + 1));
        first = false;
    }
    json_object_foreach((json_t *)(uintptr_t)j, key, item)
    {
        if (!first)
            buf_puts(out, indent >= 0 ? "," : ", ");
        new_line(out, indent, level + 1);
        dump_string(out, key, strlen(key), ascii);
        buf_puts(out, ": ");
        TRY(dump(out, item, indent, ascii, level + 1));
        first = false;
    }
    if (!first)
        new_line(out, indent, level);
    buf_puts(out, object ? "}" : "]");
    return RC_OK;
}

int
jinja_dumps(struct buf *out, const json_t *j, int indent, bool ascii)
{
    return dump(out, j, indent, ascii, 0);
}

/* --- characters, items --- */

const char *
jinja_skip(const char *s, const char *end, int64_t chars)
{
    uint32_t c;

    while (chars-- > 0 && s < end)
        s += utf8_decode(s, (size_t)(end - s), &c);
    return s;
}

size_t
jinja_length(const char *s, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)s[i] & 0xc0) != 0x80;
    return n;
}

int
jinja_items(struct jinja_pool *p, const struct jinja_value *v, struct jinja_value *out)
{
    json_t *list, *item;
    const char *key, *s, *end;

    if (v->type == JV_JSON && json_is_array(v->j)) {
        *out = *v;
        return RC_OK;
    }
    if (v->type != JV_UNDEFINED && !(v->type == JV_JSON && (json_is_string(v->j) || json_is_object(v->j))))
        return err_set(RC_DATA, "%s has no items", jinja_type_name(v));
    TRY(jinja_own(p, list = json_array(), out));
    if (v->type == JV_UNDEFINED)
        return RC_OK;
    json_object_foreach(v->j, key, item)
    {
        if (json_array_append_new(list, json_string(key)) != 0)
            return err_set(RC_OS, "out of memory");
    }
    s = json_string_value(v->j);
    for (end = s != NULL ? s + json_string_length(v->j) : NULL; s < end;) {
        const char *next = jinja_skip(s, end, 1);

        if (json_array_append_new(list, json_stringn(s, (size_t)(next - s))) != 0)
            return err_set(RC_OS, "out of memory");
        s = next;
    }
    p->bytes += 64 * json_array_size(list);
    return RC_OK;
}

/* --- members --- */

static int
loop_member(struct jinja_pool *p, const struct jinja_loop *l, const char *name, struct jinja_value *out)
{
    const struct { const char *name; int64_t value; } numbers[] = { { "index", (int64_t)l->index + 1 },
        { "index0", (int64_t)l->index }, { "revindex", (int64_t)(l->count - l->index) },
        { "revindex0", (int64_t)(l->count - l->index) - 1 }, { "length", (int64_t)l->count } };

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (strcmp(name, numbers[i].name) == 0)
            return jinja_own(p, json_integer(numbers[i].value), out);
    if (strcmp(name, "first") == 0 || strcmp(name, "last") == 0) {
        *out = jinja_bool(*name == 'f' ? l->index == 0 : l->index + 1 == l->count);
        return RC_OK;
    }
    if (strcmp(name, "previtem") == 0 || strcmp(name, "nextitem") == 0) {
        json_t *item = json_array_get(l->items, *name == 'n' ? l->index + 1 : l->index - 1);

        *out = item != NULL ? jinja_json(item) : jinja_undefined(name);
        return RC_OK;
    }
    return err_set(RC_DATA, "loop.%.64s is not supported", name);
}

int
jinja_get(struct jinja_pool *p, const struct jinja_value *v, const char *name, struct jinja_value *out)
{
    json_t *member = NULL;

    if (v->type == JV_LOOP)
        return loop_member(p, v->loop, name, out);
    if (v->type == JV_UNDEFINED)
        return err_set(RC_DATA, "\"%.64s\" of \"%.64s\", which is undefined", name, v->name != NULL ? v->name : "?");
    if (v->type == JV_MACRO || v->type == JV_FUNCTION || v->type == JV_PAIRS || *name == '_')
        return err_set(RC_DATA, "member \"%.64s\" of %s is not supported", name, jinja_type_name(v));
    if (v->type == JV_JSON && jinja_is_method(v, name))
        return err_set(RC_DATA, "method \"%.64s\" of %s is not supported without a call", name, jinja_type_name(v));
    if (json_is_object(v->j))
        member = json_object_get(v->j, name);
    *out = member != NULL ? jinja_json(member) : jinja_undefined(name);
    return RC_OK;
}

int
jinja_index(struct jinja_pool *p, const struct jinja_value *v, const struct jinja_value *key, struct jinja_value *out)
{
    json_t *k, *item = NULL;
    int64_t i, n;

    TRY(jinja_want(key, "an index", &k));
    if (json_is_string(k) && v->type == JV_JSON && json_is_object(v->j) &&
        (item = json_object_getn(v->j, json_string_value(k), json_string_length(k))) != NULL) {
        *out = jinja_json(item);
        return RC_OK;
    }
    if (json_is_string(k))
        return jinja_get(p, v, json_string_value(k), out);
    if (v->type != JV_JSON && v->type != JV_PAIRS)
        return err_set(RC_DATA, "an index of %s is not supported", jinja_type_name(v));
    *out = jinja_undefined("an item");
    if (v->type == JV_PAIRS) {
        for (size_t at = 0; at < json_array_size(v->j); at++)
            if (json_same(json_array_get(json_array_get(v->j, at), 0), k))
                *out = jinja_json(json_array_get(json_array_get(v->j, at), 1));
        return RC_OK;
    }
    if (!json_is_array(v->j) && !json_is_string(v->j))
        return RC_OK;
    TRY(jinja_want_int(key, "an index", &i));
    n = (int64_t)(json_is_array(v->j) ? json_array_size(v->j) : jinja_length(json_string_value(v->j),
        json_string_length(v->j)));
    i += i < 0 ? n : 0;
    if (i < 0 || i >= n)
        return RC_OK;
    if (json_is_array(v->j)) {
        *out = jinja_json(json_array_get(v->j, (size_t)i));
    } else {
        const char *end = json_string_value(v->j) + json_string_length(v->j);
        const char *s = jinja_skip(json_string_value(v->j), end, i);

        return jinja_own(p, json_stringn(s, (size_t)(jinja_skip(s, end, 1) - s)), out);
    }
    return RC_OK;
}

/* A bound of a slice: from the end if negative, then clipped to [low, high]. */
static int
bound(const struct jinja_value *v, int64_t n, int64_t absent, int64_t low, int64_t high, int64_t *out)
{
    *out = absent;
    if (v->type == JV_UNDEFINED || json_is_null(v->j))
        return RC_OK;
    TRY(jinja_want_int(v, "a slice", out));
    if (*out < 0)
        *out = *out < -n ? low : *out + n;
    *out = *out < low ? low : *out > high ? high : *out;
    return RC_OK;
}

int
jinja_slice(struct jinja_pool *p, const struct jinja_value *v, const struct jinja_value range[3],
    struct jinja_value *out)
{
    struct jinja_value items;
    int64_t from, to, step = 1, n;
    const char *text, *end;
    struct buf b = { 0 };
    json_t *list;
    int rc;

    if (v->type == JV_JSON && !json_is_array(v->j) && !json_is_string(v->j)) {
        *out = jinja_undefined("a slice");
        return json_is_null(v->j) ? RC_OK : err_set(RC_DATA, "a slice of %s is not supported", jinja_type_name(v));
    }
    TRY(jinja_want(v, "a slice", &list));
    text = json_string_value(list);
    n = (int64_t)(text != NULL ? jinja_length(text, json_string_length(list)) : json_array_size(list));
    if (range[2].type != JV_UNDEFINED && !json_is_null(range[2].j))
        TRY(jinja_want_int(&range[2], "a slice", &step));
    if (step == 0 || step < -n - 1 || step > n + 1)
        step = step == 0 ? 0 : step < 0 ? -n - 1 : n + 1;
    if (step == 0)
        return err_set(RC_DATA, "a slice with step 0");
    TRY(bound(&range[0], n, step > 0 ? 0 : n - 1, step > 0 ? 0 : -1, step > 0 ? n : n - 1, &from));
    TRY(bound(&range[1], n, step > 0 ? n : -1, step > 0 ? 0 : -1, step > 0 ? n : n - 1, &to));
    if (text != NULL && step == 1) {
        end = text + json_string_length(list);
        text = jinja_skip(text, end, from);
        return jinja_own(p, json_stringn(text, (size_t)(jinja_skip(text, end, to - from) - text)), out);
    }
    TRY(jinja_items(p, v, &items));
    if (text != NULL) {
        for (int64_t i = from; step > 0 ? i < to : i > to; i += step) {
            const json_t *c = json_array_get(items.j, (size_t)i);

            buf_add(&b, json_string_value(c), json_string_length(c));
        }
        rc = jinja_own_text(p, &b, out);
        buf_free(&b);
        return rc;
    }
    TRY(jinja_own(p, list = json_array(), out));
    for (int64_t i = from; step > 0 ? i < to : i > to; i += step)
        if (json_array_append(list, json_array_get(items.j, (size_t)i)) != 0)
            return err_set(RC_OS, "out of memory");
    p->bytes += 16 * json_array_size(list);
    return RC_OK;
}

/* --- operators --- */

static int
contains(const struct jinja_value *a, const struct jinja_value *b, bool *out)
{
    const char *s;
    size_t len;

    *out = false;
    if (b->type == JV_UNDEFINED)
        return RC_OK;
    if (b->type != JV_JSON || !(json_is_string(b->j) || json_is_array(b->j) || json_is_object(b->j)))
        return err_set(RC_DATA, "\"in\" of %s", jinja_type_name(b));
    for (size_t i = 0; json_is_array(b->j) && i < json_array_size(b->j) && !*out; i++) {
        const struct jinja_value item = jinja_json(json_array_get(b->j, i));

        *out = jinja_equal(a, &item);
    }
    if (json_is_array(b->j))
        return RC_OK;
    if (json_is_object(b->j) && a->type == JV_JSON && !json_is_string(a->j))
        return json_is_array(a->j) || json_is_object(a->j) ? err_set(RC_DATA, "\"in\" with a list") : RC_OK;
    TRY(jinja_want_text(a, "\"in\"", &s, &len));
    if (json_is_object(b->j))
        *out = json_object_getn(b->j, s, len) != NULL;
    else
        *out = memmem(json_string_value(b->j), json_string_length(b->j), s, len) != NULL;
    return RC_OK;
}

static int
order(int op, const json_t *a, const json_t *b, struct jinja_value *out)
{
    double x = number(a), y = number(b);
    int sign = x < y ? -1 : x > y;

    if (json_is_string(a) && json_is_string(b)) {
        size_t n = json_string_length(a), m = json_string_length(b);

        sign = memcmp(json_string_value(a), json_string_value(b), n < m ? n : m);
        sign = sign != 0 ? sign : n < m ? -1 : n > m;
    } else if (json_is_integer(a) && json_is_integer(b)) {
        sign = json_integer_value(a) < json_integer_value(b) ? -1 : json_integer_value(a) > json_integer_value(b);
    } else if (!is_number(a) || !is_number(b)) {
        const struct jinja_value v = jinja_json((json_t *)(uintptr_t)a), w = jinja_json((json_t *)(uintptr_t)b);

        return err_set(RC_DATA, "order of %s and %s", jinja_type_name(&v), jinja_type_name(&w));
    }
    *out = jinja_bool((op & 0xff) == '<' ? sign < 0 || (op > 256 && sign == 0) : sign > 0 || (op > 256 && sign == 0));
    return RC_OK;
}

/* Floor division and its remainder, as Python has them. */
static int
int_arithmetic(struct jinja_pool *p, int op, int64_t x, int64_t y, struct jinja_value *out)
{
    int64_t r = 0;
    bool over = false;

    if (op == '+') {
        over = __builtin_add_overflow(x, y, &r);
    } else if (op == '-') {
        over = __builtin_sub_overflow(x, y, &r);
    } else if (op == '*') {
        over = __builtin_mul_overflow(x, y, &r);
    } else if (y == 0) {
        return err_set(RC_DATA, "division by zero");
    } else if (y == -1) {
        over = op != '%' && __builtin_sub_overflow(0, x, &r);
    } else {
        r = op == '%' ? x % y : x / y;
        if (x % y != 0 && (x < 0) != (y < 0))
            r += op == '%' ? y : -1;
    }
    return over ? err_set(RC_DATA, "an integer beyond 64 bits") : jinja_own(p, json_integer(r), out);
}

static int
arithmetic(struct jinja_pool *p, int op, const struct jinja_value *a, const struct jinja_value *b,
    struct jinja_value *out)
{
    double x = number(a->j), y = number(b->j), r;

    if (op != '/' && !json_is_real(a->j) && !json_is_real(b->j))
        return int_arithmetic(p, op, json_is_integer(a->j) ? json_integer_value(a->j) : (int64_t)x,
            json_is_integer(b->j) ? json_integer_value(b->j) : (int64_t)y, out);
    if (op == '/' && y == 0)
        return err_set(RC_DATA, "division by zero");
    if (op != '+' && op != '-' && op != '*' && op != '/')
        return err_set(RC_DATA, "// and %% of numbers with a fraction are not supported");
    r = op == '+' ? x + y : op == '-' ? x - y : op == '*' ? x * y : x / y;
    return isfinite(r) ? jinja_own(p, json_real(r), out) : err_set(RC_DATA, "a number beyond range");
}

static int
joined(struct jinja_pool *p, const struct jinja_value *a, const struct jinja_value *b, struct jinja_value *out)
{
    struct buf text = { 0 };
    int rc = jinja_str(&text, a);

    if (rc == RC_OK)
        rc = jinja_str(&text, b);
    if (rc == RC_OK)
        rc = jinja_own_text(p, &text, out);
    buf_free(&text);
    return rc;
}

static int
lists_joined(struct jinja_pool *p, json_t *a, json_t *b, struct jinja_value *out)
{
    json_t *list = json_array();

    if (list != NULL && (json_array_extend(list, a) != 0 || json_array_extend(list, b) != 0)) {
        json_decref(list);
        list = NULL;
    }
    return jinja_own(p, list, out);
}

int
jinja_binary(struct jinja_pool *p, int op, const struct jinja_value *a, const struct jinja_value *b,
    struct jinja_value *out)
{
    char what[32];
    bool yes;
    json_t *x, *y;

    if (op == ('=' | '=' << 8) || op == ('!' | '=' << 8)) {
        *out = jinja_bool(jinja_equal(a, b) == ((op & 0xff) == '='));
        return RC_OK;
    }
    if (op == JINJA_IN || op == JINJA_NOT_IN) {
        TRY(contains(a, b, &yes));
        *out = jinja_bool(yes == (op == JINJA_IN));
        return RC_OK;
    }
    if (op == '~' && !a->safe && !b->safe)
        return joined(p, a, b, out);
    (void)snprintf(what, sizeof(what), "operator \"%c%s\"", op & 0xff, op >> 8 == '=' ? "=" :
        op >> 8 == '/' ? "/" : "");
    TRY(jinja_want(a, what, &x));
    TRY(jinja_want(b, what, &y));
    if ((op & 0xff) == '<' || (op & 0xff) == '>')
        return order(op, x, y, out);
    if (is_number(x) && is_number(y))
        return arithmetic(p, op, a, b, out);
    if (op == '+' && json_is_string(x) && json_is_string(y))
        return joined(p, a, b, out);
    if (op == '+' && json_is_array(x) && json_is_array(y))
        return lists_joined(p, x, y, out);
    return err_set(RC_DATA, "%s of %s and %s is not supported", what, jinja_type_name(a), jinja_type_name(b));
}
