/* utf8 - decoding text that is known to be valid */
#ifndef LLMC_UTF8_H
#define LLMC_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* The code point at s and its length; a byte that starts none counts as itself, so that any input ends. */
static inline size_t
utf8_decode(const char *s, size_t left, uint32_t *c)
{
    unsigned char b = (unsigned char)s[0];
    size_t n = b < 0xc0 ? 1 : b < 0xe0 ? 2 : b < 0xf0 ? 3 : 4;

    if (n == 1 || n > left) {
        *c = b;
        return 1;
    }
    *c = b & (0x7fU >> n);
    for (size_t i = 1; i < n; i++)
        *c = *c << 6 | ((unsigned char)s[i] & 0x3fU);
    return n;
}

#endif
