/* opt - option tables: one table feeds the parser, --help, and the test that holds man pages to it
 *
 * A tool fills a static table with OPT_ rows, each with a pointer to where its value goes; what is there before
 * opt_parse() is the default that --help shows. A default outside the range of the row, a NULL string and a NaN mean
 * "not given" and are not shown; nor is any where the help text itself says "default". OPT_INCLUDE splices another
 * table in; a macro of several rows does the same at compile time.
 *
 * Command lines are POSIX with long options: -j4, -j 4, -nv, --jobs=4, --jobs 4; "--" ends options, "-" is an operand,
 * options may follow operands, the last of repeated options wins (OPT_LIST keeps all). Long names are not abbreviated.
 * Every tool has --help, --version and, for tests, --help-options.
 */
#ifndef LLMC_OPT_H
#define LLMC_OPT_H

#include <stdbool.h>
#include <stddef.h>

#ifndef LLMC_VERSION
#define LLMC_VERSION "0.1.0"
#endif

enum { OPT_LIST_MAX = 64 };

/* Zero-initialise; value[count] is NULL. */
struct opt_list {
    const char *value[OPT_LIST_MAX + 1];
    int         count;
};

enum opt_kind {
    OPT_KIND_END, OPT_KIND_GROUP, OPT_KIND_INCLUDE, OPT_KIND_FLAG, OPT_KIND_STR, OPT_KIND_LIST, OPT_KIND_CHOICE,
    OPT_KIND_INT, OPT_KIND_REAL, OPT_KIND_SIZE, OPT_KIND_ACTION
};

struct opt {
    enum opt_kind kind;
    char          letter; /* 0: no short form */
    const char   *name;   /* long form; of OPT_GROUP the heading */
    union {
        bool             *flag;
        const char      **str;
        int              *i;
        double           *real;
        size_t           *size;
        struct opt_list  *list;
        const struct opt *include;
    } to;
    double             min, max; /* exact for int */
    const char *const *choices;  /* ends with NULL */
    const char        *arg, *help;
};

#define OPT_ROW(k, l, n, member, p, a, h) \
    .kind = OPT_KIND_##k, .letter = (l), .name = (n), .to = { .member = (p) }, .arg = (a), .help = (h)

#define OPT_FLAG(l, n, p, help)                  { OPT_ROW(FLAG, l, n, flag, p, NULL, help) }
#define OPT_STR(l, n, p, arg, help)              { OPT_ROW(STR, l, n, str, p, arg, help) }
#define OPT_LIST(l, n, p, arg, help)             { OPT_ROW(LIST, l, n, list, p, arg, help) }
#define OPT_CHOICE(l, n, p, list, arg, help)     { OPT_ROW(CHOICE, l, n, str, p, arg, help), .choices = (list) }
#define OPT_INT(l, n, p, lo, hi, arg, help)      { OPT_ROW(INT, l, n, i, p, arg, help), .min = (lo), .max = (hi) }
#define OPT_REAL(l, n, p, lo, hi, arg, help)     { OPT_ROW(REAL, l, n, real, p, arg, help), .min = (lo), .max = (hi) }
#define OPT_SIZE(l, n, p, arg, help)             { OPT_ROW(SIZE, l, n, size, p, arg, help) } /* 512M, 24G, bytes */
#define OPT_GROUP(heading)                       { .kind = OPT_KIND_GROUP, .name = (heading) }
#define OPT_INCLUDE(table)                       { .kind = OPT_KIND_INCLUDE, .to = { .include = (table) } }
#define OPT_END                                  { .kind = OPT_KIND_END }

struct tool_exit {
    int         rc;
    const char *when; /* NULL ends the list */
};

struct tool {
    const char             *name;    /* "llmc-gptq" */
    const char             *args;    /* operands in the synopsis, may be NULL: then operands are refused */
    const char             *about;   /* one line */
    const struct opt       *options;
    const struct tool_exit *exits;   /* shown by --help; may be NULL */
    const char             *notes;   /* last paragraph of --help; may be NULL */
    const char *(*built_with)(void); /* second line of --version; may be NULL */
};

/* Names the tool to msg and sets all values. Returns the operands, ended by NULL. Leaves with 0 after --help or
 * --version, with RC_USAGE and one line on stderr after misuse. argv is reordered; strings point into it. */
char **opt_parse(const struct tool *tool, int argc, char **argv);

/* "512", "64K", "2G", "2GB", "2GiB", powers of 1024 up to T. False: not a size. */
bool opt_size(const char *text, size_t *out);

/* "1,2,4": numbers from 1 to `most` into list[room]. How many, room + 1 if there are more; -1: malformed. NULL: 0. */
int opt_numbers(const char *text, int most, int *list, int room);

#endif
