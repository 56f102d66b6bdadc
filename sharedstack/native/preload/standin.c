#include "preload/standin.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>

#include "endpoint/anchor.h"
#include "endpoint/fds.h"
#include "endpoint/lift.h"
#include "intercepts.gen.h"
#include "preload/restart.h"
#include "shm/sys.h"

#define MOST (1u << 20) /* what two kernel sockets certainly take between them where nobody reads (tcp_wmem, tcp_rmem) */

/* What a program may have set that still means something on a connection that is over. */
static const int options[][2] = {
    {SOL_SOCKET, SO_KEEPALIVE},   {SOL_SOCKET, SO_LINGER},    {SOL_SOCKET, SO_RCVTIMEO},       {SOL_SOCKET, SO_SNDTIMEO},
    {SOL_SOCKET, SO_PRIORITY},    {SOL_SOCKET, SO_RCVLOWAT},  {IPPROTO_TCP, TCP_NODELAY},      {IPPROTO_TCP, TCP_KEEPIDLE},
    {IPPROTO_TCP, TCP_KEEPINTVL}, {IPPROTO_TCP, TCP_KEEPCNT}, {IPPROTO_TCP, TCP_USER_TIMEOUT},
};

/* Unread bytes, in the order of the stream. */
struct unread {
    uint8_t *bytes; /* mapped; NULL: none */
    size_t n;
};

/* Is the writer of what its ring holds gone, not only its sending direction shut? */
static bool writer_gone(const struct shs_end *end)
{
    const struct shs_direction *dir = shs_end_rx(end);
    const struct shs_endpoint *peer = shs_endpoint_at(shs_proc.env.stack, shs_end_peer(&shs_proc.env, end->ep));
    bool lives = peer && shs_load32(&peer->state) == SHS_EP_LIVE && peer->cookie == shs_load64(&dir->wcookie);
    return !(lives && (shs_load32(&peer->flags) & SHS_EPF_WRSHUT)) && !shs_anchor_peer_sends(end->fd);
}

/* All that can be received, which stays where it is. */
static struct unread look(const struct shs_who *who, struct shs_end *end)
{
    struct unread u = {NULL, 0};
    int queued = 0;
    size_t room = shs_end_pending(&shs_proc.env, who, end);
    if (!room || shs_sys_ioctl(end->fd, SIOCINQ, &queued) < 0 || (room += (size_t)queued) > MOST)
        return u;
    void *bytes = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED)
        return u;
    struct iovec iov = {bytes, room};
    struct shs_cursor cur;
    uint64_t looked = 0;
    struct shs_rx how = {.looked_ns = &looked};
    shs_cursor_init(&cur, &iov, 1);
    if (shs_end_recv(&shs_proc.env, who, end, &cur, MSG_PEEK | MSG_DONTWAIT, &how) == (long)room)
        return (struct unread){bytes, room};
    munmap(bytes, room);
    return u;
}

static int close_of(int fd, int r)
{
    if (fd >= 0)
        shs_sys_close(fd);
    return r;
}

/* A stream socket at the address, with any port. */
static int bound(const struct sockaddr_storage *at, socklen_t len)
{
    int fd = (int)SHS_SYS(syscall(SYS_socket, at->ss_family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP));
    int off = 0;
    if (fd >= 0 && at->ss_family == AF_INET6) /* a mapped address */
        shs_sys_setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    long r = fd < 0 ? fd : SHS_SYS(syscall(SYS_bind, fd, at, len));
    return r < 0 ? close_of(fd, (int)r) : fd;
}

/* The address of one end of fd's connection, without its port: its length. */
static socklen_t address_of(int fd, bool peer, struct sockaddr_storage *at)
{
    socklen_t len = sizeof *at;
    long r = SHS_SYS(syscall(peer ? SYS_getpeername : SYS_getsockname, fd, at, &len));
    if (r < 0)
        return 0;
    if (at->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)at)->sin6_port = 0;
    else
        ((struct sockaddr_in *)at)->sin_port = 0;
    return len;
}

static bool same_end(int fd, bool peer, int other)
{
    struct sockaddr_storage a, b;
    socklen_t a_len = sizeof a, b_len = sizeof b;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    return SHS_SYS(syscall(peer ? SYS_getpeername : SYS_getsockname, fd, &a, &a_len)) == 0 &&
           SHS_SYS(syscall(SYS_getsockname, other, &b, &b_len)) == 0 && memcmp(&a, &b, sizeof a) == 0;
}

/* Two sockets that are connected, at the addresses of fd's connection: pair[0] at its own. 0 or -errno. */
static int connected_as(int fd, int pair[2])
{
    struct sockaddr_storage own, peer, listening;
    socklen_t own_len = address_of(fd, false, &own), peer_len = address_of(fd, true, &peer), len = sizeof listening;
    if (!own_len)
        return -EINVAL;
    int listener = bound(&own, own_len);
    pair[0] = pair[1] = -1;
    /* an address that is not this host's, or is not told since the connection was reset: the own one */
    if (listener >= 0 && (!peer_len || (pair[1] = bound(&peer, peer_len)) < 0))
        pair[1] = bound(&own, own_len);
    long r = listener < 0 ? listener : pair[1] < 0 ? pair[1] : SHS_SYS(syscall(SYS_listen, listener, 1));
    if (r == 0)
        r = SHS_SYS(syscall(SYS_getsockname, listener, &listening, &len));
    if (r == 0)
        r = SHS_SYS(syscall(SYS_connect, pair[1], &listening, len));
    if (r == 0)
        r = pair[0] = (int)SHS_SYS(syscall(SYS_accept4, listener, NULL, NULL, SOCK_CLOEXEC));
    if (r >= 0 && !same_end(pair[0], true, pair[1])) /* somebody else was faster */
        r = close_of(pair[0], -ECONNREFUSED);
    if (r < 0)
        close_of(pair[1], 0);
    return close_of(listener, r < 0 ? (int)r : 0);
}

static void copy_options(const struct shs_endpoint *ep, int from, int to)
{
    const uint32_t sizes[2] = {ep->sndbuf, ep->rcvbuf};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        uint8_t value[32];
        socklen_t len = sizeof value;
        if (shs_sys_getsockopt(from, options[i][0], options[i][1], value, &len) == 0)
            shs_sys_setsockopt(to, options[i][0], options[i][1], value, len);
    }
    for (int i = 0; i < 2; i++)
        if (sizes[i])
            shs_sys_setsockopt(to, SOL_SOCKET, i ? SO_RCVBUF : SO_SNDBUF, &sizes[i], sizeof sizes[i]);
    shs_sys_fcntl(to, F_SETFL, shs_sys_fcntl(from, F_GETFL, 0));
}

/* A socket that has what `end` has not received, and then ends as that connection did: a descriptor, or -errno. */
static int make(const struct shs_who *who, struct shs_end *end)
{
    struct tcp_info info;
    socklen_t len = sizeof info;
    int pair[2], unsent = 0, r;
    if (shs_sys_getsockopt(end->fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        return -EINVAL;
    struct unread u = look(who, end);
    if (!u.bytes)
        return -ENOBUFS;
    r = connected_as(end->fd, pair);
    if (r == 0) {
        struct iovec iov = {u.bytes, u.n};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        if (shs_sys_sendmsg(pair[1], &msg, MSG_DONTWAIT | MSG_NOSIGNAL) != (long)u.n)
            r = close_of(pair[0], -ENOBUFS);
        else
            copy_options(end->ep, end->fd, pair[0]);
        /* what it has not taken yet a reset would drop */
        struct linger now = {1, 0};
        if (r == 0 && info.tcpi_state == TCP_CLOSE && shs_sys_ioctl(pair[1], SIOCOUTQ, &unsent) == 0 && !unsent)
            shs_sys_setsockopt(pair[1], SOL_SOCKET, SO_LINGER, &now, sizeof now);
        close_of(pair[1], 0);
    }
    munmap(u.bytes, u.n);
    return r < 0 ? r : pair[0];
}

void shs_stand_in_put(int by, int fd)
{
    long flags = shs_sys_fcntl(fd, F_GETFD, 0);
    SHS_SYS(syscall(SYS_dup3, by, fd, flags > 0 && flags & FD_CLOEXEC ? O_CLOEXEC : 0));
}

/* Put `by` in the place of a number; in a set that had it too. */
static void replace(struct shs_fd *f, int fd, int by)
{
    uint32_t set = f->set;
    struct epoll_event event = {.events = f->events, .data.u64 = f->data};
    shs_fd_closing(fd);
    shs_stand_in_put(by, fd);
    f->why = SHS_REASON_OUTSIDE_HOLDER;
    __atomic_store_n(&f->state, SHS_FD_KERNEL, __ATOMIC_RELEASE);
    if (set)
        (void)shs_i_epoll_ctl((int)set - 1, EPOLL_CTL_ADD, fd, &event);
}

/* A stand-in, if one is needed and can be made: a descriptor, or -errno. */
static int stand_in_of(struct shs_end *end)
{
    const struct shs_who *who = shs_proc.quiet || !shs_end_waiting(end) ? NULL : shs_who();
    if (!who || !writer_gone(end))
        return -EPIPE;
    int by = make(who, end);
    if (by < 0)
        shs_log("its unread bytes stay in its ring", end->fd, SHS_REASON_OUTSIDE_HOLDER);
    return by;
}

bool shs_stand_in(struct shs_fd *f, int fd, bool leaves)
{
    if (!f || f->state != SHS_FD_PAIRED || f->udp || (!leaves && (shs_load32(&f->end.ep->flags) & SHS_EPF_SHARED)))
        return false;
    uint32_t ep1 = f->ep1;
    struct shs_end end = f->end;
    end.fd = fd;
    int by = stand_in_of(&end);
    if (by < 0)
        return false;
    for (int other = 0; (f = shs_fd_next(&other)); other++)
        if (f->state == SHS_FD_PAIRED && !f->udp && f->ep1 == ep1)
            replace(f, other, by);
    shs_sys_close(by);
    return true;
}

bool shs_stand_in_alone(struct shs_end *end)
{
    int by = stand_in_of(end);
    if (by < 0)
        return false;
    struct shs_fd *f = shs_self.vfork ? NULL : shs_fd_look(end->fd);
    if (f && f->state == SHS_FD_PAIRED) /* its program may not come to be executed */
        replace(f, end->fd, by);
    else
        shs_stand_in_put(by, end->fd);
    shs_sys_close(by);
    return true;
}
