/* backend - the table of backends; a member that a row leaves out is that of ref */
#include "backend.h"

#include "../libcommon/msg.h"
#include "dev.h"

#include <string.h>

static const struct backend *const rows[] = { &backend_cpu, &backend_ref };

enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

#define FALL_BACK(member)            \
    do {                             \
        if (full.member == NULL)     \
            full.member = backend_ref.member; \
    } while (0)

int
backend_find(const struct backend **out, const char *name)
{
    static struct backend full; /* one backend a process */

    *out = NULL;
    for (int i = 0; i < ROWS; i++) {
        if (name != NULL && strcmp(rows[i]->name, name) != 0)
            continue;
        full = *rows[i];
        FALL_BACK(matmul);
        FALL_BACK(rmsnorm);
        FALL_BACK(rope);
        FALL_BACK(attention);
        FALL_BACK(act_mul);
        FALL_BACK(scale);
        FALL_BACK(add);
        FALL_BACK(nll);
        FALL_BACK(round_act);
        FALL_BACK(range);
        FALL_BACK(syrk);
        FALL_BACK(colsq);
        FALL_BACK(scales);
        FALL_BACK(factor);
        FALL_BACK(gptq);
        *out = &full;
        return RC_OK;
    }
    return err_set(RC_UNAVAILABLE, "backend \"%s\" is not compiled in; there are %s", name, backend_names());
}

const char *
backend_names(void)
{
    return "cpu, ref";
}

struct pool *
dev_pool(struct dev *dev)
{
    return dev->pool;
}
