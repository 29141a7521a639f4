/* event - the log of a run: one JSON object a line, appended to DIR/TOOL.RANK.jsonl */
#include "event.h"

#include "file.h"
#include "json.h"
#include "mem.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void
warn_once(struct event_log *log, const char *why)
{
    if (!atomic_exchange(&log->warned, true))
        msg_warn("log", "%s; the run goes on without it", why);
}

void
event_open(struct event_log *log, const char *dir, const char *tool, int rank)
{
    char name[64], *path;

    *log = (struct event_log){ .fd = -1, .rank = rank };
    (void)snprintf(log->tool, sizeof(log->tool), "%s", tool);
    if (gethostname(log->host, sizeof(log->host) - 1) != 0)
        (void)snprintf(log->host, sizeof(log->host), "unknown");
    if (dir == NULL)
        return;
    (void)snprintf(name, sizeof(name), "%s.%d.jsonl", log->tool, rank);
    if (file_mkdir(dir) != RC_OK || (path = file_join(dir, name)) == NULL) {
        warn_once(log, err_text());
        return;
    }
    if ((log->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666)) < 0) {
        (void)err_set(RC_CANTCREATE, "%s: cannot open: %s", path, strerror(errno));
        warn_once(log, err_text());
    }
    mem_free(path);
}

static void
put_field(struct buf *b, const struct event_field *f)
{
    jput_str(b, f->key);
    buf_puts(b, ": ");
    if (f->kind == EVENT_KIND_INT)
        buf_printf(b, "%lld", (long long)f->i);
    else if (f->kind == EVENT_KIND_REAL && isfinite(f->real))
        buf_printf(b, "%.9g", f->real);
    else if (f->kind == EVENT_KIND_BOOL)
        buf_puts(b, f->i != 0 ? "true" : "false");
    else if (f->kind == EVENT_KIND_STR && f->str != NULL)
        jput_str(b, f->str);
    else
        buf_puts(b, "null");
}

static void
put_time(struct buf *b)
{
    struct timespec now = { 0 };
    struct tm tm;
    char text[32];

    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &tm);
    (void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    buf_printf(b, "{\"time\": \"%s.%03ldZ\", ", text, now.tv_nsec / 1000000);
}

void
event_write(struct event_log *log, const char *type, const struct event_field *fields)
{
    struct buf b = { 0 };
    ssize_t n;

    if (log == NULL || log->fd < 0)
        return;
    const struct event_field head[] = {
        EVENT_STR("host", log->host), EVENT_INT("rank", log->rank), EVENT_STR("tool", log->tool),
        EVENT_STR("event", type), EVENT_INT("rss", event_rss()),
    };
    put_time(&b);
    for (size_t i = 0; i < sizeof(head) / sizeof(head[0]); i++) {
        buf_puts(&b, i > 0 ? ", " : "");
        put_field(&b, &head[i]);
    }
    for (; fields->key != NULL; fields++) {
        buf_puts(&b, ", ");
        put_field(&b, fields);
    }
    buf_puts(&b, "}\n");
    if (!buf_ok(&b)) {
        warn_once(log, err_text());
    } else if ((n = write(log->fd, b.s, b.len)) != (ssize_t)b.len) {
        (void)err_set(RC_IO, "cannot write: %s", n < 0 ? strerror(errno) : "short write");
        warn_once(log, err_text());
    }
    buf_free(&b);
}

void
event_close(struct event_log *log)
{
    if (log->fd >= 0 && close(log->fd) != 0)
        warn_once(log, strerror(errno));
    log->fd = -1;
}

uint64_t
event_rss(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (f == NULL)
        return 0;
    if (fscanf(f, "%*s %llu", &pages) != 1)
        pages = 0;
    (void)fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}
