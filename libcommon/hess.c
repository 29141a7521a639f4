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
    CHANNELS_MAX  = 1 << 20,
};

size_t
hess_entries(int n)
{
    return (size_t)n * ((size_t)n + 1) / 2;
}

int
hess_init(struct hess *h, int n, bool sum, int ranges)
{
    *h = (struct hess){ .n = n, .ranges = ranges };
    if ((h->grid = mem_zalloc((size_t)n, sizeof(*h->grid))) != NULL &&
        (!sum || (h->sum = mem_zalloc(hess_entries(n), sizeof(*h->sum))) != NULL) &&
        (ranges == 0 || (h->range = mem_zalloc(2 * (size_t)ranges, sizeof(*h->range))) != NULL))
        return RC_OK;
    hess_free(h);
    return RC_OS;
}

size_t
hess_values(int n, bool pairs)
{
    return hess_entries(n) + (pairs ? (size_t)n * (size_t)n + (size_t)n : 0);
}

size_t
hess_count(const struct hess *h)
{
    return h->sum == NULL ? 0 : hess_values(h->n, h->pairs);
}

size_t
hess_exponents(const struct hess *h)
{
    return (size_t)h->n * (h->pairs ? 2 : 1);
}

int
hess_pairs(struct hess *h)
{
    bool sum = h->sum != NULL;

    h->pairs = true;
    mem_free(h->grid);
    h->grid = mem_zalloc(hess_exponents(h), sizeof(*h->grid));
    if (sum) {
        mem_free(h->sum);
        h->sum = mem_zalloc(hess_values(h->n, h->pairs), sizeof(*h->sum));
    }
    return h->grid != NULL && (!sum || h->sum != NULL) ? RC_OK : RC_OS;
}

void
hess_free(struct hess *h)
{
    mem_free(h->grid);
    if (!h->mapped)
        mem_free(h->sum);
    mem_free(h->range);
    *h = (struct hess){ 0 };
}

double
hess_diag(const struct hess *h, int i)
{
    return h->sum[hess_entries(i) + (size_t)i];
}

const double *
hess_cross(const struct hess *h)
{
    return h->sum + hess_entries(h->n);
}

/* Sums of squares of the original's inputs. */
static double *
squares(const struct hess *h)
{
    return h->sum + hess_entries(h->n) + (size_t)h->n * (size_t)h->n;
}

double
hess_distance(const struct hess *h)
{
    double d = 0, f = 0;

    for (int i = 0; i < h->n; i++) {
        f += squares(h)[i];
        d += squares(h)[i] - 2 * hess_cross(h)[(size_t)i * ((size_t)h->n + 1)] + hess_diag(h, i);
    }
    return f > 0 && d > 0 ? d / f : 0; /* squares are f32 sums: about 1e-6 off */
}

static int
choose(int16_t *grid, int n, const struct backend *bk, struct dev *dev, const void *x, enum dtype dt, int rows)
{
    float *diag = mem_alloc((size_t)n, sizeof(*diag)), max = 0;
    int rc;

    if (diag == NULL)
        return RC_OS;
    if ((rc = bk->colsq(dev, diag, x, dt, rows, n)) != RC_OK)
        goto out;
    for (int i = 0; i < n; i++) {
        if (!isfinite(diag[i])) {
            rc = err_set(RC_NUMERIC, "input channel %d is not finite", i);
            goto out;
        }
        max = diag[i] > max ? diag[i] : max;
    }
    for (int i = 0; i < n; i++) {
        float s = diag[i] > ldexpf(max, -GRID_QUIET) ? diag[i] : ldexpf(max, -GRID_QUIET);
        int k = 0;

        (void)frexpf(s, &k); /* s < 2^k */
        k = (k + (k & 1)) / 2 - GRID_BITS / 2;
        grid[i] = (int16_t)(k < -GRID_EXP_MAX ? -GRID_EXP_MAX : k > GRID_EXP_MAX ? GRID_EXP_MAX : k);
    }
out:
    mem_free(diag);
    return rc;
}

int
hess_choose_grid(struct hess *h, const struct backend *bk, struct dev *dev, const void *x, enum dtype dt, int rows)
{
    TRY(choose(h->grid, h->n, bk, dev, x, dt, rows));
    h->has_grid = true;
    return RC_OK;
}

int
hess_choose_cross_grid(struct hess *h, const struct backend *bk, struct dev *dev, const void *xf, enum dtype dt,
    int rows)
{
    return choose(h->grid + h->n, h->n, bk, dev, xf, dt, rows);
}

int
hess_add(struct hess *h, const struct backend *bk, struct dev *dev, const void *x, enum dtype dt, int rows,
    int sequences)
{
    if (h->sum != NULL && !h->has_grid)
        return err_set(RC_BUG, "Hessian has no grid");
    h->rows += rows;
    h->sequences += sequences;
    if (rows == 0)
        return RC_OK;
    if (h->range != NULL)
        TRY(bk->range(dev, h->range, x, dt, rows, h->n, 1));
    return h->sum != NULL ? bk->syrk(dev, h->sum, x, dt, rows, h->n, h->grid) : RC_OK;
}

/* To multiples of 2^e, half to even; exact for values already on it. */
static double
on_grid(double v, int e)
{
    return ldexp(rint(ldexp(v, -e)), e);
}

int
hess_add_cross(struct hess *h, const struct backend *bk, struct dev *dev, const void *xf, const void *x,
    enum dtype dt, int rows)
{
    const int16_t *ef = h->grid + h->n;
    size_t row = (size_t)h->n * dtype_size(dt);
    float *sq;
    int rc = RC_OK;

    if (rows == 0)
        return RC_OK;
    if ((sq = mem_alloc((size_t)h->n, sizeof(*sq))) == NULL)
        return RC_OS;
    for (int r = 0; r < rows && rc == RC_OK; r += HESS_CHUNK) {
        if ((rc = bk->colsq(dev, sq, (const char *)xf + (size_t)r * row, dt, rows - r, h->n)) != RC_OK)
            break;
        for (int i = 0; i < h->n; i++)
            squares(h)[i] += on_grid((double)sq[i], 2 * ef[i]);
    }
    mem_free(sq);
    return rc == RC_OK ? bk->cross(dev, h->sum + hess_entries(h->n), xf, x, dt, rows, h->n, ef, h->grid) : rc;
}

static void
raise_to(float *range, const float *by, size_t pairs)
{
    for (size_t i = 0; i < 2 * pairs; i++)
        range[i] = by[i] > range[i] ? by[i] : range[i];
}

int
hess_add_ranges(struct hess *h, const float *range, int count)
{
    if (count != h->ranges - 1)
        return err_set(RC_DATA, "%d ranges, want %d", count, h->ranges - 1);
    raise_to(h->range + 2, range, (size_t)count);
    return RC_OK;
}

int
hess_check(const struct hess *h)
{
    for (int i = 0; h->sum != NULL && i < h->n; i++) {
        double d = hess_diag(h, i);

        if (!isfinite(d))
            return err_set(RC_NUMERIC, "Hessian channel %d is not finite", i);
        if (d >= ldexp(1.0, GRID_LIMIT + 2 * h->grid[i]))
            return err_set(RC_NUMERIC, "Hessian channel %d is %g, beyond its grid's limit of %g", i, d,
                ldexp(1.0, GRID_LIMIT + 2 * h->grid[i]));
    }
    for (int i = 0; h->sum != NULL && h->pairs && i < h->n; i++)
        if (!(squares(h)[i] < ldexp(1.0, GRID_LIMIT + 2 * h->grid[h->n + i])))
            return err_set(RC_NUMERIC, "channel %d of the original's inputs is %g, beyond its grid's limit of %g", i,
                squares(h)[i], ldexp(1.0, GRID_LIMIT + 2 * h->grid[h->n + i]));
    return RC_OK;
}

/* --- between ranks --- */

struct head { /* then ranges, then exponents; the whole a multiple of 8 bytes */
    int64_t n, ranges, rows, sequences;
};

size_t
hess_head_bytes(const struct hess *h)
{
    size_t bytes = sizeof(struct head) + 2 * (size_t)h->ranges * sizeof(*h->range) +
        hess_exponents(h) * sizeof(*h->grid);

    return (bytes + 7) / 8 * 8;
}

void
hess_head_write(const struct hess *h, void *out)
{
    struct head head = { h->n, h->ranges, h->rows, h->sequences };
    char *to = out;

    memset(out, 0, hess_head_bytes(h));
    memcpy(to, &head, sizeof(head));
    to += sizeof(head);
    if (h->range != NULL)
        memcpy(to, h->range, 2 * (size_t)h->ranges * sizeof(*h->range));
    to += 2 * (size_t)h->ranges * sizeof(*h->range);
    memcpy(to, h->grid, hess_exponents(h) * sizeof(*h->grid));
}

int
hess_head_merge(struct hess *dst, const void *from, size_t bytes)
{
    struct head head = { 0 };
    const float *range = (const float *)((const char *)from + sizeof(head));

    if (bytes == hess_head_bytes(dst))
        memcpy(&head, from, sizeof(head));
    if (head.n != dst->n || head.ranges != dst->ranges)
        return err_set(RC_DATA, "Hessians of %d and %lld channels cannot be merged", dst->n, (long long)head.n);
    if (memcmp(range + 2 * dst->ranges, dst->grid, hess_exponents(dst) * sizeof(*dst->grid)) != 0)
        return err_set(RC_DATA, "Hessians of one input have different grids");
    if (dst->range != NULL)
        raise_to(dst->range, range, (size_t)dst->ranges);
    dst->rows += head.rows;
    dst->sequences += head.sequences;
    return RC_OK;
}

/* H and C of dst and src on the coarser grid g. */
static void
merge_coarser(struct hess *dst, const struct hess *src, const int16_t *g)
{
    const int16_t *gf = g + dst->n;
    size_t at = 0;

    for (int i = 0; i < dst->n; i++)
        for (int j = 0; j <= i; j++, at++)
            dst->sum[at] = on_grid(dst->sum[at], g[i] + g[j]) + on_grid(src->sum[at], g[i] + g[j]);
    for (int i = 0; dst->pairs && i < dst->n; i++)
        for (int j = 0; j < dst->n; j++, at++)
            dst->sum[at] = on_grid(dst->sum[at], gf[i] + g[j]) + on_grid(src->sum[at], gf[i] + g[j]);
    for (int i = 0; dst->pairs && i < dst->n; i++, at++)
        dst->sum[at] = on_grid(dst->sum[at], 2 * gf[i]) + on_grid(src->sum[at], 2 * gf[i]);
}

static int
merge_sums(struct hess *dst, const struct hess *src)
{
    size_t count = hess_exponents(dst);
    bool same = memcmp(dst->grid, src->grid, count * sizeof(*dst->grid)) == 0;

    if (!dst->has_grid || same) {
        for (size_t i = 0; i < hess_count(dst); i++)
            dst->sum[i] += src->sum[i];
        memcpy(dst->grid, src->grid, count * sizeof(*dst->grid));
        dst->has_grid = dst->has_grid || src->has_grid;
    } else {
        int16_t *g = mem_alloc(count, sizeof(*g));

        if (g == NULL)
            return RC_OS;
        for (size_t i = 0; i < count; i++)
            g[i] = dst->grid[i] > src->grid[i] ? dst->grid[i] : src->grid[i];
        merge_coarser(dst, src, g);
        mem_free(dst->grid);
        dst->grid = g;
    }
    return RC_OK;
}

int
hess_merge(struct hess *dst, const struct hess *src)
{
    if (src->n != dst->n)
        return err_set(RC_DATA, "Hessians of %d and %d channels cannot be merged", dst->n, src->n);
    if ((src->sum == NULL) != (dst->sum == NULL) || src->ranges != dst->ranges || src->pairs != dst->pairs)
        return err_set(RC_DATA, "Hessians of different parts cannot be merged");
    if (dst->sum != NULL)
        TRY(merge_sums(dst, src));
    if (dst->range != NULL)
        raise_to(dst->range, src->range, (size_t)dst->ranges);
    dst->rows += src->rows;
    dst->sequences += src->sequences;
    return RC_OK;
}

int
hess_publish(const struct hess *h, const char *path, bool durable, const struct st_meta *extra, size_t count)
{
    struct st_meta meta[HESS_META_MAX];
    char n[32], rows[32], sequences[32];
    struct tensor t[3];
    size_t tensors = 0;

    if (h->sum != NULL) {
        t[tensors++] = tensor_1d("sum", DT_F64, (int64_t)hess_count(h), h->sum);
        t[tensors++] = tensor_1d("grid", DT_I16, (int64_t)hess_exponents(h), h->grid);
    }
    if (h->range != NULL)
        t[tensors++] = tensor_2d("range", DT_F32, h->ranges, 2, h->range);
    if (count > HESS_META_MAX - 3)
        return err_set(RC_BUG, "%zu metadata pairs", count);
    if (count > 0)
        memcpy(meta, extra, count * sizeof(*extra));
    (void)snprintf(n, sizeof(n), "%d", h->n);
    (void)snprintf(rows, sizeof(rows), "%lld", (long long)h->rows);
    (void)snprintf(sequences, sizeof(sequences), "%lld", (long long)h->sequences);
    meta[count++] = (struct st_meta){ "n", n };
    meta[count++] = (struct st_meta){ "rows", rows };
    meta[count++] = (struct st_meta){ "sequences", sequences };
    return durable ? st_publish(path, t, tensors, meta, count) : st_publish_quick(path, t, tensors, meta, count);
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

/* What is read of a file. */
enum part { PART_RANGES, PART_SUM, PART_SUM_MAPPED };

static int
read_sum(struct hess *h, const struct st_file *st, enum part part)
{
    int64_t want_sum[1] = { (int64_t)hess_values(h->n, h->pairs) }, want_grid[1] = { (int64_t)hess_exponents(h) };
    const struct tensor *sum, *grid;

    TRY(st_get(st, "sum", &sum));
    TRY(st_get(st, "grid", &grid));
    TRY(tensor_want(sum, DT_F64, 1, want_sum));
    TRY(tensor_want(grid, DT_I16, 1, want_grid));
    if (part == PART_SUM_MAPPED) {
        h->sum = (double *)(uintptr_t)sum->data;
        h->mapped = true;
    } else {
        memcpy(h->sum, sum->data, sum->bytes);
    }
    memcpy(h->grid, grid->data, grid->bytes);
    h->has_grid = true;
    return RC_OK;
}

static int
read_parts(struct hess *h, const char *path, const struct st_file *st, enum part part)
{
    int64_t n, want[2] = { -1, 2 };
    const struct tensor *range = st_find(st, "range"), *grid = st_find(st, "grid");
    bool sums;

    TRY(meta_count(st, "n", &n));
    if (n < 1 || n > CHANNELS_MAX)
        return err_set(RC_DATA, "%s: Hessian of %lld channels", path, (long long)n);
    if (range != NULL)
        TRY(tensor_want(range, DT_F32, 2, want));
    if (range != NULL && (range->shape[0] < 1 || range->shape[0] > CHANNELS_MAX))
        return err_set(RC_DATA, "%s: %lld ranges", path, (long long)range->shape[0]);
    sums = part != PART_RANGES && (range == NULL || st_find(st, "sum") != NULL);
    TRY(hess_init(h, (int)n, sums && part == PART_SUM, range != NULL ? (int)range->shape[0] : 0));
    if (range != NULL)
        memcpy(h->range, range->data, range->bytes);
    if (sums && grid != NULL && grid->ndim == 1 && grid->shape[0] == 2 * n)
        TRY(hess_pairs(h));
    if (sums)
        TRY(read_sum(h, st, part));
    TRY(meta_count(st, "rows", &h->rows));
    return meta_count(st, "sequences", &h->sequences);
}

static int
read_file(struct hess *h, const char *path, struct st_file *st, enum part part)
{
    int rc;

    *h = (struct hess){ 0 };
    TRY(st_open(st, path));
    if ((rc = read_parts(h, path, st, part)) != RC_OK) {
        hess_free(h);
        st_close(st);
    }
    return rc;
}

int
hess_read(struct hess *h, const char *path, struct st_file *st)
{
    return read_file(h, path, st, PART_SUM);
}

int
hess_map(struct hess *h, const char *path, struct st_file *st)
{
    return read_file(h, path, st, PART_SUM_MAPPED);
}

int
hess_read_ranges(struct hess *h, const char *path, struct st_file *st)
{
    return read_file(h, path, st, PART_RANGES);
}

int
hess_open(struct hess *h, const char *path, bool sums, const char *plan, struct st_file *st)
{
    int rc;

    TRY(sums ? hess_map(h, path, st) : hess_read_ranges(h, path, st));
    if ((rc = st_want_plan(st, plan)) == RC_OK && sums && h->sum == NULL)
        rc = err_set(RC_DATA, "%s: holds no Hessian", path);
    if (rc != RC_OK) {
        hess_free(h);
        st_close(st);
    }
    return rc;
}
