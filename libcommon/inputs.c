/* inputs - scales of activations */
#include "inputs.h"

#include "../kernels/scale.h"
#include "mem.h"
#include "msg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void
inputs_free(struct inputs *in)
{
    mem_free(in->scale);
    *in = (struct inputs){ 0 };
}

/* Of activations of type t: a token is a row, what has one scale a head is rounded head by head. */
static struct qspec
spec_of(const struct qargs *a, enum dtype t)
{
    struct qargs b = *a;
    struct qspec q;

    b.strategy = a->strategy == ARGS_TOKEN ? ARGS_CHANNEL : a->strategy == ARGS_ATTN_HEAD ? ARGS_TENSOR : a->strategy;
    scheme_args_qspec(&b, t, &q);
    return q;
}

void
inputs_rounding(const struct qargs *a, enum dtype t, struct rounding *out)
{
    *out = (struct rounding){ .spec = spec_of(a, t), .dynamic = a->dynamic != DYNAMIC_NO, .global_scale = 1,
        .parts = 1 };
}

/* --- to tensors --- */

static struct extremes
of_range(const float range[2])
{
    return (struct extremes){ -range[0], range[1] };
}

int
inputs_pack(struct packed_tensors *p, const char *module, const struct scheme *s, enum dtype t, const float range[2])
{
    struct qspec q;
    int8_t zero = 0;
    float scale, *global;
    void *out;

    if (!scheme_input_static(s))
        return RC_OK;
    q = spec_of(&s->input, t);
    if (s->input.strategy == ARGS_TENSOR_GROUP) {
        if ((global = weights_add(p, module, "input_global_scale", DT_F32, 1, 0)) == NULL)
            return RC_OS;
        global[0] = scale_global(range[0] > range[1] ? range[0] : range[1], t);
        return RC_OK;
    }
    scale_of_extremes(&q, of_range(range), 1, &scale, &zero);
    if ((out = weights_add(p, module, "input_scale", t, 1, 0)) == NULL)
        return RC_OS;
    (void)dtype_from_f32(out, &scale, t, 1);
    if (q.symmetric)
        return RC_OK;
    if ((out = weights_add(p, module, "input_zero_point", DT_I8, 1, 0)) == NULL)
        return RC_OS;
    memcpy(out, &zero, 1);
    return RC_OK;
}

static int
pack_one(struct packed_tensors *p, const char *attention, const char *name, const struct qargs *a, enum dtype t,
    int heads, const float *range)
{
    bool each = a->strategy == ARGS_ATTN_HEAD;
    int count = each ? heads : 1, width = each ? 1 : heads;
    struct qspec q = spec_of(a, t);
    char *out = weights_add(p, attention, name, t, count, 0);

    if (out == NULL)
        return RC_OS;
    if (each) { /* [heads, 1, 1] */
        p->t[p->count - 1].ndim = 3;
        p->t[p->count - 1].shape[1] = p->t[p->count - 1].shape[2] = 1;
    }
    for (int i = 0; i < count; i++) {
        struct extremes x = { 0, 0 };
        float scale;

        for (int h = i * width; h < (i + 1) * width; h++)
            x = scale_merge(x, of_range(range + 2 * h));
        scale_of_extremes(&q, x, 1, &scale, NULL);
        (void)dtype_from_f32(out + (size_t)i * dtype_size(t), &scale, t, 1);
    }
    return RC_OK;
}

int
inputs_pack_cache(struct packed_tensors *p, const char *attention, const struct qargs *a, enum dtype t, int heads,
    const float *range)
{
    *p = (struct packed_tensors){ 0 };
    TRY(pack_one(p, attention, "k_scale", a, t, heads, range));
    return pack_one(p, attention, "v_scale", a, t, heads, range + 2 * heads);
}

/* --- from tensors --- */

/* count values of a tensor of any shape: [1], [], [heads, 1, 1]. */
static int
find_values(const char *module, const char *suffix, int count, weights_find_fn *find, void *ctx, float *out)
{
    char name[WEIGHTS_NAME_MAX];
    const struct tensor *t;

    (void)snprintf(name, sizeof(name), "%s.%s", module, suffix);
    if ((t = find(ctx, name)) == NULL)
        return err_set(RC_DATA, "no tensor %s", name);
    if (dtype_size(t->dtype) == 0 || t->bytes != (size_t)count * dtype_size(t->dtype) ||
        !dtype_to_f32(out, t->data, t->dtype, (size_t)count))
        return err_set(RC_DATA, "%s is %s of %zu bytes, want %d float%s", name, dtype_name(t->dtype), t->bytes, count,
            count == 1 ? "" : "s");
    for (int i = 0; i < count; i++)
        if (!isfinite(out[i]) || !(out[i] > 0))
            return err_set(RC_DATA, "%s is %g, want a finite number above 0", name, (double)out[i]);
    return RC_OK;
}

/* Static scales: one, or one a head. */
static int
find_scales(struct inputs *out, const char *module, const char *suffix, int parts, weights_find_fn *find, void *ctx)
{
    int rc;

    if ((out->scale = mem_alloc((size_t)parts, sizeof(float))) == NULL)
        return RC_OS;
    out->r.parts = parts;
    out->r.scale = out->scale;
    if ((rc = find_values(module, suffix, parts, find, ctx, out->scale)) != RC_OK)
        inputs_free(out);
    for (int i = 0; rc == RC_OK && i < parts; i++)
        out->scale[i] = rt(out->scale[i], out->r.spec.t);
    return rc;
}

static int
find_zero(struct inputs *out, const char *module, weights_find_fn *find, void *ctx)
{
    char name[WEIGHTS_NAME_MAX];
    const struct tensor *t;

    (void)snprintf(name, sizeof(name), "%s.input_zero_point", module);
    if ((t = find(ctx, name)) == NULL)
        return err_set(RC_DATA, "no tensor %s", name);
    if (t->dtype != DT_I8 || t->bytes != 1)
        return err_set(RC_DATA, "%s is %s of %zu bytes, want one I8", name, dtype_name(t->dtype), t->bytes);
    memcpy(&out->zero, t->data, 1);
    out->r.zero = &out->zero;
    return RC_OK;
}

int
inputs_find(struct inputs *out, const char *module, const struct scheme *s, enum dtype t, weights_find_fn *find,
    void *ctx)
{
    int rc = RC_OK;

    inputs_free(out);
    if (!s->has_input)
        return RC_OK;
    inputs_rounding(&s->input, t, &out->r);
    out->on = true;
    if (s->input.strategy == ARGS_TENSOR_GROUP)
        return find_values(module, "input_global_scale", 1, find, ctx, &out->r.global_scale);
    if (out->r.dynamic)
        return RC_OK;
    if ((rc = find_scales(out, module, "input_scale", 1, find, ctx)) == RC_OK && !out->r.spec.symmetric &&
        (rc = find_zero(out, module, find, ctx)) != RC_OK)
        inputs_free(out);
    return rc;
}

int
inputs_find_cache(struct inputs *out, const char *attention, const char *which, const struct qargs *a, enum dtype t,
    int heads, weights_find_fn *find, void *ctx)
{
    char suffix[16];

    inputs_free(out);
    inputs_rounding(a, t, &out->r);
    out->on = true;
    (void)snprintf(suffix, sizeof(suffix), "%s_scale", which);
    return find_scales(out, attention, suffix, a->strategy == ARGS_ATTN_HEAD ? heads : 1, find, ctx);
}
