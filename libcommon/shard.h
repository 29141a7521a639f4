/* shard - make a plan from a model, a recipe and data (llmc-shard, and the checks before any work)
 *
 * shard_open reads the model's headers, matches every module, cuts steps and tasks, and assigns ranks; shard_write
 * tokenises and writes the work directory, plan.json last. An existing plan with the same fingerprint is left alone;
 * another one is refused by what differs.
 */
#ifndef LLMC_SHARD_H
#define LLMC_SHARD_H

#include "inventory.h"
#include "plan.h"
#include "tok.h"

struct shard_opts {
    const char     *model, *scheme, *recipe, *observer, *data, *columns; /* columns: see text.h */
    const char *const *chat; /* see chat.h */
    int             group, samples, length, min_length, block_tokens, ranks;
    const char     *stage; /* of the recipe; NULL: all */
    bool            gptq, pack, count_padding, v10, replan, correct;
    bool            config; /* a model that is config.json alone will do: nothing will be written */
    enum tok_special special;
    enum sequential sequential;
    enum experts    experts;
    int             expert_tokens;
};

struct shard_module {
    char        name[ARCH_NAME_MAX];
    int         layer; /* -1: outside the layers */
    struct linear linear;
    int         group; /* -1: not compressed */
    const char *why;
};

struct shard {
    struct plan          plan;
    struct model         model;
    struct arch          arch;
    struct shard_module *modules;
    int                  module_count;
    struct inventory     carried; /* tensors that the forward pass does not use */
};

int  shard_open(struct shard *s, const char *dir, const struct shard_opts *o);
/* Blocks of the data, or without data of as many samples of full length as were asked for: to predict with. */
int  shard_blocks(struct shard *s, const struct shard_opts *o);
int  shard_write(struct shard *s, const struct shard_opts *o);
void shard_close(struct shard *s);

#endif
