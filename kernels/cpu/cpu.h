/* cpu - the host backend's device: a pool, the inner loops chosen for this processor, oneDNN, scratch for each worker
 * */
#ifndef LLMC_CPU_H
#define LLMC_CPU_H

#include "../dev.h"
#include "ops.h"

#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>

struct cpu_worker {
    void         *scratch;
    size_t        cap;
    dnnl_stream_t stream;
};

struct cpu_prim; /* gemm.c */

struct cpu {
    const struct ops  *ops;
    dnnl_engine_t      engine;
    bool               bf16_dot; /* oneDNN multiplies bf16 at full speed here */
    struct cpu_worker *workers;
    struct cpu_prim   *prims; /* list of primitives by shape; lives as long as the device */
};

static inline struct cpu *
cpu_of(struct dev *dev)
{
    return dev->impl;
}

/* At least bytes of worker w's scratch, reused from call to call; NULL: RC_OS. */
void *cpu_scratch(struct dev *dev, int w, size_t bytes);

int  cpu_gemm_open(struct dev *dev);
void cpu_gemm_close(struct dev *dev);
int  cpu_weight_pack(struct dev *dev, struct weight **out, const void *w, enum dtype wdt, enum dtype dt, int n, int k);
void cpu_weight_free(struct dev *dev, struct weight *w);
int  cpu_matmul(struct dev *dev, void *y, enum dtype ydt, const void *x, enum dtype dt, int rows,
    const struct weight *w,
    const void *bias);
int  cpu_gated(struct dev *dev, void *h, const void *x, enum dtype dt, int rows, const struct weight *const w[2],
    const void *const bias[2], enum act act);
int  cpu_nll(struct dev *dev, double *nll, const void *h, enum dtype dt, int rows, const struct weight *head,
    const int32_t *target, float softcap, float logit_scale);

int cpu_attention(struct dev *dev, void *o, const void *q, int ldq, const void *k, int ldk, const void *v, int ldv,
    enum dtype dt, int rows, const struct attn_args *a);
int cpu_range(struct dev *dev, float *range, const void *x, enum dtype dt, int rows, int n, int parts);
int cpu_round_act(struct dev *dev, void *y, const void *x, enum dtype dt, int rows, int n, const struct rounding *r);

int cpu_syrk(struct dev *dev, double *acc, const void *x, enum dtype dt, int rows, int n, const int16_t *e);
int cpu_cross(struct dev *dev, double *acc, const void *xf, const void *x, enum dtype dt, int rows, int n,
    const int16_t *ef, const int16_t *e);
int cpu_correction(struct dev *dev, float *m, const double *c, const double *h, double s, const float *l, int n);
int cpu_correct(struct dev *dev, float *y, const float *w, const float *m, int rows, int n);
int cpu_colsq(struct dev *dev, float *diag, const void *x, enum dtype dt, int rows, int n);

#endif
