/* peak - run a command and tell the most memory that it and its children used at one moment
 *
 *     peak [-m BYTES] [-o FILE] command ...
 *
 * Anonymous and shared memory count; page cache, which the kernel takes back when it likes, does not. The command runs
 * in a memory cgroup of its own where one can be made (v2, then v1), with -m as its limit, which the kernel then
 * enforces with the page cache included; otherwise proportional set sizes of all descendants are added up. One line on
 * stderr, or in FILE: "peak=BYTES limit=BYTES cache=BYTES by=cgroup-v1 at the peak: NAME=BYTES ...".
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { POLL_MS = 10, POLL_SLOW_MS = 100, PROCS_MAX = 256, PARTS_TEXT = 512 };

static const struct kind {
    const char *by, *root, *limit, *most, *anon, *shared;
} kinds[] = {
    { "cgroup-v2", "/sys/fs/cgroup", "memory.max", "memory.peak", "anon ", "shmem " },
    { "cgroup-v1", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes", "total_rss ",
        "total_shmem " },
};

static struct {
    const struct kind *kind; /* NULL: none to be had */
    char               dir[128];
    long long          limit, peak;
    char               parts[PARTS_TEXT];
} the;

static int
put(const char *dir, const char *file, const char *text)
{
    char path[256];
    FILE *f;
    int rc;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, file);
    if ((f = fopen(path, "w")) == NULL)
        return -1;
    rc = fputs(text, f) < 0 ? -1 : 0;
    return fclose(f) != 0 ? -1 : rc;
}

/* The number after a key at the start of a line; key NULL: the first. 0: none. */
static long long
get(const char *path, const char *key)
{
    char line[256];
    long long v = 0;
    FILE *f = fopen(path, "r");

    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (key == NULL || strncmp(line, key, strlen(key)) == 0) {
            v = strtoll(line + (key != NULL ? strlen(key) : 0), NULL, 10);
            break;
        }
    if (f != NULL)
        (void)fclose(f);
    return v;
}

static void
make_group(void)
{
    char text[32], file[256];

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        const struct kind *k = &kinds[i];

        (void)snprintf(the.dir, sizeof(the.dir), "%s/llmc-peak.%ld", k->root, (long)getpid());
        if (mkdir(the.dir, 0755) != 0)
            continue;
        (void)snprintf(file, sizeof(file), "%s/%s", the.dir, k->limit);
        (void)snprintf(text, sizeof(text), "%lld", the.limit);
        if (access(file, F_OK) == 0 && (the.limit == 0 || put(the.dir, k->limit, text) == 0)) {
            the.kind = k;
            return;
        }
        (void)rmdir(the.dir);
    }
}

/* Anonymous and shared bytes of one process, its part of what it shares. */
static long long
pss(long pid)
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%ld/smaps_rollup", pid);
    return (get(path, "Pss_Anon:") + get(path, "Pss_Shmem:")) * 1024;
}

static long
parent(long pid, char name[32])
{
    char path[64], line[256], *end;
    FILE *f;
    long ppid = 0;

    (void)snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
    name[0] = '\0';
    if ((f = fopen(path, "r")) == NULL)
        return 0;
    if (fgets(line, sizeof(line), f) != NULL && (end = strrchr(line, ')')) != NULL) {
        char *open = strchr(line, '(');

        *end = '\0';
        (void)snprintf(name, 32, "%.31s", open != NULL ? open + 1 : "");
        (void)sscanf(end + 1, " %*c %ld", &ppid);
    }
    (void)fclose(f);
    return ppid;
}

/* All descendants: pids grow downwards from parents nearly always, and a second look finds the rest. */
static long long
look(long root, char *parts)
{
    long family[PROCS_MAX] = { root };
    int count = 1, before;
    long long sum = pss(root);
    size_t at = 0;

    parts[0] = '\0';
    do {
        DIR *d = opendir("/proc");
        struct dirent *e;

        before = count;
        while (d != NULL && (e = readdir(d)) != NULL && count < PROCS_MAX) {
            long pid = isdigit((unsigned char)e->d_name[0]) ? atol(e->d_name) : 0, up;
            char name[32];
            int known = 0, child = 0;

            if (pid == 0 || (up = parent(pid, name)) == 0)
                continue;
            for (int i = 0; i < count; i++) {
                known = known || family[i] == pid;
                child = child || family[i] == up;
            }
            if (known || !child)
                continue;
            family[count++] = pid;
            long long bytes = pss(pid);

            sum += bytes;
            if (bytes > 1 << 20)
                at += (size_t)snprintf(parts + at, PARTS_TEXT - at, " %s=%lld", name, bytes);
            at = at < PARTS_TEXT ? at : PARTS_TEXT - 1;
        }
        if (d != NULL)
            (void)closedir(d);
    } while (count > before);
    return sum;
}

/* Looking at every process takes its time: only where the sum has grown by a hundredth since the last look. */
static void
poll_once(long child)
{
    char stat[256], parts[PARTS_TEXT];
    static long long looked;
    long long now;

    if (the.kind == NULL) {
        now = look(child, parts);
    } else {
        (void)snprintf(stat, sizeof(stat), "%s/memory.stat", the.dir);
        now = get(stat, the.kind->anon) + get(stat, the.kind->shared);
    }
    if (now <= the.peak)
        return;
    the.peak = now;
    if (the.kind != NULL && now - looked < looked / 100)
        return;
    looked = now;
    if (the.kind != NULL)
        (void)look(child, parts);
    memcpy(the.parts, parts, sizeof(parts));
}

static long
start(char **argv)
{
    long pid = (long)fork();

    if (pid != 0)
        return pid;
    if (the.kind != NULL && put(the.dir, "cgroup.procs", "0") != 0)
        perror(the.dir);
    (void)execvp(argv[0], argv);
    perror(argv[0]);
    _exit(127);
}

int
main(int argc, char **argv)
{
    const char *file = NULL;
    char most[256];
    long child;
    int c, status = 0;
    FILE *out;

    while ((c = getopt(argc, argv, "+m:o:")) != -1) {
        if (c == 'm')
            the.limit = atoll(optarg);
        else if (c == 'o')
            file = optarg;
        else
            return 64;
    }
    if (argv[optind] == NULL)
        return 64;
    make_group();
    if ((child = start(argv + optind)) < 0)
        return 71;
    while (waitpid((pid_t)child, &status, WNOHANG) == 0) {
        struct timespec t = { 0, (the.kind != NULL ? POLL_MS : POLL_SLOW_MS) * 1000000L };

        poll_once(child);
        (void)nanosleep(&t, NULL);
    }
    out = file != NULL ? fopen(file, "w") : stderr;
    (void)snprintf(most, sizeof(most), "%s/%s", the.dir, the.kind != NULL ? the.kind->most : "");
    if (out != NULL)
        (void)fprintf(out, "peak=%lld limit=%lld with-cache=%lld by=%s at the peak:%s\n", the.peak, the.limit,
            the.kind != NULL ? get(most, NULL) : 0LL, the.kind != NULL ? the.kind->by : "pss", the.parts);
    if (the.kind != NULL)
        (void)rmdir(the.dir);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
