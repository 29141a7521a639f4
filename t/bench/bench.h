/* bench - what the benchmarks share: clocks, data, the processor's peak, rows of results as a table and as JSON
 *
 * A kernel's time is the least of several repetitions. With one thread it is that thread's own clock, since the machine
 * may be shared; with more it is the wall's.
 */
#ifndef LLMC_BENCH_H
#define LLMC_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct bench {
    int    threads;
    double seconds;   /* to spend on a kernel, at least three repetitions */
    bool   json;      /* one object a row instead of a table */
    bool   llama;     /* the shapes of Llama-3-8B and of a mixture of experts, not SmolLM2-135M's */
    bool   experts;   /* many small modules alone */
    double peak_f32, peak_bf16, peak_bytes; /* a second, of all threads together; bf16: the faster of the two ways, */
    double dots_bf16;                       /* by dot products, 0 without, or by f32 multiply-adds */
};

enum bench_unit { BENCH_F32, BENCH_BF16, BENCH_BYTES, BENCH_NONE };

/* -j threads, -t seconds a kernel, --llama, --experts, --json; measures the peaks and prints them. */
void   bench_open(struct bench *b, int argc, char *argv[]);
double bench_now(const struct bench *b);
/* Least time of fn(ctx). */
double bench_time(const struct bench *b, int (*fn)(void *ctx), void *ctx);
/* A result: work in operations or bytes; its share is of the peak of the unit. */
void   bench_row(const struct bench *b, const char *kernel, const char *shape, enum bench_unit unit, double work,
    double seconds);

float bench_noise(uint64_t *state); /* in [-1, 1) */
void *bench_alloc(size_t count, size_t size); /* ends the process where there is none */
void *bench_bf16(size_t count, uint64_t *state);

#endif
