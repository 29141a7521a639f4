/* tok_split - normalisers and pre-tokenizers of a tokenizer: a text into words
 *
 * Pieces are ranges of one growing text, so that a step that changes text appends the changed copy.
 */
#ifndef LLMC_TOK_SPLIT_H
#define LLMC_TOK_SPLIT_H

#include "buf.h"
#include "json.h"

enum { SPLIT_STEPS_MAX = 16 };

enum split_kind {
    SPLIT_NFC, SPLIT_PREPEND, SPLIT_REPLACE, /* normalisers */
    SPLIT_LETTERS, /* either */
    SPLIT_REGEX, SPLIT_PREFIX_SPACE, SPLIT_METASPACE /* pre-tokenizers */
};

enum split_behaviour { SPLIT_ISOLATED, SPLIT_REMOVED, SPLIT_PREVIOUS, SPLIT_NEXT, SPLIT_CONTIGUOUS };

struct split_step {
    enum split_kind      kind;
    enum split_behaviour behaviour;
    bool                 invert, first_only, split;
    char                *from, *to; /* strings of PREPEND, REPLACE and METASPACE */
    void                *regex;     /* pcre2_code */
};

struct splitter {
    struct split_step norm[SPLIT_STEPS_MAX], pre[SPLIT_STEPS_MAX];
    int               norm_count, pre_count;
    bool              byte_level; /* the words are bytes; else the model sees their characters */
};

struct piece {
    size_t at, len;
    bool   first; /* starts at the beginning of the input */
};

struct pieces {
    struct buf    text;
    struct piece *v, *spare;
    size_t        count, cap, spare_count, spare_cap;
    size_t        floor; /* pieces from here on are of the piece that is being cut */
    void         *match, *context, *stack; /* pcre2_match_data; the others once a pattern needs a larger stack */
};

/* The objects "normalizer" and "pre_tokenizer", either may be null. RC_DATA without the file's name. */
int  split_open(struct splitter *s, const json_t *normalizer, const json_t *pre);
void split_close(struct splitter *s);

void pieces_free(struct pieces *p);
/* text as the only piece. */
int  pieces_set(struct pieces *p, const char *text, size_t len, bool first);
/* The same, normalised. */
int  split_normalise(const struct splitter *s, const char *text, size_t len, bool first, struct pieces *p);
/* Cuts p's pieces into words. */
int  split_words(const struct splitter *s, struct pieces *p);

#endif
