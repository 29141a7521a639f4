/* jinja_parse - expressions of the Jinja language */
#include "jinja_parse.h"

#include "mem.h"

#include <string.h>

enum { NODES_MAX = 1 << 20 };

/* --- nodes and tokens --- */

int
parse_bad(const struct jinja_parser *p, const char *what)
{
    return err_set(RC_DATA, "line %d: %s", p->t->line, what);
}

int
parse_node(struct jinja_parser *p, struct jinja_node n, int *out)
{
    struct jinja *j = p->j;
    struct jinja_node *v = mem_grow(j->v, &j->cap, j->count + 1, sizeof(*v));

    if (v == NULL)
        return RC_OS;
    j->v = v;
    n.line = p->t->line;
    *out = (int)j->count;
    v[j->count++] = n;
    return j->count < NODES_MAX ? RC_OK : parse_bad(p, "more expressions than are supported");
}

/* The template's one copy of a name. */
static int
name_of(struct jinja_parser *p, const struct jinja_token *t, const char **out)
{
    struct jinja *j = p->j;
    char **v;

    for (size_t i = 0; i < j->name_count; i++)
        if (strlen(j->names[i]) == t->len && memcmp(j->names[i], t->s, t->len) == 0) {
            *out = j->names[i];
            return RC_OK;
        }
    if ((v = mem_grow(j->names, &j->name_cap, j->name_count + 1, sizeof(*v))) == NULL)
        return RC_OS;
    j->names = v;
    if ((v[j->name_count] = mem_alloc(t->len + 1, 1)) == NULL)
        return RC_OS;
    memcpy(v[j->name_count], t->s, t->len);
    v[j->name_count][t->len] = '\0';
    *out = v[j->name_count++];
    return RC_OK;
}

bool
parse_is_op(const struct jinja_parser *p, int op)
{
    return p->t->kind == JT_OP && p->t->op == op;
}

bool
parse_is_word(const struct jinja_parser *p, const char *word)
{
    return p->t->kind == JT_NAME && p->t->len == strlen(word) && memcmp(p->t->s, word, p->t->len) == 0;
}

bool
parse_take_op(struct jinja_parser *p, int op)
{
    bool yes = parse_is_op(p, op);

    p->t += yes;
    return yes;
}

bool
parse_take_word(struct jinja_parser *p, const char *word)
{
    bool yes = parse_is_word(p, word);

    p->t += yes;
    return yes;
}

int
parse_want_op(struct jinja_parser *p, int op)
{
    if (parse_take_op(p, op))
        return RC_OK;
    return err_set(RC_DATA, "line %d: no \"%c\" where one must be", p->t->line, op);
}

int
parse_want_name(struct jinja_parser *p, const char **name)
{
    if (p->t->kind != JT_NAME)
        return parse_bad(p, "no name where one must be");
    return name_of(p, p->t++, name);
}

/* Appends n to a list whose first and last are *first and *last. */
void
parse_link(struct jinja_parser *p, int n, int *first, int *last)
{
    if (*first == 0)
        *first = n;
    else
        p->j->v[*last].next = n;
    *last = n;
}

/* --- expressions --- */

static int unary(struct jinja_parser *p, bool filters, int *out);

/* After "(": arguments up to ")". */
static int
arguments(struct jinja_parser *p, int *first)
{
    int last = 0, n, count = 0;

    *first = 0;
    while (!parse_take_op(p, ')')) {
        struct jinja_node arg = { .kind = JN_ARG };

        if (count++ > 0)
            TRY(parse_want_op(p, ','));
        if (count > 1 && parse_take_op(p, ')'))
            break;
        if (parse_is_op(p, '*') || parse_is_op(p, '*' | '*' << 8))
            return parse_bad(p, "arguments with * are not supported");
        if (p->t->kind == JT_NAME && p->t[1].kind == JT_OP && p->t[1].op == '=') {
            TRY(parse_want_name(p, &arg.name));
            p->t++;
        }
        TRY(parse_expression(p, &arg.a));
        TRY(parse_node(p, arg, &n));
        parse_link(p, n, first, &last);
    }
    return count <= JINJA_ARGS_MAX ? RC_OK : parse_bad(p, "too many arguments");
}

/* Items of a list or tuple up to the closing bracket. */
static int
items(struct jinja_parser *p, int shut, int *first, bool *comma)
{
    int last = 0, n;

    *first = 0;
    *comma = false;
    while (!parse_take_op(p, shut)) {
        struct jinja_node item = { .kind = JN_ARG };

        if (*first != 0) {
            TRY(parse_want_op(p, ','));
            *comma = true;
            if (parse_take_op(p, shut))
                break;
        }
        TRY(parse_expression(p, &item.a));
        TRY(parse_node(p, item, &n));
        parse_link(p, n, first, &last);
    }
    return RC_OK;
}

static int
dict(struct jinja_parser *p, int *out)
{
    struct jinja_node d = { .kind = JN_DICT };
    int last = 0, n;

    while (!parse_take_op(p, '}')) {
        struct jinja_node item = { .kind = JN_ARG };

        if (d.a != 0) {
            TRY(parse_want_op(p, ','));
            if (parse_take_op(p, '}'))
                break;
        }
        TRY(parse_expression(p, &item.b));
        TRY(parse_want_op(p, ':'));
        TRY(parse_expression(p, &item.a));
        TRY(parse_node(p, item, &n));
        parse_link(p, n, &d.a, &last);
    }
    return parse_node(p, d, out);
}

static int
constant(struct jinja_parser *p, json_t *value, int *out)
{
    int rc = parse_node(p, (struct jinja_node){ .kind = JN_CONST, .value = value }, out);

    if (rc == RC_OS) /* else it is the node's */
        json_decref(value);
    return rc;
}

/* Strings that stand side by side are one. */
static int
strings(struct jinja_parser *p, int *out)
{
    json_t *joined;
    struct buf b = { 0 };
    int rc;

    if (!json_is_string(p->t->value) || p->t[1].kind != JT_CONST || !json_is_string(p->t[1].value)) {
        rc = constant(p, json_incref(p->t->value), out);
        p->t++;
        return rc;
    }
    for (; p->t->kind == JT_CONST && json_is_string(p->t->value); p->t++)
        buf_add(&b, json_string_value(p->t->value), json_string_length(p->t->value));
    joined = buf_ok(&b) ? json_stringn(b.s != NULL ? b.s : "", b.len) : NULL;
    buf_free(&b);
    return joined != NULL ? constant(p, joined, out) : err_set(RC_OS, "out of memory");
}

static int
primary(struct jinja_parser *p, int *out)
{
    struct jinja_node n = { .kind = JN_NAME };
    bool comma;

    if (p->t->kind == JT_CONST)
        return strings(p, out);
    if (p->t->kind == JT_NAME) {
        if (parse_take_word(p, "true") || parse_take_word(p, "True"))
            return constant(p, json_true(), out);
        if (parse_take_word(p, "false") || parse_take_word(p, "False"))
            return constant(p, json_false(), out);
        if (parse_take_word(p, "none") || parse_take_word(p, "None"))
            return constant(p, json_null(), out);
        TRY(parse_want_name(p, &n.name));
        return parse_node(p, n, out);
    }
    if (parse_take_op(p, '[')) {
        n.kind = JN_LIST;
        TRY(items(p, ']', &n.a, &comma));
        return parse_node(p, n, out);
    }
    if (parse_take_op(p, '{'))
        return dict(p, out);
    if (!parse_take_op(p, '('))
        return parse_bad(p, "no expression where one must be");
    n.kind = JN_TUPLE;
    TRY(items(p, ')', &n.a, &comma));
    if (n.a != 0 && !comma) {
        *out = p->j->v[n.a].a;
        return RC_OK;
    }
    return parse_node(p, n, out);
}

/* After "[": an index or a slice. */
static int
subscript(struct jinja_parser *p, int object, int *out)
{
    struct jinja_node n = { .kind = JN_INDEX, .a = object };

    if (!parse_is_op(p, ':'))
        TRY(parse_expression(p, &n.b));
    if (parse_take_op(p, ':')) {
        n.kind = JN_SLICE;
        if (!parse_is_op(p, ':') && !parse_is_op(p, ']'))
            TRY(parse_expression(p, &n.c));
        if (parse_take_op(p, ':') && !parse_is_op(p, ']'))
            TRY(parse_expression(p, &n.d));
    }
    TRY(parse_want_op(p, ']'));
    return parse_node(p, n, out);
}

static int
postfix(struct jinja_parser *p, int *out)
{
    for (;;) {
        struct jinja_node n = { .a = *out };

        if (parse_take_op(p, '.')) {
            n.kind = JN_GET;
            if (p->t->kind == JT_CONST && json_is_integer(p->t->value)) {
                n.kind = JN_INDEX;
                TRY(constant(p, json_incref(p->t++->value), &n.b));
            } else {
                TRY(parse_want_name(p, &n.name));
            }
            TRY(parse_node(p, n, out));
        } else if (parse_take_op(p, '[')) {
            TRY(subscript(p, *out, out));
        } else if (parse_take_op(p, '(')) {
            n.kind = JN_CALL;
            TRY(arguments(p, &n.b));
            TRY(parse_node(p, n, out));
        } else {
            return RC_OK;
        }
    }
}

static bool
starts_argument(const struct jinja_parser *p)
{
    if (p->t->kind == JT_CONST || parse_is_op(p, '[') || parse_is_op(p, '{'))
        return true;
    return p->t->kind == JT_NAME && !parse_is_word(p, "else") && !parse_is_word(p, "or") && !parse_is_word(p, "and");
}

/* After "is": a test, whose one argument needs no brackets. */
static int
test(struct jinja_parser *p, int *out)
{
    struct jinja_node n = { .kind = JN_TEST, .a = *out }, arg = { .kind = JN_ARG };
    bool negated = parse_take_word(p, "not");

    TRY(parse_want_name(p, &n.name));
    if (parse_take_op(p, '(')) {
        TRY(arguments(p, &n.b));
    } else if (starts_argument(p)) {
        if (parse_is_word(p, "is"))
            return parse_bad(p, "tests cannot be chained");
        TRY(primary(p, &arg.a));
        TRY(postfix(p, &arg.a));
        TRY(parse_node(p, arg, &n.b));
    }
    TRY(parse_node(p, n, out));
    return negated ? parse_node(p, (struct jinja_node){ .kind = JN_NOT, .a = *out }, out) : RC_OK;
}

int
parse_filter(struct jinja_parser *p, int *out)
{
    struct jinja_node n = { .kind = JN_FILTER, .a = *out };

    TRY(parse_want_name(p, &n.name));
    if (parse_take_op(p, '('))
        TRY(arguments(p, &n.b));
    return parse_node(p, n, out);
}

int
parse_filters(struct jinja_parser *p, int *out)
{
    for (;;) {
        struct jinja_node n = { .kind = JN_FILTER, .a = *out };

        if (parse_take_op(p, '|')) {
            TRY(parse_filter(p, out));
        } else if (parse_take_word(p, "is")) {
            TRY(test(p, out));
        } else if (parse_take_op(p, '(')) {
            n.kind = JN_CALL;
            TRY(arguments(p, &n.b));
            TRY(parse_node(p, n, out));
        } else {
            return RC_OK;
        }
    }
}

static int
unary(struct jinja_parser *p, bool with_filters, int *out)
{
    if (++p->depth > JINJA_DEPTH_MAX)
        return parse_bad(p, "nests too deep");
    if (parse_is_op(p, '-') || parse_is_op(p, '+')) {
        struct jinja_node n = { .kind = parse_is_op(p, '-') ? JN_MINUS : JN_PLUS };

        p->t++;
        TRY(unary(p, false, &n.a));
        TRY(parse_node(p, n, out));
    } else {
        TRY(primary(p, out));
    }
    p->depth--;
    TRY(postfix(p, out));
    if (parse_is_op(p, '*' | '*' << 8))
        return parse_bad(p, "** is not supported");
    return with_filters ? parse_filters(p, out) : RC_OK;
}

static int
binary(struct jinja_parser *p, const int *ops, int (*operand)(struct jinja_parser *p, int *out), int *out)
{
    TRY(operand(p, out));
    for (const int *op = ops; *op != 0;) {
        struct jinja_node n = { .kind = JN_BINARY, .op = *op, .a = *out };

        if (!parse_take_op(p, *op)) {
            op++;
            continue;
        }
        TRY(operand(p, &n.b));
        TRY(parse_node(p, n, out));
        op = ops;
    }
    return RC_OK;
}

static int
operand_of_product(struct jinja_parser *p, int *out)
{
    return unary(p, true, out);
}

static int
product(struct jinja_parser *p, int *out)
{
    static const int ops[] = { '*', '/', '/' | '/' << 8, '%', 0 };

    return binary(p, ops, operand_of_product, out);
}

static int
concat(struct jinja_parser *p, int *out)
{
    static const int ops[] = { '~', 0 };

    return binary(p, ops, product, out);
}

static int
sum(struct jinja_parser *p, int *out)
{
    static const int ops[] = { '+', '-', 0 };

    return binary(p, ops, concat, out);
}

static int
comparison(struct jinja_parser *p, int *out)
{
    static const int ops[] = { '=' | '=' << 8, '!' | '=' << 8, '<' | '=' << 8, '>' | '=' << 8, '<', '>', 0 };
    struct jinja_node n = { .kind = JN_BINARY };

    TRY(sum(p, &n.a));
    for (;;) {
        const int *op = ops;

        while (*op != 0 && !parse_is_op(p, *op))
            op++;
        if (*op == 0 && !parse_is_word(p, "in") && !(parse_is_word(p, "not") && p->t[1].kind == JT_NAME &&
            p->t[1].len == 2 &&
            memcmp(p->t[1].s, "in", 2) == 0))
            break;
        if (n.op != 0)
            return parse_bad(p, "chained comparisons are not supported");
        n.op = *op != 0 ? *op : parse_is_word(p, "in") ? JINJA_IN : JINJA_NOT_IN;
        p->t += n.op == JINJA_NOT_IN ? 2 : 1;
        TRY(sum(p, &n.b));
    }
    *out = n.a;
    return n.op != 0 ? parse_node(p, n, out) : RC_OK;
}

static int
negation(struct jinja_parser *p, int *out)
{
    int nots = 0;

    while (parse_take_word(p, "not"))
        nots++;
    TRY(comparison(p, out));
    while (nots-- > 0)
        TRY(parse_node(p, (struct jinja_node){ .kind = JN_NOT, .a = *out }, out));
    return RC_OK;
}

/* Operands between which word stands, from the left. */
static int
joined(struct jinja_parser *p, const char *word, enum jinja_kind kind, int (*operand)(struct jinja_parser *p, int *out),
    int *out)
{
    TRY(operand(p, out));
    while (parse_take_word(p, word)) {
        struct jinja_node n = { .kind = kind, .a = *out };

        TRY(operand(p, &n.b));
        TRY(parse_node(p, n, out));
    }
    return RC_OK;
}

static int
conjunction(struct jinja_parser *p, int *out)
{
    return joined(p, "and", JN_AND, negation, out);
}

static int
disjunction(struct jinja_parser *p, int *out)
{
    return joined(p, "or", JN_OR, conjunction, out);
}

int
parse_expression(struct jinja_parser *p, int *out)
{
    if (++p->depth > JINJA_DEPTH_MAX)
        return parse_bad(p, "nests too deep");
    TRY(disjunction(p, out));
    while (parse_take_word(p, "if")) {
        struct jinja_node n = { .kind = JN_COND, .b = *out };

        TRY(disjunction(p, &n.a));
        if (parse_take_word(p, "else"))
            TRY(parse_expression(p, &n.c));
        TRY(parse_node(p, n, out));
    }
    p->depth--;
    return RC_OK;
}

/* An expression, or several with commas between: a tuple. */
int
parse_tuple(struct jinja_parser *p, bool conditional, int *out)
{
    struct jinja_node n = { .kind = JN_TUPLE };
    int last = 0, item;

    for (;;) {
        struct jinja_node arg = { .kind = JN_ARG };

        TRY(conditional ? parse_expression(p, out) : disjunction(p, out));
        if (n.a == 0 && !parse_is_op(p, ','))
            return RC_OK;
        arg.a = *out;
        TRY(parse_node(p, arg, &item));
        parse_link(p, item, &n.a, &last);
        if (!parse_take_op(p, ','))
            return parse_node(p, n, out);
        if (p->t->kind == JT_BLOCK_END || p->t->kind == JT_VAR_END)
            return parse_node(p, n, out);
    }
}
