/* jinja_call - filters, tests and methods of the Jinja language */
#include "jinja_ast.h"
#include "mem.h"
#include "utf8.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* --- arguments --- */

int
jinja_bind(const char *what, const struct jinja_args *args, const char *const *names, struct jinja_value *out)
{
    int n = 0;

    for (; names[n] != NULL; n++)
        out[n] = jinja_undefined(names[n]);
    for (int i = 0; i < args->count; i++) {
        int at = args->name[i] == NULL ? i : 0;

        while (args->name[i] != NULL && at < n && strcmp(names[at], args->name[i]) != 0)
            at++;
        if (at >= n)
            return err_set(RC_DATA, "%.64s: argument %s%.64s is not supported", what, args->name[i] != NULL ? "" :
            "by position",
                args->name[i] != NULL ? args->name[i] : "");
        out[at] = args->v[i];
    }
    return RC_OK;
}

static bool
given(const struct jinja_value *v)
{
    return v->type != JV_UNDEFINED && !(v->type == JV_JSON && json_is_null(v->j));
}

/* --- text --- */

static bool
is_one_of(uint32_t c, const char *set, size_t len)
{
    uint32_t k;

    for (size_t i = 0; i < len; i += utf8_decode(set + i, len - i, &k)) {
        (void)utf8_decode(set + i, len - i, &k);
        if (k == c)
            return true;
    }
    return false;
}

/* Python's strip of white space (set NULL) or of a set of characters. */
static int
strip(struct jinja_pool *p, const char *s, size_t len, const struct jinja_value *set, bool left, bool right,
    struct jinja_value *out)
{
    const char *end = s + len, *chars = NULL;
    size_t set_len = 0;
    uint32_t c;

    if (given(set))
        TRY(jinja_want_text(set, "strip", &chars, &set_len));
    while (left && s < end) {
        size_t n = utf8_decode(s, (size_t)(end - s), &c);

        if (chars != NULL ? !is_one_of(c, chars, set_len) : !jinja_is_space(c))
            break;
        s += n;
    }
    while (right && end > s) {
        const char *at = end;

        do
            at--;
        while (at > s && ((unsigned char)*at & 0xc0) == 0x80);
        (void)utf8_decode(at, (size_t)(end - at), &c);
        if (chars != NULL ? !is_one_of(c, chars, set_len) : !jinja_is_space(c))
            break;
        end = at;
    }
    return jinja_own(p, json_stringn(s, (size_t)(end - s)), out);
}

static int
replace(struct jinja_pool *p, const char *s, size_t len, const struct jinja_value *from,
    const struct jinja_value *to, const struct jinja_value *count, struct jinja_value *out)
{
    const char *a, *b, *end = s + len, *hit;
    struct buf text = { 0 };
    int64_t left = -1;
    size_t na, nb;
    int rc;

    TRY(jinja_want_text(from, "replace", &a, &na));
    TRY(jinja_want_text(to, "replace", &b, &nb));
    if (given(count))
        TRY(jinja_want_int(count, "replace", &left));
    if (na == 0)
        return err_set(RC_DATA, "replace of nothing is not supported");
    for (; left != 0 && (hit = memmem(s, (size_t)(end - s), a, na)) != NULL; left--) {
        buf_add(&text, s, (size_t)(hit - s));
        buf_add(&text, b, nb);
        s = hit + na;
        if (text.len > JINJA_BYTES_MAX)
            break;
    }
    buf_add(&text, s, (size_t)(end - s));
    rc = jinja_own_text(p, &text, out);
    buf_free(&text);
    return rc;
}

/* Of letters beyond ASCII other versions of Unicode say other things. */
static int
change_case(struct jinja_pool *p, const char *how, const char *s, size_t len, struct jinja_value *out)
{
    bool title = strcmp(how, "title") == 0, start = strcmp(how, "upper") == 0 || *how == 'c' || title;
    bool upper = strcmp(how, "upper") == 0;
    char *copy = mem_alloc(len + 1, 1);

    if (copy == NULL)
        return RC_OS;
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

        if ((unsigned char)c >= 0x80) {
            mem_free(copy);
            return err_set(RC_DATA, "%s of other letters than ASCII's is not supported", how);
        }
        copy[i] = !letter ? c : (char)(start ? c & ~32 : c | 32);
        start = upper || (title && !letter);
    }
    copy[len] = '\0';
    if (jinja_own(p, json_stringn(copy, len), out) != RC_OK) {
        mem_free(copy);
        return RC_OS;
    }
    mem_free(copy);
    return RC_OK;
}

static int
append(json_t *list, const char *s, size_t len)
{
    return json_array_append_new(list, json_stringn(s, len)) == 0 ? RC_OK : err_set(RC_OS, "out of memory");
}

/* By a separator, or by runs of white space. */
static int
split(struct jinja_pool *p, const char *s, size_t len, const struct jinja_value *by, const struct jinja_value *max,
    struct jinja_value *out)
{
    const char *end = s + len, *sep = NULL, *hit;
    json_t *list;
    int64_t left = -1;
    size_t n = 0;
    uint32_t c;

    if (given(by))
        TRY(jinja_want_text(by, "split", &sep, &n));
    if (given(max))
        TRY(jinja_want_int(max, "split", &left));
    if (sep != NULL && n == 0)
        return err_set(RC_DATA, "split by nothing");
    if (sep == NULL && left >= 0)
        return err_set(RC_DATA, "split by white space so many times is not supported");
    TRY(jinja_own(p, list = json_array(), out));
    while (sep != NULL && left-- != 0 && (hit = memmem(s, (size_t)(end - s), sep, n)) != NULL) {
        TRY(append(list, s, (size_t)(hit - s)));
        s = hit + n;
    }
    while (sep == NULL && s < end) {
        const char *from = s;

        while (s < end && (n = utf8_decode(s, (size_t)(end - s), &c), !jinja_is_space(c)))
            s += n;
        if (s > from)
            TRY(append(list, from, (size_t)(s - from)));
        s += s < end ? n : 0;
    }
    p->bytes += len + 64 * json_array_size(list);
    return sep != NULL ? append(list, s, (size_t)(end - s)) : RC_OK;
}

static int
join(struct jinja_pool *p, const struct jinja_value *list, const char *sep, size_t sep_len, struct jinja_value *out)
{
    struct buf text = { 0 };
    struct jinja_value items;
    int rc = RC_OK;

    TRY(jinja_items(p, list, &items));
    for (size_t i = 0; i < json_array_size(items.j) && rc == RC_OK; i++) {
        const struct jinja_value item = jinja_json(json_array_get(items.j, i));

        if (i > 0)
            buf_add(&text, sep, sep_len);
        rc = jinja_str(&text, &item);
    }
    if (rc == RC_OK)
        rc = jinja_own_text(p, &text, out);
    buf_free(&text);
    return rc;
}

static int
starts_or_ends(const char *s, size_t len, bool start, const struct jinja_value *v, struct jinja_value *out)
{
    const char *part;
    size_t n;

    TRY(jinja_want_text(v, start ? "startswith" : "endswith", &part, &n));
    *out = jinja_bool(n <= len && memcmp(start ? s : s + len - n, part, n) == 0);
    return RC_OK;
}

static int
text_method(struct jinja_pool *p, const struct jinja_value *v, const char *name, const struct jinja_args *args,
    struct jinja_value *out)
{
    static const char *const chars[] = { "chars", NULL }, *const parts[] = { "sep", "maxsplit", NULL },
        *const olds[] = { "old", "new", "count", NULL }, *const one[] = { "value", NULL }, *const none[] = { NULL };
    const char *s = json_string_value(v->j), *t;
    size_t len = json_string_length(v->j), n;
    struct jinja_value a[4];

    if (strcmp(name, "strip") == 0 || strcmp(name, "lstrip") == 0 || strcmp(name, "rstrip") == 0) {
        TRY(jinja_bind(name, args, chars, a));
        return strip(p, s, len, &a[0], *name != 'r', *name != 'l', out);
    }
    if (strcmp(name, "split") == 0) {
        TRY(jinja_bind(name, args, parts, a));
        return split(p, s, len, &a[0], &a[1], out);
    }
    if (strcmp(name, "replace") == 0) {
        TRY(jinja_bind(name, args, olds, a));
        return replace(p, s, len, &a[0], &a[1], &a[2], out);
    }
    if (strcmp(name, "upper") == 0 || strcmp(name, "lower") == 0 || strcmp(name, "capitalize") == 0 ||
        strcmp(name, "title") == 0) {
        TRY(jinja_bind(name, args, none, a));
        return change_case(p, name, s, len, out);
    }
    if (strcmp(name, "startswith") != 0 && strcmp(name, "endswith") != 0 && strcmp(name, "join") != 0 &&
        strcmp(name, "find") != 0)
        return err_set(RC_DATA, "method \"%.64s\" of a string is not supported", name);
    TRY(jinja_bind(name, args, one, a));
    if (strcmp(name, "startswith") == 0 || strcmp(name, "endswith") == 0)
        return starts_or_ends(s, len, *name == 's', &a[0], out);
    if (strcmp(name, "join") == 0)
        return join(p, &a[0], s, len, out);
    TRY(jinja_want_text(&a[0], name, &t, &n));
    t = memmem(s, len, t, n);
    return jinja_own(p, json_integer(t != NULL ? (json_int_t)jinja_length(s, (size_t)(t - s)) : -1), out);
}

/* --- dicts and lists --- */

/* keys, values or pairs of a dict, as a list. */
static int
members(struct jinja_pool *p, const struct jinja_value *v, char which, struct jinja_value *out)
{
    json_t *list, *item;
    const char *key;

    TRY(jinja_own(p, list = json_array(), out));
    json_object_foreach(v->j, key, item)
    {
        json_t *made = which == 'k' ? json_string(key) : which == 'v' ? json_incref(item) : json_pack("[s, O]",
            key, item);

        if (json_array_append_new(list, made) != 0)
            return err_set(RC_OS, "out of memory");
    }
    p->bytes += 128 * json_array_size(list);
    return RC_OK;
}

static int
dict_method(struct jinja_pool *p, const struct jinja_value *v, const char *name, const struct jinja_args *args,
    struct jinja_value *out)
{
    static const char *const get[] = { "key", "default", NULL }, *const none[] = { NULL };
    json_t *item;
    const char *key;
    size_t len;
    struct jinja_value a[2];

    if (strcmp(name, "get") != 0) {
        TRY(jinja_bind(name, args, none, a));
        return members(p, v, *name, out);
    }
    TRY(jinja_bind(name, args, get, a));
    TRY(jinja_want_text(&a[0], "get", &key, &len));
    item = json_object_getn(v->j, key, len);
    if (item == NULL && args->count > 1)
        *out = a[1];
    else
        *out = jinja_json(item != NULL ? item : json_null());
    return RC_OK;
}

/* What Python's types have; those that are not supported are refused when called, and must not be taken for members. */
bool
jinja_is_method(const struct jinja_value *v, const char *name)
{
    static const char *const dict[] = { "get", "items", "keys", "values", "clear", "copy", "fromkeys", "pop", "popitem",
        "setdefault", "update", NULL };
    static const char *const text[] = { "strip", "lstrip", "rstrip", "split", "replace", "upper", "lower", "capitalize",
        "title", "startswith", "endswith", "join", "find", "count", "casefold", "center", "encode", "expandtabs",
        "format", "format_map", "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier",
        "islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper", "ljust", "maketrans", "partition",
        "removeprefix", "removesuffix", "rfind", "rindex", "rjust", "rpartition", "rsplit", "splitlines", "swapcase",
        "translate", "zfill", NULL };
    static const char *const list[] = { "append", "clear", "copy", "count", "extend", "index", "insert", "pop",
        "remove", "reverse", "sort", NULL };
    static const char *const number[] = { "as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator",
        "from_bytes", "fromhex", "hex", "imag", "is_integer", "numerator", "real", "to_bytes", NULL };
    const char *const *names = json_is_object(v->j) ? dict : json_is_string(v->j) ? text : json_is_array(v->j) ? list :
        json_is_null(v->j) ? NULL : number;

    for (size_t i = 0; names != NULL && names[i] != NULL; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

int
jinja_method(struct jinja_pool *p, const struct jinja_value *v, const char *name, const struct jinja_args *args,
    struct jinja_value *out)
{
    bool dict = json_is_object(v->j) && (strcmp(name, "get") == 0 || strcmp(name, "items") == 0 ||
        strcmp(name, "keys") == 0 || strcmp(name, "values") == 0);

    if (dict)
        return dict_method(p, v, name, args, out);
    if (json_is_string(v->j))
        return text_method(p, v, name, args, out);
    return err_set(RC_DATA, "method \"%.64s\" of %s is not supported", name, jinja_type_name(v));
}

/* --- tests --- */

static bool
test_type(const char *name, const struct jinja_value *v, bool *known)
{
    static const char *const names[] = { "defined", "undefined", "none", "string", "mapping", "iterable", "sequence",
        "number", "integer", "float", "boolean", "true", "false", "callable", "odd", "even" };
    const json_t *j = v->type == JV_JSON ? v->j : NULL;
    bool undefined = v->type == JV_UNDEFINED, many = undefined || json_is_string(j) || json_is_array(j) ||
        json_is_object(j);
    const bool answers[] = { !undefined, undefined, json_is_null(j), json_is_string(j), json_is_object(j), many, many,
        json_is_number(j) || json_is_boolean(j), json_is_integer(j), json_is_real(j), json_is_boolean(j),
        json_is_true(j),
        json_is_false(j), v->type == JV_MACRO || v->type == JV_FUNCTION,
        json_is_integer(j) && json_integer_value(j) % 2 != 0, json_is_integer(j) && json_integer_value(j) % 2 == 0 };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i], name) == 0) {
            *known = i < 14 || json_is_integer(j);
            return answers[i];
        }
    *known = false;
    return false;
}

int
jinja_test(const char *name, const struct jinja_value *v, const struct jinja_args *args, bool *out)
{
    static const struct { const char *name; int op; } ops[] = { { "equalto", '=' | '=' << 8 }, { "eq", '=' | '=' << 8 },
        { "ne", '!' | '=' << 8 }, { "lt", '<' }, { "gt", '>' }, { "le", '<' | '=' << 8 }, { "ge", '>' | '=' << 8 },
        { "in", JINJA_IN }, };
    struct jinja_pool none = { 0 }; /* comparisons make no values */
    bool known;
    struct jinja_value answer;

    if (args->count == 0) {
        *out = test_type(name, v, &known);
        if (known)
            return RC_OK;
    }
    for (size_t i = 0; args->count == 1 && args->name[0] == NULL && i < sizeof(ops) / sizeof(ops[0]); i++)
        if (strcmp(ops[i].name, name) == 0) {
            TRY(jinja_binary(&none, ops[i].op, v, &args->v[0], &answer));
            *out = jinja_truth(&answer);
            return RC_OK;
        }
    return err_set(RC_DATA, "test \"%.64s\" is not supported for %s", name, jinja_type_name(v));
}

/* --- filters --- */

static int
filter_tojson(struct jinja_pool *p, const struct jinja_value *v, const struct jinja_args *args, struct jinja_value *out)
{
    static const char *const names[] = { "ensure_ascii", "indent", NULL };
    struct jinja_args named = *args;
    struct buf text = { 0 };
    int64_t indent = -1;
    struct jinja_value a[2];
    json_t *j;
    int rc;

    TRY(jinja_bind("tojson", &named, names, a));
    TRY(jinja_want(v, "tojson", &j));
    if (given(&a[1]))
        TRY(jinja_want_int(&a[1], "tojson", &indent));
    if (indent > 16)
        return err_set(RC_DATA, "tojson with an indent of more than 16 is not supported");
    rc = jinja_dumps(&text, j, (int)indent, jinja_truth(&a[0]));
    if (rc == RC_OK)
        rc = jinja_own_text(p, &text, out);
    buf_free(&text);
    return rc;
}

static int
filter_length(struct jinja_pool *p, const struct jinja_value *v, struct jinja_value *out)
{
    size_t n;

    if (v->type != JV_UNDEFINED && !(v->type == JV_JSON && (json_is_string(v->j) || json_is_array(v->j) ||
        json_is_object(v->j))))
        return err_set(RC_DATA, "length of %s", jinja_type_name(v));
    n = v->type == JV_UNDEFINED ? 0 : json_is_string(v->j) ? jinja_length(json_string_value(v->j),
        json_string_length(v->j)) : json_is_array(v->j) ? json_array_size(v->j) : json_object_size(v->j);
    return jinja_own(p, json_integer((json_int_t)n), out);
}

static int
filter_default(const struct jinja_value *v, const struct jinja_args *args, struct jinja_value *out)
{
    static const char *const names[] = { "default_value", "boolean", NULL };
    struct jinja_value a[2];

    TRY(jinja_bind("default", args, names, a));
    if (v->type != JV_UNDEFINED && !(jinja_truth(&a[1]) && !jinja_truth(v)))
        *out = *v;
    else
        *out = args->count > 0 ? a[0] : jinja_json(json_null());
    return args->count > 0 ? RC_OK : err_set(RC_DATA, "default without a value is not supported");
}

static int
filter_end(struct jinja_pool *p, const struct jinja_value *v, bool last, struct jinja_value *out)
{
    struct jinja_value items;
    size_t n;

    TRY(jinja_items(p, v, &items));
    n = json_array_size(items.j);
    *out = n > 0 ? jinja_json(json_array_get(items.j, last ? n - 1 : 0)) : jinja_undefined("an item of none");
    return RC_OK;
}

/* Items of which a member, or they themselves, pass a test; args: member, test, its argument. */
static int
filter_select(struct jinja_pool *p, const struct jinja_value *v, const char *name, const struct jinja_args *args,
    struct jinja_value *out)
{
    bool reject = *name == 'r', attr = strstr(name, "attr") != NULL;
    struct jinja_args rest = { .count = args->count > (attr ? 2 : 1) ? args->count - (attr ? 2 : 1) : 0 };
    const char *test = NULL, *member = NULL;
    struct jinja_value items, item;
    json_t *list;
    size_t len;
    int at = 0;

    for (int i = 0; i < args->count; i++)
        if (args->name[i] != NULL)
            return err_set(RC_DATA, "%s with named arguments is not supported", name);
    if (attr && args->count == 0)
        return err_set(RC_DATA, "%s without a member", name);
    if (attr)
        TRY(jinja_want_text(&args->v[at++], name, &member, &len));
    if (args->count > at)
        TRY(jinja_want_text(&args->v[at], name, &test, &len));
    for (int i = 0; i < rest.count; i++)
        rest.v[i] = args->v[i + at + 1];
    if (member != NULL && strchr(member, '.') != NULL)
        return err_set(RC_DATA, "%s with a member of a member is not supported", name);
    TRY(jinja_own(p, list = json_array(), out));
    if (!jinja_truth(v))
        return RC_OK;
    TRY(jinja_items(p, v, &items));
    for (size_t i = 0; i < json_array_size(items.j); i++) {
        bool yes;

        item = jinja_json(json_array_get(items.j, i));
        if (member != NULL) {
            const struct jinja_value whole = item;

            TRY(jinja_get(p, &whole, member, &item));
        }
        if (test != NULL)
            TRY(jinja_test(strcmp(test, "==") == 0 ? "eq" : strcmp(test, "!=") == 0 ? "ne" : test, &item, &rest, &yes));
        else
            yes = jinja_truth(&item);
        if (yes != reject && json_array_append(list, json_array_get(items.j, i)) != 0)
            return err_set(RC_OS, "out of memory");
    }
    return RC_OK;
}

static int
filter_map(struct jinja_pool *p, const struct jinja_value *v, const struct jinja_args *args, struct jinja_value *out)
{
    struct jinja_args none = { 0 };
    const char *name;
    struct jinja_value items;
    json_t *list, *j;
    size_t len;

    if (args->count != 1 || (args->name[0] != NULL && strcmp(args->name[0], "attribute") != 0))
        return err_set(RC_DATA, "map of this form is not supported");
    TRY(jinja_want_text(&args->v[0], "map", &name, &len));
    TRY(jinja_own(p, list = json_array(), out));
    if (!jinja_truth(v))
        return RC_OK;
    TRY(jinja_items(p, v, &items));
    for (size_t i = 0; i < json_array_size(items.j); i++) {
        const struct jinja_value item = jinja_json(json_array_get(items.j, i));
        struct jinja_value made;

        TRY(args->name[0] != NULL ? jinja_get(p, &item, name, &made) : jinja_filter(p, name, &item, &none, &made));
        TRY(jinja_want(&made, "map", &j));
        if (json_array_append(list, j) != 0)
            return err_set(RC_OS, "out of memory");
    }
    return RC_OK;
}

static int
filter_reverse(struct jinja_pool *p, const struct jinja_value *v, struct jinja_value *out)
{
    const struct jinja_value back[3] = { jinja_undefined(NULL), jinja_undefined(NULL), { .type = JV_JSON } };
    struct jinja_value range[3] = { back[0], back[1], back[2] };

    TRY(jinja_own(p, json_integer(-1), &range[2]));
    return jinja_slice(p, v, range, out);
}

static int
by_key(const void *a, const void *b)
{
    return strcasecmp(*(const char *const *)a, *(const char *const *)b);
}

static int
by_number(const void *a, const void *b)
{
    json_int_t x = json_integer_value(json_array_get(*(json_t *const *)a, 0));
    json_int_t y = json_integer_value(json_array_get(*(json_t *const *)b, 0));

    return x < y ? -1 : x > y;
}

static int
sort_pairs(struct jinja_pool *p, const struct jinja_value *v, struct jinja_value *out)
{
    size_t n = json_array_size(v->j);
    json_t **pairs = mem_alloc(n + 1, sizeof(json_t *));
    int rc = pairs != NULL ? jinja_own(p, json_array(), out) : RC_OS;

    for (size_t i = 0; i < n && rc == RC_OK; i++)
        pairs[i] = json_array_get(v->j, i);
    if (rc == RC_OK)
        qsort(pairs, n, sizeof(*pairs), by_number);
    for (size_t i = 0; i < n && rc == RC_OK; i++)
        if (i > 0 && by_number(&pairs[i - 1], &pairs[i]) == 0)
            rc = err_set(RC_DATA, "dictsort of a key twice is not supported");
        else if (json_array_append(out->j, pairs[i]) != 0)
            rc = err_set(RC_OS, "out of memory");
    mem_free(pairs);
    return rc;
}

/* Pairs in the order of the keys, upper and lower case alike. */
static int
filter_dictsort(struct jinja_pool *p, const struct jinja_value *v, struct jinja_value *out)
{
    size_t n = v->type == JV_JSON ? json_object_size(v->j) : 0, i = 0;
    const char **keys, *key;
    json_t *list, *item;
    int rc = RC_OK;

    if (v->type == JV_PAIRS)
        return sort_pairs(p, v, out);
    if (v->type != JV_JSON || !json_is_object(v->j))
        return err_set(RC_DATA, "dictsort of %s", jinja_type_name(v));
    TRY(jinja_own(p, list = json_array(), out));
    if ((keys = mem_alloc(n + 1, sizeof(*keys))) == NULL)
        return RC_OS;
    json_object_foreach(v->j, key, item)
    {
        for (const char *s = key; *s != '\0'; s++)
            if ((unsigned char)*s >= 0x80)
                rc = err_set(RC_DATA, "dictsort of other keys than ASCII is not supported");
        keys[i++] = key;
    }
    qsort(keys, n, sizeof(*keys), by_key);
    for (i = 0; i < n && rc == RC_OK; i++)
        if (i > 0 && strcasecmp(keys[i - 1], keys[i]) == 0)
            rc = err_set(RC_DATA, "dictsort of keys that differ in case alone is not supported");
        else if (json_array_append_new(list, json_pack("[s, O]", keys[i], json_object_get(v->j, keys[i]))) != 0)
            rc = err_set(RC_OS, "out of memory");
    mem_free(keys);
    p->bytes += 128 * n;
    return rc;
}

static int
filter_int(struct jinja_pool *p, const struct jinja_value *v, struct jinja_value *out)
{
    const char *s;
    json_t *j;

    TRY(jinja_want(v, "int", &j));
    s = json_string_value(j);
    if (s != NULL && *s != '\0' && strlen(s) < 18 && strspn(s, "0123456789") == json_string_length(j))
        return jinja_own(p, json_integer(strtoll(s, NULL, 10)), out);
    if (json_is_integer(j) || json_is_boolean(j))
        return jinja_own(p, json_integer(json_is_integer(j) ? json_integer_value(j) : json_is_true(j)), out);
    return err_set(RC_DATA, "int of %s of this form is not supported", jinja_type_name(v));
}

static int
filter_join(struct jinja_pool *p, const struct jinja_value *v, const struct jinja_args *args, struct jinja_value *out)
{
    static const char *const names[] = { "d", NULL };
    const char *s = "";
    size_t len = 0;
    struct jinja_value a[1];

    TRY(jinja_bind("join", args, names, a));
    if (given(&a[0]))
        TRY(jinja_want_text(&a[0], "join", &s, &len));
    return join(p, v, s, len, out);
}

/* Filters that take the text of anything. */
static int
filter_text(struct jinja_pool *p, const struct jinja_value *v, const char *name, const struct jinja_args *args,
    struct jinja_value *out)
{
    struct buf b = { 0 };
    struct jinja_value text;
    int rc = jinja_str(&b, v);

    if (rc == RC_OK)
        rc = jinja_own_text(p, &b, &text);
    buf_free(&b);
    if (rc != RC_OK)
        return rc;
    if (strcmp(name, "string") == 0) {
        *out = text;
        return RC_OK;
    }
    return text_method(p, &text, strcmp(name, "trim") == 0 ? "strip" : name, args, out);
}

int
jinja_filter(struct jinja_pool *p, const char *name, const struct jinja_value *v, const struct jinja_args *args,
    struct jinja_value *out)
{
    static const char *const texts[] = { "trim", "upper", "lower", "capitalize", "title", "replace", "string" },
        *const selects[] = { "select", "reject", "selectattr", "rejectattr" }, *const plain[] = { "length",
        "count", "first",
            "last", "list", "items", "reverse", "int", "safe", "dictsort" };

    if (v->safe && strcmp(name, "safe") != 0)
        return err_set(RC_DATA, "filter \"%.64s\" of text marked safe is not supported", name);

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (strcmp(texts[i], name) == 0)
            return filter_text(p, v, name, args, out);
    for (size_t i = 0; i < sizeof(selects) / sizeof(selects[0]); i++)
        if (strcmp(selects[i], name) == 0)
            return filter_select(p, v, name, args, out);
    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
        if (strcmp(plain[i], name) == 0 && args->count > 0)
            return err_set(RC_DATA, "filter \"%.64s\" with arguments is not supported", name);
    if (strcmp(name, "tojson") == 0)
        return filter_tojson(p, v, args, out);
    if (strcmp(name, "length") == 0 || strcmp(name, "count") == 0)
        return filter_length(p, v, out);
    if (strcmp(name, "default") == 0 || strcmp(name, "d") == 0)
        return filter_default(v, args, out);
    if (strcmp(name, "first") == 0 || strcmp(name, "last") == 0)
        return filter_end(p, v, *name == 'l', out);
    if (strcmp(name, "join") == 0)
        return filter_join(p, v, args, out);
    if (strcmp(name, "map") == 0)
        return filter_map(p, v, args, out);
    if (strcmp(name, "list") == 0)
        return jinja_items(p, v, out);
    if (strcmp(name, "reverse") == 0)
        return filter_reverse(p, v, out);
    if (strcmp(name, "int") == 0)
        return filter_int(p, v, out);
    if (strcmp(name, "safe") == 0 && v->type == JV_JSON && json_is_string(v->j)) {
        *out = *v;
        out->safe = true;
        return RC_OK;
    }
    if (strcmp(name, "dictsort") == 0)
        return filter_dictsort(p, v, out);
    if (strcmp(name, "items") == 0 && v->type == JV_UNDEFINED)
        return jinja_items(p, v, out);
    if (strcmp(name, "items") == 0 && v->type == JV_JSON && json_is_object(v->j))
        return members(p, v, 'i', out);
    return err_set(RC_DATA, "filter \"%.64s\" of %s is not supported", name, jinja_type_name(v));
}
