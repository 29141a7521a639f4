/* buf - a growing byte string */
#include "buf.h"

#include "mem.h"
#include "member.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void
buf_add(struct buf *b, const void *data, size_t len)
{
    char *s;

    if (b->failed)
        return;
    if ((s = mem_grow(b->s, &b->cap, b->len + len + 1, 1)) == NULL) {
        b->failed = true;
        return;
    }
    b->s = s;
    if (len > 0)
        memcpy(s + b->len, data, len);
    b->len += len;
    s[b->len] = '\0';
}

void
buf_puts(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void
buf_printf(struct buf *b, const char *fmt, ...)
{
    char small[512], *s;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(small, sizeof(small), fmt, ap);
    va_end(ap);
    if (n < 0) {
        b->failed = true;
    } else if ((size_t)n < sizeof(small)) {
        buf_add(b, small, (size_t)n);
    } else if (!b->failed) {
        if ((s = mem_grow(b->s, &b->cap, b->len + (size_t)n + 1, 1)) == NULL) {
            b->failed = true;
            return;
        }
        b->s = s;
        va_start(ap, fmt);
        (void)vsnprintf(s + b->len, (size_t)n + 1, fmt, ap);
        va_end(ap);
        b->len += (size_t)n;
    }
}

bool
buf_ok(const struct buf *b)
{
    return !b->failed;
}

void
buf_free(struct buf *b)
{
    mem_free(b->s);
    *b = (struct buf){ 0 };
}

int
buf_read_file(struct buf *b, const char *path, size_t max)
{
    char chunk[65536];
    struct member m;
    uint64_t left;
    size_t n = 0;
    int rc;

    TRY(member_open(&m, path));
    left = m.bytes;
    do {
        if ((rc = member_read(&m, &left, chunk, sizeof(chunk), &n)) != RC_OK)
            (void)err_at(rc, "%s", path);
        else if (b->len + n > max)
            rc = err_set(RC_DATA, "%s: longer than %zu bytes", path, max);
        else
            buf_add(b, chunk, n);
    } while (rc == RC_OK && n == sizeof(chunk));
    if (rc == RC_OK && !buf_ok(b))
        rc = RC_OS;
    (void)close(m.fd);
    return rc;
}
