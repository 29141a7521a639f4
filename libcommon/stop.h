/* stop - TERM, INT, HUP and USR1 ask a tool to stop at the next safe place, where it ends with RC_RETRY
 *
 * A second signal of the same kind has its usual effect at once. What was published stays; a rerun goes on from there.
 */
#ifndef LLMC_STOP_H
#define LLMC_STOP_H

#include <stdbool.h>

void stop_install(void);
bool stop_asked(void);
int  stop_check(void); /* RC_OK, or RC_RETRY with "stopped by a signal; the same command goes on" */

#endif
