/* check_files - the directory, its safetensors files and their index */
#include "check_parts.h"

#include "file.h"
#include "mem.h"
#include "member.h"
#include "model.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

static const char single_name[] = "model.safetensors", index_name[] = "model.safetensors.index.json";

static int
compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

bool
check_has_name(const struct check *c, const char *file)
{
    return bsearch(&file, c->names, c->name_count, sizeof(*c->names), compare_names) != NULL;
}

struct names {
    struct check *c;
    size_t        cap;
};

static int
add_name(void *ctx, const char *name)
{
    struct names *n = ctx;
    struct check *c = n->c;
    char **names = mem_grow(c->names, &n->cap, c->name_count + 1, sizeof(*names));

    if (names == NULL || (c->names = names, names[c->name_count] = mem_strdup(name)) == NULL)
        return RC_OS;
    c->name_count++;
    return RC_OK;
}

static int
list_dir(struct check *c)
{
    struct names n = { .c = c };

    TRY(member_list(c->dir, add_name, &n));
    if (c->name_count > 1)
        qsort(c->names, c->name_count, sizeof(*c->names), compare_names);
    return RC_OK;
}

/* A JSON object of the directory. */
static int
read_object(const struct check *c, const char *name, json_t **out)
{
    char *path = file_join(c->dir, name);
    int rc = path == NULL ? RC_OS : jread_file(out, path);

    if (rc == RC_OK && !json_is_object(*out)) {
        rc = err_set(RC_DATA, "%s: not an object", path);
        json_decref(*out);
        *out = NULL;
    }
    mem_free(path);
    return rc;
}

static int
read_index(struct check *c)
{
    int rc;

    if (!check_has_name(c, index_name))
        return RC_OK;
    if ((rc = read_object(c, index_name, &c->index)) == RC_DATA)
        check_finding(c, CHECK_INDEX, index_name, "%s", err_text());
    else if (rc != RC_OK)
        return rc;
    if (c->index != NULL && json_object_size(json_object_get(c->index, "weight_map")) == 0) {
        check_finding(c, CHECK_INDEX, index_name, "\"weight_map\" is absent or empty");
        json_decref(c->index);
        c->index = NULL;
    }
    return RC_OK;
}

/* --- which files --- */

static int
add_file(struct check *c, const char *name)
{
    struct check_file *f = &c->files[c->file_count];

    for (int i = 0; i < c->file_count; i++)
        if (strcmp(c->files[i].name, name) == 0)
            return RC_OK;
    if ((f->name = mem_strdup(name)) == NULL)
        return RC_OS;
    c->file_count++;
    return RC_OK;
}

static int
files_of_index(struct check *c)
{
    json_t *map = json_object_get(c->index, "weight_map"), *v;
    const char *tensor, *last = NULL;

    json_object_foreach(map, tensor, v) {
        const char *name = json_string_value(v);

        if (name == NULL)
            check_finding(c, CHECK_INDEX, tensor, "listed for something that is no file name");
        else if (!model_plain_name(name))
            check_finding(c, CHECK_INDEX, tensor, "listed for %s, which is not a plain file name", name);
        else if (!check_has_name(c, name)) {
            check_finding(c, CHECK_INDEX, tensor, "listed for %s, which is not there", name);
            c->unread = true;
        } else if (last == NULL || strcmp(last, name) != 0) { /* mostly runs of the same */
            TRY(add_file(c, name));
            last = name;
        }
    }
    return RC_OK;
}

static bool
is_weights(const char *name)
{
    return name[0] != '.' && fnmatch("*.safetensors", name, 0) == 0;
}

static int
choose_files(struct check *c)
{
    if ((c->files = mem_zalloc(c->name_count + 1, sizeof(*c->files))) == NULL)
        return RC_OS;
    if (c->index != NULL)
        return files_of_index(c);
    if (check_has_name(c, single_name))
        return add_file(c, single_name);
    for (size_t i = 0; i < c->name_count; i++)
        if (is_weights(c->names[i]))
            TRY(add_file(c, c->names[i]));
    if (c->file_count == 0)
        return err_set(RC_NOINPUT, "%s: has neither %s nor %s", c->dir, single_name, index_name);
    if (!check_has_name(c, index_name))
        check_finding(c, CHECK_INDEX, index_name, "there is none, and no %s either", single_name);
    return RC_OK;
}

static void
find_stale(struct check *c)
{
    for (size_t i = 0; i < c->name_count; i++) {
        const char *name = c->names[i];
        bool mine = strcmp(name, index_name) == 0;

        for (int k = 0; k < c->file_count; k++)
            mine |= strcmp(c->files[k].name, name) == 0;
        if (mine)
            continue;
        if (is_weights(name) || fnmatch("pytorch_model*.bin", name, 0) == 0)
            check_finding(c, CHECK_STALE, name, "weights that %s", c->index != NULL ? "the index does not list"
                : "no loader takes");
        else if (fnmatch("*.safetensors.index.json", name, 0) == 0)
            check_finding(c, CHECK_STALE, name, "an index beside %s", c->index != NULL ? index_name : single_name);
    }
}

/* --- what is in them --- */

static int
open_file(struct check *c, struct check_file *f)
{
    char *path = file_join(c->dir, f->name);
    const char *format, *text;
    int rc = path == NULL ? RC_OS : st_open(&f->st, path);

    if (rc == RC_DATA || rc == RC_NOINPUT) {
        text = err_text();
        if (strncmp(text, path, strlen(path)) == 0)
            text += strlen(path) + 2;
        check_finding(c, CHECK_FILE, f->name, "%s", text);
        f->st = (struct st_file){ 0 };
        c->unread = true;
        rc = RC_OK;
    } else if (rc == RC_OK) {
        format = st_meta(&f->st, "format");
        if (format == NULL || strcmp(format, "pt") != 0)
            check_finding(c, CHECK_METADATA, f->name, "__metadata__ has %s%s, want \"format\": \"pt\"",
                format != NULL ? "format " : "no format", format != NULL ? format : "");
        c->count += f->st.count;
    }
    mem_free(path);
    return rc;
}

static int
compare_tensors(const void *a, const void *b)
{
    const struct check_tensor *x = a, *y = b;
    int d = strcmp(x->t->name, y->t->name);

    return d != 0 ? d : x->file - y->file;
}

static int
collect_tensors(struct check *c)
{
    size_t n = 0;

    if ((c->tensors = mem_alloc(c->count, sizeof(*c->tensors))) == NULL)
        return RC_OS;
    for (int i = 0; i < c->file_count; i++)
        for (size_t k = 0; k < c->files[i].st.count; k++)
            c->tensors[n++] = (struct check_tensor){ &c->files[i].st.tensors[k], i };
    if (n > 1)
        qsort(c->tensors, n, sizeof(*c->tensors), compare_tensors);
    for (size_t i = 1; i < n; i++)
        if (strcmp(c->tensors[i - 1].t->name, c->tensors[i].t->name) == 0)
            check_finding(c, CHECK_DUPLICATE, c->tensors[i].t->name, "is in %s and in %s",
                c->files[c->tensors[i - 1].file].name, c->files[c->tensors[i].file].name);
    return RC_OK;
}

static void
check_listed(struct check *c)
{
    json_t *map = json_object_get(c->index, "weight_map"), *v;
    const char *name;

    json_object_foreach(map, name, v) {
        const char *file = json_string_value(v);
        int i = 0;

        while (i < c->file_count && (file == NULL || strcmp(c->files[i].name, file) != 0))
            i++;
        if (i < c->file_count && c->files[i].st.path != NULL && st_find(&c->files[i].st, name) == NULL)
            check_finding(c, CHECK_INDEX, name, "listed for %s, but not in it", file);
    }
    for (size_t i = 0; i < c->count; i++) {
        const char *file = c->files[c->tensors[i].file].name;
        const char *listed = json_string_value(json_object_get(map, c->tensors[i].t->name));

        if (listed == NULL)
            check_finding(c, CHECK_INDEX, c->tensors[i].t->name, "in %s, but not listed", file);
        else if (strcmp(listed, file) != 0)
            check_finding(c, CHECK_INDEX, c->tensors[i].t->name, "in %s, but listed for %s", file, listed);
    }
}

static void
check_total(struct check *c)
{
    const json_t *meta = json_object_get(c->index, "metadata"), *total = json_object_get(meta, "total_size");
    uint64_t sum = 0;

    for (size_t i = 0; i < c->count; i++)
        sum += c->tensors[i].t->bytes;
    if (!json_is_number(total))
        check_finding(c, CHECK_TOTAL_SIZE, index_name, "metadata has no total_size");
    else if (!c->unread && json_number_value(total) != (double)sum)
        check_finding(c, CHECK_TOTAL_SIZE, index_name, "total_size is %.0f, tensors have %llu bytes",
            json_number_value(total), (unsigned long long)sum);
}

int
check_files(struct check *c)
{
    int rc = RC_OK;

    TRY(list_dir(c));
    TRY(read_object(c, "config.json", &c->config));
    TRY(read_index(c));
    TRY(choose_files(c));
    for (int i = 0; i < c->file_count && rc == RC_OK; i++)
        rc = open_file(c, &c->files[i]);
    TRY(rc);
    TRY(collect_tensors(c));
    if (c->index != NULL) {
        check_listed(c);
        check_total(c);
    }
    find_stale(c);
    return RC_OK;
}
