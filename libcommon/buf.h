/* buf - a growing byte string
 *
 * Zero-initialise, append, then read s (always terminated once something was appended) and len. A failed allocation
 * sticks: later appends do nothing and buf_ok() is false, so that a caller checks once at the end.
 */
#ifndef LLMC_BUF_H
#define LLMC_BUF_H

#include "msg.h"

#include <stddef.h>

struct buf {
    char  *s;
    size_t len, cap;
    bool   failed;
};

void buf_add(struct buf *b, const void *data, size_t len);
void buf_puts(struct buf *b, const char *s);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF(2, 3);
bool buf_ok(const struct buf *b);
void buf_free(struct buf *b);

/* The whole of a file, at most max bytes of it. RC_NOINPUT, RC_IO, RC_DATA (longer than max). */
int buf_read_file(struct buf *b, const char *path, size_t max);

#endif
