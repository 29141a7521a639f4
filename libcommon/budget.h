/* budget - how much memory each stage needs, before it starts
 *
 * The memory model: what a stage holds at its busiest moment, from the plan and the model's shapes alone. Anonymous and
 * shared memory count; mapped files (weights, Hessians on their way to llmc-gptq, states on disk) do not, since the
 * kernel takes their pages back. llmc-shard --plan prints it, every stage checks its limit against it, and llmc run
 * shares a limit between the stages of a pipeline by it. Nothing here decides a byte of the result.
 *
 * There are ways to do with less: small modules one by one, fewer frames in shared memory, then hidden states in a
 * file. The first way that fits is taken.
 */
#ifndef LLMC_BUDGET_H
#define LLMC_BUDGET_H

#include "plan.h"

enum { BUDGET_PARTS = 12 };

enum budget_stage { BUDGET_CALIB, BUDGET_HESSIAN, BUDGET_GPTQ, BUDGET_STAGES };

struct budget_part {
    const char *what, *help; /* help: what would make it smaller; NULL: nothing */
    double      bytes;
};

struct budget {
    struct budget_part part[BUDGET_PARTS];
    int                count;
};

/* How llmc-calib and llmc-gptq work. */
struct budget_way {
    int  slots; /* frames in shared memory; 0: there is no reader for them */
    bool disk;  /* hidden states and pending inputs lie in a file */
    bool side;  /* small modules are compressed side by side (plan_step_side) */
};

enum { BUDGET_WAYS = 6 };

/* From the one that takes most memory to the one that takes least. */
extern const struct budget_way budget_ways[BUDGET_WAYS];

/* Whose: a rank, or -1: the worst of all ranks in each respect. */
struct budget_of {
    const struct plan *plan;
    const struct arch *arch;
    int                rank, threads;
};

double budget_total(const struct budget *b);
void   budget_add(struct budget *b, const char *what, const char *help, double bytes);

/* At the busiest moment of a step: of llmc-calib while it computes, or idle while it waits for the others. */
void budget_calib(struct budget *b, const struct budget_of *o, const struct budget_way *way, int step, bool idle);
void budget_hessian(struct budget *b, const struct budget_of *o, int step);
void budget_gptq(struct budget *b, const struct budget_of *o, int step, bool side);

/* llmc-eval: so many tokens in all, block of them at once; compressed: weights are decoded one by one. disk: hidden
 * states lie in a file. */
struct budget_eval {
    const struct arch *arch;
    enum dtype         dt; /* of activations */
    int                threads;
    bool               compressed;
    double             tokens, block;
};

void budget_eval(struct budget *b, const struct budget_eval *e, bool disk);

/* llmc-pack; decoded: bytes of the largest weight that it makes dense. */
void budget_pack(struct budget *b, int threads, double decoded);

/* The worst step of a stage. */
void budget_stage(struct budget *b, const struct budget_of *o, enum budget_stage stage, const struct budget_way *way);
/* The worst moment of three stages in a pipe: calib and hessian work at the same time, then gptq does. */
void budget_pipeline(struct budget *b, const struct budget_of *o, const struct budget_way *way);

/* The first way whose stage, or whose pipeline, fits the limit; RC_OS: none does; the sentence has the largest part and
 * what would help. In both cases *b is what the last way that was looked at needs. piped: frames have a reader. */
int budget_choose(struct budget *b, struct budget_way *way, const struct budget_of *o, bool piped, size_t limit);
int budget_choose_pipeline(struct budget *b, struct budget_way *way, const struct budget_of *o, size_t limit);
/* RC_OS, that sentence, when b is more than the limit. */
int budget_check(const struct budget *b, size_t limit);

/* "1.7 GB: factor 0.8 GB, ..." largest first; at most size bytes. */
void budget_text(const struct budget *b, char *out, size_t size);

/* What this process may use: the memory cgroup's limit (v2, v1) or the machine's memory, less a margin of an eighth,
 * at most 1 GiB. root: where file systems are, "" but in tests. */
size_t budget_limit(const char *root);

#endif
