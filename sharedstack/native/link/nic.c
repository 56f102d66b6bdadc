/*
 * Frames that are sent are used in the order of the ring: frame number k of the ring is frame k of the memory, modulo their number. It is free when so
 * many have been completed that the kernel cannot have it; which ones does not matter, because a driver copies a frame or completes them in
 * order. So nothing has to be kept but the kernel's own positions.
 *
 * A packet that is larger than a frame takes several, one after the other in the ring and in memory. Behind the last frame to send from there are SHS_NIC_PIECES more: one
 * that begins with the last frame goes on there, instead of in the first ones, and they are free again when its places in the ring are.
 */
#include "link/nic.h"

#include <arpa/inet.h>
#include <linux/if_xdp.h>
#include <sys/socket.h>

#include "shm/sys.h"

#define ETHERNET 14
#define MOST_PARTS 64 /* frames of a packet that are looked at together: more than there are of any that makes sense */
#define TYPE_IPV4 0x0800
#define TYPE_IPV6 0x86dd
#ifndef XDP_PKT_CONTD
#define XDP_PKT_CONTD 1 /* the packet goes on with the next descriptor */
#endif

static uint8_t *frame(const struct shs_nic_port *p, uint32_t queue, uint64_t addr)
{
    return p->memory + queue * shs_xsk_frames(p->n_frames) * p->frame_bytes + addr;
}

static uint32_t frames_for(const struct shs_nic_port *p, uint32_t len)
{
    return (ETHERNET + len + p->frame_bytes - 1) / p->frame_bytes;
}

/* Where packets for this destination go; NULL: not known. */
static const struct shs_hop *hop_to(const struct shs_nic *nic, const uint8_t to[16])
{
    uint32_t at = (uint32_t)(to[15] + to[14] * 31 + to[13] * 7) % SHS_N_HOPS;
    for (uint32_t i = 0; i < SHS_N_HOPS; i++) {
        const struct shs_hop *hop = &nic->hops[(at + i) % SHS_N_HOPS];
        uint32_t state = shs_load32(&hop->state);
        if (state == SHS_HOP_FREE)
            return NULL;
        if (!memcmp(hop->addr, to, sizeof hop->addr))
            return state == SHS_HOP_KNOWN ? hop : NULL;
    }
    return NULL;
}

static const struct shs_hop *hop_for(const struct shs_nic *nic, const uint8_t *packet)
{
    uint8_t to[16] = {[10] = 0xff, [11] = 0xff};
    bool six = packet[0] >> 4 == 6;
    memcpy(six ? to : to + 12, packet + (six ? 24 : 16), six ? 16 : 4);
    return hop_to(nic, to);
}

uint32_t shs_nic_path_mtu(const struct shs_nic *nic, const uint8_t to[16])
{
    const struct shs_hop *hop = hop_to(nic, to);
    return hop ? shs_min32(shs_load32(&hop->mtu), shs_load32(&nic->mtu)) : shs_load32(&nic->mtu);
}

/* What the kernel has sent is counted, and forgotten. */
static uint32_t reap(struct shs_xsk_ring *done)
{
    uint32_t n = __atomic_load_n(done->producer, __ATOMIC_ACQUIRE);
    __atomic_store_n(done->consumer, n, __ATOMIC_RELEASE);
    return n;
}

static uint8_t *room(void *dev, uint32_t len)
{
    struct shs_nic_port *p = dev;
    struct shs_xsk *x = &p->xsk[p->out];
    uint32_t at = *x->tx.producer, need = frames_for(p, len);
    if (need > p->n_pieces)
        return NULL;
    if (at + need - reap(&x->done) > p->n_frames) {
        shs_nic_flush(p);
        if (at + need - reap(&x->done) > p->n_frames) {
            p->nic->queue[p->out].tx_full++;
            return NULL;
        }
    }
    return frame(p, p->out, (uint64_t)(at & x->tx.mask) * p->frame_bytes) + ETHERNET;
}

static void send_packet(void *dev, uint32_t len)
{
    struct shs_nic_port *p = dev;
    struct shs_nic *nic = p->nic;
    struct shs_xsk *x = &p->xsk[p->out];
    uint32_t at = *x->tx.producer;
    uint64_t addr = (uint64_t)(at & x->tx.mask) * p->frame_bytes;
    uint8_t *bytes = frame(p, p->out, addr);
    const struct shs_hop *hop = hop_for(nic, bytes + ETHERNET);
    if (!hop) {
        nic->queue[p->out].tx_lost++;
        return;
    }
    uint16_t type = htons(bytes[ETHERNET] >> 4 == 6 ? TYPE_IPV6 : TYPE_IPV4);
    memcpy(bytes, hop->mac, 6);
    memcpy(bytes + 6, nic->mac, 6);
    memcpy(bytes + 12, &type, 2);
    uint32_t n = frames_for(p, len), left = ETHERNET + len;
    for (uint32_t i = 0; i < n; i++, left -= p->frame_bytes)
        ((struct xdp_desc *)x->tx.slots)[(at + i) & x->tx.mask] = (struct xdp_desc){.addr = addr + (uint64_t)i * p->frame_bytes,
                                                                                    .len = i + 1 < n ? p->frame_bytes : left,
                                                                                    .options = i + 1 < n ? XDP_PKT_CONTD : 0};
    __atomic_store_n(x->tx.producer, at + n, __ATOMIC_RELEASE);
    nic->queue[p->out].tx++;
}

void shs_nic_flush(struct shs_nic_port *p)
{
    for (uint32_t q = 0; q < p->n_queues; q++) {
        struct shs_xsk *x = &p->xsk[q];
        reap(&x->done);
        uint32_t sent = ~*x->tx.consumer;
        /* a driver that copies takes some 32 frames a call; where it takes none its queue is full, and the next flush goes on */
        while (shs_xsk_used(&x->tx) && shs_xsk_needs_wakeup(&x->tx) && sent != __atomic_load_n(x->tx.consumer, __ATOMIC_ACQUIRE)) {
            sent = __atomic_load_n(x->tx.consumer, __ATOMIC_ACQUIRE);
            p->nic->queue[q].kicks++;
            (void)SHS_SYS(sendto(x->fd, NULL, 0, MSG_DONTWAIT, NULL, 0));
        }
    }
}

/* The frame goes back to the kernel; `recycled` says so to whoever goes on if we die. */
static void recycle(struct shs_nic_port *p, uint32_t queue, uint64_t addr)
{
    struct shs_xsk *x = &p->xsk[queue];
    struct shs_nic_queue *n = &p->nic->queue[queue];
    uint32_t at = *x->fill.producer;
    shs_store64(&n->recycled, addr + 1);
    __atomic_store_n(x->rx.consumer, *x->rx.consumer + 1, __ATOMIC_RELEASE);
    ((uint64_t *)x->fill.slots)[at & x->fill.mask] = addr;
    __atomic_store_n(x->fill.producer, at + 1, __ATOMIC_RELEASE);
    shs_store64(&n->recycled, 0);
}

/* What comes next in the receive ring, and where its frame begins: inside of what the queue has, whatever the ring says. */
static const struct xdp_desc *next_of(const struct shs_xsk *x, uint32_t ahead)
{
    return &((const struct xdp_desc *)x->rx.slots)[(*x->rx.consumer + ahead) & x->rx.mask];
}

static uint64_t begin_of(const struct shs_nic_port *p, const struct xdp_desc *d)
{
    return d->addr / p->frame_bytes % shs_xsk_frames(p->n_frames) * p->frame_bytes;
}

static void finish_recycling(struct shs_nic_port *p, uint32_t queue)
{
    struct shs_xsk *x = &p->xsk[queue];
    struct shs_nic_queue *n = &p->nic->queue[queue];
    uint64_t addr = shs_load64(&n->recycled);
    uint32_t at = *x->fill.producer, head = *x->rx.consumer;
    if (!addr)
        return;
    addr--;
    const struct xdp_desc *next = &((struct xdp_desc *)x->rx.slots)[head & x->rx.mask];
    bool taken = !(shs_xsk_used(&x->rx) && next->addr / p->frame_bytes == addr / p->frame_bytes);
    if (taken && ((uint64_t *)x->fill.slots)[(at - 1) & x->fill.mask] != addr) {
        ((uint64_t *)x->fill.slots)[at & x->fill.mask] = addr;
        __atomic_store_n(x->fill.producer, at + 1, __ATOMIC_RELEASE);
    }
    shs_store64(&n->recycled, 0);
}

/* Frames up to `until` are of a packet that was on its way out of the ring. */
static void finish_packet(struct shs_nic_port *p, uint32_t queue)
{
    struct shs_xsk *x = &p->xsk[queue];
    uint32_t left = shs_load32(&p->nic->queue[queue].until) - *x->rx.consumer;
    for (left = left <= MOST_PARTS ? left : 0; left && shs_xsk_used(&x->rx); left--)
        recycle(p, queue, begin_of(p, next_of(x, 0)));
}

void shs_nic_repair(struct shs_nic_port *p)
{
    for (uint32_t q = 0; q < p->n_queues; q++) {
        finish_recycling(p, q);
        finish_packet(p, q);
    }
}

/* A checksum of the pseudo-header alone becomes a whole one: when the packet comes to the kernel again, nobody says that it may be so. */
static void complete(uint8_t *packet, uint32_t len)
{
    struct shs_packet p;
    struct shs_segment s;
    uint16_t from, to;
    if (shs_ip_parse(packet, len, &p) != SHS_PARSED)
        return;
    bool tcp = p.proto == SHS_PROTO_TCP;
    if ((tcp ? shs_tcp_parse(&p, true, &s) : shs_udp_parse(&p, true, &from, &to)) != SHS_PARSED || !p.partial)
        return;
    uint8_t *at = packet + (p.payload - packet) + (tcp ? 16 : 6);
    shs_put16(at, 0);
    uint16_t sum = (uint16_t)~shs_sum_fold(shs_sum(p.payload, p.len, shs_sum_pseudo(&p, p.len)));
    shs_put16(at, sum || tcp ? sum : 0xffff);
}

/* The bytes of a frame; NULL: it does not lie in the queue's memory. */
static uint8_t *bytes_of(const struct shs_nic_port *p, uint32_t queue, const struct xdp_desc *d)
{
    uint64_t top = shs_xsk_frames(p->n_frames) * p->frame_bytes;
    return d->addr >= top || d->len > top - d->addr ? NULL : frame(p, queue, d->addr);
}

/* A packet is the engine's; false: it makes no sense. */
static bool input(struct shs_nic_port *p, struct shs_engine *e, uint8_t *bytes, uint32_t len)
{
    if (!bytes || len <= ETHERNET)
        return false;
    uint16_t type = (uint16_t)(bytes[12] << 8 | bytes[13]);
    if (type != TYPE_IPV4 && type != TYPE_IPV6)
        return false;
    uint64_t strays = e->w->counters[SHS_WCTR_IN_NO_FLOW];
    shs_engine_input(e, bytes + ETHERNET, len - ETHERNET);
    if (SHS_LIKELY(e->w->counters[SHS_WCTR_IN_NO_FLOW] == strays) || !p->stray)
        return true;
    if (p->device.is_virtual)
        complete(bytes + ETHERNET, len - ETHERNET);
    p->stray(p->stray_arg, bytes, len);
    return true;
}

/* How many frames the next packet has, of `used` that have come; 0: its end is not there. */
static uint32_t extent(const struct shs_xsk *x, uint32_t used)
{
    for (uint32_t i = 0; i < used && i < MOST_PARTS; i++)
        if (SHS_LIKELY(!(next_of(x, i)->options & XDP_PKT_CONTD)))
            return i + 1;
    return used < MOST_PARTS ? 0 : MOST_PARTS;
}

/* A packet of n frames, put together; 0: it makes no sense. */
static uint32_t gather(struct shs_nic_port *p, uint32_t queue, uint32_t n)
{
    uint32_t len = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct xdp_desc *d = next_of(&p->xsk[queue], i);
        const uint8_t *bytes = bytes_of(p, queue, d);
        if (!bytes || d->len > sizeof p->whole - len)
            return 0;
        memcpy(p->whole + len, bytes, d->len);
        len += d->len;
    }
    return len;
}

/* The next packet, of n frames, which go back to the kernel. */
static void take(struct shs_nic_port *p, struct shs_engine *e, uint32_t queue, uint32_t n)
{
    struct shs_xsk *x = &p->xsk[queue];
    struct shs_nic_queue *counted = &p->nic->queue[queue];
    struct xdp_desc d = *next_of(x, 0);
    bool good = SHS_LIKELY(n == 1) ? input(p, e, bytes_of(p, queue, &d), d.len) : input(p, e, p->whole, gather(p, queue, n));
    counted->rx++;
    counted->rx_bad += !good;
    if (SHS_UNLIKELY(n > 1))
        shs_store32(&counted->until, *x->rx.consumer + n);
    for (uint32_t i = 0; i < n; i++)
        recycle(p, queue, begin_of(p, next_of(x, 0)));
}

uint32_t shs_nic_receive(struct shs_nic_port *p, struct shs_engine *e, uint32_t budget)
{
    uint32_t total = 0;
    for (uint32_t q = 0; q < p->n_queues; q++) {
        struct shs_xsk *x = &p->xsk[q];
        uint32_t used = shs_xsk_used(&x->rx), n;
        if (SHS_UNLIKELY(p->busy && !used)) {
            (void)SHS_SYS(recvfrom(x->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL));
            used = shs_xsk_used(&x->rx);
        }
        for (; total < budget && used && (n = extent(x, used)); used -= n, total++) {
            p->out = q; /* what answers a packet goes out where it came in */
            take(p, e, q, n);
        }
        if (shs_xsk_needs_wakeup(&x->fill))
            (void)SHS_SYS(recvfrom(x->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL));
    }
    return total;
}

int shs_nic_attach(struct shs_nic_port *p, struct shs_nic *nic, void *memory, uint64_t bytes, const int *fds)
{
    uint32_t flags = nic->flags;
    *p = (struct shs_nic_port){.nic = nic,
                               .memory = memory,
                               .n_queues = nic->n_queues,
                               .n_frames = nic->n_frames,
                               .frame_bytes = nic->frame_bytes,
                               .n_pieces = flags & SHS_NIC_PARTS ? SHS_NIC_PIECES : 1,
                               .busy = flags & SHS_NIC_BUSY_POLL};
    if (nic->magic != SHS_NIC_MAGIC || !p->n_queues || p->n_queues > SHS_N_NIC_QUEUES || !p->n_frames || p->n_frames & (p->n_frames - 1) ||
        p->n_frames > 1u << 16 || (p->frame_bytes != 2048 && p->frame_bytes != 4096) ||
        shs_nic_memory(p->n_queues, p->n_frames, p->frame_bytes) > bytes)
        return -EINVAL;
    p->device = (struct shs_device){.room = room, .send = send_packet, .dev = p, .is_virtual = flags & SHS_NIC_VIRTUAL};
    for (uint32_t q = 0; q < p->n_queues; q++) {
        int r = shs_xsk_attach(&p->xsk[q], fds[q], p->n_frames);
        if (r < 0) {
            shs_nic_detach(p);
            return r;
        }
    }
    return 0;
}

void shs_nic_detach(struct shs_nic_port *p)
{
    for (uint32_t q = 0; q < p->n_queues; q++)
        shs_xsk_detach(&p->xsk[q]);
    p->n_queues = 0;
}
