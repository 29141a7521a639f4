/* arch - model families: one row each in a table of features, and what config.json says of one model */
#include "arch.h"

#include "buf.h"
#include "mem.h"
#include "msg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct family families[] = {
    { .model_type = "llama" },
};

static const struct {
    const char *name, *suffix;
    enum point  point;
} roles[ROLE_COUNT] = {
    [ROLE_Q] = { "q", "self_attn.q_proj", POINT_ATTN },
    [ROLE_K] = { "k", "self_attn.k_proj", POINT_ATTN },
    [ROLE_V] = { "v", "self_attn.v_proj", POINT_ATTN },
    [ROLE_O] = { "o", "self_attn.o_proj", POINT_O },
    [ROLE_GATE] = { "gate", "mlp.gate_proj", POINT_MLP },
    [ROLE_UP] = { "up", "mlp.up_proj", POINT_MLP },
    [ROLE_DOWN] = { "down", "mlp.down_proj", POINT_DOWN },
};

static const char *const point_names[POINT_COUNT] = { "attn", "o", "mlp", "down" };

static const struct {
    const char    *name;
    enum rope_type type;
} rope_types[] = {
    { "default", ROPE_DEFAULT }, { "linear", ROPE_LINEAR }, { "dynamic", ROPE_DYNAMIC }, { "llama3", ROPE_LLAMA3 },
    { "yarn", ROPE_YARN },
};

static const struct {
    const char *name;
    enum act    act;
} acts[] = {
    { "silu", ACT_SILU }, { "swish", ACT_SILU }, { "gelu_pytorch_tanh", ACT_GELU_TANH }, { "gelu_new", ACT_GELU_TANH },
    { "gelu", ACT_GELU },
};

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

enum { DIM_MAX = 1 << 20 };

static int
read_family(struct arch *a, const json_t *config)
{
    struct buf known = { 0 };
    const char *type;
    int rc;

    if ((rc = jget_str(config, "model_type", NULL, &type)) != RC_OK)
        return rc;
    if (type == NULL)
        return err_set(RC_DATA, "no \"model_type\"");
    for (int i = 0; i < COUNT(families); i++) {
        if (strcmp(families[i].model_type, type) == 0) {
            a->family = &families[i];
            buf_free(&known);
            return RC_OK;
        }
        buf_printf(&known, "%s%s", i > 0 ? ", " : "", families[i].model_type);
    }
    rc = err_set(RC_DATA, "model_type \"%s\" is not supported; there are %s", type, known.s != NULL ? known.s : "none");
    buf_free(&known);
    return rc;
}

static int
read_act(struct arch *a, const json_t *config)
{
    const char *name;
    int rc;

    if ((rc = jget_str(config, "hidden_act", "silu", &name)) != RC_OK)
        return rc;
    for (int i = 0; i < COUNT(acts); i++)
        if (strcmp(acts[i].name, name) == 0) {
            a->act = acts[i].act;
            return RC_OK;
        }
    return err_set(RC_DATA, "hidden_act \"%s\" is not supported", name);
}

static int
read_dtype(struct arch *a, const json_t *config)
{
    const char *name;
    int rc;

    if ((rc = jget_str(config, "dtype", NULL, &name)) != RC_OK ||
        (name == NULL && (rc = jget_str(config, "torch_dtype", "float32", &name)) != RC_OK))
        return rc;
    a->dtype = dtype_find(name);
    if (a->dtype != DT_BF16 && a->dtype != DT_F16 && a->dtype != DT_F32)
        return err_set(RC_DATA, "dtype \"%s\" is not supported; there are bfloat16, float16, float32", name);
    return RC_OK;
}

/* A required positive integer. */
static int
need_int(const json_t *config, const char *key, int *out)
{
    int64_t v;
    int rc = jget_int(config, key, 0, 1, DIM_MAX, &v);

    if (rc == RC_OK && v == 0)
        rc = err_set(RC_DATA, "no \"%s\"", key);
    *out = (int)v;
    return rc;
}

static int
opt_int(const json_t *config, const char *key, int def, int *out)
{
    int64_t v;
    int rc = jget_int(config, key, def, 1, DIM_MAX, &v);

    *out = (int)v;
    return rc;
}

static int
rope_type_find(struct rope *r, const char *name)
{
    for (int i = 0; i < COUNT(rope_types); i++)
        if (strcmp(rope_types[i].name, name) == 0) {
            r->type = rope_types[i].type;
            return RC_OK;
        }
    return err_set(RC_DATA, "rope_type \"%s\" is not supported", name);
}

/* Old style: rope_theta beside rope_scaling {rope_type or type}; new style: both in rope_parameters. */
static int
read_rope(struct arch *a, const json_t *config)
{
    const json_t *p = json_object_get(config, "rope_parameters"), *s = p;
    struct rope *r = &a->rope;
    const char *type;
    int rc;

    if (!json_is_object(p))
        s = json_object_get(config, "rope_scaling");
    if ((rc = jget_real(json_is_object(p) ? p : config, "rope_theta", 10000.0, &r->theta)) != RC_OK)
        return rc;
    if (!json_is_object(s))
        return RC_OK;
    if ((rc = jget_str(s, "rope_type", NULL, &type)) != RC_OK ||
        (type == NULL && (rc = jget_str(s, "type", "default", &type)) != RC_OK) ||
        (rc = rope_type_find(r, type)) != RC_OK ||
        (rc = jget_real(s, "factor", 1.0, &r->factor)) != RC_OK ||
        (rc = jget_real(s, "low_freq_factor", 1.0, &r->low_freq)) != RC_OK ||
        (rc = jget_real(s, "high_freq_factor", 4.0, &r->high_freq)) != RC_OK ||
        (rc = jget_real(s, "beta_fast", 32.0, &r->beta_fast)) != RC_OK ||
        (rc = jget_real(s, "beta_slow", 1.0, &r->beta_slow)) != RC_OK ||
        (rc = jget_real(s, "attention_factor", 0.0, &r->attention_factor)) != RC_OK ||
        (rc = jget_real(s, "mscale", 0.0, &r->mscale)) != RC_OK ||
        (rc = jget_real(s, "mscale_all_dim", 0.0, &r->mscale_all_dim)) != RC_OK ||
        (rc = jget_bool(s, "truncate", true, &r->truncate)) != RC_OK ||
        (rc = jget_int(s, "original_max_position_embeddings", a->max_positions, 1, INT32_MAX,
            &r->original_max)) != RC_OK)
        return rc;
    if (!(r->factor > 0) || !(r->theta > 0) || r->high_freq == r->low_freq)
        return err_set(RC_DATA, "RoPE parameters are out of range");
    return RC_OK;
}

static int
read_dims(struct arch *a, const json_t *config)
{
    double eps;
    int64_t window;
    int rc;

    if ((rc = need_int(config, "hidden_size", &a->hidden)) != RC_OK ||
        (rc = need_int(config, "num_hidden_layers", &a->layers)) != RC_OK ||
        (rc = need_int(config, "num_attention_heads", &a->heads)) != RC_OK ||
        (rc = need_int(config, "intermediate_size", &a->intermediate)) != RC_OK ||
        (rc = need_int(config, "vocab_size", &a->vocab)) != RC_OK ||
        (rc = opt_int(config, "num_key_value_heads", a->heads, &a->kv_heads)) != RC_OK ||
        (rc = opt_int(config, "head_dim", a->hidden / a->heads, &a->head_dim)) != RC_OK ||
        (rc = jget_int(config, "sliding_window", 0, 0, INT32_MAX, &window)) != RC_OK ||
        (rc = jget_real(config, "rms_norm_eps", 1e-6, &eps)) != RC_OK)
        return rc;
    rc = opt_int(config, "max_position_embeddings", 2048, &a->max_positions);
    a->eps = (float)eps;
    a->window = a->family->sliding ? (int)window : 0;
    if (a->heads % a->kv_heads != 0)
        return err_set(RC_DATA, "%d attention heads do not share %d key/value heads evenly", a->heads, a->kv_heads);
    if (a->head_dim % 2 != 0)
        return err_set(RC_DATA, "head_dim is %d, want an even number", a->head_dim);
    return rc;
}

int
arch_read(struct arch *a, const json_t *config)
{
    int rc;

    *a = (struct arch){ .rope = { .type = ROPE_DEFAULT, .factor = 1, .truncate = true } };
    if (!json_is_object(config))
        return err_set(RC_DATA, "config.json: not an object");
    if ((rc = read_family(a, config)) != RC_OK || (rc = read_dims(a, config)) != RC_OK ||
        (rc = read_act(a, config)) != RC_OK || (rc = read_dtype(a, config)) != RC_OK ||
        (rc = read_rope(a, config)) != RC_OK ||
        (rc = jget_bool(config, "tie_word_embeddings", false, &a->tied)) != RC_OK ||
        (rc = jget_bool(config, "attention_bias", false, &a->attn_bias)) != RC_OK ||
        (rc = jget_bool(config, "mlp_bias", false, &a->mlp_bias)) != RC_OK)
        return err_at(rc, "config.json");
    return RC_OK;
}

enum point
arch_point(enum role r)
{
    return roles[r].point;
}

const char *
arch_point_name(enum point p)
{
    return point_names[p];
}

int
arch_point_width(const struct arch *a, enum point p)
{
    return p == POINT_O ? a->heads * a->head_dim : p == POINT_DOWN ? a->intermediate : a->hidden;
}

void
arch_role_shape(const struct arch *a, enum role r, int *rows, int *cols)
{
    *cols = arch_point_width(a, roles[r].point);
    *rows = r == ROLE_Q ? a->heads * a->head_dim : r == ROLE_K || r == ROLE_V ? a->kv_heads * a->head_dim :
        r == ROLE_GATE || r == ROLE_UP ? a->intermediate : a->hidden;
}

bool
arch_role_bias(const struct arch *a, enum role r)
{
    return r <= ROLE_O ? a->attn_bias : a->mlp_bias;
}

void
arch_module(const struct arch *a, int layer, enum role r, char out[ARCH_NAME_MAX])
{
    int n = snprintf(out, ARCH_NAME_MAX, "model.layers.%d.", layer);

    (void)a;
    (void)snprintf(out + n, ARCH_NAME_MAX - (size_t)n, "%s", roles[r].suffix);
}

void
arch_attention(const struct arch *a, int layer, char out[ARCH_NAME_MAX])
{
    arch_module(a, layer, ROLE_K, out);
    *strrchr(out, '.') = '\0';
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

void
arch_norm(const struct arch *a, int layer, int which, char out[ARCH_NAME_MAX])
{
    (void)a;
    (void)snprintf(out, ARCH_NAME_MAX, "model.layers.%d.%s", layer,
        which == 1 ? "input_layernorm" : "post_attention_layernorm");
}

const char *
arch_embed(const struct arch *a)
{
    (void)a;
    return "model.embed_tokens";
}

const char *
arch_final_norm(const struct arch *a)
{
    (void)a;
    return "model.norm";
}

const char *
arch_head(const struct arch *a)
{
    return a->tied ? arch_embed(a) : "lm_head";
}

/* --- RoPE (formulas: spec of each rope_type in transformers' modeling_rope_utils) --- */

/* The dimension whose wavelength makes `turns` rotations over the original context. */
static double
yarn_dim(const struct rope *r, int dim, double turns)
{
    return dim * log((double)r->original_max / (turns * 2 * M_PI)) / (2 * log(r->theta));
}

static void
yarn_freqs(const struct rope *r, int dim, float *f)
{
    double low = yarn_dim(r, dim, r->beta_fast), high = yarn_dim(r, dim, r->beta_slow);

    if (r->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, dim - 1);
    if (low == high)
        high += 0.001;
    for (int i = 0; i < dim / 2; i++) {
        double ramp = fmin(fmax((i - low) / (high - low), 0), 1), base = (double)f[i];

        f[i] = (float)(base / r->factor * ramp + base * (1 - ramp));
    }
}

static void
llama3_freqs(const struct rope *r, int dim, float *f)
{
    double orig = (double)r->original_max;

    for (int i = 0; i < dim / 2; i++) {
        double wave = 2 * M_PI / (double)f[i], smooth;

        if (wave < orig / r->high_freq)
            continue;
        smooth = (orig / wave - r->low_freq) / (r->high_freq - r->low_freq);
        f[i] = wave > orig / r->low_freq ? (float)((double)f[i] / r->factor) :
            (float)((1 - smooth) * (double)f[i] / r->factor + smooth * (double)f[i]);
    }
}

static double
yarn_mscale(double factor, double m)
{
    return factor <= 1 ? 1.0 : 0.1 * m * log(factor) + 1.0;
}

/* inv_freq[dim / 2]; returns what cos and sin are multiplied by. */
static double
rope_freqs(const struct arch *a, int tokens, float *f)
{
    const struct rope *r = &a->rope;
    int dim = a->head_dim;
    double base = r->theta;

    if (r->type == ROPE_DYNAMIC && tokens > a->max_positions)
        base *= pow(r->factor * tokens / a->max_positions - (r->factor - 1), dim / (dim - 2.0));
    for (int i = 0; i < dim / 2; i++)
        f[i] = 1.0f / powf((float)base, (float)(2 * i) / (float)dim);
    if (r->type == ROPE_LINEAR)
        for (int i = 0; i < dim / 2; i++)
            f[i] = (float)((double)f[i] / r->factor);
    if (r->type == ROPE_LLAMA3)
        llama3_freqs(r, dim, f);
    if (r->type != ROPE_YARN)
        return 1.0;
    yarn_freqs(r, dim, f);
    if (r->attention_factor > 0)
        return r->attention_factor;
    if (r->mscale > 0 && r->mscale_all_dim > 0)
        return yarn_mscale(r->factor, r->mscale) / yarn_mscale(r->factor, r->mscale_all_dim);
    return yarn_mscale(r->factor, 1.0);
}

int
arch_rope_tables(const struct arch *a, int tokens, enum dtype dt, void *cos_t, void *sin_t)
{
    int half = a->head_dim / 2;
    float *f = mem_alloc((size_t)half * 3, sizeof(*f)), *c = f + half, *s = c + half, scale;

    if (f == NULL)
        return RC_OS;
    scale = (float)rope_freqs(a, tokens, f);
    for (int t = 0; t < tokens; t++) {
        size_t at = (size_t)t * (size_t)half * dtype_size(dt);

        for (int i = 0; i < half; i++) {
            c[i] = cosf((float)t * f[i]) * scale;
            s[i] = sinf((float)t * f[i]) * scale;
        }
        (void)dtype_from_f32((char *)cos_t + at, c, dt, (size_t)half);
        (void)dtype_from_f32((char *)sin_t + at, s, dt, (size_t)half);
    }
    mem_free(f);
    return RC_OK;
}
