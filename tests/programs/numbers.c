/*
 * A program that takes the very numbers that the library's descriptors have, and goes on with its connections:
 *
 *     numbers SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

#include <sys/resource.h>

#define PLACES 64

static int end[2];

static void *answers(void *unused)
{
    uint8_t in[64];
    while (recv(end[1], in, sizeof in, MSG_WAITALL) == sizeof in)
        must_send(end[1], in, sizeof in);
    return unused;
}

static void turns(int n)
{
    uint8_t in[64];
    for (int i = 0; i < n; i++) {
        put(end[0], sizeof in);
        must_recv(end[0], in, sizeof in);
        if (i % 8 == 0)
            usleep(500); /* the other one falls asleep */
    }
}

/* From three quarters of the limit on, which is where the library keeps its own. */
static int first_place(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    return (int)(limit.rlim_cur > 65536 ? 65536 - 65536 / 4 : limit.rlim_cur - limit.rlim_cur / 4);
}

/* Copies of a socket that takes whatever is written to it, on all numbers that are taken up there, while another thread waits. */
static void dup_onto_all(void)
{
    int other[2], tcp[2], first = first_place(), failed = 0;
    char stray[100];
    pthread_t t;
    warm_pair(end);
    connected(tcp);
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, other) != 0 || pthread_create(&t, NULL, answers, NULL) != 0)
        fail("set up");
    for (int round = 0; round < 5; round++) {
        turns(40);
        usleep(2000);
        for (int fd = first; fd < first + PLACES; fd++)
            failed += dup2(round % 2 ? other[0] : tcp[0], fd) != fd;
        turns(40);
        for (int fd = first; fd < first + PLACES; fd++)
            failed += dup3(round % 2 ? tcp[0] : other[0], fd, O_CLOEXEC) != fd;
    }
    turns(100);
    say("failed: %d", failed);
    show("stray bytes", recv(other[1], stray, sizeof stray, MSG_DONTWAIT));
    show("stray bytes", recv(tcp[1], stray, sizeof stray, MSG_DONTWAIT));
    put(tcp[0], 10);
    show("what is meant to come", recv(tcp[1], stray, sizeof stray, 0));
    for (int fd = first; fd < first + PLACES; fd++)
        failed += close(fd) != 0;
    say("failed: %d", failed);
    shutdown(end[0], SHUT_WR);
    pthread_join(t, NULL);
    close(end[0]);
    close(end[1]);
    warm_pair(end);
    say("warm");
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"dup_onto_all", dup_onto_all},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
