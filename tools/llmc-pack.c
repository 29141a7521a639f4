/* llmc-pack - write the compressed checkpoint, check one, or make it dense again */
#include "../libcommon/check.h"
#include "../libcommon/checkpoint.h"
#include "../libcommon/dequant.h"
#include "../libcommon/msg.h"
#include "../libcommon/stop.h"

#include <stdio.h>
#include <string.h>

static struct {
    struct run_opts        run;
    struct checkpoint_opts o;
    const char            *check, *against, *dequantize;
    bool                   rules;
} cfg = { .run = { .dir = ".", .rank = -1, .any_ranks = true }, .o = { .shard_bytes = (size_t)5 << 30 } };

static const struct opt options[] = {
    RUN_OPTS(&cfg.run),
    OPT_STR('o', "output", &cfg.o.out, "dir", "checkpoint to make; OUT.tar, OUT.tar.zst or - for a tar"),
    OPT_SIZE(0, "shard-size", &cfg.o.shard_bytes, "bytes", "a shard's tensors at most"),
    OPT_FLAG('f', "force", &cfg.o.force, "replace an output that exists"),
    OPT_STR(0, "check", &cfg.check, "dir", "look for what loaders would trip over in a compressed checkpoint"),
    OPT_STR(0, "against", &cfg.against, "dir", "with --check: account for every tensor of this source"),
    OPT_STR(0, "dequantize", &cfg.dequantize, "dir", "make a plain checkpoint of a compressed one"),
    OPT_FLAG(0, "rules", &cfg.rules, "print the rules of --check and stop"),
    OPT_END
};

static const struct tool tool = {
    .name = "llmc-pack", .options = options, .built_with = run_built_with,
    .about = "write the compressed checkpoint that vLLM and transformers load",
};

/* Names in a checkpoint are anybody's: none may begin another line or column. */
static void
print_text(const char *s)
{
    for (; *s != '\0'; s++)
        (void)putchar((unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s);
}

static void
print_finding(void *ctx, enum check_rule rule, const char *subject, const char *what)
{
    (void)ctx;
    print_text(subject);
    (void)printf("\t%s\t", check_rules[rule].name);
    print_text(what);
    (void)putchar('\n');
}

static int
check(void)
{
    struct check_opts o = { .against = cfg.against, .report = print_finding };
    int findings = 0, rc = check_run(cfg.check, &o, &findings);

    if (rc != RC_OK)
        msg_error(NULL, "%s", err_text());
    rc = msg_close_stdout(rc);
    return rc == RC_OK && findings > 0 ? RC_DIFFER : rc;
}

static int
print_rules(void)
{
    for (int i = 0; i < CHECK_RULE_COUNT; i++)
        (void)printf("%s\t%s\n", check_rules[i].name, check_rules[i].sentence);
    return msg_close_stdout(RC_OK);
}

/* Where a tar goes to standard output, what was done does not. */
static void
print_done(const char *text)
{
    if (strcmp(cfg.o.out, "-") == 0)
        msg_info(NULL, "%s", text);
    else
        (void)printf("%s\n", text);
}

static int
dequantize(void)
{
    struct dequant_opts o = { .model = cfg.dequantize, .out = cfg.o.out, .shard_bytes = cfg.o.shard_bytes,
        .force = cfg.o.force, .memory = cfg.run.memory };
    struct dequant_stats st;
    char text[256];
    int rc;

    stop_install();
    if ((rc = pool_open(&o.pool, cfg.run.threads)) == RC_OK)
        rc = dequant_write(&o, &st);
    if (rc != RC_OK) {
        msg_error(NULL, "%s", err_text());
    } else {
        (void)snprintf(text, sizeof(text), "%d weights made dense, %d tensors copied, %zu bytes in %d shard%s",
            st.decoded, st.copied, st.bytes, st.shards, st.shards == 1 ? "" : "s");
        print_done(text);
    }
    pool_close(o.pool);
    return msg_close_stdout(rc);
}

static int
pack(void)
{
    struct checkpoint_stats st;
    struct budget need;
    struct run run;
    char text[256];
    int rc;

    if (cfg.run.ranks == 0) { /* a batch script runs the last stage in the environment of its first rank */
        cfg.run.ranks = 1;
        cfg.run.rank = cfg.run.rank > 0 ? cfg.run.rank : 0;
    }
    if ((rc = run_open(&run, tool.name, &cfg.run)) != RC_OK)
        die(rc, "%s", err_text());
    budget_pack(&need, pool_threads(dev_pool(run.dev)), 0);
    if ((rc = run_budget(&run, &need)) != RC_OK || (rc = checkpoint_write(&run, &cfg.o, &st)) != RC_OK) {
        msg_error(NULL, "%s", err_text());
    } else if (st.finished) {
        (void)snprintf(text, sizeof(text), "%d modules compressed, %d tensors copied, %zu bytes in %d shard%s",
            st.compressed, st.copied, st.bytes, st.shards, st.shards == 1 ? "" : "s");
        print_done(text);
    }
    return run_close(&run, rc);
}

int
main(int argc, char *argv[])
{
    (void)opt_parse(&tool, argc, argv);
    msg_quiet(cfg.run.quiet);
    if (cfg.rules)
        return print_rules();
    if (cfg.against != NULL && cfg.check == NULL)
        die(RC_USAGE, "--against goes with --check");
    if (cfg.check != NULL && (cfg.o.out != NULL || cfg.dequantize != NULL))
        die(RC_USAGE, "--check makes nothing: no -o, no --dequantize");
    if (cfg.check != NULL)
        return check();
    if (cfg.o.out == NULL)
        die(RC_USAGE, "no output: give one with -o");
    return cfg.dequantize != NULL ? dequantize() : pack();
}
