/* llmc-shard - plan a compression: tokens, steps, tasks, ranks */
#include "../libcommon/file.h"
#include "../libcommon/links.h"
#include "../libcommon/mem.h"
#include "../libcommon/msg.h"
#include "../libcommon/predict.h"
#include "../libcommon/replan.h"
#include "../libcommon/run.h"
#include "../libcommon/shard.h"
#include "../libcommon/stop.h"
#include "../libcommon/shares.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const algos[] = { "gptq", "rtn", NULL };
static const char *const compats[] = { "0.14", RECIPE_V10, NULL };
static const char *const specials[] = { "never", "always", "once", NULL }; /* as enum tok_special */

enum { RANKS_LIST_MAX = 32 };

static struct {
    struct shard_opts o;
    const char *dir, *algo, *sequential, *special, *compat, *experts;
    struct opt_list chat;
    const char *ranks;
    int         list[RANKS_LIST_MAX], list_count, shares, threads;
    size_t      memory;
    bool        plan_only, relink, quiet;
} cfg = { .o = { .samples = 512, .length = 2048, .min_length = 1, .block_tokens = 2048, .ranks = 1,
    .expert_tokens = 256 }, .dir = ".", .experts = "all",
    .algo = "gptq", .sequential = "input", .special = "once", .compat = "0.14" };

static const struct opt options[] = {
    OPT_STR('C', "workdir", &cfg.dir, "dir", "work directory to make (default: the current one)"),
    OPT_STR('m', "model", &cfg.o.model, "dir", "checkpoint to compress"),
    OPT_STR('s', "scheme", &cfg.o.scheme, "name", "preset scheme, such as W4A16"),
    OPT_STR('r', "recipe", &cfg.o.recipe, "file", "recipe (llmc-recipe(5)) instead of a scheme"),
    OPT_INT('g', "group", &cfg.o.group, -1, 1 << 20, "n", "columns that share a scale; -1: the whole row"),
    OPT_CHOICE('a', "algorithm", &cfg.algo, algos, "name", "with -s: gptq, or rtn for plain rounding"),
    OPT_STR(0, "stage", &cfg.o.stage, "name", "with -r: stages whose name starts so (default: all)"),
    OPT_CHOICE(0, "compat", &cfg.compat, compats, "version", "rules of LLM Compressor: 0.14 or 0.10"),
    OPT_STR(0, "observer", &cfg.o.observer, "name", "with -s: choice of scales (default: imatrix_mse; of rtn: minmax)"),
    OPT_FLAG(0, "correct", &cfg.o.correct, "with -s: aim at the original's outputs, not at those of compressed inputs"),
    OPT_STR('d', "data", &cfg.o.data, "file", "calibration data: text, JSON lines, token ids; file, tar or directory"),
    OPT_INT('n', "samples", &cfg.o.samples, 1, 1 << 30, "n", "calibration samples, the first so many"),
    OPT_INT('l', "length", &cfg.o.length, 1, 1 << 24, "n", "tokens of a sample at most"),
    OPT_INT(0, "min-length", &cfg.o.min_length, 1, 1 << 24, "n", "leave shorter samples out"),
    OPT_FLAG(0, "pack", &cfg.o.pack, "join samples and cut them to full length"),
    OPT_STR(0, "columns", &cfg.o.columns, "names", "of JSON lines: text, ids, messages, or \"prompt,response\""),
    OPT_LIST(0, "chat", &cfg.chat, "name=value", "what the chat template sees, such as today=2025-01-31"),
    OPT_CHOICE(0, "special", &cfg.special, specials, "when", "special tokens around a text: once, always, never"),
    OPT_FLAG(0, "count-padding", &cfg.o.count_padding, "use tokens that an attention mask excludes"),
    OPT_CHOICE(0, "sequential", &cfg.sequential, sequential_names, "mode", "input, layer or none"),
    OPT_CHOICE(0, "experts", &cfg.experts, experts_names, "tokens", "that experts are calibrated with: all, or routed"),
    OPT_INT(0, "expert-tokens", &cfg.o.expert_tokens, 0, 1 << 30, "n", "with fewer, an expert is rounded plainly"),
    OPT_INT(0, "block-tokens", &cfg.o.block_tokens, 1, 1 << 24, "n", "tokens that are summed together"),
    OPT_STR(0, "ranks", &cfg.ranks, "n", "ranks that will share the work (default: 1); with --plan also 1,2,4"),
    OPT_FLAG(0, "replan", &cfg.o.replan, "give what is not done of an existing plan to so many ranks"),
    OPT_FLAG(0, "relink", &cfg.relink, "work directory or model have moved: find the model, at -m or where it was"),
    OPT_FLAG(0, "plan", &cfg.plan_only, "print what each module gets and what it costs, and write nothing"),
    OPT_INT(0, "shares", &cfg.shares, 1, 1 << 20, "n", "print the memory of each stage where so many ranks run here"),
    OPT_SIZE(0, "memory", &cfg.memory, "bytes", "for --shares, of all ranks here (default: the cgroup's or machine's)"),
    OPT_INT('j', "threads", &cfg.threads, 1, 4096, "n", "for --shares, of each stage"),
    OPT_FLAG('q', "quiet", &cfg.quiet, "no progress"),
    OPT_END
};

static const struct tool tool = {
    .name = "llmc-shard", .options = options, .built_with = run_built_with,
    .about = "plan a compression: tokens, steps, tasks, ranks",
};

/* Every module of the model, its shape, and its scheme or why it has none; and the tensors carried over. */
static void
print_plan(const struct shard *s)
{
    double total = 0;
    char shape[256];

    for (int i = 0; i < s->module_count; i++) {
        const struct shard_module *m = &s->modules[i];

        (void)printf("%s\t[%d, %d]\t%s\n", m->name, m->linear.rows, m->linear.cols,
            m->group >= 0 ? s->plan.recipe->groups[m->group].scheme.name : m->why);
    }
    for (size_t i = 0; i < s->carried.count; i++)
        (void)printf("%s\t%s\tcarried over\n", s->carried.carried[i]->name,
            tensor_shape_text(s->carried.carried[i], shape, sizeof(shape)));
    for (int i = 0; i < s->plan.task_count; i++) {
        const struct task *t = &s->plan.tasks[i];

        if (plan_task_cache(t))
            (void)printf("%s\t[%d, %d]\t%s\n", t->module, t->rows, t->cols, plan_task_scheme(&s->plan, t));
        total += t->cost;
    }
    (void)printf("# %d modules, %d tasks in %d steps, %.3g multiply-adds to compress\n", s->module_count,
        s->plan.task_count, s->plan.step_count, total);
}

/* A line for each of several numbers of ranks. */
static int
print_predictions(struct shard *s)
{
    struct prediction one, p;
    const struct backend *bk;
    struct dev_opts o = { 0 };
    struct rates r;
    struct dev *dev;
    int rc;

    TRY(shard_blocks(s, &cfg.o));
    TRY(backend_find(&bk, NULL));
    TRY(bk->open(&dev, &o));
    rc = predict_rates(&r, bk, dev, s->arch.dtype == DT_BF16 ? DT_BF16 : DT_F32);
    bk->close(dev);
    TRY(rc);
    TRY(predict(&one, &s->plan, &s->arch, &r, 1));
    (void)printf("# %lld tokens; a rank of %d threads, 1e9 multiply-adds a second: forward %.0f, products %.0f, "
        "factor %.0f, rows %.0f; link %.0f GB/s\n", (long long)s->plan.tokens, r.threads, r.forward * 1e-9,
        r.products * 1e-9, r.factor * 1e-9, r.rows * 1e-9, r.link * 1e-9);
    (void)printf("ranks\tseconds\tcalibrate\treduce\tcompress\tlongest\timbalance\tmemory\tleast\tdisk\tefficiency\n");
    for (int i = 0; i < cfg.list_count; i++) {
        TRY(predict(&p, &s->plan, &s->arch, &r, cfg.list[i]));
        (void)printf("%d\t%.1f\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t%.0f\t%.0f\t%.0f\t%.3f\n", p.ranks, p.seconds,
            p.calibrate, p.reduce, p.compress, p.longest, p.imbalance, p.memory, p.least, p.disk,
            one.seconds / p.seconds / p.ranks);
    }
    return RC_OK;
}

/* What each stage of one rank's pipeline is to keep to. */
static int
print_shares(void)
{
    struct budget stage[BUDGET_STAGES], all;
    struct budget_way way;
    char text[512];

    TRY(shares_find(stage, &all, &way, cfg.dir, cfg.memory, cfg.shares, cfg.threads));
    for (int i = 0; i < BUDGET_STAGES; i++) {
        budget_text(&stage[i], text, sizeof(text));
        (void)printf("%s\t%.0f\t%s\n", budget_stages[i], ceil(budget_total(&stage[i])), text);
    }
    budget_text(&all, text, sizeof(text));
    (void)printf("pipeline\t%.0f\t%s\n", ceil(budget_total(&all)), text);
    return RC_OK;
}

static void
parse_ranks(void)
{
    int n = opt_numbers(cfg.ranks, 1 << 20, cfg.list, RANKS_LIST_MAX);

    if (n < 0)
        die(RC_USAGE, "--ranks is \"%s\", want a number of ranks%s", cfg.ranks, cfg.plan_only ? " or several" : "");
    if (n > RANKS_LIST_MAX || (n > 1 && !cfg.plan_only))
        die(RC_USAGE, "--ranks is \"%s\", too many numbers", cfg.ranks);
    cfg.list_count = n;
    cfg.o.ranks = cfg.list_count > 0 ? cfg.list[0] : 1;
}

int
main(int argc, char *argv[])
{
    struct shard s = { 0 };
    int rc;

    (void)opt_parse(&tool, argc, argv);
    stop_install();
    msg_quiet(cfg.quiet);
    parse_ranks();
    cfg.o.gptq = strcmp(cfg.algo, "gptq") == 0;
    cfg.o.v10 = strcmp(cfg.compat, RECIPE_V10) == 0;
    cfg.o.sequential = sequential_find(cfg.sequential);
    cfg.o.experts = strcmp(cfg.experts, experts_names[EXPERTS_ROUTED]) == 0 ? EXPERTS_ROUTED : EXPERTS_ALL;
    for (int i = 0; specials[i] != NULL; i++)
        if (strcmp(specials[i], cfg.special) == 0)
            cfg.o.special = (enum tok_special)i;
    cfg.o.chat = cfg.chat.value;
    cfg.o.config = cfg.plan_only;
    if (cfg.o.min_length > cfg.o.length)
        die(RC_USAGE, "--min-length is more than -l");
    if (cfg.shares > 0) {
        if ((rc = print_shares()) != RC_OK)
            msg_error(NULL, "%s", err_text());
        return msg_close_stdout(rc);
    }
    if (cfg.relink) {
        if ((rc = links_again(cfg.dir, cfg.o.model)) != RC_OK)
            msg_error(NULL, "%s", err_text());
        return msg_close_stdout(rc);
    }
    if (cfg.o.model == NULL && cfg.o.replan && !cfg.plan_only) {
        if ((rc = replan(cfg.dir, cfg.o.ranks)) != RC_OK)
            msg_error(NULL, "%s", err_text());
        return msg_close_stdout(rc);
    }
    if (cfg.o.model == NULL)
        die(RC_USAGE, "no model: give one with -m");
    if ((cfg.o.scheme == NULL) == (cfg.o.recipe == NULL))
        die(RC_USAGE, "give a scheme with -s or a recipe with -r");
    if (cfg.o.recipe != NULL && cfg.o.group != 0)
        die(RC_USAGE, "-g goes with -s; a recipe says its own group size");
    if (cfg.o.recipe != NULL && cfg.o.observer != NULL)
        die(RC_USAGE, "--observer goes with -s; a recipe names its own");
    if (cfg.o.recipe != NULL && cfg.o.correct)
        die(RC_USAGE, "--correct goes with -s; a recipe says so itself");
    if (!cfg.o.gptq && cfg.o.correct)
        die(RC_USAGE, "--correct goes with GPTQ, not with plain rounding");
    if (cfg.o.recipe == NULL && cfg.o.stage != NULL)
        die(RC_USAGE, "--stage goes with -r");
    if ((rc = shard_open(&s, cfg.dir, &cfg.o)) == RC_OK) {
        if (cfg.plan_only && cfg.list_count > 0)
            rc = print_predictions(&s);
        else if (cfg.plan_only)
            print_plan(&s);
        else
            rc = shard_write(&s, &cfg.o);
    }
    if (rc != RC_OK)
        msg_error(NULL, "%s", err_text());
    shard_close(&s);
    return msg_close_stdout(rc);
}
