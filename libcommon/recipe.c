/* recipe - which module gets which scheme, and how it is rounded */
#include "recipe.h"

#include "buf.h"
#include "mem.h"
#include "yaml.h"

#include <stdio.h>
#include <string.h>

enum { BLOCK_SIZE = 128, BLOCK_SIZE_MAX = 1024 };

#define DAMPENING 0.01

/* A modifier's arguments before its groups are made. */
struct modifier {
    const char   *name;
    bool          gptq;
    json_t       *targets, *ignore, *scheme, *groups; /* borrowed; NULL: not given */
    double        damp;
    int64_t       block;
    enum actorder actorder; /* UNSET: not given */
    bool          bypass;
    const char   *observer;
};

static bool
is_key(const char *key, const char *const *keys)
{
    for (; *keys != NULL; keys++)
        if (strcmp(key, *keys) == 0)
            return true;
    return false;
}

static int
init_matches(const json_t *list, struct match **out, int *count, bool **used)
{
    size_t n = json_array_size(list);

    *out = mem_zalloc(n, sizeof(**out));
    *used = mem_zalloc(n, sizeof(**used));
    if (*out == NULL || *used == NULL)
        return RC_OS;
    for (size_t i = 0; i < n; i++, ++*count)
        TRY(match_init(&(*out)[i], json_string_value(json_array_get(list, i))));
    return RC_OK;
}

static void
free_matches(struct match *m, int count)
{
    for (int i = 0; i < count; i++)
        match_free(&m[i]);
    mem_free(m);
}

void
recipe_free(struct recipe *r)
{
    if (r == NULL)
        return;
    for (int i = 0; i < r->group_count; i++) {
        struct recipe_group *g = &r->groups[i];

        mem_free(g->name);
        json_decref(g->targets);
        free_matches(g->match, g->match_count);
        mem_free(g->used);
    }
    mem_free(r->groups);
    json_decref(r->ignore);
    free_matches(r->ignore_match, r->ignore_count);
    mem_free(r->ignore_used);
    mem_free(r);
}

/* A string, or a list of strings, as a new list. */
static int
string_list(const json_t *v, const char *key, json_t **out)
{
    *out = json_array();
    if (json_is_string(v))
        return json_array_append_new(*out, json_string(json_string_value(v))) == 0 ? RC_OK : RC_OS;
    if (v != NULL && !json_is_null(v) && !json_is_array(v))
        return err_set(RC_DATA, "%s is not a list of strings", key);
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (!json_is_string(json_array_get(v, i)))
            return err_set(RC_DATA, "%s is not a list of strings", key);
        (void)json_array_append(*out, json_array_get(v, i));
    }
    return RC_OK;
}

/* A new group with its targets; the caller fills in the scheme. */
static int
add_group(struct recipe *r, const char *name, const json_t *targets, struct recipe_group **out)
{
    struct recipe_group *g = mem_zalloc((size_t)r->group_count + 1, sizeof(*g));

    if (g == NULL)
        return RC_OS;
    if (r->group_count > 0)
        memcpy(g, r->groups, (size_t)r->group_count * sizeof(*g));
    mem_free(r->groups);
    r->groups = g;
    g += r->group_count++;
    *out = g;
    if ((g->name = mem_strdup(name)) == NULL)
        return RC_OS;
    TRY(string_list(targets, "targets", &g->targets));
    if (json_array_size(g->targets) == 0)
        return err_set(RC_DATA, "%s has no targets", name);
    return init_matches(g->targets, &g->match, &g->match_count, &g->used);
}

/* Value of an argument as the text that scheme_set understands. */
static int
arg_text(const json_t *v, char *out, size_t size)
{
    char *s;

    if (json_is_string(v)) {
        (void)snprintf(out, size, "%s", json_string_value(v));
        return RC_OK;
    }
    if ((s = json_dumps(v, JSON_ENCODE_ANY)) == NULL)
        return err_set(RC_OS, "out of memory");
    (void)snprintf(out, size, "%s", s);
    mem_free(s);
    return RC_OK;
}

static int
read_args(struct qargs *a, const json_t *obj, const char *where)
{
    const char *key;
    json_t *v;
    char text[128];

    if (!json_is_object(obj))
        return err_set(RC_DATA, "%s is not a mapping", where);
    scheme_args_init(a);
    json_object_foreach((json_t *)(uintptr_t)obj, key, v)
    {
        TRY(arg_text(v, text, sizeof(text)));
        if (scheme_set(a, key, text) != RC_OK)
            return err_at(RC_DATA, "%s", where);
    }
    return RC_OK;
}

/* One entry of config_groups. */
static int
read_scheme(struct scheme *s, const json_t *obj, const char *name)
{
    static const char *const keys[] = { "targets", "weights", "input_activations", "output_activations", "format",
        NULL };
    const json_t *w, *in, *out, *format;
    const char *key;
    json_t *v;

    if (!json_is_object(obj))
        return err_set(RC_DATA, "%s is not a mapping", name);
    json_object_foreach((json_t *)(uintptr_t)obj, key, v)
        if (!is_key(key, keys))
            return err_set(RC_DATA, "%s: unknown key %s", name, key);
    w = json_object_get(obj, "weights");
    in = json_object_get(obj, "input_activations");
    out = json_object_get(obj, "output_activations");
    format = json_object_get(obj, "format");
    if (out != NULL && !json_is_null(out))
        return err_set(RC_DATA, "%s: output_activations are not supported", name);
    if (w == NULL || json_is_null(w))
        return err_set(RC_DATA, "%s has no weights", name);
    scheme_init(s);
    TRY(read_args(&s->weights, w, "weights"));
    if (in != NULL && !json_is_null(in)) {
        s->has_input = true;
        TRY(read_args(&s->input, in, "input_activations"));
    }
    if (json_is_string(format))
        TRY(scheme_set_format(s, json_string_value(format)));
    return scheme_finish(s);
}

/* Modifier unset: the scheme's own, or static; scheme unset or equal: the modifier's; else they contradict. */
static int
resolve_actorder(const struct modifier *m, struct recipe_group *g)
{
    enum actorder a = g->scheme.weights.actorder;

    if (!m->gptq) {
        g->scheme.weights.actorder = a == ACTORDER_UNSET ? ACTORDER_NONE : a;
        return RC_OK;
    }
    if (m->actorder == ACTORDER_UNSET)
        a = a == ACTORDER_UNSET ? ACTORDER_STATIC : a;
    else if (a == ACTORDER_UNSET || a == m->actorder)
        a = m->actorder;
    else
        return err_set(RC_DATA, "%s: actorder of the modifier and of its scheme differ", g->name);
    if (a == ACTORDER_GROUP || a == ACTORDER_DYNAMIC)
        return err_set(RC_DATA, "actorder group is not supported; there are static, null");
    g->scheme.weights.actorder = a;
    g->actorder = a == ACTORDER_STATIC || a == ACTORDER_WEIGHT;
    return RC_OK;
}

static int
finish_group(const struct modifier *m, struct recipe_group *g)
{
    g->gptq = m->gptq;
    g->dampening_frac = m->damp;
    g->block_size = (int)m->block;
    if (m->observer != NULL) {
        TRY(scheme_set(&g->scheme.weights, "observer", m->observer));
        TRY(scheme_finish(&g->scheme));
    }
    if (strcmp(g->scheme.weights.observer, "memoryless_minmax") != 0 &&
        strcmp(g->scheme.weights.observer, "minmax") != 0)
        return err_set(RC_DATA, "observer \"%s\" is not supported; there is minmax", g->scheme.weights.observer);
    return resolve_actorder(m, g);
}

static int
preset_group(struct recipe *r, const struct modifier *m, const char *preset, const json_t *targets)
{
    struct recipe_group *g;
    char name[32];

    (void)snprintf(name, sizeof(name), "group_%d", r->group_count);
    TRY(add_group(r, name, targets, &g));
    TRY(scheme_find(&g->scheme, preset, false));
    return finish_group(m, g);
}

static int
make_groups(struct recipe *r, const struct modifier *m)
{
    json_t *linear = json_pack("[s]", "Linear"), *v;
    const char *key;
    struct recipe_group *g;
    int rc = RC_OK;

    if (m->scheme != NULL && m->groups != NULL)
        rc = err_set(RC_DATA, "%s: scheme and config_groups exclude each other", m->name);
    else if (m->scheme == NULL && m->groups == NULL)
        rc = err_set(RC_DATA, "%s has neither scheme nor config_groups", m->name);
    else if (json_is_string(m->scheme))
        rc = preset_group(r, m, json_string_value(m->scheme), m->targets != NULL ? m->targets : linear);
    else if (m->scheme != NULL && !json_is_object(m->scheme))
        rc = err_set(RC_DATA, "%s: scheme is neither a name nor a mapping", m->name);
    else if (m->groups != NULL && !json_is_object(m->groups))
        rc = err_set(RC_DATA, "%s: config_groups is not a mapping", m->name);
    else if (m->scheme != NULL) {
        json_object_foreach(m->scheme, key, v)
            if (rc == RC_OK)
                rc = preset_group(r, m, key, v);
    } else {
        json_object_foreach(m->groups, key, v)
            if (rc == RC_OK && (rc = add_group(r, key, json_object_get(v, "targets"), &g)) == RC_OK &&
                (rc = read_scheme(&g->scheme, v, key)) == RC_OK)
                rc = finish_group(m, g);
    }
    json_decref(linear);
    return rc;
}

static int
read_actorder(struct modifier *m, const json_t *v)
{
    struct qargs a;

    scheme_args_init(&a);
    if (json_is_null(v))
        m->actorder = ACTORDER_NONE;
    else if (!json_is_string(v) || scheme_set(&a, "actorder", json_string_value(v)) != RC_OK)
        return err_set(RC_DATA, "%s: actorder is not static, weight or null", m->name);
    else
        m->actorder = a.actorder;
    return RC_OK;
}

static int
modifier_arg(struct modifier *m, const char *key, json_t *v, const json_t *args)
{
    static const char *const gptq_keys[] = { "block_size", "dampening_frac", "actorder", "offload_hessians",
        "batched_quantization", "sequential_targets", NULL };
    static const char *const ignored[] = { "index", "group", "start", "end", "update", "batched_quantization",
        "offload_hessians", "sequential_targets", NULL };

    if (!m->gptq && is_key(key, gptq_keys))
        return err_set(RC_DATA, "%s: unknown argument %s", m->name, key);
    if (strcmp(key, "targets") == 0)
        m->targets = json_is_null(v) ? NULL : v;
    else if (strcmp(key, "ignore") == 0)
        m->ignore = json_is_null(v) ? NULL : v;
    else if (strcmp(key, "scheme") == 0)
        m->scheme = json_is_null(v) ? NULL : v;
    else if (strcmp(key, "config_groups") == 0)
        m->groups = json_is_null(v) ? NULL : v;
    else if (strcmp(key, "actorder") == 0)
        return read_actorder(m, v);
    else if (strcmp(key, "block_size") == 0)
        return jget_int(args, key, BLOCK_SIZE, 1, BLOCK_SIZE_MAX, &m->block);
    else if (strcmp(key, "dampening_frac") == 0)
        return jget_real(args, key, DAMPENING, &m->damp);
    else if (strcmp(key, "bypass_divisibility_checks") == 0)
        return jget_bool(args, key, false, &m->bypass);
    else if (strcmp(key, "weight_observer") == 0)
        return jget_str(args, key, NULL, &m->observer);
    else if (strcmp(key, "kv_cache_scheme") == 0 || strcmp(key, "observer") == 0 ||
        strcmp(key, "input_observer") == 0 ||
        strcmp(key, "output_observer") == 0)
        return json_is_null(v) ? RC_OK : err_set(RC_DATA, "%s: %s is not supported", m->name, key);
    else if (!is_key(key, ignored))
        return err_set(RC_DATA, "%s: unknown argument %s", m->name, key);
    return RC_OK;
}

static int
read_modifier(struct recipe *r, const char *name, const json_t *args)
{
    struct modifier m = { .name = name, .damp = DAMPENING, .block = BLOCK_SIZE, .actorder = ACTORDER_UNSET };
    const char *key;
    json_t *v, *ignore;
    int rc;

    m.gptq = strcmp(name, "GPTQModifier") == 0;
    if (!m.gptq && strcmp(name, "QuantizationModifier") != 0)
        return err_set(RC_DATA, "modifier %s is not supported; there are GPTQModifier, QuantizationModifier", name);
    if (!json_is_object(args))
        return err_set(RC_DATA, "%s: arguments are not a mapping", name);
    json_object_foreach((json_t *)(uintptr_t)args, key, v)
        TRY(modifier_arg(&m, key, v, args));
    if (!(m.damp >= 0))
        return err_set(RC_DATA, "%s: dampening_frac is negative", name);
    r->bypass_divisibility = r->bypass_divisibility || m.bypass;
    TRY(make_groups(r, &m));
    if ((rc = string_list(m.ignore, "ignore", &ignore)) == RC_OK)
        (void)json_array_extend(r->ignore, ignore);
    json_decref(ignore);
    return rc;
}

static int
read_stages(struct recipe *r, const json_t *root)
{
    json_t *stage, *group, *args;
    const char *sk, *gk, *name;
    int modifiers = 0;

    if (!json_is_object(root))
        return err_set(RC_DATA, "not a mapping of stages");
    json_object_foreach((json_t *)(uintptr_t)root, sk, stage)
    {
        size_t n = strlen(sk);

        if (n < 6 || strcmp(sk + n - 6, "_stage") != 0 || !json_is_object(stage))
            return err_set(RC_DATA, "\"%s\" is not a stage; names of stages end in _stage", sk);
        json_object_foreach(stage, gk, group)
        {
            n = strlen(gk);
            if (n < 10 || strcmp(gk + n - 10, "_modifiers") != 0 || !json_is_object(group))
                return err_set(RC_DATA, "\"%s\" is not a group of modifiers; their names end in _modifiers", gk);
            json_object_foreach(group, name, args)
            {
                if (modifiers++ > 0)
                    return err_set(RC_DATA, "%s is a second modifier; one is supported", name);
                TRY(read_modifier(r, name, args));
            }
        }
    }
    return modifiers > 0 ? RC_OK : err_set(RC_DATA, "no modifier");
}

/* Compiles what the whole recipe ignores. */
static int
finish(struct recipe *r)
{
    return init_matches(r->ignore, &r->ignore_match, &r->ignore_count, &r->ignore_used);
}

static struct recipe *
new_recipe(void)
{
    struct recipe *r = mem_zalloc(1, sizeof(*r));

    if (r != NULL && (r->ignore = json_array()) == NULL) {
        mem_free(r);
        (void)err_set(RC_OS, "out of memory");
        return NULL;
    }
    return r;
}

static int
hand_over(struct recipe *r, int rc, struct recipe **out)
{
    *out = r;
    if (rc != RC_OK) {
        recipe_free(r);
        *out = NULL;
    }
    return rc;
}

int
recipe_read(struct recipe **out, const char *path)
{
    struct recipe *r = new_recipe();
    json_t *root = NULL;
    int rc;

    *out = NULL;
    if (r == NULL)
        return RC_OS;
    if ((rc = yaml_read_file(&root, path)) == RC_OK &&
        ((rc = read_stages(r, root)) != RC_OK || (rc = finish(r)) != RC_OK))
        rc = err_at(rc, "%s", path);
    json_decref(root);
    return hand_over(r, rc, out);
}

int
recipe_preset(struct recipe **out, const char *scheme, int group, bool gptq)
{
    struct modifier m = { .name = gptq ? "GPTQModifier" : "QuantizationModifier", .gptq = gptq, .damp = DAMPENING,
        .block = BLOCK_SIZE };
    json_t *targets = json_pack("[s]", "Linear");
    struct recipe *r = new_recipe();
    int rc;

    *out = NULL;
    if (r == NULL || targets == NULL) {
        json_decref(targets);
        recipe_free(r);
        return RC_OS;
    }
    (void)json_array_append_new(r->ignore, json_string("lm_head"));
    if ((rc = preset_group(r, &m, scheme, targets)) == RC_OK && group != 0)
        rc = scheme_set_group(&r->groups[0].scheme, group);
    if (rc == RC_OK)
        rc = finish(r);
    json_decref(targets);
    return hand_over(r, rc, out);
}

int
recipe_json(const struct recipe *r, json_t **out)
{
    json_t *groups = json_array(), *config;

    for (int i = 0; i < r->group_count; i++) {
        const struct recipe_group *g = &r->groups[i];

        TRY(scheme_json(&g->scheme, g->targets, &config));
        (void)json_array_append_new(groups, json_pack("{s:s, s:s, s:b, s:b, s:f, s:i, s:o}", "name", g->name, "preset",
            g->scheme.name, "gptq", (int)g->gptq, "actorder", (int)g->actorder, "dampening_frac", g->dampening_frac,
            "block_size", g->block_size, "config", config));
    }
    *out = json_pack("{s:o, s:O, s:b}", "groups", groups, "ignore", r->ignore, "bypass_divisibility_checks",
        (int)r->bypass_divisibility);
    return *out != NULL ? RC_OK : err_set(RC_OS, "out of memory");
}

static int
group_from_json(struct recipe *r, const json_t *obj)
{
    const json_t *config = json_object_get(obj, "config");
    const char *name, *preset;
    struct recipe_group *g;
    int64_t block;

    TRY(jget_str(obj, "name", "", &name));
    TRY(jget_str(obj, "preset", "", &preset));
    TRY(add_group(r, name, json_object_get(config, "targets"), &g));
    TRY(jget_bool(obj, "gptq", true, &g->gptq));
    TRY(jget_bool(obj, "actorder", true, &g->actorder));
    TRY(jget_real(obj, "dampening_frac", DAMPENING, &g->dampening_frac));
    TRY(jget_int(obj, "block_size", BLOCK_SIZE, 1, BLOCK_SIZE_MAX, &block));
    g->block_size = (int)block;
    TRY(read_scheme(&g->scheme, config, name));
    (void)snprintf(g->scheme.name, sizeof(g->scheme.name), "%s", preset);
    return RC_OK;
}

int
recipe_from_json(struct recipe **out, const json_t *json)
{
    const json_t *groups = json_object_get(json, "groups");
    struct recipe *r = new_recipe();
    int rc = RC_OK;

    *out = NULL;
    if (r == NULL)
        return RC_OS;
    if (json_array_size(groups) == 0)
        rc = err_set(RC_DATA, "recipe has no groups");
    for (size_t i = 0; i < json_array_size(groups) && rc == RC_OK; i++)
        rc = group_from_json(r, json_array_get(groups, i));
    json_decref(r->ignore);
    r->ignore = NULL;
    if (rc == RC_OK && (rc = string_list(json_object_get(json, "ignore"), "ignore", &r->ignore)) == RC_OK &&
        (rc = jget_bool(json, "bypass_divisibility_checks", false, &r->bypass_divisibility)) == RC_OK)
        rc = finish(r);
    return hand_over(r, rc, out);
}

int
recipe_from_config(struct recipe **out, const json_t *config)
{
    json_t *groups = json_array(), *json, *ignore = json_object_get(config, "ignore"), *v;
    const char *key;
    int rc;

    json_object_foreach(json_object_get(config, "config_groups"), key, v)
        (void)json_array_append_new(groups, json_pack("{s:s, s:O}", "name", key, "config", v));
    json = json_pack("{s:o, s:O?}", "groups", groups, "ignore", ignore);
    if (json == NULL)
        return err_set(RC_DATA, "quantization_config is malformed");
    rc = recipe_from_json(out, json);
    json_decref(json);
    return rc;
}

int
recipe_find(struct recipe *r, const char *module, const char *class_name, const char **why)
{
    enum match_kind best = MATCH_NO;
    const char *text = NULL;
    int found = -1;
    bool ignored = false;

    for (int i = 0; i < r->ignore_count; i++)
        if (match_module(&r->ignore_match[i], module, class_name) != MATCH_NO) {
            r->ignore_used[i] = true;
            ignored = true;
        }
    for (int g = 0; g < r->group_count; g++)
        for (int i = 0; i < r->groups[g].match_count; i++) {
            const struct match *m = &r->groups[g].match[i];
            enum match_kind kind = match_module(m, module, class_name);

            if (kind == MATCH_NO)
                continue;
            r->groups[g].used[i] = true;
            /* the better kind decides; within one the alphabetically first entry */
            if (kind > best || (kind == best && strcmp(m->text, text) < 0)) {
                best = kind;
                text = m->text;
                found = g;
            }
        }
    if (why != NULL)
        *why = ignored ? "ignored" : found < 0 ? "no target matches" : "";
    return ignored ? -1 : found;
}

int
recipe_check_used(const struct recipe *r)
{
    for (int i = 0; i < r->ignore_count; i++)
        if (!r->ignore_used[i])
            return err_set(RC_DATA, "ignore entry \"%s\" matches no module", r->ignore_match[i].text);
    for (int g = 0; g < r->group_count; g++)
        for (int i = 0; i < r->groups[g].match_count; i++)
            if (!r->groups[g].used[i])
                return err_set(RC_DATA, "target \"%s\" matches no module", r->groups[g].match[i].text);
    return RC_OK;
}

bool
recipe_needs_hessian(const struct recipe *r, int group)
{
    return r->groups[group].gptq;
}

/* --- YAML --- */

/* JSON scalars and lists of them are YAML. */
static int
yaml_value(struct buf *b, const json_t *v)
{
    char *s = json_dumps(v, JSON_ENCODE_ANY);

    if (s == NULL)
        return err_set(RC_OS, "out of memory");
    buf_puts(b, s);
    mem_free(s);
    return RC_OK;
}

static int
yaml_mapping(struct buf *b, const json_t *obj, int indent)
{
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)obj, key, v)
    {
        if (json_is_null(v))
            continue;
        buf_printf(b, "%*s%s:", indent, "", key);
        if (json_is_object(v) && json_object_size(v) > 0) {
            buf_puts(b, "\n");
            TRY(yaml_mapping(b, v, indent + 2)); /* depth is that of a scheme: three */
        } else {
            buf_puts(b, " ");
            TRY(yaml_value(b, v));
            buf_puts(b, "\n");
        }
    }
    return RC_OK;
}

int
recipe_yaml(const struct recipe *r, char **out)
{
    const struct recipe_group *g = &r->groups[0];
    struct buf b = { 0 };
    json_t *config;
    int rc = RC_OK;

    *out = NULL;
    buf_printf(&b, "default_stage:\n  default_modifiers:\n    %s:\n      config_groups:\n",
        g->gptq ? "GPTQModifier" : "QuantizationModifier");
    for (int i = 0; i < r->group_count && rc == RC_OK; i++) {
        buf_printf(&b, "        %s:\n", r->groups[i].name);
        if ((rc = scheme_json(&r->groups[i].scheme, r->groups[i].targets, &config)) == RC_OK) {
            rc = yaml_mapping(&b, config, 10);
            json_decref(config);
        }
    }
    buf_puts(&b, "      ignore: ");
    if (rc == RC_OK)
        rc = yaml_value(&b, r->ignore);
    buf_printf(&b, "\n      bypass_divisibility_checks: %s\n", r->bypass_divisibility ? "true" : "false");
    if (g->gptq)
        buf_printf(&b, "      block_size: %d\n      dampening_frac: %g\n", g->block_size, g->dampening_frac);
    if (rc == RC_OK && !buf_ok(&b))
        rc = RC_OS;
    if (rc != RC_OK)
        buf_free(&b);
    *out = b.s;
    return rc;
}
