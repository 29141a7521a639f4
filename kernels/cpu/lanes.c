#include "lanes.h"

#include <stdlib.h>
#include <string.h>

/* Best first. */
static const struct lanes *const tables[] = { &lanes_avx512, &lanes_avx2, &lanes_c };

bool
lanes_usable(const struct lanes *l)
{
    if (l == &lanes_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (l == &lanes_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return true;
}

const struct lanes *
lanes_find(void)
{
    const char *most = getenv("LLMC_ISA");
    size_t i = 0;

    for (size_t j = 0; most != NULL && j < sizeof(tables) / sizeof(*tables); j++)
        if (strcmp(tables[j]->name, most) == 0)
            i = j;
    while (!lanes_usable(tables[i]))
        i++;
    return tables[i];
}
