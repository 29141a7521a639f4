/* cpu/round - rounding of activations and their ranges, rows in tiles over the pool
 *
 * Maxima and roundings do not depend on order, so results are those of ref to the bit.
 */
#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../scale.h"
#include "cpu.h"

#include <stdatomic.h>
#include <string.h>

enum { TILE_ROWS = 32 };

struct round_job {
    struct dev            *dev;
    const struct rounding *r;
    void                  *y;
    const void            *x;
    enum dtype             dt;
    int                    rows, n, parts;
    float                 *range; /* [tiles, parts, 2] */
    atomic_int             rc;
};

static int
tiles_of(int rows)
{
    return (rows + TILE_ROWS - 1) / TILE_ROWS;
}

static void
load(const struct round_job *j, int row, float *f)
{
    size_t at = (size_t)row * (size_t)j->n;

    if (j->dt == DT_BF16)
        cpu_of(j->dev)->ops->to_f32(f, (const uint16_t *)j->x + at, (size_t)j->n);
    else
        memcpy(f, (const float *)j->x + at, (size_t)j->n * sizeof(*f));
}

static void
store(const struct round_job *j, int row, const float *f)
{
    size_t at = (size_t)row * (size_t)j->n;

    if (j->dt == DT_BF16)
        cpu_of(j->dev)->ops->from_f32((uint16_t *)j->y + at, f, (size_t)j->n);
    else
        memcpy((float *)j->y + at, f, (size_t)j->n * sizeof(*f));
}

static void
range_tile(void *ctx, int tile, int worker)
{
    struct round_job *j = ctx;
    float *f = cpu_scratch(j->dev, worker, (size_t)j->n * sizeof(*f)), bad = 0;
    float *range = j->range + (size_t)tile * (size_t)j->parts * 2;
    int width = j->n / j->parts;

    if (f == NULL) {
        atomic_store(&j->rc, RC_OS);
        return;
    }
    for (int r = tile * TILE_ROWS; r < (tile + 1) * TILE_ROWS && r < j->rows; r++) {
        load(j, r, f);
        for (int p = 0; p < j->parts; p++)
            bad += cpu_of(j->dev)->ops->range(range + 2 * p, f + (size_t)p * (size_t)width, width);
    }
    if (!(bad == 0.0f))
        atomic_store(&j->rc, RC_NUMERIC);
}

/* What tiles found: no tile knows words. */
static int
result(struct round_job *j)
{
    int rc = atomic_load(&j->rc);

    return rc == RC_NUMERIC ? err_set(rc, "a value is not finite") : rc == RC_OK ? rc : err_set(rc, "out of memory");
}

int
cpu_range(struct dev *dev, float *range, const void *x, enum dtype dt, int rows, int n, int parts)
{
    struct round_job j = { .dev = dev, .x = x, .dt = dt, .rows = rows, .n = n, .parts = parts };
    size_t count = 2 * (size_t)parts;

    if ((j.range = mem_zalloc((size_t)tiles_of(rows) * count, sizeof(*j.range))) == NULL)
        return RC_OS;
    pool_run(dev->pool, tiles_of(rows), range_tile, &j);
    for (size_t i = 0; i < (size_t)tiles_of(rows) * count; i++)
        range[i % count] = j.range[i] > range[i % count] ? j.range[i] : range[i % count];
    mem_free(j.range);
    return result(&j);
}

/* The parts of one row. */
static void
round_row(const struct round_job *j, float *f)
{
    const struct rounding *r = j->r;
    int width = !r->dynamic ? j->n / r->parts : q_scale_cols(&r->spec, j->n) > 1 ? r->spec.group : j->n;

    for (int c = 0; c < j->n; c += width) {
        int k = c / width, w = j->n - c < width ? j->n - c : width;
        float range[2] = { 0, 0 }, scale = 1;
        int8_t zero = 0;

        if (r->dynamic) {
            (void)cpu_of(j->dev)->ops->range(range, f + c, w);
            scale_of_extremes(&r->spec, (struct extremes){ -range[0], range[1] }, r->global_scale, &scale, &zero);
        } else {
            scale = r->scale[k];
            zero = r->zero != NULL ? r->zero[k] : 0;
        }
        cpu_of(j->dev)->ops->round_act(f + c, w, &r->spec, q_step(&r->spec, scale, r->global_scale), (float)zero);
    }
}

static void
round_tile(void *ctx, int tile, int worker)
{
    struct round_job *j = ctx;
    float *f = cpu_scratch(j->dev, worker, (size_t)j->n * sizeof(*f)), range[2] = { 0, 0 }, bad = 0;

    if (f == NULL) {
        atomic_store(&j->rc, RC_OS);
        return;
    }
    for (int r = tile * TILE_ROWS; r < (tile + 1) * TILE_ROWS && r < j->rows; r++) {
        load(j, r, f);
        bad += cpu_of(j->dev)->ops->range(range, f, j->n);
        round_row(j, f);
        store(j, r, f);
    }
    if (!(bad == 0.0f))
        atomic_store(&j->rc, RC_NUMERIC);
}

int
cpu_round_act(struct dev *dev, void *y, const void *x, enum dtype dt, int rows, int n, const struct rounding *r)
{
    struct rounding s = *r;
    struct round_job j = { .dev = dev, .r = &s, .y = y, .x = x, .dt = dt, .rows = rows, .n = n };
    float range[2] = { 0, 0 }, scale;
    int8_t zero = 0;
    int rc;

    if (r->dynamic && r->spec.strategy == STRATEGY_TENSOR) {
        if ((rc = cpu_range(dev, range, x, dt, rows, n, 1)) != RC_OK)
            return rc;
        scale_of_extremes(&r->spec, (struct extremes){ -range[0], range[1] }, r->global_scale, &scale, &zero);
        s.dynamic = false;
        s.parts = 1;
        s.scale = &scale;
        s.zero = r->spec.symmetric ? NULL : &zero;
    }
    pool_run(dev->pool, tiles_of(rows), round_tile, &j);
    return result(&j);
}
