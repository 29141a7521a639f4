/* predict - what a plan will take */
#include "predict.h"

#include "../kernels/factor.h"
#include "../kernels/dev.h"
#include "assign.h"
#include "budget.h"
#include "clock.h"
#include "hess.h"
#include "mem.h"
#include "msg.h"
#include "pool.h"
#include "scheme.h"

#include <string.h>
#include <time.h>

enum { SIZE = 1024, ROWS = 1024 };

static const double MEASURE_SECONDS = 0.15;
static const double LINK = 10e9; /* bytes a second: memory of one machine, or 100 Gbit/s */

/* --- rates --- */

struct bench {
    const struct backend *bk;
    struct dev    *dev;
    enum dtype     dt;
    char          *x, *y;    /* [ROWS, SIZE] */
    struct weight *w;
    double        *sum;
    int16_t       *grid;
    float         *l, *wf, *scale;
    uint8_t       *dead, *codes;
    int           *order;
};

static int
do_forward(struct bench *b)
{
    return b->bk->matmul(b->dev, b->y, b->dt, b->x, b->dt, ROWS, b->w, NULL);
}

static int
do_products(struct bench *b)
{
    memset(b->sum, 0, (size_t)SIZE * (SIZE + 1) / 2 * sizeof(*b->sum));
    return b->bk->syrk(b->dev, b->sum, b->x, b->dt, ROWS, SIZE, b->grid);
}

static int
do_factor(struct bench *b)
{
    for (size_t i = 0, at = 0; i < SIZE; at += i + 2, i++)
        b->sum[at] = SIZE; /* positive definite beyond doubt */
    return b->bk->factor(b->dev, b->l, b->dead, b->sum, 1, b->order, 0.01, SIZE);
}

static int
do_rows(struct bench *b)
{
    struct qspec q;
    struct scheme s;
    struct gptq_job job = { .spec = &q, .rows = ROWS, .cols = SIZE, .w = b->wf, .scale = b->scale, .global_scale = 1,
        .order = b->order, .l = b->l, .dead = b->dead, .want_rtn = true, .codes = b->codes };

    TRY(scheme_find(&s, "W4A16", false));
    scheme_qspec(&s, DT_BF16, false, &q);
    return b->bk->gptq(b->dev, &job);
}

static int
rate_of(struct bench *b, int (*fn)(struct bench *b), double work, double *out)
{
    double start, end;
    int n = 0;

    TRY(fn(b)); /* what is made once */
    start = clock_seconds();
    do {
        TRY(fn(b));
        n++;
        end = clock_seconds();
    } while (end - start < MEASURE_SECONDS);
    *out = work * n / (end - start);
    return RC_OK;
}

static int
prepare(struct bench *b)
{
    size_t n = (size_t)ROWS * SIZE;
    uint32_t seed = 1;
    float *f;

    b->x = mem_alloc(n, sizeof(float));
    b->y = mem_alloc(n, sizeof(float));
    b->sum = mem_alloc((size_t)SIZE * (SIZE + 1) / 2, sizeof(*b->sum));
    b->grid = mem_alloc(SIZE, sizeof(*b->grid));
    b->l = mem_alloc((size_t)SIZE * SIZE, sizeof(*b->l));
    b->wf = f = mem_alloc(n, sizeof(*b->wf));
    b->scale = mem_alloc(n, sizeof(*b->scale));
    b->dead = mem_zalloc(SIZE, 1);
    b->codes = mem_alloc(n, 1);
    b->order = mem_alloc(SIZE, sizeof(*b->order));
    if (b->x == NULL || b->y == NULL || b->sum == NULL || b->grid == NULL || b->l == NULL || b->wf == NULL ||
        b->scale == NULL || b->dead == NULL || b->codes == NULL || b->order == NULL)
        return RC_OS;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        f[i] = rt((float)(int32_t)seed * 0x1p-31f, DT_BF16);
        b->scale[i] = 0.125f;
    }
    (void)dtype_from_f32(b->x, f, b->dt, n);
    for (int i = 0; i < SIZE; i++) {
        b->grid[i] = -10;
        b->order[i] = i;
    }
    return b->bk->weight_pack(b->dev, &b->w, b->x, b->dt, b->dt, SIZE, SIZE);
}

int
predict_rates(struct rates *r, const struct backend *bk, struct dev *dev, enum dtype dt)
{
    struct bench b = { .bk = bk, .dev = dev, .dt = dt };
    const double n = SIZE;
    int rc;

    *r = (struct rates){ .link = LINK, .threads = pool_threads(dev_pool(dev)) };
    if ((rc = prepare(&b)) == RC_OK && (rc = rate_of(&b, do_forward, n * n * ROWS, &r->forward)) == RC_OK &&
        (rc = rate_of(&b, do_products, n * n / 2 * ROWS, &r->products)) == RC_OK &&
        (rc = rate_of(&b, do_factor, assign_factor_cost(SIZE), &r->factor)) == RC_OK)
        rc = rate_of(&b, do_rows, n * n * ROWS, &r->rows);
    if (b.w != NULL)
        bk->weight_free(dev, b.w);
    mem_free(b.x);
    mem_free(b.y);
    mem_free(b.sum);
    mem_free(b.grid);
    mem_free(b.l);
    mem_free(b.wf);
    mem_free(b.scale);
    mem_free(b.dead);
    mem_free(b.codes);
    mem_free(b.order);
    return rc;
}

/* --- a plan --- */

struct model_cost {
    const struct plan *p;
    const struct arch *a;
    const struct rates *r;
    double *tokens;   /* [ranks] */
    double *load;     /* [ranks] seconds of a step's tasks */
    double *total;    /* [ranks] of all */
};

/* Multiply-adds of a token in all Linears and the attention of a step; of an expert, as often as tokens come to it. */
static double
forward_cost(const struct model_cost *m, const struct step *s)
{
    const struct arch *a = m->a;
    double sum = 0, length = (double)m->p->tokens / (double)(m->p->samples > 0 ? m->p->samples : 1);
    struct linear l;

    for (int i = 0, n = arch_linear_count(a, s->layer); i < n; i++) {
        arch_linear(a, s->layer, i, &l);
        if ((int)l.point >= s->first_point && (int)l.point < s->end_point)
            sum += (double)l.rows * l.cols * (l.expert >= 0 ? (double)a->experts_per_token / a->experts : 1);
    }
    if (s->first_point == POINT_ATTN) /* half of the square below the diagonal, for scores and for values */
        sum += length * a->heads * a->head_dim;
    return sum;
}

/* Seconds of the tasks of each rank, and what the step's longest task takes. */
static double
compress_cost(struct model_cost *m, const struct step *s, double *longest)
{
    const struct plan *p = m->p;
    double most = 0;

    memset(m->load, 0, (size_t)p->ranks * sizeof(*m->load));
    for (int i = s->first_task; i < s->end_task; i++) {
        const struct task *t = &p->tasks[i];
        double rows = assign_rows_cost(p, t) / m->r->rows, factor = 0;

        if (assign_pays(p, s->first_task, i))
            factor = assign_input_cost(p, t) / m->r->factor;
        m->load[t->rank] += rows + factor;
        *longest = rows + factor > *longest ? rows + factor : *longest;
    }
    for (int r = 0; r < p->ranks; r++) {
        m->total[r] += m->load[r];
        most = m->load[r] > most ? m->load[r] : most;
    }
    return most;
}

static double
largest(double a, double b)
{
    return a > b ? a : b;
}

/* Products and sums of a step; bytes of its sums. */
static double
sums_cost(const struct model_cost *m, int step, double *bytes)
{
    const struct step *s = &m->p->steps[step];
    double sum = 0;

    *bytes = 0;
    for (int p = s->first_point; p < s->end_point; p++) {
        int n = arch_width(m->a, s->layer, (enum point)p, -1);
        bool pairs = plan_point_pairs(m->p, step, (enum point)p);

        if (!plan_point_sum(m->p, step, (enum point)p))
            continue;
        sum += (double)n * n * (pairs ? 1.5 : 0.5);
        *bytes += (double)hess_values(n, pairs) * sizeof(double);
    }
    return sum;
}

static double
weight_bytes(const struct plan *p, const struct task *t)
{
    const struct qargs *w;
    double n = (double)(t->end - t->row0) * t->cols;

    if (t->group < 0)
        return 0;
    w = &p->recipe->groups[t->group].scheme.weights;
    return n * w->bits / 8 + (w->group > 0 ? n / w->group * 2 : 0);
}

static void
add_disk(struct prediction *out, const struct model_cost *m, const struct step *s)
{
    for (int i = s->first_task; i < s->end_task; i++)
        out->disk += weight_bytes(m->p, &m->p->tasks[i]) * 2;
}

static void
add_memory(struct prediction *out, const struct model_cost *m)
{
    struct budget_of of = { m->p, m->a, -1, m->r->threads };
    struct budget b;

    budget_pipeline(&b, &of, &budget_ways[0]);
    out->memory = budget_total(&b);
    budget_pipeline(&b, &of, &budget_ways[BUDGET_WAYS - 1]);
    out->least = budget_total(&b);
}

/* steps: filled, or NULL. */
static void
run_through(struct prediction *out, struct model_cost *m, struct predict_step *steps)
{
    const struct plan *p = m->p;
    double busiest = 0, all = 0, states = 0;
    int passes = (p->sequential == SEQUENTIAL_LAYER ? 2 : 1) * (plan_pairs(p) ? 2 : 1);

    for (int i = 0; i < p->step_count; i++) {
        const struct step *s = &p->steps[i];
        double bytes, forward = forward_cost(m, s) * passes, products = sums_cost(m, i, &bytes), slowest = 0;
        struct predict_step now;

        for (int r = 0; r < p->ranks; r++)
            slowest = largest(slowest, m->tokens[r] * (forward / m->r->forward + products / m->r->products));
        now = (struct predict_step){ .calibrate = slowest, .reduce = 2 * bytes * (p->ranks - 1) / p->ranks / m->r->link,
            .compress = compress_cost(m, s, &out->longest) };
        out->calibrate += now.calibrate;
        out->reduce += now.reduce;
        out->compress += now.compress;
        if (steps != NULL)
            steps[i] = now;
        add_disk(out, m, s);
    }
    for (int r = 0; r < p->ranks; r++) {
        busiest = largest(busiest, m->total[r]);
        all += m->total[r];
        states += m->tokens[r];
    }
    out->disk += states * m->a->hidden * 2 * (plan_pairs(p) ? 2 : 1);
    add_memory(out, m);
    out->imbalance = all > 0 ? busiest * p->ranks / all : 1;
    out->seconds = out->calibrate + out->reduce + out->compress;
}

int
predict_assigned(struct prediction *out, const struct plan *p, const struct arch *a, const struct rates *r,
    struct predict_step *steps)
{
    struct model_cost m = { .p = p, .a = a, .r = r };
    int rc = RC_OS;

    *out = (struct prediction){ .ranks = p->ranks };
    m.tokens = mem_zalloc((size_t)p->ranks, sizeof(*m.tokens));
    m.load = mem_zalloc((size_t)p->ranks, sizeof(*m.load));
    m.total = mem_zalloc((size_t)p->ranks, sizeof(*m.total));
    if (m.tokens != NULL && m.load != NULL && m.total != NULL) {
        for (int b = 0; b < p->block_count; b++)
            m.tokens[p->blocks[b].rank] += p->blocks[b].tokens;
        run_through(out, &m, steps);
        rc = RC_OK;
    }
    mem_free(m.tokens);
    mem_free(m.load);
    mem_free(m.total);
    return rc;
}

int
predict(struct prediction *out, struct plan *p, const struct arch *a, const struct rates *r, int ranks)
{
    TRY(assign_ranks(p, ranks));
    return predict_assigned(out, p, a, r, NULL);
}
