/* mem - aligned allocation with overflow checks */
#include "mem.h"

#include "msg.h"

#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *
mem_alloc(size_t count, size_t size)
{
    size_t bytes;
    void *p = NULL;

    if (__builtin_mul_overflow(count, size, &bytes) || bytes > PTRDIFF_MAX - MEM_ALIGN) {
        (void)err_set(RC_OS, "cannot allocate %zu x %zu bytes", count, size);
        return NULL;
    }
    if (bytes < MEM_ALIGN)
        bytes = MEM_ALIGN;
    if (posix_memalign(&p, bytes < MEM_HUGE ? MEM_ALIGN : MEM_HUGE, bytes) != 0) {
        (void)err_set(RC_OS, "cannot allocate %zu bytes", bytes);
        return NULL;
    }
    if (bytes >= MEM_HUGE)
        (void)madvise(p, bytes / MEM_HUGE * MEM_HUGE, MADV_HUGEPAGE); /* a wish */
    return p;
}

void *
mem_sparse(size_t count, size_t size)
{
    void *p = mem_alloc(count, size);

    if (p != NULL && count * size >= MEM_SPARSE) /* not of the heap, where others' pages would become small */
        (void)madvise(p, count * size / MEM_HUGE * MEM_HUGE, MADV_NOHUGEPAGE);
    return p;
}

void *
mem_zalloc(size_t count, size_t size)
{
    void *p = mem_alloc(count, size);

    if (p != NULL)
        memset(p, 0, count * size);
    return p;
}

void *
mem_grow(void *p, size_t *cap, size_t need, size_t size)
{
    size_t want = *cap < 16 ? 16 : *cap, bytes;
    void *q;

    if (need <= *cap)
        return p;
    while (want < need)
        want += want / 2;
    if (__builtin_mul_overflow(want, size, &bytes) || (q = realloc(p, bytes)) == NULL) {
        (void)err_set(RC_OS, "cannot allocate %zu x %zu bytes", want, size);
        return NULL;
    }
    *cap = want;
    return q;
}

char *
mem_strdup(const char *s)
{
    char *p = strdup(s);

    if (p == NULL)
        (void)err_set(RC_OS, "cannot allocate %zu bytes", strlen(s) + 1);
    return p;
}

void
mem_free(void *p)
{
    free(p);
}

void
mem_keep(void)
{
    (void)mallopt(M_MMAP_THRESHOLD, MEM_SPARSE); /* the most that glibc takes */
    (void)mallopt(M_TRIM_THRESHOLD, MEM_KEPT);
    (void)mallopt(M_TOP_PAD, 4 << 20);
}

void
mem_trim(void)
{
    if (mallinfo2().fordblks > MEM_IDLE)
        (void)malloc_trim(0);
}
