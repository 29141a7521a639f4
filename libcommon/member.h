/* member - a file, or a member of a tar named as if the tar were a directory: model.tar/config.json
 *
 * A tar is read where it lies: nothing is unpacked, and a member may be mapped. So it must not be compressed, and its
 * members are regular files, not sparse, not links. Its files are those beside the config.json that is least deep:
 * "model/config.json" and "./config.json" alike become model.tar/config.json.
 */
#ifndef LLMC_MEMBER_H
#define LLMC_MEMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct member {
    int      fd;        /* stands at the first byte; the caller closes it */
    uint64_t at, bytes; /* in the file; bytes of what is no regular file: UINT64_MAX */
};

/* RC_NOINPUT: absent; RC_IO; RC_DATA: a tar that is compressed or malformed. */
int  member_open(struct member *m, const char *path);
/* As read_full of file.h, up to the end of the member; *left: bytes until there, at first m->bytes. RC_IO. */
int  member_read(const struct member *m, uint64_t *left, void *data, size_t bytes, size_t *got);
bool member_exists(const char *path);

/* Calls fn with the name of every regular file, after links, of a directory or a tar, in no order; stops when fn does
 * not return RC_OK. RC_NOINPUT: neither of them. */
int member_list(const char *path, int (*fn)(void *ctx, const char *name), void *ctx);
/* Whether PATH is a tar, or what else is no directory. */
bool member_is_tar(const char *path);

#endif
