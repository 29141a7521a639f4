/* source - a checkpoint as dense tensors, plain or compressed by compressed-tensors */
#include "source.h"

#include "inputs.h"
#include "mem.h"
#include "msg.h"
#include "weights.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static bool
has_tensor(const void *model, const char *name)
{
    return model_find(model, name) != NULL;
}

int
source_arch(struct arch *a, const struct model *m)
{
    TRY(arch_read(a, m->config));
    return arch_locate(a, has_tensor, m);
}

int
source_plain(const struct model *m, const struct arch *a)
{
    if (m->quant_method == NULL)
        return RC_OK;
    if (strcmp(m->quant_method, "fp8") != 0)
        return err_set(RC_DATA, "%s: is compressed already (%s)", m->dir, m->quant_method);
    return m->fp8_block[0] > 0 && m->fp8_block[1] > 0 && a->dtype == DT_BF16 ? RC_OK : err_set(RC_DATA,
        "%s: is compressed already (fp8); only fp8 in blocks (weight_block_size) of a bfloat16 model is read", m->dir);
}

int
source_open(struct source *s, const char *dir)
{
    int rc;

    *s = (struct source){ 0 };
    if ((rc = model_open(&s->model, dir)) != RC_OK)
        return rc;
    if ((rc = source_arch(&s->arch, &s->model)) != RC_OK)
        rc = err_at(rc, "%s", dir);
    else if (s->model.quant_method != NULL && strcmp(s->model.quant_method, "compressed-tensors") != 0)
        rc = source_plain(&s->model, &s->arch) == RC_OK ? RC_OK : err_set(RC_DATA,
            "%s: quant_method \"%s\" is not supported; there are compressed-tensors and fp8 in blocks", dir,
            s->model.quant_method);
    else if (s->model.quant_method != NULL &&
        (rc = recipe_from_config(&s->recipe, model_quantization(s->model.config))) != RC_OK)
        rc = err_at(rc, "%s: config.json", dir);
    if (rc != RC_OK)
        source_close(s);
    return rc;
}

void
source_close(struct source *s)
{
    recipe_free(s->recipe);
    model_close(&s->model);
    *s = (struct source){ 0 };
}

static const struct tensor *
find_tensor(void *ctx, const char *name)
{
    const struct model_tensor *t = model_find(ctx, name);

    return t != NULL ? t->t : NULL;
}

enum { PIECE = 256 };

/* T(code scale), a scale a block (DeepSeek's layout). */
static int
decode_fp8(const struct model *m, const struct tensor *t, struct dense *out)
{
    int bh = m->fp8_block[0], bw = m->fp8_block[1], rows = (int)t->shape[0], cols = (int)t->shape[1];
    int64_t want[2] = { (rows + bh - 1) / bh, (cols + bw - 1) / bw };
    char name[ARCH_NAME_MAX + 32];
    const struct tensor *scale;
    float v[PIECE], s;
    uint16_t *data;

    (void)snprintf(name, sizeof(name), "%s_scale_inv", t->name);
    TRY(model_get(m, name, &scale));
    TRY(tensor_want(scale, DT_F32, 2, want));
    if ((data = mem_alloc((size_t)rows * (size_t)cols, sizeof(*data))) == NULL)
        return RC_OS;
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c += PIECE) {
            int n = cols - c < PIECE ? cols - c : PIECE;
            size_t at = (size_t)r * (size_t)cols + (size_t)c;

            (void)dtype_to_f32(v, (const char *)t->data + at, DT_F8_E4M3, (size_t)n);
            for (int i = 0; i < n; i++) {
                memcpy(&s, (const char *)scale->data + ((size_t)(r / bh) * (size_t)want[1] + (size_t)((c + i) / bw)) *
                    sizeof(float), sizeof(float));
                v[i] *= s;
            }
            (void)dtype_from_f32(data + at, v, DT_BF16, (size_t)n);
        }
    *out = (struct dense){ .dtype = DT_BF16, .rows = rows, .cols = cols, .data = data, .own = data };
    return RC_OK;
}

int
source_stored(const struct model *m, const char *name, struct dense *out)
{
    const struct model_tensor *at = model_find(m, name);
    const struct tensor *t;

    if (at == NULL)
        return model_get(m, name, &t); /* says so */
    t = at->t;
    if (t->ndim < 1 || t->ndim > 2 || t->shape[0] > INT_MAX || (t->ndim == 2 && t->shape[1] > INT_MAX))
        return err_set(RC_DATA, "%s has %d dimensions", name, t->ndim);
    if (t->dtype == DT_F8_E4M3 && m->fp8_block[0] > 0 && t->ndim == 2)
        return decode_fp8(m, t, out);
    *out = (struct dense){ .dtype = t->dtype, .rows = (int)t->shape[0], .cols = t->ndim == 2 ? (int)t->shape[1] : 1,
        .data = t->data, .st = &m->shards[at->shard].st };
    return RC_OK;
}

/* -1: left alone, and so without a scale. */
static int
group_of(const struct source *s, const char *module)
{
    char name[ARCH_NAME_MAX + 16];

    (void)snprintf(name, sizeof(name), "%s.weight_scale", module);
    if (s->recipe == NULL || model_find(&s->model, name) == NULL)
        return -1;
    return recipe_find(s->recipe, module, "Linear", NULL);
}

int
source_dense(void *ctx, const char *name, struct dense *out)
{
    struct source *s = ctx;
    char module[ARCH_NAME_MAX];
    int group = arch_weight_module(name, module) ? group_of(s, module) : -1;

    if (group >= 0)
        return weights_dense(out, module, &s->recipe->groups[group].scheme, s->arch.dtype, find_tensor, &s->model,
            s->pool);
    return source_stored(&s->model, name, out);
}

int
source_inputs(void *ctx, const char *module, const char *cache, struct inputs *out)
{
    struct source *s = ctx;
    int group = cache == NULL ? group_of(s, module) : -1;

    if (cache != NULL && s->recipe != NULL && s->recipe->has_cache)
        return inputs_find_cache(out, module, cache, &s->recipe->cache, s->dt, s->arch.kv_heads, find_tensor,
            &s->model);
    if (group >= 0)
        return inputs_find(out, module, &s->recipe->groups[group].scheme, s->dt, find_tensor, &s->model);
    inputs_free(out);
    return RC_OK;
}
