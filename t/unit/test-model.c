/* test-model - checkpoint directories: one file, shards, side files, and everything that may be wrong with them */
#include "unit.h"

#include "../../libcommon/model.h"

static const float values[4] = { 1, 2, 3, 4 };

/* A shard of one-element tensors with these names, ended by NULL. */
static void
make_shard(const char *path, const char *const *names)
{
    struct tensor t[8];
    size_t n = 0;

    for (; names[n] != NULL; n++)
        t[n] = tensor_1d(names[n], DT_F32, 1, &values[n]);
    assert_int_equal(st_publish(path, t, n, NULL, 0), RC_OK);
}

#define SHARD(path, ...) make_shard(path, (const char *const[]){ __VA_ARGS__, NULL })

static void
refuses(const char *dir, int want, const char *says)
{
    struct model m;
    int rc = model_open(&m, dir);

    if (rc != want)
        fail_msg("%s: %d, want %d: %s", dir, rc, want, err_text());
    assert_says(err_text(), says);
    assert_null(m.dir);
    assert_int_equal(model_open_header(&m, dir), want);
    model_close(&m);
}

static void
test_single(void **state)
{
    const struct tensor *t;
    struct model m;

    (void)state;
    assert_int_equal(mkdir("one", 0777), 0);
    refuses("one", RC_NOINPUT, "one/config.json: cannot open: No such file");
    unit_text("one/config.json", "{\"model_type\": \"llama\"}");
    refuses("one", RC_NOINPUT, "one: has neither model.safetensors nor model.safetensors.index.json");
    unit_text("one/pytorch_model.bin", "x");
    refuses("one", RC_NOINPUT, "one: has no safetensors, and weights in *.bin files are not read");
    SHARD("one/model.safetensors", "b", "a", "c");
    assert_int_equal(model_open(&m, "one"), RC_OK);
    assert_int_equal(m.count, 3);
    assert_int_equal(m.bytes, 12);
    assert_int_equal(m.shard_count, 1);
    assert_false(m.indexed);
    assert_null(m.quant_method);
    assert_int_equal(m.side_count, 0);
    assert_string_equal(m.tensors[0].t->name, "a");
    assert_string_equal(m.tensors[2].t->name, "c");
    assert_int_equal(model_get(&m, "c", &t), RC_OK);
    assert_memory_equal(t->data, &values[2], 4);
    assert_int_equal(model_get(&m, "d", &t), RC_DATA);
    assert_string_equal(err_text(), "one: no tensor d");
    assert_null(t);
    assert_string_equal(model_shard_path(&m, "a"), "one/model.safetensors");
    assert_null(model_shard_path(&m, "d"));
    model_close(&m);
    assert_int_equal(model_open_header(&m, "one"), RC_OK);
    assert_null(model_find(&m, "a")->t->data);
    model_close(&m);
    model_close(&m);
}

static void
test_config(void **state)
{
    static const struct {
        const char *text, *method;
    } configs[] = {
        { "{\"quantization_config\": {\"quant_method\": \"fp8\"}}", "fp8" },
        { "{\"quantization_config\": {}}", "" },
        { "{\"quantization_config\": null}", NULL },
        { "{\"compression_config\": {\"quant_method\": \"compressed-tensors\"}}", "compressed-tensors" },
        { "{\"text_config\": {\"quantization_config\": {\"quant_method\": \"awq\"}}}", "awq" },
    };
    struct model m;

    (void)state;
    refuses("nowhere", RC_NOINPUT, "nowhere: cannot open directory: No such file");
    unit_text("file", "x");
    refuses("file", RC_DATA, "file: neither a directory nor a tar");
    assert_int_equal(mkdir("cfg", 0777), 0);
    SHARD("cfg/model.safetensors", "a");
    for (size_t i = 0; i < COUNT(configs); i++) {
        unit_text("cfg/config.json", configs[i].text);
        assert_int_equal(model_open(&m, "cfg"), RC_OK);
        if (configs[i].method == NULL)
            assert_null(m.quant_method);
        else
            assert_string_equal(m.quant_method, configs[i].method);
        model_close(&m);
    }
    unit_text("cfg/config.json", "[]");
    refuses("cfg", RC_DATA, "cfg/config.json: not an object");
    unit_text("cfg/config.json", "{");
    refuses("cfg", RC_DATA, "cfg/config.json: JSON line 1");
    unit_text("cfg/config.json", "{}");
    unit_text("cfg/model.safetensors", "junk");
    refuses("cfg", RC_DATA, "cfg/model.safetensors: 4 bytes are too short");
    assert_int_equal(st_publish("cfg/model.safetensors", NULL, 0, NULL, 0), RC_OK);
    refuses("cfg", RC_DATA, "cfg: has no tensors");
}

#define INDEX "sharded/model.safetensors.index.json"

static void
make_sharded(void)
{
    (void)mkdir("sharded", 0777);
    unit_text("sharded/config.json", "{}");
    SHARD("sharded/m-1.safetensors", "a", "d");
    SHARD("sharded/m-2.safetensors", "b");
    SHARD("sharded/m-3.safetensors", "c");
}

static void
test_sharded(void **state)
{
    struct model m;

    (void)state;
    make_sharded();
    unit_text(INDEX, "{\"metadata\": {\"total_size\": 16}, \"weight_map\": {\"d\": \"m-1.safetensors\", \"b\": "
        "\"m-2.safetensors\", \"a\": \"m-1.safetensors\", \"c\": \"m-3.safetensors\"}}");
    if (model_open(&m, "sharded") != RC_OK)
        fail_msg("%s", err_text());
    assert_true(m.indexed);
    assert_int_equal(m.shard_count, 3);
    assert_int_equal(m.count, 4);
    assert_int_equal(m.bytes, 16);
    for (int i = 0; i < 4; i++)
        assert_int_equal(m.tensors[i].t->name[0], 'a' + i);
    assert_int_equal(m.tensors[3].shard, 0);
    assert_string_equal(model_shard_path(&m, "c"), "sharded/m-3.safetensors");
    assert_memory_equal(model_find(&m, "d")->t->data, &values[1], 4);
    model_close(&m);
    SHARD("sharded/model.safetensors", "a");
    refuses("sharded", RC_DATA, INDEX ": does not list model.safetensors, which is there too");
    assert_int_equal(unlink("sharded/model.safetensors"), 0);
}

#define MAP(body) "{\"weight_map\": {" body "}}"
#define ALL_BUT_D "\"a\": \"m-1.safetensors\", \"b\": \"m-2.safetensors\", \"c\": \"m-3.safetensors\""

static void
test_index(void **state)
{
    static const struct {
        int         rc;
        const char *index, *says;
    } bad[] = {
        { RC_DATA, "{", INDEX ": JSON line 1" },
        { RC_DATA, "[]", INDEX ": \"weight_map\" is absent or empty" },
        { RC_DATA, "{}", "\"weight_map\" is absent" },
        { RC_DATA, MAP(""), "\"weight_map\" is absent or empty" },
        { RC_DATA, "{\"weight_map\": []}", "\"weight_map\" is absent" },
        { RC_DATA, MAP("\"a\": 1"), INDEX ": tensor a: shard (no string) is not a plain file name" },
        { RC_DATA, MAP("\"a\": \"../m-1.safetensors\""), "tensor a: shard ../m-1.safetensors is not a plain" },
        { RC_DATA, MAP("\"a\": \"/etc/passwd\""), "not a plain file name" },
        { RC_DATA, MAP("\"a\": \"x\\\\y\""), "not a plain file name" },
        { RC_DATA, MAP("\"a\": \".hidden\""), "not a plain file name" },
        { RC_DATA, MAP("\"a\": \"\""), "not a plain file name" },
        { RC_DATA, MAP("\"a\": \"m\\n1\""), "not a plain file name" },
        { RC_NOINPUT, MAP("\"a\": \"m-9.safetensors\""), "sharded/m-9.safetensors: cannot open: No such file" },
        { RC_DATA, MAP(ALL_BUT_D), INDEX ": tensor d: in m-1.safetensors but not listed" },
        { RC_DATA, MAP(ALL_BUT_D ", \"d\": \"m-2.safetensors\""),
            "tensor d: in m-1.safetensors but listed for m-2.safetensors" },
        { RC_DATA, MAP(ALL_BUT_D ", \"d\": \"m-1.safetensors\", \"e\": \"m-2.safetensors\""),
            "tensor e: listed for m-2.safetensors but not there" },
        { RC_DATA, MAP("\"a\": \"m-1.safetensors\", \"a\": \"m-1.safetensors\""), "duplicate object key" },
    };

    (void)state;
    make_sharded();
    for (size_t i = 0; i < COUNT(bad); i++) {
        unit_text(INDEX, bad[i].index);
        refuses("sharded", bad[i].rc, bad[i].says);
    }
    /* The same tensor in two shards: the one that is not listed is refused. */
    SHARD("sharded/m-3.safetensors", "c", "b");
    unit_text(INDEX, MAP(ALL_BUT_D ", \"d\": \"m-1.safetensors\""));
    refuses("sharded", RC_DATA, "tensor b: in m-3.safetensors but listed for m-2.safetensors");
}

static void
test_side(void **state)
{
    static const char *const files[] = {
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "vocab.json",
        "merges.txt", "LICENSE", "README.md", "chat_template.jinja", "tokenizer.model", "modeling_x.py",
        "qwen.tiktoken",
        /* from here on not side files */
        "config.json", "model.safetensors", "consolidated.safetensors", "pytorch_model-00001-of-00002.bin",
        "pytorch_model.bin.index.json", "x.gguf", "x.onnx", "tf_model.h5", "flax_model.msgpack", "consolidated.00.pth",
        ".gitattributes",
    };
    static const char *const sorted[] = {
        "LICENSE", "README.md", "chat_template.jinja", "generation_config.json", "link.json", "merges.txt",
        "modeling_x.py", "qwen.tiktoken", "special_tokens_map.json", "tokenizer.json", "tokenizer.model",
        "tokenizer_config.json", "vocab.json",
    };
    struct model m;
    char path[64];

    (void)state;
    assert_int_equal(mkdir("side", 0777), 0);
    for (size_t i = 0; i < COUNT(files); i++) {
        (void)snprintf(path, sizeof(path), "side/%s", files[i]);
        unit_text(path, "{}");
    }
    SHARD("side/model.safetensors", "a");
    assert_int_equal(mkdir("side/original", 0777), 0);
    assert_int_equal(symlink("vocab.json", "side/link.json"), 0);
    assert_int_equal(symlink("nowhere", "side/dangling.json"), 0);
    assert_int_equal(model_open(&m, "side"), RC_OK);
    assert_int_equal(m.side_count, COUNT(sorted));
    for (size_t i = 0; i < COUNT(sorted); i++)
        assert_string_equal(m.side[i], sorted[i]);
    model_close(&m);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single), cmocka_unit_test(test_config), cmocka_unit_test(test_sharded),
        cmocka_unit_test(test_index), cmocka_unit_test(test_side),
    };

    return cmocka_run_group_tests_name("model", tests, unit_begin, unit_end);
}
