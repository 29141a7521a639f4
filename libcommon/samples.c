/* samples - calibration samples as token ids, gathered into blocks */
#include "samples.h"

#include "buf.h"
#include "chat.h"
#include "mem.h"
#include "msg.h"
#include "stop.h"
#include "text.h"
#include "tok.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static int
add_sample(struct samples *s, const int32_t *ids, size_t n)
{
    int32_t *v = mem_grow(s->ids, &s->cap, s->count + n, sizeof(*v));
    int *l;

    if (v == NULL)
        return RC_OS;
    s->ids = v;
    if ((l = mem_grow(s->length, &s->length_cap, (size_t)s->samples + 1, sizeof(*l))) == NULL)
        return RC_OS;
    s->length = l;
    memcpy(v + s->count, ids, n * sizeof(*ids));
    s->count += n;
    l[s->samples++] = (int)n;
    return RC_OK;
}

struct source {
    struct text             *text;
    struct tok              *tok;  /* opened for the first sample that is text */
    struct chat             *chat; /* for the first conversation */
    struct buf               rendered;
    struct tok_ids           ids;
    struct tok_ids           pending; /* of a stream, less than a sample */
    int                      stream;  /* where pending is from */
    const struct shard_opts *o;
    const char              *model_dir;
    int                      vocab;
    int64_t                  shorter, dropped; /* rows, tokens */
};

/* A conversation becomes text that has all its special tokens. */
static int
render(struct source *src, struct text_sample *in)
{
    if (src->chat == NULL)
        TRY(chat_open(&src->chat, src->model_dir, src->o->chat));
    src->rendered.len = 0;
    buf_puts(&src->rendered, "");
    if (chat_render(src->chat, in->messages, &src->rendered) != RC_OK)
        return err_at(RC_DATA, "%s: line %d", text_name(src->text), in->line);
    in->text = src->rendered.s;
    in->len = src->rendered.len;
    return RC_OK;
}

static int
tokenise(struct source *src, const struct text_sample *in)
{
    enum tok_special special = in->kind == TEXT_CHAT ? TOK_BARE : src->o->special;

    if (src->tok == NULL)
        TRY(tok_open_model(&src->tok, src->model_dir));
    src->ids.count = 0;
    return tok_encode(src->tok, in->text, in->len, special, &src->ids);
}

static int
add_pending(struct source *src, const int32_t *ids, size_t n)
{
    int32_t *v = mem_grow(src->pending.v, &src->pending.cap, src->pending.count + n, sizeof(*v));

    if (v == NULL)
        return RC_OS;
    src->pending.v = v;
    if (n > 0)
        memcpy(v + src->pending.count, ids, n * sizeof(*ids));
    src->pending.count += n;
    return RC_OK;
}

/* Whole samples out of what is pending. */
static int
cut_pending(struct samples *s, struct source *src)
{
    size_t length = (size_t)src->o->length, at = 0;

    for (; src->pending.count - at >= length && s->samples < src->o->samples; at += length)
        TRY(add_sample(s, src->pending.v + at, length));
    src->pending.count -= at;
    if (at > 0)
        memmove(src->pending.v, src->pending.v + at, src->pending.count * sizeof(*src->pending.v));
    return RC_OK;
}

static int
take(struct samples *s, struct source *src, struct text_sample *in)
{
    const int32_t *ids = in->ids;
    size_t n = in->count, length = (size_t)src->o->length, min = (size_t)src->o->min_length;

    if (in->kind == TEXT_CHAT)
        TRY(render(src, in));
    if (in->kind != TEXT_IDS) {
        TRY(tokenise(src, in));
        ids = src->ids.v;
        n = src->ids.count;
    }
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= src->vocab)
            return err_set(RC_DATA, "%s: line %d: token id %d is outside the vocabulary of %d", text_name(src->text),
                in->line, (int)ids[i], src->vocab);
    if (!in->stream && n < min) {
        src->shorter++;
        return RC_OK;
    }
    if (!in->stream && !src->o->pack)
        return add_sample(s, ids, n < length ? n : length);
    if (!src->o->pack && src->stream != in->source) {
        src->dropped += (int64_t)src->pending.count;
        src->pending.count = 0;
    }
    src->stream = in->source;
    TRY(add_pending(src, ids, n));
    return cut_pending(s, src);
}

/* What the options left out, which nobody would see otherwise. */
static int
tell(const struct samples *s, struct source *src)
{
    const struct shard_opts *o = src->o;

    src->dropped += (int64_t)src->pending.count;
    if (s->samples == 0 && src->dropped > 0)
        return err_set(RC_DATA, "%s: no samples: %lld tokens are less than the %d of a sample", o->data,
            (long long)src->dropped, o->length);
    if (s->samples == 0)
        return err_set(RC_DATA, "%s: no samples", o->data);
    if (src->shorter > 0 && o->min_length > 1)
        msg_info(o->data, "%lld samples of less than %d tokens left out", (long long)src->shorter, o->min_length);
    return RC_OK;
}

int
samples_read(struct samples *s, const char *model_dir, const struct shard_opts *o, int vocab)
{
    struct source src = { .o = o, .model_dir = model_dir, .vocab = vocab };
    const struct text_opts text = { .columns = o->columns, .keep_padding = o->count_padding };
    struct text_sample in;
    int rc;

    TRY(text_open(&src.text, o->data, &text));
    rc = RC_OK;
    while (s->samples < o->samples && (rc = text_next(src.text, &in)) == RC_OK)
        if ((rc = take(s, &src, &in)) != RC_OK || stop_asked())
            break;
    if (rc == RC_RETRY || rc == RC_OK)
        rc = stop_asked() ? stop_check() : tell(s, &src);
    tok_ids_free(&src.ids);
    tok_ids_free(&src.pending);
    buf_free(&src.rendered);
    tok_close(src.tok);
    chat_close(src.chat);
    text_close(src.text);
    return rc;
}

int
samples_blocks(const struct samples *s, int block_tokens, struct plan *p)
{
    const int32_t *ids = s->ids;
    struct digest d;
    int rc = RC_OK;

    if ((p->blocks = mem_zalloc((size_t)s->samples, sizeof(*p->blocks))) == NULL)
        return RC_OS;
    digest_init(&d);
    for (int i = 0; i < s->samples && rc == RC_OK;) {
        struct block *b = &p->blocks[p->block_count++];

        do {
            b->tokens += s->length[i];
            b->samples++;
            digest_add(&d, &s->length[i], sizeof(s->length[i]));
            i++;
        } while (i < s->samples && b->tokens + s->length[i] <= block_tokens);
        rc = digest_mem(ids, (size_t)b->tokens * sizeof(*ids), b->digest);
        digest_str(&d, b->digest);
        ids += b->tokens;
        p->tokens += b->tokens;
        p->samples += b->samples;
    }
    if (rc != RC_OK) {
        digest_free(&d);
        return rc;
    }
    return digest_hex(&d, p->data_fingerprint);
}

int
samples_write(const struct samples *s, const struct plan *p)
{
    const int32_t *ids = s->ids;
    const int *length = s->length;
    char path[PATH_MAX];

    for (int i = 0; i < p->block_count; i++) {
        const struct block *b = &p->blocks[i];
        struct tensor t[2] = { tensor_1d("input_ids", DT_I32, b->tokens, ids),
            tensor_1d("lengths", DT_I32, b->samples, length) };

        TRY(stop_check());
        TRY(plan_path(p, path, "tokens/%d.safetensors", i));
        TRY(st_publish(path, t, 2, NULL, 0));
        ids += b->tokens;
        length += b->samples;
    }
    return RC_OK;
}

void
samples_free(struct samples *s)
{
    mem_free(s->ids);
    mem_free(s->length);
    *s = (struct samples){ 0 };
}
