/* chat - conversations as text: a model's chat template, rendered */
#include "chat.h"

#include "file.h"
#include "jinja.h"
#include "json.h"
#include "mem.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TEMPLATE_MAX = 1 << 20 };

struct chat {
    struct jinja *template;
    char         *name; /* where the template is from */
    json_t       *context;
    int64_t       today;
};

/* A file of the model's directory that may be absent: *out is NULL then. */
static int
read_json(const char *dir, const char *name, json_t **out)
{
    char *path = file_join(dir, name);
    int rc = path != NULL ? jread_file(out, path) : RC_OS;

    if (rc == RC_NOINPUT) {
        *out = NULL;
        rc = RC_OK;
    }
    mem_free(path);
    return rc;
}

/* Of several templates, the default one. */
static const json_t *
choose(const json_t *templates)
{
    const json_t *item;
    size_t i;

    json_array_foreach(templates, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));

        if (name != NULL && strcmp(name, "default") == 0)
            return json_object_get(item, "template");
    }
    return templates;
}

static int
open_template(struct chat *c, const char *dir, const json_t *config)
{
    const json_t *text = choose(json_object_get(config, "chat_template"));
    struct buf b = { 0 };
    int rc;

    if ((c->name = file_join(dir, "chat_template.jinja")) == NULL)
        return RC_OS;
    rc = buf_read_file(&b, c->name, TEMPLATE_MAX);
    if (rc == RC_NOINPUT) {
        mem_free(c->name);
        if ((c->name = file_join(dir, "tokenizer_config.json")) == NULL)
            return RC_OS;
        if (text == NULL || json_is_null(text))
            return err_set(RC_NOINPUT, "%s: the model has no chat template, which conversations need", dir);
        if (!json_is_string(text))
            return err_set(RC_DATA, "%s: \"chat_template\" is neither a template nor has one named default", c->name);
        rc = jinja_open(&c->template, json_string_value(text), json_string_length(text));
    } else if (rc == RC_OK) {
        rc = jinja_open(&c->template, b.s != NULL ? b.s : "", b.len);
    } else {
        buf_free(&b);
        return rc;
    }
    buf_free(&b);
    return rc == RC_OK ? rc : err_at(rc, "%s: chat template", c->name);
}

/* A token is a string or an object with its content. */
static int
add_tokens(struct chat *c, const json_t *source)
{
    static const char *const names[] = { "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token",
        "mask_token" };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        json_t *token = json_object_get(source, names[i]);

        if (json_is_object(token))
            token = json_object_get(token, "content");
        if (json_is_string(token) && json_object_get(c->context, names[i]) == NULL &&
            json_object_set(c->context, names[i], token) != 0)
            return err_set(RC_OS, "out of memory");
    }
    return RC_OK;
}

static int
set_today(struct chat *c, const char *text)
{
    struct tm tm = { 0 }, back;
    char again[16];
    time_t t;
    int used = 0;

    if (sscanf(text, "%4d-%2d-%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &used) == 3 && text[used] == '\0') {
        tm.tm_year -= 1900;
        tm.tm_mon--;
        t = timegm(&tm);
        if (t >= 0 && gmtime_r(&t, &back) != NULL && strftime(again, sizeof(again), "%Y-%m-%d", &back) > 0 &&
            strcmp(again, text) == 0) {
            c->today = t;
            return RC_OK;
        }
    }
    return err_set(RC_USAGE, "today is \"%s\", want YYYY-MM-DD", text);
}

static int
set_variable(struct chat *c, const char *text)
{
    const char *equals = strchr(text, '=');
    json_t *value;

    if (equals == NULL || equals == text)
        return err_set(RC_USAGE, "template variable \"%s\", want NAME=VALUE", text);
    if (strncmp(text, "today=", 6) == 0)
        return set_today(c, equals + 1);
    value = json_loads(equals + 1, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    if (value == NULL)
        value = json_string(equals + 1);
    if (value == NULL)
        return err_set(RC_USAGE, "template variable \"%s\" is not UTF-8", text);
    return json_object_setn_new(c->context, text, (size_t)(equals - text), value) == 0 ? RC_OK : err_set(RC_USAGE,
        "template variable \"%s\" cannot be set", text);
}

static int
open_all(struct chat *c, const char *dir, const char *const *set)
{
    json_t *config = NULL, *map = NULL;
    int rc;

    if ((rc = read_json(dir, "tokenizer_config.json", &config)) == RC_OK)
        rc = read_json(dir, "special_tokens_map.json", &map);
    if (rc == RC_OK && (rc = open_template(c, dir, config)) == RC_OK) {
        c->context = json_pack("{s:n, s:n, s:b}", "tools", "documents", "add_generation_prompt", 0);
        rc = c->context != NULL ? add_tokens(c, config) : err_set(RC_OS, "out of memory");
    }
    if (rc == RC_OK)
        rc = add_tokens(c, map);
    for (; rc == RC_OK && set != NULL && *set != NULL; set++)
        rc = set_variable(c, *set);
    json_decref(config);
    json_decref(map);
    return rc;
}

int
chat_open(struct chat **out, const char *model_dir, const char *const *set)
{
    struct chat *c = mem_zalloc(1, sizeof(*c));
    int rc = RC_OS;

    *out = NULL;
    if (c != NULL) {
        c->today = -1;
        rc = open_all(c, model_dir, set);
    }
    if (rc != RC_OK)
        chat_close(c);
    else
        *out = c;
    return rc;
}

int
chat_render(const struct chat *c, const json_t *messages, struct buf *out)
{
    json_t *context = json_copy(c->context);
    int rc;

    if (context == NULL || json_object_set(context, "messages", (json_t *)(uintptr_t)messages) != 0)
        rc = err_set(RC_OS, "out of memory");
    else
        rc = jinja_render(c->template, context, c->today, out);
    json_decref(context);
    return rc == RC_OK ? rc : err_at(rc, "%s", c->name);
}

void
chat_close(struct chat *c)
{
    if (c == NULL)
        return;
    jinja_close(c->template);
    json_decref(c->context);
    mem_free(c->name);
    mem_free(c);
}
