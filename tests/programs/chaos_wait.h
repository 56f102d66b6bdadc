/*
 * What an actor has open, and five ways to wait for it: epoll, epoll by edges, poll, select, and a short sleep.
 */
#pragma once
#include "chaos_stream.h"

#include <sys/epoll.h>
#include <sys/select.h>

#define ENDS_MOST 16

enum { BY_EPOLL, BY_EDGES, BY_POLL, BY_SELECT, BY_SLEEP, WAYS };
enum { LISTENER, DOOR, DATAGRAMS, ENDS_FROM };

struct actor {
    uint32_t number, way, life; /* life: how often its place in the table was taken */
    struct dice dice;
    int fd[ENDS_FROM]; /* listener, Unix listener by which descriptors come, datagram socket */
    int set;           /* of epoll */
    int ready[ENDS_FROM];
    uint32_t n_ends;
    struct end ends[ENDS_MOST];
};

static struct actor self;

static short wanted(const struct end *e)
{
    if (e->pause_ns)
        return 0;
    return (short)(e->connecting ? POLLOUT : POLLIN | (e->blocked ? POLLOUT : 0));
}

static void join_set(int fd, uint32_t at)
{
    struct epoll_event event = {.events = EPOLLIN | (self.way == BY_EDGES && at >= ENDS_FROM ? EPOLLOUT | EPOLLET : 0),
                                .data.u32 = (uint32_t)fd};
    if (self.way > BY_EDGES)
        return;
    if (epoll_ctl(self.set, EPOLL_CTL_ADD, fd, &event) != 0)
        finding("epoll_ctl: %s", strerror(errno));
}

static void make_set(void)
{
    if (self.way > BY_EDGES)
        return;
    self.set = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < ENDS_FROM; i++)
        join_set(self.fd[i], i);
    for (uint32_t i = 0; i < self.n_ends; i++) {
        join_set(self.ends[i].fd, ENDS_FROM);
        self.ends[i].ready = 1;
    }
}

static void found(int fd)
{
    for (uint32_t i = 0; i < ENDS_FROM; i++)
        if (self.fd[i] == fd)
            self.ready[i] = 1;
    for (uint32_t i = 0; i < self.n_ends; i++)
        if (self.ends[i].fd == fd)
            self.ends[i].ready = 1;
}

static void by_epoll(int timeout)
{
    struct epoll_event events[ENDS_MOST];
    for (uint32_t i = 0; self.way == BY_EPOLL && i < self.n_ends;
         i++) { /* by level: what is not wanted now would be told again and again */
        struct end *e = &self.ends[i];
        uint8_t silent = (uint8_t)(1 + wanted(e));
        struct epoll_event event = {.events = (uint32_t)wanted(e), .data.u32 = (uint32_t)e->fd};
        if (e->silent != silent && epoll_ctl(self.set, EPOLL_CTL_MOD, e->fd, &event) != 0)
            finding("epoll_ctl of connection %u: %s", e->hello.connection, strerror(errno));
        e->silent = silent;
    }
    int n = epoll_wait(self.set, events, ENDS_MOST, timeout);
    for (int i = 0; i < n; i++)
        found((int)events[i].data.u32);
}

static void by_poll(int timeout)
{
    struct pollfd polled[ENDS_FROM + ENDS_MOST];
    for (uint32_t i = 0; i < ENDS_FROM; i++)
        polled[i] = (struct pollfd){.fd = self.fd[i], .events = POLLIN};
    for (uint32_t i = 0; i < self.n_ends; i++)
        polled[ENDS_FROM + i] = (struct pollfd){.fd = self.ends[i].pause_ns ? -1 : self.ends[i].fd, .events = wanted(&self.ends[i])};
    int n = poll(polled, ENDS_FROM + self.n_ends, timeout);
    for (uint32_t i = 0; n > 0 && i < ENDS_FROM + self.n_ends; i++)
        if (polled[i].revents)
            found(polled[i].fd);
}

static void by_select(int timeout)
{
    fd_set in, out;
    struct timeval wait = {timeout / 1000, timeout % 1000 * 1000};
    FD_ZERO(&in);
    FD_ZERO(&out);
    for (uint32_t i = 0; i < ENDS_FROM; i++)
        FD_SET(self.fd[i], &in);
    for (uint32_t i = 0; i < self.n_ends; i++) {
        if (wanted(&self.ends[i]) & POLLIN)
            FD_SET(self.ends[i].fd, &in);
        if (wanted(&self.ends[i]) & POLLOUT)
            FD_SET(self.ends[i].fd, &out);
    }
    if (select(FD_SETSIZE, &in, &out, NULL, &wait) <= 0)
        return;
    for (int fd = 0; fd < FD_SETSIZE; fd++)
        if (FD_ISSET(fd, &in) || FD_ISSET(fd, &out))
            found(fd);
}

/* Until something may be done, or for so many milliseconds. */
static void wait_for_any(int timeout)
{
    switch (self.way) {
    case BY_EPOLL:
    case BY_EDGES:
        by_epoll(timeout);
        return;
    case BY_POLL:
        by_poll(timeout);
        return;
    case BY_SELECT:
        by_select(timeout);
        return;
    default:
        usleep((useconds_t)(timeout ? 500 : 0));
        for (uint32_t i = 0; i < ENDS_FROM; i++)
            self.ready[i] = 1;
        for (uint32_t i = 0; i < self.n_ends; i++)
            self.ends[i].ready = 1;
    }
}
