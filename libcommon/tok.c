/* tok - tokenizer.json of Hugging Face tokenizers: BPE */
#include "tok.h"

#include "file.h"
#include "mem.h"
#include "member.h"
#include "msg.h"
#include "tok_bpe.h"
#include "tok_regex.h"
#include "tok_split.h"
#include "utf8.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SPECIALS_MAX = 16 };

/* A token that is cut out of the text before anything else. */
struct added {
    char   *name;    /* as the file has it */
    char   *content; /* as it is searched for: normalised if `normalized` */
    size_t  len;
    int32_t id;
    bool    normalized, lstrip, rstrip, single_word;
};

struct scratch {
    struct scratch     *next;
    struct bpe_scratch *bpe;
    struct pieces       pieces;
};

struct tok {
    struct bpe      bpe;
    struct splitter split;
    struct added   *added; /* by normalized and first byte, then longest first */
    size_t          added_count;
    size_t          first[2 * 256 + 1]; /* where those of normalized * 256 + first byte start in added */
    int32_t         before[SPECIALS_MAX], after[SPECIALS_MAX]; /* what the post-processor adds */
    int             before_count, after_count;
    int32_t         max_id;
    json_t         *vocab;
    pthread_mutex_t lock;
    struct scratch *idle;
};

/* --- reading --- */

static size_t
added_group(const struct added *a)
{
    return (a->normalized ? 256U : 0U) + (unsigned char)a->content[0];
}

static int
by_group(const void *a, const void *b)
{
    const struct added *x = a, *y = b;
    size_t g = added_group(x), h = added_group(y);

    if (g != h)
        return g < h ? -1 : 1;
    if (x->len != y->len)
        return x->len > y->len ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int32_t
vocab_id(const struct tok *t, const char *token)
{
    const json_t *id = json_object_get(t->vocab, token);

    return json_is_integer(id) ? (int32_t)json_integer_value(id) : -1;
}

/* The library numbers tokens that are not in the vocabulary itself, from its size on, whatever the file says. seen:
 * index by name; a token that the file has twice keeps its id and takes the later flags. */
static int
read_added(struct tok *t, const json_t *obj, json_t *seen, int32_t *next_id)
{
    struct added *a = &t->added[t->added_count];
    const json_t *index;
    const char *name;
    int64_t id;
    bool special;

    TRY(jget_str(obj, "content", "", &name));
    TRY(jget_int(obj, "id", -1, 0, 1 << 24, &id));
    if (*name == '\0')
        return RC_OK;
    if ((index = json_object_get(seen, name)) != NULL) {
        a = &t->added[json_integer_value(index)];
    } else {
        if (json_object_set_new(seen, name, json_integer((json_int_t)t->added_count)) != 0)
            return err_set(RC_OS, "out of memory");
        if ((a->name = mem_strdup(name)) == NULL)
            return RC_OS;
        t->added_count++;
        if ((a->id = vocab_id(t, name)) < 0)
            a->id = (*next_id)++;
        t->max_id = a->id > t->max_id ? a->id : t->max_id;
    }
    TRY(jget_bool(obj, "special", false, &special));
    TRY(jget_bool(obj, "normalized", !special, &a->normalized));
    TRY(jget_bool(obj, "lstrip", false, &a->lstrip));
    TRY(jget_bool(obj, "rstrip", false, &a->rstrip));
    return jget_bool(obj, "single_word", false, &a->single_word);
}

static int
set_content(struct added *a, const struct splitter *split)
{
    struct pieces p = { 0 };
    int rc;

    if (!a->normalized)
        rc = pieces_set(&p, a->name, strlen(a->name), true);
    else
        rc = split_normalise(split, a->name, strlen(a->name), true, &p);
    if (rc == RC_OK && p.text.len == 0)
        rc = err_set(RC_DATA, "added token \"%s\" is normalised to nothing", a->name);
    if (rc == RC_OK && (a->content = mem_strdup(p.text.s)) == NULL)
        rc = RC_OS;
    pieces_free(&p);
    a->len = rc == RC_OK ? strlen(a->content) : 0;
    return rc;
}

static int
read_added_list(struct tok *t, const json_t *list)
{
    int32_t next_id = (int32_t)json_object_size(t->vocab);
    json_t *seen = json_object();
    const json_t *v;
    size_t i;
    int rc = seen != NULL ? RC_OK : err_set(RC_OS, "out of memory");

    if ((t->added = mem_zalloc(json_array_size(list) + 1, sizeof(*t->added))) == NULL)
        rc = RC_OS;
    json_array_foreach(list, i, v)
    {
        if (rc == RC_OK)
            rc = read_added(t, v, seen, &next_id);
    }
    for (i = 0; i < t->added_count && rc == RC_OK; i++)
        rc = set_content(&t->added[i], &t->split);
    json_decref(seen);
    TRY(rc);
    qsort(t->added, t->added_count, sizeof(*t->added), by_group);
    for (size_t g = 0, k = 0; g <= 512; t->first[g++] = k)
        while (k < t->added_count && added_group(&t->added[k]) < g)
            k++;
    return RC_OK;
}

/* Ids of one item of a template that is a special token. */
static int
template_token(const json_t *post, const json_t *item, int32_t *list, int *count)
{
    const char *name = json_string_value(json_object_get(json_object_get(item, "SpecialToken"), "id"));
    const json_t *token = json_object_get(json_object_get(post, "special_tokens"), name != NULL ? name : "");
    const json_t *ids = json_object_get(token, "ids");

    if (json_array_size(ids) == 0)
        return err_set(RC_DATA, "post_processor names a token without ids");
    for (size_t i = 0; i < json_array_size(ids); i++) {
        if (*count == SPECIALS_MAX || !json_is_integer(json_array_get(ids, i)))
            return err_set(RC_DATA, "post_processor has unusable ids");
        list[(*count)++] = (int32_t)json_integer_value(json_array_get(ids, i));
    }
    return RC_OK;
}

static int
read_post(struct tok *t, const json_t *post)
{
    const json_t *list;
    const char *type;
    bool after = false;

    if (post == NULL || json_is_null(post))
        return RC_OK;
    TRY(jget_str(post, "type", "", &type));
    if (strcmp(type, "ByteLevel") == 0)
        return RC_OK;
    if (strcmp(type, "Sequence") == 0) {
        list = json_object_get(post, "processors");
        for (size_t i = 0; i < json_array_size(list); i++) {
            if (json_object_get(json_array_get(list, i), "processors") != NULL)
                return err_set(RC_DATA, "post_processor nests sequences");
            TRY(read_post(t, json_array_get(list, i)));
        }
        return RC_OK;
    }
    if (strcmp(type, "TemplateProcessing") != 0)
        return err_set(RC_DATA, "post_processor \"%s\" is not supported", type);
    if (t->before_count + t->after_count > 0)
        return err_set(RC_DATA, "post_processor with two templates is not supported");
    list = json_object_get(post, "single");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i), *sequence = json_object_get(item, "Sequence");
        const char *id = json_string_value(json_object_get(sequence, "id"));

        if (sequence == NULL)
            TRY(template_token(post, item, after ? t->after : t->before, after ? &t->after_count : &t->before_count));
        else if (after || id == NULL || strcmp(id, "A") != 0)
            return err_set(RC_DATA, "post_processor with this template is not supported: want \"$A\" once");
        else
            after = true;
    }
    return after ? RC_OK : err_set(RC_DATA, "post_processor with a template without \"$A\" is not supported");
}

static int
read_all(struct tok *t, const json_t *root)
{
    const json_t *model = json_object_get(root, "model");

    if (!json_is_object(model))
        return err_set(RC_DATA, "no \"model\"");
    TRY(split_open(&t->split, json_object_get(root, "normalizer"), json_object_get(root, "pre_tokenizer")));
    TRY(bpe_open(&t->bpe, model, t->split.byte_level));
    t->vocab = json_incref(json_object_get(model, "vocab"));
    t->max_id = t->bpe.max_id;
    TRY(read_added_list(t, json_object_get(root, "added_tokens")));
    return read_post(t, json_object_get(root, "post_processor"));
}

int
tok_open(struct tok **out, const char *path)
{
    struct tok *t = mem_zalloc(1, sizeof(*t));
    json_t *root = NULL;
    int rc;

    *out = NULL;
    if (t == NULL)
        return RC_OS;
    (void)pthread_mutex_init(&t->lock, NULL);
    if ((rc = jread_file(&root, path)) == RC_OK && (rc = read_all(t, root)) != RC_OK)
        rc = err_at(rc, "%s", path);
    json_decref(root);
    if (rc != RC_OK)
        tok_close(t);
    else
        *out = t;
    return rc;
}

/* What a config says of "add_KIND_token" and "KIND_token". */
static int
config_token(struct tok *t, const json_t *config, const char *kind, int32_t *list, int *count)
{
    char key[32];
    const json_t *token;
    bool add;

    (void)snprintf(key, sizeof(key), "add_%s_token", kind);
    TRY(jget_bool(config, key, false, &add));
    (void)snprintf(key, sizeof(key), "%s_token", kind);
    token = json_object_get(config, key);
    if (json_is_object(token))
        token = json_object_get(token, "content");
    *count = 0;
    if (!add || token == NULL || json_is_null(token))
        return RC_OK;
    list[0] = json_is_string(token) ? tok_id(t, json_string_value(token)) : -1;
    *count = 1;
    return list[0] >= 0 ? RC_OK : err_set(RC_DATA, "\"%s\" is not in the vocabulary", key);
}

static int
apply_config(struct tok *t, const char *path)
{
    json_t *config = NULL;
    int rc = jread_file(&config, path);

    if (rc == RC_OK && (json_object_get(config, "add_bos_token") != NULL ||
        json_object_get(config, "add_eos_token") != NULL) &&
        ((rc = config_token(t, config, "bos", t->before, &t->before_count)) != RC_OK ||
        (rc = config_token(t, config, "eos", t->after, &t->after_count)) != RC_OK))
        rc = err_at(rc, "%s", path);
    json_decref(config);
    return rc == RC_NOINPUT ? RC_OK : rc;
}

/* SentencePiece's own file needs a conversion, which transformers does when it saves a tokenizer. */
static int
tell_other_format(const char *dir)
{
    char *path = file_join(dir, "tokenizer.model");

    if (path == NULL)
        return RC_OS;
    if (member_exists(path))
        (void)err_set(RC_NOINPUT, "%s: has tokenizer.model, but no tokenizer.json, which transformers makes of it",
            dir);
    mem_free(path);
    return RC_NOINPUT;
}

int
tok_open_model(struct tok **out, const char *dir)
{
    char *path = file_join(dir, "tokenizer.json"), *config = file_join(dir, "tokenizer_config.json");
    int rc = RC_OS;

    *out = NULL;
    if (path != NULL && config != NULL && (rc = tok_open(out, path)) == RC_OK &&
        (rc = apply_config(*out, config)) != RC_OK) {
        tok_close(*out);
        *out = NULL;
    }
    if (rc == RC_NOINPUT)
        rc = tell_other_format(dir);
    mem_free(path);
    mem_free(config);
    return rc;
}

void
tok_close(struct tok *t)
{
    if (t == NULL)
        return;
    while (t->idle != NULL) {
        struct scratch *s = t->idle;

        t->idle = s->next;
        bpe_scratch_free(s->bpe);
        pieces_free(&s->pieces);
        mem_free(s);
    }
    for (size_t i = 0; i < t->added_count; i++) {
        mem_free(t->added[i].name);
        mem_free(t->added[i].content);
    }
    mem_free(t->added);
    bpe_close(&t->bpe);
    split_close(&t->split);
    json_decref(t->vocab);
    (void)pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

void
tok_ids_free(struct tok_ids *ids)
{
    mem_free(ids->v);
    *ids = (struct tok_ids){ 0 };
}

int
tok_vocab(const struct tok *t)
{
    return t->max_id + 1;
}

int
tok_id(const struct tok *t, const char *token)
{
    for (size_t i = 0; i < t->added_count; i++)
        if (strcmp(t->added[i].name, token) == 0)
            return t->added[i].id;
    return vocab_id(t, token);
}

/* --- encoding --- */

static struct scratch *
scratch_take(struct tok *t)
{
    struct scratch *s;

    (void)pthread_mutex_lock(&t->lock);
    if ((s = t->idle) != NULL)
        t->idle = s->next;
    (void)pthread_mutex_unlock(&t->lock);
    if (s != NULL)
        return s;
    if ((s = mem_zalloc(1, sizeof(*s))) != NULL && (s->bpe = bpe_scratch_new()) == NULL) {
        mem_free(s);
        return NULL;
    }
    return s;
}

static void
scratch_return(struct tok *t, struct scratch *s)
{
    (void)pthread_mutex_lock(&t->lock);
    s->next = t->idle;
    t->idle = s;
    (void)pthread_mutex_unlock(&t->lock);
}

static bool
is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
        c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static uint32_t
char_before(const char *s, size_t at, size_t *start)
{
    uint32_t c;

    do
        at--;
    while (at > 0 && ((unsigned char)s[at] & 0xc0) == 0x80);
    (void)utf8_decode(s + at, 4, &c);
    *start = at;
    return c;
}

struct cut {
    size_t start, end; /* of the stretch that the token takes, stripped spaces included */
    int32_t id;
};

static const struct added *
added_at(const struct tok *t, bool normalized, const char *s, size_t left)
{
    const size_t *range = &t->first[(normalized ? 256U : 0U) + (unsigned char)*s];

    for (size_t i = range[0]; i < range[1]; i++)
        if (t->added[i].len <= left && memcmp(t->added[i].content, s, t->added[i].len) == 0)
            return &t->added[i];
    return NULL;
}

static bool
stands_alone(const char *s, size_t start, size_t end, size_t len)
{
    size_t at;
    uint32_t c;

    if (start > 0 && regex_is_word(char_before(s, start, &at)))
        return false;
    if (end == len)
        return true;
    (void)utf8_decode(s + end, len - end, &c);
    return !regex_is_word(c);
}

/* The next added token at or after `from`; false: none. `floor` is where unclaimed text starts. */
static bool
next_added(const struct tok *t, bool normalized, const char *s, size_t len, size_t *from, size_t floor, struct cut *cut)
{
    for (size_t i = *from; i < len; i++) {
        const struct added *a = added_at(t, normalized, s + i, len - i);
        size_t at;
        uint32_t c;

        if (a == NULL)
            continue;
        *from = i + a->len;
        if (a->single_word && !stands_alone(s, i, i + a->len, len)) {
            i += a->len - 1;
            continue;
        }
        *cut = (struct cut){ a->lstrip && i < floor ? floor : i, i + a->len, a->id };
        while (a->lstrip && cut->start > floor && is_space(char_before(s, cut->start, &at)))
            cut->start = at;
        while (a->rstrip && cut->end < len) {
            size_t n = utf8_decode(s + cut->end, len - cut->end, &c);

            if (!is_space(c))
                break;
            cut->end += n;
        }
        return true;
    }
    return false;
}

static int
encode_words(const struct tok *t, struct scratch *s, struct tok_ids *ids)
{
    TRY(split_words(&t->split, &s->pieces));
    for (size_t i = 0; i < s->pieces.count; i++)
        TRY(bpe_word(&t->bpe, s->bpe, s->pieces.text.s + s->pieces.v[i].at, s->pieces.v[i].len, ids));
    return RC_OK;
}

/* A token of spaces that the token before has stripped is nothing any more. */
static int
add_cut(struct tok_ids *ids, const struct cut *cut)
{
    return cut->start < cut->end ? bpe_add_ids(ids, &cut->id, 1) : RC_OK;
}

/* Normalised text between added tokens that are searched for in raw text: cut out the others, then words. */
static int
encode_stretch(const struct tok *t, struct scratch *s, const char *text, size_t len, bool first, struct tok_ids *ids)
{
    size_t from = 0, floor = 0;
    struct buf whole = { 0 };
    struct cut cut;
    int rc;

    if (len == 0)
        return RC_OK;
    TRY(split_normalise(&t->split, text, len, first, &s->pieces));
    if (!next_added(t, true, s->pieces.text.s, s->pieces.text.len, &from, 0, &cut))
        return encode_words(t, s, ids);
    buf_add(&whole, s->pieces.text.s, s->pieces.text.len);
    rc = buf_ok(&whole) ? RC_OK : RC_OS;
    from = 0;
    while (rc == RC_OK) {
        bool more = next_added(t, true, whole.s, whole.len, &from, floor, &cut);
        size_t end = more ? cut.start : whole.len;

        if (end > floor) {
            rc = pieces_set(&s->pieces, whole.s + floor, end - floor, first && floor == 0);
            if (rc == RC_OK)
                rc = encode_words(t, s, ids);
        }
        if (!more)
            break;
        if (rc == RC_OK)
            rc = add_cut(ids, &cut);
        floor = cut.end; /* the search goes on in spaces that the token took */
    }
    buf_free(&whole);
    return rc;
}

static int
encode(const struct tok *t, struct scratch *s, const char *text, size_t len, struct tok_ids *ids)
{
    size_t from = 0, floor = 0;
    struct cut cut;

    while (next_added(t, false, text, len, &from, floor, &cut)) {
        if (cut.start > floor)
            TRY(encode_stretch(t, s, text + floor, cut.start - floor, floor == 0, ids));
        TRY(add_cut(ids, &cut));
        floor = cut.end; /* the search goes on in spaces that the token took */
    }
    return encode_stretch(t, s, text + floor, len - floor, floor == 0, ids);
}

/* The matcher walks over UTF-8 without looking. */
static int
check_utf8(const char *text, size_t len)
{
    for (size_t i = 0, n; i < len; i += n)
        if ((n = jutf8(text + i, len - i)) == 0)
            return err_set(RC_DATA, "text is not UTF-8 at byte %zu", i);
    return RC_OK;
}

/* ids from `from` on are what was added, the text's own [text, end), and what was added: the latter goes where the text
 * has it itself. */
static void
drop_doubled(struct tok_ids *ids, size_t from, size_t text, size_t end, const struct tok *t)
{
    size_t before = (size_t)t->before_count, after = (size_t)t->after_count;

    if (after > 0 && end - text >= after && memcmp(ids->v + end - after, t->after, after * sizeof(*ids->v)) == 0)
        ids->count -= after;
    if (before > 0 && end - text >= before && memcmp(ids->v + text, t->before, before * sizeof(*ids->v)) == 0) {
        memmove(ids->v + from, ids->v + text, (ids->count - text) * sizeof(*ids->v));
        ids->count -= before;
    }
}

int
tok_encode(const struct tok *tok, const char *text, size_t len, enum tok_special special, struct tok_ids *ids)
{
    struct tok *t = (struct tok *)(uintptr_t)tok; /* scratch is not part of its value */
    size_t from = ids->count, start, end;
    struct scratch *s;
    int rc = RC_OK;

    TRY(check_utf8(text, len));
    if ((s = scratch_take(t)) == NULL)
        return RC_OS;
    if (special != TOK_BARE)
        rc = bpe_add_ids(ids, t->before, (size_t)t->before_count);
    start = ids->count;
    if (rc == RC_OK)
        rc = encode(t, s, text, len, ids);
    end = ids->count;
    if (rc == RC_OK && special != TOK_BARE)
        rc = bpe_add_ids(ids, t->after, (size_t)t->after_count);
    if (rc == RC_OK && special == TOK_SPECIAL_ONCE)
        drop_doubled(ids, from, start, end, t);
    scratch_return(t, s);
    return rc;
}
