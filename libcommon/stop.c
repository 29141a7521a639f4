/* stop - signals that ask a tool to stop at the next safe place */
#include "stop.h"

#include "msg.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t asked;

static void
ask(int sig)
{
    (void)sig;
    asked = 1;
}

void
stop_install(void)
{
    static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1 };
    struct sigaction a = { .sa_handler = ask, .sa_flags = (int)SA_RESETHAND };

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
