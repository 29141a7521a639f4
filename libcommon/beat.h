/* beat - a process's sign of life, and its neighbours'
 *
 * DIR/NAME is one line "HOST PID STATE NUMBER [JOB]", STATE being "running", "done" or "failed"; a thread touches it
 * every second while the process runs, so that long arithmetic is no silence, and a stopped process is. NUMBER is the
 * exit status of what failed; of a running rank, the seconds of silence after which it is lost. JOB is a word that the
 * ranks of one launch share with no earlier one.
 *
 * The stages of one rank look after each other: RANK is llmc-hessian, RANK.calib and RANK.gptq are its neighbours in
 * the pipe. A neighbour on this host that was seen alive and then is silent for the rank's time limit is killed, since
 * it would keep all others waiting: what is left then ends as after any other death.
 */
#ifndef LLMC_BEAT_H
#define LLMC_BEAT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum { BEAT_SECONDS = 1, BEAT_STAGES = 3, BEAT_PATH_MAX = 4096, BEAT_JOB = 17 };

struct sign {
    char    host[65], state[16], job[BEAT_JOB];
    long    pid;
    int     number;
    int64_t stamp;      /* of the file, by the file system's clock */
};

struct neighbour {
    char    path[BEAT_PATH_MAX];
    int64_t stamp;
    double  heard;
    bool    seen;       /* alive, in this run */
};

struct beat {
    char             path[BEAT_PATH_MAX], host[65], job[BEAT_JOB];
    int              limit;     /* seconds; 0: that of the rank's sign */
    int64_t          born;      /* by the file system's clock */
    double           looked, woke; /* by ours; woke: when we were last stopped ourselves, silence before says nothing */
    struct neighbour stage[BEAT_STAGES - 1];
    pthread_t        thread;
    pthread_mutex_t  lock;
    pthread_cond_t   ended;
    bool             beating, end;
};

/* stage: "calib", "gptq", or NULL for the rank itself, which has a limit. job: "" where it is not known.
 * RC_CANTCREATE, RC_IO, RC_OS. */
int  beat_open(struct beat *b, const char *dir, int rank, const char *stage, int limit, const char *job);
/* Leaves word how we ended. Harmless on a zeroed struct. */
void beat_close(struct beat *b, int rc);
double beat_woke(struct beat *b);

/* DIR/RANK of a rank's llmc-hessian, stage NULL, or DIR/RANK.STAGE. RC_DATA: too long. */
int  sign_path(char out[BEAT_PATH_MAX], const char *dir, int rank, const char *stage);
/* False: there is no such file, or none of ours. */
bool sign_read(struct sign *s, const char *path);
/* Its process is there, or on another host. */
bool sign_alive(const struct sign *s, const char *host);
void sign_host(char out[65]);

#endif
