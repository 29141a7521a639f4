/* fuzz-json - what is accepted is the same after being written; strings of any bytes become JSON */
#include "../../libcommon/json.h"
#include "../../libcommon/mem.h"
#include "fuzz.h"

static void
check_string(const uint8_t *data, size_t bytes)
{
    char *text = malloc(bytes + 1);
    struct buf b = { 0 };
    json_t *j;

    FUZZ_CHECK(text != NULL);
    if (bytes > 0)
        memcpy(text, data, bytes);
    text[bytes] = '\0';
    buf_puts(&b, "[");
    jput_str(&b, text);
    buf_puts(&b, "]");
    FUZZ_CHECK(jread_mem(&j, b.s, b.len, "string") == RC_OK);
    json_decref(j);
    buf_free(&b);
    free(text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    json_t *j, *again;
    char *text;

    check_string(data, bytes);
    if (jread_mem(&j, (const char *)data, bytes, "input") != RC_OK)
        return 0;
    FUZZ_CHECK(jdump(j, true, &text) == RC_OK);
    FUZZ_CHECK(jread_mem(&again, text, strlen(text), "again") == RC_OK);
    FUZZ_CHECK(json_equal(j, again));
    json_decref(again);
    json_decref(j);
    mem_free(text);
    return 0;
}
