/* arch - model families: one row each in a table of features, and what config.json says of one model */
#include "arch.h"

#include "arch_family.h"
#include "buf.h"
#include "msg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A mixture's tensors, and the key of its experts' width. */
static const struct moe_names qwen_moe = { .block = "mlp", .gate = "gate_proj", .up = "up_proj", .down = "down_proj",
    .width = "moe_intermediate_size" };
static const struct moe_names qwen2_moe = { .block = "mlp", .gate = "gate_proj", .up = "up_proj", .down = "down_proj",
    .width = "moe_intermediate_size", .shared = true };
static const struct moe_names olmo_moe = { .block = "mlp", .gate = "gate_proj", .up = "up_proj", .down = "down_proj",
    .width = "intermediate_size" };
static const struct moe_names mixtral_moe = { .block = "block_sparse_moe", .gate = "w1", .up = "w3", .down = "w2",
    .width = "intermediate_size", .chosen = 2, .renormalise = true, .f32 = true };

#define GEMMA .norm = NORM_UNIT_OFFSET, .gelu = true, .scaled_embed = true, .tied = true

/* Defaults are those of transformers' configuration classes, for what files on the hub leave out. */
static const struct family families[] = {
    { .type = "llama", .bias = BIAS_CONFIG, .mlp_bias = true },
    { .type = "mistral", .slide = SLIDE_ALL, .window = 4096, .kv_heads = 8 },
    { .type = "ministral", .slide = SLIDE_TYPES, .period = ARCH_LAYERS_MAX + 1, .window = 4096, .kv_heads = 8,
        .positions = 131072 },
    { .type = "qwen2", .bias = BIAS_QKV, .slide = SLIDE_TYPES, .gated_window = true, .window = 4096 },
    { .type = "qwen3", .bias = BIAS_CONFIG, .qk_norm = QK_HEAD, .slide = SLIDE_TYPES, .gated_window = true,
        .window = 4096, .head_dim = 128 },
    { .type = "gemma", GEMMA, .bias = BIAS_CONFIG, .head_dim = 256, .positions = 8192 },
    { .type = "gemma2", GEMMA, .norms = NORMS_BOTH, .bias = BIAS_CONFIG, .slide = SLIDE_TYPES, .period = 2,
        .window = 4096, .softcaps = true, .attn_softcap = 50, .logit_softcap = 30, .query_scalar = 256,
        .head_dim = 256, .heads = 8, .kv_heads = 4, .vocab = 256000, .positions = 8192 },
    { .type = "gemma3_text", GEMMA, .norms = NORMS_BOTH, .qk_norm = QK_HEAD, .bias = BIAS_CONFIG,
        .slide = SLIDE_TYPES, .period = 6, .window = 4096, .softcaps = true, .query_scalar = 256, .theta = 1e6,
        .local_theta = 1e4, .head_dim = 256, .heads = 8, .kv_heads = 4, .vocab = 262208, .positions = 131072 },
    { .type = "phi3", .fused = true, .partial = true, .long_rope = true, .slide = SLIDE_ALL, .eps = 1e-5,
        .positions = 4096 },
    { .type = "olmo2", .norms = NORMS_POST, .norm = NORM_ONCE, .qk_norm = QK_WIDTH, .bias = BIAS_CONFIG, .eps = 1e-5 },
    { .type = "olmo3", .norms = NORMS_POST, .norm = NORM_ONCE, .qk_norm = QK_WIDTH, .bias = BIAS_CONFIG,
        .slide = SLIDE_TYPES, .period = 4, .window = 4096, .theta = 5e5, .local_theta = 5e5, .one_theta = true,
        .eps = 1e-5 },
    { .type = "granite", .multipliers = true, .bias = BIAS_CONFIG, .mlp_bias = true },
    { .type = "smollm3", .bias = BIAS_CONFIG, .mlp_bias = true, .slide = SLIDE_TYPES, .gated_window = true,
        .no_rope = NO_ROPE_LIST, .theta = 2e6, .kv_heads = 4, .tied = true, .positions = 32768 },
    { .type = "exaone4", .norms = NORMS_POST, .qk_norm = QK_HEAD, .slide = SLIDE_TYPES, .period = 4, .window = 4096,
        .no_rope = NO_ROPE_FULL, .eps = 1e-5 },
    { .type = "qwen3_moe", .moe = &qwen_moe, .bias = BIAS_CONFIG, .qk_norm = QK_HEAD, .slide = SLIDE_ALL,
        .gated_window = true, .window = 4096, .kv_heads = 4 },
    { .type = "mixtral", .moe = &mixtral_moe, .slide = SLIDE_ALL, .eps = 1e-5, .kv_heads = 8 },
    { .type = "qwen2_moe", .moe = &qwen2_moe, .bias = BIAS_QKV, .slide = SLIDE_TYPES, .period = -1,
        .gated_window = true, .window = 4096 },
    { .type = "olmoe", .moe = &olmo_moe, .bias = BIAS_CONFIG, .qk_norm = QK_WIDTH, .eps = 1e-5 },
    { .type = "seed_oss", .bias = BIAS_SPLIT, .mlp_bias = true, .head_dim = 128 },
};

static const struct {
    const char *name;
    enum act    act;
} acts[] = {
    { "silu", ACT_SILU }, { "swish", ACT_SILU }, { "gelu_pytorch_tanh", ACT_GELU_TANH }, { "gelu_new", ACT_GELU_TANH },
    { "gelu", ACT_GELU },
};

/* Settings that change the forward pass where the family has the feature, and mean another model where it has not.
 * neutral: the number that switches the feature off; null, false and an empty list do so everywhere. */
static const struct {
    const char *key;
    double      neutral;
    unsigned    feature; /* of arch_family.h; 0: no family has it */
} settings[] = {
    { "use_bidirectional_attention", 0, 0 }, { "clip_qkv", 0, 0 }, { "attention_chunk_size", 0, 0 },
    { "kv_lora_rank", 0, 0 }, { "q_lora_rank", 0, 0 }, { "n_routed_experts", 0, 0 }, { "use_qk_norm", 0, 0 },
    { "qk_layernorm", 0, 0 }, { "parallel_attn", 0, 0 }, { "use_parallel_residual", 0, 0 }, { "logit_scale", 1, 0 },
    { "num_kv_shared_layers", 0, 0 }, { "hidden_size_per_layer_input", 0, 0 }, { "rope_interleave", 0, 0 },
    { "rope_interleaved", 0, 0 }, { "add_cross_attention", 0, 0 }, { "head_dim_list", 0, 0 },
    { "attn_logit_softcapping", 0, FEATURE_SOFTCAPS }, { "final_logit_softcapping", 0, FEATURE_SOFTCAPS },
    { "query_pre_attn_scalar", 0, FEATURE_QUERY_SCALAR }, { "embedding_multiplier", 1, FEATURE_MULTIPLIERS },
    { "residual_multiplier", 1, FEATURE_MULTIPLIERS }, { "attention_multiplier", 1, FEATURE_MULTIPLIERS },
    { "logits_scaling", 1, FEATURE_MULTIPLIERS }, { "partial_rotary_factor", 1, FEATURE_PARTIAL },
    { "num_experts", 0, FEATURE_MOE }, { "num_local_experts", 0, FEATURE_MOE },
    { "shared_expert_intermediate_size", 0, FEATURE_SHARED }, { "sliding_window", 0, FEATURE_WINDOW },
    { "no_rope_layers", 0, FEATURE_NO_ROPE },
};

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

enum { DIM_MAX = 1 << 20 };

static unsigned
features(const struct family *f)
{
    return (f->softcaps ? FEATURE_SOFTCAPS : 0) | (f->query_scalar > 0 ? FEATURE_QUERY_SCALAR : 0) |
        (f->multipliers ? FEATURE_MULTIPLIERS : 0) | (f->partial ? FEATURE_PARTIAL : 0) |
        (f->moe != NULL ? FEATURE_MOE : 0) | (f->moe != NULL && f->moe->shared ? FEATURE_SHARED : 0) |
        (f->slide != SLIDE_NONE ? FEATURE_WINDOW : 0) | (f->no_rope == NO_ROPE_LIST ? FEATURE_NO_ROPE : 0);
}

static int
read_family(struct arch *a, const json_t *config)
{
    struct buf known = { 0 };
    const char *type;
    int rc;

    TRY(jget_str(config, "model_type", NULL, &type));
    if (type == NULL)
        return err_set(RC_DATA, "no \"model_type\"");
    for (int i = 0; i < COUNT(families); i++) {
        if (strcmp(families[i].type, type) == 0) {
            a->family = &families[i];
            buf_free(&known);
            return RC_OK;
        }
        buf_printf(&known, "%s%s", i > 0 ? ", " : "", families[i].type);
    }
    rc = err_set(RC_DATA, "model_type \"%s\" is not supported; there are %s", type, known.s != NULL ? known.s : "none");
    buf_free(&known);
    return rc;
}

static bool
is_neutral(const json_t *v, double neutral)
{
    return v == NULL || json_is_null(v) || json_is_false(v) || (json_is_number(v) && json_number_value(v) == neutral) ||
        (json_is_array(v) && json_array_size(v) == 0);
}

static int
check_settings(const struct arch *a, const json_t *config)
{
    unsigned have = features(a->family);
    bool gated = false;

    TRY(jget_bool(config, "use_sliding_window", true, &gated));
    for (int i = 0; i < COUNT(settings); i++) {
        const json_t *v = json_object_get(config, settings[i].key);

        if ((settings[i].feature & have) != 0 || is_neutral(v, settings[i].neutral))
            continue;
        if (settings[i].feature == FEATURE_WINDOW && !gated)
            continue;
        return err_set(RC_DATA, "\"%s\" is set, which models of type %s do not have here", settings[i].key,
            a->family->type);
    }
    return RC_OK;
}

static int
read_act(struct arch *a, const json_t *config)
{
    const struct family *f = a->family;
    const char *name;

    TRY(jget_str(config, "hidden_activation", NULL, &name));
    if (name == NULL)
        TRY(jget_str(config, "hidden_act", f->gelu ? "gelu_pytorch_tanh" : "silu", &name));
    if (f->gelu && strcmp(name, "gelu") == 0) /* old files of Gemma say so, and mean the other one */
        name = "gelu_pytorch_tanh";
    for (int i = 0; i < COUNT(acts); i++)
        if (strcmp(acts[i].name, name) == 0) {
            a->act = acts[i].act;
            return RC_OK;
        }
    return err_set(RC_DATA, "hidden_act \"%s\" is not supported", name);
}

/* Of the part, else of the whole. */
static int
read_dtype(struct arch *a, const json_t *config, const json_t *whole)
{
    const char *name = NULL;

    for (int i = 0; i < 2 && name == NULL; i++) {
        TRY(jget_str(i == 0 ? config : whole, "dtype", NULL, &name));
        if (name == NULL)
            TRY(jget_str(i == 0 ? config : whole, "torch_dtype", NULL, &name));
    }
    if (name == NULL)
        name = "float32";
    a->dtype = dtype_find(name);
    if (a->dtype != DT_BF16 && a->dtype != DT_F16 && a->dtype != DT_F32)
        return err_set(RC_DATA, "dtype \"%s\" is not supported; there are bfloat16, float16, float32", name);
    return RC_OK;
}

/* A positive integer; def 0: it must be there. */
static int
need_int(const json_t *config, const char *key, int def, int *out)
{
    int64_t v;

    TRY(jget_int(config, key, def, 1, DIM_MAX, &v));
    *out = (int)v;
    return v > 0 ? RC_OK : err_set(RC_DATA, "no \"%s\"", key);
}

static int
get_float(const json_t *config, const char *key, double def, float *out)
{
    double v;

    TRY(jget_real(config, key, def, &v));
    *out = (float)v;
    return RC_OK;
}

static int
read_dims(struct arch *a, const json_t *config)
{
    const struct family *f = a->family;

    TRY(need_int(config, "hidden_size", 0, &a->hidden));
    TRY(need_int(config, "num_hidden_layers", 0, &a->layers));
    TRY(need_int(config, "num_attention_heads", f->heads, &a->heads));
    TRY(need_int(config, "intermediate_size", 0, &a->intermediate));
    TRY(need_int(config, "vocab_size", f->vocab, &a->vocab));
    TRY(need_int(config, "num_key_value_heads", f->kv_heads > 0 ? f->kv_heads : a->heads, &a->kv_heads));
    TRY(need_int(config, "head_dim", f->head_dim > 0 ? f->head_dim : a->hidden / a->heads, &a->head_dim));
    TRY(need_int(config, "max_position_embeddings", f->positions > 0 ? f->positions : 2048, &a->max_positions));
    TRY(get_float(config, "rms_norm_eps", f->eps > 0 ? f->eps : 1e-6, &a->eps));
    if (a->heads % a->kv_heads != 0)
        return err_set(RC_DATA, "%d attention heads do not share %d key/value heads evenly", a->heads, a->kv_heads);
    if (a->head_dim % 2 != 0 || a->head_dim > 2 * ROPE_PAIRS_MAX)
        return err_set(RC_DATA, "head_dim is %d, want an even number up to %d", a->head_dim, 2 * ROPE_PAIRS_MAX);
    if (a->layers > ARCH_LAYERS_MAX)
        return err_set(RC_DATA, "num_hidden_layers is %d, want %d at most", a->layers, ARCH_LAYERS_MAX);
    return RC_OK;
}

static int
read_biases(struct arch *a, const json_t *config)
{
    const struct family *f = a->family;
    bool attention = false;

    if (f->bias == BIAS_CONFIG || f->bias == BIAS_SPLIT)
        TRY(jget_bool(config, "attention_bias", f->bias == BIAS_SPLIT, &attention));
    a->qkv_bias = attention || f->bias == BIAS_QKV;
    a->o_bias = attention && f->bias == BIAS_CONFIG;
    if (f->bias == BIAS_SPLIT)
        TRY(jget_bool(config, "attention_out_bias", false, &a->o_bias));
    if (f->bias == BIAS_QKV)
        TRY(jget_bool(config, "qkv_bias", true, &a->qkv_bias));
    return f->mlp_bias ? jget_bool(config, "mlp_bias", false, &a->mlp_bias) : RC_OK;
}

static int
read_scales(struct arch *a, const json_t *config)
{
    const struct family *f = a->family;
    double query = a->head_dim, logits = 1;

    a->embed_scale = f->scaled_embed ? sqrtf((float)a->hidden) : 1;
    a->embed_rounded = f->scaled_embed;
    a->residual_scale = 1;
    if (f->query_scalar > 0)
        TRY(jget_real(config, "query_pre_attn_scalar", f->query_scalar, &query));
    a->attn_scale = (float)pow(query, -0.5);
    if (f->multipliers) {
        TRY(get_float(config, "embedding_multiplier", 1, &a->embed_scale));
        TRY(get_float(config, "residual_multiplier", 1, &a->residual_scale));
        TRY(get_float(config, "attention_multiplier", 1, &a->attn_scale));
        TRY(jget_real(config, "logits_scaling", 1, &logits));
    }
    a->logit_scale = (float)(1 / logits);
    if (f->softcaps) {
        TRY(get_float(config, "attn_logit_softcapping", f->attn_softcap, &a->attn_softcap));
        TRY(get_float(config, "final_logit_softcapping", f->logit_softcap, &a->logit_softcap));
    }
    return query > 0 && logits > 0 && isfinite(a->logit_scale) ? RC_OK :
        err_set(RC_DATA, "query_pre_attn_scalar or logits_scaling is out of range");
}

/* --- layers --- */

/* smollm3: a list of ones and zeros, or each so many-th layer. */
static int
read_no_rope(struct arch *a, const json_t *config)
{
    const json_t *list = json_object_get(config, "no_rope_layers");
    int64_t interval;

    TRY(jget_int(config, "no_rope_layer_interval", 4, 1, INT32_MAX, &interval));
    if (json_is_array(list) && json_array_size(list) < (size_t)a->layers)
        return err_set(RC_DATA, "no_rope_layers has %zu entries for %d layers", json_array_size(list), a->layers);
    for (int l = 0; l < a->layers; l++) {
        bool rope = json_is_array(list) ? json_integer_value(json_array_get(list, (size_t)l)) != 0 :
            (l + 1) % interval != 0;

        a->layer[l] |= rope ? 0 : LAYER_NO_ROPE;
    }
    return RC_OK;
}

/* Each so many-th layer does not slide: a number, or a string such as "LLLG". 0: none is exempt. */
static int
read_period(const struct arch *a, const json_t *config, int *period)
{
    const json_t *v = json_object_get(config, "sliding_window_pattern");
    int64_t n = 0;

    *period = a->family->period;
    if (json_is_string(v) && json_string_length(v) > 0 && strchr(json_string_value(v), 'G') != NULL &&
        strchr(json_string_value(v), 'G')[1] == '\0') {
        *period = (int)json_string_length(v);
        return RC_OK;
    }
    TRY(jget_int(config, "sliding_window_pattern", *period, 0, INT32_MAX, &n));
    *period = (int)n;
    return RC_OK;
}

static int
slide_by_types(struct arch *a, const json_t *types)
{
    if (json_array_size(types) < (size_t)a->layers)
        return err_set(RC_DATA, "layer_types has %zu entries for %d layers", json_array_size(types), a->layers);
    for (int l = 0; l < a->layers; l++) {
        const char *t = json_string_value(json_array_get(types, (size_t)l));
        bool slides = t != NULL && strcmp(t, "sliding_attention") == 0;

        if (!slides && (t == NULL || strcmp(t, "full_attention") != 0))
            return err_set(RC_DATA, "layer_types: \"%s\" is not supported", t != NULL ? t : "(no string)");
        if (slides && a->family->slide != SLIDE_TYPES)
            return err_set(RC_DATA, "\"layer_types\" is set, which models of type %s do not have here",
                a->family->type);
        a->layer[l] |= slides ? LAYER_SLIDES : 0;
    }
    return RC_OK;
}

static int
slide_by_rule(struct arch *a, const json_t *config)
{
    const struct family *f = a->family;
    int64_t first;
    int period;

    TRY(jget_int(config, "max_window_layers", 28, 0, INT32_MAX, &first));
    TRY(read_period(a, config, &period));
    if (f->slide == SLIDE_TYPES && f->period < 0)
        return err_set(RC_DATA, "the window slides, but \"layer_types\" does not say where");
    for (int l = 0; l < a->layers; l++) {
        bool slides = f->slide == SLIDE_ALL || (f->no_rope == NO_ROPE_LIST ? (a->layer[l] & LAYER_NO_ROPE) != 0 :
            period > 0 ? (l + 1) % period != 0 : l >= first);

        a->layer[l] |= slides ? LAYER_SLIDES : 0;
    }
    return RC_OK;
}

static int
read_window(struct arch *a, const json_t *config)
{
    const struct family *f = a->family;
    const json_t *types = json_object_get(config, "layer_types"), *w = json_object_get(config, "sliding_window");
    bool gate = true;
    int64_t window;

    if (f->no_rope == NO_ROPE_LIST)
        TRY(read_no_rope(a, config));
    if (f->slide == SLIDE_NONE)
        return json_is_array(types) ? slide_by_types(a, types) : RC_OK;
    if (f->gated_window)
        TRY(jget_bool(config, "use_sliding_window", false, &gate));
    TRY(jget_int(config, "sliding_window", f->window, 0, INT32_MAX, &window));
    if (!gate || json_is_null(w) || window == 0)
        return RC_OK; /* layer_types may say what it likes: transformers then has no window */
    a->window = (int)window;
    if (json_is_array(types))
        TRY(slide_by_types(a, types));
    if (!json_is_array(types) || f->slide == SLIDE_ALL)
        TRY(slide_by_rule(a, config));
    if (f->no_rope == NO_ROPE_FULL)
        for (int l = 0; l < a->layers; l++)
            a->layer[l] |= (a->layer[l] & LAYER_SLIDES) == 0 ? LAYER_NO_ROPE : 0;
    return RC_OK;
}

static bool
listed(const json_t *list, int layer)
{
    size_t i;
    json_t *v;

    json_array_foreach(list, i, v)
        if (json_is_integer(v) && json_integer_value(v) == layer)
            return true;
    return false;
}

/* A positive integer of two names, as files of different ages write it. */
static int
get_either(const json_t *config, const char *key, const char *other, int *out)
{
    return need_int(config, json_object_get(config, key) != NULL ? key : other, 0, out);
}

static int
read_moe(struct arch *a, const json_t *config)
{
    const struct moe_names *m = a->family->moe;
    const json_t *dense = json_object_get(config, "mlp_only_layers");
    int step;

    if (m == NULL)
        return RC_OK;
    TRY(get_either(config, "num_experts", "num_local_experts", &a->experts));
    TRY(need_int(config, m->width, 0, &a->expert_width));
    TRY(need_int(config, "num_experts_per_tok", m->chosen, &a->experts_per_token));
    TRY(need_int(config, "decoder_sparse_step", 1, &step));
    if (m->shared)
        TRY(need_int(config, "shared_expert_intermediate_size", 0, &a->shared_width));
    if (m->renormalise)
        a->renormalise = true;
    else
        TRY(jget_bool(config, "norm_topk_prob", false, &a->renormalise));
    if (a->experts > ARCH_EXPERTS_MAX || a->experts_per_token > a->experts)
        return err_set(RC_DATA, "%d of %d experts a token: want %d experts at most", a->experts_per_token, a->experts,
            ARCH_EXPERTS_MAX);
    for (int l = 0; l < a->layers; l++)
        a->layer[l] |= !listed(dense, l) && (l + 1) % step == 0 ? LAYER_MOE : 0;
    return RC_OK;
}

/* config: of the decoder; whole: of the file, the same unless the model has several parts. */
static int
read_all(struct arch *a, const json_t *config, const json_t *whole)
{
    const struct family *f;
    bool tied;

    TRY(read_family(a, config));
    f = a->family;
    TRY(check_settings(a, config));
    TRY(read_dims(a, config));
    TRY(read_act(a, config));
    TRY(read_dtype(a, config, whole));
    TRY(read_biases(a, config));
    TRY(read_scales(a, config));
    TRY(read_window(a, config));
    TRY(read_moe(a, config));
    TRY(jget_bool(whole, "tie_word_embeddings", f->tied, &tied));
    TRY(jget_bool(config, "tie_word_embeddings", tied, &a->tied));
    a->two_ropes = f->local_theta > 0;
    return arch_read_ropes(a, config);
}

int
arch_read(struct arch *a, const json_t *config)
{
    const json_t *text;

    *a = (struct arch){ .prefix = "model.", .head = "lm_head" };
    if (!json_is_object(config))
        return err_set(RC_DATA, "config.json: not an object");
    text = json_object_get(config, "text_config");
    return read_all(a, json_is_object(text) ? text : config, config) == RC_OK ? RC_OK : err_at(RC_DATA, "config.json");
}

int
arch_locate(struct arch *a, bool (*has)(const void *ctx, const char *tensor), const void *ctx)
{
    static const char *const prefixes[] = { "model.", "model.language_model.", "language_model.model." };
    static const char *const heads[] = { "lm_head", "language_model.lm_head" };
    char name[ARCH_NAME_MAX + 16];

    for (int i = 0; i < COUNT(prefixes); i++) {
        (void)snprintf(name, sizeof(name), "%sembed_tokens.weight", prefixes[i]);
        if (!has(ctx, name))
            continue;
        (void)snprintf(a->prefix, sizeof(a->prefix), "%s", prefixes[i]);
        for (int k = 0; k < COUNT(heads); k++) {
            (void)snprintf(name, sizeof(name), "%s.weight", heads[k]);
            if (has(ctx, name))
                (void)snprintf(a->head, sizeof(a->head), "%s", heads[k]);
        }
        return RC_OK;
    }
    return err_set(RC_DATA, "no tensor model.embed_tokens.weight, nor of a language model in it");
}
