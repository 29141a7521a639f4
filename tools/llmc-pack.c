/* llmc-pack - write the compressed checkpoint */
#include "../libcommon/checkpoint.h"
#include "../libcommon/msg.h"

#include <stdio.h>

static struct {
    struct run_opts        run;
    struct checkpoint_opts o;
} cfg = { .run = RUN_OPTS_DEFAULT, .o = { .shard_bytes = (size_t)5 << 30 } };

static const struct opt options[] = {
    RUN_OPTS(&cfg.run),
    OPT_STR('o', "output", &cfg.o.out, "dir", "checkpoint to make"),
    OPT_SIZE(0, "shard-size", &cfg.o.shard_bytes, "bytes", "a shard's tensors at most"),
    OPT_FLAG('f', "force", &cfg.o.force, "replace an output that exists"),
    OPT_END
};

static const struct tool tool = {
    .name = "llmc-pack", .options = options, .built_with = run_built_with,
    .about = "write the compressed checkpoint that vLLM and transformers load",
};

int
main(int argc, char *argv[])
{
    struct checkpoint_stats st;
    struct run run;
    int rc;

    (void)opt_parse(&tool, argc, argv);
    if (cfg.o.out == NULL)
        die(RC_USAGE, "no output: give one with -o");
    if ((rc = run_open(&run, tool.name, &cfg.run)) != RC_OK)
        die(rc, "%s", err_text());
    if ((rc = checkpoint_write(&run, &cfg.o, &st)) != RC_OK)
        msg_error(NULL, "%s", err_text());
    else
        (void)printf("%d modules compressed, %d tensors copied, %zu bytes in %d shard%s\n", st.compressed, st.copied,
            st.bytes, st.shards, st.shards == 1 ? "" : "s");
    return run_close(&run, rc);
}
