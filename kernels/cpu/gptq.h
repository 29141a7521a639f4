/* cpu/gptq - factor and gptq on a thread pool; see kernels/backend.h for the contract
 *
 * Bytes depend neither on the number of threads, nor on the vector width, nor on how a matrix is cut into jobs by rows.
 */
#ifndef LLMC_CPU_GPTQ_H
#define LLMC_CPU_GPTQ_H

#include "../backend.h"

struct lanes; /* lanes.h */

int cpu_factor(struct dev *dev, float *l, uint8_t *dead, const double *h, double s, const int *order, double damp,
    int n);
int cpu_gptq(struct dev *dev, struct gptq_job *job);

/* With one variant of the inner loops, for tests. */
int cpu_gptq_lanes(struct dev *dev, const struct lanes *lanes, struct gptq_job *job);

#endif
