/* test-buf - growing strings, whole files, and allocation that refuses to overflow */
#include "unit.h"

#include "../../libcommon/buf.h"
#include "../../libcommon/mem.h"

static void
test_append(void **state)
{
    struct buf b = { 0 };
    char big[2000];

    (void)state;
    assert_true(buf_ok(&b));
    buf_puts(&b, "");
    assert_string_equal(b.s, "");
    buf_puts(&b, "abc");
    buf_add(&b, "d\0e", 3);
    buf_printf(&b, "%d-%s", 42, "x");
    assert_int_equal(b.len, 10);
    assert_memory_equal(b.s, "abcd\0e42-x", 11);
    memset(big, 'y', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    buf_printf(&b, "%s", big); /* longer than what is formatted on the stack */
    assert_int_equal(b.len, 10 + 1999);
    assert_int_equal(b.s[b.len], '\0');
    for (int i = 0; i < 10000; i++)
        buf_add(&b, "z", 1);
    assert_int_equal(b.len, 12009);
    assert_int_equal(b.s[12008], 'z');
    assert_true(buf_ok(&b));
    buf_free(&b);
    assert_null(b.s);
    buf_free(&b);
}

/* Lengths around the size of the buffer that buf_printf formats in. */
static void
test_printf_edge(void **state)
{
    (void)state;
    for (int n = 505; n < 520; n++) {
        struct buf b = { 0 };

        buf_printf(&b, "%*d", n, 7);
        assert_int_equal(b.len, n);
        assert_int_equal(strlen(b.s), n);
        buf_free(&b);
    }
}

static void
test_failure_sticks(void **state)
{
    struct buf b = { .failed = true };

    (void)state;
    buf_puts(&b, "x");
    buf_printf(&b, "%s", "y");
    assert_null(b.s);
    assert_false(buf_ok(&b));
    buf_free(&b);
    assert_true(buf_ok(&b));
}

static void
test_files(void **state)
{
    struct buf b = { 0 };
    char *big = calloc(1, 200000);

    (void)state;
    assert_non_null(big);
    unit_text("f", "hello");
    assert_int_equal(buf_read_file(&b, "f", 5), RC_OK);
    assert_string_equal(b.s, "hello");
    buf_free(&b);
    assert_int_equal(buf_read_file(&b, "f", 4), RC_DATA);
    assert_string_equal(err_text(), "f: longer than 4 bytes");
    buf_free(&b);
    assert_int_equal(buf_read_file(&b, "nowhere", 4), RC_NOINPUT);
    assert_int_equal(buf_read_file(&b, ".", 4), RC_IO);
    buf_free(&b);
    unit_write("big", big, 200000);
    assert_int_equal(buf_read_file(&b, "big", 200000), RC_OK);
    assert_int_equal(b.len, 200000);
    buf_free(&b);
    unit_write("empty", big, 0);
    assert_int_equal(buf_read_file(&b, "empty", 0), RC_OK);
    assert_int_equal(b.len, 0);
    buf_free(&b);
    free(big);
}

static void
test_mem(void **state)
{
    size_t cap = 0;
    char *s;
    int *p;

    (void)state;
    assert_null(mem_alloc(SIZE_MAX / 2, 3));
    assert_says(err_text(), "cannot allocate");
    assert_null(mem_zalloc(SIZE_MAX, 1));
    assert_null(mem_grow(NULL, &cap, SIZE_MAX / 4, 8));
    assert_int_equal(cap, 0);
    p = mem_zalloc(3, sizeof(*p));
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % MEM_ALIGN, 0);
    assert_int_equal(p[0] | p[1] | p[2], 0);
    mem_free(p);
    p = mem_alloc(0, 8); /* not NULL, which would mean failure */
    assert_non_null(p);
    mem_free(p);
    p = mem_grow(NULL, &cap, 1, sizeof(*p));
    assert_true(p != NULL && cap >= 1);
    p[0] = 5;
    p = mem_grow(p, &cap, 1000, sizeof(*p));
    assert_true(p != NULL && cap >= 1000);
    assert_int_equal(p[0], 5);
    assert_ptr_equal(mem_grow(p, &cap, 10, sizeof(*p)), p);
    mem_free(p);
    s = mem_strdup("x");
    assert_string_equal(s, "x");
    mem_free(s);
    mem_free(NULL);
}

static void
test_err(void **state)
{
    (void)state;
    assert_int_equal(err_set(RC_DATA, "want %d", 3), RC_DATA);
    assert_int_equal(err_at(RC_IO, "%s", "w/x"), RC_IO);
    assert_string_equal(err_text(), "w/x: want 3");
    assert_int_equal(rc_worse(RC_OK, RC_OK), RC_OK);
    assert_int_equal(rc_worse(RC_OK, RC_RETRY), RC_RETRY);
    assert_int_equal(rc_worse(RC_RETRY, RC_DATA), RC_DATA);
    assert_int_equal(rc_worse(RC_RETRY, RC_OK), RC_RETRY);
    assert_int_equal(rc_worse(RC_DATA, RC_IO), RC_DATA);
    assert_int_equal(rc_worse(RC_DATA, RC_RETRY), RC_DATA);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append), cmocka_unit_test(test_printf_edge), cmocka_unit_test(test_failure_sticks),
        cmocka_unit_test(test_files), cmocka_unit_test(test_mem), cmocka_unit_test(test_err),
    };

    return cmocka_run_group_tests_name("buf", tests, unit_begin, unit_end);
}
