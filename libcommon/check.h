/* check - what vLLM and transformers rely on in a compressed-tensors checkpoint, held against its files
 *
 * Reads any checkpoint of that format, by whatever program: directory, index, config.json, then one tensor after the
 * other, mapped and let go again. Everything wrong becomes a finding, which is a rule of the table, a subject (a file,
 * a module, a tensor) and a sentence; findings do not stop the check. A plain checkpoint is held to the rules that do
 * not need a quantization_config.
 *
 * Modules are known by the names of their tensors: a weight of two dimensions belongs to a Linear unless its name says
 * embedding. Of model families in arch.h the shapes that config.json asks for are checked, too.
 */
#ifndef LLMC_CHECK_H
#define LLMC_CHECK_H

#include "scheme.h"

enum check_rule {
    /* directory */
    CHECK_FILE, CHECK_METADATA, CHECK_INDEX, CHECK_TOTAL_SIZE, CHECK_STALE, CHECK_DUPLICATE, CHECK_SIDE_FILE,
    CHECK_TIED,
    /* config.json */
    CHECK_CONFIG, CHECK_ARGS, CHECK_FORMAT, CHECK_IGNORE, CHECK_TARGET,
    /* tensors of modules */
    CHECK_MISSING, CHECK_LEFTOVER, CHECK_DTYPE, CHECK_SHAPE, CHECK_FUSED, CHECK_SHARED_SCALE,
    /* their values */
    CHECK_SCALE, CHECK_ZERO_POINT, CHECK_CODE, CHECK_PADDING, CHECK_GROUP_INDEX, CHECK_NOT_FINITE,
    /* against the source */
    CHECK_DROPPED, CHECK_CHANGED, CHECK_EXTRA,
    CHECK_RULE_COUNT
};

/* By enum check_rule. */
extern const struct check_row {
    const char *name, *sentence;
} check_rules[CHECK_RULE_COUNT];

typedef void check_report_fn(void *ctx, enum check_rule rule, const char *subject, const char *what);

struct check_opts {
    const char      *against; /* what it was made from; NULL: the model that provenance.json names; "": whatever */
    bool             quick;   /* structure and scales only: no codes, no dense values, no comparison of bytes */
    check_report_fn *report;  /* NULL: findings are counted only */
    void            *ctx;
};

/* *findings: how many. RC_OK also with findings; RC_NOINPUT, RC_DATA, RC_IO: what is needed to begin cannot be read
 * (the directory, config.json, any weights; the source). */
int check_run(const char *dir, const struct check_opts *o, int *findings);

/* Whether the runtime fuses both modules into one layer, by their names: q, k and v; gate and up; ... */
bool check_fused_names(const char *a, const char *b);
/* Whether modules with these schemes can be fused. */
bool check_fused_schemes(const struct scheme *a, const struct scheme *b);

#endif
