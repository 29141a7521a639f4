/* model - a tiny model, a block of its fixture's tokens, and what transformers computed for them */
#ifndef LLMC_UNIT_MODEL_H
#define LLMC_UNIT_MODEL_H

#include "../../kernels/dev.h"
#include "../../libcommon/msg.h"
#include "../../libcommon/source.h"
#include "unit.h"

struct setup {
    const char           *name;
    struct source         src;
    struct st_file        want;
    const struct backend *bk;
    struct dev           *dev;
    struct fwd            fwd;
    struct fwd_block      block;
    size_t                count; /* of a hidden state */
};

/* The model lies in dir, tensors of the fixture in the file at expected: "input_ids", of samples of these lengths or,
 * lengths NULL, of those in "lengths". */
static inline void
setup_open(struct setup *s, const char *name, const char *dir, const char *expected, const char *backend, enum dtype dt,
    const int32_t *lengths, int samples)
{
    struct dev_opts o = { .threads = 2 };
    const struct tensor *ids, *t;

    s->name = name;
    assert_int_equal(st_open(&s->want, expected), RC_OK);
    if (source_open(&s->src, dir) != RC_OK)
        fail_msg("%s: %s", name, err_text());
    assert_int_equal(backend_find(&s->bk, backend), RC_OK);
    assert_int_equal(s->bk->open(&s->dev, &o), RC_OK);
    s->src.pool = dev_pool(s->dev);
    assert_int_equal(fwd_open(&s->fwd, s->bk, s->dev, &s->src.arch, dt, source_dense, &s->src), RC_OK);
    if (lengths == NULL) {
        assert_int_equal(st_get(&s->want, "lengths", &t), RC_OK);
        lengths = t->data;
        samples = (int)t->shape[0];
    }
    assert_int_equal(fwd_block_init(&s->fwd, &s->block, lengths, samples), RC_OK);
    s->count = (size_t)s->block.rows * (size_t)s->src.arch.hidden;
    assert_int_equal(st_get(&s->want, "input_ids", &ids), RC_OK);
    if (fwd_begin(&s->fwd, &s->block, ids->data) != RC_OK)
        fail_msg("%s: %s", name, err_text());
}

static inline void
setup_close(struct setup *s)
{
    fwd_block_free(&s->block);
    fwd_close(&s->fwd);
    s->bk->close(s->dev);
    st_close(&s->want);
    source_close(&s->src);
}

static inline void
setup_layer(struct setup *s, int l)
{
    assert_int_equal(fwd_norms(&s->fwd, l), RC_OK);
    if (fwd_load(&s->fwd, 0, POINT_COUNT) != RC_OK)
        fail_msg("%s: %s", s->name, err_text());
    for (int p = 0; p < POINT_COUNT; p++)
        assert_int_equal(fwd_step(&s->fwd, &s->block), RC_OK);
    fwd_unload(&s->fwd);
}

#endif
