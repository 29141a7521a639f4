/* assign: who gets what */
#include "../../libcommon/assign.h"
#include "golden.h"
#include "unit.h"

enum { COUNT_MAX = 600 };

static struct block blocks[COUNT_MAX];

static void
assign(int count, const int *tokens, int ranks)
{
    struct plan p = { .blocks = blocks, .block_count = count };

    assert_true(count <= COUNT_MAX);
    for (int i = 0; i < count; i++)
        blocks[i] = (struct block){ .samples = 1, .tokens = tokens != NULL ? tokens[i] : 1, .rank = -1 };
    assert_int_equal(assign_ranks(&p, ranks), RC_OK);
    assert_int_equal(p.ranks, ranks);
    mem_free(p.tasks);
}

/* Longest first, each to the rank with the least: what LLM Compressor does with modules by their inputs. Its order of
 * equal ones is that of the list, and of equal ranks the first is taken; so it is here. */
static void
test_bins(void **state)
{
    static const char *const names[] = { "q", "k", "v", "o", "gate", "up", "down" };
    static const int cost[] = { 4096, 4096, 4096, 4096, 4096, 4096, 14336 };
    size_t r, i;
    json_t *t, *bins, *bin, *name;

    (void)state;
    for (const char *const *v = golden_versions; *v != NULL; v++) {
        int seen = 0;

        golden_json(&t, *v, "tables");
        bins = json_object_get(json_object_get(t, "bin_packing"), "bins");
        assert_int_equal(json_array_size(bins), 4);
        assign(7, cost, 4);
        json_array_foreach(bins, r, bin)
            json_array_foreach(bin, i, name)
                for (int k = 0; k < 7; k++)
                    if (strcmp(names[k], json_string_value(name)) == 0) {
                        assert_int_equal(blocks[k].rank, r);
                        seen++;
                    }
        assert_int_equal(seen, 7);
        json_decref(t);
    }
}

/* Equal blocks: no rank gets more than in LLM Compressor's partition, and none is left out while another has two. */
static void
test_partition(void **state)
{
    const char *key;
    json_t *t, *table, *slices, *slice;
    int tried = 0;
    size_t r;

    (void)state;
    golden_json(&t, "llmc-0.14", "tables");
    table = json_object_get(t, "rank_partition");
    json_object_foreach(table, key, slices) {
        int count = atoi(key), ranks = (int)json_array_size(slices), most = 0, all = 0, share[8] = { 0 };

        assert_in_range(ranks, 1, 8);
        assign(count, NULL, ranks);
        for (int b = 0; b < count; b++)
            share[blocks[b].rank]++;
        json_array_foreach(slices, r, slice) {
            int length = (int)(json_integer_value(json_array_get(slice, 1)) - json_integer_value(json_array_get(slice, 0)));

            most = length > most ? length : most;
            all += share[r];
        }
        assert_int_equal(all, count);
        for (int k = 0; k < ranks; k++) {
            assert_true(share[k] <= most);
            assert_true(share[k] >= count / ranks);
        }
        tried++;
    }
    assert_true(tried > 3);
    json_decref(t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_bins), cmocka_unit_test(test_partition) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
