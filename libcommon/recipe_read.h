/* recipe_read - what the parts of recipe share: building one, modifier by modifier */
#ifndef LLMC_RECIPE_READ_H
#define LLMC_RECIPE_READ_H

#include "recipe.h"
#include "yaml.h"

#define RECIPE_DAMPENING 0.01
#define RECIPE_CORRECT   CORRECT_RESIDUAL /* what "true" is */
#define RECIPE_LAMBDA    0.3

enum { RECIPE_BLOCK = 128, RECIPE_BLOCK_MAX = 1 << 20 };

/* Where the reader is: line is that of the key at hand, 0 without lines. */
struct reading {
    struct recipe           *r; /* NULL: a cache scheme alone is read */
    const struct yaml_lines *lines;
    size_t                   line;
};

/* recipe.c */
struct recipe *recipe_new(const char *origin); /* NULL: out of memory */
/* With *rc given: *out is r, or NULL and r is freed. Returns rc. */
int  recipe_done(struct recipe *r, int rc, struct recipe **out);
/* A string, or a list of strings, as a new list. */
int  recipe_list(const json_t *v, const char *key, json_t **out);
int  recipe_add_modifier(struct recipe *r, const char *stage, const char *group, const char *name,
    struct recipe_modifier **out);
/* Compiles targets or an ignore list. prefix: of the entries' why. */
int  recipe_entries(const json_t *list, const char *prefix, struct recipe_entry **out, int *count);
int  recipe_add_group(struct recipe *r, const char *name, const json_t *targets,
    struct recipe_group **out);

bool recipe_minmax(const char *observer); /* one of the minmax observers */

/* recipe_read.c: a modifier from its arguments */
int recipe_read_modifier(struct reading *rd, const char *stage, const char *group,
    const char *name, const json_t *args);
void recipe_at(struct reading *rd, const json_t *mapping, const char *key);

/* recipe_args.c: schemes as mappings */
int recipe_args_scheme(struct reading *rd, struct recipe_group *g, const json_t *mapping);
int recipe_args_saved(const struct recipe_group *g, json_t **out);
int recipe_args_cache(struct reading *rd, const json_t *mapping, struct qargs *args, json_t **saved);

#endif
