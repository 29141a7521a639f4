/* bench-tok - speed of a tokenizer on a text: bench-tok [MODEL_DIR TEXT [IDS]]; writes the ids as int32 into IDS */
#include "../../libcommon/buf.h"
#include "../../libcommon/msg.h"
#include "../../libcommon/tok.h"

#include <stdio.h>
#include <time.h>

enum { ROUNDS = 5, TEXT_MAX = 1 << 28 };

static double
now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int
run(const char *dir, const char *path, const char *out)
{
    struct tok_ids ids = { 0 };
    struct buf text = { 0 };
    double best = 1e9, start;
    struct tok *t;
    FILE *f;

    TRY(tok_open_model(&t, dir));
    TRY(buf_read_file(&text, path, TEXT_MAX));
    for (int i = 0; i < ROUNDS; i++) {
        ids.count = 0;
        start = now();
        TRY(tok_encode(t, text.s, text.len, TOK_SPECIAL, &ids));
        best = now() - start < best ? now() - start : best;
    }
    (void)printf("%s\t%zu bytes\t%zu tokens\t%.1f MB/s of one core, the best of %d\n", dir, text.len, ids.count,
        (double)text.len / best / 1e6, ROUNDS);
    if (out != NULL && ((f = fopen(out, "wb")) == NULL || fwrite(ids.v, sizeof(*ids.v), ids.count, f) != ids.count ||
        fclose(f) != 0))
        return err_set(RC_CANTCREATE, "%s: cannot write", out);
    tok_ids_free(&ids);
    buf_free(&text);
    tok_close(t);
    return RC_OK;
}

int
main(int argc, char *argv[])
{
    int rc = run(argc > 2 ? argv[1] : "share/demo", argc > 2 ? argv[2] : "share/demo/calib.jsonl",
        argc > 3 ? argv[3] : NULL);

    msg_tool("bench-tok");
    if (rc != RC_OK)
        msg_error(NULL, "%s", err_text());
    return rc;
}
