/* inventory - which tensors of a checkpoint the forward pass uses
 *
 * What it does not use is carried over untouched: vision towers, heads that predict more tokens, a stored head of a
 * model whose head is its embedding. A tensor inside a decoder layer that is not used means another model than the
 * family has here, and is refused by name.
 */
#ifndef LLMC_INVENTORY_H
#define LLMC_INVENTORY_H

#include "arch.h"
#include "model.h"

struct inventory {
    const struct tensor **carried; /* in order of names */
    size_t                count;
};

/* RC_DATA: a tensor of a layer that the family does not have. */
int  inventory_take(struct inventory *v, const struct arch *a, const struct model *m);
void inventory_free(struct inventory *v);

/* "vision_tower", "layers.61": the part of the model that a carried tensor belongs to, for patterns of ignore lists. */
void inventory_part(const struct arch *a, const char *tensor, char out[ARCH_NAME_MAX]);

#endif
