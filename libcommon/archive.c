/* archive - read a file that may be compressed or a tar; write a tar */
#include "archive.h"

#include "buf.h"
#include "file.h"
#include "mem.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { BLOCK_BYTES = 1 << 16 };

struct archive_in {
    struct archive    *a;
    int                fd;     /* -1: reads the member that `outer` is at */
    struct archive_in *outer, *inner; /* inner: reads the member of a tar, which may be compressed */
    char              *path;
    struct buf         name;   /* of the member */
    bool               end;
    int                rc;     /* of reading, whose words are err_text */
    z_stream           z;
    bool               started, gzip, within; /* within: of a gzip member */
    unsigned char      raw[BLOCK_BYTES], block[BLOCK_BYTES];
};

static int open_layer(struct archive_in **out, const char *path, struct archive_in *outer);

static int
fail(const struct archive_in *in)
{
    const char *text = archive_error_string(in->a);

    if (in->rc != RC_OK)
        return in->rc;
    return err_set(RC_DATA, "%s: cannot read: %s", in->path, text != NULL ? text : "damaged");
}

static int
read_member(struct archive_in *in, void *data, size_t size, size_t *got)
{
    la_ssize_t n = in->end ? 0 : archive_read_data(in->a, data, size);

    *got = n > 0 ? (size_t)n : 0;
    return n < 0 ? fail(in) : RC_OK;
}

/* --- what libarchive reads from: bytes, decompressed and checked if they are gzip --- */

static int
read_raw(struct archive_in *in, size_t *got)
{
    ssize_t n;

    if (in->fd < 0)
        return read_member(in->outer, in->raw, sizeof(in->raw), got);
    while ((n = read(in->fd, in->raw, sizeof(in->raw))) < 0 && errno == EINTR)
        ;
    *got = n > 0 ? (size_t)n : 0;
    return n >= 0 ? RC_OK : err_set(RC_IO, "%s: cannot read: %s", in->path, strerror(errno));
}

static int
damaged(const struct archive_in *in, const char *what)
{
    return err_set(RC_DATA, "%s: cannot read: gzip: %s", in->path, what);
}

/* Some bytes of the members, one after the other; *got 0: the end. */
static int
read_gzip(struct archive_in *in, size_t *got)
{
    z_stream *z = &in->z;
    size_t n;

    z->next_out = in->block;
    z->avail_out = sizeof(in->block);
    while (z->avail_out == sizeof(in->block)) {
        int code;

        if (z->avail_in == 0) {
            TRY(read_raw(in, &n));
            z->next_in = in->raw;
            z->avail_in = (unsigned)n;
            if (n == 0 && in->within)
                return damaged(in, "unexpected end");
            if (n == 0)
                break;
        }
        if (!in->within && *z->next_in == 0) { /* padding of a tape */
            z->next_in++;
            z->avail_in--;
            continue;
        }
        in->within = true;
        code = inflate(z, Z_NO_FLUSH);
        if (code == Z_MEM_ERROR)
            return err_set(RC_OS, "out of memory");
        if (code != Z_OK && code != Z_STREAM_END)
            return damaged(in, z->msg != NULL ? z->msg : "damaged");
        if (code == Z_STREAM_END) {
            in->within = false;
            (void)inflateReset(z);
        }
    }
    *got = sizeof(in->block) - z->avail_out;
    return RC_OK;
}

static int
read_bytes(struct archive_in *in, const void **block, size_t *got)
{
    static const unsigned char magic[] = { 0x1f, 0x8b, Z_DEFLATED };

    if (!in->started) {
        in->started = true;
        TRY(read_raw(in, got));
        in->gzip = *got >= sizeof(magic) && memcmp(in->raw, magic, sizeof(magic)) == 0;
        in->z.next_in = in->raw;
        in->z.avail_in = (unsigned)*got;
        if (in->gzip && inflateInit2(&in->z, 15 + 16) != Z_OK)
            return err_set(RC_OS, "out of memory");
    } else if (!in->gzip) {
        TRY(read_raw(in, got));
    }
    *block = in->gzip ? in->block : in->raw;
    return in->gzip ? read_gzip(in, got) : RC_OK;
}

static la_ssize_t
read_block(struct archive *a, void *data, const void **block)
{
    struct archive_in *in = data;
    size_t got = 0;

    if (in->rc == RC_OK)
        in->rc = read_bytes(in, block, &got);
    if (in->rc == RC_OK)
        return (la_ssize_t)got;
    archive_set_error(a, EIO, "cannot read");
    return ARCHIVE_FATAL;
}

/* --- members --- */

/* The next regular file, or the only member of what is no tar. */
static int
next_member(struct archive_in *in)
{
    struct archive_entry *entry;

    archive_in_close(in->inner);
    in->inner = NULL;
    for (;;) {
        const char *path, *base;
        int code = archive_read_next_header(in->a, &entry);

        in->end = code == ARCHIVE_EOF; /* of a file of no bytes at once */
        if (in->end)
            return RC_RETRY;
        if (code != ARCHIVE_OK && code != ARCHIVE_WARN)
            return fail(in);
        if (archive_format(in->a) == ARCHIVE_FORMAT_RAW)
            return RC_OK;
        path = archive_entry_pathname(entry);
        path = path != NULL ? path : "";
        base = strrchr(path, '/') != NULL ? strrchr(path, '/') + 1 : path;
        if (archive_entry_filetype(entry) != AE_IFREG || *base == '.')
            continue;
        in->name.len = 0;
        buf_printf(&in->name, "%s(%s)", in->path, path);
        return buf_ok(&in->name) ? open_layer(&in->inner, in->name.s, in) : RC_OS;
    }
}

static int
open_file(struct archive_in *in)
{
    struct stat st;

    if (stat(in->path, &st) != 0)
        return err_set(errno == ENOENT || errno == ENOTDIR ? RC_NOINPUT : RC_IO, "%s: %s", in->path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return err_set(RC_IO, "%s: is a directory", in->path);
    if ((in->fd = open(in->path, O_RDONLY | O_CLOEXEC)) < 0)
        return err_set(RC_IO, "%s: cannot open: %s", in->path, strerror(errno));
    return RC_OK;
}

/* outer NULL: a file; else the member that it is at. */
static int
open_archive(struct archive_in *in)
{
    int rc;

    if (in->outer == NULL)
        TRY(open_file(in));
    /* Those that no text begins with: among all of them uu would take a text that has a line "begin 644 x". */
    (void)archive_read_support_filter_bzip2(in->a);
    (void)archive_read_support_filter_xz(in->a);
    (void)archive_read_support_filter_zstd(in->a);
    (void)archive_read_support_filter_lz4(in->a);
    (void)archive_read_support_format_raw(in->a);
    (void)archive_read_support_format_empty(in->a);
    if (in->outer == NULL)
        (void)archive_read_support_format_tar(in->a);
    if (archive_read_open(in->a, in, NULL, read_block, NULL) != ARCHIVE_OK)
        return fail(in);
    buf_puts(&in->name, in->path);
    if (!buf_ok(&in->name))
        return RC_OS;
    rc = next_member(in);
    return rc == RC_RETRY ? RC_OK : rc;
}

static int
open_layer(struct archive_in **out, const char *path, struct archive_in *outer)
{
    struct archive_in *in = mem_zalloc(1, sizeof(*in));
    int rc = RC_OS;

    *out = NULL;
    if (in == NULL)
        return RC_OS;
    in->fd = -1;
    in->outer = outer;
    if ((in->path = mem_strdup(path)) != NULL && (in->a = archive_read_new()) != NULL)
        rc = open_archive(in);
    if (rc != RC_OK)
        archive_in_close(in);
    else
        *out = in;
    return rc;
}

int
archive_in_open(struct archive_in **out, const char *path)
{
    return open_layer(out, path, NULL);
}

int
archive_in_next(struct archive_in *in)
{
    return in->end ? RC_RETRY : next_member(in);
}

int
archive_in_read(struct archive_in *in, void *data, size_t size, size_t *got)
{
    return read_member(in->inner != NULL ? in->inner : in, data, size, got);
}

const char *
archive_in_name(const struct archive_in *in)
{
    return in->name.s;
}

void
archive_in_close(struct archive_in *in)
{
    if (in == NULL)
        return;
    archive_in_close(in->inner);
    if (in->a != NULL)
        (void)archive_read_free(in->a);
    if (in->gzip)
        (void)inflateEnd(&in->z);
    if (in->fd >= 0)
        (void)close(in->fd);
    buf_free(&in->name);
    mem_free(in->path);
    mem_free(in);
}

/* --- writing --- */

struct archive_out {
    struct archive *a;
    struct file_tmp file; /* fd is standard output, and path NULL, for "-" */
    uint64_t        left; /* bytes of the member to come */
    int             rc;   /* of writing, whose words are err_text */
};

static bool
ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);

    return n > m && strcmp(s + n - m, end) == 0;
}

const char *
archive_out_filter(const char *path)
{
    if (strcmp(path, "-") == 0 || ends_with(path, ".tar"))
        return "";
    return ends_with(path, ".tar.zst") ? "zstd" : NULL;
}

static int
out_failed(struct archive_out *o)
{
    const char *text = archive_error_string(o->a);

    return o->rc != RC_OK ? o->rc : err_set(RC_IO, "cannot write tar: %s", text != NULL ? text : "unknown error");
}

static la_ssize_t
write_block(struct archive *a, void *data, const void *block, size_t bytes)
{
    struct archive_out *o = data;

    (void)a;
    if (o->rc == RC_OK && (o->rc = file_write_full(o->file.fd, block, bytes)) != RC_OK)
        (void)err_at(o->rc, "%s", o->file.path != NULL ? o->file.path : "stdout");
    return o->rc == RC_OK ? (la_ssize_t)bytes : -1;
}

int
archive_out_open(struct archive_out **out, const char *path)
{
    struct archive_out *o = mem_zalloc(1, sizeof(*o));
    int rc = RC_OS;

    *out = NULL;
    if (o == NULL)
        return RC_OS;
    o->file.fd = STDOUT_FILENO;
    if (strcmp(path, "-") != 0 && (rc = file_begin(&o->file, path)) != RC_OK)
        goto fail;
    rc = RC_OS;
    if ((o->a = archive_write_new()) == NULL)
        goto fail;
    (void)archive_write_set_format_pax_restricted(o->a);
    (void)archive_write_set_bytes_per_block(o->a, 0);
    if (strcmp(archive_out_filter(path), "zstd") == 0 && archive_write_add_filter_zstd(o->a) != ARCHIVE_OK) {
        rc = err_set(RC_UNAVAILABLE, "%s: libarchive was built without zstd", path);
        goto fail;
    }
    if (archive_write_open(o->a, o, NULL, write_block, NULL) != ARCHIVE_OK) {
        rc = out_failed(o);
        goto fail;
    }
    *out = o;
    return RC_OK;
fail:
    archive_out_close(o);
    return rc;
}

int
archive_out_begin(struct archive_out *o, const char *name, uint64_t bytes)
{
    struct archive_entry *e = archive_entry_new();
    int code;

    if (e == NULL)
        return RC_OS;
    archive_entry_set_pathname(e, name);
    archive_entry_set_size(e, (la_int64_t)bytes);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, 0644);
    archive_entry_set_mtime(e, 0, 0);
    o->left = bytes;
    code = archive_write_header(o->a, e);
    archive_entry_free(e);
    return code == ARCHIVE_OK ? RC_OK : out_failed(o);
}

int
archive_out_write(struct archive_out *o, const void *data, size_t bytes)
{
    const char *p = data;
    la_ssize_t n;

    if (bytes > o->left)
        return err_set(RC_BUG, "a member of the tar is longer than was said");
    for (; bytes > 0; p += n, bytes -= (size_t)n, o->left -= (uint64_t)n)
        if ((n = archive_write_data(o->a, p, bytes)) <= 0)
            return out_failed(o);
    return RC_OK;
}

int
archive_out_end(struct archive_out *o)
{
    if (o->left != 0)
        return err_set(RC_BUG, "a member of the tar is shorter than was said");
    return archive_write_finish_entry(o->a) == ARCHIVE_OK ? RC_OK : out_failed(o);
}

int
archive_out_commit(struct archive_out *o)
{
    if (archive_write_close(o->a) != ARCHIVE_OK)
        return out_failed(o);
    return o->file.path != NULL ? file_commit(&o->file) : RC_OK;
}

void
archive_out_close(struct archive_out *o)
{
    if (o == NULL)
        return;
    if (o->rc == RC_OK)
        o->rc = RC_RETRY; /* what is freed unfinished writes no more */
    if (o->a != NULL)
        (void)archive_write_free(o->a);
    if (o->file.path != NULL)
        file_abort(&o->file);
    mem_free(o);
}
