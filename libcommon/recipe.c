/* recipe - which module gets which scheme, and how it is rounded */
#include "recipe.h"

#include "mem.h"
#include "recipe_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- building --- */

static void
entries_free(struct recipe_entry *e, int count)
{
    for (int i = 0; i < count; i++) {
        match_free(&e[i].match);
        mem_free(e[i].why);
    }
    mem_free(e);
}

struct recipe *
recipe_new(const char *origin)
{
    struct recipe *r = mem_zalloc(1, sizeof(*r));

    if (r == NULL || origin == NULL || (r->origin = mem_strdup(origin)) != NULL)
        return r;
    mem_free(r);
    return NULL;
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
        json_decref(g->weight_kwargs);
        json_decref(g->input_kwargs);
        entries_free(g->entries, g->entry_count);
    }
    for (int i = 0; i < r->modifier_count; i++) {
        struct recipe_modifier *m = &r->modifiers[i];

        mem_free(m->stage);
        mem_free(m->group);
        mem_free(m->name);
        json_decref(m->args);
        entries_free(m->ignore, m->ignore_count);
    }
    mem_free(r->groups);
    mem_free(r->modifiers);
    mem_free(r->origin);
    mem_free(r->problem);
    mem_free(r);
}

int
recipe_done(struct recipe *r, int rc, struct recipe **out)
{
    *out = rc == RC_OK ? r : NULL;
    if (rc != RC_OK)
        recipe_free(r);
    return rc;
}

int
recipe_list(const json_t *v, const char *key, json_t **out)
{
    *out = json_array();
    if (json_is_string(v)) {
        (void)json_array_append(*out, (json_t *)(uintptr_t)v);
        return *out != NULL ? RC_OK : err_set(RC_OS, "out of memory");
    }
    if (v != NULL && !json_is_array(v))
        return err_set(RC_DATA, "%s is not a list of strings", key);
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (!json_is_string(json_array_get(v, i)))
            return err_set(RC_DATA, "%s is not a list of strings", key);
        (void)json_array_append(*out, json_array_get(v, i));
    }
    return *out != NULL ? RC_OK : err_set(RC_OS, "out of memory");
}

int
recipe_entries(const json_t *list, const char *prefix, struct recipe_entry **out, int *count)
{
    size_t n = json_array_size(list);
    struct buf why = { 0 };

    if ((*out = mem_zalloc(n, sizeof(**out))) == NULL)
        return RC_OS;
    for (size_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(list, i));

        TRY(match_init(&(*out)[i].match, text));
        ++*count;
        buf_printf(&why, "%s %s", prefix, text);
        if (!buf_ok(&why)) {
            buf_free(&why);
            return RC_OS;
        }
        (*out)[i].why = why.s;
        why = (struct buf){ 0 };
    }
    return RC_OK;
}

/* *items with room for one more, zeroed. */
static int
add(void **items, int *count, int max, const char *what, size_t size, void **out)
{
    char *more;

    if (*count == max)
        return err_set(RC_DATA, "more than %d %s", max, what);
    if ((more = mem_zalloc((size_t)*count + 1, size)) == NULL)
        return RC_OS;
    if (*count > 0)
        memcpy(more, *items, (size_t)*count * size);
    mem_free(*items);
    *items = more;
    *out = more + (size_t)(*count)++ * size;
    return RC_OK;
}

int
recipe_add_modifier(struct recipe *r, const char *stage, const char *group, const char *name,
    struct recipe_modifier **out)
{
    void *items = r->modifiers, *new_one;
    struct recipe_modifier *m;

    TRY(add(&items, &r->modifier_count, RECIPE_MODIFIERS_MAX, "modifiers", sizeof(*m),
        &new_one));
    r->modifiers = items;
    *out = m = new_one;
    m->stage = mem_strdup(stage);
    m->group = mem_strdup(group);
    m->name = mem_strdup(name);
    return m->stage != NULL && m->group != NULL && m->name != NULL ? RC_OK : RC_OS;
}

int
recipe_add_group(struct recipe *r, const char *name, const json_t *targets,
    struct recipe_group **out)
{
    void *items = r->groups, *new_one;
    struct recipe_group *g;

    TRY(add(&items, &r->group_count, RECIPE_GROUPS_MAX, "groups of modules", sizeof(*g),
        &new_one));
    r->groups = items;
    *out = g = new_one;
    if ((g->name = mem_strdup(name)) == NULL)
        return RC_OS;
    TRY(recipe_list(targets, "targets", &g->targets));
    if (json_array_size(g->targets) == 0)
        return err_set(RC_DATA, "%s has no targets", name);
    return recipe_entries(g->targets, "left alone by", &g->entries, &g->entry_count);
}

/* --- presets --- */

static int
preset_args(const char *scheme, int group, const char *observer, bool v10, bool correct, struct scheme *s,
    json_t **out)
{
    struct recipe_group g = { .targets = json_pack("[s]", "Linear") };
    json_t *saved = NULL;
    int rc;

    *out = NULL;
    if ((rc = scheme_find(s, scheme, v10)) == RC_OK && group != 0 &&
        (rc = scheme_set_group(s, group)) == RC_OK) {
        g.scheme = *s;
        rc = recipe_args_saved(&g, &saved);
    }
    if (rc == RC_OK)
        *out = saved == NULL ? json_pack("{s:O, s:[s], s:s, s:s*}", "targets", g.targets, "ignore",
            "lm_head", "scheme", s->name, "weight_observer", observer)
            : json_pack("{s:{s:O}, s:[s], s:s*}", "config_groups", "group_0", saved, "ignore",
            "lm_head", "weight_observer", observer);
    if (correct && *out != NULL)
        (void)json_object_set_new(*out, "correct", json_true());
    json_decref(saved);
    json_decref(g.targets);
    return rc != RC_OK || *out != NULL ? rc : err_set(RC_OS, "out of memory");
}

int
recipe_preset(struct recipe **out, const char *scheme, int group, bool gptq, const char *observer,
    bool v10, bool correct)
{
    struct reading rd = { 0 };
    struct scheme s;
    json_t *args;
    int rc;

    *out = NULL;
    if (observer == NULL && gptq && !v10)
        observer = RECIPE_OBSERVER;
    if (observer != NULL)
        TRY(observer_find(observer, &observer));
    TRY(preset_args(scheme, group, observer, v10, correct, &s, &args));
    rc = RC_OS;
    if ((rd.r = recipe_new(NULL)) != NULL) {
        rd.r->v10 = v10;
        rc = recipe_read_modifier(&rd, "default", "default", gptq ? "GPTQModifier"
            : "QuantizationModifier", args);
    }
    json_decref(args);
    if (rc == RC_OK)
        memcpy(rd.r->groups[0].scheme.name, s.name, sizeof(s.name)); /* also with another group */
    return recipe_done(rd.r, rc, out);
}

/* --- JSON --- */

int
recipe_group_config(const struct recipe_group *g, json_t **out)
{
    TRY(scheme_json(&g->scheme, g->targets, out));
    if (g->weight_kwargs != NULL)
        (void)json_object_set(json_object_get(*out, "weights"), "observer_kwargs",
            g->weight_kwargs);
    if (g->input_kwargs != NULL && g->scheme.has_input)
        (void)json_object_set(json_object_get(*out, "input_activations"), "observer_kwargs",
            g->input_kwargs);
    return RC_OK;
}

static int
group_json(const struct recipe_group *g, json_t **out)
{
    json_t *config;

    TRY(recipe_group_config(g, &config));
    *out = json_pack("{s:s, s:s, s:b, s:b, s:f, s:i, s:O?, s:O?, s:o}", "name", g->name, "preset",
        g->scheme.name, "gptq", (int)g->gptq, "actorder", (int)g->actorder, "dampening_frac",
        g->dampening_frac, "block_size", g->block_size, "weight_observer_kwargs", g->weight_kwargs,
        "input_observer_kwargs", g->input_kwargs, "config", config);
    if (*out != NULL && g->correct != CORRECT_NONE) {
        (void)json_object_set_new(*out, "correct", json_string(recipe_correct_name(g->correct)));
        (void)json_object_set_new(*out, "correct_lambda", json_real(g->correct_lambda));
    }
    return *out != NULL ? RC_OK : err_set(RC_OS, "out of memory");
}

static int
groups_json(const struct recipe *r, json_t **out)
{
    json_t *one;

    if ((*out = json_array()) == NULL)
        return err_set(RC_OS, "out of memory");
    for (int i = 0; i < r->group_count; i++) {
        TRY(group_json(&r->groups[i], &one));
        (void)json_array_append_new(*out, one);
    }
    return RC_OK;
}

/* The argument whose order is that of the groups; NULL: there is none. */
static const char *
ordered_arg(const json_t *args)
{
    return json_is_object(json_object_get(args, "config_groups")) ? "config_groups"
        : json_is_object(json_object_get(args, "scheme")) ? "scheme" : NULL;
}

/* Its keys, since mappings of JSON have no order. */
static json_t *
order_json(const json_t *args)
{
    const char *arg = ordered_arg(args), *key;
    json_t *order = json_array(), *v;

    if (arg != NULL)
        json_object_foreach(json_object_get(args, arg), key, v)
            (void)json_array_append_new(order, json_string(key));
    return order;
}

/* A copy of args in which it has them in order. */
static json_t *
put_in_order(json_t *args, const json_t *order)
{
    const char *arg = ordered_arg(args), *key;
    const json_t *from = arg != NULL ? json_object_get(args, arg) : NULL;
    json_t *copy = json_copy(args), *to = json_object(), *one;
    size_t i;

    json_array_foreach(order, i, one)
        if ((key = json_string_value(one)) != NULL)
            (void)json_object_set(to, key, json_object_get(from, key));
    if (arg != NULL)
        (void)json_object_set(copy, arg, to);
    json_decref(to);
    return copy;
}

int
recipe_json(const struct recipe *r, json_t **out)
{
    json_t *groups = NULL, *modifiers = json_array();
    int rc = groups_json(r, &groups);

    for (int i = 0; i < r->modifier_count; i++) {
        const struct recipe_modifier *m = &r->modifiers[i];

        (void)json_array_append_new(modifiers, json_pack("{s:s, s:s, s:s, s:O, s:o}", "stage",
            m->stage, "group", m->group, "name", m->name, "args", m->args, "order",
            order_json(m->args)));
    }
    *out = rc != RC_OK ? NULL : json_pack("{s:O, s:O, s:s*}", "groups", groups, "modifiers",
        modifiers, "compat", r->v10 ? RECIPE_V10 : NULL);
    json_decref(groups);
    json_decref(modifiers);
    return rc != RC_OK || *out != NULL ? rc : err_set(RC_OS, "out of memory");
}

/* Names of presets are not in the arguments; all else must follow from them. */
static int
check_groups(struct recipe *r, const json_t *groups)
{
    json_t *mine = NULL;
    const char *preset;
    int rc;

    for (int i = 0; i < r->group_count; i++) {
        TRY(jget_str(json_array_get(groups, (size_t)i), "preset", "", &preset));
        (void)snprintf(r->groups[i].scheme.name, sizeof(r->groups[i].scheme.name), "%s", preset);
    }
    if ((rc = groups_json(r, &mine)) == RC_OK && !json_equal(mine, groups))
        rc = err_set(RC_DATA, "the recipe's groups do not follow from its modifiers");
    json_decref(mine);
    return rc;
}

static int
modifiers_from_json(struct reading *rd, const json_t *modifiers)
{
    const char *stage, *group, *name;
    const json_t *m;
    json_t *args;
    size_t i;
    int rc;

    json_array_foreach(modifiers, i, m)
    {
        TRY(jget_str(m, "stage", "default", &stage));
        TRY(jget_str(m, "group", "default", &group));
        TRY(jget_str(m, "name", "", &name));
        args = put_in_order(json_object_get(m, "args"), json_object_get(m, "order"));
        rc = recipe_read_modifier(rd, stage, group, name, args);
        json_decref(args);
        TRY(rc);
    }
    return rd->r->group_count > 0 || rd->r->has_cache ? RC_OK : err_set(RC_DATA, "the recipe has no groups");
}

int
recipe_from_json(struct recipe **out, const json_t *json)
{
    const char *compat = json_string_value(json_object_get(json, "compat"));
    struct reading rd = { .r = recipe_new(NULL) };
    int rc;

    *out = NULL;
    if (rd.r == NULL)
        return RC_OS;
    rd.r->v10 = compat != NULL && strcmp(compat, RECIPE_V10) == 0;
    if ((rc = modifiers_from_json(&rd, json_object_get(json, "modifiers"))) == RC_OK)
        rc = check_groups(rd.r, json_object_get(json, "groups"));
    return recipe_done(rd.r, rc, out);
}

/* What chose the scales is of no account to who reads them. */
static json_t *
without_observer(json_t *args)
{
    (void)json_object_del(args, "observer");
    (void)json_object_del(args, "observer_kwargs");
    return args;
}

int
recipe_from_config(struct recipe **out, const json_t *config)
{
    struct reading rd = { .r = recipe_new(NULL) };
    json_t *groups = json_deep_copy(json_object_get(config, "config_groups")), *args, *v, *cache;
    const char *key, *order;
    int rc = RC_OK;

    *out = NULL;
    json_object_foreach(groups, key, v)
    {
        (void)without_observer(json_object_get(v, "weights"));
        (void)without_observer(json_object_get(v, "input_activations"));
        /* the order of columns is in a tensor */
        order = json_string_value(json_object_get(json_object_get(v, "weights"), "actorder"));
        if (order != NULL && (strcmp(order, "group") == 0 || strcmp(order, "dynamic") == 0))
            (void)json_object_del(json_object_get(v, "weights"), "actorder");
    }
    cache = without_observer(json_deep_copy(json_object_get(config, "kv_cache_scheme")));
    args = json_pack("{s:O?, s:O?, s:O?}", "config_groups", groups, "ignore",
        json_object_get(config, "ignore"), "kv_cache_scheme", cache);
    if (rd.r == NULL || args == NULL)
        rc = err_set(RC_OS, "out of memory");
    else if ((rc = recipe_read_modifier(&rd, "default", "default", "QuantizationModifier", args)) !=
        RC_OK)
        rc = err_at(rc, "quantization_config");
    json_decref(args);
    json_decref(groups);
    json_decref(cache);
    return recipe_done(rd.r, rc, out);
}

/* --- modules --- */

static void
note_problem(struct recipe *r, const char *text)
{
    if (r->problem == NULL)
        r->problem = mem_strdup(text);
}

/* A match of an entry; the greatest kind decides, and of that the alphabetically first text. */
struct candidate {
    const struct recipe_entry *entry; /* NULL: none */
    enum match_kind            kind;
    int                        group;
};

static bool
beats(const struct candidate *a, const struct candidate *b)
{
    return a->kind > b->kind ||
        (a->kind == b->kind && strcmp(a->entry->match.text, b->entry->match.text) < 0);
}

/* Marks e as used when it matches. */
static enum match_kind
try_entry(struct recipe *r, struct recipe_entry *e, const char *module, const char *classes)
{
    enum match_kind kind = match_module(&e->match, module, classes);

    if (kind == MATCH_ERROR)
        note_problem(r, err_text());
    if (kind > MATCH_NO)
        e->used = true;
    return kind;
}

static struct candidate
best_target(struct recipe *r, const struct recipe_modifier *m, const char *module,
    const char *classes)
{
    struct candidate best = { 0 }, c;

    for (c.group = m->first_group; c.group < m->end_group; c.group++)
        for (int i = 0; i < r->groups[c.group].entry_count; i++) {
            struct recipe_entry *e = &r->groups[c.group].entries[i];

            c.entry = e;
            c.kind = try_entry(r, e, module, classes);
            if (c.kind > MATCH_NO && (best.entry == NULL || beats(&c, &best)))
                best = c;
        }
    return best;
}

static const struct recipe_entry *
first_ignoring(struct recipe *r, const struct recipe_modifier *m, const char *module,
    const char *classes)
{
    const struct recipe_entry *first = NULL;

    for (int i = 0; i < m->ignore_count; i++)
        if (try_entry(r, &m->ignore[i], module, classes) > MATCH_NO && first == NULL)
            first = &m->ignore[i];
    return first;
}

/* The one that compresses a module must also be the one that readers of config.json find, where
 * all groups stand side by side. */
static void
check_readers(struct recipe *r, const char *module, const struct candidate *found,
    const struct candidate *other)
{
    struct buf text = { 0 };

    if (other->entry == NULL || other->group == found->group || beats(found, other))
        return;
    buf_printf(&text, "%s: target \"%s\" compresses it, but \"%s\" of another modifier goes first "
        "for readers of the checkpoint", module, found->entry->match.text,
        other->entry->match.text);
    note_problem(r, buf_ok(&text) ? text.s : "out of memory");
    buf_free(&text);
}

static void
note_twice(struct recipe *r, const char *module, const struct recipe_modifier *a,
    const struct recipe_modifier *b)
{
    struct buf text = { 0 };

    buf_printf(&text, "%s: %s of %s_modifiers compresses it, and %s of %s_modifiers again", module,
        a->name, a->group, b->name, b->group);
    note_problem(r, buf_ok(&text) ? text.s : "out of memory");
    buf_free(&text);
}

int
recipe_find(struct recipe *r, const char *module, const char *classes, const char **why)
{
    const struct recipe_modifier *owner = NULL;
    struct candidate found = { 0 }, best = { 0 };
    const char *reason = NULL;

    for (int i = 0; i < r->modifier_count; i++) {
        const struct recipe_modifier *m = &r->modifiers[i];
        const struct recipe_entry *ignoring = first_ignoring(r, m, module, classes);
        struct candidate c = best_target(r, m, module, classes);
        bool dense = c.entry != NULL && !r->groups[c.group].scheme.has_weights;

        if (c.entry != NULL && !dense && (best.entry == NULL || !beats(&best, &c)))
            best = c;
        if (ignoring != NULL || dense)
            reason = reason != NULL ? reason : ignoring != NULL ? ignoring->why : c.entry->why;
        else if (c.entry != NULL && owner != NULL)
            note_twice(r, module, owner, m);
        else if (c.entry != NULL) {
            found = c;
            owner = m;
        }
    }
    if (owner != NULL)
        check_readers(r, module, &found, &best);
    if (why != NULL)
        *why = owner != NULL ? "" : reason != NULL ? reason : "no target matches";
    return owner != NULL ? found.group : -1;
}

bool
recipe_minmax(const char *observer)
{
    static const char *const names[] = { "minmax", "static_minmax", "memoryless_minmax" };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(observer, names[i]) == 0)
            return true;
    return false;
}

/* A module's inputs have one static scale; the runtimes read no more. */
static int
check_input(const struct recipe_group *g)
{
    const struct qargs *a = &g->scheme.input;

    if (a->strategy != ARGS_TENSOR && a->dynamic != DYNAMIC_LOCAL)
        return err_set(RC_DATA, "%s: static scales of inputs are not supported but for strategy tensor", g->name);
    return recipe_minmax(a->observer) ? RC_OK : err_set(RC_DATA, "%s: observer \"%s\" of inputs is not supported; "
        "there is static_minmax, and minmax and memoryless_minmax, which are done alike", g->name, a->observer);
}

/* What is read, so that recipes keep it, but what no stage does. */
static int
check_supported(const struct recipe *r)
{
    struct scale_opts o;
    struct qspec spec;

    for (int i = 0; i < r->group_count; i++) {
        const struct recipe_group *g = &r->groups[i];

        if (!g->gptq && scheme_order_group(&g->scheme))
            return err_set(RC_DATA, "%s: actorder group wants GPTQModifier", g->name);
        if (scheme_input_static(&g->scheme))
            TRY(check_input(g));
        if (g->input_kwargs != NULL)
            return err_set(RC_DATA, "%s: observer_kwargs of inputs are not supported", g->name);
        if (!g->scheme.has_weights)
            continue;
        scheme_qspec(&g->scheme, DT_BF16, false, &spec);
        if (recipe_scale_opts(g, &spec, &o) != RC_OK)
            return err_at(RC_DATA, "%s", g->name);
    }
    return RC_OK;
}

int
recipe_scale_opts(const struct recipe_group *g, const struct qspec *spec, struct scale_opts *out)
{
    return observer_opts(g->scheme.weights.observer, g->weight_kwargs, spec, out);
}

/* A name that is not there is a slip; a pattern may be meant for several models. */
static int
check_ignored(const struct recipe *r, const struct recipe_entry *e)
{
    if (e->used)
        return RC_OK;
    if (e->match.regex == NULL)
        return err_set(RC_DATA, "ignore entry \"%s\" matches no module", e->match.text);
    msg_warn(r->origin, "ignore entry \"%s\" matches no module", e->match.text);
    return RC_OK;
}

static int
check_used(const struct recipe *r)
{
    if (r->problem != NULL)
        return err_set(RC_DATA, "%s", r->problem);
    for (int m = 0; m < r->modifier_count; m++)
        for (int i = 0; i < r->modifiers[m].ignore_count; i++)
            TRY(check_ignored(r, &r->modifiers[m].ignore[i]));
    for (int g = 0; g < r->group_count; g++)
        for (int i = 0; i < r->groups[g].entry_count; i++)
            if (!r->groups[g].entries[i].used)
                return err_set(RC_DATA, "target \"%s\" matches no module",
                    r->groups[g].entries[i].match.text);
    return RC_OK;
}

int
recipe_check_used(const struct recipe *r)
{
    int rc = check_supported(r);

    if (rc == RC_OK)
        rc = check_used(r);
    return rc == RC_OK || r->origin == NULL ? rc : err_at(rc, "%s", r->origin);
}

bool
recipe_needs_inputs(const struct recipe *r, int group)
{
    return recipe_needs_hessian(r, group) || scheme_input_static(&r->groups[group].scheme);
}

void
recipe_observer_done(struct qargs *args)
{
    if (args->dynamic != DYNAMIC_YES)
        (void)snprintf(args->observer, sizeof(args->observer), "static_minmax");
}

bool
recipe_needs_hessian(const struct recipe *r, int group)
{
    const struct recipe_group *g = &r->groups[group];

    return g->gptq || observer_weighted(g->scheme.weights.observer);
}

bool
recipe_corrects(const struct recipe *r)
{
    for (int i = 0; i < r->group_count; i++)
        if (r->groups[i].correct != CORRECT_NONE)
            return true;
    return false;
}
