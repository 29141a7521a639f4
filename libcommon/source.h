/* source - a checkpoint as dense tensors, plain or compressed by compressed-tensors */
#ifndef LLMC_SOURCE_H
#define LLMC_SOURCE_H

#include "forward.h"
#include "model.h"
#include "recipe.h"

struct source {
    struct model   model;
    struct arch    arch;
    struct recipe *recipe; /* of quantization_config; NULL: plain */
    struct pool   *pool;   /* for decoding */
    enum dtype     dt;     /* of activations, for source_inputs */
};

/* arch_read and arch_locate of a model; RC_DATA. */
int  source_arch(struct arch *a, const struct model *m);
/* RC_DATA "DIR: is compressed already (METHOD)" unless weights are plain, or FP8 in blocks and read as BF16. */
int  source_plain(const struct model *m, const struct arch *a);
/* RC_DATA: unknown family or quantisation. */
int  source_open(struct source *s, const char *dir);
void source_close(struct source *s);
/* A tensor of one or two dimensions as it is stored, FP8 in blocks as BF16; RC_DATA. */
int  source_stored(const struct model *m, const char *tensor, struct dense *out);
int  source_dense(void *source, const char *tensor, struct dense *out); /* fwd_dense_fn */
/* fwd_inputs_fn: what the checkpoint's schemes say of inputs and caches, with its static scales. */
int  source_inputs(void *source, const char *module, const char *cache, struct inputs *out);

#endif
