/* spill - buffers in a file instead of memory, for what is large and touched now and then
 *
 * The file has no name in its directory and disappears with the process. Buffers are shared mappings of it, so that the
 * kernel writes out and takes back their pages when memory is short. Space is reserved when a buffer is made: a full
 * disk is an error here, not a signal later. Buffers that are given back are used again.
 *
 * All functions take a NULL spill: then they are mem_alloc() and mem_free().
 */
#ifndef LLMC_SPILL_H
#define LLMC_SPILL_H

#include <stddef.h>

struct spill;

int  spill_open(struct spill **out, const char *dir); /* RC_CANTCREATE, RC_OS */
void spill_close(struct spill *s);                    /* NULL is fine; buffers are gone */

/* Contents undefined; NULL: err_set, RC_IO or RC_OS. */
void *spill_alloc(struct spill *s, size_t count, size_t size);
void  spill_free(struct spill *s, void *p);
/* p will not be touched for a while: its pages leave this process. It stays valid. */
void  spill_idle(struct spill *s, void *p);

#endif
