/* inventory - which tensors of a checkpoint the forward pass uses */
#include "inventory.h"

#include "mem.h"
#include "msg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Names that a layer's tensors may have, sorted. */
struct names {
    int    layer; /* -1: none yet */
    char (*v)[ARCH_NAME_MAX + 32];
    size_t count;
};

/* Left by old versions of frameworks in decoder layers; they hold what config.json says anyway. */
static const char *const buffers[] = { "self_attn.rotary_emb.inv_freq" };

static int
compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void
add_name(struct names *n, const char *module, const char *suffix)
{
    (void)snprintf(n->v[n->count++], sizeof(n->v[0]), "%s.%s", module, suffix);
}

static int
names_of(struct names *n, const struct arch *a, int layer)
{
    int linears = arch_linear_count(a, layer), width;
    char module[ARCH_NAME_MAX];
    struct linear l;

    if (n->layer == layer)
        return RC_OK;
    mem_free(n->v);
    n->count = 0;
    n->layer = layer;
    if ((n->v = mem_alloc(3 * (size_t)linears + NORM_ID_COUNT, sizeof(*n->v))) == NULL)
        return RC_OS;
    for (int i = 0; i < linears; i++) {
        arch_linear(a, layer, i, &l);
        arch_module(a, layer, &l, module);
        add_name(n, module, "weight");
        add_name(n, module, "weight_scale_inv");
        if (l.bias)
            add_name(n, module, "bias");
    }
    for (int i = 0; i < NORM_ID_COUNT; i++)
        if (arch_norm(a, layer, (enum norm_id)i, module, &width))
            add_name(n, module, "weight");
    qsort(n->v, n->count, sizeof(*n->v), compare);
    return RC_OK;
}

/* Layer that the tensor lies in, *rest what follows its number; -1: none of the decoder's. */
static int
layer_of(const struct arch *a, const char *tensor, const char **rest)
{
    size_t prefix = strlen(a->prefix);
    char *end;
    long l;

    if (strncmp(tensor, a->prefix, prefix) != 0 || strncmp(tensor + prefix, "layers.", 7) != 0)
        return -1;
    l = strtol(tensor + prefix + 7, &end, 10);
    *rest = end + 1;
    return end > tensor + prefix + 7 && *end == '.' && l >= 0 && l < a->layers ? (int)l : -1;
}

static bool
outside_layers(const struct arch *a, const char *tensor)
{
    char name[3][ARCH_NAME_MAX + 16];

    arch_embed(a, name[0]);
    arch_final_norm(a, name[1]);
    arch_head(a, name[2]);
    for (int i = 0; i < 3; i++)
        if (strncmp(tensor, name[i], strlen(name[i])) == 0 && strcmp(tensor + strlen(name[i]), ".weight") == 0)
            return true;
    return false;
}

static bool
is_buffer(const char *rest)
{
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++)
        if (strcmp(rest, buffers[i]) == 0)
            return true;
    return false;
}

static int
take_one(struct inventory *v, struct names *n, const struct arch *a, const struct tensor *t)
{
    const char *rest;
    int layer = layer_of(a, t->name, &rest);

    if (layer >= 0 && !is_buffer(rest)) {
        TRY(names_of(n, a, layer));
        return bsearch(t->name, n->v, n->count, sizeof(*n->v), compare) != NULL ? RC_OK : err_set(RC_DATA,
            "%s: is a tensor that the model's family does not have here", t->name);
    }
    if (layer >= 0 || !outside_layers(a, t->name))
        v->carried[v->count++] = t;
    return RC_OK;
}

int
inventory_take(struct inventory *v, const struct arch *a, const struct model *m)
{
    struct names n = { .layer = -1 };
    int rc = RC_OK;

    *v = (struct inventory){ 0 };
    if ((v->carried = mem_alloc(m->count + 1, sizeof(*v->carried))) == NULL)
        return RC_OS;
    for (size_t i = 0; i < m->count && rc == RC_OK; i++)
        rc = take_one(v, &n, a, m->tensors[i].t);
    mem_free(n.v);
    if (rc != RC_OK)
        inventory_free(v);
    return rc;
}

void
inventory_free(struct inventory *v)
{
    mem_free(v->carried);
    *v = (struct inventory){ 0 };
}

void
inventory_part(const struct arch *a, const char *tensor, char out[ARCH_NAME_MAX])
{
    size_t prefix = strlen(a->prefix), n;

    if (strncmp(tensor, a->prefix, prefix) == 0)
        tensor += prefix;
    if (strncmp(tensor, "model.", 6) == 0)
        tensor += 6;
    n = strcspn(tensor, ".");
    if (strncmp(tensor, "layers.", 7) == 0)
        n = 7 + strcspn(tensor + 7, ".");
    (void)snprintf(out, ARCH_NAME_MAX, "%.*s", (int)n, tensor);
}
