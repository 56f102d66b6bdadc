#include "wire/datagram.h"

#include "endpoint/dgram.h"
#include "engine/tcp.h"
#include "shm/probe.h"

static bool is_of(const struct shs_udp *u, const struct shs_endpoint *ep)
{
    return u->cookie == shs_load64(&ep->cookie) && shs_load32(&ep->state) == SHS_EP_LIVE;
}

/* Gather the program's pieces; false: a bad pointer. */
static bool copy(uint8_t *to, const struct iovec *iov, size_t count, size_t len)
{
    for (size_t i = 0; i < count && len; i++) {
        size_t n = iov[i].iov_len < len ? iov[i].iov_len : len;
        if (!shs_readable(iov[i].iov_base, n))
            return false;
        memcpy(to, iov[i].iov_base, n);
        to += n;
        len -= n;
    }
    return !len;
}

static long send_locked(const struct shs_wire_flow *flow, const struct iovec *iov, size_t count, size_t len)
{
    struct shs_engine *e = &flow->port->engine;
    struct shs_udp *u = shs_udp_of(e, flow->handle);
    if (!u || !is_of(u, flow->ep))
        return SHS_STALE;
    uint32_t ip = shs_ip_header(shs_is_four(u->raddr) ? 4 : 6);
    if (len + ip + SHS_UDP_HEADER > shs_nic_path_mtu(flow->port->nic.nic, u->raddr))
        return -EMSGSIZE;
    uint8_t *at = shs_udp_room(e, u->raddr, (uint32_t)len);
    if (!at)
        return -EAGAIN;
    if (!copy(at, iov, count, len))
        return -EFAULT;
    shs_udp_sent(e, u, at, u->laddr, u->raddr, u->rport, (uint32_t)len);
    return (long)len;
}

long shs_wire_send_datagram(const struct shs_wire_flow *flow, const struct iovec *iov, size_t count, size_t len)
{
    struct shs_wire_port *p = flow->port;
    if (len > UINT16_MAX)
        return -EMSGSIZE;
    if (!shs_wire_enter(p, flow->me))
        return -EAGAIN;
    long r = send_locked(flow, iov, count, len);
    if (r >= 0) {
        shs_set64(&flow->ep->tx_wire, shs_peek64(&flow->ep->tx_wire) + (uint64_t)r);
        shs_count(p->env, SHS_CTR_TX_WIRE_BYTES, (uint64_t)r);
        shs_count(p->env, SHS_CTR_TX_WIRE_DATAGRAMS, 1);
    }
    shs_wire_kick(p);
    shs_wire_leave(p);
    return r;
}

bool shs_wire_deliver(struct shs_engine *e, const struct shs_udp *u, const struct shs_packet *p, uint16_t sport)
{
    struct shs_wire_port *port = (struct shs_wire_port *)e;
    struct shs_endpoint *ep = shs_endpoint_at(port->env->stack, u->ep1);
    uint32_t bell;
    if (!ep || !is_of(u, ep))
        return false;
    bool good = shs_dgram_put(port->env, port->me, ep, u->cookie, p->src, sport, p->payload, p->len, &bell);
    if (bell)
        e->woken(e, bell);
    return good;
}
