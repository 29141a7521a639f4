/* model - a checkpoint directory: config.json, safetensors shards and their index, side files */
#include "model.h"

#include "file.h"
#include "mem.h"
#include "member.h"

#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char config_name[] = "config.json";
static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

/* Weights of this and other frameworks, and what comes from them: never side files. */
static const char *const weight_patterns[] = {
    "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt", "*.ckpt.index",
    "*.gguf", "*.ggml", "*.h5", "*.h5.index.json", "*.msgpack", "*.msgpack.index.json", "*.onnx", "*.onnx_data",
};

static const char *const foreign_patterns[] = { "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf", "*.h5", "*.msgpack" };

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static bool
matches(const char *const *patterns, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (fnmatch(patterns[i], name, 0) == 0)
            return true;
    return false;
}

static bool
has_file(const struct model *m, const char *name)
{
    char *path = file_join(m->dir, name);
    bool found = path != NULL && member_exists(path);

    mem_free(path);
    return found;
}

static int
compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int
compare_tensors(const void *a, const void *b)
{
    return strcmp(((const struct model_tensor *)a)->t->name, ((const struct model_tensor *)b)->t->name);
}

/* Shards are made in order of their names. */
static int
compare_to_shard(const void *name, const void *shard)
{
    return strcmp(name, ((const struct model_shard *)shard)->name);
}

static const struct model_shard *
find_shard(const struct model *m, const char *name)
{
    return bsearch(name, m->shards, (size_t)m->shard_count, sizeof(*m->shards), compare_to_shard);
}

struct listing {
    struct model *m;
    const char   *foreign; /* a pattern of weights that are not read */
    size_t        cap;
};

/* Visible files that are no weights: m->side. */
static int
list_one(void *ctx, const char *name)
{
    struct listing *l = ctx;
    struct model *m = l->m;
    char **side;

    if (name[0] == '.' || strcmp(name, config_name) == 0)
        return RC_OK;
    if (matches(weight_patterns, COUNT(weight_patterns), name)) {
        for (size_t i = 0; i < COUNT(foreign_patterns); i++)
            if (fnmatch(foreign_patterns[i], name, 0) == 0)
                l->foreign = foreign_patterns[i];
        return RC_OK;
    }
    if ((side = mem_grow(m->side, &l->cap, m->side_count + 1, sizeof(*side))) == NULL)
        return RC_OS;
    m->side = side;
    if ((side[m->side_count] = mem_strdup(name)) == NULL)
        return RC_OS;
    m->side_count++;
    return RC_OK;
}

static int
scan_dir(struct model *m, const char **foreign)
{
    struct listing l = { .m = m };
    int rc = member_list(m->dir, list_one, &l);

    *foreign = l.foreign;
    if (rc == RC_OK && m->side_count > 1)
        qsort(m->side, m->side_count, sizeof(*m->side), compare_strings);
    return rc;
}

/* Models of several parts keep the text model's settings one level down. */
const json_t *
model_quantization(const json_t *config)
{
    const json_t *q = json_object_get(config, "quantization_config");

    if (q == NULL || json_is_null(q))
        q = json_object_get(config, "compression_config");
    if (q == NULL || json_is_null(q))
        q = json_object_get(json_object_get(config, "text_config"), "quantization_config");
    return json_is_null(q) ? NULL : q;
}

static int
read_config(struct model *m)
{
    char *path = file_join(m->dir, config_name);
    const json_t *q;
    int rc;

    if (path == NULL)
        return RC_OS;
    rc = jread_file(&m->config, path);
    if (rc == RC_OK && !json_is_object(m->config))
        rc = err_set(RC_DATA, "%s: not an object", path);
    mem_free(path);
    if (rc != RC_OK)
        return rc;
    if ((q = model_quantization(m->config)) != NULL) {
        m->quant_method = json_string_value(json_object_get(q, "quant_method"));
        if (m->quant_method == NULL)
            m->quant_method = "";
        if (strcmp(m->quant_method, "fp8") == 0)
            for (size_t i = 0; i < 2; i++)
                m->fp8_block[i] = (int)json_integer_value(json_array_get(json_object_get(q, "weight_block_size"), i));
    }
    return RC_OK;
}

bool
model_plain_name(const char *name)
{
    size_t len = strlen(name);

    if (len == 0 || len > NAME_MAX || name[0] == '.' || strchr(name, '/') != NULL || strchr(name, '\\') != NULL)
        return false;
    for (; *name != '\0'; name++)
        if ((unsigned char)*name < 0x20 || *name == 0x7f)
            return false;
    return true;
}

/* Takes sorted names, some of them repeated. */
static int
set_shards(struct model *m, const char **names, size_t count)
{
    if ((m->shards = mem_zalloc(count, sizeof(*m->shards))) == NULL)
        return RC_OS;
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && strcmp(names[i - 1], names[i]) == 0)
            continue;
        if ((m->shards[m->shard_count].name = mem_strdup(names[i])) == NULL)
            return RC_OS;
        m->shard_count++;
    }
    return RC_OK;
}

static int
shards_of_index(struct model *m, json_t *map)
{
    size_t count = json_object_size(map), n = 0;
    const char **names, *name;
    json_t *file;
    int rc = RC_OK;

    if (!json_is_object(map) || count == 0)
        return err_set(RC_DATA, "\"weight_map\" is absent or empty");
    if ((names = mem_alloc(count, sizeof(*names))) == NULL)
        return RC_OS;
    json_object_foreach(map, name, file) {
        names[n] = json_string_value(file);
        if (names[n] == NULL || !model_plain_name(names[n])) {
            rc = err_set(RC_DATA, "tensor %s: shard %s is not a plain file name", name,
                names[n] != NULL ? names[n] : "(no string)");
            break;
        }
        n++;
    }
    if (rc == RC_OK) {
        qsort(names, count, sizeof(*names), compare_strings);
        rc = set_shards(m, names, count);
    }
    mem_free(names);
    return rc;
}

static int
open_shards(struct model *m, int (*open_file)(struct st_file *, const char *))
{
    char *path;
    int rc = RC_OK;

    for (int i = 0; rc == RC_OK && i < m->shard_count; i++) {
        if ((path = file_join(m->dir, m->shards[i].name)) == NULL)
            return RC_OS;
        rc = open_file(&m->shards[i].st, path);
        m->count += m->shards[i].st.count;
        m->bytes += m->shards[i].st.data_bytes;
        mem_free(path);
    }
    return rc;
}

/* Every tensor of every shard is listed there, and every listed tensor was met. */
static int
check_index(const struct model *m, json_t *map)
{
    const struct model_shard *s;
    const struct tensor *t;
    const char *listed, *name;
    json_t *file;

    for (int i = 0; i < m->shard_count; i++) {
        s = &m->shards[i];
        for (size_t k = 0; k < s->st.count; k++) {
            t = &s->st.tensors[k];
            listed = json_string_value(json_object_get(map, t->name));
            if (listed == NULL)
                return err_set(RC_DATA, "tensor %s: in %s but not listed", t->name, s->name);
            if (strcmp(listed, s->name) != 0)
                return err_set(RC_DATA, "tensor %s: in %s but listed for %s", t->name, s->name, listed);
        }
    }
    if (m->count == json_object_size(map))
        return RC_OK;
    json_object_foreach(map, name, file) {
        s = find_shard(m, json_string_value(file));
        if (st_find(&s->st, name) == NULL)
            return err_set(RC_DATA, "tensor %s: listed for %s but not there", name, s->name);
    }
    return err_set(RC_BUG, "%zu tensors, %zu listed", m->count, json_object_size(map));
}

static int
load_indexed(struct model *m, int (*open_file)(struct st_file *, const char *))
{
    char *path = file_join(m->dir, index_name);
    json_t *root = NULL, *map;
    int rc;

    if (path == NULL)
        return RC_OS;
    m->indexed = true;
    if ((rc = jread_file(&root, path)) != RC_OK)
        goto out;
    map = json_object_get(root, "weight_map");
    if ((rc = shards_of_index(m, map)) != RC_OK) {
        (void)err_at(rc, "%s", path);
        goto out;
    }
    /* Some tools read the one, some the other: guessing would compress weights that nobody loads. */
    if (find_shard(m, single_name) == NULL && has_file(m, single_name)) {
        rc = err_set(RC_DATA, "%s: does not list %s, which is there too", path, single_name);
        goto out;
    }
    if ((rc = open_shards(m, open_file)) == RC_OK && (rc = check_index(m, map)) != RC_OK)
        (void)err_at(rc, "%s", path);
out:
    json_decref(root);
    mem_free(path);
    return rc;
}

static int
load_single(struct model *m, const char *foreign, int (*open_file)(struct st_file *, const char *))
{
    const char *names[] = { single_name };
    int rc;

    if (!has_file(m, single_name)) {
        if (foreign != NULL)
            return err_set(RC_NOINPUT, "%s: has no safetensors, and weights in %s files are not read", m->dir, foreign);
        return err_set(RC_NOINPUT, "%s: has neither %s nor %s", m->dir, single_name, index_name);
    }
    if ((rc = set_shards(m, names, 1)) != RC_OK)
        return rc;
    return open_shards(m, open_file);
}

/* --- stacked experts --- */

static const struct {
    const char *stacked, *parts[2];
} stacks[] = {
    { ".experts.gate_up_proj", { "gate_proj", "up_proj" } },
    { ".experts.down_proj", { "down_proj", NULL } },
};

/* Its row of the table above; -1: it is not stacked. */
static int
stack_of(const struct tensor *t)
{
    size_t len = strlen(t->name);

    for (size_t i = 0; i < COUNT(stacks) && t->ndim == 3; i++) {
        size_t tail = strlen(stacks[i].stacked);

        if (len > tail && strcmp(t->name + len - tail, stacks[i].stacked) == 0)
            return (int)i;
    }
    return -1;
}

static int
parts_of(int stack)
{
    return stacks[stack].parts[1] != NULL ? 2 : 1;
}

/* The matrices of a stacked tensor, into m->views. */
static int
add_views(struct model *m, const struct tensor *t, int stack)
{
    int parts = parts_of(stack);
    int64_t rows = t->shape[1] / parts;
    size_t bytes = (size_t)rows * (size_t)t->shape[2] * dtype_size(t->dtype);
    size_t prefix = (size_t)(strrchr(t->name, '.') - t->name);

    if (t->shape[1] % parts != 0)
        return err_set(RC_DATA, "%s: %lld rows an expert are not gate and up", t->name, (long long)t->shape[1]);
    for (int64_t i = 0; i < t->shape[0] * parts; i++) {
        struct tensor *v = &m->views[m->view_count];
        size_t size = prefix + 64;
        char *name = mem_alloc(size, 1);

        if (name == NULL)
            return RC_OS;
        (void)snprintf(name, size, "%.*s.%lld.%s.weight", (int)prefix, t->name, (long long)(i / parts),
            stacks[stack].parts[i % parts]);
        *v = tensor_2d(name, t->dtype, rows, t->shape[2], t->data != NULL ? (const char *)t->data + (size_t)i * bytes :
            NULL);
        m->view_count++;
    }
    return RC_OK;
}

/* Replaces stacked tensors by their parts. */
static int
split_stacked(struct model *m)
{
    size_t views = 0, n = 0, stacked = 0;
    struct model_tensor *all;

    for (size_t i = 0; i < m->count; i++)
        if (stack_of(m->tensors[i].t) >= 0) {
            views += (size_t)m->tensors[i].t->shape[0] * (size_t)parts_of(stack_of(m->tensors[i].t));
            stacked++;
        }
    if (stacked == 0)
        return RC_OK;
    m->views = mem_zalloc(views, sizeof(*m->views));
    all = mem_alloc(m->count - stacked + views, sizeof(*all));
    for (size_t i = 0; m->views != NULL && all != NULL && i < m->count; i++) {
        int stack = stack_of(m->tensors[i].t);
        size_t first = m->view_count;

        if (stack < 0) {
            all[n++] = m->tensors[i];
        } else if (add_views(m, m->tensors[i].t, stack) != RC_OK) {
            mem_free(all);
            return RC_DATA;
        }
        for (; first < m->view_count; first++)
            all[n++] = (struct model_tensor){ &m->views[first], m->tensors[i].shard };
    }
    if (m->views == NULL || all == NULL) {
        mem_free(all);
        return RC_OS;
    }
    mem_free(m->tensors);
    m->tensors = all;
    m->count = n;
    return RC_OK;
}

static int
collect_tensors(struct model *m)
{
    size_t n = 0;

    if (m->count == 0)
        return err_set(RC_DATA, "%s: has no tensors", m->dir);
    if ((m->tensors = mem_alloc(m->count, sizeof(*m->tensors))) == NULL)
        return RC_OS;
    for (int i = 0; i < m->shard_count; i++)
        for (size_t k = 0; k < m->shards[i].st.count; k++)
            m->tensors[n++] = (struct model_tensor){ &m->shards[i].st.tensors[k], i };
    TRY(split_stacked(m));
    qsort(m->tensors, m->count, sizeof(*m->tensors), compare_tensors);
    return RC_OK;
}

static int
open_dir(struct model *m, const char *dir, int (*open_file)(struct st_file *, const char *))
{
    const char *foreign = NULL;
    int rc = RC_OS;

    *m = (struct model){ 0 };
    if ((m->dir = mem_strdup(dir)) != NULL && (rc = scan_dir(m, &foreign)) == RC_OK && (rc = read_config(m)) == RC_OK &&
        (rc = has_file(m, index_name) ? load_indexed(m, open_file) : load_single(m, foreign, open_file)) == RC_OK)
        rc = collect_tensors(m);
    if (rc != RC_OK)
        model_close(m);
    return rc;
}

int
model_open(struct model *m, const char *dir)
{
    return open_dir(m, dir, st_open);
}

int
model_open_header(struct model *m, const char *dir)
{
    return open_dir(m, dir, st_open_header);
}

int
model_open_config(struct model *m, const char *dir)
{
    int rc;

    *m = (struct model){ 0 };
    rc = (m->dir = mem_strdup(dir)) != NULL ? read_config(m) : RC_OS;
    if (rc != RC_OK)
        model_close(m);
    return rc;
}

void
model_close(struct model *m)
{
    for (size_t i = 0; i < m->view_count; i++)
        mem_free((char *)(uintptr_t)m->views[i].name);
    mem_free(m->views);
    for (int i = 0; i < m->shard_count; i++) {
        st_close(&m->shards[i].st);
        mem_free(m->shards[i].name);
    }
    for (size_t i = 0; i < m->side_count; i++)
        mem_free(m->side[i]);
    json_decref(m->config);
    mem_free(m->side);
    mem_free(m->shards);
    mem_free(m->tensors);
    mem_free(m->dir);
    *m = (struct model){ 0 };
}

const struct model_tensor *
model_find(const struct model *m, const char *name)
{
    const struct tensor t = { .name = name };
    const struct model_tensor key = { .t = &t };

    return bsearch(&key, m->tensors, m->count, sizeof(key), compare_tensors);
}

int
model_get(const struct model *m, const char *name, const struct tensor **out)
{
    const struct model_tensor *found = model_find(m, name);

    *out = found != NULL ? found->t : NULL;
    return found != NULL ? RC_OK : err_set(RC_DATA, "%s: no tensor %s", m->dir, name);
}

const char *
model_shard_path(const struct model *m, const char *name)
{
    const struct model_tensor *found = model_find(m, name);

    return found != NULL ? m->shards[found->shard].st.path : NULL;
}

const char *
model_file(const struct model *m, size_t i, int *shard)
{
    const size_t shards = (size_t)m->shard_count;

    *shard = -1;
    if (i == 0)
        return config_name;
    i--;
    if (m->indexed && i == 0)
        return index_name;
    i -= m->indexed;
    if (i >= shards)
        return i - shards < m->side_count ? m->side[i - shards] : NULL;
    *shard = (int)i;
    return m->shards[i].name;
}

int
model_stamp(const struct model *m, int shard, int64_t out[2])
{
    const char *path = m->shards[shard].st.path;
    struct member file;
    struct stat sb;
    int rc;

    TRY(member_open(&file, path));
    rc = fstat(file.fd, &sb) == 0 ? RC_OK : err_set(RC_IO, "%s: %s", path, strerror(errno));
    (void)close(file.fd);
    TRY(rc);
    out[0] = (int64_t)sb.st_size;
    out[1] = (int64_t)sb.st_mtim.tv_sec * 1000000000 + sb.st_mtim.tv_nsec;
    return RC_OK;
}
