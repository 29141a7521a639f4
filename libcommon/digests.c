/* digests - SHA-256 of the files that a model consists of */
#include "digests.h"

#include "buf.h"
#include "file.h"
#include "mem.h"
#include "msg.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { NICENESS = 19, NOTE_MAX = 256 };

/* --- notes --- */

static int
note_path(const char *dir, const char *shard, char out[PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, "%s/digests%s%s%s", dir, shard != NULL ? "/" : "", shard != NULL ? shard : "",
        shard != NULL ? ".sha256" : "");

    return n > 0 && n < PATH_MAX ? RC_OK : err_set(RC_DATA, "%s: path is too long", dir);
}

/* Whether there is one of the file as it is. */
static bool
note_read(const char *dir, const struct model *m, int shard, char hex[DIGEST_HEX])
{
    int64_t now[2], was[2];
    char path[PATH_MAX];
    struct buf b = { 0 };
    bool good;

    if (dir == NULL || note_path(dir, m->shards[shard].name, path) != RC_OK || model_stamp(m, shard, now) != RC_OK)
        return false;
    good = buf_read_file(&b, path, NOTE_MAX) == RC_OK && b.len > DIGEST_HEX &&
        strspn(b.s, "0123456789abcdef") == DIGEST_HEX - 1 &&
        sscanf(b.s + DIGEST_HEX - 1, " %" SCNd64 " %" SCNd64 "\n", &was[0], &was[1]) == 2 && was[0] == now[0] &&
        was[1] == now[1];
    if (good)
        (void)snprintf(hex, DIGEST_HEX, "%.*s", DIGEST_HEX - 1, b.s);
    buf_free(&b);
    return good;
}

/* Not synced: if it is lost the file is read again. */
static int
note_write(const char *dir, const char *shard, const struct shard_digest *s)
{
    char path[PATH_MAX], line[NOTE_MAX];
    int n = snprintf(line, sizeof(line), "%s %" PRId64 " %" PRId64 "\n", s->hex, s->stamp[0], s->stamp[1]);

    TRY(note_path(dir, NULL, path));
    TRY(file_mkdir(path));
    TRY(note_path(dir, shard, path));
    return file_publish_quick(path, line, (size_t)n);
}

/* --- of all files, now --- */

struct digesting {
    const struct model *m;
    const char         *dir;
    char              (*hex)[DIGEST_HEX];
    char              **why; /* NULL, or what went wrong */
    int                *rc;
};

static void
digest_one(void *ctx, int i, int worker)
{
    struct digesting *d = ctx;
    int shard;
    char *path = file_join(d->m->dir, model_file(d->m, (size_t)i, &shard));

    (void)worker;
    if (shard < 0 || !note_read(d->dir, d->m, shard, d->hex[i]))
        d->rc[i] = path == NULL ? RC_OS : digest_file(path, d->hex[i]);
    if (d->rc[i] != RC_OK)
        d->why[i] = mem_strdup(err_text());
    mem_free(path);
}

static int
gather(const struct digesting *d, size_t count, json_t *out)
{
    const char *name;
    int shard;

    for (size_t i = 0; i < count; i++) {
        name = model_file(d->m, i, &shard);
        if (d->rc[i] != RC_OK)
            return err_set(d->rc[i], "%s", d->why[i] != NULL ? d->why[i] : name);
        if (json_object_set_new(out, name, json_string(d->hex[i])) != 0)
            return err_set(RC_OS, "out of memory");
    }
    return RC_OK;
}

int
digests_of(const struct model *m, struct pool *pool, const char *dir, json_t **out)
{
    struct digesting d = { .m = m, .dir = dir };
    size_t count = 0;
    int shard, rc = RC_OS;

    while (model_file(m, count, &shard) != NULL)
        count++;
    d.hex = mem_zalloc(count, sizeof(*d.hex));
    d.why = mem_zalloc(count, sizeof(*d.why));
    d.rc = mem_zalloc(count, sizeof(*d.rc));
    *out = json_object();
    if (d.hex != NULL && d.why != NULL && d.rc != NULL && *out != NULL) {
        pool_run(pool, (int)count, digest_one, &d);
        rc = gather(&d, count, *out);
        for (size_t i = 0; i < count; i++)
            mem_free(d.why[i]);
    }
    mem_free(d.hex);
    mem_free(d.why);
    mem_free(d.rc);
    if (rc != RC_OK) {
        json_decref(*out);
        *out = NULL;
    }
    return rc;
}

/* --- of shards, beside other work --- */

/* What cannot be read, or changes while it is, gets no note: whoever asks later is told. */
static void *
read_shards(void *ctx)
{
    struct digests *d = ctx;

    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICENESS); /* of this thread */
    for (int i = d->rank; i < d->m->shard_count && !atomic_load(&d->quit); i += d->ranks) {
        struct shard_digest *s = &d->shard[i];
        int64_t after[2];

        if (note_read(d->dir, d->m, i, s->hex) || model_stamp(d->m, i, s->stamp) != RC_OK ||
            digest_file_until(d->m->shards[i].st.path, &d->quit, s->hex) != RC_OK ||
            model_stamp(d->m, i, after) != RC_OK || after[0] != s->stamp[0] || after[1] != s->stamp[1])
            s->hex[0] = '\0';
    }
    return NULL;
}

int
digests_begin(struct digests *d, const struct model *m, const char *dir, int rank, int ranks)
{
    d->m = m;
    d->dir = dir;
    d->rank = rank;
    d->ranks = ranks;
    if ((d->shard = mem_zalloc((size_t)m->shard_count, sizeof(*d->shard))) == NULL)
        return RC_OS;
    if (pthread_create(&d->thread, NULL, read_shards, d) != 0)
        return err_set(RC_OS, "cannot start a thread");
    d->begun = true;
    return RC_OK;
}

int
digests_end(struct digests *d, bool wait)
{
    int rc = RC_OK;

    if (d->begun) {
        if (!wait)
            atomic_store(&d->quit, true);
        (void)pthread_join(d->thread, NULL);
        for (int i = 0; i < d->m->shard_count && rc == RC_OK; i++)
            if (d->shard[i].hex[0] != '\0')
                rc = note_write(d->dir, d->m->shards[i].name, &d->shard[i]);
    }
    mem_free(d->shard);
    d->shard = NULL;
    d->begun = false;
    return rc;
}
