/* text - samples from a data file */
#include "text.h"

#include "archive.h"
#include "buf.h"
#include "json.h"
#include "mem.h"

#include <string.h>

enum { CHUNK_BYTES = 1 << 16, LINE_MAX_BYTES = 1 << 28 };

struct text {
    struct archive_in *in;
    char              *path;
    struct buf         data;  /* read and not yet taken from `at` on */
    size_t             at;
    bool               end, lines, taken;
    int                line;
    json_t            *json;  /* of the current sample */
    int32_t           *ids;
    size_t             ids_cap;
    struct buf         clean; /* a plain text, repaired */
};

static int
more(struct text *t)
{
    char chunk[CHUNK_BYTES];
    size_t got;
    int rc = archive_in_read(t->in, chunk, sizeof(chunk), &got);

    if (rc != RC_OK)
        return rc;
    if (t->at > 0 && t->at * 2 > t->data.len) { /* what is left moves to the front */
        memmove(t->data.s, t->data.s + t->at, t->data.len - t->at);
        t->data.len -= t->at;
        t->at = 0;
    }
    t->end = got == 0;
    if (got > 0)
        buf_add(&t->data, chunk, got);
    if (t->data.len - t->at > LINE_MAX_BYTES)
        return err_set(RC_DATA, "%s: line %d: longer than %d bytes", t->path, t->line + 1, LINE_MAX_BYTES);
    return buf_ok(&t->data) ? RC_OK : RC_OS;
}

static bool
is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

int
text_open(struct text **out, const char *path)
{
    struct text *t = mem_zalloc(1, sizeof(*t));
    size_t i = 0;
    int rc = RC_OS;

    *out = NULL;
    if (t == NULL || (t->path = mem_strdup(path)) == NULL)
        goto fail;
    if ((rc = archive_in_open(&t->in, path)) != RC_OK)
        goto fail;
    do {
        if ((rc = more(t)) != RC_OK)
            goto fail;
        while (i < t->data.len && is_space(t->data.s[i]))
            i++;
    } while (i == t->data.len && !t->end);
    if (t->data.len > 3 && memcmp(t->data.s, "\xef\xbb\xbf{", 4) == 0)
        t->at = i = 3; /* a byte order mark, which is no JSON */
    t->lines = i < t->data.len && t->data.s[i] == '{';
    *out = t;
    return RC_OK;
fail:
    text_close(t);
    return rc;
}

bool
text_is_lines(const struct text *t)
{
    return t->lines;
}

void
text_close(struct text *t)
{
    if (t == NULL)
        return;
    archive_in_close(t->in);
    json_decref(t->json);
    buf_free(&t->data);
    buf_free(&t->clean);
    mem_free(t->ids);
    mem_free(t->path);
    mem_free(t);
}

/* --- plain text --- */

/* Length of the valid sequence at s, or minus the length of its longest valid prefix (at least 1): Unicode's table of
 * well-formed sequences, and its recommended practice for replacement. */
static int
utf8_at(const unsigned char *s, size_t left)
{
    unsigned char lo = 0x80, hi = 0xbf;
    int need = s[0] < 0x80 ? 0 : s[0] < 0xc2 ? -1 : s[0] < 0xe0 ? 1 : s[0] < 0xf0 ? 2 : s[0] < 0xf5 ? 3 : -1;

    if (need < 0)
        return -1;
    if (s[0] == 0xe0)
        lo = 0xa0;
    else if (s[0] == 0xed)
        hi = 0x9f;
    else if (s[0] == 0xf0)
        lo = 0x90;
    else if (s[0] == 0xf4)
        hi = 0x8f;
    for (int i = 1; i <= need; i++) {
        if ((size_t)i >= left || s[i] < lo || s[i] > hi)
            return -i;
        lo = 0x80;
        hi = 0xbf;
    }
    return need + 1;
}

static void
repair(struct buf *out, const char *s, size_t len)
{
    size_t start = 0, i = 0;

    while (i < len) {
        int n = utf8_at((const unsigned char *)s + i, len - i);

        if (n > 0) {
            i += (size_t)n;
            continue;
        }
        buf_add(out, s + start, i - start);
        buf_add(out, "\xef\xbf\xbd", 3);
        i += (size_t)-n;
        start = i;
    }
    buf_add(out, s + start, len - start);
}

static int
next_whole(struct text *t, struct text_sample *s)
{
    int rc;

    if (t->taken)
        return RC_RETRY;
    t->taken = true;
    while (!t->end)
        if ((rc = more(t)) != RC_OK)
            return rc;
    if (t->data.len == 0)
        return RC_RETRY;
    repair(&t->clean, t->data.s, t->data.len);
    if (!buf_ok(&t->clean))
        return RC_OS;
    *s = (struct text_sample){ .text = t->clean.s, .len = t->clean.len, .line = 1 };
    return RC_OK;
}

/* --- JSON lines --- */

/* The next line that is not blank; RC_RETRY at the end. */
static int
next_line(struct text *t, const char **line, size_t *len)
{
    size_t seen = 0;
    int rc;

    for (;;) {
        const char *s = t->data.s + t->at, *nl = NULL;
        size_t left = t->data.len - t->at, i = 0;

        if (left > seen)
            nl = memchr(s + seen, '\n', left - seen);
        if (nl == NULL && !t->end) {
            seen = left;
            if ((rc = more(t)) != RC_OK)
                return rc;
            continue;
        }
        if (left == 0)
            return RC_RETRY;
        *line = s;
        *len = nl != NULL ? (size_t)(nl - s) : left;
        t->at += *len + (nl != NULL);
        t->line++;
        seen = 0;
        while (i < *len && is_space(s[i]))
            i++;
        if (i < *len)
            return RC_OK;
    }
}

static int
take_ids(struct text *t, const json_t *list, struct text_sample *s)
{
    size_t n = json_array_size(list);
    int32_t *ids;

    if (!json_is_array(list))
        return err_set(RC_DATA, "%s: line %d: \"input_ids\" is not a list", t->path, t->line);
    if ((ids = mem_grow(t->ids, &t->ids_cap, n + 1, sizeof(*ids))) == NULL)
        return RC_OS;
    t->ids = ids;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);

        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
            return err_set(RC_DATA, "%s: line %d: \"input_ids\" item %zu is not a token id", t->path, t->line, i);
        ids[i] = (int32_t)json_integer_value(v);
    }
    s->ids = ids;
    s->count = n;
    s->has_ids = true;
    return RC_OK;
}

int
text_next(struct text *t, struct text_sample *s)
{
    const json_t *ids, *text;
    char subject[1024];
    const char *line = NULL;
    size_t len = 0;
    int rc;

    if (!t->lines)
        return next_whole(t, s);
    if ((rc = next_line(t, &line, &len)) != RC_OK)
        return rc;
    *s = (struct text_sample){ .line = t->line };
    json_decref(t->json);
    (void)snprintf(subject, sizeof(subject), "%s: line %d", t->path, t->line);
    if ((rc = jread_mem(&t->json, line, len, subject)) != RC_OK)
        return rc;
    ids = json_object_get(t->json, "input_ids");
    text = json_object_get(t->json, "text");
    if (ids != NULL && !json_is_null(ids))
        return take_ids(t, ids, s);
    if (!json_is_string(text))
        return err_set(RC_DATA, "%s: neither \"input_ids\" nor a string \"text\"", subject);
    s->text = json_string_value(text);
    s->len = json_string_length(text);
    return RC_OK;
}
