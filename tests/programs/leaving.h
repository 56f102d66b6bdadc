/* Sockets of a program that is called away in the middle of calls on them, the calls that wait, and whether all still works. */
#pragma once
#include "pairs.h"

static int e[2], u[2], set, listening;
static struct sockaddr_in at;
static uint8_t *much;
#define MUCH ((size_t)64 << 20)

static void make(void)
{
    struct epoll_event event = {.events = EPOLLIN};
    warm_pair(e);
    udp_pair(u);
    listening = listener(&at);
    fcntl(listening, F_SETFD, 0);
    set = epoll_create1(0);
    if (epoll_ctl(set, EPOLL_CTL_ADD, e[0], &event) != 0)
        fail("epoll_ctl");
    much = calloc(1, MUCH);
}

/* What is there is thrown away. */
static void drain(int fd)
{
    static uint8_t in[1 << 16];
    while (recv(fd, in, sizeof in, MSG_DONTWAIT) > 0)
        ;
}

static long talked;

/* All of them work. */
static void works(const char *call, const char *how)
{
    uint8_t out[300], in[300];
    for (int i = 0; i < 2; i++)
        drain(e[i]), drain(u[i]);
    for (int i = 0; i < 6; i++, talked++) {
        const int *fd = i % 3 ? e : u;
        fill(out, sizeof out, (uint32_t)talked);
        if (send(fd[i & 1], out, sizeof out, 0) != sizeof out || recv(fd[!(i & 1)], in, sizeof in, MSG_WAITALL) != sizeof in ||
            memcmp(in, out, sizeof in))
            fail(call);
    }
    struct epoll_event event;
    put(e[1], 10);
    if (epoll_wait(set, &event, 1, 2000) != 1)
        fail("epoll_wait");
    must_recv(e[0], in, 10);
    say("%s, %s: works", call, how);
}

/* Calls that wait. */

static long a_recv(void)
{
    uint8_t in[100];
    return recv(e[0], in, sizeof in, 0);
}

static long a_read_of_all(void)
{
    uint8_t in[100];
    put(e[1], 10);
    return recv(e[0], in, sizeof in, MSG_WAITALL);
}

static long a_recvfrom(void)
{
    uint8_t in[100];
    return recvfrom(u[0], in, sizeof in, 0, NULL, NULL);
}

static long a_recvmsg(void)
{
    uint8_t in[100];
    struct iovec iov = {in, sizeof in};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    return recvmsg(e[0], &msg, 0);
}

static long a_poll(void)
{
    struct pollfd p[2] = {{.fd = e[0], .events = POLLIN}, {.fd = u[0], .events = POLLIN}};
    return poll(p, 2, 5000);
}

static long a_poll_of_one(void)
{
    struct pollfd p = {.fd = e[0], .events = POLLIN};
    return poll(&p, 1, 5000);
}

static long a_select(void)
{
    fd_set rd;
    FD_ZERO(&rd);
    FD_SET(e[0], &rd);
    return select(e[0] + 1, &rd, NULL, NULL, NULL);
}

static long an_epoll_wait(void)
{
    struct epoll_event event;
    return epoll_wait(set, &event, 1, 5000);
}

static long an_accept(void)
{
    return accept(listening, NULL, NULL);
}

/* To where nobody accepts. */
static long a_connect(void)
{
    struct sockaddr_in full;
    int l = listener(&full), fd = -1;
    listen(l, 0);
    for (int i = 0; i < 3; i++) {
        fd = socket(AF_INET, SOCK_STREAM | (i < 2 ? SOCK_NONBLOCK : 0), 0);
        if (i < 2)
            (void)!connect(fd, (struct sockaddr *)&full, sizeof full);
    }
    return connect(fd, (struct sockaddr *)&full, sizeof full);
}

/* More than anything takes. */
static long a_send(void)
{
    return send(e[0], much, MUCH, 0) > 0 ? 1 : -1;
}

static long a_writev(void)
{
    struct iovec iov[2] = {{much, MUCH / 2}, {much, MUCH / 2}};
    return writev(e[0], iov, 2) > 0 ? 1 : -1;
}

struct call {
    const char *name;
    long (*make)(void);
};

static const struct call waiting[] = {
    {"recv", a_recv},      {"recv of all", a_read_of_all}, {"recvfrom", a_recvfrom}, {"recvmsg", a_recvmsg},
    {"poll", a_poll},      {"poll of one", a_poll_of_one}, {"select", a_select},     {"epoll_wait", an_epoll_wait},
    {"accept", an_accept}, {"connect", a_connect},         {"send", a_send},         {"writev", a_writev},
};
#define N_WAITING (sizeof waiting / sizeof *waiting)
