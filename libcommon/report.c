/* report - what the log of a work directory says about a run */
#include "report.h"

#include "buf.h"
#include "json.h"
#include "mem.h"
#include "msg.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RANKS_MAX = 1 << 16, LOG_BYTES_MAX = 1 << 30 };

static const char *const tools[] = { "llmc-calib", "llmc-hessian", "llmc-gptq" };

enum { CALIB, HESSIAN, GPTQ, TOOLS };

struct line {
    const json_t *obj;
    const char   *event;
    int           tool, rank;
    double        time;
};

struct report_cell *
report_cell(const struct report *r, int step, int rank)
{
    return &r->cells[(size_t)step * (size_t)r->ranks + (size_t)rank];
}

bool
report_distance(const struct report *r, int step, double distance[2])
{
    bool known = false;

    for (int i = 0; i < 2; i++) {
        double apart = 0, size = 0;

        for (int k = 0; k < r->ranks; k++) {
            apart += report_cell(r, step, k)->apart[i];
            size += report_cell(r, step, k)->size[i];
        }
        distance[i] = size > 0 ? apart / size : NAN;
        known = known || size > 0;
    }
    return known;
}

static double
real_of(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);

    return json_is_number(v) ? json_number_value(v) : NAN;
}

static const char *
text_of(const json_t *obj, const char *key)
{
    const char *s = json_string_value(json_object_get(obj, key));

    return s != NULL ? s : "";
}

/* "2025-01-31T12:00:00.123Z"; NAN: no time. */
static double
moment(const char *s)
{
    struct tm tm = { 0 };
    int ms;

    if (sscanf(s, "%d-%d-%dT%d:%d:%d.%dZ", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec,
        &ms) != 7)
        return NAN;
    tm.tm_year -= 1900;
    tm.tm_mon--;
    return (double)timegm(&tm) + 1e-3 * ms;
}

/* A new run's events replace those of the one before. */
static struct report_cell *
cell_of(const struct report *r, const struct line *l)
{
    double step = real_of(l->obj, "step");
    struct report_cell *c;
    int run = r->rank[l->rank].run[l->tool];

    if (!(step >= 0 && step < r->p->step_count))
        return NULL;
    c = report_cell(r, (int)step, l->rank);
    if (l->tool == CALIB && c->calib != run) {
        c->calib = run;
        c->step = c->waited = c->state = 0;
        c->apart[0] = c->apart[1] = c->size[0] = c->size[1] = 0;
    } else if (l->tool == HESSIAN && c->hessian != run) {
        c->hessian = run;
        c->products = c->handover = c->begun = c->last = 0;
    } else if (l->tool == GPTQ && c->gptq != run) {
        c->gptq = run;
        c->factor = 0;
    }
    return c;
}

static double
or_zero(double v)
{
    return isfinite(v) ? v : 0;
}

static void
add_hessian(struct report_cell *c, const struct line *l)
{
    double handover = or_zero(real_of(l->obj, "publish_seconds")), took = or_zero(real_of(l->obj, "reduce_seconds"));
    double last = l->time - handover, products = or_zero(real_of(l->obj, "seconds"));

    c->products = products; /* so far in the step */
    c->handover += handover;
    if (c->begun == 0 || last - took < c->begun)
        c->begun = last - took;
    if (last > c->last)
        c->last = last;
}

static void
add_task(struct report *r, const struct line *l, double factor)
{
    const struct task *t = plan_task_find(r->p, text_of(l->obj, "task"));
    struct report_task *out;

    if (t == NULL) /* of another cut, before a replan */
        return;
    out = &r->tasks[t - r->p->tasks];
    *out = (struct report_task){ .there = true, .rank = l->rank, .end = l->time, .factor = factor,
        .seconds = or_zero(real_of(l->obj, "seconds")), .loss = real_of(l->obj, "loss"),
        .rtn_loss = real_of(l->obj, "rtn_loss"), .damp = real_of(l->obj, "damp") };
    (void)snprintf(out->method, sizeof(out->method), "%s", text_of(l->obj, "method"));
}

static void
add_distance(struct report_cell *c, const struct line *l)
{
    c->apart[0] = or_zero(real_of(l->obj, "apart"));
    c->size[0] = or_zero(real_of(l->obj, "size"));
    c->apart[1] = or_zero(real_of(l->obj, "held_apart"));
    c->size[1] = or_zero(real_of(l->obj, "held_size"));
}

/* factor: seconds of those since the last task. */
static void
add_line(struct report *r, const struct line *l, double *factor)
{
    double seconds = or_zero(real_of(l->obj, "seconds"));
    struct report_rank *rank = &r->rank[l->rank];
    struct report_cell *c;

    if (r->first == 0 || l->time < r->first)
        r->first = l->time;
    if (l->time > r->last)
        r->last = l->time;
    if (strcmp(l->event, "start") == 0) {
        rank->run[l->tool]++;
        rank->threads = (int)or_zero(real_of(l->obj, "threads"));
        (void)snprintf(rank->host, sizeof(rank->host), "%s", text_of(l->obj, "host"));
        *factor = 0;
        return;
    }
    if (strcmp(l->event, "publish") == 0) {
        const struct task *t = plan_task_find(r->p, text_of(l->obj, "task"));

        if (t != NULL)
            report_cell(r, t->step, l->rank)->publish += seconds;
        return;
    }
    if ((c = cell_of(r, l)) == NULL)
        return;
    if (l->tool == CALIB && strcmp(l->event, "step") == 0)
        c->step += seconds;
    else if (l->tool == CALIB && strcmp(l->event, "waited") == 0)
        c->waited += seconds;
    else if (l->tool == CALIB && strcmp(l->event, "state") == 0)
        c->state += seconds;
    else if (l->tool == CALIB && strcmp(l->event, "distance") == 0)
        add_distance(c, l);
    else if (l->tool == HESSIAN && strcmp(l->event, "hessian") == 0)
        add_hessian(c, l);
    else if (l->tool == GPTQ && strcmp(l->event, "factor") == 0) {
        c->factor += seconds;
        *factor += seconds;
    } else if (l->tool == GPTQ && strcmp(l->event, "task") == 0) {
        add_task(r, l, *factor);
        *factor = 0;
    }
}

static int
read_log(struct report *r, int tool, int rank, const char *path)
{
    struct line l = { .tool = tool, .rank = rank };
    struct buf b = { 0 };
    double factor = 0;
    json_t *obj;
    char *at, *end;

    TRY(buf_read_file(&b, path, LOG_BYTES_MAX));
    for (at = b.s; at != NULL && *at != '\0'; at = end) {
        end = strchr(at, '\n');
        if (end == NULL || jread_mem(&obj, at, (size_t)(end - at), path) != RC_OK) {
            r->bad_lines++;
            end = end != NULL ? end + 1 : at + strlen(at);
            continue;
        }
        end++;
        l.obj = obj;
        l.event = text_of(obj, "event");
        l.time = moment(text_of(obj, "time"));
        if (isfinite(l.time))
            add_line(r, &l, &factor);
        else
            r->bad_lines++;
        json_decref(obj);
    }
    buf_free(&b);
    return RC_OK;
}

/* "TOOL.RANK.jsonl"; false: another name. */
static bool
parse_name(const char *name, int *tool, int *rank)
{
    for (*tool = 0; *tool < TOOLS; ++*tool) {
        size_t n = strlen(tools[*tool]);
        char *end;
        long v;

        if (strncmp(name, tools[*tool], n) != 0 || name[n] != '.' || name[n + 1] < '0' || name[n + 1] > '9')
            continue;
        v = strtol(name + n + 1, &end, 10);
        *rank = (int)v;
        return v >= 0 && v < RANKS_MAX && strcmp(end, ".jsonl") == 0;
    }
    return false;
}

/* Calls read_log for each file, or, where r->cells is NULL, counts ranks. */
static int
each_log(struct report *r)
{
    char dir[PATH_MAX], path[PATH_MAX];
    int rc = RC_OK, tool, rank;
    struct dirent *e;
    DIR *d;

    TRY(plan_path(r->p, dir, "log"));
    if ((d = opendir(dir)) == NULL)
        return err_set(RC_NOINPUT, "%s: cannot read: %s", dir, strerror(errno));
    while (rc == RC_OK && (e = readdir(d)) != NULL) {
        if (!parse_name(e->d_name, &tool, &rank))
            continue;
        if (r->cells == NULL)
            r->ranks = rank >= r->ranks ? rank + 1 : r->ranks;
        else if ((rc = plan_path(r->p, path, "log/%s", e->d_name)) == RC_OK)
            rc = read_log(r, tool, rank, path);
    }
    (void)closedir(d);
    return rc;
}

/* What follows from tasks, and from when others began. */
static void
derive(struct report *r)
{
    for (int i = 0; i < r->p->task_count; i++) {
        const struct report_task *t = &r->tasks[i];
        struct report_cell *c = report_cell(r, r->p->tasks[i].step, t->rank);

        if (!t->there)
            continue;
        c->compress += t->seconds;
        if (c->first_task == 0 || t->end - t->seconds < c->first_task)
            c->first_task = t->end - t->seconds;
        if (t->end > c->last_task)
            c->last_task = t->end;
    }
    for (int s = 0; s < r->p->step_count; s++) {
        double begun = 0;

        for (int k = 0; k < r->ranks; k++)
            begun = report_cell(r, s, k)->begun > begun ? report_cell(r, s, k)->begun : begun;
        for (int k = 0; k < r->ranks; k++) {
            struct report_cell *c = report_cell(r, s, k);

            if (c->begun == 0)
                continue;
            c->lag = begun - c->begun;
            c->reduce = c->last > begun ? c->last - begun : 0;
            for (int i = r->p->steps[s].first_task; i < r->p->steps[s].end_task; i++) {
                const struct report_task *t = &r->tasks[i];
                double from = t->end - t->seconds > begun ? t->end - t->seconds : begun;
                double to = t->end < c->last ? t->end : c->last;

                if (t->there && t->rank == k && to > from)
                    c->hidden += to - from;
            }
            c->hidden = c->hidden < c->reduce ? c->hidden : c->reduce; /* moments are of milliseconds */
        }
    }
}

int
report_read(struct report *r, const struct plan *p)
{
    int rc;

    *r = (struct report){ .p = p };
    TRY(each_log(r));
    if (r->ranks == 0)
        return err_set(RC_NOINPUT, "%s: no log yet", p->dir);
    r->tasks = mem_zalloc((size_t)p->task_count + 1, sizeof(*r->tasks));
    r->cells = mem_zalloc((size_t)p->step_count * (size_t)r->ranks + 1, sizeof(*r->cells));
    r->rank = mem_zalloc((size_t)r->ranks, sizeof(*r->rank));
    rc = r->tasks != NULL && r->cells != NULL && r->rank != NULL ? each_log(r) : RC_OS;
    if (rc == RC_OK)
        derive(r);
    else
        report_free(r);
    return rc;
}

void
report_free(struct report *r)
{
    mem_free(r->tasks);
    mem_free(r->cells);
    mem_free(r->rank);
    *r = (struct report){ 0 };
}
