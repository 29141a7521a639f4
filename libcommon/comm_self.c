/* comm_self - one rank, which has all there is */
#include "comm.h"

#include "msg.h"

static bool
usable(const struct comm *c)
{
    return c->ranks == 1;
}

static int
open_self(struct comm *c)
{
    (void)c;
    return RC_OK;
}

static void
close_self(struct comm *c, int rc)
{
    (void)c;
    (void)rc;
}

static int
give_grid(struct comm *c, int step, enum point point, const struct hess *h)
{
    (void)c;
    (void)step;
    (void)point;
    (void)h;
    return RC_OK;
}

static int
take_grid(struct comm *c, int step, enum point point, struct hess *h, bool *done)
{
    (void)c;
    (void)h;
    (void)done;
    return err_set(RC_BUG, "step %d, input %s: nobody else has the first block", step, arch_point_name(point));
}

static int
go_on(struct comm *c, struct comm_sum *s)
{
    (void)c;
    s->done = true;
    return RC_OK;
}

static bool
waits(const struct comm *c, const struct comm_sum *s, int rank)
{
    (void)c;
    (void)s;
    (void)rank;
    return false;
}

const struct comm_kind comm_self = {
    .name = "self", .usable = usable, .open = open_self, .close = close_self, .give_grid = give_grid,
    .take_grid = take_grid, .start = go_on, .test = go_on, .waits = waits,
};
