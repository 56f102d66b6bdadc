/*
 * For the programs that show what calls mean: connected pairs, ends that are warm (both directions lifted, where the library is there and
 * eager), and lines of what came back, the same ones on the kernel and through the library.
 */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct scene {
    const char *name;
    void (*play)(void);
};

static inline void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

static inline void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(3);
}

#define RIGHTS_MOST 8 /* descriptors in one message */

/* By SCM_RIGHTS, with a byte: what sendmsg returned. */
static inline ssize_t send_rights(int over, const int *fds, int n)
{
    char byte = 'x';
    struct iovec iov = {&byte, 1};
    size_t len = (size_t)n * sizeof *fds;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(RIGHTS_MOST * sizeof *fds)] = {0};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(len)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(len)};
    memcpy(CMSG_DATA(c), fds, len);
    return sendmsg(over, &msg, 0);
}

/* How many descriptors came, RIGHTS_MOST at most; -1: no message. */
static inline int receive_rights(int over, int flags, int *fds)
{
    char byte;
    struct iovec iov = {&byte, 1};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(RIGHTS_MOST * sizeof *fds)];
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(over, &msg, flags) < 0)
        return -1;
    const struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    size_t len = c ? c->cmsg_len - CMSG_LEN(0) : 0;
    if (c)
        memcpy(fds, CMSG_DATA(c), len);
    return (int)(len / sizeof *fds);
}

/* "what: 5" or "what: ECONNRESET" */
static inline void show(const char *what, long r)
{
    if (r < 0)
        say("%s: %s", what, strerrorname_np(errno));
    else
        say("%s: %ld", what, r);
}

static inline double ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Was a wait that began at `start` as long as it should be? A busy machine wakes late. */
static inline void show_wait(const char *what, double start, double wanted)
{
    double took = ms() - start;
    if (took < wanted - 0.1 || took > wanted + 12)
        say("%s: took %.2f ms, not %.0f", what, took, wanted);
    else
        say("%s: took %.0f ms", what, wanted);
}

static inline int listener(struct sockaddr_in *at)
{
    socklen_t len = sizeof *at;
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)at, len) != 0 || listen(fd, 16) != 0 || getsockname(fd, (struct sockaddr *)at, &len) != 0)
        fail("listen");
    return fd;
}

static inline int no_delay(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* Two ends of a connection, both ours. */
static inline void connected(int end[2])
{
    struct sockaddr_in at;
    int l = listener(&at);
    end[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (end[0] < 0 || connect(end[0], (struct sockaddr *)&at, sizeof at) != 0 || (end[1] = accept(l, NULL, NULL)) < 0)
        fail("connect");
    close(l);
    no_delay(end[0]);
    no_delay(end[1]);
}

static inline void fill(uint8_t *buf, size_t n, uint32_t at)
{
    for (size_t i = 0; i < n; i++)
        buf[i] = (uint8_t)((at + i) * 2654435761u >> 24);
}

static inline void must_send(int fd, const void *buf, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t r = send(fd, (const uint8_t *)buf + done, n - done, MSG_NOSIGNAL);
        if (r < 0)
            fail("send");
        done += (size_t)r;
    }
}

static inline void must_recv(int fd, void *buf, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t r = recv(fd, (uint8_t *)buf + done, n - done, 0);
        if (r <= 0)
            fail(r ? "recv" : "recv: end of stream");
        done += (size_t)r;
    }
}

#define WARM_ROUNDS 64
#define WARM_BYTES 512

/* Messages there and back, until both directions are lifted: both ends are ours. */
static inline void warm(const int end[2])
{
    uint8_t out[WARM_BYTES], in[WARM_BYTES];
    for (int i = 0; i < WARM_ROUNDS; i++)
        for (int side = 0; side < 2; side++) {
            fill(out, sizeof out, (uint32_t)i);
            must_send(end[side], out, sizeof out);
            must_recv(end[1 - side], in, sizeof in);
            if (memcmp(in, out, sizeof in))
                fail("warm: wrong bytes");
        }
}

/* The same with the other end in another process: one of them is `first`. */
static inline void warm_end(int fd, bool first)
{
    uint8_t buf[WARM_BYTES] = {0};
    for (int i = 0; i < WARM_ROUNDS * 2; i++)
        if ((i % 2 == 0) == first)
            must_send(fd, buf, sizeof buf);
        else
            must_recv(fd, buf, sizeof buf);
}

static inline void warm_pair(int end[2])
{
    connected(end);
    warm(end);
}

/* send, as a line would be wasted on it */
static inline void put(int fd, size_t n)
{
    uint8_t buf[65536];
    fill(buf, n, 0);
    must_send(fd, buf, n);
}

/* A child process with an end of a connection whose other end is returned; both are warm. */
static inline int with_child(void (*act)(int fd), pid_t *child)
{
    struct sockaddr_in at;
    int l = listener(&at), fd;
    *child = fork();
    if (*child == 0) {
        close(l);
        fd = no_delay(socket(AF_INET, SOCK_STREAM, 0));
        if (connect(fd, (struct sockaddr *)&at, sizeof at) != 0)
            fail("connect");
        warm_end(fd, true);
        act(fd);
        exit(0);
    }
    fd = no_delay(accept(l, NULL, NULL));
    close(l);
    warm_end(fd, false);
    return fd;
}

static inline void handle(int sig, void (*handler)(int), int flags)
{
    struct sigaction act = {.sa_handler = handler, .sa_flags = flags};
    sigaction(sig, &act, NULL);
}

static inline void receive_timeout(int fd, int milliseconds)
{
    struct timeval tv = {milliseconds / 1000, milliseconds % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
}

static inline int play(const struct scene *scenes, size_t n, int argc, char **argv)
{
    for (size_t i = 0; i < n; i++) {
        if (argc == 2 && !strcmp(argv[1], scenes[i].name)) {
            scenes[i].play();
            return 0;
        }
        if (argc == 1)
            say("%s", scenes[i].name);
    }
    return argc == 1 ? 0 : 2;
}

/* Two datagram sockets that are connected with each other. */
static inline void udp_pair(int u[2])
{
    struct sockaddr_in name[2];
    socklen_t len = sizeof *name;
    for (int i = 0; i < 2; i++) {
        name[i] = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        u[i] = socket(AF_INET, SOCK_DGRAM, 0);
        if (bind(u[i], (struct sockaddr *)&name[i], len) != 0 || getsockname(u[i], (struct sockaddr *)&name[i], &len) != 0)
            fail("bind");
    }
    for (int i = 0; i < 2; i++)
        if (connect(u[i], (struct sockaddr *)&name[!i], len) != 0)
            fail("connect");
}
