/* golden - loads t/golden/vectors/VERSION/NAME.{json,bin}; tests only, run from the top of the tree */
#ifndef LLMC_T_GOLDEN_H
#define LLMC_T_GOLDEN_H

#include "../../libcommon/buf.h"
#include "../../libcommon/json.h"
#include "../../libcommon/mem.h"
#include "../../libcommon/scheme.h"
#include "../../libcommon/tensor.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { GOLDEN_TENSORS_MAX = 8 };

static const char *const golden_versions[] = { "llmc-0.10", "llmc-0.14", NULL };

struct golden {
    json_t       *meta; /* the whole of NAME.json */
    struct buf    bin;
    bool          v10;  /* LLM Compressor 0.10 made it */
    struct tensor tensors[GOLDEN_TENSORS_MAX];
    size_t        count;
};

/* Python's Infinity, which is not JSON, becomes the string "inf". */
static inline void
golden_json(json_t **out, const char *version, const char *name)
{
    struct buf text = { 0 };
    char path[512], *p;

    snprintf(path, sizeof(path), "t/golden/vectors/%s/%s.json", version, name);
    if (buf_read_file(&text, path, 1 << 24) != RC_OK)
        fail_msg("%s", err_text());
    for (p = text.s; (p = strstr(p, "Infinity")) != NULL; p++)
        memcpy(p, "\"inf\"   ", 8);
    if (jread_mem(out, text.s, text.len, path) != RC_OK)
        fail_msg("%s", err_text());
    buf_free(&text);
}

static inline void
golden_open(struct golden *g, const char *version, const char *name)
{
    char path[512];
    json_t *t;
    size_t i, j;

    memset(g, 0, sizeof(*g));
    g->v10 = strcmp(version, "llmc-0.10") == 0;
    golden_json(&g->meta, version, name);
    snprintf(path, sizeof(path), "t/golden/vectors/%s/%s.bin", version, name);
    if (buf_read_file(&g->bin, path, 1 << 24) != RC_OK)
        fail_msg("%s", err_text());
    json_array_foreach(json_object_get(g->meta, "tensors"), i, t) {
        struct tensor *to = &g->tensors[i];
        json_t *shape = json_object_get(t, "shape");

        assert_true(i < GOLDEN_TENSORS_MAX);
        to->name = json_string_value(json_object_get(t, "name"));
        to->dtype = dtype_find(json_string_value(json_object_get(t, "dtype")));
        to->ndim = (int)json_array_size(shape);
        for (j = 0; j < json_array_size(shape); j++)
            to->shape[j] = json_integer_value(json_array_get(shape, j));
        to->bytes = (size_t)json_integer_value(json_object_get(t, "nbytes"));
        to->data = g->bin.s + json_integer_value(json_object_get(t, "offset"));
        g->count++;
    }
}

static inline void
golden_close(struct golden *g)
{
    json_decref(g->meta);
    buf_free(&g->bin);
}

static inline const struct tensor *
golden_find(const struct golden *g, const char *name)
{
    for (size_t i = 0; i < g->count; i++)
        if (strcmp(g->tensors[i].name, name) == 0)
            return &g->tensors[i];
    return NULL;
}

static inline const struct tensor *
golden_get(const struct golden *g, const char *name)
{
    const struct tensor *t = golden_find(g, name);

    if (t == NULL)
        fail_msg("no tensor %s", name);
    return t;
}

/* A tensor's values; mem_free them. */
static inline float *
golden_floats(const struct tensor *t, size_t *count)
{
    float *x;

    *count = t->bytes / dtype_size(t->dtype);
    x = mem_alloc(*count, sizeof(*x));
    assert_non_null(x);
    assert_true(dtype_to_f32(x, t->data, t->dtype, *count));
    return x;
}

static inline void
golden_args(struct qargs *a, json_t *from)
{
    const char *key;
    json_t *v;

    scheme_args_init(a);
    json_object_foreach(from, key, v) {
        char *text = json_is_string(v) ? strdup(json_string_value(v)) : json_dumps(v, JSON_ENCODE_ANY);

        if (scheme_set(a, key, text) != RC_OK)
            fail_msg("%s", err_text());
        free(text);
    }
}

/* The scheme as the vector's configuration spells it. */
static inline void
golden_scheme(const struct golden *g, struct scheme *s)
{
    json_t *cfg = json_object_get(g->meta, "quantization_config");
    json_t *group = json_object_get(json_object_get(cfg, "config_groups"), "group_0");
    json_t *input = json_object_get(group, "input_activations");


    scheme_init(s);
    s->v10 = g->v10;
    golden_args(&s->weights, json_object_get(group, "weights"));
    s->has_input = json_is_object(input);
    if (s->has_input)
        golden_args(&s->input, input);
    if (scheme_finish(s) != RC_OK)
        fail_msg("%s", err_text());
    assert_string_equal(scheme_format_name(s->format), json_string_value(json_object_get(group, "format")));
}

/* Calls fn(version, name, ctx) for each vector of a version whose name starts with prefix; returns how many. */
static inline int
golden_each(const char *version, const char *prefix, void (*fn)(const char *version, const char *name, void *ctx),
    void *ctx)
{
    char path[512], name[256];
    struct dirent *e;
    int count = 0;
    DIR *d;

    snprintf(path, sizeof(path), "t/golden/vectors/%s", version);
    d = opendir(path);
    assert_non_null(d);
    while ((e = readdir(d)) != NULL) {
        const char *dot = strstr(e->d_name, ".json");

        if (dot == NULL || strncmp(e->d_name, prefix, strlen(prefix)) != 0)
            continue;
        snprintf(name, sizeof(name), "%.*s", (int)(dot - e->d_name), e->d_name);
        fn(version, name, ctx);
        count++;
    }
    closedir(d);
    return count;
}

#endif
