/* Does the area agree with itself? For tests, and for who inspects a stuck stack: looks at everything, changes nothing. */
#include "engine/tcp.h"

#define HOLDS(x)             \
    do {                     \
        if (!(x))            \
            return __LINE__; \
    } while (0)

static int check_flight(struct shs_engine *e, const struct shs_tcp *t)
{
    uint32_t seq = t->snd_una, n = 0, sacked = 0, lost = 0, retx = 0, last = 0;
    for (uint32_t at = t->seg_head; at;) {
        const struct shs_txseg *s = shs_seg_at(e, at);
        HOLDS(s && s->seq == seq && s->len);
        seq += s->len;
        HOLDS(++n <= e->n.n_seg);
        sacked += s->flags & SHS_SEG_SACKED ? s->len : 0;
        if (!(s->flags & SHS_SEG_SACKED)) {
            lost += s->flags & SHS_SEG_LOST ? s->len : 0;
            retx += s->flags & SHS_SEG_RETX_OUT ? s->len : 0;
        }
        last = at;
        at = s->next;
    }
    HOLDS(last == t->seg_tail && n == t->segs);
    HOLDS(t->state == SHS_TCP_CLOSED || seq == t->snd_nxt);
    HOLDS(sacked == t->sacked && lost == t->lost && retx == t->retx_out);
    return 0;
}

static int check_tcp(const struct shs_tcp *t)
{
    HOLDS(t->state <= SHS_TCP_CLOSED);
    HOLDS(shs_upto(t->snd_una, t->snd_nxt));
    HOLDS(shs_upto(t->snd_nxt, t->tx_end + (t->flags & SHS_TF_FIN_QUEUED ? 1 : 0)));
    HOLDS(shs_fin_acked(t) || t->tx_end - t->snd_una <= t->tx_size);
    HOLDS(shs_unread(t) <= t->rx_size);
    HOLDS(t->n_ooo <= SHS_N_OOO);
    for (uint32_t i = 0; i < t->n_ooo; i++) {
        HOLDS(shs_before(t->ooo_from[i], t->ooo_to[i]));
        HOLDS(shs_before(i ? t->ooo_to[i - 1] : t->rcv_nxt, t->ooo_from[i]));
        HOLDS(t->ooo_to[i] - t->rx_read <= t->rx_size);
    }
    if (t->state == SHS_TCP_CLOSED)
        return 0;
    HOLDS(t->mss && t->cwnd && t->backoff < 32);
    switch (t->state) {
    case SHS_TCP_ESTABLISHED:
        HOLDS(!(t->flags & SHS_TF_FIN_QUEUED) && !shs_fin_in(t));
        break;
    case SHS_TCP_FIN_WAIT_1:
        HOLDS(t->flags & SHS_TF_FIN_QUEUED && !shs_fin_acked(t) && !shs_fin_in(t));
        break;
    case SHS_TCP_FIN_WAIT_2:
        HOLDS(shs_fin_acked(t) && !shs_fin_in(t));
        break;
    case SHS_TCP_CLOSE_WAIT:
        HOLDS(!(t->flags & SHS_TF_FIN_QUEUED) && shs_fin_in(t));
        break;
    case SHS_TCP_CLOSING:
    case SHS_TCP_LAST_ACK:
        HOLDS(t->flags & SHS_TF_FIN_QUEUED && !shs_fin_acked(t) && shs_fin_in(t));
        break;
    default:
        HOLDS(shs_fin_acked(t) && shs_fin_in(t) && t->timer[SHS_T_WAIT]);
    }
    /* Nothing in flight without a timer that looks after it. */
    HOLDS(!shs_flight(t) || t->timer[SHS_T_RTO] || t->timer[SHS_T_PTO] || t->timer[SHS_T_REO] || t->timer[SHS_T_LINK]);
    return 0;
}

int shs_engine_check(struct shs_engine *e)
{
    uint32_t used = 0, segs = 0, n = 0, in_wheel = 0, timed = 0, hashed = 0;
    for (uint32_t i = 0; i < e->n.n_tcp; i++) {
        const struct shs_tcp *t = &e->tcp[i];
        if (t->state == SHS_TCP_FREE)
            continue;
        used++;
        int bad = check_tcp(t);
        bad = bad ? bad : check_flight(e, t);
        if (bad)
            return bad;
        segs += t->segs;
        uint64_t first = UINT64_MAX;
        for (uint32_t k = 0; k < SHS_N_TIMERS; k++)
            first = t->timer[k] ? shs_min64(first, t->timer[k]) : first;
        HOLDS(first == UINT64_MAX ? !t->wheel_at : t->wheel_at && t->wheel_ns == first);
        timed += first != UINT64_MAX;
    }
    HOLDS(used == e->w->tcp_used && segs == e->w->seg_used);
    for (uint32_t i = 0; i < e->n.n_buckets; i++)
        for (struct shs_tcp *t = shs_tcp_at(e, e->bucket[i]); t; t = shs_tcp_at(e, t->hash_next))
            HOLDS(++hashed <= used && t->state != SHS_TCP_FREE);
    HOLDS(hashed == used);
    for (uint32_t i = 0; i < SHS_WHEEL_BUCKETS; i++) {
        HOLDS(!e->w->wheel[i] == !(e->w->busy[i / 64] >> i % 64 & 1));
        for (struct shs_tcp *t = shs_tcp_at(e, e->w->wheel[i]); t; t = shs_tcp_at(e, t->wheel_next))
            HOLDS(++in_wheel <= used && t->wheel_at == i + 1);
    }
    HOLDS(in_wheel == timed);
    for (struct shs_txseg *s = shs_seg_at(e, e->w->seg_free); s; s = shs_seg_at(e, s->next))
        HOLDS(++n <= e->n.n_seg);
    HOLDS(n + segs == e->n.n_seg);
    n = 0;
    for (struct shs_tcp *t = shs_tcp_at(e, e->w->tcp_free); t; t = shs_tcp_at(e, t->hash_next))
        HOLDS(++n <= e->n.n_tcp && t->state == SHS_TCP_FREE);
    HOLDS(n + used == e->n.n_tcp);
    return 0;
}
