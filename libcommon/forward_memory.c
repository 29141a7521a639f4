/* forward_memory - where the values of the forward pass lie: on the device as far as it has room, else with the host */
#include "forward_impl.h"
#include "mem.h"
#include "msg.h"

/* NULL: the device has no room, or is the host. */
static void *
on_device(const struct backend *bk, struct dev *dev, size_t count, size_t size)
{
    size_t bytes;

    return __builtin_mul_overflow(count, size, &bytes) ? NULL : bk->alloc(dev, bytes);
}

void *
fwd_alloc(const struct fwd *f, size_t count, size_t size)
{
    void *p = on_device(f->bk, f->dev, count, size);

    return p != NULL ? p : mem_alloc(count, size);
}

void
fwd_free(const struct fwd *f, void *p)
{
    if (p != NULL && !f->bk->release(f->dev, p))
        mem_free(p);
}

int
fwd_place(const struct fwd *f, void **p, size_t bytes)
{
    void *to = f->bk->alloc(f->dev, bytes);
    int rc;

    if (to == NULL)
        return RC_OK;
    if ((rc = backend_move(f->bk, f->dev, to, *p, bytes)) != RC_OK) {
        (void)f->bk->release(f->dev, to);
        return rc;
    }
    mem_free(*p);
    *p = to;
    return RC_OK;
}

void *
fwd_scratch(struct fwd *f, enum fwd_use use, size_t count)
{
    size_t size = dtype_size(f->dt), bytes = count * size;

    if (f->scratch_bytes[use] < bytes) {
        fwd_free(f, f->scratch[use]);
        f->scratch[use] = use == FWD_ROUTE ? mem_alloc(count, size) : fwd_alloc(f, count, size);
        f->scratch_bytes[use] = f->scratch[use] != NULL ? bytes : 0;
    }
    return f->scratch[use];
}

void *
fwd_block_alloc(const struct fwd_block *b, size_t count, size_t size)
{
    void *p = on_device(b->bk, b->dev, count, size);

    return p != NULL ? p : spill_alloc(b->spill, count, size);
}

void
fwd_block_release(const struct fwd_block *b, void *p)
{
    if (p != NULL && !b->bk->release(b->dev, p))
        spill_free(b->spill, p);
}

int
fwd_read(const struct backend *bk, struct dev *dev, const void *x, size_t bytes, const void **host, void **own)
{
    int rc;

    *host = x;
    *own = NULL;
    if (!bk->holds(dev, x))
        return RC_OK;
    if ((*own = mem_alloc(bytes, 1)) == NULL)
        return RC_OS;
    *host = *own;
    if ((rc = backend_move(bk, dev, *own, x, bytes)) != RC_OK) {
        mem_free(*own);
        *own = NULL;
    }
    return rc;
}
