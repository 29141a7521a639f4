#include "scheme.h"
#include "json.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MINMAX        .observer = "memoryless_minmax"
#define INT_GROUP(b)  { .bits = b, .symmetric = true, .strategy = ARGS_GROUP, .group = 128, MINMAX }
#define INT_CHANNEL   { .bits = 8, .symmetric = true, .strategy = ARGS_CHANNEL, MINMAX }
#define FLOAT(b, s)   .bits = b, .type = QTYPE_FLOAT, .symmetric = true, .strategy = s
#define FP8(s)        { FLOAT(8, s), MINMAX }
#define FP8_BLOCKS    { FLOAT(8, ARGS_BLOCK), .block = { 128, 128 }, MINMAX }
#define NVFP4_GROUP   FLOAT(4, ARGS_TENSOR_GROUP), .group = 16, .scale_dtype = DT_F8_E4M3
#define MX(b)         FLOAT(b, ARGS_GROUP), .group = 32, .scale_dtype = DT_U8

#define IN(...)       .has_input = true, .input = { .symmetric = true, __VA_ARGS__ }
#define IN_INT(b)     IN(.bits = b, .strategy = ARGS_TOKEN, .dynamic = DYNAMIC_YES)
#define IN_FP8(s, ...) IN(.bits = 8, .type = QTYPE_FLOAT, .strategy = s, .dynamic = DYNAMIC_YES, __VA_ARGS__)
#define ROW(n, ...)   { .name = n, .has_weights = true, .weights = __VA_ARGS__ }

/* Formats follow from these fields: see infer_format(). */
static const struct scheme presets[] = {
    { .name = "UNQUANTIZED" },
    ROW("W4A16",       INT_GROUP(4)),
    ROW("W4A16_ASYM",  { .bits = 4, .strategy = ARGS_GROUP, .group = 128, MINMAX }),
    ROW("W8A16",       INT_GROUP(8)),
    ROW("W8A8",        INT_CHANNEL, IN_INT(8)),
    ROW("INT8",        INT_CHANNEL, IN_INT(8)),
    ROW("W4A8",        INT_GROUP(4), IN_INT(8)),
    ROW("W4AFP8",      INT_GROUP(4), IN_FP8(ARGS_TOKEN, .group = 0)),
    ROW("FP8",         FP8(ARGS_TENSOR),
        IN(.bits = 8, .type = QTYPE_FLOAT, .strategy = ARGS_TENSOR, .observer = "static_minmax")),
    ROW("FP8_DYNAMIC", FP8(ARGS_CHANNEL), IN_FP8(ARGS_TOKEN, .group = 0)),
    ROW("FP8_BLOCK",   FP8_BLOCKS, IN_FP8(ARGS_GROUP, .group = 128)),
    ROW("NVFP4A16",    { NVFP4_GROUP, MINMAX }),
    ROW("NVFP4",       { NVFP4_GROUP, MINMAX }, .has_input = true,
        .input = { NVFP4_GROUP, .dynamic = DYNAMIC_LOCAL, .observer = "static_minmax" }),
    ROW("MXFP4A16",    { MX(4), MINMAX }),
    ROW("MXFP4",       { MX(4), MINMAX }, .has_input = true, .input = { MX(4), .dynamic = DYNAMIC_YES }),
    ROW("MXFP4XFP8",   { MX(4), MINMAX }, IN_FP8(ARGS_GROUP, .group = 128)),
    ROW("MXFP8A16",    { MX(8), MINMAX }),
    ROW("MXFP8",       { MX(8), MINMAX }, .has_input = true, .input = { MX(8), .dynamic = DYNAMIC_YES }),
    ROW("W2A16",       INT_GROUP(2)),
    ROW("W3A16",       INT_GROUP(3)),
    ROW("W5A16",       INT_GROUP(5)),
    ROW("W6A16",       INT_GROUP(6)),
    ROW("W7A16",       INT_GROUP(7)),
    ROW("W2A8",        INT_GROUP(2), IN_INT(8)),
    ROW("W3A8",        INT_GROUP(3), IN_INT(8)),
    ROW("W5A8",        INT_GROUP(5), IN_INT(8)),
    ROW("W6A8",        INT_GROUP(6), IN_INT(8)),
    ROW("W7A8",        INT_GROUP(7), IN_INT(8)),
    ROW("W2A4",        INT_GROUP(2), IN_INT(4)),
    ROW("W3A4",        INT_GROUP(3), IN_INT(4)),
    ROW("W4A4",        INT_GROUP(4), IN_INT(4)),
};

/* Where LLM Compressor 0.10 has other arguments under the same name. */
static const struct scheme presets_v10[] = {
    ROW("W8A16", INT_CHANNEL),
    ROW("FP8",   FP8(ARGS_TENSOR),
        IN(.bits = 8, .type = QTYPE_FLOAT, .strategy = ARGS_TENSOR, .observer = "memoryless_minmax")),
};

/* All that it has. */
static const char *const names_v10[] = { "UNQUANTIZED", "W8A16", "W4A16", "W4A16_ASYM", "W8A8", "INT8", "W4A8",
    "W4AFP8", "FP8", "FP8_DYNAMIC", "FP8_BLOCK", "NVFP4A16", "NVFP4", "MXFP4A16", "MXFP4" };

/* Words for values of an enum; the first spelling of a value is the one written. */
struct word {
    const char *text;
    int         value;
};

static const struct word words_type[] = { { "int", QTYPE_INT }, { "float", QTYPE_FLOAT }, { NULL, 0 } };
static const struct word words_bool[] = { { "true", 1 }, { "false", 0 }, { NULL, 0 } };
static const struct word words_strategy[] = {
    { "tensor", ARGS_TENSOR }, { "channel", ARGS_CHANNEL }, { "group", ARGS_GROUP },
    { "tensor_group", ARGS_TENSOR_GROUP }, { "block", ARGS_BLOCK }, { "token", ARGS_TOKEN },
    { "attn_head", ARGS_ATTN_HEAD }, { "null", ARGS_UNSET }, { NULL, 0 }
};
static const struct word words_dynamic[] = {
    { "false", DYNAMIC_NO }, { "true", DYNAMIC_YES }, { "local", DYNAMIC_LOCAL }, { NULL, 0 }
};
static const struct word words_actorder[] = {
    { "null", ACTORDER_NONE }, { "static", ACTORDER_STATIC }, { "weight", ACTORDER_WEIGHT },
    { "group", ACTORDER_GROUP }, { "dynamic", ACTORDER_DYNAMIC }, { "none", ACTORDER_NONE }, { NULL, 0 }
};
static const struct word words_scale[] = {
    { "null", DT_NONE }, { "torch.float8_e4m3fn", DT_F8_E4M3 }, { "torch.uint8", DT_U8 },
    { "float8_e4m3fn", DT_F8_E4M3 }, { "uint8", DT_U8 }, { NULL, 0 }
};
static const struct word words_zp[] = { { "null", 0 }, { "torch.int8", 1 }, { "int8", 1 }, { NULL, 0 } };
static const struct word words_kwargs[] = { { "{}", 0 }, { "null", 0 }, { NULL, 0 } };
static const struct word words_format[] = {
    { "dense", QFORMAT_DENSE }, { "pack-quantized", QFORMAT_PACK }, { "int-quantized", QFORMAT_INT },
    { "float-quantized", QFORMAT_FLOAT }, { "nvfp4-pack-quantized", QFORMAT_NVFP4 },
    { "mxfp4-pack-quantized", QFORMAT_MXFP4 }, { "mxfp8-quantized", QFORMAT_MXFP8 },
    { "naive-quantized", QFORMAT_NAIVE }, { "null", QFORMAT_INFER }, { NULL, 0 }
};

static int
word_find(const struct word *w, const char *key, const char *text, int *value)
{
    for (; w->text != NULL; w++) {
        if (strcasecmp(w->text, text) == 0) {
            *value = w->value;
            return RC_OK;
        }
    }
    return err_set(RC_DATA, "%s: unknown value %s", key, text);
}

/* NULL for "null" and for values that have no word. */
static const char *
word_text(const struct word *w, int value)
{
    while (w->text != NULL && w->value != value)
        w++;
    return w->text != NULL && strcmp(w->text, "null") == 0 ? NULL : w->text;
}

static bool
is_v10(const char *name)
{
    for (size_t i = 0; i < sizeof(names_v10) / sizeof(*names_v10); i++)
        if (strcasecmp(names_v10[i], name) == 0)
            return true;
    return false;
}

int
scheme_find(struct scheme *out, const char *name, bool v10)
{
    const struct scheme *found = NULL;

    for (size_t i = 0; i < sizeof(presets) / sizeof(*presets); i++)
        if (strcasecmp(presets[i].name, name) == 0)
            found = &presets[i];
    for (size_t i = 0; v10 && i < sizeof(presets_v10) / sizeof(*presets_v10); i++)
        if (strcasecmp(presets_v10[i].name, name) == 0)
            found = &presets_v10[i];
    if (found == NULL)
        return err_set(RC_DATA, "%s: unknown scheme", name);
    if (v10 && !is_v10(name))
        return err_set(RC_DATA, "%s: LLM Compressor 0.10 has no such scheme", name);
    *out = *found;
    out->v10 = v10;
    return out->has_weights ? scheme_finish(out) : RC_OK;
}

const char *
scheme_preset(int i)
{
    return i >= 0 && (size_t)i < sizeof(presets) / sizeof(*presets) ? presets[i].name : NULL;
}

void
scheme_args_init(struct qargs *a)
{
    *a = (struct qargs){ .bits = 8, .type = QTYPE_INT, .symmetric = true, .strategy = ARGS_UNSET };
}

void
scheme_init(struct scheme *s)
{
    *s = (struct scheme){ .has_weights = true };
    scheme_args_init(&s->weights);
}

static int
parse_int(const char *key, const char *text, int *out)
{
    char *end;
    long v;

    errno = 0;
    v = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || v < -1 || v > INT_MAX)
        return err_set(RC_DATA, "%s: %s is not a number in range", key, text);
    *out = (int)v;
    return RC_OK;
}

/* "[128, 128]" or "128x128" */
static int
parse_block(const char *text, int block[2])
{
    int n = 0, m = 0, a = 0, b = 0;

    if (strcmp(text, "null") == 0) {
        block[0] = block[1] = 0;
        return RC_OK;
    }
    if (!((sscanf(text, "[%9d ,%9d ]%n", &a, &b, &n) == 2 && n > 0 && text[n] == '\0') ||
            (sscanf(text, "%9dx%9d%n", &a, &b, &m) == 2 && m > 0 && text[m] == '\0')) || a <= 0 || b <= 0)
        return err_set(RC_DATA, "block_structure: %s is not [rows, columns]", text);
    block[0] = a;
    block[1] = b;
    return RC_OK;
}

static int
set_observer(struct qargs *a, const char *value)
{
    const char *name = strcmp(value, "null") == 0 ? "" : value;

    if (strlen(name) >= sizeof(a->observer))
        return err_set(RC_DATA, "observer: unknown value %s", value);
    snprintf(a->observer, sizeof(a->observer), "%s", name);
    return RC_OK;
}

/* observer_kwargs and zp_dtype have one useful value each, which follows from the other fields. */
static const struct {
    const char        *key;
    const struct word *words;
} enums[] = {
    { "type", words_type }, { "symmetric", words_bool }, { "strategy", words_strategy }, { "dynamic", words_dynamic },
    { "actorder", words_actorder }, { "scale_dtype", words_scale }, { "zp_dtype", words_zp },
    { "observer_kwargs", words_kwargs },
};

static void
set_enum(struct qargs *a, const char *key, int v)
{
    if (strcmp(key, "type") == 0)
        a->type = (enum qtype)v;
    else if (strcmp(key, "symmetric") == 0)
        a->symmetric = v != 0;
    else if (strcmp(key, "strategy") == 0)
        a->strategy = (enum args_strategy)v;
    else if (strcmp(key, "dynamic") == 0)
        a->dynamic = (enum dynamic)v;
    else if (strcmp(key, "actorder") == 0)
        a->actorder = (enum actorder)v;
    else if (strcmp(key, "scale_dtype") == 0)
        a->scale_dtype = (enum dtype)v;
}

int
scheme_set(struct qargs *a, const char *key, const char *value)
{
    int v = 0, rc;

    if (strcmp(key, "num_bits") == 0)
        return parse_int(key, value, &a->bits);
    if (strcmp(key, "group_size") == 0) {
        a->group = 0;
        return strcmp(value, "null") == 0 ? RC_OK : parse_int(key, value, &a->group);
    }
    if (strcmp(key, "block_structure") == 0)
        return parse_block(value, a->block);
    if (strcmp(key, "observer") == 0)
        return set_observer(a, value);
    for (size_t i = 0; i < sizeof(enums) / sizeof(*enums); i++) {
        if (strcmp(key, enums[i].key) == 0) {
            if ((rc = word_find(enums[i].words, key, value, &v)) == RC_OK)
                set_enum(a, key, v);
            return rc;
        }
    }
    return err_set(RC_DATA, "%s: unknown key", key);
}

int
scheme_set_format(struct scheme *s, const char *name)
{
    int v = 0, rc = word_find(words_format, "format", name, &v);

    if (rc == RC_OK)
        s->format = (enum qformat)v;
    return rc;
}

int
scheme_set_group(struct scheme *s, int group)
{
    if (!s->has_weights || s->weights.type != QTYPE_INT)
        return err_set(RC_DATA, "a group size can be chosen for integer weights only");
    if (group == 0 || group < -1)
        return err_set(RC_DATA, "group size is %d, want -1 or more than 0", group);
    s->weights.strategy = group < 0 ? ARGS_CHANNEL : ARGS_GROUP;
    s->weights.group = group < 0 ? 0 : group;
    s->weights.block[0] = s->weights.block[1] = 0;
    return scheme_finish(s);
}

/* Rules that weights and inputs share. */
static int
check_args(const char *what, struct qargs *a)
{
    bool grouped;

    if (a->strategy == ARGS_UNSET)
        a->strategy = a->group > 0 ? ARGS_GROUP : a->group < 0 ? ARGS_CHANNEL
            : a->block[0] > 0 ? ARGS_BLOCK : ARGS_TENSOR;
    grouped = a->strategy == ARGS_GROUP || a->strategy == ARGS_TENSOR_GROUP;
    if (a->group < 0 && a->strategy == ARGS_CHANNEL)
        a->group = 0;
    if (a->type == QTYPE_INT ? a->bits < 1 || a->bits > 8 : a->bits != 4 && a->bits != 8)
        return err_set(RC_DATA, "%s: num_bits is %d, want %s", what, a->bits,
            a->type == QTYPE_INT ? "1 to 8" : "4 or 8");
    if (a->type == QTYPE_FLOAT && !a->symmetric)
        return err_set(RC_DATA, "%s: float numbers must be symmetric", what);
    if (grouped != (a->group > 0) || (!grouped && a->group != 0))
        return err_set(RC_DATA, "%s: group_size is %d with strategy %s", what, a->group,
            word_text(words_strategy, (int)a->strategy));
    if ((a->strategy == ARGS_BLOCK) != (a->block[0] > 0))
        return err_set(RC_DATA, "%s: block_structure and strategy block go together", what);
    return RC_OK;
}

bool
scheme_actorder_same(enum actorder a, enum actorder b)
{
    static const int order[] = { [ACTORDER_UNSET] = 0, [ACTORDER_NONE] = 0, [ACTORDER_STATIC] = 1,
        [ACTORDER_WEIGHT] = 1, [ACTORDER_GROUP] = 2, [ACTORDER_DYNAMIC] = 2 };

    return order[a] == order[b];
}

static int
check_actorder(const struct qargs *a, bool v10)
{
    const char *name = word_text(words_actorder, (int)a->actorder);
    bool by_group = scheme_actorder_same(a->actorder, ACTORDER_GROUP);

    if (by_group && !v10)
        return err_set(RC_DATA, "weights: actorder %s is not supported but with --compat 0.10", name);
    if (by_group && (a->strategy != ARGS_GROUP || a->type != QTYPE_INT))
        return err_set(RC_DATA, "weights: actorder %s wants integers with strategy group", name);
    if (v10 && a->actorder > ACTORDER_NONE && a->strategy != ARGS_GROUP && a->strategy != ARGS_TENSOR_GROUP)
        return err_set(RC_DATA, "weights: actorder wants strategy group or tensor_group in LLM Compressor 0.10");
    return RC_OK;
}

static int
check_weights(struct qargs *a, bool v10)
{
    int rc = check_args("weights", a);

    if (rc != RC_OK || (rc = check_actorder(a, v10)) != RC_OK)
        return rc;
    if (a->strategy > ARGS_BLOCK)
        return err_set(RC_DATA, "weights: strategy %s is for inputs", word_text(words_strategy, (int)a->strategy));
    if (a->dynamic != DYNAMIC_NO)
        return err_set(RC_DATA, "weights: dynamic is for inputs");
    if (v10 && ((a->type == QTYPE_INT && a->bits != 4 && a->bits != 8) ||
        (a->type == QTYPE_FLOAT && a->bits == 8 && a->scale_dtype != DT_NONE)))
        return err_set(RC_DATA, "weights: LLM Compressor 0.10 packs integers of 4 and 8 bits, 4-bit floats, and 8-bit "
            "floats with scale_dtype null");
    if (a->type == QTYPE_FLOAT && a->bits == 4 && a->scale_dtype == DT_NONE)
        a->scale_dtype = a->strategy == ARGS_TENSOR_GROUP ? DT_F8_E4M3 : DT_U8;
    if (a->type == QTYPE_FLOAT && a->bits == 4 &&
        !(a->strategy == ARGS_TENSOR_GROUP && a->group == 16 && a->scale_dtype == DT_F8_E4M3) &&
        !(a->strategy == ARGS_GROUP && a->group == 32 && a->scale_dtype == DT_U8))
        return err_set(RC_DATA, "weights: 4-bit floats want tensor_group of 16 with scales float8_e4m3fn, "
            "or group of 32 with scales uint8");
    if (a->type == QTYPE_FLOAT && a->bits == 8 && a->scale_dtype != DT_NONE &&
        !(a->strategy == ARGS_GROUP && a->group == 32 && a->scale_dtype == DT_U8))
        return err_set(RC_DATA, "weights: 8-bit floats want group of 32 with scales uint8, or scale_dtype null");
    if (a->type == QTYPE_INT && (a->scale_dtype != DT_NONE || a->strategy == ARGS_TENSOR_GROUP))
        return err_set(RC_DATA, "weights: integers want scale_dtype null and another strategy than tensor_group");
    if (a->observer[0] == '\0')
        set_observer(a, "memoryless_minmax");
    return RC_OK;
}

static int
check_input(struct qargs *a, bool v10)
{
    int rc = check_args("inputs", a);

    if (rc != RC_OK)
        return rc;
    if (a->strategy == ARGS_CHANNEL || a->strategy == ARGS_BLOCK)
        return err_set(RC_DATA, "inputs: strategy %s is for weights", word_text(words_strategy, (int)a->strategy));
    if (a->actorder > ACTORDER_NONE)
        return err_set(RC_DATA, "inputs: actorder is for weights");
    if (a->strategy == ARGS_TOKEN && a->dynamic != DYNAMIC_YES)
        return err_set(RC_DATA, "inputs: strategy token must be dynamic");
    if (a->dynamic == DYNAMIC_LOCAL && a->strategy != ARGS_TENSOR_GROUP)
        return err_set(RC_DATA, "inputs: dynamic local wants strategy tensor_group");
    if (a->dynamic == DYNAMIC_YES && a->strategy == ARGS_ATTN_HEAD)
        return err_set(RC_DATA, "inputs: strategy attn_head cannot be dynamic");
    if (a->dynamic == DYNAMIC_YES)
        a->observer[0] = '\0';
    else if (a->observer[0] == '\0')
        set_observer(a, v10 ? "memoryless_minmax" : "minmax");
    return RC_OK;
}

/* The order in which compressed-tensors 0.19 tries them. */
static enum qformat
infer_format(const struct scheme *s)
{
    const struct qargs *w = &s->weights;

    if (w->type == QTYPE_FLOAT && w->bits == 4)
        return w->scale_dtype == DT_U8 ? QFORMAT_MXFP4 : QFORMAT_NVFP4;
    if (w->type == QTYPE_FLOAT && w->scale_dtype == DT_U8)
        return QFORMAT_MXFP8;
    if (w->type == QTYPE_INT)
        return s->has_input ? QFORMAT_INT : QFORMAT_PACK;
    return s->has_input ? QFORMAT_FLOAT : QFORMAT_NAIVE;
}

int
scheme_finish(struct scheme *s)
{
    enum qformat f;
    int rc;

    if (!s->has_weights)
        return err_set(RC_DATA, "scheme has no weights");
    if ((rc = check_weights(&s->weights, s->v10)) != RC_OK ||
        (s->has_input && (rc = check_input(&s->input, s->v10)) != RC_OK))
        return rc;
    f = infer_format(s);
    if (s->format == QFORMAT_INFER)
        s->format = f;
    if (scheme_order_group(s) && s->format != QFORMAT_PACK)
        return err_set(RC_DATA, "weights: actorder group wants format pack-quantized");
    if (s->format == f || s->format == QFORMAT_DENSE ||
        (s->weights.type == QTYPE_INT && (s->format == QFORMAT_PACK || s->format == QFORMAT_INT ||
            s->format == QFORMAT_NAIVE)) ||
        ((f == QFORMAT_FLOAT || f == QFORMAT_NAIVE) && s->weights.type == QTYPE_FLOAT &&
            (s->format == QFORMAT_FLOAT || s->format == QFORMAT_NAIVE)))
        return RC_OK;
    return err_set(RC_DATA, "format %s cannot hold these weights, want %s", scheme_format_name(s->format),
        scheme_format_name(f));
}

bool
scheme_input_fits(const struct scheme *s, int64_t cols)
{
    return !s->has_input || s->input.group <= 0 || cols % s->input.group == 0;
}

int
scheme_check(const struct scheme *s, int rows, int cols)
{
    const struct qargs *w = &s->weights;

    if (rows <= 0 || cols <= 0)
        return err_set(RC_DATA, "weight is [%d, %d]", rows, cols);
    if (w->group > 0 && cols >= w->group && cols % w->group != 0)
        return err_set(RC_DATA, "%d columns are not a multiple of group size %d", cols, w->group);
    if (w->type == QTYPE_FLOAT && w->bits == 4 && cols % 2 != 0)
        return err_set(RC_DATA, "%d columns are odd, %s packs pairs", cols, scheme_format_name(s->format));
    if (!scheme_input_fits(s, cols))
        return err_set(RC_DATA, "%d columns are not a multiple of the inputs' group size %d", cols, s->input.group);
    return RC_OK;
}

static struct qspec
args_qspec(const struct qargs *a, enum dtype t, bool v10)
{
    assert(a->strategy <= ARGS_BLOCK);
    return (struct qspec){
        .grid = a->type == QTYPE_INT ? GRID_INT : a->bits == 4 ? GRID_E2M1 : GRID_E4M3,
        .bits = a->bits,
        .symmetric = a->symmetric,
        .strategy = (enum qstrategy)a->strategy,
        .group = a->strategy == ARGS_BLOCK ? a->block[1] : a->group,
        .block_rows = a->block[0],
        .scale = a->scale_dtype == DT_NONE ? t : a->scale_dtype == DT_U8 ? DT_F8_E8M0 : DT_F8_E4M3,
        .t = t,
        .v10 = v10,
    };
}

void
scheme_qspec(const struct scheme *s, enum dtype t, bool v10, struct qspec *out)
{
    assert(s->has_weights);
    *out = args_qspec(&s->weights, t, v10);
}

void
scheme_args_qspec(const struct qargs *a, enum dtype t, struct qspec *out)
{
    *out = args_qspec(a, t, false);
}

const char *
scheme_format_name(enum qformat f)
{
    return word_text(words_format, (int)f);
}

enum pack
scheme_pack(const struct scheme *s)
{
    switch (s->format) {
    case QFORMAT_PACK:
        return PACK_WORDS;
    case QFORMAT_NVFP4:
    case QFORMAT_MXFP4:
        return PACK_NIBBLES;
    default:
        return PACK_BYTES;
    }
}

bool
scheme_zeros_packed(const struct scheme *s)
{
    return s->format == QFORMAT_PACK && !s->weights.symmetric &&
        (s->weights.strategy == ARGS_GROUP || s->weights.strategy == ARGS_CHANNEL);
}

bool
scheme_global(const struct scheme *s)
{
    return s->has_weights && s->weights.strategy == ARGS_TENSOR_GROUP;
}

bool
scheme_input_static(const struct scheme *s)
{
    return s->has_input && s->input.dynamic != DYNAMIC_YES;
}

bool
scheme_ordered(const struct scheme *s)
{
    return !scheme_actorder_same(s->weights.actorder, ACTORDER_NONE);
}

bool
scheme_order_group(const struct scheme *s)
{
    return scheme_actorder_same(s->weights.actorder, ACTORDER_GROUP);
}

const char *
scheme_actorder_name(enum actorder a)
{
    return word_text(words_actorder, (int)a);
}

json_t *
scheme_args_json(const struct qargs *a)
{
    bool zp = !a->symmetric;
    json_t *block = a->block[0] > 0 ? json_pack("[ii]", a->block[0], a->block[1]) : json_null();
    json_t *group = a->group > 0 ? json_integer(a->group) : json_null();
    json_t *dyn = a->dynamic == DYNAMIC_LOCAL ? json_string("local") : json_boolean(a->dynamic == DYNAMIC_YES);

    return json_pack("{s:s?, s:o, s:o, s:o, s:i, s:s?, s:{}, s:s?, s:s, s:b, s:s, s:s?}",
        "actorder", word_text(words_actorder, (int)a->actorder), "block_structure", block, "dynamic", dyn,
        "group_size", group, "num_bits", a->bits, "observer", a->observer[0] != '\0' ? a->observer : NULL,
        "observer_kwargs", "scale_dtype", word_text(words_scale, (int)a->scale_dtype),
        "strategy", word_text(words_strategy, (int)a->strategy), "symmetric", (int)a->symmetric,
        "type", word_text(words_type, (int)a->type), "zp_dtype", zp ? "torch.int8" : NULL);
}

int
scheme_json(const struct scheme *s, json_t *targets, json_t **out)
{
    json_t *weights = s->has_weights ? scheme_args_json(&s->weights) : json_null();
    json_t *input = s->has_input ? scheme_args_json(&s->input) : json_null();

    *out = json_pack("{s:s?, s:o, s:n, s:O, s:o}", "format", scheme_format_name(s->format), "input_activations", input,
        "output_activations", "targets", targets, "weights", weights);
    return *out != NULL ? RC_OK : err_set(RC_OS, "out of memory");
}
