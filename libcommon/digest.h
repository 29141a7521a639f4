/* digest - SHA-256 of streams, memory and files, as lower-case hex
 *
 * digest_init, digest_add any number of times, then digest_hex, which also releases; digest_free for leaving early.
 * A failure inside sticks and is returned by digest_hex.
 */
#ifndef LLMC_DIGEST_H
#define LLMC_DIGEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum { DIGEST_HEX = 65 }; /* 64 digits and the terminator */

struct digest {
    void *ctx;
    bool  failed;
};

void digest_init(struct digest *d);
void digest_add(struct digest *d, const void *data, size_t bytes);
/* A string with its terminator, so that "ab", "c" differs from "a", "bc". NULL adds as "". */
void digest_str(struct digest *d, const char *s);
int  digest_hex(struct digest *d, char out[DIGEST_HEX]); /* RC_OS */
void digest_free(struct digest *d);

int digest_mem(const void *data, size_t bytes, char out[DIGEST_HEX]);
int digest_file(const char *path, char out[DIGEST_HEX]); /* RC_NOINPUT, RC_IO; RC_RETRY: stop.h */
int digest_file_until(const char *path, const atomic_bool *quit, char out[DIGEST_HEX]); /* RC_RETRY: also when set */

#endif
