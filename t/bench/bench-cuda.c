/* bench-cuda - the cuda backend's members as tools call them, with what they copy, beside the cpu backend's
 *
 * Times are the wall's and hold the copies from and to pageable memory; what a kernel alone takes, and its share of the
 * card's peak, is for a profiler to say (share/cuda-report.sh asks ncu where it is installed). */
#include "bench.h"

#include "../../kernels/backend.h"
#include "../../kernels/factor.h"
#include "../../kernels/scale.h"
#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"

#include <stdio.h>
#include <string.h>

enum { N = 4096, ROWS = 2048 };

struct bench_cuda {
    const struct backend *bk;
    struct dev           *dev;
    struct weight        *w;
    void                 *x, *y;
    double               *h;
    float                *l;
    int                  *order;
    uint8_t              *dead;
    int16_t              *e;
    struct gptq_job       job;
};

static int
do_matmul(void *ctx)
{
    struct bench_cuda *c = ctx;

    return c->bk->matmul(c->dev, c->y, DT_BF16, c->x, DT_BF16, ROWS, c->w, NULL);
}

static int
do_syrk(void *ctx)
{
    struct bench_cuda *c = ctx;

    return c->bk->syrk(c->dev, c->h, c->x, DT_BF16, ROWS, N, c->e);
}

static int
do_factor(void *ctx)
{
    struct bench_cuda *c = ctx;

    return c->bk->factor(c->dev, c->l, c->dead, c->h, 1, c->order, 0.01, N);
}

static int
do_gptq(void *ctx)
{
    struct bench_cuda *c = ctx;

    return c->bk->gptq(c->dev, &c->job);
}

static void
row(struct bench *b, struct bench_cuda *c, const char *what, double work, int (*fn)(void *))
{
    char name[64];

    if (fn(c) != RC_OK)
        die(RC_UNAVAILABLE, "%s: %s", what, err_text());
    (void)snprintf(name, sizeof(name), "%s %s", c->bk->name, what);
    bench_row(b, name, "4096 x 4096", BENCH_NONE, work, bench_time(b, fn, c));
}

static void
bench_backend(struct bench *b, const char *name, struct qspec *q)
{
    struct dev_opts o = { .threads = b->threads };
    struct bench_cuda c = { 0 };
    uint64_t seed = 1;
    size_t square = (size_t)N * N;
    float *w = bench_alloc(square, sizeof(*w)), *scale = bench_alloc(square / 128, sizeof(*scale));
    double n = N;

    if (backend_find(&c.bk, name) != RC_OK || c.bk->open(&c.dev, &o) != RC_OK)
        die(RC_UNAVAILABLE, "%s", err_text());
    c.x = bench_bf16((size_t)ROWS * N, &seed);
    c.y = bench_bf16(square, &seed);
    c.h = bench_alloc((size_t)N * (N + 1) / 2, sizeof(*c.h));
    c.l = bench_alloc(square, sizeof(*c.l));
    c.order = bench_alloc(N, sizeof(*c.order));
    c.dead = bench_alloc(N, 1);
    c.e = bench_alloc(N, sizeof(*c.e));
    memset(c.h, 0, (size_t)N * (N + 1) / 2 * sizeof(*c.h));
    for (int i = 0; i < N; i++)
        c.e[i] = -10;
    for (size_t i = 0; i < square; i++)
        w[i] = bf16_round(bench_noise(&seed));
    if (c.bk->weight_pack(c.dev, &c.w, c.y, DT_BF16, DT_BF16, N, N) != RC_OK)
        die(RC_OS, "%s", err_text());
    row(b, &c, "matmul, 2048 rows", 2 * ROWS * n * n, do_matmul);
    row(b, &c, "syrk, 2048 rows", ROWS * n * n, do_syrk);
    (void)factor_order(c.order, c.h, true, N);
    row(b, &c, "factor", n * n * n / 3, do_factor);
    scale_rows(q, NULL, w, N, N, 1, scale, NULL);
    c.job = (struct gptq_job){ .spec = q, .rows = N, .cols = N, .w = w, .scale = scale, .global_scale = 1,
        .order = c.order, .l = c.l, .dead = c.dead, .codes = bench_alloc(square, 1) };
    row(b, &c, "gptq int4 g128", n * n * n, do_gptq);
    c.bk->weight_free(c.dev, c.w);
    mem_free(c.job.codes);
    mem_free(c.x);
    mem_free(c.y);
    mem_free(c.h);
    mem_free(c.l);
    mem_free(c.order);
    mem_free(c.dead);
    mem_free(c.e);
    mem_free(w);
    mem_free(scale);
    c.bk->close(c.dev);
}

int
main(int argc, char *argv[])
{
    struct qspec q = { GRID_INT, 4, 1, STRATEGY_GROUP, 128, 0, DT_BF16, DT_BF16, 0 };
    struct bench b;

    msg_tool("bench-cuda");
    bench_open(&b, argc, argv);
    bench_backend(&b, "cuda", &q);
    bench_backend(&b, "cpu", &q);
    return 0;
}
