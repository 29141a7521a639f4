/* fuzz-text - any file of calibration data is refused or read to its end; it gives token ids, texts and messages */
#include "../../libcommon/msg.h"
#include "../../libcommon/text.h"
#include "fuzz.h"

#include <unistd.h>

static void
read_all(const char *path, const struct text_opts *o)
{
    struct text_sample s;
    struct text *t;
    int rc = text_open(&t, path, o), samples = 0;

    FUZZ_CHECK(rc == RC_OK || rc == RC_DATA || rc == RC_IO);
    while (rc == RC_OK && (rc = text_next(t, &s)) == RC_OK) {
        size_t sum = 0;

        for (size_t i = 0; s.kind == TEXT_IDS && i < s.count; i++)
            FUZZ_CHECK(s.ids[i] >= 0);
        for (size_t i = 0; s.kind == TEXT_PLAIN && i < s.len; i++)
            sum += (unsigned char)s.text[i];
        FUZZ_CHECK(sum <= 255 * s.len && *text_name(t) != '\0');
        FUZZ_CHECK(s.kind != TEXT_CHAT || json_array_size(s.messages) > 0);
        if (++samples == 10000) /* rows of no tokens, as many as a header says */
            break;
    }
    FUZZ_CHECK(rc == RC_OK || rc == RC_RETRY || *err_text() != '\0');
    text_close(t);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char path[] = P_tmpdir "/fuzz-text.XXXXXX";
    int fd = mkstemp(path);

    FUZZ_CHECK(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes);
    (void)close(fd);
    read_all(path, &(struct text_opts){ 0 });
    read_all(path, &(struct text_opts){ .columns = "a", .keep_padding = true });
    (void)unlink(path);
    return 0;
}
