/* comm_nccl - sums between ranks by NCCL, one device a rank; MPI starts it, and passes grids and heads
 *
 * NCCL wants the same operations in the same order on all ranks. All sums of a step are started before the first is
 * tested; from then on they go widest first, which is the same everywhere, whatever is left to compress.
 *
 * A sum wanted by one rank is reduced to it; wanted by more, it goes to all. Ranks without blocks give zeros.
 */
#include "comm_mpi.h"

#include "../kernels/reduce.h"
#include "mem.h"
#include "msg.h"

#include <stdlib.h>

struct own {
    struct mpi_own             mpi;
    const struct reduce_table *table;
    struct reduce             *reduce;
    struct comm_sum           *waiting[ARCH_POINTS_MAX]; /* started, not begun */
    int                        count;
};

struct sum {
    struct mpi_heads  heads;
    struct reduce_sum r;
};

/* NCCL has run on no device yet, so it is taken only where it is asked for. */
static bool
usable(const struct comm *c)
{
    (void)c;
    return false;
}

static int
open_nccl(struct comm *c)
{
    char id[REDUCE_ID_BYTES] = { 0 };
    int all, rc = RC_OK;
    struct own *o;

    TRY(mpi_open(c, sizeof(*o)));
    o = c->own;
    if ((rc = reduce_load(&o->table)) == RC_OK && c->rank == 0)
        rc = o->table->id(id);
    /* Nobody waits for one who cannot take part. */
    MPI_TRY(MPI_Allreduce(&rc, &all, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD));
    if (rc != RC_OK)
        return rc;
    if (all != RC_OK)
        return err_set(RC_UNAVAILABLE, "communicator \"nccl\": another rank cannot use it");
    MPI_TRY(MPI_Bcast(id, sizeof(id), MPI_BYTE, 0, MPI_COMM_WORLD));
    return o->table->open(&o->reduce, id, c->rank, c->ranks);
}

static void
close_nccl(struct comm *c, int rc)
{
    struct own *o = c->own;

    if (o != NULL && o->table != NULL)
        o->table->close(o->reduce, rc == RC_OK);
    mpi_close(c, rc);
}

/* The rank that wants the whole, or what stands for more or none. */
static int
root(const struct comm *c, const struct comm_sum *s)
{
    int found = REDUCE_NOBODY;

    for (int r = 0; r < c->ranks; r++)
        if (s->takes[r])
            found = found == REDUCE_NOBODY ? r : REDUCE_EVERYBODY;
    return found;
}

static int
start(struct comm *c, struct comm_sum *s)
{
    struct own *o = c->own;
    struct sum *m;

    if ((s->own = m = mem_zalloc(1, sizeof(*m))) == NULL)
        return RC_OS;
    m->r = (struct reduce_sum){ .data = s->h->sum, .count = hess_count(s->h),
        .gives = c->gives[c->rank], .root = root(c, s) };
    if (m->r.root == REDUCE_NOBODY)
        m->r.count = 0;
    if (m->r.count > 0)
        o->waiting[o->count++] = s;
    return mpi_heads_start(c, s, &m->heads);
}

static int
by_width(const void *a, const void *b)
{
    const struct comm_sum *x = *(struct comm_sum *const *)a, *y = *(struct comm_sum *const *)b;

    if (x->h->n != y->h->n)
        return x->h->n < y->h->n ? 1 : -1;
    return (x->point > y->point) - (x->point < y->point);
}

static int
test(struct comm *c, struct comm_sum *s)
{
    struct own *o = c->own;
    struct sum *m = s->own;
    bool heads;

    qsort(o->waiting, (size_t)o->count, sizeof(*o->waiting), by_width);
    for (int i = 0; i < o->count; i++)
        TRY(o->table->begin(o->reduce, &((struct sum *)o->waiting[i]->own)->r));
    o->count = 0;
    TRY(mpi_heads_test(c, s, &m->heads, &heads));
    TRY(o->table->test(o->reduce));
    s->done = heads && m->r.returned == m->r.count;
    return s->done ? mpi_collect_grids(c) : RC_OK;
}

/* Where a sum is given up the run ends: nothing touches its pieces before close. */
static void
forget(struct comm_sum *s)
{
    struct sum *m = s->own;

    if (m == NULL)
        return;
    mpi_heads_free(&m->heads);
    mem_free(m);
    s->own = NULL;
}

const struct comm_kind comm_nccl = {
    .name = "nccl", .usable = usable, .open = open_nccl, .close = close_nccl, .give_grid = mpi_give_grid,
    .take_grid = mpi_take_grid, .start = start, .test = test, .waits = mpi_waits, .forget = forget,
    .share_open = mpi_share_open, .share_go_on = mpi_share_go_on, .share_close = mpi_share_close,
};
