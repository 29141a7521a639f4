/* checkpoint - write the finished model: compressed and copied tensors, index, config, side files, provenance
 *
 * Every tensor of the source is accounted for: the weight of a compressed module becomes the tensors of its task files,
 * all others are copied. Everything is written into OUT.tmp.HOST.PID and renamed to OUT at the end, so that OUT is
 * whole or not there; before that it is checked (check.h). Tensors are mapped and written one after the other: memory
 * is bounded by the page cache.
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
    size_t bytes;
};

/* RC_RETRY: tasks are left; RC_CANTCREATE: OUT exists; RC_BUG: the result does not pass its check; RC_DATA, RC_IO. */
int checkpoint_write(struct run *run, const struct checkpoint_opts *o, struct checkpoint_stats *stats);

/* quantization_config of the plan, for config.json. */
int checkpoint_config(const struct run *run, json_t **out);

#endif
