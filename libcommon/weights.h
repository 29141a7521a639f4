/* weights - a compressed module's tensors, to and from dense rows
 *
 * Tensor names and shapes are those of the on-disk formats (compressed-tensors): the same in a work directory's task
 * files and in a finished checkpoint. A task file holds the rows of its range.
 */
#ifndef LLMC_WEIGHTS_H
#define LLMC_WEIGHTS_H

#include "forward.h"
#include "pool.h"
#include "scheme.h"
#include "tensor.h"

enum { WEIGHTS_TENSORS_MAX = 6, WEIGHTS_NAME_MAX = ARCH_NAME_MAX + 32 };

typedef const struct tensor *weights_find_fn(void *ctx, const char *name); /* NULL: absent */

/* What rounding made of rows [row0, row0 + rows) of a module. */
struct rounded {
    const struct scheme *scheme;
    enum dtype     t;            /* of the model */
    int            rows, cols;
    const uint8_t *codes;        /* [rows, cols] */
    const float   *scale;        /* [scale rows, scale cols], as stored */
    const int8_t  *zero;         /* or NULL */
    const int     *scale_col;    /* [cols] the group of each column, of actorder group; or NULL */
    float          global_scale;
};

/* Tensors ready for st_publish; storage is owned by the struct. */
struct packed_tensors {
    struct tensor t[WEIGHTS_TENSORS_MAX];
    char          names[WEIGHTS_TENSORS_MAX][WEIGHTS_NAME_MAX];
    void         *own[WEIGHTS_TENSORS_MAX];
    size_t        count;
};

/* A new tensor "module.suffix" with zeroed storage of its own, a vector when cols is 0; NULL: out of memory. */
void *weights_add(struct packed_tensors *p, const char *module, const char *suffix, enum dtype dt, int64_t rows,
    int64_t cols);
int  weights_pack(struct packed_tensors *out, const char *module, const struct rounded *r); /* RC_OS, RC_DATA */
void weights_pack_free(struct packed_tensors *p);

/* Shape of the dense weight; RC_DATA as below. */
int weights_shape(const char *module, const struct scheme *s, weights_find_fn *find, void *ctx, int *rows, int *cols);

/* Values of type t, as inference computes them. RC_DATA: a tensor is missing or has another type or shape, naming it.
 * */
int weights_dense(struct dense *out, const char *module, const struct scheme *s, enum dtype t, weights_find_fn *find,
    void *ctx, struct pool *pool);

#endif
