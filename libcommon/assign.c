/* assign - which rank runs which blocks and compresses which rows */
#include "assign.h"

#include "mem.h"
#include "msg.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROWS_MIN   = 64,  /* of a part, and a multiple of it: zero points are packed by 32 rows, kernels take 16 */
    PARTS_MAX  = 4,   /* parts of a step, for each rank */
    PLAIN_COST = 64,  /* of a weight that is rounded without a Hessian */
};

/* Of a corrected row, over that of another: a sweep, three of an eighth of the rows and the product with M, not two. */
static const double CORRECTED_COST = 1.2;
static const double WORTH = 0.98; /* a cut must make the step so much shorter */

/* A module of a step, or a part of one that keeps its cuts. */
struct item {
    const struct task *t;  /* its first part, in the old plan */
    int                row0, end;
    int                parts;
    int                step_rows; /* rows of a part are a multiple of this; 0: not to be cut */
};

struct piece {
    int    item, row0, end, rank;
    double cost; /* without the factorisation */
};

/* One step's work. */
struct spread {
    const struct plan *p;
    struct item  *items;
    struct piece *pieces;
    int           count, piece_count, ranks;
    double       *load;                /* [ranks] */
    bool         *has;                 /* [ranks][ARCH_POINTS_MAX] the factor */
};

double
assign_factor_cost(int cols)
{
    return (double)cols * cols * cols / 3;
}

static bool
by_hessian(const struct plan *p, const struct task *t)
{
    return t->group >= 0 && p->recipe->groups[t->group].gptq;
}

/* The input of an expert's down_proj is no other's. */
static bool
alone(const struct task *t)
{
    return t->point == POINT_DOWN && strstr(t->module, ".experts.") != NULL;
}

/* A correction wants a factor of its own, and two triangular solves with n right-hand sides, of n^3 / 2 each. */
double
assign_input_cost(const struct plan *p, const struct task *t)
{
    return assign_factor_cost(t->cols) * (plan_task_corrected(p, t) ? 5 : 1);
}

double
assign_rows_cost(const struct plan *p, const struct task *t)
{
    double weights = (double)(t->end - t->row0) * t->cols;

    return weights * (by_hessian(p, t) ? t->cols * (plan_task_corrected(p, t) ? CORRECTED_COST : 1) : PLAIN_COST);
}

/* --- blocks --- */

static void
assign_blocks(struct plan *p, int64_t *load, int ranks)
{
    for (int r = 0; r < ranks; r++)
        load[r] = 0;
    for (int b = 0; b < p->block_count; b++)
        p->blocks[b].rank = -1;
    for (int n = 0; n < p->block_count; n++) {
        int block = -1, rank = 0;

        for (int b = 0; b < p->block_count; b++)
            if (p->blocks[b].rank < 0 && (block < 0 || p->blocks[b].tokens > p->blocks[block].tokens))
                block = b;
        for (int r = 1; r < ranks; r++)
            rank = load[r] < load[rank] ? r : rank;
        p->blocks[block].rank = rank;
        load[rank] += p->blocks[block].tokens;
    }
}

/* --- one step --- */

static int
longest_first(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;

    if (x->cost != y->cost)
        return x->cost < y->cost ? 1 : -1;
    if (x->item != y->item)
        return x->item < y->item ? -1 : 1;
    return x->row0 < y->row0 ? -1 : x->row0 > y->row0;
}

static double
factor_on(const struct spread *s, const struct piece *c, int rank)
{
    const struct task *t = s->items[c->item].t;

    return !by_hessian(s->p, t) || (s->has[rank * ARCH_POINTS_MAX + (int)t->point] && !alone(t)) ? 0 :
        assign_input_cost(s->p, t);
}

/* The step's longest rank when every item is cut into its parts; fills pieces. */
static double
spread(struct spread *s)
{
    double most = 0;

    s->piece_count = 0;
    for (int i = 0; i < s->count; i++) {
        const struct item *it = &s->items[i];
        int64_t unit = it->step_rows > 0 ? it->step_rows : it->end - it->row0;
        int64_t units = (it->end - it->row0 + unit - 1) / unit;

        for (int k = 0; k < it->parts; k++) {
            struct task t = *it->t;
            int64_t end = it->row0 + units * (k + 1) / it->parts * unit;

            t.row0 = it->row0 + (int)(units * k / it->parts * unit);
            t.end = end < it->end ? (int)end : it->end;
            s->pieces[s->piece_count++] = (struct piece){ .item = i, .row0 = t.row0, .end = t.end,
                .cost = assign_rows_cost(s->p, &t) };
        }
    }
    qsort(s->pieces, (size_t)s->piece_count, sizeof(*s->pieces), longest_first);
    memset(s->has, 0, (size_t)s->ranks * ARCH_POINTS_MAX);
    for (int r = 0; r < s->ranks; r++)
        s->load[r] = 0;
    for (int i = 0; i < s->piece_count; i++) {
        struct piece *c = &s->pieces[i];

        for (int r = 1; r < s->ranks; r++)
            if (s->load[r] + factor_on(s, c, r) < s->load[c->rank] + factor_on(s, c, c->rank))
                c->rank = r;
        s->load[c->rank] += c->cost + factor_on(s, c, c->rank);
        s->has[c->rank * ARCH_POINTS_MAX + (int)s->items[c->item].t->point] = true;
        most = s->load[c->rank] > most ? s->load[c->rank] : most;
    }
    return most;
}

/* The item with the largest piece on the busiest rank that can be cut once more; -1: none. */
static int
to_cut(const struct spread *s)
{
    int busiest = 0, item = -1;
    double cost = 0;

    for (int r = 1; r < s->ranks; r++)
        busiest = s->load[r] > s->load[busiest] ? r : busiest;
    for (int i = 0; i < s->piece_count; i++) {
        const struct item *it = &s->items[s->pieces[i].item];

        if (s->pieces[i].rank == busiest && s->pieces[i].cost > cost && it->step_rows > 0 &&
            (it->parts + 1) * it->step_rows <= it->end - it->row0) {
            cost = s->pieces[i].cost;
            item = s->pieces[i].item;
        }
    }
    return item;
}

/* Cuts while that pays; a cut that does not may open the way to ones that do. */
static int
cut(struct spread *s)
{
    int *best = mem_alloc((size_t)s->count + 1, sizeof(*best)), since = 0, item;
    double most = spread(s), trial;

    if (best == NULL)
        return RC_OS;
    for (int i = 0; i < s->count; i++)
        best[i] = s->items[i].parts;
    while (since < s->ranks && s->piece_count < PARTS_MAX * s->ranks + s->count && (item = to_cut(s)) >= 0) {
        s->items[item].parts++;
        trial = spread(s);
        since++;
        if (trial < most * WORTH) {
            most = trial;
            since = 0;
            for (int i = 0; i < s->count; i++)
                best[i] = s->items[i].parts;
        }
    }
    for (int i = 0; i < s->count; i++)
        s->items[i].parts = best[i];
    (void)spread(s);
    mem_free(best);
    return RC_OK;
}

/* --- the plan --- */

/* Rows of a part must be a multiple of this; 0: the module has to stay whole. */
static int
unit_of(const struct plan *p, const struct task *t)
{
    const struct qargs *w;

    if (!by_hessian(p, t))
        return 0;
    w = &p->recipe->groups[t->group].scheme.weights;
    if (w->strategy == ARGS_TENSOR)
        return 0; /* one scale for all rows */
    return w->block[0] > 0 ? (w->block[0] % ROWS_MIN == 0 ? w->block[0] : w->block[0] * ROWS_MIN) : ROWS_MIN;
}

static bool
same_module(const struct task *a, const struct task *b)
{
    return strcmp(a->module, b->module) == 0;
}

/* Modules of a step: whole ones to cut, or the parts of one that has been begun. */
static void
list_items(struct spread *s, const struct step *st)
{
    const struct task *t = s->p->tasks;

    s->count = 0;
    for (int i = st->first_task, n; i < st->end_task; i += n) {
        bool begun = false;

        for (n = 0; i + n < st->end_task && same_module(&t[i], &t[i + n]); n++)
            begun = begun || plan_task_done(s->p, &t[i + n]);
        for (int k = 0; k < (begun ? n : 1); k++)
            s->items[s->count++] = (struct item){ .t = &t[i + k], .row0 = begun ? t[i + k].row0 : 0,
                .end = begun ? t[i + k].end : t[i].rows, .parts = 1, .step_rows = begun ? 0 : unit_of(s->p, &t[i]) };
    }
}

/* In the order of modules and rows. */
static int
in_order(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;

    if (x->item != y->item)
        return x->item < y->item ? -1 : 1;
    return x->row0 < y->row0 ? -1 : x->row0 > y->row0;
}

static int
add_pieces(struct spread *s, struct task **tasks, size_t *cap, int *count)
{
    char name[ARCH_NAME_MAX + 32];

    qsort(s->pieces, (size_t)s->piece_count, sizeof(*s->pieces), in_order);
    for (int i = 0; i < s->piece_count; i++) {
        const struct piece *c = &s->pieces[i];
        struct task *t = mem_grow(*tasks, cap, (size_t)*count + 1, sizeof(*t));

        if (t == NULL)
            return RC_OS;
        *tasks = t;
        t += *count;
        *t = *s->items[c->item].t;
        t->row0 = c->row0;
        t->end = c->end;
        t->rank = c->rank;
        t->cost = by_hessian(s->p, t) ? c->cost + assign_input_cost(s->p, t) : c->cost;
        if (c->row0 == 0 && c->end == t->rows)
            (void)snprintf(name, sizeof(name), "%s", t->module);
        else
            (void)snprintf(name, sizeof(name), "%s@%d-%d", t->module, c->row0, c->end);
        t->name = mem_strdup(name);
        t->module = mem_strdup(t->module);
        ++*count;
        if (t->name == NULL || t->module == NULL)
            return RC_OS;
    }
    return RC_OK;
}

/* Layers are alike: the parts that an earlier step of the same shape has got. */
static bool
same_shape(const struct item *a, const struct item *b, int count)
{
    for (int i = 0; i < count; i++)
        if (a[i].t->point != b[i].t->point || a[i].end != b[i].end || a[i].row0 != b[i].row0 ||
            a[i].t->cols != b[i].t->cols || a[i].t->group != b[i].t->group || a[i].step_rows != b[i].step_rows)
            return false;
    return true;
}

struct memo { /* of the last few shapes of steps */
    struct item *items;
    int          count;
};

static int
assign_step(struct spread *s, const struct step *st, struct memo *memo)
{
    list_items(s, st);
    for (int k = 0; k < POINT_COUNT; k++)
        if (memo[k].count == s->count && same_shape(memo[k].items, s->items, s->count)) {
            for (int i = 0; i < s->count; i++)
                s->items[i].parts = memo[k].items[i].parts;
            (void)spread(s);
            return RC_OK;
        }
    TRY(cut(s));
    memo = &memo[st->first_point];
    memcpy(memo->items, s->items, (size_t)s->count * sizeof(*s->items));
    memo->count = s->count;
    return RC_OK;
}

static int
assign_tasks(struct plan *p, struct spread *s)
{
    struct memo memo[POINT_COUNT] = { 0 };
    struct task *tasks = NULL;
    int count = 0, rc = RC_OK;
    size_t cap = 0;

    for (int k = 0; k < POINT_COUNT; k++)
        if ((memo[k].items = mem_alloc((size_t)p->task_count + 1, sizeof(*memo->items))) == NULL)
            rc = RC_OS;
    for (int i = 0; i < p->step_count && rc == RC_OK; i++) {
        int first = count;

        if ((rc = assign_step(s, &p->steps[i], memo)) == RC_OK && (rc = add_pieces(s, &tasks, &cap, &count)) == RC_OK) {
            p->steps[i].first_task = first; /* items of later steps still refer to the old tasks */
            p->steps[i].end_task = count;
        }
    }
    for (int k = 0; k < POINT_COUNT; k++)
        mem_free(memo[k].items);
    for (int i = 0; i < p->task_count; i++) {
        mem_free(p->tasks[i].name);
        mem_free(p->tasks[i].module);
    }
    mem_free(p->tasks);
    p->tasks = tasks;
    p->task_count = count;
    return rc;
}

int
assign_ranks(struct plan *p, int ranks)
{
    struct spread s = { .p = p, .ranks = ranks };
    size_t n = (size_t)ranks, most = 0, parts;
    int64_t *tokens = mem_alloc(n, sizeof(*tokens));
    int rc;

    for (int i = 0; i < p->step_count; i++) {
        size_t here = (size_t)(p->steps[i].end_task - p->steps[i].first_task);

        most = here > most ? here : most;
    }
    parts = 2 * most + PARTS_MAX * n + 1;
    s.items = mem_alloc(most + 1, sizeof(*s.items));
    s.pieces = mem_alloc(parts, sizeof(*s.pieces));
    s.load = mem_alloc(n, sizeof(*s.load));
    s.has = mem_alloc(n * ARCH_POINTS_MAX, sizeof(*s.has));
    if (tokens == NULL || s.items == NULL || s.pieces == NULL || s.load == NULL || s.has == NULL) {
        rc = RC_OS;
    } else {
        p->ranks = ranks;
        assign_blocks(p, tokens, ranks);
        rc = assign_tasks(p, &s);
    }
    mem_free(tokens);
    mem_free(s.items);
    mem_free(s.pieces);
    mem_free(s.load);
    mem_free(s.has);
    return rc;
}

bool
assign_pays(const struct plan *p, int first_task, int i)
{
    const struct task *t = &p->tasks[i];

    for (int k = first_task; k < i && !alone(t); k++)
        if (p->tasks[k].rank == t->rank && p->tasks[k].point == t->point && by_hessian(p, &p->tasks[k]))
            return false;
    return by_hessian(p, t);
}
