/* stop - TERM, INT, HUP and USR1 ask a tool to stop at the next safe place, where it ends with RC_RETRY
 *
 * A second signal ends it at once. What comes within a quarter of a second of the first is the same request: a terminal
 * or a launcher tells the whole process group, and a shell in it passes on what it was told. What was published stays;
 * a rerun goes on from there.
 */
#ifndef LLMC_STOP_H
#define LLMC_STOP_H

#include <stdbool.h>

enum { STOP_SAME_MS = 250 };

void stop_install(void);
bool stop_asked(void);
int  stop_check(void); /* RC_OK, or RC_RETRY with "stopped by a signal; the same command goes on" */

#endif
