/* text - samples from a data file
 *
 * A file whose first byte after white space is '{' holds JSON lines: objects with "input_ids" (integers, used exactly
 * as they are) or "text". Any other file is one text; bytes that are not UTF-8 become U+FFFD as Python's "replace"
 * does. Either may be compressed.
 */
#ifndef LLMC_TEXT_H
#define LLMC_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text;

/* Valid until the next call on the same text. */
struct text_sample {
    const char    *text; /* UTF-8, may contain NUL */
    size_t         len;
    const int32_t *ids;
    size_t         count;
    bool           has_ids;
    int            line;
};

int  text_open(struct text **out, const char *path); /* RC_NOINPUT, RC_DATA, RC_IO */
int  text_next(struct text *t, struct text_sample *s); /* RC_RETRY at the end; RC_DATA "PATH: line N: what" */
bool text_is_lines(const struct text *t);
void text_close(struct text *t); /* NULL is fine */

#endif
