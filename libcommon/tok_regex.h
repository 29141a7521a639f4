/* tok_regex - the patterns of tokenizer.json, written for Oniguruma with Unicode 16, spelled for PCRE2
 *
 * What the two read alike passes, what they read differently is spelled out, and the rest is refused by name. PCRE2
 * knows the Unicode of its build; code points that came since 14 are listed here. Compile with UTF, UCP and MULTILINE.
 */
#ifndef LLMC_TOK_REGEX_H
#define LLMC_TOK_REGEX_H

#include "buf.h"

#include <stdint.h>

int  regex_translate(const char *pattern, struct buf *out); /* RC_DATA */
/* The fixed pre-tokenizers, in PCRE2's spelling. */
void regex_whitespace(struct buf *out);
void regex_punctuation(struct buf *out);
void regex_digits(struct buf *out, bool individual);
/* A letter of a word, where an added token must stand alone. */
bool regex_is_word(uint32_t c);

#endif
