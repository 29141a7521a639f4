/* digests - SHA-256 of the files that a model consists of
 *
 * The source of a large model is several times what llmc-pack writes, so that reading it takes longer than writing.
 * Hence llmc-gptq has a thread that reads the source's shards while it compresses, of several ranks each its share,
 * and leaves notes: WORKDIR/digests/SHARD.sha256, a line "HEX SIZE CHANGED". Whoever wants digests reads shards of
 * which there is no note, or one of another size or time of change (model_stamp). A note that is lost costs time alone.
 */
#ifndef LLMC_DIGESTS_H
#define LLMC_DIGESTS_H

#include "digest.h"
#include "model.h"
#include "pool.h"

#include <pthread.h>
#include <stdint.h>

/* Of every file by name; a file a thread. dir: the work directory, or NULL. RC_NOINPUT, RC_IO. */
int digests_of(const struct model *m, struct pool *pool, const char *dir, json_t **out);

struct shard_digest {
    char    hex[DIGEST_HEX]; /* "": none */
    int64_t stamp[2];
};

/* Zero-initialise. */
struct digests {
    const struct model  *m;
    const char          *dir;
    int                  rank, ranks;
    struct shard_digest *shard;
    pthread_t            thread;
    atomic_bool          quit;
    bool                 begun;
};

/* Reads shards rank, rank + ranks, ... of which there is no note, behind all other work. RC_OS. */
int digests_begin(struct digests *d, const struct model *m, const char *dir, int rank, int ranks);
/* Waits for the rest, or, wait being false, does without; leaves notes. Harmless if it was not begun. RC_IO,
 * RC_CANTCREATE. */
int digests_end(struct digests *d, bool wait);

#endif
