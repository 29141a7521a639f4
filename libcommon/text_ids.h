/* text_ids - token ids in .npy and safetensors files; used by text.c alone
 *
 * Messages name what is wrong, the caller names the file.
 */
#ifndef LLMC_TEXT_IDS_H
#define LLMC_TEXT_IDS_H

#include "safetensors.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NPY_HEADER_MAX = 1 << 16 };

enum id_type { ID_I32, ID_I64, ID_U16, ID_U32 };

/* What a .npy file says of itself. A 1-D array has rows -1: its cols are a stream. */
struct npy {
    enum id_type type;
    int64_t      rows, cols;
    size_t       header; /* bytes before the data */
};

bool npy_is(const char *s, size_t len);
/* s: the start of the file, to NPY_HEADER_MAX bytes; RC_DATA */
int  npy_parse(struct npy *n, const char *s, size_t len);

size_t ids_size(enum id_type type);
/* n little-endian integers as token ids; row is for messages. */
int ids_from(int32_t *out, const void *raw, size_t n, enum id_type type, int64_t row);
/* The part of a sample where mask is not 0, in one piece or none; keep: and what is after it. RC_DATA: it has a
 * hole, or what is kept would be seen by the tokens. */
int ids_unpad(const uint8_t *mask, size_t n, bool keep, size_t *first, size_t *count);

/* A safetensors file with input_ids, in memory that outlives it. Zero-initialise. */
struct idrows {
    struct st_file       st;
    const struct tensor *ids, *mask, *lengths;
    enum id_type         type;
    int64_t              row, at; /* the next sample, and where it starts */
    bool                 keep_padding;
    int32_t             *v;
    uint8_t             *bits;
    size_t               v_cap, bits_cap;
};

bool idrows_is(const char *s, size_t len);
int  idrows_open(struct idrows *r, const char *name, const void *data, size_t bytes, bool keep_padding);
int  idrows_next(struct idrows *r, const int32_t **ids, size_t *count, bool *stream); /* RC_RETRY at the end */
void idrows_close(struct idrows *r);

#endif
