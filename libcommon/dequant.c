/* dequant - a compressed-tensors checkpoint as a plain one */
#include "dequant.h"

#include "budget.h"
#include "check.h"
#include "digests.h"
#include "mem.h"
#include "model.h"
#include "msg.h"
#include "opt.h"
#include "outdir.h"
#include "recipe.h"
#include "weights.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FAULT_MAX = 2048 };

struct dequant {
    const struct dequant_opts *o;
    struct model   m;
    struct recipe *recipe;
    enum dtype     t;
    struct tensor *tensors; /* of the result; those decoded have no data */
    int           *group;   /* beside tensors; -1: copied */
    size_t         count;
    struct outdir  dir;
};

/* --- the checkpoint --- */

/* What the reader relies on; the rest, such as a tokenizer that is not there, is carried over as it is. */
static void
keep_fault(void *text, enum check_rule rule, const char *subject, const char *what)
{
    static const enum check_rule of_reader[] = { CHECK_FILE, CHECK_INDEX, CHECK_DUPLICATE, CHECK_CONFIG, CHECK_ARGS,
        CHECK_FORMAT, CHECK_MISSING, CHECK_LEFTOVER, CHECK_DTYPE, CHECK_SHAPE, CHECK_SCALE, CHECK_ZERO_POINT,
        CHECK_GROUP_INDEX };

    for (size_t i = 0; i < sizeof(of_reader) / sizeof(of_reader[0]); i++)
        if (of_reader[i] == rule && ((char *)text)[0] == '\0')
            (void)snprintf(text, FAULT_MAX, "%s: %s (%s)", subject, what, check_rules[rule].name);
}

static int
open_checkpoint(struct dequant *d)
{
    char fault[FAULT_MAX] = "";
    struct check_opts check = { .against = "", .quick = true, .report = keep_fault, .ctx = fault };
    const char *dir = d->o->model, *type;
    int findings;

    TRY(check_run(dir, &check, &findings));
    if (fault[0] != '\0')
        return err_set(RC_DATA, "%s: %s", dir, fault);
    TRY(model_open(&d->m, dir));
    if (d->m.quant_method == NULL)
        return err_set(RC_DATA, "%s: is not compressed", dir);
    TRY(jget_str(d->m.config, "dtype", NULL, &type));
    if (type == NULL)
        TRY(jget_str(d->m.config, "torch_dtype", "float32", &type));
    d->t = dtype_find(type);
    if (d->t != DT_BF16 && d->t != DT_F16 && d->t != DT_F32)
        return err_set(RC_DATA, "%s: dtype \"%s\" is not supported; there are bfloat16, float16, float32", dir, type);
    return recipe_from_config(&d->recipe, model_quantization(d->m.config)) == RC_OK ? RC_OK
        : err_at(RC_DATA, "%s: config.json", dir);
}

static const struct tensor *
find_tensor(void *model, const char *name)
{
    const struct model_tensor *t = model_find(model, name);

    return t != NULL ? t->t : NULL;
}

/* --- tensors --- */

/* Suffixes of tensors that are there for compression alone. */
static bool
of_compression(const char *suffix)
{
    static const char *const all[] = { "weight_packed", "weight_scale", "weight_zero_point", "weight_global_scale",
        "weight_shape", "weight_g_idx", "input_scale", "input_zero_point", "input_global_scale", "output_scale",
        "output_zero_point", "k_scale", "v_scale", "q_scale" };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (strcmp(all[i], suffix) == 0)
            return true;
    return false;
}

/* Adds "module.weight", of what its codes mean; the name is that of the scales, which every compressed module has. */
static int
add_decoded(struct dequant *d, const struct tensor *scale, const char *module)
{
    int group = recipe_find(d->recipe, module, "Linear", NULL), rows, cols;
    struct tensor *t = &d->tensors[d->count];
    size_t size = strlen(module) + sizeof(".weight");
    char *name;

    if (group < 0)
        return err_set(RC_DATA, "%s: no group of config.json compresses it", scale->name);
    if (d->recipe->groups[group].scheme.format == QFORMAT_DENSE)
        return RC_OK; /* its weight is there, dense, and is copied */
    TRY(weights_shape(module, &d->recipe->groups[group].scheme, find_tensor, &d->m, &rows, &cols));
    if ((name = mem_alloc(size, 1)) == NULL)
        return RC_OS;
    (void)snprintf(name, size, "%s.weight", module);
    *t = tensor_2d(name, d->t, rows, cols, NULL);
    d->group[d->count++] = group;
    return RC_OK;
}

static int
add_tensor(struct dequant *d, const struct tensor *t)
{
    const char *dot = strrchr(t->name, '.');
    char module[WEIGHTS_NAME_MAX], scale[WEIGHTS_NAME_MAX + 16];
    int group;

    if (dot != NULL && dot - t->name < (ptrdiff_t)sizeof(module)) {
        (void)snprintf(module, sizeof(module), "%.*s", (int)(dot - t->name), t->name);
        if (strcmp(dot, ".weight_scale") == 0)
            return add_decoded(d, t, module);
        if (of_compression(dot + 1))
            return RC_OK;
        (void)snprintf(scale, sizeof(scale), "%s.weight_scale", module);
        if (strcmp(dot, ".weight") == 0 && model_find(&d->m, scale) != NULL) {
            group = recipe_find(d->recipe, module, "Linear", NULL);
            if (group >= 0 && d->recipe->groups[group].scheme.format != QFORMAT_DENSE)
                return RC_OK; /* codes */
        }
    }
    d->tensors[d->count] = *t;
    if ((d->tensors[d->count].name = mem_strdup(t->name)) == NULL)
        return RC_OS;
    d->group[d->count++] = -1;
    return RC_OK;
}

static int
write_tensor(void *ctx, size_t i, struct outfile *f)
{
    struct dequant *d = ctx;
    const struct tensor *t = &d->tensors[i];
    char module[WEIGHTS_NAME_MAX];
    struct dense out;
    int rc;

    if (d->group[i] < 0)
        return outfile_write(f, t->data, t->bytes);
    (void)snprintf(module, sizeof(module), "%.*s", (int)(strlen(t->name) - strlen(".weight")), t->name);
    TRY(weights_dense(&out, module, &d->recipe->groups[d->group[i]].scheme, d->t, find_tensor, &d->m, d->o->pool));
    rc = outfile_write(f, out.data, t->bytes);
    mem_free(out.own);
    return rc;
}

/* --- the rest --- */

static void
drop_keys(json_t *config)
{
    json_t *text = json_object_get(config, "text_config");

    (void)json_object_del(config, "quantization_config");
    (void)json_object_del(config, "compression_config");
    if (json_is_object(text))
        (void)json_object_del(text, "quantization_config");
}

static int
write_config(struct dequant *d)
{
    json_t *config = json_deep_copy(d->m.config);
    int rc = config == NULL ? err_set(RC_OS, "out of memory") : RC_OK;

    if (rc == RC_OK) {
        drop_keys(config);
        rc = outdir_json(&d->dir, "config.json", config);
    }
    json_decref(config);
    return rc;
}

static int
write_provenance(struct dequant *d)
{
    char *path = realpath(d->o->model, NULL);
    json_t *inputs = NULL, *all = NULL;
    int rc = path == NULL ? err_set(RC_NOINPUT, "%s: %s", d->o->model, strerror(errno)) :
        digests_of(&d->m, d->o->pool, NULL, &inputs);

    if (rc == RC_OK && (all = json_pack("{s:s, s:s, s:b, s:s, s:o, s:O}", "program", "llmc", "version", LLMC_VERSION,
        "dequantized", 1, "model", path, "inputs", inputs, "outputs", d->dir.outputs)) == NULL)
        rc = err_set(RC_OS, "out of memory");
    if (rc == RC_OK)
        rc = outdir_json(&d->dir, "provenance.json", all);
    json_decref(all);
    free(path);
    return rc;
}

static int
check_memory(const struct dequant *d)
{
    double most = 0;
    struct budget b;

    for (size_t i = 0; i < d->count; i++)
        if (d->group[i] >= 0 && (double)d->tensors[i].bytes > most)
            most = (double)d->tensors[i].bytes;
    budget_pack(&b, pool_threads(d->o->pool), most);
    return budget_check(&b, d->o->memory > 0 ? d->o->memory : budget_limit(""));
}

static int
write_all(struct dequant *d, struct dequant_stats *stats)
{
    int rc = RC_OK;

    if ((d->tensors = mem_alloc(d->m.count, sizeof(*d->tensors))) == NULL ||
        (d->group = mem_alloc(d->m.count, sizeof(*d->group))) == NULL)
        return RC_OS;
    for (size_t i = 0; i < d->m.count; i++)
        TRY(add_tensor(d, d->m.tensors[i].t));
    TRY(check_memory(d));
    for (size_t i = 0; i < d->count; i++) {
        stats->bytes += d->tensors[i].bytes;
        if (d->group[i] >= 0)
            stats->decoded++;
        else
            stats->copied++;
    }
    TRY(outdir_tensors(&d->dir, d->tensors, d->count, d->o->shard_bytes, write_tensor, d, &stats->shards));
    TRY(outdir_index(&d->dir, d->tensors, d->count, d->o->shard_bytes));
    TRY(write_config(d));
    for (size_t i = 0; i < d->m.side_count && rc == RC_OK; i++)
        if (strcmp(d->m.side[i], "provenance.json") != 0)
            rc = outdir_copy(&d->dir, d->m.dir, d->m.side[i]);
    return rc != RC_OK ? rc : write_provenance(d);
}

int
dequant_write(const struct dequant_opts *o, struct dequant_stats *stats)
{
    struct dequant d = { .o = o };
    int rc = open_checkpoint(&d);

    *stats = (struct dequant_stats){ 0 };
    if (rc == RC_OK)
        rc = outdir_begin(&d.dir, &(struct outdir_opts){ .out = o->out, .force = o->force });
    if (rc == RC_OK && (rc = write_all(&d, stats)) == RC_OK)
        rc = outdir_commit(&d.dir);
    outdir_end(&d.dir);
    for (size_t i = 0; i < d.count; i++)
        mem_free((char *)(uintptr_t)d.tensors[i].name);
    mem_free(d.tensors);
    mem_free(d.group);
    recipe_free(d.recipe);
    model_close(&d.m);
    return rc;
}
