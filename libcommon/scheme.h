/* scheme - THE table of compression schemes, and what follows from one
 *
 * A scheme says how weights, and at run time their inputs, are quantised; its fields are those of compressed-tensors'
 * QuantizationArgs. Presets are rows; anything else starts from scheme_init() or a preset, is changed field by field
 * with scheme_set(), and is checked and completed by scheme_finish(). Structs own nothing and are copied freely.
 */
#ifndef LLMC_SCHEME_H
#define LLMC_SCHEME_H

#include "../kernels/pack.h"
#include "../kernels/quant.h"

#include <jansson.h>
#include <stdbool.h>

enum { SCHEME_NAME_MAX = 32 };

enum qtype    { QTYPE_INT, QTYPE_FLOAT };
enum dynamic  { DYNAMIC_NO, DYNAMIC_YES, DYNAMIC_LOCAL };
enum actorder { ACTORDER_UNSET, ACTORDER_NONE, ACTORDER_STATIC, ACTORDER_WEIGHT, ACTORDER_GROUP, ACTORDER_DYNAMIC };

/* ARGS_UNSET: not given, to be inferred. The first five have the values of enum qstrategy. */
enum args_strategy {
    ARGS_TENSOR, ARGS_CHANNEL, ARGS_GROUP, ARGS_TENSOR_GROUP, ARGS_BLOCK, ARGS_TOKEN, ARGS_ATTN_HEAD, ARGS_UNSET
};

/* On-disk formats. */
enum qformat {
    QFORMAT_INFER, QFORMAT_DENSE, QFORMAT_PACK, QFORMAT_INT, QFORMAT_FLOAT, QFORMAT_NVFP4, QFORMAT_MXFP4, QFORMAT_MXFP8,
    QFORMAT_NAIVE
};

struct qargs {
    int                bits;
    enum qtype         type;
    bool               symmetric;
    enum args_strategy strategy;
    int                group;    /* 0: null */
    int                block[2]; /* rows, columns; 0: null */
    enum dynamic       dynamic;
    enum actorder      actorder;
    enum dtype         scale_dtype; /* DT_NONE: null, the model's; DT_F8_E4M3; DT_U8, which means e8m0 */
    char               observer[SCHEME_NAME_MAX]; /* "": null */
};

struct scheme {
    char         name[SCHEME_NAME_MAX]; /* the preset that it came from; "" else */
    bool         has_weights;           /* false: UNQUANTIZED */
    bool         v10;                   /* what scheme_finish() checks is LLM Compressor 0.10's */
    struct qargs weights;
    bool         has_input;
    struct qargs input;  /* of activations, at run time */
    enum qformat format; /* after scheme_finish: never INFER, except for UNQUANTIZED */
};

/* A preset by name, any case. v10: as LLM Compressor 0.10 has it (W8A16 a channel, FP8 inputs memoryless), which has
 * fewer. RC_DATA: no such name. The result is finished. */
int         scheme_find(struct scheme *out, const char *name, bool v10);
const char *scheme_preset(int i); /* names in the table's order; NULL after the last */

/* Weights of 8-bit symmetric int, no input, all else unset. */
void scheme_init(struct scheme *s);
void scheme_args_init(struct qargs *a);

/* Sets one field of QuantizationArgs by its name there and its value as text: "null", "true", "-1", "[128, 128]",
 * "torch.uint8", ... RC_DATA: unknown key or bad value. */
int scheme_set(struct qargs *a, const char *key, const char *value);
int scheme_set_format(struct scheme *s, const char *name); /* RC_DATA */

/* The -g option: integer weights in groups of so many columns, -1: one a row. RC_DATA for other weights. */
int scheme_set_group(struct scheme *s, int group);

/* Infers strategy, scale type, observer and format, and checks the rules between fields. RC_DATA. */
int scheme_finish(struct scheme *s);

/* Whether a [rows, cols] weight can be compressed so; RC_DATA says why not. */
int scheme_check(const struct scheme *s, int rows, int cols);

/* Whether inputs of that many columns are whole groups: neither vLLM nor compressed-tensors pads a row of inputs. */
bool scheme_input_fits(const struct scheme *s, int64_t cols);

/* For kernels; t is the model's type. v10: GPTQ as LLM Compressor 0.10 does it (plain rounding never asks for it). */
void scheme_qspec(const struct scheme *s, enum dtype t, bool v10, struct qspec *out);
/* The same of any arguments but those of strategies that are for activations alone. */
void scheme_args_qspec(const struct qargs *a, enum dtype t, struct qspec *out);

const char *scheme_format_name(enum qformat f);           /* "pack-quantized", ...; NULL for INFER */
enum pack   scheme_pack(const struct scheme *s);          /* layout of weight codes on disk; not for DENSE */
bool        scheme_zeros_packed(const struct scheme *s);  /* zero points lie in words, too; else int8 */
bool        scheme_global(const struct scheme *s);        /* weights have a global scale */
bool        scheme_input_static(const struct scheme *s);  /* inputs need a scale from calibration */
bool        scheme_ordered(const struct scheme *s);       /* columns by descending diagonal of H */
bool        scheme_order_group(const struct scheme *s);   /* and groups are of columns in that order (v10 alone) */
const char *scheme_actorder_name(enum actorder a);        /* NULL: none */
/* Names of one order are alike: static and weight, group and dynamic, and those that mean none. */
bool        scheme_actorder_same(enum actorder a, enum actorder b);

/* The entry of config_groups for the given targets (a list; a reference is added). RC_OS. */
int scheme_json(const struct scheme *s, json_t *targets, json_t **out);
json_t *scheme_args_json(const struct qargs *a); /* NULL: out of memory */

#endif
