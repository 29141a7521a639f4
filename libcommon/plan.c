/* plan - the work directory: settings, steps, tasks, blocks, and where each file lies */
#include "plan.h"

#include "buf.h"
#include "file.h"
#include "mem.h"
#include "member.h"
#include "msg.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FIELDS_MAX = 12, TABLE_MAX = 1 << 28, PIECES = 16, PIECE_BYTES = 65536 };

const char *const sequential_names[] = { "input", "layer", "none", NULL };

const char *const experts_names[] = { "all", "routed", NULL };

const char *
sequential_name(enum sequential s)
{
    return sequential_names[s];
}

enum sequential
sequential_find(const char *name)
{
    for (int i = 0; sequential_names[i] != NULL; i++)
        if (strcmp(sequential_names[i], name) == 0)
            return (enum sequential)i;
    return SEQUENTIAL_INPUT;
}

int
plan_path(const struct plan *p, char *out, const char *fmt, ...)
{
    va_list ap;
    int n = snprintf(out, PATH_MAX, "%s/", p->dir), m;

    if (n < 0 || n >= PATH_MAX)
        return err_set(RC_DATA, "%s: path is too long", p->dir);
    va_start(ap, fmt);
    m = vsnprintf(out + n, (size_t)(PATH_MAX - n), fmt, ap);
    va_end(ap);
    return m < 0 || m >= PATH_MAX - n ? err_set(RC_DATA, "%s: path is too long", p->dir) : RC_OK;
}

int
plan_task_path(const struct plan *p, const struct task *t, char *out)
{
    return plan_path(p, out, "weights/%s.safetensors", t->name);
}

bool
plan_task_done(const struct plan *p, const struct task *t)
{
    char path[PATH_MAX];
    struct stat st;

    return plan_task_path(p, t, path) == RC_OK && lstat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool
plan_step_done(const struct plan *p, int step)
{
    for (int i = p->steps[step].first_task; i < p->steps[step].end_task; i++)
        if (!plan_task_done(p, &p->tasks[i]))
            return false;
    return true;
}

int
plan_tasks_left(const struct plan *p)
{
    int left = 0;

    for (int i = 0; i < p->task_count; i++)
        left += !plan_task_done(p, &p->tasks[i]);
    return left;
}

bool
plan_task_match(const struct task *t, const char *glob)
{
    return glob == NULL || fnmatch(glob, t->module, 0) == 0 || fnmatch(glob, t->name, 0) == 0;
}

bool
plan_any_match(const struct plan *p, const char *glob)
{
    for (int i = 0; i < p->task_count; i++)
        if (plan_task_match(&p->tasks[i], glob))
            return true;
    return false;
}

/* Thousands of modules are looked up many times each. */
static int
compare_modules(const void *x, const void *y, void *tasks)
{
    const struct task *a = (struct task *)tasks + *(const int *)x, *b = (struct task *)tasks + *(const int *)y;
    int order = strcmp(a->module, b->module);

    return order != 0 ? order : (a > b) - (a < b);
}

static int
index_modules(struct plan *p)
{
    if ((p->by_module = mem_alloc((size_t)p->task_count + 1, sizeof(*p->by_module))) == NULL)
        return RC_OS;
    for (int i = 0; i < p->task_count; i++)
        p->by_module[i] = i;
    qsort_r(p->by_module, (size_t)p->task_count, sizeof(*p->by_module), compare_modules, p->tasks);
    for (int i = 1; i < p->task_count; i++)
        if (strcmp(p->tasks[p->by_module[i]].module, p->tasks[p->by_module[i - 1]].module) == 0 &&
            p->by_module[i] != p->by_module[i - 1] + 1)
            return err_set(RC_DATA, "tasks of %s are not together", p->tasks[p->by_module[i]].module);
    return RC_OK;
}

const struct task *
plan_module(const struct plan *p, const char *module, int *count)
{
    int low = 0, high = p->task_count;

    while (low < high) {
        int mid = low + (high - low) / 2;

        if (strcmp(p->tasks[p->by_module[mid]].module, module) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    for (*count = 0; low + *count < p->task_count; ++*count)
        if (strcmp(p->tasks[p->by_module[low + *count]].module, module) != 0)
            break;
    return *count > 0 ? &p->tasks[p->by_module[low]] : NULL;
}

const struct task *
plan_task_find(const struct plan *p, const char *name)
{
    const char *at = strrchr(name, '@');
    char module[ARCH_NAME_MAX];
    const struct task *t;
    int count;

    (void)snprintf(module, sizeof(module), "%.*s", at != NULL ? (int)(at - name) : ARCH_NAME_MAX, name);
    t = plan_module(p, module, &count);
    for (int i = 0; i < count; i++)
        if (strcmp(t[i].name, name) == 0)
            return &t[i];
    return NULL;
}

bool
plan_task_cache(const struct task *t)
{
    return t->group < 0;
}

bool
plan_task_inputs(const struct plan *p, const struct task *t)
{
    return !plan_task_cache(t) && recipe_needs_inputs(p->recipe, t->group);
}

bool
plan_task_waits(const struct plan *p, const struct task *t)
{
    return plan_task_cache(t) || plan_task_inputs(p, t);
}

bool
plan_point_sum(const struct plan *p, int step, enum point point)
{
    for (int i = p->steps[step].first_task; i < p->steps[step].end_task; i++)
        if (p->tasks[i].point == point && !plan_task_cache(&p->tasks[i]) &&
            recipe_needs_hessian(p->recipe, p->tasks[i].group))
            return true;
    return false;
}

bool
plan_point_range(const struct plan *p, int step, enum point point)
{
    for (int i = p->steps[step].first_task; i < p->steps[step].end_task; i++)
        if (p->tasks[i].point == point && (plan_task_cache(&p->tasks[i]) ||
            scheme_input_static(&p->recipe->groups[p->tasks[i].group].scheme)))
            return true;
    return false;
}

bool
plan_task_corrected(const struct plan *p, const struct task *t)
{
    const struct recipe_group *g = plan_task_cache(t) ? NULL : &p->recipe->groups[t->group];
    enum point point = arch_point_base(t->point);

    return g != NULL && g->gptq && (g->correct == CORRECT_ALL ||
        (g->correct == CORRECT_RESIDUAL && (point == POINT_O || point == POINT_DOWN)));
}

bool
plan_point_pairs(const struct plan *p, int step, enum point point)
{
    const struct step *s = &p->steps[step];

    for (int i = s->first_task; i < s->end_task; i++)
        if (p->tasks[i].point == point && plan_task_corrected(p, &p->tasks[i]))
            return true;
    return false;
}

bool
plan_pairs(const struct plan *p)
{
    return recipe_corrects(p->recipe);
}

bool
plan_block_held(const struct plan *p, int block)
{
    enum { FEWEST = 8, SHARE = 16 };
    int held = p->block_count < FEWEST ? 0 : p->block_count < SHARE ? 1 : p->block_count / SHARE;

    return plan_pairs(p) && block >= p->block_count - held;
}

const char *
plan_task_scheme(const struct plan *p, const struct task *t)
{
    return plan_task_cache(t) ? "kv_cache" : p->recipe->groups[t->group].scheme.name;
}

/* --- tables --- */

struct line {
    char *field[FIELDS_MAX];
    int   count, number;
    const char *path;
};

static int
line_int(const struct line *l, int i, long max, int *out)
{
    char *end;
    long v = strtol(l->field[i], &end, 10);

    if (*l->field[i] == '\0' || *end != '\0' || v < 0 || v > max)
        return err_set(RC_DATA, "%s line %d: field %d is \"%s\"", l->path, l->number, i + 1, l->field[i]);
    *out = (int)v;
    return RC_OK;
}

static void
split(struct line *l, char *text)
{
    l->count = 0;
    for (char *s = text; s != NULL && l->count < FIELDS_MAX;) {
        char *tab = strchr(s, '\t');

        l->field[l->count++] = s;
        if (tab != NULL)
            *tab++ = '\0';
        s = tab;
    }
}

/* Calls fn for each line after the heading. */
static int
read_table(struct plan *p, const char *name, int fields, int (*fn)(struct plan *p, const struct line *l))
{
    char path[PATH_MAX];
    struct buf b = { 0 };
    struct line l = { .path = path };
    int rc;

    TRY(plan_path(p, path, "%s", name));
    rc = buf_read_file(&b, path, TABLE_MAX);
    for (char *s = b.s; rc == RC_OK && s != NULL && *s != '\0';) {
        char *nl = strchr(s, '\n');

        if (nl == NULL) {
            rc = err_set(RC_DATA, "%s: last line is cut", path);
            break;
        }
        *nl = '\0';
        if (l.number++ > 0) {
            split(&l, s);
            rc = l.count != fields ? err_set(RC_DATA, "%s line %d: %d fields, want %d", path, l.number, l.count,
                fields) :
                fn(p, &l);
        }
        s = nl + 1;
    }
    buf_free(&b);
    return rc;
}

/* Room for one more element in an array that grows by doubling. */
static void *
grow(void *array, int count, size_t size)
{
    size_t cap = 0;

    if (count != 0 && (count & (count - 1)) != 0)
        return array;
    return mem_grow(array, &cap, (size_t)(count == 0 ? 16 : 2 * count), size);
}

static int
add_step(struct plan *p, const struct line *l)
{
    struct step *s = grow(p->steps, p->step_count, sizeof(*s));
    int id;

    if (s == NULL)
        return RC_OS;
    p->steps = s;
    s += p->step_count++;
    *s = (struct step){ 0 };
    TRY(line_int(l, 0, INT_MAX, &id));
    TRY(line_int(l, 1, INT_MAX, &s->layer));
    if (id != p->step_count - 1)
        return err_set(RC_DATA, "%s line %d: step %d, want %d", l->path, l->number, id, p->step_count - 1);
    for (int i = 0; i < POINT_COUNT; i++)
        if (strcmp(l->field[2], arch_point_name((enum point)i)) == 0) {
            s->first_point = i;
            s->end_point = i + 1;
            return RC_OK;
        }
    if (strcmp(l->field[2], "all") != 0)
        return err_set(RC_DATA, "%s line %d: points \"%s\"", l->path, l->number, l->field[2]);
    s->end_point = POINT_COUNT;
    return RC_OK;
}

static int
add_task(struct plan *p, const struct line *l)
{
    struct task *t = grow(p->tasks, p->task_count, sizeof(*t));
    int point;

    if (t == NULL)
        return RC_OS;
    p->tasks = t;
    t += p->task_count++;
    *t = (struct task){ 0 };
    if ((t->name = mem_strdup(l->field[0])) == NULL || (t->module = mem_strdup(l->field[3])) == NULL)
        return RC_OS;
    TRY(line_int(l, 1, p->step_count - 1, &t->step));
    point = arch_point_find(l->field[2]);
    if (point < 0 || strchr(t->name, '/') != NULL || t->name[0] == '.')
        return err_set(RC_DATA, "%s line %d: not a task", l->path, l->number);
    t->point = (enum point)point;
    TRY(line_int(l, 4, INT_MAX, &t->row0));
    TRY(line_int(l, 5, INT_MAX, &t->end));
    TRY(line_int(l, 6, INT_MAX, &t->rows));
    TRY(line_int(l, 7, 1 << 20, &t->cols));
    t->group = -1;
    if (strcmp(l->field[8], "cache") != 0)
        TRY(line_int(l, 8, p->recipe->group_count - 1, &t->group));
    TRY(line_int(l, 9, INT_MAX, &t->rank));
    t->cost = strtod(l->field[10], NULL);
    if (t->row0 >= t->end || t->end > t->rows || t->cols < 1)
        return err_set(RC_DATA, "%s line %d: rows %d to %d of [%d, %d]", l->path, l->number, t->row0, t->end, t->rows,
            t->cols);
    if (p->task_count > 1 && t[-1].step > t->step)
        return err_set(RC_DATA, "%s line %d: tasks are not sorted by step", l->path, l->number);
    if (p->steps[t->step].end_task == 0)
        p->steps[t->step].first_task = p->task_count - 1;
    p->steps[t->step].end_task = p->task_count;
    return RC_OK;
}

static int
add_block(struct plan *p, const struct line *l)
{
    struct block *b = grow(p->blocks, p->block_count, sizeof(*b));
    int id;

    if (b == NULL)
        return RC_OS;
    p->blocks = b;
    b += p->block_count++;
    *b = (struct block){ 0 };
    TRY(line_int(l, 0, INT_MAX, &id));
    TRY(line_int(l, 1, INT_MAX, &b->samples));
    TRY(line_int(l, 2, INT_MAX, &b->tokens));
    TRY(line_int(l, 4, INT_MAX, &b->rank));
    if (id != p->block_count - 1 || strlen(l->field[3]) != DIGEST_HEX - 1)
        return err_set(RC_DATA, "%s line %d: not a block", l->path, l->number);
    memcpy(b->digest, l->field[3], DIGEST_HEX);
    p->tokens += b->tokens;
    p->samples += b->samples;
    return RC_OK;
}

static bool
is_small(const struct task *t)
{
    return !plan_task_cache(t) && t->cols <= SIDE_COLS && (int64_t)(t->end - t->row0) * t->cols <= SIDE_WEIGHTS;
}

int
plan_step_side(const struct plan *p, int step, int rank)
{
    int count = 0;

    for (int i = p->steps[step].first_task; i < p->steps[step].end_task; i++)
        count += p->tasks[i].rank == rank && is_small(&p->tasks[i]);
    return count < SIDE_MANY ? 0 : count;
}

bool
plan_task_side(const struct plan *p, const struct task *t)
{
    return is_small(t) && plan_step_side(p, t->step, t->rank) > 0;
}

static int
write_table(const struct plan *p, const char *name, struct buf *b)
{
    char path[PATH_MAX];
    int rc = plan_path(p, path, "%s", name);

    if (rc == RC_OK && !buf_ok(b))
        rc = RC_OS;
    if (rc == RC_OK)
        rc = file_publish(path, b->s, b->len);
    buf_free(b);
    return rc;
}

int
plan_write_tables(const struct plan *p)
{
    struct buf b = { 0 };

    buf_puts(&b, "step\tlayer\tpoints\ttasks\ttokens\n");
    for (int i = 0; i < p->step_count; i++) {
        const struct step *s = &p->steps[i];

        buf_printf(&b, "%d\t%d\t%s\t%d\t%lld\n", i, s->layer,
            s->end_point - s->first_point > 1 ? "all" : arch_point_name((enum point)s->first_point),
            s->end_task - s->first_task, (long long)p->tokens);
    }
    TRY(write_table(p, "steps.tsv", &b));
    buf_puts(&b, "task\tstep\tpoint\tmodule\tfirst_row\tend_row\trows\tcols\tscheme\trank\tcost\n");
    for (int i = 0; i < p->task_count; i++) {
        const struct task *t = &p->tasks[i];

        buf_printf(&b, "%s\t%d\t%s\t%s\t%d\t%d\t%d\t%d\t", t->name, t->step, arch_point_name(t->point), t->module,
            t->row0, t->end, t->rows, t->cols);
        if (plan_task_cache(t))
            buf_puts(&b, "cache");
        else
            buf_printf(&b, "%d", t->group);
        buf_printf(&b, "\t%d\t%.6g\n", t->rank, t->cost);
    }
    TRY(write_table(p, "tasks.tsv", &b));
    buf_puts(&b, "block\tsamples\ttokens\tdigest\trank\n");
    for (int i = 0; i < p->block_count; i++)
        buf_printf(&b, "%d\t%d\t%d\t%s\t%d\n", i, p->blocks[i].samples, p->blocks[i].tokens, p->blocks[i].digest,
            p->blocks[i].rank);
    return write_table(p, "blocks.tsv", &b);
}

/* --- plan.json --- */

/* Everything that decides the bytes of the result, in canonical form. */
static int
fingerprint(const struct plan *p, char out[DIGEST_HEX])
{
    static const char *const keys[] = { "algorithm", "model_fingerprint", "data_fingerprint", "sequential",
        "block_tokens", "recipe", "experts", "expert_tokens" };
    struct digest d;
    char *text;

    digest_init(&d);
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (json_object_get(p->json, keys[i]) == NULL && strncmp(keys[i], "expert", 6) == 0)
            continue; /* the model has none */
        text = json_dumps(json_object_get(p->json, keys[i]), JSON_SORT_KEYS | JSON_COMPACT | JSON_ENCODE_ANY);
        digest_str(&d, text);
        mem_free(text);
    }
    return digest_hex(&d, out);
}

int
plan_write(struct plan *p)
{
    char path[PATH_MAX], *text;
    int rc;

    TRY(fingerprint(p, p->fingerprint));
    if (json_object_set_new(p->json, "fingerprint", json_string(p->fingerprint)) != 0)
        return err_set(RC_OS, "cannot build plan.json");
    TRY(plan_write_tables(p));
    TRY(plan_path(p, path, "plan.json"));
    TRY(jdump(p->json, false, &text));
    rc = file_publish(path, text, strlen(text));
    mem_free(text);
    return rc;
}

/* A relative path is seen from the work directory; one that leads nowhere is kept for messages. */
static int
resolve_model(struct plan *p, const char *model)
{
    char path[PATH_MAX], resolved[PATH_MAX];

    if (model[0] != '/')
        TRY(plan_path(p, path, "%s", model));
    else if (snprintf(path, sizeof(path), "%s", model) >= PATH_MAX)
        return err_set(RC_DATA, "%s: path is too long", model);
    p->model = mem_strdup(realpath(path, resolved) != NULL ? resolved : path);
    return p->model != NULL ? RC_OK : RC_OS;
}

static int
read_settings(struct plan *p)
{
    const char *model, *seq, *model_fp, *data_fp, *fp, *experts;
    int64_t algorithm, block_tokens, ranks, expert_tokens;

    TRY(jget_int(p->json, "algorithm", 0, 0, INT_MAX, &algorithm));
    if (algorithm != PLAN_ALGORITHM)
        return err_set(RC_DATA, "algorithm version %lld made this work directory, this program is version %d",
            (long long)algorithm, PLAN_ALGORITHM);
    TRY(jget_str(p->json, "model", "", &model));
    TRY(jget_str(p->json, "sequential", "", &seq));
    TRY(jget_str(p->json, "model_fingerprint", "", &model_fp));
    TRY(jget_str(p->json, "data_fingerprint", "", &data_fp));
    TRY(jget_str(p->json, "fingerprint", "", &fp));
    TRY(jget_int(p->json, "block_tokens", 0, 1, INT_MAX, &block_tokens));
    TRY(jget_int(p->json, "ranks", 1, 1, INT_MAX, &ranks));
    TRY(jget_str(p->json, "experts", experts_names[EXPERTS_ALL], &experts));
    TRY(jget_int(p->json, "expert_tokens", 0, 0, INT_MAX, &expert_tokens));
    p->experts = strcmp(experts, experts_names[EXPERTS_ROUTED]) == 0 ? EXPERTS_ROUTED : EXPERTS_ALL;
    p->expert_tokens = (int)expert_tokens;
    p->sequential = sequential_find(seq);
    p->block_tokens = (int)block_tokens;
    p->ranks = (int)ranks;
    (void)snprintf(p->model_fingerprint, DIGEST_HEX, "%s", model_fp);
    (void)snprintf(p->data_fingerprint, DIGEST_HEX, "%s", data_fp);
    TRY(resolve_model(p, model));
    TRY(fingerprint(p, p->fingerprint));
    if (strcmp(fp, p->fingerprint) != 0)
        return err_set(RC_DATA, "settings were changed by hand: their fingerprint does not match");
    return recipe_from_json(&p->recipe, json_object_get(p->json, "recipe"));
}

int
plan_read(struct plan *p, const char *dir)
{
    char path[PATH_MAX];
    int rc;

    *p = (struct plan){ 0 };
    if ((p->dir = mem_strdup(dir)) == NULL)
        return RC_OS;
    if ((rc = plan_path(p, path, "plan.json")) != RC_OK || (rc = jread_file(&p->json, path)) != RC_OK)
        goto out;
    if ((rc = read_settings(p)) != RC_OK)
        rc = err_at(rc, "%s", path);
    else if ((rc = read_table(p, "steps.tsv", 5, add_step)) == RC_OK &&
        (rc = read_table(p, "tasks.tsv", 11, add_task)) == RC_OK)
        rc = read_table(p, "blocks.tsv", 5, add_block);
    if (rc == RC_OK)
        rc = index_modules(p);
out:
    if (rc != RC_OK)
        plan_free(p);
    return rc;
}

void
plan_free(struct plan *p)
{
    for (int i = 0; i < p->task_count; i++) {
        mem_free(p->tasks[i].name);
        mem_free(p->tasks[i].module);
    }
    mem_free(p->steps);
    mem_free(p->tasks);
    mem_free(p->blocks);
    mem_free(p->by_module);
    mem_free(p->dir);
    mem_free(p->model);
    recipe_free(p->recipe);
    json_decref(p->json);
    *p = (struct plan){ 0 };
}

/* --- fingerprint of a checkpoint --- */

static int
add_piece(struct digest *d, const struct member *m, uint64_t at, size_t bytes, const char *path)
{
    static char piece[PIECE_BYTES];
    size_t n = m->bytes - at < bytes ? (size_t)(m->bytes - at) : bytes;

    if (pread(m->fd, piece, n, (off_t)(m->at + at)) != (ssize_t)n)
        return err_set(RC_IO, "%s: cannot read: %s", path, strerror(errno));
    digest_add(d, piece, n);
    return RC_OK;
}

static int
add_pieces(struct digest *d, const char *path, uint64_t header)
{
    struct member m;
    int rc = RC_OK;

    TRY(member_open(&m, path));
    digest_add(d, &m.bytes, sizeof(m.bytes));
    for (uint64_t at = 0; at < header && rc == RC_OK; at += PIECE_BYTES)
        rc = add_piece(d, &m, at, header - at < PIECE_BYTES ? (size_t)(header - at) : PIECE_BYTES, path);
    for (uint64_t i = 0; i < PIECES && rc == RC_OK; i++)
        rc = add_piece(d, &m, m.bytes / PIECES * i, PIECE_BYTES, path);
    (void)close(m.fd);
    return rc;
}

int
plan_model_fingerprint(const struct model *m, char out[DIGEST_HEX])
{
    char *text = json_dumps(m->config, JSON_SORT_KEYS | JSON_COMPACT);
    struct digest d;
    int rc = RC_OK;

    digest_init(&d);
    digest_str(&d, text);
    mem_free(text);
    for (int i = 0; i < m->shard_count && rc == RC_OK; i++) {
        digest_str(&d, m->shards[i].name);
        rc = add_pieces(&d, m->shards[i].st.path, m->shards[i].st.header_bytes);
    }
    if (rc != RC_OK) {
        digest_free(&d);
        return rc;
    }
    return digest_hex(&d, out);
}
