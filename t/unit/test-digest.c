/* test-digest - the vectors of FIPS 180-4, streams in any pieces, files */
#include "unit.h"

#include "../../libcommon/digest.h"
#include "../../libcommon/msg.h"

static const char hex_empty[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
static const char hex_abc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
static const char hex_million_a[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

static void
test_vectors(void **state)
{
    char hex[DIGEST_HEX];
    struct digest d;
    char a[1000];

    (void)state;
    assert_int_equal(digest_mem("", 0, hex), RC_OK);
    assert_string_equal(hex, hex_empty);
    assert_int_equal(digest_mem("abc", 3, hex), RC_OK);
    assert_string_equal(hex, hex_abc);
    memset(a, 'a', sizeof(a));
    digest_init(&d);
    for (int i = 0; i < 1000; i++)
        digest_add(&d, a, sizeof(a));
    assert_int_equal(digest_hex(&d, hex), RC_OK);
    assert_string_equal(hex, hex_million_a);
}

static void
test_pieces(void **state)
{
    char data[300], want[DIGEST_HEX], hex[DIGEST_HEX];
    struct digest d;

    (void)state;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (char)(i * 7);
    assert_int_equal(digest_mem(data, sizeof(data), want), RC_OK);
    for (size_t cut = 0; cut <= sizeof(data); cut++) {
        digest_init(&d);
        digest_add(&d, data, cut);
        digest_add(&d, data + cut, sizeof(data) - cut);
        assert_int_equal(digest_hex(&d, hex), RC_OK);
        assert_string_equal(hex, want);
    }
}

static void
test_strings(void **state)
{
    char one[DIGEST_HEX], two[DIGEST_HEX];
    struct digest d;

    (void)state;
    digest_init(&d);
    digest_str(&d, "ab");
    digest_str(&d, "c");
    assert_int_equal(digest_hex(&d, one), RC_OK);
    digest_init(&d);
    digest_str(&d, "a");
    digest_str(&d, "bc");
    assert_int_equal(digest_hex(&d, two), RC_OK);
    assert_string_not_equal(one, two);
    digest_init(&d);
    digest_str(&d, NULL);
    assert_int_equal(digest_hex(&d, one), RC_OK);
    assert_int_equal(digest_mem("", 1, two), RC_OK);
    assert_string_equal(one, two);
}

/* Use after the end is a failure, not a crash. */
static void
test_sticks(void **state)
{
    char hex[DIGEST_HEX];
    struct digest d;

    (void)state;
    digest_init(&d);
    digest_free(&d);
    digest_add(&d, "x", 1);
    assert_int_equal(digest_hex(&d, hex), RC_OS);
    digest_free(&d);
}

static void
test_files(void **state)
{
    static const size_t sizes[] = { 0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20 };
    char want[DIGEST_HEX], hex[DIGEST_HEX], *data = calloc(3, 1 << 20);

    (void)state;
    assert_non_null(data);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        unit_write("f", data, sizes[i]);
        assert_int_equal(digest_file("f", hex), RC_OK);
        assert_int_equal(digest_mem(data, sizes[i], want), RC_OK);
        assert_string_equal(hex, want);
    }
    free(data);
    assert_int_equal(digest_file("nowhere", hex), RC_NOINPUT);
    assert_string_equal(err_text(), "nowhere: cannot open: No such file or directory");
    assert_int_equal(digest_file(".", hex), RC_IO);
    assert_string_equal(err_text(), ".: cannot read: Is a directory");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors), cmocka_unit_test(test_pieces), cmocka_unit_test(test_strings),
        cmocka_unit_test(test_sticks), cmocka_unit_test(test_files),
    };

    return cmocka_run_group_tests_name("digest", tests, unit_begin, unit_end);
}
