/* event - the log of a run: one JSON object a line, appended to DIR/TOOL.RANK.jsonl
 *
 *     {"time": "2025-01-31T12:00:00.123Z", "host": "n1", "rank": 0, "tool": "llmc-gptq", "event": "task",
 *      "rss": 123456789, "module": "model.layers.0.mlp.up_proj", "loss": 0.25}
 *
 * (in one line). A line is one write(2) with O_APPEND, so that a reader following the file sees whole lines and a
 * killed run leaves all but the last. Numbers that are not finite become null. The log never stops a run: the first
 * failure warns, later ones are silent. May be called from several threads.
 *
 *     event_emit(&log, "task", EVENT_STR("module", name), EVENT_INT("rows", n), EVENT_REAL("loss", loss));
 */
#ifndef LLMC_EVENT_H
#define LLMC_EVENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { EVENT_FIELDS_MAX = 24 };

struct event_log {
    int         fd;   /* -1: dropped */
    int         rank;
    char        tool[32], host[65];
    atomic_bool warned;
};

enum event_kind { EVENT_KIND_NULL, EVENT_KIND_INT, EVENT_KIND_REAL, EVENT_KIND_STR, EVENT_KIND_BOOL };

struct event_field {
    const char     *key; /* NULL ends a list */
    enum event_kind kind;
    int64_t         i;
    double          real;
    const char     *str;
};

#define EVENT_INT(k, v)  { .key = (k), .kind = EVENT_KIND_INT, .i = (int64_t)(v) }
#define EVENT_REAL(k, v) { .key = (k), .kind = EVENT_KIND_REAL, .real = (v) }
#define EVENT_STR(k, v)  { .key = (k), .kind = EVENT_KIND_STR, .str = (v) } /* NULL becomes null */
#define EVENT_BOOL(k, v) { .key = (k), .kind = EVENT_KIND_BOOL, .i = (v) }

/* DIR is made if absent; NULL gives a log that drops everything. */
void event_open(struct event_log *log, const char *dir, const char *tool, int rank);
void event_write(struct event_log *log, const char *type, const struct event_field *fields); /* log may be NULL */
void event_close(struct event_log *log);

/* The unused rest of the array is zero and so ends the list. */
#define event_emit(log, type, ...) \
    event_write((log), (type), (const struct event_field[EVENT_FIELDS_MAX + 1]){ __VA_ARGS__ })

uint64_t event_rss(void); /* bytes of this process in memory; 0: unknown */

#endif
