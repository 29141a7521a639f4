/* recipe_read - LLM Compressor's YAML into a recipe */
#include "recipe_read.h"

#include "mem.h"
#include "observer.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A modifier's arguments before its groups are made. */
struct modifier {
    struct reading *rd;
    const char     *name, *group;
    bool            gptq;
    bool            ordered, single; /* actorder was given; one of the *_observer was */
    json_t         *targets, *ignore; /* lists, owned; NULL: not given */
    const json_t   *scheme, *groups;
    struct qargs    cache_args;
    json_t         *cache, *observer; /* kv_cache_scheme and observer to save, owned */
    json_t         *args;  /* owned until the recipe has it */
    json_t         *saved; /* its config_groups, owned likewise */
    const char     *observers[3]; /* of weights, input, output */
    enum actorder   actorder;
    double          damp;
    int64_t         block;
    bool            bypass;
    enum recipe_correct correct;
    double          lambda; /* of correct; negative: not given */
};

void
recipe_at(struct reading *rd, const json_t *mapping, const char *key)
{
    size_t line = yaml_line(rd->lines, mapping, key);

    if (line > 0)
        rd->line = line;
}

/* --- arguments --- */

static int
read_targets(struct modifier *m, const char *key, const json_t *v)
{
    return recipe_list(v, key, &m->targets);
}

static int
read_ignore(struct modifier *m, const char *key, const json_t *v)
{
    return recipe_list(v, key, &m->ignore);
}

static int
read_scheme(struct modifier *m, const char *key, const json_t *v)
{
    m->scheme = v;
    return json_is_string(v) || json_is_object(v) ? RC_OK
        : err_set(RC_DATA, "%s is neither a name nor a mapping from names to targets", key);
}

static int
read_groups(struct modifier *m, const char *key, const json_t *v)
{
    m->groups = v;
    return json_is_object(v) ? RC_OK : err_set(RC_DATA, "%s is not a mapping", key);
}

static int
read_cache(struct modifier *m, const char *key, const json_t *v)
{
    (void)key;
    return recipe_args_cache(m->rd, v, &m->cache_args, &m->cache);
}

/* weight_observer, input_observer, output_observer */
static int
read_observer(struct modifier *m, const char *key, const json_t *v)
{
    m->single = true;
    if (!json_is_string(v))
        return err_set(RC_DATA, "%s is not a string", key);
    return observer_find(json_string_value(v),
        &m->observers[*key == 'w' ? 0 : *key == 'i' ? 1 : 2]);
}

static int
read_observers(struct modifier *m, const char *key, const json_t *v)
{
    static const char *const keys[] = { "weights", "input", "output" };
    const char *k;
    json_t *one;
    int i;

    if (!json_is_object(v))
        return err_set(RC_DATA, "%s is not a mapping", key);
    if ((m->observer = json_object()) == NULL)
        return err_set(RC_OS, "out of memory");
    json_object_foreach((json_t *)(uintptr_t)v, k, one)
    {
        recipe_at(m->rd, v, k);
        for (i = 0; i < 3 && strcmp(k, keys[i]) != 0; i++)
            ;
        if (i == 3)
            return err_set(RC_DATA, "%s: unknown key %s; there are weights, input, output", key, k);
        if (!json_is_string(one))
            return err_set(RC_DATA, "%s: %s is not a string", key, k);
        TRY(observer_find(json_string_value(one), &m->observers[i]));
        (void)json_object_set_new(m->observer, k, json_string(m->observers[i]));
    }
    return RC_OK;
}

static int
read_bypass(struct modifier *m, const char *key, const json_t *v)
{
    m->bypass = json_is_true(v);
    return json_is_boolean(v) ? RC_OK : err_set(RC_DATA, "%s is not true or false", key);
}

static int
read_block(struct modifier *m, const char *key, const json_t *v)
{
    m->block = json_integer_value(v);
    if (!json_is_integer(v))
        return err_set(RC_DATA, "%s is not an integer", key);
    return m->block >= 1 && m->block <= RECIPE_BLOCK_MAX ? RC_OK
        : err_set(RC_DATA, "%s is %lld, want 1 to %d", key, (long long)m->block, RECIPE_BLOCK_MAX);
}

/* Also as text, since "1e-3" is no number in YAML 1.1, but one for LLM Compressor. */
static int
read_number(const char *key, const json_t *v, double *out)
{
    const char *s = json_string_value(v);
    char *end;

    *out = json_number_value(v);
    if (s != NULL && *s != '\0' && s[strspn(s, "0123456789.eE+-")] == '\0') {
        *out = strtod(s, &end);
        if (*end == '\0')
            s = NULL;
    }
    if (s != NULL || !(json_is_number(v) || json_is_string(v)) || !isfinite(*out))
        return err_set(RC_DATA, "%s is not a number", key);
    return *out >= 0 ? RC_OK : err_set(RC_DATA, "%s is negative", key);
}

static int
read_damp(struct modifier *m, const char *key, const json_t *v)
{
    return read_number(key, v, &m->damp);
}

static const char *const correct_names[] = { "none", "residual", "all" };

const char *
recipe_correct_name(enum recipe_correct c)
{
    return correct_names[c];
}

static int
read_correct(struct modifier *m, const char *key, const json_t *v)
{
    const char *s = json_is_true(v) ? correct_names[RECIPE_CORRECT] : json_is_false(v) ? correct_names[CORRECT_NONE] :
        json_string_value(v);

    for (int i = CORRECT_NONE; i <= CORRECT_ALL; i++)
        if (s != NULL && strcmp(s, correct_names[i]) == 0) {
            m->correct = (enum recipe_correct)i;
            return i == CORRECT_NONE || !m->rd->r->v10 ? RC_OK :
                err_set(RC_DATA, "%s does not go with --compat 0.10", key);
        }
    return err_set(RC_DATA, "%s is not true, false, residual or all", key);
}

static int
read_lambda(struct modifier *m, const char *key, const json_t *v)
{
    return read_number(key, v, &m->lambda);
}

static int
read_actorder(struct modifier *m, const char *key, const json_t *v)
{
    struct qargs a;

    m->ordered = true;
    m->actorder = ACTORDER_NONE;
    if (json_is_null(v) || json_is_false(v))
        return RC_OK;
    scheme_args_init(&a);
    if (!json_is_string(v) || scheme_set(&a, key, json_string_value(v)) != RC_OK)
        return err_set(RC_DATA, "%s is not static, weight or null", key);
    m->actorder = a.actorder;
    return m->rd->r->v10 || !scheme_actorder_same(a.actorder, ACTORDER_GROUP) ? RC_OK
        : err_set(RC_DATA, "%s %s is not supported but with --compat 0.10; there are static, "
        "weight, null", key, json_string_value(v));
}

static int
read_group(struct modifier *m, const char *key, const json_t *v)
{
    if (!json_is_string(v))
        return err_set(RC_DATA, "%s is not a string", key);
    m->group = json_string_value(v);
    return RC_OK;
}

/* What says when, or how much memory is used: of no effect here. */
static int
read_nothing(struct modifier *m, const char *key, const json_t *v)
{
    (void)m;
    return json_is_number(v) || json_is_boolean(v) ||
        (strcmp(key, "batched_quantization") == 0 && json_is_string(v) &&
        strcmp(json_string_value(v), "auto") == 0) ? RC_OK
        : err_set(RC_DATA, "%s: unknown value", key);
}

/* llmc-shard's --sequential says what goes in one step. */
static int
read_sequential(struct modifier *m, const char *key, const json_t *v)
{
    json_t *list;
    int rc = recipe_list(v, key, &list);

    (void)m;
    json_decref(list);
    return rc;
}

/* A null is as if it were not there, but for actorder. */
static const struct arg {
    const char *key;
    bool        gptq; /* of GPTQModifier alone */
    int       (*read)(struct modifier *m, const char *key, const json_t *v);
} args[] = {
    { "targets", false, read_targets },
    { "ignore", false, read_ignore },
    { "scheme", false, read_scheme },
    { "config_groups", false, read_groups },
    { "kv_cache_scheme", false, read_cache },
    { "weight_observer", false, read_observer },
    { "input_observer", false, read_observer },
    { "output_observer", false, read_observer },
    { "observer", false, read_observers },
    { "bypass_divisibility_checks", false, read_bypass },
    { "block_size", true, read_block },
    { "dampening_frac", true, read_damp },
    { "actorder", true, read_actorder },
    { "correct", true, read_correct }, /* these two are ours */
    { "correct_lambda", true, read_lambda },
    { "group", false, read_group },
    { "index", false, read_nothing },
    { "start", false, read_nothing },
    { "end", false, read_nothing },
    { "update", false, read_nothing },
    { "requires_calibration_data", false, read_nothing },
    { "offload_hessians", true, read_nothing },
    { "batched_quantization", true, read_nothing },
    { "sequential_targets", true, read_sequential },
};

static int
read_args(struct modifier *m, const json_t *given)
{
    const size_t count = sizeof(args) / sizeof(args[0]);
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)given, key, v)
    {
        size_t i = 0;

        recipe_at(m->rd, given, key);
        while (i < count && (strcmp(key, args[i].key) != 0 || (args[i].gptq && !m->gptq)))
            i++;
        if (i == count)
            return err_set(RC_DATA, "unknown argument %s", key);
        if (!json_is_null(v) || args[i].read == read_actorder)
            TRY(args[i].read(m, key, v));
    }
    if (m->lambda >= 0 && m->correct == CORRECT_NONE)
        return err_set(RC_DATA, "correct_lambda without correct: true");
    if (m->correct != CORRECT_NONE && m->lambda < 0)
        m->lambda = RECIPE_LAMBDA;
    if (m->targets == NULL && (m->targets = json_pack("[s]", "Linear")) == NULL)
        return err_set(RC_OS, "out of memory");
    if (m->ignore == NULL && (m->ignore = json_array()) == NULL)
        return err_set(RC_OS, "out of memory");
    return RC_OK;
}

/* --- groups --- */

/* Modifier unset: the scheme's own, or static; scheme unset or the same: the modifier's; else they
 * contradict. In 0.10 the modifier's reaches strategy group alone. */
static int
resolve_actorder(const struct modifier *m, struct recipe_group *g)
{
    enum actorder *a = &g->scheme.weights.actorder;
    bool unset = scheme_actorder_same(*a, ACTORDER_NONE);

    if (unset)
        *a = ACTORDER_NONE;
    if (!m->gptq)
        return RC_OK;
    if (g->scheme.v10 && g->scheme.weights.strategy == ARGS_BLOCK)
        return err_set(RC_DATA, "%s: LLM Compressor 0.10 has no GPTQ of blocks", g->name);
    if (!g->scheme.v10 || g->scheme.weights.strategy == ARGS_GROUP) {
        if (m->ordered && !unset && !scheme_actorder_same(*a, m->actorder))
            return err_set(RC_DATA, "%s: actorder of the modifier and of its scheme differ",
                g->name);
        if (m->ordered || unset)
            *a = m->ordered ? m->actorder : ACTORDER_STATIC;
    }
    g->actorder = scheme_ordered(&g->scheme);
    return scheme_finish(&g->scheme);
}

static int
finish_group(const struct modifier *m, struct recipe_group *g)
{
    g->gptq = m->gptq;
    g->dampening_frac = m->damp;
    g->block_size = (int)m->block;
    g->correct = m->correct;
    g->correct_lambda = m->correct != CORRECT_NONE ? m->lambda : 0;
    if (m->observers[0] != NULL)
        TRY(scheme_set(&g->scheme.weights, "observer", m->observers[0]));
    if (m->observers[1] != NULL && g->scheme.has_input)
        TRY(scheme_set(&g->scheme.input, "observer", m->observers[1]));
    TRY(scheme_finish(&g->scheme));
    return resolve_actorder(m, g);
}

static int
preset_group(struct modifier *m, int index, const char *preset, const json_t *targets)
{
    struct recipe_group *g;
    char name[32];

    (void)snprintf(name, sizeof(name), "group_%d", index);
    TRY(recipe_add_group(m->rd->r, name, targets, &g));
    TRY(scheme_find(&g->scheme, preset, m->rd->r->v10));
    return g->scheme.has_weights ? finish_group(m, g) : RC_OK;
}

static int
make_presets(struct modifier *m)
{
    const char *preset;
    json_t *targets, *list;
    int index = 0, rc;

    if (json_is_string(m->scheme))
        return preset_group(m, 0, json_string_value(m->scheme), m->targets);
    if ((m->saved = json_object()) == NULL)
        return err_set(RC_OS, "out of memory");
    json_object_foreach((json_t *)(uintptr_t)m->scheme, preset, targets)
    {
        recipe_at(m->rd, m->scheme, preset);
        if ((rc = recipe_list(targets, preset, &list)) == RC_OK)
            rc = preset_group(m, index++, preset, list);
        (void)json_object_set_new(m->saved, preset, list);
        TRY(rc);
    }
    return RC_OK;
}

static int
make_groups(struct modifier *m)
{
    struct recipe_group *g;
    const char *name;
    json_t *v, *one;

    if ((m->saved = json_object()) == NULL)
        return err_set(RC_OS, "out of memory");
    json_object_foreach((json_t *)(uintptr_t)m->groups, name, v)
    {
        recipe_at(m->rd, m->groups, name);
        TRY(recipe_add_group(m->rd->r, name, json_object_get(v, "targets"), &g));
        TRY(recipe_args_scheme(m->rd, g, v));
        TRY(recipe_args_saved(g, &one));
        (void)json_object_set_new(m->saved, name, one);
        TRY(finish_group(m, g));
    }
    return RC_OK;
}

/* The group's own order stays: the default does not reach what another modifier made. */
static int
adopt_group(const struct modifier *m, struct recipe_group *g)
{
    enum actorder own = g->scheme.weights.actorder;

    if (m->ordered && !scheme_actorder_same(m->actorder, own))
        return err_set(RC_DATA, "%s: actorder of the modifier and of its scheme differ", g->name);
    TRY(finish_group(m, g));
    g->scheme.weights.actorder = own;
    g->actorder = scheme_ordered(&g->scheme);
    return RC_OK;
}

/* GPTQModifier without a scheme: the schemes of the QuantizationModifiers before it. */
static int
adopt_groups(struct modifier *m)
{
    struct recipe *r = m->rd->r;
    bool plain = json_array_size(m->targets) == 1 && json_array_size(m->ignore) == 0 &&
        strcmp(json_string_value(json_array_get(m->targets, 0)), "Linear") == 0;

    if (m->cache != NULL && !m->gptq)
        return RC_OK;
    if (!m->gptq || r->group_count == 0)
        return err_set(RC_DATA, "neither scheme nor config_groups");
    if (!plain || m->cache != NULL || m->observers[0] != NULL || m->observers[1] != NULL)
        return err_set(RC_DATA, "without scheme and config_groups it cannot have targets, ignore, "
            "observers or kv_cache_scheme");
    for (int i = 0; i < r->group_count; i++) {
        if (r->groups[i].gptq)
            return err_set(RC_DATA, "without scheme and config_groups it can follow "
                "QuantizationModifier only");
        if (r->groups[i].scheme.has_weights)
            TRY(adopt_group(m, &r->groups[i]));
    }
    return RC_OK;
}

/* One scheme for all attentions: two modifiers may say the same. */
static int
set_cache(struct modifier *m)
{
    struct recipe *r = m->rd->r;

    if (m->cache == NULL)
        return RC_OK;
    for (int i = 0; i < r->modifier_count; i++) {
        const json_t *other = json_object_get(r->modifiers[i].args, "kv_cache_scheme");

        if (other != NULL && !json_equal(other, m->cache))
            return err_set(RC_DATA, "kv_cache_scheme differs from that of the modifier before");
    }
    r->has_cache = true;
    r->cache = m->cache_args;
    return RC_OK;
}

/* The same text in two groups of one modifier does not say which. */
static int
check_targets(const struct recipe *r, int first)
{
    json_t *groups = json_object(); /* by target */
    const char *text, *other;
    int rc = groups != NULL ? RC_OK : err_set(RC_OS, "out of memory");

    for (int g = first; g < r->group_count; g++)
        for (int i = 0; i < r->groups[g].entry_count && rc == RC_OK; i++) {
            text = r->groups[g].entries[i].match.text;
            other = json_string_value(json_object_get(groups, text));
            if (other != NULL && strcmp(other, r->groups[g].name) != 0)
                rc = err_set(RC_DATA, "target \"%s\" stands in %s and in %s", text, other,
                    r->groups[g].name);
            (void)json_object_set_new(groups, text, json_string(r->groups[g].name));
        }
    json_decref(groups);
    return rc;
}

/* --- modifiers --- */

/* In the order in which LLM Compressor saves them. actorder only if it was given: the default
 * yields to that of a scheme. */
static int
save_args(struct modifier *m)
{
    static const char *const keys[] = { "weight_observer", "input_observer", "output_observer" };
    json_t *a = m->args = json_object();

    if (m->groups != NULL)
        (void)json_object_set(a, "config_groups", m->saved);
    (void)json_object_set(a, "targets", m->targets);
    (void)json_object_set(a, "ignore", m->ignore);
    if (m->scheme != NULL)
        (void)json_object_set(a, "scheme", m->saved != NULL ? m->saved
            : (json_t *)(uintptr_t)m->scheme);
    if (m->cache != NULL)
        (void)json_object_set(a, "kv_cache_scheme", m->cache);
    for (int i = 0; i < 3 && m->observer == NULL; i++)
        if (m->observers[i] != NULL)
            (void)json_object_set_new(a, keys[i], json_string(m->observers[i]));
    if (m->observer != NULL)
        (void)json_object_set(a, "observer", m->observer);
    (void)json_object_set_new(a, "bypass_divisibility_checks", json_boolean(m->bypass));
    if (m->gptq) {
        (void)json_object_set_new(a, "block_size", json_integer(m->block));
        (void)json_object_set_new(a, "dampening_frac", json_real(m->damp));
    }
    if (m->correct != CORRECT_NONE) {
        (void)json_object_set_new(a, "correct", json_string(correct_names[m->correct]));
        (void)json_object_set_new(a, "correct_lambda", json_real(m->lambda));
    }
    if (m->ordered)
        (void)json_object_set_new(a, "actorder", m->actorder == ACTORDER_NONE ? json_null()
            : json_string(scheme_actorder_name(m->actorder)));
    return a != NULL ? RC_OK : err_set(RC_OS, "out of memory");
}

static int
build(struct modifier *m, const json_t *given, const char *stage)
{
    struct reading *rd = m->rd;
    struct recipe *r = rd->r;
    int first = r->group_count;
    struct recipe_modifier *added;
    size_t line = rd->line;

    if (!json_is_object(given))
        return err_set(RC_DATA, "arguments are not a mapping");
    TRY(read_args(m, given));
    rd->line = line;
    if (m->single && m->observer != NULL)
        return err_set(RC_DATA, "observer excludes weight_observer, input_observer and "
            "output_observer");
    if (m->scheme != NULL && m->groups != NULL)
        return err_set(RC_DATA, "scheme and config_groups exclude each other");
    if (json_object_size(m->groups) > 0) {
        recipe_at(rd, given, "config_groups");
        TRY(make_groups(m));
    } else if (json_is_string(m->scheme) || json_object_size(m->scheme) > 0) {
        recipe_at(rd, given, "scheme");
        TRY(make_presets(m));
    } else {
        TRY(adopt_groups(m));
    }
    rd->line = line;
    TRY(check_targets(r, first));
    TRY(set_cache(m));
    if (first > 0 && first < r->group_count && m->bypass != r->bypass_divisibility)
        return err_set(RC_DATA, "bypass_divisibility_checks differs from the modifier before");
    if (first < r->group_count)
        r->bypass_divisibility = m->bypass;
    TRY(save_args(m));
    TRY(recipe_add_modifier(r, stage, m->group, m->name, &added));
    added->gptq = m->gptq;
    added->first_group = first;
    added->end_group = r->group_count;
    added->args = json_incref(m->args);
    recipe_at(rd, given, "ignore");
    return recipe_entries(m->ignore, "ignored by", &added->ignore, &added->ignore_count);
}

int
recipe_read_modifier(struct reading *rd, const char *stage, const char *group, const char *name,
    const json_t *given)
{
    struct modifier m = { .rd = rd, .name = name, .group = group, .damp = RECIPE_DAMPENING,
        .block = RECIPE_BLOCK, .lambda = -1, .gptq = strcmp(name, "GPTQModifier") == 0 };
    int rc;

    if (!m.gptq && strcmp(name, "QuantizationModifier") != 0)
        return err_set(RC_DATA, "modifier %s is not supported; "
            "llmc does GPTQModifier and QuantizationModifier", name);
    if ((rc = build(&m, given, stage)) != RC_OK)
        rc = err_at(rc, "%s", name);
    json_decref(m.targets);
    json_decref(m.ignore);
    json_decref(m.cache);
    json_decref(m.observer);
    json_decref(m.args);
    json_decref(m.saved);
    return rc;
}

/* --- stages --- */

/* Length of name without its end; 0: it has another one, or nothing before it. */
static int
stem(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);

    return n > m && n < 256 && strcmp(name + n - m, end) == 0 ? (int)(n - m) : 0;
}

static int
read_stage(struct reading *rd, const char *stage, const json_t *groups)
{
    const char *key, *name;
    json_t *group, *given;
    char text[256];

    json_object_foreach((json_t *)(uintptr_t)groups, key, group)
    {
        recipe_at(rd, groups, key);
        if (stem(key, "_modifiers") == 0 || !json_is_object(group))
            return err_set(RC_DATA, "\"%s\" is not a group of modifiers; "
                "names of groups end in _modifiers", key);
        (void)snprintf(text, sizeof(text), "%.*s", stem(key, "_modifiers"), key);
        json_object_foreach(group, name, given)
        {
            recipe_at(rd, group, name);
            TRY(recipe_read_modifier(rd, stage, text, name, given));
        }
    }
    return RC_OK;
}

/* Stages whose name starts with what is asked for, if anything is, as the library selects them. */
static int
read_stages(struct reading *rd, const json_t *root, const char *asked)
{
    json_t *stage;
    const char *key;
    char text[256];

    if (!json_is_object(root))
        return err_set(RC_DATA, "not a mapping of stages");
    json_object_foreach((json_t *)(uintptr_t)root, key, stage)
    {
        recipe_at(rd, root, key);
        if (strcmp(key, "args") == 0 && json_object_size(stage) == 0)
            continue;
        if (stem(key, "_stage") == 0 || !json_is_object(stage))
            return err_set(RC_DATA, "\"%s\" is not a stage; names of stages end in _stage", key);
        if (asked != NULL && strncmp(key, asked, strlen(asked)) != 0)
            continue;
        (void)snprintf(text, sizeof(text), "%.*s", stem(key, "_stage"), key);
        TRY(read_stage(rd, text, stage));
    }
    rd->line = 0;
    if (rd->r->modifier_count > 0)
        return RC_OK;
    return asked != NULL ? err_set(RC_DATA, "no modifier in a stage whose name starts with %s", asked)
        : err_set(RC_DATA, "no modifier");
}

static int
read_root(struct recipe **out, const json_t *root, const struct yaml_lines *lines,
    const char *subject, const struct recipe_opts *o)
{
    struct reading rd = { .r = recipe_new(subject), .lines = lines };
    int rc;

    if (rd.r == NULL)
        return RC_OS;
    rd.r->v10 = o != NULL && o->v10;
    if ((rc = read_stages(&rd, root, o != NULL ? o->stage : NULL)) != RC_OK)
        rc = rd.line > 0 ? err_at(rc, "%s: line %zu", subject, rd.line) : err_at(rc, "%s", subject);
    return recipe_done(rd.r, rc, out);
}

int
recipe_read(struct recipe **out, const char *path, const struct recipe_opts *o)
{
    struct yaml_lines lines = { 0 };
    json_t *root;
    int rc;

    *out = NULL;
    if ((rc = yaml_read_file(&root, &lines, path)) == RC_OK)
        rc = read_root(out, root, &lines, path, o);
    json_decref(root);
    yaml_lines_free(&lines);
    return rc;
}

int
recipe_read_mem(struct recipe **out, const char *text, size_t len, const char *subject,
    const struct recipe_opts *o)
{
    struct yaml_lines lines = { 0 };
    json_t *root;
    int rc;

    *out = NULL;
    if ((rc = yaml_read_mem(&root, &lines, text, len, subject)) == RC_OK)
        rc = read_root(out, root, &lines, subject, o);
    json_decref(root);
    yaml_lines_free(&lines);
    return rc;
}
