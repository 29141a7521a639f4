/* jinja - the part of the Jinja language that chat templates are written in: statements */
#include "jinja.h"

#include "jinja_parse.h"
#include "json.h"
#include "mem.h"

#include <string.h>

/* --- statements --- */

static int body(struct jinja_parser *p, const char *const *ends, int *first);

static int
block_end(struct jinja_parser *p)
{
    if (p->t->kind != JT_BLOCK_END)
        return parse_bad(p, "more in a statement than is understood");
    p->t++;
    return RC_OK;
}

/* name, name.member, or names with commas between, also in brackets. */
static int
target(struct jinja_parser *p, bool member, int *out)
{
    struct jinja_node n = { .kind = JN_NAME }, all = { .kind = JN_TUPLE };
    bool bracket = parse_take_op(p, '(');
    int last = 0, item;

    do {
        struct jinja_node arg = { .kind = JN_ARG };

        if (all.a != 0 && (parse_is_word(p, "in") || parse_is_op(p, '=')))
            break;
        TRY(parse_want_name(p, &n.name));
        TRY(parse_node(p, n, &arg.a));
        TRY(parse_node(p, arg, &item));
        parse_link(p, item, &all.a, &last);
    } while (parse_take_op(p, ','));
    if (bracket)
        TRY(parse_want_op(p, ')'));
    *out = p->j->v[all.a].a;
    if (all.a != last)
        return parse_node(p, all, out);
    if (member && parse_take_op(p, '.')) {
        n = (struct jinja_node){ .kind = JN_GET, .a = *out };
        TRY(parse_want_name(p, &n.name));
        return parse_node(p, n, out);
    }
    return RC_OK;
}

static int
if_statement(struct jinja_parser *p, int *out)
{
    static const char *const ends[] = { "elif", "else", "endif", NULL }, *const end[] = { "endif", NULL };
    int at = 0;

    for (bool first = true;; first = false) {
        struct jinja_node n = { .kind = JN_IF, .op = !first };
        int made;

        TRY(parse_tuple(p, false, &n.a));
        TRY(block_end(p));
        TRY(body(p, ends, &n.b));
        TRY(parse_node(p, n, &made));
        if (first)
            *out = made;
        else
            p->j->v[at].c = made;
        at = made;
        if (!parse_take_word(p, "elif"))
            break;
    }
    if (parse_take_word(p, "else")) {
        int other;

        TRY(block_end(p));
        TRY(body(p, end, &other));
        p->j->v[at].c = other;
    }
    p->t++; /* endif */
    return block_end(p);
}

static int
for_statement(struct jinja_parser *p, int *out)
{
    static const char *const ends[] = { "else", "endfor", NULL }, *const end[] = { "endfor", NULL };
    struct jinja_node n = { .kind = JN_FOR };

    TRY(target(p, false, &n.a));
    if (!parse_take_word(p, "in"))
        return parse_bad(p, "for without in");
    TRY(parse_tuple(p, false, &n.b));
    if (parse_take_word(p, "if"))
        TRY(parse_expression(p, &n.e));
    if (parse_is_word(p, "recursive"))
        return parse_bad(p, "recursive loops are not supported");
    TRY(block_end(p));
    p->loops++;
    TRY(body(p, ends, &n.c));
    p->loops--;
    if (parse_take_word(p, "else")) {
        TRY(block_end(p));
        TRY(body(p, end, &n.d));
    }
    p->t++; /* endfor */
    TRY(block_end(p));
    return parse_node(p, n, out);
}

static int
set_statement(struct jinja_parser *p, int *out)
{
    static const char *const end[] = { "endset", NULL };
    struct jinja_node n = { .kind = JN_SET };

    TRY(target(p, true, &n.a));
    if (parse_take_op(p, '=')) {
        TRY(parse_tuple(p, true, &n.b));
        TRY(block_end(p));
        return parse_node(p, n, out);
    }
    if (p->j->v[n.a].kind != JN_NAME)
        return parse_bad(p, "set of this form is not supported");
    TRY(parse_node(p, (struct jinja_node){ .kind = JN_BODY }, &n.d));
    TRY(parse_filters(p, &n.d));
    TRY(block_end(p));
    TRY(body(p, end, &n.c));
    p->t++; /* endset */
    TRY(block_end(p));
    return parse_node(p, n, out);
}

static int
filter_statement(struct jinja_parser *p, int *out)
{
    static const char *const end[] = { "endfilter", NULL };
    struct jinja_node n = { .kind = JN_FILTERED };

    TRY(parse_node(p, (struct jinja_node){ .kind = JN_BODY }, &n.d));
    TRY(parse_filter(p, &n.d));
    TRY(parse_filters(p, &n.d));
    TRY(block_end(p));
    TRY(body(p, end, &n.c));
    p->t++; /* endfilter */
    TRY(block_end(p));
    return parse_node(p, n, out);
}

static int
macro_statement(struct jinja_parser *p, int *out)
{
    static const char *const end[] = { "endmacro", NULL };
    struct jinja_node n = { .kind = JN_MACRO };
    int last = 0, item, loops = p->loops;

    if (p->blocks > 1)
        return parse_bad(p, "a macro within another statement is not supported");
    TRY(parse_want_name(p, &n.name));
    TRY(parse_want_op(p, '('));
    while (!parse_take_op(p, ')')) {
        struct jinja_node arg = { .kind = JN_ARG };

        if (n.a != 0)
            TRY(parse_want_op(p, ','));
        TRY(parse_want_name(p, &arg.name));
        if (parse_take_op(p, '='))
            TRY(parse_expression(p, &arg.a));
        TRY(parse_node(p, arg, &item));
        parse_link(p, item, &n.a, &last);
    }
    TRY(block_end(p));
    p->loops = 0;
    TRY(body(p, end, &n.b));
    p->loops = loops;
    p->t++; /* endmacro */
    TRY(block_end(p));
    return parse_node(p, n, out);
}

static int
generation_statement(struct jinja_parser *p, int *out)
{
    static const char *const end[] = { "endgeneration", NULL };
    struct jinja_node n = { .kind = JN_SCOPE };
    int loops = p->loops;

    TRY(block_end(p));
    p->loops = 0; /* the renderer makes a function of it */
    TRY(body(p, end, &n.b));
    p->loops = loops;
    p->t++;
    TRY(block_end(p));
    return parse_node(p, n, out);
}

static int
statement(struct jinja_parser *p, int *out)
{
    static const struct { const char *word; int (*parse)(struct jinja_parser *p, int *out); } known[] = {
        { "if", if_statement }, { "for", for_statement }, { "set", set_statement }, { "macro", macro_statement },
        { "generation", generation_statement }, { "filter", filter_statement },
    };
    bool leave = parse_is_word(p, "break");

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (parse_take_word(p, known[i].word))
            return known[i].parse(p, out);
    if (leave || parse_is_word(p, "continue")) {
        if (p->loops == 0)
            return parse_bad(p, "break or continue outside a loop");
        p->t++;
        TRY(block_end(p));
        return parse_node(p, (struct jinja_node){ .kind = leave ? JN_BREAK : JN_CONTINUE }, out);
    }
    if (p->t->kind != JT_NAME)
        return parse_bad(p, "a statement without a name");
    return err_set(RC_DATA, "line %d: statement \"%.*s\" is not supported", p->t->line,
        (int)(p->t->len < 64 ? p->t->len : 64), p->t->s);
}

static int
part(struct jinja_parser *p, int *out)
{
    struct jinja_node n = { .kind = JN_TEXT };

    if (p->t->kind == JT_TEXT) {
        if ((n.value = json_stringn(p->t->s, p->t->len)) == NULL)
            return parse_bad(p, "text that is not UTF-8");
        p->t++;
        if (parse_node(p, n, out) == RC_OK)
            return RC_OK;
        json_decref(n.value);
        return RC_OS;
    }
    if (p->t->kind == JT_VAR_BEGIN) {
        n.kind = JN_PRINT;
        p->t++;
        TRY(parse_tuple(p, true, &n.a));
        if (p->t->kind != JT_VAR_END)
            return parse_bad(p, "more in an expression than is understood");
        p->t++;
        return parse_node(p, n, out);
    }
    p->t++; /* JT_BLOCK_BEGIN */
    return statement(p, out);
}

/* Statements up to "{% END" of one of ends, at whose word it leaves off; ends NULL: the end of the template. */
static int
body(struct jinja_parser *p, const char *const *ends, int *first)
{
    int last = 0, n = 0;

    *first = 0;
    if (++p->depth > JINJA_DEPTH_MAX)
        return parse_bad(p, "nests too deep");
    p->blocks++;
    while (p->t->kind != JT_EOF) {
        if (p->t->kind == JT_BLOCK_BEGIN)
            for (size_t i = 0; ends != NULL && ends[i] != NULL; i++) {
                p->t++;
                if (parse_is_word(p, ends[i])) {
                    p->depth--;
                    p->blocks--;
                    return RC_OK;
                }
                p->t--;
            }
        TRY(part(p, &n));
        parse_link(p, n, first, &last);
    }
    p->depth--;
    p->blocks--;
    return ends == NULL ? RC_OK : err_set(RC_DATA, "no \"%s\" before the end", ends[0]);
}

/* --- */

int
jinja_open(struct jinja **out, const char *text, size_t len)
{
    struct jinja *j = mem_zalloc(1, sizeof(*j));
    struct jinja_parser p = { .j = j };
    int rc = RC_OS, unused;

    *out = NULL;
    for (size_t i = 0, n; i < len; i += n)
        if ((n = jutf8(text + i, len - i)) == 0) {
            mem_free(j);
            return err_set(RC_DATA, "not UTF-8 at byte %zu", i);
        }
    if (j != NULL && (rc = jinja_lex(&j->tokens, text, len)) == RC_OK) {
        p.t = j->tokens.v;
        if ((rc = parse_node(&p, (struct jinja_node){ 0 }, &unused)) == RC_OK)
            rc = body(&p, NULL, &j->body);
    }
    if (rc != RC_OK)
        jinja_close(j);
    else
        *out = j;
    return rc;
}

void
jinja_close(struct jinja *j)
{
    if (j == NULL)
        return;
    for (size_t i = 0; i < j->count; i++)
        json_decref(j->v[i].value);
    mem_free(j->v);
    for (size_t i = 0; i < j->name_count; i++)
        mem_free(j->names[i]);
    mem_free(j->names);
    jinja_lex_free(&j->tokens);
    mem_free(j);
}
