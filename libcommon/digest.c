/* digest - SHA-256 of streams, memory and files, as lower-case hex */
#include "digest.h"

#include "mem.h"
#include "member.h"
#include "msg.h"
#include "stop.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SHA256_BYTES = 32, CHUNK = 1 << 18 };

void
digest_init(struct digest *d)
{
    d->ctx = EVP_MD_CTX_new();
    d->failed = d->ctx == NULL || EVP_DigestInit_ex(d->ctx, EVP_sha256(), NULL) != 1;
}

void
digest_add(struct digest *d, const void *data, size_t bytes)
{
    if (!d->failed)
        d->failed = EVP_DigestUpdate(d->ctx, data, bytes) != 1;
}

void
digest_str(struct digest *d, const char *s)
{
    if (s == NULL)
        s = "";
    digest_add(d, s, strlen(s) + 1);
}

int
digest_hex(struct digest *d, char out[DIGEST_HEX])
{
    unsigned char sum[SHA256_BYTES] = { 0 };
    bool failed = d->failed || EVP_DigestFinal_ex(d->ctx, sum, NULL) != 1;

    digest_free(d);
    for (int i = 0; i < SHA256_BYTES; i++)
        (void)snprintf(out + 2 * i, 3, "%02x", sum[i]);
    return failed ? err_set(RC_OS, "cannot compute SHA-256") : RC_OK;
}

void
digest_free(struct digest *d)
{
    EVP_MD_CTX_free(d->ctx);
    *d = (struct digest){ .failed = true };
}

int
digest_mem(const void *data, size_t bytes, char out[DIGEST_HEX])
{
    struct digest d;

    digest_init(&d);
    digest_add(&d, data, bytes);
    return digest_hex(&d, out);
}

int
digest_file(const char *path, char out[DIGEST_HEX])
{
    atomic_bool never = false;

    return digest_file_until(path, &never, out);
}

int
digest_file_until(const char *path, const atomic_bool *quit, char out[DIGEST_HEX])
{
    struct digest d = { 0 };
    struct member m;
    char *chunk = NULL;
    uint64_t left;
    size_t got;
    int rc;

    TRY(member_open(&m, path));
    left = m.bytes;
    digest_init(&d);
    rc = (chunk = mem_alloc(CHUNK, 1)) != NULL ? RC_OK : RC_OS;
    do {
        got = 0;
        if (rc == RC_OK) /* of a large file, seconds */
            rc = atomic_load(quit) ? err_set(RC_RETRY, "%s: given up", path) : stop_check();
        if (rc == RC_OK && (rc = member_read(&m, &left, chunk, CHUNK, &got)) != RC_OK)
            (void)err_at(rc, "%s", path);
        digest_add(&d, chunk, got);
    } while (rc == RC_OK && got == CHUNK);
    if (rc == RC_OK)
        rc = digest_hex(&d, out);
    else
        digest_free(&d);
    mem_free(chunk);
    (void)close(m.fd);
    return rc;
}
