/* hess - exact, mergeable sums of x x' over the inputs of a set of modules, and the ranges of those inputs
 *
 * H is a SUM over tokens, divided by the number of sequences only where it is used. Each product of HESS_CHUNK rows is
 * rounded to a grid, entry (i, j) to multiples of 2^(e[i] + e[j]), and added in f64. Additions of grid values are exact
 * while sums stay below 2^51 units, so they are associative: any partition of the blocks over ranks, and any order,
 * gives the same bytes. Since |H_ij| <= sqrt(H_ii H_jj) at every moment, the diagonal alone decides about overflow.
 *
 * The grid comes from the first block of the plan, never from the partition: channel j, with sum of squares s_j there,
 * gets e[j] so that s_j is about 2^30 units; it may grow 2^20 times before it overflows, and a channel that is silent
 * in the first block counts as 2^-12 of the strongest. Below that, rounding is hidden by the damping.
 *
 * Ranges are what static scales of activations follow from: -min and max over all tokens, kept so that merging is a
 * maximum of each number; 0 counts as seen. The first is that of the inputs; where keys and values are cached, those of
 * each head follow. Either part may be left out: plain rounding with static inputs needs no sum.
 *
 * Of pairs, where each input comes with that of the original model, there is also C = sum x_f x', the full square, and
 * the sums of squares of x_f. C has the grid 2^(ef[i] + e[j]), ef chosen from the original's inputs as e is; since
 * |C_ij| <= sqrt(F_ii H_jj), two diagonals decide about overflow. All of it lies behind H in `sum`, so that whoever
 * adds up or sends sums need not know.
 *
 * File: "sum" F64 [n (n + 1) / 2] lower triangle by rows, "grid" I16 [n]; of pairs "sum" F64 [n (n + 1) / 2 + n^2 + n],
 * "grid" I16 [2 n], in the order below; "range" F32 [ranges, 2]; metadata n, rows, sequences.
 */
#ifndef LLMC_HESS_H
#define LLMC_HESS_H

#include "../kernels/backend.h"
#include "safetensors.h"

struct hess {
    int      n;
    bool     has_grid;
    bool     pairs;
    int16_t *grid;      /* [n] exponents; of pairs [2 n], those of the original's inputs last */
    double  *sum;       /* [n (n + 1) / 2], or NULL: ranges alone; of pairs C [n, n] and F_ii [n] follow */
    bool     mapped;    /* sum is a file's: not to be changed, and gone when that is closed */
    int      ranges;
    float   *range;     /* [ranges, 2], or NULL */
    int64_t  rows;      /* tokens */
    int64_t  sequences; /* what the sum is divided by */
};

/* With a sum or without one, and so many ranges; RC_OS. */
int  hess_init(struct hess *h, int n, bool sum, int ranges);
/* Makes room for pairs in a sum that was just initialised; RC_OS. */
int  hess_pairs(struct hess *h);
void hess_free(struct hess *h);

/* Chooses the grid from the rows of the first block. RC_NUMERIC: an input is not finite. */
int hess_choose_grid(struct hess *h, const struct backend *bk, struct dev *dev, const void *x, enum dtype dt, int rows);
/* Of pairs: that of x_f, the original's inputs. Both grids must be chosen before anything is added. */
int hess_choose_cross_grid(struct hess *h, const struct backend *bk, struct dev *dev, const void *xf, enum dtype dt,
    int rows);
/* The grid must have been chosen or read if there is a sum. RC_NUMERIC: with ranges, an input is not finite. */
int hess_add(struct hess *h, const struct backend *bk, struct dev *dev, const void *x, enum dtype dt, int rows,
    int sequences);
/* The products of a pair's parts, of pairs. */
int hess_add_cross(struct hess *h, const struct backend *bk, struct dev *dev, const void *xf, const void *x,
    enum dtype dt, int rows);
/* Ranges after the first: count pairs. RC_DATA: another number of them. */
int hess_add_ranges(struct hess *h, const float *range, int count);
/* RC_NUMERIC when a channel has outgrown the grid or is not finite, naming it. */
int hess_check(const struct hess *h);
/* dst += src. Equal grids add exactly; a coarser one wins where they differ (separate runs over different data), the
 * other's values being rounded to it. RC_DATA: other n, other parts. */
int hess_merge(struct hess *dst, const struct hess *src);

double        hess_diag(const struct hess *h, int i);
const double *hess_cross(const struct hess *h); /* C */
/* The mean square of x_f - x over that of x_f: how far the inputs are from the original's; of pairs. */
double        hess_distance(const struct hess *h);

/* What ranks exchange: the sum, whose entries on equal grids may be added in any pieces and order, and all the rest, a
 * few bytes a channel. hess_head_merge adds another's rest to dst, as hess_merge would. RC_DATA: other n or grid. */
size_t hess_entries(int n); /* of H */
size_t hess_values(int n, bool pairs); /* of a sum, all its parts */
size_t hess_count(const struct hess *h); /* of sum, all its parts; 0: none */
size_t hess_exponents(const struct hess *h); /* of grid */
size_t hess_head_bytes(const struct hess *h);
void   hess_head_write(const struct hess *h, void *out);
int    hess_head_merge(struct hess *dst, const void *head, size_t bytes);

/* durable: with fsync. Extra metadata pairs are the caller's (plan fingerprint, input name). */
int hess_publish(const struct hess *h, const char *path, bool durable, const struct st_meta *extra, size_t count);
int hess_read(struct hess *h, const char *path, struct st_file *st); /* st stays open for its metadata; close it */
int hess_map(struct hess *h, const char *path, struct st_file *st);  /* the same, but the sum stays in st */
int hess_read_ranges(struct hess *h, const char *path, struct st_file *st); /* the same, but leaves the sum alone */
/* One of the two, of a file that was made under the plan of that fingerprint; RC_DATA: it was not, or has no sum. The
 * sum stays in the file: a copy would be the largest thing in memory. Close st after h was freed. */
int hess_open(struct hess *h, const char *path, bool sums, const char *plan, struct st_file *st);

#endif
