/* mem - aligned allocation with overflow checks
 *
 * Everything large is allocated here, aligned to a cache line for the vector kernels. On failure the functions return
 * NULL and leave err_set(RC_OS, ...). mem_free(NULL) does nothing.
 */
#ifndef LLMC_MEM_H
#define LLMC_MEM_H

#include <stddef.h>

enum { MEM_ALIGN = 64 };

void *mem_alloc(size_t count, size_t size);  /* contents undefined */
void *mem_zalloc(size_t count, size_t size); /* zeroed */
void *mem_grow(void *p, size_t *cap, size_t need, size_t size); /* realloc to hold need elements; *cap updated */
char *mem_strdup(const char *s);
void  mem_free(void *p);

#endif
