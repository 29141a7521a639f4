/* jinja_lex - a Jinja template as tokens; used by jinja.c alone
 *
 * White space as transformers sets the language up: trim_blocks and lstrip_blocks, "-" and "+" at a tag, newlines
 * of any kind are "\n", and one at the template's end is dropped.
 */
#ifndef LLMC_JINJA_LEX_H
#define LLMC_JINJA_LEX_H

#include "buf.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum jinja_token_kind {
    JT_TEXT, JT_VAR_BEGIN, JT_VAR_END, JT_BLOCK_BEGIN, JT_BLOCK_END, JT_NAME, JT_CONST, JT_OP, JT_EOF
};

struct jinja_token {
    enum jinja_token_kind kind;
    int                   line;
    const char           *s; /* TEXT and NAME, in the normalised source */
    size_t                len;
    int                   op;    /* "=" as '=', "==" as '=' | '=' << 8 */
    json_t               *value; /* CONST: a string or a number */
};

struct jinja_tokens {
    struct buf          source;
    struct jinja_token *v; /* the last is JT_EOF */
    size_t              count, cap;
};

int  jinja_lex(struct jinja_tokens *t, const char *text, size_t len); /* RC_DATA "line N: what" */
void jinja_lex_free(struct jinja_tokens *t);

/* What Python's str.isspace says of a code point. */
bool jinja_is_space(uint32_t c);

#endif
