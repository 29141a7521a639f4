/* library - shared objects that programs load when they are needed: ../lib/FILE as seen from the directory of the
 * running one, or what an environment variable names
 */
#ifndef LLMC_LIBRARY_H
#define LLMC_LIBRARY_H

#include <limits.h>
#include <stdbool.h>

struct library {
    const char *env, *file;
};

/* Whether there is such a file; path[PATH_MAX] is where it was looked for. */
bool library_find(const struct library *l, char *path);
/* RC_UNAVAILABLE with "what" and the loader's words. It stays loaded. */
int library_open(const struct library *l, const char *what, void **out);

#endif
