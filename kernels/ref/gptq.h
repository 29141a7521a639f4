/* ref/gptq - the definition of factor, gptq and correction, in plain loops; see kernels/backend.h for the contract */
#ifndef LLMC_REF_GPTQ_H
#define LLMC_REF_GPTQ_H

#include "../backend.h"

int ref_factor(struct dev *dev, float *l, uint8_t *dead, const double *h, double s, const int *order, double damp,
    int n);
int ref_gptq(struct dev *dev, struct gptq_job *job);
int ref_correction(struct dev *dev, float *m, const double *c, const double *h, double s, const float *l, int n);
int ref_correct(struct dev *dev, float *y, const float *w, const float *m, int rows, int n);

#endif
