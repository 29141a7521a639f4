/* arch_layer - modules and norms of a decoder layer: what there is, its shape, its name */
#include "arch_family.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const point_names[POINT_COUNT] = { "attn", "o", "mlp", "down" };

static const struct {
    const char *name; /* in the layer; of an expert and a router in the MoE block */
    enum point  point;
} roles[ROLE_COUNT] = {
    [ROLE_Q] = { "self_attn.q_proj", POINT_ATTN },
    [ROLE_K] = { "self_attn.k_proj", POINT_ATTN },
    [ROLE_V] = { "self_attn.v_proj", POINT_ATTN },
    [ROLE_QKV] = { "self_attn.qkv_proj", POINT_ATTN },
    [ROLE_O] = { "self_attn.o_proj", POINT_O },
    [ROLE_ROUTER] = { "gate", POINT_MLP },
    [ROLE_SHARED_GATE] = { "shared_expert_gate", POINT_MLP },
    [ROLE_GATE] = { "gate_proj", POINT_MLP },
    [ROLE_UP] = { "up_proj", POINT_MLP },
    [ROLE_GATE_UP] = { "gate_up_proj", POINT_MLP },
    [ROLE_DOWN] = { "down_proj", POINT_DOWN },
};

static const enum role split_attn[] = { ROLE_Q, ROLE_K, ROLE_V, ROLE_O };
static const enum role fused_attn[] = { ROLE_QKV, ROLE_O };
static const enum role split_mlp[] = { ROLE_GATE, ROLE_UP, ROLE_DOWN };
static const enum role fused_mlp[] = { ROLE_GATE_UP, ROLE_DOWN };
static const enum role routing[] = { ROLE_ROUTER, ROLE_SHARED_GATE };

/* Runs of the list, in order. */
struct run_of_roles {
    const enum role *role;
    int              count, experts; /* experts 0: belongs to none */
};

enum { RUNS = 4 };

bool
arch_fused(const struct arch *a)
{
    return a->family->fused;
}

static void
layer_roles(const struct arch *a, int layer, struct run_of_roles out[RUNS])
{
    bool fused = arch_fused(a), moe = (a->layer[layer] & LAYER_MOE) != 0;

    out[0] = fused ? (struct run_of_roles){ fused_attn, 2, 0 } : (struct run_of_roles){ split_attn, 4, 0 };
    out[1] = (struct run_of_roles){ routing, moe ? 1 + (a->shared_width > 0) : 0, 0 };
    out[2] = fused ? (struct run_of_roles){ fused_mlp, 2, 0 } : (struct run_of_roles){ split_mlp, 3, 0 };
    if (moe && a->shared_width == 0)
        out[2].count = 0;
    out[3] = (struct run_of_roles){ split_mlp, 3, moe ? a->experts : 0 };
}

int
arch_linear_count(const struct arch *a, int layer)
{
    struct run_of_roles runs[RUNS];
    int n = 0;

    layer_roles(a, layer, runs);
    for (int i = 0; i < RUNS - 1; i++)
        n += runs[i].count;
    return n + runs[RUNS - 1].count * runs[RUNS - 1].experts;
}

int
arch_width(const struct arch *a, int layer, enum point p, int expert)
{
    if (p == POINT_O)
        return a->heads * a->head_dim;
    if (p != POINT_DOWN)
        return a->hidden;
    return expert >= 0 ? a->expert_width : (a->layer[layer] & LAYER_MOE) != 0 ? a->shared_width : a->intermediate;
}

static int
role_rows(const struct arch *a, int layer, enum role r, int expert)
{
    switch (r) {
    case ROLE_Q:
        return a->heads * a->head_dim;
    case ROLE_K:
    case ROLE_V:
        return a->kv_heads * a->head_dim;
    case ROLE_QKV:
        return (a->heads + 2 * a->kv_heads) * a->head_dim;
    case ROLE_GATE:
    case ROLE_UP:
        return arch_width(a, layer, POINT_DOWN, expert);
    case ROLE_GATE_UP:
        return 2 * arch_width(a, layer, POINT_DOWN, expert);
    case ROLE_ROUTER:
        return a->experts;
    case ROLE_SHARED_GATE:
        return 1;
    case ROLE_O:
    case ROLE_DOWN:
    case ROLE_COUNT:
        break;
    }
    return a->hidden;
}

void
arch_linear(const struct arch *a, int layer, int i, struct linear *out)
{
    struct run_of_roles runs[RUNS];
    int expert = -1, n = 0;

    layer_roles(a, layer, runs);
    while (n < RUNS - 1 && i >= runs[n].count)
        i -= runs[n++].count;
    if (n == RUNS - 1) {
        expert = i / runs[n].count;
        i %= runs[n].count;
    }
    *out = (struct linear){ .role = runs[n].role[i], .expert = expert };
    out->point = roles[out->role].point;
    out->rows = role_rows(a, layer, out->role, expert);
    out->cols = arch_width(a, layer, out->point, expert);
    out->bias = n > 0 ? a->mlp_bias && n == 2 : out->role == ROLE_O ? a->o_bias : a->qkv_bias;
}

void
arch_module(const struct arch *a, int layer, const struct linear *l, char out[ARCH_NAME_MAX])
{
    const struct moe_names *m = a->family->moe;
    bool moe = (a->layer[layer] & LAYER_MOE) != 0 && l->role >= ROLE_ROUTER;
    int n = snprintf(out, ARCH_NAME_MAX, "%slayers.%d.", a->prefix, layer);
    size_t left = ARCH_NAME_MAX - (size_t)n;

    if (l->expert >= 0)
        (void)snprintf(out + n, left, "%s.experts.%d.%s", m->block, l->expert,
            l->role == ROLE_GATE ? m->gate : l->role == ROLE_UP ? m->up : m->down);
    else if (moe && l->role <= ROLE_SHARED_GATE)
        (void)snprintf(out + n, left, "%s.%s", m->block, roles[l->role].name);
    else
        (void)snprintf(out + n, left, "%s%s%s", l->role <= ROLE_O ? "" : moe ? m->block : "mlp",
            l->role <= ROLE_O ? "" : moe ? ".shared_expert." : ".", roles[l->role].name);
}

void
arch_attention(const struct arch *a, int layer, char out[ARCH_NAME_MAX])
{
    struct linear l;

    arch_linear(a, layer, 0, &l);
    arch_module(a, layer, &l, out);
    *strrchr(out, '.') = '\0';
}

const char *
arch_class(enum role r)
{
    return r == ROLE_ROUTER || r == ROLE_SHARED_GATE ? "Router" : "Linear";
}

/* --- inputs --- */

enum point
arch_expert_point(enum point p, int expert)
{
    return expert < 0 ? p : (enum point)(POINT_COUNT + 2 * expert + (p == POINT_DOWN));
}

enum point
arch_point_base(enum point p)
{
    return p < POINT_COUNT ? p : (p - POINT_COUNT) % 2 == 1 ? POINT_DOWN : POINT_MLP;
}

int
arch_point_expert(enum point p)
{
    return p < POINT_COUNT ? -1 : (int)(p - POINT_COUNT) / 2;
}

int
arch_point_total(const struct arch *a)
{
    return POINT_COUNT + 2 * a->experts;
}

const char *
arch_point_name(enum point p)
{
    static char names[2 * ARCH_EXPERTS_MAX][16]; /* made when they are asked for */
    char *name;

    if (p < POINT_COUNT)
        return point_names[p];
    name = names[p - POINT_COUNT];
    (void)snprintf(name, sizeof(names[0]), "%s.%d", point_names[arch_point_base(p)], arch_point_expert(p));
    return name;
}

int
arch_point_find(const char *name)
{
    size_t len = strcspn(name, ".");
    char *end;
    long expert;

    for (int p = 0; p < POINT_COUNT; p++) {
        if (strncmp(point_names[p], name, len) != 0 || point_names[p][len] != '\0')
            continue;
        if (name[len] == '\0')
            return p;
        expert = strtol(name + len + 1, &end, 10);
        if (p >= POINT_MLP && name[len + 1] >= '0' && name[len + 1] <= '9' && *end == '\0' && expert < ARCH_EXPERTS_MAX)
            return (int)arch_expert_point((enum point)p, (int)expert);
    }
    return -1;
}

bool
arch_weight_module(const char *tensor, char out[ARCH_NAME_MAX])
{
    static const char suffix[] = ".weight";
    size_t len = strlen(tensor), tail = sizeof(suffix) - 1;

    if (len <= tail || len - tail >= ARCH_NAME_MAX || strcmp(tensor + len - tail, suffix) != 0)
        return false;
    memcpy(out, tensor, len - tail);
    out[len - tail] = '\0';
    return true;
}

bool
arch_norm(const struct arch *a, int layer, enum norm_id n, char out[ARCH_NAME_MAX], int *width)
{
    static const char *const names[][NORM_ID_COUNT] = {
        [NORMS_PRE] = { [NORM_ATTN_IN] = "input_layernorm", [NORM_MLP_IN] = "post_attention_layernorm" },
        [NORMS_POST] = { [NORM_ATTN_OUT] = "post_attention_layernorm", [NORM_MLP_OUT] = "post_feedforward_layernorm" },
        [NORMS_BOTH] = { "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
            "post_feedforward_layernorm" },
    };
    const char *name = names[a->family->norms][n];

    *width = a->hidden;
    if (n >= NORM_Q && a->family->qk_norm != QK_NONE) {
        name = n == NORM_Q ? "self_attn.q_norm" : "self_attn.k_norm";
        *width = a->family->qk_norm == QK_HEAD ? a->head_dim : (n == NORM_Q ? a->heads : a->kv_heads) * a->head_dim;
    }
    if (name != NULL)
        (void)snprintf(out, ARCH_NAME_MAX, "%slayers.%d.%s", a->prefix, layer, name);
    return name != NULL;
}

enum norm
arch_norm_kind(const struct arch *a)
{
    return a->family->norm;
}

bool
arch_router_f32(const struct arch *a)
{
    return a->family->moe->f32;
}

void
arch_embed(const struct arch *a, char out[ARCH_NAME_MAX])
{
    (void)snprintf(out, ARCH_NAME_MAX, "%sembed_tokens", a->prefix);
}

void
arch_final_norm(const struct arch *a, char out[ARCH_NAME_MAX])
{
    (void)snprintf(out, ARCH_NAME_MAX, "%snorm", a->prefix);
}

void
arch_head(const struct arch *a, char out[ARCH_NAME_MAX])
{
    if (a->tied)
        arch_embed(a, out);
    else
        (void)snprintf(out, ARCH_NAME_MAX, "%s", a->head);
}
