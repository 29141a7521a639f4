/* ring - slots of shared memory between the writer of a stream and its reader */
#include "ring.h"

#include "mem.h"
#include "msg.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_BYTES = 4096, SLOTS_MAX = 64, WAKE_MS = 100, PATH_BYTES = 48 };

static const char magic[8] = "llmc-shm";

struct head {
    char             magic[8];
    uint64_t         slot_bytes;
    uint32_t         slots;
    _Atomic uint32_t attached; /* 1: a reader has come */
    _Atomic uint32_t done;     /* frames that the reader is done with, modulo 2^32 */
    _Atomic uint32_t noted;    /* 1: it does as the note says; 2: no longer */
    unsigned char    note[RING_NOTE];
};

struct ring {
    int          fd;
    struct head *head;
    size_t       bytes;      /* of the mapping */
    size_t       slot_bytes; /* as checked: the other side can write into the head */
    uint32_t     slots;
    char         path[PATH_BYTES];
};

/* Until *word is not `old`, or for ms. The time alone ends it where the kernel has no futex. */
static void
wait_word(_Atomic uint32_t *word, uint32_t old, int ms)
{
    struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

    if (syscall(SYS_futex, word, FUTEX_WAIT, old, &t, NULL, 0) != 0 && errno == ENOSYS)
        (void)nanosleep(&t, NULL);
}

static void
wake_word(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static char *
slot_at(const struct ring *r, uint32_t n)
{
    return (char *)r->head + HEAD_BYTES + (size_t)(n % r->slots) * r->slot_bytes;
}

static int
map_segment(struct ring *r, size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);

    if (p == MAP_FAILED)
        return err_set(RC_OS, "cannot map %zu bytes of shared memory: %s", bytes, strerror(errno));
    r->head = p;
    r->bytes = bytes;
    (void)madvise(p, bytes, MADV_HUGEPAGE);
    return RC_OK;
}

int
ring_create(struct ring **out, size_t slot_bytes, int slots)
{
    struct ring *r = mem_zalloc(1, sizeof(*r));
    size_t bytes;
    int rc = RC_OS;

    *out = NULL;
    if (r == NULL)
        return RC_OS;
    r->slot_bytes = (slot_bytes + HEAD_BYTES - 1) / HEAD_BYTES * HEAD_BYTES;
    r->slots = (uint32_t)slots;
    bytes = HEAD_BYTES + r->slot_bytes * r->slots;
    r->fd = memfd_create("llmc-frames", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (r->fd < 0 || ftruncate(r->fd, (off_t)bytes) != 0)
        (void)err_set(RC_OS, "cannot make %zu bytes of shared memory: %s", bytes, strerror(errno));
    else if (fcntl(r->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        (void)err_set(RC_OS, "cannot seal shared memory: %s", strerror(errno));
    else
        rc = map_segment(r, bytes);
    if (rc != RC_OK) {
        ring_close(r);
        return rc;
    }
    memcpy(r->head->magic, magic, sizeof(magic));
    r->head->slot_bytes = r->slot_bytes;
    r->head->slots = r->slots;
    (void)snprintf(r->path, sizeof(r->path), "/proc/%ld/fd/%d", (long)getpid(), r->fd);
    *out = r;
    return RC_OK;
}

const char *
ring_path(const struct ring *r)
{
    return r->path;
}

size_t
ring_slot_bytes(const struct ring *r)
{
    return r->slot_bytes;
}

void *
ring_note(struct ring *r)
{
    return r->head->note;
}

bool
ring_noted(struct ring *r)
{
    return atomic_load(&r->head->noted) == 1;
}

bool
ring_left(struct ring *r, int wait_ms, bool (*gone)(void *ctx), void *ctx)
{
    for (int ms = 0; ring_noted(r) && ms < wait_ms && !gone(ctx); ms += WAKE_MS)
        wait_word(&r->head->noted, 1, WAKE_MS);
    return !ring_noted(r);
}

int
ring_slots(const struct ring *r)
{
    return (int)r->slots;
}

bool
ring_attached(struct ring *r, int wait_ms, bool (*gone)(void *ctx), void *ctx)
{
    for (int ms = 0; atomic_load(&r->head->attached) == 0 && ms < wait_ms && !gone(ctx); ms += WAKE_MS)
        wait_word(&r->head->attached, 0, WAKE_MS);
    return atomic_load(&r->head->attached) != 0;
}

void *
ring_slot(struct ring *r, uint32_t n, bool (*gone)(void *ctx), void *ctx)
{
    uint32_t done;

    while (n - (done = atomic_load(&r->head->done)) >= r->slots) {
        if (gone(ctx))
            return NULL;
        wait_word(&r->head->done, done, WAKE_MS);
    }
    return slot_at(r, n);
}

/* A path of another form is not opened: it comes out of a stream. */
static bool
path_ok(const char *path)
{
    long pid;
    int fd, end = 0;

    return strlen(path) < PATH_BYTES && sscanf(path, "/proc/%9ld/fd/%9d%n", &pid, &fd, &end) == 2 &&
        path[end] == '\0' && pid > 0 && fd >= 0;
}

static int
check_segment(struct ring *r)
{
    struct stat st;
    int seals = fcntl(r->fd, F_GET_SEALS);
    uint64_t slots, slot_bytes;

    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(r->fd, &st) != 0 || st.st_size < HEAD_BYTES)
        return err_set(RC_DATA, "stream: %s is no shared memory of frames", r->path);
    TRY(map_segment(r, (size_t)st.st_size));
    slots = r->head->slots;
    slot_bytes = r->head->slot_bytes;
    if (memcmp(r->head->magic, magic, sizeof(magic)) != 0 || slots < 1 || slots > SLOTS_MAX ||
        slot_bytes > (r->bytes - HEAD_BYTES) / slots)
        return err_set(RC_DATA, "stream: shared memory of frames is malformed");
    r->slots = (uint32_t)slots;
    r->slot_bytes = (size_t)slot_bytes;
    return RC_OK;
}

int
ring_attach(struct ring **out, const char *path, bool (*take)(void *ctx, struct ring *r), void *ctx)
{
    struct ring *r;
    int rc;

    *out = NULL;
    if (!path_ok(path))
        return err_set(RC_DATA, "stream: \"%.64s\" is no place of shared memory", path);
    if ((r = mem_zalloc(1, sizeof(*r))) == NULL)
        return RC_OS;
    (void)snprintf(r->path, sizeof(r->path), "%s", path);
    if ((r->fd = open(path, O_RDWR | O_CLOEXEC)) < 0)
        rc = err_set(RC_NOINPUT, "%s: %s", path, strerror(errno));
    else
        rc = check_segment(r);
    if (rc != RC_OK) {
        ring_close(r);
        return rc;
    }
    atomic_store(&r->head->noted, take != NULL && take(ctx, r) ? 1 : 0);
    atomic_store(&r->head->attached, 1);
    wake_word(&r->head->attached);
    *out = r;
    return RC_OK;
}

const void *
ring_frame(const struct ring *r, uint32_t n, size_t bytes)
{
    return bytes <= r->slot_bytes ? slot_at(r, n) : NULL;
}

void
ring_done(struct ring *r, uint32_t n)
{
    atomic_store(&r->head->done, n + 1);
    wake_word(&r->head->done);
}

void
ring_leave(struct ring *r)
{
    atomic_store(&r->head->noted, 2);
    wake_word(&r->head->noted);
}

void
ring_close(struct ring *r)
{
    if (r == NULL)
        return;
    if (r->head != NULL)
        (void)munmap(r->head, r->bytes);
    if (r->fd >= 0)
        (void)close(r->fd);
    mem_free(r);
}
