/* fuzz-safetensors - what is accepted stays in bounds and comes back the same after being written */
#include "../../libcommon/msg.h"
#include "../../libcommon/safetensors.h"
#include "fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

/* Every byte is read, so that a sanitizer sees one that is not there. */
static unsigned
sum(const struct st_file *st)
{
    unsigned s = 0;

    for (size_t i = 0; i < st->count; i++)
        for (size_t k = 0; k < st->tensors[i].bytes; k++)
            s = s * 31 + ((const uint8_t *)st->tensors[i].data)[k];
    return s;
}

static void
check_same(const struct st_file *a, const struct st_file *b)
{
    FUZZ_CHECK(a->count == b->count && a->meta_count == b->meta_count && a->data_bytes == b->data_bytes);
    for (size_t i = 0; i < a->count; i++) {
        const struct tensor *s = &a->tensors[i], *t = &b->tensors[i];

        FUZZ_CHECK(strcmp(s->name, t->name) == 0 && s->dtype == t->dtype && s->ndim == t->ndim);
        FUZZ_CHECK(memcmp(s->shape, t->shape, sizeof(s->shape)) == 0 && s->bytes == t->bytes);
        FUZZ_CHECK(s->bytes == 0 || memcmp(s->data, t->data, s->bytes) == 0);
        FUZZ_CHECK(st_find(a, s->name) == s);
    }
    for (size_t i = 0; i < a->meta_count; i++)
        FUZZ_CHECK(strcmp(a->meta[i].key, b->meta[i].key) == 0 && strcmp(a->meta[i].value, b->meta[i].value) == 0);
}

/* Writing sorts the tensors: from a copy. */
static void
check_round(const struct st_file *st)
{
    struct tensor *t = malloc((st->count + 1) * sizeof(*t));
    int fd = memfd_create("round", 0);
    struct st_file again;

    FUZZ_CHECK(t != NULL && fd >= 0);
    if (st->count > 0)
        memcpy(t, st->tensors, st->count * sizeof(*t));
    FUZZ_CHECK(st_write_frame(fd, t, st->count, st->meta, st->meta_count) == RC_OK);
    (void)lseek(fd, 0, SEEK_SET);
    FUZZ_CHECK(st_read_frame(&again, fd) == RC_OK);
    check_same(st, &again);
    st_close(&again);
    FUZZ_CHECK(st_read_frame(&again, fd) == RC_RETRY);
    (void)close(fd);
    free(t);
}

/* As a frame, which may be followed by anything, and as a file, which may not. */
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    int fd = memfd_create("input", 0), as_frame, as_file;
    struct st_file frame, file;
    char path[64];

    FUZZ_CHECK(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes);
    (void)lseek(fd, 0, SEEK_SET);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    as_frame = st_read_frame(&frame, fd);
    as_file = st_open(&file, path);
    FUZZ_CHECK(as_frame == RC_OK || as_frame == RC_DATA || (as_frame == RC_RETRY && bytes == 0));
    FUZZ_CHECK(as_file == RC_OK || as_file == RC_DATA);
    FUZZ_CHECK(as_file == RC_DATA || as_frame == RC_OK);
    if (as_file == RC_OK) {
        FUZZ_CHECK(sum(&file) == sum(&frame));
        check_same(&file, &frame);
        check_round(&file);
    }
    if (as_frame == RC_OK)
        check_round(&frame);
    st_close(&file);
    st_close(&frame);
    (void)close(fd);
    return 0;
}
