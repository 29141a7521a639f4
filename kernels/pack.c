#include "pack.h"

#include "special.h"

#include <assert.h>

enum { PART = 16 }; /* elements that are rounded at a time: the smallest group */

size_t
pack_row_bytes(enum pack layout, int bits, int cols)
{
    size_t n = (size_t)cols;

    return layout == PACK_WORDS ? (n * (size_t)bits + 31) / 32 * 4 : layout == PACK_NIBBLES ? (n + 1) / 2 : n;
}

/* Offset binary, least significant bits first, written byte by byte: words are little-endian. */
static void
pack_bits(int bits, const uint8_t *codes, int cols, uint8_t *out)
{
    uint32_t acc = 0, mask = (1u << bits) - 1, half = 1u << (bits - 1);
    size_t end = pack_row_bytes(PACK_WORDS, bits, cols), at = 0;
    int have = 0;

    for (int c = 0; c < cols; c++) {
        acc |= ((codes[c] + half) & mask) << have;
        for (have += bits; have >= 8; have -= 8, acc >>= 8)
            out[at++] = (uint8_t)acc;
    }
    for (; at < end; acc = 0)
        out[at++] = (uint8_t)acc;
}

static void
unpack_bits(int bits, const uint8_t *in, int cols, uint8_t *codes)
{
    uint32_t acc = 0, mask = (1u << bits) - 1, half = 1u << (bits - 1);
    int have = 0;

    for (int c = 0; c < cols; c++) {
        for (; have < bits; have += 8)
            acc |= (uint32_t)*in++ << have;
        codes[c] = (uint8_t)((acc & mask) - half);
        acc >>= bits;
        have -= bits;
    }
}

/* The common width, a byte at a time. */
static void
pack_nibbles(uint32_t half, const uint8_t *codes, int cols, uint8_t *out, size_t bytes)
{
    int pairs = cols / 2;

    for (int i = 0; i < pairs; i++)
        out[i] = (uint8_t)(((codes[2 * i] + half) & 15) | (codes[2 * i + 1] + half) << 4);
    memset(out + pairs, 0, bytes - (size_t)pairs);
    if (cols % 2 != 0)
        out[pairs] = (uint8_t)((codes[cols - 1] + half) & 15);
}

void
pack_rows(enum pack layout, int bits, const uint8_t *codes, int rows, int cols, void *out)
{
    size_t bytes = pack_row_bytes(layout, bits, cols);

    for (int r = 0; r < rows; r++) {
        const uint8_t *in = codes + (size_t)r * (size_t)cols;
        uint8_t *to = (uint8_t *)out + (size_t)r * bytes;

        if (layout == PACK_BYTES)
            memcpy(to, in, bytes);
        else if (layout == PACK_NIBBLES || bits == 4)
            pack_nibbles(layout == PACK_WORDS ? 8 : 0, in, cols, to, bytes);
        else
            pack_bits(bits, in, cols, to);
    }
}

void
unpack_rows(enum pack layout, int bits, const void *in, int rows, int cols, uint8_t *codes)
{
    size_t bytes = pack_row_bytes(layout, bits, cols);

    for (int r = 0; r < rows; r++) {
        const uint8_t *from = (const uint8_t *)in + (size_t)r * bytes;
        uint8_t *to = codes + (size_t)r * (size_t)cols;

        if (layout == PACK_BYTES)
            memcpy(to, from, bytes);
        else if (layout == PACK_WORDS)
            unpack_bits(bits, from, cols, to);
        else
            for (int c = 0; c < cols; c++)
                to[c] = (uint8_t)(from[c / 2] >> (c % 2 * 4) & 15);
    }
}

size_t
pack_zero_words(int bits, int rows)
{
    return ((size_t)rows * (size_t)bits + 31) / 32;
}

void
pack_zeros(int bits, const int8_t *zero, int rows, int groups, uint32_t *out)
{
    uint32_t mask = (1u << bits) - 1, half = 1u << (bits - 1);
    size_t ng = (size_t)groups;

    memset(out, 0, pack_zero_words(bits, rows) * ng * sizeof(*out));
    for (size_t r = 0; r < (size_t)rows; r++) {
        size_t word = r * (size_t)bits / 32, shift = r * (size_t)bits % 32;

        for (size_t g = 0; g < ng; g++) {
            uint32_t u = ((uint32_t)zero[r * ng + g] + half) & mask;

            out[word * ng + g] |= u << shift;
            if (shift + (size_t)bits > 32)
                out[(word + 1) * ng + g] |= u >> (32 - shift);
        }
    }
}

void
unpack_zeros(int bits, const uint32_t *in, int rows, int groups, int8_t *zero)
{
    uint32_t mask = (1u << bits) - 1, half = 1u << (bits - 1);
    size_t ng = (size_t)groups;

    for (size_t r = 0; r < (size_t)rows; r++) {
        size_t word = r * (size_t)bits / 32, shift = r * (size_t)bits % 32;

        for (size_t g = 0; g < ng; g++) {
            uint32_t u = in[word * ng + g] >> shift;

            if (shift + (size_t)bits > 32)
                u |= in[(word + 1) * ng + g] << (32 - shift);
            zero[r * ng + g] = (int8_t)(uint8_t)((u & mask) - half);
        }
    }
}

/* Columns that share one scale, at most; the last span may be short. */
static int
span_cols(const struct qspec *spec, int cols)
{
    return q_scale_cols(spec, cols) > 1 ? spec->group : cols;
}

static inline __attribute__((always_inline)) void
round_part(const float *restrict w, int n, float step, float zero, uint8_t *restrict codes, const struct qspec s)
{
    uint32_t bits[PART]; /* wide as the floats, so that the loop has one vector length */

    for (int c = 0; c < n; c++)
        bits[c] = q_bits(&s, q_round(&s, w[c], step, zero));
    for (int c = 0; c < n; c++)
        codes[c] = (uint8_t)bits[c];
}

static void
round_span(const struct qspec *spec, const float *w, int n, float step, float zero, uint8_t *codes)
{
    for (; n >= PART; n -= PART, w += PART, codes += PART)
        QSPEC_CALL(round_part, spec, w, PART, step, zero, codes);
    QSPEC_CALL(round_part, spec, w, n, step, zero, codes);
}

void
round_rows(const struct qspec *spec, const struct scales *s, const float *w, int row0, int rows, int cols,
    uint8_t *codes)
{
    int span = span_cols(spec, cols);

    assert((spec->symmetric != 0) == (s->zero == NULL));
    for (int r = 0; r < rows; r++) {
        for (int c = 0; c < cols; c += span) {
            size_t k = q_scale_index(spec, row0 + r, c, cols), at = (size_t)r * (size_t)cols + (size_t)c;

            round_span(spec, w + at, cols - c < span ? cols - c : span, q_step(spec, s->scale[k], s->global_scale),
                s->zero != NULL ? s->zero[k] : 0.0f, codes + at);
        }
    }
}

static inline __attribute__((always_inline)) void
dequant_part(const uint8_t *restrict codes, int n, float step, float zero, enum dtype t, float *restrict w,
    const struct qspec s)
{
    for (int c = 0; c < n; c++)
        w[c] = (q_value(&s, codes[c]) - zero) * step;
    for (int c = 0; c < n; c++)
        w[c] = rt(w[c], t);
}

static void
dequant_span(const struct qspec *spec, const uint8_t *codes, int n, float step, float zero, float *w)
{
    QSPEC_CALL(dequant_part, spec, codes, n, step, zero, spec->t, w);
}

void
dequant_rows(const struct qspec *spec, const struct scales *s, const uint8_t *codes, int row0, int rows, int cols,
    float *w)
{
    int span = span_cols(spec, cols);

    assert((spec->symmetric != 0) == (s->zero == NULL));
    for (int r = 0; r < rows; r++) {
        for (int c = 0; c < cols; c += span) {
            size_t k = q_scale_index(spec, row0 + r, c, cols), at = (size_t)r * (size_t)cols + (size_t)c;

            dequant_span(spec, codes + at, cols - c < span ? cols - c : span,
                q_step(spec, s->scale[k], s->global_scale), s->zero != NULL ? s->zero[k] : 0.0f, w + at);
        }
    }
}
