/* outdir - a checkpoint in the making: shards, index, side files, and the SHA-256 of each; a directory or a tar
 *
 * A directory is made as OUT.tmp.KEY and renamed to OUT by outdir_commit(), so that OUT is whole or not there. KEY
 * tells what is made: a run that finds finished shards of the same key goes on behind them. Each shard is published by
 * rename, with its digest beside it (SHARD.sha256) until the end. Without a key it is OUT.tmp.HOST.PID and nobody goes
 * on. outdir_end() removes what nobody would go on with; what killed runs have left beside OUT is removed by the next.
 *
 * Shards are written side by side by the threads of a pool, and by ranks: shard s belongs to rank s % ranks. Any rank
 * that then finds all of them there may try to finish (outdir_finish_begin); the one that gets to renames the directory
 * to OUT.tmp.KEY.tmp.HOST.PID first, which needs no lock, so that no file system lets two of them do it.
 *
 * A tar (OUT.tar, OUT.tar.zst, or "-": standard output) gets the same files as members, one after the other. A shell is
 * a directory in which bytes that no quick check looks at are holes, to check a tar before it is written.
 */
#ifndef LLMC_OUTDIR_H
#define LLMC_OUTDIR_H

#include "archive.h"
#include "digest.h"
#include "file.h"
#include "json.h"
#include "pool.h"
#include "safetensors.h"
#include "tensor.h"

#include <limits.h>

struct outdir_opts {
    const char  *out;
    const char  *key;         /* hex digits; NULL: start anew */
    bool         force;       /* replace OUT if it is a checkpoint of ours: it has a provenance.json */
    bool         shell;
    int          rank, ranks; /* 0 ranks: one */
    struct pool *pool;        /* NULL: one shard after the other */
};

struct outdir {
    struct outdir_opts  o;
    bool                open;          /* dir is there, and ours */
    bool                replaced;      /* what lies in dir now was OUT */
    char                dir[PATH_MAX]; /* where files are until they are committed */
    int                 lock;          /* on dir: alone, or shared by ranks */
    bool                over;          /* another rank finishes, or has: nothing to do */
    int                 named;         /* bytes of dir's name before we gave it one of our own, to finish; else 0 */
    struct archive_out *tar;
    json_t             *outputs;       /* name -> SHA-256 */
};

struct outfile {
    struct file_tmp     file;
    struct archive_out *tar; /* NULL: file */
    char                path[PATH_MAX];
    uint64_t            at, started; /* bytes written; of them the system was told to write back */
    bool                shell;
    struct digest       digest;
};

/* Whether OUT is "-" or has the name of a tar. */
bool outdir_is_tar(const char *out);

/* RC_CANTCREATE: OUT exists and is not an empty directory, or cannot be made; RC_RETRY: somebody else is making it, and
 * we are no rank of several. Call outdir_end() whatever happens. */
int  outdir_begin(struct outdir *d, const struct outdir_opts *o);
int  outdir_commit(struct outdir *d);
void outdir_end(struct outdir *d);

/* Of several ranks, when this one's shards are there: *mine when all are, and nobody else finishes. */
int outdir_finish_begin(struct outdir *d, int shards, bool *mine);

int outfile_write(struct outfile *f, const void *data, size_t bytes);
/* A mapped tensor's bytes, a window at a time in memory; in a shell, holes. check: called with each window. */
int outfile_write_mapped(struct outfile *f, const struct st_file *st, const struct tensor *t,
    int (*check)(const struct tensor *window));
int outdir_text(struct outdir *d, const char *name, const char *text);
int outdir_json(struct outdir *d, const char *name, const json_t *json);
int outdir_copy(struct outdir *d, const char *from_dir, const char *name);

/* Writes the bytes of tensor i; called by several threads with a pool. */
typedef int outdir_tensor_fn(void *ctx, size_t i, struct outfile *f);

/* Tensors in their order fill shards of shard_bytes at most. *shards: how many. Nothing of a tensor but name, type,
 * shape and bytes is looked at. Of several ranks only the shards of this one. */
int outdir_tensors(struct outdir *d, const struct tensor *t, size_t count, size_t shard_bytes, outdir_tensor_fn *fn,
    void *ctx, int *shards);
/* The index, if there are several shards; after all of them. */
int outdir_index(struct outdir *d, const struct tensor *t, size_t count, size_t shard_bytes);

#endif
