/* match - which modules a recipe's target or ignore entry means
 *
 * "re:PATTERN" is a regular expression of Python that must match from the start of the qualified
 * name, not to its end: "re:model.layers.1" means layers 1, 10 to 19, and so on. What Python and
 * PCRE2 read differently is rewritten; what only one of them has is refused. Anything else equals
 * the qualified name, or the name of the module's class or of one of its bases.
 */
#ifndef LLMC_MATCH_H
#define LLMC_MATCH_H

#include "msg.h"

/* The greater decides. MATCH_ERROR leaves a sentence: the pattern takes too long, or memory. */
enum match_kind { MATCH_ERROR = -1, MATCH_NO, MATCH_CLASS, MATCH_REGEX, MATCH_NAME };

struct match {
    char *text;
    void *regex; /* pcre2_code, of "re:" */
};

int  match_init(struct match *m, const char *text); /* RC_DATA: bad pattern */
void match_free(struct match *m);
/* classes: the class and its bases, separated by spaces: "Linear", "Qwen3MoeRouter Linear". */
enum match_kind match_module(const struct match *m, const char *name, const char *classes);

#endif
