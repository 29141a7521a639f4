/* outdir - a checkpoint in the making */
#include "outdir.h"

#include "mem.h"
#include "msg.h"
#include "stop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* What is in memory of a mapped tensor, and what is written before the disk is told to begin: enough for its rate. */
enum { WINDOW_BYTES = 4 << 20 };

static const char sidecar[] = ".sha256";

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

/* -1: somebody else has it. */
static int
lock_dir(const char *dir, int how)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0 && flock(fd, how | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        (void)close(fd);
        fd = -1;
    }
    return fd;
}

/* STEM.tmp.KEY, or what a rank made of it to finish it: STEM.tmp.KEY.tmp.HOST.PID. */
static bool
has_key(const char *name, const char *stem)
{
    size_t n = strlen(stem), digits;
    const char *key = name + n + 5;

    if (strncmp(name, stem, n) != 0 || strncmp(name + n, ".tmp.", 5) != 0)
        return false;
    digits = strspn(key, "0123456789abcdef");
    return digits > 0 && (key[digits] == '\0' || strncmp(key + digits, ".tmp.", 5) == 0);
}

/* What lies beside dir, by name and path. */
typedef void beside_fn(void *ctx, const char *name, const char *path);

static void
each_beside(const char *dir, beside_fn *fn, void *ctx)
{
    char path[PATH_MAX];
    const char *slash = strrchr(dir, '/');
    int n = slash != NULL ? (int)(slash - dir) : 1;
    struct dirent *e;
    DIR *d;

    (void)snprintf(path, sizeof(path), "%.*s", n > 0 ? n : 1, slash != NULL ? dir : ".");
    if ((d = opendir(path)) == NULL)
        return;
    while ((e = readdir(d)) != NULL) {
        (void)snprintf(path, sizeof(path), "%.*s%s", slash != NULL ? n + 1 : 0, dir, e->d_name);
        fn(ctx, e->d_name, path);
    }
    (void)closedir(d);
}

static const char *
base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL ? slash + 1 : path;
}

struct stale {
    const char *stem, *mine;
};

static void
collect_one(void *ctx, const char *name, const char *path)
{
    const struct stale *s = ctx;
    int fd;

    if (file_is_stale(name, s->stem)) {
        remove_dir(path);
    } else if (has_key(name, s->stem) && strncmp(path, s->mine, strlen(s->mine)) != 0 &&
        (fd = lock_dir(path, LOCK_EX)) >= 0) {
        remove_dir(path);
        (void)close(fd);
    }
}

/* Temporary directories beside OUT that killed runs have left, but what we go on with. */
static void
collect_stale(const char *out, const char *mine)
{
    each_beside(out, collect_one, &(struct stale){ base_name(out), mine });
}

struct claims {
    const char *dir; /* OUT.tmp.KEY */
    bool        busy;
};

static void
one_claim(void *ctx, const char *name, const char *path)
{
    struct claims *c = ctx;
    const char *stem = base_name(c->dir);
    size_t n = strlen(stem);
    int fd;

    if (strncmp(name, stem, n) != 0 || strncmp(name + n, ".tmp.", 5) != 0)
        return;
    if ((fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return; /* it has just become OUT */
    if (!file_is_stale(name, stem) && flock(fd, LOCK_EX | LOCK_NB) != 0)
        c->busy = true;
    else if (rename(path, c->dir) != 0 && errno != ENOENT)
        remove_dir(path); /* others have begun anew */
    (void)close(fd);
}

/* A rank that finishes has given OUT.tmp.KEY a name of its own: true while it is at it. If it was killed, the directory
 * gets its old name back. */
static bool
finishing(const struct outdir *d)
{
    struct claims c = { d->dir, false };

    if (d->o.key != NULL)
        each_beside(d->dir, one_claim, &c);
    return c.busy;
}

/* The directory that we have locked has another name by now. */
static bool
moved(const struct outdir *d)
{
    struct stat a, b;

    return d->lock >= 0 && fstat(d->lock, &a) == 0 &&
        (stat(d->dir, &b) != 0 || a.st_ino != b.st_ino || a.st_dev != b.st_dev);
}

bool
outdir_is_tar(const char *out)
{
    return archive_out_filter(out) != NULL;
}

static int
begin_tar(struct outdir *d)
{
    struct stat st;

    if (strcmp(d->o.out, "-") != 0 && stat(d->o.out, &st) == 0 && S_ISREG(st.st_mode) && !d->o.force)
        return err_set(RC_CANTCREATE, "%s: exists already", d->o.out);
    if (strcmp(d->o.out, "-") == 0 && isatty(STDOUT_FILENO))
        return err_set(RC_USAGE, "standard output is a terminal, and gets no tar");
    return archive_out_open(&d->tar, d->o.out);
}

static int
check_out(const struct outdir *d)
{
    char path[PATH_MAX];
    struct stat st;
    int n;

    if (stat(d->o.out, &st) != 0 || rmdir(d->o.out) == 0)
        return RC_OK;
    if (!d->o.force)
        return err_set(RC_CANTCREATE, "%s: exists already", d->o.out);
    n = snprintf(path, sizeof(path), "%s/provenance.json", d->o.out);
    return n > 0 && n < PATH_MAX && access(path, F_OK) == 0 ? RC_OK :
        err_set(RC_CANTCREATE, "%s: is no checkpoint that llmc made, and is not replaced", d->o.out);
}

/* Several ranks need only one that finishes; whoever comes then has nothing to do. */
static int
somebody(struct outdir *d)
{
    d->over = d->o.ranks > 1;
    return d->over ? RC_OK : err_set(RC_RETRY, "%s: somebody else is at work on it", d->o.out);
}

/* OUT.tmp.KEY, made and locked. Whatever happens meanwhile, what is made is there under one of three names, which it
 * has one after the other: this, that of who finishes it, OUT. They are looked at in this order. */
static int
make_dir(struct outdir *d)
{
    char out[PATH_MAX];
    char *tmp = NULL;
    int n = snprintf(out, sizeof(out), "%s", d->o.out);

    while (n > 1 && n < PATH_MAX && out[n - 1] == '/')
        out[--n] = '\0';
    if (d->o.key == NULL && (tmp = file_tmp_name(out)) == NULL)
        return RC_OS;
    n = tmp != NULL ? snprintf(d->dir, sizeof(d->dir), "%s", tmp) :
        snprintf(d->dir, sizeof(d->dir), "%s.tmp.%.16s", out, d->o.key);
    mem_free(tmp);
    if (n < 0 || n >= PATH_MAX)
        return err_set(RC_DATA, "%s: path is too long", d->o.out);
    collect_stale(out, d->dir);
    if (finishing(d))
        return somebody(d);
    TRY(file_mkdir(d->dir));
    if ((d->lock = lock_dir(d->dir, d->o.ranks > 1 ? LOCK_SH : LOCK_EX)) < 0)
        return err_set(RC_RETRY, "%s: somebody else is at work on it", d->dir);
    if (d->o.ranks > 1 && (moved(d) || finishing(d) || access(out, F_OK) == 0)) {
        (void)rmdir(d->dir); /* fails but for the one that we have just made */
        return access(out, F_OK) == 0 ? check_out(d) : somebody(d);
    }
    d->open = true;
    file_collect(d->dir);
    return RC_OK;
}

int
outdir_begin(struct outdir *d, const struct outdir_opts *o)
{
    *d = (struct outdir){ .o = *o, .lock = -1 };
    if (d->o.ranks < 1)
        d->o.ranks = 1;
    if ((d->outputs = json_object()) == NULL)
        return err_set(RC_OS, "out of memory");
    if (outdir_is_tar(o->out))
        return begin_tar(d);
    TRY(check_out(d));
    return make_dir(d);
}

/* Removes what is for the making alone. */
static void
drop_sidecars(struct outdir *d)
{
    char path[PATH_MAX];
    const char *name;
    json_t *v;

    json_object_foreach(d->outputs, name, v)
        if (snprintf(path, sizeof(path), "%s/%s%s", d->dir, name, sidecar) < PATH_MAX)
            (void)unlink(path);
}

int
outdir_commit(struct outdir *d)
{
    int fd;

    if (d->tar != NULL)
        return archive_out_commit(d->tar);
    drop_sidecars(d);
    if ((fd = open(d->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 || fsync(fd) != 0)
        return err_set(RC_IO, "%s: cannot write: %s", d->dir, strerror(errno));
    (void)close(fd);
    if (!d->o.force || access(d->o.out, F_OK) != 0) {
        if (rename(d->dir, d->o.out) != 0)
            return err_set(RC_CANTCREATE, "%s: cannot create: %s", d->o.out, strerror(errno));
        d->open = false;
        return RC_OK;
    }
    /* the two change places in one step; outdir_end() removes the old one */
    if (renameat2(AT_FDCWD, d->dir, AT_FDCWD, d->o.out, RENAME_EXCHANGE) != 0)
        return err_set(RC_CANTCREATE, "%s: cannot replace: %s", d->o.out, strerror(errno));
    d->replaced = true;
    return RC_OK;
}

/* Some shard is finished: it and its digest are there. */
static bool
goes_on(const struct outdir *d)
{
    char path[PATH_MAX];
    struct dirent *e;
    DIR *dir;
    bool found = false;

    if (d->o.key == NULL || d->replaced || (dir = opendir(d->dir)) == NULL)
        return false;
    while (!found && (e = readdir(dir)) != NULL) {
        int stem = (int)(strlen(e->d_name) - strlen(sidecar));

        found = fnmatch("*.safetensors.sha256", e->d_name, 0) == 0 &&
            snprintf(path, sizeof(path), "%s/%.*s", d->dir, stem, e->d_name) < PATH_MAX && access(path, F_OK) == 0;
    }
    (void)closedir(dir);
    return found;
}

void
outdir_end(struct outdir *d)
{
    archive_out_close(d->tar);
    if (d->open && d->o.ranks <= 1 && !goes_on(d))
        remove_dir(d->dir);
    if (d->open && d->named > 0) { /* the next may finish it */
        char to[PATH_MAX];

        (void)snprintf(to, sizeof(to), "%.*s", d->named, d->dir);
        (void)rename(d->dir, to);
    }
    if (d->lock >= 0)
        (void)close(d->lock);
    json_decref(d->outputs);
    *d = (struct outdir){ .lock = -1 };
}

/* --- files --- */

static int
outfile_open(const struct outdir *d, struct outfile *f, const char *name, uint64_t bytes)
{
    int n = snprintf(f->path, PATH_MAX, "%s/%s", d->dir, name);

    if (n < 0 || n >= PATH_MAX)
        return err_set(RC_DATA, "%s: path is too long", name);
    f->tar = d->tar;
    f->shell = d->o.shell;
    digest_init(&f->digest);
    return d->tar != NULL ? archive_out_begin(d->tar, name, bytes) : file_begin(&f->file, f->path);
}

/* So that the disk is at work while we are, and what is written does not pile up in memory. */
static void
write_back(struct outfile *f)
{
    off_t window = WINDOW_BYTES, at = (off_t)f->started;

    while (f->at - f->started >= WINDOW_BYTES) {
        (void)sync_file_range(f->file.fd, at, window, SYNC_FILE_RANGE_WRITE);
        if (at >= 4 * window) {
            (void)sync_file_range(f->file.fd, at - 4 * window, window,
                SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
            (void)posix_fadvise(f->file.fd, at - 4 * window, window, POSIX_FADV_DONTNEED);
        }
        f->started += WINDOW_BYTES;
        at += window;
    }
}

int
outfile_write(struct outfile *f, const void *data, size_t bytes)
{
    TRY(stop_check());
    digest_add(&f->digest, data, bytes);
    if (f->tar != NULL)
        return archive_out_write(f->tar, data, bytes);
    if (file_write_full(f->file.fd, data, bytes) != RC_OK)
        return err_at(RC_IO, "%s", f->path);
    f->at += bytes;
    write_back(f);
    return RC_OK;
}

/* The part of a tensor's bytes from `at`. */
static struct tensor
window_of(const struct tensor *t, size_t at)
{
    struct tensor w = *t;

    w.data = (const char *)t->data + at;
    w.bytes = t->bytes - at < WINDOW_BYTES ? t->bytes - at : WINDOW_BYTES;
    return w;
}

int
outfile_write_mapped(struct outfile *f, const struct st_file *st, const struct tensor *t,
    int (*check)(const struct tensor *window))
{
    struct tensor w, next;

    if (f->shell) {
        if (ftruncate(f->file.fd, (off_t)(f->at + t->bytes)) != 0 || lseek(f->file.fd, (off_t)t->bytes, SEEK_CUR) < 0)
            return err_set(RC_IO, "%s: cannot write: %s", f->path, strerror(errno));
        f->at += t->bytes;
        f->started = f->at;
        return RC_OK;
    }
    for (size_t at = 0; at < t->bytes; at += w.bytes) {
        w = window_of(t, at);
        if (at == 0)
            st_prefetch(st, &w);
        if (at + w.bytes < t->bytes) {
            next = window_of(t, at + w.bytes);
            st_prefetch(st, &next);
        }
        if (check != NULL)
            TRY(check(&w));
        TRY(outfile_write(f, w.data, w.bytes));
        st_drop(st, &w);
    }
    return RC_OK;
}

/* As sha256sum prints it. Not synced: if it is lost the file is read again. */
static int
note_digest(const char *of, const char *hex)
{
    char path[PATH_MAX], line[DIGEST_HEX + NAME_MAX + 4];

    (void)snprintf(line, sizeof(line), "%s  %s\n", hex, base_name(of));
    if (snprintf(path, sizeof(path), "%s%s", of, sidecar) >= PATH_MAX)
        return err_set(RC_DATA, "%s: path is too long", of);
    return file_publish_quick(path, line, strlen(line));
}

/* Ends it, well if rc is RC_OK; hex gets its digest. note: that goes beside it, and before it, since another rank takes
 * the directory away as soon as it sees the last shard. */
static int
outfile_close(struct outfile *f, int rc, bool note, char hex[DIGEST_HEX])
{
    if (rc == RC_OK)
        rc = digest_hex(&f->digest, hex);
    else
        digest_free(&f->digest);
    if (rc == RC_OK && note)
        rc = note_digest(f->path, hex);
    if (f->tar != NULL)
        return rc == RC_OK ? archive_out_end(f->tar) : rc;
    if (rc == RC_OK)
        return file_commit(&f->file);
    file_abort(&f->file);
    return rc;
}

static int
add_output(struct outdir *d, const char *name, const char *hex)
{
    return json_object_set_new(d->outputs, name, json_string(hex)) == 0 ? RC_OK : err_set(RC_OS, "out of memory");
}

static int
write_file(struct outdir *d, const char *name, const void *data, size_t bytes)
{
    struct outfile f = { .file.fd = -1 };
    char hex[DIGEST_HEX];
    int rc = outfile_open(d, &f, name, bytes);

    if (rc == RC_OK && bytes > 0)
        rc = outfile_write(&f, data, bytes);
    TRY(outfile_close(&f, rc, false, hex));
    return add_output(d, name, hex);
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
    outdir_tensor_fn *fn, void *ctx, bool note, char hex[DIGEST_HEX])
{
    struct st_meta meta[] = { { "format", "pt" } };
    struct tensor *t = mem_alloc(end - first, sizeof(*t));
    struct outfile f = { .file.fd = -1 };
    uint64_t bytes = 0;
    size_t header_bytes;
    char *header = NULL;
    int rc = t == NULL ? RC_OS : RC_OK;

    for (size_t i = first; rc == RC_OK && i < end; i++) {
        t[i - first] = all[i];
        t[i - first].data = &all[i]; /* to tell which it is after sorting */
        bytes += all[i].bytes;
    }
    if (rc == RC_OK && (rc = st_header(t, end - first, meta, 1, &header, &header_bytes)) == RC_OK &&
        (rc = outfile_open(d, &f, name, bytes + header_bytes)) == RC_OK)
        rc = outfile_write(&f, header, header_bytes);
    for (size_t i = 0; rc == RC_OK && i < end - first; i++)
        rc = fn(ctx, (size_t)((const struct tensor *)t[i].data - all), &f);
    rc = outfile_close(&f, rc, note, hex);
    mem_free(header);
    mem_free(t);
    return rc;
}

/* The digest of a finished shard: as it was noted, else anew. RC_RETRY: the shard is not there. */
static int
finished(const struct outdir *d, const char *name, char hex[DIGEST_HEX])
{
    char path[PATH_MAX];
    struct buf b = { 0 };
    int n = snprintf(path, sizeof(path), "%s/%s%s", d->dir, name, sidecar), rc;

    if (n < 0 || n >= PATH_MAX)
        return err_set(RC_DATA, "%s: path is too long", d->dir);
    rc = buf_read_file(&b, path, PATH_MAX);
    path[n - (int)strlen(sidecar)] = '\0';
    if (access(path, F_OK) != 0)
        rc = RC_RETRY;
    else if (rc == RC_OK && b.len > DIGEST_HEX && strspn(b.s, "0123456789abcdef") == DIGEST_HEX - 1)
        (void)snprintf(hex, DIGEST_HEX, "%.*s", DIGEST_HEX - 1, b.s);
    else
        rc = digest_file(path, hex);
    buf_free(&b);
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

struct shards {
    struct outdir       *d;
    const struct tensor *t;
    size_t              *first;
    int                  count;
    outdir_tensor_fn    *fn;
    void                *ctx;
    pthread_mutex_t      lock; /* of what follows and of d */
    int                  rc;
    char                 why[1024];
};

static int
one_shard(struct shards *s, int shard)
{
    char name[64], hex[DIGEST_HEX];
    struct outdir *d = s->d;
    bool keep = d->o.key != NULL && d->tar == NULL && !d->o.shell && (s->count > 1 || d->o.ranks > 1);
    int rc = RC_RETRY;

    shard_name(shard, s->count, name, sizeof(name));
    if (keep && (rc = finished(d, name, hex)) != RC_OK && rc != RC_RETRY)
        return rc;
    if (rc == RC_RETRY)
        TRY(write_shard(d, s->t, s->first[shard], s->first[shard + 1], name, s->fn, s->ctx, keep, hex));
    (void)pthread_mutex_lock(&s->lock);
    rc = add_output(d, name, hex);
    (void)pthread_mutex_unlock(&s->lock);
    return rc;
}

static void
shard_tile(void *ctx, int tile, int worker)
{
    struct shards *s = ctx;
    int shard = tile * s->d->o.ranks + s->d->o.rank, rc;

    (void)worker;
    if (__atomic_load_n(&s->rc, __ATOMIC_RELAXED) != RC_OK)
        return;
    msg_status("llmc-pack: shard %d of %d", shard + 1, s->count);
    if ((rc = one_shard(s, shard)) == RC_OK)
        return;
    (void)pthread_mutex_lock(&s->lock);
    if (s->rc == RC_OK) {
        (void)snprintf(s->why, sizeof(s->why), "%s", err_text());
        __atomic_store_n(&s->rc, rc, __ATOMIC_RELAXED);
    }
    (void)pthread_mutex_unlock(&s->lock);
}

int
outdir_tensors(struct outdir *d, const struct tensor *t, size_t count, size_t shard_bytes, outdir_tensor_fn *fn,
    void *ctx, int *shards)
{
    struct shards s = { .d = d, .t = t, .fn = fn, .ctx = ctx, .lock = PTHREAD_MUTEX_INITIALIZER };
    int tiles;

    *shards = 0;
    if (d->over)
        return RC_OK;
    if ((s.first = mem_alloc(count + 2, sizeof(*s.first))) == NULL)
        return RC_OS;
    *shards = s.count = cut_shards(t, count, shard_bytes, s.first);
    tiles = s.count > d->o.rank ? (s.count - d->o.rank + d->o.ranks - 1) / d->o.ranks : 0;
    if (d->o.pool != NULL && d->tar == NULL)
        pool_run(d->o.pool, tiles, shard_tile, &s);
    else
        for (int i = 0; i < tiles; i++)
            shard_tile(&s, i, 0);
    mem_free(s.first);
    d->over = s.rc != RC_OK && d->o.ranks > 1 && moved(d); /* our shards were there, too */
    return s.rc != RC_OK && !d->over ? err_set(s.rc, "%s", s.why) : RC_OK;
}

int
outdir_index(struct outdir *d, const struct tensor *t, size_t count, size_t shard_bytes)
{
    size_t *first = mem_alloc(count + 2, sizeof(*first));
    int rc = first == NULL ? RC_OS : RC_OK, shards = 0;

    if (rc == RC_OK && (shards = cut_shards(t, count, shard_bytes, first)) > 1)
        rc = write_index(d, t, first, shards);
    mem_free(first);
    return rc;
}

int
outdir_finish_begin(struct outdir *d, int shards, bool *mine)
{
    char name[64], hex[DIGEST_HEX], *own;
    int rc = RC_OK, n;

    *mine = !d->over;
    if (d->o.ranks <= 1 || d->over)
        return RC_OK;
    for (int s = 0; s < shards && rc == RC_OK; s++) {
        shard_name(s, shards, name, sizeof(name));
        if ((rc = finished(d, name, hex)) == RC_OK)
            rc = add_output(d, name, hex);
    }
    *mine = rc == RC_OK;
    if (rc != RC_OK)
        return rc == RC_RETRY || moved(d) ? RC_OK : rc;
    if ((own = file_tmp_name(d->dir)) == NULL)
        return RC_OS;
    if ((n = (int)strlen(own)) >= PATH_MAX)
        rc = err_set(RC_DATA, "%s: path is too long", d->o.out);
    else if (rename(d->dir, own) == 0)
        d->named = (int)strlen(d->dir);
    else if (errno != ENOENT)
        rc = err_set(RC_CANTCREATE, "%s: cannot rename: %s", d->dir, strerror(errno));
    *mine = d->named > 0;
    if (*mine)
        memcpy(d->dir, own, (size_t)n + 1);
    mem_free(own);
    return rc;
}
