/*
 * Sockets that a child gets at awkward moments, and children that are spawned:
 *
 *     forking SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

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

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"connected_after_fork", connected_after_fork},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
