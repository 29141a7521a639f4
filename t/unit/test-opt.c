/* test-opt - command lines, good and bad, and the texts made from a table */
#include "unit.h"

#include "../../libcommon/msg.h"
#include "../../libcommon/opt.h"

#include <limits.h>
#include <math.h>
#include <sys/wait.h>

enum { WORDS_MAX = 80 };

static struct {
    bool            dry, verbose;
    const char     *dir, *only, *backend;
    int             jobs, rank;
    double          damp, alpha;
    size_t          memory;
    struct opt_list data;
} cfg;

static const char *const backends[] = { "auto", "ref", "cpu", "cuda", NULL };

static const struct opt common[] = {
    OPT_GROUP("where and how fast"),
    OPT_INT ('j', "jobs",    &cfg.jobs, 1, 4096, "N", "threads"),
    OPT_INT (0,   "rank",    &cfg.rank, 0, INT_MAX, "N", "this rank"),
    OPT_SIZE(0,   "memory",  &cfg.memory, "SIZE", "upper bound of the memory that is used by everything that this "
        "tool does, which is a rather long text"),
    OPT_CHOICE(0, "backend", &cfg.backend, backends, "NAME", "arithmetic"),
    OPT_END
};

static const struct opt options[] = {
    OPT_STR ('C', "directory", &cfg.dir,  "DIR",  "work directory"),
    OPT_STR ('m', "module",    &cfg.only, "GLOB", "only modules whose name matches (default all)"),
    OPT_LIST('d', "data",      &cfg.data, "FILE", "samples; may be repeated"),
    OPT_FLAG('n', "dry-run",   &cfg.dry,          "print the tasks and stop"),
    OPT_FLAG('v', "verbose",   &cfg.verbose,      "say more"),
    OPT_REAL(0,   "damp",      &cfg.damp, 0, 1, "X", "damping"),
    OPT_REAL(0,   "alpha-with-a-long-name", &cfg.alpha, 0, 1, "NUMBER", "mix"),
    OPT_INCLUDE(common),
    OPT_END
};

static const char *
features(void)
{
    return "cuda, mpi";
}

static const struct tool_exit exits[] = { { 0, "done" }, { 65, "malformed input" }, { 0, NULL } };

static const struct tool with_operands = {
    .name = "llmc-test", .args = "[module ...]", .about = "does nothing", .options = options, .exits = exits,
    .notes = "A note.", .built_with = features,
};

static const struct tool bare = { .name = "llmc-bare", .about = "does nothing" };

static void
reset(void)
{
    memset(&cfg, 0, sizeof(cfg));
    cfg.only = "*";
    cfg.backend = "auto";
    cfg.jobs = 2;
    cfg.rank = -1;
    cfg.damp = 0.01;
    cfg.alpha = NAN;
    cfg.memory = (size_t)24 << 30;
}

/* Words are separated by one blank; "" is written as @. They stay in place until the next call. */
static char **
parse(const struct tool *tool, const char *line)
{
    static char text[8192], *argv[WORDS_MAX + 2];
    int argc = 1;
    char *p = text;

    reset();
    (void)snprintf(text, sizeof(text), "%s", line);
    argv[0] = (char[]){ "x" };
    for (char *word; argc < WORDS_MAX && (word = strsep(&p, " ")) != NULL;)
        if (*word != '\0')
            argv[argc++] = strcmp(word, "@") == 0 ? word + 1 : word;
    argv[argc] = NULL;
    return opt_parse(tool, argc, argv);
}

/* Runs opt_parse in a child that is expected to leave; its output is in files out and err. */
static int
leaves(const struct tool *tool, const char *line, const char *out)
{
    int status;
    pid_t pid;

    (void)fflush(NULL);
    if ((pid = fork()) == 0) {
        if (freopen(out, "w", stdout) == NULL || freopen("err", "w", stderr) == NULL)
            _exit(98);
        (void)parse(tool, line);
        _exit(99);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WEXITSTATUS(status);
}

static void
test_values(void **state)
{
    char **rest;

    (void)state;
    rest = parse(&with_operands, "");
    assert_null(rest[0]);
    assert_int_equal(cfg.jobs, 2);
    rest = parse(&with_operands, "-C w -j4 -nv --damp=0.5 --memory 2G a --rank 0 b -dx -d y --data=z -- -n");
    assert_string_equal(cfg.dir, "w");
    assert_int_equal(cfg.jobs, 4);
    assert_true(cfg.dry && cfg.verbose);
    assert_true(cfg.damp == 0.5);
    assert_int_equal(cfg.memory, (size_t)2 << 30);
    assert_int_equal(cfg.rank, 0);
    assert_int_equal(cfg.data.count, 3);
    assert_string_equal(cfg.data.value[0], "x");
    assert_string_equal(cfg.data.value[2], "z");
    assert_null(cfg.data.value[3]);
    assert_string_equal(rest[0], "a");
    assert_string_equal(rest[1], "b");
    assert_string_equal(rest[2], "-n");
    assert_null(rest[3]);
    rest = parse(&with_operands, "- -vnC -x -j 1 -j 3 --backend ref --module= --jobs=7");
    assert_string_equal(rest[0], "-");
    assert_null(rest[1]);
    assert_string_equal(cfg.dir, "-x");
    assert_int_equal(cfg.jobs, 7);
    assert_string_equal(cfg.backend, "ref");
    assert_string_equal(cfg.only, "");
    rest = parse(&with_operands, "-m @ --damp 1e-2 --directory a=b --rank 2147483647");
    assert_string_equal(cfg.only, "");
    assert_true(cfg.damp == 1e-2);
    assert_string_equal(cfg.dir, "a=b");
    assert_int_equal(cfg.rank, INT_MAX);
    assert_null(parse(&bare, "--")[0]);
    assert_null(opt_parse(&bare, 0, (char *[]){ NULL })[0]);
}

static void
test_misuse(void **state)
{
    static const struct {
        const char *line, *says;
    } bad[] = {
        { "--none", "llmc-test: unknown option --none; see --help\n" },
        { "--none=x", "unknown option --none;" },
        { "--job 3", "unknown option --job;" },
        { "--jobsx", "unknown option --jobsx;" },
        { "-x", "unknown option -x; see --help" },
        { "-nx", "unknown option -x" },
        { "-C", "-C needs a value: DIR" },
        { "a --directory", "--directory needs a value: DIR" },
        { "--dry-run=1", "--dry-run takes no value" },
        { "--help=1", "--help takes no value" },
        { "-j x", "-j: x is not an integer" },
        { "--jobs=", "--jobs:  is not an integer" },
        { "-j 4x", "-j: 4x is not an integer" },
        { "-j +4", "-j: +4 is not an integer" },
        { "-j 0", "-j: 0 is out of range, want 1 to 4096" },
        { "-j -1", "-j: -1 is out of range" },
        { "-j 4097", "out of range" },
        { "-j 99999999999999999999", "out of range" },
        { "--damp x", "--damp: x is not a finite number" },
        { "--damp nan", "not a finite number" },
        { "--damp inf", "not a finite number" },
        { "--damp 1e999", "not a finite number" },
        { "--damp 0x1", "not a finite number" },
        { "--damp 0.5.5", "not a finite number" },
        { "--damp @", "not a finite number" },
        { "--damp 2", "--damp: 2 is out of range, want 0 to 1" },
        { "--memory 12Q", "--memory: 12Q is not a size such as 512M or 24G" },
        { "--memory -1", "not a size" },
        { "--backend tpu", "--backend: tpu is not one of auto, ref, cpu, cuda" },
        { "--backend cp", "is not one of" },
    };
    size_t bytes;
    char *err;

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(leaves(&with_operands, bad[i].line, "out"), RC_USAGE);
        err = unit_read("err", &bytes);
        assert_true(strncmp(err, "llmc-test: ", 11) == 0);
        assert_says(err, bad[i].says);
        assert_ptr_equal(strchr(err, '\n'), err + bytes - 1);
        free(err);
        free(unit_read("out", &bytes));
        assert_int_equal(bytes, 0);
    }
    assert_int_equal(leaves(&bare, "x", "out"), RC_USAGE);
    err = unit_read("err", &bytes);
    assert_string_equal(err, "llmc-bare: x: operands are not taken; see --help\n");
    free(err);
}

static void
test_list_full(void **state)
{
    char line[OPT_LIST_MAX * 5 + 8];
    int n = 0;

    (void)state;
    for (int i = 0; i < OPT_LIST_MAX; i++)
        n += snprintf(line + n, sizeof(line) - (size_t)n, "-dx ");
    (void)parse(&with_operands, line);
    assert_int_equal(cfg.data.count, OPT_LIST_MAX);
    (void)snprintf(line + n, sizeof(line) - (size_t)n, "-dx");
    assert_int_equal(leaves(&with_operands, line, "out"), RC_USAGE);
}

static const char help[] =
    "usage: llmc-test [options] [module ...]\n"
    "does nothing\n"
    "\n"
    "  -C, --directory DIR       work directory\n"
    "  -m, --module GLOB         only modules whose name matches (default all)\n"
    "  -d, --data FILE           samples; may be repeated\n"
    "  -n, --dry-run             print the tasks and stop\n"
    "  -v, --verbose             say more\n"
    "      --damp X              damping (default 0.01)\n"
    "      --alpha-with-a-long-name NUMBER\n"
    "                            mix\n"
    "\n"
    "where and how fast:\n"
    "  -j, --jobs N              threads (default 2)\n"
    "      --rank N              this rank\n"
    "      --memory SIZE         upper bound of the memory that is used by\n"
    "                            everything that this tool does, which is a rather\n"
    "                            long text (default 24G)\n"
    "      --backend NAME        arithmetic: auto, ref, cpu, cuda (default auto)\n"
    "\n"
    "      --help                print this text and stop\n"
    "      --version             print version and features and stop\n"
    "\n"
    "exit status:\n"
    "  0                         done\n"
    "  65                        malformed input\n"
    "\n"
    "A note.\n";

static const char table[] =
    "str\tC\tdirectory\tDIR\t-\twork directory\n"
    "str\tm\tmodule\tGLOB\t-\tonly modules whose name matches (default all)\n"
    "list\td\tdata\tFILE\t-\tsamples; may be repeated\n"
    "flag\tn\tdry-run\t-\t-\tprint the tasks and stop\n";

static void
test_texts(void **state)
{
    size_t bytes;
    char *text;

    (void)state;
    assert_int_equal(leaves(&with_operands, "-j 4 --damp 1 x --help --nonsense", "out"), RC_OK);
    text = unit_read("out", &bytes);
    assert_string_equal(text, help);
    free(text);
    free(unit_read("err", &bytes));
    assert_int_equal(bytes, 0);
    assert_int_equal(leaves(&with_operands, "--version", "out"), RC_OK);
    text = unit_read("out", &bytes);
    assert_string_equal(text, "llmc-test " LLMC_VERSION "\nbuilt with: cuda, mpi\n");
    free(text);
    assert_int_equal(leaves(&bare, "--version", "out"), RC_OK);
    text = unit_read("out", &bytes);
    assert_string_equal(text, "llmc-bare " LLMC_VERSION "\n");
    free(text);
    assert_int_equal(leaves(&with_operands, "--help-options", "out"), RC_OK);
    text = unit_read("out", &bytes);
    assert_true(strncmp(text, table, strlen(table)) == 0);
    assert_says(text, "\ngroup\t-\twhere and how fast\t-\t-\t-\n");
    assert_says(text, "\nint\tj\tjobs\tN\t2\tthreads\n");
    assert_says(text, "\nsize\t-\tmemory\tSIZE\t24G\t");
    assert_says(text, "\naction\t-\tversion\t-\t-\t");
    free(text);
    assert_int_equal(leaves(&with_operands, "--help", "/dev/full"), RC_IO);
    text = unit_read("err", &bytes);
    assert_string_equal(text, "llmc-test: standard output: cannot write: No space left on device\n");
    free(text);
}

static void
test_size(void **state)
{
    static const char *const bad[] = { "", "K", "1KBs", "1X", "1 K", " 1", "-1", "+1", "1.5G", "99999999999999999999",
        "16777216T", "1P" };
    size_t v;

    (void)state;
    assert_true(opt_size("0", &v) && v == 0);
    assert_true(opt_size("1000", &v) && v == 1000);
    assert_true(opt_size("64K", &v) && v == 65536);
    assert_true(opt_size("64KiB", &v) && v == 65536);
    assert_true(opt_size("512m", &v) && v == (size_t)512 << 20);
    assert_true(opt_size("24G", &v) && v == (size_t)24 << 30);
    assert_true(opt_size("16777215T", &v) && v == (size_t)16777215 << 40);
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(opt_size(bad[i], &v));
}

static void
test_numbers(void **state)
{
    static const char *const bad[] = { "", "0", "-1", "1,", ",1", "1 2", "1;2", "9", "x" };
    int list[3] = { 0 };

    (void)state;
    assert_int_equal(opt_numbers(NULL, 8, list, 3), 0);
    assert_int_equal(opt_numbers("8", 8, list, 3), 1);
    assert_int_equal(opt_numbers("1,2,4", 8, list, 3), 3);
    assert_true(list[0] == 1 && list[1] == 2 && list[2] == 4);
    assert_int_equal(opt_numbers("1,2,4,8", 8, list, 3), 4);
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(opt_numbers(bad[i], 8, list, 3), -1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values), cmocka_unit_test(test_misuse), cmocka_unit_test(test_list_full),
        cmocka_unit_test(test_texts), cmocka_unit_test(test_size), cmocka_unit_test(test_numbers),
    };

    return cmocka_run_group_tests_name("opt", tests, unit_begin, unit_end);
}
