/* match - which modules a recipe's target or ignore entry means
 *
 * "re:PATTERN" is a regular expression that must match from the start of the qualified name, not to its end. Anything
 * else equals the qualified name, or the name of the module's class.
 */
#ifndef LLMC_MATCH_H
#define LLMC_MATCH_H

#include "msg.h"

enum match_kind { MATCH_NO, MATCH_CLASS, MATCH_REGEX, MATCH_NAME }; /* the greater decides */

struct match {
    char *text;
    void *regex; /* pcre2_code, of "re:" */
};

int  match_init(struct match *m, const char *text); /* RC_DATA: bad pattern */
void match_free(struct match *m);
enum match_kind match_module(const struct match *m, const char *name, const char *class_name);

#endif
