/* jinja_function - functions of the Jinja language, and those that transformers adds */
#include "jinja_ast.h"

#include <string.h>
#include <time.h>

enum { RANGE_MAX = 100000, DATE_MAX = 256 };

bool
jinja_is_function(const char *name)
{
    return strcmp(name, "raise_exception") == 0 || strcmp(name, "range") == 0 || strcmp(name, "namespace") == 0 ||
        strcmp(name, "strftime_now") == 0 || strcmp(name, "dict") == 0 || strcmp(name, "lipsum") == 0 ||
        strcmp(name, "cycler") == 0 || strcmp(name, "joiner") == 0;
}

static int
function_range(struct jinja_pool *p, const struct jinja_args *args, struct jinja_value *out)
{
    int64_t n[3] = { 0, 0, 1 };
    json_t *list;

    if (args->count < 1 || args->count > 3)
        return err_set(RC_DATA, "range with %d arguments", args->count);
    for (int i = 0; i < args->count; i++) {
        if (args->name[i] != NULL)
            return err_set(RC_DATA, "range with named arguments");
        TRY(jinja_want_int(&args->v[i], "range", &n[args->count == 1 ? 1 : i]));
    }
    if (n[2] == 0)
        return err_set(RC_DATA, "range with step 0");
    TRY(jinja_own(p, list = json_array(), out));
    for (int64_t i = n[0]; n[2] > 0 ? i < n[1] : i > n[1];) {
        if (json_array_size(list) == RANGE_MAX)
            return err_set(RC_DATA, "range of more than %d", RANGE_MAX);
        if (json_array_append_new(list, json_integer(i)) != 0)
            return err_set(RC_OS, "out of memory");
        if (__builtin_add_overflow(i, n[2], &i))
            break;
    }
    p->bytes += 48 * json_array_size(list);
    return RC_OK;
}

static int
function_date(struct jinja_pool *p, const struct jinja_args *args, int64_t today, struct jinja_value *out)
{
    static const char *const names[] = { "format", NULL };
    char text[DATE_MAX];
    const char *format;
    time_t t = (time_t)today;
    struct tm tm;
    size_t len;
    struct jinja_value a[1];

    if (today < 0)
        return err_set(RC_DATA,
        "the template asks for today's date (strftime_now), which would change the result from day "
            "to day; set one: today=YYYY-MM-DD");
    TRY(jinja_bind("strftime_now", args, names, a));
    TRY(jinja_want_text(&a[0], "strftime_now", &format, &len));
    if (len == 0 || len > DATE_MAX / 8 || gmtime_r(&t, &tm) == NULL)
        return err_set(RC_DATA, "strftime_now: a format of this form is not supported");
    for (const char *f = format; (f = strchr(f, '%')) != NULL; f += 2)
        if (f[1] == '\0' || strchr("aAbBdmyYHMSj%", f[1]) == NULL)
            return err_set(RC_DATA, "strftime_now: format \"%.32s\" is not supported", format);
    len = strftime(text, sizeof(text), format, &tm);
    return jinja_own(p, json_stringn(text, len), out);
}

int
jinja_function(struct jinja_pool *p, const char *name, const struct jinja_args *args, int64_t today,
    struct jinja_value *out)
{
    json_t *j;

    if (strcmp(name, "raise_exception") == 0) {
        struct buf b = { 0 };

        if (args->count == 1)
            (void)jinja_str(&b, &args->v[0]);
        (void)err_set(RC_DATA, "the template says: %.512s", b.s != NULL ? b.s : "");
        buf_free(&b);
        return RC_DATA;
    }
    if (strcmp(name, "range") == 0)
        return function_range(p, args, out);
    if (strcmp(name, "strftime_now") == 0)
        return function_date(p, args, today, out);
    if (strcmp(name, "namespace") != 0)
        return err_set(RC_DATA, "function \"%.64s\" is not supported", name);
    TRY(jinja_own(p, json_object(), out));
    out->type = JV_NAMESPACE;
    for (int i = 0; i < args->count; i++) {
        if (args->name[i] == NULL)
            return err_set(RC_DATA, "namespace of a dict is not supported");
        TRY(jinja_want(&args->v[i], "namespace", &j));
        if (json_object_set(out->j, args->name[i], j) != 0)
            return err_set(RC_OS, "out of memory");
    }
    return RC_OK;
}
