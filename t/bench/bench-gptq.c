/* bench-gptq [-j threads] [rows] - speed of factor and gptq on the cpu backend, best of several */
#include "../../kernels/cpu/gptq.h"
#include "../../kernels/cpu/lanes.h"
#include "../../kernels/dev.h"
#include "../../kernels/factor.h"
#include "../../kernels/scale.h"
#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One thread is timed by its own clock, since the machine may be shared. */
static clockid_t timer = CLOCK_THREAD_CPUTIME_ID;

static double
now(void)
{
    struct timespec t;

    clock_gettime(timer, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float
noise(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)((int64_t)*state >> 40) * 0x1p-23f;
}

static void *
need(size_t count, size_t size)
{
    void *p = mem_alloc(count, size);

    if (p == NULL)
        die(RC_OS, "%s", err_text());
    return p;
}

/* Diagonally dominant, with diagonals that differ. */
static double *
hessian(int n, uint64_t *seed)
{
    double *h = need((size_t)n * ((size_t)n + 1) / 2, sizeof(*h));
    size_t k = 0;

    for (int i = 0; i < n; i++) {
        for (int j = 0; j < i; j++)
            h[k++] = (double)noise(seed) / sqrt(n);
        h[k++] = 2 + (double)noise(seed);
    }
    return h;
}

static double
time_factor(struct dev *dev, float *l, uint8_t *dead, const double *h, const int *order, int n)
{
    double best = 1e9;

    for (int i = 0; i < 5; i++) {
        double t = now();

        if (cpu_factor(dev, l, dead, h, 1, order, 0.01, n) != RC_OK)
            die(RC_NUMERIC, "%s", err_text());
        t = now() - t;
        best = t < best ? t : best;
    }
    return best;
}

static double
time_gptq(struct dev *dev, struct gptq_job *job)
{
    double best = 1e9;

    for (int i = 0; i < 5; i++) {
        double t = now();

        if (cpu_gptq(dev, job) != RC_OK)
            die(RC_NUMERIC, "%s", err_text());
        t = now() - t;
        best = t < best ? t : best;
    }
    return best;
}

/* The inner loop alone, from the first-level cache. */
static double
inner_gflops(void)
{
    enum { COUNT = 128, TIMES = 2000 };
    static float s[LANES_SUB * LANES], l[COUNT * LANES_SUB], d[COUNT * LANES];
    double best = 1e9;

    for (int i = 0; i < 20; i++) {
        double t = now();

        for (int k = 0; k < TIMES; k++)
            lanes_find()->mul(s, l, d + (COUNT - 1) * LANES, COUNT, true);
        t = now() - t;
        best = t < best ? t : best;
    }
    return 2.0 * LANES_SUB * LANES * COUNT * TIMES / best * 1e-9;
}

static void
bench(struct dev *dev, int n, int rows)
{
    struct qspec q = { .grid = GRID_INT, .bits = 4, .symmetric = 1, .strategy = STRATEGY_GROUP,
        .group = n % 128 == 0 ? 128 : 64, .scale = DT_BF16, .t = DT_BF16 };
    size_t size = (size_t)n, count = size * (size_t)rows;
    uint64_t seed = 1;
    double *h = hessian(n, &seed), tf, tg;
    float *l = need(size * size, sizeof(*l)), *w = need(count, sizeof(*w));
    float *scale = need(count / (size_t)q.group, sizeof(*scale));
    int *order = need(size, sizeof(*order));
    uint8_t *dead = need(size, 1), *codes = need(count, 1);
    struct gptq_job job = { .spec = &q, .rows = rows, .cols = n, .w = w, .scale = scale, .global_scale = 1,
        .order = order, .l = l, .dead = dead, .codes = codes };

    for (size_t i = 0; i < count; i++)
        w[i] = bf16_round(noise(&seed) * 0.02f);
    scale_rows(&q, NULL, w, rows, n, 1, scale, NULL);
    if (factor_order(order, h, true, n) != RC_OK)
        die(RC_OS, "%s", err_text());
    tf = time_factor(dev, l, dead, h, order, n);
    tg = time_gptq(dev, &job);
    printf("n %5d  factor %8.2f ms %6.1f GFLOP/s   gptq of %d rows %8.2f ms %6.1f GFLOP/s\n", n, tf * 1e3,
        pow(n, 3) / 3 / tf * 1e-9, rows, tg * 1e3, (double)rows * pow(n, 2) / tg * 1e-9);
    mem_free(h);
    mem_free(l);
    mem_free(w);
    mem_free(scale);
    mem_free(order);
    mem_free(dead);
    mem_free(codes);
}

int
main(int argc, char *argv[])
{
    static const int sizes[] = { 576, 1536, 4096 };
    int threads = argc > 2 && strcmp(argv[1], "-j") == 0 ? atoi(argv[2]) : 1;
    int rows = argc == 2 ? atoi(argv[1]) : argc == 4 ? atoi(argv[3]) : 0;
    struct dev dev = { 0 };

    if (threads != 1)
        timer = CLOCK_MONOTONIC;
    if (pool_open(&dev.pool, threads) != RC_OK)
        die(RC_OS, "%s", err_text());
    printf("%d threads, lanes %s: %.1f GFLOP/s in cache, one thread\n", threads, lanes_find()->name, inner_gflops());
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
        bench(&dev, sizes[i], rows > 0 ? rows : sizes[i]);
    pool_close(dev.pool);
    return 0;
}
