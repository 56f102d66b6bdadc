#include "endpoint/anchor.h"

#include <arpa/inet.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>

#include "shm/sys.h"

/* States of netinet/tcp.h, which cannot be included beside linux/tcp.h. */
enum {
    STATE_ESTABLISHED = 1,
    STATE_FIN_WAIT1 = 4,
    STATE_FIN_WAIT2 = 5,
    STATE_TIME_WAIT = 6,
    STATE_CLOSE = 7,
    STATE_CLOSE_WAIT = 8,
    STATE_LAST_ACK = 9,
    STATE_CLOSING = 11
};

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

static int get_info(int fd, struct tcp_info *info)
{
    socklen_t len = sizeof *info;
    memset(info, 0, sizeof *info);
    return (int)shs_sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &len);
}

bool shs_take_address(const struct sockaddr_storage *sa, uint8_t addr[16], uint16_t *port)
{
    if (sa->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
        memset(addr, 0, 10);
        addr[10] = addr[11] = 0xff;
        memcpy(addr + 12, &in->sin_addr, 4);
        *port = ntohs(in->sin_port);
        return true;
    }
    if (sa->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)sa;
        memcpy(addr, &in6->sin6_addr, 16);
        *port = ntohs(in6->sin6_port);
        return true;
    }
    return false;
}

bool shs_is_own_host(const struct shs_flow *flow)
{
    static const uint8_t six[16] = {[15] = 1};
    return !memcmp(flow->laddr, flow->raddr, 16) || !memcmp(flow->raddr, six, 16) || (shs_is_four(flow->raddr) && flow->raddr[12] == 127);
}

/* SO_BUF_LOCK (Linux 5.14): the program set SO_SNDBUF (1) or SO_RCVBUF (2), on this socket or on the listener that it came from. */
#define BUF_LOCK 72

uint32_t shs_anchor_buffer(int fd, int option)
{
    int locked = 0, value = 0;
    socklen_t len = sizeof locked;
    if (shs_sys_getsockopt(fd, SOL_SOCKET, BUF_LOCK, &locked, &len) != 0 || !(locked & (option == SO_SNDBUF ? 1 : 2)))
        return 0;
    len = sizeof value;
    return shs_sys_getsockopt(fd, SOL_SOCKET, option, &value, &len) == 0 ? (uint32_t)value / 2 : 0;
}

/* Which socket it is, and whether it belongs here. */
static int belongs(struct shs_env *env, int fd, struct shs_anchor *anchor)
{
    uint64_t netns = 0;
    socklen_t len = sizeof netns;
    if (shs_sys_getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &netns, &len) == 0 && netns != env->stack->netns)
        return SHS_REASON_OTHER_NETNS;
    len = sizeof anchor->cookie;
    if (shs_sys_getsockopt(fd, SOL_SOCKET, SO_COOKIE, &anchor->cookie, &len) != 0)
        return SHS_REASON_NOT_INET;
    return 0;
}

/* The same, and what a record says of it. */
static int identity(struct shs_env *env, int fd, struct shs_anchor *anchor)
{
    struct shs_stat st;
    int why = belongs(env, fd, anchor);
    if (why)
        return why;
    if (shs_sys_stat(fd, "", &st) != 0)
        return SHS_REASON_NOT_INET;
    anchor->inode = st.ino;
    anchor->sndbuf = shs_anchor_buffer(fd, SO_SNDBUF);
    anchor->rcvbuf = shs_anchor_buffer(fd, SO_RCVBUF);
    return 0;
}

static int take_flow(int fd, struct shs_anchor *anchor)
{
    struct sockaddr_storage here = {0}, there = {0};
    socklen_t here_len = sizeof here, there_len = sizeof there;
    if (SHS_SYS(getsockname(fd, (struct sockaddr *)&here, &here_len)) != 0 ||
        SHS_SYS(getpeername(fd, (struct sockaddr *)&there, &there_len)) != 0)
        return SHS_REASON_NOT_ESTABLISHED;
    memset(&anchor->flow, 0, sizeof anchor->flow);
    if (!shs_take_address(&here, anchor->flow.laddr, &anchor->flow.lport) ||
        !shs_take_address(&there, anchor->flow.raddr, &anchor->flow.rport))
        return SHS_REASON_NOT_INET;
    /* a v4-mapped IPv6 socket speaks IPv4: it has to meet the AF_INET socket at its other end */
    anchor->flow.family = shs_is_four(anchor->flow.laddr) ? AF_INET : AF_INET6;
    return 0;
}

int shs_anchor_identify(struct shs_env *env, int fd, struct shs_anchor *anchor)
{
    struct tcp_info info;
    if (get_info(fd, &info) != 0)
        return SHS_REASON_NOT_INET;
    if (info.tcpi_state != STATE_ESTABLISHED)
        return SHS_REASON_NOT_ESTABLISHED;
    int why = identity(env, fd, anchor);
    return why ? why : take_flow(fd, anchor);
}

int shs_anchor_recognise(struct shs_env *env, int fd, struct shs_anchor *anchor)
{
    int why = belongs(env, fd, anchor);
    return why ? why : take_flow(fd, anchor);
}

int shs_anchor_datagram(struct shs_env *env, int fd, struct shs_anchor *anchor)
{
    int why = identity(env, fd, anchor);
    struct sockaddr_storage here = {0}, there = {0};
    socklen_t here_len = sizeof here, there_len = sizeof there;
    memset(&anchor->flow, 0, sizeof anchor->flow);
    if (why)
        return why;
    if (SHS_SYS(getsockname(fd, (struct sockaddr *)&here, &here_len)) != 0 ||
        !shs_take_address(&here, anchor->flow.laddr, &anchor->flow.lport))
        return SHS_REASON_NOT_INET;
    if (SHS_SYS(getpeername(fd, (struct sockaddr *)&there, &there_len)) == 0)
        shs_take_address(&there, anchor->flow.raddr, &anchor->flow.rport);
    anchor->flow.family = (uint16_t)((shs_is_four(anchor->flow.laddr) ? AF_INET : AF_INET6) + SHS_FAMILY_DATAGRAM);
    return anchor->flow.lport ? 0 : SHS_REASON_NOT_ESTABLISHED;
}

/*
 * Two independent sums must agree. TCP_INFO alone is consistent (taken under the socket's lock) but SYN-free only by way of
 * bytes_sent; bytes_acked + OUTQ counts the active opener's SYN. Loopback loses nothing, so they differ by 0 or 1.
 */
int shs_anchor_sent(int fd, uint64_t *sent)
{
    for (int i = 0; i < 8; i++) {
        struct tcp_info a, b;
        int queued = 0;
        if (get_info(fd, &a) != 0 || shs_sys_ioctl(fd, SIOCOUTQ, &queued) != 0 || get_info(fd, &b) != 0)
            return -EAGAIN;
        if (a.tcpi_bytes_acked != b.tcpi_bytes_acked || a.tcpi_notsent_bytes != b.tcpi_notsent_bytes ||
            a.tcpi_bytes_sent != b.tcpi_bytes_sent)
            continue;
        uint64_t by_sent = b.tcpi_bytes_sent - b.tcpi_bytes_retrans + b.tcpi_notsent_bytes;
        uint64_t by_acked = b.tcpi_bytes_acked + (uint64_t)queued;
        if (by_acked - by_sent > 1)
            continue;
        *sent = by_sent;
        return 0;
    }
    return -EAGAIN;
}

uint64_t shs_anchor_moved(int fd)
{
    struct tcp_info info;
    return get_info(fd, &info) == 0 ? info.tcpi_bytes_acked + info.tcpi_bytes_received : 0;
}

bool shs_anchor_peer_sends(int fd)
{
    struct tcp_info info;
    return get_info(fd, &info) == 0 &&
           (info.tcpi_state == STATE_ESTABLISHED || info.tcpi_state == STATE_FIN_WAIT1 || info.tcpi_state == STATE_FIN_WAIT2);
}

int shs_anchor_taken(int fd, uint64_t *taken)
{
    for (int i = 0; i < 8; i++) {
        struct tcp_info a, b;
        int unread = 0;
        if (get_info(fd, &a) != 0 || shs_sys_ioctl(fd, SIOCINQ, &unread) != 0 || get_info(fd, &b) != 0)
            return -EAGAIN;
        if (a.tcpi_bytes_received != b.tcpi_bytes_received)
            continue;
        /* an arrived FIN is counted as received, and not as unread; after a reset nothing is certain */
        if (b.tcpi_state == STATE_CLOSE)
            return -EAGAIN;
        bool fin = b.tcpi_state == STATE_CLOSE_WAIT || b.tcpi_state == STATE_LAST_ACK || b.tcpi_state == STATE_CLOSING ||
                   b.tcpi_state == STATE_TIME_WAIT;
        *taken = b.tcpi_bytes_received - (uint64_t)unread - fin;
        return 0;
    }
    return -EAGAIN;
}
