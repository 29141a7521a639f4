/* backend - the table of backends; a member that a row leaves out is that of ref
 *
 * The cuda backend is a shared object (library.h). It is loaded when it is asked for by name, or when nothing is and
 * there is a device file of NVIDIA's driver; programs that run on the CPU do not touch it.
 */
#include "backend.h"

#include "../libcommon/msg.h"
#include "dev.h"
#include "library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct backend *const rows[] = { &backend_cpu, &backend_ref };

enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

static char note[256];

#define FALL_BACK(member)            \
    do {                             \
        if (full->member == NULL)    \
            full->member = backend_ref.member; \
    } while (0)

void
backend_fill(struct backend *full)
{
    FALL_BACK(alloc);
    FALL_BACK(release);
    FALL_BACK(holds);
    FALL_BACK(copy);
    FALL_BACK(zero);
    FALL_BACK(share_make);
    FALL_BACK(share_open);
    FALL_BACK(share_put);
    FALL_BACK(share_get);
    FALL_BACK(share_close);
    FALL_BACK(gather);
    FALL_BACK(add_rows);
    FALL_BACK(weight_fits);
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
    FALL_BACK(cross);
    FALL_BACK(colsq);
    FALL_BACK(distance);
    FALL_BACK(scales);
    FALL_BACK(factor);
    FALL_BACK(gptq);
    FALL_BACK(correction);
    FALL_BACK(correct);
}

void
backend_gptq(const struct backend *bk, struct dev *dev, struct gptq_job *const *jobs, int count, int *rc)
{
    if (bk->gptq_batch != NULL) {
        bk->gptq_batch(dev, jobs, count, rc);
        return;
    }
    for (int i = 0; i < count; i++)
        rc[i] = bk->gptq(dev, jobs[i]);
}

/* --- cuda --- */

static const struct library cuda_library = { "LLMC_CUDA", "llmc-cuda.so" };

bool
backend_cuda_built(void)
{
    char path[PATH_MAX];

    return library_find(&cuda_library, path);
}

/* Cheap: nothing is loaded. A driver shows itself by its device file, on Windows' Linux by another one. */
static bool
cuda_driver(void)
{
    return access("/dev/nvidiactl", F_OK) == 0 || access("/dev/dxg", F_OK) == 0;
}

/* RC_UNAVAILABLE: not built, cannot be loaded, of another version, or without a device. */
static int
cuda_load(const struct backend **out)
{
    static const size_t want[BACKEND_SIZE_COUNT] = BACKEND_SIZES;
    const size_t *sizes;
    int (*probe)(void);
    void *so;

    TRY(library_open(&cuda_library, "backend \"cuda\"", &so));
    *out = dlsym(so, "backend_cuda");
    sizes = dlsym(so, "backend_cuda_sizes");
    *(void **)&probe = dlsym(so, "backend_cuda_probe");
    if (*out == NULL || sizes == NULL || probe == NULL || memcmp(sizes, want, sizeof(want)) != 0)
        return err_set(RC_UNAVAILABLE, "backend \"cuda\": %s is of another version", cuda_library.file);
    return probe();
}

/* Without a name: cuda if it is built and there is a device. Says in the note why it is not taken. */
static bool
cuda_is_best(const struct backend **out)
{
    if (!backend_cuda_built())
        return false;
    if (!cuda_driver())
        (void)snprintf(note, sizeof(note), "cuda is built, but there is no NVIDIA driver here");
    else if (cuda_load(out) == RC_OK)
        return true;
    else
        (void)snprintf(note, sizeof(note), "%s", err_text());
    return false;
}

/* --- the table --- */

static int
find_row(const struct backend **row, const char *name)
{
    if (name != NULL && strcmp(name, "cuda") == 0)
        return cuda_load(row);
    if (name == NULL && cuda_is_best(row))
        return RC_OK;
    for (int i = 0; i < ROWS; i++)
        if (name == NULL || strcmp(rows[i]->name, name) == 0) {
            *row = rows[i];
            return RC_OK;
        }
    return err_set(RC_UNAVAILABLE, "backend \"%s\" is not compiled in; there are %s", name, backend_names());
}

int
backend_find(const struct backend **out, const char *name)
{
    static struct backend full; /* one backend a process */
    const struct backend *row;

    *out = NULL;
    note[0] = '\0';
    TRY(find_row(&row, name));
    full = *row;
    backend_fill(&full);
    *out = &full;
    return RC_OK;
}

const char *
backend_names(void)
{
    if (!backend_cuda_built())
        return "cpu, ref";
    return cuda_driver() ? "cpu, ref, cuda" : "cpu, ref, cuda (no NVIDIA driver here)";
}

const char *
backend_note(void)
{
    return note;
}

struct pool *
dev_pool(struct dev *dev)
{
    return dev->pool;
}
