/* share - slots of device memory between two processes: frames of activations (libcommon/ring.h) by CUDA's IPC handles
 *
 * The reader opens the writer's memory and an event a slot. An event is recorded behind the copy into its slot; the
 * reader's `run` waits for it. That the reader is done with a slot it says itself, once it has waited for its work.
 */
#include "cuda.h"

#include <cstddef>

enum { SLOTS_MAX = 40 };

struct share {
    char       *p;
    size_t      bytes; /* of a slot */
    int         slots;
    bool        opened; /* it is the other process's */
    cudaEvent_t sent[SLOTS_MAX];
};

struct note {
    unsigned char          there; /* 1 */
    int                    slots;
    size_t                 bytes;
    cudaIpcMemHandle_t     memory;
    cudaIpcEventHandle_t   sent[SLOTS_MAX];
};

/* What the caller has room for. */
static size_t
note_size(int slots)
{
    return offsetof(struct note, sent) + (size_t)slots * sizeof(cudaIpcEventHandle_t);
}

static int
fill(struct cuda *c, struct share *s, struct note *n)
{
    void *p;

    TRY(cuda_take(c, USE_SHARED, s->bytes * (size_t)s->slots, &p));
    s->p = (char *)p;
    CUDA_TRY(cudaIpcGetMemHandle(&n->memory, p));
    for (int i = 0; i < s->slots; i++) {
        CUDA_TRY(cudaEventCreateWithFlags(&s->sent[i], cudaEventDisableTiming | cudaEventInterprocess));
        CUDA_TRY(cudaIpcGetEventHandle(&n->sent[i], s->sent[i]));
    }
    n->slots = s->slots;
    n->bytes = s->bytes;
    n->there = 1;
    return RC_OK;
}

int
cuda_share_make(struct dev *dev, struct share **out, void *note, size_t note_bytes, size_t bytes, int slots)
{
    struct cuda *c = cuda_of(dev);
    struct note n = {};
    struct share *s;
    int rc;

    *out = NULL;
    if (slots > SLOTS_MAX || note_size(slots) > note_bytes)
        return err_set(RC_UNAVAILABLE, "CUDA: %d frames to share, want %d at most", slots, (int)SLOTS_MAX);
    if ((s = (struct share *)mem_zalloc(1, sizeof(*s))) == NULL)
        return RC_OS;
    s->bytes = bytes;
    s->slots = slots;
    if ((rc = cuda_pins(c)) != RC_OK || (rc = fill(c, s, &n)) != RC_OK) {
        cuda_share_close(dev, s);
        return rc;
    }
    memcpy(note, &n, note_size(slots));
    *out = s;
    return RC_OK;
}

static int
open_note(struct cuda *c, struct share *s, const struct note *n)
{
    void *p;

    CUDA_TRY(cudaIpcOpenMemHandle(&p, n->memory, cudaIpcMemLazyEnablePeerAccess));
    s->p = (char *)p;
    for (int i = 0; i < s->slots; i++)
        CUDA_TRY(cudaIpcOpenEventHandle(&s->sent[i], n->sent[i]));
    return cuda_lend(c, s->p, s->bytes * (size_t)s->slots);
}

int
cuda_share_open(struct dev *dev, struct share **out, const void *note, size_t note_bytes, size_t bytes, int slots)
{
    struct cuda *c = cuda_of(dev);
    struct note n = {};
    struct share *s;
    int rc;

    *out = NULL;
    if (slots < 1 || slots > SLOTS_MAX || note_size(slots) > note_bytes)
        return err_set(RC_UNAVAILABLE, "CUDA: %d shared frames, want %d at most", slots, (int)SLOTS_MAX);
    memcpy(&n, note, note_size(slots));
    if (n.slots != slots || n.bytes != bytes)
        return err_set(RC_UNAVAILABLE, "CUDA: %d shared frames of %zu bytes, want %d of %zu", n.slots, n.bytes, slots,
            bytes);
    if ((s = (struct share *)mem_zalloc(1, sizeof(*s))) == NULL)
        return RC_OS;
    s->opened = true;
    s->bytes = bytes;
    s->slots = slots;
    if ((rc = cuda_pins(c)) != RC_OK || (rc = open_note(c, s, &n)) != RC_OK) {
        cuda_share_close(dev, s);
        return rc;
    }
    *out = s;
    return RC_OK;
}

static int
put(struct cuda *c, struct share *s, int slot, size_t at, const void *x, size_t bytes, bool last)
{
    char *to = s->p + (size_t)slot * s->bytes + at;

    if (cuda_has(c, x)) {
        c->busy = true;
        CUDA_TRY(cudaMemcpyAsync(to, x, bytes, cudaMemcpyDeviceToDevice, c->run));
    } else {
        TRY(cuda_upload(c, to, x, bytes));
    }
    if (last)
        CUDA_TRY(cudaEventRecord(s->sent[slot], c->run));
    return RC_OK;
}

int
cuda_share_put(struct dev *dev, struct share *s, int slot, size_t at, const void *x, size_t bytes, bool last)
{
    struct cuda *c = cuda_of(dev);

    cuda_begin(c);
    return cuda_settle(c, put(c, s, slot, at, x, bytes, last));
}

int
cuda_share_get(struct dev *dev, struct share *s, int slot, const void **x)
{
    *x = s->p + (size_t)slot * s->bytes;
    CUDA_TRY(cudaStreamWaitEvent(cuda_of(dev)->run, s->sent[slot], 0));
    return RC_OK;
}

void
cuda_share_close(struct dev *dev, struct share *s)
{
    struct cuda *c = cuda_of(dev);

    if (s == NULL)
        return;
    cuda_idle(c);
    for (cudaEvent_t e : s->sent)
        if (e != NULL)
            (void)cudaEventDestroy(e);
    if (s->p != NULL) {
        cuda_give(c, s->p);
        if (s->opened)
            (void)cudaIpcCloseMemHandle(s->p);
    }
    mem_free(s);
}
