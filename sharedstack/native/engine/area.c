/* The area: made once, mapped by many; and how what is derived in it is made anew from what is primary. */
#include "engine/tcp.h"

static uint64_t place(const struct shs_engine_size *n, uint64_t *tcp, uint64_t *udp, uint64_t *seg, uint64_t *bucket)
{
    *tcp = sizeof(struct shs_wire);
    *udp = *tcp + (uint64_t)n->n_tcp * sizeof(struct shs_tcp);
    *seg = *udp + (uint64_t)n->n_udp * sizeof(struct shs_udp);
    *bucket = *seg + (uint64_t)n->n_seg * sizeof(struct shs_txseg);
    return *bucket + (uint64_t)n->n_buckets * 4;
}

uint64_t shs_engine_bytes(const struct shs_engine_size *n)
{
    uint64_t at[4];
    return place(n, at, at + 1, at + 2, at + 3);
}

static void map(struct shs_engine *e, void *area, const struct shs_engine_size *n)
{
    uint64_t tcp, udp, seg, bucket;
    place(n, &tcp, &udp, &seg, &bucket);
    uint8_t *base = area;
    e->w = area;
    e->tcp = (struct shs_tcp *)(void *)(base + tcp);
    e->udp = (struct shs_udp *)(void *)(base + udp);
    e->seg = (struct shs_txseg *)(void *)(base + seg);
    e->bucket = (uint32_t *)(void *)(base + bucket);
    e->n = *n;
}

void shs_engine_format(void *area, const struct shs_engine_size *n, uint64_t seed, uint64_t now)
{
    struct shs_engine e = {.now = now};
    memset(area, 0, shs_engine_bytes(n));
    map(&e, area, n);
    e.w->n_tcp = n->n_tcp;
    e.w->n_udp = n->n_udp;
    e.w->n_seg = n->n_seg;
    e.w->n_buckets = n->n_buckets;
    e.w->random = seed;
    e.w->secret = shs_engine_random(&e);
    shs_engine_rebuild(&e);
    shs_store64(&e.w->magic, SHS_WIRE_MAGIC);
}

int shs_engine_attach(struct shs_engine *e, void *area, uint64_t bytes, void *queues, uint64_t queue_bytes, const struct shs_device *link)
{
    const struct shs_wire *w = area;
    if (bytes < sizeof *w || shs_load64(&w->magic) != SHS_WIRE_MAGIC)
        return -EINVAL;
    struct shs_engine_size n = {w->n_tcp, w->n_udp, w->n_seg, w->n_buckets};
    if (!n.n_tcp || !n.n_seg || !n.n_buckets || (n.n_buckets & (n.n_buckets - 1)) || shs_engine_bytes(&n) > bytes)
        return -EINVAL;
    *e = (struct shs_engine){.queues = queues, .queue_bytes = queue_bytes, .link = link};
    map(e, area, &n);
    return 0;
}

/* Where a record contradicts itself, its owner died between two stores of one step. */
static void mend(struct shs_engine *e, struct shs_tcp *t)
{
    if (!shs_queue_ok(e, t->tx_off, t->tx_size) || !shs_queue_ok(e, t->rx_off, t->rx_size) || t->mss < 8)
        return;
    /* Ranges before their turn may be forgotten: SACK is advice (RFC 2018 section 8). */
    t->n_ooo = 0;
    t->dsack_to = t->dsack_from;
    /*
     * A packet goes before its record: all that the window allowed may be on its way, and what acknowledges it must be believed. Held back by
     * Nagle's rule it would not be sent again, and its acknowledgment never be one of something sent.
     */
    uint32_t end = t->tx_end + (t->flags & SHS_TF_FIN_QUEUED ? 1 : 0), edge = t->snd_una + t->snd_wnd;
    if (shs_before(t->snd_nxt, edge))
        t->snd_nxt = edge;
    if (shs_before(end, t->snd_nxt))
        t->snd_nxt = end;
    if (shs_before(t->snd_nxt, t->snd_una))
        t->snd_nxt = t->snd_una;
    t->dup_acks = 0;
    t->ca = SHS_CA_OPEN;
    t->tlp_out = 0;
    shs_state_fix(t);
    if (t->state == SHS_TCP_TIME_WAIT && !t->timer[SHS_T_WAIT])
        shs_time_wait(e, t);
    if (t->state == SHS_TCP_FIN_WAIT_2 && t->flags & SHS_TF_ORPHAN && !t->timer[SHS_T_WAIT])
        t->timer[SHS_T_WAIT] = e->now + t->linger * SHS_MS;
    shs_seg_cover(e, t);
    if (shs_flight(t) && !t->timer[SHS_T_RTO])
        shs_rto_arm(e, t);
    if (t->keep_idle && !t->timer[SHS_T_KEEP] && t->state != SHS_TCP_TIME_WAIT)
        shs_keep_arm(e, t);
    /* What the dead one was about to send, or to acknowledge. */
    t->flags |= SHS_TF_ACK_NOW;
    t->timer[SHS_T_LINK] = e->now + 1;
}

/* After a death under the lock, and to begin with. Free lists, flow hash, wheel, and what is in flight. */
void shs_engine_rebuild(struct shs_engine *e)
{
    struct shs_wire *w = e->w;
    memset(e->bucket, 0, (size_t)e->n.n_buckets * 4);
    memset(w->wheel, 0, sizeof w->wheel);
    memset(w->busy, 0, sizeof w->busy);
    w->tick = e->now >> SHS_WHEEL_TICK_SHIFT;
    w->tcp_free = w->seg_free = w->tcp_used = w->seg_used = 0;
    for (uint32_t i = e->n.n_seg; i; i--) {
        e->seg[i - 1].next = w->seg_free;
        w->seg_free = i;
    }
    for (uint32_t i = e->n.n_tcp; i; i--) {
        struct shs_tcp *t = &e->tcp[i - 1];
        t->wheel_at = t->wheel_next = t->wheel_prev = 0;
        if (t->state == SHS_TCP_CLOSED && t->flags & SHS_TF_ORPHAN) { /* nobody has its handle */
            t->gen++;
            shs_store32(&t->state, SHS_TCP_FREE);
        }
        if (t->state == SHS_TCP_FREE) {
            t->hash_next = w->tcp_free;
            w->tcp_free = i;
            continue;
        }
        w->tcp_used++;
        shs_flow_link(e, t);
        if (t->state == SHS_TCP_CLOSED) {
            t->seg_head = t->seg_tail = t->segs = t->sacked = t->lost = t->retx_out = t->n_ooo = 0;
            memset(t->timer, 0, sizeof t->timer);
        } else {
            mend(e, t);
        }
        shs_timer_settle(e, t);
    }
    shs_udp_rebuild(e);
}
