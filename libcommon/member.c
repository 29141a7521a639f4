/* member - a file, or a member of a tar named as if the tar were a directory */
#include "member.h"

#include "file.h"
#include "mem.h"
#include "msg.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK_BYTES = 16384, PROBE_BYTES = 64 };

struct item {
    char    *name; /* without "./" */
    uint64_t at, bytes;
    bool     link;
};

struct tar {
    const char  *path;
    int          fd;
    struct item *items;
    size_t       count, cap;
    size_t       root; /* length of what the names of the model's files begin with, its slash included */
    const char  *root_name;
};

static void
tar_close(struct tar *t)
{
    for (size_t i = 0; i < t->count; i++)
        mem_free(t->items[i].name);
    mem_free(t->items);
    if (t->fd >= 0)
        (void)close(t->fd);
    *t = (struct tar){ .fd = -1 };
}

/* Where libarchive stands is where the data begin; that is checked by the first of them. */
static int
check_start(const struct tar *t, struct archive *a, const struct item *it)
{
    char here[PROBE_BYTES], there[PROBE_BYTES];
    size_t want = it->bytes < PROBE_BYTES ? (size_t)it->bytes : PROBE_BYTES;
    la_ssize_t n = archive_read_data(a, here, want);

    if (n != (la_ssize_t)want || pread(t->fd, there, want, (off_t)it->at) != (ssize_t)want)
        return err_set(RC_DATA, "%s(%s): is cut", t->path, it->name);
    return memcmp(here, there, want) == 0 ? RC_OK : err_set(RC_DATA, "%s(%s): is not stored as it is", t->path,
        it->name);
}

static int
add_item(struct tar *t, struct archive *a, struct archive_entry *e)
{
    const char *name = archive_entry_pathname(e);
    bool link = archive_entry_filetype(e) == AE_IFLNK || archive_entry_hardlink(e) != NULL;
    struct item *it;

    while (name != NULL && strncmp(name, "./", 2) == 0)
        name += 2;
    if (name == NULL || (archive_entry_filetype(e) != AE_IFREG && !link))
        return RC_OK;
    if (archive_entry_sparse_count(e) > 0)
        return err_set(RC_DATA, "%s(%s): is stored as a sparse file", t->path, name);
    if ((it = mem_grow(t->items, &t->cap, t->count + 1, sizeof(*it))) == NULL)
        return RC_OS;
    t->items = it;
    it += t->count;
    *it = (struct item){ .at = (uint64_t)archive_filter_bytes(a, -1), .link = link,
        .bytes = (uint64_t)archive_entry_size(e) };
    if ((it->name = mem_strdup(name)) == NULL)
        return RC_OS;
    t->count++;
    return link ? RC_OK : check_start(t, a, it);
}

static int
no_tar(const struct tar *t, struct archive *a)
{
    static const struct { const char *magic; size_t bytes; } packed[] = { { "\x1f\x8b", 2 }, { "\x28\xb5\x2f\xfd", 4 },
        { "\xfd" "7zXZ", 5 }, { "BZh", 3 }, { "\x04\x22\x4d\x18", 4 } };
    char head[8] = "";
    const char *text = archive_error_string(a);

    for (size_t i = 0; pread(t->fd, head, sizeof(head), 0) > 0 && i < sizeof(packed) / sizeof(packed[0]); i++)
        if (memcmp(head, packed[i].magic, packed[i].bytes) == 0)
            return err_set(RC_DATA, "%s: is compressed, and only a plain tar is read where it lies: decompress it",
                t->path);
    return err_set(RC_DATA, "%s: neither a directory nor a tar: %s", t->path, text != NULL ? text : "unknown format");
}

static size_t
depth_of(const char *name, size_t *root)
{
    size_t depth = 0;

    *root = 0;
    for (const char *p = name; (p = strchr(p, '/')) != NULL; p++) {
        depth++;
        *root = (size_t)(p - name) + 1;
    }
    return depth;
}

/* The directory of the config.json that is least deep; without one, the top. */
static int
find_root(struct tar *t)
{
    size_t least = SIZE_MAX, root;
    bool twice = false;

    t->root_name = "";
    for (size_t i = 0; i < t->count; i++) {
        size_t depth = depth_of(t->items[i].name, &root);

        if (strcmp(t->items[i].name + root, "config.json") != 0 || depth > least)
            continue;
        twice = depth == least && (root != t->root || strncmp(t->items[i].name, t->root_name, root) != 0);
        least = depth;
        t->root = root;
        t->root_name = t->items[i].name;
    }
    return twice ? err_set(RC_DATA, "%s: has several models", t->path) : RC_OK;
}

static int
tar_open(struct tar *t, const char *path)
{
    struct archive *a = archive_read_new();
    struct archive_entry *e;
    int code = ARCHIVE_FATAL, rc = a == NULL ? RC_OS : RC_OK;

    *t = (struct tar){ .path = path, .fd = -1 };
    if (rc == RC_OK && (t->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) < 0)
        rc = err_set(errno == ENOENT || errno == ENOTDIR ? RC_NOINPUT : RC_IO, "%s: cannot open: %s", path,
            strerror(errno));
    if (rc == RC_OK) {
        (void)archive_read_support_format_tar(a);
        if (archive_read_open_fd(a, t->fd, BLOCK_BYTES) != ARCHIVE_OK)
            rc = no_tar(t, a);
    }
    while (rc == RC_OK && (code = archive_read_next_header(a, &e)) == ARCHIVE_OK)
        rc = add_item(t, a, e);
    if (rc == RC_OK && code != ARCHIVE_EOF)
        rc = t->count == 0 ? no_tar(t, a) : err_set(RC_DATA, "%s: %s", path, archive_error_string(a));
    if (a != NULL)
        (void)archive_read_free(a);
    if (rc == RC_OK)
        rc = find_root(t);
    if (rc != RC_OK)
        tar_close(t);
    return rc;
}

/* The name beside config.json; NULL: it lies elsewhere. */
static const char *
name_in(const struct tar *t, const struct item *it)
{
    const char *name = it->name + t->root;

    return strlen(it->name) > t->root && strncmp(it->name, t->root_name, t->root) == 0 && strchr(name, '/') == NULL ?
        name : NULL;
}

static int
open_in_tar(struct member *m, const char *tar, const char *name)
{
    const struct item *found = NULL;
    struct tar t;
    int rc;

    TRY(tar_open(&t, tar));
    for (size_t i = 0; i < t.count; i++) { /* of several the last one counts, as it does when a tar is unpacked */
        const char *s = name_in(&t, &t.items[i]);

        if (s != NULL && strcmp(s, name) == 0)
            found = &t.items[i];
    }
    if (found == NULL)
        rc = err_set(RC_NOINPUT, "%s(%s): is not there", tar, name);
    else if (found->link)
        rc = err_set(RC_DATA, "%s(%s): is a link; tar --dereference stores files", tar, name);
    else if (lseek(t.fd, (off_t)found->at, SEEK_SET) < 0)
        rc = err_set(RC_IO, "%s: cannot seek: %s", tar, strerror(errno));
    else
        rc = RC_OK;
    if (rc == RC_OK) {
        *m = (struct member){ .fd = t.fd, .at = found->at, .bytes = found->bytes };
        t.fd = -1;
    }
    tar_close(&t);
    return rc;
}

int
member_open(struct member *m, const char *path)
{
    const char *slash = strrchr(path, '/');
    char tar[PATH_MAX];
    struct stat sb;

    *m = (struct member){ .fd = open(path, O_RDONLY | O_CLOEXEC) };
    if (m->fd >= 0) {
        if (fstat(m->fd, &sb) == 0)
            m->bytes = S_ISREG(sb.st_mode) ? (uint64_t)sb.st_size : UINT64_MAX;
        return RC_OK;
    }
    if (errno == ENOTDIR && slash != NULL && (size_t)(slash - path) < sizeof(tar)) {
        (void)snprintf(tar, sizeof(tar), "%.*s", (int)(slash - path), path);
        return open_in_tar(m, tar, slash + 1);
    }
    return err_set(errno == ENOENT || errno == ENOTDIR ? RC_NOINPUT : RC_IO, "%s: cannot open: %s", path,
        strerror(errno));
}

int
member_read(const struct member *m, uint64_t *left, void *data, size_t bytes, size_t *got)
{
    TRY(file_read_full(m->fd, data, bytes < *left ? bytes : (size_t)*left, got));
    *left -= *got;
    return RC_OK;
}

bool
member_exists(const char *path)
{
    struct member m;
    int rc;

    if (access(path, F_OK) == 0)
        return true;
    if (errno != ENOTDIR || (rc = member_open(&m, path)) == RC_NOINPUT)
        return false;
    if (rc == RC_OK)
        (void)close(m.fd);
    return true; /* what it is instead of a file, its reader will say */
}

bool
member_is_tar(const char *path)
{
    struct stat sb;

    return stat(path, &sb) == 0 && !S_ISDIR(sb.st_mode);
}

static int
list_tar(const char *path, int (*fn)(void *ctx, const char *name), void *ctx)
{
    struct tar t;
    const char *name;
    int rc;

    TRY(tar_open(&t, path));
    rc = RC_OK;
    for (size_t i = 0; i < t.count && rc == RC_OK; i++) {
        bool again = false;

        if ((name = name_in(&t, &t.items[i])) == NULL)
            continue;
        for (size_t k = 0; k < i && !again; k++)
            again = strcmp(t.items[k].name, t.items[i].name) == 0;
        if (!again)
            rc = fn(ctx, name);
    }
    tar_close(&t);
    return rc;
}

int
member_list(const char *path, int (*fn)(void *ctx, const char *name), void *ctx)
{
    DIR *d = opendir(path);
    struct dirent *e;
    struct stat sb;
    int rc = RC_OK;

    if (d == NULL && errno == ENOTDIR)
        return list_tar(path, fn, ctx);
    if (d == NULL)
        return err_set(errno == ENOENT ? RC_NOINPUT : RC_IO, "%s: cannot open directory: %s", path, strerror(errno));
    while (rc == RC_OK && (errno = 0, e = readdir(d)) != NULL)
        if (fstatat(dirfd(d), e->d_name, &sb, 0) == 0 && S_ISREG(sb.st_mode))
            rc = fn(ctx, e->d_name);
    if (rc == RC_OK && errno != 0)
        rc = err_set(RC_IO, "%s: cannot read directory: %s", path, strerror(errno));
    (void)closedir(d);
    return rc;
}
