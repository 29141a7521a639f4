/* tok_bpe - the BPE model of a tokenizer: vocabulary, merges, one word to ids */
#include "tok_bpe.h"

#include "mem.h"
#include "utf8.h"

#include <stdio.h>
#include <string.h>

enum {
    CACHE_BITS = 15, CACHE_KEY = 24, CACHE_IDS = 6, SHORT_WORD = 32, ID_MAX = 1 << 24, TOKEN_BYTES_MAX = 4096,
    UNK_MISSING = -2 /* named, but not in the vocabulary */
};

#define MARK "\xe2\x96\x81" /* U+2581, SentencePiece's space */

static uint32_t
hash_bytes(const char *s, size_t len)
{
    uint64_t h = 0xcbf29ce484222325ULL ^ len, v;

    for (; len >= 8; s += 8, len -= 8) {
        memcpy(&v, s, 8);
        h = (h ^ v) * 0x9e3779b97f4a7c15ULL;
        h ^= h >> 29;
    }
    for (v = 0; len > 0; s++, len--)
        v = v << 8 | (unsigned char)*s;
    h = (h ^ v) * 0x9e3779b97f4a7c15ULL;
    return (uint32_t)(h >> 32);
}

static size_t
hash_pair(uint64_t key)
{
    key *= 0x9e3779b97f4a7c15ULL;
    return (size_t)(key ^ key >> 32);
}

/* A power of two with room to spare for n. */
static size_t
table_size(size_t n)
{
    size_t size = 16;

    while (size < 2 * n)
        size *= 2;
    return size;
}

/* --- byte-level letters: printable bytes stand for themselves, the others for U+0100 and up, in order --- */

int
bpe_letter(int byte)
{
    if ((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174)
        return byte;
    return 256 + (byte <= 32 ? byte : byte <= 160 ? 33 + byte - 127 : 67); /* those without, counted from 0 */
}

/* A byte-level token's letters as bytes, in place; false: it has a letter that is none. */
static bool
letters_to_bytes(const struct bpe *b, char *s, size_t *len)
{
    size_t n = 0;

    for (size_t i = 0; i < *len;) {
        uint32_t c;

        i += utf8_decode(s + i, *len - i, &c);
        if (c >= sizeof(b->byte_of) / sizeof(b->byte_of[0]) || b->byte_of[c] < 0)
            return false;
        s[n++] = (char)b->byte_of[c];
    }
    *len = n;
    return true;
}

/* --- tables --- */

static int32_t *
slot_for(struct bpe *b, const char *s, size_t len, uint32_t hash)
{
    size_t i = hash & b->slot_mask;

    while (b->slots[i].id >= 0) {
        const struct bpe_slot *p = &b->slots[i];

        if (p->hash == hash && p->len == len && memcmp(b->strings + p->at, s, len) == 0)
            return NULL;
        i = (i + 1) & b->slot_mask;
    }
    b->slots[i].hash = hash;
    b->slots[i].at = (uint32_t)(s - b->strings);
    b->slots[i].len = (uint32_t)len;
    return &b->slots[i].id;
}

int32_t
bpe_find(const struct bpe *b, const char *s, size_t len)
{
    uint32_t hash = hash_bytes(s, len);

    for (size_t i = hash & b->slot_mask; b->slots[i].id >= 0; i = (i + 1) & b->slot_mask) {
        const struct bpe_slot *p = &b->slots[i];

        if (p->hash == hash && p->len == len && memcmp(b->strings + p->at, s, len) == 0)
            return p->id;
    }
    return -1;
}

static const struct bpe_pair *
pair_find(const struct bpe *b, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;

    for (size_t i = hash_pair(key) & b->pair_mask; b->pairs[i].key != UINT64_MAX; i = (i + 1) & b->pair_mask)
        if (b->pairs[i].key == key)
            return &b->pairs[i];
    return NULL;
}

static int
read_vocab(struct bpe *b, json_t *vocab)
{
    size_t bytes = 0;
    const char *key;
    json_t *v;

    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        return err_set(RC_DATA, "model has no vocab");
    json_object_foreach(vocab, key, v)
        bytes += strlen(key);
    b->slot_mask = table_size(json_object_size(vocab)) - 1;
    b->slots = mem_alloc(b->slot_mask + 1, sizeof(*b->slots));
    b->strings = mem_alloc(bytes + 1, 1);
    if (b->slots == NULL || b->strings == NULL)
        return RC_OS;
    for (size_t i = 0; i <= b->slot_mask; i++)
        b->slots[i].id = -1;
    json_object_foreach(vocab, key, v)
    {
        size_t len = strlen(key);
        char *s = b->strings + b->strings_len;
        int32_t *id;

        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > ID_MAX)
            return err_set(RC_DATA, "vocab: id of \"%.64s\" is not a token id", key);
        memcpy(s, key, len);
        b->max_id = json_integer_value(v) > b->max_id ? (int32_t)json_integer_value(v) : b->max_id;
        if (b->byte_level && !letters_to_bytes(b, s, &len))
            continue; /* cannot arise from text; added tokens are found by their content */
        b->strings_len += len;
        if ((id = slot_for(b, s, len, hash_bytes(s, len))) != NULL)
            *id = (int32_t)json_integer_value(v);
    }
    return RC_OK;
}

static bool
starts_marked(const char *s, size_t len)
{
    return len >= 3 && memcmp(s, MARK, 3) == 0;
}

/* "a b" or ["a", "b"]: the two halves and the whole as ids. buf is for their text. */
static int
merge_halves(struct bpe *b, const json_t *m, char *buf, size_t size, int32_t id[3])
{
    const char *l = json_string_value(json_is_array(m) ? json_array_get(m, 0) : m), *r, *space = NULL;
    size_t nl, nr;

    if (json_is_array(m)) {
        r = json_array_size(m) == 2 ? json_string_value(json_array_get(m, 1)) : NULL;
    } else {
        space = l != NULL ? strchr(l, ' ') : NULL;
        r = space != NULL ? space + 1 : NULL;
    }
    if (l == NULL || r == NULL)
        return err_set(RC_DATA, "merges: an entry is no pair");
    nl = space != NULL ? (size_t)(space - l) : strlen(l);
    nr = strlen(r);
    if (nl + nr > size)
        return err_set(RC_DATA, "merges: an entry is longer than %zu bytes", size);
    memcpy(buf, l, nl);
    if (b->byte_level && !letters_to_bytes(b, buf, &nl))
        return err_set(RC_DATA, "merges: \"%.64s\" has letters that stand for no byte", l);
    memcpy(buf + nl, r, nr);
    if (b->byte_level && !letters_to_bytes(b, buf + nl, &nr))
        return err_set(RC_DATA, "merges: \"%.64s\" has letters that stand for no byte", r);
    id[0] = bpe_find(b, buf, nl);
    id[1] = bpe_find(b, buf + nl, nr);
    id[2] = bpe_find(b, buf, nl + nr);
    if (id[0] < 0 || id[1] < 0 || id[2] < 0)
        return err_set(RC_DATA, "merges: \"%.64s\" and its halves are not all in the vocab", l);
    if (starts_marked(buf + nl, nr) && !(nl >= 3 && starts_marked(buf + nl - 3, 3)))
        b->cut = false;
    return RC_OK;
}

static int
read_merges(struct bpe *b, const json_t *merges)
{
    size_t n = json_array_size(merges);
    char buf[2 * TOKEN_BYTES_MAX];

    if (!json_is_array(merges))
        return err_set(RC_DATA, "model has no merges");
    b->pair_mask = table_size(n) - 1;
    if ((b->pairs = mem_alloc(b->pair_mask + 1, sizeof(*b->pairs))) == NULL)
        return RC_OS;
    for (size_t i = 0; i <= b->pair_mask; i++)
        b->pairs[i].key = UINT64_MAX;
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(merges, i);
        int32_t id[3] = { -1, -1, -1 };
        uint64_t key;
        size_t at;

        if (json_is_string(m) && strncmp(json_string_value(m), "#version", 8) == 0)
            continue;
        TRY(merge_halves(b, m, buf, sizeof(buf), id));
        key = (uint64_t)(uint32_t)id[0] << 32 | (uint32_t)id[1];
        for (at = hash_pair(key) & b->pair_mask; b->pairs[at].key != UINT64_MAX && b->pairs[at].key != key;)
            at = (at + 1) & b->pair_mask;
        b->pairs[at] = (struct bpe_pair){ key, (int32_t)i, id[2] }; /* the last of equal pairs holds, as in a map */
    }
    return RC_OK;
}

/* Symbols of single bytes, and of the bytes that stand for an unknown character. */
static void
find_bytes(struct bpe *b)
{
    for (int i = 0; i < 256; i++) {
        char one = (char)i, hex[8];

        (void)snprintf(hex, sizeof(hex), "<0x%02X>", (unsigned)i);
        b->byte_id[i] = b->byte_level ? bpe_find(b, &one, 1) : -1;
        b->hex_id[i] = b->byte_fallback ? bpe_find(b, hex, 6) : -1;
    }
}

/* No merge joins a mark to what is before it: then each mark starts a word, and nothing else changes. */
static void
decide_cut(struct bpe *b)
{
    bool whole = b->unk >= 0; /* no character vanishes, which would bring a mark to another's side */

    for (int i = 0; i < 256 && b->unk < 0; i++)
        whole = b->hex_id[i] >= 0 && (i == 0 || whole);
    b->cut = b->cut && !b->byte_level && !b->ignore_merges && whole && bpe_find(b, MARK, 3) >= 0;
}

static int
refuse(const json_t *model)
{
    const json_t *dropout = json_object_get(model, "dropout");
    const char *prefix, *suffix, *type;

    TRY(jget_str(model, "type", "BPE", &type));
    if (strcmp(type, "BPE") != 0)
        return err_set(RC_DATA, "model \"%s\" is not supported; there is BPE", type);
    TRY(jget_str(model, "continuing_subword_prefix", "", &prefix));
    TRY(jget_str(model, "end_of_word_suffix", "", &suffix));
    if (*prefix != '\0' || *suffix != '\0')
        return err_set(RC_DATA, "subword prefixes and suffixes are not supported");
    if (json_is_number(dropout) && json_number_value(dropout) != 0)
        return err_set(RC_DATA, "dropout is not supported");
    return RC_OK;
}

int
bpe_open(struct bpe *b, const json_t *model, bool byte_level)
{
    const char *unk;
    int rc;

    *b = (struct bpe){ .byte_level = byte_level, .unk = -1, .cut = true };
    memset(b->byte_of, -1, sizeof(b->byte_of));
    for (int i = 0; i < 256; i++)
        b->byte_of[bpe_letter(i)] = (int16_t)i;
    if ((rc = refuse(model)) != RC_OK || (rc = jget_bool(model, "byte_fallback", false, &b->byte_fallback)) != RC_OK ||
        (rc = jget_bool(model, "fuse_unk", false, &b->fuse_unk)) != RC_OK ||
        (rc = jget_bool(model, "ignore_merges", false, &b->ignore_merges)) != RC_OK ||
        (rc = jget_str(model, "unk_token", NULL, &unk)) != RC_OK ||
        (rc = read_vocab(b, json_object_get(model, "vocab"))) != RC_OK ||
        (rc = read_merges(b, json_object_get(model, "merges"))) != RC_OK) {
        bpe_close(b);
        return rc;
    }
    if (unk != NULL) {
        const json_t *id = json_object_get(json_object_get(model, "vocab"), unk);

        b->unk = json_is_integer(id) ? (int32_t)json_integer_value(id) : UNK_MISSING;
    }
    find_bytes(b);
    decide_cut(b);
    return RC_OK;
}

void
bpe_close(struct bpe *b)
{
    mem_free(b->slots);
    mem_free(b->pairs);
    mem_free(b->strings);
    *b = (struct bpe){ 0 };
}

/* --- one word --- */

struct cached {
    uint8_t len, count; /* len 0: free */
    char    key[CACHE_KEY];
    int32_t ids[CACHE_IDS];
};

struct sym {
    int32_t id, prev, next; /* links: -1 at the ends */
    int32_t dead;
};

struct cand {
    int32_t rank, pos, left, right; /* ids when it was found */
};

struct bpe_scratch {
    struct cached *cache;
    struct sym    *syms;
    struct cand   *heap;
    size_t         sym_cap, heap_cap, count, heap_count;
};

struct bpe_scratch *
bpe_scratch_new(void)
{
    struct bpe_scratch *s = mem_zalloc(1, sizeof(*s));

    if (s != NULL && (s->cache = mem_zalloc((size_t)1 << CACHE_BITS, sizeof(*s->cache))) == NULL) {
        mem_free(s);
        return NULL;
    }
    return s;
}

void
bpe_scratch_free(struct bpe_scratch *s)
{
    if (s == NULL)
        return;
    mem_free(s->cache);
    mem_free(s->syms);
    mem_free(s->heap);
    mem_free(s);
}

int
bpe_add_ids(struct tok_ids *ids, const int32_t *id, size_t n)
{
    if (ids->count + n > ids->cap) {
        int32_t *v = mem_grow(ids->v, &ids->cap, ids->count + n, sizeof(*v));

        if (v == NULL)
            return RC_OS;
        ids->v = v;
    }
    for (size_t i = 0; i < n; i++)
        ids->v[ids->count + i] = id[i];
    ids->count += n;
    return RC_OK;
}

static int
add_sym(struct bpe_scratch *s, int32_t id)
{
    struct sym *v = mem_grow(s->syms, &s->sym_cap, s->count + 1, sizeof(*v));

    if (v == NULL)
        return RC_OS;
    s->syms = v;
    v[s->count] = (struct sym){ .id = id, .prev = (int32_t)s->count - 1, .next = (int32_t)s->count + 1 };
    s->count++;
    return RC_OK;
}

/* The symbols for the bytes of an unknown character, if there are all of them. */
static int
add_bytes(const struct bpe *b, struct bpe_scratch *s, const char *c, size_t n, bool *done)
{
    char letter[2];

    *done = false;
    if (!b->byte_fallback)
        return RC_OK;
    if (b->byte_level) { /* the character is then the byte's letter */
        int l = bpe_letter((unsigned char)*c);

        n = l < 0x80 ? 1 : 2;
        letter[0] = (char)(n == 1 ? l : 0xc0 | l >> 6);
        letter[1] = (char)(0x80 | (l & 0x3f));
        c = letter;
    }
    for (size_t i = 0; i < n; i++)
        if (b->hex_id[(unsigned char)c[i]] < 0)
            return RC_OK;
    for (size_t i = 0; i < n; i++)
        TRY(add_sym(s, b->hex_id[(unsigned char)c[i]]));
    *done = true;
    return RC_OK;
}

/* The word's first symbols. An unknown token waits for the next known character, so that others may join it; symbols of
 * bytes overtake it, as in the library. */
static int
split_symbols(const struct bpe *b, struct bpe_scratch *s, const char *w, size_t len)
{
    bool waiting = false, done;

    s->count = 0;
    for (size_t i = 0, n; i < len; i += n) {
        uint32_t c;
        int32_t id;

        n = b->byte_level ? 1 : utf8_decode(w + i, len - i, &c);
        id = b->byte_level ? b->byte_id[(unsigned char)w[i]] : bpe_find(b, w + i, n);
        if (id < 0) {
            TRY(add_bytes(b, s, w + i, n, &done));
            if (done || b->unk == -1)
                continue;
            if (b->unk == UNK_MISSING)
                return err_set(RC_DATA, "the tokenizer's unk_token is not in its vocab, and the text needs it");
        }
        if (waiting && (id >= 0 || !b->fuse_unk))
            TRY(add_sym(s, b->unk));
        if (id >= 0)
            TRY(add_sym(s, id));
        waiting = id < 0;
    }
    if (waiting)
        TRY(add_sym(s, b->unk));
    if (s->count > 0)
        s->syms[s->count - 1].next = -1;
    return RC_OK;
}

/* Lowest rank first, of equal ones the leftmost: quadratic, for short words. */
static void
merge_short(const struct bpe *b, struct bpe_scratch *s)
{
    for (;;) {
        const struct bpe_pair *best = NULL;
        int32_t at = -1;

        for (int32_t i = 0; i >= 0 && s->count > 0 && s->syms[i].next >= 0; i = s->syms[i].next) {
            const struct bpe_pair *p = pair_find(b, s->syms[i].id, s->syms[s->syms[i].next].id);

            if (p != NULL && (best == NULL || p->rank < best->rank)) {
                best = p;
                at = i;
            }
        }
        if (best == NULL)
            return;
        s->syms[at].id = best->id;
        s->syms[at].next = s->syms[s->syms[at].next].next;
        if (s->syms[at].next >= 0)
            s->syms[s->syms[at].next].prev = at;
    }
}

static bool
cand_less(const struct cand *a, const struct cand *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->pos < b->pos;
}

static int
heap_push(const struct bpe *b, struct bpe_scratch *s, int32_t pos)
{
    const struct bpe_pair *p;
    struct cand *h;
    size_t i;

    if (pos < 0 || s->syms[pos].next < 0 ||
        (p = pair_find(b, s->syms[pos].id, s->syms[s->syms[pos].next].id)) == NULL)
        return RC_OK;
    if ((h = mem_grow(s->heap, &s->heap_cap, s->heap_count + 1, sizeof(*h))) == NULL)
        return RC_OS;
    s->heap = h;
    i = s->heap_count++;
    h[i] = (struct cand){ p->rank, pos, s->syms[pos].id, s->syms[s->syms[pos].next].id };
    while (i > 0 && cand_less(&h[i], &h[(i - 1) / 2])) {
        struct cand t = h[i];

        h[i] = h[(i - 1) / 2];
        h[(i - 1) / 2] = t;
        i = (i - 1) / 2;
    }
    return RC_OK;
}

static struct cand
heap_pop(struct bpe_scratch *s)
{
    struct cand top = s->heap[0], *h = s->heap;
    size_t i = 0, n = --s->heap_count;

    h[0] = h[n];
    for (;;) {
        size_t k = 2 * i + 1;
        struct cand t;

        if (k >= n)
            return top;
        if (k + 1 < n && cand_less(&h[k + 1], &h[k]))
            k++;
        if (!cand_less(&h[k], &h[i]))
            return top;
        t = h[i];
        h[i] = h[k];
        h[k] = t;
        i = k;
    }
}

static int
merge_long(const struct bpe *b, struct bpe_scratch *s)
{
    s->heap_count = 0;
    for (size_t i = 0; i + 1 < s->count; i++)
        TRY(heap_push(b, s, (int32_t)i));
    while (s->heap_count > 0) {
        struct cand c = heap_pop(s);
        struct sym *l = &s->syms[c.pos], *r;

        if (l->dead || l->id != c.left || l->next < 0 || s->syms[l->next].id != c.right)
            continue; /* a neighbour has changed since */
        r = &s->syms[l->next];
        l->id = pair_find(b, c.left, c.right)->id;
        r->dead = 1;
        l->next = r->next;
        if (l->next >= 0)
            s->syms[l->next].prev = c.pos;
        TRY(heap_push(b, s, l->prev));
        TRY(heap_push(b, s, c.pos));
    }
    return RC_OK;
}

static int
merge_word(const struct bpe *b, struct bpe_scratch *s, const char *w, size_t len, struct tok_ids *out)
{
    TRY(split_symbols(b, s, w, len));
    if (s->count <= SHORT_WORD)
        merge_short(b, s);
    else
        TRY(merge_long(b, s));
    for (int32_t i = 0; s->count > 0 && i >= 0; i = s->syms[i].next)
        TRY(bpe_add_ids(out, &s->syms[i].id, 1));
    return RC_OK;
}

static int
cached_word(const struct bpe *b, struct bpe_scratch *s, const char *w, size_t len, struct tok_ids *out)
{
    struct cached *c = &s->cache[hash_bytes(w, len) >> (32 - CACHE_BITS)];
    size_t first = out->count;
    int32_t whole;

    if (c->len == len && memcmp(c->key, w, len) == 0)
        return bpe_add_ids(out, c->ids, c->count);
    if (b->ignore_merges && (whole = bpe_find(b, w, len)) >= 0)
        TRY(bpe_add_ids(out, &whole, 1));
    else
        TRY(merge_word(b, s, w, len, out));
    if (len <= CACHE_KEY && out->count - first <= CACHE_IDS) {
        c->len = (uint8_t)len;
        c->count = (uint8_t)(out->count - first);
        memcpy(c->key, w, len);
        if (c->count > 0)
            memcpy(c->ids, out->v + first, c->count * sizeof(*c->ids));
    }
    return RC_OK;
}

int
bpe_word(const struct bpe *b, struct bpe_scratch *s, const char *w, size_t len, struct tok_ids *out)
{
    size_t from = 0;

    for (size_t i = 1; b->cut && i + 3 <= len; i++)
        if (starts_marked(w + i, 3) && !(i >= 3 && starts_marked(w + i - 3, 3))) {
            TRY(cached_word(b, s, w + from, i - from, out));
            from = i;
        }
    return from < len ? cached_word(b, s, w + from, len - from, out) : RC_OK;
}
