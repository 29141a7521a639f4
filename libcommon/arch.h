/* arch - model families: one row each in a table of features, and what config.json says of one model
 *
 * A decoder layer has four capture points, in the order of the forward pass; modules that share one share a Hessian:
 *
 *     POINT_ATTN  norm1(x)            -> q_proj k_proj v_proj
 *     POINT_O     attention           -> o_proj                x += o_proj
 *     POINT_MLP   norm2(x)            -> gate_proj up_proj
 *     POINT_DOWN  act(gate) * up      -> down_proj             x += down_proj
 */
#ifndef LLMC_ARCH_H
#define LLMC_ARCH_H

#include "../kernels/backend.h"
#include "json.h"

enum point { POINT_ATTN, POINT_O, POINT_MLP, POINT_DOWN, POINT_COUNT };
enum role { ROLE_Q, ROLE_K, ROLE_V, ROLE_O, ROLE_GATE, ROLE_UP, ROLE_DOWN, ROLE_COUNT };

enum rope_type { ROPE_DEFAULT, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_LLAMA3, ROPE_YARN };

struct rope {
    enum rope_type type;
    double theta, factor, low_freq, high_freq, beta_fast, beta_slow, attention_factor, mscale, mscale_all_dim;
    int64_t original_max; /* positions of the unscaled model */
    bool    truncate;
};

/* What distinguishes a family; what a family's config may choose is read into struct arch. */
struct family {
    const char *model_type;
    bool        sliding;      /* honours sliding_window */
};

struct arch {
    const struct family *family;
    int   hidden, layers, heads, kv_heads, head_dim, intermediate, vocab, max_positions;
    float eps;
    enum act    act;
    bool        tied, attn_bias, mlp_bias;
    int         window; /* 0: none */
    struct rope rope;
    enum dtype  dtype; /* of the checkpoint's weights: T of all scales and rounding */
};

enum { ARCH_NAME_MAX = 256 };

/* RC_DATA, "config.json: ...". An unknown model_type names the ones that there are. */
int arch_read(struct arch *a, const json_t *config);

enum point  arch_point(enum role r);
const char *arch_point_name(enum point p); /* "attn", "o", "mlp", "down" */
int         arch_point_width(const struct arch *a, enum point p);
void        arch_role_shape(const struct arch *a, enum role r, int *rows, int *cols);
bool        arch_role_bias(const struct arch *a, enum role r);
/* Qualified module names, as in the checkpoint without ".weight". */
void arch_module(const struct arch *a, int layer, enum role r, char out[ARCH_NAME_MAX]);
/* The attention of a layer, which caches keys and values: the module that k_proj is part of. */
void arch_attention(const struct arch *a, int layer, char out[ARCH_NAME_MAX]);
/* The module whose weight a tensor is; false: it is no ".weight", or its name is too long. */
bool arch_weight_module(const char *tensor, char out[ARCH_NAME_MAX]);
void arch_norm(const struct arch *a, int layer, int which, char out[ARCH_NAME_MAX]); /* 1: before attention, 2: MLP */
const char *arch_embed(const struct arch *a);
const char *arch_final_norm(const struct arch *a);
const char *arch_head(const struct arch *a); /* "lm_head"; with tied embeddings its weight is that of arch_embed */

/* cos and sin [tokens, head_dim / 2] of type dt (BF16, F32); angles in f32 as the reference computes them. */
int arch_rope_tables(const struct arch *a, int tokens, enum dtype dt, void *cos_t, void *sin_t);

#endif
