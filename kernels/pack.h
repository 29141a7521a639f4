/* pack - plain rounding, dequantisation, and codes as they lie on disk
 *
 * Layouts of a row of C codes of b bits:
 *   PACK_WORDS   little-endian 32-bit words; element c at bits [c b, c b + b) of the row, offset binary (code +
 *                2^(b-1)); an element may straddle two words; zero bits after the last
 *   PACK_BYTES   one byte each: int8, or the e4m3 pattern
 *   PACK_NIBBLES code[2 j] | code[2 j + 1] << 4; C is even
 * Functions that take rows may be called for any range of rows.
 */
#ifndef LLMC_PACK_H
#define LLMC_PACK_H

#include "quant.h"

enum pack { PACK_WORDS, PACK_BYTES, PACK_NIBBLES };

size_t pack_row_bytes(enum pack layout, int bits, int cols);
void   pack_rows(enum pack layout, int bits, const uint8_t *codes, int rows, int cols, void *out);
void   unpack_rows(enum pack layout, int bits, const void *in, int rows, int cols, uint8_t *codes);

/* Zero points [rows, groups] packed as words along rows: word k of a column holds elements from bit 32 k on. */
size_t pack_zero_words(int bits, int rows); /* rows of out */
void   pack_zeros(int bits, const int8_t *zero, int rows, int groups, uint32_t *out);
void   unpack_zeros(int bits, const uint32_t *in, int rows, int groups, int8_t *zero);

/* Scales of a whole matrix, and where a range of rows lies in it. */
struct scales {
    const float  *scale; /* [q_scale_rows, q_scale_cols] of the whole matrix, as stored */
    const int8_t *zero;  /* NULL: symmetric */
    float         global_scale; /* 1 without one */
};

/* Round w [rows, cols], values of T, to the nearest codes; row0 is the matrix's row of the first one. This is what
 * compressed-tensors does on saving, in T arithmetic: spec->v10 plays no part. */
void round_rows(const struct qspec *spec, const struct scales *s, const float *w, int row0, int rows, int cols,
    uint8_t *codes);

/* The values of codes, rounded to T. */
void dequant_rows(const struct qspec *spec, const struct scales *s, const uint8_t *codes, int row0, int rows, int cols,
    float *w);

#endif
