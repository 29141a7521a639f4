/* beat: signs of life, and what becomes of a neighbour that gives none */
#include "../../libcommon/beat.h"
#include "../../libcommon/msg.h"
#include "../../libcommon/peers.h"
#include "unit.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void
test_sign(void **state)
{
    struct beat b;
    struct sign s;
    char host[65];

    (void)state;
    sign_host(host);
    assert_int_equal(beat_open(&b, "beats", 3, NULL, 7, ""), RC_OK);
    assert_true(sign_read(&s, "beats/3"));
    assert_string_equal(s.state, "running");
    assert_int_equal(s.number, 7);
    assert_int_equal(s.pid, getpid());
    assert_true(sign_alive(&s, host));
    beat_close(&b, RC_NUMERIC);
    assert_true(sign_read(&s, "beats/3"));
    assert_string_equal(s.state, "failed");
    assert_int_equal(s.number, RC_NUMERIC);
    assert_int_equal(beat_open(&b, "beats", 3, "gptq", 0, ""), RC_OK);
    beat_close(&b, RC_OK);
    assert_true(sign_read(&s, "beats/3.gptq"));
    assert_string_equal(s.state, "done");
    assert_false(sign_read(&s, "beats/4"));
}

/* A process that nobody has waited for is dead all the same. */
static void
test_zombie(void **state)
{
    struct sign s = { .host = "" };
    char host[65];
    siginfo_t info;
    pid_t pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(0);
    sign_host(host);
    (void)snprintf(s.host, sizeof(s.host), "%s", host);
    s.pid = pid;
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(kill(pid, 0), 0);
    assert_false(sign_alive(&s, host));
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_false(sign_alive(&s, host));
    assert_true(sign_alive(&s, "elsewhere"));
}

/* A neighbour in the pipe that is stopped is killed after the rank's limit, one that beats is not. */
static void
test_neighbour(void **state)
{
    pid_t pid[2];
    struct beat b;
    int status;

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_true((pid[i] = fork()) >= 0);
        if (pid[i] == 0) {
            if (beat_open(&b, "beats", 5, i == 0 ? "calib" : "gptq", 0, "") != RC_OK)
                _exit(RC_BUG);
            if (i == 0)
                (void)raise(SIGSTOP);
            (void)sleep(6);
            beat_close(&b, RC_OK);
            _exit(0);
        }
    }
    assert_int_equal(waitpid(pid[0], &status, WUNTRACED), pid[0]);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(beat_open(&b, "beats", 5, NULL, 2, ""), RC_OK);
    assert_int_equal(waitpid(pid[0], &status, 0), pid[0]);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(waitpid(pid[1], &status, 0), pid[1]);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    beat_close(&b, RC_OK);
}

/* What a rank that has died before we started leaves is of our launch, or of one that we know nothing of. */
static void
test_launch(void **state)
{
    static const struct { const char *theirs, *ours; int how, rc; } t[] = {
        { "a", "a", -1, RC_RETRY }, { "a", "b", -1, RC_OK }, { "", "", -1, RC_OK }, { "", "a", -1, RC_OK },
        { "a", "a", RC_NUMERIC, RC_RETRY }, { "a", "b", RC_NUMERIC, RC_OK },
        { "a", "a", RC_OK, RC_OK }, { "a", "b", RC_OK, RC_OK },
    };
    struct peers p;
    struct beat b;

    (void)state;
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
            if (beat_open(&b, "launch", 1, NULL, 60, t[i].theirs) == RC_OK && t[i].how >= 0)
                beat_close(&b, t[i].how);
            _exit(0);
        }
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        (void)usleep(20000); /* more than the file system's clock ticks in */
        assert_int_equal(peers_open(&p, "launch", 0, 2, 60, t[i].ours), RC_OK);
        assert_int_equal(peers_check(&p), t[i].rc);
        assert_true(p.peer[1].done == (t[i].how == RC_OK && strcmp(t[i].theirs, t[i].ours) == 0));
        peers_close(&p, RC_OK);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sign), cmocka_unit_test(test_zombie), cmocka_unit_test(test_neighbour),
        cmocka_unit_test(test_launch),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
