/* recipe_args - schemes as mappings: read, and written with defaults filled in */
#include "recipe_read.h"

#include "mem.h"
#include "observer.h"

#include <stdio.h>
#include <string.h>

/* Value of a field as the text that scheme_set() understands. */
static int
field_text(const json_t *v, const char *key, char *out, size_t size)
{
    char *s = json_is_string(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY);
    int n;

    if (!json_is_string(v) && s == NULL)
        return err_set(RC_OS, "out of memory");
    n = snprintf(out, size, "%s", s != NULL ? s : json_string_value(v));
    mem_free(s);
    return n >= 0 && (size_t)n < size ? RC_OK : err_set(RC_DATA, "%s: unknown value", key);
}

/* Follows from the type, so that there is nothing to set. */
static int
check_zero_type(const struct qargs *a, const char *text)
{
    const char *name = strncmp(text, "torch.", 6) == 0 ? text + 6 : text;

    if (strcmp(name, "null") == 0 ||
        strcmp(name, a->type == QTYPE_INT ? "int8" : "float8_e4m3fn") == 0)
        return RC_OK;
    return err_set(RC_DATA, "zp_dtype: %s does not go with type %s", text,
        a->type == QTYPE_INT ? "int" : "float");
}

static int
set_field(struct qargs *a, json_t **kwargs, const char *key, json_t *v, bool v10)
{
    const char *observer = "null";
    char text[64];

    if (strcmp(key, "observer_kwargs") == 0) {
        if (!json_is_null(v) && !json_is_object(v))
            return err_set(RC_DATA, "observer_kwargs is not a mapping");
        if (json_object_size(v) > 0)
            *kwargs = json_incref(v);
        return RC_OK;
    }
    if (strcmp(key, "observer") == 0) {
        if (json_is_string(v))
            TRY(observer_find(json_string_value(v), &observer));
        else if (!json_is_null(v))
            return err_set(RC_DATA, "observer is not a string");
        return scheme_set(a, key, observer);
    }
    if (strcmp(key, "zp_dtype") == 0)
        return RC_OK; /* when the type is known */
    if (strcmp(key, "actorder") == 0 && json_is_false(v))
        v = json_null();
    if (strcmp(key, "actorder") == 0 && json_is_true(v) && v10)
        return scheme_set(a, key, "group");
    TRY(field_text(v, key, text, sizeof(text)));
    return scheme_set(a, key, text);
}

static int
read_fields(struct reading *rd, struct qargs *a, json_t **kwargs, const json_t *mapping,
    const char *where)
{
    const json_t *zero = json_object_get(mapping, "zp_dtype");
    const char *key;
    char text[64];
    json_t *v;

    if (!json_is_object(mapping))
        return err_set(RC_DATA, "%s is not a mapping", where);
    scheme_args_init(a);
    json_object_foreach((json_t *)(uintptr_t)mapping, key, v)
    {
        recipe_at(rd, mapping, key);
        if (set_field(a, kwargs, key, v, rd->r != NULL && rd->r->v10) != RC_OK)
            return err_at(RC_DATA, "%s", where);
    }
    if (a->actorder == ACTORDER_NONE)
        a->actorder = ACTORDER_UNSET; /* the library makes no difference */
    if (zero == NULL)
        return RC_OK;
    recipe_at(rd, mapping, "zp_dtype");
    TRY(field_text(zero, "zp_dtype", text, sizeof(text)));
    return check_zero_type(a, text) == RC_OK ? RC_OK : err_at(RC_DATA, "%s", where);
}

/* Of presets but for observer and actorder: the first is its name. */
static int
name_scheme(struct scheme *s)
{
    json_t *none = json_array(), *a = NULL, *b = NULL;
    const char *name;
    struct scheme t;
    int rc = scheme_json(s, none, &a);

    for (int i = 0; rc == RC_OK && s->name[0] == '\0' && (name = scheme_preset(i)) != NULL; i++) {
        if (scheme_find(&t, name, s->v10) != RC_OK || !t.has_weights)
            continue;
        t.weights.actorder = s->weights.actorder;
        memcpy(t.weights.observer, s->weights.observer, sizeof(t.weights.observer));
        memcpy(t.input.observer, s->input.observer, sizeof(t.input.observer));
        if ((rc = scheme_json(&t, none, &b)) == RC_OK && json_equal(a, b))
            memcpy(s->name, t.name, sizeof(s->name));
        json_decref(b);
        b = NULL;
    }
    json_decref(a);
    json_decref(none);
    return rc;
}

static int
read_scheme(struct reading *rd, struct recipe_group *g, const json_t *mapping)
{
    static const char *const keys[] = { "targets", "weights", "input_activations",
        "output_activations", "format" };
    const json_t *format = json_object_get(mapping, "format");
    const json_t *in = json_object_get(mapping, "input_activations");
    struct scheme *s = &g->scheme;
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)mapping, key, v)
    {
        size_t i = 0;

        recipe_at(rd, mapping, key);
        while (i < sizeof(keys) / sizeof(keys[0]) && strcmp(key, keys[i]) != 0)
            i++;
        if (i == sizeof(keys) / sizeof(keys[0]))
            return err_set(RC_DATA, "unknown key %s", key);
        if (strcmp(key, "output_activations") == 0 && !json_is_null(v))
            return err_set(RC_DATA, "output_activations are not supported");
    }
    v = json_object_get(mapping, "weights");
    if (v == NULL || json_is_null(v))
        return err_set(RC_DATA, "no weights");
    scheme_init(s);
    s->v10 = rd->r->v10;
    TRY(read_fields(rd, &s->weights, &g->weight_kwargs, v, "weights"));
    s->has_input = in != NULL && !json_is_null(in);
    if (s->has_input)
        TRY(read_fields(rd, &s->input, &g->input_kwargs, in, "input_activations"));
    if (format != NULL && !json_is_null(format)) {
        recipe_at(rd, mapping, "format");
        if (!json_is_string(format))
            return err_set(RC_DATA, "format is not a string");
        TRY(scheme_set_format(s, json_string_value(format)));
    }
    TRY(scheme_finish(s));
    return name_scheme(s);
}

int
recipe_args_scheme(struct reading *rd, struct recipe_group *g, const json_t *mapping)
{
    int rc = json_is_object(mapping) ? read_scheme(rd, g, mapping)
        : err_set(RC_DATA, "not a mapping");

    return rc == RC_OK ? RC_OK : err_at(rc, "%s", g->name);
}

/* QuantizationArgs in the library's order. */
static json_t *
saved_args(const json_t *all, json_t *kwargs)
{
    static const char *const order[] = { "num_bits", "type", "symmetric", "group_size", "strategy",
        "block_structure", "dynamic", "actorder", "scale_dtype", "zp_dtype", "observer" };
    json_t *args;

    if (!json_is_object(all))
        return json_null();
    if ((args = json_object()) == NULL)
        return NULL;
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        (void)json_object_set(args, order[i], json_object_get(all, order[i]));
    (void)json_object_set_new(args, "observer_kwargs",
        kwargs != NULL ? json_incref(kwargs) : json_object());
    return args;
}

int
recipe_args_saved(const struct recipe_group *g, json_t **out)
{
    json_t *all;

    *out = NULL;
    TRY(scheme_json(&g->scheme, g->targets, &all));
    *out = json_pack("{s:O, s:o, s:o, s:n, s:O}", "targets", g->targets,
        "weights", saved_args(json_object_get(all, "weights"), g->weight_kwargs),
        "input_activations", saved_args(json_object_get(all, "input_activations"),
        g->input_kwargs), "output_activations", "format", json_object_get(all, "format"));
    json_decref(all);
    return *out != NULL ? RC_OK : err_set(RC_OS, "out of memory");
}

/* What runtimes read: k_scale and v_scale, one each or one a head. */
static int
check_cache(const struct qargs *a)
{
    if (a->type != QTYPE_FLOAT || a->bits != 8 || a->dynamic != DYNAMIC_NO || a->scale_dtype != DT_NONE ||
        (a->strategy != ARGS_TENSOR && a->strategy != ARGS_ATTN_HEAD))
        return err_set(RC_DATA, "not supported but for 8-bit floats, not dynamic, strategy tensor or attn_head");
    return recipe_minmax(a->observer) ? RC_OK : err_set(RC_DATA, "observer \"%s\" is not supported; there is "
        "static_minmax, and minmax and memoryless_minmax, which are done alike", a->observer);
}

int
recipe_args_cache(struct reading *rd, const json_t *mapping, struct qargs *args, json_t **saved)
{
    struct recipe_group g = { .targets = json_array() };
    json_t *all = NULL;
    int rc;

    *saved = NULL;
    scheme_init(&g.scheme);
    g.scheme.has_input = true;
    rc = read_fields(rd, &g.scheme.input, &g.input_kwargs, mapping, "kv_cache_scheme");
    if (rc == RC_OK && (scheme_finish(&g.scheme) != RC_OK || check_cache(&g.scheme.input) != RC_OK))
        rc = err_at(RC_DATA, "kv_cache_scheme");
    if (rc == RC_OK && g.input_kwargs != NULL)
        rc = err_set(RC_DATA, "kv_cache_scheme: observer_kwargs are not supported");
    if (rc == RC_OK && (rc = recipe_args_saved(&g, &all)) == RC_OK)
        *saved = json_incref(json_object_get(all, "input_activations"));
    *args = g.scheme.input;
    json_decref(all);
    json_decref(g.input_kwargs);
    json_decref(g.targets);
    return rc;
}
