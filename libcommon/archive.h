/* archive - read a file that may be compressed (.gz, .bz2, .xz, .zst or .lz4) or a tar, by content
 *
 * Through libarchive, but gzip through zlib, which checks the sums that libarchive passes over. Any other file is one
 * member of its own. Of a tar the regular files are members, in its order, but those with a name that starts with a
 * dot; they may be compressed, too.
 */
#ifndef LLMC_ARCHIVE_H
#define LLMC_ARCHIVE_H

#include <stddef.h>

struct archive_in;

/* At the first member. RC_NOINPUT: absent; RC_DATA: corrupt or cut compression; RC_IO. */
int  archive_in_open(struct archive_in **out, const char *path);
int  archive_in_next(struct archive_in *a); /* RC_RETRY: there was none after it */
int  archive_in_read(struct archive_in *a, void *data, size_t size, size_t *got); /* got 0: the member's end */
/* For messages, until the next member: the path, of a tar "PATH(MEMBER)". */
const char *archive_in_name(const struct archive_in *a);
void        archive_in_close(struct archive_in *a); /* NULL is fine */

#endif
