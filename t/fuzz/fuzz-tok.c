/* fuzz-tok - any tokenizer.json is refused or encodes; what it gives are ids below its size, the same again */
#include "../../libcommon/msg.h"
#include "../../libcommon/tok.h"
#include "fuzz.h"

#include <unistd.h>

static const char *const texts[] = {
    "", "Hello, world!  It's 12345\n\n <s>x</s> <|endoftext|>",
    "e\xcc\x81 \xed\x95\x9c\xea\xb5\xad \xf0\x9f\x91\x8d \xe2\x96\x81 a",
    "   \t\r\n'S 'll\xc5\xbf", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "a\xff",
};

static void
check_text(const struct tok *t, const char *text, size_t len)
{
    struct tok_ids one = { 0 }, two = { 0 };
    int rc = tok_encode(t, text, len, true, &one);

    FUZZ_CHECK(tok_encode(t, text, len, true, &two) == rc);
    if (rc == RC_OK) {
        FUZZ_CHECK(one.count == two.count);
        for (size_t i = 0; i < one.count; i++)
            FUZZ_CHECK(one.v[i] == two.v[i] && one.v[i] >= 0);
    }
    tok_ids_free(&one);
    tok_ids_free(&two);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char path[] = P_tmpdir "/fuzz-tok.XXXXXX";
    int fd = mkstemp(path);
    struct tok *t;

    FUZZ_CHECK(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes);
    (void)close(fd);
    if (tok_open(&t, path) == RC_OK) {
        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
            check_text(t, texts[i], strlen(texts[i]));
        check_text(t, "a\0b", 3);
        tok_close(t);
    } else {
        FUZZ_CHECK(*err_text() != '\0');
    }
    (void)unlink(path);
    return 0;
}
