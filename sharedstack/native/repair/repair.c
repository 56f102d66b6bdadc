#include "repair/repair.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "shm/sys.h"

/* linux/tcp.h has these as numbers in its text */
#define OPTION_MSS 2
#define OPTION_WINDOW 3
#define OPTION_SACK 4
#define OPTION_TIMESTAMP 8
#define ESTABLISHED 1
#define STAMP_AHEAD_NS 20000 /* more than a system call takes */
#define BUF_LOCK 72 /* SO_BUF_LOCK, Linux 5.14 */
#define USEC_FLAG 1u /* of TCP_TIMESTAMP: the connection's time stamps count microseconds */

union name {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_storage most;
};

static int put(int fd, int name, int value)
{
    return (int)shs_sys_setsockopt(fd, IPPROTO_TCP, name, &value, sizeof value);
}

static int get(int fd, int name, uint32_t *value)
{
    socklen_t len = sizeof *value;
    return (int)shs_sys_getsockopt(fd, IPPROTO_TCP, name, value, &len);
}

/* A buffer's bound, and whether the program set it (socket(7) SO_SNDBUF, SO_BUF_LOCK). */
struct bound {
    int force, value, locked;
};

/* What an engine's queue held goes into a buffer that may be smaller: its bound is raised meanwhile. */
static int raise_bound(int fd, int option, int force, uint32_t bytes, struct bound *was)
{
    socklen_t len = sizeof was->value;
    int r = (int)shs_sys_getsockopt(fd, SOL_SOCKET, option, &was->value, &len);
    r = r ? r : (int)shs_sys_getsockopt(fd, SOL_SOCKET, BUF_LOCK, &was->locked, &len);
    int most = was->value + (int)(4 * bytes);
    was->force = force;
    return r ? r : (int)shs_sys_setsockopt(fd, SOL_SOCKET, force, &most, sizeof most);
}

static void restore_bound(int fd, const struct bound *was)
{
    int half = was->value / 2; /* the kernel doubles it */
    (void)shs_sys_setsockopt(fd, SOL_SOCKET, was->force, &half, sizeof half);
    (void)shs_sys_setsockopt(fd, SOL_SOCKET, BUF_LOCK, &was->locked, sizeof was->locked);
}

int shs_repair_begin(int fd)
{
    int reuse = 0;
    socklen_t len = sizeof reuse;
    int r = (int)shs_sys_getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, &len);
    r = r ? r : put(fd, TCP_REPAIR, TCP_REPAIR_ON);
    return r ? r : reuse != 0;
}

long shs_repair_end(int fd, int reuse, const void *fresh, uint32_t n)
{
    int r = put(fd, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP);
    r = r ? r : (int)shs_sys_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse);
    struct iovec iov = {(void *)(uintptr_t)fresh, n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    struct bound was;
    if (r || !n || (r = raise_bound(fd, SO_SNDBUF, SO_SNDBUFFORCE, n, &was)) != 0)
        return r;
    long sent = shs_sys_sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    restore_bound(fd, &was);
    return sent >= 0 && sent < (long)n ? -ENOBUFS : sent;
}

static uint32_t clock_of(uint64_t now, bool usec)
{
    return (uint32_t)(now / (usec ? 1000 : 1000000));
}

static bool address(const union name *name, uint8_t to[16], uint16_t *port, uint32_t *family)
{
    bool four = name->any.sa_family == AF_INET;
    if (!four && name->any.sa_family != AF_INET6)
        return false;
    memset(to, 0, 10);
    to[10] = to[11] = 0xff;
    if (four)
        memcpy(to + 12, &name->in.sin_addr, 4);
    else
        memcpy(to, &name->in6.sin6_addr, 16);
    *port = ntohs(four ? name->in.sin_port : name->in6.sin6_port);
    *family = four || IN6_IS_ADDR_V4MAPPED(&name->in6.sin6_addr) ? 4 : 6;
    return true;
}

static int addresses(int fd, struct shs_tcp_image *i)
{
    union name name;
    socklen_t len = sizeof name;
    int r = (int)SHS_SYS(getsockname(fd, &name.any, &len));
    if (r == 0 && !address(&name, i->laddr, &i->lport, &i->family))
        r = -EAFNOSUPPORT;
    len = sizeof name;
    r = r ? r : (int)SHS_SYS(getpeername(fd, &name.any, &len));
    if (r == 0 && !address(&name, i->raddr, &i->rport, &i->family))
        r = -EAFNOSUPPORT;
    return r;
}

/* Nothing is queued, either way, and all that was sent is acknowledged. */
static int quiet(int fd)
{
    int out = 0, in = 0;
    int r = (int)shs_sys_ioctl(fd, SIOCOUTQ, &out);
    r = r ? r : (int)shs_sys_ioctl(fd, SIOCINQ, &in);
    return r ? r : out || in ? -EAGAIN : 0;
}

static int sequence(int fd, int queue, uint32_t *at)
{
    int r = put(fd, TCP_REPAIR_QUEUE, queue);
    return r ? r : get(fd, TCP_QUEUE_SEQ, at);
}

/* What keepalive and the user time-out are: the kernel's timers do not run for it any more. */
static int timers(int fd, struct shs_tcp_image *i)
{
    int on = 0;
    socklen_t len = sizeof on;
    uint32_t idle = 0, intvl = 0, count = 0;
    int r = (int)shs_sys_getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &len);
    r = r ? r : get(fd, TCP_KEEPIDLE, &idle);
    r = r ? r : get(fd, TCP_KEEPINTVL, &intvl);
    r = r ? r : get(fd, TCP_KEEPCNT, &count);
    r = r ? r : get(fd, TCP_USER_TIMEOUT, &i->user_timeout);
    i->keep_idle = on ? idle * 1000 : 0;
    i->keep_intvl = intvl * 1000;
    i->keep_count = count;
    return r;
}

int shs_repair_read(int fd, struct shs_tcp_image *i)
{
    struct tcp_info info = {0};
    struct tcp_repair_window window;
    socklen_t len = sizeof info;
    uint32_t stamp = 0, nodelay = 0, cork = 0;
    *i = (struct shs_tcp_image){.state = SHS_TCP_ESTABLISHED};
    int r = (int)shs_sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len);
    if (r == 0 && info.tcpi_state != ESTABLISHED)
        r = -ENOTCONN;
    r = r ? r : quiet(fd);
    r = r ? r : addresses(fd, i);
    r = r ? r : sequence(fd, TCP_SEND_QUEUE, &i->snd_una);
    r = r ? r : sequence(fd, TCP_RECV_QUEUE, &i->rcv_nxt);
    r = r ? r : put(fd, TCP_REPAIR_QUEUE, TCP_NO_QUEUE);
    len = sizeof window;
    r = r ? r : (int)shs_sys_getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, &len);
    r = r ? r : get(fd, TCP_TIMESTAMP, &stamp);
    uint64_t now = shs_now();
    r = r ? r : get(fd, TCP_MAXSEG, &i->mss); /* in repair: what the peer announced */
    r = r ? r : get(fd, TCP_NODELAY, &nodelay);
    r = r ? r : get(fd, TCP_CORK, &cork);
    r = r ? r : timers(fd, i);
    if (r)
        return r;
    i->snd_nxt = i->snd_una;
    i->flags = (info.tcpi_options & TCPI_OPT_SACK ? SHS_TF_SACK : 0u) | (info.tcpi_options & TCPI_OPT_TIMESTAMPS ? SHS_TF_TS : 0u) |
               (info.tcpi_options & TCPI_OPT_ECN ? SHS_TF_ECN : 0u) | (nodelay ? SHS_TF_NODELAY : 0u) | (cork ? SHS_TF_CORK : 0u);
    i->snd_wl1 = window.snd_wl1;
    i->snd_wnd = window.snd_wnd;
    i->max_wnd = window.max_window;
    i->rcv_wnd = window.rcv_wnd;
    i->rcv_wup = window.rcv_wup;
    i->snd_scale = info.tcpi_options & TCPI_OPT_WSCALE ? info.tcpi_snd_wscale : 0;
    i->rcv_scale = info.tcpi_options & TCPI_OPT_WSCALE ? info.tcpi_rcv_wscale : 0;
    i->mtu = info.tcpi_pmtu;
    i->ts_usec = stamp & USEC_FLAG;
    i->ts_off = (stamp | USEC_FLAG) - clock_of(now, i->ts_usec); /* the flag took the place of its lowest bit: rounded up */
    i->srtt_us = info.tcpi_rtt;
    return 0;
}

static socklen_t name_of(union name *to, int domain, const uint8_t from[16], uint16_t port)
{
    memset(to, 0, sizeof *to);
    if (domain == AF_INET) {
        to->in.sin_family = AF_INET;
        to->in.sin_port = htons(port);
        memcpy(&to->in.sin_addr, from + 12, 4);
        return sizeof to->in;
    }
    to->in6.sin6_family = AF_INET6;
    to->in6.sin6_port = htons(port);
    memcpy(&to->in6.sin6_addr, from, 16);
    return sizeof to->in6;
}

/* From the connection that the kernel remembers to none, silently, and to the one of the image. */
static int connect_again(int fd, const struct shs_tcp_image *i)
{
    int domain = 0;
    socklen_t len = sizeof domain;
    union name name = {.any = {.sa_family = AF_UNSPEC}};
    int r = (int)shs_sys_getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
    /* in repair it may be bound to a port that others have: unless some process has set SO_REUSEADDR since */
    r = r ? r : put(fd, TCP_REPAIR, TCP_REPAIR_ON);
    r = r ? r : (int)SHS_SYS(connect(fd, &name.any, sizeof name.any));
    r = r ? r : put(fd, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE);
    r = r ? r : put(fd, TCP_QUEUE_SEQ, (int)i->snd_una);
    r = r ? r : put(fd, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE);
    r = r ? r : put(fd, TCP_QUEUE_SEQ, (int)(i->rcv_nxt - i->rx_len));
    if (r)
        return r;
    len = name_of(&name, domain, i->laddr, i->lport);
    r = (int)SHS_SYS(bind(fd, &name.any, len));
    if (r == -EINVAL) /* it has a port still, which the program had asked for */
        r = 0;
    /* before the repair connect: the size of segments is decided there */
    r = r ? r : put(fd, TCP_MAXSEG, (int)i->mss);
    len = name_of(&name, domain, i->raddr, i->rport);
    return r ? r : (int)SHS_SYS(connect(fd, &name.any, len));
}

static int options(int fd, const struct shs_tcp_image *i)
{
    struct tcp_repair_opt all[4];
    unsigned n = 0;
    all[n++] = (struct tcp_repair_opt){OPTION_MSS, i->mss};
    if (i->snd_scale || i->rcv_scale)
        all[n++] = (struct tcp_repair_opt){OPTION_WINDOW, i->snd_scale | i->rcv_scale << 16};
    if (i->flags & SHS_TF_SACK)
        all[n++] = (struct tcp_repair_opt){OPTION_SACK, 0};
    if (i->flags & SHS_TF_TS)
        all[n++] = (struct tcp_repair_opt){OPTION_TIMESTAMP, 0};
    return (int)shs_sys_setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, all, (socklen_t)(n * sizeof *all));
}

/* Into a queue in repair: nothing is sent. */
static int fill(int fd, int queue, const void *bytes, uint32_t n)
{
    bool send = queue == TCP_SEND_QUEUE;
    struct bound was;
    if (!n)
        return put(fd, TCP_REPAIR_QUEUE, queue);
    int r = raise_bound(fd, send ? SO_SNDBUF : SO_RCVBUF, send ? SO_SNDBUFFORCE : SO_RCVBUFFORCE, n, &was);
    r = r ? r : put(fd, TCP_REPAIR_QUEUE, queue);
    for (uint32_t at = 0; r == 0 && at < n;) {
        struct iovec iov = {(uint8_t *)(uintptr_t)bytes + at, n - at};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        long sent = shs_sys_sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent <= 0)
            r = sent < 0 ? (int)sent : -ENOBUFS;
        else
            at += (uint32_t)sent;
    }
    restore_bound(fd, &was);
    return r;
}

/*
 * The clock of time stamps, so that it does not go back: the peer would drop what comes with an older one (RFC 7323 section 5). The kernel takes the
 * difference from its own clock a moment later than we ask.
 */
static int stamps(int fd, const struct shs_tcp_image *i)
{
    uint32_t clock = clock_of(shs_now() + STAMP_AHEAD_NS, i->ts_usec) + i->ts_off;
    return put(fd, TCP_TIMESTAMP, (int)(((clock + USEC_FLAG) & ~USEC_FLAG) | i->ts_usec));
}

long shs_repair_write(int fd, const struct shs_tcp_image *i, const void *unsent, uint32_t n_unsent, const void *unread, uint32_t n_unread)
{
    struct tcp_repair_window window = {
        .snd_wl1 = i->snd_wl1, .snd_wnd = i->snd_wnd, .max_window = i->max_wnd, .rcv_wnd = i->rcv_wnd, .rcv_wup = i->rcv_wup};
    if (i->rx_len != n_unread || i->fin || i->state != SHS_TCP_ESTABLISHED)
        return -EINVAL;
    uint32_t flight = i->snd_nxt - i->snd_una, n_sent = flight < n_unsent ? flight : n_unsent;
    int r = connect_again(fd, i);
    r = r ? r : options(fd, i);
    r = r ? r : put(fd, TCP_MAXSEG, 0); /* else it stays a bound that the program never set */
    if (r == 0 && i->flags & SHS_TF_TS)
        r = stamps(fd, i);
    r = r ? r : fill(fd, TCP_RECV_QUEUE, unread, n_unread);
    r = r ? r : fill(fd, TCP_SEND_QUEUE, unsent, n_sent);
    r = r ? r : put(fd, TCP_REPAIR_QUEUE, TCP_NO_QUEUE);
    r = r ? r : (int)shs_sys_setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, sizeof window);
    return r ? r : (long)n_sent;
}
