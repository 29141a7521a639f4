/* spill - buffers in a file instead of memory */
#include "spill.h"

#include "mem.h"
#include "msg.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096 };

struct piece {
    void  *p;
    size_t bytes;
    bool   used;
};

struct spill {
    int           fd;
    char         *dir;
    struct piece *pieces;
    size_t        count, cap;
    size_t        end; /* of the file */
};

/* Without a name from the start where the file system can do that. */
static int
open_file(const char *dir)
{
    char path[4096];
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
        return fd;
    if (snprintf(path, sizeof(path), "%s/spill.%ld", dir, (long)getpid()) >= (int)sizeof(path))
        return -1;
    if ((fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600)) >= 0)
        (void)unlink(path);
    return fd;
}

int
spill_open(struct spill **out, const char *dir)
{
    struct spill *s = mem_zalloc(1, sizeof(*s));

    *out = NULL;
    if (s == NULL)
        return RC_OS;
    if ((s->fd = open_file(dir)) < 0) {
        (void)err_set(RC_CANTCREATE, "%s: cannot create a file for hidden states: %s", dir, strerror(errno));
        mem_free(s);
        return RC_CANTCREATE;
    }
    if ((s->dir = mem_strdup(dir)) == NULL) {
        spill_close(s);
        return RC_OS;
    }
    *out = s;
    return RC_OK;
}

void
spill_close(struct spill *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->count; i++)
        (void)munmap(s->pieces[i].p, s->pieces[i].bytes);
    (void)close(s->fd);
    mem_free(s->pieces);
    mem_free(s->dir);
    mem_free(s);
}

/* The smallest that is free and large enough, unless half of it would be wasted. */
static struct piece *
find_free(struct spill *s, size_t bytes)
{
    struct piece *best = NULL;

    for (size_t i = 0; i < s->count; i++) {
        struct piece *p = &s->pieces[i];

        if (!p->used && p->bytes >= bytes && p->bytes / 2 <= bytes && (best == NULL || p->bytes < best->bytes))
            best = p;
    }
    return best;
}

static struct piece *
add_piece(struct spill *s, size_t bytes)
{
    struct piece *all = mem_grow(s->pieces, &s->cap, s->count + 1, sizeof(*all)), *p;
    int why;

    if (all == NULL)
        return NULL;
    s->pieces = all;
    p = &all[s->count];
    if ((why = posix_fallocate(s->fd, (off_t)s->end, (off_t)bytes)) != 0) {
        (void)err_set(RC_IO, "%s: cannot reserve %zu bytes for hidden states: %s", s->dir, bytes, strerror(why));
        return NULL;
    }
    *p = (struct piece){ .bytes = bytes };
    p->p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, (off_t)s->end);
    if (p->p == MAP_FAILED) {
        (void)err_set(RC_OS, "%s: cannot map %zu bytes: %s", s->dir, bytes, strerror(errno));
        return NULL;
    }
    s->end += bytes;
    s->count++;
    return p;
}

void *
spill_alloc(struct spill *s, size_t count, size_t size)
{
    struct piece *p;
    size_t bytes;

    if (s == NULL)
        return mem_alloc(count, size);
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > PTRDIFF_MAX - PAGE) {
        (void)err_set(RC_OS, "cannot allocate %zu x %zu bytes", count, size);
        return NULL;
    }
    bytes = bytes < PAGE ? PAGE : (bytes + PAGE - 1) / PAGE * PAGE;
    if ((p = find_free(s, bytes)) == NULL && (p = add_piece(s, bytes)) == NULL)
        return NULL;
    p->used = true;
    return p->p;
}

static struct piece *
piece_of(struct spill *s, const void *at)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->pieces[i].p == at)
            return &s->pieces[i];
    return NULL;
}

void
spill_free(struct spill *s, void *p)
{
    struct piece *piece = s != NULL && p != NULL ? piece_of(s, p) : NULL;

    if (piece == NULL) {
        mem_free(p);
        return;
    }
    piece->used = false;
    spill_idle(s, p);
}

void
spill_idle(struct spill *s, void *p)
{
    struct piece *piece = s != NULL && p != NULL ? piece_of(s, p) : NULL;

    if (piece != NULL)
        (void)madvise(piece->p, piece->bytes, MADV_DONTNEED);
}
