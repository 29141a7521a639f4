/* test-safetensors - malformed files, the writer's order, frames, and publication when calls fail */
#include "unit.h"

#include "../../libcommon/file.h"
#include "../../libcommon/mem.h"
#include "../../libcommon/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* Faults: these definitions come before libc's. The call numbered fault_at fails with fault_errno. */
static int fault_at, fault_errno, fault_calls;
static char fault_op[16];

static bool
fault(const char *name)
{
    if (fault_at == 0 || ++fault_calls != fault_at)
        return false;
    (void)snprintf(fault_op, sizeof(fault_op), "%s", name);
    errno = fault_errno;
    return true;
}

ssize_t
write(int fd, const void *data, size_t bytes)
{
    return fault("write") ? -1 : syscall(SYS_write, fd, data, bytes);
}

int
fsync(int fd)
{
    return fault("fsync") ? -1 : (int)syscall(SYS_fsync, fd);
}

int
rename(const char *from, const char *to)
{
    return fault("rename") ? -1 : (int)syscall(SYS_rename, from, to);
}

/* A file of this header, padded to no boundary, and data bytes counting up. */
static void
make(const char *path, const char *header, size_t data_bytes)
{
    size_t n = strlen(header), bytes = 8 + n + data_bytes;
    char *all = malloc(bytes);

    assert_non_null(all);
    for (int i = 0; i < 8; i++)
        all[i] = (char)((uint64_t)n >> 8 * i & 0xff);
    memcpy(all + 8, header, n);
    for (size_t i = 0; i < data_bytes; i++)
        all[8 + n + i] = (char)i;
    unit_write(path, all, bytes);
    free(all);
}

#define T(name, dtype, shape, from, to) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"

static const struct {
    const char *header;
    size_t      data_bytes;
    const char *says;
} malformed[] = {
    { "", 0, "header length is 0" },
    { "[]", 0, "header byte 0: want {" },
    { " {}", 0, "header byte 0: want {" },
    { "{ ", 0, "want a string" },
    { "{}x", 0, "only spaces" },
    { "{} {}", 0, "only spaces" },
    { "{,}", 0, "want a string" },
    { "{\"a\"}", 0, "want :" },
    { "{\"a\":1}", 0, "tensor a: header byte 5: want {" },
    { "{\"a\":{}}", 0, "tensor a: has no dtype" },
    { "{" T("a", "U8", "[4]", 0, 4) "", 4, "want , or }" },
    { "{" T("a", "U8", "[4]", 0, 4) ",}", 4, "want a string" },
    { "{" T("a", "U8", "[4]", 0, 4) "]", 4, "want , or }" },
    { "{\"a\":{\"dtype\":\"U8\",\"shape\":[4]}}", 4, "tensor a: has no data_offsets" },
    { "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,4]}}", 4, "tensor a: has no shape" },
    { "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[4]}}", 4, "repeated key dtype" },
    { "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"more\":[0,4]}}", 4, "unknown key more" },
    { "{\"a\":{\"dtype\":4,\"shape\":[4]}}", 4, "want a string" },
    { "{" T("a", "C64", "[4]", 0, 32) "}", 32, "tensor a: dtype C64 is not known" },
    { "{" T("a", "float32", "[4]", 0, 16) "}", 16, "dtype float32 is not known" },
    { "{" T("a", "u8", "[4]", 0, 4) "}", 4, "dtype u8 is not known" },
    { "{" T("a", "U8", "[-4]", 0, 4) "}", 4, "not negative" },
    { "{" T("a", "U8", "[04]", 0, 4) "}", 4, "leading zeros" },
    { "{" T("a", "U8", "[4.0]", 0, 4) "}", 4, "want , or ]" },
    { "{" T("a", "U8", "[4e0]", 0, 4) "}", 4, "want , or ]" },
    { "{" T("a", "U8", "[4,]", 0, 4) "}", 4, "want a number" },
    { "{" T("a", "U8", "4", 0, 4) "}", 4, "want [" },
    { "{" T("a", "U8", "[null]", 0, 4) "}", 4, "want a number" },
    { "{" T("a", "U8", "[1,1,1,1,1,1,1,1,1]", 0, 1) "}", 1, "too many numbers" },
    { "{" T("a", "U8", "[99999999999999999999]", 0, 4) "}", 4, "number is too large" },
    { "{" T("a", "U8", "[9223372036854775808]", 0, 4) "}", 4, "number is too large" },
    { "{" T("a", "F32", "[9223372036854775807]", 0, 4) "}", 4, "shape [9223372036854775807] of F32 overflows" },
    { "{" T("a", "U8", "[4294967296,4294967296]", 0, 4) "}", 4, "overflows" },
    { "{" T("a", "U8", "[4294967296,4294967296,0]", 0, 0) "}", 0, "overflows" },
    { "{" T("a", "U8", "[4294967296,2147483648]", 0, 0) "}", 0, "overflows" },
    { "{" T("a", "F32", "[3,4]", 0, 40) "}", 40, "tensor a: F32 [3, 4] takes 48 bytes, data_offsets span 40" },
    { "{" T("a", "U8", "[4]", 0, 5) "}", 5, "takes 4 bytes" },
    { "{" T("a", "U8", "[0]", 4, 0) "}", 4, "starts at byte 4 and ends at 0" },
    { "{" T("a", "U8", "[4]", 18446744073709551615, 3) "}", 4, "too large" },
    { "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,2,4]}}", 4, "too many numbers" },
    { "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4]}}", 4, "want two data_offsets" },
    { "{" T("a", "U8", "[4]", 1, 5) "}", 5, "hole of 1 bytes before tensor a" },
    { "{" T("a", "U8", "[4]", 0, 4) "," T("b", "U8", "[4]", 6, 10) "}", 10, "hole of 2 bytes before tensor b" },
    { "{" T("a", "U8", "[4]", 0, 4) "," T("b", "U8", "[4]", 3, 7) "}", 7, "tensors a and b overlap" },
    { "{" T("a", "U8", "[4]", 0, 4) "," T("b", "U8", "[4]", 0, 4) "}", 4, "overlap" },
    { "{" T("a", "U8", "[4]", 0, 4) "," T("b", "U8", "[2]", 1, 3) "}", 4, "tensors a and b overlap" },
    { "{" T("a", "U8", "[4]", 0, 4) "}", 5, "tensors end at byte 4 of data, file has 5" },
    { "{" T("a", "U8", "[4]", 0, 4) "}", 3, "tensors end at byte 4 of data, file has 3" },
    { "{}", 1, "tensors end at byte 0 of data, file has 1" },
    { "{" T("a", "U8", "[2]", 0, 2) "," T("a", "U8", "[2]", 2, 4) "}", 4, "tensor a: named twice" },
    { "{" T("a", "U8", "[2]", 0, 2) "," T("\\u0061", "U8", "[2]", 2, 4) "}", 4, "tensor a: named twice" },
    { "{" T("", "U8", "[2]", 0, 2) "}", 2, "name has 0 bytes, want 1 to 512" },
    { "{" T("a\\u001bb", "U8", "[2]", 0, 2) "}", 2, "name has a control byte" },
    { "{" T("a\\n", "U8", "[2]", 0, 2) "}", 2, "name has a control byte" },
    { "{" T("a\x7f", "U8", "[2]", 0, 2) "}", 2, "name has a control byte" },
    { "{" T("a\n", "U8", "[2]", 0, 2) "}", 2, "control byte in a string" },
    { "{" T("a\\u0000", "U8", "[2]", 0, 2) "}", 2, "NUL in a string" },
    { "{" T("a\\x", "U8", "[2]", 0, 2) "}", 2, "unknown escape" },
    { "{" T("\\ud800", "U8", "[2]", 0, 2) "}", 2, "unpaired surrogate" },
    { "{" T("\\ud800\\u0041", "U8", "[2]", 0, 2) "}", 2, "unpaired surrogate" },
    { "{" T("\\udc00", "U8", "[2]", 0, 2) "}", 2, "unpaired surrogate" },
    { "{" T("\\u12g4", "U8", "[2]", 0, 2) "}", 2, "four hexadecimal" },
    { "{" T("\xff", "U8", "[2]", 0, 2) "}", 2, "not UTF-8" },
    { "{" T("\xc0\x80", "U8", "[2]", 0, 2) "}", 2, "not UTF-8" },
    { "{" T("\xe0\x80\x80", "U8", "[2]", 0, 2) "}", 2, "not UTF-8" },
    { "{" T("\xed\xa0\x80", "U8", "[2]", 0, 2) "}", 2, "not UTF-8" },
    { "{" T("\xf4\x90\x80\x80", "U8", "[2]", 0, 2) "}", 2, "not UTF-8" },
    { "{" T("\xe2\x82", "U8", "[2]", 0, 2) "}", 2, "not UTF-8" },
    { "{\"a", 0, "string does not end" },
    { "{\"a\\", 0, "unknown escape" },
    { "{\"a\\u00", 0, "four hexadecimal" },
    { "{\"a\xe2\x82", 0, "not UTF-8" },
    { "{\"__metadata__\":null}", 0, "__metadata__: header byte 16: want {" },
    { "{\"__metadata__\":{\"k\":1}}", 0, "__metadata__: key k: header byte 21: want a string" },
    { "{\"__metadata__\":{\"k\":{\"x\":\"y\"}}}", 0, "key k" },
    { "{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, "__metadata__: key k twice" },
    { "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "__metadata__: header byte 34: repeated" },
    { "{\"__metadata__\":{\"k\"}}", 0, "want :" },
    { "{\"__metadata__\":{\"k\":\"v\"]}", 0, "want , or }" },
};

static void
test_malformed(void **state)
{
    struct st_file st;

    (void)state;
    for (size_t i = 0; i < COUNT(malformed); i++) {
        make("bad", malformed[i].header, malformed[i].data_bytes);
        if (st_open(&st, "bad") != RC_DATA || strncmp(err_text(), "bad: ", 5) != 0)
            fail_msg("%s: accepted, or \"%s\"", malformed[i].header, err_text());
        assert_says(err_text(), malformed[i].says);
        assert_null(st.path);
        assert_int_equal(st_open_header(&st, "bad"), RC_DATA);
        assert_says(err_text(), malformed[i].says);
    }
}

static void
test_malformed_length(void **state)
{
    static const struct {
        unsigned char bytes[12];
        size_t        count;
        const char   *says;
    } files[] = {
        { { 0 }, 0, "0 bytes are too short" },
        { { 2, 0, 0, 0 }, 7, "7 bytes are too short" },
        { { 3, 0, 0, 0, 0, 0, 0, 0, '{', '}' }, 10, "header of 3 bytes does not fit in file of 10" },
        { { 2 }, 8, "header of 2 bytes does not fit in file of 8" },
        { { 1, 0, 0, 0, 0, 0, 0, 0, '{' }, 9, "header length is 1, want 2 to 100000000" },
        { { 1, 0xe1, 0xf5, 5 }, 10, "header length is 100000001" },
        { { 255, 255, 255, 255, 255, 255, 255, 255, '{', '}' }, 10, "header length is 18446744073709551615" },
        { { 'P', 'K', 3, 4, 20, 0, 8, 8, 0, 0 }, 10, "header length is" },
    };
    struct st_file st;

    (void)state;
    for (size_t i = 0; i < COUNT(files); i++) {
        unit_write("bad", files[i].bytes, files[i].count);
        assert_int_equal(st_open(&st, "bad"), RC_DATA);
        assert_says(err_text(), files[i].says);
    }
}

static void
test_absent(void **state)
{
    struct st_file st;

    (void)state;
    assert_int_equal(st_open(&st, "nowhere/x"), RC_NOINPUT);
    assert_says(err_text(), "nowhere/x: cannot open: No such file");
    assert_int_equal(st_open(&st, "."), RC_DATA);
    assert_says(err_text(), ".: not a regular file");
    assert_int_equal(st_open(&st, "/dev/null"), RC_DATA);
    st_close(&st);
}

static void
test_long_name(void **state)
{
    char header[2048], name[ST_NAME_MAX + 2];
    struct st_file st;

    (void)state;
    memset(name, 'x', sizeof(name));
    for (int len = ST_NAME_MAX; len <= ST_NAME_MAX + 1; len++) {
        (void)snprintf(header, sizeof(header),
            "{\"%.*s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", len, name);
        make("long", header, 1);
        assert_int_equal(st_open(&st, "long"), len <= ST_NAME_MAX ? RC_OK : RC_DATA);
        if (len > ST_NAME_MAX)
            assert_says(err_text(), "name has 513 bytes, want 1 to 512");
        st_close(&st);
    }
}

/* Odd but valid. */
static void
test_accepted(void **state)
{
    static const char header[] =
        "{ \"__metadata__\" : {\"format\":\"pt\", \"a\\\"\\\\\\/\\b\\f\\n\\r\\t\":\"\\u00e9\\uD83D\\ude00\"} ,\n"
        "\"z\":{\"shape\":[2,3],\"data_offsets\":[4,10],\"dtype\":\"U8\"},"
        T("scalar", "F32", "[]", 0, 4) "," T("empty", "F32", "[0,7]", 4, 4) "," T("none", "I64", "[3, 0]", 10, 10) ","
        T("\xc3\xa9/../\xe2\x82\xac", "BOOL", "[1]", 10, 11) "}  \n\t\r ";
    const struct tensor *t;
    struct st_file st;

    (void)state;
    make("odd", header, 11);
    if (st_open(&st, "odd") != RC_OK)
        fail_msg("%s", err_text());
    assert_int_equal(st.count, 5);
    assert_int_equal(st.data_bytes, 11);
    assert_int_equal(st.header_bytes, 8 + strlen(header));
    assert_string_equal(st_meta(&st, "format"), "pt");
    assert_string_equal(st_meta(&st, "a\"\\/\b\f\n\r\t"), "\xc3\xa9\xf0\x9f\x98\x80");
    assert_null(st_meta(&st, "b"));
    assert_int_equal(st_get(&st, "z", &t), RC_OK);
    assert_int_equal(t->ndim, 2);
    assert_int_equal(t->shape[1], 3);
    assert_memory_equal(t->data, "\4\5\6\7\10\11", 6);
    t = st_find(&st, "scalar");
    assert_int_equal(t->ndim, 0);
    assert_int_equal(t->bytes, 4);
    assert_int_equal(st_find(&st, "empty")->bytes, 0);
    assert_non_null(st_find(&st, "\xc3\xa9/../\xe2\x82\xac"));
    assert_int_equal(st_get(&st, "y", &t), RC_DATA);
    assert_string_equal(err_text(), "odd: no tensor y");
    for (size_t i = 1; i < st.count; i++)
        assert_true(strcmp(st.tensors[i - 1].name, st.tensors[i].name) < 0);
    st_prefetch(&st, st_find(&st, "z"));
    st_drop(&st, st_find(&st, "z"));
    st_close(&st);
    st_close(&st);
    make("none", "{}", 0);
    assert_int_equal(st_open(&st, "none"), RC_OK);
    assert_null(st_find(&st, "x"));
    assert_null(st_meta(&st, "x"));
    st_close(&st);
    assert_int_equal(st_open_header(&st, "odd"), RC_OK);
    assert_null(st_find(&st, "z")->data);
    assert_int_equal(st_find(&st, "z")->bytes, 6);
    assert_null(st.map);
    st_close(&st);
}

enum { SAMPLES = 5 };

static const double sample_f64[2] = { 1, -2 };
static const float sample_f32[3] = { 1, 2, 3 };
static const uint16_t sample_bf16[4] = { 0x3f80, 0x4000, 0, 1 };
static const uint8_t sample_u8[5] = { 9, 8, 7, 6, 5 };

static void
samples(struct tensor *t)
{
    t[0] = tensor_1d("b.u8", DT_U8, 5, sample_u8);
    t[1] = tensor_2d("w.bf16", DT_BF16, 2, 2, sample_bf16);
    t[2] = tensor_1d("a.u8", DT_F8_E4M3, 0, NULL);
    t[3] = tensor_1d("x.f64", DT_F64, 2, sample_f64);
    t[4] = tensor_1d("\"c\"\\", DT_F32, 3, sample_f32);
}

static const struct st_meta sample_meta[] = { { "version", "1\n" }, { "format", "pt" } };

static void
check_samples(const struct st_file *st)
{
    assert_int_equal(st->count, SAMPLES);
    assert_string_equal(st_meta(st, "version"), "1\n");
    assert_string_equal(st_meta(st, "format"), "pt");
    assert_memory_equal(st_find(st, "b.u8")->data, sample_u8, 5);
    assert_memory_equal(st_find(st, "w.bf16")->data, sample_bf16, 8);
    assert_memory_equal(st_find(st, "x.f64")->data, sample_f64, 16);
    assert_memory_equal(st_find(st, "\"c\"\\")->data, sample_f32, 12);
    assert_int_equal(st_find(st, "a.u8")->bytes, 0);
    assert_int_equal(st_find(st, "w.bf16")->dtype, DT_BF16);
}

static void
test_publish(void **state)
{
    static const char want[] =
        "{\"__metadata__\":{\"version\":\"1\\u000a\",\"format\":\"pt\"},"
        T("x.f64", "F64", "[2]", 0, 16) "," T("\\\"c\\\"\\\\", "F32", "[3]", 16, 28) ","
        T("w.bf16", "BF16", "[2,2]", 28, 36) "," T("a.u8", "F8_E4M3", "[0]", 36, 36) ","
        T("b.u8", "U8", "[5]", 36, 41) "}";
    struct tensor t[SAMPLES];
    struct st_file st;
    size_t bytes;
    char *text;

    (void)state;
    samples(t);
    assert_int_equal(st_publish("out", t, SAMPLES, sample_meta, 2), RC_OK);
    text = unit_read("out", &bytes);
    assert_memory_equal(text + 8, want, strlen(want));
    free(text);
    assert_int_equal(st_open(&st, "out"), RC_OK);
    assert_int_equal(st.header_bytes % 8, 0);
    check_samples(&st);
    st_close(&st);
    assert_int_equal(st_publish("out", NULL, 0, NULL, 0), RC_OK);
    assert_int_equal(st_open(&st, "out"), RC_OK);
    assert_int_equal(st.header_bytes, 16);
    assert_int_equal(st.count + st.meta_count, 0);
    st_close(&st);
}

static void
test_header_refused(void **state)
{
    struct tensor t[2] = { tensor_1d("a", DT_U8, 1, "x"), tensor_1d("a", DT_F32, 0, NULL) };
    struct st_meta meta[] = { { "k", "v" }, { "k", "w" } }, bad = { "k", "\xff" };
    size_t bytes;
    char *out;

    (void)state;
    assert_int_equal(st_header(t, 2, NULL, 0, &out, &bytes), RC_BUG);
    assert_string_equal(err_text(), "tensor a: written twice");
    assert_null(out);
    assert_int_equal(st_header(t, 1, meta, 2, &out, &bytes), RC_BUG);
    assert_int_equal(st_header(t, 1, &bad, 1, &out, &bytes), RC_DATA);
    t[0].bytes = 3;
    assert_int_equal(st_header(t, 1, NULL, 0, &out, &bytes), RC_BUG);
    t[0] = tensor_1d("a\n", DT_U8, 1, "x");
    assert_int_equal(st_header(t, 1, NULL, 0, &out, &bytes), RC_DATA);
    t[0] = tensor_1d("__metadata__", DT_U8, 1, "x");
    assert_int_equal(st_header(t, 1, NULL, 0, &out, &bytes), RC_DATA);
    t[0] = tensor_1d("\xc0\x80", DT_U8, 1, "x");
    assert_int_equal(st_header(t, 1, NULL, 0, &out, &bytes), RC_DATA);
    t[0] = tensor_2d("a", DT_U8, -1, 1, "x");
    assert_int_equal(st_header(t, 1, NULL, 0, &out, &bytes), RC_BUG);
}

/* Every prefix of a valid file, and every byte changed, ends in a sentence and not in a crash. */
static void
test_mutations(void **state)
{
    struct tensor t[SAMPLES];
    struct st_file st;
    size_t bytes;
    char *text;
    int rc;

    (void)state;
    samples(t);
    assert_int_equal(st_publish("whole", t, SAMPLES, sample_meta, 2), RC_OK);
    text = unit_read("whole", &bytes);
    for (size_t n = 0; n < bytes; n++) {
        unit_write("part", text, n);
        assert_int_equal(st_open(&st, "part"), RC_DATA);
        assert_true(strncmp(err_text(), "part: ", 6) == 0);
    }
    for (size_t i = 0; i < bytes; i++) {
        text[i] = (char)(text[i] ^ 0x11);
        unit_write("part", text, bytes);
        rc = st_open(&st, "part");
        assert_true(rc == RC_OK || rc == RC_DATA);
        st_close(&st);
        text[i] = (char)(text[i] ^ 0x11);
    }
    free(text);
}

static void
test_many(void **state)
{
    enum { MANY = 20000 };
    struct tensor *t = calloc(MANY, sizeof(*t));
    char (*names)[16] = calloc(MANY, sizeof(*names));
    struct st_file st;

    (void)state;
    assert_non_null(t);
    assert_non_null(names);
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(names[i], sizeof(names[i]), "t.%d", i * 7919 % MANY);
        t[i] = tensor_1d(names[i], i % 2 == 0 ? DT_U8 : DT_F32, 1, sample_f32);
    }
    assert_int_equal(st_publish("many", t, MANY, NULL, 0), RC_OK);
    assert_int_equal(st_open(&st, "many"), RC_OK);
    assert_int_equal(st.count, MANY);
    for (int i = 0; i < MANY; i++)
        assert_non_null(st_find(&st, names[i]));
    st_close(&st);
    free(names);
    free(t);
}

/* Each write, fsync and rename in turn fails: the old file stays whole, or the new one is, and nothing else is left. */
static void
test_faults(void **state)
{
    static const int errnos[] = { ENOSPC, EIO };
    static float big[40000]; /* larger than what is gathered: a write(2) of its own */
    struct tensor t[SAMPLES + 1];
    struct st_file st;
    int rc, ops = 0;

    (void)state;
    assert_int_equal(mkdir("faults", 0777), 0);
    for (size_t e = 0; e < COUNT(errnos); e++) {
        unit_text("faults/x", "old");
        for (fault_at = 1, rc = -1; rc != RC_OK; fault_at++) {
            samples(t);
            t[SAMPLES] = tensor_1d("big", DT_F32, 40000, big);
            fault_calls = 0;
            fault_errno = errnos[e];
            rc = st_publish("faults/x", t, SAMPLES + 1, NULL, 0);
            assert_true(rc == RC_IO || (rc == RC_OK && fault_calls < fault_at));
            assert_int_equal(unit_entries("faults"), 1);
            if (rc == RC_IO)
                assert_says(err_text(), strerror(errnos[e]));
            if (st_open(&st, "faults/x") == RC_OK)
                assert_int_equal(st.count, SAMPLES + 1);
            else /* "old" */
                assert_says(err_text(), "3 bytes are too short");
            st_close(&st);
            ops++;
        }
        fault_at = 0;
    }
    assert_true(ops >= 2 * 6); /* three writes, fsync, rename, fsync, and none */
}

static void
test_interrupted(void **state)
{
    struct tensor t[SAMPLES];
    struct st_file st;

    (void)state;
    samples(t);
    fault_calls = 0;
    fault_errno = EINTR;
    fault_at = 1;
    assert_int_equal(st_publish("eintr", t, SAMPLES, sample_meta, 2), RC_OK);
    fault_at = 0;
    assert_string_equal(fault_op, "write");
    assert_int_equal(st_open(&st, "eintr"), RC_OK);
    check_samples(&st);
    st_close(&st);
}

static void
test_destinations(void **state)
{
    struct tensor t[SAMPLES];
    struct stat sb;
    struct st_file st;
    char name[300];

    (void)state;
    samples(t);
    assert_int_equal(st_publish("/dev/full", t, SAMPLES, NULL, 0), RC_IO);
    assert_string_equal(err_text(), "/dev/full: cannot write: No space left on device");
    assert_int_equal(st_publish("/dev/null", t, SAMPLES, NULL, 0), RC_OK);
    assert_int_equal(stat("/dev/null", &sb), 0);
    assert_true(S_ISCHR(sb.st_mode));
    assert_int_equal(st_publish("absent/x", t, SAMPLES, NULL, 0), RC_CANTCREATE);
    assert_says(err_text(), "absent/x: cannot create: No such file");
    assert_int_equal(st_publish(".", t, SAMPLES, NULL, 0), RC_CANTCREATE);
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    assert_int_equal(st_publish(name, t, SAMPLES, NULL, 0), RC_CANTCREATE);
    /* Copy on write: the link is replaced and what it pointed to is not touched. */
    unit_text("source", "original");
    assert_int_equal(symlink("source", "link"), 0);
    assert_int_equal(st_publish("link", t, SAMPLES, sample_meta, 2), RC_OK);
    assert_int_equal(lstat("link", &sb), 0);
    assert_true(S_ISREG(sb.st_mode));
    assert_int_equal(stat("source", &sb), 0);
    assert_int_equal(sb.st_size, 8);
    assert_int_equal(st_open(&st, "link"), RC_OK);
    check_samples(&st);
    st_close(&st);
}

static void
on_signal(int sig)
{
    file_cleanup_signal_safe();
    _exit(128 + sig);
}

static int
child(int how)
{
    static struct file_tmp f, g; /* reachable still at exit */

    if (file_begin(&f, "left/a") != RC_OK || file_begin(&g, "left/b") != RC_OK || unit_entries("left") != 2)
        _exit(99);
    if (how == 0)
        exit(7);
    (void)signal(SIGTERM, on_signal);
    (void)raise(SIGTERM);
    return 0;
}

static void
test_temporaries(void **state)
{
    struct file_tmp f, g;
    int status;
    pid_t pid;

    (void)state;
    assert_int_equal(mkdir("left", 0777), 0);
    for (int how = 0; how < 2; how++) {
        (void)fflush(NULL);
        if ((pid = fork()) == 0)
            _exit(child(how));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(WEXITSTATUS(status), how == 0 ? 7 : 128 + SIGTERM);
        assert_int_equal(unit_entries("left"), 0);
    }
    assert_int_equal(file_begin(&f, "left/a"), RC_OK);
    if ((pid = fork()) == 0) { /* a child must leave its parent's files alone */
        file_cleanup_signal_safe();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(unit_entries("left"), 1);
    assert_int_equal(file_begin(&g, "left/b"), RC_OK);
    assert_int_equal(file_commit(&g), RC_OK);
    file_abort(&g);
    assert_int_equal(unit_entries("left"), 2);
    file_abort(&f);
    file_abort(&f);
    assert_int_equal(unit_entries("left"), 1);
    f = (struct file_tmp){ 0 };
    file_abort(&f);
}

static void
test_frames(void **state)
{
    struct tensor t[SAMPLES];
    struct st_file st;
    size_t bytes, first;
    char *text;
    int fd, rc;

    (void)state;
    samples(t);
    fd = open("stream", O_WRONLY | O_CREAT, 0666);
    assert_int_equal(st_write_frame(fd, t, SAMPLES, sample_meta, 2), RC_OK);
    first = (size_t)lseek(fd, 0, SEEK_CUR);
    assert_int_equal(st_write_frame(fd, NULL, 0, sample_meta, 1), RC_OK);
    assert_int_equal(close(fd), 0);
    text = unit_read("stream", &bytes);
    for (size_t n = 0; n <= bytes; n++) {
        unit_write("cut", text, n);
        fd = open("cut", O_RDONLY);
        rc = st_read_frame(&st, fd);
        assert_int_equal(rc, n == 0 ? RC_RETRY : n < first ? RC_DATA : RC_OK);
        if (rc == RC_OK) {
            check_samples(&st);
            assert_int_equal((uintptr_t)st_find(&st, "x.f64")->data % MEM_ALIGN, 0);
            st_close(&st);
            rc = st_read_frame(&st, fd);
            assert_int_equal(rc, n == first ? RC_RETRY : n < bytes ? RC_DATA : RC_OK);
            assert_int_equal(st.count, 0);
            assert_int_equal(st.meta_count, rc == RC_OK ? 1 : 0);
            st_close(&st);
        }
        (void)close(fd);
    }
    free(text);
    assert_int_equal(st_read_frame(&st, -1), RC_IO);
    assert_int_equal(st_write_frame(-1, t, SAMPLES, NULL, 0), RC_IO);
}

/* Larger than what is allocated at once, of zeros that take no room on disk; then cut. */
static void
test_large_frame(void **state)
{
    static const char header[] = "{" T("z", "U8", "[150000000]", 0, 150000000) "}";
    const off_t bytes = 8 + (off_t)strlen(header) + 150000000;
    struct st_file st;
    const char *z;
    int fd;

    (void)state;
    make("large", header, 0);
    assert_int_equal(truncate("large", bytes), 0);
    fd = open("large", O_RDWR);
    assert_int_equal(pwrite(fd, "x", 1, bytes - 1), 1);
    assert_int_equal(st_read_frame(&st, fd), RC_OK);
    z = st_find(&st, "z")->data;
    assert_int_equal(z[0], 0);
    assert_int_equal(z[149999999], 'x');
    st_close(&st);
    assert_int_equal(ftruncate(fd, bytes - 1), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    assert_int_equal(st_read_frame(&st, fd), RC_DATA);
    assert_string_equal(err_text(), "stream: ends after 149999999 of 150000000 data bytes");
    assert_int_equal(close(fd), 0);
}

static void
test_file(void **state)
{
    struct stat sb;
    char *s;

    (void)state;
    assert_int_equal(file_mkdir("deep/er//est/"), RC_OK);
    assert_int_equal(file_mkdir("deep/er/est"), RC_OK);
    assert_int_equal(file_mkdir("/"), RC_OK);
    assert_int_equal(stat("deep/er/est", &sb), 0);
    unit_text("plain", "x");
    assert_int_equal(file_mkdir("plain/below"), RC_CANTCREATE);
    assert_says(err_text(), "plain: cannot create directory: File exists");
    assert_int_equal(file_mkdir(""), RC_CANTCREATE);
    assert_int_equal(file_mkdir("/proc/none/x"), RC_CANTCREATE);
    assert_string_equal(s = file_join("a", "b"), "a/b");
    mem_free(s);
    assert_string_equal(s = file_join("a/", "b"), "a/b");
    mem_free(s);
    assert_string_equal(s = file_join("", "b"), "b");
    mem_free(s);
    assert_int_equal(file_publish("deep/x", "abc", 3), RC_OK);
    assert_int_equal(stat("deep/x", &sb), 0);
    assert_int_equal(sb.st_size, 3);
    assert_int_equal(file_publish("/dev/full", "abc", 3), RC_IO);
}

static void
test_tensor(void **state)
{
    struct tensor t = tensor_2d("w", DT_F32, 3, 4, NULL);
    const int64_t any[] = { -1, 4 }, other[] = { -1, 64 }, three[] = { 3, 4, 5 };
    char text[64], tiny[4];

    (void)state;
    assert_int_equal(t.bytes, 48);
    assert_string_equal(tensor_shape_text(&t, text, sizeof(text)), "[3, 4]");
    assert_string_equal(tensor_shape_text(&t, tiny, sizeof(tiny)), "[3,");
    assert_int_equal(tensor_want(&t, DT_F32, 2, any), RC_OK);
    assert_int_equal(tensor_want(&t, DT_NONE, 2, any), RC_OK);
    assert_int_equal(tensor_want(&t, DT_BF16, 2, other), RC_DATA);
    assert_string_equal(err_text(), "w is F32 [3, 4], want BF16 [*, 64]");
    assert_int_equal(tensor_want(&t, DT_NONE, 3, three), RC_DATA);
    assert_string_equal(err_text(), "w is F32 [3, 4], want [3, 4, 5]");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_malformed), cmocka_unit_test(test_malformed_length), cmocka_unit_test(test_absent),
        cmocka_unit_test(test_long_name), cmocka_unit_test(test_accepted), cmocka_unit_test(test_publish),
        cmocka_unit_test(test_header_refused), cmocka_unit_test(test_mutations), cmocka_unit_test(test_many),
        cmocka_unit_test(test_faults), cmocka_unit_test(test_interrupted), cmocka_unit_test(test_destinations),
        cmocka_unit_test(test_temporaries), cmocka_unit_test(test_frames), cmocka_unit_test(test_large_frame),
        cmocka_unit_test(test_file), cmocka_unit_test(test_tensor),
    };

    return cmocka_run_group_tests_name("safetensors", tests, unit_begin, unit_end);
}
