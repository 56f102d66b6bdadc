/*
 * What the calls on datagram sockets return, line by line; both ends are ours, and warm (the receiver's ring is open to the sender, where
 * the library is there and eager):
 *
 *     datagrams SCENE
 *
 * Without a scene it lists them. On the kernel and through the library the lines must be the same.
 */
#include "pairs.h"

#include <linux/sockios.h>
#include <sys/mman.h>

static uint8_t buf[1 << 16];

union name {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

static socklen_t name_of(union name *n, int domain, const char *address, uint16_t port)
{
    memset(n, 0, sizeof *n);
    n->sa.sa_family = (sa_family_t)domain;
    if (domain == AF_INET) {
        n->in.sin_port = htons(port);
        inet_pton(AF_INET, address, &n->in.sin_addr);
        return sizeof n->in;
    }
    n->in6.sin6_port = htons(port);
    inet_pton(AF_INET6, address, &n->in6.sin6_addr);
    return sizeof n->in6;
}

static int bound(int domain, const char *address)
{
    union name n;
    int fd = socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t len = name_of(&n, domain, address, 0);
    if (fd < 0 || bind(fd, &n.sa, len) != 0)
        fail("bind");
    return fd;
}

static uint16_t port_of(int fd)
{
    union name n;
    socklen_t len = sizeof n;
    if (getsockname(fd, &n.sa, &len) != 0)
        fail("getsockname");
    return ntohs(n.sa.sa_family == AF_INET ? n.in.sin_port : n.in6.sin6_port);
}

static void join(int fd, int domain, const char *address, uint16_t port)
{
    union name n;
    socklen_t len = name_of(&n, domain, address, port);
    if (connect(fd, &n.sa, len) != 0)
        fail("connect");
}

/* Until a receives from b by its ring: each datagram is read before the next is sent. */
static void warm_to(int from, const union name *to, socklen_t len, int at)
{
    for (int i = 0; i < 40; i++) {
        if (sendto(from, "warm", 4, 0, len ? &to->sa : NULL, len) != 4 || recv(at, buf, sizeof buf, 0) != 4)
            fail("warm");
    }
}

/* end[0] is connected to end[1], which is not connected; warm in both directions. */
static void ends(int end[2])
{
    union name n;
    end[0] = bound(AF_INET, "127.0.0.1");
    end[1] = bound(AF_INET, "127.0.0.1");
    join(end[0], AF_INET, "127.0.0.1", port_of(end[1]));
    warm_to(end[0], NULL, 0, end[1]);
    socklen_t len = name_of(&n, AF_INET, "127.0.0.1", port_of(end[0]));
    warm_to(end[1], &n, len, end[0]);
}

static void show_from(const char *what, long r, const union name *n, socklen_t len, uint16_t expected)
{
    char text[64] = "none";
    uint16_t port = 0;
    if (len && n->sa.sa_family == AF_INET) {
        inet_ntop(AF_INET, &n->in.sin_addr, text, sizeof text);
        port = ntohs(n->in.sin_port);
    } else if (len) {
        inet_ntop(AF_INET6, &n->in6.sin6_addr, text, sizeof text);
        port = ntohs(n->in6.sin6_port);
    }
    show(what, r);
    say("from %s, %u bytes, port %s", text, (unsigned)len, port == expected ? "right" : "wrong");
}

static void boundaries(void)
{
    int e[2];
    ends(e);
    for (int i = 0; i < 5; i++)
        show("send", send(e[0], "0123456789", (size_t)(10 - 2 * i), 0));
    for (int i = 0; i < 5; i++)
        show("recv", recv(e[1], buf, sizeof buf, MSG_DONTWAIT));
    show("no more", recv(e[1], buf, sizeof buf, MSG_DONTWAIT));
    memset(buf, 7, sizeof buf);
    for (size_t n = 1; n < 65000; n = n * 3 + 1) {
        show("send", send(e[0], buf, n, 0));
        show("recv", recv(e[1], buf, sizeof buf, 0));
    }
    show("largest", send(e[0], buf, 65507, 0));
    show("recv", recv(e[1], buf, sizeof buf, 0));
    show("too large", send(e[0], buf, 65508, 0));
}

static void truncation(void)
{
    int e[2];
    ends(e);
    for (int i = 0; i < 6; i++)
        show("send", send(e[0], "0123456789", 10, 0));
    show("recv 4", recv(e[1], buf, 4, 0));
    show("recv 4, MSG_TRUNC", recv(e[1], buf, 4, MSG_TRUNC));
    struct iovec iov[2] = {{buf, 3}, {buf + 100, 3}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    show("recvmsg 6", recvmsg(e[1], &msg, 0));
    say("flags %#x, control %zu", (unsigned)msg.msg_flags, (size_t)msg.msg_controllen);
    say("bytes %.3s %.3s", (char *)buf, (char *)buf + 100);
    show("recvmsg 6, MSG_TRUNC", recvmsg(e[1], &msg, MSG_TRUNC));
    say("flags %#x", (unsigned)msg.msg_flags);
    show("readv", readv(e[1], iov, 2));
    show("read 0", read(e[1], buf, 0));
    show("recv 0", recv(e[1], buf, 0, 0));
    show("no more", recv(e[1], buf, 10, MSG_DONTWAIT));
}

static void peeking(void)
{
    int e[2], n;
    ends(e);
    send(e[0], "abcdef", 6, 0);
    send(e[0], "xyz", 3, 0);
    show("peek size", recv(e[1], NULL, 0, MSG_PEEK | MSG_TRUNC));
    show("FIONREAD", ioctl(e[1], FIONREAD, &n));
    say("next: %d", n);
    show("peek 2", recv(e[1], buf, 2, MSG_PEEK));
    show("peek 2, whole", recv(e[1], buf, 2, MSG_PEEK | MSG_TRUNC));
    show("recv", recv(e[1], buf, 10, 0));
    say("%.6s", (char *)buf);
    show("peek", recv(e[1], buf, 10, MSG_PEEK));
    say("%.3s", (char *)buf);
    show("recv", recv(e[1], buf, 10, 0));
    show("peek at nothing", recv(e[1], buf, 10, MSG_PEEK | MSG_DONTWAIT));
    /* one that came by the kernel stays the next one when others come by the ring */
    int other = bound(AF_INET, "127.0.0.1");
    union name to;
    socklen_t len = name_of(&to, AF_INET, "127.0.0.1", port_of(e[1]));
    sendto(other, "first", 5, 0, &to.sa, len);
    show("peek", recv(e[1], buf, 10, MSG_PEEK));
    send(e[0], "second", 6, 0);
    show("recv", recv(e[1], buf, 10, 0));
    show("recv", recv(e[1], buf, 10, 0));
    ioctl(e[1], FIONREAD, &n);
    say("nothing next: %d", n);
}

static void empty_ones(void)
{
    int e[2];
    union name n;
    socklen_t len = sizeof n;
    struct pollfd p = {.events = POLLIN};
    ends(e);
    show("send", send(e[0], NULL, 0, 0));
    show("write", write(e[0], "", 0));
    struct iovec none = {buf, 0};
    show("writev", writev(e[0], &none, 1));
    show("send", send(e[0], "x", 1, 0));
    p.fd = e[1];
    show("poll", poll(&p, 1, 0));
    long r = recvfrom(e[1], buf, 10, 0, &n.sa, &len);
    show_from("recvfrom", r, &n, len, port_of(e[0]));
    show("recv", recv(e[1], buf, 10, 0));
    show("recv", recv(e[1], buf, 10, 0));
    show("no more", recv(e[1], buf, 10, MSG_DONTWAIT));
}

static void sources(void)
{
    int e[2];
    union name n;
    socklen_t len = sizeof n;
    ends(e);
    send(e[0], "1", 1, 0);
    long r = recvfrom(e[1], buf, 10, 0, &n.sa, &len);
    show_from("recvfrom", r, &n, len, port_of(e[0]));
    send(e[0], "2", 1, 0);
    len = 4;
    r = recvfrom(e[1], buf, 10, 0, &n.sa, &len);
    say("a short buffer: %ld, %u", r, (unsigned)len);
    send(e[0], "3", 1, 0);
    r = recvfrom(e[1], buf, 10, 0, NULL, NULL);
    show("no buffer", r);
    send(e[0], "4", 1, 0);
    struct iovec iov = {buf, 10};
    struct msghdr msg = {.msg_name = &n, .msg_namelen = sizeof n, .msg_iov = &iov, .msg_iovlen = 1};
    r = recvmsg(e[1], &msg, 0);
    show_from("recvmsg", r, &n, msg.msg_namelen, port_of(e[0]));
    sendto(e[1], "5", 1, 0, &n.sa, msg.msg_namelen);
    len = sizeof n;
    r = recvfrom(e[0], buf, 10, 0, &n.sa, &len);
    show_from("a connected one says it too", r, &n, len, port_of(e[1]));
}

static void families(void)
{
    static const struct {
        int at_domain;
        const char *at;
        int from_domain;
        const char *from, *to;
    } ways[] = {
        {AF_INET, "0.0.0.0", AF_INET, "0.0.0.0", "127.0.0.1"},
        {AF_INET, "0.0.0.0", AF_INET, "127.0.0.3", "127.0.0.2"},
        {AF_INET, "127.0.0.9", AF_INET, "0.0.0.0", "127.0.0.9"},
        {AF_INET, "0.0.0.0", AF_INET, "0.0.0.0", "0.0.0.0"},
        {AF_INET6, "::1", AF_INET6, "::", "::1"},
        {AF_INET6, "::", AF_INET6, "::1", "::1"},
        {AF_INET6, "::", AF_INET, "127.0.0.1", "127.0.0.1"},
        {AF_INET, "127.0.0.1", AF_INET6, "::", "::ffff:127.0.0.1"},
        {AF_INET6, "::", AF_INET6, "::", "::ffff:127.0.0.1"},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        union name n;
        int at = bound(ways[i].at_domain, ways[i].at), from = bound(ways[i].from_domain, ways[i].from);
        socklen_t len = name_of(&n, ways[i].from_domain, ways[i].to, port_of(at));
        warm_to(from, &n, len, at);
        sendto(from, "hello", 5, 0, &n.sa, len);
        len = sizeof n;
        long r = recvfrom(at, buf, 10, 0, &n.sa, &len);
        show_from(ways[i].to, r, &n, len, port_of(from));
        close(at);
        close(from);
    }
}

/* A socket bound to one address beside one bound to all: each gets what is sent to it. */
static void beside(void)
{
    int all = socket(AF_INET, SOCK_DGRAM, 0), one = socket(AF_INET, SOCK_DGRAM, 0), on = 1, from = bound(AF_INET, "127.0.0.1");
    union name n;
    setsockopt(all, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(one, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    socklen_t len = name_of(&n, AF_INET, "0.0.0.0", 0);
    if (bind(all, &n.sa, len) != 0)
        fail("bind");
    uint16_t port = port_of(all);
    len = name_of(&n, AF_INET, "127.0.0.5", port);
    warm_to(from, &n, len, all);
    show("bind", bind(one, &n.sa, len));
    for (int i = 0; i < 20; i++)
        sendto(from, "to one", 6, 0, &n.sa, len);
    show("the other has it", recv(all, buf, 20, MSG_DONTWAIT));
    int got = 0;
    while (recv(one, buf, 20, MSG_DONTWAIT) == 6)
        got++;
    say("got %d", got);
    name_of(&n, AF_INET, "127.0.0.1", port);
    warm_to(from, &n, len, all);
    name_of(&n, AF_INET, "127.0.0.5", port);
    warm_to(from, &n, len, one);
    close(one);
    warm_to(from, &n, len, all);
}

static void many_at_once(void)
{
    int e[2];
    ends(e);
    uint8_t in[8][16];
    struct iovec out_iov[8], in_iov[8];
    struct mmsghdr out[8] = {0}, got[8] = {0};
    for (int i = 0; i < 8; i++) {
        out_iov[i] = (struct iovec){"0123456789", (size_t)i};
        in_iov[i] = (struct iovec){in[i], 5};
        out[i].msg_hdr = (struct msghdr){.msg_iov = &out_iov[i], .msg_iovlen = 1};
        got[i].msg_hdr = (struct msghdr){.msg_iov = &in_iov[i], .msg_iovlen = 1};
    }
    show("sendmmsg", sendmmsg(e[0], out, 8, 0));
    show("recvmmsg", recvmmsg(e[1], got, 5, 0, NULL));
    for (int i = 0; i < 5; i++)
        say("%u, sent %u, flags %#x", got[i].msg_len, out[i].msg_len, (unsigned)got[i].msg_hdr.msg_flags);
    show("recvmmsg, MSG_WAITFORONE", recvmmsg(e[1], got, 8, MSG_WAITFORONE, NULL));
    for (int i = 0; i < 3; i++)
        say("%u, flags %#x", got[i].msg_len, (unsigned)got[i].msg_hdr.msg_flags);
    show("recvmmsg of nothing", recvmmsg(e[1], got, 8, MSG_DONTWAIT, NULL));
}

static void waiting(void)
{
    int e[2];
    ends(e);
    struct timeval tv = {0, 30000};
    setsockopt(e[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    double start = ms();
    show("SO_RCVTIMEO", recv(e[1], buf, 10, 0));
    show_wait("it", start, 30);
    send(e[0], "x", 1, 0);
    show("recv", recv(e[1], buf, 10, 0));
    fcntl(e[1], F_SETFL, O_NONBLOCK);
    show("non-blocking", recv(e[1], buf, 10, 0));
    send(e[0], "x", 1, 0);
    show("recv", recv(e[1], buf, 10, 0));
    struct pollfd p = {.fd = e[1], .events = POLLIN | POLLOUT};
    show("poll", poll(&p, 1, 0));
    say("revents %#x", (unsigned)p.revents);
    send(e[0], "x", 1, 0);
    show("poll", poll(&p, 1, 1000));
    say("revents %#x", (unsigned)p.revents);
    fd_set rd;
    FD_ZERO(&rd);
    FD_SET(e[1], &rd);
    show("select", select(e[1] + 1, &rd, NULL, NULL, NULL));
    show("recv", recv(e[1], buf, 10, 0));
    tv = (struct timeval){0, 20000};
    FD_SET(e[1], &rd);
    start = ms();
    show("select", select(e[1] + 1, &rd, NULL, NULL, &tv));
    show_wait("it", start, 20);
}

static void in_a_set(uint32_t events)
{
    int e[2], ep = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLIN | events, .data.u32 = 5};
    ends(e);
    show("add", epoll_ctl(ep, EPOLL_CTL_ADD, e[1], &ev));
    fcntl(e[1], F_SETFL, O_NONBLOCK);
    for (int i = 0; i < 30; i++) {
        send(e[0], "x", 1, 0);
        send(e[0], "yy", 2, 0);
        if (epoll_wait(ep, &ev, 1, 1000) != 1 || ev.data.u32 != 5 || !(ev.events & EPOLLIN))
            fail("epoll_wait");
        if (recv(e[1], buf, 10, 0) != 1 || recv(e[1], buf, 10, 0) != 2 || recv(e[1], buf, 10, 0) != -1)
            fail("recv");
        ev = (struct epoll_event){.events = EPOLLIN | events, .data.u32 = 5};
        if ((events & EPOLLONESHOT) && epoll_ctl(ep, EPOLL_CTL_MOD, e[1], &ev) != 0)
            fail("epoll_ctl");
    }
    show("nothing", epoll_wait(ep, &ev, 1, 0));
    send(e[0], "x", 1, 0);
    show("something", epoll_wait(ep, &ev, 1, 0));
    show("again", epoll_wait(ep, &ev, 1, 0));
}

static void level(void)
{
    in_a_set(0);
}

static void edge(void)
{
    in_a_set(EPOLLET);
}

static void one_shot(void)
{
    in_a_set(EPOLLONESHOT);
}

/* One read for each event, as event loops do; the answer goes the other way. */
static void event_loop(void)
{
    int port[2], ep = epoll_create1(0);
    uint16_t at;
    if (pipe(port) != 0)
        fail("pipe");
    pid_t child = fork(); /* before there is a socket: what is shared stays with the kernel */
    if (child == 0) {
        if (read(port[0], &at, sizeof at) != sizeof at)
            fail("read");
        int fd = bound(AF_INET, "127.0.0.1");
        join(fd, AF_INET, "127.0.0.1", at);
        for (uint32_t i = 0; i < 3000; i++) {
            uint32_t back;
            if (send(fd, &i, sizeof i, 0) != sizeof i || recv(fd, &back, sizeof back, 0) != sizeof back || back != i)
                fail("echo");
        }
        exit(0);
    }
    int fd = bound(AF_INET, "127.0.0.1"), status;
    struct epoll_event ev = {.events = EPOLLIN};
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
    at = port_of(fd);
    if (write(port[1], &at, sizeof at) != sizeof at)
        fail("write");
    for (int i = 0; i < 3000; i++) {
        union name n;
        socklen_t len = sizeof n;
        if (epoll_wait(ep, &ev, 1, 5000) != 1)
            fail("epoll_wait");
        long r = recvfrom(fd, buf, sizeof buf, 0, &n.sa, &len);
        if (r != 4 || sendto(fd, buf, (size_t)r, 0, &n.sa, len) != r)
            fail("echo");
    }
    waitpid(child, &status, 0);
    say("status %d", status);
}

static void refused(void)
{
    int e[2], error = 0;
    socklen_t len = sizeof error;
    ends(e);
    send(e[0], "unread", 6, 0);
    show("close", close(e[1]));
    show("send", send(e[0], "x", 1, 0));
    show("recv", recv(e[0], buf, 10, MSG_DONTWAIT));
    show("send", send(e[0], "x", 1, 0));
    show("SO_ERROR", getsockopt(e[0], SOL_SOCKET, SO_ERROR, &error, &len));
    say("%s", strerrorname_np(error));
    show("send", send(e[0], "x", 1, 0));
    show("send", send(e[0], "x", 1, 0));
    struct pollfd p = {.fd = e[0], .events = POLLIN};
    show("send", send(e[0], "x", 1, 0));
    show("poll", poll(&p, 1, 100));
    say("revents %#x", (unsigned)p.revents);
}

/* Somebody else takes the port over. */
static void another_receiver(void)
{
    int e[2];
    union name n;
    ends(e);
    socklen_t len = name_of(&n, AF_INET, "127.0.0.1", port_of(e[1]));
    close(e[1]);
    e[1] = socket(AF_INET, SOCK_DGRAM, 0);
    show("bind", bind(e[1], &n.sa, len));
    warm_to(e[0], NULL, 0, e[1]);
    show("send", send(e[0], "abc", 3, 0));
    show("recv", recv(e[1], buf, 10, 0));
}

/* The receiver connects: only its peer's datagrams come, but what had come stays. */
static void connects(void)
{
    int e[2], other = bound(AF_INET, "127.0.0.1");
    union name n, none = {.sa.sa_family = AF_UNSPEC};
    ends(e);
    socklen_t len = name_of(&n, AF_INET, "127.0.0.1", port_of(e[1]));
    close(e[1]); /* bound to a port by its number, it keeps it when it is disconnected */
    e[1] = socket(AF_INET, SOCK_DGRAM, 0);
    if (bind(e[1], &n.sa, len) != 0)
        fail("bind");
    warm_to(e[0], NULL, 0, e[1]);
    send(e[0], "before", 6, 0);
    join(e[1], AF_INET, "127.0.0.1", port_of(other));
    show("send", send(e[0], "x", 1, 0));
    show("recv", recv(e[1], buf, 10, MSG_DONTWAIT));
    show("filtered", recv(e[1], buf, 10, MSG_DONTWAIT));
    warm_to(other, &n, len, e[1]);
    sendto(other, "other", 5, 0, &n.sa, len);
    show("recv", recv(e[1], buf, 10, MSG_DONTWAIT));
    show("AF_UNSPEC", connect(e[1], &none.sa, sizeof none.in));
    recv(e[0], buf, 10, MSG_DONTWAIT); /* its error, if it has one */
    warm_to(e[0], NULL, 0, e[1]);
    send(e[0], "last", 4, 0);
    show("recv", recv(e[1], buf, 10, 0));
}

/* A server gives each peer a socket of its own, connected to it, beside the one that hears all. */
static void one_for_each(void)
{
    int all = socket(AF_INET, SOCK_DGRAM, 0), one = socket(AF_INET, SOCK_DGRAM, 0), on = 1, peer = bound(AF_INET, "127.0.0.1");
    union name n;
    setsockopt(all, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(one, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    socklen_t len = name_of(&n, AF_INET, "127.0.0.1", 0);
    bind(all, &n.sa, len);
    name_of(&n, AF_INET, "127.0.0.1", port_of(all));
    warm_to(peer, &n, len, all);
    show("bind", bind(one, &n.sa, len));
    join(one, AF_INET, "127.0.0.1", port_of(peer));
    for (int i = 0; i < 30; i++)
        sendto(peer, "mine", 4, 0, &n.sa, len);
    show("not to all", recv(all, buf, 10, MSG_DONTWAIT));
    int got = 0;
    while (recv(one, buf, 10, MSG_DONTWAIT) == 4)
        got++;
    say("got %d", got);
    warm_to(peer, &n, len, one);
}

static void new_destination(void)
{
    int from = bound(AF_INET, "127.0.0.1"), at[3];
    union name n;
    for (int i = 0; i < 3; i++)
        at[i] = bound(AF_INET, "127.0.0.1");
    for (int turn = 0; turn < 3; turn++)
        for (int i = 0; i < 3; i++) {
            join(from, AF_INET, "127.0.0.1", port_of(at[i]));
            warm_to(from, NULL, 0, at[i]);
            socklen_t len = name_of(&n, AF_INET, "127.0.0.1", port_of(at[(i + 1) % 3]));
            warm_to(from, &n, len, at[(i + 1) % 3]);
            say("%ld", (long)recv(at[i], buf, 10, MSG_DONTWAIT));
        }
}

static void control_data(void)
{
    int e[2], on = 1;
    ends(e);
    send(e[0], "before", 6, 0);
    show("IP_PKTINFO", setsockopt(e[1], IPPROTO_IP, IP_PKTINFO, &on, sizeof on));
    show("recv", recv(e[1], buf, 10, 0));
    for (int i = 0; i < 10; i++) {
        _Alignas(struct cmsghdr) char control[256];
        struct iovec iov = {buf, 10};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        send(e[0], "x", 1, 0);
        show("recvmsg", recvmsg(e[1], &msg, 0));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        say("control %s", c && c->cmsg_type == IP_PKTINFO ? "IP_PKTINFO" : "none");
    }
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {"ttl", 3};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    *c = (struct cmsghdr){.cmsg_level = IPPROTO_IP, .cmsg_type = IP_TTL, .cmsg_len = CMSG_LEN(sizeof(int))};
    int ttl = 9;
    memcpy(CMSG_DATA(c), &ttl, sizeof ttl);
    show("sendmsg with IP_TTL", sendmsg(e[0], &msg, 0));
    show("recv", recv(e[1], buf, 10, 0));
}

/* A receive with room for control data, though there is none: nothing of what the library asks the kernel for is to be seen. */
static void no_control_data(void)
{
    int at = bound(AF_INET, "0.0.0.0"), from = bound(AF_INET, "127.0.0.1");
    union name n;
    socklen_t len = name_of(&n, AF_INET, "127.0.0.1", port_of(at));
    for (int i = 0; i < 12; i++) {
        _Alignas(struct cmsghdr) char control[256];
        struct iovec iov = {buf, 10};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        sendto(from, "x", 1, 0, &n.sa, len);
        show("recvmsg", recvmsg(at, &msg, 0));
        say("control %zu, flags %#x", (size_t)msg.msg_controllen, (unsigned)msg.msg_flags);
    }
}

static void gathered(void)
{
    int e[2];
    ends(e);
    show("MSG_MORE", send(e[0], "abc", 3, MSG_MORE));
    show("nothing yet", recv(e[1], buf, 10, MSG_DONTWAIT));
    show("send", send(e[0], "def", 3, 0));
    show("recv", recv(e[1], buf, 10, 0));
}

static void shut(void)
{
    int e[2];
    ends(e);
    show("SHUT_WR", shutdown(e[0], SHUT_WR));
    show("send", send(e[0], "x", 1, MSG_NOSIGNAL));
    show("the other way", send(e[1], "x", 1, MSG_DONTWAIT));
    show("SHUT_RD", shutdown(e[0], SHUT_RD));
    show("recv", recv(e[0], buf, 10, 0));
    show("not connected", shutdown(e[1], SHUT_RDWR));
}

static void copied(void)
{
    int e[2];
    ends(e);
    send(e[0], "one", 3, 0);
    int d = dup(e[1]), s = dup(e[0]);
    send(e[0], "three", 5, 0);
    send(s, "seven77", 7, 0);
    show("recv", recv(d, buf, 10, 0));
    show("recv", recv(e[1], buf, 10, 0));
    close(e[1]);
    show("recv", recv(d, buf, 10, 0));
    close(e[0]);
    show("send", send(s, "still", 5, 0));
    show("recv", recv(d, buf, 10, 0));
}

static void forked(void)
{
    int e[2];
    ends(e);
    send(e[0], "one", 3, 0);
    pid_t child = fork();
    if (child == 0) {
        show("child", recv(e[1], buf, 10, 0));
        show("child", send(e[0], "three", 5, 0));
        exit(0);
    }
    waitpid(child, NULL, 0);
    show("parent", recv(e[1], buf, 10, 0));
    show("parent", send(e[0], "four", 4, 0));
    show("parent", recv(e[1], buf, 10, 0));
}

static int thread_got;

static void *thread_reads(void *fd)
{
    char in[100];
    while (__atomic_load_n(&thread_got, __ATOMIC_ACQUIRE) < 60)
        if (recv(*(int *)fd, in, sizeof in, 0) == 10)
            __atomic_fetch_add(&thread_got, 1, __ATOMIC_ACQ_REL);
    return NULL;
}

/* A thread that waits in the kernel before anybody may push is not left there, whatever another thread's receives bring about. */
static void waiting_before(void)
{
    int at = bound(AF_INET, "127.0.0.1"), from = bound(AF_INET, "127.0.0.1");
    union name n;
    pthread_t thread;
    socklen_t len = name_of(&n, AF_INET, "127.0.0.1", port_of(at));
    pthread_create(&thread, NULL, thread_reads, &at);
    usleep(20000);
    for (int i = 0; i < 60; i++) {
        sendto(from, "0123456789", 10, 0, &n.sa, len);
        double start = ms();
        while (__atomic_load_n(&thread_got, __ATOMIC_ACQUIRE) <= i)
            if (ms() - start > 3000)
                fail("the thread was left behind");
        if (i % 3 == 0)
            usleep(500); /* it is in its next receive */
        if (recv(at, buf, sizeof buf, MSG_DONTWAIT) != -1)
            fail("recv");
    }
    pthread_join(thread, NULL);
    show("the thread", thread_got);
}

static void special_addresses(void)
{
    int fd = bound(AF_INET, "0.0.0.0"), on = 1;
    union name n;
    socklen_t len = name_of(&n, AF_INET, "255.255.255.255", port_of(fd));
    show("broadcast, not allowed", sendto(fd, "x", 1, 0, &n.sa, len));
    setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
    name_of(&n, AF_INET, "127.255.255.255", port_of(fd));
    for (int i = 0; i < 10; i++) {
        show("broadcast", sendto(fd, "xyz", 3, 0, &n.sa, len));
        show("recv", recv(fd, buf, 10, MSG_DONTWAIT));
    }
    name_of(&n, AF_INET, "127.0.0.1", 0);
    show("port 0", sendto(fd, "x", 1, 0, &n.sa, len));
    show("no address", send(fd, "x", 1, 0));
    show("short address", sendto(fd, "x", 1, 0, &n.sa, 4));
}

/* To itself. */
static void oneself(void)
{
    int fd = bound(AF_INET, "127.0.0.1");
    union name n;
    socklen_t len = name_of(&n, AF_INET, "127.0.0.1", port_of(fd));
    warm_to(fd, &n, len, fd);
    for (int i = 0; i < 5; i++)
        show("send", sendto(fd, "abcdef", (size_t)i, 0, &n.sa, len));
    for (int i = 0; i < 5; i++)
        show("recv", recv(fd, buf, 10, MSG_DONTWAIT));
}

static uint8_t *last_page(void)
{
    uint8_t *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED || munmap(page + 4096, 4096) != 0)
        fail("mmap");
    return page + 4096;
}

static void *volatile nowhere = (void *)8;

/* What is sent from nowhere, or to there, is refused, and nothing of it arrives. */
static void bad_to_send(void)
{
    int e[2];
    ends(e);
    uint8_t *end = last_page();
    union name n;
    socklen_t len = name_of(&n, AF_INET, "127.0.0.1", port_of(e[0]));
    struct iovec good = {buf, 10}, wrong[2] = {{buf, 4}, {nowhere, 10}}, endless[2] = {{buf, (size_t)-8}, {buf, 10}};
    struct msghdr msg = {.msg_iov = nowhere, .msg_iovlen = 1};
    show("send", send(e[0], nowhere, 10, 0));
    show("over the end of a page", send(e[0], end - 5, 10, 0));
    show("write", write(e[0], nowhere, 10));
    show("sendmsg of nowhere", sendmsg(e[0], nowhere, 0));
    show("array nowhere", sendmsg(e[0], &msg, 0));
    msg = (struct msghdr){.msg_iov = wrong, .msg_iovlen = 2};
    show("second buffer nowhere", sendmsg(e[0], &msg, 0));
    msg = (struct msghdr){.msg_iov = &good, .msg_iovlen = 1, .msg_name = nowhere, .msg_namelen = len};
    show("name nowhere", sendmsg(e[1], &msg, 0));
    msg = (struct msghdr){.msg_iov = &good, .msg_iovlen = 1, .msg_control = nowhere, .msg_controllen = 64};
    show("control nowhere", sendmsg(e[0], &msg, 0));
    show("writev, array nowhere", writev(e[0], nowhere, 1));
    show("writev, second buffer nowhere", writev(e[0], wrong, 2));
    show("writev, too long for a number", writev(e[0], endless, 2));
    show("sendmmsg", sendmmsg(e[0], nowhere, 1, 0));
    show("sendto, name nowhere", sendto(e[1], buf, 10, 0, nowhere, len));
    show("sendto, long name", sendto(e[1], buf, 10, 0, &n.sa, 4000));
    show("option", setsockopt(e[0], SOL_SOCKET, SO_RCVBUF, nowhere, sizeof(int)));
    show("another one", setsockopt(e[0], IPPROTO_IP, IP_RECVTOS, nowhere, sizeof(int)));
    show("nothing came", recv(e[1], buf, 10, MSG_DONTWAIT));
    show("nor there", recv(e[0], buf, 10, MSG_DONTWAIT));
    show("to the last byte", send(e[0], end - 5, 5, 0));
    show("recv", recv(e[1], buf, 10, 0));
}

static void left(int e[2], const char *what, long r)
{
    show(what, r);
    show("left", recv(e[1], buf, 100, MSG_DONTWAIT));
}

/* A datagram that is received into nowhere is lost, but for one that was only looked at, or where the call itself made no sense. */
static void bad_to_receive(void)
{
    int e[2];
    ends(e);
    uint8_t *end = last_page();
    struct iovec wrong[2] = {{buf, 4}, {nowhere, 10}}, good = {buf, 10};
    struct msghdr msg = {.msg_iov = nowhere, .msg_iovlen = 1};
    union name n;
    socklen_t len = sizeof n, below = (socklen_t)-1;
    struct mmsghdr many = {.msg_hdr = {.msg_iov = &good, .msg_iovlen = 1}};
    show("nothing there", recv(e[1], nowhere, 10, MSG_DONTWAIT));
    for (int i = 0; i < 14; i++) {
        send(e[0], "0123456789", 10, 0);
        if (i == 0)
            left(e, "recv", recv(e[1], nowhere, 10, 0));
        else if (i == 1)
            left(e, "over the end of a page", recv(e[1], end - 5, 10, 0));
        else if (i == 2)
            left(e, "no further than what came", recv(e[1], end - 10, 100, 0));
        else if (i == 3)
            left(e, "MSG_PEEK", recv(e[1], nowhere, 10, MSG_PEEK));
        else if (i == 4)
            left(e, "recvmsg", recvmsg(e[1], nowhere, 0));
        else if (i == 5)
            left(e, "array nowhere", recvmsg(e[1], &msg, 0));
        else if (i == 6)
            left(e, "readv, array nowhere", readv(e[1], nowhere, 1));
        else if (i == 7)
            left(e, "readv, second buffer nowhere", readv(e[1], wrong, 2));
        else if (i == 8)
            left(e, "name nowhere", recvfrom(e[1], buf, 10, 0, nowhere, &len));
        else if (i == 9)
            left(e, "length nowhere", recvfrom(e[1], buf, 10, 0, &n.sa, nowhere));
        else if (i == 10)
            left(e, "length below 0", recvfrom(e[1], buf, 10, 0, &n.sa, &below));
        else if (i == 11)
            left(e, "recvmmsg", recvmmsg(e[1], nowhere, 1, 0, NULL));
        else if (i == 12)
            left(e, "recvmmsg, time-out nowhere", recvmmsg(e[1], &many, 1, 0, nowhere));
        else
            left(e, "FIONREAD", ioctl(e[1], FIONREAD, nowhere));
    }
    msg = (struct msghdr){.msg_iov = &good, .msg_iovlen = 1, .msg_name = nowhere, .msg_namelen = sizeof n};
    send(e[0], "0123456789", 10, 0);
    left(e, "recvmsg, name nowhere", recvmsg(e[1], &msg, 0));
    msg.msg_name = &n;
    msg.msg_namelen = below;
    send(e[0], "0123456789", 10, 0);
    left(e, "recvmsg, length of the name below 0", recvmsg(e[1], &msg, 0));
}

static volatile sig_atomic_t alarms;
static int alarm_fd = -1;

static void on_alarm(int sig)
{
    (void)sig;
    alarms++;
    if (alarm_fd >= 0)
        send(alarm_fd, "0123456789", 10, 0);
}

static long alarmed(int e[2], int flags, bool sends, long (*wait)(int))
{
    struct sigaction act = {.sa_handler = on_alarm, .sa_flags = flags};
    struct itimerval in = {.it_value = {0, 2000}};
    sigaction(SIGALRM, &act, NULL);
    alarm_fd = sends ? e[0] : -1;
    setitimer(ITIMER_REAL, &in, NULL);
    return wait(e[1]);
}

static long wait_recv(int fd)
{
    return recv(fd, buf, 100, 0);
}

static long wait_recvmmsg(int fd)
{
    struct iovec iov = {buf, 100};
    struct mmsghdr one = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
    return recvmmsg(fd, &one, 1, 0, NULL);
}

static long wait_poll(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 5000);
}

/* A handler runs in the middle of a wait. */
static void interrupted(void)
{
    int e[2];
    ends(e);
    show("recv", alarmed(e, 0, false, wait_recv));
    show("recvmmsg", alarmed(e, 0, false, wait_recvmmsg));
    show("poll", alarmed(e, SA_RESTART, false, wait_poll));
    show("recv, restarted", alarmed(e, SA_RESTART, true, wait_recv));
    show("recvmmsg, restarted", alarmed(e, SA_RESTART, true, wait_recvmmsg));
    struct timeval tv = {5, 0};
    setsockopt(e[1], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    show("with a time-out never", alarmed(e, SA_RESTART, false, wait_recv));
    say("alarms: %d", (int)alarms);
    show("nothing is left", recv(e[1], buf, 100, MSG_DONTWAIT));
}

static const struct scene scenes[] = {
    {"boundaries", boundaries},
    {"truncation", truncation},
    {"peeking", peeking},
    {"empty_ones", empty_ones},
    {"sources", sources},
    {"families", families},
    {"beside", beside},
    {"many_at_once", many_at_once},
    {"waiting", waiting},
    {"level", level},
    {"edge", edge},
    {"one_shot", one_shot},
    {"event_loop", event_loop},
    {"refused", refused},
    {"another_receiver", another_receiver},
    {"connects", connects},
    {"one_for_each", one_for_each},
    {"new_destination", new_destination},
    {"control_data", control_data},
    {"no_control_data", no_control_data},
    {"gathered", gathered},
    {"shut", shut},
    {"copied", copied},
    {"forked", forked},
    {"waiting_before", waiting_before},
    {"special_addresses", special_addresses},
    {"oneself", oneself},
    {"bad_to_send", bad_to_send},
    {"bad_to_receive", bad_to_receive},
    {"interrupted", interrupted},
};

int main(int argc, char **argv)
{
    return play(scenes, sizeof scenes / sizeof *scenes, argc, argv);
}
