/*
 * Real-time signals, as many as are asked for, sent by another process as fast as they are taken, to a program that is sending and receiving on TCP
 * and UDP sockets: each of them is handled once, in order, with what was said with it, and no byte is wrong.
 *
 *     storm COUNT
 */
#include "pairs.h"

#include <sys/resource.h>

#define MESSAGE 512
#define PENDING 256
#define KINDS 2 /* signal numbers, each with a count of its own */

static volatile uint32_t handled[KINDS];
static volatile sig_atomic_t wrong;

static void next(int sig, siginfo_t *info, void *context)
{
    int kind = sig - SIGRTMIN;
    (void)context;
    wrong += info->si_code != SI_QUEUE || (uint32_t)info->si_value.sival_int != handled[kind];
    handled[kind]++;
}

/* As many are queued as may be: then it is the receiver's turn. */
static int queue(pid_t to, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        while (sigqueue(to, SIGRTMIN + (int)(i % KINDS), (union sigval){.sival_int = (int)(i / KINDS)}) != 0) {
            if (errno != EAGAIN)
                return 1;
            usleep(50);
        }
    return 0;
}

int main(int argc, char **argv)
{
    uint32_t count = argc == 2 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;
    struct sigaction act = {.sa_sigaction = next, .sa_flags = SA_SIGINFO | SA_RESTART};
    uint8_t out[MESSAGE], in[MESSAGE];
    int e[2], u[2];
    if (!count || count % KINDS)
        return 2;
    for (int i = 0; i < KINDS; i++)
        sigaddset(&act.sa_mask, SIGRTMIN + i);
    for (int i = 0; i < KINDS; i++)
        sigaction(SIGRTMIN + i, &act, NULL);
    struct rlimit most = {PENDING, PENDING}; /* the kernel looks through all that are queued */
    setrlimit(RLIMIT_SIGPENDING, &most);
    pid_t to = getpid(), sender = fork(); /* it has none of the sockets */
    if (sender == 0) {
        usleep(100000);
        _exit(queue(to, count));
    }
    warm_pair(e);
    udp_pair(u);
    uint32_t rounds = 0, bad = 0;
    for (; handled[0] + handled[1] < count; rounds++) {
        const int *fd = rounds % 4 == 3 ? u : e, side = rounds & 1;
        fill(out, sizeof out, rounds);
        must_send(fd[side], out, sizeof out);
        if (recv(fd[!side], in, sizeof in, MSG_WAITALL) != sizeof in)
            fail("recv");
        bad += memcmp(in, out, sizeof in) != 0;
    }
    int status = 1;
    waitpid(sender, &status, 0);
    say("signals: %u and %u, wrong: %d, wrong messages: %u, status: %d", handled[0], handled[1], (int)wrong, bad, status);
    fprintf(stderr, "%u messages\n", rounds);
    return 0;
}
