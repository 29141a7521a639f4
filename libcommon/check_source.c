/* check_source - accounts for every tensor of the source, and for the files that consumers need */
#include "check_parts.h"

#include "file.h"
#include "mem.h"
#include "model.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct account {
    struct check  *c;
    struct model   m;
    const json_t  *dropped; /* of provenance.json: names */
    bool           opened, accountable;
};

static bool
listed(const json_t *list, const char *name)
{
    const json_t *v;
    size_t i;

    json_array_foreach(list, i, v)
        if (json_is_string(v) && strcmp(json_string_value(v), name) == 0)
            return true;
    return false;
}

static struct check_module *
module_of(const struct check *c, const char *tensor, const char **suffix)
{
    const char *dot = strrchr(tensor, '.');

    *suffix = dot != NULL ? dot + 1 : "";
    return dot != NULL ? check_module(c, tensor, (size_t)(dot - tensor)) : NULL;
}

static void
compare(struct account *a, const struct tensor *is, const struct tensor *was)
{
    char x[256], y[256];
    bool decoded = a->m.fp8_block[0] > 0 && was->dtype == DT_F8_E4M3 && is->dtype == DT_BF16;
    bool same = (is->dtype == was->dtype || decoded) && is->ndim == was->ndim;
    const struct check_tensor *ct;
    const struct model_tensor *mt;

    for (int i = 0; same && i < is->ndim; i++)
        same = is->shape[i] == was->shape[i];
    if (!same) {
        check_finding(a->c, CHECK_CHANGED, is->name, "is %s %s, the source's is %s %s", dtype_name(is->dtype),
            tensor_shape_text(is, x, sizeof(x)), dtype_name(was->dtype), tensor_shape_text(was, y, sizeof(y)));
        return;
    }
    if (a->c->o->quick || decoded)
        return;
    if (memcmp(is->data, was->data, is->bytes) != 0)
        check_finding(a->c, CHECK_CHANGED, is->name, "is not compressed, but has other bytes than the source's");
    if ((ct = check_tensor(a->c, is->name)) != NULL && ct->t == is)
        st_drop(&a->c->files[ct->file].st, is);
    if ((mt = model_find(&a->m, was->name)) != NULL)
        st_drop(&a->m.shards[mt->shard].st, was);
}

static void
account_one(struct account *a, const struct tensor *t)
{
    struct check *c = a->c;
    const struct check_tensor *found = check_tensor(c, t->name);
    const char *suffix, *last;
    const struct check_module *m = module_of(c, t->name, &suffix);
    char is[256];

    if (m != NULL && m->group >= 0 && strcmp(suffix, "weight") == 0) {
        if (m->rows > 0 && (t->ndim != 2 || t->shape[0] != m->rows || t->shape[1] != m->cols))
            check_finding(c, CHECK_CHANGED, m->name, "its compressed weight is [%lld, %lld], the source's is %s",
                (long long)m->rows, (long long)m->cols, tensor_shape_text(t, is, sizeof(is)));
        return;
    }
    if (found != NULL) {
        compare(a, found->t, t);
        return;
    }
    last = strrchr(t->name, '.') != NULL ? strstr(t->name, "lm_head.weight") : NULL;
    if (listed(a->dropped, t->name) || (c->tied && last != NULL && strcmp(last, "lm_head.weight") == 0) || c->unread ||
        (c->bad_group && m != NULL))
        return;
    check_finding(c, CHECK_DROPPED, t->name,
        "is in the source, but neither compressed nor copied nor listed as dropped");
}

static bool
of_compressed(const struct account *a, const struct check_module *m, const struct tensor *t)
{
    char weight[1024];
    int n;

    for (int p = PART_K_SCALE; p <= PART_Q_SCALE; p++)
        if (m->part[p] == t)
            return true; /* whether a cache is asked for is another rule's */
    n = snprintf(weight, sizeof(weight), "%s.weight", m->name);
    return n > 0 && (size_t)n < sizeof(weight) && model_find(&a->m, weight) != NULL;
}

/* What is there beside the tensors of the source: only what compressed ones are made of. */
static void
check_extra(struct account *a)
{
    for (size_t i = 0; i < a->c->count; i++) {
        const struct tensor *t = a->c->tensors[i].t;
        const char *suffix;
        const struct check_module *m = module_of(a->c, t->name, &suffix);

        if (model_find(&a->m, t->name) != NULL || (m != NULL && of_compressed(a, m, t)))
            continue;
        check_finding(a->c, CHECK_EXTRA, t->name, "the source has no such tensor");
    }
}

/* --- side files --- */

static void
check_side(struct check *c, const struct model *source)
{
    static const char *const files[] = { "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
        "generation_config.json", "preprocessor_config.json", "chat_template.jinja" };
    static const char *const tokenizers[] = { "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt",
        "spiece.model", "tekken.json" };
    bool any = false;

    for (size_t i = 0; i < sizeof(tokenizers) / sizeof(tokenizers[0]); i++)
        any |= check_has_name(c, tokenizers[i]);
    if (source == NULL) {
        if (!any)
            check_finding(c, CHECK_SIDE_FILE, "tokenizer.json", "there is no tokenizer");
        return;
    }
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        for (size_t k = 0; k < source->side_count; k++)
            if (strcmp(source->side[k], files[i]) == 0 && !check_has_name(c, files[i]) &&
                !(strcmp(files[i], "tokenizer.model") == 0 && any))
                check_finding(c, CHECK_SIDE_FILE, files[i], "the source has it");
}

/* --- which source --- */

static int
read_provenance(const struct check *c, json_t **out)
{
    char *path;
    int rc;

    *out = NULL;
    if (!check_has_name(c, "provenance.json"))
        return RC_OK;
    if ((path = file_join(c->dir, "provenance.json")) == NULL)
        return RC_OS;
    rc = jread_file(out, path);
    mem_free(path);
    return rc;
}

/* The default is only opened if it can be: it may have gone or changed since. */
static int
open_source(struct account *a, const json_t *provenance)
{
    const struct check *c = a->c;
    const char *given = c->o->against, *dir = given != NULL ? given
        : json_string_value(json_object_get(provenance, "model"));
    int rc;

    if (given != NULL && given[0] == '\0')
        return RC_OK;
    if (given == NULL && (dir == NULL || access(dir, F_OK) != 0)) {
        msg_info(c->dir, "what it was made from is not %s; its tensors are not accounted for", dir == NULL ? "known"
            : "here");
        return RC_OK;
    }
    rc = c->o->quick ? model_open_header(&a->m, dir) : model_open(&a->m, dir);
    if (rc != RC_OK && given == NULL) {
        msg_info(c->dir, "its tensors are not accounted for: %s", err_text());
        return RC_OK;
    }
    a->opened = rc == RC_OK;
    a->accountable = a->opened && (a->m.quant_method == NULL || a->m.fp8_block[0] != 0);
    if (a->opened && !a->accountable)
        msg_info(c->dir, "%s is compressed itself; tensors are not accounted for", dir);
    return rc;
}

int
check_source(struct check *c)
{
    struct account a = { .c = c };
    json_t *provenance = NULL;
    int rc = read_provenance(c, &provenance);

    if (rc == RC_DATA) {
        check_finding(c, CHECK_SIDE_FILE, "provenance.json", "%s", err_text());
        rc = RC_OK;
    }
    if (rc == RC_OK)
        rc = open_source(&a, provenance);
    a.dropped = json_object_get(provenance, "dropped");
    for (size_t i = 0; a.accountable && i < a.m.count; i++)
        account_one(&a, a.m.tensors[i].t);
    if (a.accountable)
        check_extra(&a);
    if (rc == RC_OK)
        check_side(c, a.opened ? &a.m : NULL);
    model_close(&a.m);
    json_decref(provenance);
    return rc;
}
