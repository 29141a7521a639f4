/* placed - a backend whose operands lie on its device as a pattern says, for tests that call it with the host's */
#ifndef LLMC_UNIT_PLACED_H
#define LLMC_UNIT_PLACED_H

#include "../../kernels/dev.h"
#include "../../libcommon/mem.h"
#include "unit.h"

enum { PLACED_MAX = 8 };

static struct {
    struct backend bk;
    unsigned       pattern; /* bit i: the i-th operand of a call */
    bool           starve;  /* nothing but operands gets memory of the stand-in */
    int            count, next;
    struct {
        const void *host;
        void       *device;
        size_t      bytes;
        bool        out;
    } of[PLACED_MAX];
} placed;

/* Where the call finds p; out: it is written, too. */
static inline void *
there(struct dev *dev, const void *p, size_t bytes, bool out)
{
    int i = 0;

    while (i < placed.count && placed.of[i].host != p)
        i++;
    if (p == NULL || (i == placed.count && (placed.pattern >> placed.next++ & 1) == 0))
        return (void *)(uintptr_t)p;
    if (i == placed.count) {
        placed.of[i].host = p;
        placed.of[i].bytes = bytes;
        placed.of[i].out = false;
        if (placed.starve)
            (void)unsetenv("LLMC_CUDA_FAIL");
        placed.of[i].device = placed.bk.alloc(dev, bytes);
        if (placed.starve)
            (void)setenv("LLMC_CUDA_FAIL", "malloc:1+", 1);
        assert_non_null(placed.of[i].device);
        assert_true(placed.bk.holds(dev, placed.of[i].device) && !placed.bk.holds(dev, p));
        assert_int_equal(backend_move(&placed.bk, dev, placed.of[i].device, p, bytes), RC_OK);
        placed.count++;
    }
    placed.of[i].out = placed.of[i].out || out;
    return placed.of[i].device;
}

static inline int
back(struct dev *dev, int rc)
{
    for (int i = 0; i < placed.count; i++) {
        if (placed.of[i].out && rc == RC_OK)
            rc = backend_move(&placed.bk, dev, (void *)(uintptr_t)placed.of[i].host, placed.of[i].device,
                placed.of[i].bytes);
        assert_true(placed.bk.release(dev, placed.of[i].device));
    }
    placed.count = placed.next = 0;
    return rc;
}

static inline size_t
placed_bytes(int rows, int ld, int width, enum dtype dt)
{
    return ((size_t)(rows - 1) * (size_t)ld + (size_t)width) * dtype_size(dt);
}

static int
placed_matmul(struct dev *dev, void *y, enum dtype ydt, const void *x, enum dtype dt, int rows, const struct weight *w,
    const void *bias)
{
    void *py = there(dev, y, placed_bytes(rows, w->n, w->n, ydt), true);

    return back(dev, placed.bk.matmul(dev, py, ydt, there(dev, x, placed_bytes(rows, w->k, w->k, dt), false), dt, rows,
        w, there(dev, bias, (size_t)w->n * dtype_size(dt), false)));
}

static int
placed_rmsnorm(struct dev *dev, void *y, const void *x, const void *w, enum dtype dt, int rows, int n, float eps,
    enum norm norm)
{
    void *py = there(dev, y, placed_bytes(rows, n, n, dt), true);
    void *px = there(dev, x, placed_bytes(rows, n, n, dt), false);

    return back(dev, placed.bk.rmsnorm(dev, py, px, there(dev, w, (size_t)n * dtype_size(dt), false), dt, rows, n, eps,
        norm));
}

static int
placed_rope(struct dev *dev, void *x, enum dtype dt, int rows, int heads, int head_dim, int ld, const void *cos_t,
    const void *sin_t, int rotary_dim, int tokens)
{
    size_t table = (size_t)tokens * (size_t)(rotary_dim / 2) * dtype_size(dt);
    void *px = there(dev, x, placed_bytes(rows, ld, heads * head_dim, dt), true);

    return back(dev, placed.bk.rope(dev, px, dt, rows, heads, head_dim, ld, there(dev, cos_t, table, false),
        there(dev, sin_t, table, false), rotary_dim, tokens));
}

/* k and v may point into q's rows: each gets its own. */
static int
placed_attention(struct dev *dev, void *o, const void *q, int ldq, const void *k, int ldk, const void *v, int ldv,
    enum dtype dt, int rows, const struct attn_args *a)
{
    int qo = a->heads * a->head_dim, kv = a->kv_heads * a->head_dim;
    void *po = there(dev, o, placed_bytes(rows, qo, qo, dt), true);
    void *pq = there(dev, q, placed_bytes(rows, ldq, qo, dt), false);
    void *pk = there(dev, k, placed_bytes(rows, ldk, kv, dt), false);

    return back(dev, placed.bk.attention(dev, po, pq, ldq, pk, ldk, there(dev, v, placed_bytes(rows, ldv, kv, dt),
        false), ldv, dt, rows, a));
}

static int
placed_act_mul(struct dev *dev, void *y, const void *g, const void *u, enum dtype dt, size_t count, enum act act)
{
    size_t bytes = count * dtype_size(dt);
    void *py = there(dev, y, bytes, true), *pg = there(dev, g, bytes, false);

    return back(dev, placed.bk.act_mul(dev, py, pg, there(dev, u, bytes, false), dt, count, act));
}

static int
placed_scale(struct dev *dev, void *x, enum dtype dt, size_t n, float s)
{
    return back(dev, placed.bk.scale(dev, there(dev, x, n * dtype_size(dt), true), dt, n, s));
}

static int
placed_add(struct dev *dev, void *x, const void *y, enum dtype dt, size_t count)
{
    void *px = there(dev, x, count * dtype_size(dt), true);

    return back(dev, placed.bk.add(dev, px, there(dev, y, count * dtype_size(dt), false), dt, count));
}

static int
placed_nll(struct dev *dev, double *nll, const void *h, enum dtype dt, int rows, const struct weight *head,
    const int32_t *target, float softcap, float logit_scale)
{
    return back(dev, placed.bk.nll(dev, nll, there(dev, h, placed_bytes(rows, head->k, head->k, dt), false), dt, rows,
        head, target, softcap, logit_scale));
}

static int
placed_round_act(struct dev *dev, void *y, const void *x, enum dtype dt, int rows, int n, const struct rounding *r)
{
    void *py = there(dev, y, placed_bytes(rows, n, n, dt), true);

    return back(dev, placed.bk.round_act(dev, py, there(dev, x, placed_bytes(rows, n, n, dt), false), dt, rows, n, r));
}

static int
placed_range(struct dev *dev, float *range, const void *x, enum dtype dt, int rows, int n, int parts)
{
    return back(dev, placed.bk.range(dev, range, there(dev, x, placed_bytes(rows, n, n, dt), false), dt, rows, n,
        parts));
}

static int
placed_syrk(struct dev *dev, double *acc, const void *x, enum dtype dt, int rows, int n, const int16_t *e)
{
    return back(dev, placed.bk.syrk(dev, acc, there(dev, x, placed_bytes(rows, n, n, dt), false), dt, rows, n, e));
}

static int
placed_cross(struct dev *dev, double *acc, const void *xf, const void *x, enum dtype dt, int rows, int n,
    const int16_t *ef, const int16_t *e)
{
    void *pf = there(dev, xf, placed_bytes(rows, n, n, dt), false);

    return back(dev, placed.bk.cross(dev, acc, pf, there(dev, x, placed_bytes(rows, n, n, dt), false), dt, rows, n, ef,
        e));
}

static int
placed_colsq(struct dev *dev, float *diag, const void *x, enum dtype dt, int rows, int n)
{
    return back(dev, placed.bk.colsq(dev, diag, there(dev, x, placed_bytes(rows, n, n, dt), false), dt, rows, n));
}

/* The same backend with its operands placed so. */
static inline void
placed_make(struct backend *out, const struct backend *bk, unsigned pattern)
{
    placed.bk = *bk;
    placed.pattern = pattern;
    *out = *bk;
    out->gated = NULL; /* as accelerators have it */
    out->matmul = placed_matmul, out->rmsnorm = placed_rmsnorm, out->rope = placed_rope;
    out->attention = placed_attention, out->act_mul = placed_act_mul, out->scale = placed_scale;
    out->add = placed_add, out->nll = placed_nll, out->round_act = placed_round_act, out->range = placed_range;
    out->syrk = placed_syrk, out->cross = placed_cross, out->colsq = placed_colsq;
}

#endif
