/* tok_nfc - canonical composition, as the tokenizers library does it */
#include "tok_nfc.h"

#include "utf8.h"

#include <stdlib.h>
#include <utf8proc.h>

/* The library composes by Unicode 9: of the characters that came later those that combine, which stay as they are.
 * Those of Unicode 15, as in utf8proc 2.8. */
static const struct {
    uint32_t first, last;
} inert[] = {
    { 0x7fd, 0x7fd }, { 0x898, 0x89f }, { 0x8ca, 0x8d3 }, { 0x9fe, 0x9fe }, { 0xc3c, 0xc3c }, { 0xd3b, 0xd3c },
    { 0xeba, 0xeba }, { 0x1715, 0x1715 }, { 0x1abf, 0x1ace }, { 0x1df6, 0x1dfa }, { 0xa82c, 0xa82c },
    { 0x10d24, 0x10d27 }, { 0x10eab, 0x10eac }, { 0x10efd, 0x10eff }, { 0x10f46, 0x10f50 }, { 0x10f82, 0x10f85 },
    { 0x11070, 0x11070 }, { 0x1133b, 0x1133b }, { 0x1145e, 0x1145e }, { 0x11839, 0x1183a }, { 0x11930, 0x11938 },
    { 0x1193d, 0x1193e }, { 0x11943, 0x11943 }, { 0x119e0, 0x119e0 }, { 0x11a34, 0x11a34 },
    { 0x11a47, 0x11a47 }, { 0x11a99, 0x11a99 }, { 0x11d42, 0x11d42 }, { 0x11d44, 0x11d45 }, { 0x11d97, 0x11d97 },
    { 0x11f41, 0x11f42 }, { 0x16ff0, 0x16ff1 }, { 0x1e08f, 0x1e08f }, { 0x1e130, 0x1e136 }, { 0x1e2ae, 0x1e2ae },
    { 0x1e2ec, 0x1e2ef }, { 0x1e4ec, 0x1e4ef },
};

static bool
is_inert(uint32_t c)
{
    size_t low = 0, high = sizeof(inert) / sizeof(inert[0]);

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (c > inert[mid].last)
            low = mid + 1;
        else
            high = mid;
    }
    return low < sizeof(inert) / sizeof(inert[0]) && c >= inert[low].first;
}

/* True of characters that NFC leaves alone whatever surrounds them: a place to cut. Errs to false. */
static bool
is_stable(uint32_t c)
{
    const utf8proc_property_t *p;

    if (c < 0x300 || (c >= 0x3400 && c < 0xa000) || (c >= 0xac00 && c < 0xd7a4) || is_inert(c))
        return true;
    if ((c >= 0x1100 && c < 0x1200) || (c >= 0x16d63 && c < 0x16d6b)) /* letters that compose: jamo, Kirat Rai */
        return false;
    p = utf8proc_get_property((utf8proc_int32_t)c);
    return p->combining_class == 0 && p->decomp_seqindex == UINT16_MAX && p->category != UTF8PROC_CATEGORY_MN &&
        p->category != UTF8PROC_CATEGORY_MC;
}

static int
compose(struct buf *out, const char *text, size_t len)
{
    utf8proc_uint8_t *s = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &s,
        UTF8PROC_STABLE | UTF8PROC_COMPOSE);

    if (n < 0)
        return err_set(n == UTF8PROC_ERROR_NOMEM ? RC_OS : RC_DATA, "cannot normalise: %s", utf8proc_errmsg(n));
    buf_add(out, s, (size_t)n);
    free(s);
    return RC_OK;
}

/* Only stretches of characters that may move or combine, each with the stable one before it, are composed. */
int
nfc_add(struct buf *out, const char *text, size_t len)
{
    size_t done = 0, before = 0, n;
    uint32_t c;

    for (size_t i = 0, end; i < len; i = end) {
        n = utf8_decode(text + i, len - i, &c);
        end = i + n;
        if (is_stable(c)) {
            before = is_inert(c) ? end : i;
            continue;
        }
        for (; end < len; end += n) {
            n = utf8_decode(text + end, len - end, &c);
            if (is_stable(c))
                break;
        }
        buf_add(out, text + done, before - done);
        TRY(compose(out, text + before, end - before));
        done = before = end;
    }
    buf_add(out, text + done, len - done);
    return RC_OK;
}
