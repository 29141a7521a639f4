/* llmc-eval - perplexity of a plain or compressed checkpoint */
#include "../libcommon/budget.h"
#include "../libcommon/buf.h"
#include "../libcommon/forward.h"
#include "../libcommon/mem.h"
#include "../libcommon/msg.h"
#include "../libcommon/opt.h"
#include "../libcommon/pool.h"
#include "../libcommon/run.h"
#include "../libcommon/source.h"
#include "../libcommon/spill.h"
#include "../libcommon/text.h"
#include "../libcommon/tok.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_TOKENS = 4096 };

static const char *const dtypes[] = { "float32", "bfloat16", NULL };

static struct {
    const char *model, *data, *join, *backend, *dtype, *dump;
    int         windows, length, threads;
    size_t      memory;
    bool        quiet, each, weights_only;
} cfg = { .join = "\\n\\n", .length = 512, .dtype = "float32" };

static const struct opt options[] = {
    OPT_STR('m', "model", &cfg.model, "dir", "checkpoint, plain or compressed-tensors"),
    OPT_STR('d', "data", &cfg.data, "file", "text: its documents are joined and cut into windows; or input_ids"),
    OPT_STR(0, "join", &cfg.join, "text", "what stands between documents; \\n is a newline"),
    OPT_INT('w', "windows", &cfg.windows, 1, 1 << 30, "n", "windows to score (default: all)"),
    OPT_INT('l', "length", &cfg.length, 2, 1 << 24, "n", "tokens of a window"),
    OPT_CHOICE(0, "dtype", &cfg.dtype, dtypes, "type", "of activations: float32 or bfloat16"),
    OPT_FLAG(0, "weights-only", &cfg.weights_only, "do not round activations, whatever the scheme says"),
    OPT_INT('j', "threads", &cfg.threads, 1, 4096, "n", "threads (default: the processors that we may use)"),
    OPT_SIZE(0, "memory", &cfg.memory, "bytes", "that we may use, as in 4G (default: the cgroup's or the machine's)"),
    OPT_STR(0, "backend", &cfg.backend, "name", "arithmetic: cpu, cuda, ref (default: the fastest here)"),
    OPT_FLAG(0, "each", &cfg.each, "print every window's mean log likelihood, too"),
    OPT_STR(0, "dump", &cfg.dump, "file",
        "write hidden states after each layer and logits of the first windows (4096 tokens) and stop"),
    OPT_FLAG('q', "quiet", &cfg.quiet, "no progress"),
    OPT_END
};

static const struct tool tool = {
    .name = "llmc-eval", .options = options, .built_with = run_built_with,
    .about = "perplexity of a plain or compressed checkpoint",
    .notes = "Prints model, perplexity, mean negative log likelihood, scored tokens. Each window scores its tokens\n"
             "but the first.",
};

struct eval {
    struct source         src;
    const struct backend *bk;
    struct dev           *dev;
    struct fwd            fwd;
    struct tok_ids        ids;
    int                   windows, per_block;
    struct spill         *spill; /* hidden states, where memory is short */
    struct fwd_block     *blocks;
    int                   block_count;
};

/* --- tokens --- */

static void
unescape(struct buf *b, const char *s)
{
    for (; *s != '\0'; s++) {
        if (s[0] == '\\' && s[1] == 'n') {
            buf_add(b, "\n", 1);
            s++;
        } else {
            buf_add(b, s, 1);
        }
    }
}

static int
add_ids(struct eval *e, const int32_t *ids, size_t n)
{
    int32_t *v = mem_grow(e->ids.v, &e->ids.cap, e->ids.count + n, sizeof(*v));

    if (v == NULL)
        return RC_OS;
    memcpy(v + e->ids.count, ids, n * sizeof(*ids));
    e->ids.v = v;
    e->ids.count += n;
    return RC_OK;
}

static int
read_documents(struct eval *e, struct buf *all)
{
    struct text_sample s;
    struct buf join = { 0 };
    struct text *t;
    bool first = true;
    int rc;

    TRY(text_open(&t, cfg.data, &(struct text_opts){ 0 }));
    unescape(&join, cfg.join);
    while ((rc = text_next(t, &s)) == RC_OK) {
        if (s.kind == TEXT_CHAT) {
            rc = err_set(RC_DATA, "%s: line %d: conversations are not scored, only text and input_ids", text_name(t),
                s.line);
            break;
        }
        if (s.kind == TEXT_IDS) {
            if ((rc = add_ids(e, s.ids, s.count)) != RC_OK)
                break;
            continue;
        }
        if (!first)
            buf_add(all, join.s != NULL ? join.s : "", join.len);
        buf_add(all, s.text, s.len);
        first = false;
    }
    text_close(t);
    buf_free(&join);
    return rc == RC_RETRY ? RC_OK : rc;
}

static int
read_tokens(struct eval *e)
{
    struct buf all = { 0 };
    struct tok *tok = NULL;
    int rc = read_documents(e, &all);

    if (rc == RC_OK && all.len > 0 && e->ids.count == 0) {
        rc = tok_open_model(&tok, cfg.model);
        if (rc == RC_OK)
            rc = tok_encode(tok, all.s, all.len, TOK_SPECIAL, &e->ids);
    }
    tok_close(tok);
    buf_free(&all);
    if (rc != RC_OK)
        return rc;
    e->windows = (int)(e->ids.count / (size_t)cfg.length);
    if (cfg.windows > 0 && e->windows > cfg.windows)
        e->windows = cfg.windows;
    return e->windows > 0 ? RC_OK : err_set(RC_DATA, "%s: %zu tokens, not enough for a window of %d", cfg.data,
        e->ids.count, cfg.length);
}

/* --- forward --- */

/* Says what is needed, and does with less where it must. */
static int
keep_to_memory(struct eval *e)
{
    size_t limit = cfg.memory > 0 ? cfg.memory : budget_limit("");
    int together = e->windows < e->per_block ? e->windows : e->per_block;
    struct budget_eval of = { .arch = &e->src.arch, .dt = e->src.dt, .threads = pool_threads(dev_pool(e->dev)),
        .compressed = e->src.recipe != NULL, .tokens = (double)e->windows * cfg.length,
        .block = (double)together * cfg.length };
    const char *dir = getenv("TMPDIR");
    struct budget b;
    char text[512];

    for (int disk = 0; disk < 2; disk++) {
        budget_eval(&b, &of, disk == 1);
        if (cfg.dump != NULL)
            budget_add(&b, "states and logits to write", "fewer windows (-w)", of.block * (e->src.arch.hidden *
                (e->src.arch.layers + 1.0) * 4 + e->src.arch.vocab * (e->src.dt == DT_BF16 ? 6.0 : 4.0)));
        if (budget_total(&b) > (double)limit)
            continue;
        budget_text(&b, text, sizeof(text));
        if (cfg.memory > 0)
            msg_info(NULL, "needs %s", text);
        return disk == 0 ? RC_OK : spill_open(&e->spill, dir != NULL && dir[0] != '\0' ? dir : "/tmp");
    }
    return budget_check(&b, limit);
}

static int
begin(struct eval *e)
{
    int lengths[CHUNK_TOKENS];

    e->per_block = CHUNK_TOKENS / cfg.length > 0 ? CHUNK_TOKENS / cfg.length : 1;
    e->block_count = (e->windows + e->per_block - 1) / e->per_block;
    TRY(keep_to_memory(e));
    e->fwd.spill = e->spill;
    if ((e->blocks = mem_zalloc((size_t)e->block_count, sizeof(*e->blocks))) == NULL)
        return RC_OS;
    for (int i = 0; i < e->per_block; i++)
        lengths[i] = cfg.length;
    for (int b = 0; b < e->block_count; b++) {
        int first = b * e->per_block, n = e->windows - first < e->per_block ? e->windows - first : e->per_block;

        TRY(fwd_block_init(&e->fwd, &e->blocks[b], lengths, n));
        TRY(fwd_begin(&e->fwd, &e->blocks[b], e->ids.v + (size_t)first * (size_t)cfg.length));
    }
    return RC_OK;
}

static int
layer(struct eval *e, int l)
{
    TRY(fwd_norms(&e->fwd, l));
    TRY(fwd_load(&e->fwd, 0, POINT_COUNT));
    for (int b = 0; b < e->block_count; b++) {
        msg_status("llmc-eval: layer %d of %d, block %d of %d", l + 1, e->src.arch.layers, b + 1, e->block_count);
        for (int p = 0; p < POINT_COUNT; p++)
            TRY(fwd_step(&e->fwd, &e->blocks[b]));
        fwd_block_idle(&e->blocks[b]);
        fwd_block_hand_on(&e->blocks[b], &e->blocks[(b + 1) % e->block_count]);
        if (b == 0 && l + 1 < e->src.arch.layers)
            fwd_fetch(&e->fwd, source_dense, l + 1, 0, POINT_COUNT);
    }
    fwd_unload(&e->fwd);
    return RC_OK;
}

static int
score(struct eval *e, double *sum, int64_t *count)
{
    struct weight *head;
    int rc = fwd_head(&e->fwd, &head), at = 0;

    if (rc != RC_OK)
        return rc;
    for (int b = 0; b < e->block_count && rc == RC_OK; b++) {
        int rows = e->blocks[b].rows;
        double *nll = mem_alloc((size_t)rows, sizeof(*nll));
        int32_t *target = mem_alloc((size_t)rows, sizeof(*target));
        const void *h;

        rc = nll == NULL || target == NULL ? RC_OS : fwd_final(&e->fwd, &e->blocks[b], &h);
        for (int i = 0; rc == RC_OK && i < rows; i++)
            target[i] = (i + 1) % cfg.length == 0 ? -1 : e->ids.v[at + i + 1];
        if (rc == RC_OK)
            rc = fwd_nll(&e->fwd, nll, h, rows, head, target);
        for (int w = 0; rc == RC_OK && w < rows / cfg.length; w++) {
            double s = 0;

            for (int i = 0; i < cfg.length; i++)
                s += nll[w * cfg.length + i];
            *sum += s;
            *count += cfg.length - 1;
            if (cfg.each)
                (void)printf("%d\t%.6f\n", at / cfg.length + w, s / (cfg.length - 1));
        }
        at += rows;
        mem_free(nll);
        mem_free(target);
    }
    e->bk->weight_free(e->dev, head);
    return rc;
}

static int
dump_logits(struct eval *e, struct tensor *t, float **own)
{
    int rows = e->blocks[0].rows, vocab = e->src.arch.vocab, rc;
    struct weight *head;
    const void *h;

    if ((*own = mem_alloc((size_t)rows * (size_t)vocab, sizeof(float))) == NULL)
        return RC_OS;
    *t = tensor_2d("logits", DT_F32, rows, vocab, *own);
    TRY(fwd_head(&e->fwd, &head));
    if ((rc = fwd_final(&e->fwd, &e->blocks[0], &h)) == RC_OK)
        rc = fwd_logits(&e->fwd, *own, h, rows, head);
    e->bk->weight_free(e->dev, head);
    return rc;
}

static int
read_hidden(struct eval *e, float *out, size_t n)
{
    const void *host;
    void *own;

    TRY(fwd_read(e->bk, e->dev, e->blocks[0].hidden, n * dtype_size(e->fwd.dt), &host, &own));
    (void)dtype_to_f32(out, host, e->fwd.dt, n);
    mem_free(own);
    return RC_OK;
}

/* hidden.0 is the embedding, hidden.N what leaves the last layer; for comparison with other implementations. */
static int
dump(struct eval *e)
{
    int layers = e->src.arch.layers, width = e->src.arch.hidden, rc = RC_OK;
    size_t n = (size_t)e->blocks[0].rows * (size_t)width, count = (size_t)layers + 2;
    struct tensor *t = mem_zalloc(count, sizeof(*t));
    char (*names)[32] = mem_zalloc(count, sizeof(*names));
    float **own = mem_zalloc(count, sizeof(*own));

    if (t == NULL || names == NULL || own == NULL)
        rc = RC_OS;
    for (int l = 0; l <= layers && rc == RC_OK; l++) {
        if (l > 0 && (rc = layer(e, l - 1)) != RC_OK)
            break;
        if ((own[l] = mem_alloc(n, sizeof(float))) == NULL)
            rc = RC_OS;
        else
            rc = read_hidden(e, own[l], n);
        (void)snprintf(names[l], sizeof(names[l]), "hidden.%d", l);
        t[l] = tensor_2d(names[l], DT_F32, e->blocks[0].rows, width, own[l]);
    }
    if (rc == RC_OK && (rc = dump_logits(e, &t[layers + 1], &own[layers + 1])) == RC_OK)
        rc = st_publish(cfg.dump, t, count, NULL, 0);
    for (size_t i = 0; own != NULL && i < count; i++)
        mem_free(own[i]);
    mem_free(own);
    mem_free(names);
    mem_free(t);
    return rc;
}

static int
evaluate(struct eval *e)
{
    struct dev_opts o = { .threads = cfg.threads };
    double sum = 0;
    int64_t count = 0;

    TRY(source_open(&e->src, cfg.model));
    TRY(backend_find(&e->bk, cfg.backend));
    TRY(e->bk->open(&e->dev, &o));
    e->src.pool = dev_pool(e->dev);
    e->src.dt = strcmp(cfg.dtype, "float32") == 0 ? DT_F32 : DT_BF16;
    TRY(fwd_open(&e->fwd, e->bk, e->dev, &e->src.arch, e->src.dt, source_dense, &e->src));
    e->fwd.inputs = cfg.weights_only ? NULL : source_inputs;
    TRY(read_tokens(e));
    TRY(begin(e));
    if (cfg.dump != NULL)
        return dump(e);
    for (int l = 0; l < e->src.arch.layers; l++)
        TRY(layer(e, l));
    TRY(score(e, &sum, &count));
    if (!isfinite(sum))
        return err_set(RC_NUMERIC, "%s: log likelihood is not finite", cfg.model);
    (void)printf("%s\t%.4f\t%.6f\t%lld\n", cfg.model, exp(sum / (double)count), sum / (double)count, (long long)count);
    return RC_OK;
}

int
main(int argc, char *argv[])
{
    struct eval e = { 0 };
    int rc;

    (void)opt_parse(&tool, argc, argv);
    msg_quiet(cfg.quiet);
    if (cfg.model == NULL || cfg.data == NULL)
        die(RC_USAGE, "give a model with -m and data with -d");
    if ((rc = evaluate(&e)) != RC_OK)
        msg_error(NULL, "%s", err_text());
    for (int b = 0; e.blocks != NULL && b < e.block_count; b++)
        fwd_block_free(&e.blocks[b]);
    mem_free(e.blocks);
    tok_ids_free(&e.ids);
    fwd_close(&e.fwd);
    spill_close(e.spill);
    if (e.dev != NULL)
        e.bk->close(e.dev);
    source_close(&e.src);
    return msg_close_stdout(rc);
}
