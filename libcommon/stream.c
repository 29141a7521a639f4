/* stream - what llmc-calib and llmc-hessian say to the next stage */
#include "stream.h"

#include "msg.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kinds[] = { "begin", "input", "cache", "end", "failed" };

enum { META_MAX = 6, INT_TEXT = 16 };

int
stream_begin(int fd, int step, const char *plan)
{
    char num[INT_TEXT];
    struct st_meta meta[] = { { "kind", kinds[STREAM_BEGIN] }, { "step", num }, { "plan", plan } };

    (void)snprintf(num, sizeof(num), "%d", step);
    return st_write_frame(fd, NULL, 0, meta, 3);
}

int
stream_input(int fd, int step, enum point point, int block, int sequences, const void *x, enum dtype dt, int rows,
    int cols)
{
    char s[INT_TEXT], b[INT_TEXT], q[INT_TEXT];
    struct st_meta meta[] = { { "kind", kinds[STREAM_INPUT] }, { "step", s }, { "point", arch_point_name(point) },
        { "block", b }, { "sequences", q } };
    struct tensor t = tensor_2d("x", dt, rows, cols, x);

    (void)snprintf(s, sizeof(s), "%d", step);
    (void)snprintf(b, sizeof(b), "%d", block);
    (void)snprintf(q, sizeof(q), "%d", sequences);
    return st_write_frame(fd, &t, 1, meta, 5);
}

int
stream_cache(int fd, int step, int block, const float *range, int count)
{
    char s[INT_TEXT], b[INT_TEXT];
    struct st_meta meta[] = { { "kind", kinds[STREAM_CACHE] }, { "step", s }, { "block", b } };
    struct tensor t = tensor_2d("range", DT_F32, count, 2, range);

    (void)snprintf(s, sizeof(s), "%d", step);
    (void)snprintf(b, sizeof(b), "%d", block);
    return st_write_frame(fd, &t, 1, meta, 3);
}

static int
control(int fd, enum stream_kind kind, int step)
{
    char num[INT_TEXT];
    struct st_meta meta[] = { { "kind", kinds[kind] }, { "step", num } };

    (void)snprintf(num, sizeof(num), "%d", step);
    return st_write_frame(fd, NULL, 0, meta, 2);
}

int
stream_end(int fd, int step)
{
    return control(fd, STREAM_END, step);
}

int
stream_failed(int fd, int step)
{
    return control(fd, STREAM_FAILED, step);
}

static int
meta_int(const struct st_file *st, const char *key, int *out)
{
    const char *s = st_meta(st, key);
    char *end;
    long v;

    if (s == NULL)
        return err_set(RC_DATA, "stream: frame without \"%s\"", key);
    v = strtol(s, &end, 10);
    if (*s == '\0' || *end != '\0' || v < 0 || v > INT32_MAX)
        return err_set(RC_DATA, "stream: frame has %s \"%s\"", key, s);
    *out = (int)v;
    return RC_OK;
}

static int
parse_input(struct stream_frame *f)
{
    const char *point = st_meta(&f->st, "point");
    const struct tensor *x;
    int64_t any[2] = { -1, -1 };
    int rc;

    for (f->point = 0; f->point < POINT_COUNT; f->point++)
        if (point != NULL && strcmp(point, arch_point_name(f->point)) == 0)
            break;
    if (f->point == POINT_COUNT)
        return err_set(RC_DATA, "stream: frame has point \"%s\"", point != NULL ? point : "");
    if ((rc = meta_int(&f->st, "block", &f->block)) != RC_OK ||
        (rc = meta_int(&f->st, "sequences", &f->sequences)) != RC_OK || (rc = st_get(&f->st, "x", &x)) != RC_OK ||
        (rc = tensor_want(x, DT_NONE, 2, any)) != RC_OK)
        return rc;
    if ((x->dtype != DT_BF16 && x->dtype != DT_F32) || x->shape[0] > INT32_MAX || x->shape[1] > 1 << 20)
        return err_set(RC_DATA, "stream: input is %s [%lld, %lld]", dtype_name(x->dtype), (long long)x->shape[0],
            (long long)x->shape[1]);
    f->x = x->data;
    f->dtype = x->dtype;
    f->rows = (int)x->shape[0];
    f->cols = (int)x->shape[1];
    return RC_OK;
}

static int
parse_cache(struct stream_frame *f)
{
    int64_t want[2] = { -1, 2 };
    const struct tensor *t;

    f->point = POINT_O;
    TRY(meta_int(&f->st, "block", &f->block));
    TRY(st_get(&f->st, "range", &t));
    TRY(tensor_want(t, DT_F32, 2, want));
    if (t->shape[0] > 1 << 20)
        return err_set(RC_DATA, "stream: %lld ranges", (long long)t->shape[0]);
    f->x = t->data;
    f->dtype = DT_F32;
    f->rows = (int)t->shape[0];
    f->cols = 2;
    return RC_OK;
}

int
stream_next(struct stream_frame *f, int fd)
{
    const char *kind, *plan;
    int rc;

    *f = (struct stream_frame){ .kind = STREAM_BEGIN };
    if ((rc = st_read_frame(&f->st, fd)) != RC_OK)
        return rc;
    kind = st_meta(&f->st, "kind");
    for (int i = 0; i < (int)(sizeof(kinds) / sizeof(kinds[0])); i++)
        if (kind != NULL && strcmp(kind, kinds[i]) == 0) {
            f->kind = (enum stream_kind)i;
            plan = st_meta(&f->st, "plan");
            (void)snprintf(f->plan, sizeof(f->plan), "%s", plan != NULL ? plan : "");
            rc = meta_int(&f->st, "step", &f->step);
            if (rc == RC_OK && f->kind == STREAM_INPUT)
                rc = parse_input(f);
            if (rc == RC_OK && f->kind == STREAM_CACHE)
                rc = parse_cache(f);
            if (rc != RC_OK)
                stream_done(f);
            return rc;
        }
    rc = err_set(RC_DATA, "stream: frame of kind \"%s\"", kind != NULL ? kind : "");
    stream_done(f);
    return rc;
}

void
stream_done(struct stream_frame *f)
{
    st_close(&f->st);
}

bool
stream_reader_gone(int fd)
{
    struct pollfd p = { .fd = fd };

    return poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLHUP)) != 0;
}
