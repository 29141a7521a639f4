/* tok - tokenizer.json of Hugging Face tokenizers: BPE
 *
 * Everything in the file that changes ids is understood or refused by name. A tokenizer may be used by several threads.
 */
#ifndef LLMC_TOK_H
#define LLMC_TOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tok;

/* Zero-initialise; encoding appends. */
struct tok_ids {
    int32_t *v;
    size_t   count, cap;
};

int  tok_open(struct tok **out, const char *path); /* RC_NOINPUT, RC_DATA "PATH: normalizer \"X\" is not supported" */
void tok_close(struct tok *t); /* NULL is fine */
/* text is UTF-8, else RC_DATA. special: with what the post-processor adds. */
int  tok_encode(const struct tok *t, const char *text, size_t len, bool special, struct tok_ids *ids);
void tok_ids_free(struct tok_ids *ids);
int  tok_vocab(const struct tok *t);                 /* largest id + 1 */
int  tok_id(const struct tok *t, const char *token); /* -1: absent */

#endif
