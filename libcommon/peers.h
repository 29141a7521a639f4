/* peers - which of the other ranks are still there
 *
 * Each rank keeps a sign of life (beat.h). peers_check looks at all of them, once a second at most. A rank that failed,
 * whose process is gone, that has not started or that shows no sign of life within the time limit is an RC_RETRY whose
 * sentence names it. What an earlier run left there is told from this one's by the launch that it names, else by its
 * age.
 */
#ifndef LLMC_PEERS_H
#define LLMC_PEERS_H

#include "beat.h"

enum { PEERS_FRESH_SECONDS = 10 };

struct peer {
    bool    seen, done; /* in this run */
    int64_t stamp;      /* of its file, by the file system's clock */
    double  heard;      /* when we saw that, or that it was done, by ours */
};

struct peers {
    char        *dir;
    int          rank, ranks, timeout;
    struct peer *peer;  /* [ranks] */
    double       checked;
    struct beat  beat;
};

/* timeout in seconds; job as in beat.h. RC_CANTCREATE, RC_IO, RC_OS. */
int  peers_open(struct peers *p, const char *dir, int rank, int ranks, int timeout, const char *job);
/* Tells the others how we ended. Harmless on a zeroed struct. */
void peers_close(struct peers *p, int rc);

int peers_check(struct peers *p);
/* RC_RETRY: somebody waits for what this rank has not given, but it has ended; as of some seconds ago, so that what it
 * gave last is not overtaken by its end. */
int peers_expect(const struct peers *p, int rank);

/* RC_RETRY, naming it, when some rank of DIR runs on this machine, or elsewhere touched its file within the last
 * PEERS_FRESH_SECONDS. */
int peers_none(const char *dir);

#endif
