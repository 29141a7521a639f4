/* text_ids - token ids in .npy and safetensors files */
#include "text_ids.h"

#include "mem.h"
#include "msg.h"

#include <string.h>

enum { NPY_PREFIX = 10, ROW_TOKENS_MAX = 1 << 28 };

static const struct {
    const char *npy;
    enum dtype  dtype; /* in safetensors */
    size_t      size;
} types[] = {
    [ID_I32] = { "<i4", DT_I32, 4 },
    [ID_I64] = { "<i8", DT_I64, 8 },
    [ID_U16] = { "<u2", DT_NONE, 2 },
    [ID_U32] = { "<u4", DT_NONE, 4 },
};

/* --- .npy: "\x93NUMPY", version, u16 or u32 LE length, a Python dict, data --- */

bool
npy_is(const char *s, size_t len)
{
    return len >= NPY_PREFIX && memcmp(s, "\x93NUMPY", 6) == 0;
}

/* The text after 'key': in the header; NULL: there is none. */
static const char *
npy_value(const char *header, const char *key)
{
    const char *p = strstr(header, key);

    if (p == NULL)
        return NULL;
    p += strlen(key);
    p += strspn(p, " ");
    if (*p++ != ':')
        return NULL;
    return p + strspn(p, " ");
}

static int
npy_type(struct npy *n, const char *header)
{
    const char *p = npy_value(header, "'descr'");
    size_t len = p != NULL && *p == '\'' ? strcspn(p + 1, "'") : 0;

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (len == 3 && memcmp(p + 1, types[i].npy, 3) == 0) {
            n->type = (enum id_type)i;
            return RC_OK;
        }
    return err_set(RC_DATA, "npy: type %.*s, want int32, int64, uint16 or uint32, little-endian", (int)len + 2,
        len > 0 ? p : "?");
}

/* Rows of no tokens could be any number of samples. */
static int
check_rows(int64_t rows, int64_t cols)
{
    if (rows > INT32_MAX)
        return err_set(RC_DATA, "%lld samples, want %d at most", (long long)rows, INT32_MAX);
    if (rows > 0 && (cols < 1 || cols > ROW_TOKENS_MAX))
        return err_set(RC_DATA, "rows of %lld tokens, want 1 to %d", (long long)cols, ROW_TOKENS_MAX);
    return RC_OK;
}

static int
npy_shape(struct npy *n, const char *header)
{
    const char *p = npy_value(header, "'shape'");
    int64_t dim[2] = { 0, 0 };
    int ndim = 0;

    if (p == NULL || *p++ != '(')
        return err_set(RC_DATA, "npy: header without a shape");
    while (*p != ')') {
        size_t digits = strspn(p, "0123456789");

        if (digits == 0 || digits > 15 || ndim == 2)
            return err_set(RC_DATA, "npy: shape (%.40s, want one or two dimensions", p);
        for (size_t i = 0; i < digits; i++)
            dim[ndim] = dim[ndim] * 10 + (p[i] - '0');
        ndim++;
        p += digits;
        p += strspn(p, ", ");
    }
    if (ndim == 0)
        return err_set(RC_DATA, "npy: shape (), want one or two dimensions");
    n->rows = ndim == 1 ? -1 : dim[0];
    n->cols = dim[ndim - 1];
    return ndim == 1 ? RC_OK : check_rows(n->rows, n->cols);
}

int
npy_parse(struct npy *n, const char *s, size_t len)
{
    const unsigned char *u = (const unsigned char *)s;
    char header[NPY_HEADER_MAX + 1];
    size_t prefix = u[6] == 1 ? NPY_PREFIX : NPY_PREFIX + 2, bytes;
    const char *order;

    if (u[6] < 1 || u[6] > 3)
        return err_set(RC_DATA, "npy: version %d, want 1 to 3", u[6]);
    if (len < prefix)
        return err_set(RC_DATA, "npy: ends inside its header");
    bytes = (size_t)u[8] | (size_t)u[9] << 8;
    if (u[6] > 1)
        bytes |= (size_t)u[10] << 16 | (size_t)u[11] << 24;
    if (bytes > NPY_HEADER_MAX - prefix || bytes > len - prefix)
        return err_set(RC_DATA, "npy: header of %zu bytes does not fit", bytes);
    memcpy(header, s + prefix, bytes);
    header[bytes] = '\0';
    *n = (struct npy){ .header = prefix + bytes };
    TRY(npy_type(n, header));
    TRY(npy_shape(n, header));
    order = npy_value(header, "'fortran_order'");
    if (order == NULL || (n->rows >= 0 && strncmp(order, "False", 5) != 0))
        return err_set(RC_DATA, "npy: want rows one after the other (fortran_order False)");
    return RC_OK;
}

/* --- integers --- */

size_t
ids_size(enum id_type type)
{
    return types[type].size;
}

int
ids_from(int32_t *out, const void *raw, size_t n, enum id_type type, int64_t row)
{
    const unsigned char *p = raw;
    size_t size = types[type].size;

    for (size_t i = 0; i < n; i++, p += size) {
        uint64_t v = 0;

        for (size_t k = size; k-- > 0;)
            v = v << 8 | p[k]; /* of negative ones the top bit is set, beyond any id */
        if (v > INT32_MAX)
            return err_set(RC_DATA, "sample %lld: item %zu is not a token id", (long long)row + 1, i);
        out[i] = (int32_t)v;
    }
    return RC_OK;
}

int
ids_unpad(const uint8_t *mask, size_t n, bool keep, size_t *first, size_t *count)
{
    size_t from = 0, to = n;

    while (from < n && mask[from] == 0)
        from++;
    while (to > from && mask[to - 1] == 0)
        to--;
    for (size_t i = from; i < to; i++)
        if (mask[i] == 0)
            return err_set(RC_DATA, "attention_mask is 0 at %zu, between tokens that count", i);
    if (keep && from > 0 && from < n)
        return err_set(RC_DATA, "padding before tokens cannot be counted: they would see it");
    *first = keep ? 0 : from;
    *count = keep ? n : to - from;
    return RC_OK;
}

/* --- safetensors --- */

bool
idrows_is(const char *s, size_t len)
{
    uint64_t n = 0;

    for (int i = 7; i >= 0 && len >= 9; i--)
        n = n << 8 | (unsigned char)s[i];
    return len >= 9 && n >= 2 && n <= ST_HEADER_MAX && s[8] == '{';
}

static int
check_shapes(const struct idrows *r)
{
    const struct tensor *ids = r->ids;
    enum id_type type;
    int64_t used = 0, most = ids->ndim == 2 ? ids->shape[1] : ids->shape[0], n;

    if (ids->ndim != 1 && ids->ndim != 2)
        return err_set(RC_DATA, "input_ids has %d dimensions, want 1 or 2", ids->ndim);
    if (ids->ndim == 2)
        TRY(check_rows(ids->shape[0], ids->shape[1]));
    if (r->mask != NULL && r->lengths != NULL)
        return err_set(RC_DATA, "both attention_mask and lengths");
    if (r->mask != NULL) {
        if (ids->ndim != 2)
            return err_set(RC_DATA, "attention_mask wants input_ids [samples, length]");
        TRY(tensor_want(r->mask, DT_NONE, 2, ids->shape));
    }
    if (r->lengths == NULL)
        return RC_OK;
    if (r->lengths->ndim != 1 || (r->lengths->dtype != DT_I32 && r->lengths->dtype != DT_I64))
        return err_set(RC_DATA, "lengths is not I32 or I64 [samples]");
    type = r->lengths->dtype == DT_I32 ? ID_I32 : ID_I64;
    n = r->lengths->shape[0];
    if (ids->ndim == 2 && n != ids->shape[0])
        return err_set(RC_DATA, "lengths has %lld items for %lld samples", (long long)n, (long long)ids->shape[0]);
    for (int64_t i = 0; i < n; i++) {
        const char *at = (const char *)r->lengths->data + (size_t)i * types[type].size;
        int32_t v = 0;

        if (ids_from(&v, at, 1, type, i) != RC_OK || v > most)
            return err_set(RC_DATA, "lengths: item %lld is not a length", (long long)i);
        used += v;
    }
    if (ids->ndim == 1 && used != most)
        return err_set(RC_DATA, "lengths sum to %lld, input_ids has %lld tokens", (long long)used, (long long)most);
    return RC_OK;
}

int
idrows_open(struct idrows *r, const char *name, const void *data, size_t bytes, bool keep_padding)
{
    *r = (struct idrows){ .keep_padding = keep_padding };
    TRY(st_read_mem(&r->st, name, data, bytes));
    TRY(st_get(&r->st, "input_ids", &r->ids));
    r->mask = st_find(&r->st, "attention_mask");
    r->lengths = st_find(&r->st, "lengths");
    if (r->ids->dtype != DT_I32 && r->ids->dtype != DT_I64)
        return err_set(RC_DATA, "%s: input_ids is %s, want I32 or I64", name, dtype_name(r->ids->dtype));
    r->type = r->ids->dtype == DT_I32 ? ID_I32 : ID_I64;
    return check_shapes(r) == RC_OK ? RC_OK : err_at(RC_DATA, "%s", name);
}

static int64_t
length_of(const struct idrows *r)
{
    int32_t v = 0;
    enum id_type type = r->lengths->dtype == DT_I32 ? ID_I32 : ID_I64;

    (void)ids_from(&v, (const char *)r->lengths->data + (size_t)r->row * types[type].size, 1, type, 0);
    return v;
}

/* Cuts the row in r->v to where its mask is not zero, in whatever type. */
static int
apply_mask(struct idrows *r, size_t n, size_t *first, size_t *count)
{
    size_t size = dtype_size(r->mask->dtype);
    const char *m = (const char *)r->mask->data + (size_t)r->row * n * size;
    uint8_t *bits = mem_grow(r->bits, &r->bits_cap, n + 1, 1);
    static const char zero[8];

    if (bits == NULL)
        return RC_OS;
    r->bits = bits;
    for (size_t i = 0; i < n; i++)
        bits[i] = memcmp(m + i * size, zero, size) != 0;
    if (ids_unpad(bits, n, r->keep_padding, first, count) != RC_OK)
        return err_at(RC_DATA, "sample %lld", (long long)r->row + 1);
    return RC_OK;
}

int
idrows_next(struct idrows *r, const int32_t **ids, size_t *count, bool *stream)
{
    bool flat = r->ids->ndim == 1;
    int64_t rows = !flat ? r->ids->shape[0] : r->lengths != NULL ? r->lengths->shape[0] : 1;
    int64_t width = !flat ? r->ids->shape[1] : r->lengths != NULL && r->row < rows ? length_of(r) : r->ids->shape[0];
    size_t first = 0, n = (size_t)width;
    int32_t *v;

    if (r->row >= rows)
        return RC_RETRY;
    if ((v = mem_grow(r->v, &r->v_cap, n + 1, sizeof(*v))) == NULL)
        return RC_OS;
    r->v = v;
    TRY(ids_from(v, (const char *)r->ids->data + (size_t)r->at * types[r->type].size, n, r->type, r->row));
    if (r->mask != NULL)
        TRY(apply_mask(r, (size_t)width, &first, &n));
    else if (!flat && r->lengths != NULL && !r->keep_padding)
        n = (size_t)length_of(r);
    r->at += width;
    r->row++;
    *ids = v + first;
    *count = n;
    *stream = flat && r->lengths == NULL;
    return RC_OK;
}

void
idrows_close(struct idrows *r)
{
    st_close(&r->st);
    mem_free(r->v);
    mem_free(r->bits);
    *r = (struct idrows){ 0 };
}
