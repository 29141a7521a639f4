/* ref/gptq - the definition of factor and gptq, in plain loops; see kernels/backend.h for the contract */
#ifndef LLMC_REF_GPTQ_H
#define LLMC_REF_GPTQ_H

#include "../backend.h"

int ref_factor(struct dev *dev, float *l, uint8_t *dead, const double *h, double s, const int *order, double damp,
    int n);
int ref_gptq(struct dev *dev, struct gptq_job *job);

#endif
