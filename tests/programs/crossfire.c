/*
 * Several senders and receivers of datagrams, each a process of its own, driven by a seed:
 *
 *     crossfire SEED SENDERS RECEIVERS COUNT [plain] [kill]
 *
 * Every sender sends COUNT datagrams to every receiver, never more than a few that were not received yet, so that no queue overflows. Each
 * receiver checks for each sender that all come, once, in order, whole, from the address that the sender has. The seed decides families,
 * bound addresses, calls, sizes, how is waited, and pauses. `plain`: every other sender, and receiver, is without the library. `kill`: the
 * first sender is killed while it sends, and begun again; what it had sent may be lost. Exit status 0 and "ok" if all was right.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST 8
#define WINDOW 6
#define LARGEST 9000

struct board {
    uint32_t port[MOST], sender_port[MOST];
    uint32_t got[MOST][MOST]; /* by receiver, by sender */
    uint32_t life[MOST];      /* of a sender: begun again */
};

struct head {
    uint32_t sender, number, life, len;
};

static struct board *board;
static uint64_t rng_state;
static int seed, senders, receivers, count;
static bool with_kill;

static uint32_t rnd(void)
{
    rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(rng_state >> 33);
}

static void die(const char *what, long a, long b)
{
    fprintf(stderr, "pid %d: %s (%ld, %ld): %s\n", (int)getpid(), what, a, b, strerror(errno));
    exit(1);
}

static void pause_sometimes(void)
{
    uint32_t r = rnd() % 400;
    if (r < 3)
        usleep(rnd() % 900);
    else if (r < 8)
        sched_yield();
}

union name {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

static socklen_t name_of(union name *n, bool six, const char *address, uint32_t port)
{
    memset(n, 0, sizeof *n);
    if (!six) {
        n->in.sin_family = AF_INET;
        n->in.sin_port = htons((uint16_t)port);
        inet_pton(AF_INET, address, &n->in.sin_addr);
        return sizeof n->in;
    }
    n->in6.sin6_family = AF_INET6;
    n->in6.sin6_port = htons((uint16_t)port);
    inet_pton(AF_INET6, address, &n->in6.sin6_addr);
    return sizeof n->in6;
}

static int bound(bool six, const char *address, uint32_t *port)
{
    union name n;
    socklen_t len = name_of(&n, six, address, 0);
    int fd = socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || bind(fd, &n.sa, len) != 0 || getsockname(fd, &n.sa, &len) != 0)
        die("bind", six, 0);
    __atomic_store_n(port, ntohs(six ? n.in6.sin6_port : n.in.sin_port), __ATOMIC_RELEASE);
    return fd;
}

static uint8_t byte_at(const struct head *h, uint32_t i)
{
    return (uint8_t)((h->number * 31 + h->sender * 7 + i * 13) >> (i % 5));
}

static uint32_t size(void)
{
    uint32_t r = rnd() % 8;
    return (uint32_t)sizeof(struct head) + (r < 5 ? rnd() % 100 : r < 7 ? rnd() % 1500 : rnd() % LARGEST);
}

/* The receivers of this run: 0, 1 dual (::), 2 127.0.0.1, 3 0.0.0.0 */
static int kind_of(int receiver)
{
    return (seed + receiver) % 4;
}

static void send_one(int fd, bool connected, const union name *to, socklen_t len, const uint8_t *out, uint32_t n)
{
    struct iovec iov[2] = {{(void *)(uintptr_t)out, n / 3}, {(void *)(uintptr_t)(out + n / 3), n - n / 3}};
    struct msghdr msg = {
        .msg_name = connected ? NULL : (void *)(uintptr_t)&to->sa, .msg_namelen = connected ? 0 : len, .msg_iov = iov, .msg_iovlen = 2};
    struct mmsghdr many = {.msg_hdr = msg};
    ssize_t r;
    do {
        switch (rnd() % 5) {
        case 0:
            r = sendmsg(fd, &msg, 0);
            break;
        case 1:
            r = sendmmsg(fd, &many, 1, 0) == 1 ? (ssize_t)many.msg_len : -1;
            break;
        case 2:
            r = connected ? write(fd, out, n) : sendto(fd, out, n, 0, &to->sa, len);
            break;
        default:
            r = sendto(fd, out, n, rnd() % 4 ? 0 : MSG_DONTWAIT, connected ? NULL : &to->sa, connected ? 0 : len);
        }
    } while (r < 0 && errno == EAGAIN);
    if (r != (ssize_t)n)
        die("send", r, n);
}

static int send_all(int me)
{
    /* a family for each sender; a v6 socket reaches v4 receivers by mapped addresses */
    bool six = (seed + me) % 3 == 0, one_peer = receivers == 1 && rnd() % 2;
    int fd = bound(six, six ? "::" : rnd() % 2 ? "0.0.0.0" : "127.0.0.1", &board->sender_port[me]);
    uint32_t sent[MOST] = {0}, life = board->life[me];
    static uint8_t out[LARGEST + 200];
    for (int r = 0; r < receivers; r++)
        sent[r] = __atomic_load_n(&board->got[r][me], __ATOMIC_ACQUIRE);
    for (bool more = true; more;) {
        more = false;
        for (int r = 0; r < receivers; r++) {
            union name to;
            bool v4 = kind_of(r) >= 2;
            const char *address = six ? (v4 ? "::ffff:127.0.0.1" : "::1") : "127.0.0.1";
            socklen_t len = name_of(&to, six, address, board->port[r]);
            more |= sent[r] < (uint32_t)count;
            if (sent[r] == (uint32_t)count || sent[r] - __atomic_load_n(&board->got[r][me], __ATOMIC_ACQUIRE) >= WINDOW) {
                sched_yield();
                continue;
            }
            if (one_peer && sent[r] == 0 && connect(fd, &to.sa, len) != 0)
                die("connect", r, 0);
            struct head h = {(uint32_t)me, sent[r], life, size()};
            memcpy(out, &h, sizeof h);
            for (uint32_t i = sizeof h; i < h.len; i++)
                out[i] = byte_at(&h, i);
            send_one(fd, one_peer, &to, len, out, h.len);
            sent[r]++;
            pause_sometimes();
        }
    }
    return 0;
}

static void wait_for(int fd, int how, int ep)
{
    struct epoll_event ev;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct timeval tv = {20, 0};
    fd_set rd;
    FD_ZERO(&rd);
    FD_SET(fd, &rd);
    int r = how == 0 ? poll(&p, 1, 20000) : how == 1 ? select(fd + 1, &rd, NULL, NULL, &tv) : how == 2 ? epoll_wait(ep, &ev, 1, 20000) : 1;
    if (r != 1)
        die("nothing comes", how, r);
}

/* One datagram, somehow; -1: none there. */
static ssize_t receive_one(int fd, uint8_t *in, size_t room, union name *from, socklen_t *len)
{
    struct iovec iov[2] = {{in, 50}, {in + 50, room - 50}};
    struct msghdr msg = {.msg_name = from, .msg_namelen = *len, .msg_iov = iov, .msg_iovlen = 2};
    struct mmsghdr many = {.msg_hdr = msg};
    ssize_t r, peeked = -1;
    if (rnd() % 8 == 0)
        peeked = recv(fd, in, 1, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
    switch (rnd() % 4) {
    case 0:
        r = recvmsg(fd, &msg, 0);
        *len = msg.msg_namelen;
        break;
    case 1:
        r = recvmmsg(fd, &many, 1, 0, NULL) == 1 ? (ssize_t)many.msg_len : -1;
        *len = many.msg_hdr.msg_namelen;
        break;
    default:
        r = recvfrom(fd, in, room, 0, &from->sa, len);
    }
    if (peeked >= 0 && r != peeked)
        die("another one than was peeked at", r, peeked);
    return r;
}

static void check(int me, const uint8_t *in, ssize_t r, const union name *from, uint32_t next[MOST], uint32_t life[MOST])
{
    struct head h;
    memcpy(&h, in, sizeof h);
    if (r < (ssize_t)sizeof h || h.len != (uint32_t)r || h.sender >= (uint32_t)senders)
        die("not a whole datagram", r, h.len);
    for (uint32_t i = sizeof h; i < h.len; i++)
        if (in[i] != byte_at(&h, i))
            die("wrong byte", i, h.sender);
    if (h.life < life[h.sender])
        return; /* of one that was killed, after its successor's first */
    if (h.life > life[h.sender]) {
        life[h.sender] = h.life;
        next[h.sender] = h.number;
    }
    if (h.number != next[h.sender])
        die("out of order", h.number, next[h.sender]);
    uint32_t port = ntohs(from->sa.sa_family == AF_INET ? from->in.sin_port : from->in6.sin6_port);
    if (port != __atomic_load_n(&board->sender_port[h.sender], __ATOMIC_ACQUIRE) && !with_kill)
        die("wrong source", port, h.sender);
    next[h.sender]++;
    __atomic_store_n(&board->got[me][h.sender], next[h.sender], __ATOMIC_RELEASE);
}

static int receive_all(int me)
{
    static const char *const addresses[4] = {"::", "::", "127.0.0.1", "0.0.0.0"};
    uint32_t next[MOST] = {0}, life[MOST] = {0}, port;
    int how = (int)(rnd() % 4), fd = bound(kind_of(me) < 2, addresses[kind_of(me)], &port), ep = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLIN};
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
    if (how != 3 && rnd() % 2)
        fcntl(fd, F_SETFL, O_NONBLOCK);
    __atomic_store_n(&board->port[me], port, __ATOMIC_RELEASE);
    static uint8_t in[LARGEST + 200];
    for (;;) {
        int done = 0;
        for (int s = 0; s < senders; s++)
            done += next[s] == (uint32_t)count;
        if (done == senders)
            return 0;
        union name from;
        socklen_t len = sizeof from;
        wait_for(fd, how, ep);
        ssize_t r = receive_one(fd, in, sizeof in, &from, &len);
        if (r < 0)
            die("receive", how, 0);
        check(me, in, r, &from, next, life);
        pause_sometimes();
    }
}

static pid_t begin(char **argv, int fd, char role, int index, bool plain)
{
    char what[32], board_fd[16];
    pid_t pid = fork();
    if (pid)
        return pid;
    snprintf(what, sizeof what, "%c%d", role, index);
    snprintf(board_fd, sizeof board_fd, "%d", fd);
    if (plain)
        unsetenv("LD_PRELOAD");
    execl("/proc/self/exe", argv[0], argv[1], argv[2], argv[3], argv[4], with_kill ? "kill" : "-", what, board_fd, NULL);
    die("exec", 0, 0);
    return 0;
}

static int act(const char *what, int fd)
{
    int me = atoi(what + 1);
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    rng_state = (uint64_t)seed * 2654435761u + (uint64_t)me * 2 + (what[0] == 's');
    return what[0] == 's' ? send_all(me) : receive_all(me);
}

int main(int argc, char **argv)
{
    bool plain = argc > 5 && !strcmp(argv[5], "plain");
    if (argc < 5)
        return 2;
    seed = atoi(argv[1]);
    senders = atoi(argv[2]);
    receivers = atoi(argv[3]);
    count = atoi(argv[4]);
    with_kill = argc > 5 && !strcmp(argv[argc > 7 ? 5 : argc - 1], "kill");
    if (argc > 7)
        return act(argv[6], atoi(argv[7]));
    if (senders > MOST || receivers > MOST)
        return 2;
    int fd = memfd_create("board", 0), bad = 0, status;
    if (ftruncate(fd, sizeof *board) != 0)
        die("memfd", 0, 0);
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    rng_state = (uint64_t)seed;
    pid_t pids[2 * MOST];
    int n = 0;
    for (int r = 0; r < receivers; r++)
        pids[n++] = begin(argv, fd, 'r', r, plain && r % 2);
    for (int r = 0; r < receivers; r++)
        while (!__atomic_load_n(&board->port[r], __ATOMIC_ACQUIRE))
            usleep(1000);
    for (int s = 0; s < senders; s++)
        pids[n++] = begin(argv, fd, 's', s, plain && s % 2);
    for (int kills = 0; with_kill && kills < 5; kills++) {
        usleep(20000 + rnd() % 60000);
        kill(pids[receivers], SIGKILL);
        waitpid(pids[receivers], &status, 0);
        usleep(20000); /* what it had sent is received, or goes */
        board->life[0]++;
        pids[receivers] = begin(argv, fd, 's', 0, false);
    }
    for (int i = 0; i < n; i++)
        if (waitpid(pids[i], &status, 0) != pids[i] || status != 0) {
            fprintf(stderr, "%s %d: status %#x\n", i < receivers ? "receiver" : "sender", i < receivers ? i : i - receivers, status);
            bad = 1;
            for (int k = 0; k < n; k++)
                kill(pids[k], SIGKILL);
        }
    if (!bad)
        puts("ok");
    return bad;
}
