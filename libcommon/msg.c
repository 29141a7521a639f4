/* msg - exit codes, the thread's last error, and the one door to stderr */
#include "msg.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_MAX = 2048 };

static _Thread_local char err_buf[TEXT_MAX];

static const char *tool_name = "llmc";
static int  my_rank, rank_count = 1;
static bool quiet_mode;
static atomic_bool status_shown;
static int  stdout_errno;

int
err_set(int rc, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(err_buf, sizeof(err_buf), fmt, ap);
    va_end(ap);
    return rc;
}

int
err_at(int rc, const char *fmt, ...)
{
    char old[TEXT_MAX];
    va_list ap;
    int n;

    memcpy(old, err_buf, sizeof(old));
    va_start(ap, fmt);
    n = vsnprintf(err_buf, sizeof(err_buf), fmt, ap);
    va_end(ap);
    if (n >= 0 && n < TEXT_MAX - 3)
        (void)snprintf(err_buf + n, sizeof(err_buf) - (size_t)n, ": %.*s", TEXT_MAX - 3 - n, old);
    return rc;
}

const char *
err_text(void)
{
    return err_buf;
}

int
rc_worse(int a, int b)
{
    if (a == RC_OK || (a == RC_RETRY && b != RC_OK))
        return b;
    return a;
}

void
msg_tool(const char *name)
{
    tool_name = name;
}

void
msg_rank(int rank, int ranks)
{
    my_rank = rank;
    rank_count = ranks;
}

bool
msg_is_terminal(void)
{
    return isatty(STDERR_FILENO) == 1;
}

void
msg_quiet(bool quiet)
{
    quiet_mode = quiet;
}

/* Tensor names come from files: a control byte must not reach a terminal. UTF-8 passes. */
static void
mask_controls(char *s)
{
    for (; *s != '\0'; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
}

void
msg_clear_status(void)
{
    if (!atomic_exchange(&status_shown, false))
        return;
    if (write(STDERR_FILENO, "\r\033[K", 4) < 0)
        return; /* nowhere left to report it */
}

static void
emit(const char *kind, const char *subject, const char *fmt, va_list ap)
{
    char line[2 * TEXT_MAX + 256], text[TEXT_MAX], rank[32] = "";
    int n;
    ssize_t done;

    (void)vsnprintf(text, sizeof(text), fmt, ap);
    if (rank_count > 1)
        (void)snprintf(rank, sizeof(rank), "[%d]", my_rank);
    n = snprintf(line, sizeof(line) - 1, "%s%s: %s%s%s%s", tool_name, rank, kind,
        subject != NULL ? subject : "", subject != NULL ? ": " : "", text);
    if (n < 0)
        return;
    mask_controls(line);
    n = (int)strlen(line);
    line[n++] = '\n';
    msg_clear_status();
    done = write(STDERR_FILENO, line, (size_t)n);
    (void)done; /* nowhere left to report it */
}

#define EMIT(kind, subject, fmt)             \
    do {                                     \
        va_list ap_;                         \
        va_start(ap_, fmt);                  \
        emit((kind), (subject), (fmt), ap_); \
        va_end(ap_);                         \
    } while (0)

void
msg_error(const char *subject, const char *fmt, ...)
{
    EMIT("", subject, fmt);
}

void
msg_warn(const char *subject, const char *fmt, ...)
{
    EMIT("warning: ", subject, fmt);
}

void
msg_info(const char *subject, const char *fmt, ...)
{
    if (!quiet_mode)
        EMIT("", subject, fmt);
}

void
msg_status(const char *fmt, ...)
{
    char line[256], text[240];
    va_list ap;
    ssize_t done;
    int n;

    if (quiet_mode || !msg_is_terminal())
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    mask_controls(text);
    n = snprintf(line, sizeof(line), "\r\033[K%s", text);
    done = write(STDERR_FILENO, line, (size_t)n);
    (void)done;
    status_shown = true;
}

int
msg_flush_stdout(void)
{
    if (fflush(stdout) != 0 && stdout_errno == 0)
        stdout_errno = errno;
    return stdout_errno == 0 ? RC_OK : err_set(RC_IO, "stdout: cannot write: %s", strerror(stdout_errno));
}

int
msg_close_stdout(int rc)
{
    if (msg_flush_stdout() == RC_OK || (rc != RC_OK && rc != RC_RETRY))
        return rc;
    msg_error(NULL, "%s", err_text());
    return RC_IO;
}

void
die(int rc, const char *fmt, ...)
{
    EMIT("", NULL, fmt);
    exit(rc);
}
