/* arch_rope - rotary position embeddings: settings of config.json, frequencies, tables
 *
 * Formulas: each rope_type in transformers' modeling_rope_utils.
 */
#include "arch_family.h"
#include "mem.h"
#include "msg.h"

#include <math.h>
#include <string.h>

static const struct {
    const char    *name;
    enum rope_type type;
} types[] = {
    { "default", ROPE_DEFAULT }, { "linear", ROPE_LINEAR }, { "dynamic", ROPE_DYNAMIC }, { "llama3", ROPE_LLAMA3 },
    { "yarn", ROPE_YARN }, { "longrope", ROPE_LONG },
};

static int
find_type(const struct arch *a, struct rope *r, const char *name)
{
    if (a->family->long_rope && (strcmp(name, "su") == 0 || strcmp(name, "yarn") == 0))
        name = "longrope";
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (strcmp(types[i].name, name) == 0) {
            r->type = types[i].type;
            return RC_OK;
        }
    return err_set(RC_DATA, "rope_type \"%s\" is not supported", name);
}

static int
read_ext(struct rope *r, const json_t *s, const char *key, float *out)
{
    const json_t *list = json_object_get(s, key);

    if (json_array_size(list) != (size_t)r->dim / 2)
        return err_set(RC_DATA, "\"%s\" has %zu numbers, want %d", key, json_array_size(list), r->dim / 2);
    for (int i = 0; i < r->dim / 2; i++) {
        out[i] = (float)json_number_value(json_array_get(list, (size_t)i));
        if (!(out[i] > 0))
            return err_set(RC_DATA, "\"%s\" has a value that is not positive", key);
    }
    return RC_OK;
}

/* Settings of the type that s names; NULL: none. */
static int
read_scaling(struct arch *a, struct rope *r, const json_t *config, const json_t *s)
{
    const char *type;
    int64_t max;

    if (!json_is_object(s))
        return RC_OK;
    TRY(jget_str(s, "rope_type", NULL, &type));
    if (type == NULL)
        TRY(jget_str(s, "type", "default", &type));
    TRY(find_type(a, r, type));
    if (json_object_get(s, "mrope_section") != NULL)
        return err_set(RC_DATA, "RoPE in sections (\"mrope_section\") is not supported");
    TRY(jget_int(config, "original_max_position_embeddings", a->max_positions, 1, INT32_MAX, &max));
    TRY(jget_int(s, "original_max_position_embeddings", max, 1, INT32_MAX, &r->original_max));
    TRY(jget_real(s, "factor", r->type == ROPE_LONG ? (double)a->max_positions / (double)r->original_max : 1.0,
        &r->factor));
    TRY(jget_real(s, "low_freq_factor", 1.0, &r->low_freq));
    TRY(jget_real(s, "high_freq_factor", 4.0, &r->high_freq));
    TRY(jget_real(s, "beta_fast", 32.0, &r->beta_fast));
    TRY(jget_real(s, "beta_slow", 1.0, &r->beta_slow));
    TRY(jget_real(s, "attention_factor", 0.0, &r->attention_factor));
    TRY(jget_real(s, "mscale", 0.0, &r->mscale));
    TRY(jget_real(s, "mscale_all_dim", 0.0, &r->mscale_all_dim));
    TRY(jget_bool(s, "truncate", true, &r->truncate));
    if (!(r->factor > 0) || r->high_freq == r->low_freq)
        return err_set(RC_DATA, "RoPE parameters are out of range");
    if (r->type != ROPE_LONG)
        return RC_OK;
    TRY(read_ext(r, s, "short_factor", r->ext[0]));
    return read_ext(r, s, "long_factor", r->ext[1]);
}

/* p: where rope_theta and partial_rotary_factor are; s: where the type and its settings are. */
static int
read_rope(struct arch *a, struct rope *r, const json_t *config, const json_t *p, const json_t *s, double theta)
{
    double partial = 1;

    *r = (struct rope){ .type = ROPE_DEFAULT, .factor = 1, .truncate = true, .original_max = a->max_positions };
    TRY(jget_real(p, "rope_theta", theta, &r->theta));
    TRY(jget_real(config, "partial_rotary_factor", 1.0, &partial));
    TRY(jget_real(p, "partial_rotary_factor", partial, &partial));
    if (partial != 1 && !a->family->partial)
        return err_set(RC_DATA, "\"partial_rotary_factor\" is set, which models of type %s do not have here",
            a->family->type);
    r->dim = (int)(a->head_dim * partial);
    if (r->dim < 2 || r->dim % 2 != 0 || r->dim > a->head_dim || !(r->theta > 0))
        return err_set(RC_DATA, "RoPE parameters are out of range");
    return read_scaling(a, r, config, s);
}

/* Old style: rope_theta beside rope_scaling {rope_type or type}; new style: both in rope_parameters, of which there is
 * one for each kind of layer where the family has two. */
int
arch_read_ropes(struct arch *a, const json_t *config)
{
    const json_t *p = json_object_get(config, "rope_parameters"), *s = json_object_get(config, "rope_scaling");
    const json_t *full = json_object_get(p, "full_attention"), *local = json_object_get(p, "sliding_attention");
    const struct family *f = a->family;
    double theta = f->theta > 0 ? f->theta : 10000.0, local_theta = f->local_theta;

    if (!a->two_ropes && (full != NULL || local != NULL))
        return err_set(RC_DATA, "RoPE differs by layer, which models of type %s do not have here", f->type);
    if (json_is_object(p) && full == NULL && local == NULL) {
        full = p;
        s = p;
    } else if (full != NULL) {
        s = full;
    }
    TRY(read_rope(a, &a->rope[0], config, full != NULL ? full : config, s, theta));
    if (!a->two_ropes)
        return RC_OK;
    if (f->one_theta)
        local_theta = a->rope[0].theta;
    TRY(jget_real(config, "rope_local_base_freq", local_theta, &local_theta));
    return read_rope(a, &a->rope[1], config, local, local, local_theta);
}


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
rope_freqs(const struct arch *a, const struct rope *r, int tokens, float *f)
{
    int dim = r->dim;
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
    if (r->type == ROPE_LONG) {
        for (int i = 0; i < dim / 2; i++)
            f[i] = 1.0f / (r->ext[tokens > r->original_max][i] * powf((float)base, (float)(2 * i) / (float)dim));
        return r->attention_factor > 0 ? r->attention_factor :
            r->factor <= 1 ? 1.0 : sqrt(1 + log(r->factor) / log((double)r->original_max));
    }
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
arch_rope_tables(const struct arch *a, const struct rope *r, int tokens, enum dtype dt, void *cos_t, void *sin_t)
{
    int half = r->dim / 2;
    float *f = mem_alloc((size_t)half * 3, sizeof(*f)), *c = f + half, *s = c + half, scale;

    if (f == NULL)
        return RC_OS;
    scale = (float)rope_freqs(a, r, tokens, f);
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
