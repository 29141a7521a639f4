/* ops - choose the inner loops for this processor */
#include "ops.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

static bool
has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bf16");
}

/* Intel's processors since Golden Cove do vdpbf16ps at half the rate of two f32 multiply-adds (measured: Emerald
 * Rapids, 89 and 179 GFLOP/s a core); Cooper Lake, its first with bf16, and AMD's do it at twice that. */
static bool
slow_pairs(void)
{
    return __builtin_cpu_is("intel") && !__builtin_cpu_is("cooperlake");
}

static bool
has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

/* Matrix multiplication of bf16 in tiles, which the system must have switched on, too: oneDNN uses it. */
static bool
find_amx(void)
{
#if defined(__x86_64__)
    enum { AMX_BF16 = 1 << 22, TILES = 3 << 17 };
    unsigned a, b, c, d;

    if (!has_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & AMX_BF16) == 0)
        return false;
    __asm__("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (a & TILES) == TILES;
#else
    return false;
#endif
}

/* Asked once: cpuid takes many microseconds on a virtual machine, and a plan's memory asks for every module. */
static bool
has_amx(void)
{
    enum { UNKNOWN, NO, YES };
    static atomic_int known = UNKNOWN;

    if (atomic_load(&known) == UNKNOWN)
        atomic_store(&known, find_amx() ? YES : NO);
    return atomic_load(&known) == YES;
}

bool
ops_usable(const struct ops *o)
{
    return o == &ops_c || (o == &ops_avx2 ? has_avx2() : has_avx512());
}

bool
ops_bf16_products(const struct ops *o)
{
    return o == &ops_avx512 || (o == &ops_avx512_fma && has_amx());
}

const struct ops *
ops_find(void)
{
    const char *ask = getenv("LLMC_ISA");

    if (ask == NULL)
        ask = "";
    if (strcmp(ask, "c") == 0)
        return &ops_c;
    if (has_avx512() && strcmp(ask, "avx2") != 0)
        return strcmp(ask, "avx512fma") == 0 || (strcmp(ask, "avx512") != 0 && slow_pairs()) ? &ops_avx512_fma :
            &ops_avx512;
    return has_avx2() ? &ops_avx2 : &ops_c;
}
