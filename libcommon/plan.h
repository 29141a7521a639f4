/* plan - the work directory: settings, steps, tasks, blocks, and where each file lies
 *
 *     plan.json     settings, recipe, fingerprints; written once, last, by llmc-shard: a directory without it is no
 * plan
 *     steps.tsv     step layer points tasks tokens
 *     tasks.tsv     task step point module first_row end_row rows cols scheme rank cost
 *     blocks.tsv    block samples tokens digest rank
 *     tokens/BLOCK.safetensors      "input_ids" I32 [tokens], "lengths" I32 [samples]
 *     weights/TASK.safetensors      a symlink to the source shard until it is compressed, then a file by one rename
 *     hessian/STEP/POINT.safetensors        POINT.pipe.safetensors in a pipeline: for its reader alone
 *     state/STEP/BLOCK.safetensors  "hidden", and "pending" at points that have one
 *     log/TOOL.RANK.jsonl
 *
 * A step is a set of modules whose inputs are captured together and that are all compressed before the model moves on:
 * one capture point of one layer (--sequential input), or all four of a layer (layer, none). A task is a range of rows
 * of one module; or the scales of what an attention caches, which come with point o: then the module is the attention,
 * its rows are 2 (keys, values) and its columns the width of either. Whatever changes the result is in plan.json and in
 * its fingerprint, which every file made under the plan carries; columns named rank are the only part that depends on
 * the number of ranks.
 */
#ifndef LLMC_PLAN_H
#define LLMC_PLAN_H

#include "arch.h"
#include "digest.h"
#include "model.h"
#include "recipe.h"

enum { PLAN_ALGORITHM = 2 }; /* changes when the bytes of a result change */

/* Small: up to so many columns and weights. Many: so many of them. */
enum { SIDE_COLS = 4096, SIDE_WEIGHTS = 8 << 20, SIDE_MANY = 16 };

/* What an expert's Hessians are summed over: all tokens, or those that are routed to it. */
enum experts { EXPERTS_ALL, EXPERTS_ROUTED };

enum sequential { SEQUENTIAL_INPUT, SEQUENTIAL_LAYER, SEQUENTIAL_NONE };

struct step {
    int layer;
    int first_point, end_point; /* captured here */
    int first_task, end_task;   /* in plan.tasks, which are sorted by step */
};

struct task {
    char      *name;   /* of its file: the module, and "@FIRST-END" when it is a part */
    char      *module;
    int        step;
    enum point point; /* input: of its expert, where that has one of its own (arch_expert_point) */
    int        row0, end; /* rows of it */
    int        rows, cols; /* of the module */
    int        group;     /* in the recipe; -1: cache scales */
    int        rank;
    double     cost;      /* multiply-adds: n^3 / 3 + rows n^2; more of corrected ones */
};

struct block {
    int  samples, tokens;
    char digest[DIGEST_HEX];
    int  rank;
};

struct plan {
    char           *dir;
    char           *model;      /* absolute path; in plan.json as links.h has it */
    char            fingerprint[DIGEST_HEX];
    char            model_fingerprint[DIGEST_HEX], data_fingerprint[DIGEST_HEX];
    enum sequential sequential;
    int             block_tokens; /* samples are gathered into blocks up to so many tokens */
    enum experts    experts;
    int             expert_tokens; /* with fewer of them an expert is rounded plainly */
    int             ranks;
    struct recipe  *recipe;
    json_t         *json;
    struct step    *steps;
    struct task    *tasks;
    struct block   *blocks;
    int            *by_module;  /* tasks by module, then rows; of plan_read */
    int             step_count, task_count, block_count;
    int64_t         tokens, samples;
};

/* RC_NOINPUT: no plan there. RC_DATA: malformed. */
int  plan_read(struct plan *p, const char *dir);
void plan_free(struct plan *p);

/* p->json holds all settings but fingerprint; computes it and writes tables and plan.json. */
int plan_write(struct plan *p);
/* Tables alone, after a change of ranks. */
int plan_write_tables(const struct plan *p);

const char     *sequential_name(enum sequential s);
enum sequential sequential_find(const char *name); /* names as in --sequential; unknown: INPUT */
extern const char *const experts_names[]; /* as in --experts; ends with NULL */
extern const char *const sequential_names[];       /* ends with NULL */

/* Path of a file in the work directory, in a buffer of PATH_MAX; RC_DATA when it does not fit. */
int plan_path(const struct plan *p, char *out, const char *fmt, ...) PRINTF(3, 4);
int plan_task_path(const struct plan *p, const struct task *t, char *out);

/* Compressed: a real file stands where the symlink was. */
bool plan_task_done(const struct plan *p, const struct task *t);
bool plan_step_done(const struct plan *p, int step);
int  plan_tasks_left(const struct plan *p);

/* What llmc-calib must send for a task, and llmc-hessian make of it. */
bool plan_task_cache(const struct task *t);                               /* scales of a cache */
bool plan_task_inputs(const struct plan *p, const struct task *t);        /* inputs of the point */
bool plan_task_waits(const struct plan *p, const struct task *t);         /* either */
bool plan_point_sum(const struct plan *p, int step, enum point point);    /* some task needs the Hessian */
bool plan_point_range(const struct plan *p, int step, enum point point);  /* some task needs ranges */
bool plan_task_corrected(const struct plan *p, const struct task *t); /* it aims at the original's outputs */
/* Inputs come in pairs with the original's: some task of the point, some task at all. */
bool plan_point_pairs(const struct plan *p, int step, enum point point);
bool plan_pairs(const struct plan *p);
/* Of pairs: the block is kept out of all sums, to see how far what they teach holds. The last sixteenth of eight blocks
 * or more. */
bool plan_block_held(const struct plan *p, int block);
/* Of a step, those of a rank that are small, if there are many: llmc-gptq takes them side by side, one a thread. */
int  plan_step_side(const struct plan *p, int step, int rank);
bool plan_task_side(const struct plan *p, const struct task *t); /* is one of them */
/* "W4A16", ..., "kv_cache" */
const char *plan_task_scheme(const struct plan *p, const struct task *t);

/* -m of all tools: a glob over module and task names; NULL matches all. */
bool plan_task_match(const struct task *t, const char *glob);
bool plan_any_match(const struct plan *p, const char *glob); /* some task does */

/* The task of that name; NULL: none. */
const struct task *plan_task_find(const struct plan *p, const char *name);
/* First task of a module, *count of them in order of rows; NULL: the module is not compressed. */
const struct task *plan_module(const struct plan *p, const char *module, int *count);

/* SHA-256 of what identifies a checkpoint without reading all of it: config, and of each shard its name, size, header
 * and sixteen evenly spaced pieces of 64 KiB. */
int plan_model_fingerprint(const struct model *m, char out[DIGEST_HEX]);

#endif
