/* ref/factor - damping and Cholesky factorisation in double, rounded to f32 once */
#include "gptq.h"

#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../factor.h"

#include <math.h>

/* Row by row, in place in the lower triangle. */
static int
cholesky(double *a, int n)
{
    size_t ld = (size_t)n;

    for (int i = 0; i < n; i++) {
        for (int j = 0; j <= i; j++) {
            double x = a[(size_t)i * ld + (size_t)j];

            for (int k = 0; k < j; k++)
                x -= a[(size_t)i * ld + (size_t)k] * a[(size_t)j * ld + (size_t)k];
            if (j < i)
                a[(size_t)i * ld + (size_t)j] = x / a[(size_t)j * ld + (size_t)j];
            else if (!(x > 0) || !isfinite(x))
                return err_set(RC_NUMERIC, "not positive definite at column %d of %d", i, n);
            else
                a[(size_t)i * ld + (size_t)i] = sqrt(x);
        }
    }
    return RC_OK;
}

int
ref_factor(struct dev *dev, float *l, uint8_t *dead, const double *h, double s, const int *order, double damp, int n)
{
    double lambda = factor_damping(dead, h, s, damp, n), *a;
    size_t ld = (size_t)n;
    int rc;

    (void)dev;
    if ((a = mem_alloc(ld * ld, sizeof(*a))) == NULL)
        return RC_OS;
    for (int p = 0; p < n; p++) {
        for (int q = 0; q < p; q++)
            a[(size_t)p * ld + (size_t)q] = s * packed_at(h, order[p], order[q]);
        a[(size_t)p * ld + (size_t)p] = (dead[order[p]] ? 1 : s * packed_at(h, order[p], order[p])) + lambda;
    }
    rc = cholesky(a, n);
    for (int p = 0; rc == RC_OK && p < n; p++)
        for (int q = 0; q <= p; q++)
            l[(size_t)p * ld + (size_t)q] = (float)a[(size_t)p * ld + (size_t)q];
    mem_free(a);
    return rc;
}
