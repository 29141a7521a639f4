/* dequant - a compressed-tensors checkpoint as a plain one, whose weights are what inference computes from the codes */
#ifndef LLMC_DEQUANT_H
#define LLMC_DEQUANT_H

#include "pool.h"

#include <stdbool.h>
#include <stddef.h>

struct dequant_opts {
    const char  *model, *out;
    size_t       shard_bytes;
    bool         force; /* as in outdir.h */
    struct pool *pool;
    size_t       memory; /* bytes that may be used; 0: not said */
};

struct dequant_stats {
    int    decoded, copied, shards;
    size_t bytes;
};

/* Weights in the model's type; tensors that are there for compression alone, and quantization_config, are left out;
 * all else is carried over. RC_DATA: not compressed, or a fault that a check (check.h) finds in what is read;
 * RC_CANTCREATE: OUT exists; RC_IO; RC_OS: memory does not
 * hold the largest weight. One weight at a time is in memory. */
int dequant_write(const struct dequant_opts *o, struct dequant_stats *stats);

#endif
