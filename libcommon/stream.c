/* stream - what llmc-calib and llmc-hessian say to the next stage */
#include "stream.h"

#include "forward.h"
#include "mem.h"
#include "msg.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KINDS = 6, COLS_MAX = 1 << 20 };

static const char *const kinds[KINDS] = { "begin", "input", "cache", "end", "failed", "leave" };

enum { INT_TEXT = 16, POINTS_TEXT = 12 * ARCH_POINTS_MAX, ATTACH_MS = 5000 };

void
stream_open(struct stream_out *o, int fd, size_t largest, int slots)
{
    *o = (struct stream_out){ .fd = fd, .wait_ms = ATTACH_MS };
    if (largest > 0 && slots > 0 && ring_create(&o->ring, largest, slots) != RC_OK)
        msg_warn(NULL, "%s; frames go through the pipe", err_text());
}

static int
control(int fd, enum stream_kind kind, int step)
{
    char num[INT_TEXT];
    struct st_meta meta[] = { { "kind", kinds[kind] }, { "step", num } };

    (void)snprintf(num, sizeof(num), "%d", step);
    return st_write_frame(fd, NULL, 0, meta, 2);
}

void
stream_share(struct stream_out *o)
{
    if (o->ring != NULL && o->bk->share_make(o->dev, &o->share, ring_note(o->ring), RING_NOTE, ring_slot_bytes(o->ring),
        ring_slots(o->ring)) != RC_OK)
        msg_warn(NULL, "%s; frames go through shared memory", err_text());
}

static bool
gone(void *ctx)
{
    return stream_reader_gone(((const struct stream_out *)ctx)->fd);
}

static void
share_close(struct stream_out *o)
{
    if (o->share != NULL)
        o->bk->share_close(o->dev, o->share);
    o->share = NULL;
}

void
stream_close(struct stream_out *o)
{
    if (o->share != NULL && ring_noted(o->ring) && !gone(o) && control(o->fd, STREAM_LEAVE, 0) == RC_OK)
        (void)ring_left(o->ring, o->wait_ms, gone, o);
    share_close(o);
    ring_close(o->ring);
    o->ring = NULL;
}

int
stream_begin(struct stream_out *o, int step, const char *plan, const bool *points)
{
    char num[INT_TEXT], list[POINTS_TEXT] = "";
    struct st_meta meta[] = { { "kind", kinds[STREAM_BEGIN] }, { "step", num }, { "plan", plan }, { "points", list },
        { "ring", o->ring != NULL ? ring_path(o->ring) : NULL } };
    size_t n = 0;

    (void)snprintf(num, sizeof(num), "%d", step);
    for (int p = 0; p < ARCH_POINTS_MAX; p++)
        if (points[p])
            n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", n > 0 ? "," : "", arch_point_name((enum point)p));
    TRY(st_write_frame(o->fd, NULL, 0, meta, o->ring != NULL ? 5 : 4));
    if (o->ring != NULL && !o->tried && !ring_attached(o->ring, o->wait_ms, gone, o))
        stream_close(o); /* whoever reads cannot open it: another machine, a program of another kind */
    if (o->ring != NULL && !ring_noted(o->ring))
        share_close(o); /* the reader has said why */
    o->tried = true;
    return RC_OK;
}

static int
fetch(const struct stream_out *o, void *to, const void *x, size_t bytes)
{
    if (o->bk != NULL)
        return backend_move(o->bk, o->dev, to, x, bytes);
    memcpy(to, x, bytes);
    return RC_OK;
}

/* Into the next slot, one after the other; RC_IO: the reader went away. */
static int
ring_put(struct stream_out *o, const void *x, const void *original, size_t bytes)
{
    void *slot = ring_slot(o->ring, o->sent, gone, o);

    if (slot == NULL)
        return err_set(RC_IO, "the reader of frames went away");
    if (o->share != NULL) {
        int at = (int)(o->sent % (uint32_t)ring_slots(o->ring));

        TRY(o->bk->share_put(o->dev, o->share, at, 0, x, bytes, original == NULL));
        if (original != NULL)
            TRY(o->bk->share_put(o->dev, o->share, at, bytes, original, bytes, true));
    } else {
        TRY(fetch(o, slot, x, bytes));
        if (original != NULL)
            TRY(fetch(o, (char *)slot + bytes, original, bytes));
    }
    o->sent++;
    return RC_OK;
}

/* Through the pipe: bytes that the host has. */
static int
put_inline(struct stream_out *o, struct tensor *t, size_t parts, const struct st_meta *meta)
{
    void *own[2] = { NULL, NULL };
    int rc = RC_OK;

    for (size_t i = 0; i < parts && rc == RC_OK && o->bk != NULL; i++)
        rc = fwd_read(o->bk, o->dev, t[i].data, t[i].bytes, &t[i].data, &own[i]);
    if (rc == RC_OK)
        rc = st_write_frame(o->fd, t, parts, meta, 5);
    mem_free(own[0]);
    mem_free(own[1]);
    return rc;
}

int
stream_pair(struct stream_out *o, int step, enum point point, int block, int sequences, const void *x,
    const void *original, enum dtype dt, int rows, int cols)
{
    char s[INT_TEXT], b[INT_TEXT], q[INT_TEXT], n[INT_TEXT], r[INT_TEXT], c[INT_TEXT];
    struct st_meta meta[] = { { "kind", kinds[STREAM_INPUT] }, { "step", s }, { "point", arch_point_name(point) },
        { "block", b }, { "sequences", q }, { "frame", n }, { "dtype", dtype_name(dt) }, { "rows", r }, { "cols", c },
        { "pair", "1" } };
    struct tensor t[2] = { tensor_2d("x", dt, rows, cols, x), tensor_2d("original", dt, rows, cols, original) };
    size_t parts = original != NULL ? 2 : 1;

    (void)snprintf(s, sizeof(s), "%d", step);
    (void)snprintf(b, sizeof(b), "%d", block);
    (void)snprintf(q, sizeof(q), "%d", sequences);
    if (o->ring == NULL || parts * t[0].bytes > ring_slot_bytes(o->ring))
        return put_inline(o, t, parts, meta);
    (void)snprintf(n, sizeof(n), "%" PRIu32, o->sent);
    (void)snprintf(r, sizeof(r), "%d", rows);
    (void)snprintf(c, sizeof(c), "%d", cols);
    TRY(ring_put(o, x, original, t[0].bytes));
    return st_write_frame(o->fd, NULL, 0, meta, 8 + parts);
}

int
stream_input(struct stream_out *o, int step, enum point point, int block, int sequences, const void *x,
    enum dtype dt, int rows, int cols)
{
    return stream_pair(o, step, point, block, sequences, x, NULL, dt, rows, cols);
}

int
stream_cache(struct stream_out *o, int step, int block, const float *range, int count)
{
    char s[INT_TEXT], b[INT_TEXT];
    struct st_meta meta[] = { { "kind", kinds[STREAM_CACHE] }, { "step", s }, { "block", b } };
    struct tensor t = tensor_2d("range", DT_F32, count, 2, range);

    (void)snprintf(s, sizeof(s), "%d", step);
    (void)snprintf(b, sizeof(b), "%d", block);
    return st_write_frame(o->fd, &t, 1, meta, 3);
}

int
stream_end(struct stream_out *o, int step)
{
    return control(o->fd, STREAM_END, step);
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

/* The point that the first len bytes name, or -1. */
static int
point_find(const char *name, size_t len)
{
    char text[32];

    if (len >= sizeof(text))
        return -1;
    memcpy(text, name, len);
    text[len] = '\0';
    return arch_point_find(text);
}

static int
parse_points(struct stream_frame *f)
{
    const char *list = st_meta(&f->st, "points");

    for (const char *s = list; s != NULL && *s != '\0';) {
        size_t len = strcspn(s, ",");
        int p = point_find(s, len);

        if (p < 0)
            return err_set(RC_DATA, "stream: frame has points \"%s\"", list);
        f->points[p] = true;
        s += len + (s[len] == ',');
    }
    return list != NULL ? RC_OK : err_set(RC_DATA, "stream: frame without \"points\"");
}

static int
check_shape(const struct stream_frame *f, int64_t rows, int64_t cols)
{
    if ((f->dtype == DT_BF16 || f->dtype == DT_F32) && rows <= INT32_MAX && cols <= COLS_MAX)
        return RC_OK;
    return err_set(RC_DATA, "stream: input is %s [%lld, %lld]", dtype_name(f->dtype), (long long)rows, (long long)cols);
}

static int
ring_input(struct stream_in *in, struct stream_frame *f)
{
    const char *dt = st_meta(&f->st, "dtype");
    bool pair = st_meta(&f->st, "pair") != NULL;
    size_t bytes;
    int n;

    TRY(meta_int(&f->st, "frame", &n));
    TRY(meta_int(&f->st, "rows", &f->rows));
    TRY(meta_int(&f->st, "cols", &f->cols));
    f->dtype = dt != NULL && strcmp(dt, dtype_name(DT_F32)) == 0 ? DT_F32 : DT_BF16;
    if (dt == NULL || strcmp(dt, dtype_name(f->dtype)) != 0)
        return err_set(RC_DATA, "stream: frame has dtype \"%s\"", dt != NULL ? dt : "");
    TRY(check_shape(f, f->rows, f->cols));
    bytes = (size_t)f->rows * (size_t)f->cols * dtype_size(f->dtype);
    if (f->ring == NULL || (f->x = ring_frame(f->ring, (uint32_t)n, pair ? 2 * bytes : bytes)) == NULL)
        return err_set(RC_DATA, "stream: frame %d of [%d, %d] is not in shared memory", n, f->rows, f->cols);
    if (in->share != NULL)
        TRY(in->bk->share_get(in->dev, in->share, n % ring_slots(f->ring), &f->x));
    f->original = pair ? (const char *)f->x + bytes : NULL;
    f->number = (uint32_t)n;
    return RC_OK;
}

static int
inline_input(struct stream_frame *f)
{
    int64_t any[2] = { -1, -1 };
    const struct tensor *x, *original;

    f->ring = NULL;
    TRY(st_get(&f->st, "x", &x));
    TRY(tensor_want(x, DT_NONE, 2, any));
    f->dtype = x->dtype;
    TRY(check_shape(f, x->shape[0], x->shape[1]));
    f->x = x->data;
    f->rows = (int)x->shape[0];
    f->cols = (int)x->shape[1];
    if ((original = st_find(&f->st, "original")) == NULL)
        return RC_OK;
    f->original = original->data;
    return tensor_want(original, x->dtype, 2, x->shape);
}

static int
parse_input(struct stream_in *in, struct stream_frame *f)
{
    const char *point = st_meta(&f->st, "point");

    int found = point != NULL ? arch_point_find(point) : -1;

    if (found < 0)
        return err_set(RC_DATA, "stream: frame has point \"%s\"", point != NULL ? point : "");
    f->point = (enum point)found;
    TRY(meta_int(&f->st, "block", &f->block));
    TRY(meta_int(&f->st, "sequences", &f->sequences));
    return st_meta(&f->st, "frame") != NULL ? ring_input(in, f) : inline_input(f);
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

static bool
take_note(void *ctx, struct ring *r)
{
    struct stream_in *in = ctx;
    const unsigned char *note = ring_note(r);

    if (note[0] == 0 || in->bk == NULL)
        return false;
    if (in->bk->share_open(in->dev, &in->share, note, RING_NOTE, ring_slot_bytes(r), ring_slots(r)) == RC_OK)
        return true;
    msg_warn(NULL, "%s; frames come through shared memory", err_text());
    return false;
}

static void
leave(struct stream_in *in)
{
    if (in->share == NULL)
        return;
    in->bk->share_close(in->dev, in->share);
    in->share = NULL;
    ring_leave(in->ring);
}

/* A ring that cannot be opened from here is left alone: then the writer sends bytes. */
static int
parse_begin(struct stream_in *in, struct stream_frame *f)
{
    const char *path = st_meta(&f->st, "ring");
    int rc;

    TRY(parse_points(f));
    if (path == NULL || in->ring != NULL)
        return RC_OK;
    rc = ring_attach(&in->ring, path, take_note, in);
    return rc == RC_NOINPUT ? RC_OK : rc;
}

static int
parse(struct stream_in *in, struct stream_frame *f)
{
    const char *kind = st_meta(&f->st, "kind"), *plan = st_meta(&f->st, "plan");
    int k = 0;

    while (k < KINDS && (kind == NULL || strcmp(kind, kinds[k]) != 0))
        k++;
    if (k == KINDS)
        return err_set(RC_DATA, "stream: frame of kind \"%s\"", kind != NULL ? kind : "");
    f->kind = (enum stream_kind)k;
    (void)snprintf(f->plan, sizeof(f->plan), "%s", plan != NULL ? plan : "");
    TRY(meta_int(&f->st, "step", &f->step));
    if (f->kind == STREAM_BEGIN)
        return parse_begin(in, f);
    if (f->kind == STREAM_CACHE)
        return parse_cache(f);
    f->ring = in->ring;
    return f->kind == STREAM_INPUT ? parse_input(in, f) : RC_OK;
}

int
stream_next(struct stream_in *in, struct stream_frame *f)
{
    int rc;

    for (;;) {
        *f = (struct stream_frame){ .kind = STREAM_BEGIN };
        TRY(st_read_frame(&f->st, in->fd));
        if ((rc = parse(in, f)) == RC_OK && f->kind != STREAM_LEAVE)
            return RC_OK;
        f->x = NULL;
        stream_done(f);
        if (rc != RC_OK)
            return rc;
        leave(in);
    }
}

void
stream_done(struct stream_frame *f)
{
    if (f->ring != NULL && f->x != NULL)
        ring_done(f->ring, f->number);
    st_close(&f->st);
}

void
stream_in_close(struct stream_in *in)
{
    leave(in);
    ring_close(in->ring);
    in->ring = NULL;
}

bool
stream_reader_gone(int fd)
{
    struct pollfd p = { .fd = fd };

    return poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLHUP)) != 0;
}
