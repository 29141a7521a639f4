/* fuzz-jinja - any template is refused or renders; in bounded time, the same again */
#include "../../libcommon/jinja.h"
#include "../../libcommon/json.h"
#include "../../libcommon/msg.h"
#include "fuzz.h"

static const char text[] = "{\"messages\": [{\"role\": \"system\", \"content\": \"\"},"
    " {\"role\": \"user\", \"content\": \" a\\u00e9\\n\"}, {\"role\": \"assistant\", \"content\": \"b\","
    " \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {\"x\": [1, 2.5, null, true]}}}]}],"
    " \"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"tools\": null}";

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct buf one = { 0 }, two = { 0 };
    json_t *context = NULL;
    struct jinja *j;
    int rc;

    if (jinja_open(&j, (const char *)data, bytes) != RC_OK) {
        FUZZ_CHECK(*err_text() != '\0' && j == NULL);
        return 0;
    }
    FUZZ_CHECK(jread_mem(&context, text, sizeof(text) - 1, "context") == RC_OK);
    rc = jinja_render(j, context, 0, &one);
    FUZZ_CHECK(jinja_render(j, context, 0, &two) == rc);
    FUZZ_CHECK(rc == RC_OK || rc == RC_DATA);
    FUZZ_CHECK(rc != RC_OK || (one.len == two.len && (one.len == 0 || memcmp(one.s, two.s, one.len) == 0)));
    buf_free(&one);
    buf_free(&two);
    json_decref(context);
    jinja_close(j);
    return 0;
}
