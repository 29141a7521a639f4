/* memory - of ref, which has none of its own; rows picked and added */
#ifndef LLMC_REF_MEMORY_H
#define LLMC_REF_MEMORY_H

#include "../backend.h"

void *ref_alloc(struct dev *dev, size_t bytes);
bool ref_release(struct dev *dev, void *p);
bool ref_holds(struct dev *dev, const void *p);
bool ref_weight_fits(struct dev *dev, size_t bytes);
int ref_copy(struct dev *dev, void *to, size_t to_stride, const void *from, size_t from_stride, size_t width, int rows);
int ref_zero(struct dev *dev, void *p, size_t bytes);
int ref_share_make(struct dev *dev, struct share **out, void *note, size_t note_bytes, size_t bytes, int slots);
int ref_share_open(struct dev *dev, struct share **out, const void *note, size_t note_bytes, size_t bytes, int slots);
int ref_share_put(struct dev *dev, struct share *s, int slot, size_t at, const void *x, size_t bytes, bool last);
int ref_share_get(struct dev *dev, struct share *s, int slot, const void **x);
void ref_share_close(struct dev *dev, struct share *s);
int ref_gather(struct dev *dev, void *y, const void *x, const int *rows, int count, enum dtype dt, int n);
int ref_add_rows(struct dev *dev, void *x, const int *rows, const float *weights, const void *y, int count,
    enum dtype dt, int n);

#endif
