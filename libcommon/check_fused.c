/* check_fused - modules that runtimes load as one */
#include "check_parts.h"

#include <stdio.h>
#include <string.h>

/* Last components of names under one parent; the first is what the others are held to. */
static const char *const sets[][4] = {
    { "q_proj", "k_proj", "v_proj", NULL },
    { "gate_proj", "up_proj", NULL },
    { "w1", "w3", NULL },
    { "q_a_proj", "kv_a_proj_with_mqa", NULL },
};

enum { SETS = sizeof(sets) / sizeof(sets[0]) };

static const char *
last_of(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot != NULL ? dot + 1 : name;
}

static bool
in_set(const char *const *set, const char *last)
{
    for (; *set != NULL; set++)
        if (strcmp(*set, last) == 0)
            return true;
    return false;
}

bool
check_fused_names(const char *a, const char *b)
{
    const char *x = last_of(a), *y = last_of(b);

    if (x - a != y - b || strncmp(a, b, (size_t)(x - a)) != 0)
        return false;
    for (size_t s = 0; s < SETS; s++)
        if (in_set(sets[s], x) && in_set(sets[s], y))
            return true;
    return false;
}

static bool
same_args(const struct qargs *a, const struct qargs *b)
{
    return a->bits == b->bits && a->type == b->type && a->symmetric == b->symmetric && a->strategy == b->strategy &&
        a->group == b->group && a->block[0] == b->block[0] && a->block[1] == b->block[1] && a->dynamic == b->dynamic &&
        a->scale_dtype == b->scale_dtype;
}

/* What chose scales and codes is of no account. */
bool
check_fused_schemes(const struct scheme *a, const struct scheme *b)
{
    return a->has_weights == b->has_weights && a->has_input == b->has_input && a->format == b->format &&
        (!a->has_weights || same_args(&a->weights, &b->weights)) && (!a->has_input || same_args(&a->input, &b->input));
}

static void
check_global(struct check *c, const struct check_module *a, const struct check_module *b, enum part p)
{
    const struct tensor *x = a->part[p], *y = b->part[p];
    float v, w;

    if (x == NULL || y == NULL || x->dtype != DT_F32 || y->dtype != DT_F32 || x->bytes != 4 || y->bytes != 4 ||
        memcmp(x->data, y->data, 4) == 0)
        return;
    memcpy(&v, x->data, 4);
    memcpy(&w, y->data, 4);
    check_finding(c, CHECK_SHARED_SCALE, y->name, "is %.9g, that of %s is %.9g", (double)w, a->name, (double)v);
}

/* What b has in common with a, whose scheme and shape it must have. experts: of one layer, but not side by side. */
static void
compare(struct check *c, const struct check_module *a, const struct check_module *b, bool experts)
{
    const struct recipe_group *g = c->recipe->groups;

    if ((a->group < 0) != (b->group < 0)) {
        if (!c->bad_group)
            check_finding(c, CHECK_FUSED, b->name, "is %s, %s is %s, and both are loaded as one",
                b->group < 0 ? "left alone" : "compressed", a->name, a->group < 0 ? "left alone" : "compressed");
        return;
    }
    if (a->group < 0)
        return;
    if (!check_fused_schemes(&g[a->group].scheme, &g[b->group].scheme) ||
        c->groups[a->group].by_index != c->groups[b->group].by_index)
        check_finding(c, CHECK_FUSED, b->name, "has the scheme of %s, %s that of %s, and both are loaded as one",
            c->groups[b->group].name, a->name, c->groups[a->group].name);
    if (a->cols > 0 && b->cols > 0 && (a->cols != b->cols || (experts && a->rows != b->rows)))
        check_finding(c, CHECK_FUSED, b->name, "is [%lld, %lld], %s is [%lld, %lld], and both are loaded as one",
            (long long)b->rows, (long long)b->cols, a->name, (long long)a->rows, (long long)a->cols);
    if (experts)
        return;
    check_global(c, a, b, PART_GLOBAL);
    check_global(c, a, b, PART_IN_GLOBAL);
}

/* The rest of its set, when m is the first of one. */
static void
check_set(struct check *c, const struct check_module *m)
{
    const char *last = last_of(m->name);
    char name[1024];

    for (size_t s = 0; s < SETS; s++)
        for (int i = 1; strcmp(sets[s][0], last) == 0 && sets[s][i] != NULL; i++) {
            int n = snprintf(name, sizeof(name), "%.*s%s", (int)(last - m->name), m->name, sets[s][i]);
            const struct check_module *b = n > 0 && (size_t)n < sizeof(name) ? check_module(c, name, (size_t)n) : NULL;

            if (b != NULL && b->linear)
                compare(c, m, b, false);
        }
}

/* "....experts.N.gate_proj" beside that of expert 0. */
static void
check_expert(struct check *c, const struct check_module *m)
{
    static const char experts[] = ".experts.";
    const char *at = strstr(m->name, experts), *rest;
    const struct check_module *a;
    char name[1024];
    int n;

    if (at == NULL)
        return;
    at += sizeof(experts) - 1;
    rest = at + strspn(at, "0123456789");
    if (rest == at || *rest != '.' || (rest == at + 1 && *at == '0'))
        return;
    n = snprintf(name, sizeof(name), "%.*s0%s", (int)(at - m->name), m->name, rest);
    a = n > 0 && (size_t)n < sizeof(name) ? check_module(c, name, (size_t)n) : NULL;
    if (a != NULL && a->linear)
        compare(c, a, m, true);
}

void
check_fused(struct check *c)
{
    for (size_t i = 0; c->recipe != NULL && i < c->module_count; i++)
        if (c->modules[i].linear) {
            check_set(c, &c->modules[i]);
            check_expert(c, &c->modules[i]);
        }
}
