/* safetensors - map and verify a file, publish one, stream frames over a pipe
 *
 *     u64 LE N | N bytes of JSON, padded with spaces | tensor bytes
 *
 * Readers check everything before use: N against the file size, UTF-8, duplicate names, shape products with overflow,
 * and that the ranges sorted by start touch without hole or overlap from 0 to the end of the file. __metadata__ is
 * string to string. Tensor names are untrusted text: 1 to ST_NAME_MAX bytes, no control bytes.
 */
#ifndef LLMC_SAFETENSORS_H
#define LLMC_SAFETENSORS_H

#include "tensor.h"

#include <stdbool.h>

enum { ST_NAME_MAX = 512, ST_HEADER_MAX = 100000000 };

struct st_meta {
    const char *key, *value;
};

/* A parsed header over mapped (st_open) or owned (st_read_frame) bytes. tensors are sorted by name. */
struct st_file {
    char           *path;
    struct tensor  *tensors;
    size_t          count;
    struct st_meta *meta; /* sorted by key */
    size_t          meta_count;
    uint64_t        data_bytes;   /* of all tensors */
    uint64_t        header_bytes; /* 8 + N: where data starts in the file */
    void           *map;       /* the whole file when mapped; the data of a frame, from mem_alloc, when not */
    size_t          map_bytes;
    bool            mapped;
    char           *names;  /* storage of names, keys and values */
};

/* RC_NOINPUT (absent), RC_IO, RC_DATA (anything malformed, "PATH: what"). On failure st needs no closing. A file that
 * is shortened while it is mapped ends the process with SIGBUS; published files are replaced, never shortened. */
int  st_open(struct st_file *st, const char *path);
/* The header alone, for plans: data pointers are NULL, shapes and bytes are checked against the file size. */
int  st_open_header(struct st_file *st, const char *path);
/* A whole file in memory that outlives st; path is for messages. */
int  st_read_mem(struct st_file *st, const char *path, const void *data, size_t bytes);
void st_close(struct st_file *st);

const struct tensor *st_find(const struct st_file *st, const char *name); /* NULL: absent */
const char          *st_meta(const struct st_file *st, const char *key);  /* NULL: absent */
bool                 st_meta_is(const struct st_file *st, const char *key, const char *want);
/* RC_DATA: of another plan than that of the fingerprint. */
int st_want_plan(const struct st_file *st, const char *fingerprint);
/* As st_find, RC_DATA "PATH: no tensor NAME". */
int st_get(const struct st_file *st, const char *name, const struct tensor **out);

/* Hints about the bytes of a mapped tensor: will be read soon; no longer needed in memory (still valid to read). */
void st_prefetch(const struct st_file *st, const struct tensor *t);
void st_drop(const struct st_file *st, const struct tensor *t);

/* Serialises the header (with its length) for tensors in the order that they will be written: by element size
 * descending, then name, which this function sorts them into. The caller frees *out with mem_free. RC_DATA: text that
 * a reader would refuse (names, not UTF-8); RC_BUG: a name twice, bytes that are not those of the shape. */
int st_header(struct tensor *tensors, size_t count, const struct st_meta *meta, size_t meta_count, char **out,
    size_t *out_bytes);

/* Writes PATH.tmp.HOST.PID, fsyncs, renames over PATH and fsyncs the directory. tensors are sorted in place.
 * RC_CANTCREATE, RC_IO; nothing is left behind on failure. */
int st_publish(const char *path, struct tensor *tensors, size_t count, const struct st_meta *meta, size_t meta_count);

/* The same without fsync: for what the same run makes again if the machine crashes. */
int st_publish_quick(const char *path, struct tensor *tensors, size_t count, const struct st_meta *meta,
    size_t meta_count);

/* A stream is files one after the other. A frame without tensors is a control frame; st.path is "stream".
 * Writing: RC_IO. Reading: RC_OK, RC_RETRY at a clean end of stream, RC_DATA when it ends inside a frame. */
int st_write_frame(int fd, struct tensor *tensors, size_t count, const struct st_meta *meta, size_t meta_count);
int st_read_frame(struct st_file *st, int fd);

#endif
