/* budget - how much memory each stage needs, before it starts */
#include "budget.h"

#include "forward.h"
#include "hess.h"
#include "mem.h"
#include "msg.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Estimates, not measured: a process with its libraries and tables; what a thread adds (stack, allocator, scratch of
 * small kernels). */
static const double PROCESS = 8e6, THREAD = 2e6;

enum { PAGE = 4096, CHUNKS = 2 * HESS_CHUNK /* packed together, kernels/cpu/syrk.c */ };

/* As kernels/cpu has them: rows of a tile of the factor, columns of a block of GPTQ, row tiles of a task, columns of a
 * panel of X'X, rows of logits, rows of a tile of a product and of one of gate and up, columns of their chunks: all,
 * up to GEMM_WHOLE. */
enum { FACTOR_TILE = 16, GPTQ_BLOCK = 128, GPTQ_TILES = 8, SYRK_COLS = 48, NLL_ROWS = 64, GEMM_ROWS = 256,
    GATED_ROWS = 128, GEMM_WHOLE = 2048, GEMM_COLS = 1024 };

static const char TOKENS[] = "fewer tokens a block (llmc-shard --block-tokens)";
static const char STATES[] = "more ranks, or fewer samples";
static const char RANKS[] = "more ranks, which cut modules by rows";
static const char INPUT[] = "--sequential input, or fewer columns at once";

static double
larger(double a, double b)
{
    return a > b ? a : b;
}

void
budget_add(struct budget *b, const char *what, const char *help, double bytes)
{
    if (bytes > 0 && b->count < BUDGET_PARTS)
        b->part[b->count++] = (struct budget_part){ what, help, bytes };
}

double
budget_total(const struct budget *b)
{
    double sum = 0;

    for (int i = 0; i < b->count; i++)
        sum += b->part[i].bytes;
    return sum;
}

static void
keep_worse(struct budget *b, const struct budget *one)
{
    if (budget_total(one) > budget_total(b))
        *b = *one;
}

static void
add_process(struct budget *b, int threads)
{
    budget_add(b, "programs", NULL, PROCESS + THREAD * threads);
}

/* Of activations. */
static double
value_bytes(const struct budget_of *o)
{
    return o->arch->dtype == DT_BF16 ? 2 : 4;
}

/* Of a packed weight, for activations of type dt. */
static double
packed_bytes(enum dtype dt)
{
    return (double)backend_cpu_packed(dt);
}

/* Widest of all inputs and of what is computed beside them. */
static double
widest(const struct arch *a)
{
    double w = larger(a->intermediate, a->heads * a->head_dim);

    return larger(larger(w, a->hidden), larger(a->expert_width, a->shared_width));
}

/* Beside it while it is packed, a copy in f32 of what has another type than the product's. */
static double
converted_bytes(enum dtype dt, enum dtype own)
{
    return own != dt || packed_bytes(dt) > (double)dtype_size(dt) ? 4 : 0;
}

/* Between gate and up, and down. */
static double
inside_width(const struct arch *a)
{
    return a->experts > 0 ? larger(a->expert_width, a->shared_width) : a->intermediate;
}

/* What threads multiply: tiles of gate and up, and inputs that are widened. */
static void
add_tiles(struct budget *b, const struct arch *a, enum dtype dt, int threads)
{
    double n = inside_width(a), size = larger(packed_bytes(dt), (double)dtype_size(dt));
    double values = 2 * GATED_ROWS * (n <= GEMM_WHOLE ? n : GEMM_COLS);

    if (size > (double)dtype_size(dt))
        values += GEMM_ROWS * widest(a);
    budget_add(b, "tiles of products", NULL, threads * values * size);
}

/* Streams of hidden states. */
static double
streams(const struct budget_of *o)
{
    return plan_pairs(o->plan) ? 2 : 1;
}

/* --- llmc-calib --- */

/* Tokens of the rank, and of its largest block. */
static void
count_tokens(const struct budget_of *o, double *tokens, double *block)
{
    const struct plan *p = o->plan;
    double *of = mem_zalloc((size_t)p->ranks, sizeof(*of));

    *tokens = *block = 0;
    for (int i = 0; i < p->block_count; i++) {
        if (o->rank >= 0 && p->blocks[i].rank != o->rank)
            continue;
        *block = larger(*block, p->blocks[i].tokens);
        if (of != NULL)
            *tokens = larger(*tokens, of[p->blocks[i].rank] += p->blocks[i].tokens);
    }
    mem_free(of);
}

/* Buffers of a block on its way through a layer (fwd_scratch), which are kept; and with several points a step, the
 * block's own states. What gate and up give is kept, too, if inputs are rounded or one product makes both. */
static double
work_values(const struct arch *a, int points, bool rounded)
{
    double q = a->heads * a->head_dim, kv = a->kv_heads * a->head_dim;
    double inside = inside_width(a), apart = rounded || arch_fused(a) ? inside : 0;
    double sum = a->hidden + larger(larger(q, a->hidden), apart) + larger(kv, apart);

    sum += a->experts > 0 ? larger(kv, inside) + 2 * a->hidden : kv;
    if (arch_fused(a))
        sum += larger(q + 2 * kv, 2 * inside);
    if (points > 1)
        sum += a->hidden + larger(q, inside);
    return sum;
}

static const char PACKING[] = "weight while it is packed";

/* Packed weights of the step's modules; beside: what the largest of them takes more while it is packed. */
static double
step_weights(const struct budget_of *o, const struct step *s, double *beside)
{
    enum dtype dt = o->arch->dtype;
    double sum = 0;
    struct linear l;

    *beside = 0;
    for (int i = 0, n = arch_linear_count(o->arch, s->layer); i < n; i++) {
        double count;

        arch_linear(o->arch, s->layer, i, &l);
        if ((int)l.point < s->first_point || (int)l.point >= s->end_point)
            continue;
        count = (double)l.rows * l.cols;
        sum += count * packed_bytes(dt);
        *beside = larger(*beside, count * ((double)dtype_size(dt) + converted_bytes(dt, dt)));
    }
    return sum;
}

void
budget_calib(struct budget *b, const struct budget_of *o, const struct budget_way *way, int step, bool idle)
{
    const struct step *s = &o->plan->steps[step];
    bool both = s->end_point - s->first_point > 1 || (o->arch->layer[s->layer] & LAYER_MOE) != 0;
    double tokens, block, beside, size = value_bytes(o) * streams(o), frames = way->slots;
    double packed = step_weights(o, s, &beside);
    double weights = idle ? streams(o) - 1 : both ? streams(o) : 1; /* the original's pass fills the time of waiting */

    *b = (struct budget){ 0 };
    count_tokens(o, &tokens, &block);
    add_process(b, o->threads);
    if (!way->disk) {
        budget_add(b, "hidden states", STATES, tokens * o->arch->hidden * size);
        budget_add(b, "pending inputs", STATES, tokens * size * fwd_pending_most(o->arch));
    }
    budget_add(b, "buffers of a block", TOKENS, block * size * work_values(o->arch, s->end_point - s->first_point,
        false));
    budget_add(b, "weights of a step", NULL, packed * weights);
    budget_add(b, PACKING, NULL, beside * weights);
    add_tiles(b, o->arch, o->arch->dtype, o->threads);
    budget_add(b, "frames in shared memory", TOKENS, frames * block * widest(o->arch) * size);
}

/* --- llmc-hessian --- */

/* Sums that a step adds up, the largest of them, and the widest. */
static void
count_sums(const struct budget_of *o, int step, double *all, double *most, double *width)
{
    const struct step *s = &o->plan->steps[step];
    bool seen[ARCH_POINTS_MAX] = { false };

    *all = *most = *width = 0;
    for (int i = s->first_task; i < s->end_task; i++) {
        const struct task *t = &o->plan->tasks[i];
        double bytes;

        if (plan_task_cache(t) || seen[t->point] || !recipe_needs_hessian(o->plan->recipe, t->group))
            continue;
        seen[t->point] = true;
        bytes = (double)hess_values(t->cols, plan_point_pairs(o->plan, step, t->point)) * sizeof(double);
        *all += bytes;
        *most = larger(*most, bytes);
        *width = larger(*width, t->cols);
    }
}

void
budget_hessian(struct budget *b, const struct budget_of *o, int step)
{
    double all, most, width, tokens, block, panels;

    *b = (struct budget){ 0 };
    count_sums(o, step, &all, &most, &width);
    count_tokens(o, &tokens, &block);
    panels = width + SYRK_COLS;
    add_process(b, o->threads);
    budget_add(b, "sums", all > most ? INPUT : NULL, all);
    if (o->plan->ranks > 1)
        budget_add(b, "sums of other ranks", NULL, all);
    budget_add(b, "packed inputs", NULL, o->arch->dtype != DT_BF16 ? o->threads * 128.0 * width * 4 :
        panels * larger(0, block < CHUNKS ? block : CHUNKS) * 2 * streams(o));
}

/* --- llmc-gptq --- */

/* The factor of n columns, of which only the lower triangle is touched once it is large. */
static double
factor_bytes(double n)
{
    return n * n * 4 < MEM_SPARSE ? n * n * 4 : n * n * 2 + n * PAGE / 2;
}

/* Lower triangle in squares. */
static double
squares(double n, int side)
{
    double count = (double)(((int)n + side - 1) / side);

    return count * (count + 1) / 2 * side * side * 4;
}

/* Weights as f32, codes, and what is packed of them. */
static double
rows_bytes(double rows, double n)
{
    return rows * n * (4 + 1 + 0.625);
}

static void
task_budget(struct budget *b, const struct budget_of *o, const struct task *t)
{
    const struct recipe_group *g = t->group >= 0 ? &o->plan->recipe->groups[t->group] : NULL;
    double n = t->cols, rows = t->end - t->row0, factorise, sweep;

    *b = (struct budget){ 0 };
    add_process(b, o->threads);
    if (g == NULL)
        return;
    if (!g->gptq) {
        budget_add(b, "weights of a task", RANKS, rows_bytes(rows, n));
        return;
    }
    factorise = squares(n, FACTOR_TILE) + n * 4 * (o->threads + 2 * FACTOR_TILE);
    sweep = squares(n, GPTQ_BLOCK) + rows_bytes(rows, n) + o->threads * n * GPTQ_TILES * 16 * 5;
    if (g->scheme.v10)
        sweep = larger(sweep, (double)t->rows * n * 4 + rows_bytes(rows, n));
    if (plan_task_corrected(o->plan, t)) { /* M, and the factor that it is made with; later W* beside W */
        budget_add(b, "correction", NULL, n * n * 4);
        factorise = larger(factorise, squares(n, FACTOR_TILE) + n * n * 4);
        sweep += rows * n * 4;
    }
    budget_add(b, "factor", NULL, factor_bytes(n));
    if (factorise > sweep) {
        budget_add(b, "factorisation", NULL, factorise);
    } else {
        budget_add(b, "packed factor", NULL, squares(n, GPTQ_BLOCK));
        budget_add(b, "weights of a task", RANKS, sweep - squares(n, GPTQ_BLOCK));
    }
}

/* As many of them as threads at once, each with one. */
static void
side_budget(struct budget *b, const struct budget_of *o, const struct task *t)
{
    struct budget_of one = *o;
    int count = plan_step_side(o->plan, t->step, t->rank);

    one.threads = 1;
    task_budget(b, &one, t);
    for (int i = 1; i < b->count; i++)
        b->part[i].bytes *= count < o->threads ? count : o->threads;
    b->part[0].bytes += THREAD * (o->threads - 1);
}

void
budget_gptq(struct budget *b, const struct budget_of *o, int step, bool side)
{
    const struct step *s = &o->plan->steps[step];
    struct budget one;

    *b = (struct budget){ 0 };
    add_process(b, o->threads);
    for (int i = s->first_task; i < s->end_task; i++) {
        const struct task *t = &o->plan->tasks[i];

        if (o->rank >= 0 && t->rank != o->rank)
            continue;
        if (side && o->threads > 1 && plan_task_side(o->plan, t))
            side_budget(&one, o, t);
        else
            task_budget(&one, o, t);
        keep_worse(b, &one);
    }
}

/* --- llmc-eval --- */

/* A weight of so many values: packed, and while it is packed: decoded to the model's type, widened to the product's. */
static void
eval_weight(const struct budget_eval *e, double count, double *packed, double *beside)
{
    double own = e->arch->dtype == DT_BF16 ? 2 : 4;

    *packed = count * packed_bytes(e->dt);
    *beside = (e->compressed ? count * own : 0) + count * converted_bytes(e->dt, e->arch->dtype);
}

void
budget_eval(struct budget *b, const struct budget_eval *e, bool disk)
{
    const struct arch *a = e->arch;
    double size = e->dt == DT_BF16 ? 2 : 4, weights = 0, packed, beside, head;

    *b = (struct budget){ 0 };
    for (int l = 0; l < a->layers; l++) {
        double sum = 0, most = 0;
        struct linear m;

        for (int i = 0, n = arch_linear_count(a, l); i < n; i++) {
            arch_linear(a, l, i, &m);
            eval_weight(e, (double)m.rows * m.cols, &packed, &beside);
            sum += packed;
            most = larger(most, beside);
        }
        weights = larger(weights, sum + most);
    }
    eval_weight(e, (double)a->vocab * a->hidden, &packed, &beside);
    head = packed + larger(e->compressed ? beside : 0, a->vocab * (double)NLL_ROWS * (e->dt == DT_BF16 ? 6 : 4));
    add_process(b, e->threads);
    if (!disk)
        budget_add(b, "hidden states", "fewer windows (-w), or a temporary directory on a disk", e->tokens * a->hidden *
            size);
    budget_add(b, "buffers of a block", "shorter windows (-l)", e->block * size * work_values(a, POINT_COUNT,
        e->compressed));
    budget_add(b, weights > head ? "weights of a layer" : "output layer", NULL, larger(weights, head));
    add_tiles(b, a, e->dt, e->threads);
}

/* --- llmc-pack --- */

void
budget_pack(struct budget *b, int threads, double decoded)
{
    *b = (struct budget){ 0 };
    add_process(b, 2 * threads); /* as many hash the source */
    budget_add(b, "decoded weight", NULL, decoded);
}

/* --- stages and pipelines --- */

void
budget_stage(struct budget *b, const struct budget_of *o, enum budget_stage stage, const struct budget_way *way)
{
    struct budget one;

    *b = (struct budget){ 0 };
    for (int s = 0; s < o->plan->step_count; s++) {
        if (stage == BUDGET_CALIB)
            budget_calib(&one, o, way, s, false);
        else if (stage == BUDGET_HESSIAN)
            budget_hessian(&one, o, s);
        else
            budget_gptq(&one, o, s, way != NULL && way->side);
        keep_worse(b, &one);
    }
}

/* Parts of b that have a name are added up under it; one part, unless it is NULL, is left out. */
static void
merge_but(struct budget *b, const struct budget *more, const char *but)
{
    for (int i = 0; i < more->count; i++) {
        const struct budget_part *p = &more->part[i];
        int k = 0;

        if (but != NULL && strcmp(p->what, but) == 0)
            continue;
        while (k < b->count && strcmp(b->part[k].what, p->what) != 0)
            k++;
        if (k < b->count)
            b->part[k].bytes += p->bytes;
        else if (b->count < BUDGET_PARTS)
            budget_add(b, p->what, p->help, p->bytes);
        else
            b->part[0].bytes += p->bytes;
    }
}

static void
merge(struct budget *b, const struct budget *more)
{
    merge_but(b, more, NULL);
}

/* What a stage has freed and keeps while another works (mem_trim): all that it needed, but not much. */
static void
add_kept(struct budget *b, const struct budget *stage, const struct budget *process)
{
    double bytes = budget_total(stage) - budget_total(process);

    if (bytes > 0)
        merge(b, &(struct budget){ .part = { { "kept until its turn", NULL, bytes < MEM_IDLE ? bytes : MEM_IDLE } },
            .count = 1 });
}

/* A step's weights are all packed before anything is added up: not where nobody waits for the step before, nor experts'
 * and those of the original one after the other. */
static bool
packs_before(const struct budget_of *o, int step)
{
    return o->plan->sequential != SEQUENTIAL_NONE && streams(o) < 2 &&
        (o->arch->layer[o->plan->steps[step].layer] & LAYER_MOE) == 0;
}

/* Of a pipeline while llmc-calib packs weights: the others have freed what the step before took. */
static void
add_packing(struct budget *calib, const struct budget *hessian, const struct budget *gptq, const struct budget *process)
{
    merge(calib, process);
    merge(calib, process);
    add_kept(calib, hessian, process);
    add_kept(calib, gptq, process);
}

void
budget_pipeline(struct budget *b, const struct budget_of *o, const struct budget_way *way)
{
    const struct plan *p = o->plan;
    struct budget calib, hessian, gptq, process = { 0 }, one;

    *b = (struct budget){ 0 };
    add_process(&process, o->threads);
    for (int s = 0; s < p->step_count; s++) {
        double all, most, width;

        /* While a step is computed, what the next one sees is added up. */
        budget_calib(&calib, o, way, s, false);
        budget_hessian(&hessian, o, s + 1 < p->step_count && p->sequential == SEQUENTIAL_INPUT ? s + 1 : s);
        one = hessian;
        merge_but(&one, &calib, packs_before(o, s) ? PACKING : NULL);
        budget_gptq(&gptq, o, s, way->side);
        merge(&one, p->sequential == SEQUENTIAL_NONE ? &gptq : &process);
        if (p->sequential != SEQUENTIAL_NONE)
            add_kept(&one, &gptq, &process);
        keep_worse(b, &one);
        add_packing(&calib, &hessian, &gptq, &process);
        keep_worse(b, &calib);

        /* llmc-gptq starts with the largest sum, when the others may not be in files yet. */
        budget_calib(&calib, o, way, s, true);
        count_sums(o, s, &all, &most, &width);
        one = gptq;
        merge(&one, &calib);
        merge(&one, &process);
        budget_hessian(&hessian, o, s);
        add_kept(&one, &hessian, &process);
        if (all > most)
            merge(&one, &(struct budget){ .part = { { "sums", INPUT, all - most } }, .count = 1 });
        keep_worse(b, &one);
    }
}

const struct budget_way budget_ways[BUDGET_WAYS] = {
    { 3, false, true }, { 3, false, false }, { 2, false, false }, { 1, false, false }, { 2, true, false },
    { 1, true, false },
};

static int
choose(struct budget *b, struct budget_way *way, const struct budget_of *o, bool piped, bool all, size_t limit)
{
    for (int i = 0; i < BUDGET_WAYS; i++) {
        *way = budget_ways[i];
        if (!piped)
            way->slots = 0;
        if (all)
            budget_pipeline(b, o, way);
        else
            budget_stage(b, o, BUDGET_CALIB, way);
        if (budget_total(b) <= (double)limit)
            return RC_OK;
    }
    return budget_check(b, limit);
}

int
budget_choose(struct budget *b, struct budget_way *way, const struct budget_of *o, bool piped, size_t limit)
{
    return choose(b, way, o, piped, false, limit);
}

int
budget_choose_pipeline(struct budget *b, struct budget_way *way, const struct budget_of *o, size_t limit)
{
    return choose(b, way, o, true, true, limit);
}

static void
size_text(double bytes, char out[24])
{
    if (bytes < 999.5e6)
        (void)snprintf(out, 24, "%.0f MB", bytes * 1e-6);
    else
        (void)snprintf(out, 24, "%.2f GB", bytes * 1e-9);
}

static int
by_size(const void *a, const void *b)
{
    double x = ((const struct budget_part *)a)->bytes, y = ((const struct budget_part *)b)->bytes;

    return x < y ? 1 : x > y ? -1 : 0;
}

static struct budget
sorted(const struct budget *b)
{
    struct budget s = *b;

    qsort(s.part, (size_t)s.count, sizeof(s.part[0]), by_size);
    return s;
}

int
budget_check(const struct budget *b, size_t limit)
{
    struct budget s = sorted(b);
    char need[24], have[24], most[24];
    const char *help = NULL;

    if (budget_total(b) <= (double)limit)
        return RC_OK;
    for (int i = 0; i < s.count && help == NULL; i++)
        help = s.part[i].help;
    size_text(budget_total(b), need);
    size_text((double)limit, have);
    size_text(s.part[0].bytes, most);
    return err_set(RC_OS, "needs %s of memory, has %s; the largest part are the %s, %s; what would help: %s", need,
        have, s.part[0].what, most, help != NULL ? help : "a machine with more");
}

void
budget_text(const struct budget *b, char *out, size_t size)
{
    struct budget s = sorted(b);
    char text[24];
    size_t n;

    size_text(budget_total(b), text);
    n = (size_t)snprintf(out, size, "%s", text);
    for (int i = 0; i < s.count && n < size; i++) {
        size_text(s.part[i].bytes, text);
        n += (size_t)snprintf(out + n, size - n, "%s%s %s", i == 0 ? ": " : ", ", s.part[i].what, text);
    }
}

/* --- the limit --- */

/* A number of bytes at the start of a file; "max" and files that are not there: none. */
static double
read_limit(const char *root, const char *dir, const char *file)
{
    char path[PATH_MAX];
    double v = -1;
    FILE *f;

    if (snprintf(path, sizeof(path), "%s%s/%s", root, dir, file) >= (int)sizeof(path))
        return -1;
    if ((f = fopen(path, "r")) == NULL)
        return -1;
    if (fscanf(f, "%lf", &v) != 1)
        v = -1;
    (void)fclose(f);
    return v;
}

/* The least of a group and of all above it. */
static double
least_limit(const char *root, const char *base, const char *group, const char *file)
{
    char dir[PATH_MAX];
    double least = -1;

    if (snprintf(dir, sizeof(dir), "%s%s", base, group) >= (int)sizeof(dir))
        return -1;
    for (;;) {
        double v = read_limit(root, dir, file);
        char *slash = strrchr(dir, '/');

        if (v >= 0 && (least < 0 || v < least))
            least = v;
        if (strlen(dir) <= strlen(base) || slash == NULL)
            return least;
        *slash = '\0';
    }
}

static double
group_limit(const char *root)
{
    char path[PATH_MAX], line[PATH_MAX];
    double least = -1, v;
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
    if ((f = fopen(path, "r")) == NULL)
        return -1;
    while (fgets(line, sizeof(line), f) != NULL) {
        char *list = strchr(line, ':'), *group = list != NULL ? strchr(list + 1, ':') : NULL;

        if (group == NULL)
            continue;
        *group++ = '\0';
        group[strcspn(group, "\n")] = '\0';
        if (list[1] == '\0')
            v = least_limit(root, "/sys/fs/cgroup", group, "memory.max");
        else if (strcmp(list + 1, "memory") == 0)
            v = least_limit(root, "/sys/fs/cgroup/memory", group, "memory.limit_in_bytes");
        else
            continue;
        if (v >= 0 && (least < 0 || v < least))
            least = v;
    }
    (void)fclose(f);
    return least;
}

size_t
budget_limit(const char *root)
{
    double all = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE), group = group_limit(root);

    if (group >= 0 && group < all)
        all = group;
    return (size_t)(all - (all / 8 < 0x1p30 ? all / 8 : 0x1p30));
}
