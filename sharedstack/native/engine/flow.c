/*
 * Records of connections: taken into use with what TCP_REPAIR gives, found by the four-tuple of a packet, given back. The hash is keyed,
 * so that who chooses ports cannot choose buckets (RFC 6056 section 3.3.3 has the same worry about ports).
 */
#include "engine/tcp.h"

uint64_t shs_engine_random(struct shs_engine *e)
{
    uint64_t x = e->w->random += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint32_t hash(const struct shs_engine *e, const uint8_t *laddr, const uint8_t *raddr, uint32_t ports)
{
    uint64_t h = e->w->secret, words[5] = {0};
    memcpy(words, laddr, 16);
    memcpy(words + 2, raddr, 16);
    words[4] = ports;
    for (uint32_t i = 0; i < 5; i++) {
        h = (h ^ words[i]) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
        h = (h + e->w->secret) * 0xc4ceb9fe1a85ec53u;
        h ^= h >> 29;
    }
    return (uint32_t)h & (e->n.n_buckets - 1);
}

static uint32_t *bucket_of(const struct shs_engine *e, const struct shs_tcp *t)
{
    return &e->bucket[hash(e, t->laddr, t->raddr, (uint32_t)t->lport << 16 | t->rport)];
}

struct shs_tcp *shs_flow_find(struct shs_engine *e, const struct shs_packet *p, uint16_t sport, uint16_t dport)
{
    uint32_t n = 0;
    struct shs_tcp *t = shs_tcp_at(e, e->bucket[hash(e, p->dst, p->src, (uint32_t)dport << 16 | sport)]);
    for (; t && n <= e->n.n_tcp; t = shs_tcp_at(e, t->hash_next), n++)
        if (t->lport == dport && t->rport == sport && !memcmp(t->laddr, p->dst, 16) && !memcmp(t->raddr, p->src, 16))
            return t;
    return NULL;
}

void shs_flow_link(struct shs_engine *e, struct shs_tcp *t)
{
    uint32_t *bucket = bucket_of(e, t);
    t->hash_next = *bucket;
    *bucket = shs_tcp_index(e, t) + 1;
}

static void unlink_flow(struct shs_engine *e, struct shs_tcp *t)
{
    uint32_t *at = bucket_of(e, t), n = 0;
    for (struct shs_tcp *i; (i = shs_tcp_at(e, *at)) && n <= e->n.n_tcp; at = &i->hash_next, n++)
        if (i == t) {
            *at = t->hash_next;
            return;
        }
}

void shs_flow_free(struct shs_engine *e, struct shs_tcp *t)
{
    shs_timer_leave(e, t);
    shs_seg_drop_all(e, t);
    unlink_flow(e, t);
    memset(t->timer, 0, sizeof t->timer);
    t->gen++;
    shs_store32(&t->state, SHS_TCP_FREE);
    t->hash_next = e->w->tcp_free;
    e->w->tcp_free = shs_tcp_index(e, t) + 1;
    e->w->tcp_used--;
}

/* Numbers that others divide, shift and copy by. A record without them ends its connection. */
bool shs_flow_sane(struct shs_engine *e, struct shs_tcp *t)
{
    if (SHS_LIKELY(shs_queue_ok(e, t->rx_off, t->rx_size) && shs_queue_ok(e, t->tx_off, t->tx_size) && t->snd_scale <= 14 &&
                   t->rcv_scale <= 14 && t->mss >= 36 && t->mss <= 65535 && t->cwnd && t->n_ooo <= SHS_N_OOO && t->backoff < 32 &&
                   (t->family == 4 || t->family == 6) && t->state <= SHS_TCP_CLOSED))
        return true;
    shs_wire_count(e, SHS_WCTR_BROKEN);
    if (shs_tcp_end(e, t, EIO) == SHS_LIVES)
        shs_timer_settle(e, t);
    return false;
}

struct shs_tcp *shs_tcp_of(struct shs_engine *e, uint64_t handle)
{
    struct shs_tcp *t = shs_tcp_at(e, (uint32_t)handle);
    if (!t || t->state == SHS_TCP_FREE || t->gen != (uint32_t)(handle >> 32) || t->flags & SHS_TF_ORPHAN)
        return NULL;
    if (t->state != SHS_TCP_CLOSED)
        shs_flow_sane(e, t);
    return t;
}

static bool sensible(const struct shs_engine *e, const struct shs_tcp_image *i)
{
    return i->state >= SHS_TCP_ESTABLISHED && i->state < SHS_TCP_CLOSED && (i->family == 4 || i->family == 6) &&
           shs_queue_ok(e, i->tx_off, i->tx_size) && shs_queue_ok(e, i->rx_off, i->rx_size) && i->tx_len <= i->tx_size &&
           i->rx_len <= i->rx_size && i->snd_nxt - i->snd_una <= i->tx_len + (i->fin & 1) && i->snd_scale <= 14 && i->rcv_scale <= 14 &&
           i->rx_size >> i->rcv_scale > 1 && i->mss >= 64 && i->mtu >= 128 && i->mtu <= 65535;
}

uint64_t shs_tcp_open(struct shs_engine *e, const struct shs_tcp_image *i)
{
    struct shs_tcp *t = shs_tcp_at(e, e->w->tcp_free);
    if (!t || !sensible(e, i))
        return 0;
    e->w->tcp_free = t->hash_next;
    e->w->tcp_used++;
    uint32_t gen = t->gen + 1;
    memset(t, 0, sizeof *t);
    memcpy(t->laddr, i->laddr, 16);
    memcpy(t->raddr, i->raddr, 16);
    t->gen = gen;
    t->lport = i->lport;
    t->rport = i->rport;
    t->family = i->family;
    t->flags = i->flags & SHS_TF_IMAGE;
    t->snd_una = i->snd_una;
    t->snd_nxt = i->snd_nxt;
    t->small_end = i->snd_una;
    t->push_seq = t->tx_end = i->snd_una + i->tx_len;
    t->tx_bias = -i->snd_una;
    t->tx_size = i->tx_size;
    t->tx_off = i->tx_off;
    t->snd_wl1 = i->snd_wl1;
    t->snd_wl2 = i->snd_una;
    t->snd_wnd = i->snd_wnd;
    t->max_wnd = shs_max32(i->max_wnd, i->snd_wnd);
    t->snd_scale = i->snd_scale;
    t->mss_peer = i->mss;
    t->mss = shs_mss_of_mtu(t, i->mtu);
    uint32_t peer_fin = i->fin >> 1 & 1;
    t->rcv_nxt = t->acked_to = i->rcv_nxt;
    t->rcv_adv = shs_later(i->rcv_wup + i->rcv_wnd, i->rcv_nxt);
    t->rcv_scale = i->rcv_scale;
    t->rx_size = i->rx_size;
    t->rx_off = i->rx_off;
    t->rx_read = i->rcv_nxt - peer_fin - i->rx_len;
    t->rx_bias = -t->rx_read;
    /* What the kernel offered is kept open; beyond that it grows with use. */
    t->rx_limit = shs_min32(t->rx_size, shs_max32(65536, t->rcv_adv - t->rx_read));
    t->rx_seen = 536; /* RFC 9293 section 3.7.1 (SHLD-5), until something larger comes */
    if (i->fin & 1)
        t->flags |= SHS_TF_FIN_QUEUED;
    if (peer_fin) {
        t->flags |= SHS_TF_FIN_HELD;
        t->fin_seq = i->rcv_nxt - 1;
    }
    t->ts_recent = i->ts_recent;
    t->ts_off = i->ts_off;
    t->ts_usec = i->ts_usec;
    t->last_rcvd_ns = t->last_sent_ns = t->tune_ns = e->now;
    t->ts_recent_ns = i->ts_recent ? e->now : e->now - SHS_PAWS_IDLE; /* unknown: the next one is as good as after a long silence */
    t->rto = SHS_SEC; /* RFC 6298 section 2.1 */
    if (i->srtt_us)
        shs_rtt_sample(t, i->srtt_us * 1000ull);
    /* RFC 6928 section 2: ten segments */
    t->cwnd = i->cwnd ? shs_max32(i->cwnd, 2 * t->mss) : shs_min32(10 * t->mss, shs_max32(2 * t->mss, 14600));
    t->ssthresh = 0x7fffffff;
    t->reo_mult = 1;
    t->fack = t->rack_end = t->cwr_seq = t->dsack_seq = t->snd_una;
    t->recover = t->snd_una - 1;
    t->keep_idle = i->keep_idle;
    t->keep_intvl = i->keep_intvl;
    t->keep_count = i->keep_count;
    t->user_timeout = i->user_timeout;
    t->linger = 60000; /* tcp_fin_timeout of tcp(7) */
    shs_flow_link(e, t);
    shs_store32(&t->state, i->state);
    shs_seg_cover(e, t);
    if (shs_flight(t))
        t->first_ns = e->now;
    if (i->state == SHS_TCP_TIME_WAIT)
        shs_time_wait(e, t);
    uint64_t handle = (uint64_t)t->gen << 32 | (shs_tcp_index(e, t) + 1);
    shs_keep_arm(e, t);
    shs_tcp_output(e, t);
    shs_timer_settle(e, t);
    return handle;
}

int shs_tcp_export(struct shs_engine *e, uint64_t handle, struct shs_tcp_image *i)
{
    struct shs_tcp *t = shs_tcp_of(e, handle);
    if (!t)
        return -EBADF;
    *i = (struct shs_tcp_image){
        .lport = t->lport,
        .rport = t->rport,
        .family = t->family,
        .state = t->state,
        .flags = t->flags & SHS_TF_IMAGE,
        .snd_una = t->snd_una,
        .snd_nxt = t->snd_nxt,
        .rcv_nxt = t->rcv_nxt,
        .snd_wl1 = t->snd_wl1,
        .snd_wnd = t->snd_wnd,
        .max_wnd = t->max_wnd,
        .rcv_wnd = t->rcv_adv - t->acked_to,
        .rcv_wup = t->acked_to,
        .snd_scale = t->snd_scale,
        .rcv_scale = t->rcv_scale,
        .mss = t->mss_peer,
        .mtu = t->mss + shs_ip_header(t->family) + SHS_TCP_HEADER + (t->flags & SHS_TF_TS ? SHS_TS_OPTION : 0),
        .ts_recent = t->ts_recent,
        .ts_off = t->ts_off,
        .ts_usec = t->ts_usec,
        .srtt_us = (uint32_t)(t->srtt / 1000),
        .cwnd = t->cwnd,
        .tx_len = shs_fin_acked(t) ? 0 : t->tx_end - t->snd_una,
        .rx_len = shs_unread(t),
        .tx_off = t->tx_off,
        .rx_off = t->rx_off,
        .tx_size = t->tx_size,
        .rx_size = t->rx_size,
        .user_timeout = t->user_timeout,
        .keep_idle = t->keep_idle,
        .keep_intvl = t->keep_intvl,
        .keep_count = t->keep_count,
        .fin = (t->flags & SHS_TF_FIN_QUEUED && !shs_fin_acked(t) ? 1u : 0) | (shs_fin_in(t) ? 2u : 0),
    };
    memcpy(i->laddr, t->laddr, 16);
    memcpy(i->raddr, t->raddr, 16);
    return 0;
}
