/* jinja_run - renders a parsed template */
#include "jinja.h"
#include "jinja_ast.h"
#include "mem.h"

#include <string.h>

enum { MACRO_DEPTH_MAX = 32 };

struct var {
    const char        *name; /* of the template's names */
    struct jinja_value v;
};

/* Names that were set; a loop's body, a macro and a block have one of their own, an if has not. */
struct scope {
    struct scope *outer;
    struct var   *v;
    size_t        count, cap;
};

enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

struct run {
    const struct jinja *j;
    const json_t       *context;
    int64_t             today;
    struct jinja_pool   pool;
    struct scope        top, *scope;
    struct buf         *out;
    const struct jinja_value *body; /* of a set block, under its filters */
    int                 depth, macros, line;
    long                steps;
};

static int eval(struct run *r, int n, struct jinja_value *out);
static int exec(struct run *r, int n, enum flow *flow);

static int
step(struct run *r, const struct jinja_node *n)
{
    r->line = n->line;
    if (++r->steps > JINJA_STEPS_MAX)
        return err_set(RC_DATA, "more than %d steps", JINJA_STEPS_MAX);
    if (r->depth > JINJA_DEPTH_MAX)
        return err_set(RC_DATA, "nests too deep");
    return r->pool.bytes + r->out->len <= JINJA_BYTES_MAX ? RC_OK : err_set(RC_DATA, "makes more than %d bytes",
        JINJA_BYTES_MAX);
}

/* --- names --- */

static void
lookup(const struct run *r, const char *name, struct jinja_value *out)
{
    json_t *j;

    for (const struct scope *s = r->scope; s != NULL; s = s->outer)
        for (size_t i = s->count; i-- > 0;)
            if (s->v[i].name == name) {
                *out = s->v[i].v;
                return;
            }
    if ((j = json_object_get(r->context, name)) != NULL)
        *out = jinja_json(j);
    else if (jinja_is_function(name))
        *out = (struct jinja_value){ .type = JV_FUNCTION, .name = name };
    else
        *out = jinja_undefined(name);
}

static int
assign(struct scope *s, const char *name, const struct jinja_value *v)
{
    struct var *vars;

    for (size_t i = 0; i < s->count; i++)
        if (s->v[i].name == name) {
            s->v[i].v = *v;
            return RC_OK;
        }
    if ((vars = mem_grow(s->v, &s->cap, s->count + 1, sizeof(*vars))) == NULL)
        return RC_OS;
    s->v = vars;
    vars[s->count++] = (struct var){ name, *v };
    return RC_OK;
}

/* A name, a namespace's member, or a tuple of names. */
static int
assign_target(struct run *r, int target, const struct jinja_value *v)
{
    const struct jinja_node *n = &r->j->v[target];
    struct jinja_value ns, items;
    json_t *j;
    size_t i = 0;

    if (n->kind == JN_NAME)
        return assign(r->scope, n->name, v);
    if (n->kind == JN_GET) {
        lookup(r, r->j->v[n->a].name, &ns);
        if (ns.type != JV_NAMESPACE)
            return err_set(RC_DATA, "set of a member of %s", jinja_type_name(&ns));
        TRY(jinja_want(v, "namespace", &j));
        return json_object_set(ns.j, n->name, j) == 0 ? RC_OK : err_set(RC_OS, "out of memory");
    }
    TRY(jinja_items(&r->pool, v, &items));
    for (int item = n->a; item != 0; item = r->j->v[item].next, i++) {
        struct jinja_value part = jinja_json(json_array_get(items.j, i));

        if (part.j == NULL)
            return err_set(RC_DATA, "too few items to assign");
        TRY(assign(r->scope, r->j->v[r->j->v[item].a].name, &part));
    }
    return i == json_array_size(items.j) ? RC_OK : err_set(RC_DATA, "too many items to assign");
}

/* --- calls --- */

static int
eval_args(struct run *r, int first, struct jinja_args *args)
{
    args->count = 0;
    for (int n = first; n != 0; n = r->j->v[n].next) {
        TRY(eval(r, r->j->v[n].a, &args->v[args->count]));
        args->name[args->count++] = r->j->v[n].name;
    }
    return RC_OK;
}

static int
bind_macro(struct run *r, const struct jinja_node *m, const struct jinja_args *args)
{
    bool taken[JINJA_ARGS_MAX] = { false };
    int at = 0, used = 0;

    for (int n = m->a; n != 0; n = r->j->v[n].next, at++) {
        const struct jinja_node *param = &r->j->v[n];
        struct jinja_value v = jinja_undefined(param->name);
        int i = at < args->count && args->name[at] == NULL ? at : -1;

        for (int k = 0; k < args->count && i < 0; k++)
            if (args->name[k] == param->name)
                i = k;
        if (i >= 0) {
            v = args->v[i];
            used += !taken[i];
            taken[i] = true;
        } else if (param->a != 0) {
            TRY(eval(r, param->a, &v));
        }
        TRY(assign(r->scope, param->name, &v));
    }
    return used == args->count ? RC_OK : err_set(RC_DATA, "macro %.64s: an argument that it does not have", m->name);
}

/* What statements print, as text; scope is what they set names in. */
static int
capture(struct run *r, int body, struct scope *scope, struct jinja_value *out)
{
    struct buf text = { 0 }, *saved = r->out;
    struct scope *outer = r->scope;
    enum flow flow;
    int rc;

    r->out = &text;
    r->scope = scope;
    r->pool.bytes += saved->len; /* so that what waits counts, too */
    rc = exec(r, body, &flow);
    r->pool.bytes -= saved->len;
    r->out = saved;
    r->scope = outer;
    if (rc == RC_OK)
        rc = jinja_own_text(&r->pool, &text, out);
    buf_free(&text);
    return rc;
}

static int
call_macro(struct run *r, const struct jinja_node *m, const struct jinja_args *args, struct jinja_value *out)
{
    struct scope scope = { .outer = &r->top }, *caller = r->scope;
    int rc;

    if (++r->macros > MACRO_DEPTH_MAX)
        return err_set(RC_DATA, "macros call each other too deep");
    r->scope = &scope;
    rc = bind_macro(r, m, args);
    r->scope = caller;
    if (rc == RC_OK)
        rc = capture(r, m->b, &scope, out);
    mem_free(scope.v);
    r->macros--;
    return rc;
}

static int
eval_call(struct run *r, const struct jinja_node *n, struct jinja_value *out)
{
    const struct jinja_node *f = &r->j->v[n->a];
    struct jinja_value object, function;
    struct jinja_args args;

    if (f->kind == JN_GET) {
        TRY(eval(r, f->a, &object));
        if (object.type == JV_JSON && jinja_is_method(&object, f->name)) {
            TRY(eval_args(r, n->b, &args));
            return jinja_method(&r->pool, &object, f->name, &args, out);
        }
        TRY(jinja_get(&r->pool, &object, f->name, &function));
    } else {
        TRY(eval(r, n->a, &function));
    }
    TRY(eval_args(r, n->b, &args));
    if (function.type == JV_MACRO)
        return call_macro(r, function.macro, &args, out);
    if (function.type == JV_FUNCTION)
        return jinja_function(&r->pool, function.name, &args, r->today, out);
    return err_set(RC_DATA, "a call of \"%.64s\", which is %s", f->name != NULL ? f->name : "?",
        jinja_type_name(&function));
}

/* --- expressions --- */

static int
eval_list(struct run *r, const struct jinja_node *n, struct jinja_value *out)
{
    json_t *list = json_array(), *j;
    struct jinja_value v;
    int rc = RC_OK;

    for (int i = n->a; i != 0 && list != NULL && rc == RC_OK; i = r->j->v[i].next)
        if ((rc = eval(r, r->j->v[i].a, &v)) == RC_OK && (rc = jinja_want(&v, "a list", &j)) == RC_OK &&
            json_array_append(list, j) != 0)
            rc = err_set(RC_OS, "out of memory");
    if (rc == RC_OK)
        return jinja_own_built(&r->pool, list, out);
    json_decref(list);
    return rc;
}

/* Integers as keys. */
static int
eval_pairs(struct run *r, const struct jinja_node *n, struct jinja_value *out)
{
    json_t *list = json_array(), *j;
    struct jinja_value key, v;
    int64_t k;
    int rc = RC_OK;

    for (int i = n->a; i != 0 && list != NULL && rc == RC_OK; i = r->j->v[i].next)
        if ((rc = eval(r, r->j->v[i].b, &key)) == RC_OK && (rc = jinja_want_int(&key, "a key", &k)) == RC_OK &&
            (rc = eval(r, r->j->v[i].a, &v)) == RC_OK && (rc = jinja_want(&v, "a dict", &j)) == RC_OK &&
            json_array_append_new(list, json_pack("[I, O]", (json_int_t)k, j)) != 0)
            rc = err_set(RC_OS, "out of memory");
    if (rc != RC_OK) {
        json_decref(list);
        return rc;
    }
    rc = jinja_own_built(&r->pool, list, out);
    out->type = JV_PAIRS;
    return rc;
}

static int
eval_dict(struct run *r, const struct jinja_node *n, struct jinja_value *out)
{
    const struct jinja_node *first = n->a != 0 ? &r->j->v[r->j->v[n->a].b] : NULL;
    json_t *dict, *j;
    struct jinja_value key, v;
    const char *s;
    size_t len;
    int rc = RC_OK;

    if (first != NULL && first->kind == JN_CONST && json_is_integer(first->value))
        return eval_pairs(r, n, out);
    dict = json_object();
    for (int i = n->a; i != 0 && dict != NULL && rc == RC_OK; i = r->j->v[i].next)
        if ((rc = eval(r, r->j->v[i].b, &key)) == RC_OK && (rc = jinja_want_text(&key, "a key", &s, &len)) == RC_OK &&
            (rc = eval(r, r->j->v[i].a, &v)) == RC_OK && (rc = jinja_want(&v, "a dict", &j)) == RC_OK &&
            json_object_setn(dict, s, len, j) != 0)
            rc = err_set(RC_OS, "out of memory");
    if (rc == RC_OK)
        return jinja_own_built(&r->pool, dict, out);
    json_decref(dict);
    return rc;
}

static int
eval_sign(struct run *r, const struct jinja_node *n, struct jinja_value *out)
{
    struct jinja_value zero, v;

    TRY(eval(r, n->a, &v));
    TRY(jinja_own(&r->pool, json_integer(0), &zero));
    return jinja_binary(&r->pool, n->kind == JN_MINUS ? '-' : '+', &zero, &v, out);
}

static int
eval_part(struct run *r, const struct jinja_node *n, struct jinja_value *out)
{
    struct jinja_value object, range[3];
    const int bounds[3] = { n->b, n->c, n->d };

    TRY(eval(r, n->a, &object));
    if (n->kind == JN_GET)
        return jinja_get(&r->pool, &object, n->name, out);
    if (n->kind == JN_INDEX) {
        TRY(eval(r, n->b, &range[0]));
        return jinja_index(&r->pool, &object, &range[0], out);
    }
    for (int i = 0; i < 3; i++) {
        range[i] = jinja_undefined(NULL);
        if (bounds[i] == 0)
            continue;
        TRY(eval(r, bounds[i], &range[i]));
        if (range[i].type != JV_JSON)
            return err_set(RC_DATA, "a slice with %s", jinja_type_name(&range[i]));
    }
    return jinja_slice(&r->pool, &object, range, out);
}

static int
eval_filter(struct run *r, const struct jinja_node *n, struct jinja_value *out)
{
    struct jinja_args args;
    struct jinja_value v;
    bool yes;

    TRY(eval(r, n->a, &v));
    TRY(eval_args(r, n->b, &args));
    if (n->kind == JN_FILTER)
        return jinja_filter(&r->pool, n->name, &v, &args, out);
    TRY(jinja_test(n->name, &v, &args, &yes));
    *out = jinja_bool(yes);
    return RC_OK;
}

static int
eval_kind(struct run *r, const struct jinja_node *n, struct jinja_value *out)
{
    struct jinja_value a, b;

    switch (n->kind) {
    case JN_CONST:
        *out = jinja_json(n->value);
        return RC_OK;
    case JN_NAME:
        lookup(r, n->name, out);
        return RC_OK;
    case JN_BODY:
        *out = *r->body;
        return RC_OK;
    case JN_LIST:
    case JN_TUPLE:
        return eval_list(r, n, out);
    case JN_DICT:
        return eval_dict(r, n, out);
    case JN_GET:
    case JN_INDEX:
    case JN_SLICE:
        return eval_part(r, n, out);
    case JN_CALL:
        return eval_call(r, n, out);
    case JN_FILTER:
    case JN_TEST:
        return eval_filter(r, n, out);
    case JN_MINUS:
    case JN_PLUS:
        return eval_sign(r, n, out);
    case JN_NOT:
        TRY(eval(r, n->a, &a));
        *out = jinja_bool(!jinja_truth(&a));
        return RC_OK;
    case JN_AND:
    case JN_OR:
        TRY(eval(r, n->a, out));
        return jinja_truth(out) == (n->kind == JN_AND) ? eval(r, n->b, out) : RC_OK;
    case JN_COND:
        TRY(eval(r, n->a, &a));
        *out = jinja_undefined("else");
        return jinja_truth(&a) ? eval(r, n->b, out) : n->c != 0 ? eval(r, n->c, out) : RC_OK;
    case JN_BINARY:
        TRY(eval(r, n->a, &a));
        TRY(eval(r, n->b, &b));
        return jinja_binary(&r->pool, n->op, &a, &b, out);
    default:
        return err_set(RC_BUG, "no expression");
    }
}

static int
eval(struct run *r, int n, struct jinja_value *out)
{
    int rc;

    r->depth++;
    if ((rc = step(r, &r->j->v[n])) == RC_OK)
        rc = eval_kind(r, &r->j->v[n], out);
    r->depth--;
    return rc;
}

/* --- statements --- */

/* Items of a loop that pass its condition. */
static int
filter_items(struct run *r, const struct jinja_node *n, const struct jinja_value *all, struct jinja_value *out)
{
    struct scope scope = { .outer = r->scope };
    json_t *list;
    int rc = RC_OK;

    TRY(jinja_own(&r->pool, list = json_array(), out));
    r->scope = &scope;
    for (size_t i = 0; i < json_array_size(all->j); i++) {
        struct jinja_value item = jinja_json(json_array_get(all->j, i)), yes;

        if ((rc = step(r, n)) != RC_OK || (rc = assign_target(r, n->a, &item)) != RC_OK || (rc = eval(r, n->e,
            &yes)) != RC_OK)
            break;
        if (jinja_truth(&yes) && json_array_append(list, item.j) != 0)
            rc = err_set(RC_OS, "out of memory");
    }
    r->scope = scope.outer;
    mem_free(scope.v);
    return rc;
}

static const char *
loop_name(const struct run *r)
{
    for (size_t i = 0; i < r->j->name_count; i++)
        if (strcmp(r->j->names[i], "loop") == 0)
            return r->j->names[i];
    return NULL;
}

static int
exec_for(struct run *r, const struct jinja_node *n, enum flow *flow)
{
    struct scope scope = { .outer = r->scope };
    struct jinja_value v, items;
    struct jinja_loop loop = { 0 };
    const char *name = loop_name(r);
    int rc = RC_OK;

    TRY(eval(r, n->b, &v));
    TRY(jinja_items(&r->pool, &v, &items));
    if (n->e != 0) {
        v = items;
        TRY(filter_items(r, n, &v, &items));
    }
    loop.items = items.j;
    loop.count = json_array_size(items.j);
    v = (struct jinja_value){ .type = JV_LOOP, .loop = &loop };
    for (; loop.index < loop.count && rc == RC_OK && *flow != FLOW_BREAK; loop.index++) {
        struct jinja_value item = jinja_json(json_array_get(items.j, loop.index));

        scope.count = 0;
        r->scope = &scope;
        *flow = FLOW_ON;
        if ((rc = step(r, n)) == RC_OK && (name == NULL || (rc = assign(&scope, name, &v)) == RC_OK) &&
            (rc = assign_target(r, n->a, &item)) == RC_OK)
            rc = exec(r, n->c, flow);
        r->scope = scope.outer;
    }
    mem_free(scope.v);
    *flow = FLOW_ON;
    return rc == RC_OK && loop.count == 0 && n->d != 0 ? exec(r, n->d, flow) : rc;
}

/* Along a chain of elif without going deeper. */
static int
exec_if(struct run *r, const struct jinja_node *n, enum flow *flow)
{
    struct jinja_value v;

    for (;;) {
        TRY(eval(r, n->a, &v));
        if (jinja_truth(&v))
            return exec(r, n->b, flow);
        if (n->c == 0)
            return RC_OK;
        if (r->j->v[n->c].kind != JN_IF || r->j->v[n->c].op == 0)
            return exec(r, n->c, flow);
        n = &r->j->v[n->c];
    }
}

/* A block's text through its filters, into a name or out. */
static int
exec_filtered(struct run *r, const struct jinja_node *n)
{
    const struct jinja_value *outer = r->body;
    struct scope scope = { .outer = r->scope };
    struct jinja_value v, text;
    int rc = capture(r, n->c, &scope, &text);

    mem_free(scope.v);
    if (rc != RC_OK)
        return rc;
    r->body = &text;
    rc = eval(r, n->d, &v);
    r->body = outer;
    if (rc != RC_OK)
        return rc;
    return n->kind == JN_SET ? assign_target(r, n->a, &v) : jinja_str(r->out, &v);
}

static int
exec_scope(struct run *r, const struct jinja_node *n)
{
    struct scope scope = { .outer = r->scope };
    enum flow flow = FLOW_ON;
    int rc;

    r->scope = &scope;
    rc = exec(r, n->b, &flow);
    r->scope = scope.outer;
    mem_free(scope.v);
    return rc;
}

static int
exec_one(struct run *r, const struct jinja_node *n, enum flow *flow)
{
    struct jinja_value v;

    switch (n->kind) {
    case JN_TEXT:
        buf_add(r->out, json_string_value(n->value), json_string_length(n->value));
        return RC_OK;
    case JN_PRINT:
        TRY(eval(r, n->a, &v));
        return jinja_str(r->out, &v);
    case JN_IF:
        return exec_if(r, n, flow);
    case JN_FOR:
        return exec_for(r, n, flow);
    case JN_SET:
        if (n->d != 0)
            return exec_filtered(r, n);
        TRY(eval(r, n->b, &v));
        return assign_target(r, n->a, &v);
    case JN_FILTERED:
        return exec_filtered(r, n);
    case JN_MACRO:
        v = (struct jinja_value){ .type = JV_MACRO, .macro = n };
        return assign(r->scope, n->name, &v);
    case JN_SCOPE:
        return exec_scope(r, n);
    case JN_BREAK:
        *flow = FLOW_BREAK;
        return RC_OK;
    case JN_CONTINUE:
        *flow = FLOW_CONTINUE;
        return RC_OK;
    default:
        return err_set(RC_BUG, "no statement");
    }
}

static int
exec(struct run *r, int n, enum flow *flow)
{
    int rc = RC_OK;

    *flow = FLOW_ON;
    r->depth++;
    for (; n != 0 && rc == RC_OK && *flow == FLOW_ON; n = r->j->v[n].next)
        if ((rc = step(r, &r->j->v[n])) == RC_OK)
            rc = exec_one(r, &r->j->v[n], flow);
    r->depth--;
    return rc;
}

int
jinja_render(const struct jinja *j, const json_t *context, int64_t today, struct buf *out)
{
    struct run r = { .j = j, .context = context, .today = today, .out = out };
    enum flow flow;
    int rc;

    r.scope = &r.top;
    rc = exec(&r, j->body, &flow);
    if (rc == RC_OK && !buf_ok(out))
        rc = RC_OS;
    if (rc != RC_OK)
        (void)err_at(rc, "template line %d", r.line);
    mem_free(r.top.v);
    jinja_pool_free(&r.pool);
    return rc;
}
