/* text - samples from calibration data */
#include "text.h"

#include "archive.h"
#include "buf.h"
#include "mem.h"
#include "text_ids.h"

#include <errno.h>
#include <fts.h>
#include <string.h>
#include <sys/stat.h>

enum { CHUNK_BYTES = 1 << 16, LINE_MAX_BYTES = 1 << 28, FILES_MAX = 1 << 20, STREAM_TOKENS = 1 << 20 };

#define TOKEN_FILE_MAX ((size_t)1 << 32)

enum form { FORM_WHOLE, FORM_LINES, FORM_NPY, FORM_ROWS };

struct text {
    struct text_opts   o;
    char              *column[2]; /* of o.columns */
    char             **files;
    size_t             file_count, file_next, files_cap;
    struct archive_in *in;
    struct buf         data;   /* read and not yet taken from `at` on */
    size_t             at;
    bool               end;    /* data holds the rest of the file */
    enum form          form;
    bool               taken;
    int                source, line;
    json_t            *json;   /* of the current sample */
    int32_t           *ids;
    uint8_t           *mask;
    size_t             ids_cap, mask_cap;
    struct buf         clean;  /* a plain text, repaired */
    struct npy         npy;
    struct idrows      rows;
};

/* --- bytes --- */

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
    return buf_ok(&t->data) ? RC_OK : RC_OS;
}

/* Until there are so many bytes or the end. */
static int
fill(struct text *t, size_t bytes)
{
    while (t->data.len - t->at < bytes && !t->end)
        TRY(more(t));
    return RC_OK;
}

static int
read_rest(struct text *t, size_t max)
{
    TRY(fill(t, max + 1));
    return t->data.len - t->at <= max ? RC_OK : err_set(RC_DATA, "%s: longer than %zu bytes", text_name(t), max);
}

static bool
is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* --- files --- */

static int
by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int
add_file(struct text *t, const char *path)
{
    char **v = mem_grow(t->files, &t->files_cap, t->file_count + 1, sizeof(*v));

    if (v == NULL)
        return RC_OS;
    t->files = v;
    if (t->file_count == FILES_MAX)
        return err_set(RC_DATA, "%s: more than %d files", path, FILES_MAX);
    if ((v[t->file_count] = mem_strdup(path)) == NULL)
        return RC_OS;
    t->file_count++;
    return RC_OK;
}

/* All files below, but hidden ones, each directory in the order of its names. */
static int
list_files(struct text *t, char *path)
{
    char *paths[2] = { path, NULL };
    FTS *fts = fts_open(paths, FTS_LOGICAL | FTS_NOCHDIR, by_name);
    int rc = fts != NULL ? RC_OK : err_set(RC_IO, "%s: %s", path, strerror(errno));
    FTSENT *e = NULL;

    while (rc == RC_OK && (errno = 0, e = fts_read(fts)) != NULL) {
        if (e->fts_level > 0 && e->fts_name[0] == '.')
            (void)fts_set(fts, e, FTS_SKIP);
        else if (e->fts_info == FTS_F)
            rc = add_file(t, e->fts_path);
        else if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || e->fts_info == FTS_NS)
            rc = err_set(RC_IO, "%s: %s", e->fts_path, strerror(e->fts_errno));
    }
    if (rc == RC_OK && e == NULL && errno != 0)
        rc = err_set(RC_IO, "%s: %s", path, strerror(errno));
    if (fts != NULL)
        (void)fts_close(fts);
    if (rc == RC_OK && t->file_count == 0)
        rc = err_set(RC_DATA, "%s: no files", path);
    return rc;
}

/* Files of other kinds, which would pass for a text. */
static int
refuse_binary(const struct text *t)
{
    static const struct { const char *magic, *what; } known[] = { { "PAR1", "Parquet" }, { "ARROW1", "Arrow" },
        { "PK\003\004", "zip" }, { "GGUF", "GGUF" }, { "%PDF-", "PDF" } };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        size_t n = strlen(known[i].magic);

        if (t->data.len >= n && memcmp(t->data.s, known[i].magic, n) == 0)
            return err_set(RC_DATA, "%s: is a %s file; want text, JSON lines, .npy or safetensors", text_name(t),
                known[i].what);
    }
    return RC_OK;
}

/* What the member is that the archive has come to. */
static int
start(struct text *t)
{
    const char *s;
    size_t i = 0;

    t->data.len = t->at = 0;
    t->end = t->taken = false;
    t->line = 0;
    t->source++;
    idrows_close(&t->rows);
    TRY(fill(t, 16));
    if (npy_is(t->data.s, t->data.len)) {
        t->form = FORM_NPY;
        TRY(fill(t, NPY_HEADER_MAX));
        if (npy_parse(&t->npy, t->data.s, t->data.len < NPY_HEADER_MAX ? t->data.len : NPY_HEADER_MAX) != RC_OK)
            return err_at(RC_DATA, "%s", text_name(t));
        t->at = t->npy.header;
        return RC_OK;
    }
    if (idrows_is(t->data.s, t->data.len)) {
        t->form = FORM_ROWS;
        TRY(read_rest(t, TOKEN_FILE_MAX));
        return idrows_open(&t->rows, text_name(t), t->data.s, t->data.len, t->o.keep_padding);
    }
    TRY(refuse_binary(t));
    while (i < t->data.len || !t->end) {
        if (i == t->data.len)
            TRY(more(t));
        else if (is_space(t->data.s[i]))
            i++;
        else
            break;
    }
    s = t->data.s;
    if (t->data.len > 3 && memcmp(s, "\xef\xbb\xbf{", 4) == 0)
        t->at = i = 3; /* a byte order mark, which is no JSON */
    t->form = i < t->data.len && s[i] == '{' ? FORM_LINES : FORM_WHOLE;
    return RC_OK;
}

/* RC_RETRY: there is none any more. */
static int
next_file(struct text *t)
{
    int rc = t->in != NULL ? archive_in_next(t->in) : RC_RETRY;

    if (rc == RC_RETRY) {
        archive_in_close(t->in);
        t->in = NULL;
        if (t->file_next == t->file_count)
            return RC_RETRY;
        rc = archive_in_open(&t->in, t->files[t->file_next++]);
    }
    return rc == RC_OK ? start(t) : rc;
}

static int
set_columns(struct text *t, const char *columns)
{
    const char *comma = columns != NULL ? strchr(columns, ',') : NULL;

    if (columns == NULL)
        return RC_OK;
    if ((t->column[0] = mem_strdup(columns)) == NULL)
        return RC_OS;
    if (comma != NULL) {
        t->column[0][comma - columns] = '\0';
        if ((t->column[1] = mem_strdup(comma + 1)) == NULL)
            return RC_OS;
    }
    if (*t->column[0] == '\0' || (comma != NULL && (comma[1] == '\0' || strchr(comma + 1, ',') != NULL)))
        return err_set(RC_USAGE, "columns are \"%s\", want one name or two with a comma between", columns);
    return RC_OK;
}

int
text_open(struct text **out, const char *path, const struct text_opts *o)
{
    struct text *t = mem_zalloc(1, sizeof(*t));
    char *copy = mem_strdup(path);
    struct stat st;
    int rc = t != NULL && copy != NULL ? RC_OK : RC_OS;

    *out = NULL;
    if (rc == RC_OK) {
        t->o = *o;
        rc = set_columns(t, o->columns);
    }
    if (rc == RC_OK)
        rc = stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? list_files(t, copy) : add_file(t, path);
    if (rc == RC_OK)
        rc = next_file(t);
    mem_free(copy);
    if (rc != RC_OK)
        text_close(t);
    else
        *out = t;
    return rc;
}

const char *
text_name(const struct text *t)
{
    return t->in != NULL ? archive_in_name(t->in) : t->files[t->file_count - 1];
}

void
text_close(struct text *t)
{
    if (t == NULL)
        return;
    archive_in_close(t->in);
    idrows_close(&t->rows);
    json_decref(t->json);
    buf_free(&t->data);
    buf_free(&t->clean);
    for (size_t i = 0; i < t->file_count; i++)
        mem_free(t->files[i]);
    mem_free(t->files);
    mem_free(t->column[0]);
    mem_free(t->column[1]);
    mem_free(t->ids);
    mem_free(t->mask);
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
    if (t->taken)
        return RC_RETRY;
    t->taken = true;
    TRY(read_rest(t, LINE_MAX_BYTES));
    if (t->data.len == 0)
        return RC_RETRY;
    t->clean.len = 0;
    repair(&t->clean, t->data.s, t->data.len);
    if (!buf_ok(&t->clean))
        return RC_OS;
    *s = (struct text_sample){ .kind = TEXT_PLAIN, .text = t->clean.s, .len = t->clean.len, .stream = true, .line = 1 };
    return RC_OK;
}

/* --- token ids --- */

static int
grow_ids(struct text *t, size_t n)
{
    int32_t *ids = mem_grow(t->ids, &t->ids_cap, n + 1, sizeof(*ids));

    if (ids == NULL)
        return RC_OS;
    t->ids = ids;
    return RC_OK;
}

/* A row, or some of a stream. */
static int
next_npy(struct text *t, struct text_sample *s)
{
    struct npy *n = &t->npy;
    bool stream = n->rows < 0;
    int64_t count = stream && n->cols > STREAM_TOKENS ? STREAM_TOKENS : n->cols;
    size_t bytes = (size_t)count * ids_size(n->type);

    if (stream ? count == 0 : t->line >= n->rows) {
        TRY(fill(t, 1));
        return t->at == t->data.len ? RC_RETRY : err_set(RC_DATA, "%s: npy: more bytes than its shape says",
            text_name(t));
    }
    TRY(fill(t, bytes));
    if (t->data.len - t->at < bytes)
        return err_set(RC_DATA, "%s: npy: ends inside sample %d", text_name(t), t->line + 1);
    TRY(grow_ids(t, (size_t)count));
    if (ids_from(t->ids, t->data.s + t->at, (size_t)count, n->type, t->line) != RC_OK)
        return err_at(RC_DATA, "%s", text_name(t));
    t->at += bytes;
    if (stream)
        n->cols -= count;
    else
        t->line++;
    *s = (struct text_sample){ .kind = TEXT_IDS, .ids = t->ids, .count = (size_t)count, .stream = stream,
        .line = stream ? 1 : t->line };
    return RC_OK;
}

static int
next_row(struct text *t, struct text_sample *s)
{
    int rc;

    *s = (struct text_sample){ .kind = TEXT_IDS, .line = (int)t->rows.row + 1 };
    rc = idrows_next(&t->rows, &s->ids, &s->count, &s->stream);
    return rc == RC_OK || rc == RC_RETRY ? rc : err_at(rc, "%s", text_name(t));
}

/* --- JSON lines --- */

/* The next line that is not blank; RC_RETRY at the end. */
static int
next_line(struct text *t, const char **line, size_t *len)
{
    size_t seen = 0;

    for (;;) {
        const char *s = t->data.s + t->at, *nl = NULL;
        size_t left = t->data.len - t->at, i = 0;

        if (left > seen)
            nl = memchr(s + seen, '\n', left - seen);
        if (nl == NULL && !t->end) {
            seen = left;
            TRY(more(t));
            if (t->data.len - t->at > LINE_MAX_BYTES)
                return err_set(RC_DATA, "%s: line %d: longer than %d bytes", text_name(t), t->line + 1, LINE_MAX_BYTES);
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

/* Padding as "attention_mask" beside the ids tells it, which may be absent. */
static int
take_mask(struct text *t, struct text_sample *s)
{
    const json_t *list = json_object_get(t->json, "attention_mask");
    size_t n = s->count, first = 0;
    uint8_t *mask;

    if (list == NULL || json_is_null(list))
        return RC_OK;
    if (json_array_size(list) != n)
        return err_set(RC_DATA, "\"attention_mask\" is no list as long as the ids");
    if ((mask = mem_grow(t->mask, &t->mask_cap, n + 1, 1)) == NULL)
        return RC_OS;
    t->mask = mask;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);

        if (!json_is_boolean(v) && !(json_is_integer(v) && (json_integer_value(v) == 0 || json_integer_value(v) == 1)))
            return err_set(RC_DATA, "\"attention_mask\" item %zu is neither 0 nor 1", i);
        mask[i] = json_is_true(v) || json_integer_value(v) == 1;
    }
    TRY(ids_unpad(mask, n, t->o.keep_padding, &first, &s->count));
    s->ids += first;
    return RC_OK;
}

static int
take_ids(struct text *t, const json_t *list, const char *column, struct text_sample *s)
{
    size_t n = json_array_size(list);

    if (!json_is_array(list))
        return err_set(RC_DATA, "\"%s\" is not a list", column);
    TRY(grow_ids(t, n));
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);

        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
            return err_set(RC_DATA, "\"%s\" item %zu is not a token id", column, i);
        t->ids[i] = (int32_t)json_integer_value(v);
    }
    s->kind = TEXT_IDS;
    s->ids = t->ids;
    s->count = n;
    return take_mask(t, s);
}

static int
take_text(const json_t *text, struct text_sample *s)
{
    s->text = json_string_value(text);
    s->len = json_string_length(text);
    return RC_OK;
}

static int
take_messages(const json_t *list, const char *column, struct text_sample *s)
{
    size_t n = json_array_size(list);

    for (size_t i = 0; i < n; i++)
        if (!json_is_object(json_array_get(list, i)))
            return err_set(RC_DATA, "\"%s\" item %zu is no message", column, i);
    if (n == 0)
        return err_set(RC_DATA, "\"%s\" is no list of messages", column);
    s->kind = TEXT_CHAT;
    s->messages = list;
    return RC_OK;
}

/* What a user says and what the assistant answers, as a conversation, kept with the line. */
static int
take_pair(struct text *t, json_t *prompt, json_t *response, struct text_sample *s)
{
    json_t *list = json_pack("[{s:s, s:O}, {s:s, s:O}]", "role", "user", "content", prompt, "role", "assistant",
        "content", response);

    if (list == NULL || json_object_set_new(t->json, "", list) != 0)
        return err_set(RC_OS, "out of memory");
    s->kind = TEXT_CHAT;
    s->messages = list;
    return RC_OK;
}

static int
take_named(struct text *t, struct text_sample *s)
{
    json_t *a = json_object_get(t->json, t->column[0]), *b;

    if (t->column[1] == NULL) {
        if (json_is_string(a))
            return take_text(a, s);
        if (json_is_object(json_array_get(a, 0)))
            return take_messages(a, t->column[0], s);
        return json_is_array(a) ? take_ids(t, a, t->column[0], s) : err_set(RC_DATA, "no \"%s\" that is text, ids or "
            "messages", t->column[0]);
    }
    b = json_object_get(t->json, t->column[1]);
    if (!json_is_string(a) || !json_is_string(b))
        return err_set(RC_DATA, "no string \"%s\"", t->column[json_is_string(a) ? 1 : 0]);
    return take_pair(t, a, b, s);
}

static int
take_object(struct text *t, struct text_sample *s)
{
    json_t *ids = json_object_get(t->json, "input_ids"), *text = json_object_get(t->json, "text");
    json_t *messages = json_object_get(t->json, "messages");
    json_t *prompt = json_object_get(t->json, "prompt"), *response = json_object_get(t->json, "response");

    if (t->column[0] != NULL)
        return take_named(t, s);
    if (ids != NULL && !json_is_null(ids))
        return take_ids(t, ids, "input_ids", s);
    if (json_is_string(text))
        return take_text(text, s);
    if (json_is_array(messages))
        return take_messages(messages, "messages", s);
    if (json_is_string(prompt) && json_is_string(response))
        return take_pair(t, prompt, response, s);
    return err_set(RC_DATA, "neither \"input_ids\", \"text\", \"messages\" nor \"prompt\" and \"response\"");
}

static int
next_object(struct text *t, struct text_sample *s)
{
    char subject[1024];
    const char *line = NULL;
    size_t len = 0;
    int rc;

    TRY(next_line(t, &line, &len));
    *s = (struct text_sample){ .kind = TEXT_PLAIN, .line = t->line };
    json_decref(t->json);
    (void)snprintf(subject, sizeof(subject), "%s: line %d", text_name(t), t->line);
    TRY(jread_mem(&t->json, line, len, subject));
    rc = json_is_object(t->json) ? take_object(t, s) : err_set(RC_DATA, "not an object");
    return rc == RC_OK ? rc : err_at(rc, "%s", subject);
}

int
text_next(struct text *t, struct text_sample *s)
{
    static int (*const next[])(struct text *t, struct text_sample *s) = { [FORM_WHOLE] = next_whole,
        [FORM_LINES] = next_object, [FORM_NPY] = next_npy, [FORM_ROWS] = next_row };
    int rc;

    if (t->in == NULL)
        return RC_RETRY;
    while ((rc = next[t->form](t, s)) == RC_RETRY)
        if ((rc = next_file(t)) != RC_OK)
            return rc;
    s->source = t->source;
    return rc;
}
