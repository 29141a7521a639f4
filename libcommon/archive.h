/* archive - read a file that may be compressed (.gz, .bz2, .xz, .zst or .lz4) or a tar, by content; write a tar
 *
 * Through libarchive, but gzip through zlib, which checks the sums that libarchive passes over. Any other file is one
 * member of its own. Of a tar the regular files are members, in its order, but those with a name that starts with a
 * dot; they may be compressed, too.
 */
#ifndef LLMC_ARCHIVE_H
#define LLMC_ARCHIVE_H

#include <stddef.h>
#include <stdint.h>

struct archive_in;

/* At the first member. RC_NOINPUT: absent; RC_DATA: corrupt or cut compression; RC_IO. */
int  archive_in_open(struct archive_in **out, const char *path);
int  archive_in_next(struct archive_in *a); /* RC_RETRY: there was none after it */
int  archive_in_read(struct archive_in *a, void *data, size_t size, size_t *got); /* got 0: the member's end */
/* For messages, until the next member: the path, of a tar "PATH(MEMBER)". */
const char *archive_in_name(const struct archive_in *a);
void        archive_in_close(struct archive_in *a); /* NULL is fine */

/* A tar whose bytes are those of its members alone: mode 644, no owner, time 0. A file is published by rename. */
struct archive_out;

/* Of PATH: "" for standard output ("-") or .tar, "zstd" for .tar.zst; NULL: not a tar. */
const char *archive_out_filter(const char *path);
int  archive_out_open(struct archive_out **out, const char *path); /* RC_CANTCREATE, RC_UNAVAILABLE (zstd) */
int  archive_out_begin(struct archive_out *a, const char *name, uint64_t bytes);
int  archive_out_write(struct archive_out *a, const void *data, size_t bytes);
int  archive_out_end(struct archive_out *a);    /* RC_BUG: not as many bytes as were announced */
int  archive_out_commit(struct archive_out *a); /* RC_IO */
void archive_out_close(struct archive_out *a);  /* removes what was not committed; NULL is fine */

#endif
