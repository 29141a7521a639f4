/* msg - exit codes, the thread's last error, and the one door to stderr
 *
 * A library function returns RC_OK or another RC_ code and leaves one sentence with err_set(); whoever reports it
 * prints "tool: subject: sentence" with msg_error() or leaves with die(). Each message is composed whole, its control
 * bytes masked, and written by one write(2), so that ranks and threads never mix lines.
 */
#ifndef LLMC_MSG_H
#define LLMC_MSG_H

#include <stdbool.h>

/* After sysexits.h, so that scripts can choose without reading text. */
enum rc {
    RC_OK          = 0,
    RC_DIFFER      = 1,  /* a check found a difference */
    RC_USAGE       = 64, /* wrong options */
    RC_DATA        = 65, /* malformed input */
    RC_NOINPUT     = 66, /* absent input */
    RC_UNAVAILABLE = 69, /* backend or rank not there */
    RC_BUG         = 70, /* our invariant does not hold */
    RC_OS          = 71, /* memory, processes */
    RC_CANTCREATE  = 73, /* output cannot be created */
    RC_IO          = 74, /* read or write failed */
    RC_RETRY       = 75, /* an earlier stage or another rank is not finished */
    RC_NUMERIC     = 76, /* not finite, not positive definite */
};

/* Returns from the calling function with the status of expr unless that is RC_OK. */
#define TRY(expr)                    \
    do {                             \
        int rc_ = (expr);            \
        if (rc_ != RC_OK)            \
            return rc_;              \
    } while (0)

#define PRINTF(f, a) __attribute__((format(printf, f, a)))

/* Both keep their text per thread. err_set returns rc; err_at puts "subject: " before the text that is there. */
int         err_set(int rc, const char *fmt, ...) PRINTF(2, 3);
int         err_at(int rc, const char *fmt, ...) PRINTF(2, 3);
const char *err_text(void);

/* The status a tool ends with after seeing both: any failure beats RC_RETRY, RC_RETRY beats RC_OK; else the first. */
int rc_worse(int a, int b);

void msg_tool(const char *name);  /* kept, not copied */
void msg_rank(int rank, int ranks);
bool msg_is_terminal(void);

void msg_error(const char *subject, const char *fmt, ...) PRINTF(2, 3); /* subject may be NULL */
void msg_warn(const char *subject, const char *fmt, ...) PRINTF(2, 3);
void msg_info(const char *subject, const char *fmt, ...) PRINTF(2, 3);
void msg_quiet(bool quiet); /* drops msg_info and msg_status */

/* A line rewritten in place on a terminal and dropped elsewhere; the next message clears it. */
void msg_status(const char *fmt, ...) PRINTF(1, 2);
void msg_clear_status(void); /* before something else goes to the same terminal */

/* Flushes stdout; RC_IO with err_set, now and ever after, once a write to it failed. */
int msg_flush_stdout(void);
/* The same at the end of a tool: reports it unless rc tells of something worse, and returns the status to end with. */
int msg_close_stdout(int rc);

_Noreturn void die(int rc, const char *fmt, ...) PRINTF(2, 3);

#endif
