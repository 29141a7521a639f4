/* file - whole reads and writes, and publication by rename
 *
 * Readers never see half a file: write x.tmp.HOST.PID, fsync, rename over x, fsync the directory. An unpublished
 * temporary is removed by file_abort and by exit(); a handler of fatal signals calls file_cleanup_signal_safe().
 * Something other than a regular file at x (/dev/stdout, a fifo) is written directly; a symbolic link to a regular
 * file is replaced, its target left alone.
 */
#ifndef LLMC_FILE_H
#define LLMC_FILE_H

#include "msg.h"

#include <stddef.h>
#include <sys/types.h>

/* These two do not know the name: the caller puts it before the sentence with err_at. */
int file_read_full(int fd, void *data, size_t bytes, size_t *got); /* short only at end of file; RC_IO */
int file_write_full(int fd, const void *data, size_t bytes);       /* RC_IO with strerror */

struct file_tmp {
    int   fd;
    bool  quick; /* set after file_begin: no fsync, for what a crash of the machine may lose and nobody reads after */
    char *path, *tmp; /* tmp is NULL when path is written directly */
};

int  file_begin(struct file_tmp *f, const char *path); /* RC_CANTCREATE */
int  file_commit(struct file_tmp *f); /* fsync, close, rename, fsync the directory; removes on failure; RC_IO */
void file_abort(struct file_tmp *f);  /* harmless after commit, after a failed begin, and on a zeroed struct */
void file_cleanup_signal_safe(void);  /* removes this process's unpublished temporaries */

int file_publish(const char *path, const void *data, size_t bytes);       /* the three in one */
int file_publish_quick(const char *path, const void *data, size_t bytes); /* the same, quick */
/* Removes x.tmp.HOST.PID files in a directory and below it whose process on this host is gone. */
void file_collect(const char *dir);
/* PATH.tmp.HOST.PID of this process; mem_free it. NULL: no memory. */
char *file_tmp_name(const char *path);
/* Whether name is STEM.tmp.HOST.PID of a process on this host that is gone; stem NULL: any. */
bool file_is_stale(const char *name, const char *stem);

int file_mkdir(const char *path); /* parents included; RC_CANTCREATE; an existing directory is fine */
char *file_join(const char *dir, const char *name); /* mem_free it; NULL: no memory */

#endif
