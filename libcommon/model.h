/* model - a checkpoint directory: config.json, safetensors shards and their index, side files
 *
 * Weights are model.safetensors, or the shards that model.safetensors.index.json lists. Every shard's header is read
 * and checked when the model is opened: each listed tensor must lie in its shard and no shard may hold another. Data is
 * mapped, so that a page is read when it is first touched and a model may be larger than memory; model_open_header
 * maps nothing.
 *
 * Experts stacked in one tensor of three dimensions (".experts.gate_up_proj" [experts, gate and up rows, columns],
 * ".experts.down_proj") are met as the matrices that they consist of, under the names that these have where each is a
 * tensor of its own: ".experts.3.gate_proj.weight".
 *
 * Side files are what else a consumer of the checkpoint needs: every visible regular file of the directory that is
 * neither weights (of any framework) nor their index nor config.json.
 */
#ifndef LLMC_MODEL_H
#define LLMC_MODEL_H

#include "json.h"
#include "safetensors.h"

struct model_shard {
    char          *name; /* in the directory */
    struct st_file st;   /* st.path is dir/name */
};

struct model_tensor {
    const struct tensor *t; /* data is NULL after model_open_header */
    int                  shard;
};

struct model {
    char                *dir;
    json_t              *config;
    const char          *quant_method; /* of quantization_config; "" if it has none; NULL: not quantized */
    struct model_shard  *shards;       /* by name */
    int                  shard_count;
    bool                 indexed;      /* has model.safetensors.index.json */
    struct model_tensor *tensors;      /* by name: the order for all loops */
    size_t               count;
    uint64_t             bytes;        /* of all tensors */
    struct tensor       *views;        /* parts of stacked tensors, with names of their own */
    size_t               view_count;
    int                  fp8_block[2]; /* rows and columns that share a weight_scale_inv, of quant_method "fp8"; or 0 */
    char               **side;         /* names, sorted */
    size_t               side_count;
};

/* RC_NOINPUT: no directory, config or weights (a directory with only pytorch weights is refused by name); RC_DATA:
 * anything malformed. On failure nothing needs closing. Whether a quantized model will do is the caller's question. */
int  model_open(struct model *m, const char *dir);
int  model_open_header(struct model *m, const char *dir);
/* config.json alone: no tensors. RC_DATA, RC_NOINPUT. */
int  model_open_config(struct model *m, const char *dir);
void model_close(struct model *m); /* a zeroed one is fine */

/* The quantization_config of a config.json, under any of its names and in text_config, too; NULL: none. */
const json_t *model_quantization(const json_t *config);
/* A file name without separators, leading dot and control bytes, of bounded length: one that an index may list. */
bool model_plain_name(const char *name);

const struct model_tensor *model_find(const struct model *m, const char *name); /* NULL: absent */
int model_get(const struct model *m, const char *name, const struct tensor **out); /* RC_DATA "DIR: no tensor NAME" */
/* The files that it consists of: the i-th one's name, and which shard it is, or -1; NULL: there are fewer. */
const char *model_file(const struct model *m, size_t i, int *shard);
/* Of the shard that holds the tensor; NULL: absent. */
const char *model_shard_path(const struct model *m, const char *name);
/* Size of a shard's file, or of the tar that it lies in, and when it was changed last, in ns. RC_NOINPUT, RC_IO. */
int model_stamp(const struct model *m, int shard, int64_t out[2]);

#endif
