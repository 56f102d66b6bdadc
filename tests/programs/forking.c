/*
 * Sockets that a child gets at awkward moments, and children that are spawned:
 *
 *     forking SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

#include <spawn.h>

static int turn[2], done[2];
static char in[100];

/* A socket that is made before a fork and connected after it is shared like any other. */
static void connected_after_fork(void)
{
    struct sockaddr_in at;
    int e[2], l = listener(&at);
    char word;
    if (pipe(turn) != 0 || pipe(done) != 0)
        fail("pipe");
    e[0] = socket(AF_INET, SOCK_STREAM, 0);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 5 && read(turn[0], &word, 1) == 1; i++) {
            must_send(e[0], "child", 5);
            if (write(done[1], "x", 1) != 1)
                break;
        }
        _exit(0);
    }
    show("connect", connect(e[0], (struct sockaddr *)&at, sizeof at));
    e[1] = accept(l, NULL, NULL);
    warm(e);
    for (int i = 0; i < 5; i++) {
        must_send(e[0], "first", 5);
        if (write(turn[1], "x", 1) != 1 || read(done[0], &word, 1) != 1)
            fail("child");
        must_send(e[0], "parent", 6);
        memset(in, 0, sizeof in);
        must_recv(e[1], in, 16);
        say("%s", in);
    }
    waitpid(child, NULL, 0);
}

static void spawn_with(int e[2], bool copied)
{
    char *const none[] = {NULL}, script[] = "while read -r a; do echo \"got $a\"; done";
    char whole[200], redirect[40];
    snprintf(redirect, sizeof redirect, "0<&%d 1>&%d", e[0], e[0]);
    snprintf(whole, sizeof whole, "exec %s; %s", copied ? "2>&1" : redirect, script);
    char *const argv[] = {"sh", "-c", whole, NULL};
    posix_spawn_file_actions_t actions;
    pid_t child;
    posix_spawn_file_actions_init(&actions);
    for (int to = 0; copied && to < 2; to++)
        posix_spawn_file_actions_adddup2(&actions, e[0], to);
    say("spawned: %d", posix_spawn(&child, "/bin/sh", &actions, NULL, argv, none));
    for (int i = 0; i < 3; i++) {
        must_send(e[1], "words\n", 6);
        memset(in, 0, sizeof in);
        must_recv(e[1], in, 10);
        printf("%s", in);
    }
    shutdown(e[1], SHUT_WR);
    waitpid(child, NULL, 0);
    show("the end", recv(e[0], in, sizeof in, 0));
    posix_spawn_file_actions_destroy(&actions);
}

/* A program without the library is spawned with a lifted socket, inherited or copied to its standard streams. */
static void spawned(void)
{
    for (int copied = 0; copied < 2; copied++) {
        int e[2];
        warm_pair(e);
        fcntl(e[0], F_SETFD, copied ? FD_CLOEXEC : 0);
        show("nothing", recv(e[0], in, sizeof in, MSG_DONTWAIT));
        spawn_with(e, copied);
    }
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"connected_after_fork", connected_after_fork},
        {"spawned", spawned},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
