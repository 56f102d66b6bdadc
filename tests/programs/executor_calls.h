/*
 * What an executor does with sockets: each a verb whose numbers are in `arg`; it returns the call's result, and adds what else came back.
 */
#pragma once
#include "pairs.h"

#define TABLE 65521
#define LONGEST 400000
#define THERE 3      /* code of the other host's address, for processes on two hosts (tests/wire) */
#define MOST 40      /* numbers in a command, pieces of an iovec, descriptors of a wait */

static unsigned char table[TABLE], bytes[LONGEST];
static long arg[MOST];
static int args, slot;
static volatile sig_atomic_t pipes;
static char extra[4096];

static void on_sigpipe(int number)
{
    (void)number;
    pipes++;
}

static void fill_table(void)
{
    uint32_t x = 1;
    for (int i = 0; i < TABLE; i++) {
        x = x * 1664525u + 1013904223u;
        table[i] = (unsigned char)(x >> 24);
    }
}

/* n bytes of the endless repetition of the table, from there on */
static void copy_table(unsigned char *to, long from, long n)
{
    for (long at = from % TABLE; n > 0; at = 0) {
        long some = n < TABLE - at ? n : TABLE - at;
        memcpy(to, table + at, (size_t)some);
        to += some;
        n -= some;
    }
}

static uint32_t adler32(const unsigned char *p, long n)
{
    uint32_t a = 1, b = 0;
    while (n > 0) {
        long some = n < 5552 ? n : 5552;
        n -= some;
        while (some--) {
            a += *p++;
            b += a;
        }
        a %= 65521;
        b %= 65521;
    }
    return b << 16 | a;
}

static void add(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void add(const char *format, ...)
{
    va_list list;
    size_t there = strlen(extra);
    va_start(list, format);
    vsnprintf(extra + there, sizeof extra - there, format, list);
    va_end(list);
}

static socklen_t address(struct sockaddr_storage *to, long family, long code, long port)
{
    static const char *const four[] = {"0.0.0.0", "127.0.0.1", "127.0.0.2"}, *const six[] = {"::", "::1", "::ffff:127.0.0.1"};
    const char *text =
        code == THERE ? getenv(family == AF_INET6 ? "EXECUTOR_THERE6" : "EXECUTOR_THERE4") : (family == AF_INET6 ? six : four)[code];
    memset(to, 0, sizeof *to);
    to->ss_family = (sa_family_t)family;
    if (family == AF_INET6) {
        struct sockaddr_in6 *in = (struct sockaddr_in6 *)to;
        in->sin6_port = htons((uint16_t)port);
        inet_pton(AF_INET6, text, &in->sin6_addr);
        return sizeof *in;
    }
    struct sockaddr_in *in = (struct sockaddr_in *)to;
    in->sin_port = htons((uint16_t)port);
    inet_pton(AF_INET, text, &in->sin_addr);
    return sizeof *in;
}

/* " address port": of no family "- 0" */
static void add_address(const struct sockaddr_storage *from, socklen_t len)
{
    char text[INET6_ADDRSTRLEN] = "-";
    int port = 0;
    if (len && from->ss_family == AF_INET) {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)from)->sin_addr, text, sizeof text);
        port = ntohs(((const struct sockaddr_in *)from)->sin_port);
    } else if (len && from->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)from)->sin6_addr, text, sizeof text);
        port = ntohs(((const struct sockaddr_in6 *)from)->sin6_port);
    }
    add(" %s %d", text, port);
}

/* n bytes from `at` on, in so many pieces of about the same size */
static void pieces(struct iovec *iov, long count, unsigned char *at, long n)
{
    for (long i = 0; i < count; i++) {
        long some = i + 1 < count ? n / count : n - n / count * (count - 1);
        iov[i] = (struct iovec){at, (size_t)some};
        at += some;
    }
}

enum how { SEND, WRITE, WRITEV, SENDMSG, SENDTO };
enum { RECV, READ, READV, RECVMSG, RECVFROM };

static struct msghdr message(struct iovec *iov, long count, void *name, socklen_t len)
{
    return (struct msghdr){.msg_name = name, .msg_namelen = len, .msg_iov = iov, .msg_iovlen = (size_t)count};
}

/* fd how from n flags pieces family code port; from < 0: a bad pointer */
static long do_send(void)
{
    int fd = (int)arg[0], flags = (int)arg[4];
    long n = arg[3], count = arg[5];
    struct sockaddr_storage to;
    struct iovec iov[MOST];
    socklen_t len = arg[6] ? address(&to, arg[6], arg[7], arg[8]) : 0;
    unsigned char *data = arg[2] < 0 ? (unsigned char *)16 : bytes;
    if (arg[2] >= 0)
        copy_table(bytes, arg[2], n);
    pieces(iov, count, data, n);
    struct msghdr m = message(iov, count, len ? &to : NULL, len);
    switch (arg[1]) {
    case WRITE:
        return write(fd, data, (size_t)n);
    case WRITEV:
        return writev(fd, iov, (int)count);
    case SENDMSG:
        return sendmsg(fd, &m, flags);
    case SENDTO:
        return sendto(fd, data, (size_t)n, flags, len ? (struct sockaddr *)&to : NULL, len);
    default:
        return send(fd, data, (size_t)n, flags);
    }
}

/* all of it, in as many calls as it takes: fd from n */
static long do_send_all(void)
{
    long done = 0;
    copy_table(bytes, arg[1], arg[2]);
    while (done < arg[2]) {
        long r = send((int)arg[0], bytes + done, (size_t)(arg[2] - done), MSG_NOSIGNAL);
        if (r < 0)
            return r;
        done += r;
    }
    return done;
}

static long receive_once(int fd, int how, unsigned char *at, long n, int flags, long count, struct sockaddr_storage *from, struct msghdr *m)
{
    struct iovec iov[MOST];
    m->msg_flags = 0;
    m->msg_namelen = 0;
    pieces(iov, count, at, n);
    switch (how) {
    case READ:
        return read(fd, at, (size_t)n);
    case READV:
        return readv(fd, iov, (int)count);
    case RECVMSG:
        *m = message(iov, count, from, sizeof *from);
        return recvmsg(fd, m, flags);
    case RECVFROM:
        m->msg_namelen = sizeof *from;
        return recvfrom(fd, at, (size_t)n, flags, (struct sockaddr *)from, &m->msg_namelen);
    default:
        return recv(fd, at, (size_t)n, flags);
    }
}

/*
 * fd how n flags pieces wanted patient: n bytes in one call; where a stream's call ended earlier than `wanted`, again until that is there. Patient:
 * what is not there yet is waited for. n < 0: into a bad pointer. Answers checksum, calls, flags of the last message, its source.
 */
static long do_recv(void)
{
    int fd = (int)arg[0], flags = (int)arg[3], calls = 0;
    long n = arg[2] < 0 ? -arg[2] : arg[2], wanted = arg[5], done = 0, r;
    unsigned char *to = arg[2] < 0 ? (unsigned char *)16 : bytes;
    struct sockaddr_storage from = {0};
    struct msghdr m = {0};
    do {
        calls++;
        r = receive_once(fd, (int)arg[1], to + done, n - done, flags, arg[4], &from, &m);
        if (r < 0 && errno == EAGAIN && arg[6]) {
            struct pollfd p = {.fd = fd, .events = POLLIN};
            if (poll(&p, 1, 4000) > 0) {
                r = 1;
                continue;
            }
            errno = EAGAIN;
        }
        if (r > 0)
            done += r;
    } while (r > 0 && done < wanted);
    add(" %u %d %d", adler32(bytes, done > 0 ? (done < LONGEST ? done : LONGEST) : 0), calls, m.msg_flags & ~MSG_CMSG_CLOEXEC);
    add_address(&from, m.msg_namelen);
    return done > 0 ? done : r;
}

/* timeout fd events …: what poll says of each */
static long do_poll(void)
{
    struct pollfd p[MOST];
    int n = (args - 1) / 2;
    for (int i = 0; i < n; i++)
        p[i] = (struct pollfd){.fd = (int)arg[1 + 2 * i], .events = (short)arg[2 + 2 * i]};
    long r = poll(p, (nfds_t)n, (int)arg[0]);
    for (int i = 0; i < n; i++)
        add(" %d", r < 0 ? 0 : p[i].revents);
    return r;
}

/* timeout fd events …: the same by select, whose three sets are told as POLLIN, POLLOUT and POLLPRI */
static long do_select(void)
{
    fd_set sets[3];
    static const short bit[3] = {POLLIN, POLLOUT, POLLPRI};
    struct timeval time = {arg[0] / 1000, arg[0] % 1000 * 1000};
    int highest = -1;
    for (int s = 0; s < 3; s++)
        FD_ZERO(&sets[s]);
    for (int i = 1; i + 1 < args; i += 2) {
        highest = (int)arg[i] > highest ? (int)arg[i] : highest;
        for (int s = 0; s < 3; s++)
            if (arg[i + 1] & bit[s])
                FD_SET((int)arg[i], &sets[s]);
    }
    long r = select(highest + 1, &sets[0], &sets[1], &sets[2], arg[0] < 0 ? NULL : &time);
    for (int i = 1; i + 1 < args; i += 2) {
        int found = 0;
        for (int s = 0; s < 3; s++)
            if (r > 0 && FD_ISSET((int)arg[i], &sets[s]))
                found |= bit[s];
        add(" %d", found);
    }
    return r;
}

/* set room timeout: "data events" of each that is reported */
static long do_epoll_wait(void)
{
    struct epoll_event e[MOST];
    long r = epoll_wait((int)arg[0], e, (int)arg[1], (int)arg[2]);
    for (long i = 0; i < r; i++)
        add(" %llu %u", (unsigned long long)e[i].data.u64, e[i].events);
    return r;
}

static long do_epoll_ctl(void)
{
    struct epoll_event e = {.events = (uint32_t)arg[3], .data.u64 = (uint64_t)arg[4]};
    return epoll_ctl((int)arg[0], (int)arg[1], (int)arg[2], &e);
}

/* fd peer?: the address */
static long do_name(void)
{
    struct sockaddr_storage at;
    socklen_t len = sizeof at;
    long r = (arg[1] ? getpeername : getsockname)((int)arg[0], (struct sockaddr *)&at, &len);
    add_address(&at, r ? 0 : len);
    return r;
}

/* fd flags: the new descriptor, and who it is */
static long do_accept(void)
{
    struct sockaddr_storage from;
    socklen_t len = sizeof from;
    long r = arg[1] < 0 ? accept((int)arg[0], (struct sockaddr *)&from, &len)
                        : accept4((int)arg[0], (struct sockaddr *)&from, &len, (int)arg[1]);
    add_address(&from, r < 0 ? 0 : len);
    return r;
}

/* fd level name value …: an int, or with two numbers a struct linger, or with a third one a struct timeval */
static long do_set(void)
{
    int value[2] = {(int)arg[3], (int)arg[4]};
    struct timeval time = {arg[3], arg[4]};
    if (args == 6)
        return setsockopt((int)arg[0], (int)arg[1], (int)arg[2], &time, sizeof time);
    return setsockopt((int)arg[0], (int)arg[1], (int)arg[2], value, (socklen_t)(sizeof(int) * (size_t)(args - 3)));
}

static long do_get(void)
{
    unsigned char value[16] = {0};
    socklen_t len = sizeof value;
    long r = getsockopt((int)arg[0], (int)arg[1], (int)arg[2], value, &len);
    add(" ");
    for (socklen_t i = 0; r == 0 && i < len; i++)
        add("%02x", value[i]);
    return r;
}

static long do_connect(void)
{
    struct sockaddr_storage to;
    socklen_t len = address(&to, arg[1], arg[2], arg[3]);
    return connect((int)arg[0], (struct sockaddr *)&to, len);
}

static long do_bind(void)
{
    struct sockaddr_storage at;
    socklen_t len = address(&at, arg[1], arg[2], arg[3]);
    return bind((int)arg[0], (struct sockaddr *)&at, len);
}

static long do_flags(void)
{
    int flags = fcntl((int)arg[0], F_GETFL);
    return arg[1] < 0 ? flags : fcntl((int)arg[0], F_SETFL, arg[1] ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

static long do_unread(void)
{
    int n = 0;
    long r = ioctl((int)arg[0], FIONREAD, &n);
    add(" %d", n);
    return r;
}

/* until so many bytes are unread there, or some seconds are over */
static long do_settle(void)
{
    struct timespec pause = {.tv_nsec = 50000};
    int n = 0;
    for (int i = 0; i < 60000; i++, nanosleep(&pause, NULL))
        if (ioctl((int)arg[0], FIONREAD, &n) != 0 || n >= arg[1])
            break;
    return n;
}

static long do_socket(void)
{
    return socket((int)arg[0], (int)arg[1], (int)arg[2]);
}
static long do_listen(void)
{
    return listen((int)arg[0], (int)arg[1]);
}
static long do_shutdown(void)
{
    return shutdown((int)arg[0], (int)arg[1]);
}
static long do_close(void)
{
    return close((int)arg[0]);
}
static long do_dup(void)
{
    return args > 1 ? dup2((int)arg[0], (int)arg[1]) : dup((int)arg[0]);
}
static long do_epoll(void)
{
    return epoll_create1(0);
}
