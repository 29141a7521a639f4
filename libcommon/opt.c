/* opt - option tables: parsing and usage */
#include "opt.h"

#include "msg.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { INCLUDE_DEPTH_MAX = 4, HELP_COLUMN = 28, HELP_WIDTH = 79, TEXT_MAX = 256 };

static const struct opt standard[] = {
    { .kind = OPT_KIND_ACTION, .name = "help", .help = "print this text and stop" },
    { .kind = OPT_KIND_ACTION, .name = "version", .help = "print version and features and stop" },
    OPT_END
};

static const char *const kind_names[] = {
    [OPT_KIND_GROUP] = "group", [OPT_KIND_FLAG] = "flag", [OPT_KIND_STR] = "str", [OPT_KIND_LIST] = "list",
    [OPT_KIND_CHOICE] = "choice", [OPT_KIND_INT] = "int", [OPT_KIND_REAL] = "real", [OPT_KIND_SIZE] = "size",
    [OPT_KIND_ACTION] = "action",
};

/* All rows of a tool in order: its table with what it includes, then the standard ones. */
struct walk {
    const struct opt *at[INCLUDE_DEPTH_MAX];
    int               depth;
};

static struct walk
walk_start(const struct tool *tool)
{
    return (struct walk){ .at = { standard, tool->options }, .depth = tool->options != NULL ? 1 : 0 };
}

static const struct opt *
walk_next(struct walk *w)
{
    const struct opt *o;

    while (w->depth >= 0) {
        o = w->at[w->depth]++;
        if (o->kind == OPT_KIND_END) {
            w->depth--;
        } else if (o->kind == OPT_KIND_INCLUDE) {
            if (w->depth + 1 == INCLUDE_DEPTH_MAX)
                die(RC_BUG, "option tables include each other too deeply");
            w->at[++w->depth] = o->to.include;
        } else {
            return o;
        }
    }
    return NULL;
}

bool
opt_size(const char *text, size_t *out)
{
    static const char suffixes[] = "KMGT";
    char *end;
    unsigned long long v;
    const char *s;
    int shift = 0;

    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    v = strtoull(text, &end, 10);
    if (errno != 0)
        return false;
    if (*end != '\0') {
        if ((s = strchr(suffixes, toupper((unsigned char)*end))) == NULL || (end[1] != '\0' &&
            strcasecmp(end + 1, "B") != 0 && strcasecmp(end + 1, "iB") != 0))
            return false;
        shift = 10 * (int)(s - suffixes + 1);
    }
    if (v > (SIZE_MAX >> shift))
        return false;
    *out = (size_t)v << shift;
    return true;
}

int
opt_numbers(const char *text, int most, int *list, int room)
{
    int count = 0;

    for (const char *s = text; s != NULL; count++) {
        char *end;
        long n;

        if (count == room)
            return room + 1;
        n = strtol(s, &end, 10);
        if (end == s || n < 1 || n > most || (*end != '\0' && *end != ','))
            return -1;
        list[count] = (int)n;
        s = *end == ',' ? end + 1 : NULL;
    }
    return count;
}

static void
print_size(size_t v, char *out, size_t size)
{
    static const char suffixes[] = "KMGT";
    int i = -1;

    while (i < 3 && v > 0 && v % 1024 == 0) {
        v /= 1024;
        i++;
    }
    (void)snprintf(out, size, "%zu%.*s", v, i < 0 ? 0 : 1, i < 0 ? "" : suffixes + i);
}

/* What the row's variable holds, as text; "" where that means "not given". */
static void
default_text(const struct opt *o, char *out, size_t size)
{
    out[0] = '\0';
    if (o->help != NULL && strstr(o->help, "default") != NULL)
        return;
    if ((o->kind == OPT_KIND_STR || o->kind == OPT_KIND_CHOICE) && *o->to.str != NULL)
        (void)snprintf(out, size, "%s", *o->to.str);
    else if (o->kind == OPT_KIND_INT && *o->to.i >= o->min && *o->to.i <= o->max)
        (void)snprintf(out, size, "%d", *o->to.i);
    else if (o->kind == OPT_KIND_REAL && *o->to.real >= o->min && *o->to.real <= o->max)
        (void)snprintf(out, size, "%g", *o->to.real);
    else if (o->kind == OPT_KIND_SIZE)
        print_size(*o->to.size, out, size);
}

/* Words of text from column HELP_COLUMN on; the cursor is there already. */
static void
print_wrapped(const char *text)
{
    size_t column = HELP_COLUMN, len;

    while (*text != '\0') {
        len = strcspn(text, " ");
        if (column > HELP_COLUMN && column + 1 + len > HELP_WIDTH) {
            (void)printf("\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        } else if (column > HELP_COLUMN) {
            (void)putchar(' ');
            column++;
        }
        (void)printf("%.*s", (int)len, text);
        column += len;
        text += len + strspn(text + len, " ");
    }
    (void)putchar('\n');
}

static void
print_option(const struct opt *o)
{
    char left[TEXT_MAX], value[TEXT_MAX], text[2 * TEXT_MAX], letter[] = "    ";
    size_t n;
    int len;

    if (o->letter != 0)
        (void)snprintf(letter, sizeof(letter), "-%c, ", o->letter);
    len = snprintf(left, sizeof(left), "  %s--%s%s%s", letter, o->name, o->arg != NULL ? " " : "",
        o->arg != NULL ? o->arg : "");
    if (len + 2 > HELP_COLUMN)
        (void)printf("%s\n%*s", left, HELP_COLUMN, "");
    else
        (void)printf("%-*s", HELP_COLUMN, left);
    n = (size_t)snprintf(text, sizeof(text), "%s", o->help != NULL ? o->help : "");
    for (int i = 0; o->kind == OPT_KIND_CHOICE && o->choices[i] != NULL && n < sizeof(text); i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", i == 0 ? ": " : ", ", o->choices[i]);
    default_text(o, value, sizeof(value));
    if (value[0] != '\0' && n < sizeof(text))
        (void)snprintf(text + n, sizeof(text) - n, " (default %s)", value);
    print_wrapped(text);
}

static void
print_help(const struct tool *tool)
{
    struct walk w = walk_start(tool);
    const struct opt *o;

    (void)printf("usage: %s [options]%s%s\n%s\n\n", tool->name, tool->args != NULL ? " " : "",
        tool->args != NULL ? tool->args : "", tool->about);
    while ((o = walk_next(&w)) != NULL) {
        if (o == standard && tool->options != NULL)
            (void)putchar('\n');
        if (o->kind == OPT_KIND_GROUP)
            (void)printf("\n%s:\n", o->name);
        else
            print_option(o);
    }
    if (tool->exits != NULL) {
        (void)printf("\nexit status:\n");
        for (const struct tool_exit *e = tool->exits; e->when != NULL; e++) {
            (void)printf("  %-*d", HELP_COLUMN - 2, e->rc);
            print_wrapped(e->when);
        }
    }
    if (tool->notes != NULL)
        (void)printf("\n%s\n", tool->notes);
}

/* kind, letter, name, argument, default, help; "-" where there is none. */
static void
print_table(const struct tool *tool)
{
    struct walk w = walk_start(tool);
    const struct opt *o;
    char value[TEXT_MAX];

    while ((o = walk_next(&w)) != NULL) {
        default_text(o, value, sizeof(value));
        (void)printf("%s\t%c\t%s\t%s\t%s\t%s\n", kind_names[o->kind], o->letter != 0 ? o->letter : '-', o->name,
            o->arg != NULL ? o->arg : "-", value[0] != '\0' ? value : "-", o->help != NULL ? o->help : "-");
    }
}

static _Noreturn void
act(const struct tool *tool, const char *name)
{
    if (strcmp(name, "help") == 0)
        print_help(tool);
    else if (strcmp(name, "help-options") == 0)
        print_table(tool);
    else
        (void)printf("%s %s\n%s%s%s", tool->name, LLMC_VERSION, tool->built_with != NULL ? "built with: " : "",
            tool->built_with != NULL ? tool->built_with() : "", tool->built_with != NULL ? "\n" : "");
    if (fflush(stdout) != 0 || ferror(stdout))
        die(RC_IO, "standard output: cannot write: %s", strerror(errno));
    exit(RC_OK);
}

static void
set_int(const struct opt *o, const char *label, const char *v, bool store)
{
    bool digits = isdigit((unsigned char)v[v[0] == '-']);
    char *end;
    long n;

    errno = 0;
    n = strtol(v, &end, 10);
    if (!digits || *end != '\0')
        die(RC_USAGE, "%s: %s is not an integer", label, v);
    if (errno != 0 || (double)n < o->min || (double)n > o->max || n < INT_MIN || n > INT_MAX)
        die(RC_USAGE, "%s: %s is out of range, want %.0f to %.0f", label, v, o->min, o->max);
    if (store)
        *o->to.i = (int)n;
}

static void
set_real(const struct opt *o, const char *label, const char *v, bool store)
{
    char *end;
    double d;

    d = strtod(v, &end);
    if (v[strspn(v, "0123456789.+-eE")] != '\0' || end == v || *end != '\0' || !isfinite(d))
        die(RC_USAGE, "%s: %s is not a finite number", label, v);
    if (d < o->min || d > o->max)
        die(RC_USAGE, "%s: %s is out of range, want %g to %g", label, v, o->min, o->max);
    if (store)
        *o->to.real = d;
}

static void
set_choice(const struct opt *o, const char *label, const char *v, bool store)
{
    char list[TEXT_MAX] = "";
    size_t n = 0;

    for (int i = 0; o->choices[i] != NULL; i++) {
        if (strcmp(o->choices[i], v) == 0) {
            if (store)
                *o->to.str = o->choices[i];
            return;
        }
        if (n < sizeof(list))
            n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", i > 0 ? ", " : "", o->choices[i]);
    }
    die(RC_USAGE, "%s: %s is not one of %s", label, v, list);
}

static void
set_list(const struct opt *o, const char *label, const char *v, bool store)
{
    struct opt_list *list = o->to.list;

    if (!store)
        return;
    if (list->count == OPT_LIST_MAX)
        die(RC_USAGE, "%s: given more than %d times", label, OPT_LIST_MAX);
    list->value[list->count++] = v;
}

static void
set_value(const struct opt *o, const char *label, const char *v, bool store)
{
    size_t size;

    switch (o->kind) {
    case OPT_KIND_INT:
        set_int(o, label, v, store);
        break;
    case OPT_KIND_REAL:
        set_real(o, label, v, store);
        break;
    case OPT_KIND_CHOICE:
        set_choice(o, label, v, store);
        break;
    case OPT_KIND_LIST:
        set_list(o, label, v, store);
        break;
    case OPT_KIND_SIZE:
        if (!opt_size(v, &size))
            die(RC_USAGE, "%s: %s is not a size such as 512M or 24G", label, v);
        if (store)
            *o->to.size = size;
        break;
    default:
        if (store)
            *o->to.str = v;
    }
}

static bool
takes_value(const struct opt *o)
{
    return o->kind != OPT_KIND_FLAG && o->kind != OPT_KIND_ACTION;
}

static const struct opt *
find(const struct tool *tool, char letter, const char *name, size_t len)
{
    struct walk w = walk_start(tool);
    const struct opt *o;

    while ((o = walk_next(&w)) != NULL) {
        if (o->kind == OPT_KIND_GROUP)
            continue;
        if (name != NULL ? strncmp(o->name, name, len) == 0 && o->name[len] == '\0' : o->letter == letter)
            return o;
    }
    return NULL;
}

/* One word that starts with "--". Returns how many words it took. */
static int
parse_long(const struct tool *tool, char **word, bool store)
{
    const char *name = word[0] + 2, *value = NULL;
    size_t len = strcspn(name, "=");
    const struct opt *o = find(tool, 0, name, len);
    char label[TEXT_MAX];
    int used = 1;

    (void)snprintf(label, sizeof(label), "--%.*s", (int)(len < TEXT_MAX ? len : TEXT_MAX), name);
    if (name[len] == '=')
        value = name + len + 1;
    if (strcmp(name, "help-options") == 0)
        act(tool, name);
    if (o == NULL)
        die(RC_USAGE, "unknown option %s; see --help", label);
    if (!takes_value(o) && value != NULL)
        die(RC_USAGE, "%s takes no value", label);
    if (takes_value(o) && value == NULL && (value = word[used++]) == NULL)
        die(RC_USAGE, "%s needs a value: %s", label, o->arg != NULL ? o->arg : "see --help");
    if (o->kind == OPT_KIND_ACTION)
        act(tool, o->name);
    if (takes_value(o))
        set_value(o, label, value, store);
    else if (store)
        *o->to.flag = true;
    return used;
}

/* One word of letters, the last of which may take the rest of the word or the next one. */
static int
parse_letters(const struct tool *tool, char **word, bool store)
{
    const struct opt *o;
    const char *value;
    char label[] = "-?";

    for (const char *p = word[0] + 1; *p != '\0'; p++) {
        label[1] = *p;
        if ((o = find(tool, *p, NULL, 0)) == NULL)
            die(RC_USAGE, "unknown option %s; see --help", label);
        if (!takes_value(o)) {
            if (store)
                *o->to.flag = true;
            continue;
        }
        value = p[1] != '\0' ? p + 1 : word[1];
        if (value == NULL)
            die(RC_USAGE, "%s needs a value: %s", label, o->arg != NULL ? o->arg : "see --help");
        set_value(o, label, value, store);
        return p[1] != '\0' ? 1 : 2;
    }
    return 1;
}

/* Moves the operands to the front when storing; returns how many there are. */
static int
parse_all(const struct tool *tool, char **argv, bool store)
{
    int operands = 0, i = 0;
    bool ended = false;

    while (argv[i] != NULL) {
        if (!ended && strcmp(argv[i], "--") == 0) {
            ended = true;
            i++;
        } else if (!ended && argv[i][0] == '-' && argv[i][1] == '-') {
            i += parse_long(tool, argv + i, store);
        } else if (!ended && argv[i][0] == '-' && argv[i][1] != '\0') {
            i += parse_letters(tool, argv + i, store);
        } else {
            if (tool->args == NULL)
                die(RC_USAGE, "%s: operands are not taken; see --help", argv[i]);
            if (store)
                argv[operands] = argv[i];
            operands++;
            i++;
        }
    }
    return operands;
}

char **
opt_parse(const struct tool *tool, int argc, char **argv)
{
    char **words = argv + (argc > 0);

    msg_tool(tool->name);
    /* The first pass only checks, so that --help after other options still shows the defaults. */
    (void)parse_all(tool, words, false);
    words[parse_all(tool, words, true)] = NULL;
    return words;
}
