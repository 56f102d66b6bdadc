/*
 * Datagrams (RFC 768). A record is of a socket and one peer, or of a socket that takes from anybody, over which the former wins. What comes goes to the
 * ring of the endpoint that it names, or to its own queue. That holds, for each datagram, a head (length, port, address) and its bytes,
 * rounded up to 8.
 */
#include "engine/tcp.h"

#define HEAD 24
#define MOST 65507

static const uint8_t any[16];

static struct shs_udp *udp_at(const struct shs_engine *e, uint32_t plus_one)
{
    return plus_one && plus_one <= e->n.n_udp ? &e->udp[plus_one - 1] : NULL;
}

struct shs_udp *shs_udp_of(const struct shs_engine *e, uint64_t handle)
{
    struct shs_udp *u = udp_at(e, (uint32_t)handle);
    return u && u->state && u->gen == (uint32_t)(handle >> 32) ? u : NULL;
}

static bool sound(const struct shs_engine *e, const struct shs_udp *u)
{
    return u->ep1 || shs_queue_ok(e, u->rx_off, u->rx_size);
}

/* A peer's port 0 is of those that take from anybody. */
static uint32_t *bucket(struct shs_engine *e, uint16_t lport, uint16_t rport)
{
    uint64_t h = (e->w->secret ^ ((uint32_t)lport << 16 | rport)) * 0xff51afd7ed558ccdu;
    return &e->w->udp_bucket[h >> 56 & (SHS_N_UDP_BUCKETS - 1)];
}

static void join(struct shs_engine *e, struct shs_udp *u)
{
    uint32_t *head = bucket(e, u->lport, u->rport);
    u->next = *head;
    *head = (uint32_t)(u - e->udp) + 1;
    e->w->udp_used++;
}

static void leave(struct shs_engine *e, struct shs_udp *u)
{
    uint32_t *at = bucket(e, u->lport, u->rport), n = 0;
    for (struct shs_udp *i; (i = udp_at(e, *at)) && n <= e->n.n_udp; at = &i->next, n++)
        if (i == u) {
            *at = u->next;
            e->w->udp_used--;
            return;
        }
}

void shs_udp_rebuild(struct shs_engine *e)
{
    e->w->udp_free = e->w->udp_used = 0;
    memset(e->w->udp_bucket, 0, sizeof e->w->udp_bucket);
    for (uint32_t i = e->n.n_udp; i; i--) {
        struct shs_udp *u = &e->udp[i - 1];
        if (u->state) {
            join(e, u);
        } else {
            u->next = e->w->udp_free;
            e->w->udp_free = i;
        }
    }
}

uint64_t shs_udp_open(struct shs_engine *e, const struct shs_udp_open *open)
{
    struct shs_udp *u = udp_at(e, e->w->udp_free);
    if (!u || (!open->ep1 && !shs_queue_ok(e, open->rx_off, open->rx_size)))
        return 0;
    e->w->udp_free = u->next;
    uint32_t gen = u->gen + 1;
    memset(u, 0, sizeof *u);
    u->gen = gen;
    memcpy(u->laddr, open->laddr, 16);
    memcpy(u->raddr, open->raddr, 16);
    u->lport = open->lport;
    u->rport = open->rport;
    u->rx_off = open->rx_off;
    u->rx_size = open->rx_size;
    u->ep1 = open->ep1;
    u->cookie = open->cookie;
    join(e, u);
    shs_store32(&u->state, 1);
    return (uint64_t)gen << 32 | ((uint32_t)(u - e->udp) + 1);
}

int shs_udp_close(struct shs_engine *e, uint64_t handle)
{
    struct shs_udp *u = shs_udp_of(e, handle);
    if (!u)
        return -EBADF;
    leave(e, u);
    u->gen++;
    shs_store32(&u->state, 0);
    u->next = e->w->udp_free;
    e->w->udp_free = (uint32_t)(u - e->udp) + 1;
    return 0;
}

static bool takes(const struct shs_udp *u, const struct shs_packet *p, uint16_t sport, uint16_t dport, bool peer)
{
    return u->state && u->lport == dport && (!memcmp(u->laddr, any, 16) || !memcmp(u->laddr, p->dst, 16)) &&
           (peer ? u->rport == sport && !memcmp(u->raddr, p->src, 16) : !u->rport);
}

static struct shs_udp *find(struct shs_engine *e, const struct shs_packet *p, uint16_t sport, uint16_t dport)
{
    struct shs_udp *best = NULL;
    uint32_t n = 0;
    for (struct shs_udp *u = udp_at(e, *bucket(e, dport, sport)); u && n <= e->n.n_udp; u = udp_at(e, u->next), n++)
        if (takes(u, p, sport, dport, true))
            return u;
    n = 0;
    for (struct shs_udp *u = udp_at(e, *bucket(e, dport, 0)); u && n <= e->n.n_udp; u = udp_at(e, u->next), n++)
        if (takes(u, p, sport, dport, false) && (!best || memcmp(u->laddr, any, 16)))
            best = u;
    return best;
}

/* To the record's own queue; false: it is full. */
static bool enqueue(struct shs_engine *e, struct shs_udp *u, const struct shs_packet *p, uint16_t sport)
{
    uint32_t need = HEAD + ((p->len + 7) & ~7u), used = u->rx_end - u->rx_pos;
    if (!sound(e, u) || used > u->rx_size || u->rx_size - used < need)
        return false;
    uint8_t head[HEAD] = {0};
    memcpy(head, &p->len, 4);
    memcpy(head + 4, &sport, 2);
    memcpy(head + 8, p->src, 16);
    shs_queue_put(e, u->rx_off, u->rx_size, u->rx_end, head, HEAD);
    shs_queue_put(e, u->rx_off, u->rx_size, u->rx_end + HEAD, p->payload, p->len);
    shs_store32(&u->rx_end, u->rx_end + need); /* published by this */
    u->wakes++;
    return true;
}

void shs_udp_input(struct shs_engine *e, struct shs_packet *p)
{
    uint16_t sport, dport;
    enum shs_parsed how = shs_udp_parse(p, e->link && e->link->is_virtual, &sport, &dport);
    if (how != SHS_PARSED) {
        shs_wire_count(e, how == SHS_PARSE_SUM ? SHS_WCTR_IN_BAD_SUM : SHS_WCTR_IN_SHORT);
        return;
    }
    if (p->partial)
        shs_wire_count(e, SHS_WCTR_IN_PARTIAL_SUM);
    struct shs_udp *u = find(e, p, sport, dport);
    if (!u) {
        shs_wire_count(e, SHS_WCTR_IN_NO_FLOW);
        return;
    }
    u->received++;
    if (u->ep1 ? !e->deliver || !e->deliver(e, u, p, sport) : !enqueue(e, u, p, sport))
        shs_wire_count(e, u->ep1 ? SHS_WCTR_UDP_SHUT : SHS_WCTR_UDP_FULL);
}

long shs_udp_recv(struct shs_engine *e, uint64_t handle, void *to, uint32_t len, uint8_t src[16], uint16_t *sport)
{
    struct shs_udp *u = shs_udp_of(e, handle);
    uint8_t head[HEAD];
    uint32_t size;
    if (!u || u->ep1)
        return -EBADF;
    if (u->rx_end - u->rx_pos < HEAD)
        return -EAGAIN;
    if (!shs_queue_get(e, u->rx_off, u->rx_size, u->rx_pos, head, HEAD))
        return -EIO;
    memcpy(&size, head, 4);
    uint32_t whole = size <= MOST ? HEAD + ((size + 7) & ~7u) : UINT32_MAX;
    if (whole > u->rx_end - u->rx_pos) { /* makes no sense: begin anew */
        shs_wire_count(e, SHS_WCTR_BROKEN);
        u->rx_pos = u->rx_end;
        return -EAGAIN;
    }
    memcpy(sport, head + 4, 2);
    memcpy(src, head + 8, 16);
    uint32_t n = shs_min32(len, size);
    shs_queue_get(e, u->rx_off, u->rx_size, u->rx_pos + HEAD, to, n);
    shs_store32(&u->rx_pos, u->rx_pos + whole);
    return n;
}

static uint8_t family_of(const uint8_t dst[16])
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return memcmp(dst, mapped, 12) ? 6 : 4;
}

uint8_t *shs_udp_room(struct shs_engine *e, const uint8_t dst[16], uint32_t len)
{
    uint32_t ip = shs_ip_header(family_of(dst));
    uint8_t *b = e->link->room(e->link->dev, ip + SHS_UDP_HEADER + len);
    if (!b)
        shs_wire_count(e, SHS_WCTR_OUT_NO_ROOM);
    return b ? b + ip + SHS_UDP_HEADER : NULL;
}

void shs_udp_sent(struct shs_engine *e, struct shs_udp *u, uint8_t *at, const uint8_t src[16], const uint8_t dst[16], uint16_t dport,
                  uint32_t len)
{
    struct shs_packet p = {.family = family_of(dst)};
    uint32_t ip = shs_ip_header(p.family);
    uint8_t *b = at - SHS_UDP_HEADER - ip;
    memcpy(p.src, src, 16);
    memcpy(p.dst, dst, 16);
    shs_udp_build(b + ip, &p, u->lport, dport, len);
    shs_ip_build(b, &p, (uint16_t)shs_engine_random(e));
    shs_wire_count(e, SHS_WCTR_OUT_PACKETS);
    u->sent++;
    e->link->send(e->link->dev, ip + p.len);
}

long shs_udp_send(struct shs_engine *e, uint64_t handle, const uint8_t src[16], const uint8_t dst[16], uint16_t dport, const void *from,
                  uint32_t len)
{
    struct shs_udp *u = shs_udp_of(e, handle);
    if (!u)
        return -EBADF;
    if (len > MOST)
        return -EMSGSIZE;
    uint8_t *at = shs_udp_room(e, dst, len);
    if (!at)
        return -EAGAIN;
    memcpy(at, from, len);
    shs_udp_sent(e, u, at, src, dst, dport, len);
    return len;
}
