/* tok_bpe - the BPE model of a tokenizer: vocabulary, merges, one word to ids */
#ifndef LLMC_TOK_BPE_H
#define LLMC_TOK_BPE_H

#include "json.h"
#include "tok.h"

#include <stdint.h>

struct bpe_slot {
    uint32_t hash;
    int32_t  id;  /* -1: free */
    uint32_t at, len; /* of the key in strings */
};

struct bpe_pair {
    uint64_t key; /* left id << 32 | right id; UINT64_MAX: free */
    int32_t  rank, id;
};

struct bpe {
    bool             byte_level;    /* symbols are bytes; keys of the vocabulary are raw bytes */
    bool             byte_fallback, fuse_unk, ignore_merges;
    bool             cut;           /* words may be cut before each U+2581 */
    int32_t          unk;           /* -1: none */
    int32_t          byte_id[256];  /* byte_level: the symbol of a byte; -1: none */
    int32_t          hex_id[256];   /* byte_fallback: <0xHH>; -1: none */
    int16_t          byte_of[512];  /* by letter; -1: stands for none */
    struct bpe_slot *slots;
    struct bpe_pair *pairs;
    size_t           slot_mask, pair_mask;
    char            *strings;
    size_t           strings_len;
    int32_t          max_id;
};

/* Scratch for one word at a time and a cache of words; one a thread. */
struct bpe_scratch;

struct bpe_scratch *bpe_scratch_new(void); /* NULL: RC_OS */
void                bpe_scratch_free(struct bpe_scratch *s);

/* model: the "model" object. byte_level: the pre-tokenizer maps bytes to letters. RC_DATA without the file's name. */
int     bpe_open(struct bpe *b, const json_t *model, bool byte_level);
void    bpe_close(struct bpe *b);
int32_t bpe_find(const struct bpe *b, const char *s, size_t len); /* -1: absent */
int     bpe_word(const struct bpe *b, struct bpe_scratch *s, const char *word, size_t len, struct tok_ids *out);
int     bpe_letter(int byte); /* the code point that stands for it in byte-level text */
int     bpe_add_ids(struct tok_ids *ids, const int32_t *id, size_t n);

#endif
