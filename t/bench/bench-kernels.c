/* bench-kernels - speed of the forward pass and of Hessians on the cpu backend, at the shapes of SmolLM2-135M or, with
 * --llama, of Llama-3-8B */
#include "bench.h"

#include "../../kernels/backend.h"
#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"

#include <math.h>
#include <string.h>

enum { TOKENS = 2048, VECTOR_ROWS = 512 };

struct setup {
    struct bench          b;
    const struct backend *bk;
    struct dev           *dev;
    uint64_t              seed;
};

/* One call of a kernel. */
struct call {
    const struct backend *bk;
    struct dev           *dev;
    struct weight        *w, *w2;
    void                 *x, *y, *z, *v;
    double               *acc;
    int16_t              *e;
    int                   rows, n, k;
    struct attn_args      a;
};

static struct call
call_of(const struct setup *s, int rows, int n, int k)
{
    return (struct call){ .bk = s->bk, .dev = s->dev, .rows = rows, .n = n, .k = k };
}

static void
call_free(struct call *c)
{
    c->bk->weight_free(c->dev, c->w);
    c->bk->weight_free(c->dev, c->w2);
    mem_free(c->x);
    mem_free(c->y);
    mem_free(c->z);
    mem_free(c->v);
    mem_free(c->acc);
    mem_free(c->e);
}

static int
do_matmul(void *ctx)
{
    struct call *c = ctx;

    return c->bk->matmul(c->dev, c->y, DT_BF16, c->x, DT_BF16, c->rows, c->w, NULL);
}

static int
do_pack(void *ctx)
{
    struct call *c = ctx;

    c->bk->weight_free(c->dev, c->w);
    return c->bk->weight_pack(c->dev, &c->w, c->z, DT_BF16, DT_BF16, c->n, c->k);
}

/* x [TOKENS, k], y [TOKENS, n] and a packed weight [n, k], whose values are z. */
static struct call
product(struct setup *s, int n, int k)
{
    struct call c = call_of(s, TOKENS, n, k);
    int rc;

    c.x = bench_bf16((size_t)TOKENS * (size_t)k, &s->seed);
    c.y = bench_alloc((size_t)TOKENS * (size_t)n, 2);
    c.z = bench_bf16((size_t)n * (size_t)k, &s->seed);
    if ((rc = c.bk->weight_pack(c.dev, &c.w, c.z, DT_BF16, DT_BF16, n, k)) != RC_OK)
        die(rc, "%s", err_text());
    return c;
}

static void
matmul(struct setup *s, int n, int k)
{
    struct call c = product(s, n, k);
    char shape[64];

    (void)snprintf(shape, sizeof(shape), "[%d, %d] x [%d, %d]'", TOKENS, k, n, k);
    bench_row(&s->b, "matmul", shape, BENCH_BF16, 2.0 * TOKENS * n * k, bench_time(&s->b, do_matmul, &c));
    (void)snprintf(shape, sizeof(shape), "[%d, %d]", n, k);
    bench_row(&s->b, "pack", shape, BENCH_BYTES, 4.0 * n * k, bench_time(&s->b, do_pack, &c));
    call_free(&c);
}

static int
do_gated(void *ctx)
{
    struct call *c = ctx;

    return c->bk->gated(c->dev, c->y, c->x, DT_BF16, c->rows, (const struct weight *[]){ c->w, c->w2 },
        (const void *[]){ NULL, NULL }, ACT_SILU);
}

/* Products are counted alone; act_mul() is within. */
static void
gated(struct setup *s, int n, int k)
{
    struct call c = product(s, n, k);
    char shape[64];
    int rc;

    if ((rc = c.bk->weight_pack(c.dev, &c.w2, c.z, DT_BF16, DT_BF16, n, k)) != RC_OK)
        die(rc, "%s", err_text());
    (void)snprintf(shape, sizeof(shape), "[%d, %d] x 2 [%d, %d]'", TOKENS, k, n, k);
    bench_row(&s->b, "gated", shape, BENCH_BF16, 4.0 * TOKENS * n * k, bench_time(&s->b, do_gated, &c));
    call_free(&c);
}

static int
do_syrk(void *ctx)
{
    struct call *c = ctx;

    return c->bk->syrk(c->dev, c->acc, c->x, DT_BF16, c->rows, c->n, c->e);
}

static void
syrk(struct setup *s, int n)
{
    struct call c = call_of(s, TOKENS, n, 0);
    char shape[64];

    c.x = bench_bf16((size_t)TOKENS * (size_t)n, &s->seed);
    c.acc = bench_alloc((size_t)n * ((size_t)n + 1) / 2, sizeof(*c.acc));
    c.e = bench_alloc((size_t)n, sizeof(*c.e));
    for (int i = 0; i < n; i++)
        c.e[i] = -10;
    (void)snprintf(shape, sizeof(shape), "%d rows of %d", TOKENS, n);
    bench_row(&s->b, "syrk", shape, BENCH_BF16, (double)n * (n + 1) * TOKENS, bench_time(&s->b, do_syrk, &c));
    call_free(&c);
}

static int
do_attention(void *ctx)
{
    struct call *c = ctx;
    int ldq = c->a.heads * c->a.head_dim, ldk = c->a.kv_heads * c->a.head_dim;

    return c->bk->attention(c->dev, c->y, c->x, ldq, c->z, ldk, c->v, ldk, DT_BF16, c->rows, &c->a);
}

/* Operations are those of what queries see: half of a square. */
static void
attention(struct setup *s, int heads, int kv_heads, int dim, int tokens)
{
    struct call c = call_of(s, TOKENS, 0, 0);
    size_t q = (size_t)TOKENS * (size_t)heads * (size_t)dim, k = (size_t)TOKENS * (size_t)kv_heads * (size_t)dim;
    char shape[64];

    c.a = (struct attn_args){ .heads = heads, .kv_heads = kv_heads, .head_dim = dim, .tokens = tokens,
        .scale = 1.0f / sqrtf((float)dim) };
    c.x = bench_bf16(q, &s->seed);
    c.y = bench_alloc(q, 2);
    c.z = bench_bf16(k, &s->seed);
    c.v = bench_bf16(k, &s->seed);
    (void)snprintf(shape, sizeof(shape), "%d:%d heads of %d, %d x %d", heads, kv_heads, dim, TOKENS / tokens, tokens);
    bench_row(&s->b, "attention", shape, BENCH_BF16, 2.0 * TOKENS * heads * dim * (tokens + 1),
        bench_time(&s->b, do_attention, &c));
    call_free(&c);
}

/* --- element by element: bytes that are read and written --- */

static int
do_norm(void *ctx)
{
    struct call *c = ctx;

    return c->bk->rmsnorm(c->dev, c->y, c->x, c->z, DT_BF16, c->rows, c->n, 1e-5f, NORM_TWICE);
}

static int
do_act(void *ctx)
{
    struct call *c = ctx;

    return c->bk->act_mul(c->dev, c->y, c->x, c->z, DT_BF16, (size_t)c->rows * (size_t)c->n, ACT_SILU);
}

static int
do_add(void *ctx)
{
    struct call *c = ctx;

    return c->bk->add(c->dev, c->x, c->y, DT_BF16, (size_t)c->rows * (size_t)c->n);
}

static int
do_rope(void *ctx)
{
    struct call *c = ctx;

    return c->bk->rope(c->dev, c->x, DT_BF16, c->rows, c->n / 64, 64, c->n, c->y, c->z, 64, c->rows);
}

static void
vectors(struct setup *s, int n)
{
    static const struct {
        const char *name;
        int (*fn)(void *ctx);
        double arrays;
    } kernels[] = { { "rmsnorm", do_norm, 2 }, { "silu", do_act, 3 }, { "add", do_add, 3 }, { "rope", do_rope, 2 } };
    struct call c = call_of(s, VECTOR_ROWS, n, 0);
    size_t count = (size_t)VECTOR_ROWS * (size_t)n;
    char shape[64];

    (void)snprintf(shape, sizeof(shape), "%d rows of %d", VECTOR_ROWS, n);
    for (size_t i = 0; i < sizeof(kernels) / sizeof(kernels[0]); i++) {
        c.x = bench_bf16(count, &s->seed);
        c.y = bench_bf16(count, &s->seed);
        c.z = bench_bf16(count, &s->seed);
        bench_row(&s->b, kernels[i].name, shape, BENCH_BYTES, 2 * kernels[i].arrays * (double)count,
            bench_time(&s->b, kernels[i].fn, &c));
        mem_free(c.x);
        mem_free(c.y);
        mem_free(c.z);
    }
}

static void
smollm2(struct setup *s)
{
    matmul(s, 576, 576);
    matmul(s, 192, 576);
    matmul(s, 1536, 576);
    gated(s, 1536, 576);
    matmul(s, 576, 1536);
    syrk(s, 576);
    syrk(s, 1536);
    attention(s, 9, 3, 64, 512);
    vectors(s, 576);
    vectors(s, 1536);
}

static void
llama(struct setup *s)
{
    matmul(s, 4096, 4096);
    matmul(s, 1024, 4096);
    matmul(s, 14336, 4096);
    gated(s, 14336, 4096);
    matmul(s, 4096, 14336);
    syrk(s, 4096);
    syrk(s, 14336);
    attention(s, 32, 8, 128, 2048);
    vectors(s, 4096);
}

int
main(int argc, char *argv[])
{
    struct setup s = { .seed = 1 };
    struct dev_opts o = { 0 };
    int rc;

    bench_open(&s.b, argc, argv);
    o.threads = s.b.threads;
    if ((rc = backend_find(&s.bk, "cpu")) != RC_OK || (rc = s.bk->open(&s.dev, &o)) != RC_OK)
        die(rc, "%s", err_text());
    if (s.b.llama)
        llama(&s);
    else
        smollm2(&s);
    s.bk->close(s.dev);
    return 0;
}
