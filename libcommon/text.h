/* text - samples from calibration data
 *
 * Data are a file, a tar or a directory of files, each compressed or not, in the order of their names (a tar: its own);
 * hidden files are passed over. Each file is, by its first bytes,
 *     JSON lines    after white space a '{': objects, see text_opts.columns
 *     .npy          token ids, 1-D one stream or 2-D [samples, length]; int32, int64, uint16, uint32
 *     safetensors   "input_ids" I32 or I64, [samples, length], also with "attention_mask" of the same shape, or with
 *                   "lengths" [samples]; or [tokens], a stream, or with "lengths" samples one after the other
 *     plain text    anything else: one stream; bytes that are not UTF-8 become U+FFFD as Python's "replace" does
 *
 * Positions that an attention mask excludes are padding: they must be at the ends of a sample and are taken away, which
 * changes nothing for the tokens that stay, since no token sees those after it and positions are relative.
 */
#ifndef LLMC_TEXT_H
#define LLMC_TEXT_H

#include "json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text;

struct text_opts {
    /* Of JSON lines: the one column that holds text, ids or a conversation, or "a,b": what a user says and what the
     * assistant answers. NULL: the first there is of "input_ids", "text", "messages" and "prompt,response". */
    const char *columns;
    bool        keep_padding; /* padding is used as the ids that it has; it must be after the tokens then */
};

enum text_kind { TEXT_PLAIN, TEXT_IDS, TEXT_CHAT };

/* Valid until the next call on the same text. */
struct text_sample {
    enum text_kind kind;
    const char    *text; /* UTF-8, may contain NUL */
    size_t         len;
    const int32_t *ids;
    size_t         count;
    const json_t  *messages; /* a list of objects, else unchecked */
    bool           stream;   /* to be cut into samples; another with the same source and `stream` goes on with it */
    int            source;   /* counts files */
    int            line;     /* of the file, or the sample's number: from 1 */
};

int  text_open(struct text **out, const char *path, const struct text_opts *o); /* RC_NOINPUT, RC_DATA, RC_IO */
int  text_next(struct text *t, struct text_sample *s); /* RC_RETRY at the end; RC_DATA "PATH: line N: what" */
/* The file that the last sample is from, for messages. */
const char *text_name(const struct text *t);
void        text_close(struct text *t); /* NULL is fine */

#endif
