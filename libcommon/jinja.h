/* jinja - the part of the Jinja language that chat templates are written in, as transformers sets it up
 *
 * Statements: for (with if, else, break, continue), if, set (also of a block and of a namespace's member), macro,
 * filter, generation. Expressions: all operators but **, slices, calls with named arguments, conditional ones; the
 * filters, tests and methods of jinja_call.c. What is not understood is refused by name: a statement when the template
 * is opened, an expression when it is evaluated, so that a branch which no conversation takes does no harm.
 *
 * A template comes from anywhere: nesting, steps, and bytes are bounded.
 */
#ifndef LLMC_JINJA_H
#define LLMC_JINJA_H

#include "buf.h"

#include <jansson.h>

struct jinja;

int jinja_open(struct jinja **out, const char *text, size_t len); /* RC_DATA "line N: what" */
/* Appends what the template makes of the members of context. today: the day that strftime_now gives, in seconds since
 * 1970; -1: it is refused. RC_DATA: not supported, an error, or the template's own words (raise_exception). Several
 * threads may render at once. */
int  jinja_render(const struct jinja *j, const json_t *context, int64_t today, struct buf *out);
void jinja_close(struct jinja *j); /* NULL is fine */

#endif
