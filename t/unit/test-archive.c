/* test-archive - plain and compressed files read alike, damaged ones refused */
#include "unit.h"

#include "../../libcommon/archive.h"
#include "../../libcommon/msg.h"

enum { N = 300000 };

static const char *const programs[] = { "gzip", "xz", "zstd" };

/* Bytes that compress badly, so that a cut file ends within the data. */
static void
fill(char *data)
{
    unsigned x = 1;

    for (int i = 0; i < N; i++)
        data[i] = (char)((x = x * 1103515245u + 12345u) >> 16);
}

/* Reads it all, `step` bytes at a time. */
static int
read_all(const char *path, char *out, size_t max, size_t step, size_t *total)
{
    struct archive_in *a;
    size_t got = 1;
    int rc = archive_in_open(&a, path);

    *total = 0;
    if (rc != RC_OK) {
        assert_null(a);
        return rc;
    }
    while (got > 0 && (rc = archive_in_read(a, out + *total, step < max - *total ? step : max - *total, &got)) == RC_OK)
        *total += got;
    if (rc == RC_OK) { /* the end stays the end */
        assert_int_equal(archive_in_read(a, out, 1, &got), RC_OK);
        assert_int_equal(got, 0);
    }
    archive_in_close(a);
    return rc;
}

static void
expect(const char *path, const char *data, size_t bytes)
{
    static const size_t steps[] = { 1 << 20, 4096, 7 };
    char *out = malloc(N + 16);
    size_t total;

    assert_non_null(out);
    for (size_t i = 0; i < COUNT(steps); i++) {
        assert_int_equal(read_all(path, out, N + 16, steps[i], &total), RC_OK);
        assert_int_equal(total, bytes);
        if (bytes > 0)
            assert_memory_equal(out, data, bytes);
    }
    free(out);
}

static void
compress(const char *program, const char *from, const char *to)
{
    char command[128];

    (void)snprintf(command, sizeof(command), "%s -c <%s >%s", program, from, to);
    assert_int_equal(system(command), 0);
}

static void
test_compressed(void **state)
{
    char *data = malloc(N);

    (void)state;
    assert_non_null(data);
    fill(data);
    unit_write("plain", data, N);
    unit_write("empty", "", 0);
    expect("plain", data, N);
    expect("empty", data, 0);
    for (size_t i = 0; i < COUNT(programs); i++) {
        compress(programs[i], "plain", "packed"); /* the name tells nothing */
        expect("packed", data, N);
        compress(programs[i], "empty", "packed");
        expect("packed", data, 0);
    }
    free(data);
}

static void
test_two_members(void **state)
{
    char out[64];
    size_t total;

    (void)state;
    unit_text("a", "one ");
    unit_text("b", "two");
    compress("gzip", "a", "a.gz");
    compress("gzip", "b", "b.gz");
    assert_int_equal(system("cat a.gz b.gz >ab.gz && head -c 512 /dev/zero >>ab.gz && cat ab.gz a >tail.gz"), 0);
    expect("ab.gz", "one two", 7); /* zeros fill a tape's block */
    assert_int_equal(read_all("tail.gz", out, sizeof(out), 4096, &total), RC_DATA);
    assert_says(err_text(), "tail.gz: cannot read: gzip: incorrect header check");
}

/* Text that libarchive could take for an encoding of its own. */
static void
test_lookalikes(void **state)
{
    static const char *const texts[] = {
        "begin 644 x\n#86)C\n`\nend\n", "hello\nbegin 644 x\n#86)C\n`\nend\nworld\n",
        "begin-base64 644 x\nYWJj\n====\n",
        "]\1\1\1", "BZ", "\x1f\x8b", "\x1f\x8bx", "PK\3\4 no zip", "#mtree\nx type=file\n", "!<arch>\n", "070707",
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        unit_text("text", texts[i]);
        expect("text", texts[i], strlen(texts[i]));
    }
}

static void
test_damaged(void **state)
{
    char *data = malloc(N), *packed, *out = malloc(N + 16);
    size_t bytes, total;

    (void)state;
    assert_non_null(data);
    assert_non_null(out);
    fill(data);
    unit_write("plain", data, N);
    for (size_t i = 0; i < COUNT(programs); i++) {
        compress(programs[i], "plain", "packed");
        packed = unit_read("packed", &bytes);
        for (size_t cut = 20; cut < bytes; cut += bytes / 5) {
            unit_write("cut", packed, cut);
            assert_int_equal(read_all("cut", out, N + 16, 4096, &total), RC_DATA);
            assert_says(err_text(), "cut: cannot read: ");
        }
        packed[bytes / 2] = (char)~packed[bytes / 2];
        unit_write("flipped", packed, bytes);
        assert_int_equal(read_all("flipped", out, N + 16, 4096, &total), RC_DATA);
        free(packed);
    }
    free(out);
    free(data);
}

/* Stored, so that only the sum at the end tells; and the length after it. */
static void
test_gzip_sums(void **state)
{
    static const unsigned char gz[] = { 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 4, 0, 0xfb, 0xff, 't', 'e', 'x', 't',
        0xc7, 0xa7, 0x8b, 0x3b, 4, 0, 0, 0 }; /* python3: zlib.crc32(b"text") is 0x3b8ba7c7 */
    unsigned char bad[sizeof(gz)];
    char out[64];
    size_t total;

    (void)state;
    memcpy(bad, gz, sizeof(gz));
    unit_write("sound", bad, sizeof(bad));
    expect("sound", "text", 4);
    for (size_t at = 15; at < sizeof(gz); at++) {
        bad[at] ^= 1;
        unit_write("bad", bad, sizeof(bad));
        assert_int_equal(read_all("bad", out, sizeof(out), 4096, &total), RC_DATA);
        assert_says(err_text(), "bad: cannot read: gzip: incorrect ");
        bad[at] ^= 1;
    }
    unit_write("bad", bad, 3);
    assert_int_equal(read_all("bad", out, sizeof(out), 4096, &total), RC_DATA);
    assert_says(err_text(), "bad: cannot read: gzip: unexpected end");
}

/* Regular files in the order of the tar; neither hidden ones nor what is no file. */
static void
test_tar(void **state)
{
    static const char *const names[] = { "a.tar(d/two)", "a.tar(one)", "a.tar(empty)" },
        *const texts[] = { "second", "first", "" };
    struct archive_in *a;
    char out[16];
    size_t got;

    (void)state;
    unit_text("one", "first");
    unit_text("empty", "");
    assert_int_equal(system("mkdir -p d e && printf second | gzip >d/two && printf hidden >d/.x && "
        "ln -sf two d/link && tar cf a.tar d/two d/.x d/link e one empty && gzip -kf a.tar && zstd -qf a.tar && "
        "tar cf none.tar e"), 0);
    for (int k = 0; k < 3; k++) {
        assert_int_equal(archive_in_open(&a, k == 0 ? "a.tar" : k == 1 ? "a.tar.gz" : "a.tar.zst"), RC_OK);
        for (size_t i = 0; i < COUNT(names); i++) {
            if (k == 0)
                assert_string_equal(archive_in_name(a), names[i]);
            if (i != 1 || k != 1) { /* a member that is not read is passed over */
                assert_int_equal(archive_in_read(a, out, sizeof(out), &got), RC_OK);
                assert_int_equal(got, strlen(texts[i]));
                assert_memory_equal(out, texts[i], got);
            }
            assert_int_equal(archive_in_next(a), i < 2 ? RC_OK : RC_RETRY);
        }
        assert_int_equal(archive_in_next(a), RC_RETRY);
        archive_in_close(a);
    }
    assert_int_equal(system("head -c 20 d/two >d/cut && tar cf bad.tar d/cut one"), 0);
    assert_int_equal(archive_in_open(&a, "bad.tar"), RC_DATA);
    assert_string_equal(err_text(), "bad.tar(d/cut): cannot read: gzip: unexpected end");
    assert_int_equal(archive_in_open(&a, "none.tar"), RC_OK);
    assert_int_equal(archive_in_read(a, out, sizeof(out), &got), RC_OK);
    assert_int_equal(got, 0);
    assert_int_equal(archive_in_next(a), RC_RETRY);
    archive_in_close(a);
}

static void
test_absent(void **state)
{
    struct archive_in *a;

    (void)state;
    unit_text("file", "x");
    assert_int_equal(archive_in_open(&a, "none"), RC_NOINPUT);
    assert_null(a);
    assert_says(err_text(), "none: No such file");
    assert_int_equal(archive_in_open(&a, "file/x"), RC_NOINPUT);
    assert_int_equal(archive_in_open(&a, "."), RC_IO);
    assert_says(err_text(), ".: is a directory");
    archive_in_close(NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compressed), cmocka_unit_test(test_two_members), cmocka_unit_test(test_lookalikes),
        cmocka_unit_test(test_damaged), cmocka_unit_test(test_gzip_sums), cmocka_unit_test(test_tar),
        cmocka_unit_test(test_absent),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
