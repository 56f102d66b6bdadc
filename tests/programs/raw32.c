/*
 * System calls that 32-bit programs alone have, made by syscall() on a lifted connection:
 *
 *     raw32 SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

#include <sys/syscall.h>

#define MASK 8 /* bytes of the kernel's sigset_t */

#if __SIZEOF_POINTER__ == 4
static uint8_t buf[1 << 16], in[1 << 16];

/* Was the time-out of `given` ms written back, as less, or none? */
static void show_left(const char *what, long sec, long nsec, long given)
{
    long left = sec * 1000 + nsec / 1000000;
    say("%s: %s", what, left == given ? "as it was" : left == 0 && nsec == 0 ? "none left" : left < given ? "less" : "more");
}

static void socketcalls(void)
{
    int e[2], one = 1;
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    show("a bad array", syscall(SYS_socketcall, 1, (void *)8));
    show("a bad array", syscall(SYS_select, (void *)8));
    int l = listener(&at);
    e[0] = (int)syscall(SYS_socketcall, 1, (long[]){AF_INET, SOCK_STREAM, 0});
    show("connect", syscall(SYS_socketcall, 3, (long[]){e[0], (long)&at, (long)len}));
    e[1] = (int)syscall(SYS_socketcall, 5, (long[]){l, 0, 0});
    show("setsockopt", syscall(SYS_socketcall, 14, (long[]){e[0], IPPROTO_TCP, TCP_NODELAY, (long)&one, sizeof one}));
    no_delay(e[1]);
    warm(e);
    fill(buf, 1000, 0);
    struct iovec iov = {buf + 200, 100}, into = {in + 200, 100};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1}, got = {.msg_iov = &into, .msg_iovlen = 1};
    show("send", syscall(SYS_socketcall, 9, (long[]){e[0], (long)buf, 100, 0}));
    show("sendto", syscall(SYS_socketcall, 11, (long[]){e[0], (long)(buf + 100), 100, 0, 0, 0}));
    show("sendmsg", syscall(SYS_socketcall, 16, (long[]){e[0], (long)&msg, 0}));
    show("recv", syscall(SYS_socketcall, 10, (long[]){e[1], (long)in, 100, 0}));
    show("recvfrom", syscall(SYS_socketcall, 12, (long[]){e[1], (long)(in + 100), 100, 0, 0, 0}));
    show("recvmsg", syscall(SYS_socketcall, 17, (long[]){e[1], (long)&got, 0}));
    say("right: %d", !memcmp(buf, in, 300));
    show("a bad array", syscall(SYS_socketcall, 10, (void *)8));
    show("no such call", syscall(SYS_socketcall, 77, (long[]){0}));
    show("shutdown", syscall(SYS_socketcall, 13, (long[]){e[0], SHUT_WR}));
    show("the end", syscall(SYS_socketcall, 10, (long[]){e[1], (long)in, 100, 0}));
}

/* The numbers of 64-bit time. */
static void times(void)
{
    int e[2];
    struct {
        int64_t sec, nsec;
    } ts = {5, 0}, longest = {INT64_MAX / 4, 0};
    struct iovec iov = {in, sizeof in};
    struct mmsghdr one = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
    fd_set rd;
    warm_pair(e);
    put(e[0], 10);
    struct pollfd fd = {.fd = e[1], .events = POLLIN};
    show("ppoll", syscall(414, &fd, 1, &ts, NULL, MASK));
    show_left("left", (long)ts.sec, (long)ts.nsec, 5000);
    show("for ever", syscall(414, &fd, 1, &longest, NULL, MASK));
    FD_ZERO(&rd);
    FD_SET(e[1], &rd);
    show("pselect6", syscall(413, e[1] + 1, &rd, NULL, NULL, &ts, NULL));
    show("recvmmsg", syscall(417, e[1], &one, 1, 0, NULL));
    say("bytes: %u", one.msg_len);
    put(e[0], 10);
    struct timeval tv = {5, 0};
    long packed[5] = {e[1] + 1, (long)&rd, 0, 0, (long)&tv};
    show("packed", syscall(SYS_select, packed));
    show_left("packed left", tv.tv_sec, tv.tv_usec * 1000, 5000);
    show("a bad array", syscall(SYS_select, (void *)8));
    must_recv(e[1], in, 10);
    ts.sec = 0, ts.nsec = 20000000;
    double start = ms();
    show("nothing", syscall(414, &fd, 1, &ts, NULL, MASK));
    show_wait("waited", start, 20);
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"socketcalls", socketcalls},
        {"times", times},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
#else
#error "for 32 bits"
#endif
