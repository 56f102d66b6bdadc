/*
 * Does one operation of the library between two breakpoint instructions, under tracer.c: victim OPERATION PORT.
 *
 * Before it, a connection with the peer at 127.0.0.1:PORT is as the operation needs it: `warm` messages there and back, so that it is lifted
 * both ways, then one byte at which the peer prepares its side and answers. What is sent is the pattern, by position, so that the peer knows
 * each byte. Behind the second breakpoint the tracer kills it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WARM 6
#define MOST 65536

static unsigned char pattern[1 << 19], in[MOST]; /* the pattern, so that an operation need not make or compare it byte by byte */
static uint64_t sent, received;
static uint16_t port;
static int s = -1, set = -1;

static void point(void)
{
    __asm__ volatile("int3" ::: "memory");
}

static void need(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "victim: %s: %s\n", what, strerror(errno));
    _exit(3);
}

static void give(size_t n)
{
    ssize_t r = send(s, pattern + sent, n, 0);
    need(r > 0, "send");
    sent += (uint64_t)r;
}

static void take(size_t n)
{
    ssize_t r = recv(s, in, n, 0);
    need(r > 0, "recv");
    need(memcmp(in, pattern + received, (size_t)r) == 0, "a wrong byte");
    received += (uint64_t)r;
}

static struct sockaddr_in peer(void)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

static void make(void)
{
    struct sockaddr_in to = peer();
    s = socket(AF_INET, SOCK_STREAM, 0);
    need(s >= 0 && connect(s, (struct sockaddr *)&to, sizeof to) == 0, "connect");
}

static void warm(void)
{
    for (int i = 0; i < WARM; i++) {
        give(1);
        take(1);
    }
}

static void ready(void)
{
    make();
    warm();
    give(1);
    take(1);
}

static void watched(void)
{
    struct epoll_event e = {.events = EPOLLIN};
    set = epoll_create1(EPOLL_CLOEXEC);
    need(set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, s, &e) == 0, "epoll");
}

/* Members of a set, one of which has data that is not read. */
static void ready_set(void)
{
    ready();
    watched();
}

/* The process takes part already, but this connection is new. */
static void another(void)
{
    ready();
    close(s);
    sent = received = 0;
    make();
}

static void attach(void)
{
    give(1);
}

static void pair(void)
{
    give(1);
    take(1);
}

static void lift(void)
{
    for (int i = 0; i < WARM; i++) {
        give(1);
        take(1);
    }
}

static void lower(void)
{
    int on = 1;
    need(setsockopt(s, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on) == 0, "setsockopt");
    give(100);
}

static void send_small(void)
{
    give(100);
    give(1);
}

static void send_large(void)
{
    give(12000);
    give(6000); /* more than the smallest ring has room for */
}

static void receive(void)
{
    take(1000);
    take(1);
    take(MOST);
}

static void receive_wait(void)
{
    take(100);
}

static void close_it(void)
{
    need(close(s) == 0, "close");
}

static void shut(void)
{
    need(shutdown(s, SHUT_WR) == 0, "shutdown");
}

static void shut_both(void)
{
    need(shutdown(s, SHUT_RDWR) == 0, "shutdown");
}

static void change_set(void)
{
    struct epoll_event e = {.events = EPOLLIN};
    need(epoll_ctl(set, EPOLL_CTL_DEL, s, &e) == 0, "EPOLL_CTL_DEL");
    need(epoll_ctl(set, EPOLL_CTL_ADD, s, &e) == 0, "EPOLL_CTL_ADD");
    e.events = EPOLLIN | EPOLLET;
    need(epoll_ctl(set, EPOLL_CTL_MOD, s, &e) == 0, "EPOLL_CTL_MOD");
}

static void ask_set(void)
{
    struct epoll_event e;
    need(epoll_wait(set, &e, 1, 0) == 1, "epoll_wait");
    take(MOST);
    need(epoll_wait(set, &e, 1, 0) == 0, "epoll_wait, nothing");
}

static void wait_set(void)
{
    struct epoll_event e;
    need(epoll_wait(set, &e, 1, -1) == 1, "epoll_wait");
    take(100);
}

static void wait_poll(void)
{
    struct pollfd p = {.fd = s, .events = POLLIN};
    need(poll(&p, 1, -1) == 1, "poll");
    take(100);
}

/* The child goes on with the socket for a moment, and ends. */
static void fork_it(void)
{
    pid_t child = fork();
    if (child == 0) {
        give(1);
        _exit(0);
    }
    need(child > 0, "fork");
}

static void duplicate(void)
{
    int d = dup(s);
    need(d >= 0 && close(s) == 0, "dup");
    s = d;
    give(1);
}

static void execute(void)
{
    char *argv[] = {"/bin/true", NULL}, *env[] = {NULL};
    execve(argv[0], argv, env);
    need(0, "execve");
}

static void leave(void)
{
    exit(0);
}

static void datagrams(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}}, to = peer();
    s = socket(AF_INET, SOCK_DGRAM, 0);
    need(s >= 0 && bind(s, (struct sockaddr *)&any, sizeof any) == 0, "bind");
    for (int i = 0; i < WARM; i++) {
        need(sendto(s, "w", 1, 0, (struct sockaddr *)&to, sizeof to) == 1, "sendto");
        need(recvfrom(s, in, sizeof in, 0, NULL, NULL) == 1, "recvfrom");
    }
    need(sendto(s, "g", 1, 0, (struct sockaddr *)&to, sizeof to) == 1, "sendto");
    need(recvfrom(s, in, sizeof in, 0, NULL, NULL) == 1, "recvfrom");
}

static void send_to(void)
{
    struct sockaddr_in to = peer();
    for (size_t n = 100; n <= 4900; n *= 7) {
        need(sendto(s, pattern + n, n, 0, (struct sockaddr *)&to, sizeof to) == (ssize_t)n, "sendto");
    }
}

static void receive_from(void)
{
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    for (int i = 0; i < 3; i++) {
        ssize_t n = recvfrom(s, in, sizeof in, 0, (struct sockaddr *)&from, &len);
        need(n > 0 && memcmp(in, pattern + n, (size_t)n) == 0, "recvfrom");
    }
}

static const struct operation {
    const char *name;
    void (*before)(void), (*run)(void);
} operations[] = {
    {"attach", make, attach},
    {"pair", another, pair},
    {"lift", another, lift},
    {"lower", ready, lower},
    {"send", ready, send_small},
    {"send_large", ready, send_large},
    {"recv", ready, receive},
    {"doze", ready, receive_wait},
    {"sleep", ready, receive_wait},
    {"close", ready, close_it},
    {"close_unread", ready, close_it},
    {"shutdown", ready, shut},
    {"shutdown_both", ready, shut_both},
    {"epoll_ctl", ready_set, change_set},
    {"epoll_wait", ready_set, ask_set},
    {"epoll_doze", ready_set, wait_set},
    {"epoll_sleep", ready_set, wait_set},
    {"poll_doze", ready, wait_poll},
    {"fork", ready, fork_it},
    {"dup", ready, duplicate},
    {"exec", ready, execute},
    {"exit", ready, leave},
    {"sendto", datagrams, send_to},
    {"recvfrom", datagrams, receive_from},
    {"recvfrom_doze", datagrams, receive_from},
    {"close_datagrams", datagrams, close_it},
};

int main(int argc, char **argv)
{
    need(argc == 3, "usage: victim OPERATION PORT");
    port = (uint16_t)atoi(argv[2]);
    for (size_t at = 0; at < sizeof pattern; at++)
        pattern[at] = (unsigned char)(at * 31 + at / 251);
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (strcmp(operations[i].name, argv[1]) != 0)
            continue;
        operations[i].before();
        point();
        operations[i].run();
        point();
        return 0;
    }
    need(0, "no such operation");
}
