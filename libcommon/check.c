/* check - what vLLM and transformers rely on in a compressed-tensors checkpoint */
#include "check_parts.h"

#include "mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct check_row check_rules[CHECK_RULE_COUNT] = {
    [CHECK_FILE] = { "file", "a file of weights is not a whole safetensors file" },
    [CHECK_METADATA] = { "metadata", "a header does not say {\"format\": \"pt\"}, which loaders demand" },
    [CHECK_INDEX] = { "index", "the index does not list every tensor in its file, and no other" },
    [CHECK_TOTAL_SIZE] = { "total-size", "total_size of the index is not the sum of the tensors" },
    [CHECK_STALE] = { "stale", "weights or an index lie there that are no part of the checkpoint" },
    [CHECK_DUPLICATE] = { "duplicate", "a tensor is in two files" },
    [CHECK_SIDE_FILE] = { "side-file", "a file that consumers need is not there" },
    [CHECK_TIED] = { "tied", "embeddings are tied, and yet the head has a weight of its own" },
    [CHECK_CONFIG] = { "config", "a field of quantization_config is absent or has a value that loaders refuse" },
    [CHECK_ARGS] = { "args", "a scheme in config_groups is one that loaders refuse" },
    [CHECK_FORMAT] = { "format", "a format does not go with its scheme or with the other formats" },
    [CHECK_IGNORE] = { "ignore", "an entry of ignore names no module" },
    [CHECK_TARGET] = { "target", "a group of config_groups compresses no module" },
    [CHECK_MISSING] = { "missing", "a tensor that the configuration asks for is not there" },
    [CHECK_LEFTOVER] = { "leftover", "a tensor is there that the configuration leaves no place for" },
    [CHECK_DTYPE] = { "dtype", "a tensor has another type than its format has" },
    [CHECK_SHAPE] = { "shape", "a tensor has another shape than its scheme and module have" },
    [CHECK_FUSED] = { "fused", "modules that are loaded as one are not alike" },
    [CHECK_SHARED_SCALE] = { "shared-scale", "modules that are loaded as one have unequal global scales" },
    [CHECK_SCALE] = { "scale", "a scale is not finite or not positive" },
    [CHECK_ZERO_POINT] = { "zero-point", "a zero point is out of range" },
    [CHECK_CODE] = { "code", "a code is not a number, or out of range" },
    [CHECK_PADDING] = { "padding", "bits after the last packed element are not zero" },
    [CHECK_GROUP_INDEX] = { "group-index", "weight_g_idx is no assignment of columns to groups" },
    [CHECK_NOT_FINITE] = { "not-finite", "a value that is not compressed is not finite" },
    [CHECK_DROPPED] = { "dropped", "a tensor of the source is neither compressed nor copied nor listed as dropped" },
    [CHECK_CHANGED] = { "changed", "a tensor is not the source's: another type, shape or value" },
    [CHECK_EXTRA] = { "extra", "a tensor comes from none of the source" },
};

static const char *const part_names[PART_COUNT] = { "weight", "bias", "weight_packed", "weight_scale",
    "weight_zero_point", "weight_global_scale", "weight_shape", "weight_g_idx", "input_scale", "input_zero_point",
    "input_global_scale", "output_scale", "output_zero_point", "k_scale", "v_scale", "q_scale" };

const char *
check_part_name(enum part p)
{
    return part_names[p];
}

void
check_finding(struct check *c, enum check_rule rule, const char *subject, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    c->findings++;
    if (c->o->report == NULL)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    c->o->report(c->o->ctx, rule, subject, text);
}

/* --- modules --- */

/* The first len bytes of a tensor's name. */
struct slice {
    const char *s;
    size_t      len;
};

static int
compare_text(const char *a, size_t an, const char *b, size_t bn)
{
    int d = memcmp(a, b, an < bn ? an : bn);

    return d != 0 ? d : (an > bn) - (an < bn);
}

static int
compare_slices(const void *a, const void *b)
{
    const struct slice *x = a, *y = b;

    return compare_text(x->s, x->len, y->s, y->len);
}

static int
compare_module(const void *key, const void *module)
{
    const struct slice *k = key;
    const char *name = ((const struct check_module *)module)->name;

    return compare_text(k->s, k->len, name, strlen(name));
}

struct check_module *
check_module(const struct check *c, const char *name, size_t len)
{
    struct slice key = { name, len };

    return bsearch(&key, c->modules, c->module_count, sizeof(*c->modules), compare_module);
}

/* Every name before a dot of a tensor's name. */
static int
list_names(const struct check *c, struct slice **out, size_t *count)
{
    size_t n = 0, k = 0;

    for (size_t i = 0; i < c->count; i++)
        for (const char *p = c->tensors[i].t->name; (p = strchr(p, '.')) != NULL; p++)
            n++;
    if ((*out = mem_alloc(n, sizeof(**out))) == NULL)
        return RC_OS;
    for (size_t i = 0; i < c->count; i++) {
        const char *name = c->tensors[i].t->name;

        for (const char *p = name; (p = strchr(p, '.')) != NULL; p++)
            (*out)[k++] = (struct slice){ name, (size_t)(p - name) };
    }
    if (n > 1)
        qsort(*out, n, sizeof(**out), compare_slices);
    *count = n;
    return RC_OK;
}

/* Of the last component of a name: a table of rows to look up, not a matrix to multiply with. */
static bool
is_embedding(const char *name)
{
    const char *last = strrchr(name, '.');

    last = last != NULL ? last + 1 : name;
    return strstr(last, "embed") != NULL || strcmp(last, "wte") == 0 || strcmp(last, "wpe") == 0 ||
        strcmp(last, "shared") == 0;
}

static void
sort_parts(struct check *c)
{
    for (size_t i = 0; i < c->count; i++) {
        const struct tensor *t = c->tensors[i].t;
        const char *dot = strrchr(t->name, '.');
        struct check_module *m = dot != NULL ? check_module(c, t->name, (size_t)(dot - t->name)) : NULL;

        for (int p = 0; m != NULL && p < PART_COUNT; p++)
            if (strcmp(part_names[p], dot + 1) == 0 && m->part[p] == NULL)
                m->part[p] = t;
    }
    for (size_t i = 0; i < c->module_count; i++) {
        struct check_module *m = &c->modules[i];
        const struct tensor *w = m->part[PART_WEIGHT];

        m->linear = w != NULL && w->ndim == 2 && !is_embedding(m->name);
        for (int p = PART_PACKED; p <= PART_IN_GLOBAL; p++)
            m->linear |= m->part[p] != NULL;
    }
}

static int
make_modules(struct check *c)
{
    struct slice *all = NULL;
    size_t n = 0;
    int rc = list_names(c, &all, &n);

    if (rc == RC_OK && (c->modules = mem_zalloc(n, sizeof(*c->modules))) == NULL)
        rc = RC_OS;
    for (size_t i = 0; rc == RC_OK && i < n; i++) {
        struct check_module *m = &c->modules[c->module_count];

        if (i > 0 && compare_slices(&all[i - 1], &all[i]) == 0)
            continue;
        if ((m->name = mem_alloc(all[i].len + 1, 1)) == NULL) {
            rc = RC_OS;
            break;
        }
        (void)snprintf(m->name, all[i].len + 1, "%s", all[i].s);
        m->group = -1;
        c->module_count++;
    }
    mem_free(all);
    if (rc == RC_OK)
        sort_parts(c);
    return rc;
}

/* --- the whole --- */

static int
compare_tensor(const void *key, const void *tensor)
{
    return strcmp(key, ((const struct check_tensor *)tensor)->t->name);
}

const struct check_tensor *
check_tensor(const struct check *c, const char *name)
{
    return bsearch(name, c->tensors, c->count, sizeof(*c->tensors), compare_tensor);
}

static void
close_all(struct check *c)
{
    for (size_t i = 0; i < c->module_count; i++)
        mem_free(c->modules[i].name);
    for (int i = 0; i < c->file_count; i++) {
        if (c->files[i].st.path != NULL)
            st_close(&c->files[i].st);
        mem_free(c->files[i].name);
    }
    for (size_t i = 0; i < c->name_count; i++)
        mem_free(c->names[i]);
    recipe_free(c->recipe);
    json_decref(c->config);
    json_decref(c->index);
    mem_free(c->groups);
    mem_free(c->modules);
    mem_free(c->tensors);
    mem_free(c->files);
    mem_free(c->names);
}

static int
run_all(struct check *c)
{
    TRY(check_files(c));
    TRY(make_modules(c));
    TRY(check_config(c));
    TRY(check_config_modules(c));
    check_tensors(c);
    check_values(c);
    check_fused(c);
    return check_source(c);
}

int
check_run(const char *dir, const struct check_opts *o, int *findings)
{
    struct check c = { .dir = dir, .o = o };
    int rc = run_all(&c);

    *findings = c.findings;
    close_all(&c);
    return rc;
}
