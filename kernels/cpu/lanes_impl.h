/* lanes_impl - included by lanes_*.c, which define
 *
 *     LANES_TABLE, LANES_NAME   the table's symbol and name
 *     LANES_TARGET              the attribute that chooses the instruction set
 *     lanes_mul                 the micro-kernel
 *
 * Plain C that compilers vectorise over the fixed lanes.
 */
#define SCALE_TARGET LANES_TARGET
#include "../scale_impl.h"

#include <string.h>

#define LANES_INLINE LANES_TARGET static inline __attribute__((always_inline))

LANES_TARGET static void
lanes_tail(float *out, const float *s, const float *acc, const float *l, const float *d, int count)
{
    float sum[LANES];

    memcpy(sum, acc, sizeof(sum));
    for (int i = 0; i < count; i++, l += LANES_SUB, d -= LANES)
        for (int j = 0; j < LANES; j++)
            sum[j] = __builtin_fmaf(*l, d[j], sum[j]);
    for (int j = 0; j < LANES; j++)
        out[j] = s[j] + sum[j];
}

LANES_INLINE void
round_lanes(const struct column *c, const struct qspec s)
{
    float *restrict w = c->w, *restrict loss = c->loss;
    const float *restrict sum = c->sum, *restrict step = c->step, *restrict zero = c->zero;
    float diag = c->diag, inverse = c->inverse;
    uint32_t code[LANES]; /* wide as the floats, so that the loop has one vector length */

    for (int i = 0; i < LANES; i++) {
        float moved = w[i] + sum[i] * inverse;
        float k = q_round_loop(&s, moved, step[i], zero[i]), q = q_dequant_loop(&s, k, step[i], zero[i]);
        float e = (moved - q) * diag;

        code[i] = q_bits(&s, k);
        w[i] -= q;
        loss[i] += e * e;
    }
    for (int i = 0; i < LANES; i++)
        c->codes[i] = (uint8_t)code[i];
}

/* The value that v10 stores is another one than the loop's: see q_code_loop(). A zero that is kept is rounded as it is,
 * but the columns after it must see the errors of those before, as if the move that it did not make had been lost. */
LANES_TARGET static void
round_v10(const struct column *c)
{
    const struct qspec *s = c->spec;

    for (int i = 0; i < LANES; i++) {
        float w = c->w[i], move = c->sum[i] * c->inverse;
        bool keep = c->keep_zeros && f32_abs(w) <= Q_ZERO;
        float moved = keep ? w : w + move;
        float k = q_round_loop(s, moved, c->step[i], c->zero[i]), q = q_dequant_loop(s, k, c->step[i], c->zero[i]);
        float e = (moved - q) * c->diag;

        c->codes[i] = q_code_loop(s, k, q, c->scale[i], c->global_scale, c->zero[i]);
        c->w[i] = keep ? w - q - move : w - q;
        c->loss[i] += e * e;
    }
}

LANES_INLINE void
plain_lanes(const struct column *c, const struct qspec s)
{
    float *restrict w = c->w;
    const float *restrict step = c->step, *restrict zero = c->zero;

    for (int i = 0; i < LANES; i++)
        w[i] -= q_dequant_loop(&s, q_round(&s, w[i], step[i], zero[i]), step[i], zero[i]);
}

LANES_TARGET static void
lanes_round(const struct column *c)
{
    if (c->spec->v10)
        round_v10(c);
    else
        QSPEC_CALL(round_lanes, c->spec, c);
}

LANES_TARGET static void
lanes_plain(const struct column *c)
{
    QSPEC_CALL(plain_lanes, c->spec, c);
}

LANES_TARGET static void
lanes_error(const struct column *c)
{
    float *restrict loss = c->loss;
    const float *restrict sum = c->sum, *restrict w = c->w;
    float diag = c->diag;

    for (int i = 0; i < LANES; i++) {
        float e = sum[i] + w[i] * diag;

        loss[i] += e * e;
    }
}

const struct lanes LANES_TABLE = {
    .name = LANES_NAME, .mul = lanes_mul, .tail = lanes_tail, .round = lanes_round, .plain = lanes_plain,
    .error = lanes_error, .scale_errors = errors_of,
};
