/* progress - how far a tool is, its rate, and the time left */
#include "progress.h"

#include "run.h"

#include <stdarg.h>
#include <stdio.h>

enum { PLAIN_SECONDS = 30, TEXT_MAX = 320 };

void
progress_start(struct progress *p, const char *tool, const char *unit, int total)
{
    *p = (struct progress){ .tool = tool, .unit = unit, .total = total, .start = run_clock(), .said = run_clock() };
}

void
progress_step(struct progress *p, const char *what, ...)
{
    double seconds = run_clock() - p->start, rate = ++p->done / (seconds > 1e-3 ? seconds : 1e-3);
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
    } else if (run_clock() - p->said >= PLAIN_SECONDS) {
        msg_info(NULL, "%s", line);
        p->said = run_clock();
    }
}
