/* library - shared objects that programs load when they are needed */
#include "library.h"

#include "../libcommon/msg.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool
library_find(const struct library *l, char *path)
{
    const char *named = getenv(l->env);
    char exe[PATH_MAX], *slash;
    ssize_t len;
    int n;

    if (named == NULL) {
        if ((len = readlink("/proc/self/exe", exe, sizeof(exe) - 1)) < 0)
            len = 0;
        exe[len] = '\0';
        if ((slash = strrchr(exe, '/')) != NULL)
            *slash = '\0';
        n = snprintf(path, PATH_MAX, "%s/../lib/%s", exe, l->file);
    } else {
        n = snprintf(path, PATH_MAX, "%s", named);
    }
    return n > 0 && n < PATH_MAX && access(path, R_OK) == 0;
}

int
library_open(const struct library *l, const char *what, void **out)
{
    char path[PATH_MAX];

    if (!library_find(l, path))
        return err_set(RC_UNAVAILABLE, "%s is not here: no %s", what, path);
    if ((*out = dlopen(path, RTLD_NOW | RTLD_LOCAL)) == NULL)
        return err_set(RC_UNAVAILABLE, "%s: %s", what, dlerror());
    return RC_OK;
}
