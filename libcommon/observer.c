#include "observer.h"

#include "msg.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

/* A range of factors: expand, expand - expand / grid, ... down to expand (1 - maxshrink). wide: without kwargs that say
 * otherwise the range is that of the format, in RANGES. */
struct observer_row {
    const char *name;
    bool        search, weighted, wide;
    double      maxshrink, grid, norm, expand;
};

static const struct observer_row rows[] = {
    { .name = "memoryless_minmax" },
    { .name = "minmax" },
    { .name = "static_minmax" },
    { .name = "memoryless_mse", .search = true, .maxshrink = 0.20, .grid = 100, .norm = 2.4, .expand = 1 },
    { .name = "mse", .search = true, .maxshrink = 0.20, .grid = 100, .norm = 2.4, .expand = 1 },
    { .name = "imatrix_mse", .search = true, .weighted = true, .wide = true, .maxshrink = 0.95, .grid = 20, .norm = 2,
        .expand = 1 },
    { .name = "nvfp4_expanded_mse", .search = true, .maxshrink = 1 - 0.8 / 1.8, .grid = 200, .norm = 2.4,
        .expand = 1.8 },
    { .name = "nvfp4_expanded_imatrix", .search = true, .weighted = true, .maxshrink = 1 - 0.8 / 1.8, .grid = 200,
        .norm = 3, .expand = 1.8 },
};

/* What a weighted search covers by itself: ints gain from clipping, e2m1 with fine scales from both sides (its upper
 * values are far apart: four-over-six is the factor 1.5), powers of two have only their neighbours. */
static const struct range {
    enum dtype scale; /* DT_NONE: any other */
    float      lo, hi;
    int        steps;
} RANGES[] = {
    { DT_F8_E4M3, 0.7f, 1.6f, 46 },
    { DT_F8_E8M0, 0.5f, 2.0f, 3 },
    { DT_NONE, 0.5f, 1.15f, 66 },
};

int
observer_find(const char *text, const char **name)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *a = rows[i].name, *b = text;

        while (*a != '\0' && (*a == tolower((unsigned char)*b) || (*a == '_' && (*b == '-' || *b == ' ')))) {
            a++;
            b++;
        }
        if (*a == '\0' && *b == '\0') {
            *name = rows[i].name;
            return RC_OK;
        }
    }
    return err_set(RC_DATA, "observer: unknown value %s", text);
}

static const struct observer_row *
row_of(const char *name)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return &rows[0];
}

bool
observer_weighted(const char *name)
{
    return row_of(name)->weighted;
}

/* One of observer_kwargs into the row; RC_DATA. */
static int
set_kwarg(struct observer_row *r, const char *key, const json_t *v)
{
    static const char *const idle[] = { "patience", "triton_error_buffer", "averaging_constant", "strict" };
    double x = json_number_value(v);

    for (size_t i = 0; i < sizeof(idle) / sizeof(idle[0]); i++)
        if (strcmp(key, idle[i]) == 0)
            return json_is_number(v) || json_is_boolean(v) ? RC_OK :
                err_set(RC_DATA, "observer_kwargs: %s is not a number", key);
    if (!r->search)
        return err_set(RC_DATA, "observer_kwargs: %s does not go with observer %s", key, r->name);
    if (!json_is_number(v) || !isfinite(x))
        return err_set(RC_DATA, "observer_kwargs: %s is not a number", key);
    if (strcmp(key, "norm") == 0) {
        r->norm = x;
        return x > 0 && x <= 100 ? RC_OK : err_set(RC_DATA, "observer_kwargs: norm is %g, want more than 0", x);
    }
    r->wide = false;
    if (strcmp(key, "maxshrink") == 0) {
        r->maxshrink = x;
        return x >= 0 && x <= 1 ? RC_OK : err_set(RC_DATA, "observer_kwargs: maxshrink is %g, want 0 to 1", x);
    }
    if (strcmp(key, "grid") == 0) {
        r->grid = x;
        return x >= 1 && x < SCALE_STEPS_MAX ? RC_OK :
            err_set(RC_DATA, "observer_kwargs: grid is %g, want 1 to %d", x, SCALE_STEPS_MAX - 1);
    }
    if (strcmp(key, "expand") == 0) {
        r->expand = x;
        return x >= 1 && x <= 16 ? RC_OK : err_set(RC_DATA, "observer_kwargs: expand is %g, want 1 to 16", x);
    }
    return err_set(RC_DATA, "observer_kwargs: unknown key %s", key);
}

int
observer_opts(const char *name, const json_t *kwargs, const struct qspec *spec, struct scale_opts *out)
{
    struct observer_row r = *row_of(name);
    const struct range *w = RANGES;
    const char *key;
    json_t *v;

    *out = (struct scale_opts){ .observer = OBSERVER_MINMAX };
    json_object_foreach((json_t *)(uintptr_t)kwargs, key, v)
        TRY(set_kwarg(&r, key, v));
    if (!r.search)
        return RC_OK;
    while (w->scale != DT_NONE && w->scale != spec->scale)
        w++;
    out->observer = OBSERVER_SEARCH;
    out->norm = r.norm;
    if (r.wide) {
        out->lo = w->lo;
        out->hi = w->hi;
        out->steps = w->steps;
    } else { /* p = expand (1 - i / grid) for i = 0 .. int(maxshrink grid), as the library counts */
        int last = (int)(r.maxshrink * r.grid) > 1 ? (int)(r.maxshrink * r.grid) : 1;

        out->hi = (float)r.expand;
        out->lo = (float)(r.expand * (1 - last / r.grid));
        out->steps = last + 1;
    }
    return RC_OK;
}
