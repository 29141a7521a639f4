/* outdir - a checkpoint directory in the making: shards, index, side files, and the SHA-256 of each
 *
 * Everything is written into OUT.tmp.HOST.PID and renamed to OUT by outdir_commit(), so that OUT is whole or not there.
 * outdir_end() removes what was not committed. Directories that killed runs have left beside OUT are removed first.
 */
#ifndef LLMC_OUTDIR_H
#define LLMC_OUTDIR_H

#include "digest.h"
#include "json.h"
#include "tensor.h"

#include <limits.h>

struct outdir {
    const char *out;
    bool        force;         /* replace OUT if it is a checkpoint of ours: it has a provenance.json */
    bool        open;
    char        dir[PATH_MAX]; /* where files are until they are committed */
    json_t     *outputs;       /* name -> SHA-256 */
};

struct outfile {
    char          path[PATH_MAX], name[NAME_MAX + 1];
    int           fd;
    struct digest digest;
};

/* RC_CANTCREATE: OUT exists and is not an empty directory, or cannot be made. Call outdir_end() whatever happens. */
int  outdir_begin(struct outdir *d, const char *out, bool force);
int  outdir_commit(struct outdir *d);
void outdir_end(struct outdir *d);

int outfile_write(struct outfile *f, const void *data, size_t bytes);
int outdir_text(struct outdir *d, const char *name, const char *text);
int outdir_json(struct outdir *d, const char *name, const json_t *json);
int outdir_copy(struct outdir *d, const char *from_dir, const char *name);

/* Writes the bytes of tensor i. */
typedef int outdir_tensor_fn(void *ctx, size_t i, struct outfile *f);

/* Tensors in their order fill shards of shard_bytes at most; an index when there are several. *shards: how many.
 * Nothing of a tensor but name, type, shape and bytes is looked at. */
int outdir_tensors(struct outdir *d, const struct tensor *t, size_t count, size_t shard_bytes, outdir_tensor_fn *fn,
    void *ctx, int *shards);

#endif
