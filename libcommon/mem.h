/* mem - aligned allocation with overflow checks
 *
 * Everything large is allocated here, aligned to a cache line for the vector kernels; from MEM_HUGE bytes on in huge
 * pages where the system has them, since kernels walk matrices faster than a processor translates addresses. On
 * failure the functions return NULL and leave err_set(RC_OS, ...). mem_free(NULL) does nothing.
 */
#ifndef LLMC_MEM_H
#define LLMC_MEM_H

#include <stddef.h>

enum { MEM_ALIGN = 64, MEM_HUGE = 2 << 20, MEM_SPARSE = 32 << 20, MEM_KEPT = 512 << 20,
    MEM_IDLE = 64 << 20 };

void *mem_alloc(size_t count, size_t size);  /* contents undefined */
/* The same in small pages from MEM_SPARSE bytes on: what is never touched takes no memory. */
void *mem_sparse(size_t count, size_t size);
void *mem_zalloc(size_t count, size_t size); /* zeroed */
void *mem_grow(void *p, size_t *cap, size_t need, size_t size); /* realloc to hold need elements; *cap updated */
char *mem_strdup(const char *s);
void  mem_free(void *p);

/* For programs that allocate and free the same megabytes in every step: freed memory stays with the process, since the
 * kernel takes longer to clear new pages than many steps to fill them. Up to MEM_KEPT bytes. */
void mem_keep(void);
/* Gives back what is free, if that is more than MEM_IDLE: before others of a pipeline take their turn. */
void mem_trim(void);

#endif
