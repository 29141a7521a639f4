/* check_values - scales, zero points, codes and what is copied, value by value
 *
 * One tensor after the other; each is let go again. A finding tells how many values of a tensor are wrong, and the
 * first.
 */
#include "check_parts.h"

#include "mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PIECE = 4096 };

/* Values of one tensor that break one rule. */
struct wrong {
    size_t count, first;
    double value;
};

static void
note(struct wrong *w, size_t at, double value)
{
    if (w->count++ == 0) {
        w->first = at;
        w->value = value;
    }
}

static void
report(struct check *c, enum check_rule rule, const struct tensor *t, const struct wrong *w, size_t of,
    const char *what)
{
    char at[64] = "";
    size_t cols = t->ndim > 1 && t->shape[t->ndim - 1] > 0 ? (size_t)t->shape[t->ndim - 1] : 0;

    if (w->count == 0)
        return;
    if (cols > 0 && of == t->bytes / dtype_size(t->dtype))
        (void)snprintf(at, sizeof(at), ", the first at [%zu, %zu]", w->first / cols, w->first % cols);
    else if (of > 1)
        (void)snprintf(at, sizeof(at), ", the first at %zu", w->first);
    check_finding(c, rule, t->name, "%zu of %zu %s%s: %g", w->count, of, what, at, w->value);
}

static void
let_go(const struct check *c, const struct tensor *t)
{
    const struct check_tensor *ct = check_tensor(c, t->name);

    if (ct != NULL && ct->t == t)
        st_drop(&c->files[ct->file].st, t);
}

/* --- scales --- */

static double
byte_scale(enum dtype type, uint8_t b)
{
    return type == DT_U8 ? (b == 255 ? (double)NAN : (double)e8m0_to_f32(b)) : (double)e4m3_to_f32(b);
}

static void
check_scale(struct check *c, const struct tensor *t)
{
    size_t n = t->bytes / dtype_size(t->dtype);
    struct wrong w = { 0 };
    float v[PIECE];

    for (size_t i = 0; i < n; i += PIECE) {
        size_t m = n - i < PIECE ? n - i : PIECE;
        bool bytes = t->dtype == DT_U8 || t->dtype == DT_F8_E4M3;

        if (!bytes)
            (void)dtype_to_f32(v, (const char *)t->data + i * dtype_size(t->dtype), t->dtype, m);
        for (size_t k = 0; k < m; k++) {
            double x = bytes ? byte_scale(t->dtype, ((const uint8_t *)t->data)[i + k]) : (double)v[k];

            if (!(x > 0) || isinf(x))
                note(&w, i + k, x);
        }
    }
    report(c, CHECK_SCALE, t, &w, n, "scales are not finite and positive");
    let_go(c, t);
}

/* --- codes and zero points --- */

static void
check_int_range(struct check *c, enum check_rule rule, const struct tensor *t, int bits, const char *what)
{
    const int8_t *v = t->data;
    int min = -(1 << (bits - 1)), max = (1 << (bits - 1)) - 1;
    struct wrong w = { 0 };

    for (size_t i = 0; bits < 8 && i < t->bytes; i++)
        if (v[i] < min || v[i] > max)
            note(&w, i, v[i]);
    report(c, rule, t, &w, t->bytes, what);
}

static void
check_e4m3(struct check *c, const struct tensor *t)
{
    const uint8_t *v = t->data;
    struct wrong w = { 0 };

    for (size_t i = 0; i < t->bytes; i++)
        if ((v[i] & 0x7f) == 0x7f)
            note(&w, i, (double)NAN);
    report(c, CHECK_CODE, t, &w, t->bytes, "codes are not numbers");
}

/* Bits of a string of words from bit `used` on; the words are stride apart. */
static bool
tail_clear(const uint8_t *words, size_t count, size_t stride, size_t used)
{
    for (size_t i = used / 32; i < count; i++) {
        uint32_t word;

        memcpy(&word, words + i * stride * 4, 4);
        if (i == used / 32)
            word >>= used % 32;
        if (word != 0)
            return false;
    }
    return true;
}

static void
check_word_tails(struct check *c, const struct tensor *t, size_t strings, size_t step, size_t count, size_t stride,
    size_t used)
{
    struct wrong w = { 0 };

    for (size_t i = 0; i < strings && used < count * 32; i++)
        if (!tail_clear((const uint8_t *)t->data + i * step * 4, count, stride, used))
            note(&w, i, 1);
    if (w.count > 0)
        check_finding(c, CHECK_PADDING, t->name, "%zu of %zu %s end in bits that are not zero, the first is %zu",
            w.count, strings, stride == 1 ? "rows" : "columns", w.first);
}

static void
check_codes(struct check *c, const struct check_module *m, const struct scheme *s)
{
    const struct tensor *p = m->part[PART_PACKED], *w = m->part[PART_WEIGHT];

    if (p != NULL && p->dtype == DT_I32 && m->cols > 0) {
        size_t words = (size_t)p->shape[1];

        check_word_tails(c, p, (size_t)p->shape[0], words, words, 1, (size_t)m->cols * (size_t)s->weights.bits);
        let_go(c, p);
    }
    if (w == NULL || s->format == QFORMAT_DENSE)
        return;
    if (w->dtype == DT_I8)
        check_int_range(c, CHECK_CODE, w, s->weights.bits, "codes are out of range");
    else if (w->dtype == DT_F8_E4M3)
        check_e4m3(c, w);
    let_go(c, w);
}

static void
check_zeros(struct check *c, const struct check_module *m, const struct scheme *s)
{
    const struct tensor *z = m->part[PART_ZERO];

    if (z == NULL || s->weights.symmetric)
        return;
    if (z->dtype == DT_I8)
        check_int_range(c, CHECK_ZERO_POINT, z, s->weights.bits, "zero points are out of range");
    else if (m->rows > 0) /* words hold no value that is out of range, but for those after the last row */
        check_word_tails(c, z, (size_t)z->shape[1], 1, (size_t)z->shape[0], (size_t)z->shape[1],
            (size_t)m->rows * (size_t)s->weights.bits);
}

/* Every column has a group, and every group its columns; the last may have fewer. */
static void
check_group_index(struct check *c, const struct check_module *m, const struct scheme *s)
{
    const struct tensor *t = m->part[PART_GROUP_INDEX];
    size_t size = (size_t)s->weights.group, cols = (size_t)m->cols, groups = (cols + size - 1) / size;
    size_t *in_group;
    struct wrong w = { 0 };

    if (t == NULL || t->dtype != DT_I32 || t->ndim != 1 || t->shape[0] != m->cols ||
        (in_group = mem_zalloc(groups, sizeof(*in_group))) == NULL)
        return;
    for (size_t i = 0; i < cols; i++) {
        int32_t g;

        memcpy(&g, (const char *)t->data + 4 * i, 4);
        if (g < 0 || (size_t)g >= groups)
            note(&w, i, g);
        else
            in_group[g]++;
    }
    report(c, CHECK_GROUP_INDEX, t, &w, cols, "columns have a group that there is not");
    for (size_t g = 0; g < groups && w.count == 0; g++) {
        size_t want = g + 1 < groups ? size : cols - g * size;

        if (in_group[g] != want) {
            check_finding(c, CHECK_GROUP_INDEX, t->name, "group %zu has %zu columns, want %zu", g, in_group[g], want);
            break;
        }
    }
    mem_free(in_group);
}

static void
check_compressed(struct check *c, const struct check_module *m)
{
    static const enum part scales[] = { PART_SCALE, PART_GLOBAL, PART_IN_SCALE, PART_IN_GLOBAL };
    const struct scheme *s = &c->recipe->groups[m->group].scheme;

    for (size_t i = 0; i < sizeof(scales) / sizeof(scales[0]); i++)
        if (m->part[scales[i]] != NULL)
            check_scale(c, m->part[scales[i]]);
    check_zeros(c, m, s);
    if (s->weights.strategy == ARGS_GROUP && m->cols > 0)
        check_group_index(c, m, s);
    if (!c->o->quick)
        check_codes(c, m, s);
}

/* --- what is not compressed --- */

static void
check_dense(struct check *c, const struct tensor *t)
{
    size_t n = t->bytes / dtype_size(t->dtype);
    struct wrong w = { 0 };
    float v[PIECE];

    for (size_t i = 0; i < n; i += PIECE) {
        size_t m = n - i < PIECE ? n - i : PIECE;

        (void)dtype_to_f32(v, (const char *)t->data + i * dtype_size(t->dtype), t->dtype, m);
        if (dtype_finite(v, m))
            continue;
        for (size_t k = 0; k < m; k++)
            if (!isfinite(v[k]))
                note(&w, i + k, v[k]);
    }
    report(c, CHECK_NOT_FINITE, t, &w, n, "values are not finite");
    let_go(c, t);
}

static bool
is_scale(const struct check *c, const struct check_module *m, const struct tensor *t)
{
    if (m == NULL)
        return false;
    for (int p = PART_K_SCALE; p <= PART_Q_SCALE; p++)
        if (m->part[p] == t)
            return true;
    for (int p = PART_PACKED; p < PART_K_SCALE; p++)
        if (m->part[p] == t && m->group >= 0)
            return true;
    return m->part[PART_WEIGHT] == t && m->group >= 0 && c->recipe->groups[m->group].scheme.format != QFORMAT_DENSE;
}

void
check_values(struct check *c)
{
    for (size_t i = 0; i < c->module_count; i++) {
        const struct check_module *m = &c->modules[i];

        if (m->group >= 0)
            check_compressed(c, m);
        for (int p = PART_K_SCALE; p <= PART_Q_SCALE; p++)
            if (m->part[p] != NULL)
                check_scale(c, m->part[p]);
    }
    for (size_t i = 0; i < c->count && !c->o->quick; i++) {
        const struct tensor *t = c->tensors[i].t;
        const char *dot = strrchr(t->name, '.');
        const struct check_module *m = dot != NULL ? check_module(c, t->name, (size_t)(dot - t->name)) : NULL;

        if ((t->dtype == DT_BF16 || t->dtype == DT_F16 || t->dtype == DT_F32 || t->dtype == DT_F64) &&
            !is_scale(c, m, t))
            check_dense(c, t);
    }
}
