/* replan - give what is not done of a plan to another number of ranks */
#include "replan.h"

#include "assign.h"
#include "mem.h"
#include "msg.h"
#include "peers.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where the links of a module's tasks that are not done point, by its first task before. */
static int
target_of(const struct plan *p, const struct task *t, char *out)
{
    char path[PATH_MAX];
    ssize_t n;

    TRY(plan_task_path(p, t, path));
    if ((n = readlink(path, out, PATH_MAX - 1)) < 0)
        return err_set(RC_IO, "%s: cannot read link: %s", path, strerror(errno));
    out[n] = '\0';
    return RC_OK;
}

static int
make_link(const struct plan *p, const struct task *t, const char *target)
{
    char path[PATH_MAX];
    struct stat st;

    TRY(plan_task_path(p, t, path));
    if (lstat(path, &st) == 0)
        return RC_OK;
    return symlink(target, path) == 0 ? RC_OK : err_set(RC_CANTCREATE, "%s: cannot link: %s", path, strerror(errno));
}

/* Links for all new tasks of modules that are not begun; those of others are there. */
static int
make_links(const struct plan *old, const struct plan *p)
{
    char target[PATH_MAX];
    int count;

    for (int i = 0; i < p->task_count; i++) {
        const struct task *t = &p->tasks[i], *before = plan_module(old, t->module, &count);

        if (i > 0 && strcmp(t->module, p->tasks[i - 1].module) == 0 && target[0] != '\0') {
            TRY(make_link(p, t, target));
            continue;
        }
        target[0] = '\0';
        if (before == NULL)
            return err_set(RC_BUG, "%s: not in the plan before", t->module);
        if (plan_task_done(old, before)) /* begun: the parts are the same */
            continue;
        TRY(target_of(old, before, target));
        TRY(make_link(p, t, target));
    }
    return RC_OK;
}

static bool
has_task(const struct plan *p, const char *file)
{
    for (int i = 0; i < p->task_count; i++) {
        size_t n = strlen(p->tasks[i].name);

        if (strncmp(file, p->tasks[i].name, n) == 0 && strcmp(file + n, ".safetensors") == 0)
            return true;
    }
    return false;
}

/* Links that are no task's. */
static int
drop_links(const struct plan *p)
{
    char dir[PATH_MAX], path[PATH_MAX];
    struct dirent *e;
    struct stat st;
    DIR *d;

    TRY(plan_path(p, dir, "weights"));
    if ((d = opendir(dir)) == NULL)
        return err_set(RC_IO, "%s: cannot read: %s", dir, strerror(errno));
    while ((e = readdir(d)) != NULL)
        if (plan_path(p, path, "weights/%s", e->d_name) == RC_OK && lstat(path, &st) == 0 && S_ISLNK(st.st_mode) &&
            !has_task(p, e->d_name))
            (void)unlink(path);
    (void)closedir(d);
    return RC_OK;
}

int
replan_plan(struct plan *p, int ranks)
{
    char dir[PATH_MAX];
    struct plan old;
    int rc;

    TRY(plan_path(p, dir, "ranks"));
    TRY(peers_none(dir));
    TRY(plan_read(&old, p->dir));
    rc = assign_ranks(p, ranks);
    if (rc == RC_OK && json_object_set_new(p->json, "ranks", json_integer(ranks)) != 0)
        rc = RC_OS;
    if (rc == RC_OK && (rc = make_links(&old, p)) == RC_OK && (rc = plan_write(p)) == RC_OK)
        rc = drop_links(p);
    plan_free(&old);
    return rc;
}

int
replan(const char *dir, int ranks)
{
    struct plan p;
    int rc;

    TRY(plan_read(&p, dir));
    rc = replan_plan(&p, ranks);
    plan_free(&p);
    return rc;
}
