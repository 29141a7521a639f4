/* unit - what the cmocka tests share: a scratch directory, and files made and read back
 *
 * unit_begin makes a directory and enters it, unit_end removes it and what is in it: group set-up and tear-down.
 */
#ifndef LLMC_UNIT_H
#define LLMC_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* The sentence holds the words; shows both when it does not. */
#define assert_says(text, words)                                                  \
    do {                                                                          \
        if (strstr((text), (words)) == NULL)                                      \
            fail_msg("want \"%s\" in \"%s\"", (words), (text));                   \
    } while (0)

/* xorshift: the next state, which is the random number. */
static inline uint64_t
unit_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static char unit_dir[] = P_tmpdir "/llmc-unit.XXXXXX";

static inline int
unit_begin(void **state)
{
    (void)state;
    return mkdtemp(unit_dir) != NULL && chdir(unit_dir) == 0 ? 0 : -1;
}

static inline int
unit_remove(const char *path, const struct stat *sb, int kind, struct FTW *ftw)
{
    (void)sb;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static inline int
unit_end(void **state)
{
    (void)state;
    return chdir("/") == 0 ? nftw(unit_dir, unit_remove, 8, FTW_DEPTH | FTW_PHYS) : -1;
}

static inline void
unit_write(const char *path, const void *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static inline void
unit_text(const char *path, const char *text)
{
    unit_write(path, text, strlen(text));
}

/* Ends with a NUL beyond *bytes; free it. */
static inline char *
unit_read(const char *path, size_t *bytes)
{
    size_t cap = 1 << 20;
    char *data = malloc(cap + 1);
    FILE *f = fopen(path, "rb");

    assert_non_null(f);
    assert_non_null(data);
    *bytes = fread(data, 1, cap, f);
    assert_true(*bytes < cap);
    data[*bytes] = '\0';
    assert_int_equal(fclose(f), 0);
    return data;
}

/* Entries of a directory, "." and ".." not counted. */
static inline int
unit_entries(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;

    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    assert_int_equal(closedir(d), 0);
    return n - 2;
}

#endif
