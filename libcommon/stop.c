/* stop - signals that ask a tool to stop at the next safe place */
#include "stop.h"

#include "clock.h"
#include "file.h"
#include "msg.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t asked;
static double first; /* seconds; written by the handler alone, which does not interrupt itself */

static void
ask(int sig)
{
    if (!asked) {
        first = clock_seconds();
        asked = 1;
    } else if (1000 * (clock_seconds() - first) >= STOP_SAME_MS) {
        file_cleanup_signal_safe();
        (void)signal(sig, SIG_DFL);
        (void)raise(sig); /* comes when we return */
    }
}

void
stop_install(void)
{
    static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1 };
    struct sigaction a = { .sa_handler = ask };

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        (void)sigaddset(&a.sa_mask, signals[i]);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        (void)sigaction(signals[i], &a, NULL);
}

bool
stop_asked(void)
{
    return asked != 0;
}

int
stop_check(void)
{
    return asked ? err_set(RC_RETRY, "stopped by a signal; the same command goes on") : RC_OK;
}
