/*
 * Purpose: real loopback connections, and both ends of one lifted by two participants.
 */
#pragma once
#include "world.h"

/* fd[0] has connected, fd[1] was accepted; both non-blocking if asked for. */
static inline void tcp_pair(int family, int fd[2], bool nonblock)
{
    struct sockaddr_storage sa = {.ss_family = (sa_family_t)family};
    if (family == AF_INET)
        ((struct sockaddr_in *)&sa)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else
        ((struct sockaddr_in6 *)&sa)->sin6_addr = in6addr_loopback;
    socklen_t len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    int listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), type = SOCK_STREAM | SOCK_CLOEXEC;
    CHECK(bind(listener, (struct sockaddr *)&sa, len), ==, 0);
    CHECK(listen(listener, 1), ==, 0);
    CHECK(getsockname(listener, (struct sockaddr *)&sa, &len), ==, 0);
    fd[0] = socket(family, type, 0);
    CHECK(connect(fd[0], (struct sockaddr *)&sa, len), ==, 0);
    fd[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK(fd[1], >=, 0);
    close(listener);
    for (int i = 0; i < 2 && nonblock; i++)
        CHECK(fcntl(fd[i], F_SETFL, O_NONBLOCK), ==, 0);
}

/* Has this machine IPv6 on loopback? */
static inline bool tcp_has_v6(void)
{
    struct sockaddr_in6 sa = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    bool has = fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof sa) == 0;
    if (fd >= 0)
        close(fd);
    return has;
}

static inline bool tcp_nobody_inside(int fd, int receive)
{
    (void)fd;
    (void)receive;
    return false;
}

/* A connection whose end i is held by participant i: registered, paired, and both directions under count at both ends. */
struct link {
    int fd[2];
    uint32_t ep1[2];
    struct shs_end end[2];
};

static inline void link_make(struct link *l, struct shs_env *env[2], int family, bool nonblock)
{
    tcp_pair(family, l->fd, nonblock);
    for (int i = 0; i < 2; i++) {
        struct shs_who who = world_who(env[i], 1);
        int r;
        while ((r = shs_register(env[i], &who, l->fd[i])) == 0)
            ;
        CHECK(r, >, 0);
        l->ep1[i] = (uint32_t)r;
    }
    for (int i = 0; i < 2; i++) {
        struct shs_who who = world_who(env[i], 1);
        CHECK(shs_end_of(env[i], l->ep1[i], &l->end[i]), ==, true);
        l->end[i].fd = l->fd[i];
        CHECK(shs_activate(env[i], &who, &l->end[i], false, tcp_nobody_inside), ==, 0);
        CHECK(shs_activate(env[i], &who, &l->end[i], true, tcp_nobody_inside), ==, 0);
    }
    CHECK(l->end[0].tx == l->end[1].rx && l->end[0].rx == l->end[1].tx, ==, true);
}

static inline void link_drop(struct link *l, struct shs_env *env[2])
{
    for (int i = 0; i < 2; i++) {
        struct shs_who who = world_who(env[i], 1);
        shs_end_close(env[i], &who, l->ep1[i], l->fd[i], true);
        close(l->fd[i]);
    }
}

/* recv without waiting, as the layer above calls it for one buffer. */
static inline long link_recv(struct shs_env *env, const struct shs_who *who, struct shs_end *end, void *buf, size_t len, int flags,
                             uint64_t *looked_ns)
{
    struct iovec iov = {buf, len};
    struct shs_cursor cur;
    struct shs_rx how = {.looked_ns = looked_ns, .look_gap_ns = 20000};
    shs_cursor_init(&cur, &iov, 1);
    return shs_end_recv(env, who, end, &cur, flags, &how);
}

static inline long link_send(struct shs_env *env, const struct shs_who *who, struct shs_end *end, const void *buf, size_t len, int flags)
{
    struct iovec iov = {(void *)(uintptr_t)buf, len};
    struct shs_cursor cur;
    shs_cursor_init(&cur, &iov, 1);
    return shs_end_send(env, who, end, &cur, flags);
}

/* A blocking send, which waits for room in no lock, as the layer above does: len, or -errno. */
static inline long link_send_all(struct shs_env *env, const struct shs_who *who, struct shs_end *end, const uint8_t *buf, size_t len)
{
    for (size_t sent = 0; sent < len;) {
        long n = link_send(env, who, end, buf + sent, len - sent, 0);
        struct pollfd ready = {.fd = end->fd, .events = POLLOUT};
        if (n == -EAGAIN)
            poll(&ready, 1, 1000);
        else if (n < 0)
            return n;
        else
            sent += (size_t)n;
    }
    return (long)len;
}

/* The byte at a position of a stream that is told from its neighbours' and from other streams'. */
static inline uint8_t byte_at(uint64_t stream, uint64_t position)
{
    return (uint8_t)mix(stream << 48 ^ position);
}
