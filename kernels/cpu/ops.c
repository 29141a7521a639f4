/* ops - choose the inner loops for this processor */
#include "ops.h"

#include <stdlib.h>
#include <string.h>

static bool
has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bf16");
}

static bool
has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

const struct ops *
ops_find(void)
{
    const char *ask = getenv("LLMC_ISA");

    if (ask != NULL && strcmp(ask, "c") == 0)
        return &ops_c;
    if (has_avx512() && (ask == NULL || strcmp(ask, "avx2") != 0))
        return &ops_avx512;
    return has_avx2() ? &ops_avx2 : &ops_c;
}
