/* yaml - a bounded YAML document as a JSON tree */
#include "yaml.h"

#include "buf.h"
#include "mem.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#define TAG        "tag:yaml.org,2002:"
#define TAG_PYTHON TAG "python/object/apply:"
#define TAG_TUPLE  TAG "python/tuple"
#define TAG_UNSET  TAG_PYTHON "llmcompressor.sentinel.Sentinel" /* [name, file] */

/* Of the whole document, with what aliases stand for. */
enum { YAML_BYTES_MAX = 1 << 22, NODES_MAX = 100000, ANCHORS_MAX = 1000 };

struct yaml_line {
    const json_t *mapping;
    char         *key;
    size_t        line;
};

/* What a value costs where an alias stands for it. */
struct weight {
    size_t nodes, bytes;
    int    height;
};

/* A container being filled; a mapping's key waits for its value. */
struct level {
    json_t       *node;
    char         *key, *anchor;
    size_t        enum_items; /* the first of so many strings stands for the sequence; 0: it is one */
    struct weight weight;
};

struct anchor {
    char         *name;
    json_t       *node;
    struct weight weight;
};

struct reader {
    yaml_parser_t      parser;
    const char        *subject;
    size_t             skipped; /* lines before the text */
    struct level       stack[JSON_DEPTH_MAX];
    int                depth;
    struct weight      total;
    struct anchor     *anchors;
    size_t             anchor_count, anchor_cap;
    struct yaml_lines *lines;
    json_t            *root;
};

static int bad(const struct reader *r, const yaml_mark_t *mark, const char *fmt, ...) PRINTF(3, 4);

static int
bad(const struct reader *r, const yaml_mark_t *mark, const char *fmt, ...)
{
    char what[256];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    return err_set(RC_DATA, "%s: line %zu: %s", r->subject, r->skipped + mark->line + 1, what);
}

/* --- lines --- */

static int
lines_add(struct yaml_lines *l, const json_t *mapping, const char *key, size_t line)
{
    struct yaml_line *at;

    if (l == NULL)
        return RC_OK;
    if ((at = mem_grow(l->at, &l->cap, l->count + 1, sizeof(*at))) == NULL)
        return RC_OS;
    l->at = at;
    at[l->count] = (struct yaml_line){ .mapping = mapping, .key = mem_strdup(key), .line = line };
    return at[l->count++].key != NULL ? RC_OK : RC_OS;
}

size_t
yaml_line(const struct yaml_lines *lines, const json_t *mapping, const char *key)
{
    for (size_t i = 0; lines != NULL && i < lines->count; i++)
        if (lines->at[i].mapping == mapping && strcmp(lines->at[i].key, key) == 0)
            return lines->at[i].line;
    return 0;
}

void
yaml_lines_free(struct yaml_lines *lines)
{
    for (size_t i = 0; i < lines->count; i++)
        mem_free(lines->at[i].key);
    mem_free(lines->at);
    *lines = (struct yaml_lines){ 0 };
}

/* --- anchors --- */

static int
anchor_add(struct reader *r, const char *name, json_t *node, struct weight w,
    const yaml_mark_t *mark)
{
    struct anchor *a;

    for (size_t i = 0; i < r->anchor_count; i++)
        if (strcmp(r->anchors[i].name, name) == 0)
            return bad(r, mark, "anchor \"%s\" stands twice", name);
    if (r->anchor_count == ANCHORS_MAX)
        return bad(r, mark, "more than %d anchors", ANCHORS_MAX);
    if ((a = mem_grow(r->anchors, &r->anchor_cap, r->anchor_count + 1, sizeof(*a))) == NULL)
        return RC_OS;
    r->anchors = a;
    a += r->anchor_count;
    if ((a->name = mem_strdup(name)) == NULL)
        return RC_OS;
    a->node = json_incref(node);
    a->weight = w;
    r->anchor_count++;
    return RC_OK;
}

/* --- building --- */

static int
charge(struct reader *r, struct weight w, const yaml_mark_t *mark)
{
    r->total.nodes += w.nodes;
    r->total.bytes += w.bytes;
    if (r->total.nodes > NODES_MAX || r->total.bytes > YAML_BYTES_MAX)
        return bad(r, mark, "document is too large");
    if (r->depth + w.height > JSON_DEPTH_MAX)
        return bad(r, mark, "nests deeper than %d levels", JSON_DEPTH_MAX);
    return RC_OK;
}

static int
place_key(struct reader *r, struct level *l, const json_t *v, const yaml_mark_t *mark)
{
    const char *key = json_string_value(v);

    if (key == NULL)
        return bad(r, mark, "a key is not a string");
    if (strcmp(key, "<<") == 0)
        return bad(r, mark, "merge keys are not supported");
    if (json_object_get(l->node, key) != NULL)
        return bad(r, mark, "key \"%s\" stands twice", key);
    if ((l->key = mem_strdup(key)) == NULL)
        return RC_OS;
    return lines_add(r->lines, l->node, key, r->skipped + mark->line + 1);
}

/* Takes v over, which was charged. */
static int
place(struct reader *r, json_t *v, struct weight w, const yaml_mark_t *mark)
{
    struct level *l = r->depth > 0 ? &r->stack[r->depth - 1] : NULL;
    int rc = RC_OK, failed = 0;

    if (l == NULL) {
        r->root = v;
        return RC_OK;
    }
    l->weight.nodes += w.nodes;
    l->weight.bytes += w.bytes;
    if (l->weight.height < w.height + 1)
        l->weight.height = w.height + 1;
    if (json_is_array(l->node)) {
        failed = json_array_append(l->node, v);
    } else if (l->key == NULL) {
        rc = place_key(r, l, v, mark);
    } else {
        failed = json_object_set(l->node, l->key, v);
        mem_free(l->key);
        l->key = NULL;
    }
    json_decref(v);
    return failed != 0 ? err_set(RC_OS, "out of memory") : rc;
}

static bool
fits(const json_t *v, const char *type)
{
    return strcmp(type, "int") == 0   ? json_is_integer(v)
         : strcmp(type, "float") == 0 ? json_is_real(v)
         : strcmp(type, "bool") == 0  ? json_is_boolean(v)
         : strcmp(type, "null") == 0 && json_is_null(v);
}

/* With one of the core tags. */
static int
tagged(const struct reader *r, const yaml_event_t *e, json_t **out)
{
    static const char *const types[] = { "int", "float", "bool", "null", NULL };
    const char *tag = (const char *)e->data.scalar.tag, *s = (const char *)e->data.scalar.value;
    const char *type = strncmp(tag, TAG, strlen(TAG)) == 0 ? tag + strlen(TAG) : "";
    json_t *v;
    int i = 0;

    if (strcmp(type, "str") == 0) {
        *out = json_string(s);
        return *out != NULL ? RC_OK : bad(r, &e->start_mark, "value is not UTF-8 text");
    }
    while (types[i] != NULL && strcmp(types[i], type) != 0)
        i++;
    if (types[i] == NULL)
        return bad(r, &e->start_mark, "unknown tag %s", tag);
    if (yaml_scalar(&v, s) != RC_OK)
        return bad(r, &e->start_mark, "%s", err_text());
    if (json_is_integer(v) && strcmp(type, "float") == 0) {
        *out = json_real((double)json_integer_value(v));
        json_decref(v);
        return RC_OK;
    }
    if (!fits(v, type)) {
        json_decref(v);
        return bad(r, &e->start_mark, "value is not of type %s", type);
    }
    *out = v;
    return RC_OK;
}

static int
scalar(struct reader *r, const yaml_event_t *e)
{
    const char *s = (const char *)e->data.scalar.value;
    const char *anchor = (const char *)e->data.scalar.anchor;
    struct weight w = { .nodes = 1, .bytes = e->data.scalar.length };
    json_t *v = NULL;
    int rc;

    if (strlen(s) != e->data.scalar.length)
        return bad(r, &e->start_mark, "value contains a NUL byte");
    if ((rc = charge(r, w, &e->start_mark)) != RC_OK)
        return rc;
    if (e->data.scalar.tag != NULL) {
        if ((rc = tagged(r, e, &v)) != RC_OK)
            return rc;
    } else if (e->data.scalar.plain_implicit) {
        if (yaml_scalar(&v, s) != RC_OK)
            return bad(r, &e->start_mark, "%s", err_text());
    } else if ((v = json_string(s)) == NULL) {
        return bad(r, &e->start_mark, "value is not UTF-8 text");
    }
    if (anchor != NULL && (rc = anchor_add(r, anchor, v, w, &e->start_mark)) != RC_OK) {
        json_decref(v);
        return rc;
    }
    return place(r, v, w, &e->start_mark);
}

static int
alias(struct reader *r, const yaml_event_t *e)
{
    const char *name = (const char *)e->data.alias.anchor;
    const struct anchor *a = NULL;
    json_t *copy;
    int rc;

    for (int i = 0; i < r->depth; i++)
        if (r->stack[i].anchor != NULL && strcmp(r->stack[i].anchor, name) == 0)
            return bad(r, &e->start_mark, "alias \"%s\" stands inside of what it names", name);
    for (size_t i = 0; i < r->anchor_count && a == NULL; i++)
        if (strcmp(r->anchors[i].name, name) == 0)
            a = &r->anchors[i];
    if (a == NULL)
        return bad(r, &e->start_mark, "alias \"%s\" names nothing", name);
    if ((rc = charge(r, a->weight, &e->start_mark)) != RC_OK)
        return rc;
    if ((copy = json_deep_copy(a->node)) == NULL)
        return err_set(RC_OS, "out of memory");
    return place(r, copy, a->weight, &e->start_mark);
}

static int
open_level(struct reader *r, json_t *node, const yaml_event_t *e)
{
    bool map = e->type == YAML_MAPPING_START_EVENT;
    const char *tag = (const char *)(map ? e->data.mapping_start.tag : e->data.sequence_start.tag);
    const char *anchor = (const char *)(map ? e->data.mapping_start.anchor
        : e->data.sequence_start.anchor);
    const struct level *in = r->depth > 0 ? &r->stack[r->depth - 1] : NULL;
    struct level l = { .node = node, .weight = { .nodes = 1 } };
    int rc;

    if (!map && tag != NULL && strncmp(tag, TAG_PYTHON, strlen(TAG_PYTHON)) == 0)
        l.enum_items = strcmp(tag, TAG_UNSET) == 0 ? 2 : 1;
    if (node == NULL)
        return err_set(RC_OS, "out of memory");
    if (tag != NULL && l.enum_items == 0 && strcmp(tag, map ? TAG "map" : TAG "seq") != 0 &&
        (map || strcmp(tag, TAG_TUPLE) != 0))
        rc = bad(r, &e->start_mark, "unknown tag %s", tag);
    else if (in != NULL && json_is_object(in->node) && in->key == NULL && l.enum_items == 0)
        rc = bad(r, &e->start_mark, "a key is not a string");
    else if (r->depth == JSON_DEPTH_MAX)
        rc = bad(r, &e->start_mark, "nests deeper than %d levels", JSON_DEPTH_MAX);
    else
        rc = charge(r, l.weight, &e->start_mark);
    if (rc == RC_OK && anchor != NULL && (l.anchor = mem_strdup(anchor)) == NULL)
        rc = RC_OS;
    if (rc != RC_OK) {
        json_decref(node);
        return rc;
    }
    r->stack[r->depth++] = l;
    return RC_OK;
}

static int
close_level(struct reader *r, const yaml_mark_t *mark)
{
    struct level l = r->stack[--r->depth];
    json_t *v = l.node;
    int rc = RC_OK;

    if (l.enum_items > 0) {
        if (json_array_size(v) != l.enum_items || !json_is_string(json_array_get(v, 0)))
            rc = bad(r, mark, "a value of Python is not an enum");
        else
            v = json_incref(json_array_get(v, 0));
        if (rc == RC_OK)
            json_decref(l.node);
        l.weight.height = 0;
    }
    if (rc == RC_OK && l.anchor != NULL)
        rc = anchor_add(r, l.anchor, v, l.weight, mark);
    mem_free(l.key);
    mem_free(l.anchor);
    if (rc == RC_OK)
        return place(r, v, l.weight, mark);
    json_decref(v);
    return rc;
}

static int
event(struct reader *r, const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        return scalar(r, e);
    case YAML_ALIAS_EVENT:
        return alias(r, e);
    case YAML_SEQUENCE_START_EVENT:
        return open_level(r, json_array(), e);
    case YAML_MAPPING_START_EVENT:
        return open_level(r, json_object(), e);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return close_level(r, &e->start_mark);
    case YAML_DOCUMENT_START_EVENT:
        return r->root != NULL ? bad(r, &e->start_mark, "more than one document") : RC_OK;
    default:
        return RC_OK;
    }
}

static int
parse(struct reader *r)
{
    const char *problem;
    yaml_event_t e;
    bool end = false;
    int rc = RC_OK;

    while (!end && rc == RC_OK) {
        if (!yaml_parser_parse(&r->parser, &e)) {
            problem = r->parser.problem != NULL ? r->parser.problem : "not YAML";
            if (r->parser.error == YAML_MEMORY_ERROR)
                return err_set(RC_OS, "out of memory");
            if (r->parser.error == YAML_READER_ERROR)
                return err_set(RC_DATA, "%s: byte %zu: %s", r->subject, r->parser.problem_offset,
                    problem);
            return bad(r, &r->parser.problem_mark, "%s", problem);
        }
        end = e.type == YAML_STREAM_END_EVENT;
        rc = event(r, &e);
        yaml_event_delete(&e);
    }
    return rc;
}

static int
read_text(json_t **out, struct yaml_lines *lines, const char *text, size_t len,
    const char *subject, size_t skipped)
{
    struct reader r = { .subject = subject, .skipped = skipped, .lines = lines };
    int rc;

    if (!yaml_parser_initialize(&r.parser))
        return err_set(RC_OS, "out of memory");
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
    rc = parse(&r);
    yaml_parser_delete(&r.parser);
    while (r.depth > 0) {
        mem_free(r.stack[--r.depth].key);
        mem_free(r.stack[r.depth].anchor);
        json_decref(r.stack[r.depth].node);
    }
    while (r.anchor_count > 0) {
        json_decref(r.anchors[--r.anchor_count].node);
        mem_free(r.anchors[r.anchor_count].name);
    }
    mem_free(r.anchors);
    if (rc == RC_OK && r.root == NULL)
        rc = err_set(RC_DATA, "%s: empty document", subject);
    if (rc != RC_OK)
        json_decref(r.root);
    else
        *out = r.root;
    return rc;
}

/* --- files --- */

/* At s, of which len bytes are left: a line of three dashes. */
static bool
is_fence(const char *s, size_t len)
{
    return len >= 3 && memcmp(s, "---", 3) == 0 && (len == 3 || s[3] == '\n' || s[3] == '\r');
}

/* Of Markdown, what lies between the first line, which is a fence, and the next fence. */
static int
front_matter(const char **text, size_t *len, const char *subject)
{
    const char *s = *text, *end = *text + *len, *first = NULL;

    while (is_fence(*text, *len) && (s = memchr(s, '\n', (size_t)(end - s))) != NULL) {
        s++;
        if (first == NULL)
            first = s;
        if (is_fence(s, (size_t)(end - s))) {
            *text = first;
            *len = (size_t)(s - first);
            return RC_OK;
        }
    }
    return err_set(RC_DATA, "%s: no front matter between lines of ---", subject);
}

/* What JSON has and YAML 1.1 has not: surrogate pairs, tabs as indentation. Where that fails, too,
 * the error of YAML stays. */
static int
try_json(json_t **out, struct yaml_lines *lines, const char *text, size_t len,
    const char *subject, int rc)
{
    char yaml_error[512];
    size_t at = 0;

    while (at < len && strchr(" \t\r\n", text[at]) != NULL && text[at] != '\0')
        at++;
    if (rc != RC_DATA || at == len || text[at] != '{' || memmem(text, len, "\\u0000", 6) != NULL)
        return rc;
    (void)snprintf(yaml_error, sizeof(yaml_error), "%s", err_text());
    if (lines != NULL)
        yaml_lines_free(lines); /* of mappings that are gone */
    return jread_mem(out, text, len, subject) == RC_OK ? RC_OK : err_set(rc, "%s", yaml_error);
}

int
yaml_read_mem(json_t **out, struct yaml_lines *lines, const char *text, size_t len,
    const char *subject)
{
    size_t named = strlen(subject);
    bool markdown = named > 3 && strcasecmp(subject + named - 3, ".md") == 0;
    int rc;

    *out = NULL;
    if (len > YAML_BYTES_MAX)
        return err_set(RC_DATA, "%s: longer than %d bytes", subject, YAML_BYTES_MAX);
    if (markdown && (rc = front_matter(&text, &len, subject)) != RC_OK)
        return rc;
    rc = read_text(out, lines, text, len, subject, markdown ? 1 : 0);
    return markdown ? rc : try_json(out, lines, text, len, subject, rc);
}

int
yaml_read_file(json_t **out, struct yaml_lines *lines, const char *path)
{
    struct buf b = { 0 };
    int rc;

    *out = NULL;
    if ((rc = buf_read_file(&b, path, YAML_BYTES_MAX)) == RC_OK)
        rc = yaml_read_mem(out, lines, b.s != NULL ? b.s : "", b.len, path);
    buf_free(&b);
    return rc;
}
