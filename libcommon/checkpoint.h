/* checkpoint - write the finished model: compressed and copied tensors, index, config, side files, provenance
 *
 * Every tensor of the source is accounted for: the weight of a compressed module becomes the tensors of its task files,
 * all others are copied. Everything is written into OUT.tmp.KEY and renamed to OUT at the end (outdir.h), so that OUT
 * is whole or not there; before that it is checked (check.h). A tar is checked before it is written: its shell is, a
 * directory in which codes and copies are holes. Tensors are mapped, and a few MiB of each thread's in memory.
 */
#ifndef LLMC_CHECKPOINT_H
#define LLMC_CHECKPOINT_H

#include "run.h"

struct checkpoint_opts {
    const char *out;
    size_t      shard_bytes;
    bool        force; /* replace OUT if it is a checkpoint of ours: it has a provenance.json */
};

struct checkpoint_stats {
    int    compressed, copied, shards;
    bool   finished; /* this rank ended it; other ranks are at work if not */
    size_t bytes;
};

/* RC_RETRY: tasks are left; RC_CANTCREATE: OUT exists; RC_BUG: the result does not pass its check; RC_DATA, RC_IO. */
int checkpoint_write(struct run *run, const struct checkpoint_opts *o, struct checkpoint_stats *stats);

/* quantization_config of the plan, for config.json. */
int checkpoint_config(const struct run *run, json_t **out);

#endif
