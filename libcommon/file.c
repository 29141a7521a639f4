/* file - whole reads and writes, and publication by rename */
#include "file.h"

#include "mem.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int
file_read_full(int fd, void *data, size_t bytes, size_t *got)
{
    char *p = data;
    ssize_t n;

    *got = 0;
    while (*got < bytes) {
        n = read(fd, p + *got, bytes - *got);
        if (n == 0)
            break;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(RC_IO, "cannot read: %s", strerror(errno));
        *got += (size_t)n;
    }
    return RC_OK;
}

int
file_write_full(int fd, const void *data, size_t bytes)
{
    const char *p = data;
    ssize_t n;

    while (bytes > 0) {
        n = write(fd, p, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(RC_IO, "cannot write: %s", n == 0 ? "nothing was written" : strerror(errno));
        p += n;
        bytes -= (size_t)n;
    }
    return RC_OK;
}

/* Unpublished temporaries. Nodes are reused and never freed, so that a signal handler may walk the list at any time; a
 * node's path is whole whenever its owner is set. The owner is a pid, since a forked child inherits the list. */
struct node {
    atomic_int   owner; /* 0: unused, -1: being filled */
    struct node *next;
    char         path[PATH_MAX];
};

static _Atomic(struct node *) temporaries;
static pthread_once_t cleanup_once = PTHREAD_ONCE_INIT;

void
file_cleanup_signal_safe(void)
{
    int me = (int)getpid();

    for (struct node *n = atomic_load(&temporaries); n != NULL; n = n->next)
        if (atomic_load(&n->owner) == me)
            (void)unlink(n->path);
}

static void
cleanup_at_exit(void)
{
    (void)atexit(file_cleanup_signal_safe);
}

static int
remember(const char *path)
{
    struct node *n;
    int unused = 0;

    (void)pthread_once(&cleanup_once, cleanup_at_exit);
    if (strlen(path) >= PATH_MAX)
        return err_set(RC_CANTCREATE, "%s: cannot create: %s", path, strerror(ENAMETOOLONG));
    for (n = atomic_load(&temporaries); n != NULL; n = n->next, unused = 0)
        if (atomic_compare_exchange_strong(&n->owner, &unused, -1))
            break;
    if (n == NULL) {
        if ((n = mem_zalloc(1, sizeof(*n))) == NULL)
            return RC_OS;
        atomic_store(&n->owner, -1);
        n->next = atomic_load(&temporaries);
        while (!atomic_compare_exchange_weak(&temporaries, &n->next, n))
            ;
    }
    (void)snprintf(n->path, sizeof(n->path), "%s", path);
    atomic_store(&n->owner, (int)getpid());
    return RC_OK;
}

static void
forget(const char *path)
{
    int me = (int)getpid();

    for (struct node *n = atomic_load(&temporaries); n != NULL; n = n->next) {
        if (atomic_load(&n->owner) == me && strcmp(n->path, path) == 0) {
            atomic_store(&n->owner, 0);
            return;
        }
    }
}

enum { HOST_MAX = 65 };

static void
host_name(char host[HOST_MAX])
{
    memset(host, 0, HOST_MAX);
    if (gethostname(host, HOST_MAX - 1) != 0 || host[0] == '\0')
        (void)snprintf(host, HOST_MAX, "localhost");
    for (char *p = host; *p != '\0'; p++)
        if (*p == '/')
            *p = '_';
}

bool
file_is_stale(const char *name, const char *stem)
{
    char host[HOST_MAX], *end;
    const char *tmp = stem != NULL ? name + strlen(stem) : strstr(name, ".tmp.");
    size_t n;
    long pid;

    if ((stem != NULL && strncmp(name, stem, strlen(stem)) != 0) || tmp == NULL || strncmp(tmp, ".tmp.", 5) != 0)
        return false;
    host_name(host);
    n = strlen(host);
    if (strncmp(tmp + 5, host, n) != 0 || tmp[5 + n] != '.')
        return false;
    pid = strtol(tmp + 6 + n, &end, 10);
    return *end == '\0' && pid > 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH;
}

static void
collect_at(int fd)
{
    DIR *d = fdopendir(fd);
    struct dirent *e;
    struct stat sb;

    if (d == NULL) {
        (void)close(fd);
        return;
    }
    while ((e = readdir(d)) != NULL) {
        int sub;

        if (file_is_stale(e->d_name, NULL) && unlinkat(dirfd(d), e->d_name, 0) == 0)
            continue;
        if ((e->d_type == DT_DIR || e->d_type == DT_UNKNOWN) && e->d_name[0] != '.' &&
            fstatat(dirfd(d), e->d_name, &sb, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(sb.st_mode) &&
            (sub = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0)
            collect_at(sub);
    }
    (void)closedir(d);
}

void
file_collect(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0)
        collect_at(fd);
}

char *
file_tmp_name(const char *path)
{
    char host[HOST_MAX], *tmp;
    size_t size = strlen(path) + sizeof(host) + 32;

    host_name(host);
    if ((tmp = mem_alloc(size, 1)) != NULL)
        (void)snprintf(tmp, size, "%s.tmp.%s.%ld", path, host, (long)getpid());
    return tmp;
}

int
file_begin(struct file_tmp *f, const char *path)
{
    struct stat sb;
    bool exists = stat(path, &sb) == 0;
    int rc = RC_OS;

    *f = (struct file_tmp){ .fd = -1 };
    if (exists && S_ISDIR(sb.st_mode))
        return err_set(RC_CANTCREATE, "%s: cannot create: %s", path, strerror(EISDIR));
    if ((f->path = mem_strdup(path)) == NULL)
        goto fail;
    if (exists && !S_ISREG(sb.st_mode)) {
        f->fd = open(path, O_WRONLY | O_CLOEXEC);
    } else {
        if ((f->tmp = file_tmp_name(path)) == NULL || (rc = remember(f->tmp)) != RC_OK)
            goto fail;
        /* One of the same name is left from a killed process whose pid came round again. */
        f->fd = open(f->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
    }
    if (f->fd >= 0)
        return RC_OK;
    rc = err_set(RC_CANTCREATE, "%s: cannot create: %s", path, strerror(errno));
fail:
    file_abort(f);
    return rc;
}

/* Some file systems have no fsync, for directories or at all, and say so. */
static bool
synced(int fd)
{
    return fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP || errno == EROFS;
}

static int
sync_dir(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir = mem_strdup(slash == NULL ? "." : slash == path ? "/" : path);
    int fd, rc = RC_OK;

    if (dir == NULL)
        return RC_OS;
    if (slash != NULL && slash != path)
        dir[slash - path] = '\0';
    if ((fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 || !synced(fd))
        rc = err_set(RC_IO, "%s: cannot sync: %s", dir, strerror(errno));
    if (fd >= 0)
        (void)close(fd);
    mem_free(dir);
    return rc;
}

int
file_commit(struct file_tmp *f)
{
    int rc = RC_OK, fd = f->fd;

    if (!f->quick && !synced(fd))
        rc = err_set(RC_IO, "%s: cannot sync: %s", f->path, strerror(errno));
    f->fd = -1;
    if (close(fd) != 0 && rc == RC_OK)
        rc = err_set(RC_IO, "%s: cannot close: %s", f->path, strerror(errno));
    if (f->tmp != NULL && rc == RC_OK) {
        if (rename(f->tmp, f->path) != 0) {
            rc = err_set(RC_IO, "%s: cannot rename from %s: %s", f->path, f->tmp, strerror(errno));
        } else {
            forget(f->tmp);
            mem_free(f->tmp);
            f->tmp = NULL;
            rc = f->quick ? RC_OK : sync_dir(f->path);
        }
    }
    file_abort(f);
    return rc;
}

void
file_abort(struct file_tmp *f)
{
    if (f->path == NULL)
        return;
    if (f->fd >= 0)
        (void)close(f->fd);
    if (f->tmp != NULL) {
        (void)unlink(f->tmp);
        forget(f->tmp);
    }
    mem_free(f->tmp);
    mem_free(f->path);
    *f = (struct file_tmp){ .fd = -1 };
}

static int
publish(const char *path, const void *data, size_t bytes, bool quick)
{
    struct file_tmp f;
    int rc;

    if ((rc = file_begin(&f, path)) != RC_OK)
        return rc;
    f.quick = quick;
    if ((rc = file_write_full(f.fd, data, bytes)) != RC_OK)
        (void)err_at(rc, "%s", path);
    else
        rc = file_commit(&f);
    file_abort(&f);
    return rc;
}

int
file_publish(const char *path, const void *data, size_t bytes)
{
    return publish(path, data, bytes, false);
}

int
file_publish_quick(const char *path, const void *data, size_t bytes)
{
    return publish(path, data, bytes, true);
}

int
file_mkdir(const char *path)
{
    char *copy = mem_strdup(path), *p = copy, end;
    struct stat sb;
    int why, rc = RC_OK;

    if (copy == NULL)
        return RC_OS;
    do {
        p += strspn(p, "/");
        p += strcspn(p, "/");
        end = *p;
        *p = '\0';
        why = mkdir(copy, 0777) == 0 ? 0 : errno;
        if (why != 0 && (stat(copy, &sb) != 0 || !S_ISDIR(sb.st_mode)))
            rc = err_set(RC_CANTCREATE, "%s: cannot create directory: %s", copy, strerror(why));
        *p = end;
    } while (rc == RC_OK && end != '\0');
    mem_free(copy);
    return rc;
}

char *
file_join(const char *dir, const char *name)
{
    size_t n = strlen(dir), size = n + strlen(name) + 2;
    char *out = mem_alloc(size, 1);

    if (out != NULL)
        (void)snprintf(out, size, "%s%s%s", dir, n == 0 || dir[n - 1] == '/' ? "" : "/", name);
    return out;
}
