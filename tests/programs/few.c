/*
 * Few descriptors are allowed (RLIMIT_NOFILE): a program may use each of them, whatever the library would like to have. Line by line:
 *
 *     few SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

#include <sys/resource.h>

#define FEW 16

static void allow(rlim_t most)
{
    struct rlimit limit = {most, most};
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        fail("setrlimit");
}

/* So many more than 0 to 2 and those that are there, and what the next one says. */
static int use_up(const char *what, int (*open_one)(void))
{
    int n = 0, last = -1, fd;
    while ((fd = open_one()) >= 0) {
        n++;
        last = fd;
    }
    say("%s: %d, the last is %d, then %s", what, n, last, strerrorname_np(errno));
    return last;
}

static int a_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, 0);
}

static int a_file(void)
{
    return open("/dev/null", O_RDONLY);
}

static int a_copy(void)
{
    return dup(0);
}

static int a_set(void)
{
    return epoll_create1(0);
}

static struct sockaddr_in at;
static int listening = -1;

static int an_accepted(void)
{
    return accept(listening, NULL, NULL);
}

static void close_from(int first)
{
    for (int fd = first; fd < FEW; fd++)
        close(fd);
}

static void talk(const int e[2], int rounds)
{
    for (int i = 0; i < rounds; i++) {
        put(e[0], 100);
        uint8_t in[100], out[100];
        must_recv(e[1], in, sizeof in);
        fill(out, sizeof out, 0);
        if (memcmp(in, out, sizeof in))
            say("wrong bytes");
    }
    say("talked");
}

static void each(int first, const int e[2])
{
    static int (*const open_one[])(void) = {a_socket, a_file, a_copy, a_set};
    static const char *const what[] = {"socket", "open", "dup", "epoll_create"};
    for (int i = 0; i < 4; i++) {
        use_up(what[i], open_one[i]);
        struct pollfd p = {.fd = e[1], .events = POLLIN};
        show("poll, none left", poll(&p, 1, 20));
        talk(e, 20);
        close_from(first);
    }
}

/* Few from the beginning. */
static void from_the_start(void)
{
    int e[2];
    close_from(3);
    allow(FEW);
    connected(e);
    warm(e);
    each(6, e);
    talk(e, 50);
}

/* The limit comes when the library has its own already, above it. */
static void later(void)
{
    int e[2];
    close_from(3);
    warm_pair(e);
    allow(FEW);
    each(6, e);
    talk(e, 50);
}

/* Connections come in until there is no number left; those that came are good. */
static void accepting(void)
{
    int client[FEW];
    pid_t child;
    close_from(3);
    listening = listener(&at);
    child = fork();
    if (child == 0) {
        for (int i = 0; i < FEW; i++)
            if ((client[i] = socket(AF_INET, SOCK_STREAM, 0)) < 0 || connect(client[i], (struct sockaddr *)&at, sizeof at) != 0)
                fail("connect");
        for (int i = 0; i < 50; i++)
            put(client[0], 10);
        uint8_t byte;
        while (recv(client[0], &byte, 1, 0) > 0)
            ;
        _exit(0);
    }
    usleep(300000);
    allow(FEW);
    use_up("accept", an_accepted);
    uint8_t in[500];
    must_recv(4, in, sizeof in);
    say("received");
    close_from(3);
    int status;
    waitpid(child, &status, 0);
    say("status: %d", status);
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"from_the_start", from_the_start},
        {"later", later},
        {"accepting", accepting},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
