/*
 * One process of the differential machine (tests/differential): does one call after the other, as told, and says exactly what came back.
 *
 *   executor FD FD …        the first process of a world: pipes for commands and answers of each slot, in pairs; it is the last slot
 *   executor exec SLOT      another program image in the same process: its descriptors are its state, there is no other
 *
 * A command is a line "verb number …", an answer "result errno sigpipes …". What is sent is a piece of one known table of bytes, so that only
 * its place is told; what is received is answered as its checksum.
 */
#include "executor_sharing.h"

#include "executor_talk.h"

/* the first process: until no other one is left */
static long do_reap(void)
{
    int status, count = 0;
    while (waitpid(-1, &status, 0) > 0) {
        count++;
        if (!WIFEXITED(status) || WEXITSTATUS(status))
            add(" %d", status);
    }
    return count;
}

static long do_exit(void)
{
    _exit(0);
}

static long do_thread(void);

static const struct {
    const char *verb;
    long (*act)(void);
} verbs[] = {
    {"socket", do_socket},   {"bind", do_bind},         {"listen", do_listen},
    {"connect", do_connect}, {"accept", do_accept},     {"name", do_name},
    {"send", do_send},       {"recv", do_recv},         {"sendall", do_send_all},
    {"poll", do_poll},       {"select", do_select},     {"epoll", do_epoll},
    {"ctl", do_epoll_ctl},   {"wait", do_epoll_wait},   {"set", do_set},
    {"get", do_get},         {"flags", do_flags},       {"unread", do_unread},
    {"settle", do_settle},   {"shutdown", do_shutdown}, {"close", do_close},
    {"dup", do_dup},         {"fork", do_fork},         {"pass", do_pass},
    {"take", do_take},       {"exec", do_exec},         {"reap", do_reap},
    {"exit", do_exit},       {"clone", do_clone},       {"spawn", do_spawn},
    {"dup3", do_dup3},       {"cloexec", do_cloexec},   {"closerange", do_close_range},
    {"door", do_door},       {"hand", do_hand},         {"fetch", do_fetch},
    {"getfd", do_getfd},     {"setuid", do_setuid},     {"setns", do_setns},
    {"confine", do_confine}, {"thread", do_thread},     {"turns", do_turns},
    {"echoes", do_echoes},   {"drain", do_drain},       {"both", do_both},
    {"stdio", do_stdio},
};

static void obey(char *line)
{
    char *word = strtok(line, " \n");
    args = 0;
    memset(arg, 0, sizeof arg);
    for (char *w; args < MOST && (w = strtok(NULL, " \n"));)
        arg[args++] = strtol(w, NULL, 10);
    extra[0] = 0;
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (word && strcmp(word, verbs[i].verb) == 0) {
            pipes = 0;
            errno = 0;
            long r = verbs[i].act();
            if (r != -2)
                answer(r, errno);
            return;
        }
    _exit(5);
}

/* a command is told when the one before is answered: one read is one command */
static void serve(void)
{
    static char line[4096];
    for (ssize_t n; (n = read(PIPES + 2 * slot, line, sizeof line - 1)) > 0;) {
        line[n] = 0;
        obey(line);
    }
}

static void *other_thread(void *unused)
{
    (void)unused;
    answer(0, 0);
    serve();
    exit(0);
}

/* From now on another thread does what is told. */
static long do_thread(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, other_thread, NULL) == 0)
        pthread_join(thread, NULL);
    return -1;
}

static void move(int from, int to)
{
    if (dup2(from, to) < 0 || close(from) < 0)
        fail("dup2");
}

static void first(char **number)
{
    int pair[2];
    slot = SLOTS - 1;
    for (int i = 0; i < 2 * SLOTS; i++)
        move(atoi(number[i]), PIPES + i);
    for (int i = 0; i < SLOTS; i++) {
        if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) != 0)
            fail("socketpair");
        move(pair[0], MESH + 2 * i);
        move(pair[1], MESH + 2 * i + 1);
    }
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
        fail("prctl");
    char own[16];
    snprintf(own, sizeof own, "%d", getpid());
    setenv("EXECUTOR_DOORS", own, 1);
    answer(getpid(), 0);
}

int main(int argc, char **argv)
{
    struct sigaction sa = {.sa_handler = on_sigpipe, .sa_flags = SA_RESTART};
    sigaction(SIGPIPE, &sa, NULL);
    fill_table();
    if (argc == 3) {
        slot = atoi(argv[2]);
        answer(0, 0);
    } else if (argc == 2 * SLOTS + 1) {
        first(argv + 1);
    } else {
        return 2;
    }
    serve();
    return 0;
}
