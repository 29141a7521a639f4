/* lanes - inner loops of cpu/gptq and cpu/factor over LANES rows at a time, one table for each instruction set
 *
 * A tile is [columns][LANES], so that rows are the lanes of vectors and never meet. lanes_impl.h is compiled once for
 * each table. Every product is added by a fused multiply-add in the same order, so that all tables give the same bytes.
 */
#ifndef LLMC_CPU_LANES_H
#define LLMC_CPU_LANES_H

#include "../backend.h"
#include "../scale.h"

enum {
    LANES     = 48, /* rows of a tile: three vectors of 16 */
    LANES_SUB = 8,  /* columns of a micro-tile: 24 accumulators */
};

/* One column of a tile. */
struct column {
    const struct qspec *spec;
    float        global_scale;
    bool         keep_zeros;
    float        diag, inverse;       /* L_pp and 1 / L_pp */
    const float *sum;                 /* [LANES] of d_q L_qp, q > p */
    const float *scale, *step, *zero; /* [LANES] */
    float       *w;                   /* [LANES] in: w_p; out: d_p, what was lost */
    float       *loss;                /* [LANES] += e^2 */
    uint8_t     *codes;               /* [LANES] out; of plain rounding: not written */
};

struct lanes {
    const char *name;

    /* s[LANES_SUB][LANES] = or += sum over i < count of l[i][LANES_SUB] d[-i][LANES]: q runs down from the highest. */
    void (*mul)(float *s, const float *l, const float *d, int count, bool add);
    /* out[LANES] = s + (acc + sum over i < count of l[i * LANES_SUB] d[-i]): a column's sum goes on inside its
     * micro-tile */
    void (*tail)(float *out, const float *s, const float *acc, const float *l, const float *d, int count);
    void (*round)(const struct column *c); /* a column of GPTQ */
    void (*plain)(const struct column *c); /* of plain rounding: d_p alone */
    void (*error)(const struct column *c); /* then e_p = sum + d_p L_pp */
    scale_errors_fn *scale_errors; /* of a scale search */
};

extern const struct lanes lanes_c, lanes_avx2, lanes_avx512;

/* The best table for this processor; LLMC_ISA=c|avx2|avx512 in the environment asks for a lower one (tests). */
const struct lanes *lanes_find(void);
bool                lanes_usable(const struct lanes *l); /* on this processor */

#endif
