/* memory - of the device, under a budget: slots of members, pieces of weights and of activations, loans to the host */
#include "cuda.h"

#include "ops.cuh"

static const size_t UNIT = 512, /* bytes of a piece come in these */
    SMALL                = 64 << 10; /* a spare piece may be larger by so much and a quarter */

/* Memory that the device may be at work on goes back to the library after that. */
static void
library_free(struct cuda *c, void *p)
{
    cuda_idle(c);
    (void)cudaFree(p);
}

static void
release(struct cuda *c, int slot)
{
    if (c->slot[slot].p == NULL)
        return;
    library_free(c, c->slot[slot].p);
    c->slots -= c->slot[slot].bytes;
    c->slot[slot].p = NULL;
    c->slot[slot].bytes = 0;
}

/* What nobody uses now. */
static void
release_idle(struct cuda *c)
{
    size_t kept = 0;

    for (int i = 0; i < SLOT_COUNT; i++)
        if (c->slot[i].member != c->member)
            release(c, i);
    for (size_t i = 0; i < c->piece_count; i++) {
        if (c->piece[i].taken) {
            c->piece[kept++] = c->piece[i];
            continue;
        }
        library_free(c, c->piece[i].p);
        c->pieces -= c->piece[i].bytes;
    }
    c->piece_count = kept;
}

static int
allocate(struct cuda *c, size_t bytes, void **out)
{
    if (c->pieces + c->slots + bytes > c->budget)
        release_idle(c);
    if (c->pieces + c->slots + bytes > c->budget)
        return err_set(RC_OS, "CUDA: %zu bytes wanted, %zu of %zu are taken", bytes, c->pieces + c->slots, c->budget);
    if (cudaMalloc(out, bytes) == cudaSuccess)
        return RC_OK;
    (void)cudaGetLastError();
    release_idle(c);
    CUDA_TRY(cudaMalloc(out, bytes));
    return RC_OK;
}

int
cuda_need(struct cuda *c, int slot, size_t bytes, void **out)
{
    c->slot[slot].member = c->member;
    if (c->slot[slot].bytes < bytes) {
        release(c, slot);
        TRY(allocate(c, bytes, &c->slot[slot].p));
        c->slot[slot].bytes = bytes;
        c->slots += bytes;
    }
    *out = c->slot[slot].p;
    return RC_OK;
}

static size_t
taken_all(const struct cuda *c)
{
    return c->taken[USE_WEIGHT] + c->taken[USE_HELD] + c->taken[USE_SHARED];
}

size_t
cuda_room(const struct cuda *c)
{
    size_t taken = taken_all(c);

    return c->budget > taken ? c->budget - taken : 0;
}

/* --- pieces --- */

/* Activations have half, weights three quarters, frames a quarter; together they leave an eighth to slots. */
bool
cuda_fits(const struct cuda *c, enum cuda_use use, size_t bytes)
{
    size_t most = use == USE_HELD ? c->budget / 2 : use == USE_SHARED ? c->budget / 4 : c->budget / 4 * 3;

    return bytes <= most && c->taken[use] + bytes <= most && taken_all(c) + bytes <= c->budget / 8 * 7;
}

static struct cuda_piece *
spare(struct cuda *c, enum cuda_use use, size_t bytes)
{
    struct cuda_piece *best = NULL;

    for (size_t i = 0; i < c->piece_count; i++) {
        struct cuda_piece *p = &c->piece[i];

        if (!p->taken && p->use == use && p->bytes >= bytes && p->bytes <= bytes + bytes / 4 + SMALL &&
            (best == NULL || p->bytes < best->bytes))
            best = p;
    }
    return best;
}

/* Room in the table. */
static int
another(struct cuda *c)
{
    struct cuda_piece *all;

    if ((all = (struct cuda_piece *)mem_grow(c->piece, &c->piece_cap, c->piece_count + 1, sizeof(*all))) == NULL)
        return RC_OS;
    c->piece = all;
    return RC_OK;
}

int
cuda_take(struct cuda *c, enum cuda_use use, size_t bytes, void **out)
{
    struct cuda_piece *p;

    bytes = bytes == 0 ? UNIT : (bytes + UNIT - 1) / UNIT * UNIT;
    if (!cuda_fits(c, use, bytes))
        return err_set(RC_OS, "CUDA: no room for %zu bytes", bytes);
    if ((p = spare(c, use, bytes)) == NULL) {
        TRY(another(c));
        TRY(allocate(c, bytes, out));
        p = &c->piece[c->piece_count++];
        *p = { (char *)*out, bytes, use, false };
        c->pieces += bytes;
    }
    p->taken = true;
    c->taken[use] += p->bytes;
    *out = p->p;
    return RC_OK;
}

int
cuda_lend(struct cuda *c, void *p, size_t bytes)
{
    TRY(another(c));
    c->piece[c->piece_count++] = { (char *)p, bytes, USE_LENT, true };
    return RC_OK;
}

static struct cuda_piece *
piece_of(const struct cuda *c, const void *p)
{
    for (size_t i = 0; i < c->piece_count; i++)
        if (c->piece[i].taken && (const char *)p >= c->piece[i].p &&
            (const char *)p < c->piece[i].p + c->piece[i].bytes)
            return &c->piece[i];
    return NULL;
}

void
cuda_give(struct cuda *c, const void *p)
{
    struct cuda_piece *piece = piece_of(c, p);

    if (piece == NULL)
        return;
    if (piece->use == USE_WEIGHT && c->busy)
        cuda_idle(c); /* `in` may write to it at once */
    if (piece->use == USE_LENT) {
        *piece = c->piece[--c->piece_count];
        return;
    }
    piece->taken = false;
    c->taken[piece->use] -= piece->bytes;
}

bool
cuda_has(const struct cuda *c, const void *p)
{
    const struct cuda_piece *piece = p != NULL ? piece_of(c, p) : NULL;

    return piece != NULL && piece->use != USE_WEIGHT;
}

/* --- members --- */

void *
cuda_alloc(struct dev *dev, size_t bytes)
{
    struct cuda *c = cuda_of(dev);
    void *p;

    cuda_begin(c);
    /* The way there and back is opened first: what is on the device must not be out of reach. */
    return cuda_pins(c) == RC_OK && cuda_take(c, USE_HELD, bytes, &p) == RC_OK ? p : NULL;
}

bool
cuda_release(struct dev *dev, void *p)
{
    struct cuda *c = cuda_of(dev);

    struct cuda_piece *piece = p != NULL ? piece_of(c, p) : NULL;

    if (piece == NULL || piece->use != USE_HELD)
        return false;
    cuda_give(c, p);
    return true;
}

bool
cuda_holds(struct dev *dev, const void *p)
{
    return cuda_has(cuda_of(dev), p);
}

static int
copy_inside(struct cuda *c, void *to, size_t to_stride, const void *from, size_t from_stride, size_t width, int rows)
{
    c->busy = true;
    if (to_stride == width && from_stride == width)
        CUDA_TRY(cudaMemcpyAsync(to, from, width * (size_t)rows, cudaMemcpyDeviceToDevice, c->run));
    else
        CUDA_TRY(cudaMemcpy2DAsync(to, to_stride, from, from_stride, width, (size_t)rows, cudaMemcpyDeviceToDevice,
            c->run));
    return RC_OK;
}

/* Rows that are apart on one of the two sides only: one by one, since that is rare. */
static int
copy_across(struct cuda *c, char *to, size_t to_stride, const char *from, size_t from_stride, size_t width, int rows)
{
    bool up = cuda_has(c, to), whole = to_stride == width && from_stride == width;
    size_t bytes = whole ? width * (size_t)rows : width;

    for (size_t r = 0; r < (whole ? (size_t)(rows > 0) : (size_t)rows); r++)
        TRY(up ? cuda_upload(c, to + r * to_stride, from + r * from_stride, bytes) :
            cuda_download(c, to + r * to_stride, from + r * from_stride, bytes));
    return RC_OK;
}

int
cuda_copy(struct dev *dev, void *to, size_t to_stride, const void *from, size_t from_stride, size_t width, int rows)
{
    struct cuda *c = cuda_of(dev);

    cuda_begin(c);
    if (cuda_has(c, to) && cuda_has(c, from))
        return cuda_settle(c, copy_inside(c, to, to_stride, from, from_stride, width, rows));
    if (cuda_has(c, to) || cuda_has(c, from))
        return cuda_settle(c, copy_across(c, (char *)to, to_stride, (const char *)from, from_stride, width, rows));
    return c->cpu.copy(c->host, to, to_stride, from, from_stride, width, rows);
}

int
cuda_zero(struct dev *dev, void *p, size_t bytes)
{
    struct cuda *c = cuda_of(dev);

    if (!cuda_has(c, p))
        return c->cpu.zero(c->host, p, bytes);
    c->busy = true;
    CUDA_TRY(cudaMemsetAsync(p, 0, bytes, c->run));
    return RC_OK;
}

int
cuda_param(struct cuda *c, int slot, const void *p, size_t bytes, const void **out)
{
    void *to;

    *out = p;
    if (cuda_has(c, p))
        return RC_OK;
    TRY(cuda_need(c, slot, bytes, &to));
    *out = to;
    return cuda_upload(c, to, p, bytes);
}

/* --- loans to the host --- */

void *
cuda_borrow(struct borrow *b, const void *p, size_t bytes, int way)
{
    void *host;

    if (!cuda_has(b->c, p))
        return (void *)(uintptr_t)p;
    for (int i = 0; i < b->count; i++)
        if (b->of[i].device == p && b->of[i].bytes >= bytes) {
            b->of[i].way |= way;
            return b->of[i].host;
        }
    if ((host = mem_alloc(bytes, 1)) == NULL) {
        b->rc = RC_OS;
        return NULL;
    }
    if (b->rc == RC_OK && (way & BORROW_READ) != 0)
        b->rc = cuda_download(b->c, host, p, bytes);
    b->of[b->count].device = (void *)(uintptr_t)p;
    b->of[b->count].host = host;
    b->of[b->count].bytes = bytes;
    b->of[b->count++].way = way;
    return host;
}

int
cuda_return(struct borrow *b, int rc)
{
    for (int i = 0; i < b->count; i++) {
        if (rc == RC_OK && (b->of[i].way & BORROW_WRITE) != 0)
            rc = cuda_upload(b->c, b->of[i].device, b->of[i].host, b->of[i].bytes);
        mem_free(b->of[i].host);
    }
    return rc;
}

/* --- rows --- */

static int
rows_on_device(struct cuda *c, struct rows_kernel::args a, const int *rows, const float *weights)
{
    size_t count = (size_t)a.count;

    if (!cuda_has(c, a.y) || !cuda_has(c, a.x))
        return RC_OS; /* the host picks rows faster than it copies all of them */
    if (rows != NULL)
        TRY(cuda_param(c, SLOT_A, rows, count * sizeof(*rows), (const void **)&a.rows));
    if (weights != NULL)
        TRY(cuda_param(c, SLOT_B, weights, count * sizeof(*weights), (const void **)&a.weights));
    return a.count == 0 ? RC_OK : cuda_launch<rows_kernel>(c, a.count, 1, a);
}

static int
last_row(const int *rows, int count)
{
    int last = rows == NULL ? count - 1 : 0;

    for (int i = 0; rows != NULL && i < count; i++)
        last = rows[i] > last ? rows[i] : last;
    return last;
}

static int
gather_on_host(struct cuda *c, void *y, const void *x, const int *rows, int count, enum dtype dt, int n)
{
    struct borrow b = { c, RC_OK, 0, {} };
    size_t row = (size_t)n * dtype_size(dt);
    void *hx = cuda_borrow(&b, x, (size_t)(last_row(rows, count) + 1) * row, BORROW_READ);
    void *hy = cuda_borrow(&b, y, (size_t)count * row, BORROW_WRITE);

    return cuda_return(&b, b.rc == RC_OK ? c->cpu.gather(c->host, hy, hx, rows, count, dt, n) : b.rc);
}

int
cuda_gather(struct dev *dev, void *y, const void *x, const int *rows, int count, enum dtype dt, int n)
{
    struct cuda *c = cuda_of(dev);
    struct rows_kernel::args a = { y, x, NULL, NULL, dt, count, n };

    ON_DEVICE(c, rows_on_device(c, a, rows, NULL), gather_on_host(c, y, x, rows, count, dt, n));
}

static int
add_on_host(struct cuda *c, void *x, const int *rows, const float *weights, const void *y, int count, enum dtype dt,
    int n)
{
    struct borrow b = { c, RC_OK, 0, {} };
    size_t row = (size_t)n * dtype_size(dt);
    void *hx = cuda_borrow(&b, x, (size_t)(last_row(rows, count) + 1) * row, BORROW_READ | BORROW_WRITE);
    void *hy = cuda_borrow(&b, y, (size_t)count * row, BORROW_READ);

    return cuda_return(&b, b.rc == RC_OK ? c->cpu.add_rows(c->host, hx, rows, weights, hy, count, dt, n) : b.rc);
}

int
cuda_add_rows(struct dev *dev, void *x, const int *rows, const float *weights, const void *y, int count, enum dtype dt,
    int n)
{
    struct cuda *c = cuda_of(dev);
    struct rows_kernel::args a = { x, y, NULL, NULL, dt, count, n };

    ON_DEVICE(c, rows_on_device(c, a, rows, weights), add_on_host(c, x, rows, weights, y, count, dt, n));
}
