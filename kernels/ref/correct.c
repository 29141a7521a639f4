/* ref/correct - targets for weights whose inputs are not the original's, in plain loops; this defines the result
 *
 * A row w of the original module gave w x_f; the compressed model feeds the module x_q instead. What comes closest to
 * the original's output, and strays from w only for a reason, is the least of
 *
 *     sum (w x_f - y x_q)^2 + lambda |w - y|^2    over y,                                            (1)
 *
 * where the sum is over tokens. With H = sum x_q x_q' and C = sum x_f x_q' its gradient is zero at
 *
 *     y = w (C + lambda I) (H + lambda I)^-1 = w + w M,   M = (C - H) (H + lambda I)^-1.             (2)
 *
 * For any z, (1) is the least value plus (z - y) (H + lambda I) (z - y)', so that rounding y by GPTQ minimises (1) over
 * codes as it minimised the loss of w before. C and H are subtracted in f64, where they are exact.
 */
#include "gptq.h"

#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../factor.h"

int
ref_correction(struct dev *dev, float *m, const double *c, const double *h, double s, const float *l, int n)
{
    size_t ld = (size_t)n;
    double *row = mem_alloc(ld, sizeof(*row));

    (void)dev;
    if (row == NULL)
        return RC_OS;
    for (int i = 0; i < n; i++) {
        for (int p = 0; p < n; p++) { /* row L' = s (C - H) */
            row[p] = s * (c[(size_t)i * ld + (size_t)p] - packed_at(h, i, p));
            for (int q = 0; q < p; q++)
                row[p] -= row[q] * (double)l[(size_t)p * ld + (size_t)q];
            row[p] /= (double)l[(size_t)p * (ld + 1)];
        }
        for (int p = n - 1; p >= 0; p--) { /* row L = what that gave */
            for (int q = p + 1; q < n; q++)
                row[p] -= row[q] * (double)l[(size_t)q * ld + (size_t)p];
            row[p] /= (double)l[(size_t)p * (ld + 1)];
        }
        for (size_t p = 0; p < ld; p++)
            m[(size_t)i * ld + p] = (float)row[p];
    }
    mem_free(row);
    return RC_OK;
}

int
ref_correct(struct dev *dev, float *y, const float *w, const float *m, int rows, int n)
{
    size_t ld = (size_t)n;

    (void)dev;
    for (size_t r = 0; r < (size_t)rows; r++)
        for (size_t j = 0; j < ld; j++) {
            double sum = 0;

            for (size_t i = 0; i < ld; i++)
                sum += (double)w[r * ld + i] * (double)m[i * ld + j];
            y[r * ld + j] = (float)((double)w[r * ld + j] + sum);
        }
    return RC_OK;
}
