/*
 * Purpose: plain TCP sockets on loopback for shs-peer, and what the kernel says it carried.
 * Who may call: peer.c and its parts. Everything that fails ends the process (die), but the end of a connection, which is a result.
 */
#pragma once
#include "tool.h"

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

static inline void no_delay(int fd)
{
    int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0)
        die("TCP_NODELAY");
}

/* A listening socket on a free port of 127.0.0.1, which is announced on standard output. */
static inline int listen_here(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, size) != 0 || listen(fd, 4096) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &size) != 0)
        die("cannot listen on 127.0.0.1");
    printf("port %d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

static inline int accept_one(int listener)
{
    int fd = accept(listener, NULL, NULL);
    if (fd < 0)
        die("accept");
    no_delay(fd);
    return fd;
}

static inline int connect_to(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        die("cannot connect to port %d", port);
    return fd;
}

/* One recv. 0: the peer has closed; a reset connection is a closed one. */
static inline size_t receive(int fd, void *buffer, size_t size)
{
    ssize_t got = recv(fd, buffer, size, 0);
    if (got < 0 && errno != ECONNRESET)
        die("recv");
    return got < 0 ? 0 : (size_t)got;
}

/* A whole message. False: the peer has closed. */
static inline bool receive_all(int fd, char *buffer, size_t size)
{
    for (size_t done = 0; done < size;) {
        size_t got = receive(fd, buffer + done, size - done);
        if (got == 0)
            return false;
        done += got;
    }
    return true;
}

static inline void send_all(int fd, const char *buffer, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t sent = send(fd, buffer + done, size - done, MSG_NOSIGNAL);
        if (sent < 0)
            die("send");
        done += (size_t)sent;
    }
}

/* Segments that the kernel has sent and received on this connection: what went by the kernel. Pure ACKs count. */
static inline uint64_t own_segments(int fd)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof(info);
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
        die("TCP_INFO");
    return (uint64_t)info.tcpi_segs_out + info.tcpi_segs_in;
}

/* Segments that the kernel has received in this network namespace: InSegs of /proc/net/snmp, a number after nine others. */
static inline uint64_t all_segments(void)
{
    char text[512];
    uint64_t value = 0;
    FILE *file = fopen("/proc/net/snmp", "re");
    if (!file)
        die("/proc/net/snmp");
    while (fgets(text, sizeof(text), file))
        if (sscanf(text, "Tcp: %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64, &value) == 1)
            break;
    fclose(file);
    return value;
}
