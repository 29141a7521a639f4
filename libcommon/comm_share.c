/* comm_share - finished modules between ranks that share no file system, by MPI
 *
 * Each rank has a work directory of its own. What its llmc-gptq has published it sends to all others, who publish it
 * in theirs: a message is the task's number, four bytes, then the file. At the start all directories are made equal: a
 * task that is done anywhere comes from the lowest rank that has it. Then ranks/synced appears, for which llmc pipeline
 * waits before it starts the stages that look at weights/.
 */
#include "comm_mpi.h"

#include "buf.h"
#include "file.h"
#include "mem.h"

#include <limits.h>
#include <string.h>

enum { TAG_FILE = 1, HEAD_BYTES = 4 };

struct outgoing {
    struct buf       data;
    MPI_Request     *requests; /* [ranks] */
    struct outgoing *next;
};

struct share {
    MPI_Comm         world;
    bool            *sent;  /* [tasks] by us */
    int              first; /* of our tasks, that is not */
    struct outgoing *out;
};

/* --- at the start --- */

static int
same_plan(const struct comm *c, MPI_Comm world)
{
    char theirs[DIGEST_HEX];
    int same;

    memcpy(theirs, c->run->plan.fingerprint, sizeof(theirs));
    MPI_TRY(MPI_Bcast(theirs, DIGEST_HEX, MPI_CHAR, 0, world));
    same = memcmp(theirs, c->run->plan.fingerprint, sizeof(theirs)) == 0;
    MPI_TRY(MPI_Allreduce(MPI_IN_PLACE, &same, 1, MPI_INT, MPI_MIN, world));
    return same ? RC_OK : err_set(RC_DATA, "%s: ranks have different plans", c->run->plan.dir);
}

static int
read_task(const struct comm *c, int task, size_t head, struct buf *b)
{
    char path[PATH_MAX], zero[HEAD_BYTES] = { 0 };
    struct buf file = { 0 };
    int rc;

    TRY(plan_task_path(&c->run->plan, &c->run->plan.tasks[task], path));
    if ((rc = buf_read_file(&file, path, INT_MAX - HEAD_BYTES)) != RC_OK)
        return rc;
    buf_add(b, zero, head);
    buf_add(b, file.s, file.len);
    buf_free(&file);
    return buf_ok(b) ? RC_OK : RC_OS;
}

static int
write_task(const struct comm *c, int task, const char *data, size_t bytes)
{
    char path[PATH_MAX];

    TRY(plan_task_path(&c->run->plan, &c->run->plan.tasks[task], path));
    return file_publish(path, data, bytes);
}

/* One task from the rank that has it to all. */
static int
spread(const struct comm *c, MPI_Comm world, int task, int from, bool have)
{
    struct buf b = { 0 };
    unsigned long long bytes = 0;
    char *data = NULL;
    int rc = RC_OK;

    if (from == c->rank && (rc = read_task(c, task, 0, &b)) == RC_OK)
        bytes = b.len;
    MPI_TRY(MPI_Bcast(&bytes, 1, MPI_UNSIGNED_LONG_LONG, from, world)); /* 0: could not be read */
    if (rc == RC_OK && bytes > 0 && (data = from == c->rank ? b.s : mem_alloc((size_t)bytes, 1)) == NULL)
        return RC_OS;
    if (bytes > 0)
        MPI_TRY(MPI_Bcast(data, (int)bytes, MPI_BYTE, from, world));
    else if (rc == RC_OK)
        rc = err_set(RC_RETRY, "%s: rank %d cannot read it", c->run->plan.tasks[task].name, from);
    if (rc == RC_OK && !have)
        rc = write_task(c, task, data, (size_t)bytes);
    if (from != c->rank)
        mem_free(data);
    buf_free(&b);
    return rc;
}

/* All directories get what any has. */
static int
level(const struct comm *c, MPI_Comm world)
{
    const struct plan *p = &c->run->plan;
    size_t n = (size_t)p->task_count;
    int *from = mem_alloc(n + 1, sizeof(*from)), *all = mem_alloc(n + 1, sizeof(*all)), rc = RC_OK;

    if (from == NULL || all == NULL)
        return RC_OS;
    for (size_t i = 0; i < n; i++) {
        all[i] = plan_task_done(p, &p->tasks[i]);
        from[i] = all[i] ? c->rank : INT_MAX;
    }
    MPI_TRY(MPI_Allreduce(MPI_IN_PLACE, from, (int)n, MPI_INT, MPI_MIN, world));
    MPI_TRY(MPI_Allreduce(MPI_IN_PLACE, all, (int)n, MPI_INT, MPI_MIN, world));
    for (int i = 0; i < p->task_count && rc == RC_OK; i++)
        if (from[i] != INT_MAX && !all[i])
            rc = spread(c, world, i, from[i], plan_task_done(p, &p->tasks[i]));
    mem_free(from);
    mem_free(all);
    return rc;
}

int
mpi_share_open(struct comm *c)
{
    const struct plan *p = &c->run->plan;
    char path[PATH_MAX];
    struct share *s = mem_zalloc(1, sizeof(*s));

    if ((c->share = s) == NULL || (s->sent = mem_zalloc((size_t)p->task_count + 1, 1)) == NULL)
        return RC_OS;
    MPI_TRY(MPI_Comm_dup(MPI_COMM_WORLD, &s->world));
    TRY(same_plan(c, s->world));
    TRY(level(c, s->world));
    for (int i = 0; i < p->task_count; i++)
        s->sent[i] = plan_task_done(p, &p->tasks[i]);
    MPI_TRY(MPI_Barrier(s->world));
    TRY(plan_path(p, path, "ranks/synced"));
    return file_publish(path, "", 0);
}

/* --- during the run --- */

static int
send_task(struct comm *c, int task)
{
    struct share *s = c->share;
    struct outgoing *o = mem_zalloc(1, sizeof(*o));
    int32_t number = task;

    if (o == NULL)
        return RC_OS;
    o->next = s->out;
    s->out = o;
    if ((o->requests = mem_alloc((size_t)c->ranks, sizeof(MPI_Request))) == NULL)
        return RC_OS;
    for (int r = 0; r < c->ranks; r++)
        o->requests[r] = MPI_REQUEST_NULL;
    TRY(read_task(c, task, HEAD_BYTES, &o->data));
    memcpy(o->data.s, &number, HEAD_BYTES);
    for (int r = 0; r < c->ranks; r++)
        if (r != c->rank)
            MPI_TRY(MPI_Isend(o->data.s, (int)o->data.len, MPI_BYTE, r, TAG_FILE, s->world, &o->requests[r]));
    s->sent[task] = true;
    return RC_OK;
}

/* Ours of the first step in which any is left; tasks are sorted by step. */
static int
send_new(struct comm *c)
{
    const struct plan *p = &c->run->plan;
    struct share *s = c->share;

    while (s->first < p->task_count && (s->sent[s->first] || p->tasks[s->first].rank != c->rank))
        s->first++;
    for (int i = s->first; i < p->task_count && p->tasks[i].step == p->tasks[s->first].step; i++)
        if (!s->sent[i] && p->tasks[i].rank == c->rank && plan_task_done(p, &p->tasks[i]))
            TRY(send_task(c, i));
    return RC_OK;
}

static int
take(struct comm *c)
{
    struct share *s = c->share;
    MPI_Status status;
    int there, bytes, rc;
    int32_t task;
    char *data;

    for (;;) {
        MPI_TRY(MPI_Iprobe(MPI_ANY_SOURCE, TAG_FILE, s->world, &there, &status));
        if (!there)
            return RC_OK;
        MPI_TRY(MPI_Get_count(&status, MPI_BYTE, &bytes));
        if ((data = mem_alloc((size_t)bytes + HEAD_BYTES, 1)) == NULL)
            return RC_OS;
        rc = mpi_check(MPI_Recv(data, bytes, MPI_BYTE, status.MPI_SOURCE, TAG_FILE, s->world, MPI_STATUS_IGNORE),
            "MPI_Recv");
        if (rc == RC_OK) {
            memcpy(&task, data, HEAD_BYTES);
            rc = bytes < HEAD_BYTES || task < 0 || task >= c->run->plan.task_count ?
                err_set(RC_BUG, "rank %d sent task %d", status.MPI_SOURCE, (int)task) :
                write_task(c, task, data + HEAD_BYTES, (size_t)bytes - HEAD_BYTES);
        }
        mem_free(data);
        TRY(rc);
    }
}

static int
collect(struct comm *c)
{
    struct share *s = c->share;

    for (struct outgoing **at = &s->out, *o; (o = *at) != NULL;) {
        int flag = 0;

        MPI_TRY(MPI_Testall(c->ranks, o->requests, &flag, MPI_STATUSES_IGNORE));
        if (!flag) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        buf_free(&o->data);
        mem_free(o->requests);
        mem_free(o);
    }
    return RC_OK;
}

int
mpi_share_go_on(struct comm *c, bool *idle)
{
    struct share *s = c->share;

    TRY(send_new(c));
    TRY(take(c));
    TRY(collect(c));
    *idle = s->out == NULL;
    return RC_OK;
}

void
mpi_share_close(struct comm *c)
{
    struct share *s = c->share;

    if (s == NULL)
        return;
    mem_free(s->sent);
    mem_free(s); /* what is still on its way is the process's until its end */
    c->share = NULL;
}
