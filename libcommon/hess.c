/* hess - exact, mergeable sums of x x' over the inputs of a set of modules */
#include "hess.h"

#include "mem.h"
#include "msg.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GRID_BITS     = 30,  /* units that the first block's diagonal takes */
    GRID_QUIET    = 12,  /* a silent channel counts as 2^-12 of the strongest */
    GRID_LIMIT    = 51,  /* the diagonal must stay below 2^51 units */
    GRID_EXP_MAX  = 60,  /* keeps every unit inside the range of normal f32 values */
    HESS_META_MAX = 16,
};

static size_t
packed(int n)
{
    return (size_t)n * ((size_t)n + 1) / 2;
}

int
hess_init(struct hess *h, int n)
{
    *h = (struct hess){ .n = n };
    h->grid = mem_zalloc((size_t)n, sizeof(*h->grid));
    h->sum = mem_zalloc(packed(n), sizeof(*h->sum));
    if (h->grid != NULL && h->sum != NULL)
        return RC_OK;
    hess_free(h);
    return RC_OS;
}

void
hess_free(struct hess *h)
{
    mem_free(h->grid);
    mem_free(h->sum);
    *h = (struct hess){ 0 };
}

double
hess_diag(const struct hess *h, int i)
{
    return h->sum[packed(i) + (size_t)i];
}

int
hess_choose_grid(struct hess *h, const struct backend *bk, struct dev *dev, const void *x, enum dtype dt, int rows)
{
    float *diag = mem_alloc((size_t)h->n, sizeof(*diag)), max = 0;
    int rc;

    if (diag == NULL)
        return RC_OS;
    if ((rc = bk->colsq(dev, diag, x, dt, rows, h->n)) != RC_OK)
        goto out;
    for (int i = 0; i < h->n; i++) {
        if (!isfinite(diag[i])) {
            rc = err_set(RC_NUMERIC, "input channel %d is not finite", i);
            goto out;
        }
        max = diag[i] > max ? diag[i] : max;
    }
    for (int i = 0; i < h->n; i++) {
        float s = diag[i] > ldexpf(max, -GRID_QUIET) ? diag[i] : ldexpf(max, -GRID_QUIET);
        int k = 0;

        (void)frexpf(s, &k); /* s < 2^k */
        k = (k + (k & 1)) / 2 - GRID_BITS / 2;
        h->grid[i] = (int16_t)(k < -GRID_EXP_MAX ? -GRID_EXP_MAX : k > GRID_EXP_MAX ? GRID_EXP_MAX : k);
    }
    h->has_grid = true;
out:
    mem_free(diag);
    return rc;
}

int
hess_add(struct hess *h, const struct backend *bk, struct dev *dev, const void *x, enum dtype dt, int rows,
    int sequences)
{
    if (!h->has_grid)
        return err_set(RC_BUG, "Hessian has no grid");
    h->rows += rows;
    h->sequences += sequences;
    return rows == 0 ? RC_OK : bk->syrk(dev, h->sum, x, dt, rows, h->n, h->grid);
}

int
hess_check(const struct hess *h)
{
    for (int i = 0; i < h->n; i++) {
        double d = hess_diag(h, i);

        if (!isfinite(d))
            return err_set(RC_NUMERIC, "Hessian channel %d is not finite", i);
        if (d >= ldexp(1.0, GRID_LIMIT + 2 * h->grid[i]))
            return err_set(RC_NUMERIC, "Hessian channel %d is %g, beyond its grid's limit of %g", i, d,
                ldexp(1.0, GRID_LIMIT + 2 * h->grid[i]));
    }
    return RC_OK;
}

/* To multiples of 2^e, half to even; exact for values already on it. */
static double
on_grid(double v, int e)
{
    return ldexp(rint(ldexp(v, -e)), e);
}

int
hess_merge(struct hess *dst, const struct hess *src)
{
    bool same = src->n == dst->n && memcmp(dst->grid, src->grid, (size_t)dst->n * sizeof(*dst->grid)) == 0;
    size_t at = 0;

    if (src->n != dst->n)
        return err_set(RC_DATA, "Hessians of %d and %d channels cannot be merged", dst->n, src->n);
    if (!dst->has_grid || same) {
        for (size_t i = 0; i < packed(dst->n); i++)
            dst->sum[i] += src->sum[i];
        memcpy(dst->grid, src->grid, (size_t)dst->n * sizeof(*dst->grid));
        dst->has_grid = dst->has_grid || src->has_grid;
    } else {
        int16_t *g = mem_alloc((size_t)dst->n, sizeof(*g));

        if (g == NULL)
            return RC_OS;
        for (int i = 0; i < dst->n; i++)
            g[i] = dst->grid[i] > src->grid[i] ? dst->grid[i] : src->grid[i];
        for (int i = 0; i < dst->n; i++)
            for (int j = 0; j <= i; j++, at++)
                dst->sum[at] = on_grid(dst->sum[at], g[i] + g[j]) + on_grid(src->sum[at], g[i] + g[j]);
        mem_free(dst->grid);
        dst->grid = g;
    }
    dst->rows += src->rows;
    dst->sequences += src->sequences;
    return RC_OK;
}

int
hess_publish(const struct hess *h, const char *path, bool durable, const struct st_meta *extra, size_t count)
{
    struct tensor t[2] = { tensor_1d("sum", DT_F64, (int64_t)packed(h->n), h->sum),
        tensor_1d("grid", DT_I16, h->n, h->grid) };
    struct st_meta meta[HESS_META_MAX];
    char rows[32], sequences[32];

    if (count > HESS_META_MAX - 2)
        return err_set(RC_BUG, "%zu metadata pairs", count);
    if (count > 0)
        memcpy(meta, extra, count * sizeof(*extra));
    (void)snprintf(rows, sizeof(rows), "%lld", (long long)h->rows);
    (void)snprintf(sequences, sizeof(sequences), "%lld", (long long)h->sequences);
    meta[count++] = (struct st_meta){ "rows", rows };
    meta[count++] = (struct st_meta){ "sequences", sequences };
    return durable ? st_publish(path, t, 2, meta, count) : st_publish_quick(path, t, 2, meta, count);
}

static int
meta_count(const struct st_file *st, const char *key, int64_t *out)
{
    const char *s = st_meta(st, key);
    char *end;

    if (s == NULL)
        return err_set(RC_DATA, "%s: no metadata \"%s\"", st->path, key);
    *out = strtoll(s, &end, 10);
    if (*s == '\0' || *end != '\0' || *out < 0)
        return err_set(RC_DATA, "%s: metadata \"%s\" is \"%s\"", st->path, key, s);
    return RC_OK;
}

int
hess_read(struct hess *h, const char *path, struct st_file *st)
{
    const struct tensor *sum, *grid;
    int64_t shape[1];
    int rc;

    *h = (struct hess){ 0 };
    if ((rc = st_open(st, path)) != RC_OK)
        return rc;
    if ((rc = st_get(st, "grid", &grid)) != RC_OK || (rc = st_get(st, "sum", &sum)) != RC_OK)
        goto fail;
    shape[0] = -1;
    if ((rc = tensor_want(grid, DT_I16, 1, shape)) != RC_OK)
        goto fail;
    if (grid->shape[0] < 1 || grid->shape[0] > 1 << 20) {
        rc = err_set(RC_DATA, "%s: Hessian of %lld channels", path, (long long)grid->shape[0]);
        goto fail;
    }
    shape[0] = (int64_t)packed((int)grid->shape[0]);
    if ((rc = tensor_want(sum, DT_F64, 1, shape)) != RC_OK || (rc = hess_init(h, (int)grid->shape[0])) != RC_OK)
        goto fail;
    memcpy(h->sum, sum->data, sum->bytes);
    memcpy(h->grid, grid->data, grid->bytes);
    h->has_grid = true;
    if ((rc = meta_count(st, "rows", &h->rows)) == RC_OK && (rc = meta_count(st, "sequences", &h->sequences)) == RC_OK)
        return RC_OK;
fail:
    hess_free(h);
    st_close(st);
    return rc;
}
