/* check_tensors - names, types and shapes of the tensors of every module */
#include "check_parts.h"

#include "arch.h"

#include <stdio.h>
#include <string.h>

/* What a tensor must be. type DT_NONE: the model's, which may be unknown; a dimension of -1: any. */
struct want {
    enum dtype type, other; /* other: as good, DT_NONE: none */
    int        ndim;
    int64_t    shape[2];
};

/* The tensors of a compressed module. */
struct needs {
    struct want want[PART_COUNT];
    bool        needed[PART_COUNT];
};

static bool
is_real(enum dtype t)
{
    return t == DT_BF16 || t == DT_F16 || t == DT_F32;
}

static bool
good_type(const struct check *c, const struct tensor *t, const struct want *w)
{
    if (w->type != DT_NONE)
        return t->dtype == w->type || (w->other != DT_NONE && t->dtype == w->other);
    return c->t != DT_NONE ? t->dtype == c->t : is_real(t->dtype);
}

static bool
hold(struct check *c, const struct tensor *t, const struct want *w)
{
    struct tensor wanted = { .ndim = w->ndim };
    char is[256], want[256];
    enum dtype type = w->type != DT_NONE ? w->type : c->t;
    bool same = t->ndim == w->ndim;

    for (int i = 0; i < w->ndim; i++) {
        wanted.shape[i] = w->shape[i];
        same = same && (w->shape[i] < 0 || t->shape[i] == w->shape[i]);
    }
    if (!good_type(c, t, w))
        check_finding(c, CHECK_DTYPE, t->name, "is %s, want %s", dtype_name(t->dtype), type != DT_NONE
            ? dtype_name(type) : "BF16, F16 or F32");
    if (!same)
        check_finding(c, CHECK_SHAPE, t->name, "is %s, want %s", tensor_shape_text(t, is, sizeof(is)),
            tensor_shape_text(&wanted, want, sizeof(want)));
    return same && good_type(c, t, w);
}

static void
need(struct needs *n, enum part p, enum dtype type, int ndim, int64_t rows, int64_t cols)
{
    n->needed[p] = true;
    n->want[p] = (struct want){ .type = type, .ndim = ndim, .shape = { rows, cols } };
}

/* --- shape of the weight --- */

/* rows and cols of a weight in words come from weight_shape, which the words must agree with. */
static bool
words_shape(struct check *c, struct check_module *m, int bits)
{
    const struct tensor *p = m->part[PART_PACKED], *s = m->part[PART_SHAPE];
    const struct want want = { .type = DT_I64, .other = DT_I32, .ndim = 1, .shape = { 2 } };
    int64_t dims[2], words, old;
    int32_t narrow[2];

    if (s == NULL || !hold(c, s, &want) || p->ndim != 2)
        return false;
    if (s->dtype == DT_I64) {
        memcpy(dims, s->data, sizeof(dims));
    } else {
        memcpy(narrow, s->data, sizeof(narrow));
        dims[0] = narrow[0];
        dims[1] = narrow[1];
    }
    if (dims[0] < 1 || dims[1] < 1 || dims[0] > INT32_MAX || dims[1] > INT32_MAX / 32) {
        check_finding(c, CHECK_SHAPE, s->name, "says {%lld, %lld}", (long long)dims[0], (long long)dims[1]);
        return false;
    }
    words = (int64_t)pack_row_bytes(PACK_WORDS, bits, (int)dims[1]) / 4;
    old = (dims[1] + 32 / bits - 1) / (32 / bits);
    if (dims[0] != p->shape[0] || words != p->shape[1]) {
        check_finding(c, CHECK_SHAPE, s->name, "says {%lld, %lld}, the codes have %lld rows of %lld words, want %lld%s",
            (long long)dims[0], (long long)dims[1], (long long)p->shape[0], (long long)p->shape[1], (long long)words,
            old == p->shape[1] ? " (whole elements a word, as compressed-tensors before 0.18 packed them)" : "");
        return false;
    }
    m->rows = dims[0];
    m->cols = dims[1];
    return true;
}

static bool
weight_shape(struct check *c, struct check_module *m, const struct scheme *s)
{
    enum pack layout = s->format == QFORMAT_DENSE ? PACK_BYTES : scheme_pack(s);
    const struct tensor *t = m->part[layout == PACK_BYTES ? PART_WEIGHT : PART_PACKED];

    if (t == NULL)
        return false;
    if (layout == PACK_WORDS)
        return words_shape(c, m, s->weights.bits);
    if (t->ndim != 2)
        return false; /* hold() says so */
    m->rows = t->shape[0];
    m->cols = t->shape[1] * (layout == PACK_NIBBLES ? 2 : 1);
    return m->rows > 0 && m->cols > 0 && m->rows <= INT32_MAX && m->cols <= INT32_MAX / 32;
}

/* --- what a scheme asks for --- */

static void
need_codes(struct needs *n, const struct scheme *s)
{
    switch (s->format == QFORMAT_DENSE ? PACK_BYTES : scheme_pack(s)) {
    case PACK_WORDS:
        need(n, PART_PACKED, DT_I32, 2, -1, -1);
        need(n, PART_SHAPE, DT_I64, 1, 2, 0);
        n->want[PART_SHAPE].other = DT_I32;
        break;
    case PACK_NIBBLES:
        need(n, PART_PACKED, DT_U8, 2, -1, -1);
        break;
    default:
        need(n, PART_WEIGHT, s->format == QFORMAT_DENSE ? DT_NONE : s->weights.type == QTYPE_INT ? DT_I8 : DT_F8_E4M3,
            2, -1, -1);
    }
}

/* known: rows and cols of the module are. */
static void
need_scales(struct needs *n, const struct scheme *s, const struct check_module *m, bool known)
{
    struct qspec q;
    int64_t rows, cols;

    scheme_qspec(s, DT_BF16, false, &q);
    rows = known ? q_scale_rows(&q, (int)m->rows) : -1;
    cols = known ? q_scale_cols(&q, (int)m->cols) : -1;
    if (q.strategy == STRATEGY_TENSOR)
        need(n, PART_SCALE, DT_NONE, 1, 1, 0);
    else
        need(n, PART_SCALE, DT_NONE, 2, rows, cols);
    if (s->weights.scale_dtype != DT_NONE && s->format != QFORMAT_DENSE)
        n->want[PART_SCALE].type = s->weights.scale_dtype;
    if (scheme_global(s))
        need(n, PART_GLOBAL, DT_F32, 1, 1, 0);
    if (s->weights.symmetric)
        return;
    need(n, PART_ZERO, DT_I8, n->want[PART_SCALE].ndim, n->want[PART_SCALE].shape[0], n->want[PART_SCALE].shape[1]);
    if (scheme_zeros_packed(s))
        need(n, PART_ZERO, DT_I32, 2, known ? (int64_t)pack_zero_words(q.bits, (int)rows) : -1, cols);
}

static void
need_inputs(struct needs *n, const struct scheme *s)
{
    if (!scheme_input_static(s))
        return;
    if (s->input.strategy == ARGS_TENSOR_GROUP) {
        need(n, PART_IN_GLOBAL, DT_F32, 1, 1, 0);
    } else {
        need(n, PART_IN_SCALE, DT_NONE, 1, 1, 0);
        if (!s->input.symmetric)
            need(n, PART_IN_ZERO, DT_I8, 1, 1, 0);
    }
}

/* Not a matter of the weight's scheme. */
static bool
always_fine(enum part p)
{
    return p == PART_BIAS || p == PART_OUT_SCALE || p == PART_OUT_ZERO || p >= PART_K_SCALE;
}

static void
check_compressed(struct check *c, struct check_module *m)
{
    const struct scheme *s = &c->recipe->groups[m->group].scheme;
    struct needs n = { 0 };
    bool known, any = false;

    for (int p = PART_PACKED; p <= PART_IN_GLOBAL; p++)
        any |= m->part[p] != NULL;
    if (!any && m->part[PART_WEIGHT] != NULL && is_real(m->part[PART_WEIGHT]->dtype)) {
        check_finding(c, CHECK_MISSING, m->name, "%s compresses it, but it has a dense weight of %s",
            c->groups[m->group].name, dtype_name(m->part[PART_WEIGHT]->dtype));
        return;
    }
    known = weight_shape(c, m, s);
    if (!known)
        m->rows = m->cols = 0;
    need_codes(&n, s);
    need_scales(&n, s, m, known);
    need_inputs(&n, s);
    if (known && !scheme_input_fits(s, m->cols))
        check_finding(c, CHECK_SHAPE, m->name, "inputs of %lld columns are not whole groups of %d", (long long)m->cols,
            s->input.group);
    if (c->groups[m->group].by_index && s->weights.strategy == ARGS_GROUP)
        need(&n, PART_GROUP_INDEX, DT_I32, 1, known ? m->cols : -1, 0);
    for (int p = 0; p < PART_COUNT; p++) {
        const struct tensor *t = m->part[p];

        if (t == NULL && n.needed[p] && !c->unread)
            check_finding(c, CHECK_MISSING, m->name, "no %s", check_part_name((enum part)p));
        else if (t != NULL && !n.needed[p] && !always_fine((enum part)p))
            check_finding(c, CHECK_LEFTOVER, t->name, "%s (%s) has no such tensor", c->groups[m->group].name,
                scheme_format_name(s->format));
        else if (t != NULL && n.needed[p] && p != PART_SHAPE && !hold(c, t, &n.want[p]))
            m->part[p] = NULL; /* its values are not looked at */
    }
}

/* A module that is left alone has a weight of floats and nothing else. */
static void
check_plain(struct check *c, struct check_module *m)
{
    const struct tensor *w = m->part[PART_WEIGHT];

    for (int p = PART_PACKED; p <= PART_IN_GLOBAL && !c->bad_group; p++)
        if (m->part[p] != NULL)
            check_finding(c, CHECK_LEFTOVER, m->part[p]->name, "no group compresses %s", m->name);
    if (w != NULL && !is_real(w->dtype) && !c->bad_group)
        check_finding(c, CHECK_DTYPE, w->name, "is %s, but no group compresses the module", dtype_name(w->dtype));
    if (w == NULL && m->linear && !c->bad_group && !c->unread)
        check_finding(c, CHECK_MISSING, m->name, "no weight");
    if (w != NULL && w->ndim == 2) {
        m->rows = w->shape[0];
        m->cols = w->shape[1];
    }
}

/* --- cache --- */

static const struct check_module *
child(const struct check *c, const struct check_module *m, const char *name)
{
    char full[1024];
    int n = snprintf(full, sizeof(full), "%s.%s", m->name, name);

    return n > 0 && (size_t)n < sizeof(full) ? check_module(c, full, (size_t)n) : NULL;
}

/* One a tensor, or one a head that keys and values have. */
static void
check_cache(struct check *c, struct check_module *m)
{
    struct want w = { .ndim = 1, .shape = { 1 } };

    for (int p = PART_K_SCALE; p <= PART_V_SCALE; p++) {
        const struct tensor *t = m->part[p];

        if (t == NULL && c->cache && !c->unread) {
            check_finding(c, CHECK_MISSING, m->name, "no %s, which kv_cache_scheme asks for",
                check_part_name((enum part)p));
        } else if (t != NULL && !c->cache && !c->attention) {
            check_finding(c, CHECK_LEFTOVER, t->name, "there is no kv_cache_scheme");
        } else if (t != NULL && t->ndim == 3 && t->shape[1] == 1 && t->shape[2] == 1 && good_type(c, t, &w)) {
            const json_t *heads = json_object_get(c->config, "num_key_value_heads");

            if (json_is_integer(heads) && t->shape[0] != json_integer_value(heads))
                check_finding(c, CHECK_SHAPE, t->name, "has %lld scales, want one, or one a head of %lld",
                    (long long)t->shape[0], (long long)json_integer_value(heads));
        } else if (t != NULL && !hold(c, t, &w)) {
            m->part[p] = NULL;
        }
    }
}

/* --- shapes that config.json asks for --- */

static const char asked[] = "config.json asks for it";

static void
need_module(struct check *c, const char *name, const char *why)
{
    if (check_module(c, name, strlen(name)) == NULL && !c->unread)
        check_finding(c, CHECK_MISSING, name, "%s, and none of its tensors is there", why);
}

static void
check_linear(struct check *c, const struct arch *a, int layer, int i)
{
    char name[ARCH_NAME_MAX];
    const struct check_module *m;
    struct linear l;

    arch_linear(a, layer, i, &l);
    arch_module(a, layer, &l, name);
    need_module(c, name, asked);
    if ((m = check_module(c, name, strlen(name))) == NULL)
        return;
    if (m->rows > 0 && (m->rows != l.rows || m->cols != l.cols))
        check_finding(c, CHECK_SHAPE, m->name, "weight is [%lld, %lld], config.json asks for [%d, %d]",
            (long long)m->rows, (long long)m->cols, l.rows, l.cols);
    if (l.bias && m->part[PART_BIAS] == NULL && !c->unread)
        check_finding(c, CHECK_MISSING, m->name, "no bias, which config.json asks for");
}

static bool
has_tensor(const void *check, const char *name)
{
    return check_tensor(check, name) != NULL;
}

static void (*const outside[])(const struct arch *a, char *out) = { arch_embed, arch_final_norm, arch_head };

/* Models of unknown families are held to their own tensors alone; so are those whose decoder is not found. */
static void
check_arch(struct check *c)
{
    char name[ARCH_NAME_MAX];
    struct arch a;
    int width;

    if (arch_read(&a, c->config) != RC_OK)
        return;
    if (arch_locate(&a, has_tensor, c) != RC_OK && check_module(c, "model.layers", strlen("model.layers")) == NULL)
        return;
    for (int l = 0; l < a.layers; l++) {
        for (int i = 0, n = arch_linear_count(&a, l); i < n; i++)
            check_linear(c, &a, l, i);
        for (int n = 0; n < NORM_ID_COUNT; n++)
            if (arch_norm(&a, l, (enum norm_id)n, name, &width))
                need_module(c, name, asked);
    }
    for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
        outside[i](&a, name);
        need_module(c, name, asked);
    }
}

/* --- the whole --- */

static bool
is_head(const char *name)
{
    const char *last = strrchr(name, '.');

    return strcmp(last != NULL ? last + 1 : name, "lm_head") == 0;
}

void
check_tensors(struct check *c)
{
    for (size_t i = 0; i < c->module_count; i++) {
        struct check_module *m = &c->modules[i];
        const struct tensor *b = m->part[PART_BIAS];

        if (m->group >= 0)
            check_compressed(c, m);
        else
            check_plain(c, m);
        if (b != NULL && m->rows > 0 && m->linear && (b->ndim != 1 || b->shape[0] != m->rows))
            check_finding(c, CHECK_SHAPE, b->name, "the weight has %lld rows", (long long)m->rows);
        if (child(c, m, "k_proj") != NULL || child(c, m, "qkv_proj") != NULL)
            check_cache(c, m);
        if (c->tied && is_head(m->name) && m->part[PART_WEIGHT] != NULL)
            check_finding(c, CHECK_TIED, m->part[PART_WEIGHT]->name, "tie_word_embeddings is set");
    }
    check_arch(c);
}
