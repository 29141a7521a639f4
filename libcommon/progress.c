/* progress - how far a tool is, its rate, and the time left */
#include "progress.h"

#include "clock.h"

#include <stdarg.h>
#include <stdio.h>

enum { PLAIN_SECONDS = 30, TEXT_MAX = 320 };

void
progress_start(struct progress *p, const char *tool, const char *unit, int total)
{
    double now = clock_seconds();

    *p = (struct progress){ .tool = tool, .unit = unit, .total = total, .start = now, .said = now };
}

void
progress_step(struct progress *p, const char *what, ...)
{
    double seconds = clock_seconds() - p->start, rate = ++p->done / (seconds > 1e-3 ? seconds : 1e-3);
    int left = (int)((p->total - p->done) / rate + 0.5);
    char text[TEXT_MAX], line[2 * TEXT_MAX];
    va_list ap;

    va_start(ap, what);
    (void)vsnprintf(text, sizeof(text), what, ap);
    va_end(ap);
    (void)snprintf(line, sizeof(line), "%d of %d %s, %.2f a second, %d:%02d left, %s", p->done, p->total, p->unit, rate,
        left / 60, left % 60, text);
    if (msg_is_terminal()) {
        msg_status("%s: %s", p->tool, line);
    } else if (clock_seconds() - p->said >= PLAIN_SECONDS) {
        msg_info(NULL, "%s", line);
        p->said = clock_seconds();
    }
}
