/* checkpoint - write the finished model */
#include "checkpoint.h"

#include "buf.h"
#include "file.h"
#include "mem.h"
#include "msg.h"
#include "stop.h"
#include "weights.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CT_VERSION "0.19.0" /* of compressed-tensors, whose format this is */

enum { COPY_BYTES = 1 << 20 };

/* A tensor of the output: one source, or the row ranges of a module in order. */
struct entry {
    struct tensor  t; /* data of a single source; NULL with parts */
    const struct task *tasks; /* parts: where they come from */
    int            parts;
    bool           copied; /* from the source as it is */
    char          *name;
    int            shard;
};

struct writer {
    struct run      *run;
    const struct checkpoint_opts *o;
    struct entry    *entries;
    size_t           count, cap;
    struct st_file  *files; /* of tasks, opened while entries refer to them */
    int              shards;
    char             dir[PATH_MAX];
    json_t          *outputs; /* name -> SHA-256 */
};

static int
add_entry(struct writer *w, const struct tensor *t, const struct task *tasks, int parts)
{
    struct entry *e = mem_grow(w->entries, &w->cap, w->count + 1, sizeof(*e));

    if (e == NULL)
        return RC_OS;
    w->entries = e;
    e += w->count;
    *e = (struct entry){ .t = *t, .tasks = tasks, .parts = parts };
    if ((e->name = mem_strdup(t->name)) == NULL)
        return RC_OS;
    e->t.name = e->name;
    w->count++;
    return RC_OK;
}

static int
open_task(struct writer *w, const struct task *t)
{
    struct st_file *st = &w->files[t - w->run->plan.tasks];
    char path[PATH_MAX];
    const char *fp;

    if (st->path != NULL)
        return RC_OK;
    TRY(plan_task_path(&w->run->plan, t, path));
    TRY(st_open(st, path));
    for (size_t i = 0; i < st->count; i++)
        if (strncmp(st->tensors[i].name, t->module, strlen(t->module)) != 0 ||
            st->tensors[i].name[strlen(t->module)] != '.')
            return err_set(RC_DATA, "%s: holds tensor %s of another module", path, st->tensors[i].name);
    fp = st_meta(st, "plan");
    return fp != NULL && strcmp(fp, w->run->plan.fingerprint) == 0 ? RC_OK :
        err_set(RC_DATA, "%s: made under another plan", path);
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
            TRY(add_entry(w, &t, NULL, 0));
            continue;
        }
        for (int i = 1; i < parts && cut_by_rows(t.name); i++) {
            const struct tensor *p;

            TRY(st_get(&w->files[&tasks[i] - w->run->plan.tasks], t.name, &p));
            t.shape[0] += p->shape[0];
            t.bytes += p->bytes;
        }
        TRY(add_entry(w, &t, tasks, parts));
    }
    return RC_OK;
}

static int
collect(struct writer *w, struct checkpoint_stats *stats)
{
    const struct model *m = &w->run->model;
    char module[ARCH_NAME_MAX];

    for (size_t i = 0; i < m->count; i++) {
        const struct tensor *t = m->tensors[i].t;
        const struct task *tasks = NULL;
        int parts = 0;

        if (arch_weight_module(t->name, module))
            tasks = plan_module(&w->run->plan, module, &parts);
        if (tasks != NULL) {
            TRY(add_module(w, tasks, parts));
            stats->compressed++;
        } else {
            TRY(add_entry(w, t, NULL, 0));
            w->entries[w->count - 1].copied = true;
            stats->copied++;
        }
    }
    for (int i = 0; i < w->run->plan.task_count; i++)
        if (plan_task_cache(&w->run->plan.tasks[i]))
            TRY(add_module(w, &w->run->plan.tasks[i], 1));
    return RC_OK;
}

/* Consecutive tensors fill a shard up to the limit. */
static void
cut_shards(struct writer *w, struct checkpoint_stats *stats)
{
    size_t used = 0;

    w->shards = 1;
    for (size_t i = 0; i < w->count; i++) {
        size_t n = w->entries[i].t.bytes;

        if (used > 0 && used + n > w->o->shard_bytes) {
            w->shards++;
            used = 0;
        }
        used += n;
        stats->bytes += n;
        w->entries[i].shard = w->shards - 1;
    }
    stats->shards = w->shards;
}

static void
shard_name(const struct writer *w, int shard, char *out, size_t size)
{
    if (w->shards == 1)
        (void)snprintf(out, size, "model.safetensors");
    else
        (void)snprintf(out, size, "model-%05d-of-%05d.safetensors", shard + 1, w->shards);
}

static int
out_path(const struct writer *w, const char *name, char *out)
{
    int n = snprintf(out, PATH_MAX, "%s/%s", w->dir, name);

    return n < 0 || n >= PATH_MAX ? err_set(RC_DATA, "%s: path is too long", name) : RC_OK;
}

/* --- files with their digests --- */

struct out_file {
    char          path[PATH_MAX], name[NAME_MAX + 1];
    int           fd;
    struct digest digest;
};

static int
out_open(struct writer *w, struct out_file *f, const char *name)
{
    TRY(out_path(w, name, f->path));
    (void)snprintf(f->name, sizeof(f->name), "%s", name);
    digest_init(&f->digest);
    f->fd = open(f->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return f->fd >= 0 ? RC_OK : err_set(RC_CANTCREATE, "%s: cannot create: %s", f->path, strerror(errno));
}

static int
out_write(struct out_file *f, const void *data, size_t bytes)
{
    TRY(stop_check());
    digest_add(&f->digest, data, bytes);
    if (file_write_full(f->fd, data, bytes) != RC_OK)
        return err_at(RC_IO, "%s", f->path);
    return RC_OK;
}

static int
out_close(struct writer *w, struct out_file *f, int rc)
{
    char hex[DIGEST_HEX];

    if (f->fd >= 0 && rc == RC_OK && fsync(f->fd) != 0)
        rc = err_set(RC_IO, "%s: cannot write: %s", f->path, strerror(errno));
    if (f->fd >= 0 && close(f->fd) != 0 && rc == RC_OK)
        rc = err_set(RC_IO, "%s: cannot write: %s", f->path, strerror(errno));
    if (rc != RC_OK) {
        digest_free(&f->digest);
        return rc;
    }
    TRY(digest_hex(&f->digest, hex));
    return json_object_set_new(w->outputs, f->name, json_string(hex)) == 0 ? RC_OK : err_set(RC_OS, "out of memory");
}

static int
write_text(struct writer *w, const char *name, const char *text)
{
    struct out_file f = { .fd = -1 };
    int rc = out_open(w, &f, name);

    if (rc == RC_OK)
        rc = out_write(&f, text, strlen(text));
    return out_close(w, &f, rc);
}

static int
write_json(struct writer *w, const char *name, const json_t *json)
{
    char *text;
    int rc;

    TRY(jdump(json, true, &text));
    rc = write_text(w, name, text);
    mem_free(text);
    return rc;
}

static int
copy_side(struct writer *w, const char *name)
{
    char from[PATH_MAX];
    struct buf b = { 0 };
    struct out_file f = { .fd = -1 };
    int rc;

    (void)snprintf(from, sizeof(from), "%s/%s", w->run->model.dir, name);
    if ((rc = buf_read_file(&b, from, (size_t)1 << 31)) == RC_OK) {
        if ((rc = out_open(w, &f, name)) == RC_OK && b.len > 0)
            rc = out_write(&f, b.s, b.len);
        rc = out_close(w, &f, rc);
    }
    buf_free(&b);
    return rc;
}

/* --- tensors --- */

static int
write_parts(struct writer *w, struct out_file *f, const struct entry *e)
{
    for (int i = 0; i < e->parts; i++) {
        const struct st_file *st = &w->files[&e->tasks[i] - w->run->plan.tasks];
        const struct tensor *t;

        TRY(st_get(st, e->name, &t));
        if (!cut_by_rows(e->name) && i > 0)
            break;
        if (strcmp(strrchr(e->name, '.'), ".weight_shape") == 0) {
            int64_t shape[2] = { e->tasks[0].rows, e->tasks[0].cols };

            TRY(out_write(f, shape, sizeof(shape)));
        } else {
            TRY(out_write(f, t->data, t->bytes));
        }
    }
    return RC_OK;
}

static const struct entry *
entry_of(const struct writer *w, const char *name)
{
    for (size_t i = 0; i < w->count; i++)
        if (w->entries[i].name == name) /* the same string, not an equal one */
            return &w->entries[i];
    return NULL;
}

/* A finished checkpoint with a NaN in a norm is worse than none. */
static int
check_finite(const struct tensor *t)
{
    size_t n = dtype_size(t->dtype) > 0 ? t->bytes / dtype_size(t->dtype) : 0;
    float v[256], sum = 0;

    if (t->dtype != DT_BF16 && t->dtype != DT_F16 && t->dtype != DT_F32)
        return RC_OK;
    for (size_t i = 0; i < n; i += 256) {
        size_t m = n - i < 256 ? n - i : 256;

        (void)dtype_to_f32(v, (const char *)t->data + i * dtype_size(t->dtype), t->dtype, m);
        for (size_t k = 0; k < m; k++)
            sum += v[k] * 0.0f; /* NaN once any is not finite */
    }
    return sum == 0.0f ? RC_OK : err_set(RC_DATA, "%s has values that are not finite", t->name);
}

static int
write_shard(struct writer *w, int shard)
{
    struct st_meta meta[] = { { "format", "pt" } };
    struct tensor *t = mem_alloc(w->count, sizeof(*t));
    struct out_file f = { .fd = -1 };
    char name[64], *header = NULL;
    size_t n = 0, header_bytes;
    int rc = t == NULL ? RC_OS : RC_OK;

    for (size_t i = 0; rc == RC_OK && i < w->count; i++)
        if (w->entries[i].shard == shard)
            t[n++] = w->entries[i].t;
    shard_name(w, shard, name, sizeof(name));
    if (rc == RC_OK && (rc = st_header(t, n, meta, 1, &header, &header_bytes)) == RC_OK &&
        (rc = out_open(w, &f, name)) == RC_OK)
        rc = out_write(&f, header, header_bytes);
    for (size_t i = 0; rc == RC_OK && i < n; i++) {
        const struct entry *e = entry_of(w, t[i].name);

        if (e->copied && (rc = check_finite(&e->t)) != RC_OK)
            break;
        rc = e->parts > 0 ? write_parts(w, &f, e) : out_write(&f, t[i].data, t[i].bytes);
    }
    if (f.name[0] != '\0')
        rc = out_close(w, &f, rc);
    mem_free(header);
    mem_free(t);
    return rc;
}

static int
write_index(struct writer *w, size_t total)
{
    json_t *map = json_object(), *index;
    char name[64];
    int rc;

    for (size_t i = 0; i < w->count; i++) {
        shard_name(w, w->entries[i].shard, name, sizeof(name));
        (void)json_object_set_new(map, w->entries[i].name, json_string(name));
    }
    index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    if (index == NULL)
        return err_set(RC_OS, "out of memory");
    rc = write_json(w, "model.safetensors.index.json", index);
    json_decref(index);
    return rc;
}

/* --- config.json --- */

/* Full names of Linear modules that stay as they are. */
static json_t *
ignored_modules(const struct run *run)
{
    json_t *list = json_array();
    char name[ARCH_NAME_MAX];
    int count;

    for (int l = 0; l < run->arch.layers; l++)
        for (int r = 0; r < ROLE_COUNT; r++) {
            arch_module(&run->arch, l, (enum role)r, name);
            if (plan_module(&run->plan, name, &count) == NULL)
                (void)json_array_append_new(list, json_string(name));
        }
    (void)json_array_append_new(list, json_string("lm_head"));
    return list;
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
    json_t *groups = json_object(), *group, *cache = json_null();
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
    *out = json_pack("{s:o, s:s, s:n, s:o, s:o, s:s, s:s, s:{}, s:{}, s:s}", "config_groups", groups, "format",
        format != NULL ? format : scheme_format_name(QFORMAT_DENSE), "global_compression_ratio", "ignore",
        ignored_modules(run), "kv_cache_scheme", cache, "quant_method",
        "compressed-tensors", "quantization_status", "compressed", "sparsity_config", "transform_config", "version",
        CT_VERSION);
    return *out != NULL ? RC_OK : err_set(RC_OS, "out of memory");
}

static int
write_config(struct writer *w)
{
    json_t *config = json_deep_copy(w->run->model.config), *q;
    int rc;

    if ((rc = checkpoint_config(w->run, &q)) == RC_OK) {
        (void)json_object_set_new(config, "quantization_config", q);
        rc = write_json(w, "config.json", config);
    }
    json_decref(config);
    return rc;
}

/* --- provenance --- */

static int
digest_input(const struct writer *w, json_t *inputs, const char *name)
{
    char path[PATH_MAX], hex[DIGEST_HEX];

    (void)snprintf(path, sizeof(path), "%s/%s", w->run->model.dir, name);
    TRY(digest_file(path, hex));
    return json_object_set_new(inputs, name, json_string(hex)) == 0 ? RC_OK : err_set(RC_OS, "out of memory");
}

static int
write_provenance(struct writer *w)
{
    const struct model *m = &w->run->model;
    json_t *inputs = json_object(), *all;
    int rc = digest_input(w, inputs, "config.json");

    for (int i = 0; i < m->shard_count && rc == RC_OK; i++)
        rc = digest_input(w, inputs, m->shards[i].name);
    for (size_t i = 0; i < m->side_count && rc == RC_OK; i++)
        rc = digest_input(w, inputs, m->side[i]);
    all = json_pack("{s:s, s:s, s:i, s:s, s:O, s:o, s:O}", "program", "llmc", "version", LLMC_VERSION, "algorithm",
        PLAN_ALGORITHM, "plan", w->run->plan.fingerprint, "recipe", json_object_get(w->run->plan.json, "recipe"),
        "inputs", inputs, "outputs", w->outputs);
    if (rc == RC_OK && all == NULL)
        rc = err_set(RC_OS, "out of memory");
    if (rc == RC_OK)
        rc = write_json(w, "provenance.json", all);
    json_decref(all);
    return rc;
}

/* --- the whole --- */

/* A flat directory of our own making. */
static void
remove_dir(const char *dir)
{
    char path[PATH_MAX];
    struct dirent *e;
    DIR *d = opendir(dir);

    if (d == NULL)
        return;
    while ((e = readdir(d)) != NULL) {
        int n = snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);

        if (n > 0 && n < PATH_MAX && strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            (void)unlink(path);
    }
    (void)closedir(d);
    (void)rmdir(dir);
}

/* Temporary directories beside OUT that killed runs have left. */
static void
collect_stale(const char *out)
{
    char path[PATH_MAX];
    const char *slash = strrchr(out, '/');
    int n = slash != NULL ? (int)(slash - out) : 1;
    struct dirent *e;
    DIR *d;

    (void)snprintf(path, sizeof(path), "%.*s", n > 0 ? n : 1, slash != NULL ? out : ".");
    if ((d = opendir(path)) == NULL)
        return;
    while ((e = readdir(d)) != NULL)
        if (file_is_stale(e->d_name, slash != NULL ? slash + 1 : out)) {
            (void)snprintf(path, sizeof(path), "%.*s%s", slash != NULL ? n + 1 : 0, out, e->d_name);
            remove_dir(path);
        }
    (void)closedir(d);
}

static int
prepare_dir(struct writer *w)
{
    struct stat st;
    char *tmp;
    int n;

    if (stat(w->o->out, &st) == 0 && rmdir(w->o->out) != 0) {
        if (!w->o->force)
            return err_set(RC_CANTCREATE, "%s: exists already", w->o->out);
        n = snprintf(w->dir, sizeof(w->dir), "%s/provenance.json", w->o->out);
        if (n < 0 || n >= PATH_MAX || access(w->dir, F_OK) != 0)
            return err_set(RC_CANTCREATE, "%s: is no checkpoint that llmc made, and is not replaced", w->o->out);
    }
    n = snprintf(w->dir, sizeof(w->dir), "%s", w->o->out);
    while (n > 1 && n < PATH_MAX && w->dir[n - 1] == '/')
        w->dir[--n] = '\0';
    collect_stale(w->dir);
    if ((tmp = file_tmp_name(w->dir)) == NULL)
        return RC_OS;
    n = snprintf(w->dir, sizeof(w->dir), "%s", tmp);
    mem_free(tmp);
    if (n < 0 || n >= PATH_MAX)
        return err_set(RC_DATA, "%s: path is too long", w->o->out);
    return file_mkdir(w->dir);
}

static int
finish_dir(struct writer *w)
{
    int fd = open(w->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) != 0)
        return err_set(RC_IO, "%s: cannot write: %s", w->dir, strerror(errno));
    (void)close(fd);
    if (!w->o->force || access(w->o->out, F_OK) != 0)
        return rename(w->dir, w->o->out) == 0 ? RC_OK :
            err_set(RC_CANTCREATE, "%s: cannot create: %s", w->o->out, strerror(errno));
    /* the two change places in one step */
    if (renameat2(AT_FDCWD, w->dir, AT_FDCWD, w->o->out, RENAME_EXCHANGE) != 0)
        return err_set(RC_CANTCREATE, "%s: cannot replace: %s", w->o->out, strerror(errno));
    remove_dir(w->dir);
    return RC_OK;
}

static int
write_all(struct writer *w, struct checkpoint_stats *stats)
{
    char *yaml;
    int rc;

    TRY(collect(w, stats));
    cut_shards(w, stats);
    for (int s = 0; s < w->shards; s++) {
        msg_status("llmc-pack: shard %d of %d", s + 1, w->shards);
        TRY(write_shard(w, s));
    }
    if (w->shards > 1)
        TRY(write_index(w, stats->bytes));
    TRY(write_config(w));
    TRY(recipe_yaml(w->run->plan.recipe, &yaml));
    rc = write_text(w, "recipe.yaml", yaml);
    mem_free(yaml);
    for (size_t i = 0; i < w->run->model.side_count && rc == RC_OK; i++)
        if (strcmp(w->run->model.side[i], "recipe.yaml") != 0 && strcmp(w->run->model.side[i], "provenance.json") != 0)
            rc = copy_side(w, w->run->model.side[i]);
    return rc != RC_OK ? rc : write_provenance(w);
}

int
checkpoint_write(struct run *run, const struct checkpoint_opts *o, struct checkpoint_stats *stats)
{
    struct writer w = { .run = run, .o = o };
    int left = plan_tasks_left(&run->plan), rc;

    *stats = (struct checkpoint_stats){ 0 };
    if (left > 0)
        return err_set(RC_RETRY, "%d module%s not compressed yet", left, left == 1 ? " is" : "s are");
    if ((rc = prepare_dir(&w)) != RC_OK)
        return rc;
    w.outputs = json_object();
    if ((w.files = mem_zalloc((size_t)run->plan.task_count, sizeof(*w.files))) == NULL)
        rc = RC_OS;
    if (rc == RC_OK && (rc = write_all(&w, stats)) == RC_OK)
        rc = finish_dir(&w);
    if (rc != RC_OK)
        remove_dir(w.dir);
    for (size_t i = 0; i < w.count; i++)
        mem_free(w.entries[i].name);
    for (int i = 0; w.files != NULL && i < run->plan.task_count; i++)
        st_close(&w.files[i]);
    mem_free(w.entries);
    mem_free(w.files);
    json_decref(w.outputs);
    return rc;
}
