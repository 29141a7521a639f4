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

/* What the post-processor adds before and after a text (usually a token that begins it). ONCE leaves out what the text
 * begins or ends with already, as text does that a chat template has rendered. */
enum tok_special { TOK_BARE, TOK_SPECIAL, TOK_SPECIAL_ONCE };

/* Zero-initialise; encoding appends. */
struct tok_ids {
    int32_t *v;
    size_t   count, cap;
};

int  tok_open(struct tok **out, const char *path); /* RC_NOINPUT, RC_DATA "PATH: normalizer \"X\" is not supported" */
/* tokenizer.json of a model's directory; where its tokenizer_config.json has add_bos_token or add_eos_token, those
 * decide what is added to a text, not the post-processor, as in transformers. */
int  tok_open_model(struct tok **out, const char *dir);
void tok_close(struct tok *t); /* NULL is fine */
int  tok_encode(const struct tok *t, const char *text, size_t len, enum tok_special special,
    struct tok_ids *ids); /* text is UTF-8, else RC_DATA */
void tok_ids_free(struct tok_ids *ids);
int  tok_vocab(const struct tok *t);                 /* largest id + 1 */
int  tok_id(const struct tok *t, const char *token); /* -1: absent */

#endif
