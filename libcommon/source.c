/* source - a checkpoint as dense tensors, plain or compressed by compressed-tensors */
#include "source.h"

#include "inputs.h"
#include "mem.h"
#include "msg.h"
#include "weights.h"

#include <limits.h>
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
source_open(struct source *s, const char *dir)
{
    int rc;

    *s = (struct source){ 0 };
    if ((rc = model_open(&s->model, dir)) != RC_OK)
        return rc;
    if ((rc = source_arch(&s->arch, &s->model)) != RC_OK)
        rc = err_at(rc, "%s", dir);
    else if (s->model.quant_method != NULL && strcmp(s->model.quant_method, "compressed-tensors") != 0)
        rc = err_set(RC_DATA, "%s: quant_method \"%s\" is not supported; there is compressed-tensors", dir,
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

int
source_stored(const struct model *m, const char *name, struct dense *out)
{
    const struct tensor *t;
    int rc;

    if ((rc = model_get(m, name, &t)) != RC_OK)
        return rc;
    if (t->ndim < 1 || t->ndim > 2 || t->shape[0] > INT_MAX || (t->ndim == 2 && t->shape[1] > INT_MAX))
        return err_set(RC_DATA, "%s has %d dimensions", name, t->ndim);
    *out = (struct dense){ .dtype = t->dtype, .rows = (int)t->shape[0], .cols = t->ndim == 2 ? (int)t->shape[1] : 1,
        .data = t->data };
    return RC_OK;
}

/* Norms and embeddings are of other classes. */
static int
group_of(const struct source *s, const char *module)
{
    return s->recipe != NULL && strstr(module, "_proj") != NULL ? recipe_find(s->recipe, module, "Linear", NULL) : -1;
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
