/* archive - read a file that may be compressed (.gz, .bz2, .xz, .zst or .lz4, by content), through libarchive */
#ifndef LLMC_ARCHIVE_H
#define LLMC_ARCHIVE_H

#include <stddef.h>

struct archive_in;

/* RC_NOINPUT: absent; RC_DATA: corrupt or cut compression (but libarchive leaves the checksum of gzip alone); RC_IO. */
int  archive_in_open(struct archive_in **out, const char *path);
int  archive_in_read(struct archive_in *a, void *data, size_t size, size_t *got); /* got 0: the end */
void archive_in_close(struct archive_in *a); /* NULL is fine */

#endif
