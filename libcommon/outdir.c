/* outdir - a checkpoint directory in the making */
#include "outdir.h"

#include "file.h"
#include "mem.h"
#include "msg.h"
#include "safetensors.h"
#include "stop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- the directory --- */

/* A flat directory of our own making. */
static void
remove_dir(const char *dir)
{
    char path[PATH_MAX];
    struct dirent *e;
    DIR *d = opendir(dir);

    if (d == NULL)
        return;
    while ((e = readdir(d)) != NULL) {
        int n = snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);

        if (n > 0 && n < PATH_MAX && strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            (void)unlink(path);
    }
    (void)closedir(d);
    (void)rmdir(dir);
}

/* Temporary directories beside OUT that killed runs have left. */
static void
collect_stale(const char *out)
{
    char path[PATH_MAX];
    const char *slash = strrchr(out, '/');
    int n = slash != NULL ? (int)(slash - out) : 1;
    struct dirent *e;
    DIR *d;

    (void)snprintf(path, sizeof(path), "%.*s", n > 0 ? n : 1, slash != NULL ? out : ".");
    if ((d = opendir(path)) == NULL)
        return;
    while ((e = readdir(d)) != NULL)
        if (file_is_stale(e->d_name, slash != NULL ? slash + 1 : out)) {
            (void)snprintf(path, sizeof(path), "%.*s%s", slash != NULL ? n + 1 : 0, out, e->d_name);
            remove_dir(path);
        }
    (void)closedir(d);
}

int
outdir_begin(struct outdir *d, const char *out, bool force)
{
    struct stat st;
    char *tmp;
    int n;

    *d = (struct outdir){ .out = out, .force = force };
    if ((d->outputs = json_object()) == NULL)
        return err_set(RC_OS, "out of memory");
    if (stat(out, &st) == 0 && rmdir(out) != 0) {
        if (!force)
            return err_set(RC_CANTCREATE, "%s: exists already", out);
        n = snprintf(d->dir, sizeof(d->dir), "%s/provenance.json", out);
        if (n < 0 || n >= PATH_MAX || access(d->dir, F_OK) != 0)
            return err_set(RC_CANTCREATE, "%s: is no checkpoint that llmc made, and is not replaced", out);
    }
    n = snprintf(d->dir, sizeof(d->dir), "%s", out);
    while (n > 1 && n < PATH_MAX && d->dir[n - 1] == '/')
        d->dir[--n] = '\0';
    collect_stale(d->dir);
    if ((tmp = file_tmp_name(d->dir)) == NULL)
        return RC_OS;
    n = snprintf(d->dir, sizeof(d->dir), "%s", tmp);
    mem_free(tmp);
    if (n < 0 || n >= PATH_MAX)
        return err_set(RC_DATA, "%s: path is too long", out);
    TRY(file_mkdir(d->dir));
    d->open = true;
    return RC_OK;
}

int
outdir_commit(struct outdir *d)
{
    int fd = open(d->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) != 0)
        return err_set(RC_IO, "%s: cannot write: %s", d->dir, strerror(errno));
    (void)close(fd);
    if (!d->force || access(d->out, F_OK) != 0) {
        if (rename(d->dir, d->out) != 0)
            return err_set(RC_CANTCREATE, "%s: cannot create: %s", d->out, strerror(errno));
        d->open = false;
        return RC_OK;
    }
    /* the two change places in one step; outdir_end() removes the old one */
    if (renameat2(AT_FDCWD, d->dir, AT_FDCWD, d->out, RENAME_EXCHANGE) != 0)
        return err_set(RC_CANTCREATE, "%s: cannot replace: %s", d->out, strerror(errno));
    return RC_OK;
}

void
outdir_end(struct outdir *d)
{
    if (d->open)
        remove_dir(d->dir);
    json_decref(d->outputs);
    *d = (struct outdir){ 0 };
}

/* --- files --- */

static int
outfile_open(const struct outdir *d, struct outfile *f, const char *name)
{
    int n = snprintf(f->path, PATH_MAX, "%s/%s", d->dir, name);

    if (n < 0 || n >= PATH_MAX)
        return err_set(RC_DATA, "%s: path is too long", name);
    (void)snprintf(f->name, sizeof(f->name), "%s", name);
    digest_init(&f->digest);
    f->fd = open(f->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return f->fd >= 0 ? RC_OK : err_set(RC_CANTCREATE, "%s: cannot create: %s", f->path, strerror(errno));
}

int
outfile_write(struct outfile *f, const void *data, size_t bytes)
{
    TRY(stop_check());
    digest_add(&f->digest, data, bytes);
    if (file_write_full(f->fd, data, bytes) != RC_OK)
        return err_at(RC_IO, "%s", f->path);
    return RC_OK;
}

/* A file that was never opened is fine. */
static int
outfile_close(struct outdir *d, struct outfile *f, int rc)
{
    char hex[DIGEST_HEX];

    if (f->name[0] == '\0')
        return rc;
    if (f->fd >= 0 && rc == RC_OK && fsync(f->fd) != 0)
        rc = err_set(RC_IO, "%s: cannot write: %s", f->path, strerror(errno));
    if (f->fd >= 0 && close(f->fd) != 0 && rc == RC_OK)
        rc = err_set(RC_IO, "%s: cannot write: %s", f->path, strerror(errno));
    if (rc != RC_OK) {
        digest_free(&f->digest);
        return rc;
    }
    TRY(digest_hex(&f->digest, hex));
    return json_object_set_new(d->outputs, f->name, json_string(hex)) == 0 ? RC_OK : err_set(RC_OS, "out of memory");
}

static int
write_file(struct outdir *d, const char *name, const void *data, size_t bytes)
{
    struct outfile f = { .fd = -1 };
    int rc = outfile_open(d, &f, name);

    if (rc == RC_OK && bytes > 0)
        rc = outfile_write(&f, data, bytes);
    return outfile_close(d, &f, rc);
}

int
outdir_text(struct outdir *d, const char *name, const char *text)
{
    return write_file(d, name, text, strlen(text));
}

int
outdir_json(struct outdir *d, const char *name, const json_t *json)
{
    char *text;
    int rc;

    TRY(jdump(json, true, &text));
    rc = outdir_text(d, name, text);
    mem_free(text);
    return rc;
}

int
outdir_copy(struct outdir *d, const char *from_dir, const char *name)
{
    char *from = file_join(from_dir, name);
    struct buf b = { 0 };
    int rc = from == NULL ? RC_OS : buf_read_file(&b, from, (size_t)1 << 31);

    if (rc == RC_OK)
        rc = write_file(d, name, b.s, b.len);
    buf_free(&b);
    mem_free(from);
    return rc;
}

/* --- tensors --- */

static void
shard_name(int shard, int shards, char *out, size_t size)
{
    if (shards == 1)
        (void)snprintf(out, size, "model.safetensors");
    else
        (void)snprintf(out, size, "model-%05d-of-%05d.safetensors", shard + 1, shards);
}

/* Consecutive tensors fill a shard up to the limit; first[k] is the first of shard k, and count after the last. */
static int
cut_shards(const struct tensor *t, size_t count, size_t limit, size_t *first)
{
    size_t used = 0;
    int shards = 1;

    first[0] = 0;
    for (size_t i = 0; i < count; i++) {
        if (used > 0 && used + t[i].bytes > limit) {
            first[shards++] = i;
            used = 0;
        }
        used += t[i].bytes;
    }
    first[shards] = count;
    return shards;
}

/* Tensors first to end, in the order that the header puts them. */
static int
write_shard(struct outdir *d, const struct tensor *all, size_t first, size_t end, const char *name,
    outdir_tensor_fn *fn, void *ctx)
{
    struct st_meta meta[] = { { "format", "pt" } };
    struct tensor *t = mem_alloc(end - first, sizeof(*t));
    struct outfile f = { .fd = -1 };
    size_t header_bytes;
    char *header = NULL;
    int rc = t == NULL ? RC_OS : RC_OK;

    for (size_t i = first; rc == RC_OK && i < end; i++) {
        t[i - first] = all[i];
        t[i - first].data = &all[i]; /* to tell which it is after sorting */
    }
    if (rc == RC_OK && (rc = st_header(t, end - first, meta, 1, &header, &header_bytes)) == RC_OK &&
        (rc = outfile_open(d, &f, name)) == RC_OK)
        rc = outfile_write(&f, header, header_bytes);
    for (size_t i = 0; rc == RC_OK && i < end - first; i++)
        rc = fn(ctx, (size_t)((const struct tensor *)t[i].data - all), &f);
    rc = outfile_close(d, &f, rc);
    mem_free(header);
    mem_free(t);
    return rc;
}

static int
write_index(struct outdir *d, const struct tensor *t, const size_t *first, int shards)
{
    json_t *map = json_object(), *index;
    json_int_t total = 0;
    char name[64];
    int rc;

    for (int s = 0; s < shards; s++) {
        shard_name(s, shards, name, sizeof(name));
        for (size_t i = first[s]; i < first[s + 1]; i++) {
            (void)json_object_set_new(map, t[i].name, json_string(name));
            total += (json_int_t)t[i].bytes;
        }
    }
    index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", total, "weight_map", map);
    if (index == NULL)
        return err_set(RC_OS, "out of memory");
    rc = outdir_json(d, "model.safetensors.index.json", index);
    json_decref(index);
    return rc;
}

int
outdir_tensors(struct outdir *d, const struct tensor *t, size_t count, size_t shard_bytes, outdir_tensor_fn *fn,
    void *ctx, int *shards)
{
    size_t *first = mem_alloc(count + 2, sizeof(*first));
    char name[64];
    int rc = first == NULL ? RC_OS : RC_OK;

    *shards = rc == RC_OK ? cut_shards(t, count, shard_bytes, first) : 0;
    for (int s = 0; s < *shards && rc == RC_OK; s++) {
        msg_status("llmc-pack: shard %d of %d", s + 1, *shards);
        shard_name(s, *shards, name, sizeof(name));
        rc = write_shard(d, t, first[s], first[s + 1], name, fn, ctx);
    }
    if (rc == RC_OK && *shards > 1)
        rc = write_index(d, t, first, *shards);
    mem_free(first);
    return rc;
}
