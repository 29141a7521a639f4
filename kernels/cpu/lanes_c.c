/* lanes_c - inner loops for any processor; without a fused multiply-add instruction they are slow */
#include "lanes.h"

#include <math.h>

#define LANES_TARGET

static void
lanes_mul(float *s, const float *l, const float *d, int count, bool add)
{
    float acc[LANES_SUB][LANES] = { 0 };

    for (int i = 0; i < count; i++, l += LANES_SUB, d -= LANES)
        for (int c = 0; c < LANES_SUB; c++)
            for (int j = 0; j < LANES; j++)
                acc[c][j] = fmaf(l[c], d[j], acc[c][j]);
    for (int c = 0; c < LANES_SUB; c++)
        for (int j = 0; j < LANES; j++, s++)
            *s = add ? *s + acc[c][j] : acc[c][j];
}

#define LANES_TABLE lanes_c
#define LANES_NAME "c"
#include "lanes_impl.h"
