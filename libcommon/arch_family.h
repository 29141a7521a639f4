/* arch_family - a row of the table of families, for the arch_*.c alone */
#ifndef LLMC_ARCH_FAMILY_H
#define LLMC_ARCH_FAMILY_H

#include "arch.h"

/* Features that settings of config.json belong to. */
enum {
    FEATURE_SOFTCAPS = 1, FEATURE_QUERY_SCALAR = 2, FEATURE_MULTIPLIERS = 4, FEATURE_PARTIAL = 8, FEATURE_MOE = 16,
    FEATURE_SHARED = 32, FEATURE_WINDOW = 64, FEATURE_NO_ROPE = 128
};

/* Norms of the residual stream: before attention and MLP, after them, or both. */
enum norms { NORMS_PRE, NORMS_POST, NORMS_BOTH };
/* Norms of queries and keys: none, of each head, or of the whole width. */
enum qk_norm { QK_NONE, QK_HEAD, QK_WIDTH };
/* SLIDE_TYPES: by layer_types, else every layer but each period-th; period 0: from max_window_layers on; -1: no rule */
enum slide { SLIDE_NONE, SLIDE_ALL, SLIDE_TYPES };
/* Layers without RoPE: none; by a list; those that do not slide, if others do. */
enum no_rope { NO_ROPE_NONE, NO_ROPE_LIST, NO_ROPE_FULL };
/* BIAS_CONFIG: attention_bias is for q, k, v, o; BIAS_SPLIT: for q, k, v, attention_out_bias for o; BIAS_QKV: there is
 * one on q, k, v unless qkv_bias says no. */
enum bias { BIAS_NONE, BIAS_CONFIG, BIAS_SPLIT, BIAS_QKV };

/* A mixture's tensors are LAYER.BLOCK.gate (the router) and LAYER.BLOCK.experts.N.GATE and so on. */
struct moe_names {
    const char *block, *gate, *up, *down;
    const char *width;  /* key of config.json */
    int         chosen;        /* experts per token, if config.json is silent */
    bool        shared;        /* BLOCK.shared_expert and BLOCK.shared_expert_gate */
    bool        renormalise;   /* always; else by norm_topk_prob */
    bool        f32;           /* weights of chosen experts are not rounded */
};

struct family {
    const char             *type; /* model_type */
    enum norms              norms;
    enum norm               norm;
    enum qk_norm            qk_norm;
    enum slide              slide;
    enum no_rope            no_rope;
    enum bias               bias;
    bool                    mlp_bias;     /* mlp_bias is honoured */
    bool                    gated_window; /* no window unless use_sliding_window */
    bool                    fused;        /* qkv_proj and gate_up_proj */
    bool                    partial;      /* partial_rotary_factor is honoured */
    bool                    gelu;         /* with the tanh, unless config.json says otherwise */
    bool                    scaled_embed; /* by the root of hidden_size */
    bool                    multipliers;  /* embedding_, residual_, attention_multiplier, logits_scaling */
    bool                    softcaps;     /* of scores and logits; defaults in attn_softcap, logit_softcap */
    bool                    tied;         /* unless config.json says otherwise */
    bool                    long_rope;    /* RoPE types "su" and "yarn" are old names of longrope */
    float                   attn_softcap, logit_softcap;
    double                  query_scalar; /* query_pre_attn_scalar; 0: it is head_dim */
    double                  theta, local_theta; /* 0: 10000; local_theta > 0: layers that slide have their own RoPE */
    bool                    one_theta;    /* local_theta is that of the others, unless config.json says otherwise */
    double                  eps;          /* 0: 1e-6 */
    const struct moe_names *moe;
    int                     period, window, heads, kv_heads, head_dim, vocab, positions; /* 0: none, or as usual */
};

int arch_read_ropes(struct arch *a, const json_t *config); /* after everything else */

#endif
