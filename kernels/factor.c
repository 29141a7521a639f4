#include "factor.h"

#include "../libcommon/mem.h"
#include "../libcommon/msg.h"

#include <stdlib.h>
#include <string.h>

struct entry {
    double diag;
    int    col;
};

static int
later(const void *va, const void *vb)
{
    const struct entry *a = va, *b = vb;

    if (a->diag != b->diag)
        return a->diag > b->diag ? 1 : -1;
    return a->col < b->col ? 1 : -1;
}

int
factor_order(int *order, const double *h, bool by_diag, int n)
{
    struct entry *e;

    for (int p = 0; p < n; p++)
        order[p] = n - 1 - p;
    if (!by_diag)
        return RC_OK;
    if ((e = mem_alloc((size_t)n, sizeof(*e))) == NULL)
        return RC_OS;
    for (int i = 0; i < n; i++)
        e[i] = (struct entry){ packed_at(h, i, i), i };
    qsort(e, (size_t)n, sizeof(*e), later);
    for (int p = 0; p < n; p++)
        order[p] = e[p].col;
    mem_free(e);
    return RC_OK;
}

double
factor_damping(uint8_t *dead, const double *h, double s, double damp, int n)
{
    double sum = 0;

    for (int i = 0; i < n; i++) {
        double d = packed_at(h, i, i);

        dead[i] = d == 0;
        sum += dead[i] ? 1 : s * d;
    }
    return damp * sum / n;
}

void
factor_identity(float *l, int n)
{
    for (int i = 0; i < n; i++) {
        float *row = l + (size_t)i * (size_t)n;

        memset(row, 0, (size_t)i * sizeof(*row));
        row[i] = 1;
    }
}
