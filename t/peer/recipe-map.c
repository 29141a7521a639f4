/* recipe-map RECIPE < MODULES - what libcommon's recipes make of lines "name<TAB>class and bases"
 *
 * A line for each module: its name and, of the group that it belongs to, the entry of config_groups; or "null" and why.
 * Then a line "#" if the recipe as a whole can be carried out, else "#" and why not. For recipes_map.py. */
#include "../../libcommon/msg.h"
#include "../../libcommon/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int
map_line(struct recipe *r, char *line)
{
    char *classes = strchr(line, '\t'), *text;
    const char *why;
    json_t *json;
    int g;

    if (classes == NULL)
        return err_set(RC_DATA, "no class in \"%s\"", line);
    *classes++ = '\0';
    g = recipe_find(r, line, classes, &why);
    if (g < 0) {
        (void)printf("%s\tnull\t%s\n", line, why);
        return RC_OK;
    }
    TRY(recipe_group_config(&r->groups[g], &json));
    text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
    (void)printf("%s\t%s\t%s\n", line, text, r->groups[g].gptq ? "gptq" : "rtn");
    free(text);
    json_decref(json);
    return RC_OK;
}

int
main(int argc, char *argv[])
{
    struct recipe *r = NULL;
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int rc;

    if (argc != 2)
        die(RC_USAGE, "usage: recipe-map RECIPE < MODULES");
    rc = recipe_read(&r, argv[1], NULL);
    while (rc == RC_OK && (n = getline(&line, &cap, stdin)) > 0) {
        line[n - 1] = '\0';
        rc = map_line(r, line);
    }
    free(line);
    if (rc != RC_OK)
        die(rc, "%s", err_text());
    (void)printf("#%s\n", recipe_check_used(r) == RC_OK ? "" : err_text());
    recipe_free(r);
    return msg_close_stdout(RC_OK);
}
