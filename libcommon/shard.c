/* shard - make a plan from a model, a recipe and data */
#include "shard.h"

#include "assign.h"
#include "check.h"
#include "file.h"
#include "links.h"
#include "mem.h"
#include "msg.h"
#include "opt.h"
#include "replan.h"
#include "samples.h"
#include "source.h"
#include "stop.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- modules --- */

static int
add_module(struct shard *s, const char *name, int layer, const struct linear *l)
{
    struct shard_module *m = &s->modules[s->module_count];
    char tensor[ARCH_NAME_MAX + 16];
    int64_t shape[2] = { l->rows, l->cols };
    const struct tensor *t;
    struct scheme scheme;

    *m = (struct shard_module){ .layer = layer, .linear = *l };
    (void)snprintf(m->name, sizeof(m->name), "%s", name);
    (void)snprintf(tensor, sizeof(tensor), "%s.weight", name);
    if (s->model.count > 0) {
        TRY(model_get(&s->model, tensor, &t));
        TRY(tensor_want(t, DT_NONE, 2, shape));
        if (t->dtype != DT_BF16 && t->dtype != DT_F16 && t->dtype != DT_F32 &&
            (t->dtype != DT_F8_E4M3 || s->model.fp8_block[0] == 0))
            return err_set(RC_DATA, "%s is %s, want BF16, F16 or F32", tensor, dtype_name(t->dtype));
    }
    m->group = recipe_find(s->plan.recipe, name, arch_class(l->role), &m->why);
    s->module_count++;
    if (m->group < 0)
        return RC_OK;
    if (layer < 0)
        return err_set(RC_DATA, "%s cannot be compressed, only modules of decoder layers; ignore it", name);
    scheme = s->plan.recipe->groups[m->group].scheme;
    if (s->plan.recipe->bypass_divisibility)
        scheme.weights.group = 0; /* pairs must be whole all the same */
    return scheme_check(&scheme, l->rows, l->cols) == RC_OK ? RC_OK : err_at(RC_DATA, "%s", name);
}

static int
find_modules(struct shard *s)
{
    const struct arch *a = &s->arch;
    char name[ARCH_NAME_MAX];
    struct linear linear;
    size_t count = 1;

    for (int l = 0; l < a->layers; l++)
        count += (size_t)arch_linear_count(a, l);
    if ((s->modules = mem_zalloc(count, sizeof(*s->modules))) == NULL)
        return RC_OS;
    for (int l = 0; l < a->layers; l++)
        for (int i = 0, n = arch_linear_count(a, l); i < n; i++) {
            arch_linear(a, l, i, &linear);
            arch_module(a, l, &linear, name);
            TRY(add_module(s, name, l, &linear));
        }
    if (a->tied)
        (void)recipe_find(s->plan.recipe, a->head, "Linear", NULL); /* a Linear, though it has no weight of its own */
    else
        TRY(add_module(s, a->head, -1, &(struct linear){ .role = ROLE_COUNT, .point = POINT_COUNT, .expert = -1,
            .rows = a->vocab, .cols = a->hidden }));
    arch_embed(a, name);
    /* a reader of the checkpoint would take a scheme for it, too */
    if (recipe_find(s->plan.recipe, name, "Embedding", NULL) >= 0)
        return err_set(RC_DATA, "%s cannot be compressed, only modules of decoder layers; ignore it", name);
    return recipe_check_used(s->plan.recipe);
}

/* Blocks that lie across the border of two fused modules: transformers loads them, vLLM does not. */
static bool
splits_block(const struct shard *s, const struct shard_module *m)
{
    const struct qargs *w = m->group >= 0 ? &s->plan.recipe->groups[m->group].scheme.weights : NULL;

    return w != NULL && w->strategy == ARGS_BLOCK && m->linear.rows % w->block[0] != 0;
}

/* Modules that runtimes fuse must be alike, as --check will ask of the result. */
static int
check_fused(const struct shard *s)
{
    bool warned = false;

    for (int i = 0; i + 1 < s->module_count; i++) {
        const struct shard_module *a = &s->modules[i], *b = &s->modules[i + 1];
        const struct recipe_group *g = s->plan.recipe->groups;

        if (check_fused_names(a->name, b->name) && ((a->group < 0) != (b->group < 0) ||
            (a->group >= 0 && !check_fused_schemes(&g[a->group].scheme, &g[b->group].scheme))))
            return err_set(RC_DATA, "%s and %s are loaded as one, but have different schemes", a->name, b->name);
        if (check_fused_names(a->name, b->name) && splits_block(s, a) && !warned) {
            msg_warn(a->name, "%d rows are not whole blocks, so that vLLM cannot load it together with %s",
                a->linear.rows, b->name);
            warned = true;
        }
    }
    return RC_OK;
}

/* --- steps and tasks --- */

static int
add_task(struct shard *s, const struct shard_module *m, int step)
{
    struct task *t = &s->plan.tasks[s->plan.task_count++];
    bool own = m->linear.point == POINT_DOWN || s->plan.experts == EXPERTS_ROUTED;
    enum point point = arch_expert_point(m->linear.point, own ? m->linear.expert : -1);

    *t = (struct task){ .step = step, .point = point, .end = m->linear.rows, .rows = m->linear.rows,
        .cols = m->linear.cols, .group = m->group };
    t->name = mem_strdup(m->name);
    t->module = mem_strdup(m->name);
    return t->name != NULL && t->module != NULL ? RC_OK : RC_OS;
}

/* Scales of what the layer's attention caches: next to nothing to compute. */
static int
add_cache_task(struct shard *s, int layer, int step)
{
    struct task *t = &s->plan.tasks[s->plan.task_count++];
    char name[ARCH_NAME_MAX];

    arch_attention(&s->arch, layer, name);
    *t = (struct task){ .step = step, .point = POINT_O, .end = 2, .rows = 2,
        .cols = s->arch.kv_heads * s->arch.head_dim, .group = -1 };
    t->name = mem_strdup(name);
    t->module = mem_strdup(name);
    return t->name != NULL && t->module != NULL ? RC_OK : RC_OS;
}

static int
add_step(struct shard *s, int layer, int first_point, int end_point)
{
    struct step *st = &s->plan.steps[s->plan.step_count];

    *st = (struct step){ layer, first_point, end_point, s->plan.task_count, s->plan.task_count };
    for (int i = 0; i < s->module_count; i++) {
        const struct shard_module *m = &s->modules[i];

        if (m->layer == layer && m->group >= 0 && (int)m->linear.point >= first_point &&
            (int)m->linear.point < end_point)
            TRY(add_task(s, m, s->plan.step_count));
    }
    if (s->plan.recipe->has_cache && first_point <= POINT_O && POINT_O < end_point)
        TRY(add_cache_task(s, layer, s->plan.step_count));
    st->end_task = s->plan.task_count;
    s->plan.step_count++;
    return RC_OK;
}

static int
make_steps(struct shard *s)
{
    int layers = s->arch.layers;

    s->plan.steps = mem_zalloc((size_t)layers * POINT_COUNT, sizeof(*s->plan.steps));
    s->plan.tasks = mem_zalloc((size_t)s->module_count + (size_t)layers, sizeof(*s->plan.tasks));
    if (s->plan.steps == NULL || s->plan.tasks == NULL)
        return RC_OS;
    for (int l = 0; l < layers; l++) {
        if (s->plan.sequential != SEQUENTIAL_INPUT)
            TRY(add_step(s, l, 0, POINT_COUNT));
        else
            for (int p = 0; p < POINT_COUNT; p++)
                TRY(add_step(s, l, p, p + 1));
    }
    return s->plan.task_count > 0 ? RC_OK : err_set(RC_DATA, "the recipe compresses no module");
}

static int
open_model(struct shard *s, const struct shard_opts *o)
{
    int rc = model_open_header(&s->model, o->model);

    if (rc == RC_NOINPUT && o->config && model_open_config(&s->model, o->model) == RC_OK)
        rc = RC_OK;
    TRY(rc);
    if ((s->model.count > 0 ? source_arch(&s->arch, &s->model) : arch_read(&s->arch, s->model.config)) != RC_OK)
        return err_at(RC_DATA, "%s", o->model);
    TRY(source_plain(&s->model, &s->arch));
    return inventory_take(&s->carried, &s->arch, &s->model);
}

int
shard_open(struct shard *s, const char *dir, const struct shard_opts *o)
{
    struct recipe_opts how = { .stage = o->stage, .v10 = o->v10 };
    char resolved[PATH_MAX];

    *s = (struct shard){ 0 };
    s->plan.sequential = o->sequential;
    s->plan.block_tokens = o->block_tokens;
    s->plan.experts = o->experts;
    s->plan.expert_tokens = o->expert_tokens;
    if ((s->plan.dir = mem_strdup(dir)) == NULL)
        return RC_OS;
    TRY(open_model(s, o));
    if (realpath(o->model, resolved) == NULL)
        return err_set(RC_NOINPUT, "%s: %s", o->model, strerror(errno));
    if ((s->plan.model = mem_strdup(resolved)) == NULL)
        return RC_OS;
    TRY(o->recipe != NULL ? recipe_read(&s->plan.recipe, o->recipe, &how) :
        recipe_preset(&s->plan.recipe, o->scheme, o->group, o->gptq, o->observer, o->v10, o->correct));
    if (plan_pairs(&s->plan) && o->sequential == SEQUENTIAL_NONE)
        return err_set(RC_USAGE, "--sequential none: modules see the original's inputs, so there is nothing to "
            "correct");
    TRY(find_modules(s));
    TRY(check_fused(s));
    TRY(make_steps(s));
    return assign_ranks(&s->plan, o->ranks);
}

void
shard_close(struct shard *s)
{
    mem_free(s->modules);
    inventory_free(&s->carried);
    model_close(&s->model);
    plan_free(&s->plan);
    *s = (struct shard){ 0 };
}

/* --- writing --- */

static bool
needs_data(const struct plan *p)
{
    for (int i = 0; i < p->task_count; i++)
        if (plan_task_waits(p, &p->tasks[i]))
            return true;
    return false;
}

static int
make_json(struct shard *s, const struct shard_opts *o)
{
    struct plan *p = &s->plan;
    json_t *recipe;

    TRY(recipe_json(p->recipe, &recipe));
    p->json = json_pack("{s:s, s:i, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:I, s:I, s:o}", "version", LLMC_VERSION,
        "algorithm", PLAN_ALGORITHM, "model", p->model, "model_fingerprint", p->model_fingerprint, "data",
        o->data != NULL ? o->data : "", "data_fingerprint", p->data_fingerprint, "sequential",
        sequential_name(p->sequential), "block_tokens", p->block_tokens, "ranks", p->ranks, "samples",
        (json_int_t)p->samples, "tokens", (json_int_t)p->tokens, "recipe", recipe);
    if (p->json != NULL && s->arch.experts > 0 &&
        (json_object_set_new(p->json, "experts", json_string(experts_names[p->experts])) != 0 ||
        json_object_set_new(p->json, "expert_tokens", json_integer(p->expert_tokens)) != 0))
        return err_set(RC_OS, "cannot build plan.json");
    return p->json != NULL ? RC_OK : err_set(RC_OS, "cannot build plan.json");
}

static bool
differ(const json_t *a, const json_t *b)
{
    return a == NULL || b == NULL ? a != b : !json_equal(a, b);
}

/* An existing plan: RC_OK if it is the same one, RC_DATA naming what differs; *exists says whether there is one. */
static int
compare(const struct shard *s, const struct shard_opts *o, bool *exists)
{
    static const struct { const char *key, *what; } keys[] = { { "model_fingerprint", "model" },
        { "data_fingerprint", "calibration data" }, { "recipe", "recipe" }, { "sequential", "--sequential" },
        { "block_tokens", "--block-tokens" }, { "algorithm", "algorithm version" },
        { "experts", "--experts" }, { "expert_tokens", "--expert-tokens" } };
    char path[PATH_MAX];
    struct plan old;
    int rc;

    *exists = false;
    TRY(plan_path(&s->plan, path, "plan.json"));
    if (access(path, F_OK) != 0)
        return RC_OK;
    *exists = true;
    TRY(plan_read(&old, s->plan.dir));
    rc = RC_OK;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]) && rc == RC_OK; i++)
        if (differ(json_object_get(old.json, keys[i].key), json_object_get(s->plan.json, keys[i].key)))
            rc = err_set(RC_DATA, "%s: was made with another %s", s->plan.dir, keys[i].what);
    if (rc == RC_OK && strcmp(old.model, s->plan.model) == 0)
        rc = links_check(&old, &s->model);
    if (rc == RC_OK && o->replan && old.ranks != s->plan.ranks)
        rc = replan_plan(&old, s->plan.ranks);
    else if (rc == RC_OK && old.ranks != s->plan.ranks)
        rc = err_set(RC_DATA, "%s: was made for %d ranks, not %d; --replan changes that", s->plan.dir, old.ranks,
            s->plan.ranks);
    plan_free(&old);
    return rc;
}

/* An earlier, unfinished plan's links are replaced. */
static int
write_plan(struct shard *s)
{
    char model[PATH_MAX];

    TRY(links_make(&s->plan, &s->arch, &s->model));
    TRY(links_path(s->plan.dir, s->plan.model, model));
    if (json_object_set_new(s->plan.json, "model", json_string(model)) != 0)
        return err_set(RC_OS, "cannot build plan.json");
    TRY(links_stamp(&s->plan, &s->model));
    TRY(stop_check());
    return plan_write(&s->plan);
}

int
shard_blocks(struct shard *s, const struct shard_opts *o)
{
    int each = o->block_tokens / o->length > 1 ? o->block_tokens / o->length : 1;
    struct samples samples = { 0 };
    struct plan *p = &s->plan;
    int rc;

    if (o->data != NULL) {
        if ((rc = samples_read(&samples, s->model.dir, o, s->arch.vocab)) == RC_OK)
            rc = samples_blocks(&samples, o->block_tokens, p);
        samples_free(&samples);
        return rc;
    }
    p->block_count = (o->samples + each - 1) / each;
    if ((p->blocks = mem_zalloc((size_t)p->block_count, sizeof(*p->blocks))) == NULL)
        return RC_OS;
    for (int b = 0; b < p->block_count; b++) {
        p->blocks[b].samples = o->samples - b * each < each ? o->samples - b * each : each;
        p->blocks[b].tokens = p->blocks[b].samples * o->length;
        p->samples += p->blocks[b].samples;
        p->tokens += p->blocks[b].tokens;
    }
    return RC_OK;
}

int
shard_write(struct shard *s, const struct shard_opts *o)
{
    static const char *const dirs[] = { "", "tokens", "weights", "hessian", "state", "log" };
    char path[PATH_MAX];
    struct samples samples = { 0 };
    bool exists = false;
    int rc = RC_OK;

    if (needs_data(&s->plan) && o->data == NULL)
        return err_set(RC_USAGE, "the recipe needs calibration data: give it with -d");
    if (needs_data(&s->plan) && (rc = samples_read(&samples, s->model.dir, o, s->arch.vocab)) != RC_OK)
        goto out;
    if ((rc = samples_blocks(&samples, o->block_tokens, &s->plan)) != RC_OK ||
        (rc = plan_model_fingerprint(&s->model, s->plan.model_fingerprint)) != RC_OK)
        goto out;
    if ((rc = assign_ranks(&s->plan, o->ranks)) != RC_OK)
        goto out;
    if ((rc = make_json(s, o)) != RC_OK || (rc = compare(s, o, &exists)) != RC_OK)
        goto out;
    file_collect(s->plan.dir);
    if (exists)
        goto out;
    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]) && rc == RC_OK; i++)
        if ((rc = plan_path(&s->plan, path, "%s", dirs[i])) == RC_OK)
            rc = file_mkdir(path);
    if (rc == RC_OK && (rc = samples_write(&samples, &s->plan)) == RC_OK)
        rc = write_plan(s);
out:
    samples_free(&samples);
    return rc;
}
