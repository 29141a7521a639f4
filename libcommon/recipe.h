/* recipe - which module gets which scheme, and how it is rounded
 *
 * Read from LLM Compressor's YAML (llmc-recipe(5)): stages, in them groups of modifiers, in them
 * GPTQModifier and QuantizationModifier with arguments; everything unknown is refused by name and
 * line. Or made from a preset's name. It is written into the plan as JSON and read back from there.
 *
 * Modifiers are kept in order. A module belongs to the first that targets and does not ignore it;
 * that a later one targets it too is an error. GPTQModifier without a scheme adds no groups but
 * makes GPTQ of those of the QuantizationModifiers before it, in the order of columns that each
 * of them has.
 *
 * Order of calls: read (or make), recipe_find() for every module, recipe_check_used().
 */
#ifndef LLMC_RECIPE_H
#define LLMC_RECIPE_H

#include "json.h"
#include "match.h"
#include "observer.h"
#include "scheme.h"

#define RECIPE_OBSERVER "imatrix_mse"

#define RECIPE_V10 "0.10" /* in plan.json, and of --compat */

enum { RECIPE_MODIFIERS_MAX = 100, RECIPE_GROUPS_MAX = 1000 };

/* Of targets or of ignore. */
struct recipe_entry {
    struct match match;
    char        *why;  /* "ignored by ENTRY" or "left alone by ENTRY": why a module has no scheme */
    bool         used; /* some module matched it */
};

/* Which modules aim at the original's outputs (correct.h): none, those that add to the residual stream, all. */
enum recipe_correct { CORRECT_NONE, CORRECT_RESIDUAL, CORRECT_ALL };

const char *recipe_correct_name(enum recipe_correct c);

struct recipe_group {
    char                *name;   /* "group_0" */
    struct scheme        scheme; /* without weights (UNQUANTIZED): its modules are left alone */
    json_t              *targets; /* list of strings, as written */
    struct recipe_entry *entries; /* of targets */
    int                  entry_count;
    json_t              *weight_kwargs, *input_kwargs; /* observer_kwargs; NULL: none */
    bool                 gptq;     /* else plain rounding */
    bool                 actorder; /* columns by descending diagonal */
    double               dampening_frac;
    int                  block_size;
    enum recipe_correct  correct;
    double               correct_lambda;
};

struct recipe_modifier {
    char                *stage, *group; /* without "_stage" and "_modifiers" */
    char                *name;          /* "GPTQModifier", "QuantizationModifier" */
    json_t              *args; /* those not null, defaults filled in, in LLM Compressor's order */
    struct recipe_entry *ignore;
    int                  ignore_count;
    int                  first_group, end_group;
    bool                 gptq;
};

struct recipe {
    char                   *origin; /* file; NULL: none */
    struct recipe_modifier *modifiers;
    int                     modifier_count;
    struct recipe_group    *groups;
    int                     group_count;
    bool                    bypass_divisibility;
    bool                    v10; /* as LLM Compressor 0.10 does it */
    bool                    has_cache;
    struct qargs            cache; /* of keys and values: 8-bit floats, static, tensor or attn_head */
    char                   *problem; /* the first that recipe_find() met; NULL: none */
};

/* How a recipe is read. */
struct recipe_opts {
    const char *stage; /* those whose name starts so; NULL: all */
    bool        v10;
};

/* What -s SCHEME -g GROUP means: targets Linear, ignore lm_head. group 0: the preset's; -1: one a
 * row. observer of weights NULL: of GPTQ RECIPE_OBSERVER, as in share/recipes; of plain rounding,
 * which then needs no data, and of v10 minmax. */
int  recipe_preset(struct recipe **out, const char *scheme, int group, bool gptq,
    const char *observer, bool v10, bool correct);
/* o NULL: all stages, not v10. */
int  recipe_read(struct recipe **out, const char *path, const struct recipe_opts *o);
int  recipe_read_mem(struct recipe **out, const char *text, size_t len, const char *subject,
    const struct recipe_opts *o);
void recipe_free(struct recipe *r);

/* Modifiers as they were read and groups as they were resolved: the whole of the recipe. */
int recipe_json(const struct recipe *r, json_t **out);
/* RC_DATA also when its modifiers do not give its groups: another version wrote it. */
int recipe_from_json(struct recipe **out, const json_t *json);
/* From a compressed checkpoint's quantization_config: groups and ignore list, to find schemes. */
int recipe_from_config(struct recipe **out, const json_t *quantization_config);
/* recipe.yaml as LLM Compressor saves it, and reads it: one stage, defaults filled in. mem_free
 * the text. */
int recipe_yaml(const struct recipe *r, char **out);

/* Group of a module by its qualified name and its class and bases, separated by spaces ("Linear");
 * -1: none, and *why, which lives as long as r, says so when it is not NULL. */
int recipe_find(struct recipe *r, const char *module, const char *classes, const char **why);

/* After recipe_find() was asked for every module: RC_DATA names a target or an ignored name that
 * matched nothing (of an ignored pattern it warns), a module that two modifiers claim, or what is
 * read but cannot be done: observers of static inputs other than the minmax ones, observer_kwargs of
 * inputs. */
int recipe_check_used(const struct recipe *r);

/* How scales of a group's weights are chosen; spec is theirs, ->diag and ->errors are the caller's. RC_DATA. */
int recipe_scale_opts(const struct recipe_group *g, const struct qspec *spec,
    struct scale_opts *out);
/* The entry of config_groups. RC_OS. */
int recipe_group_config(const struct recipe_group *g, json_t **out);

/* GPTQ, or a search for scales that weighs columns by its diagonal. */
bool recipe_needs_hessian(const struct recipe *r, int group);
bool recipe_needs_inputs(const struct recipe *r, int group); /* Hessian, or ranges for static scales */
bool recipe_corrects(const struct recipe *r); /* some group of it does */
/* args (of a copy) as they are done, for config.json: static scales of activations follow from the extremes of all
 * tokens, whichever of the minmax observers is asked for. */
void recipe_observer_done(struct qargs *args);

#endif
