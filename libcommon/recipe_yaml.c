/* recipe_yaml - recipe.yaml as LLM Compressor saves it */
#include "recipe.h"

#include "buf.h"
#include "mem.h"
#include "yaml.h"

#include <stdio.h>
#include <string.h>

static void put_block(struct buf *b, const json_t *mapping, int indent);

static bool
is_scalar(const json_t *v)
{
    return !json_is_array(v) && !json_is_object(v);
}

static void
put_scalar(struct buf *b, const json_t *v)
{
    if (json_is_string(v))
        yaml_put_str(b, json_string_value(v));
    else if (json_is_integer(v))
        buf_printf(b, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v))
        yaml_put_real(b, json_real_value(v));
    else
        buf_puts(b, json_is_null(v) ? "null" : json_is_true(v) ? "true" : "false");
}

/* In one line. Levels are those that the reader allows. */
static void
put_flow(struct buf *b, const json_t *v)
{
    const char *key, *sep = "";
    json_t *one;
    size_t i;

    if (is_scalar(v)) {
        put_scalar(b, v);
        return;
    }
    buf_puts(b, json_is_array(v) ? "[" : "{");
    json_array_foreach(v, i, one) {
        buf_puts(b, sep);
        put_flow(b, one);
        sep = ", ";
    }
    json_object_foreach((json_t *)(uintptr_t)v, key, one) {
        buf_puts(b, sep);
        yaml_put_str(b, key);
        buf_puts(b, ": ");
        put_flow(b, one);
        sep = ", ";
    }
    buf_puts(b, json_is_array(v) ? "]" : "}");
}

/* ": value" after a key: a mapping in lines of its own, lists in one. */
static void
put_value(struct buf *b, const json_t *v, int indent)
{
    if (json_object_size(v) > 0) {
        buf_puts(b, ":\n");
        put_block(b, v, indent + 2);
    } else {
        buf_puts(b, ": ");
        put_flow(b, v);
        buf_puts(b, "\n");
    }
}

static void
put_block(struct buf *b, const json_t *mapping, int indent)
{
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)mapping, key, v)
    {
        buf_printf(b, "%*s", indent, "");
        yaml_put_str(b, key);
        put_value(b, v, indent);
    }
}

/* Keys of the groups of modifiers, one for each modifier: a name fits in a group once, and a group
 * in a stage. */
struct keys {
    char *key[RECIPE_MODIFIERS_MAX];
    int   count;
};

static bool
key_taken(const struct keys *k, const char *key)
{
    for (int i = 0; i < k->count; i++)
        if (strcmp(k->key[i], key) == 0)
            return true;
    return false;
}

/* That of the modifier before, if it has the same group and no such modifier; else a new one. */
static int
add_key(struct keys *k, const struct recipe *r)
{
    const struct recipe_modifier *m = &r->modifiers[k->count];
    bool same = k->count > 0 && strcmp(m[-1].group, m->group) == 0;
    struct buf b = { 0 };

    for (int i = k->count - 1; same && i >= 0 && strcmp(k->key[i], k->key[k->count - 1]) == 0; i--)
        same = strcmp(r->modifiers[i].name, m->name) != 0;
    if (same)
        buf_puts(&b, k->key[k->count - 1]);
    else
        buf_printf(&b, "%s_modifiers", m->group);
    for (int n = 1; !same && buf_ok(&b) && key_taken(k, b.s); n++) {
        b.len = 0;
        buf_printf(&b, "%s_%d_modifiers", m->group, n);
    }
    if (!buf_ok(&b)) {
        buf_free(&b);
        return RC_OS;
    }
    k->key[k->count++] = b.s;
    return RC_OK;
}

/* Whether the default order may be written: given, it would change the spelling "weight" in groups
 * that have an order of their own. */
static bool
is_static(const struct recipe *r, const struct recipe_modifier *m)
{
    for (int g = m->first_group; g < m->end_group; g++)
        if (r->groups[g].scheme.has_weights &&
            r->groups[g].scheme.weights.actorder != ACTORDER_STATIC)
            return false;
    return m->gptq && m->first_group < m->end_group;
}

static void
put_modifier(struct buf *b, const struct recipe *r, const struct recipe_modifier *m)
{
    buf_printf(b, "    %s:\n", m->name);
    put_block(b, m->args, 6);
    if (is_static(r, m) && json_object_get(m->args, "actorder") == NULL)
        buf_puts(b, "      actorder: static\n");
}

int
recipe_yaml(const struct recipe *r, char **out)
{
    struct buf b = { 0 }, stage = { 0 };
    struct keys k = { 0 };
    int rc = RC_OK;

    *out = NULL;
    buf_printf(&stage, "%s_stage", r->modifiers[r->modifier_count - 1].stage);
    if (buf_ok(&stage))
        yaml_put_str(&b, stage.s);
    buf_puts(&b, ":\n");
    for (int i = 0; i < r->modifier_count && rc == RC_OK; i++) {
        if ((rc = add_key(&k, r)) != RC_OK)
            break;
        if (i == 0 || strcmp(k.key[i], k.key[i - 1]) != 0) {
            buf_puts(&b, "  ");
            yaml_put_str(&b, k.key[i]);
            buf_puts(&b, ":\n");
        }
        put_modifier(&b, r, &r->modifiers[i]);
    }
    while (k.count > 0)
        mem_free(k.key[--k.count]);
    if (rc == RC_OK && (!buf_ok(&b) || !buf_ok(&stage)))
        rc = RC_OS;
    buf_free(&stage);
    if (rc == RC_OK)
        *out = b.s;
    else
        buf_free(&b);
    return rc;
}
