/* test-stream - frames through a pipe and through shared memory, readers that cannot open it, readers that die */
#include "unit.h"

#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../../libcommon/stream.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

enum { ROWS = 7, COLS = 33, BLOCKS = 20 };

static float
value(int block, int i)
{
    return (float)(block * 1000 + i);
}

static int
write_step(struct stream_out *o)
{
    bool points[ARCH_POINTS_MAX] = { [POINT_MLP] = true, [POINT_DOWN] = true };

    points[arch_expert_point(POINT_DOWN, 17)] = true;
    float x[ROWS * COLS];

    TRY(stream_begin(o, 3, "plan of it", points));
    for (int b = 0; b < BLOCKS; b++) {
        for (int i = 0; i < ROWS * COLS; i++)
            x[i] = value(b, i);
        TRY(stream_input(o, 3, POINT_MLP, b, 2, x, DT_F32, ROWS, COLS));
    }
    return stream_end(o, 3);
}

/* A writer in a process of its own; *fd reads from it. */
static pid_t
start(int *fd, size_t largest, int wait_ms)
{
    struct stream_out o;
    int p[2], rc;
    pid_t pid;

    assert_int_equal(pipe(p), 0);
    if ((pid = fork()) != 0) {
        assert_true(pid > 0);
        (void)close(p[1]);
        *fd = p[0];
        return pid;
    }
    (void)close(p[0]);
    (void)signal(SIGPIPE, SIG_IGN);
    stream_open(&o, p[1], largest, 3);
    o.wait_ms = wait_ms;
    rc = write_step(&o);
    stream_close(&o);
    _exit(rc);
}

static int
finish(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void
expect_block(const struct stream_frame *f, int block)
{
    float x;

    assert_int_equal(f->kind, STREAM_INPUT);
    assert_int_equal(f->point, POINT_MLP);
    assert_int_equal(f->block, block);
    assert_int_equal(f->sequences, 2);
    assert_int_equal(f->dtype, DT_F32);
    assert_int_equal(f->rows, ROWS);
    assert_int_equal(f->cols, COLS);
    for (int i = 0; i < ROWS * COLS; i++) {
        memcpy(&x, (const float *)f->x + i, sizeof(x));
        assert_true(x == value(block, i));
    }
}

/* All frames. */
static void
read_step(struct stream_in *in, bool in_ring)
{
    struct stream_frame f;

    assert_int_equal(stream_next(in, &f), RC_OK);
    assert_int_equal(f.kind, STREAM_BEGIN);
    for (int p = 0; p < ARCH_POINTS_MAX; p++)
        assert_int_equal(f.points[p], p == POINT_MLP || p == POINT_DOWN || p == (int)arch_expert_point(POINT_DOWN, 17));
    assert_string_equal(f.plan, "plan of it");
    stream_done(&f);
    assert_true((in->ring != NULL) == in_ring);
    for (int b = 0; b < BLOCKS; b++) {
        assert_int_equal(stream_next(in, &f), RC_OK);
        expect_block(&f, b);
        assert_true((f.ring != NULL) == in_ring);
        assert_true((st_find(&f.st, "x") == NULL) == in_ring);
        stream_done(&f);
    }
    assert_int_equal(stream_next(in, &f), RC_OK);
    assert_int_equal(f.kind, STREAM_END);
    assert_int_equal(f.step, 3);
    stream_done(&f);
    assert_int_equal(stream_next(in, &f), RC_RETRY);
}

static void
test_both_ways(void **state)
{
    static const size_t largest[] = { 0, ROWS * COLS * sizeof(float), 1 << 20 };

    (void)state;
    for (size_t i = 0; i < COUNT(largest); i++) {
        struct stream_in in = { 0 };
        pid_t pid = start(&in.fd, largest[i], 10000);

        read_step(&in, largest[i] > 0);
        stream_in_close(&in);
        (void)close(in.fd);
        assert_int_equal(finish(pid), RC_OK);
    }
}

/* Whoever does not open the ring, such as a program that copies the stream, gets the bytes through the pipe. */
static void
test_nobody_opens(void **state)
{
    struct stream_in in = { 0 };
    struct stream_frame f;
    struct st_file st;
    pid_t pid = start(&in.fd, 1 << 20, 150);

    (void)state;
    assert_int_equal(st_read_frame(&st, in.fd), RC_OK); /* as a program that copies the stream */
    assert_non_null(st_meta(&st, "ring"));
    st_close(&st);
    for (int b = 0; b < BLOCKS; b++) {
        assert_int_equal(stream_next(&in, &f), RC_OK);
        assert_null(f.ring);
        expect_block(&f, b);
        stream_done(&f);
    }
    assert_int_equal(stream_next(&in, &f), RC_OK);
    assert_int_equal(f.kind, STREAM_END);
    stream_done(&f);
    (void)close(in.fd);
    assert_int_equal(finish(pid), RC_OK);
}

static void
test_reader_dies(void **state)
{
    struct stream_in in = { 0 };
    struct stream_frame f;
    pid_t pid = start(&in.fd, 1 << 20, 10000);

    (void)state;
    assert_int_equal(stream_next(&in, &f), RC_OK);
    stream_done(&f);
    assert_int_equal(stream_next(&in, &f), RC_OK); /* and is never done with it */
    st_close(&f.st);
    (void)close(in.fd);
    assert_int_equal(finish(pid), RC_IO);
    stream_in_close(&in);
}

/* --- what no writer of ours sends --- */

static int
read_back(const struct st_meta *meta, size_t count, const char *begin_ring)
{
    struct st_meta begin[] = { { "kind", "begin" }, { "step", "0" }, { "plan", "p" }, { "points", "mlp" },
        { "ring", begin_ring } };
    struct stream_in in = { 0 };
    struct stream_frame f;
    int p[2], rc;

    assert_int_equal(pipe(p), 0);
    assert_int_equal(st_write_frame(p[1], NULL, 0, begin, begin_ring != NULL ? 5 : 4), RC_OK);
    assert_int_equal(st_write_frame(p[1], NULL, 0, meta, count), RC_OK);
    (void)close(p[1]);
    in.fd = p[0];
    if ((rc = stream_next(&in, &f)) == RC_OK) {
        stream_done(&f);
        if ((rc = stream_next(&in, &f)) == RC_OK)
            stream_done(&f);
    }
    stream_in_close(&in);
    (void)close(in.fd);
    return rc;
}

static void
test_wrong(void **state)
{
    struct st_meta m[] = { { "kind", "input" }, { "step", "0" }, { "point", "mlp" }, { "block", "0" },
        { "sequences", "1" }, { "frame", "0" }, { "dtype", "F32" }, { "rows", "7" }, { "cols", "33" } };
    char plain[64];
    struct ring *r;
    int fd;

    (void)state;
    assert_int_equal(ring_create(&r, 1000, 2), RC_OK);
    assert_int_equal(read_back(m, COUNT(m), ring_path(r)), RC_OK);
    assert_int_equal(read_back(m, COUNT(m), NULL), RC_DATA);
    assert_says(err_text(), "not in shared memory");
    m[7].value = "1000";
    assert_int_equal(read_back(m, COUNT(m), ring_path(r)), RC_DATA);
    assert_says(err_text(), "not in shared memory");
    m[7].value = "7";
    m[6].value = "I8";
    assert_int_equal(read_back(m, COUNT(m), ring_path(r)), RC_DATA);
    assert_says(err_text(), "dtype \"I8\"");
    m[6].value = "F32";
    assert_int_equal(read_back(m, COUNT(m), "/etc/passwd"), RC_DATA);
    assert_says(err_text(), "no place of shared memory");
    assert_int_equal(read_back(m, COUNT(m), "/proc/1/fd/../../x"), RC_DATA);
    assert_true((fd = open("plain", O_RDWR | O_CREAT, 0600)) >= 0);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    (void)snprintf(plain, sizeof(plain), "/proc/%ld/fd/%d", (long)getpid(), fd);
    assert_int_equal(read_back(m, COUNT(m), plain), RC_DATA);
    assert_says(err_text(), "no shared memory of frames");
    (void)close(fd);
    (void)snprintf(plain, sizeof(plain), "/proc/%ld/fd/%d", (long)getpid(), 999);
    assert_int_equal(read_back(m, COUNT(m), plain), RC_DATA); /* not opened: then its frames cannot be read */
    assert_says(err_text(), "not in shared memory");
    ring_close(r);
}

/* The slot of frame n is that of frame n + slots, and not free before frame n is done with. */
static bool
at_once(void *ctx)
{
    (void)ctx;
    return true;
}

static void
test_slots(void **state)
{
    struct ring *w, *r;

    (void)state;
    assert_int_equal(ring_create(&w, 5000, 2), RC_OK);
    assert_false(ring_attached(w, 0, at_once, NULL));
    assert_int_equal(ring_attach(&r, ring_path(w), NULL, NULL), RC_OK);
    assert_true(ring_attached(w, 0, at_once, NULL));
    memcpy(ring_slot(w, 0, at_once, NULL), "zero", 5);
    memcpy(ring_slot(w, 1, at_once, NULL), "one", 4);
    assert_null(ring_slot(w, 2, at_once, NULL));
    assert_string_equal(ring_frame(r, 0, 5), "zero");
    ring_done(r, 0);
    memcpy(ring_slot(w, 2, at_once, NULL), "two", 4);
    assert_string_equal(ring_frame(r, 1, 5), "one");
    assert_string_equal(ring_frame(r, 2, 5), "two");
    assert_null(ring_frame(r, 2, 9000));
    ring_close(r);
    ring_close(w);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways), cmocka_unit_test(test_nobody_opens), cmocka_unit_test(test_reader_dies),
        cmocka_unit_test(test_wrong), cmocka_unit_test(test_slots),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
