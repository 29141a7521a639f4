/* test-event - lines that any JSON reader takes, whatever is put in, and a log that never stops a run */
#include "unit.h"

#include "../../libcommon/event.h"
#include "../../libcommon/json.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>

static json_t *
nth_line(const char *path, int n)
{
    size_t bytes;
    char *text = unit_read(path, &bytes), *p = text, *line;
    json_t *j;

    while (line = strsep(&p, "\n"), n-- > 0)
        assert_non_null(p);
    if (jread_mem(&j, line, strlen(line), path) != RC_OK)
        fail_msg("%s in %s", err_text(), line);
    free(text);
    return j;
}

static void
test_fields(void **state)
{
    struct event_log log;
    const char *time;
    json_t *j;

    (void)state;
    event_open(&log, "w/log", "llmc-test", 3);
    event_emit(&log, "start");
    event_emit(&log, "task", EVENT_STR("module", "a\"\n\xff"), EVENT_INT("rows", -5), EVENT_REAL("loss", 0.25),
        EVENT_REAL("damp", NAN), EVENT_REAL("inf", -INFINITY), EVENT_STR("none", NULL), EVENT_BOOL("last", true));
    event_close(&log);
    j = nth_line("w/log/llmc-test.3.jsonl", 0);
    assert_string_equal(json_string_value(json_object_get(j, "event")), "start");
    assert_string_equal(json_string_value(json_object_get(j, "tool")), "llmc-test");
    assert_int_equal(json_integer_value(json_object_get(j, "rank")), 3);
    assert_true(json_integer_value(json_object_get(j, "rss")) > 65536);
    assert_true(strlen(json_string_value(json_object_get(j, "host"))) > 0);
    time = json_string_value(json_object_get(j, "time"));
    assert_int_equal(strlen(time), strlen("2025-01-31T12:00:00.123Z"));
    assert_true(time[10] == 'T' && time[19] == '.' && time[23] == 'Z');
    assert_int_equal(json_object_size(j), 6);
    json_decref(j);
    j = nth_line("w/log/llmc-test.3.jsonl", 1);
    assert_string_equal(json_string_value(json_object_get(j, "module")), "a\"\n\xef\xbf\xbd");
    assert_int_equal(json_integer_value(json_object_get(j, "rows")), -5);
    assert_true(json_real_value(json_object_get(j, "loss")) == 0.25);
    assert_true(json_is_null(json_object_get(j, "damp")));
    assert_true(json_is_null(json_object_get(j, "inf")));
    assert_true(json_is_null(json_object_get(j, "none")));
    assert_true(json_is_true(json_object_get(j, "last")));
    json_decref(j);
}

static void *
emit_many(void *arg)
{
    for (int i = 0; i < 200; i++)
        event_emit((struct event_log *)arg, "tick", EVENT_INT("i", i));
    return NULL;
}

/* Two logs of one file, as two processes would have, and two threads each: no line is broken or lost. */
static void
test_appends(void **state)
{
    struct event_log logs[2];
    pthread_t threads[4];
    json_t *j;

    (void)state;
    for (int i = 0; i < 2; i++)
        event_open(&logs[i], "appends", "t", 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, emit_many, &logs[i / 2]), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < 2; i++)
        event_close(&logs[i]);
    for (int i = 0; i < 800; i += 97) {
        j = nth_line("appends/t.0.jsonl", i);
        json_decref(j);
    }
    j = nth_line("appends/t.0.jsonl", 799);
    json_decref(j);
}

/* What stderr gets while a log that cannot be written is used twice. */
static void
warnings(const char *dir, bool full, char *out, size_t size)
{
    struct event_log log;
    size_t bytes;
    char *text;
    int keep = dup(STDERR_FILENO), fd = open("err", O_RDWR | O_CREAT | O_TRUNC, 0666);

    assert_true(keep >= 0 && fd >= 0);
    (void)dup2(fd, STDERR_FILENO);
    event_open(&log, dir, "t", 0);
    if (full) {
        (void)close(log.fd);
        log.fd = open("/dev/full", O_WRONLY);
    }
    event_emit(&log, "one");
    event_emit(&log, "two");
    event_close(&log);
    (void)dup2(keep, STDERR_FILENO);
    (void)close(keep);
    (void)close(fd);
    text = unit_read("err", &bytes);
    (void)snprintf(out, size, "%s", text);
    free(text);
}

static void
test_never_fatal(void **state)
{
    char text[512];

    (void)state;
    unit_text("plain", "x");
    warnings("plain/log", false, text, sizeof(text));
    assert_says(text, "warning: log: plain: cannot create directory: File exists; the run goes on without it\n");
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    warnings("full", true, text, sizeof(text));
    assert_says(text, "warning: log: cannot write: No space left on device; the run goes on");
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    warnings(NULL, false, text, sizeof(text));
    assert_string_equal(text, "");
    event_emit(NULL, "nothing", EVENT_INT("x", 1));
    assert_true(event_rss() > 65536);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields), cmocka_unit_test(test_appends), cmocka_unit_test(test_never_fatal),
    };

    return cmocka_run_group_tests_name("event", tests, unit_begin, unit_end);
}
