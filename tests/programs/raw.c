/*
 * System calls made by syscall(), with their own arguments, on lifted connections with bytes in the ring and in the kernel:
 *
 *     raw SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#if __SIZEOF_POINTER__ == 4
#define HALF(offset) (long)((uint64_t)(offset) & 0xffffffff), (long)((uint64_t)(offset) >> 32)
#define SYS_select_apart SYS__newselect
#else
#define HALF(offset) (long)(offset), 0L
#define SYS_select_apart SYS_select
#endif
#define MASK 8 /* bytes of the kernel's sigset_t */

#define BY_NAME (-1)
#define BY_CLONE3 435

struct kernel_action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint8_t mask[MASK];
};

static uint8_t buf[1 << 16], in[1 << 16];

/* Sends and receives, each by another number. */
static long send_by(int how, int fd, uint8_t *at, size_t n)
{
    struct iovec iov[2] = {{at, n / 2}, {at + n / 2, n - n / 2}};
    struct mmsghdr one = {.msg_hdr = {.msg_iov = iov, .msg_iovlen = 2}};
    switch (how) {
    case 0:
        return syscall(SYS_write, fd, at, n);
    case 1:
        return syscall(SYS_writev, fd, iov, 2);
    case 2:
        return syscall(SYS_sendto, fd, at, n, 0, NULL, 0);
    case 3:
        return syscall(SYS_sendmsg, fd, &one.msg_hdr, 0);
    case 4:
        return syscall(SYS_sendmmsg, fd, &one, 1, 0) == 1 ? (long)one.msg_len : -1;
    default:
        return syscall(SYS_pwritev2, fd, iov, 2, HALF(-1L), 0);
    }
}

static long receive_by(int how, int fd, uint8_t *at, size_t n)
{
    struct iovec iov[2] = {{at, n / 3}, {at + n / 3, n - n / 3}};
    struct mmsghdr one = {.msg_hdr = {.msg_iov = iov, .msg_iovlen = 2}};
    switch (how) {
    case 0:
        return syscall(SYS_read, fd, at, n);
    case 1:
        return syscall(SYS_readv, fd, iov, 2);
    case 2:
        return syscall(SYS_recvfrom, fd, at, n, 0, NULL, NULL);
    case 3:
        return syscall(SYS_recvmsg, fd, &one.msg_hdr, 0);
    case 4:
        return syscall(SYS_recvmmsg, fd, &one, 1, 0, NULL) == 1 ? (long)one.msg_len : -1;
    default:
        return syscall(SYS_preadv2, fd, iov, 2, HALF(-1L), 0);
    }
}

#define WAYS 6

/* Every way to send with every way to receive; between them bytes that go by the kernel. */
static void transfers(void)
{
    int e[2], right = 0, whole = 0;
    warm_pair(e);
    for (int s = 0; s < WAYS; s++)
        for (int r = 0; r < WAYS; r++) {
            size_t sent = 0, got = 0;
            fill(buf, 900, (uint32_t)(s * WAYS + r));
            for (int piece = 0; piece < 4; piece++) { /* ring, kernel, ring, and libc's send */
                long n = piece == 1   ? send(e[0], buf + sent, 40, MSG_CONFIRM)
                         : piece == 3 ? send(e[0], buf + sent, 60, 0)
                                      : send_by(s, e[0], buf + sent, 400);
                if (n < 0)
                    fail("send");
                sent += (size_t)n;
            }
            for (int turn = 0; got < sent; turn++) {
                long n = turn % 2 ? recv(e[1], in + got, 50, 0) : receive_by(r, e[1], in + got, sent - got < 333 ? sent - got : 333);
                if (n <= 0)
                    fail("receive");
                got += (size_t)n;
            }
            whole += sent == 900;
            right += !memcmp(buf, in, sent);
        }
    say("whole: %d, right: %d", whole, right);
    fcntl(e[1], F_SETFL, O_NONBLOCK);
    for (int r = 0; r < WAYS; r++)
        show("none", receive_by(r, e[1], in, 10));
    shutdown(e[0], SHUT_WR);
    for (int r = 0; r < WAYS; r++)
        show("the end", receive_by(r, e[1], in, 10));
    signal(SIGPIPE, SIG_IGN);
    for (int s = 0; s < WAYS; s++)
        show("shut", send_by(s, e[0], buf, 10));
}

/* Two sockets that send to each other until both directions are lifted; then by every number. */
static void datagrams(void)
{
    int s[2], right = 0, names = 0;
    struct sockaddr_in at[2], from;
    for (int i = 0; i < 2; i++) {
        socklen_t len = sizeof at[i];
        at[i] = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        s[i] = (int)syscall(SYS_socket, AF_INET, SOCK_DGRAM, 0);
        if (syscall(SYS_bind, s[i], &at[i], len) != 0 || getsockname(s[i], (struct sockaddr *)&at[i], &len) != 0)
            fail("bind");
    }
    for (int i = 0; i < 2; i++)
        syscall(SYS_connect, s[i], &at[1 - i], sizeof at[i]);
    for (int i = 0; i < 400; i++) {
        socklen_t len = sizeof from;
        fill(buf, 100, (uint32_t)i);
        if (send_by(i % WAYS, s[i % 2], buf, 100) != 100)
            fail("send");
        if (i % 3 == 0) {
            if (syscall(SYS_recvfrom, s[1 - i % 2], in, sizeof in, 0, &from, &len) != 100)
                fail("recvfrom");
            names += from.sin_port == at[i % 2].sin_port;
        } else if (receive_by(i / 2 % WAYS, s[1 - i % 2], in, 1000) != 100) {
            fail("receive");
        }
        right += !memcmp(buf, in, 100);
    }
    say("right: %d, names: %d", right, names);
    show("two", send_by(0, s[0], buf, 30) + send_by(4, s[0], buf, 40));
    struct pollfd p = {.fd = s[1], .events = POLLIN};
    show("poll", syscall(SYS_poll, &p, 1, 1000));
    struct iovec iov[2] = {{in, 100}, {in + 100, 100}};
    struct mmsghdr many[2] = {{.msg_hdr = {.msg_iov = &iov[0], .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = &iov[1], .msg_iovlen = 1}}};
    show("recvmmsg", syscall(SYS_recvmmsg, s[1], many, 2, MSG_WAITFORONE, NULL));
    say("of %u and %u bytes", many[0].msg_len, many[1].msg_len);
    show("cut off", send_by(2, s[0], buf, 50));
    show("recvfrom", syscall(SYS_recvfrom, s[1], in, 20, MSG_TRUNC, NULL, NULL));
    show("none", syscall(SYS_recvfrom, s[1], in, 20, MSG_DONTWAIT, NULL, NULL));
}

/* Bad pointers, before there was any internet socket. */
static void unguarded(void)
{
    struct pollfd p = {.fd = 0};
    struct kernel_action act = {.handler = SIG_IGN}, old;
    struct {
        void *mask;
        size_t size;
    } bad = {(void *)8, MASK};
    struct epoll_event event;
    char *none[] = {NULL};
    show("ppoll", syscall(SYS_ppoll, &p, 1, (void *)8, NULL, MASK));
    show("ppoll", syscall(SYS_ppoll, &p, 1, NULL, (void *)8, MASK));
    show("pselect6", syscall(SYS_pselect6, 0, NULL, NULL, NULL, NULL, (void *)8));
    show("pselect6", syscall(SYS_pselect6, 0, NULL, NULL, NULL, NULL, &bad));
    show("select", syscall(SYS_select_apart, 0, NULL, NULL, NULL, (void *)8));
    show("rt_sigaction", syscall(SYS_rt_sigaction, SIGUSR2, (void *)8, NULL, MASK));
    show("rt_sigaction", syscall(SYS_rt_sigaction, SIGUSR2, &act, (void *)8, MASK));
    show("rt_sigaction", syscall(SYS_rt_sigaction, SIGUSR2, NULL, &old, MASK));
    say("was done: %d", old.handler == SIG_IGN);
    show("clone3", syscall(BY_CLONE3, (void *)8, 64));
    show("sendmmsg", syscall(SYS_sendmmsg, 0, (void *)8, 1, 0));
    show("recvmsg", syscall(SYS_recvmsg, 0, (void *)8, 0));
    show("io_submit", syscall(SYS_io_submit, 0, 1, (void *)8));
    show("execveat", syscall(SYS_execveat, AT_FDCWD, (void *)8, none, none, AT_EMPTY_PATH));
    int set = (int)syscall(SYS_epoll_create1, 0);
    show("epoll_pwait", syscall(SYS_epoll_pwait, set, &event, 1, 0, (void *)8, MASK));
    show("epoll_pwait2", syscall(441, set, &event, 1, (void *)8, NULL, MASK));
    show("epoll_wait", syscall(SYS_epoll_wait, set, (void *)8, 1, 0));
}

static void refused(void)
{
    int e[2];
    struct iovec iov = {in, 10};
    int file = open("/proc/self/exe", O_RDONLY);
    warm_pair(e);
    put(e[0], 100);
    show("a bad buffer", syscall(SYS_read, e[1], (void *)8, 10));
    show("a bad array", syscall(SYS_readv, e[1], (void *)8, 1));
    show("too many", syscall(SYS_readv, e[1], &iov, 2000));
    show("a bad message", syscall(SYS_recvmsg, e[1], (void *)8, 0));
    show("at an offset", syscall(SYS_preadv2, e[1], &iov, 1, HALF(5L), 0));
    show("flags that nobody knows", syscall(SYS_preadv2, e[1], &iov, 1, HALF(-1L), 1 << 20));
    show("to a bad address", syscall(SYS_sendto, e[0], buf, 10, 0, (void *)8, 16));
    show("from a bad offset", syscall(SYS_sendfile, e[0], file, (void *)8, 10));
    show("no such descriptor", syscall(SYS_read, 999, in, 10));
    show("no such call", syscall(100000, 1, 2, 3));
    show("all that came", syscall(SYS_recvfrom, e[1], in, sizeof in, 0, NULL, NULL));
}

static void peeking(void)
{
    int e[2], n = 0, on = 1;
    warm_pair(e);
    put(e[0], 100);
    show("peek", syscall(SYS_recvfrom, e[1], in, sizeof in, MSG_PEEK, NULL, NULL));
    show("FIONREAD", syscall(SYS_ioctl, e[1], FIONREAD, &n));
    say("unread: %d", n);
    show("wait for all", syscall(SYS_recvfrom, e[1], in, 100, MSG_WAITALL, NULL, NULL));
    show("FIONBIO", syscall(SYS_ioctl, e[1], FIONBIO, &on));
    show("none", syscall(SYS_read, e[1], in, 10));
#ifdef SYS_fcntl64
    show("F_SETFL", syscall(SYS_fcntl64, e[1], F_SETFL, 0));
#else
    show("F_SETFL", syscall(SYS_fcntl, e[1], F_SETFL, 0));
#endif
    receive_timeout(e[1], 20);
    double start = ms();
    show("none in time", syscall(SYS_read, e[1], in, 10));
    show_wait("waited", start, 20);
}

/* Was the time-out of `given` ms written back, as less, or none? */
static void show_left(const char *what, long sec, long nsec, long given)
{
    long left = sec * 1000 + nsec / 1000000;
    say("%s: %s", what, left == given ? "as it was" : left == 0 && nsec == 0 ? "none left" : left < given ? "less" : "more");
}

static void polls(void)
{
    int e[2];
    struct timespec ts = {5, 0}, wrong = {0, 1000000000};
    sigset_t none;
    warm_pair(e);
    sigemptyset(&none);
    struct pollfd fds[2] = {{.fd = e[0], .events = POLLIN}, {.fd = e[1], .events = POLLIN | POLLOUT}};
    put(e[0], 10);
    show("poll", syscall(SYS_poll, fds, 2, 1000));
    say("events: %x %x", (unsigned)fds[0].revents, (unsigned)fds[1].revents);
    show("ppoll", syscall(SYS_ppoll, fds, 2, &ts, &none, MASK));
    show_left("ppoll left", ts.tv_sec, ts.tv_nsec, 5000);
    show("none of a mask", syscall(SYS_ppoll, fds, 2, NULL, NULL, 0));
    show("a mask of another size", syscall(SYS_ppoll, fds, 2, &ts, &none, 16));
    show("a bad mask", syscall(SYS_ppoll, fds, 2, &ts, (void *)8, MASK));
    show("a bad time", syscall(SYS_ppoll, fds, 2, (void *)8, NULL, MASK));
    show("a wrong time", syscall(SYS_ppoll, fds, 2, &wrong, NULL, MASK));
    show("bad descriptors", syscall(SYS_ppoll, (void *)8, 2, &ts, NULL, MASK));
    must_recv(e[1], in, 10);
    fds[1].events = POLLIN;
    double start = ms();
    show("nothing", syscall(SYS_poll, fds, 2, 20));
    show_wait("waited", start, 20);
    ts = (struct timespec){0, 20000000};
    start = ms();
    show("nothing", syscall(SYS_ppoll, fds, 2, &ts, &none, MASK));
    show_wait("waited", start, 20);
    show_left("ppoll left", ts.tv_sec, ts.tv_nsec, 20);
}

static void selects(void)
{
    int e[2];
    fd_set rd;
    struct timeval tv = {4, 1500000};
    struct timespec ts = {5, 0};
    sigset_t none;
    struct {
        const void *mask;
        size_t size;
    } mask = {&none, MASK}, wrong = {&none, 16};
    warm_pair(e);
    sigemptyset(&none);
    put(e[0], 10);
    FD_ZERO(&rd);
    FD_SET(e[0], &rd);
    FD_SET(e[1], &rd);
    show("select", syscall(SYS_select_apart, e[1] + 1, &rd, NULL, NULL, &tv));
    say("readable: %d %d", FD_ISSET(e[0], &rd) != 0, FD_ISSET(e[1], &rd) != 0);
    show_left("select left", tv.tv_sec, tv.tv_usec * 1000, 5500);
    show("pselect6", syscall(SYS_pselect6, e[1] + 1, &rd, NULL, NULL, &ts, &mask));
    show_left("pselect6 left", ts.tv_sec, ts.tv_nsec, 5000);
    show("no mask", syscall(SYS_pselect6, e[1] + 1, &rd, NULL, NULL, NULL, NULL));
    show("a mask of another size", syscall(SYS_pselect6, e[1] + 1, &rd, NULL, NULL, &ts, &wrong));
    show("a bad mask", syscall(SYS_pselect6, e[1] + 1, &rd, NULL, NULL, &ts, (void *)8));
    show("a bad time", syscall(SYS_select_apart, e[1] + 1, &rd, NULL, NULL, (void *)8));
    tv = (struct timeval){-1, 0};
    show("a wrong time", syscall(SYS_select_apart, e[1] + 1, &rd, NULL, NULL, &tv));
    must_recv(e[1], in, 10);
    tv = (struct timeval){0, 20000};
    FD_ZERO(&rd);
    FD_SET(e[1], &rd);
    double start = ms();
    show("nothing", syscall(SYS_select_apart, e[1] + 1, &rd, NULL, NULL, &tv));
    show_wait("waited", start, 20);
    show_left("select left", tv.tv_sec, tv.tv_usec * 1000, 20);
}

static void sets(void)
{
    int e[2], p[2];
    struct epoll_event got[4] = {0}, of[2];
    struct {
        int64_t sec, nsec;
    } ts = {5, 0};
    sigset_t none;
    warm_pair(e);
    sigemptyset(&none);
    p[0] = (int)syscall(SYS_epoll_create, 1);
    p[1] = (int)syscall(SYS_epoll_create1, EPOLL_CLOEXEC);
    for (int i = 0; i < 2; i++) {
        of[i] = (struct epoll_event){.events = EPOLLIN, .data.u32 = (uint32_t)i + 7};
        show("ctl", syscall(SYS_epoll_ctl, p[0], EPOLL_CTL_ADD, e[i], &of[i]));
    }
    show("again", syscall(SYS_epoll_ctl, p[0], EPOLL_CTL_ADD, e[0], &of[0]));
    for (int i = 0; i < 20; i++) { /* long enough for its rings to be opened */
        put(e[0], 100);
        if (syscall(SYS_epoll_wait, p[0], got, 4, 1000) != 1 || got[0].data.u32 != 8)
            fail("epoll_wait");
        must_recv(e[1], in, 100);
    }
    put(e[0], 10);
    show("epoll_wait", syscall(SYS_epoll_wait, p[0], got, 4, 1000));
    show("epoll_pwait", syscall(SYS_epoll_pwait, p[0], got, 4, 1000, &none, MASK));
    show("epoll_pwait2", syscall(441, p[0], got, 4, &ts, &none, MASK));
    say("time: %ld, data: %u", (long)ts.sec, got[0].data.u32);
    show("a mask of another size", syscall(SYS_epoll_pwait, p[0], got, 4, 1000, &none, 4));
    show("a bad time", syscall(441, p[0], got, 4, (void *)8, &none, MASK));
    show("no room", syscall(SYS_epoll_wait, p[0], got, 0, 1000));
    must_recv(e[1], in, 10);
    double start = ms();
    show("nothing", syscall(SYS_epoll_wait, p[0], got, 4, 20));
    show_wait("waited", start, 20);
    show("the other one", syscall(SYS_epoll_pwait, p[1], got, 4, 0, NULL, 0));
    show("no set", syscall(SYS_epoll_wait, e[0], got, 4, 0));
}

static void *sending(void *arg)
{
    usleep(10000);
    put(*(int *)arg, 8);
    return NULL;
}

/* One wait by that number, of two seconds at most. */
static long wait_by(int how, int fd, int set)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct timespec ts = {2, 0};
    struct timeval tv = {2, 0};
    struct {
        int64_t sec, nsec;
    } wide = {2, 0};
    struct epoll_event event;
    fd_set rd;
    FD_ZERO(&rd);
    FD_SET(fd, &rd);
    switch (how) {
    case 0:
        return syscall(SYS_poll, &p, 1, 2000);
    case 1:
        return syscall(SYS_ppoll, &p, 1, &ts, NULL, 0);
    case 2:
        return syscall(SYS_select_apart, fd + 1, &rd, NULL, NULL, &tv);
    case 3:
        return syscall(SYS_pselect6, fd + 1, &rd, NULL, NULL, &ts, NULL);
    case 4:
        return syscall(SYS_epoll_wait, set, &event, 1, 2000);
    case 5:
        return syscall(SYS_epoll_pwait, set, &event, 1, 2000, NULL, 0);
    case 6:
        return syscall(441, set, &event, 1, &wide, NULL, 0);
    default:
        return receive_by(how - 7, fd, in, 8);
    }
}

/* Something comes while each waits. */
static void woken(void)
{
    int e[2], early = 0;
    pthread_t other;
    warm_pair(e);
    receive_timeout(e[1], 2000);
    for (int how = 0; how < 7 + WAYS; how++) {
        int set = epoll_create1(0);
        struct epoll_event event = {.events = EPOLLIN};
        if (how >= 4 && how <= 6)
            epoll_ctl(set, EPOLL_CTL_ADD, e[1], &event);
        double start = ms();
        if (pthread_create(&other, NULL, sending, &e[0]) != 0)
            fail("pthread_create");
        long r = wait_by(how, e[1], set);
        early += ms() - start < 1000;
        say("%d: %ld", how, r);
        pthread_join(other, NULL);
        if (how < 7)
            must_recv(e[1], in, 8);
        close(set);
    }
    say("in time: %d", early);
}

/* A connection that is made, copied and closed by numbers alone. */
static void descriptors(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int l = (int)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0), e[2], one = 1;
    if (syscall(SYS_bind, l, &at, len) != 0 || listen(l, 5) != 0 || getsockname(l, (struct sockaddr *)&at, &len) != 0)
        fail("listen");
    e[0] = (int)syscall(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    show("connect", syscall(SYS_connect, e[0], &at, len));
    e[1] = (int)syscall(SYS_accept4, l, NULL, NULL, SOCK_CLOEXEC);
    show("setsockopt", syscall(SYS_setsockopt, e[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    no_delay(e[1]);
    warm(e);
    put(e[0], 100);
    int copy = (int)syscall(SYS_dup, e[1]);
    show("by a copy", recv(copy, in, 30, MSG_WAITALL));
    show("onto another number", syscall(SYS_dup3, copy, 100, O_CLOEXEC) == 100);
    show("by that", recv(100, in, 30, MSG_WAITALL));
    show("closed", syscall(SYS_close, e[1]));
    show("closed again", syscall(SYS_close, e[1]));
    show("by what is left", syscall(SYS_read, 100, in, 30));
    show("closed", syscall(SYS_close, copy));
    show("unread, and closed", syscall(436 /* close_range */, 100, 100, 0));
    show("recv", recv(e[0], in, 10, 0));
    show("shut", syscall(SYS_shutdown, e[0], SHUT_WR));
    syscall(SYS_close, e[0]);
    syscall(SYS_close, l);
}

/* The number of a closed connection is another's at once. */
static void numbers(void)
{
    int e[2], f[2];
    for (int i = 0; i < 4; i++) {
        warm_pair(e);
        put(e[0], 50);
        show("unread, and closed", syscall(SYS_close, e[1]));
        show("recv", recv(e[0], in, 10, 0));
        show("closed", syscall(SYS_close, e[0]));
        connected(f);
        say("the same numbers: %d", f[0] == e[0] || f[0] == e[1]);
        warm(f);
        put(f[0], 10);
        show("read", syscall(SYS_read, f[1], in, 100));
        show("replaced", syscall(SYS_dup3, f[0], f[1], 0) == f[1]);
        show("the end", recv(f[0], in, 10, 0));
        close(f[0]);
        close(f[1]);
    }
}

static void copies(void)
{
    int e[2], p[2];
    char name[] = "/tmp/raw.XXXXXX";
    warm_pair(e);
    if (pipe(p) != 0)
        fail("pipe");
    int file = mkstemp(name);
    unlink(name);
    fill(buf, 5000, 0);
    if (write(file, buf, 5000) != 5000 || lseek(file, 0, SEEK_SET) != 0)
        fail("file");
    off_t at = 1000;
    put(e[0], 200);
    show("sendfile", syscall(SYS_sendfile, e[0], file, &at, 1500));
    say("offset: %ld", (long)at);
    show("from its own place", syscall(SYS_sendfile, e[0], file, NULL, 500));
    put(e[0], 100);
    must_recv(e[1], in, 200);
    must_recv(e[1], in, 2000);
    say("right: %d", !memcmp(in, buf + 1000, 1500) && !memcmp(in + 1500, buf, 500));
    must_recv(e[1], in, 100);
    say("and then: %d", !memcmp(in, buf, 100));
    put(e[0], 100);
    if (write(p[1], buf, 3000) != 3000)
        fail("write");
    show("splice into", syscall(SYS_splice, p[0], NULL, e[0], NULL, 3000, 0));
    must_recv(e[1], in, 100);
    put(e[0], 100);
    show("splice out of", syscall(SYS_splice, e[1], NULL, p[1], NULL, 3100, SPLICE_F_NONBLOCK));
    show("read", read(p[0], in, sizeof in));
    say("right: %d", !memcmp(in, buf, 3000) && !memcmp(in + 3000, buf, 100));
    close(file);
}

static void *interrupting(void *arg)
{
    struct timespec ts = {0, 30000000};
    nanosleep(&ts, NULL);
    pthread_kill(*(pthread_t *)arg, SIGUSR1);
    nanosleep(&ts, NULL);
    return NULL;
}

static volatile sig_atomic_t ran;

static void on_signal(int sig)
{
    (void)sig;
    ran++;
}

/* Waits in a receive, by its number, while SIGUSR1 comes. */
static void interrupted(const char *what)
{
    int e[2];
    pthread_t self = pthread_self(), other;
    warm_pair(e);
    ran = 0;
    receive_timeout(e[1], 200);
    if (pthread_create(&other, NULL, interrupting, &self) != 0)
        fail("pthread_create");
    double start = ms();
    show(what, syscall(SYS_read, e[1], in, 10));
    say("handlers: %d, at once: %d", (int)ran, ms() - start < 150);
    pthread_join(other, NULL);
    close(e[0]);
    close(e[1]);
}

/* A handler that is installed past libc: a restorer there must be, so libc's is taken over. */
static void actions(void)
{
    struct kernel_action act, old, was;
    handle(SIGUSR1, on_signal, 0);
    if (syscall(SYS_rt_sigaction, SIGUSR1, NULL, &act, MASK) != 0)
        fail("rt_sigaction");
    say("told of ours: %d", act.handler == on_signal);
    void (*restorer)(void) = act.restorer;
    act.flags |= SA_NODEFER;
    act.mask[0] = 2; /* SIGINT */
    show("installed", syscall(SYS_rt_sigaction, SIGUSR1, &act, &old, MASK));
    show("asked for", syscall(SYS_rt_sigaction, SIGUSR1, NULL, &was, MASK));
    say("the same: %d %d %d %d", was.handler == on_signal, was.flags == act.flags, was.restorer == restorer, was.mask[0]);
    struct sigaction libc;
    sigaction(SIGUSR1, NULL, &libc);
    say("libc says: %d %d", libc.sa_handler == on_signal, sigismember(&libc.sa_mask, SIGINT));
    interrupted("not restarted");
    act.flags |= SA_RESTART;
    syscall(SYS_rt_sigaction, SIGUSR1, &act, NULL, MASK);
    interrupted("with a time-out");
    show("another size", syscall(SYS_rt_sigaction, SIGUSR1, &act, NULL, 16));
    show("a bad one", syscall(SYS_rt_sigaction, SIGUSR1, (void *)8, NULL, MASK));
    show("no such signal", syscall(SYS_rt_sigaction, 65, &act, NULL, MASK));
    show("not to be caught", syscall(SYS_rt_sigaction, SIGKILL, &act, NULL, MASK));
    act.handler = SIG_IGN;
    show("both in one place", syscall(SYS_rt_sigaction, SIGUSR1, &act, &act, MASK));
    sigaction(SIGUSR1, NULL, &libc);
    say("was ours: %d, is ignored: %d", act.handler == on_signal, libc.sa_handler == SIG_IGN);
    act.handler = SIG_DFL;
    show("default", syscall(SYS_rt_sigaction, SIGSEGV, &act, &old, MASK));
    say("was: %d", old.handler == SIG_DFL);
    show("a bad buffer", syscall(SYS_write, 1, (void *)8, 10));
    syscall(SYS_rt_sigaction, SIGUSR1, &act, NULL, MASK);
    sigaction(SIGUSR1, NULL, &libc);
    say("default again: %d", libc.sa_handler == SIG_DFL);
}

/* A system call is no cancellation point: the thread goes on with what it got. */
static int cancelled_end;

static void *cancelled(void *arg)
{
    char *got = arg;
    pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, NULL);
    long r = syscall(SYS_read, cancelled_end, got, 5);
    got[5] = (char)('0' + r);
    return NULL;
}

static void cancellation(void)
{
    int e[2];
    char got[8] = {0};
    void *result = NULL;
    pthread_t thread;
    warm_pair(e);
    cancelled_end = e[1];
    if (pthread_create(&thread, NULL, cancelled, got) != 0)
        fail("pthread_create");
    usleep(20000);
    pthread_cancel(thread);
    usleep(20000);
    must_send(e[0], "bytes", 5);
    pthread_join(thread, &result);
    say("%s, cancelled: %d", got, result == PTHREAD_CANCELED);
}

static void wait_for(pid_t child)
{
    int status = -1;
    if (waitpid(child, &status, 0) != child)
        fail("waitpid");
    say("child: %s %d", WIFSIGNALED(status) ? "signal" : "exit", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static pid_t fork_by(long number)
{
    uint64_t args[11] = {[4] = SIGCHLD}; /* struct clone_args: the signal at the end */
    if (number == BY_NAME)
        return _Fork();
    if (number == BY_CLONE3)
        return (pid_t)syscall(number, args, sizeof args);
    return (pid_t)syscall(number, number == SYS_clone ? SIGCHLD : 0, 0, 0, 0, 0);
}

static void forked_by(long number)
{
    int e[2];
    uint8_t want[3000];
    warm_pair(e);
    put(e[1], 3000); /* in the ring when it is shared */
    fill(want, 3000, 0);
    pid_t child = fork_by(number);
    if (child == 0) {
        must_recv(e[0], buf, 1000);
        must_send(e[0], "child", 5);
        _exit(memcmp(buf, want, 1000) != 0);
    }
    wait_for(child);
    must_recv(e[0], buf, 2000);
    say("right: %d", !memcmp(buf, want + 1000, 2000));
    show("from the child", recv(e[1], buf, 5, MSG_WAITALL));
    warm(e);
    put(e[1], 10);
    show("read", syscall(SYS_read, e[0], in, 100));
}

static void forks(void)
{
#ifdef SYS_fork
    forked_by(SYS_fork);
#else
    forked_by(SYS_clone);
#endif
    forked_by(SYS_clone);
    forked_by(BY_CLONE3);
    forked_by(BY_NAME);
}

/* In a vfork child, which runs on its parent's memory, numbers are the kernel's alone: the parent's table does not change. */
static void vforked(void)
{
    int e[2];
    warm_pair(e);
    put(e[0], 100);
    pid_t child = vfork();
    if (child == 0) {
        syscall(SYS_close, e[1]);
        syscall(SYS_dup3, 2, e[0], 0);
        _exit((int)syscall(SYS_write, e[0], "", 0));
    }
    wait_for(child);
    show("read", syscall(SYS_read, e[1], in, 200));
    warm(e);
}

/* A program without the library gets what is in the ring. */
static void executed_by(int how)
{
    int e[2];
    char command[64], *argv[] = {"sh", "-c", command, NULL}, *envp[] = {"PATH=/bin:/usr/bin", NULL};
    warm_pair(e);
    must_send(e[1], "from the ring\n", 14);
    snprintf(command, sizeof command, "head -c 14 <&%d", e[0]);
    pid_t child = fork();
    if (child == 0) {
        int sh = open("/bin/sh", O_PATH | O_CLOEXEC), bin = open("/bin", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (how == 0)
            syscall(SYS_execve, "/bin/sh", argv, envp);
        else if (how == 1)
            syscall(SYS_execveat, AT_FDCWD, "/bin/sh", argv, envp, 0);
        else if (how == 2)
            syscall(SYS_execveat, sh, "", argv, envp, AT_EMPTY_PATH);
        else
            execveat(bin, "sh", argv, envp, 0);
        _exit(99);
    }
    wait_for(child);
    show("nothing is left", recv(e[0], in, 10, MSG_DONTWAIT));
    close(e[0]);
    close(e[1]);
}

static void executes(void)
{
    for (int how = 0; how < 4; how++)
        executed_by(how);
    char *argv[] = {"none", NULL};
    show("no such program", syscall(SYS_execve, "/nowhere/none", argv, environ));
    show("no such program", execveat(AT_FDCWD, "/nowhere/none", argv, environ, 0));
}

/* A descriptor that is passed, and looked at, by numbers. */
static void passes(void)
{
    int e[2], pair[2], got;
    char byte = 'x';
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.head = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))}};
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_LEN(sizeof(int))};
    warm_pair(e);
    put(e[0], 100);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        fail("socketpair");
    memcpy(CMSG_DATA(&control.head), &e[1], sizeof e[1]);
    show("sendmsg", syscall(SYS_sendmsg, pair[0], &msg, 0));
    close(e[1]);
    msg.msg_controllen = sizeof control;
    show("recvmsg", syscall(SYS_recvmsg, pair[1], &msg, 0));
    memcpy(&got, CMSG_DATA(&control.head), sizeof got);
    show("read", syscall(SYS_read, got, in, 60));
    show("read", syscall(SYS_read, got, in, 60));
    int back[2] = {e[0], got};
    warm(back);
}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        {"transfers", transfers},   {"datagrams_by_number", datagrams},
        {"woken_by_number", woken}, {"unguarded", unguarded},
        {"refused", refused},       {"peeking", peeking},
        {"polls", polls},           {"selects", selects},
        {"sets_by_number", sets},   {"descriptors", descriptors},
        {"numbers_again", numbers}, {"copies_by_number", copies},
        {"actions", actions},       {"cancellation", cancellation},
        {"forks_by_number", forks}, {"executes_by_number", executes},
        {"passes", passes},         {"vforked", vforked},
    };
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
