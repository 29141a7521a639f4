/* test-cuda-forward - the forward pass with its values on the device of the cuda backend, on the stand-in or, with
 * LLMC_CUDA set, on a device
 *
 * Where values lie must not change them: hidden states of every layer are the same bytes with all of it on the device,
 * with nothing there, which is staged through copies both ways, and with every second or third buffer there. The
 * stand-in counts what is copied; where nothing is, the host does not wait for the device either.
 */
#include "../../libcommon/mem.h"
#include "model.h"
#include "stand_in.h"

#include <dlfcn.h>

enum { LAYERS_MAX = 8 };

/* Every way of a family to use scratch: plain, fused, norms of heads and of results, experts, a shared one. */
static const char *const families[] = { "phi3", "qwen3", "gemma2", "gemma3", "qwen2_moe", "mixtral", "granite" };

static char data_dir[PATH_MAX];
static void (*watch)(size_t bytes[3], char *text, size_t size);
static void *(*real_alloc)(struct dev *dev, size_t bytes);
static bool on_host;      /* the stand-in */
static int asked, every; /* the device has what is asked for each time but every such one; 0: always; 1: never */

static void *
alloc(struct dev *dev, size_t bytes)
{
    return every > 0 && ++asked % every == 0 ? NULL : real_alloc(dev, bytes);
}

static void
no_watch(size_t bytes[3], char *text, size_t size)
{
    bytes[0] = bytes[1] = bytes[2] = 0;
    if (size > 0)
        *text = '\0';
}

struct result {
    void  *hidden[LAYERS_MAX + 1];
    size_t bytes, copied[3]; /* of the last layer's steps: to the device, back, inside */
    int    layers, waits;   /* waits of the host in them */
};

/* As setup_open(), with the backend's alloc in between. */
static void
begin(struct setup *s, struct backend *bk, const char *dir, const char *expected, enum dtype dt)
{
    setup_open(s, dir, dir, expected, "cuda", dt, strstr(expected, "tiny") != NULL ? (const int32_t[]){ 48, 48 } : NULL,
        2);
    fwd_block_free(&s->block); /* what lies where is decided below */
    fwd_close(&s->fwd);
    *bk = *s->bk;
    real_alloc = bk->alloc;
    bk->alloc = alloc;
    asked = 0;
    assert_int_equal(fwd_open(&s->fwd, bk, s->dev, &s->src.arch, dt, source_dense, &s->src), RC_OK);
}

static void
start(struct setup *s)
{
    const struct tensor *ids, *t;
    const int32_t tokens[2] = { 48, 48 }, *lengths = tokens;
    int samples = 2;

    if ((t = st_find(&s->want, "lengths")) != NULL) {
        lengths = t->data;
        samples = (int)t->shape[0];
    }
    assert_int_equal(fwd_block_init(&s->fwd, &s->block, lengths, samples), RC_OK);
    assert_int_equal(st_get(&s->want, "input_ids", &ids), RC_OK);
    assert_int_equal(fwd_begin(&s->fwd, &s->block, ids->data), RC_OK);
}

static void
keep(struct setup *s, struct result *r, int layer)
{
    const void *host;
    void *own;

    r->bytes = (size_t)s->block.rows * (size_t)s->src.arch.hidden * dtype_size(s->fwd.dt);
    assert_int_equal(fwd_read(s->fwd.bk, s->dev, s->block.hidden, r->bytes, &host, &own), RC_OK);
    assert_non_null(r->hidden[layer] = mem_alloc(r->bytes, 1));
    memcpy(r->hidden[layer], host, r->bytes);
    mem_free(own);
}

static void
run(struct result *r, const char *dir, const char *expected, enum dtype dt, int but_every)
{
    static char calls[1 << 16];
    size_t before[3], after[3];
    struct setup s = { 0 };
    struct backend bk;

    *r = (struct result){ 0 };
    every = but_every;
    begin(&s, &bk, dir, expected, dt);
    start(&s);
    r->layers = s.src.arch.layers < LAYERS_MAX ? s.src.arch.layers : LAYERS_MAX;
    keep(&s, r, 0);
    for (int l = 0; l < r->layers; l++) {
        assert_int_equal(fwd_norms(&s.fwd, l), RC_OK);
        assert_int_equal(fwd_load(&s.fwd, 0, POINT_COUNT), RC_OK);
        watch(before, calls, sizeof(calls));
        for (int p = 0; p < POINT_COUNT; p++)
            if (fwd_step(&s.fwd, &s.block) != RC_OK)
                fail_msg("%s: %s", dir, err_text());
        watch(after, NULL, 0);
        fwd_unload(&s.fwd);
        keep(&s, r, l + 1);
    }
    for (int i = 0; i < 3; i++)
        r->copied[i] = after[i] - before[i];
    for (const char *c = calls; *c != '\0'; c++)
        r->waits += *c == 'w';
    setup_close(&s);
}

static void
result_free(struct result *r)
{
    for (int l = 0; l <= r->layers; l++)
        mem_free(r->hidden[l]);
}

static void
compare(const char *dir, const char *expected, enum dtype dt, bool experts)
{
    struct result staged, there, mixed;

    run(&staged, dir, expected, dt, 1);
    run(&there, dir, expected, dt, 0);
    for (int k = 2; k <= 3; k++) {
        run(&mixed, dir, expected, dt, k);
        for (int l = 0; l <= staged.layers; l++)
            assert_memory_equal(mixed.hidden[l], staged.hidden[l], staged.bytes);
        result_free(&mixed);
    }
    for (int l = 0; l <= staged.layers; l++)
        assert_memory_equal(there.hidden[l], staged.hidden[l], staged.bytes);
    if (on_host)
        printf("# %s: a layer copies %zu bytes to the device and %zu back where its values lie there, %zu and %zu "
            "else\n", strrchr(dir, '/') != NULL ? strrchr(dir, '/') + 1 : dir, there.copied[0], there.copied[1],
            staged.copied[0], staged.copied[1]);
    if (on_host && experts) /* logits of the router come back, rows and their weights go there */
        assert_true(there.copied[0] < staged.copied[0] / 5 && there.copied[1] < staged.copied[1] / 5);
    else if (on_host)
        assert_true(there.copied[0] == 0 && there.copied[1] == 0 && there.waits == 0);
    assert_true(!on_host || (staged.copied[0] > staged.bytes && staged.copied[1] > staged.bytes));
    result_free(&staged);
    result_free(&there);
}

static void
test_bytes(void **state)
{
    char dir[PATH_MAX + 64], expected[PATH_MAX + 128];

    (void)state;
    for (int i = 0; i < 2; i++) {
        (void)snprintf(dir, sizeof(dir), "%s/tiny/%s", data_dir, i == 0 ? "base" : "bias");
        (void)snprintf(expected, sizeof(expected), "%s.expected.safetensors", dir);
        compare(dir, expected, i == 0 ? DT_BF16 : DT_F32, false);
    }
    for (size_t i = 0; i < COUNT(families); i++) {
        (void)snprintf(expected, sizeof(expected), "%s/arch/%s/expected.safetensors", data_dir, families[i]);
        compare(families[i], expected, DT_BF16, strstr(families[i], "moe") != NULL ||
            strcmp(families[i], "mixtral") == 0);
    }
}

/* All the weights' room but less than a layer's. */
static void
fill(struct setup *s, struct weight **w, int *count)
{
    void *zeros = mem_zalloc((size_t)8 << 20, 2);

    assert_non_null(zeros);
    for (int n = 8 << 20; n >= 512; n /= 2)
        while (s->bk->weight_fits(s->dev, (size_t)n * 2))
            assert_int_equal(s->bk->weight_pack(s->dev, &w[(*count)++], zeros, DT_BF16, DT_BF16, 1, n), RC_OK);
    mem_free(zeros);
}

/* Layer 2's weights are fetched after layer 1's steps: they are sent before the device has done a product of those, and
 * not sent again. A device whose memory is full is not asked for them. */
static void
fetch_at(const char *dir, const char *expected, bool full, const struct result *want)
{
    static char calls[1 << 16];
    struct weight *w[128];
    struct dev_opts o = { .threads = 2, .device_bytes = (size_t)128 << 20 };
    struct setup s = { 0 };
    struct backend bk;
    size_t bytes[3];
    const void *host;
    void *own;
    int count = 0;

    every = 0;
    begin(&s, &bk, dir, expected, DT_BF16);
    s.bk->close(s.dev);
    assert_int_equal(s.bk->open(&s.dev, &o), RC_OK);
    s.fwd.dev = s.dev;
    s.src.pool = dev_pool(s.dev);
    start(&s);
    setup_layer(&s, 0);
    assert_int_equal(fwd_norms(&s.fwd, 1), RC_OK);
    assert_int_equal(fwd_load(&s.fwd, 0, POINT_COUNT), RC_OK);
    if (full)
        fill(&s, w, &count);
    watch(bytes, calls, sizeof(calls));
    for (int p = 0; p < POINT_COUNT; p++)
        assert_int_equal(fwd_step(&s.fwd, &s.block), RC_OK);
    assert_true(strchr(calls, 'g') != NULL && strchr(calls, 'u') == NULL);
    fwd_fetch(&s.fwd, source_dense, 2, 0, POINT_COUNT);
    assert_int_equal(strchr(calls, 'u') != NULL, !full);
    assert_true(strchr(calls, 'G') == NULL);
    assert_int_equal(s.fwd.ahead.layer, full ? -1 : 2);
    fwd_unload(&s.fwd);
    assert_int_equal(fwd_norms(&s.fwd, 2), RC_OK);
    watch(bytes, calls, sizeof(calls));
    assert_int_equal(fwd_load(&s.fwd, 0, POINT_COUNT), RC_OK);
    assert_int_equal(strchr(calls, 'u') != NULL, full);
    for (int p = 0; p < POINT_COUNT; p++)
        assert_int_equal(fwd_step(&s.fwd, &s.block), RC_OK);
    assert_int_equal(fwd_read(s.fwd.bk, s.dev, s.block.hidden, want->bytes, &host, &own), RC_OK);
    assert_memory_equal(host, want->hidden[3], want->bytes);
    watch(bytes, NULL, 0);
    mem_free(own);
    fwd_fetch(&s.fwd, source_dense, 1, 0, POINT_COUNT); /* nobody will load it */
    for (int i = 0; i < count; i++)
        s.bk->weight_free(s.dev, w[i]);
    setup_close(&s);
}

static void
test_fetch(void **state)
{
    char dir[PATH_MAX + 64], expected[PATH_MAX + 128];
    struct result want;

    (void)state;
    (void)setenv("LLMC_CUDA_HOST", "late", 1);
    (void)snprintf(dir, sizeof(dir), "%s/tiny/base", data_dir);
    (void)snprintf(expected, sizeof(expected), "%s.expected.safetensors", dir);
    run(&want, dir, expected, DT_BF16, 0);
    fetch_at(dir, expected, false, &want);
    fetch_at(dir, expected, true, &want);
    result_free(&want);
}

static void
test_late(void **state)
{
    (void)setenv("LLMC_CUDA_HOST", "late", 1);
    test_bytes(state);
}

static void
test_now_down(void **state)
{
    (void)setenv("LLMC_CUDA_HOST", "now,down", 1);
    test_bytes(state);
}

static int
set_up(void **state)
{
    char command[4 * PATH_MAX];

    if (on_host)
        (void)setenv("LLMC_CUDA", stand_in(), 1);
    if (realpath("t/data", data_dir) == NULL || unit_begin(state) != 0)
        return -1;
    for (size_t i = 0; i < COUNT(families); i++) {
        (void)snprintf(command, sizeof(command), "perl '%s/mk/arch.pl' '%s/arch/%s' '%s'", data_dir, data_dir,
            families[i], families[i]);
        if (system(command) != 0)
            return -1;
    }
    watch = no_watch;
    if (on_host)
        *(void **)&watch = dlsym(dlopen(getenv("LLMC_CUDA"), RTLD_NOW | RTLD_LOCAL), "host_watch");
    return watch != NULL ? 0 : -1;
}

int
main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_late), cmocka_unit_test(test_fetch),
        cmocka_unit_test(test_now_down) };

    const struct CMUnitTest device[] = { cmocka_unit_test(test_bytes) };

    on_host = getenv("LLMC_CUDA") == NULL || strstr(getenv("LLMC_CUDA"), "cuda-host") != NULL;
    if (!on_host)
        return cmocka_run_group_tests(device, set_up, unit_end);
    if (stand_in() == NULL) {
        printf("1..0 # SKIP no C++ compiler has built the stand-in\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, set_up, unit_end);
}
