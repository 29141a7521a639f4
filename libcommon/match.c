/* match - which modules a recipe's target or ignore entry means */
#define PCRE2_CODE_UNIT_WIDTH 8

#include "match.h"

#include "mem.h"

#include <pcre2.h>
#include <string.h>

int
match_init(struct match *m, const char *text)
{
    unsigned char why[128];
    size_t at;
    int code;

    *m = (struct match){ 0 };
    if ((m->text = mem_strdup(text)) == NULL)
        return RC_OS;
    if (strncmp(text, "re:", 3) != 0)
        return RC_OK;
    m->regex = pcre2_compile((const unsigned char *)text + 3, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED | PCRE2_UTF, &code,
        &at, NULL);
    if (m->regex != NULL)
        return RC_OK;
    (void)pcre2_get_error_message(code, why, sizeof(why));
    (void)err_set(RC_DATA, "pattern \"%s\": %s at character %zu", text, (const char *)why, at + 4);
    match_free(m);
    return RC_DATA;
}

void
match_free(struct match *m)
{
    pcre2_code_free(m->regex);
    mem_free(m->text);
    *m = (struct match){ 0 };
}

enum match_kind
match_module(const struct match *m, const char *name, const char *class_name)
{
    pcre2_match_data *data;
    int n;

    if (m->regex == NULL)
        return strcmp(m->text, name) == 0 ? MATCH_NAME : strcmp(m->text, class_name) == 0 ? MATCH_CLASS : MATCH_NO;
    if ((data = pcre2_match_data_create_from_pattern(m->regex, NULL)) == NULL)
        return MATCH_NO;
    n = pcre2_match(m->regex, (const unsigned char *)name, strlen(name), 0, 0, data, NULL);
    pcre2_match_data_free(data);
    return n > 0 ? MATCH_REGEX : MATCH_NO;
}
