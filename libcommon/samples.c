/* samples - calibration samples as token ids, gathered into blocks */
#include "samples.h"

#include "file.h"
#include "mem.h"
#include "msg.h"
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
    struct tok              *tok; /* opened for the first sample that is text */
    struct tok_ids           ids;
    const struct shard_opts *o;
    const char              *model_dir;
    int                      vocab;
};

static int
tokenise(struct source *src, const struct text_sample *in)
{
    char *path;
    int rc = RC_OK;

    if (src->tok == NULL) {
        if ((path = file_join(src->model_dir, "tokenizer.json")) == NULL)
            return RC_OS;
        rc = tok_open(&src->tok, path);
        mem_free(path);
    }
    src->ids.count = 0;
    return rc != RC_OK ? rc : tok_encode(src->tok, in->text, in->len, true, &src->ids);
}

static int
take(struct samples *s, struct source *src, const struct text_sample *in)
{
    const int32_t *ids = in->ids;
    size_t n = in->count, length = (size_t)src->o->length;
    bool stream = !in->has_ids && !text_is_lines(src->text);

    if (!in->has_ids) {
        TRY(tokenise(src, in));
        ids = src->ids.v;
        n = src->ids.count;
    }
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= src->vocab)
            return err_set(RC_DATA, "%s: line %d: token id %d is outside the vocabulary of %d", src->o->data, in->line,
                (int)ids[i], src->vocab);
    if (!stream)
        return n == 0 ? RC_OK : add_sample(s, ids, n < length ? n : length);
    for (size_t at = 0; at + length <= n && s->samples < src->o->samples; at += length)
        TRY(add_sample(s, ids + at, length));
    return RC_OK;
}

int
samples_read(struct samples *s, const char *model_dir, const struct shard_opts *o, int vocab)
{
    struct source src = { .o = o, .model_dir = model_dir, .vocab = vocab };
    struct text_sample in;
    int rc;

    TRY(text_open(&src.text, o->data));
    while (s->samples < o->samples && (rc = text_next(src.text, &in)) == RC_OK)
        if ((rc = take(s, &src, &in)) != RC_OK)
            break;
    if (rc == RC_RETRY)
        rc = RC_OK;
    if (rc == RC_OK && s->samples == 0)
        rc = err_set(RC_DATA, "%s: no samples", o->data);
    tok_ids_free(&src.ids);
    tok_close(src.tok);
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
