/* ref/round - the definition of round_act and range, in plain loops; see kernels/backend.h for the contract */
#ifndef LLMC_REF_ROUND_H
#define LLMC_REF_ROUND_H

#include "../backend.h"

int ref_range(struct dev *dev, float *range, const void *x, enum dtype dt, int rows, int n, int parts);
int ref_round_act(struct dev *dev, void *y, const void *x, enum dtype dt, int rows, int n, const struct rounding *r);

#endif
