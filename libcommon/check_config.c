/* check_config - quantization_config, and which module it gives which scheme */
#include "check_parts.h"

#include "mem.h"
#include "model.h"
#include "recipe_read.h"

#include <stdio.h>
#include <string.h>

static const char subject[] = "config.json";

/* --- arguments --- */

static const char *const arg_keys[] = { "num_bits", "type", "symmetric", "group_size", "strategy", "block_structure",
    "dynamic", "actorder", "scale_dtype", "zp_dtype", "observer", "observer_kwargs", NULL };
static const char *const scheme_keys[] = { "targets", "weights", "input_activations", "output_activations", "format",
    NULL };

static bool
one_of(const char *const *list, const char *text)
{
    while (*list != NULL && strcmp(*list, text) != 0)
        list++;
    return *list != NULL;
}

/* Unknown keys are findings each, and taken out, so that what else is wrong can be told, too. */
static void
drop_unknown(struct check *c, json_t *mapping, const char *const *known, const char *where)
{
    const char *key;
    void *next;
    json_t *v;

    json_object_foreach_safe(mapping, next, key, v) {
        if (one_of(known, key))
            continue;
        check_finding(c, CHECK_ARGS, subject, "%s: unknown key %s", where, key);
        (void)json_object_del(mapping, key);
    }
}

/* Act order by groups is a matter of one more tensor. */
static bool
has_actorder(const json_t *weights)
{
    const char *text = json_string_value(json_object_get(weights, "actorder"));

    return text != NULL && (strcmp(text, "group") == 0 || strcmp(text, "dynamic") == 0);
}

/* --- groups --- */

/* The whole configuration of one group, read as a recipe. */
static int
try_group(const char *name, json_t *group)
{
    json_t *config = json_pack("{s:{s:O}}", "config_groups", name, group);
    struct recipe *r = NULL;
    int rc = config == NULL ? err_set(RC_OS, "out of memory") : recipe_from_config(&r, config);

    json_decref(config);
    recipe_free(r);
    return rc;
}

/* A format that cannot hold the weights is told apart from arguments that are wrong. RC_OK: *ok says whether the group,
 * perhaps with its format taken out, is fine. */
static int
judge_group(struct check *c, const char *name, json_t *group, bool *ok)
{
    char text[512];
    json_t *bare;
    int rc = try_group(name, group);

    *ok = rc == RC_OK;
    if (rc != RC_DATA)
        return rc;
    (void)snprintf(text, sizeof(text), "%s", err_text());
    bare = json_copy(group);
    (void)json_object_del(bare, "format");
    rc = try_group(name, bare);
    *ok = rc == RC_OK;
    if (*ok)
        (void)json_object_del(group, "format");
    json_decref(bare);
    if (rc == RC_OK || rc == RC_DATA) {
        check_finding(c, *ok ? CHECK_FORMAT : CHECK_ARGS, subject, "%s", text);
        rc = RC_OK;
    }
    return rc;
}

/* Targets must be there and strings, whatever else a group is. */
static bool
has_targets(const json_t *group)
{
    const json_t *targets = json_object_get(group, "targets"), *v;
    size_t i;

    json_array_foreach(targets, i, v)
        if (!json_is_string(v))
            return false;
    return json_array_size(targets) > 0;
}

/* A group's own format decides; one without takes that of all. */
static void
settle_format(struct check *c, const char *name, json_t *group, const char *top)
{
    const json_t *own = json_object_get(group, "format");

    if (own != NULL && !json_is_null(own))
        return;
    if (strcmp(top, "mixed-precision") == 0)
        check_finding(c, CHECK_FORMAT, subject, "%s: has no format, and that of all is mixed-precision", name);
    else
        (void)json_object_set_new(group, "format", json_string(top));
}

/* Adds a copy of the group, made fit for the recipe's reader, to groups; or says why not. */
static int
read_group(struct check *c, const char *name, const json_t *given, const char *top, json_t *groups)
{
    json_t *group, *weights;
    char where[300];
    bool by_index, ok;
    int rc;

    if (!json_is_object(given) || !has_targets(given)) {
        check_finding(c, CHECK_ARGS, subject, "%s: %s", name, json_is_object(given) ? "has no list of targets"
            : "is not a mapping");
        c->bad_group = true;
        return RC_OK;
    }
    if ((group = json_deep_copy(given)) == NULL)
        return err_set(RC_OS, "out of memory");
    drop_unknown(c, group, scheme_keys, name);
    for (int i = 1; i <= 3; i++) {
        (void)snprintf(where, sizeof(where), "%s: %s", name, scheme_keys[i]);
        drop_unknown(c, json_object_get(group, scheme_keys[i]), arg_keys, where);
    }
    (void)json_object_del(group, "output_activations"); /* nothing on disk but output_scale */
    weights = json_object_get(group, "weights");
    if (weights == NULL || json_is_null(weights)) { /* of attention, or of nothing */
        c->attention = true;
        json_decref(group);
        return RC_OK;
    }
    by_index = has_actorder(weights);
    settle_format(c, name, group, top);
    rc = judge_group(c, name, group, &ok);
    if (rc == RC_OK && ok) {
        c->groups[json_object_size(groups)] = (struct check_group){ name, by_index };
        if (json_object_set(groups, name, group) != 0)
            rc = err_set(RC_OS, "out of memory");
    } else if (rc == RC_OK) {
        c->bad_group = true;
    }
    json_decref(group);
    return rc;
}

static int
read_groups(struct check *c, const json_t *q, json_t *groups)
{
    json_t *all = json_object_get(q, "config_groups"), *v;
    const char *name, *top = json_string_value(json_object_get(q, "format"));
    size_t n = json_object_size(all);

    if (!json_is_object(all) || (n == 0 && !json_is_object(json_object_get(q, "kv_cache_scheme"))))
        check_finding(c, CHECK_CONFIG, subject, "config_groups is absent or empty");
    if (n == 0)
        return RC_OK;
    if ((c->groups = mem_zalloc(n, sizeof(*c->groups))) == NULL)
        return RC_OS;
    json_object_foreach(all, name, v)
        TRY(read_group(c, name, v, top != NULL ? top : "", groups));
    return RC_OK;
}

/* The one format of all groups, or mixed-precision. */
static void
check_top_format(struct check *c, const json_t *q)
{
    static const char *const known[] = { "dense", "pack-quantized", "int-quantized", "float-quantized",
        "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized", "naive-quantized", "mixed-precision", NULL };
    const json_t *top = json_object_get(q, "format"), *all = json_object_get(q, "config_groups"), *v;
    const char *name, *common = NULL, *is = json_string_value(top);

    if (is == NULL) {
        check_finding(c, CHECK_CONFIG, subject, "format is %s", top == NULL ? "absent" : "not a string");
        return;
    }
    if (!one_of(known, is))
        check_finding(c, CHECK_FORMAT, subject, "format \"%s\" is not known", is);
    json_object_foreach((json_t *)(uintptr_t)all, name, v) {
        const char *own = json_string_value(json_object_get(v, "format"));

        if (own != NULL)
            common = common == NULL || strcmp(common, own) == 0 ? own : "mixed-precision";
    }
    if (common != NULL && strcmp(common, is) != 0)
        check_finding(c, CHECK_FORMAT, subject, "format of all is %s, the groups' are %s", is, common);
}

/* --- the rest of the configuration --- */

static void
check_status(struct check *c, const json_t *q)
{
    static const char *const known[] = { "initialized", "calibration", "frozen", "compressed", "decompressed", NULL };
    const char *status = json_string_value(json_object_get(q, "quantization_status"));
    const char *format = json_string_value(json_object_get(q, "format"));

    if (status == NULL)
        check_finding(c, CHECK_CONFIG, subject, "quantization_status is absent");
    else if (!one_of(known, status))
        check_finding(c, CHECK_CONFIG, subject, "quantization_status \"%s\" is not known", status);
    else if (strcmp(status, "compressed") != 0 && format != NULL && strcmp(format, "dense") != 0)
        check_finding(c, CHECK_CONFIG, subject, "quantization_status is %s, with format %s it must be compressed",
            status, format);
}

/* 8-bit floats, symmetric and static: all that runtimes have for a cache. */
static int
check_cache(struct check *c, const json_t *q)
{
    json_t *given = json_object_get(q, "kv_cache_scheme"), *copy, *saved = NULL;
    struct recipe none = { 0 };
    struct reading rd = { .r = &none };
    struct qargs args;
    int rc;

    if (given == NULL || json_is_null(given))
        return RC_OK;
    c->cache = true;
    copy = json_deep_copy(given);
    drop_unknown(c, copy, arg_keys, "kv_cache_scheme");
    (void)json_object_del(copy, "observer");
    (void)json_object_del(copy, "observer_kwargs");
    rc = recipe_args_cache(&rd, copy, &args, &saved);
    json_decref(copy);
    if (rc == RC_DATA) {
        check_finding(c, CHECK_ARGS, subject, "%s", err_text());
        return RC_OK;
    }
    TRY(rc);
    json_decref(saved);
    return RC_OK;
}

/* Entries that are fine, into list. */
static void
read_ignore(struct check *c, const json_t *q, json_t *list)
{
    const json_t *all = json_object_get(q, "ignore"), *v;
    struct match m;
    size_t i;

    if (all != NULL && !json_is_null(all) && !json_is_array(all))
        check_finding(c, CHECK_CONFIG, subject, "ignore is not a list");
    json_array_foreach(all, i, v) {
        if (!json_is_string(v)) {
            check_finding(c, CHECK_CONFIG, subject, "ignore: entry %zu is not a string", i + 1);
        } else if (match_init(&m, json_string_value(v)) != RC_OK) {
            check_finding(c, CHECK_IGNORE, subject, "ignore: %s", err_text());
        } else {
            match_free(&m);
            (void)json_array_append(list, (json_t *)(uintptr_t)v);
        }
    }
}

static void
check_others(struct check *c, const json_t *q)
{
    const json_t *sparsity = json_object_get(q, "sparsity_config");
    const char *format = json_string_value(json_object_get(sparsity, "format"));
    const json_t *version = json_object_get(q, "version");

    if (json_object_size(sparsity) > 0 && (format == NULL || strcmp(format, "dense") != 0))
        check_finding(c, CHECK_CONFIG, subject, "sparsity_config with format %s: there is no check of that",
            format != NULL ? format : "(none)");
    if (version != NULL && !json_is_null(version) && !json_is_string(version))
        check_finding(c, CHECK_CONFIG, subject, "version is not a string");
}

static int
read_all(struct check *c, const json_t *q)
{
    json_t *groups = json_object(), *ignore = json_array(), *config = NULL;
    int rc = groups == NULL || ignore == NULL ? err_set(RC_OS, "out of memory") : read_groups(c, q, groups);

    read_ignore(c, q, ignore);
    check_top_format(c, q);
    check_status(c, q);
    check_others(c, q);
    if (rc == RC_OK)
        rc = check_cache(c, q);
    if (rc == RC_OK && json_object_size(groups) > 0) {
        config = json_pack("{s:O, s:O}", "config_groups", groups, "ignore", ignore);
        rc = recipe_from_config(&c->recipe, config);
        if (rc == RC_DATA) {
            check_finding(c, CHECK_ARGS, subject, "%s", err_text());
            c->bad_group = true;
            rc = RC_OK;
        }
    }
    json_decref(config);
    json_decref(groups);
    json_decref(ignore);
    return rc;
}

/* A setting of the model, which models of several parts keep one level down. */
static const json_t *
setting(const struct check *c, const char *key)
{
    const json_t *v = json_object_get(c->config, key);

    return v != NULL && !json_is_null(v) ? v : json_object_get(json_object_get(c->config, "text_config"), key);
}

int
check_config(struct check *c)
{
    const json_t *q = model_quantization(c->config), *v = setting(c, "dtype");
    const char *method;
    bool needed = false;

    if (v == NULL)
        v = setting(c, "torch_dtype");
    c->t = json_is_string(v) ? dtype_find(json_string_value(v)) : DT_NONE;
    if (c->t != DT_BF16 && c->t != DT_F16 && c->t != DT_F32)
        c->t = DT_NONE;
    c->tied = json_is_true(setting(c, "tie_word_embeddings"));
    if (q == NULL) {
        for (size_t i = 0; i < c->module_count; i++)
            for (int p = PART_PACKED; p <= PART_IN_GLOBAL; p++)
                needed |= c->modules[i].part[p] != NULL;
        if (needed)
            check_finding(c, CHECK_CONFIG, subject, "there are compressed tensors, but no quantization_config");
        return RC_OK;
    }
    method = json_string_value(json_object_get(q, "quant_method"));
    if (method == NULL || strcmp(method, "compressed-tensors") != 0) {
        check_finding(c, CHECK_CONFIG, subject, "quant_method is %s, want compressed-tensors", method != NULL ? method
            : "absent");
        c->bad_group = true; /* whatever its tensors are */
        return RC_OK;
    }
    c->quantized = true;
    return read_all(c, q);
}

/* --- modules --- */

/* The name of a class, of which none is known here: no dots, a capital first. */
static bool
class_name(const char *text)
{
    return strchr(text, '.') == NULL && text[0] >= 'A' && text[0] <= 'Z';
}

/* A head that has no tensor of its own is a module all the same; one that a group compresses has to have them. */
static void
find_head(struct check *c)
{
    static const char *const heads[] = { "lm_head", "language_model.lm_head", "model.lm_head" };
    int group = -1;

    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
        if (check_module(c, heads[i], strlen(heads[i])) == NULL) {
            int g = recipe_find(c->recipe, heads[i], "Linear", NULL);

            group = i == 0 ? g : group;
        }
    if (group >= 0 && c->tied && json_object_get(c->config, "text_config") == NULL &&
        check_module(c, "lm_head", 7) == NULL)
        check_finding(c, CHECK_MISSING, "lm_head", "%s compresses it, but it has no tensors; ignore it",
            c->groups[group].name);
}

/* A router may be of class Linear or not, and is seldom compressed: without codes it is taken for left alone. */
static const char *
class_of(const struct check_module *m)
{
    static const char *const routers[] = { "gate", "router", "shared_expert_gate" };
    const char *last = strrchr(m->name, '.');

    for (size_t i = 0; i < sizeof(routers) / sizeof(routers[0]); i++)
        if (last != NULL && strcmp(last + 1, routers[i]) == 0 && m->part[PART_SCALE] == NULL)
            return "Router";
    return m->linear ? "Linear" : "Module";
}

int
check_config_modules(struct check *c)
{
    bool *attached;

    if (c->recipe == NULL)
        return RC_OK;
    if ((attached = mem_zalloc((size_t)c->recipe->group_count, sizeof(*attached))) == NULL)
        return RC_OS;
    for (size_t i = 0; i < c->module_count; i++) {
        struct check_module *m = &c->modules[i];
        int g = recipe_find(c->recipe, m->name, class_of(m), NULL);

        m->group = m->linear ? g : -1;
        if (m->group >= 0)
            attached[m->group] = true;
    }
    find_head(c);
    for (int g = 0; g < c->recipe->group_count; g++)
        if (!attached[g] && !c->unread)
            check_finding(c, CHECK_TARGET, subject, "%s: its targets match no module that is not ignored",
                c->groups[g].name);
    for (int k = 0; k < c->recipe->modifier_count; k++)
        for (int i = 0; i < c->recipe->modifiers[k].ignore_count; i++) {
            const struct recipe_entry *e = &c->recipe->modifiers[k].ignore[i];

            if (!e->used && !c->unread && !class_name(e->match.text))
                check_finding(c, CHECK_IGNORE, subject, "ignore: %s is no module", e->match.text);
        }
    if (c->recipe->problem != NULL)
        check_finding(c, CHECK_CONFIG, subject, "%s", c->recipe->problem);
    mem_free(attached);
    return RC_OK;
}
