/* check_parts - what the parts of check share */
#ifndef LLMC_CHECK_PARTS_H
#define LLMC_CHECK_PARTS_H

#include "check.h"
#include "json.h"
#include "recipe.h"
#include "safetensors.h"

/* Tensors of a module by the last component of their names; those from PACKED on are there for quantisation alone. */
enum part {
    PART_WEIGHT, PART_BIAS, PART_PACKED, PART_SCALE, PART_ZERO, PART_GLOBAL, PART_SHAPE, PART_GROUP_INDEX,
    PART_IN_SCALE, PART_IN_ZERO, PART_IN_GLOBAL, PART_OUT_SCALE, PART_OUT_ZERO, PART_K_SCALE, PART_V_SCALE,
    PART_Q_SCALE, PART_COUNT
};

struct check_file {
    char          *name;
    struct st_file st; /* st.path is NULL: it could not be opened, which was reported */
};

struct check_tensor {
    const struct tensor *t;
    int                  file;
};

struct check_module {
    char                *name;
    const struct tensor *part[PART_COUNT]; /* NULL: absent */
    bool                 linear;           /* of class Linear, as far as names and shapes tell */
    int                  group;            /* of check.recipe; -1: not compressed */
    int64_t              rows, cols;       /* of the weight; 0: not known */
};

struct check_group {
    const char *name;
    bool        by_index; /* actorder group: columns have weight_g_idx */
};

struct check {
    const char              *dir;
    const struct check_opts *o;
    int                      findings;
    char                   **names; /* of regular files in the directory, sorted */
    size_t                   name_count;
    json_t                  *config, *index; /* index NULL: none */
    struct check_file       *files;
    int                      file_count;
    bool                     unread; /* a file with tensors could not be opened: nothing is missing for sure */
    struct check_tensor     *tensors; /* by name, then file */
    size_t                   count;
    struct check_module     *modules; /* by name: those with tensors and their ancestors */
    size_t                   module_count;
    /* from config.json */
    bool                quantized; /* has a quantization_config of compressed-tensors */
    enum dtype          t;         /* of the model; DT_NONE: not said */
    struct recipe      *recipe;    /* groups that are fine; NULL: none */
    struct check_group *groups;    /* beside recipe->groups */
    bool                bad_group; /* some are not fine: modules without a scheme may belong to them */
    bool                tied, cache, attention; /* kv_cache_scheme is set; a group is for attention */
};

void check_finding(struct check *c, enum check_rule rule, const char *subject, const char *fmt, ...) PRINTF(4, 5);
struct check_module *check_module(const struct check *c, const char *name, size_t len); /* NULL: none */
const struct check_tensor *check_tensor(const struct check *c, const char *name);       /* NULL: none */
bool check_has_name(const struct check *c, const char *file); /* in the directory */
const char *check_part_name(enum part p);

/* Each fills its part of c and reports findings; RC_ codes only for what cannot be gone on without. */
int  check_files(struct check *c);
int  check_config(struct check *c);
/* After modules are there: which have which scheme, and whether ignore lists and targets mean something. */
int  check_config_modules(struct check *c);
void check_tensors(struct check *c); /* names, types and shapes of every module */
void check_values(struct check *c);  /* after check_tensors: of tensors whose shape is right */
void check_fused(struct check *c);
int  check_source(struct check *c);

#endif
