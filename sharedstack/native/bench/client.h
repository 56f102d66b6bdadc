/*
 * Purpose: the client roles of shs-peer: pingpong, load, stream, churn, pairs, idle, call.
 * Who may call: main in peer.c. Each returns what it measured, with the segments that the kernel carried meanwhile.
 *
 * Warming up (connecting, the first messages) is not measured. One reading of the clock ends a round trip and begins the next.
 */
#pragma once
#include "server.h"

#include <pthread.h>

/* What a client measured: of operations, in `ns`; `segments` on its own connections, `all` in the network namespace. */
struct measured {
    uint64_t ops, ns, segments, all;
};

static struct histogram times;

static void begin(struct measured *m, int fd)
{
    m->all = all_segments();
    m->segments = fd < 0 ? 0 : own_segments(fd);
    m->ns = now_ns();
}

static void end(struct measured *m, int fd)
{
    m->ns = now_ns() - m->ns;
    m->segments = fd < 0 ? 0 : own_segments(fd) - m->segments;
    m->all = all_segments() - m->all;
}

static int connect_warm(int port)
{
    int fd = connect_to(port);
    no_delay(fd);
    return fd;
}

/* Waits, by poll or epoll (`set`), until the descriptor can be read; a blocking recv waits by itself. */
static void wait_readable(enum way way, int fd, int set)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    struct epoll_event event;
    if (way == POLL && poll(&one, 1, -1) < 0)
        die("poll");
    if (way == EPOLL && epoll_wait(set, &event, 1, -1) < 0)
        die("epoll_wait");
}

static void exchange(enum way way, int fd, int set, size_t size)
{
    send_all(fd, buffer, size);
    wait_readable(way, fd, set);
    if (!receive_all(fd, buffer, size)) {
        errno = EPIPE;
        die("the server has closed the connection");
    }
}

/* Round trips for `ns`; returns how many, with their times in `h` if there is one. */
static uint64_t exchange_for(uint64_t ns, enum way way, int fd, int set, size_t size, struct histogram *h)
{
    uint64_t count = 0, last = now_ns(), until = last + ns;
    while (last < until) {
        exchange(way, fd, set, size);
        uint64_t now = now_ns();
        if (h)
            histogram_add(h, now - last);
        last = now;
        count++;
    }
    return count;
}

/* Ping-pong on the first of `members` connections, all established. */
static struct measured run_pingpong(int port, enum way way, int members, size_t size, uint64_t ns, struct histogram *h)
{
    struct measured m = {0};
    int fd = connect_warm(port), set = -1;
    for (int i = 1; i < members; i++)
        connect_to(port); /* kept until the process ends */
    if (way == EPOLL) {
        set = epoll_create1(EPOLL_CLOEXEC);
        join_set(set, fd);
    }
    exchange_for(ns / 5, way, fd, set, size, NULL);
    begin(&m, fd);
    m.ops = exchange_for(ns, way, fd, set, size, h);
    end(&m, fd);
    return m;
}

struct replies {
    int fd;
    size_t size;
    uint64_t from, count;
};

/* Takes replies until the server closes. A message carries the time when it was due, which is when its latency begins. */
static void *take_replies(void *argument)
{
    static char reply[LARGEST];
    struct replies *r = argument;
    while (receive_all(r->fd, reply, r->size)) {
        uint64_t due;
        memcpy(&due, reply, sizeof(due));
        if (due < r->from)
            continue;
        histogram_add(&times, now_ns() - due);
        r->count++;
    }
    return NULL;
}

/* Sleeps while the time is far, then looks at the clock. */
static void wait_until(uint64_t due)
{
    const uint64_t margin = 80000;
    uint64_t now = now_ns();
    if (due > now + margin) {
        uint64_t wake = due - margin;
        struct timespec t = {.tv_sec = (time_t)(wake / 1000000000u), .tv_nsec = (long)(wake % 1000000000u)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
    }
    while (now_ns() < due)
        ;
}

/* `rate` messages a second, whatever becomes of the replies, which another thread takes. */
static struct measured run_load(int port, int rate, size_t size, uint64_t ns)
{
    struct measured m = {0};
    struct replies r = {.fd = connect_warm(port), .size = size};
    uint64_t gap = 1000000000u / (uint64_t)rate, due = now_ns(), until;
    pthread_t thread;
    r.from = due + ns / 5;
    until = r.from + ns;
    errno = pthread_create(&thread, NULL, take_replies, &r);
    if (errno != 0)
        die("cannot start a thread");
    for (bool warm = true; due < until; due += gap) {
        if (warm && due >= r.from) {
            warm = false;
            begin(&m, r.fd);
        }
        wait_until(due);
        memcpy(buffer, &due, sizeof(due));
        send_all(r.fd, buffer, size);
    }
    end(&m, r.fd);
    shutdown(r.fd, SHUT_WR);
    pthread_join(thread, NULL);
    m.ops = r.count;
    return m;
}

/* Writes of `size`, one way, until the server confirms the last byte. */
static struct measured run_stream(int port, size_t size, uint64_t ns)
{
    struct measured m = {0};
    int fd = connect_warm(port);
    uint64_t total;
    begin(&m, fd);
    for (uint64_t until = m.ns + ns; now_ns() < until;)
        for (size_t left = size < 4096 ? 64 : 1; left > 0; left--)
            send_all(fd, buffer, size);
    shutdown(fd, SHUT_WR);
    if (!receive_all(fd, (char *)&total, sizeof(total)))
        die("the server did not confirm");
    end(&m, fd);
    m.ops = total / size;
    return m;
}

/* Connections, one after the other, each to its end. */
static struct measured run_churn(int port, int connections)
{
    struct measured m = {.ops = (uint64_t)connections};
    begin(&m, -1);
    uint64_t last = m.ns;
    for (int i = 0; i < connections; i++) {
        int fd = connect_to(port);
        if (receive(fd, buffer, 1) != 0)
            die("data from a server that sends none");
        close(fd);
        uint64_t now = now_ns();
        histogram_add(&times, now - last);
        last = now;
    }
    end(&m, -1);
    return m;
}

/* A process for each connection, ping-pong on all of them at the same time. */
static struct measured run_pairs(int port, int pairs, size_t size, uint64_t ns)
{
    struct measured total = {0}, *each = shared_memory(sizeof(*each) * MAX_PAIRS);
    begin(&total, -1);
    for (int i = 0; i < pairs; i++) {
        pid_t child = fork();
        if (child < 0)
            die("fork");
        if (child == 0) {
            each[i] = run_pingpong(port, BLOCK, 1, size, ns, NULL);
            _exit(0);
        }
    }
    wait_for_children(pairs);
    end(&total, -1);
    total.ns = ns;
    for (int i = 0; i < pairs; i++) {
        total.ops += each[i].ops;
        total.segments += each[i].segments;
    }
    return total;
}

/* Connections that have been in use and are silent, until standard input ends; "ready" says that the silence begins. */
static struct measured run_idle(int port, int connections, size_t size)
{
    struct measured m = {.ops = (uint64_t)connections};
    struct epoll_event event;
    int *fds = calloc((size_t)connections, sizeof(*fds)), set = epoll_create1(EPOLL_CLOEXEC);
    if (!fds || set < 0)
        die("%d connections", connections);
    for (int i = 0; i < connections; i++)
        fds[i] = connect_warm(port);
    for (int round = 0; round < 10; round++)
        for (int i = 0; i < connections; i++)
            exchange(BLOCK, fds[i], -1, size);
    for (int i = 0; i < connections; i++)
        join_set(set, fds[i]);
    join_set(set, STDIN_FILENO);
    puts("ready");
    fflush(stdout);
    do {
        if (epoll_wait(set, &event, 1, -1) < 0)
            die("epoll_wait");
    } while (event.data.fd != STDIN_FILENO);
    free(fds);
    return m;
}

/* Calls that find nothing, on a connection whose other end never takes part: what a call on an unpaired socket costs. */
static struct measured run_call(uint64_t ns)
{
    struct measured m = {0};
    struct sockaddr_in at;
    socklen_t size = sizeof(at);
    int listener = listen_here();
    if (getsockname(listener, (struct sockaddr *)&at, &size) != 0)
        die("getsockname");
    int fd = connect_to(ntohs(at.sin_port)), other = accept_one(listener);
    for (int warm = 0; warm < 10000; warm++)
        (void)!recv(fd, buffer, 1, MSG_DONTWAIT);
    begin(&m, fd);
    for (uint64_t last = m.ns, until = m.ns + ns; last < until; m.ops += 1000) {
        for (int i = 0; i < 1000; i++)
            (void)!recv(fd, buffer, 1, MSG_DONTWAIT);
        last = now_ns();
    }
    end(&m, fd);
    close(other);
    return m;
}
