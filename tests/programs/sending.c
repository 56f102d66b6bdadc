/*
 * Sends that a ring does not have, and calls that write by other names:
 *
 *     sending SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

#include <linux/net_tstamp.h>

#define LARGE (8 << 20)

static uint8_t large[LARGE], in[1 << 16];
static int end[2];

static void *receives_later(void *unused)
{
    uint32_t at = 0;
    bool right = true;
    (void)unused;
    usleep(100000);
    for (ssize_t r; (r = recv(end[1], in, sizeof in, 0)) > 0; at += (uint32_t)r)
        right = right && !memcmp(in, large + at, (size_t)r);
    return (void *)(intptr_t)(right ? at : 0);
}

static long sends(int flags, bool control)
{
    char space[CMSG_SPACE(sizeof(uint32_t))] = {0};
    struct iovec parts[2] = {{large, 1000}, {large + 1000, LARGE - 1000}};
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = 2};
    if (control) {
        msg.msg_control = space;
        msg.msg_controllen = sizeof space;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SO_TIMESTAMPING, .cmsg_len = CMSG_LEN(sizeof(uint32_t))};
        uint32_t what = SOF_TIMESTAMPING_TX_SOFTWARE;
        memcpy(CMSG_DATA(c), &what, sizeof what);
    }
    return sendmsg(end[0], &msg, flags);
}

/* A blocking send sends all of it, whatever flags and control data come with it. */
static void large_and_blocking(void)
{
    static const struct {
        const char *name;
        int flags;
        bool control;
    } ways[] = {{"MSG_EOR", MSG_EOR, false}, {"control data", 0, true}, {"MSG_OOB", MSG_OOB, false}, {"MSG_ZEROCOPY", MSG_ZEROCOPY, false}};
    fill(large, sizeof large, 0);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        pthread_t t;
        void *got;
        warm_pair(end);
        if (ways[i].flags == MSG_ZEROCOPY)
            setsockopt(end[0], SOL_SOCKET, SO_ZEROCOPY, &(int){1}, sizeof(int));
        if (ways[i].flags == MSG_OOB) /* in the stream like all the rest, so that it can be compared */
            setsockopt(end[1], SOL_SOCKET, SO_OOBINLINE, &(int){1}, sizeof(int));
        if (pthread_create(&t, NULL, receives_later, NULL) != 0)
            fail("pthread_create");
        show(ways[i].name, sends(ways[i].flags, ways[i].control));
        shutdown(end[0], SHUT_WR);
        pthread_join(t, &got);
        say("received: %ld", (long)(intptr_t)got);
        close(end[0]);
        close(end[1]);
    }
    struct timeval soon = {0, 50000};
    warm_pair(end);
    setsockopt(end[0], SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof soon);
    long r = sends(MSG_EOR, false);
    say("part of it, in time: %d", r > 0 && r < LARGE);
}

/* preadv2, pwritev2 and dprintf go where read and write go. */
static void other_names(void)
{
    struct iovec parts[2] = {{in, 3}, {in + 3, 97}}, out[2] = {{"abc", 3}, {"defg", 4}};
    warm_pair(end);
    put(end[0], 5);
    show("pwritev2", pwritev2(end[0], out, 2, -1, 0));
    show("dprintf", dprintf(end[0], "%d-%s", 12345, "sixes"));
    put(end[0], 5);
    show("read", read(end[1], in, 5));
    show("preadv2", preadv2(end[1], parts, 1, -1, 0));
    show("the rest", recv(end[1], in + 3, 4 + 11 + 5, MSG_WAITALL));
    say("%.18s", in);
    show("nothing", preadv2(end[1], parts, 2, -1, RWF_NOWAIT));
    show("at an offset", preadv2(end[1], parts, 2, 0, 0));
    show("at an offset", pwritev2(end[0], out, 2, 10, 0));
    show("with strange flags", pwritev2(end[0], out, 2, -1, 1 << 20));
    show("without waiting", pwritev2(end[0], out, 2, -1, RWF_NOWAIT));
    show("recv", preadv2(end[1], parts, 2, -1, 0));
    shutdown(end[0], SHUT_WR);
    signal(SIGPIPE, SIG_IGN);
    show("dprintf", dprintf(end[0], "%s", "in vain"));
    show("end", preadv2(end[1], parts, 2, -1, 0));
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"large_and_blocking", large_and_blocking},
        {"other_names", other_names},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
