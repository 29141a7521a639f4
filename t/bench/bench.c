/* bench - what the benchmarks share */
#include "bench.h"

#include "../../kernels/quant.h"
#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../../libcommon/pool.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { LOOP = 1 << 18, CHAINS = 16, STREAM = 64 << 20, REPEAT = 12 };

double
bench_now(const struct bench *b)
{
    struct timespec t;

    (void)clock_gettime(b->threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double
bench_time(const struct bench *b, int (*fn)(void *ctx), void *ctx)
{
    double best = 1e30, spent = 0;

    for (int i = 0; i < 3 || (spent < b->seconds && i < 1000); i++) {
        double t = bench_now(b);
        int rc = fn(ctx);

        if (rc != RC_OK)
            die(rc, "%s", err_text());
        t = bench_now(b) - t;
        spent += t;
        best = t < best ? t : best;
    }
    return best;
}

float
bench_noise(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)((int64_t)*state >> 40) * 0x1p-23f;
}

void *
bench_alloc(size_t count, size_t size)
{
    void *p = mem_zalloc(count, size);

    if (p == NULL)
        die(RC_OS, "%s", err_text());
    return p;
}

void *
bench_bf16(size_t count, uint64_t *state)
{
    uint16_t *x = bench_alloc(count, sizeof(*x));

    for (size_t i = 0; i < count; i++)
        x[i] = bf16_from_f32(bench_noise(state));
    return x;
}

/* --- peaks: independent chains of multiply-adds in registers, one load from a buffer larger than the caches --- */

static volatile float sink;

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static double
loop_f32_512(void)
{
    __m512 a[CHAINS], x = _mm512_set1_ps(0.5f), y = _mm512_set1_ps(0.25f), s = _mm512_setzero_ps();

#pragma GCC unroll 16
    for (int i = 0; i < CHAINS; i++)
        a[i] = _mm512_set1_ps((float)i);
    for (int k = 0; k < LOOP; k++) {
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++)
            a[i] = _mm512_fmadd_ps(a[i], x, y);
    }
#pragma GCC unroll 16
    for (int i = 0; i < CHAINS; i++)
        s = _mm512_add_ps(s, a[i]);
    sink = _mm512_reduce_add_ps(s);
    return 2.0 * 16 * CHAINS * LOOP;
}

__attribute__((target("avx512f,avx512bf16"))) static double
loop_bf16_512(void)
{
    __m512 a[CHAINS], s = _mm512_setzero_ps();
    __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f003f00), y = (__m512bh)_mm512_set1_epi32(0x3e803e80);

#pragma GCC unroll 16
    for (int i = 0; i < CHAINS; i++)
        a[i] = _mm512_set1_ps((float)i);
    for (int k = 0; k < LOOP; k++) {
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++)
            a[i] = _mm512_dpbf16_ps(a[i], x, y);
    }
#pragma GCC unroll 16
    for (int i = 0; i < CHAINS; i++)
        s = _mm512_add_ps(s, a[i]);
    sink = _mm512_reduce_add_ps(s);
    return 4.0 * 16 * CHAINS * LOOP;
}

__attribute__((target("avx2,fma"))) static double
loop_f32_256(void)
{
    __m256 a[12], x = _mm256_set1_ps(0.5f), y = _mm256_set1_ps(0.25f), s = _mm256_setzero_ps();

#pragma GCC unroll 16
    for (int i = 0; i < 12; i++)
        a[i] = _mm256_set1_ps((float)i);
    for (int k = 0; k < LOOP; k++) {
#pragma GCC unroll 16
        for (int i = 0; i < 12; i++)
            a[i] = _mm256_fmadd_ps(a[i], x, y);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 12; i++)
        s = _mm256_add_ps(s, a[i]);
    sink = s[0];
    return 2.0 * 8 * 12 * LOOP;
}
#endif

static double
loop_plain(void)
{
    float a[CHAINS];

#pragma GCC unroll 16
    for (int i = 0; i < CHAINS; i++)
        a[i] = (float)i;
    for (int k = 0; k < LOOP; k++) {
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++)
            a[i] = a[i] * 0.5f + 0.25f;
    }
    sink = a[0] + a[CHAINS - 1];
    return 2.0 * CHAINS * LOOP;
}

static uint64_t *stream;

static double
loop_read(void)
{
    uint64_t s = 0;

    for (size_t i = 0; i < STREAM / sizeof(*stream); i += 8)
        s += stream[i] + stream[i + 4];
    sink = (float)(s & 1);
    return STREAM;
}

struct peak {
    double (*loop)(void);
    double work;
};

static void
peak_tile(void *ctx, int tile, int worker)
{
    struct peak *p = ctx;
    double w = p->loop();

    (void)worker;
    if (tile == 0)
        p->work = w;
}

static double
peak(const struct bench *b, struct pool *pool, double (*loop)(void))
{
    struct peak p = { .loop = loop };
    double best = 1e30;

    for (int i = 0; i < REPEAT; i++) {
        double t = bench_now(b);

        pool_run(pool, b->threads, peak_tile, &p);
        t = bench_now(b) - t;
        best = t < best ? t : best;
    }
    return p.work * b->threads / best;
}

static void
measure_peaks(struct bench *b)
{
    double (*f32)(void) = loop_plain, (*bf16)(void) = NULL;
    struct pool *pool;

    if (pool_open(&pool, b->threads) != RC_OK)
        die(RC_OS, "%s", err_text());
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        f32 = loop_f32_256;
    if (__builtin_cpu_supports("avx512f"))
        f32 = loop_f32_512;
    if (__builtin_cpu_supports("avx512bf16"))
        bf16 = loop_bf16_512;
#endif
    b->peak_f32 = peak(b, pool, f32);
    b->dots_bf16 = bf16 != NULL ? peak(b, pool, bf16) : 0;
    b->peak_bf16 = b->dots_bf16 > b->peak_f32 ? b->dots_bf16 : b->peak_f32; /* a pair is two multiply-adds */
    stream = bench_alloc(STREAM, 1);
    b->peak_bytes = peak(b, pool, loop_read);
    mem_free(stream);
    pool_close(pool);
}

void
bench_open(struct bench *b, int argc, char *argv[])
{
    *b = (struct bench){ .threads = 1, .seconds = 0.5 };
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--json") == 0)
            b->json = true;
        else if (strcmp(argv[i], "--llama") == 0)
            b->llama = true;
        else if (strcmp(argv[i], "--experts") == 0)
            b->experts = true;
        else if (strcmp(argv[i], "-j") == 0 && i + 1 < argc && atoi(argv[i + 1]) > 0)
            b->threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "-t") == 0 && i + 1 < argc && atof(argv[i + 1]) > 0)
            b->seconds = atof(argv[++i]);
        else
            die(RC_USAGE, "usage: %s [-j threads] [-t seconds] [--llama] [--experts] [--json]", argv[0]);
    measure_peaks(b);
    bench_row(b, "peak", "f32 multiply-adds", BENCH_F32, b->peak_f32, 1);
    if (b->dots_bf16 > 0)
        bench_row(b, "peak", "bf16 dot products", BENCH_BF16, b->dots_bf16, 1);
    bench_row(b, "peak", "reading memory", BENCH_BYTES, b->peak_bytes, 1);
}

void
bench_row(const struct bench *b, const char *kernel, const char *shape, enum bench_unit unit, double work,
    double seconds)
{
    static const char *const names[] = { "GFLOP/s of f32", "GFLOP/s of bf16", "GB/s" };
    const double peaks[] = { b->peak_f32, b->peak_bf16, b->peak_bytes };
    double rate = work / seconds;

    if (b->json && unit == BENCH_NONE)
        printf("{\"threads\": %d, \"kernel\": \"%s\", \"shape\": \"%s\", \"seconds\": %.6g}\n", b->threads, kernel,
            shape, seconds);
    else if (b->json)
        printf("{\"threads\": %d, \"kernel\": \"%s\", \"shape\": \"%s\", \"seconds\": %.6g, \"rate\": %.6g, "
               "\"unit\": \"%s\", \"share\": %.4f}\n", b->threads, kernel, shape, seconds, rate * 1e-9, names[unit],
            rate / peaks[unit]);
    else if (unit == BENCH_NONE)
        printf("%-10s %-34s %10.3f ms\n", kernel, shape, seconds * 1e3);
    else
        printf("%-10s %-34s %10.3f ms %8.1f %-15s %5.1f %%\n", kernel, shape, seconds * 1e3, rate * 1e-9, names[unit],
            100 * rate / peaks[unit]);
    (void)fflush(stdout);
}
