/* links - how a work directory refers to the model that it was made from */
#include "links.h"

#include "file.h"
#include "mem.h"
#include "member.h"
#include "msg.h"
#include "peers.h"
#include "source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int
links_path(const char *dir, const char *path, char out[PATH_MAX])
{
    char from[PATH_MAX], to[PATH_MAX];
    size_t same = 0, n = 0;

    if (realpath(dir, from) == NULL || realpath(path, to) == NULL)
        return err_set(RC_NOINPUT, "%s: %s", path, strerror(errno));
    for (size_t i = 0;; i++) { /* whole components that both begin with, without the slash */
        if ((from[i] == '/' || from[i] == '\0') && (to[i] == '/' || to[i] == '\0'))
            same = i;
        if (from[i] != to[i] || from[i] == '\0')
            break;
    }
    if (same <= 1) {
        (void)snprintf(out, PATH_MAX, "%s", to);
        return RC_OK;
    }
    out[0] = '\0';
    for (const char *p = from + same; (p = strchr(p, '/')) != NULL && n < PATH_MAX; p++)
        n += (size_t)snprintf(out + n, PATH_MAX - n, "../");
    if (n < PATH_MAX)
        n += (size_t)snprintf(out + n, PATH_MAX - n, "%s", to[same] == '/' ? to + same + 1 : ".");
    return n < PATH_MAX ? RC_OK : err_set(RC_DATA, "%s: path is too long", path);
}

static int
stamp(const struct model *m, int shard, json_t **out)
{
    int64_t is[2];

    TRY(model_stamp(m, shard, is));
    *out = json_pack("[I, I]", (json_int_t)is[0], (json_int_t)is[1]);
    return *out != NULL ? RC_OK : err_set(RC_OS, "out of memory");
}

int
links_stamp(struct plan *p, const struct model *m)
{
    json_t *files = json_object(), *one;
    int rc = files == NULL ? RC_OS : RC_OK;

    for (int i = 0; i < m->shard_count && rc == RC_OK; i++)
        if ((rc = stamp(m, i, &one)) == RC_OK && json_object_set_new(files, m->shards[i].name, one) != 0)
            rc = err_set(RC_OS, "out of memory");
    if (rc == RC_OK && json_object_set(p->json, "model_files", files) != 0)
        rc = err_set(RC_OS, "out of memory");
    json_decref(files);
    return rc;
}

int
links_check(const struct plan *p, const struct model *m)
{
    const json_t *files = json_object_get(p->json, "model_files"), *was;
    json_t *now;
    bool same;

    for (int i = 0; files != NULL && i < m->shard_count; i++) {
        was = json_object_get(files, m->shards[i].name);
        TRY(stamp(m, i, &now));
        same = json_equal(was, now);
        json_decref(now);
        if (!same)
            return err_set(RC_DATA, "%s: changed since the work directory %s was made; if it is the same model, "
                "llmc-shard --relink says so", m->shards[i].st.path, p->dir);
    }
    return RC_OK;
}

/* A shard. What stands for a cache, which has no weight of its own, is that of its first projection. */
static const char *
shard_of(const struct plan *p, const struct task *t, const struct arch *a, const struct model *m)
{
    char name[ARCH_NAME_MAX + 16], module[ARCH_NAME_MAX];
    struct linear first;

    (void)snprintf(module, sizeof(module), "%s", t->module);
    arch_linear(a, p->steps[t->step].layer, 0, &first);
    if (plan_task_cache(t))
        arch_module(a, p->steps[t->step].layer, &first, module);
    (void)snprintf(name, sizeof(name), "%s.weight", module);
    return model_shard_path(m, name);
}

int
links_make(const struct plan *p, const struct arch *a, const struct model *m)
{
    char path[PATH_MAX], target[PATH_MAX], dir[PATH_MAX];
    const char *tar = member_is_tar(m->dir) ? m->dir : NULL, *file, *last = NULL;

    TRY(plan_path(p, dir, "weights"));
    for (int i = 0; i < p->task_count; i++) {
        char *tmp;
        int rc = RC_OK;

        if (plan_task_done(p, &p->tasks[i]))
            continue;
        TRY(plan_task_path(p, &p->tasks[i], path));
        if ((file = tar != NULL ? tar : shard_of(p, &p->tasks[i], a, m)) == NULL)
            return err_set(RC_DATA, "%s: no weight of %s", m->dir, p->tasks[i].module);
        if (file != last)
            TRY(links_path(dir, file, target));
        last = file;
        if ((tmp = file_tmp_name(path)) == NULL)
            return RC_OS;
        (void)unlink(tmp);
        if (symlink(target, tmp) != 0) {
            rc = err_set(RC_CANTCREATE, "%s: cannot link: %s", path, strerror(errno));
        } else if (rename(tmp, path) != 0) {
            rc = err_set(RC_IO, "%s: cannot rename from %s: %s", path, tmp, strerror(errno));
            (void)unlink(tmp);
        }
        mem_free(tmp);
        TRY(rc);
    }
    return RC_OK;
}

static int
again(struct plan *p, struct model *m, const char *model)
{
    char fp[DIGEST_HEX], path[PATH_MAX];
    struct arch a;

    if (model_open_header(m, model) != RC_OK)
        return err_at(RC_NOINPUT, "the model is not where it was, say with -m where it is");
    TRY(plan_model_fingerprint(m, fp));
    if (strcmp(fp, p->model_fingerprint) != 0)
        return err_set(RC_DATA, "%s: not the model that the work directory %s was made from", model, p->dir);
    TRY(source_arch(&a, m));
    TRY(links_path(p->dir, model, path));
    if (json_object_set_new(p->json, "model", json_string(path)) != 0)
        return err_set(RC_OS, "out of memory");
    TRY(links_stamp(p, m));
    TRY(plan_write(p));
    return links_make(p, &a, m);
}

int
links_again(const char *dir, const char *model)
{
    struct model m = { 0 };
    char ranks[PATH_MAX];
    struct plan p;
    int rc;

    TRY(plan_read(&p, dir));
    if ((rc = plan_path(&p, ranks, "ranks")) == RC_OK && (rc = peers_none(ranks)) == RC_OK)
        rc = again(&p, &m, model != NULL ? model : p.model);
    model_close(&m);
    plan_free(&p);
    return rc;
}
