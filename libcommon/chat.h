/* chat - conversations as the text that a model was trained on: its own chat template, rendered as transformers does
 *
 * The template is chat_template.jinja of the model's directory, else "chat_template" of tokenizer_config.json (of
 * several the one named "default"). It sees messages, the special tokens that tokenizer_config.json or
 * special_tokens_map.json names (bos_token, ...), tools and documents (none), add_generation_prompt (false), and
 * what is set. The text has its special tokens, and is to be tokenised without others.
 */
#ifndef LLMC_CHAT_H
#define LLMC_CHAT_H

#include "buf.h"

#include <jansson.h>

struct chat;

/* set: "NAME=VALUE", ends with NULL; VALUE is JSON, else a string. "today=YYYY-MM-DD" is what strftime_now gives,
 * which is refused without. RC_USAGE: of no such form; RC_NOINPUT: the model has no template; RC_DATA: it is not
 * understood. */
int  chat_open(struct chat **out, const char *model_dir, const char *const *set);
int  chat_render(const struct chat *c, const json_t *messages, struct buf *out); /* appends; RC_DATA */
void chat_close(struct chat *c); /* NULL is fine */

#endif
