/* fuzz - one LLVMFuzzerTestOneInput per parser; included once by each
 *
 *     clang -DLIBFUZZER -fsanitize=fuzzer,address,undefined ...      fuzz-x -max_total_time=60 t/fuzz/corpus/x
 *     any compiler, without LIBFUZZER                                fuzz-x [-r ROUNDS] FILE ...
 *
 * The second form has a main that runs the files named, and then ROUNDS inputs made from each by a fixed sequence of
 * changes: bytes altered, runs removed or doubled, the end cut off. A failure aborts; the input is then in
 * the file that FUZZ_LAST names, if set.
 */
#ifndef LLMC_FUZZ_H
#define LLMC_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define FUZZ_CHECK(condition)                                                        \
    do {                                                                             \
        if (!(condition)) {                                                          \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);    \
            abort();                                                                 \
        }                                                                            \
    } while (0)

#ifndef LIBFUZZER

enum { FUZZ_BYTES_MAX = 1 << 20 };

static uint8_t  fuzz_data[3 * FUZZ_BYTES_MAX];
static uint64_t fuzz_state = 1;

static size_t
fuzz_random(size_t below)
{
    fuzz_state = fuzz_state * 6364136223846793005u + 1442695040888963407u;
    return below == 0 ? 0 : (size_t)(fuzz_state >> 33) % below;
}

static void
fuzz_run(size_t bytes)
{
    const char *last = getenv("FUZZ_LAST");
    uint8_t *exact = malloc(bytes); /* so that a sanitizer sees the end */
    FILE *f;

    FUZZ_CHECK(exact != NULL || bytes == 0);
    if (last != NULL && (f = fopen(last, "wb")) != NULL) {
        (void)fwrite(fuzz_data, 1, bytes, f);
        (void)fclose(f);
    }
    if (bytes > 0)
        memcpy(exact, fuzz_data, bytes);
    (void)LLVMFuzzerTestOneInput(exact, bytes);
    free(exact);
}

static size_t
fuzz_load(const char *path)
{
    FILE *f = fopen(path, "rb");
    size_t bytes;

    if (f == NULL) {
        perror(path);
        exit(1);
    }
    bytes = fread(fuzz_data, 1, FUZZ_BYTES_MAX, f);
    (void)fclose(f);
    return bytes;
}

/* Changes fuzz_data; returns its new length. */
static size_t
fuzz_change(size_t bytes)
{
    static const char tokens[] = "{}[]:,\"\\0179-e.u";
    size_t at = fuzz_random(bytes), run = 1 + fuzz_random(bytes - at < 64 ? bytes - at : 64);

    if (bytes == 0)
        return 0;
    if (run > bytes - at)
        run = bytes - at;
    switch (fuzz_random(6)) {
    case 0:
        fuzz_data[at] ^= (uint8_t)(1u << fuzz_random(8));
        break;
    case 1:
        fuzz_data[at] = (uint8_t)fuzz_random(256);
        break;
    case 2:
        fuzz_data[at] = (uint8_t)tokens[fuzz_random(sizeof(tokens) - 1)];
        break;
    case 3:
        memmove(fuzz_data + at, fuzz_data + at + run, bytes - at - run);
        return bytes - run;
    case 4:
        memmove(fuzz_data + at + run, fuzz_data + at, bytes - at);
        return bytes + run;
    default:
        return at;
    }
    return bytes;
}

int
main(int argc, char *argv[])
{
    int first = 1;
    long rounds = 0;
    size_t bytes;

    if (argc > 2 && strcmp(argv[1], "-r") == 0) {
        rounds = atol(argv[2]);
        first = 3;
    }
    for (int i = first; i < argc; i++) {
        fuzz_run(fuzz_load(argv[i]));
        for (long r = 0; r < rounds; r++) {
            bytes = fuzz_load(argv[i]);
            for (size_t n = 1 + fuzz_random(4); n > 0; n--)
                bytes = fuzz_change(bytes);
            fuzz_run(bytes);
        }
    }
    (void)printf("%d files\n", argc - first);
    return 0;
}

#endif
#endif
