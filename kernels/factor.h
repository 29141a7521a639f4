/* factor - what every backend's factorisation shares: the order of columns, dead ones, damping */
#ifndef LLMC_FACTOR_H
#define LLMC_FACTOR_H

#include "quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Position p of the factor holds column order[p], and columns are rounded from p = n - 1 down to 0. by_diag: largest
 * diagonal of H first, of equal ones the smaller index; else in natural order. h packed lower. RC_OS. */
int factor_order(int *order, const double *h, bool by_diag, int n);

/* Marks dead columns and returns lambda: damp times the mean diagonal of s H in which dead entries count as 1. */
double factor_damping(uint8_t *dead, const double *h, double s, double damp, int n);

/* Element (i, j) of a packed lower symmetric matrix. */
HD static inline double
packed_at(const double *h, int i, int j)
{
    size_t r = (size_t)(i > j ? i : j), c = (size_t)(i > j ? j : i);

    return h[r * (r + 1) / 2 + c];
}

/* The lower triangle of l [n, n]: nobody looks above it. */
void factor_identity(float *l, int n);

#endif
