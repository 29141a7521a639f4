/* sthead - parses the JSON header of a safetensors file */
#include "sthead.h"

#include "json.h"
#include "mem.h"

#include <stdlib.h>
#include <string.h>

struct scan {
    const char     *text, *p, *end;
    struct st_file *st;
    size_t          tensor_cap, meta_cap;
    char           *names;    /* decoded strings: each needs no more than its quoted form */
    size_t          used;
    bool            in_order; /* each tensor so far starts where the last one ended */
    bool            has_meta;
};

struct span {
    uint64_t    from, to;
    const char *name;
};

static int
bad(const struct scan *s, const char *what)
{
    return err_set(RC_DATA, "header byte %zu: %s", (size_t)(s->p - s->text), what);
}

static void
skip_space(struct scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r'))
        s->p++;
}

static bool
take(struct scan *s, char c)
{
    skip_space(s);
    if (s->p == s->end || *s->p != c)
        return false;
    s->p++;
    return true;
}

/* After an item: a comma (true in *more) or the closing bracket. */
static int
take_next(struct scan *s, char closing, bool *more)
{
    *more = take(s, ',');
    if (*more || take(s, closing))
        return RC_OK;
    return bad(s, closing == '}' ? "want , or }" : "want , or ]");
}

static int
hex4(struct scan *s, unsigned *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++, s->p++) {
        char c = s->p < s->end ? *s->p : '\0';

        if (c >= '0' && c <= '9')
            *out = *out << 4 | (unsigned)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            *out = *out << 4 | (unsigned)((c | 32) - 'a' + 10);
        else
            return bad(s, "want four hexadecimal digits after \\u");
    }
    return RC_OK;
}

static void
put_utf8(struct scan *s, unsigned c)
{
    char *o = s->names + s->used;

    if (c < 0x80) {
        *o++ = (char)c;
    } else if (c < 0x800) {
        *o++ = (char)(0xc0 | c >> 6);
        *o++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *o++ = (char)(0xe0 | c >> 12);
        *o++ = (char)(0x80 | (c >> 6 & 63));
        *o++ = (char)(0x80 | (c & 63));
    } else {
        *o++ = (char)(0xf0 | c >> 18);
        *o++ = (char)(0x80 | (c >> 12 & 63));
        *o++ = (char)(0x80 | (c >> 6 & 63));
        *o++ = (char)(0x80 | (c & 63));
    }
    s->used = (size_t)(o - s->names);
}

/* The p is after the backslash. */
static int
take_escape(struct scan *s)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *hit;
    unsigned c, low;

    if (s->p == s->end || *s->p == '\0')
        return bad(s, "unknown escape");
    if ((hit = strchr(from, *s->p)) != NULL) {
        s->p++;
        s->names[s->used++] = to[hit - from];
        return RC_OK;
    }
    if (*s->p++ != 'u')
        return bad(s, "unknown escape");
    if (hex4(s, &c) != RC_OK)
        return RC_DATA;
    if (c >= 0xd800 && c < 0xdc00 && s->end - s->p >= 2 && s->p[0] == '\\' && s->p[1] == 'u') {
        s->p += 2;
        if (hex4(s, &low) != RC_OK)
            return RC_DATA;
        if (low < 0xdc00 || low > 0xdfff)
            return bad(s, "unpaired surrogate");
        c = 0x10000 + ((c - 0xd800) << 10 | (low - 0xdc00));
    } else if (c >= 0xd800 && c < 0xe000) {
        return bad(s, "unpaired surrogate");
    }
    if (c == 0)
        return bad(s, "NUL in a string");
    put_utf8(s, c);
    return RC_OK;
}

static int
take_string(struct scan *s, const char **out)
{
    size_t n;

    if (!take(s, '"'))
        return bad(s, "want a string");
    *out = s->names + s->used;
    for (;;) {
        if (s->p == s->end)
            return bad(s, "string does not end");
        if (*s->p == '"')
            break;
        if ((unsigned char)*s->p < 0x20)
            return bad(s, "control byte in a string");
        if (*s->p == '\\') {
            s->p++;
            if (take_escape(s) != RC_OK)
                return RC_DATA;
            continue;
        }
        if ((n = jutf8(s->p, (size_t)(s->end - s->p))) == 0)
            return bad(s, "not UTF-8");
        for (; n > 0; n--)
            s->names[s->used++] = *s->p++;
    }
    s->p++;
    s->names[s->used++] = '\0';
    return RC_OK;
}

static int
take_number(struct scan *s, uint64_t *out)
{
    const char *start;

    skip_space(s);
    start = s->p;
    *out = 0;
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++)
        if (__builtin_mul_overflow(*out, 10u, out) || __builtin_add_overflow(*out, (uint64_t)(*s->p - '0'), out) ||
            *out > INT64_MAX)
            return bad(s, "number is too large");
    if (s->p == start || (s->p - start > 1 && *start == '0'))
        return bad(s, "want a number, not negative and without leading zeros");
    return RC_OK;
}

static int
take_numbers(struct scan *s, uint64_t *out, int max, int *count)
{
    bool more = true;

    *count = 0;
    if (!take(s, '['))
        return bad(s, "want [");
    if (take(s, ']'))
        return RC_OK;
    while (more) {
        if (*count == max)
            return bad(s, "too many numbers in a list");
        if (take_number(s, &out[(*count)++]) != RC_OK || take_next(s, ']', &more) != RC_OK)
            return RC_DATA;
    }
    return RC_OK;
}

static int
parse_metadata(struct scan *s)
{
    struct st_file *st = s->st;
    struct st_meta *m;
    bool more = true;

    if (s->has_meta)
        return bad(s, "repeated");
    s->has_meta = true;
    if (!take(s, '{'))
        return bad(s, "want {");
    if (take(s, '}'))
        return RC_OK;
    while (more) {
        if ((m = mem_grow(st->meta, &s->meta_cap, st->meta_count + 1, sizeof(*m))) == NULL)
            return RC_OS;
        st->meta = m;
        m += st->meta_count++;
        if (take_string(s, &m->key) != RC_OK)
            return RC_DATA;
        if (!take(s, ':'))
            return bad(s, "want :");
        if (take_string(s, &m->value) != RC_OK)
            return err_at(RC_DATA, "key %s", m->key);
        if (take_next(s, '}', &more) != RC_OK)
            return RC_DATA;
    }
    return RC_OK;
}

int
sthead_check_name(const char *name)
{
    size_t len = strlen(name);

    if (len == 0 || len > ST_NAME_MAX)
        return err_set(RC_DATA, "name has %zu bytes, want 1 to %d", len, ST_NAME_MAX);
    for (const char *p = name; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return err_set(RC_DATA, "name has a control byte");
    return RC_OK;
}

static int
take_dtype(struct scan *s, struct tensor *t)
{
    size_t used = s->used;
    const char *text;

    if (take_string(s, &text) != RC_OK)
        return RC_DATA;
    t->dtype = dtype_find(text);
    if (t->dtype == DT_NONE || strcmp(dtype_name(t->dtype), text) != 0)
        return err_set(RC_DATA, "dtype %s is not known", text);
    s->used = used;
    return RC_OK;
}

static int
take_range(struct scan *s, uint64_t *range)
{
    int count;

    if (take_numbers(s, range, 2, &count) != RC_OK)
        return RC_DATA;
    if (count != 2)
        return bad(s, "want two data_offsets");
    return RC_OK;
}

/* {"dtype": D, "shape": [..], "data_offsets": [from, to]}, in any order, and nothing else. */
static int
parse_fields(struct scan *s, struct tensor *t, uint64_t *range)
{
    static const char *const fields[] = { "dtype", "shape", "data_offsets" };
    enum { FIELDS = 3 };
    bool more = true, seen[FIELDS] = { false };
    uint64_t dims[TENSOR_DIMS_MAX];
    const char *key;
    size_t used;
    int i, rc;

    if (!take(s, '{'))
        return bad(s, "want {");
    for (more = !take(s, '}'); more;) {
        used = s->used;
        if (take_string(s, &key) != RC_OK)
            return RC_DATA;
        for (i = 0; i < FIELDS && strcmp(fields[i], key) != 0;)
            i++;
        if (i == FIELDS || seen[i])
            return err_set(RC_DATA, "%s key %s", i == FIELDS ? "unknown" : "repeated", key);
        seen[i] = true;
        s->used = used;
        if (!take(s, ':'))
            return bad(s, "want :");
        rc = i == 0 ? take_dtype(s, t) : i == 1 ? take_numbers(s, dims, TENSOR_DIMS_MAX, &t->ndim)
            : take_range(s, range);
        if (rc != RC_OK || take_next(s, '}', &more) != RC_OK)
            return RC_DATA;
    }
    for (i = 0; i < FIELDS; i++)
        if (!seen[i])
            return err_set(RC_DATA, "has no %s", fields[i]);
    for (i = 0; i < t->ndim; i++)
        t->shape[i] = (int64_t)dims[i];
    return RC_OK;
}

/* Computes the bytes from type and shape, and holds the range to them. */
static int
check_size(struct tensor *t, const uint64_t *range)
{
    char shape[256];
    uint64_t n = dtype_size(t->dtype);
    bool overflow = false;

    (void)tensor_shape_text(t, shape, sizeof(shape));
    for (int i = 0; i < t->ndim; i++)
        overflow |= __builtin_mul_overflow(n, (uint64_t)t->shape[i], &n);
    if (overflow || n > INT64_MAX)
        return err_set(RC_DATA, "shape %s of %s overflows", shape, dtype_name(t->dtype));
    if (range[0] > range[1])
        return err_set(RC_DATA, "starts at byte %llu and ends at %llu", (unsigned long long)range[0],
            (unsigned long long)range[1]);
    if (n != range[1] - range[0])
        return err_set(RC_DATA, "%s %s takes %llu bytes, data_offsets span %llu", dtype_name(t->dtype), shape,
            (unsigned long long)n, (unsigned long long)(range[1] - range[0]));
    t->bytes = n;
    t->data = (const void *)(uintptr_t)range[0];
    return RC_OK;
}

static int
parse_tensor(struct scan *s, const char *name)
{
    struct st_file *st = s->st;
    uint64_t range[2] = { 0, 0 };
    struct tensor *t;
    int rc;

    if ((t = mem_grow(st->tensors, &s->tensor_cap, st->count + 1, sizeof(*t))) == NULL)
        return RC_OS;
    st->tensors = t;
    t += st->count++;
    *t = (struct tensor){ .name = name };
    if ((rc = sthead_check_name(name)) != RC_OK || (rc = parse_fields(s, t, range)) != RC_OK ||
        (rc = check_size(t, range)) != RC_OK)
        return rc;
    s->in_order = s->in_order && range[0] == st->data_bytes;
    st->data_bytes = range[1];
    return RC_OK;
}

static int
compare_spans(const void *a, const void *b)
{
    const struct span *x = a, *y = b;

    if (x->from != y->from)
        return x->from < y->from ? -1 : 1;
    return (x->to > y->to) - (x->to < y->to);
}

/* The ranges sorted by start touch, without hole or overlap, from 0 on. */
static int
check_spans(struct st_file *st)
{
    struct span *spans = mem_alloc(st->count, sizeof(*spans));
    uint64_t end = 0;
    int rc = RC_OK;

    if (spans == NULL)
        return RC_OS;
    for (size_t i = 0; i < st->count; i++) {
        spans[i].name = st->tensors[i].name;
        spans[i].from = (uintptr_t)st->tensors[i].data;
        spans[i].to = spans[i].from + st->tensors[i].bytes;
    }
    qsort(spans, st->count, sizeof(*spans), compare_spans);
    for (size_t i = 0; rc == RC_OK && i < st->count; i++) {
        if (spans[i].from > end)
            rc = err_set(RC_DATA, "hole of %llu bytes before tensor %s", (unsigned long long)(spans[i].from - end),
                spans[i].name);
        else if (spans[i].from < end)
            rc = err_set(RC_DATA, "tensors %s and %s overlap", spans[i - 1].name, spans[i].name);
        end = spans[i].to;
    }
    st->data_bytes = end;
    mem_free(spans);
    return rc;
}

static int
parse(struct scan *s)
{
    const char *name;
    bool more;
    int rc;

    if (s->p == s->end || *s->p != '{')
        return bad(s, "want {");
    s->p++;
    for (more = !take(s, '}'); more;) {
        if (take_string(s, &name) != RC_OK)
            return RC_DATA;
        if (!take(s, ':'))
            return bad(s, "want :");
        if (strcmp(name, "__metadata__") == 0) {
            if ((rc = parse_metadata(s)) != RC_OK)
                return err_at(rc, "__metadata__");
        } else if ((rc = parse_tensor(s, name)) != RC_OK) {
            return err_at(rc, "tensor %.*s", ST_NAME_MAX, name);
        }
        if (take_next(s, '}', &more) != RC_OK)
            return RC_DATA;
    }
    skip_space(s);
    if (s->p != s->end)
        return bad(s, "want only spaces after the last }");
    return s->in_order ? RC_OK : check_spans(s->st);
}

int
sthead_parse(struct st_file *st, const char *text, size_t bytes)
{
    struct scan s = { .text = text, .p = text, .end = text + bytes, .st = st, .in_order = true };
    int rc;

    if ((s.names = st->names = mem_alloc(bytes, 1)) == NULL)
        return RC_OS;
    if ((rc = parse(&s)) != RC_OK)
        return err_at(rc, "%s", st->path);
    return RC_OK;
}
