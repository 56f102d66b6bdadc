/*
 * Purpose: the server roles of shs-peer: echo, sink, churn, pairs.
 * Who may call: main in peer.c. Each serves a given number of connections, then returns what it counted.
 *
 * CPU time counts from the first message to the end of the last connection, so starting the program does not.
 */
#pragma once
#include "net.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum way { BLOCK, POLL, EPOLL };

enum { LARGEST = 1 << 16, MAX_PAIRS = 64 };

static char buffer[LARGEST];

/* What a server has done; `cpu` is the clock's value at the first message while it runs, the time used when it is done. */
struct served {
    uint64_t ops, cpu;
};

static void served_one(struct served *s)
{
    if (s->ops++ == 0)
        s->cpu = cpu_ns();
}

static void served_all(struct served *s)
{
    s->cpu = s->ops ? cpu_ns() - s->cpu : 0;
}

/* Sends one message back. False: the connection is over, and closed. */
static bool echo_once(int fd, size_t size, struct served *s)
{
    if (!receive_all(fd, buffer, size)) {
        close(fd);
        return false;
    }
    served_one(s);
    send_all(fd, buffer, size);
    return true;
}

static void echo_blocking(int listener, size_t size, struct served *s)
{
    int fd = accept_one(listener);
    while (echo_once(fd, size, s))
        ;
}

static void echo_by_poll(int listener, int connections, size_t size, struct served *s)
{
    struct pollfd *set = calloc((size_t)connections + 1, sizeof(*set));
    int used = 1, to_come = connections;
    if (!set)
        die("memory for %d connections", connections);
    set[0] = (struct pollfd){.fd = listener, .events = POLLIN};
    while (to_come > 0 || used > 1) {
        if (poll(set, (nfds_t)used, -1) < 0)
            die("poll");
        for (int i = used - 1; i > 0; i--)
            if (set[i].revents && !echo_once(set[i].fd, size, s))
                set[i] = set[--used];
        if (set[0].revents) {
            set[used++] = (struct pollfd){.fd = accept_one(listener), .events = POLLIN};
            if (--to_come == 0)
                set[0].fd = -1;
        }
    }
    free(set);
}

static void join_set(int set, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl");
}

static void echo_by_epoll(int listener, int connections, size_t size, struct served *s)
{
    struct epoll_event events[64];
    int set = epoll_create1(EPOLL_CLOEXEC), open = 0, to_come = connections;
    if (set < 0)
        die("epoll_create1");
    join_set(set, listener);
    while (to_come > 0 || open > 0) {
        int ready = epoll_wait(set, events, 64, -1);
        if (ready < 0)
            die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd != listener) {
                open -= !echo_once(fd, size, s);
                continue;
            }
            join_set(set, accept_one(listener));
            open++;
            if (--to_come == 0)
                epoll_ctl(set, EPOLL_CTL_DEL, listener, NULL);
        }
    }
    close(set);
}

static struct served serve_echo(int listener, enum way way, int connections, size_t size)
{
    struct served s = {0};
    if (way == EPOLL)
        echo_by_epoll(listener, connections, size, &s);
    else if (way == POLL)
        echo_by_poll(listener, connections, size, &s);
    else
        echo_blocking(listener, size, &s);
    served_all(&s);
    return s;
}

/* Takes a stream to its end, then says how many bytes there were. Counts messages of `size`. */
static struct served serve_sink(int listener, size_t size)
{
    struct served s = {0};
    uint64_t total = 0;
    int fd = accept_one(listener);
    for (size_t got; (got = receive(fd, buffer, sizeof(buffer))) > 0; total += got)
        if (total == 0)
            s.cpu = cpu_ns();
    s.ops = total / size;
    served_all(&s);
    send_all(fd, (const char *)&total, sizeof(total));
    close(fd);
    return s;
}

/* Accepts and closes at once: the client sees the end, and TIME_WAIT stays on this side, where it takes no port. */
static struct served serve_churn(int listener, int connections)
{
    struct served s = {0};
    for (int i = 0; i < connections; i++) {
        close(accept_one(listener));
        served_one(&s);
    }
    served_all(&s);
    return s;
}

/* Memory that children share with their parent. */
static void *shared_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    return memory;
}

static void wait_for_children(int count)
{
    for (int status; count > 0; count--)
        if (wait(&status) < 0 || status != 0) {
            errno = ECHILD;
            die("a child process failed");
        }
}

/* A process for each connection, which accepts it by itself. */
static struct served serve_pairs(int listener, int pairs, size_t size)
{
    struct served total = {0}, *each = shared_memory(sizeof(*each) * MAX_PAIRS);
    for (int i = 0; i < pairs; i++) {
        pid_t child = fork();
        if (child < 0)
            die("fork");
        if (child == 0) {
            each[i] = serve_echo(listener, BLOCK, 1, size);
            _exit(0);
        }
    }
    wait_for_children(pairs);
    for (int i = 0; i < pairs; i++) {
        total.ops += each[i].ops;
        total.cpu += each[i].cpu;
    }
    return total;
}
