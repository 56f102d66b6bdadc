/*
 * Both ends of N connections in two processes, every byte checked against its stream position, driven by a seed:
 *
 *     streams SEED CONNECTIONS BYTES [v6]
 *
 * Each end sends BYTES bytes in each direction in pieces of random size with random calls (send, write, writev, sendmsg; recv, read,
 * readv, recvmsg, MSG_PEEK, MSG_WAITALL), blocking or not, waiting by poll, select, epoll (level or edge) or not at all, with pauses;
 * then half-closes and expects the end of the stream. Exit status 0 and "ok" if all was right.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PIECE 70000

enum wait_kind { WAIT_POLL, WAIT_SELECT, WAIT_LEVEL, WAIT_EDGE, WAIT_NONE, WAIT_KINDS };

struct conn {
    int fd;
    bool nonblock, sent_fin, got_fin;
    uint64_t sent, got, total;
    uint32_t tx_key, rx_key;
};

static uint64_t rng_state;

static uint32_t rnd(void)
{
    rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(rng_state >> 33);
}

static uint8_t pattern(uint32_t key, uint64_t at)
{
    uint64_t x = (at / 8 + 1) * 0x9e3779b97f4a7c15ull ^ key;
    x ^= x >> 29;
    return (uint8_t)(x >> (8 * (at % 8)));
}

static void die(const char *what, const struct conn *c)
{
    fprintf(stderr, "pid %d: %s: %s (sent %llu, got %llu of %llu)\n", (int)getpid(), what, strerror(errno),
            (unsigned long long)(c ? c->sent : 0), (unsigned long long)(c ? c->got : 0), (unsigned long long)(c ? c->total : 0));
    exit(1);
}

static size_t piece(void)
{
    switch (rnd() % 6) {
    case 0:
        return 1 + rnd() % 16;
    case 1:
    case 2:
    case 3:
        return 1 + rnd() % 1500;
    case 4:
        return 1 + rnd() % 17000;
    default:
        return 1 + rnd() % PIECE;
    }
}

static void pause_sometimes(void)
{
    uint32_t r = rnd() % 4000;
    if (r < 8)
        usleep(rnd() % 800);
    else if (r < 12)
        sched_yield();
}

/* Send one piece: false if the socket would block. */
static bool send_some(struct conn *c, uint8_t *buf)
{
    size_t n = piece();
    if (n > c->total - c->sent)
        n = (size_t)(c->total - c->sent);
    for (size_t i = 0; i < n; i++)
        buf[i] = pattern(c->tx_key, c->sent + i);
    struct iovec iov[3] = {{buf, n / 3}, {buf + n / 3, n / 3}, {buf + n / 3 * 2, n - n / 3 * 2}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 3};
    ssize_t r;
    switch (rnd() % 5) {
    case 0:
        r = write(c->fd, buf, n);
        break;
    case 1:
        r = writev(c->fd, iov, 3);
        break;
    case 2:
        r = sendmsg(c->fd, &msg, MSG_NOSIGNAL);
        break;
    default:
        r = send(c->fd, buf, n, MSG_NOSIGNAL | (rnd() % 16 == 0 ? MSG_DONTWAIT : 0));
    }
    if (r < 0 && errno == EAGAIN)
        return false;
    if (r < 0)
        die("send", c);
    c->sent += (uint64_t)r;
    return true;
}

static void check(struct conn *c, const uint8_t *buf, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (buf[i] != pattern(c->rx_key, c->got + i)) {
            errno = EBADMSG;
            c->got += i;
            die("wrong byte", c);
        }
}

/* Receive one piece: false if the socket would block. */
static bool recv_some(struct conn *c, uint8_t *buf)
{
    size_t n = piece();
    struct iovec iov[2] = {{buf, n / 2}, {buf + n / 2, n - n / 2}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    ssize_t r;
    uint32_t how = rnd() % 8;
    if (how == 0) {
        r = recv(c->fd, buf, n, MSG_PEEK | MSG_DONTWAIT);
        if (r > 0)
            check(c, buf, (size_t)r);
    }
    if (how == 1 && c->total - c->got >= n)
        r = recv(c->fd, buf, n, MSG_WAITALL | (c->nonblock ? MSG_DONTWAIT : 0));
    else if (how == 2)
        r = read(c->fd, buf, n);
    else if (how == 3)
        r = readv(c->fd, iov, 2);
    else if (how == 4)
        r = recvmsg(c->fd, &msg, 0);
    else
        r = recv(c->fd, buf, n, how == 5 ? MSG_DONTWAIT : 0);
    if (r < 0 && errno == EAGAIN)
        return false;
    if (r < 0)
        die("recv", c);
    if (r == 0) {
        if (c->got != c->total)
            die("early end of stream", c);
        c->got_fin = true;
        return true;
    }
    check(c, buf, (size_t)r);
    c->got += (uint64_t)r;
    return true;
}

/* Wait until one of the connections can go on; fills in ready bits: 1 read, 2 write. */
static void wait_ready(enum wait_kind kind, int ep, struct conn *c, int n, uint8_t *ready)
{
    memset(ready, 0, (size_t)n);
    if (kind == WAIT_NONE) {
        memset(ready, 3, (size_t)n);
        return;
    }
    if (kind == WAIT_LEVEL || kind == WAIT_EDGE) {
        struct epoll_event ev[8];
        int k = epoll_wait(ep, ev, 8, 10000);
        if (k <= 0)
            die("epoll_wait: nothing for 10 s", NULL);
        for (int i = 0; i < k; i++)
            ready[ev[i].data.u32] = (uint8_t)((ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? 1 : 0) | (ev[i].events & EPOLLOUT ? 2 : 0));
        return;
    }
    if (kind == WAIT_POLL) {
        struct pollfd p[64];
        for (int i = 0; i < n; i++)
            p[i] = (struct pollfd){.fd = c[i].fd, .events = (short)((c[i].got_fin ? 0 : POLLIN) | (c[i].sent_fin ? 0 : POLLOUT))};
        if (poll(p, (nfds_t)n, 10000) <= 0)
            die("poll: nothing for 10 s", NULL);
        for (int i = 0; i < n; i++)
            ready[i] = (uint8_t)((p[i].revents & (POLLIN | POLLHUP | POLLERR) ? 1 : 0) | (p[i].revents & POLLOUT ? 2 : 0));
        return;
    }
    fd_set rd, wr;
    int top = 0;
    FD_ZERO(&rd);
    FD_ZERO(&wr);
    for (int i = 0; i < n; i++) {
        if (!c[i].got_fin)
            FD_SET(c[i].fd, &rd);
        if (!c[i].sent_fin)
            FD_SET(c[i].fd, &wr);
        top = c[i].fd >= top ? c[i].fd + 1 : top;
    }
    struct timeval tv = {10, 0};
    if (select(top, &rd, &wr, NULL, &tv) <= 0)
        die("select: nothing for 10 s", NULL);
    for (int i = 0; i < n; i++)
        ready[i] = (uint8_t)((FD_ISSET(c[i].fd, &rd) ? 1 : 0) | (FD_ISSET(c[i].fd, &wr) ? 2 : 0));
}

static void drive(struct conn *c, int n)
{
    uint8_t *buf = malloc(PIECE + 1), ready[64];
    enum wait_kind kind = rnd() % WAIT_KINDS;
    int ep = -1, left = n;
    for (int i = 0; i < n; i++) {
        c[i].nonblock = true;
        fcntl(c[i].fd, F_SETFL, fcntl(c[i].fd, F_GETFL) | O_NONBLOCK);
    }
    if (kind == WAIT_LEVEL || kind == WAIT_EDGE) {
        ep = epoll_create1(EPOLL_CLOEXEC);
        for (int i = 0; i < n; i++) {
            struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | (kind == WAIT_EDGE ? EPOLLET : 0), .data.u32 = (uint32_t)i};
            if (epoll_ctl(ep, EPOLL_CTL_ADD, c[i].fd, &ev) != 0)
                die("epoll_ctl", &c[i]);
        }
    }
    uint8_t stuck[64] = {0}; /* edge-triggered: what blocked at the last try */
    while (left) {
        wait_ready(kind, ep, c, n, ready);
        bool again = true;
        while (again) {
            again = false;
            for (int i = 0; i < n; i++) {
                if (c[i].sent_fin && c[i].got_fin)
                    continue;
                stuck[i] &= (uint8_t)~ready[i];
                if ((ready[i] & 1) && !c[i].got_fin && !(stuck[i] & 1)) {
                    if (!recv_some(&c[i], buf))
                        stuck[i] |= 1;
                    else if (kind == WAIT_EDGE && !c[i].got_fin)
                        again = true;
                }
                if ((ready[i] & 2) && !c[i].sent_fin && !(stuck[i] & 2)) {
                    if (!send_some(&c[i], buf))
                        stuck[i] |= 2;
                    else if (kind == WAIT_EDGE)
                        again = true;
                    if (c[i].sent == c[i].total) {
                        c[i].sent_fin = true;
                        if (shutdown(c[i].fd, SHUT_WR) != 0)
                            die("shutdown", &c[i]);
                        if (ep >= 0 && kind == WAIT_LEVEL) {
                            struct epoll_event ev = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
                            epoll_ctl(ep, EPOLL_CTL_MOD, c[i].fd, &ev);
                        }
                    }
                }
                if (c[i].sent_fin && c[i].got_fin) {
                    left--;
                    if (ep >= 0)
                        epoll_ctl(ep, EPOLL_CTL_DEL, c[i].fd, NULL);
                }
                pause_sometimes();
            }
            for (int i = 0; again && i < n; i++)
                ready[i] &= (uint8_t)~stuck[i];
        }
    }
    for (int i = 0; i < n; i++)
        close(c[i].fd);
    free(buf);
}

/* Blocking request and reply in lock step, so that neither side fills the other's buffers. */
static void drive_blocking(struct conn *c, int n, bool first)
{
    uint8_t *buf = malloc(PIECE + 1);
    bool more = true;
    while (more) {
        more = false;
        for (int i = 0; i < n; i++) {
            for (int turn = 0; turn < 2; turn++) {
                bool send_now = (turn == 0) == first;
                uint64_t until = send_now ? c[i].sent + 4096 : c[i].got + 4096;
                if (until > c[i].total)
                    until = c[i].total;
                while (send_now && c[i].sent < until) {
                    uint64_t keep = c[i].total;
                    c[i].total = until;
                    send_some(&c[i], buf);
                    c[i].total = keep;
                }
                while (!send_now && c[i].got < until) {
                    uint64_t want = until - c[i].got;
                    ssize_t r = recv(c[i].fd, buf, want < PIECE ? (size_t)want : PIECE, rnd() % 3 ? 0 : MSG_WAITALL);
                    if (r <= 0)
                        die("blocking recv", &c[i]);
                    check(&c[i], buf, (size_t)r);
                    c[i].got += (uint64_t)r;
                }
            }
            pause_sometimes();
            more |= c[i].sent < c[i].total || c[i].got < c[i].total;
        }
    }
    for (int i = 0; i < n; i++) {
        shutdown(c[i].fd, SHUT_WR);
        if (read(c[i].fd, buf, 1) != 0)
            die("no end of stream", &c[i]);
        close(c[i].fd);
    }
    free(buf);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    uint64_t seed = strtoull(argv[1], NULL, 0), bytes = strtoull(argv[3], NULL, 0);
    int n = atoi(argv[2]);
    bool v6 = argc > 4, blocking = seed % 4 == 0;
    if (n < 1 || n > 64)
        return 2;
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr *addr = v6 ? (struct sockaddr *)&a6 : (struct sockaddr *)&a4;
    socklen_t len = v6 ? sizeof a6 : sizeof a4;
    int listener = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, addr, len) != 0 || listen(listener, 64) != 0 || getsockname(listener, addr, &len) != 0)
        die("listen", NULL);
    pid_t child = fork();
    rng_state = seed * 2654435761u + (child ? 1 : 2);
    struct conn *c = calloc((size_t)n, sizeof *c);
    for (int i = 0; i < n; i++) {
        c[i].total = bytes;
        c[i].tx_key = (uint32_t)(seed * 64 + (uint64_t)i) * 2 + (child != 0);
        c[i].rx_key = (uint32_t)(seed * 64 + (uint64_t)i) * 2 + (child == 0);
        if (child) {
            c[i].fd = accept(listener, NULL, NULL);
        } else {
            c[i].fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
            if (connect(c[i].fd, addr, len) != 0)
                die("connect", &c[i]);
        }
        if (c[i].fd < 0)
            die("accept", &c[i]);
        int one = 1; /* small pieces in lock step would wait for delayed acknowledgements */
        setsockopt(c[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    close(listener);
    if (blocking)
        drive_blocking(c, n, child != 0);
    else
        drive(c, n);
    if (!child)
        return 0;
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0)
        return 1;
    puts("ok");
    return 0;
}
