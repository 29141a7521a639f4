/* arch - model families: one row each in a table of features, and what config.json says of one model
 *
 * A decoder layer has four capture points, in the order of the forward pass; modules that share one share a Hessian:
 *
 *     POINT_ATTN  norm(x)             -> q_proj k_proj v_proj, or qkv_proj
 *     POINT_O     attention           -> o_proj                x += norm(o_proj) m
 *     POINT_MLP   norm(x)             -> gate_proj up_proj, or gate_up_proj; router; gate_proj up_proj of every expert
 *     POINT_DOWN  act(gate) * up      -> down_proj             x += norm(down_proj) m
 *
 * Which norms there are is the family's. Each expert's down_proj has an input of its own. A module is one Linear of a
 * layer: arch_linear() lists them in the order of the forward pass.
 *
 * Adding a family: one row of the table in arch.c, one model in t/peer/make_arch.py and its fixture in t/data/arch,
 * which the tests find by themselves.
 */
#ifndef LLMC_ARCH_H
#define LLMC_ARCH_H

#include "../kernels/backend.h"
#include "json.h"

enum { ARCH_NAME_MAX = 256, ARCH_LAYERS_MAX = 1024, ARCH_EXPERTS_MAX = 1024, ROPE_PAIRS_MAX = 256 };

enum point { POINT_ATTN, POINT_O, POINT_MLP, POINT_DOWN, POINT_COUNT };

enum { ARCH_POINTS_MAX = POINT_COUNT + 2 * ARCH_EXPERTS_MAX }; /* with inputs of experts, see arch_expert_point */

enum role {
    ROLE_Q, ROLE_K, ROLE_V, ROLE_QKV, ROLE_O, ROLE_ROUTER, ROLE_SHARED_GATE, ROLE_GATE, ROLE_UP, ROLE_GATE_UP,
    ROLE_DOWN, ROLE_COUNT
};

enum norm_id { NORM_ATTN_IN, NORM_ATTN_OUT, NORM_MLP_IN, NORM_MLP_OUT, NORM_Q, NORM_K, NORM_ID_COUNT };

enum rope_type { ROPE_DEFAULT, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_LLAMA3, ROPE_YARN, ROPE_LONG };

struct rope {
    enum rope_type type;
    double  theta, factor, low_freq, high_freq, beta_fast, beta_slow, attention_factor, mscale, mscale_all_dim;
    int64_t original_max; /* positions of the unscaled model */
    bool    truncate;
    int     dim;          /* of a head that turn; even */
    float   ext[2][ROPE_PAIRS_MAX]; /* ROPE_LONG: divisors of short and of long sequences */
};

/* Of one layer. */
enum { LAYER_SLIDES = 1, LAYER_NO_ROPE = 2, LAYER_MOE = 4 };

struct family; /* arch.c */

struct arch {
    const struct family *family;
    int   hidden, layers, heads, kv_heads, head_dim, intermediate, vocab, max_positions;
    float eps;
    enum act    act;
    bool        tied, qkv_bias, o_bias, mlp_bias;
    int         window;     /* of layers that slide */
    uint8_t     layer[ARCH_LAYERS_MAX];
    struct rope rope[2];    /* of layers that do not slide, and of those that do */
    bool        two_ropes;
    bool        embed_rounded; /* embed_scale is rounded to the type of activations first */
    float       embed_scale, residual_scale, attn_scale, logit_scale; /* 1: none; attn_scale: of q k' */
    float       attn_softcap, logit_softcap;                          /* 0: none */
    int         experts, experts_per_token, expert_width, shared_width; /* experts 0: none; shared_width 0: none */
    bool        renormalise; /* the weights of the chosen experts add up to 1 */
    enum dtype  dtype;       /* of the checkpoint's weights: T of all scales and rounding */
    char        prefix[32];  /* of the decoder's tensors: "model." */
    char        head[40];    /* module of the head when it is not tied */
};

/* A Linear of a layer. */
struct linear {
    enum role  role;
    enum point point;
    int        expert; /* -1: none */
    int        rows, cols;
    bool       bias;
};

/* RC_DATA, "config.json: ...". An unknown model_type names the ones that there are; settings of a known one that the
 * forward pass does not have are refused by name. Names are those of a model of its own; see arch_locate. */
int arch_read(struct arch *a, const json_t *config);
/* Where in a checkpoint of several parts the decoder lies; has: there is such a tensor. RC_DATA: nowhere. */
int arch_locate(struct arch *a, bool (*has)(const void *ctx, const char *tensor), const void *ctx);

/* An input of its own for one expert at POINT_MLP or POINT_DOWN: a number beyond POINT_COUNT. expert -1: p itself. */
enum point  arch_expert_point(enum point p, int expert);
enum point  arch_point_base(enum point p);
int         arch_point_expert(enum point p); /* -1: no one's */
int         arch_point_total(const struct arch *a); /* numbers in use, with experts' */
const char *arch_point_name(enum point p); /* "attn", "o", "mlp", "down"; "mlp.17", "down.17": of expert 17 */
int         arch_point_find(const char *name); /* -1: none */
int  arch_width(const struct arch *a, int layer, enum point p, int expert); /* of an input; expert -1: of no one's */
bool arch_fused(const struct arch *a); /* query, key and value are one matrix, gate and up another */
int  arch_linear_count(const struct arch *a, int layer);
/* i-th of a layer, without and then with experts, those of one expert together. */
void arch_linear(const struct arch *a, int layer, int i, struct linear *out);
/* Qualified module names, as in the checkpoint without ".weight". */
void arch_module(const struct arch *a, int layer, const struct linear *l, char out[ARCH_NAME_MAX]);
/* The attention of a layer, which caches keys and values: the module that its first Linear is part of. */
void arch_attention(const struct arch *a, int layer, char out[ARCH_NAME_MAX]);
/* Class and its bases for recipes: "Linear"; a router is none, so that it is compressed only when it is named. */
const char *arch_class(enum role r);
/* The module whose weight a tensor is; false: it is no ".weight", or its name is too long. */
bool arch_weight_module(const char *tensor, char out[ARCH_NAME_MAX]);
/* false: the family has no such norm; width: of its weight. */
bool arch_norm(const struct arch *a, int layer, enum norm_id n, char out[ARCH_NAME_MAX], int *width);
enum norm arch_norm_kind(const struct arch *a);
bool arch_router_f32(const struct arch *a); /* weights of chosen experts stay f32 */
void arch_embed(const struct arch *a, char out[ARCH_NAME_MAX]);
void arch_final_norm(const struct arch *a, char out[ARCH_NAME_MAX]);
void arch_head(const struct arch *a, char out[ARCH_NAME_MAX]); /* tied: that of arch_embed */

/* cos and sin [tokens, dim / 2] of type dt (BF16, F32); angles in f32 as the reference computes them. */
int arch_rope_tables(const struct arch *a, const struct rope *r, int tokens, enum dtype dt, void *cos_t, void *sin_t);

#endif
