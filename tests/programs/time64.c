/*
 * All calls of which libc has a twin for 32-bit programs with 64-bit time, on one connection between two processes, with the longest time-outs that
 * there are. Says "ok".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

_Static_assert(sizeof(time_t) == 8, "64-bit time");

#define ROUNDS 100
#define LEN 500

static void must(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static int set;

/* Wait for readability in the given way. */
static int wait_by(int way, int fd, int64_t seconds)
{
    struct timespec ts = {seconds, 0};
    struct timeval tv = {seconds, 0};
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct epoll_event event;
    fd_set rd;
    FD_ZERO(&rd);
    FD_SET(fd, &rd);
    switch (way) {
    case 0:
        return ppoll(&p, 1, &ts, NULL);
    case 1:
        return select(fd + 1, &rd, NULL, NULL, &tv);
    case 2:
        return pselect(fd + 1, &rd, NULL, NULL, &ts, NULL);
    default:
        return epoll_pwait2(set, &event, 1, &ts, NULL);
    }
}

static ssize_t give(int fd, int i)
{
    char bytes[LEN];
    struct iovec iov = {bytes, sizeof bytes};
    struct mmsghdr m = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
    memset(bytes, i, sizeof bytes);
    if (i % 2)
        return sendmsg(fd, &m.msg_hdr, 0);
    return sendmmsg(fd, &m, 1, 0) == 1 ? (ssize_t)m.msg_len : -1;
}

static ssize_t take(int fd, int i)
{
    char bytes[LEN];
    struct iovec iov = {bytes, sizeof bytes};
    struct mmsghdr m = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
    struct timespec ts = {5000000000, 0};
    ssize_t n = i % 2 ? recvmsg(fd, &m.msg_hdr, MSG_WAITALL) : recvmmsg(fd, &m, 1, MSG_WAITALL, &ts) == 1 ? (ssize_t)m.msg_len : -1;
    for (ssize_t at = 0; at < n; at++)
        if (bytes[at] != (char)i)
            return -2;
    return n;
}

/* Long time-outs are no short ones, and the least are true. */
static void rounds(int fd, int first)
{
    static const int64_t longest[] = {5, 5000000000, 1ll << 33, INT64_MAX / 2000000000};
    struct epoll_event event = {.events = EPOLLIN};
    set = epoll_create1(0);
    must(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
    for (int i = 0; i < ROUNDS; i++) {
        if (first)
            must(give(fd, i) == LEN, "give");
        must(wait_by(i / 2 % 4, fd, longest[i / 8 % 4]) == 1, "wait");
        must(take(fd, i) == LEN, "take");
        if (!first)
            must(give(fd, i) == LEN, "give back");
    }
}

static void others(int fd)
{
    struct timeval tv = {0, 30000}, left = {1, 0}, zero = {0, 0};
    struct timespec bad = {-1, 0};
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char byte;
    int n = -1, ready;
    fd_set rd;
    for (int way = 0; way < 4; way++)
        must(wait_by(way, fd, 0) == 0, "nothing there");
    must(ppoll(&p, 1, &bad, NULL) == -1 && errno == EINVAL, "time before time");
    must(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) == 0, "SO_RCVTIMEO");
    struct timeval back = {0};
    socklen_t back_len = sizeof back;
    must(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &back, &back_len) == 0 && back.tv_sec == tv.tv_sec && back_len == sizeof back,
         "getsockopt");
    must(recv(fd, &byte, 1, 0) == -1 && errno == EAGAIN, "receive for 30 ms");
    must(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &zero, sizeof zero) == 0, "SO_RCVTIMEO");
    must(fcntl(fd, F_SETFL, O_NONBLOCK) == 0 && recv(fd, &byte, 1, 0) == -1 && errno == EAGAIN, "O_NONBLOCK");
    must(fcntl(fd, F_SETFL, 0) == 0 && write(fd, "?", 1) == 1, "ask");
    FD_ZERO(&rd);
    FD_SET(fd, &rd);
    ready = select(fd + 1, &rd, NULL, NULL, &left);
    must(ready == 1 && FD_ISSET(fd, &rd) && left.tv_sec == 0 && left.tv_usec > 0, "time that is left");
    must(ioctl(fd, FIONREAD, &n) == 0 && n == 7, "FIONREAD");
    must(recv(fd, &byte, 1, MSG_PEEK) == 1 && byte == '7', "peek");
}

int main(void)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof here;
    int listener = socket(AF_INET, SOCK_STREAM, 0), status;
    char bytes[8];
    must(bind(listener, (struct sockaddr *)&here, sizeof here) == 0 && listen(listener, 1) == 0, "listen");
    must(getsockname(listener, (struct sockaddr *)&here, &len) == 0, "getsockname");
    pid_t child = fork();
    if (child == 0) {
        int fd = accept(listener, NULL, NULL);
        rounds(fd, 0);
        must(read(fd, bytes, 1) == 1 && write(fd, "7654321", 7) == 7, "answer");
        must(read(fd, bytes, 1) == 0, "end");
        exit(0);
    }
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    must(connect(fd, (struct sockaddr *)&here, sizeof here) == 0, "connect");
    rounds(fd, 1);
    others(fd);
    must(read(fd, bytes, sizeof bytes) == 7, "read");
    close(fd);
    must(waitpid(child, &status, 0) == child && status == 0, "child");
    puts("ok");
    return 0;
}
