/* comm_files - ranks that share nothing but a file system
 *
 *     hessian/STEP/POINT.grid.safetensors   the exponents
 *     hessian/STEP/POINT.RANK.safetensors   what one rank's blocks gave
 *
 * Each carries the SHA-256 of its numbers and is synced only by time: a file that a crash has spoiled is as good as not
 * there. A partial sum also carries which blocks are whose, so that one of an earlier run counts if, and only if, it is
 * what this run's rank would write.
 */
#include "comm.h"

#include "file.h"
#include "mem.h"
#include "msg.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct partial {
    bool *have; /* [ranks] merged */
    int   left;
};

static bool
usable(const struct comm *c)
{
    (void)c;
    return true;
}

static int
open_files(struct comm *c)
{
    (void)c;
    return RC_OK;
}

static void
close_files(struct comm *c, int rc)
{
    (void)c;
    (void)rc;
}

static int
grid_path(const struct comm *c, int step, enum point point, char *out)
{
    return plan_path(&c->run->plan, out, "hessian/%d/%s.grid.safetensors", step, arch_point_name(point));
}

static int
partial_path(const struct comm *c, int step, enum point point, int rank, char *out)
{
    return plan_path(&c->run->plan, out, "hessian/%d/%s.%d.safetensors", step, arch_point_name(point), rank);
}

static int
make_dir(const struct comm *c, int step)
{
    char path[PATH_MAX];

    TRY(plan_path(&c->run->plan, path, "hessian/%d", step));
    return file_mkdir(path);
}

/* --- grids --- */

static int
give_grid(struct comm *c, int step, enum point point, const struct hess *h)
{
    struct tensor t = tensor_1d("grid", DT_I16, (int64_t)hess_exponents(h), h->grid);
    char path[PATH_MAX], hex[DIGEST_HEX];
    struct st_meta meta[] = { { "plan", c->run->plan.fingerprint }, { "digest", hex } };

    TRY(make_dir(c, step));
    TRY(grid_path(c, step, point, path));
    TRY(digest_mem(h->grid, hess_exponents(h) * sizeof(*h->grid), hex));
    return st_publish_quick(path, &t, 1, meta, 2);
}

static int
take_grid(struct comm *c, int step, enum point point, struct hess *h, bool *done)
{
    char path[PATH_MAX], hex[DIGEST_HEX];
    const struct tensor *t;
    struct st_file st;
    int rc = RC_OK;

    TRY(grid_path(c, step, point, path));
    if (access(path, R_OK) != 0 || st_open(&st, path) != RC_OK)
        return RC_OK;
    t = st_find(&st, "grid");
    if (t != NULL && t->dtype == DT_I16 && t->ndim == 1 && t->shape[0] == (int64_t)hess_exponents(h) &&
        st_meta_is(&st, "plan", c->run->plan.fingerprint) && (rc = digest_mem(t->data, t->bytes, hex)) == RC_OK &&
        st_meta_is(&st, "digest", hex)) {
        memcpy(h->grid, t->data, t->bytes);
        *done = true;
    }
    st_close(&st);
    return rc;
}

/* --- sums --- */

static int
digest_of(const struct hess *h, char hex[DIGEST_HEX])
{
    size_t bytes = hess_head_bytes(h);
    void *head = mem_alloc(bytes, 1);
    struct digest d;

    if (head == NULL)
        return RC_OS;
    hess_head_write(h, head);
    digest_init(&d);
    digest_add(&d, head, bytes);
    if (h->sum != NULL)
        digest_add(&d, h->sum, hess_count(h) * sizeof(*h->sum));
    mem_free(head);
    return digest_hex(&d, hex);
}

static int
start(struct comm *c, struct comm_sum *s)
{
    char path[PATH_MAX], hex[DIGEST_HEX];
    struct st_meta meta[] = { { "plan", c->run->plan.fingerprint }, { "partition", c->partition }, { "digest", hex } };
    struct partial *p;
    bool others = false;

    for (int r = 0; r < c->ranks; r++)
        others = others || (r != c->rank && s->takes[r]);
    if (others && c->gives[c->rank]) {
        TRY(make_dir(c, s->step));
        TRY(partial_path(c, s->step, s->point, c->rank, path));
        TRY(digest_of(s->h, hex));
        TRY(hess_publish(s->h, path, false, meta, 3));
    }
    if (!s->takes[c->rank]) {
        s->done = true;
        return RC_OK;
    }
    if ((s->own = p = mem_zalloc(1, sizeof(*p))) == NULL || (p->have = mem_zalloc((size_t)c->ranks, 1)) == NULL) {
        mem_free(p);
        s->own = NULL;
        return RC_OS;
    }
    for (int r = 0; r < c->ranks; r++)
        p->left += r != c->rank && c->gives[r];
    return RC_OK;
}

/* Adds what one other rank has published, if it has and if it is whole. */
static int
try_merge(struct comm *c, struct comm_sum *s, int rank, bool *merged)
{
    char path[PATH_MAX], hex[DIGEST_HEX];
    struct st_file st;
    struct hess h;
    bool ours;
    int rc;

    TRY(partial_path(c, s->step, s->point, rank, path));
    if (access(path, R_OK) != 0 || st_open(&st, path) != RC_OK)
        return RC_OK;
    ours = st_meta_is(&st, "plan", c->run->plan.fingerprint) && st_meta_is(&st, "partition", c->partition);
    st_close(&st);
    if (!ours || hess_map(&h, path, &st) != RC_OK)
        return RC_OK;
    rc = digest_of(&h, hex);
    if (rc == RC_OK && st_meta_is(&st, "digest", hex)) {
        rc = hess_merge(s->h, &h);
        *merged = rc == RC_OK;
    }
    hess_free(&h);
    st_close(&st);
    return rc;
}

static int
test(struct comm *c, struct comm_sum *s)
{
    struct partial *p = s->own;

    for (int r = 0; r < c->ranks && p->left > 0; r++) {
        if (r == c->rank || !c->gives[r] || p->have[r])
            continue;
        TRY(try_merge(c, s, r, &p->have[r]));
        p->left -= p->have[r];
    }
    s->done = p->left == 0;
    return RC_OK;
}

static bool
waits(const struct comm *c, const struct comm_sum *s, int rank)
{
    const struct partial *p = s->own;

    return c->gives[rank] && p != NULL && !p->have[rank];
}

static void
forget(struct comm_sum *s)
{
    struct partial *p = s->own;

    if (p != NULL)
        mem_free(p->have);
    mem_free(p);
    s->own = NULL;
}

static void
drop(struct comm *c, int step)
{
    char path[PATH_MAX];

    for (int p = 0; p < arch_point_total(&c->run->arch); p++) {
        if (partial_path(c, step, (enum point)p, c->rank, path) == RC_OK)
            (void)unlink(path);
        if (c->run->plan.block_count > 0 && c->run->plan.blocks[0].rank == c->rank &&
            grid_path(c, step, (enum point)p, path) == RC_OK)
            (void)unlink(path);
    }
}

const struct comm_kind comm_files = {
    .name = "files", .usable = usable, .open = open_files, .close = close_files, .give_grid = give_grid,
    .take_grid = take_grid, .start = start, .test = test, .waits = waits,
    .forget = forget, .drop = drop,
};
