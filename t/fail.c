/* fail - makes the Nth call of a kind fail, or kills the process there; loaded with LD_PRELOAD
 *
 *     LLMC_FAIL=OP:N:WHAT[:PATTERN]
 *
 *     OP       write (write, pwrite, writev), fsync (fsync, fdatasync), rename (rename, renameat, renameat2), create
 *              (open with O_CREAT), truncate (ftruncate), close, or any
 *     N        from 1: which of the calls that match; counted over all threads, anew in each process
 *     WHAT     an errno by name (ENOSPC, EIO, ...) or number; KILL, STOP, TERM, INT, HUP, USR1: that signal before the
 *              call; SHORT: write half; NAP: after two seconds, whatever signals come
 *     PATTERN  a glob for the path (of a rename: the new one); "*" matches "/" too, and paths may or may not be
 *              absolute, so begin with it; default "*"
 *
 * Descriptors 0 to 2 never match, but 1 with the pattern "stdout"; what stdio writes by itself is not seen. With
 * LLMC_FAIL_LOG=FILE one line is appended when the fault strikes, so that a script raises N until the file stays empty:
 *
 *     n=1
 *     while :; do
 *         rm -f struck
 *         LLMC_FAIL_LOG=struck faulty "any:$n:EIO" llmc-pack -C w -o out
 *         [ -s struck ] || break
 *         n=$((n + 1))
 *     done
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { WHAT_SHORT = -1, WHAT_NAP = -2, WHAT_SIGNAL = -100 }; /* and the signal's number less */

static const struct {
    const char *name;
    int         value;
} whats[] = {
    { "EIO", EIO }, { "ENOSPC", ENOSPC }, { "EDQUOT", EDQUOT }, { "EACCES", EACCES }, { "EPERM", EPERM },
    { "EROFS", EROFS }, { "EINTR", EINTR }, { "EPIPE", EPIPE }, { "EMFILE", EMFILE }, { "EINVAL", EINVAL },
    { "ENOENT", ENOENT }, { "ENOMEM", ENOMEM }, { "SHORT", WHAT_SHORT }, { "NAP", WHAT_NAP },
    { "KILL", WHAT_SIGNAL - SIGKILL }, { "STOP", WHAT_SIGNAL - SIGSTOP }, { "TERM", WHAT_SIGNAL - SIGTERM },
    { "INT", WHAT_SIGNAL - SIGINT }, { "HUP", WHAT_SIGNAL - SIGHUP }, { "USR1", WHAT_SIGNAL - SIGUSR1 },
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char        op[16], pattern[PATH_MAX] = "*";
static int         what;
static unsigned    nth;
static const char *log_path;
static atomic_uint seen;

static void
raw_write(int fd, const char *text, size_t bytes)
{
    long done = syscall(SYS_write, fd, text, bytes);

    (void)done; /* nobody to tell */
}

/* A spec that means nothing must not pass for a run without faults. */
static void
refuse(void)
{
    static const char text[] = "fail: LLMC_FAIL wants OP:N:WHAT[:PATTERN]\n";

    raw_write(STDERR_FILENO, text, sizeof(text) - 1);
    _exit(70);
}

static void
setup(void)
{
    const char *spec = getenv("LLMC_FAIL");
    char name[16] = "", *end;

    log_path = getenv("LLMC_FAIL_LOG");
    if (spec == NULL)
        return;
    if (sscanf(spec, "%15[^:]:%u:%15[^:]:%4095[^\n]", op, &nth, name, pattern) < 3 || nth == 0)
        refuse();
    if (strspn(name, "0123456789") > 0)
        what = (int)strtol(name, &end, 10);
    for (size_t i = 0; i < sizeof(whats) / sizeof(whats[0]); i++)
        if (strcmp(whats[i].name, name) == 0)
            what = whats[i].value;
    if (what == 0)
        refuse();
}

static void
note(const char *kind, const char *path)
{
    char line[PATH_MAX + 64];
    int fd, n = snprintf(line, sizeof(line), "%s:%u %s\n", kind, nth, path);

    if (log_path == NULL)
        return;
    if ((fd = (int)syscall(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_CREAT | O_APPEND, 0666)) < 0)
        return;
    raw_write(fd, line, (size_t)n);
    (void)syscall(SYS_close, fd);
}

/* 0: go on; else an errno or WHAT_SHORT. */
static int
strike(const char *kind, const char *path)
{
    (void)pthread_once(&once, setup);
    if (nth == 0 || (strcmp(op, kind) != 0 && strcmp(op, "any") != 0) || fnmatch(pattern, path, 0) != 0 ||
        atomic_fetch_add(&seen, 1) + 1 != nth)
        return 0;
    note(kind, path);
    if (what == WHAT_NAP) {
        struct timespec left = { .tv_sec = 2 };

        while (nanosleep(&left, &left) != 0)
            ;
    } else if (what > WHAT_SIGNAL) {
        return what;
    }
    if (what < WHAT_SIGNAL)
        (void)kill(getpid(), WHAT_SIGNAL - what);
    return 0;
}

static int
strike_fd(const char *kind, int fd)
{
    char link[64], path[PATH_MAX] = "stdout";
    ssize_t n;

    if (fd == STDIN_FILENO || fd == STDERR_FILENO)
        return 0;
    if (fd == STDOUT_FILENO) {
        (void)pthread_once(&once, setup);
        return strcmp(pattern, "stdout") == 0 ? strike(kind, path) : 0;
    }
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if ((n = readlink(link, path, sizeof(path) - 1)) <= 0)
        return 0;
    path[n] = '\0';
    return strike(kind, path);
}

/* ISO C has no conversion from object to function pointers; POSIX promises that it works. */
#define REAL(type, name, args)                        \
    static type (*real) args;                         \
    if (real == NULL)                                 \
        *(void **)&real = dlsym(RTLD_NEXT, name)

#define FAIL_WITH(why) \
    do {               \
        errno = (why); \
        return -1;     \
    } while (0)

ssize_t
write(int fd, const void *data, size_t bytes)
{
    REAL(ssize_t, "write", (int, const void *, size_t));
    int why = strike_fd("write", fd);

    if (why > 0)
        FAIL_WITH(why);
    return real(fd, data, why == WHAT_SHORT ? (bytes + 1) / 2 : bytes);
}

ssize_t
pwrite(int fd, const void *data, size_t bytes, off_t at)
{
    REAL(ssize_t, "pwrite", (int, const void *, size_t, off_t));
    int why = strike_fd("write", fd);

    if (why > 0)
        FAIL_WITH(why);
    return real(fd, data, why == WHAT_SHORT ? (bytes + 1) / 2 : bytes, at);
}

ssize_t
pwrite64(int fd, const void *data, size_t bytes, off64_t at)
{
    return pwrite(fd, data, bytes, at);
}

ssize_t
writev(int fd, const struct iovec *v, int count)
{
    REAL(ssize_t, "writev", (int, const struct iovec *, int));
    int why = strike_fd("write", fd);

    if (why > 0)
        FAIL_WITH(why);
    return real(fd, v, why == WHAT_SHORT ? (count + 1) / 2 : count);
}

int
fsync(int fd)
{
    REAL(int, "fsync", (int));
    int why = strike_fd("fsync", fd);

    if (why > 0)
        FAIL_WITH(why);
    return real(fd);
}

int
fdatasync(int fd)
{
    REAL(int, "fdatasync", (int));
    int why = strike_fd("fsync", fd);

    if (why > 0)
        FAIL_WITH(why);
    return real(fd);
}

int
ftruncate(int fd, off_t size)
{
    REAL(int, "ftruncate", (int, off_t));
    int why = strike_fd("truncate", fd);

    if (why > 0)
        FAIL_WITH(why);
    return real(fd, size);
}

int
ftruncate64(int fd, off64_t size)
{
    return ftruncate(fd, size);
}

/* The descriptor is closed all the same, as it is by Linux after EIO. */
int
close(int fd)
{
    REAL(int, "close", (int));
    int why = strike_fd("close", fd), rc = real(fd);

    if (why > 0)
        FAIL_WITH(why);
    return rc;
}

int
rename(const char *from, const char *to)
{
    REAL(int, "rename", (const char *, const char *));
    int why = strike("rename", to);

    if (why > 0)
        FAIL_WITH(why);
    return real(from, to);
}

int
renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    REAL(int, "renameat", (int, const char *, int, const char *));
    int why = strike("rename", to);

    if (why > 0)
        FAIL_WITH(why);
    return real(from_fd, from, to_fd, to);
}

int
renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    REAL(int, "renameat2", (int, const char *, int, const char *, unsigned));
    int why = strike("rename", to);

    if (why > 0)
        FAIL_WITH(why);
    return real(from_fd, from, to_fd, to, flags);
}

static int
open_common(int dir, const char *path, int flags, mode_t mode)
{
    int why = (flags & O_CREAT) != 0 ? strike("create", path) : 0;

    if (why > 0)
        FAIL_WITH(why);
    return (int)syscall(SYS_openat, dir, path, flags | O_LARGEFILE, mode);
}

#define MODE_OF(flags)                               \
    mode_t mode = 0;                                 \
    va_list ap;                                      \
    va_start(ap, flags);                             \
    if (((flags) & (O_CREAT | __O_TMPFILE)) != 0)    \
        mode = (mode_t)va_arg(ap, unsigned);         \
    va_end(ap)

int
open(const char *path, int flags, ...)
{
    MODE_OF(flags);

    return open_common(AT_FDCWD, path, flags, mode);
}

int
open64(const char *path, int flags, ...)
{
    MODE_OF(flags);

    return open_common(AT_FDCWD, path, flags, mode);
}

int
openat(int dir, const char *path, int flags, ...)
{
    MODE_OF(flags);

    return open_common(dir, path, flags, mode);
}

int
openat64(int dir, const char *path, int flags, ...)
{
    MODE_OF(flags);

    return open_common(dir, path, flags, mode);
}
