/* recipe - which module gets which scheme, and how it is rounded
 *
 * Read from LLM Compressor's YAML (llmc-recipe(5)): stages, in them groups of modifiers, of which GPTQModifier and
 * QuantizationModifier are known; everything unknown is refused by name. Or made from a preset's name. A recipe owns
 * its strings; it is written into the plan as JSON and read back from there.
 */
#ifndef LLMC_RECIPE_H
#define LLMC_RECIPE_H

#include "json.h"
#include "match.h"
#include "scheme.h"

struct recipe_group {
    char         *name;    /* "group_0" */
    struct scheme scheme;
    json_t       *targets; /* list of strings, as written */
    struct match *match;
    int           match_count;
    bool          gptq;    /* else plain rounding */
    bool          actorder; /* columns by descending diagonal */
    double        dampening_frac;
    int           block_size;
    bool         *used;    /* by target: some module matched it */
};

struct recipe {
    struct recipe_group *groups;
    int                  group_count;
    json_t              *ignore; /* list of strings */
    struct match        *ignore_match;
    int                  ignore_count;
    bool                *ignore_used;
    bool                 bypass_divisibility;
};

/* What -s SCHEME -g GROUP means: targets Linear, ignore lm_head. group 0: the preset's; -1: one a row. */
int  recipe_preset(struct recipe **out, const char *scheme, int group, bool gptq);
int  recipe_read(struct recipe **out, const char *path);
void recipe_free(struct recipe *r);

int recipe_json(const struct recipe *r, json_t **out);
int recipe_from_json(struct recipe **out, const json_t *json);
/* From a compressed checkpoint's quantization_config: groups and ignore list. */
int recipe_from_config(struct recipe **out, const json_t *quantization_config);
/* As LLM Compressor saves it: YAML with defaults filled in. mem_free the text. */
int recipe_yaml(const struct recipe *r, char **out);

/* Group of a module by its qualified name and class ("Linear"); -1: none, and *why says so when it is not NULL. */
int recipe_find(struct recipe *r, const char *module, const char *class_name, const char **why);
/* After recipe_find was asked for every module: RC_DATA names a target or an ignore entry that matched nothing. */
int recipe_check_used(const struct recipe *r);

bool recipe_needs_hessian(const struct recipe *r, int group);

#endif
