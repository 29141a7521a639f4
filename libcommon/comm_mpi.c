/* comm_mpi - sums between ranks by MPI
 *
 * Each rank adds up one slice of every sum and sends it to those who take it. So a taker gets at most twice the bytes
 * of one sum, for any number of ranks, and everybody adds. All messages are point to point and never block: all inputs
 * of a step are in flight at once, and whoever waits can look after the others.
 *
 *     1. every giver sends slice k of its sum to rank k, and its head (hess.h) to every taker
 *     2. rank k adds what it got to its own slice k, and sends that to every taker
 *     3. a taker puts slice k into its sum once its own slice k has left
 *
 * Messages of one kind between two ranks are taken in the order they were sent, so steps cannot mix.
 */
#include "comm_mpi.h"

#include "mem.h"
#include "msg.h"

#include <stdlib.h>
#include <string.h>

enum { REASON_MAX = MPI_MAX_ERROR_STRING };

struct slice {
    size_t first, count;
};

struct sum {
    struct mpi_heads heads;
    double          *part;             /* [ranks][slice of ours]: what others gave */
    MPI_Request     *send, *part_in, *whole_in, *whole_out; /* [ranks] each */
    MPI_Request     *requests;         /* all of them */
    int              parts;
    bool             added;            /* our slice is whole and on its way */
    bool            *posted;           /* [ranks] whole_in is */
};

struct mpi_grid {                      /* on its way to the others */
    int16_t         *data;
    MPI_Request     *requests;         /* [ranks] */
    struct mpi_grid *next;
};

enum { PER_RANK = 4 };                 /* requests of a sum */

int
mpi_check(int status, const char *what)
{
    char reason[REASON_MAX];
    int n = 0;

    if (status == MPI_SUCCESS)
        return RC_OK;
    if (MPI_Error_string(status, reason, &n) != MPI_SUCCESS)
        n = 0;
    return err_set(RC_UNAVAILABLE, "%s: %.*s", what, n, reason);
}

int
mpi_tag(enum mpi_tag tag, enum point point)
{
    return (int)point * TAGS + (int)tag;
}

static bool
launched(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") != NULL || getenv("PMIX_NAMESPACE") != NULL || getenv("PMI_SIZE") != NULL;
}

bool
mpi_usable(const struct comm *c)
{
    return c->ranks > 1 && launched();
}

int
mpi_open(struct comm *c, size_t bytes)
{
    int given, rank, ranks;
    struct mpi_own *o;

    if (!launched())
        return err_set(RC_USAGE, "communicator mpi needs an MPI launcher, such as mpirun");
    if ((c->own = o = mem_zalloc(1, bytes)) == NULL)
        return RC_OS;
    MPI_TRY(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &given));
    o->ready = true;
    MPI_TRY(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    MPI_TRY(MPI_Comm_rank(MPI_COMM_WORLD, &rank));
    MPI_TRY(MPI_Comm_size(MPI_COMM_WORLD, &ranks));
    if (rank != c->rank || ranks != c->ranks)
        return err_set(RC_USAGE, "we are rank %d of %d, but MPI says rank %d of %d", c->rank, c->ranks, rank, ranks);
    return RC_OK;
}

static void
free_grids(struct mpi_own *o)
{
    for (struct mpi_grid *g = o->grids, *next; g != NULL; g = next) {
        next = g->next;
        mem_free(g->data);
        mem_free(g->requests);
        mem_free(g);
    }
    o->grids = NULL;
}

/* Ranks that failed have nobody left to finish with. */
void
mpi_close(struct comm *c, int rc)
{
    struct mpi_own *o = c->own;

    if (o == NULL)
        return;
    if (o->ready && rc == RC_OK)
        (void)MPI_Finalize();
    free_grids(o);
    mem_free(o);
}

/* --- grids --- */

int
mpi_give_grid(struct comm *c, int step, enum point point, const struct hess *h)
{
    struct mpi_own *o = c->own;
    struct mpi_grid *g = mem_zalloc(1, sizeof(*g));

    (void)step;
    if (g == NULL)
        return RC_OS;
    g->next = o->grids;
    o->grids = g;
    g->data = mem_alloc(hess_exponents(h), sizeof(*g->data));
    g->requests = mem_alloc((size_t)c->ranks, sizeof(MPI_Request));
    if (g->data == NULL || g->requests == NULL)
        return RC_OS;
    memcpy(g->data, h->grid, hess_exponents(h) * sizeof(*g->data));
    for (int r = 0; r < c->ranks; r++) {
        g->requests[r] = MPI_REQUEST_NULL;
        if (r != c->rank)
            MPI_TRY(MPI_Isend(g->data, (int)hess_exponents(h), MPI_INT16_T, r, mpi_tag(TAG_GRID, point), MPI_COMM_WORLD,
                &g->requests[r]));
    }
    return RC_OK;
}

int
mpi_take_grid(struct comm *c, int step, enum point point, struct hess *h, bool *done)
{
    struct mpi_own *o = c->own;
    int flag = 0;

    (void)step;
    if (!o->asked[point]) {
        MPI_TRY(MPI_Irecv(h->grid, (int)hess_exponents(h), MPI_INT16_T, c->run->plan.blocks[0].rank,
            mpi_tag(TAG_GRID, point), MPI_COMM_WORLD, &o->grid_in[point]));
        o->asked[point] = true;
    }
    MPI_TRY(MPI_Test(&o->grid_in[point], &flag, MPI_STATUS_IGNORE));
    if (flag) {
        *done = true;
        o->asked[point] = false;
    }
    return RC_OK;
}

int
mpi_collect_grids(struct comm *c)
{
    struct mpi_own *o = c->own;

    for (struct mpi_grid *g = o->grids; g != NULL; g = g->next) {
        int flag = 0;

        MPI_TRY(MPI_Testall(c->ranks, g->requests, &flag, MPI_STATUSES_IGNORE));
        if (!flag)
            return RC_OK;
    }
    free_grids(o);
    return RC_OK;
}

/* --- heads --- */

int
mpi_heads_start(struct comm *c, const struct comm_sum *s, struct mpi_heads *h)
{
    size_t ranks = (size_t)c->ranks;
    int tag = mpi_tag(TAG_HEAD, s->point);

    h->bytes = hess_head_bytes(s->h);
    h->all = mem_alloc(ranks, h->bytes);
    h->in = mem_alloc(2 * ranks, sizeof(*h->in));
    if (h->all == NULL || h->in == NULL)
        return RC_OS;
    h->out = h->in + ranks;
    for (size_t i = 0; i < 2 * ranks; i++)
        h->in[i] = MPI_REQUEST_NULL;
    hess_head_write(s->h, h->all + (size_t)c->rank * h->bytes);
    for (int r = 0; r < c->ranks; r++) {
        if (r == c->rank)
            continue;
        if (c->gives[r] && s->takes[c->rank]) {
            MPI_TRY(MPI_Irecv(h->all + (size_t)r * h->bytes, (int)h->bytes, MPI_BYTE, r, tag, MPI_COMM_WORLD,
                &h->in[r]));
            h->left++;
        }
        if (c->gives[c->rank] && s->takes[r])
            MPI_TRY(MPI_Isend(h->all + (size_t)c->rank * h->bytes, (int)h->bytes, MPI_BYTE, r, tag, MPI_COMM_WORLD,
                &h->out[r]));
    }
    return RC_OK;
}

int
mpi_heads_test(struct comm *c, const struct comm_sum *s, struct mpi_heads *h, bool *done)
{
    int flag;

    for (int r = 0; r < c->ranks && h->left > 0; r++) {
        if (h->in[r] == MPI_REQUEST_NULL)
            continue;
        MPI_TRY(MPI_Test(&h->in[r], &flag, MPI_STATUS_IGNORE));
        if (!flag)
            continue;
        TRY(hess_head_merge(s->h, h->all + (size_t)r * h->bytes, h->bytes));
        h->left--;
    }
    MPI_TRY(MPI_Testall(c->ranks, h->out, &flag, MPI_STATUSES_IGNORE));
    *done = h->left == 0 && flag != 0;
    return RC_OK;
}

void
mpi_heads_free(struct mpi_heads *h)
{
    mem_free(h->all);
    mem_free(h->in);
    *h = (struct mpi_heads){ 0 };
}

/* --- sums --- */

static struct slice
slice_of(const struct comm *c, const struct comm_sum *s, int rank)
{
    size_t n = hess_count(s->h), ranks = (size_t)c->ranks, r = (size_t)rank;
    struct slice l = { n / ranks * r + (r < n % ranks ? r : n % ranks), n / ranks + (r < n % ranks) };

    return l;
}

static double *
at(const struct comm_sum *s, struct slice l)
{
    return l.count > 0 ? s->h->sum + l.first : NULL;
}

static void
forget(struct comm_sum *s)
{
    struct sum *m = s->own;

    if (m == NULL)
        return;
    mpi_heads_free(&m->heads);
    mem_free(m->part);
    mem_free(m->requests);
    mem_free(m->posted);
    mem_free(m);
    s->own = NULL;
}

static int
allocate(struct comm *c, struct comm_sum *s)
{
    struct sum *m = mem_zalloc(1, sizeof(*m));
    size_t ranks = (size_t)c->ranks;

    if ((s->own = m) == NULL)
        return RC_OS;
    m->part = mem_alloc(ranks * slice_of(c, s, c->rank).count + 1, sizeof(*m->part));
    m->requests = mem_alloc(PER_RANK * ranks, sizeof(MPI_Request));
    m->posted = mem_zalloc(ranks, sizeof(*m->posted));
    if (m->part == NULL || m->requests == NULL || m->posted == NULL)
        return RC_OS;
    for (size_t i = 0; i < PER_RANK * ranks; i++)
        m->requests[i] = MPI_REQUEST_NULL;
    m->send = m->requests;
    m->part_in = m->send + ranks;
    m->whole_in = m->part_in + ranks;
    m->whole_out = m->whole_in + ranks;
    return RC_OK;
}

static int
start(struct comm *c, struct comm_sum *s)
{
    struct slice mine = slice_of(c, s, c->rank);
    struct sum *m;

    TRY(allocate(c, s));
    m = s->own;
    TRY(mpi_heads_start(c, s, &m->heads));
    for (int r = 0; r < c->ranks; r++) {
        struct slice l = slice_of(c, s, r);

        if (r == c->rank)
            continue;
        if (c->gives[r]) {
            MPI_TRY(MPI_Irecv(m->part + (size_t)r * mine.count, (int)mine.count, MPI_DOUBLE, r,
                mpi_tag(TAG_PART, s->point), MPI_COMM_WORLD, &m->part_in[r]));
            m->parts++;
        }
        if (!c->gives[c->rank])
            continue;
        MPI_TRY(MPI_Isend(at(s, l), (int)l.count, MPI_DOUBLE, r, mpi_tag(TAG_PART, s->point), MPI_COMM_WORLD,
            &m->send[r]));
    }
    return RC_OK;
}

static int
add_parts(struct comm *c, struct comm_sum *s)
{
    struct slice mine = slice_of(c, s, c->rank);
    double *restrict sum = at(s, mine);
    struct sum *m = s->own;
    int flag;

    for (int r = 0; r < c->ranks && m->parts > 0; r++) {
        const double *restrict part = m->part + (size_t)r * mine.count;

        if (m->part_in[r] == MPI_REQUEST_NULL)
            continue;
        MPI_TRY(MPI_Test(&m->part_in[r], &flag, MPI_STATUS_IGNORE));
        if (!flag)
            continue;
        for (size_t i = 0; i < mine.count; i++)
            sum[i] += part[i];
        m->parts--;
    }
    if (m->parts > 0 || m->added)
        return RC_OK;
    for (int r = 0; r < c->ranks; r++)
        if (r != c->rank && s->takes[r])
            MPI_TRY(MPI_Isend(sum, (int)mine.count, MPI_DOUBLE, r, mpi_tag(TAG_WHOLE, s->point),
                MPI_COMM_WORLD, &m->whole_out[r]));
    m->added = true;
    return RC_OK;
}

/* Room for slice r is there once our own slice r has left. */
static int
ask_whole(struct comm *c, struct comm_sum *s)
{
    struct sum *m = s->own;
    int flag;

    for (int r = 0; r < c->ranks; r++) {
        struct slice l = slice_of(c, s, r);

        if (r == c->rank || m->posted[r] || !s->takes[c->rank])
            continue;
        MPI_TRY(MPI_Test(&m->send[r], &flag, MPI_STATUS_IGNORE));
        if (!flag)
            continue;
        MPI_TRY(MPI_Irecv(at(s, l), (int)l.count, MPI_DOUBLE, r, mpi_tag(TAG_WHOLE, s->point),
            MPI_COMM_WORLD, &m->whole_in[r]));
        m->posted[r] = true;
    }
    return RC_OK;
}

static int
test(struct comm *c, struct comm_sum *s)
{
    struct sum *m = s->own;
    bool all;
    int flag;

    TRY(add_parts(c, s));
    TRY(mpi_heads_test(c, s, &m->heads, &all));
    TRY(ask_whole(c, s));
    for (int r = 0; r < c->ranks; r++)
        all = all && (r == c->rank || !s->takes[c->rank] || m->posted[r]);
    if (!all || m->parts > 0)
        return RC_OK;
    MPI_TRY(MPI_Testall(PER_RANK * c->ranks, m->requests, &flag, MPI_STATUSES_IGNORE));
    s->done = flag != 0;
    return flag ? mpi_collect_grids(c) : RC_OK;
}

bool
mpi_waits(const struct comm *c, const struct comm_sum *s, int rank)
{
    (void)c;
    (void)s;
    (void)rank;
    return true;
}

static int
open_mpi(struct comm *c)
{
    return mpi_open(c, sizeof(struct mpi_own));
}

const struct comm_kind comm_mpi = {
    .name = "mpi", .usable = mpi_usable, .open = open_mpi, .close = mpi_close, .give_grid = mpi_give_grid,
    .take_grid = mpi_take_grid, .start = start, .test = test, .waits = mpi_waits, .forget = forget,
    .share_open = mpi_share_open, .share_go_on = mpi_share_go_on, .share_close = mpi_share_close,
};
