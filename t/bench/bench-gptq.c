/* bench-gptq - speed of choosing scales, of the factor and of GPTQ on the cpu backend, at the shapes of SmolLM2-135M
 * or, with --llama, of Llama-3-8B and of experts of 768 x 2048, of which a layer may have hundreds: one by one with all
 * threads, and side by side with one each; --experts: these alone */
#include "bench.h"

#include "../../kernels/backend.h"
#include "../../kernels/factor.h"
#include "../../kernels/scale.h"
#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../../libcommon/pool.h"

#include <math.h>

enum { EXPERTS = 32, EXPERT_ROWS = 768, EXPERT_COLS = 2048 };

struct module {
    const struct backend *bk;
    struct dev           *dev;
    struct qspec          q;
    struct scale_opts     o;
    struct gptq_job       job;
    double               *h;
    float                *l, *w, *scale, *diag;
    uint8_t              *dead, *codes;
    int                  *order;
    int                   rows, n;
};

/* Diagonally dominant, with diagonals that differ. */
static void
fill_hessian(double *h, float *diag, int n, uint64_t *seed)
{
    size_t k = 0;

    for (int i = 0; i < n; i++) {
        for (int j = 0; j < i; j++)
            h[k++] = (double)bench_noise(seed) / sqrt(n);
        diag[i] = 2 + bench_noise(seed);
        h[k++] = (double)diag[i];
    }
}

static void
module_open(struct module *m, const struct backend *bk, struct dev *dev, int rows, int n)
{
    size_t size = (size_t)n, count = size * (size_t)rows;
    uint64_t seed = 1;

    *m = (struct module){ .bk = bk, .dev = dev, .rows = rows, .n = n };
    m->q = (struct qspec){ .grid = GRID_INT, .bits = 4, .symmetric = 1, .strategy = STRATEGY_GROUP,
        .group = n % 128 == 0 ? 128 : 64, .scale = DT_BF16, .t = DT_BF16 };
    m->h = bench_alloc(size * (size + 1) / 2, sizeof(*m->h));
    m->diag = bench_alloc(size, sizeof(*m->diag));
    m->l = bench_alloc(size * size, sizeof(*m->l));
    m->w = bench_alloc(count, sizeof(*m->w));
    m->scale = bench_alloc(count / (size_t)m->q.group, sizeof(*m->scale));
    m->order = bench_alloc(size, sizeof(*m->order));
    m->dead = bench_alloc(size, 1);
    m->codes = bench_alloc(count, 1);
    fill_hessian(m->h, m->diag, n, &seed);
    for (size_t i = 0; i < count; i++)
        m->w[i] = bf16_round(bench_noise(&seed) * 0.02f);
    m->o = (struct scale_opts){ .observer = OBSERVER_SEARCH, .diag = m->diag, .norm = 2, .lo = 0.05f, .hi = 1,
        .steps = 20 };
    m->job = (struct gptq_job){ .spec = &m->q, .rows = rows, .cols = n, .w = m->w, .scale = m->scale,
        .global_scale = 1, .order = m->order, .l = m->l, .dead = m->dead, .codes = m->codes };
}

static void
module_close(struct module *m)
{
    mem_free(m->h);
    mem_free(m->diag);
    mem_free(m->l);
    mem_free(m->w);
    mem_free(m->scale);
    mem_free(m->order);
    mem_free(m->dead);
    mem_free(m->codes);
}

static int
do_scales(void *ctx)
{
    struct module *m = ctx;

    return m->bk->scales(m->dev, &m->q, &m->o, m->w, m->rows, m->n, 1, m->scale, NULL);
}

static int
do_factor(void *ctx)
{
    struct module *m = ctx;

    return m->bk->factor(m->dev, m->l, m->dead, m->h, 1, m->order, 0.01, m->n);
}

static int
do_gptq(void *ctx)
{
    struct module *m = ctx;

    return m->bk->gptq(m->dev, &m->job);
}

static void
module(const struct bench *b, const struct backend *bk, struct dev *dev, int rows, int n)
{
    char shape[64], square[64];
    struct module m;
    double ts, tf, tg;

    module_open(&m, bk, dev, rows, n);
    if (factor_order(m.order, m.h, true, n) != RC_OK)
        die(RC_OS, "%s", err_text());
    (void)snprintf(shape, sizeof(shape), "%d x %d", rows, n);
    (void)snprintf(square, sizeof(square), "%d x %d", n, n);
    ts = bench_time(b, do_scales, &m);
    tf = bench_time(b, do_factor, &m);
    tg = bench_time(b, do_gptq, &m);
    bench_row(b, "scales", shape, BENCH_NONE, 0, ts);
    bench_row(b, "factor", square, BENCH_F32, pow(n, 3) / 3, tf);
    bench_row(b, "gptq", shape, BENCH_F32, (double)rows * pow(n, 2), tg);
    (void)snprintf(square, sizeof(square), "%d x %d, all three", rows, n);
    bench_row(b, "module", square, BENCH_F32, pow(n, 3) / 3 + (double)rows * pow(n, 2), ts + tf + tg);
    module_close(&m);
}

/* --- many small modules, each with a Hessian of its own --- */

static void
expert_tile(void *ctx, int tile, int worker)
{
    struct module *m = (struct module *)ctx + worker;

    (void)tile;
    if (do_scales(m) != RC_OK || do_factor(m) != RC_OK || do_gptq(m) != RC_OK)
        die(RC_OS, "%s", err_text());
}

static int
do_one_by_one(void *ctx)
{
    for (int i = 0; i < EXPERTS; i++)
        expert_tile(ctx, i, 0);
    return RC_OK;
}

struct side {
    struct module *m; /* [threads] each with a device of one thread */
    struct pool   *pool;
};

static int
do_side_by_side(void *ctx)
{
    struct side *s = ctx;

    pool_run(s->pool, EXPERTS, expert_tile, s->m);
    return RC_OK;
}

static void
experts(const struct bench *b, const struct backend *bk, struct dev *dev)
{
    struct side s = { .m = bench_alloc((size_t)b->threads, sizeof(*s.m)), .pool = dev_pool(dev) };
    double work = EXPERTS * (pow(EXPERT_COLS, 3) / 3 + EXPERT_ROWS * pow(EXPERT_COLS, 2));

    for (int i = 0; i < b->threads; i++) {
        struct dev *own;

        if (bk->open(&own, &(struct dev_opts){ .threads = 1 }) != RC_OK)
            die(RC_OS, "%s", err_text());
        module_open(&s.m[i], bk, i == 0 ? dev : own, EXPERT_ROWS, EXPERT_COLS);
        if (factor_order(s.m[i].order, s.m[i].h, true, EXPERT_COLS) != RC_OK)
            die(RC_OS, "%s", err_text());
        if (i == 0) {
            bench_row(b, "experts", "32 of 768 x 2048, one by one", BENCH_F32, work, bench_time(b, do_one_by_one, s.m));
            s.m[0].dev = own;
        }
    }
    bench_row(b, "experts", "32 of 768 x 2048, side by side", BENCH_F32, work, bench_time(b, do_side_by_side, &s));
    for (int i = 0; i < b->threads; i++) {
        bk->close(s.m[i].dev);
        module_close(&s.m[i]);
    }
    mem_free(s.m);
}

int
main(int argc, char *argv[])
{
    struct dev_opts o = { 0 };
    const struct backend *bk;
    struct dev *dev;
    struct bench b;
    int rc;

    bench_open(&b, argc, argv);
    o.threads = b.threads;
    if ((rc = backend_find(&bk, "cpu")) != RC_OK || (rc = bk->open(&dev, &o)) != RC_OK)
        die(rc, "%s", err_text());
    if (b.llama) {
        module(&b, bk, dev, 4096, 4096);
        module(&b, bk, dev, 4096, 14336);
        module(&b, bk, dev, EXPERT_ROWS, EXPERT_COLS);
        experts(&b, bk, dev);
    } else if (b.experts) {
        experts(&b, bk, dev);
    } else {
        module(&b, bk, dev, 576, 576);
        module(&b, bk, dev, 1536, 576);
        module(&b, bk, dev, 576, 1536);
    }
    bk->close(dev);
    return 0;
}
