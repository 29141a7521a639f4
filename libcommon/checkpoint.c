/* checkpoint - write the finished model */
#include "checkpoint.h"

#include "check.h"
#include "digests.h"
#include "inventory.h"
#include "mem.h"
#include "msg.h"
#include "outdir.h"
#include "source.h"
#include "weights.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* Of compressed-tensors, whose format this is. */
#define CT_VERSION     "0.19.0"
#define CT_VERSION_V10 "0.14.0.1"

enum { CHECK_TEXT_MAX = 2048 };

/* A tensor of the output: one source, or the row ranges of a module in order. */
struct entry {
    const struct task    *tasks; /* parts: where they come from */
    int                   parts;
    const struct st_file *copied; /* from the source as it is */
    bool                  fp8;    /* from the source, as BF16 */
};

struct writer {
    struct run      *run;
    const struct checkpoint_opts *o;
    struct entry    *entries;
    struct tensor   *tensors; /* of entries; data of a single source, NULL with parts */
    size_t           count, cap, tensor_cap;
    struct st_file  *files;   /* of tasks, opened while entries refer to them */
    struct outdir    dir;
    json_t          *dropped; /* names of source tensors that the result goes without */
};

static int
add_entry(struct writer *w, const struct tensor *t, const struct entry *from)
{
    struct entry *e = mem_grow(w->entries, &w->cap, w->count + 1, sizeof(*e));
    struct tensor *all;

    if (e == NULL)
        return RC_OS;
    w->entries = e;
    if ((all = mem_grow(w->tensors, &w->tensor_cap, w->count + 1, sizeof(*all))) == NULL)
        return RC_OS;
    w->tensors = all;
    e[w->count] = *from;
    all[w->count] = *t;
    if ((all[w->count].name = mem_strdup(t->name)) == NULL)
        return RC_OS;
    w->count++;
    return RC_OK;
}

static int
open_task(struct writer *w, const struct task *t)
{
    struct st_file *st = &w->files[t - w->run->plan.tasks];
    char path[PATH_MAX];

    if (st->path != NULL)
        return RC_OK;
    TRY(plan_task_path(&w->run->plan, t, path));
    TRY(st_open(st, path));
    for (size_t i = 0; i < st->count; i++)
        if (strncmp(st->tensors[i].name, t->module, strlen(t->module)) != 0 ||
            st->tensors[i].name[strlen(t->module)] != '.')
            return err_set(RC_DATA, "%s: holds tensor %s of another module", path, st->tensors[i].name);
    return st_want_plan(st, w->run->plan.fingerprint);
}

/* Rows of a tensor that is cut by rows like its module; others are alike in every part. */
static bool
cut_by_rows(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot != NULL && strcmp(dot, ".weight_shape") != 0 && strcmp(dot, ".weight_global_scale") != 0 &&
        strncmp(dot, ".input_", 7) != 0;
}

/* All tensors of a compressed module; parts are joined by rows. */
static int
add_module(struct writer *w, const struct task *tasks, int parts)
{
    const struct st_file *first = &w->files[tasks - w->run->plan.tasks];

    for (int i = 0; i < parts; i++)
        TRY(open_task(w, &tasks[i]));
    for (size_t k = 0; k < first->count; k++) {
        struct tensor t = first->tensors[k];

        if (parts == 1) {
            TRY(add_entry(w, &t, &(struct entry){ .tasks = tasks, .parts = 1 }));
            continue;
        }
        for (int i = 1; i < parts && cut_by_rows(t.name); i++) {
            const struct tensor *p;

            TRY(st_get(&w->files[&tasks[i] - w->run->plan.tasks], t.name, &p));
            t.shape[0] += p->shape[0];
            t.bytes += p->bytes;
        }
        TRY(add_entry(w, &t, &(struct entry){ .tasks = tasks, .parts = parts }));
    }
    return RC_OK;
}

static bool
scale_of_fp8(const struct model *m, const char *name)
{
    static const char suffix[] = "_scale_inv";
    size_t len = strlen(name), tail = sizeof(suffix) - 1;
    char weight[ARCH_NAME_MAX + 16];
    const struct model_tensor *t;

    if (m->fp8_block[0] == 0 || len <= tail || len - tail >= sizeof(weight) || strcmp(name + len - tail, suffix) != 0)
        return false;
    (void)snprintf(weight, sizeof(weight), "%.*s", (int)(len - tail), name);
    t = model_find(m, weight);
    return t != NULL && t->t->dtype == DT_F8_E4M3;
}

static int
collect(struct writer *w, struct checkpoint_stats *stats)
{
    const struct model *m = &w->run->model;
    char module[ARCH_NAME_MAX];

    for (size_t i = 0; i < m->count; i++) {
        const struct tensor *t = m->tensors[i].t;
        const struct task *tasks = NULL;
        bool weight = arch_weight_module(t->name, module);
        int parts = 0;

        if (weight && w->run->arch.tied && strcmp(module, w->run->arch.head) == 0) {
            (void)json_array_append_new(w->dropped, json_string(t->name)); /* loaders take the embedding instead */
            continue;
        }
        if (scale_of_fp8(m, t->name)) {
            (void)json_array_append_new(w->dropped, json_string(t->name)); /* BF16 has none */
            continue;
        }
        if (weight)
            tasks = plan_module(&w->run->plan, module, &parts);
        if (tasks != NULL) {
            TRY(add_module(w, tasks, parts));
            stats->compressed++;
        } else if (m->fp8_block[0] > 0 && t->dtype == DT_F8_E4M3 && t->ndim == 2) {
            TRY(add_entry(w, &(struct tensor){ .name = t->name, .dtype = DT_BF16, .ndim = 2, .shape = { t->shape[0],
                t->shape[1] }, .bytes = 2 * t->bytes }, &(struct entry){ .fp8 = true }));
            stats->copied++;
        } else {
            TRY(add_entry(w, t, &(struct entry){ .copied = &m->shards[m->tensors[i].shard].st }));
            stats->copied++;
        }
    }
    for (int i = 0; i < w->run->plan.task_count; i++)
        if (plan_task_cache(&w->run->plan.tasks[i]))
            TRY(add_module(w, &w->run->plan.tasks[i], 1));
    return RC_OK;
}

/* --- tensors --- */

/* Codes: what a quick check does not look at. */
static bool
is_codes(const char *name)
{
    const char *dot = strrchr(name, '.');

    return strcmp(dot, ".weight_packed") == 0 || strcmp(dot, ".weight") == 0;
}

static int
write_parts(struct writer *w, struct outfile *f, size_t at)
{
    const struct entry *e = &w->entries[at];
    const char *name = w->tensors[at].name;

    for (int i = 0; i < e->parts; i++) {
        const struct st_file *st = &w->files[&e->tasks[i] - w->run->plan.tasks];
        const struct tensor *t;

        TRY(st_get(st, name, &t));
        if (!cut_by_rows(name) && i > 0)
            break;
        if (strcmp(strrchr(name, '.'), ".weight_shape") == 0 && e->parts > 1) {
            int64_t shape[2] = { e->tasks[0].rows, e->tasks[0].cols };

            TRY(outfile_write(f, shape, sizeof(shape)));
        } else if (is_codes(name)) {
            TRY(outfile_write_mapped(f, st, t, NULL));
        } else {
            TRY(outfile_write(f, t->data, t->bytes));
            st_drop(st, t);
        }
    }
    return RC_OK;
}

/* A finished checkpoint with a NaN in a norm is worse than none. */
static int
check_finite(const struct tensor *t)
{
    size_t n = dtype_size(t->dtype) > 0 ? t->bytes / dtype_size(t->dtype) : 0;
    float v[256];

    if (t->dtype != DT_BF16 && t->dtype != DT_F16 && t->dtype != DT_F32)
        return RC_OK;
    for (size_t i = 0; i < n; i += 256) {
        size_t m = n - i < 256 ? n - i : 256;

        (void)dtype_to_f32(v, (const char *)t->data + i * dtype_size(t->dtype), t->dtype, m);
        if (!dtype_finite(v, m))
            return err_set(RC_DATA, "%s has values that are not finite", t->name);
    }
    return RC_OK;
}

static int
write_fp8(struct writer *w, const struct tensor *t, struct outfile *f)
{
    struct tensor decoded = *t;
    struct dense d;
    int rc;

    TRY(source_stored(&w->run->model, t->name, &d));
    decoded.data = d.data;
    if ((rc = check_finite(&decoded)) == RC_OK)
        rc = outfile_write(f, d.data, t->bytes);
    dense_free(&d);
    return rc;
}

static int
write_tensor(void *ctx, size_t i, struct outfile *f)
{
    struct writer *w = ctx;
    const struct entry *e = &w->entries[i];
    const struct tensor *t = &w->tensors[i];

    if (e->fp8)
        return f->shell ? outfile_write_mapped(f, NULL, t, NULL) : write_fp8(w, t, f);
    return e->copied != NULL ? outfile_write_mapped(f, e->copied, t, check_finite) : write_parts(w, f, i);
}

/* --- config.json --- */

/* Parts of the model that are carried over: loaders name their modules differently, but not the parts. */
static int
ignore_carried(const struct run *run, json_t *list)
{
    char part[ARCH_NAME_MAX], pattern[2 * ARCH_NAME_MAX + 16], last[ARCH_NAME_MAX] = "";
    struct inventory v;
    int n;

    TRY(inventory_take(&v, &run->arch, &run->model));
    for (size_t i = 0; i < v.count; i++) {
        inventory_part(&run->arch, v.carried[i]->name, part);
        if (v.carried[i]->ndim < 2 || strcmp(part, last) == 0 || strcmp(part, run->arch.head) == 0)
            continue;
        (void)snprintf(last, sizeof(last), "%s", part);
        n = snprintf(pattern, sizeof(pattern), "re:.*");
        for (const char *s = part; *s != '\0'; s++)
            n += snprintf(pattern + n, sizeof(pattern) - (size_t)n, *s == '.' ? "[.]" : "%c", *s);
        (void)snprintf(pattern + n, sizeof(pattern) - (size_t)n, "[.].*");
        (void)json_array_append_new(list, json_string(pattern));
    }
    inventory_free(&v);
    return RC_OK;
}

/* Full names of Linear modules that stay as they are while others do not. */
static int
ignored_modules(const struct run *run, json_t *list)
{
    char name[ARCH_NAME_MAX];
    struct linear linear;
    bool any = false;
    int count;

    for (int i = 0; i < run->plan.task_count; i++)
        any = any || !plan_task_cache(&run->plan.tasks[i]);
    if (!any)
        return RC_OK;
    for (int l = 0; l < run->arch.layers; l++)
        for (int i = 0, n = arch_linear_count(&run->arch, l); i < n; i++) {
            arch_linear(&run->arch, l, i, &linear);
            arch_module(&run->arch, l, &linear, name);
            if (plan_module(&run->plan, name, &count) == NULL)
                (void)json_array_append_new(list, json_string(name));
        }
    (void)json_array_append_new(list, json_string(run->arch.head));
    TRY(ignore_carried(run, list));
    return RC_OK;
}

static bool
group_attached(const struct plan *p, int group)
{
    for (int i = 0; i < p->task_count; i++)
        if (p->tasks[i].group == group)
            return true;
    return false;
}

int
checkpoint_config(const struct run *run, json_t **out)
{
    const struct recipe *r = run->plan.recipe;
    json_t *groups = json_object(), *group, *cache = json_null(), *ignore = json_array();
    const char *format = NULL;
    struct recipe_group done;
    struct qargs args;
    char name[32];
    int n = 0;

    for (int i = 0; i < r->group_count; i++) {
        const char *f = scheme_format_name(r->groups[i].scheme.format);

        if (!group_attached(&run->plan, i))
            continue;
        done = r->groups[i];
        recipe_observer_done(&done.scheme.input);
        TRY(recipe_group_config(&done, &group));
        (void)snprintf(name, sizeof(name), "group_%d", n++);
        (void)json_object_set_new(groups, name, group);
        format = format == NULL || strcmp(format, f) == 0 ? f : "mixed-precision";
    }
    if (r->has_cache) {
        args = r->cache;
        recipe_observer_done(&args);
        cache = scheme_args_json(&args);
    }
    TRY(ignored_modules(run, ignore));
    *out = json_pack("{s:o, s:s, s:n, s:o, s:o, s:s, s:s, s:{}, s:{}, s:s}", "config_groups", groups, "format",
        format != NULL ? format : scheme_format_name(QFORMAT_DENSE), "global_compression_ratio", "ignore",
        ignore, "kv_cache_scheme", cache, "quant_method",
        "compressed-tensors", "quantization_status", "compressed", "sparsity_config", "transform_config", "version",
        r->v10 ? CT_VERSION_V10 : CT_VERSION);
    return *out != NULL ? RC_OK : err_set(RC_OS, "out of memory");
}

static int
write_config(struct writer *w)
{
    json_t *config = json_deep_copy(w->run->model.config), *q;
    int rc;

    if ((rc = checkpoint_config(w->run, &q)) == RC_OK) {
        (void)json_object_set_new(config, "quantization_config", q);
        rc = outdir_json(&w->dir, "config.json", config);
    }
    json_decref(config);
    return rc;
}

/* --- provenance --- */

/* What llmc-gptq has left of the source is read while shards are written, by as many threads: of a large model it is
 * several times what is written, and one thread is slower than a disk. */
struct hashing {
    const struct run   *run;
    struct pool        *pool;
    pthread_t           thread;
    bool                begun;
    int                 rc;
    json_t             *inputs;
    char                why[1024];
};

static void *
hash_inputs(void *ctx)
{
    struct hashing *h = ctx;

    if ((h->rc = digests_of(&h->run->model, h->pool, h->run->plan.dir, &h->inputs)) != RC_OK)
        (void)snprintf(h->why, sizeof(h->why), "%s", err_text());
    return NULL;
}

static int
hashing_begin(struct hashing *h, const struct run *run)
{
    h->run = run;
    TRY(pool_open(&h->pool, pool_threads(dev_pool(run->dev))));
    if (pthread_create(&h->thread, NULL, hash_inputs, h) != 0)
        return err_set(RC_OS, "cannot start a thread");
    h->begun = true;
    return RC_OK;
}

/* What went wrong before counts more. */
static int
hashing_end(struct hashing *h, int rc)
{
    if (h->begun)
        (void)pthread_join(h->thread, NULL);
    pool_close(h->pool);
    return rc != RC_OK || h->rc == RC_OK ? rc : err_set(h->rc, "%s", h->why);
}

static int
write_provenance(struct writer *w, json_t *inputs)
{
    json_t *all = json_pack("{s:s, s:s, s:i, s:s, s:s, s:O, s:O, s:O, s:O}", "program", "llmc", "version",
        LLMC_VERSION, "algorithm", PLAN_ALGORITHM, "model", w->run->plan.model, "plan", w->run->plan.fingerprint,
        "recipe", json_object_get(w->run->plan.json, "recipe"), "inputs", inputs, "outputs", w->dir.outputs,
        "dropped", w->dropped);
    int rc;

    if (all == NULL)
        return err_set(RC_OS, "out of memory");
    rc = outdir_json(&w->dir, "provenance.json", all);
    json_decref(all);
    return rc;
}

/* --- the check --- */

static void
keep_first(void *text, enum check_rule rule, const char *subject, const char *what)
{
    if (((char *)text)[0] == '\0')
        (void)snprintf(text, CHECK_TEXT_MAX, "%s: %s (%s)", subject, what, check_rules[rule].name);
}

/* What a loader would trip over must not be published. Codes were checked when they were made, copies as they were
 * written: here is what was put together. */
static int
check_result(const struct writer *w)
{
    char first[CHECK_TEXT_MAX] = "";
    struct check_opts o = { .against = w->run->model.dir, .quick = true, .report = keep_first, .ctx = first };
    int findings;

    TRY(check_run(w->dir.dir, &o, &findings));
    return findings == 0 ? RC_OK : err_set(RC_BUG, "the result has %d fault%s and is not published; %s", findings,
        findings == 1 ? "" : "s", first);
}

/* --- the whole --- */

static int
write_side_files(struct writer *w)
{
    const struct model *m = &w->run->model;
    char *yaml;
    int rc;

    TRY(outdir_index(&w->dir, w->tensors, w->count, w->o->shard_bytes));
    TRY(write_config(w));
    TRY(recipe_yaml(w->run->plan.recipe, &yaml));
    rc = outdir_text(&w->dir, "recipe.yaml", yaml);
    mem_free(yaml);
    for (size_t i = 0; i < m->side_count && rc == RC_OK; i++)
        if (strcmp(m->side[i], "recipe.yaml") != 0 && strcmp(m->side[i], "provenance.json") != 0)
            rc = outdir_copy(&w->dir, m->dir, m->side[i]);
    return rc;
}

/* What decides the bytes of the output. */
static int
make_key(const struct writer *w, char out[DIGEST_HEX])
{
    char text[256];

    (void)snprintf(text, sizeof(text), "%s %s %zu", LLMC_VERSION, w->run->plan.fingerprint, w->o->shard_bytes);
    return digest_mem(text, strlen(text), out);
}

/* Of several ranks the one that finds all shards there ends it. */
static int
write_dir(struct writer *w, struct checkpoint_stats *stats)
{
    struct hashing h = { 0 };
    json_t *none = json_object();
    bool mine = true;
    int rc = none == NULL ? RC_OS : RC_OK;

    if (rc == RC_OK && !w->dir.o.shell && w->dir.o.ranks <= 1)
        rc = hashing_begin(&h, w->run);
    if (rc == RC_OK)
        rc = outdir_tensors(&w->dir, w->tensors, w->count, w->o->shard_bytes, write_tensor, w, &stats->shards);
    if (rc == RC_OK)
        rc = outdir_finish_begin(&w->dir, stats->shards, &mine);
    if (rc == RC_OK && mine && !w->dir.o.shell && w->dir.o.ranks > 1)
        rc = hashing_begin(&h, w->run);
    if (rc == RC_OK && mine)
        rc = write_side_files(w);
    rc = hashing_end(&h, rc);
    if (rc == RC_OK && mine)
        rc = write_provenance(w, h.inputs != NULL ? h.inputs : none);
    if (rc == RC_OK && mine && w->dir.tar == NULL)
        rc = check_result(w);
    if (rc == RC_OK && mine && !w->dir.o.shell)
        rc = outdir_commit(&w->dir);
    stats->finished = rc == RC_OK && mine;
    json_decref(h.inputs);
    json_decref(none);
    return rc;
}

/* Another rank was faster: what is there was made from this plan. */
static bool
made_already(const struct run *run, const struct checkpoint_opts *o)
{
    char path[PATH_MAX];
    json_t *p = NULL;
    const char *plan;
    bool same;

    if (run->ranks <= 1 || snprintf(path, sizeof(path), "%s/provenance.json", o->out) >= PATH_MAX ||
        jread_file(&p, path) != RC_OK)
        return false;
    plan = json_string_value(json_object_get(p, "plan"));
    same = plan != NULL && strcmp(plan, run->plan.fingerprint) == 0;
    json_decref(p);
    return same;
}

/* Opens, writes, closes; as a shell, in the work directory. */
static int
write_out(struct writer *w, bool shell, struct checkpoint_stats *stats)
{
    char key[DIGEST_HEX], dir[PATH_MAX];
    struct outdir_opts o = { .out = w->o->out, .force = w->o->force, .key = key, .rank = w->run->rank,
        .ranks = w->run->ranks, .pool = dev_pool(w->run->dev) };
    int rc;

    TRY(make_key(w, key));
    if (shell) {
        TRY(plan_path(&w->run->plan, dir, "shell"));
        o = (struct outdir_opts){ .out = dir, .shell = true };
    }
    if ((rc = outdir_begin(&w->dir, &o)) == RC_OK)
        rc = write_dir(w, stats);
    outdir_end(&w->dir);
    if (rc == RC_CANTCREATE && !shell && made_already(w->run, w->o))
        rc = RC_OK; /* meanwhile */
    return rc;
}

int
checkpoint_write(struct run *run, const struct checkpoint_opts *o, struct checkpoint_stats *stats)
{
    struct writer w = { .run = run, .o = o };
    bool tar = outdir_is_tar(o->out);
    int left = plan_tasks_left(&run->plan), rc = RC_OK;

    *stats = (struct checkpoint_stats){ 0 };
    if (left > 0)
        return err_set(RC_RETRY, "%d module%s not compressed yet", left, left == 1 ? " is" : "s are");
    if (run->ranks > 1 && o->force)
        return err_set(RC_USAGE, "--force goes with one rank: others would replace what the first has made");
    if ((tar && run->rank > 0) || (!tar && made_already(run, o)))
        return RC_OK;
    if ((w.files = mem_zalloc((size_t)run->plan.task_count, sizeof(*w.files))) == NULL)
        rc = RC_OS;
    if (rc == RC_OK && (w.dropped = json_array()) == NULL)
        rc = err_set(RC_OS, "out of memory");
    if (rc == RC_OK)
        rc = collect(&w, stats);
    for (size_t i = 0; i < w.count; i++)
        stats->bytes += w.tensors[i].bytes;
    if (rc == RC_OK && tar)
        rc = write_out(&w, true, stats);
    if (rc == RC_OK)
        rc = write_out(&w, false, stats);
    for (size_t i = 0; i < w.count; i++)
        mem_free((char *)(uintptr_t)w.tensors[i].name);
    for (int i = 0; w.files != NULL && i < run->plan.task_count; i++)
        st_close(&w.files[i]);
    json_decref(w.dropped);
    mem_free(w.entries);
    mem_free(w.tensors);
    mem_free(w.files);
    return rc;
}
