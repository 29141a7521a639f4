/* replay - the measured times of a run on another number of ranks */
#include "replay.h"

#include "assign.h"
#include "hess.h"
#include "mem.h"
#include "msg.h"

#include <string.h>

struct work {
    const struct report *r;
    struct plan         *p;
    const struct arch   *a;
    const struct replay_opts *o;
    double *load, *share;   /* [ranks] seconds of a step; of all tokens */
    double *in;             /* [ranks] bytes and messages of a step, as seconds */
    bool   *takes;          /* [ranks] */
};

/* Of a module's row, without the factor; 0: it was not measured. */
static double
row_seconds(const struct report *r, const char *module)
{
    const struct task *t;
    double seconds = 0;
    int count, rows = 0;

    if ((t = plan_module(r->p, module, &count)) == NULL)
        return 0;
    for (int i = 0; i < count; i++) {
        const struct report_task *m = &r->tasks[&t[i] - r->p->tasks];

        if (!m->there)
            continue;
        seconds += m->seconds - m->factor;
        rows += t[i].end - t[i].row0;
    }
    return rows > 0 ? seconds / rows : 0;
}

/* Of an input's Hessian: the mean over those that had it to do. */
static double
factor_seconds(const struct report *r, int step, enum point point)
{
    double seconds = 0;
    int count = 0;

    for (int i = r->p->steps[step].first_task; i < r->p->steps[step].end_task; i++)
        if (r->p->tasks[i].point == point && r->tasks[i].there && r->tasks[i].factor > 0) {
            seconds += r->tasks[i].factor;
            count++;
        }
    return count > 0 ? seconds / count : 0;
}

/* Slowest rank and mean. */
static double
compress(struct work *w, int step, struct replay *out, double *mean)
{
    const struct step *s = &w->p->steps[step];
    double most = 0, all = 0;

    memset(w->load, 0, (size_t)w->p->ranks * sizeof(*w->load));
    for (int i = s->first_task; i < s->end_task; i++) {
        const struct task *t = &w->p->tasks[i];
        double seconds = row_seconds(w->r, t->module) * (t->end - t->row0);

        if (assign_pays(w->p, s->first_task, i))
            seconds += factor_seconds(w->r, step, t->point);
        w->load[t->rank] += seconds;
        out->longest = seconds > out->longest ? seconds : out->longest;
    }
    for (int k = 0; k < w->p->ranks; k++) {
        most = w->load[k] > most ? w->load[k] : most;
        all += w->load[k];
    }
    *mean += all / w->p->ranks;
    return most;
}

/* Sums come in slices from everybody, then whole slices to those who take them. Nothing of it is counted as hidden. */
static double
reduce(struct work *w, int step)
{
    const struct step *s = &w->p->steps[step];
    int ranks = w->p->ranks;
    double most = 0;

    memset(w->in, 0, (size_t)ranks * sizeof(*w->in));
    for (int point = 0; ranks > 1 && point < arch_point_total(w->a); point++) {
        enum point base = arch_point_base((enum point)point);
        bool any = false;
        double bytes;

        if ((int)base < s->first_point || (int)base >= s->end_point || !plan_point_sum(w->p, step, (enum point)point))
            continue;
        memset(w->takes, 0, (size_t)ranks);
        for (int i = s->first_task; i < s->end_task; i++)
            if ((int)w->p->tasks[i].point == point && plan_task_waits(w->p, &w->p->tasks[i]))
                any = w->takes[w->p->tasks[i].rank] = true;
        if (!any)
            continue;
        bytes = (double)hess_values(arch_width(w->a, s->layer, base, arch_point_expert((enum point)point)),
            plan_point_pairs(w->p, step, (enum point)point)) * sizeof(double);
        for (int k = 0; k < ranks; k++)
            w->in[k] += (bytes * (ranks - 1) / ranks / w->o->link + w->o->latency * (ranks - 1)) * (1 + w->takes[k]);
    }
    for (int k = 0; k < ranks; k++)
        most = w->in[k] > most ? w->in[k] : most;
    return most;
}

/* Of the slowest rank: the share of tokens that it has. */
static double
largest_share(struct work *w)
{
    double most = 0, blocks;

    if (w->o->tokens > 0) {
        blocks = (double)((w->o->tokens * w->p->block_count + w->p->tokens - 1) / w->p->tokens);
        return (double)(((int64_t)blocks + w->p->ranks - 1) / w->p->ranks) / blocks;
    }
    memset(w->share, 0, (size_t)w->p->ranks * sizeof(*w->share));
    for (int b = 0; b < w->p->block_count; b++)
        w->share[w->p->blocks[b].rank] += (double)w->p->blocks[b].tokens / (double)w->p->tokens;
    for (int k = 0; k < w->p->ranks; k++)
        most = w->share[k] > most ? w->share[k] : most;
    return most;
}

static void
run_through(struct replay *out, struct work *w)
{
    double scale = w->o->tokens > 0 ? (double)w->o->tokens / (double)w->p->tokens : 1, mean = 0;

    for (int i = 0; i < w->p->step_count; i++) {
        double calibrate = 0;

        for (int k = 0; k < w->r->ranks; k++) {
            const struct report_cell *c = report_cell(w->r, i, k);

            calibrate += c->step > c->waited ? c->step - c->waited : 0;
        }
        out->calibrate += calibrate * scale * largest_share(w);
        out->reduce += reduce(w, i);
        out->compress += compress(w, i, out, &mean);
    }
    out->seconds = out->calibrate + out->reduce + out->compress;
    out->imbalance = mean > 0 ? out->compress / mean : 1;
}

int
replay(struct replay *out, const struct report *r, struct plan *p, const struct arch *a, const struct replay_opts *o,
    int ranks)
{
    struct work w = { .r = r, .p = p, .a = a, .o = o };
    size_t n = (size_t)ranks;
    int rc;

    *out = (struct replay){ .ranks = ranks };
    if (p->tokens < 1 || p->block_count < 1)
        return err_set(RC_DATA, "%s: no calibration to replay", p->dir);
    TRY(assign_ranks(p, ranks));
    w.load = mem_alloc(n, sizeof(*w.load));
    w.share = mem_alloc(n, sizeof(*w.share));
    w.in = mem_alloc(n, sizeof(*w.in));
    w.takes = mem_alloc(n, sizeof(*w.takes));
    rc = w.load != NULL && w.share != NULL && w.in != NULL && w.takes != NULL ? RC_OK : RC_OS;
    if (rc == RC_OK)
        run_through(out, &w);
    mem_free(w.load);
    mem_free(w.share);
    mem_free(w.in);
    mem_free(w.takes);
    return rc;
}
