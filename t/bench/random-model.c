/* random-model - a checkpoint of random weights in the shape of a Llama, sharded, without a tokenizer
 *
 * For measuring with models that nobody needs to download: Gaussian weights in BF16 at the speed of the disk. With
 * --sparse there are headers and holes: enough for llmc-shard --plan.
 */
#include "../../libcommon/file.h"
#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../../libcommon/opt.h"
#include "../../libcommon/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TABLE = 1 << 16, PIECE = 4 << 20 /* values */, TENSORS_A_LAYER = 9, NAME = 96 };

static struct {
    const char *out, *data;
    int         layers, hidden, intermediate, heads, kv_heads, vocab, samples, length;
    size_t      shard_bytes;
    bool        sparse, tied;
} cfg = { .layers = 32, .hidden = 4096, .intermediate = 14336, .heads = 32, .kv_heads = 8, .vocab = 128256,
    .samples = 4, .length = 128, .shard_bytes = (size_t)5 << 30 };

static const struct opt options[] = {
    OPT_STR('o', "output", &cfg.out, "dir", "checkpoint to make"),
    OPT_INT(0, "layers", &cfg.layers, 1, 1024, "n", "decoder layers"),
    OPT_INT(0, "hidden", &cfg.hidden, 16, 1 << 20, "n", "width of the residual stream"),
    OPT_INT(0, "intermediate", &cfg.intermediate, 16, 1 << 20, "n", "width inside the MLP"),
    OPT_INT(0, "heads", &cfg.heads, 1, 1024, "n", "of queries"),
    OPT_INT(0, "kv-heads", &cfg.kv_heads, 1, 1024, "n", "of keys and values"),
    OPT_INT(0, "vocab", &cfg.vocab, 16, 1 << 24, "n", "tokens"),
    OPT_SIZE(0, "shard", &cfg.shard_bytes, "bytes", "of a shard, about"),
    OPT_FLAG(0, "tied", &cfg.tied, "no head of its own"),
    OPT_FLAG(0, "sparse", &cfg.sparse, "headers and holes, no weights"),
    OPT_STR('d', "data", &cfg.data, "file", "calibration data to make, too: random token ids"),
    OPT_INT('n', "samples", &cfg.samples, 1, 1 << 20, "n", "of that"),
    OPT_INT('l', "length", &cfg.length, 1, 1 << 20, "n", "tokens of each"),
    OPT_END
};

static const struct tool tool = {
    .name = "random-model", .options = options, .about = "a checkpoint of random weights in the shape of a Llama",
};

static uint16_t table[TABLE]; /* Gaussian, standard deviation 0.02 */
static uint64_t state = 0x9e3779b97f4a7c15u;

static uint64_t
next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void
fill_table(void)
{
    for (int i = 0; i < TABLE; i++) {
        double u = ((double)(next_random() >> 11) + 1) * 0x1p-53, v = (double)(next_random() >> 11) * 0x1p-53;
        float f = (float)(0.02 * sqrt(-2 * log(u)) * cos(2 * 3.14159265358979323846 * v));

        (void)dtype_from_f32(&table[i], &f, DT_BF16, 1);
    }
}

/* --- tensors --- */

struct model {
    struct tensor *t;
    char         (*names)[NAME];
    int            count;
};

static void
add(struct model *m, int layer, const char *name, int rows, int cols)
{
    char *to = m->names[m->count];

    if (layer >= 0)
        (void)snprintf(to, NAME, "model.layers.%d.%s.weight", layer, name);
    else
        (void)snprintf(to, NAME, "%s.weight", name);
    m->t[m->count++] = cols > 0 ? tensor_2d(to, DT_BF16, rows, cols, NULL) : tensor_1d(to, DT_BF16, rows, NULL);
}

static int
list(struct model *m)
{
    size_t count = (size_t)cfg.layers * TENSORS_A_LAYER + 3;
    int kv = cfg.hidden / cfg.heads * cfg.kv_heads;

    m->t = mem_alloc(count, sizeof(*m->t));
    m->names = mem_alloc(count, sizeof(*m->names));
    if (m->t == NULL || m->names == NULL)
        return RC_OS;
    add(m, -1, "model.embed_tokens", cfg.vocab, cfg.hidden);
    for (int l = 0; l < cfg.layers; l++) {
        add(m, l, "input_layernorm", cfg.hidden, 0);
        add(m, l, "self_attn.q_proj", cfg.hidden, cfg.hidden);
        add(m, l, "self_attn.k_proj", kv, cfg.hidden);
        add(m, l, "self_attn.v_proj", kv, cfg.hidden);
        add(m, l, "self_attn.o_proj", cfg.hidden, cfg.hidden);
        add(m, l, "post_attention_layernorm", cfg.hidden, 0);
        add(m, l, "mlp.gate_proj", cfg.intermediate, cfg.hidden);
        add(m, l, "mlp.up_proj", cfg.intermediate, cfg.hidden);
        add(m, l, "mlp.down_proj", cfg.hidden, cfg.intermediate);
    }
    add(m, -1, "model.norm", cfg.hidden, 0);
    if (!cfg.tied)
        add(m, -1, "lm_head", cfg.vocab, cfg.hidden);
    return RC_OK;
}

/* Norms are ones; else each value is drawn from the table. */
static void
fill(uint16_t *to, size_t count, bool ones)
{
    for (size_t i = 0; i < count; i += 4) {
        uint64_t r = next_random();

        for (size_t k = i; k < count && k < i + 4; k++, r >>= 16)
            to[k] = ones ? 0x3f80 : table[r & (TABLE - 1)];
    }
}

/* What is written leaves the page cache, so that a measurement starts with none of it there. */
static int
write_tensor(int fd, const struct tensor *t, uint16_t *piece)
{
    size_t count = t->bytes / 2;

    for (size_t at = 0; at < count; at += PIECE) {
        size_t n = count - at < PIECE ? count - at : PIECE;

        fill(piece, n, t->ndim == 1);
        TRY(file_write_full(fd, piece, 2 * n));
    }
    (void)fdatasync(fd);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    return RC_OK;
}

static int
write_shard(const char *path, struct tensor *t, int count, uint16_t *piece)
{
    size_t bytes, data = 0;
    char *head;
    int fd, rc;

    TRY(st_header(t, (size_t)count, NULL, 0, &head, &bytes));
    if ((fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666)) < 0)
        rc = err_set(RC_CANTCREATE, "%s: %s", path, strerror(errno));
    else
        rc = file_write_full(fd, head, bytes);
    for (int i = 0; i < count && rc == RC_OK; i++) {
        data += t[i].bytes;
        if (!cfg.sparse)
            rc = write_tensor(fd, &t[i], piece);
    }
    if (rc == RC_OK && cfg.sparse && ftruncate(fd, (off_t)(bytes + data)) != 0)
        rc = err_set(RC_IO, "%s: %s", path, strerror(errno));
    if (fd >= 0 && close(fd) != 0 && rc == RC_OK)
        rc = err_set(RC_IO, "%s: %s", path, strerror(errno));
    mem_free(head);
    return rc;
}

/* The end of the shard that starts with tensor i. */
static int
shard_end(const struct model *m, int i)
{
    size_t bytes = m->t[i].bytes;

    for (i++; i < m->count && bytes + m->t[i].bytes <= cfg.shard_bytes; i++)
        bytes += m->t[i].bytes;
    return i;
}

static int
write_shards(const struct model *m, FILE *index)
{
    uint16_t *piece = mem_alloc(PIECE, sizeof(*piece));
    char path[4096];
    int shards = 0, n = 0, rc = piece != NULL ? RC_OK : RC_OS;

    for (int i = 0; i < m->count; i = shard_end(m, i))
        shards++;
    (void)fprintf(index, "{\"metadata\": {}, \"weight_map\": {");
    for (int i = 0, end; i < m->count && rc == RC_OK; i = end) {
        char name[64];

        end = shard_end(m, i);
        (void)snprintf(name, sizeof(name), "model-%05d-of-%05d.safetensors", ++n, shards);
        for (int k = i; k < end; k++)
            (void)fprintf(index, "%s\n\"%s\": \"%s\"", k > 0 ? "," : "", m->t[k].name, name);
        (void)snprintf(path, sizeof(path), "%s/%s", cfg.out, name);
        rc = write_shard(path, m->t + i, end - i, piece);
    }
    (void)fprintf(index, "\n}}\n");
    mem_free(piece);
    return rc;
}

/* --- text files --- */

static int
open_in(FILE **f, const char *dir, const char *name)
{
    char path[4096];

    (void)snprintf(path, sizeof(path), "%s%s%s", dir, dir[0] != '\0' ? "/" : "", name);
    *f = fopen(path, "w");
    return *f != NULL ? RC_OK : err_set(RC_CANTCREATE, "%s: %s", path, strerror(errno));
}

static int
write_config(void)
{
    FILE *f;

    TRY(open_in(&f, cfg.out, "config.json"));
    (void)fprintf(f, "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"torch_dtype\": "
        "\"bfloat16\",\n\"num_hidden_layers\": %d, \"hidden_size\": %d, \"intermediate_size\": %d,\n"
        "\"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"vocab_size\": %d,\n\"hidden_act\": \"silu\", "
        "\"rms_norm_eps\": 1e-05, \"rope_theta\": 500000.0, \"max_position_embeddings\": 8192,\n"
        "\"tie_word_embeddings\": %s, \"bos_token_id\": 0, \"eos_token_id\": 1}\n", cfg.layers, cfg.hidden,
        cfg.intermediate, cfg.heads, cfg.kv_heads, cfg.vocab, cfg.tied ? "true" : "false");
    return fclose(f) == 0 ? RC_OK : err_set(RC_IO, "%s: %s", cfg.out, strerror(errno));
}

static int
write_data(void)
{
    FILE *f;

    TRY(open_in(&f, "", cfg.data));
    for (int i = 0; i < cfg.samples; i++) {
        (void)fprintf(f, "{\"input_ids\": [");
        for (int k = 0; k < cfg.length; k++)
            (void)fprintf(f, "%s%d", k > 0 ? ", " : "", (int)(next_random() % (uint64_t)cfg.vocab));
        (void)fprintf(f, "]}\n");
    }
    return fclose(f) == 0 ? RC_OK : err_set(RC_IO, "%s: %s", cfg.data, strerror(errno));
}

static int
make(void)
{
    struct model m = { 0 };
    FILE *index = NULL;
    int rc;

    fill_table();
    if ((rc = file_mkdir(cfg.out)) == RC_OK && (rc = list(&m)) == RC_OK && (rc = write_config()) == RC_OK &&
        (rc = open_in(&index, cfg.out, "model.safetensors.index.json")) == RC_OK)
        rc = write_shards(&m, index);
    if (index != NULL && fclose(index) != 0 && rc == RC_OK)
        rc = err_set(RC_IO, "%s: %s", cfg.out, strerror(errno));
    if (rc == RC_OK && cfg.data != NULL)
        rc = write_data();
    mem_free(m.t);
    mem_free(m.names);
    return rc;
}

int
main(int argc, char *argv[])
{
    int rc;

    (void)opt_parse(&tool, argc, argv);
    if (cfg.out == NULL)
        die(RC_USAGE, "no output: give one with -o");
    if ((rc = make()) != RC_OK)
        die(rc, "%s", err_text());
    return RC_OK;
}
