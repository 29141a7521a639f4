/* jinja_parse - what the parser's two files share: jinja.c has statements, jinja_parse.c expressions
 *
 * Functions return RC_OK with the node in *out, RC_DATA "line N: what", or RC_OS.
 */
#ifndef LLMC_JINJA_PARSE_H
#define LLMC_JINJA_PARSE_H

#include "jinja_ast.h"

struct jinja_parser {
    struct jinja             *j;
    const struct jinja_token *t;
    int                       depth, loops, blocks; /* how deep the parser is in itself, in loops, in anything */
};

int parse_bad(const struct jinja_parser *p, const char *what);
int parse_node(struct jinja_parser *p, struct jinja_node n, int *out);
/* Appends n to a list whose first and last are *first and *last. */
void parse_link(struct jinja_parser *p, int n, int *first, int *last);

bool parse_is_op(const struct jinja_parser *p, int op);
bool parse_is_word(const struct jinja_parser *p, const char *word);
bool parse_take_op(struct jinja_parser *p, int op);
bool parse_take_word(struct jinja_parser *p, const char *word);
int  parse_want_op(struct jinja_parser *p, int op);
int  parse_want_name(struct jinja_parser *p, const char **name);

int parse_expression(struct jinja_parser *p, int *out);
/* Expressions with commas between are a tuple; conditional: a if b else c may be among them. */
int parse_tuple(struct jinja_parser *p, bool conditional, int *out);
/* *out through the filter whose name comes next; through those that follow, and tests. */
int parse_filter(struct jinja_parser *p, int *out);
int parse_filters(struct jinja_parser *p, int *out);

#endif
