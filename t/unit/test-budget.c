/* test-budget - the memory model against sums by hand, the choice of a way, limits of cgroups */
#include "../../libcommon/assign.h"
#include "../../libcommon/budget.h"
#include "../../libcommon/file.h"
#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../../libcommon/shard.h"
#include "../../libcommon/spill.h"
#include "unit.h"

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>

/* Llama-3-8B, of two layers: more are alike. */
static const char config[] = "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"torch_dtype\": "
    "\"bfloat16\", \"num_hidden_layers\": 2, \"hidden_size\": 4096, \"intermediate_size\": 14336, "
    "\"num_attention_heads\": 32, \"num_key_value_heads\": 8, \"vocab_size\": 128256, \"hidden_act\": \"silu\", "
    "\"rms_norm_eps\": 1e-05, \"rope_theta\": 500000.0, \"max_position_embeddings\": 8192, "
    "\"tie_word_embeddings\": false}";

/* Qwen3-30B-A3B, of one layer. */
static const char experts[] = "{\"model_type\": \"qwen3_moe\", \"torch_dtype\": \"bfloat16\", "
    "\"num_hidden_layers\": 1, \"hidden_size\": 2048, \"intermediate_size\": 6144, \"moe_intermediate_size\": 768, "
    "\"num_experts\": 128, \"num_experts_per_tok\": 8, \"norm_topk_prob\": true, \"num_attention_heads\": 32, "
    "\"num_key_value_heads\": 4, \"head_dim\": 128, \"vocab_size\": 151936, \"hidden_act\": \"silu\", "
    "\"rms_norm_eps\": 1e-06, \"rope_theta\": 1e6, \"max_position_embeddings\": 40960, "
    "\"tie_word_embeddings\": false}";

enum { H = 4096, I = 14336, TOKENS = 512, DOWN = 3 };

static bool correct;

static void
open_model(struct shard *s, const char *json, enum sequential mode, int samples)
{
    struct shard_opts o = { .correct = correct, .model = "m", .scheme = "W4A16", .samples = samples, .length = 128,
        .min_length = 1, .block_tokens = 256, .ranks = 1, .gptq = true, .config = true, .expert_tokens = 256, .sequential = mode };

    assert_int_equal(file_mkdir("m"), RC_OK);
    assert_int_equal(file_publish("m/config.json", json, strlen(json)), RC_OK);
    *s = (struct shard){ 0 };
    if (shard_open(s, "w", &o) != RC_OK || shard_blocks(s, &o) != RC_OK)
        fail_msg("%s", err_text());
}

static void
open_plan(struct shard *s, enum sequential mode, int samples)
{
    open_model(s, config, mode, samples);
}

static double
part(const struct budget *b, const char *what)
{
    for (int i = 0; i < b->count; i++)
        if (strcmp(b->part[i].what, what) == 0)
            return b->part[i].bytes;
    return 0;
}

/* A [H, I] weight packed. */
static double
packed(void)
{
    return H * (double)I * (double)backend_cpu_packed(DT_BF16);
}

/* Its copies while it is: dense, and widened where products are of f32. */
static double
packing(void)
{
    return H * (double)I * (2 + (backend_cpu_packed(DT_BF16) > 2 ? 4 : 0));
}

static void
test_calib(void **state)
{
    struct budget_way mem = { .slots = 3 }, disk = { .slots = 1, .disk = true };
    struct budget_of of;
    struct shard s;
    struct budget b;

    (void)state;
    open_plan(&s, SEQUENTIAL_INPUT, 4);
    of = (struct budget_of){ &s.plan, &s.arch, 0, 2 };
    budget_calib(&b, &of, &mem, DOWN, false);
    assert_true(part(&b, "hidden states") == TOKENS * H * 2.0);
    assert_true(part(&b, "pending inputs") == TOKENS * I * 2.0);
    assert_true(part(&b, "frames in shared memory") == 3 * 256 * I * 2.0);
    assert_true(part(&b, "weights of a step") == packed());
    assert_true(part(&b, "weight while it is packed") == packing());
    assert_true(part(&b, "tiles of products") == (backend_cpu_packed(DT_BF16) > 2 ? 2 * 4 * (2 * 128 * 1024 + 256.0 * I) :
        2 * 2 * 2 * 128 * 1024.0));
    budget_calib(&b, &of, &mem, DOWN, true);
    assert_true(part(&b, "weights of a step") == 0);
    budget_calib(&b, &of, &disk, DOWN, false);
    assert_true(part(&b, "hidden states") + part(&b, "pending inputs") == 0);
    assert_true(part(&b, "frames in shared memory") == 256 * I * 2.0);
    shard_close(&s);
}

/* A second stream: its states, its weights while calib waits; both weights where a step has several points. */
static void
test_pairs(void **state)
{
    struct budget_way mem = { 3, false, false };
    struct budget_of of;
    struct shard s;
    struct budget b, one;

    (void)state;
    correct = true;
    open_plan(&s, SEQUENTIAL_INPUT, 4);
    of = (struct budget_of){ &s.plan, &s.arch, 0, 2 };
    budget_calib(&b, &of, &mem, DOWN, false);
    assert_true(part(&b, "hidden states") == 2 * TOKENS * H * 2.0);
    assert_true(part(&b, "pending inputs") == 2 * TOKENS * I * 2.0);
    assert_true(part(&b, "frames in shared memory") == 2 * 3 * 256 * I * 2.0);
    budget_calib(&one, &of, &mem, DOWN, true);
    assert_true(part(&one, "weights of a step") == part(&b, "weights of a step"));
    assert_true(part(&b, "weights of a step") == packed());
    budget_calib(&b, &of, &mem, 0, true);
    assert_true(part(&b, "pending inputs") == 2 * TOKENS * I * 2.0); /* room is kept */
    budget_hessian(&b, &of, DOWN);
    assert_true(part(&b, "sums") == (I * (I + 1.0) / 2 + I * (I + 1.0)) * 8);
    shard_close(&s);

    open_plan(&s, SEQUENTIAL_LAYER, 4);
    of = (struct budget_of){ &s.plan, &s.arch, 0, 2 };
    budget_calib(&b, &of, &mem, 0, false);
    budget_calib(&one, &of, &mem, 0, true);
    assert_true(part(&b, "weights of a step") == 2 * part(&one, "weights of a step"));
    shard_close(&s);
    correct = false;
}

static void
test_sums_and_factor(void **state)
{
    struct budget_of of;
    struct shard s;
    struct budget b;

    (void)state;
    open_plan(&s, SEQUENTIAL_INPUT, 4);
    of = (struct budget_of){ &s.plan, &s.arch, 0, 2 };
    budget_hessian(&b, &of, DOWN);
    assert_true(part(&b, "sums") == I * (I + 1.0) / 2 * 8);
    budget_gptq(&b, &of, DOWN, false);
    assert_true(part(&b, "factor") == I * (double)I * 2 + I * 2048.0);
    assert_true(part(&b, "packed factor") == 112 * 113 / 2 * 128 * 128 * 4.0);
    assert_true(part(&b, "weights of a task") > H * (double)I * 5);
    assert_true(part(&b, "weights of a task") < H * (double)I * 6.5);
    shard_close(&s);

    open_plan(&s, SEQUENTIAL_LAYER, 4); /* all four inputs at once */
    of = (struct budget_of){ &s.plan, &s.arch, 0, 2 };
    budget_hessian(&b, &of, 0);
    assert_true(part(&b, "sums") == (I * (I + 1.0) + 3 * H * (H + 1.0)) / 2 * 8);
    shard_close(&s);
}

/* A layer's 384 small modules are taken by all threads at once, its attention's one by one. */
static void
test_side(void **state)
{
    struct budget_of of;
    struct budget one, side;
    struct shard s;

    (void)state;
    open_model(&s, experts, SEQUENTIAL_INPUT, 4);
    of = (struct budget_of){ &s.plan, &s.arch, 0, 5 };
    assert_int_equal(s.plan.steps[0].end_task - s.plan.steps[0].first_task, 3);
    assert_int_equal(plan_step_side(&s.plan, 0, 0), 0);
    assert_int_equal(plan_step_side(&s.plan, 2, 0), 256);
    assert_int_equal(plan_step_side(&s.plan, 2, 1), 0); /* another rank's */
    for (int step = 0; step < s.plan.step_count; step++) {
        budget_gptq(&one, &of, step, false);
        budget_gptq(&side, &of, step, true);
        assert_true(part(&side, "factor") == part(&one, "factor") * (step < 2 ? 1 : 5));
        assert_true(budget_total(&side) >= budget_total(&one));
    }
    assert_true(part(&one, "factor") == 768 * 768 * 4.0);
    shard_close(&s);
}

/* Less memory, another way, until there is none; and what is chosen fits. */
static void
test_choice(void **state)
{
    struct budget_way way, last = { .slots = 3 };
    struct budget_of of;
    struct shard s;
    struct budget b;
    int seen = 0, rc = RC_OK;
    double most;

    (void)state;
    open_plan(&s, SEQUENTIAL_INPUT, 64);
    of = (struct budget_of){ &s.plan, &s.arch, -1, 2 };
    budget_pipeline(&b, &of, &last);
    most = budget_total(&b);
    assert_int_equal(budget_choose_pipeline(&b, &way, &of, (size_t)most + 1), RC_OK);
    assert_true(way.slots == 3 && !way.disk);
    for (double limit = most; rc == RC_OK; limit -= 1e6) {
        rc = budget_choose_pipeline(&b, &way, &of, (size_t)limit);
        if (rc != RC_OK)
            break;
        assert_true(budget_total(&b) <= limit);
        assert_true(!last.disk || way.disk);
        seen += way.slots != last.slots || way.disk != last.disk;
        last = way;
    }
    assert_int_equal(rc, RC_OS);
    assert_true(seen >= 3);
    assert_true(way.disk && way.slots == 1);
    if (backend_cpu_packed(DT_BF16) == 2)
        assert_says(err_text(), "the largest part are the factor, 440 MB; what would help: more ranks");
    else
        assert_says(err_text(), "the largest part are the sums, 822 MB; what would help: fewer tokens a block");
    assert_null(strchr(err_text(), '\n'));
    assert_int_equal(budget_choose(&b, &way, &of, false, SIZE_MAX), RC_OK);
    assert_int_equal(way.slots, 0); /* nobody reads frames */
    shard_close(&s);
}

/* A rank holds its own blocks and cuts of modules; none of them more than the worst. */
static void
test_ranks(void **state)
{
    struct budget_way way = { .slots = 3 };
    struct budget_of one, worst;
    struct budget a, b;
    struct shard s;
    double before;

    (void)state;
    open_plan(&s, SEQUENTIAL_INPUT, 64);
    one = (struct budget_of){ &s.plan, &s.arch, 0, 2 };
    budget_pipeline(&a, &one, &way);
    before = part(&a, "hidden states");
    assert_int_equal(assign_ranks(&s.plan, 4), RC_OK);
    worst = one;
    worst.rank = -1;
    budget_pipeline(&b, &worst, &way);
    for (one.rank = 0; one.rank < 4; one.rank++) {
        budget_pipeline(&a, &one, &way);
        assert_true(budget_total(&a) <= budget_total(&b));
    }
    assert_true(part(&b, "hidden states") == before / 4);
    budget_hessian(&b, &worst, DOWN);
    assert_true(part(&b, "sums of other ranks") == part(&b, "sums"));
    shard_close(&s);
}

static void
put(const char *path, const char *text)
{
    char dir[PATH_MAX];

    (void)snprintf(dir, sizeof(dir), "%s", path);
    *strrchr(dir, '/') = '\0';
    assert_int_equal(file_mkdir(dir), RC_OK);
    assert_int_equal(file_publish(path, text, strlen(text)), RC_OK);
}

static void
test_limit(void **state)
{
    size_t machine = budget_limit("nowhere");

    (void)state;
    assert_true(machine > 1 << 20);
    put("v2/proc/self/cgroup", "0::/a/b\n");
    put("v2/sys/fs/cgroup/a/b/memory.max", "max\n");
    assert_int_equal(budget_limit("v2"), machine);
    put("v2/sys/fs/cgroup/a/memory.max", "67108864\n"); /* of the group above */
    assert_int_equal(budget_limit("v2"), 58720256);
    put("v2/sys/fs/cgroup/a/b/memory.max", "8388608\n");
    assert_int_equal(budget_limit("v2"), 7340032);
    put("v1/proc/self/cgroup", "5:cpu:/x\n4:memory:/job\n0::/\n");
    put("v1/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "33554432\n");
    put("v1/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(budget_limit("v1"), 29360128);
    /* Names of groups inside a container may be those outside of it. */
    put("own/proc/self/cgroup", "4:memory:/outside\n");
    put("own/sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n");
    assert_int_equal(budget_limit("own"), 58720256);
}

static void
test_spill(void **state)
{
    struct spill *s;
    char *a, *b, *c;

    (void)state;
    assert_int_equal(spill_open(&s, "nowhere"), RC_CANTCREATE);
    assert_int_equal(spill_open(&s, "."), RC_OK);
    a = spill_alloc(s, 100000, 1);
    b = spill_alloc(s, 200000, 1);
    assert_true(a != NULL && b != NULL);
    memset(a, 'a', 100000);
    memset(b, 'b', 200000);
    spill_idle(s, a);
    spill_idle(s, b);
    for (int i = 0; i < 100000; i++)
        assert_true(a[i] == 'a' && b[2 * i] == 'b');
    spill_free(s, a);
    c = spill_alloc(s, 90000, 1);
    assert_ptr_equal(c, a); /* used again */
    assert_null(spill_alloc(s, SIZE_MAX / 2, 4));
    assert_null(spill_alloc(s, (size_t)1 << 50, 1)); /* more than any disk has */
    assert_says(err_text(), "cannot reserve");
    c = mem_alloc(10, 1);
    spill_free(s, c); /* not of it */
    spill_free(s, NULL);
    spill_idle(NULL, NULL);
    spill_close(s);
    c = spill_alloc(NULL, 10, 1);
    assert_non_null(c);
    spill_free(NULL, c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calib), cmocka_unit_test(test_pairs), cmocka_unit_test(test_sums_and_factor),
        cmocka_unit_test(test_side), cmocka_unit_test(test_choice), cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_limit), cmocka_unit_test(test_spill),
    };

    return cmocka_run_group_tests_name("budget", tests, unit_begin, unit_end);
}
