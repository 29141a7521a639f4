/* jinja_ast - what the files of jinja share: a parsed template, values and their owner, filters and functions */
#ifndef LLMC_JINJA_AST_H
#define LLMC_JINJA_AST_H

#include "buf.h"
#include "jinja_lex.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { JINJA_DEPTH_MAX = 200, JINJA_STEPS_MAX = 1 << 24, JINJA_BYTES_MAX = 1 << 28, JINJA_ARGS_MAX = 16 };

/* Children are indices of nodes, 0: none. next links statements, items and arguments. */
enum jinja_kind {
    JN_NONE,
    /* statements */
    JN_TEXT,   /* value */
    JN_PRINT,  /* a */
    JN_IF,     /* a test, b body, c else; op 1: an elif */
    JN_FOR,    /* a target, b iterated, c body, d else, e test */
    JN_SET,    /* a target, b value, or c body with filters d that have JN_BODY at the bottom */
    JN_MACRO,  /* name, a parameters (JN_ARG with default a), b body */
    JN_SCOPE,  /* b body */
    JN_FILTERED, /* prints c body through filters d, as in JN_SET */
    JN_BREAK, JN_CONTINUE,
    /* expressions */
    JN_CONST,  /* value */
    JN_NAME,   /* name */
    JN_LIST,   /* a items */
    JN_TUPLE,  /* a items */
    JN_DICT,   /* a items JN_ARG: a value, b key */
    JN_GET,    /* a object, name */
    JN_INDEX,  /* a object, b key */
    JN_SLICE,  /* a object, b from, c to, d step */
    JN_CALL,   /* a function, b arguments JN_ARG: a value, name if it is given by name */
    JN_FILTER, /* a value, name, b arguments */
    JN_TEST,   /* a value, name, b arguments */
    JN_NOT, JN_MINUS, JN_PLUS, /* a */
    JN_AND, JN_OR, JN_BINARY,  /* a, b; op as in jinja_token, "in" JINJA_IN, "not in" JINJA_NOT_IN */
    JN_COND,   /* a test, b then, c else */
    JN_ARG, JN_BODY
};

enum { JINJA_IN = 1, JINJA_NOT_IN = 2 };

struct jinja_node {
    enum jinja_kind kind;
    int             line, op, next, a, b, c, d, e;
    const char     *name;  /* of the template's names; equal names are one pointer */
    json_t         *value; /* owned by the tokens or, of texts, by this */
};

struct jinja {
    struct jinja_tokens tokens;
    struct jinja_node  *v; /* [0] is not used */
    size_t              count, cap;
    char              **names;
    size_t              name_count, name_cap;
    int                 body;
};

/* --- values: owned by the pool of a rendering until its end, so that no step must free what it was given --- */

enum jinja_type { JV_UNDEFINED, JV_JSON, JV_PAIRS, JV_NAMESPACE, JV_MACRO, JV_LOOP, JV_FUNCTION };

struct jinja_loop {
    const json_t *items;
    size_t        index, count;
};

struct jinja_value {
    enum jinja_type          type;
    json_t                  *j;    /* NAMESPACE: its dict; PAIRS: of a dict with integer keys, [[key, value], ...] */
    const struct jinja_node *macro;
    const struct jinja_loop *loop;
    const char              *name; /* what is undefined, FUNCTION */
    bool                     safe; /* a string marked so: only printed and tested, since joining it would escape */
};

struct jinja_pool {
    json_t **v;
    size_t   count, cap, bytes;
};

void jinja_pool_free(struct jinja_pool *p);
/* j, which may be NULL for no memory, becomes *out, owned by the pool. */
int jinja_own(struct jinja_pool *p, json_t *j, struct jinja_value *out);
/* The same of a list or dict that the template has put together; RC_DATA: it nests too deep. */
int jinja_own_built(struct jinja_pool *p, json_t *j, struct jinja_value *out);
int jinja_own_text(struct jinja_pool *p, const struct buf *b, struct jinja_value *out);
struct jinja_value jinja_json(json_t *j); /* borrowed */
struct jinja_value jinja_undefined(const char *name);
struct jinja_value jinja_bool(bool b);

bool        jinja_truth(const struct jinja_value *v);
bool        jinja_equal(const struct jinja_value *a, const struct jinja_value *b);
const char *jinja_type_name(const struct jinja_value *v);
/* The JSON that a value is; RC_DATA: it is undefined or none of JSON, `what` says where. */
int jinja_want(const struct jinja_value *v, const char *what, json_t **out);
int jinja_want_text(const struct jinja_value *v, const char *what, const char **s, size_t *len);
int jinja_want_int(const struct jinja_value *v, const char *what, int64_t *out); /* also true and false */
/* Appends what Python's str() gives. RC_DATA: of a list, a dict and what is no JSON. */
int jinja_str(struct buf *out, const struct jinja_value *v);
/* Appends what json.dumps gives; indent < 0: on one line. */
int jinja_dumps(struct buf *out, const json_t *j, int indent, bool ascii);
/* The items that a loop goes over, as a list; RC_DATA: not iterable. */
int jinja_items(struct jinja_pool *p, const struct jinja_value *v, struct jinja_value *out);

int jinja_binary(struct jinja_pool *p, int op, const struct jinja_value *a, const struct jinja_value *b,
    struct jinja_value *out);
int jinja_get(struct jinja_pool *p, const struct jinja_value *v, const char *name, struct jinja_value *out);
int jinja_index(struct jinja_pool *p, const struct jinja_value *v, const struct jinja_value *key,
    struct jinja_value *out);
/* from, to and step may be undefined: not given. */
int jinja_slice(struct jinja_pool *p, const struct jinja_value *v, const struct jinja_value range[3],
    struct jinja_value *out);
/* s from its `from`th code point on, to the end if there are less. */
const char *jinja_skip(const char *s, const char *end, int64_t chars);
size_t      jinja_length(const char *s, size_t len);

/* --- filters, tests and methods (jinja_call.c), functions (jinja_function.c) --- */

struct jinja_args {
    struct jinja_value v[JINJA_ARGS_MAX];
    const char        *name[JINJA_ARGS_MAX]; /* NULL: by position */
    int                count;
};

int jinja_filter(struct jinja_pool *p, const char *name, const struct jinja_value *v, const struct jinja_args *args,
    struct jinja_value *out);
int jinja_test(const char *name, const struct jinja_value *v, const struct jinja_args *args, bool *out);
/* Of a string or a dict. */
int jinja_method(struct jinja_pool *p, const struct jinja_value *v, const char *name, const struct jinja_args *args,
    struct jinja_value *out);
int jinja_function(struct jinja_pool *p, const char *name, const struct jinja_args *args, int64_t today,
    struct jinja_value *out);
/* Puts arguments into the order of names, which a NULL ends; missing ones are undefined. RC_DATA: one too many, or of
 * another name. */
int jinja_bind(const char *what, const struct jinja_args *args, const char *const *names, struct jinja_value *out);
bool jinja_is_function(const char *name);
bool jinja_is_method(const struct jinja_value *v, const char *name);

#endif
