/* safetensors - map and verify a file, publish one, stream frames over a pipe */
#include "safetensors.h"

#include "file.h"
#include "json.h"
#include "mem.h"
#include "member.h"
#include "sthead.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STAGE_BYTES = 1 << 16, FRAME_STEP = 1 << 26 };

static int
compare_names(const void *a, const void *b)
{
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

static int
compare_keys(const void *a, const void *b)
{
    return strcmp(((const struct st_meta *)a)->key, ((const struct st_meta *)b)->key);
}

/* Sorts tensors and metadata and refuses duplicates. Writers often sort already, and then nothing is moved. */
static int
sort_names(struct st_file *st)
{
    struct tensor *t = st->tensors;
    bool sorted = true;

    for (size_t i = 1; sorted && i < st->count; i++)
        sorted = strcmp(t[i - 1].name, t[i].name) < 0;
    if (!sorted)
        qsort(t, st->count, sizeof(*t), compare_names);
    for (size_t i = 1; i < st->count; i++)
        if (strcmp(t[i - 1].name, t[i].name) == 0)
            return err_set(RC_DATA, "%s: tensor %s: named twice", st->path, t[i].name);
    if (st->meta_count > 1)
        qsort(st->meta, st->meta_count, sizeof(*st->meta), compare_keys);
    for (size_t i = 1; i < st->meta_count; i++)
        if (strcmp(st->meta[i - 1].key, st->meta[i].key) == 0)
            return err_set(RC_DATA, "%s: __metadata__: key %s twice", st->path, st->meta[i].key);
    return RC_OK;
}

static int
check_length(const char *path, const unsigned char *le, uint64_t *bytes)
{
    *bytes = 0;
    for (int i = 7; i >= 0; i--)
        *bytes = *bytes << 8 | le[i];
    if (*bytes < 2 || *bytes > ST_HEADER_MAX)
        return err_set(RC_DATA, "%s: header length is %llu, want 2 to %d", path, (unsigned long long)*bytes,
            ST_HEADER_MAX);
    return RC_OK;
}

/* Reads length and JSON from fd, which then stands at the data. RC_RETRY: nothing there at all. */
static int
read_header(struct st_file *st, int fd, uint64_t file_bytes, char **text, uint64_t *text_bytes)
{
    unsigned char le[8];
    size_t got;
    int rc;

    if ((rc = file_read_full(fd, le, sizeof(le), &got)) != RC_OK)
        return err_at(rc, "%s", st->path);
    if (got == 0)
        return err_set(RC_RETRY, "%s: is empty", st->path);
    if (got < sizeof(le))
        return err_set(RC_DATA, "%s: ends after %zu bytes, inside the header length", st->path, got);
    if ((rc = check_length(st->path, le, text_bytes)) != RC_OK)
        return rc;
    if (*text_bytes > file_bytes - sizeof(le))
        return err_set(RC_DATA, "%s: header of %llu bytes does not fit in file of %llu", st->path,
            (unsigned long long)*text_bytes, (unsigned long long)file_bytes);
    if ((*text = mem_alloc(*text_bytes, 1)) == NULL)
        return RC_OS;
    if ((rc = file_read_full(fd, *text, *text_bytes, &got)) != RC_OK)
        return err_at(rc, "%s", st->path);
    if (got < *text_bytes)
        return err_set(RC_DATA, "%s: ends after %zu of %llu header bytes", st->path, got,
            (unsigned long long)*text_bytes);
    st->header_bytes = sizeof(le) + *text_bytes;
    return RC_OK;
}

/* Until here the data of a tensor is its offset; base may be NULL. */
static void
bind_data(struct st_file *st, const char *base)
{
    for (size_t i = 0; i < st->count; i++)
        st->tensors[i].data = base != NULL ? base + (uintptr_t)st->tensors[i].data : NULL;
}

/* A map begins at a page, a member of a tar anywhere. */
static int
map_file(struct st_file *st, const struct member *m)
{
    uint64_t before = m->at % (uint64_t)sysconf(_SC_PAGESIZE);

    st->map_bytes = m->bytes + before;
    st->map = mmap(NULL, st->map_bytes, PROT_READ, MAP_SHARED, m->fd, (off_t)(m->at - before));
    st->mapped = st->map != MAP_FAILED;
    if (!st->mapped)
        return err_set(RC_OS, "%s: cannot map: %s", st->path, strerror(errno));
    bind_data(st, (char *)st->map + before + st->header_bytes);
    return RC_OK;
}

static int
open_member(struct st_file *st, const struct member *m, bool map)
{
    char *text = NULL;
    uint64_t n, file_bytes = m->bytes;
    int rc;

    if (file_bytes < 8)
        return err_set(RC_DATA, "%s: %llu bytes are too short for a safetensors file", st->path,
            (unsigned long long)file_bytes);
    if ((rc = read_header(st, m->fd, file_bytes, &text, &n)) == RC_OK)
        rc = sthead_parse(st, text, n);
    if (rc == RC_OK && st->data_bytes != file_bytes - st->header_bytes)
        rc = err_set(RC_DATA, "%s: tensors end at byte %llu of data, file has %llu", st->path,
            (unsigned long long)st->data_bytes, (unsigned long long)(file_bytes - st->header_bytes));
    if (rc == RC_OK)
        rc = sort_names(st);
    if (rc == RC_OK && map)
        rc = map_file(st, m);
    else if (rc == RC_OK)
        bind_data(st, NULL);
    mem_free(text);
    return rc == RC_RETRY ? RC_DATA : rc;
}

static int
open_path(struct st_file *st, const char *path, bool map)
{
    struct member m;
    struct stat sb;
    int rc;

    *st = (struct st_file){ 0 };
    if ((st->path = mem_strdup(path)) == NULL)
        return RC_OS;
    if (stat(path, &sb) == 0 && !S_ISREG(sb.st_mode)) { /* a fifo would wait for somebody to write */
        rc = err_set(RC_DATA, "%s: not a regular file", path);
    } else if ((rc = member_open(&m, path)) == RC_OK) {
        rc = open_member(st, &m, map);
        (void)close(m.fd);
    }
    if (rc != RC_OK)
        st_close(st);
    return rc;
}

int
st_open(struct st_file *st, const char *path)
{
    return open_path(st, path, true);
}

int
st_open_header(struct st_file *st, const char *path)
{
    return open_path(st, path, false);
}

int
st_read_mem(struct st_file *st, const char *path, const void *data, size_t bytes)
{
    const char *s = data;
    uint64_t n = 0;
    int rc = RC_OK;

    *st = (struct st_file){ 0 };
    if ((st->path = mem_strdup(path)) == NULL)
        return RC_OS;
    if (bytes < 8)
        rc = err_set(RC_DATA, "%s: %zu bytes are too short for a safetensors file", path, bytes);
    if (rc == RC_OK && (rc = check_length(path, data, &n)) == RC_OK && n > bytes - 8)
        rc = err_set(RC_DATA, "%s: header of %llu bytes does not fit in file of %zu", path, (unsigned long long)n,
            bytes);
    st->header_bytes = 8 + n;
    if (rc == RC_OK && (rc = sthead_parse(st, s + 8, n)) == RC_OK && st->data_bytes != bytes - st->header_bytes)
        rc = err_set(RC_DATA, "%s: tensors end at byte %llu of data, file has %llu", path,
            (unsigned long long)st->data_bytes, (unsigned long long)(bytes - st->header_bytes));
    if (rc == RC_OK && (rc = sort_names(st)) == RC_OK)
        bind_data(st, s + st->header_bytes);
    if (rc != RC_OK)
        st_close(st);
    return rc;
}

void
st_close(struct st_file *st)
{
    if (st->mapped)
        (void)munmap(st->map, st->map_bytes);
    else if (st->map != MAP_FAILED)
        mem_free(st->map);
    mem_free(st->tensors);
    mem_free(st->meta);
    mem_free(st->names);
    mem_free(st->path);
    *st = (struct st_file){ 0 };
}

const struct tensor *
st_find(const struct st_file *st, const char *name)
{
    const struct tensor key = { .name = name };

    return st->count > 0 ? bsearch(&key, st->tensors, st->count, sizeof(key), compare_names) : NULL;
}

const char *
st_meta(const struct st_file *st, const char *key)
{
    const struct st_meta want = { .key = key }, *m = NULL;

    if (st->meta_count > 0)
        m = bsearch(&want, st->meta, st->meta_count, sizeof(want), compare_keys);
    return m != NULL ? m->value : NULL;
}

bool
st_meta_is(const struct st_file *st, const char *key, const char *want)
{
    const char *s = st_meta(st, key);

    return s != NULL && strcmp(s, want) == 0;
}

int
st_want_plan(const struct st_file *st, const char *fingerprint)
{
    return st_meta_is(st, "plan", fingerprint) ? RC_OK : err_set(RC_DATA, "%s: made under another plan", st->path);
}

int
st_get(const struct st_file *st, const char *name, const struct tensor **out)
{
    if ((*out = st_find(st, name)) == NULL)
        return err_set(RC_DATA, "%s: no tensor %s", st->path, name);
    return RC_OK;
}

/* Whole pages only when dropping: their neighbours belong to other tensors. */
static void
advise(const struct st_file *st, const struct tensor *t, int advice, bool whole)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)t->data, to = from + t->bytes;

    from = (whole ? from + page - 1 : from) / page * page;
    to = (whole ? to : to + page - 1) / page * page;
    if (st->mapped && from < to)
        (void)madvise((void *)from, to - from, advice);
}

void
st_prefetch(const struct st_file *st, const struct tensor *t)
{
    advise(st, t, MADV_WILLNEED, false);
}

void
st_drop(const struct st_file *st, const struct tensor *t)
{
    advise(st, t, MADV_DONTNEED, true);
}

static int
compare_write_order(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    size_t m = dtype_size(x->dtype), n = dtype_size(y->dtype);

    if (m != n)
        return m > n ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int
compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Tensors of one type are adjacent, but the same name may come back with another. */
static int
check_unique(const struct tensor *tensors, size_t count)
{
    const char **names = mem_alloc(count, sizeof(*names));
    int rc = RC_OK;

    if (names == NULL)
        return RC_OS;
    for (size_t i = 0; i < count; i++)
        names[i] = tensors[i].name;
    qsort(names, count, sizeof(*names), compare_strings);
    for (size_t i = 1; rc == RC_OK && i < count; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            rc = err_set(RC_BUG, "tensor %s: written twice", names[i]);
    mem_free(names);
    return rc;
}

static int
check_utf8(const char *s)
{
    size_t len = strlen(s), n;

    for (; len > 0; s += n, len -= n)
        if ((n = jutf8(s, len)) == 0)
            return err_set(RC_DATA, "not UTF-8");
    return RC_OK;
}

static int
check_tensor(const struct tensor *t)
{
    size_t bytes = dtype_size(t->dtype);
    int rc;

    for (int i = 0; i < t->ndim; i++)
        if (t->shape[i] < 0 || __builtin_mul_overflow(bytes, (size_t)t->shape[i], &bytes))
            return err_set(RC_BUG, "shape is negative or overflows");
    if (t->dtype == DT_NONE || t->bytes != bytes)
        return err_set(RC_BUG, "%zu bytes, want %zu", t->bytes, bytes);
    if (strcmp(t->name, "__metadata__") == 0)
        return err_set(RC_DATA, "name is reserved");
    if ((rc = sthead_check_name(t->name)) != RC_OK)
        return rc;
    return check_utf8(t->name);
}

static void
put_tensor(struct buf *b, const struct tensor *t, uint64_t from)
{
    jput_str(b, t->name);
    buf_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(t->dtype));
    for (int i = 0; i < t->ndim; i++)
        buf_printf(b, "%s%lld", i > 0 ? "," : "", (long long)t->shape[i]);
    buf_printf(b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)from,
        (unsigned long long)(from + t->bytes));
}

static int
put_meta(struct buf *b, const struct st_meta *meta, size_t count)
{
    if (count > 0)
        buf_puts(b, "\"__metadata__\":{");
    for (size_t i = 0; i < count; i++) {
        if (check_utf8(meta[i].key) != RC_OK || check_utf8(meta[i].value) != RC_OK)
            return err_at(RC_DATA, "__metadata__: key %s", meta[i].key);
        for (size_t j = 0; j < i; j++)
            if (strcmp(meta[j].key, meta[i].key) == 0)
                return err_set(RC_BUG, "__metadata__: key %s: written twice", meta[i].key);
        buf_puts(b, i > 0 ? "," : "");
        jput_str(b, meta[i].key);
        buf_puts(b, ":");
        jput_str(b, meta[i].value);
    }
    if (count > 0)
        buf_puts(b, "}");
    return RC_OK;
}

int
st_header(struct tensor *tensors, size_t count, const struct st_meta *meta, size_t meta_count, char **out,
    size_t *out_bytes)
{
    struct buf b = { 0 };
    uint64_t n, from = 0;
    int rc;

    *out = NULL;
    if (count > 0)
        qsort(tensors, count, sizeof(*tensors), compare_write_order);
    if ((rc = check_unique(tensors, count)) != RC_OK)
        return rc;
    buf_add(&b, "\0\0\0\0\0\0\0\0{", 9);
    rc = put_meta(&b, meta, meta_count);
    for (size_t i = 0; rc == RC_OK && i < count; i++) {
        if ((rc = check_tensor(&tensors[i])) != RC_OK)
            (void)err_at(rc, "tensor %s", tensors[i].name);
        buf_puts(&b, i > 0 || meta_count > 0 ? "," : "");
        put_tensor(&b, &tensors[i], from);
        from += tensors[i].bytes;
    }
    buf_puts(&b, "}");
    while (buf_ok(&b) && b.len % 8 != 0)
        buf_puts(&b, " ");
    if (rc == RC_OK && !buf_ok(&b))
        rc = RC_OS;
    if (rc != RC_OK) {
        buf_free(&b);
        return rc;
    }
    n = b.len - 8;
    for (int i = 0; i < 8; i++, n >>= 8)
        b.s[i] = (char)(n & 0xff);
    *out = b.s;
    *out_bytes = b.len;
    return RC_OK;
}

/* Small tensors are gathered, so that a file of many scalars is not a write(2) each. */
struct stage {
    int    fd;
    size_t used;
    char   bytes[STAGE_BYTES];
};

static int
stage_flush(struct stage *s)
{
    int rc = file_write_full(s->fd, s->bytes, s->used);

    s->used = 0;
    return rc;
}

static int
stage_write(struct stage *s, const void *data, size_t bytes)
{
    int rc = RC_OK;

    if (s->used + bytes > sizeof(s->bytes))
        rc = stage_flush(s);
    if (rc != RC_OK || bytes == 0)
        return rc;
    if (bytes > sizeof(s->bytes))
        return file_write_full(s->fd, data, bytes);
    memcpy(s->bytes + s->used, data, bytes);
    s->used += bytes;
    return RC_OK;
}

int
st_write_frame(int fd, struct tensor *tensors, size_t count, const struct st_meta *meta, size_t meta_count)
{
    struct stage *s = NULL;
    char *head = NULL;
    size_t head_bytes;
    int rc;

    if ((rc = st_header(tensors, count, meta, meta_count, &head, &head_bytes)) != RC_OK)
        return rc;
    if ((s = mem_alloc(1, sizeof(*s))) == NULL) {
        rc = RC_OS;
        goto out;
    }
    s->fd = fd;
    s->used = 0;
    rc = stage_write(s, head, head_bytes);
    for (size_t i = 0; rc == RC_OK && i < count; i++)
        rc = stage_write(s, tensors[i].data, tensors[i].bytes);
    if (rc == RC_OK)
        rc = stage_flush(s);
out:
    mem_free(s);
    mem_free(head);
    return rc;
}

static int
publish(const char *path, struct tensor *tensors, size_t count, const struct st_meta *meta, size_t meta_count,
    bool quick)
{
    struct file_tmp f;
    int rc;

    if ((rc = file_begin(&f, path)) != RC_OK)
        return rc;
    f.quick = quick;
    if ((rc = st_write_frame(f.fd, tensors, count, meta, meta_count)) != RC_OK)
        (void)err_at(rc, "%s", path);
    else
        rc = file_commit(&f);
    file_abort(&f);
    return rc;
}

int
st_publish(const char *path, struct tensor *tensors, size_t count, const struct st_meta *meta, size_t meta_count)
{
    return publish(path, tensors, count, meta, meta_count, false);
}

int
st_publish_quick(const char *path, struct tensor *tensors, size_t count, const struct st_meta *meta, size_t meta_count)
{
    return publish(path, tensors, count, meta, meta_count, true);
}

/* The data of a frame. No more than twice what has arrived is allocated: a header may say anything. */
static int
read_data(struct st_file *st, int fd)
{
    size_t total = st->data_bytes, cap = total < FRAME_STEP ? total : FRAME_STEP, have = 0, got;
    char *data = mem_alloc(cap, 1), *grown;
    int rc = data != NULL ? RC_OK : RC_OS;

    while (rc == RC_OK && have < total) {
        if (have == cap) {
            cap = total / 2 < cap ? total : 2 * cap;
            if ((grown = mem_alloc(cap, 1)) == NULL) {
                rc = RC_OS;
                break;
            }
            memcpy(grown, data, have);
            mem_free(data);
            data = grown;
        }
        if ((rc = file_read_full(fd, data + have, cap - have, &got)) != RC_OK)
            (void)err_at(rc, "%s", st->path);
        have += got;
        if (rc == RC_OK && have < cap)
            rc = err_set(RC_DATA, "%s: ends after %zu of %zu data bytes", st->path, have, total);
    }
    st->map = data;
    st->map_bytes = have;
    return rc;
}

int
st_read_frame(struct st_file *st, int fd)
{
    char *text = NULL;
    uint64_t n;
    int rc;

    *st = (struct st_file){ 0 };
    if ((st->path = mem_strdup("stream")) == NULL)
        return RC_OS;
    if ((rc = read_header(st, fd, UINT64_MAX, &text, &n)) == RC_OK)
        rc = sthead_parse(st, text, n);
    if (rc == RC_OK)
        rc = sort_names(st);
    if (rc == RC_OK && st->data_bytes > 0)
        rc = read_data(st, fd);
    if (rc == RC_OK)
        bind_data(st, st->map);
    mem_free(text);
    if (rc != RC_OK)
        st_close(st);
    return rc;
}
