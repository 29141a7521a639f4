/* archive - read a file that may be compressed, through libarchive */
#include "archive.h"

#include "mem.h"
#include "msg.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum { BLOCK_BYTES = 1 << 16 };

struct archive_in {
    struct archive *a;
    char           *path;
    bool            empty; /* libarchive has no entry for a file of no bytes */
};

static int
fail(const struct archive_in *in)
{
    int e = archive_errno(in->a);
    const char *text = archive_error_string(in->a);

    if (e == ENOENT)
        return err_set(RC_NOINPUT, "%s: %s", in->path, strerror(e));
    return err_set(e == EIO || e == EACCES || e == EISDIR ? RC_IO : RC_DATA, "%s: cannot read: %s", in->path,
        text != NULL ? text : "damaged");
}

int
archive_in_open(struct archive_in **out, const char *path)
{
    struct archive_in *in = mem_zalloc(1, sizeof(*in));
    struct archive_entry *entry;
    struct stat st;
    int rc = RC_OS;

    *out = NULL;
    if (in == NULL || (in->path = mem_strdup(path)) == NULL || (in->a = archive_read_new()) == NULL)
        goto fail;
    if (stat(path, &st) != 0) {
        rc = err_set(errno == ENOENT || errno == ENOTDIR ? RC_NOINPUT : RC_IO, "%s: %s", path, strerror(errno));
        goto fail;
    }
    if (S_ISDIR(st.st_mode)) {
        rc = err_set(RC_IO, "%s: is a directory", path);
        goto fail;
    }
    /* Those that no text begins with: among all of them uu would take a text that has a line "begin 644 x". */
    (void)archive_read_support_filter_gzip(in->a);
    (void)archive_read_support_filter_bzip2(in->a);
    (void)archive_read_support_filter_xz(in->a);
    (void)archive_read_support_filter_zstd(in->a);
    (void)archive_read_support_filter_lz4(in->a);
    (void)archive_read_support_format_raw(in->a);
    (void)archive_read_support_format_empty(in->a);
    if (archive_read_open_filename(in->a, path, BLOCK_BYTES) != ARCHIVE_OK) {
        rc = fail(in);
        goto fail;
    }
    switch (archive_read_next_header(in->a, &entry)) {
    case ARCHIVE_OK:
        break;
    case ARCHIVE_EOF:
        in->empty = true;
        break;
    default:
        rc = fail(in);
        goto fail;
    }
    *out = in;
    return RC_OK;
fail:
    archive_in_close(in);
    return rc;
}

int
archive_in_read(struct archive_in *in, void *data, size_t size, size_t *got)
{
    la_ssize_t n = in->empty ? 0 : archive_read_data(in->a, data, size);

    *got = n > 0 ? (size_t)n : 0;
    return n < 0 ? fail(in) : RC_OK;
}

void
archive_in_close(struct archive_in *in)
{
    if (in == NULL)
        return;
    if (in->a != NULL)
        (void)archive_read_free(in->a);
    mem_free(in->path);
    mem_free(in);
}
