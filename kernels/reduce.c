/* reduce - sums of f64 over the devices of ranks by NCCL: the loader */
#include "reduce.h"

#include "../libcommon/msg.h"
#include "library.h"

#include <dlfcn.h>

static const struct library nccl_library = { "LLMC_NCCL", "llmc-nccl.so" };

bool
reduce_built(void)
{
    char path[PATH_MAX];

    return library_find(&nccl_library, path);
}

int
reduce_load(const struct reduce_table **out)
{
    void *so;

    TRY(library_open(&nccl_library, "communicator \"nccl\"", &so));
    *out = dlsym(so, "reduce_nccl");
    if (*out == NULL || (*out)->version != REDUCE_VERSION)
        return err_set(RC_UNAVAILABLE, "communicator \"nccl\": %s is of another version", nccl_library.file);
    return RC_OK;
}
