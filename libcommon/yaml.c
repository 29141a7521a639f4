/* yaml - a bounded YAML document as a JSON tree */
#include "yaml.h"

#include "buf.h"
#include "mem.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

enum { YAML_BYTES_MAX = 1 << 22, NODES_MAX = 100000 };

/* A container being filled; a mapping's key waits for its value. */
struct level {
    json_t *node;
    char   *key;
    bool    enum_tag; /* the one item of the sequence stands for the sequence */
};

struct reader {
    yaml_parser_t parser;
    const char   *subject;
    struct level  stack[JSON_DEPTH_MAX];
    int           depth, nodes;
    json_t       *root;
};

static int
bad(const struct reader *r, const yaml_mark_t *mark, const char *what)
{
    return err_set(RC_DATA, "%s: line %zu: %s", r->subject, mark->line + 1, what);
}

static bool
one_of(const char *s, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcmp(s, *words) == 0)
            return true;
    return false;
}

static json_t *
number(const char *s)
{
    char *end, clean[64];
    size_t n = 0;
    const char *digits = s + (*s == '-' || *s == '+');
    long long v;
    double d;

    for (const char *c = s; *c != '\0' && n < sizeof(clean) - 1; c++)
        if (*c != '_')
            clean[n++] = *c;
    clean[n] = '\0';
    if (strcasecmp(digits, ".inf") == 0 || strcasecmp(digits, ".nan") == 0)
        return NULL; /* not representable; stays a string, and is refused where a number is meant */
    if ((*digits < '0' || *digits > '9') && *digits != '.')
        return NULL;
    errno = 0;
    v = strtoll(clean, &end, *digits == '0' && digits[1] != '\0' ? 0 : 10);
    if (*end == '\0' && end != clean && errno == 0)
        return json_integer(v);
    if (strpbrk(digits, "xX") != NULL)
        return NULL;
    d = strtod(clean, &end);
    return *end == '\0' && end != clean && isfinite(d) ? json_real(d) : NULL;
}

static json_t *
scalar(const char *s, bool plain)
{
    static const char *const nulls[] = { "", "~", "null", "Null", "NULL", NULL };
    static const char *const yes[] = { "true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", NULL };
    static const char *const no[] = { "false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", NULL };
    json_t *v = NULL;

    if (!plain)
        return json_string(s);
    if (one_of(s, nulls))
        return json_null();
    if (one_of(s, yes) || one_of(s, no))
        return json_boolean(one_of(s, yes));
    v = number(s);
    return v != NULL ? v : json_string(s);
}

static bool
python_tag(const char *tag)
{
    return strncmp(tag, "tag:yaml.org,2002:python/object/apply:", 38) == 0;
}

static bool
known_tag(const char *tag)
{
    static const char *const core[] = { "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq",
        "tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null", NULL };

    return one_of(tag, core) || python_tag(tag);
}

/* Takes v over. */
static int
place(struct reader *r, json_t *v, const yaml_mark_t *mark)
{
    struct level *l = r->depth > 0 ? &r->stack[r->depth - 1] : NULL;
    int rc = RC_OK;

    if (v == NULL)
        return err_set(RC_DATA, "%s: line %zu: value is not UTF-8 text", r->subject, mark->line + 1);
    if (++r->nodes > NODES_MAX) {
        json_decref(v);
        return bad(r, mark, "document is too large");
    }
    if (l == NULL) {
        r->root = v;
    } else if (json_is_array(l->node)) {
        (void)json_array_append_new(l->node, v);
    } else if (l->key != NULL) {
        if (json_object_get(l->node, l->key) != NULL) {
            rc = err_set(RC_DATA, "%s: line %zu: key \"%s\" stands twice", r->subject, mark->line + 1, l->key);
            json_decref(v);
        } else {
            (void)json_object_set_new(l->node, l->key, v);
        }
        mem_free(l->key);
        l->key = NULL;
    } else if (json_is_string(v)) {
        l->key = mem_strdup(json_string_value(v));
        json_decref(v);
    } else {
        json_decref(v);
        rc = bad(r, mark, "a key is not a string");
    }
    return rc;
}

static int
open_level(struct reader *r, json_t *node, const char *tag, const yaml_mark_t *mark)
{
    if (r->depth == JSON_DEPTH_MAX || (tag != NULL && !known_tag(tag))) {
        json_decref(node);
        return bad(r, mark, r->depth == JSON_DEPTH_MAX ? "nests too deep" : "unknown tag");
    }
    r->stack[r->depth++] = (struct level){ .node = node, .enum_tag = tag != NULL && python_tag(tag) };
    return RC_OK;
}

static int
close_level(struct reader *r, const yaml_mark_t *mark)
{
    struct level l = r->stack[--r->depth];
    json_t *v = l.node;

    mem_free(l.key);
    if (l.enum_tag) {
        if (json_array_size(v) != 1 || !json_is_string(json_array_get(v, 0))) {
            json_decref(v);
            return bad(r, mark, "tagged value is not an enum");
        }
        v = json_incref(json_array_get(l.node, 0));
        json_decref(l.node);
    }
    return place(r, v, mark);
}

static int
event(struct reader *r, const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        if (e->data.scalar.tag != NULL && !known_tag((const char *)e->data.scalar.tag))
            return bad(r, &e->start_mark, "unknown tag");
        if (strlen((const char *)e->data.scalar.value) != e->data.scalar.length)
            return bad(r, &e->start_mark, "value contains a NUL byte");
        return place(r, scalar((const char *)e->data.scalar.value, e->data.scalar.plain_implicit != 0 &&
            e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE), &e->start_mark);
    case YAML_SEQUENCE_START_EVENT:
        return open_level(r, json_array(), (const char *)e->data.sequence_start.tag, &e->start_mark);
    case YAML_MAPPING_START_EVENT:
        return open_level(r, json_object(), (const char *)e->data.mapping_start.tag, &e->start_mark);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return close_level(r, &e->start_mark);
    case YAML_ALIAS_EVENT:
        return bad(r, &e->start_mark, "aliases are not supported");
    case YAML_DOCUMENT_START_EVENT:
        return r->root != NULL ? bad(r, &e->start_mark, "more than one document") : RC_OK;
    default:
        return RC_OK;
    }
}

static int
parse(struct reader *r)
{
    yaml_event_t e;
    bool end = false;
    int rc = RC_OK;

    while (!end && rc == RC_OK) {
        if (!yaml_parser_parse(&r->parser, &e))
            return err_set(RC_DATA, "%s: line %zu: %s", r->subject, r->parser.problem_mark.line + 1,
                r->parser.problem != NULL ? r->parser.problem : "not YAML");
        end = e.type == YAML_STREAM_END_EVENT;
        rc = event(r, &e);
        yaml_event_delete(&e);
    }
    return rc;
}

/* Of Markdown, what lies between the first two lines of three dashes. */
static void
front_matter(const char **text, size_t *len)
{
    const char *end;

    if (*len < 8 || strncmp(*text, "---\n", 4) != 0)
        return;
    end = memmem(*text + 4, *len - 4, "\n---", 4);
    if (end == NULL || (size_t)(end - *text) + 4 >= *len)
        return;
    *len = (size_t)(end + 1 - (*text + 4));
    *text += 4;
}

int
yaml_read_mem(json_t **out, const char *text, size_t len, const char *subject)
{
    struct reader r = { .subject = subject };
    int rc;

    *out = NULL;
    front_matter(&text, &len);
    if (!yaml_parser_initialize(&r.parser))
        return err_set(RC_OS, "out of memory");
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
    rc = parse(&r);
    yaml_parser_delete(&r.parser);
    while (r.depth > 0) {
        mem_free(r.stack[--r.depth].key);
        json_decref(r.stack[r.depth].node);
    }
    if (rc == RC_OK && r.root == NULL)
        rc = err_set(RC_DATA, "%s: empty document", subject);
    if (rc != RC_OK)
        json_decref(r.root);
    else
        *out = r.root;
    return rc;
}

int
yaml_read_file(json_t **out, const char *path)
{
    struct buf b = { 0 };
    int rc;

    *out = NULL;
    if ((rc = buf_read_file(&b, path, YAML_BYTES_MAX)) == RC_OK)
        rc = yaml_read_mem(out, b.s != NULL ? b.s : "", b.len, path);
    buf_free(&b);
    return rc;
}
