/* The retransmission timer (RFC 6298), and when a connection is given up (RFC 9293 section 3.8.3, RFC 5482). */
#include "engine/tcp.h"

#define RTO_LEAST (200 * SHS_MS) /* the kernel's; (2.4) would have a second */
#define RTO_MOST (120 * SHS_SEC) /* (2.5) */
#define GRANULARITY SHS_MS
#define TRIES 15 /* tcp_retries2 of tcp(7): R2 */

/* Section 2, (2.2) and (2.3), in ns. */
void shs_rtt_sample(struct shs_tcp *t, uint64_t rtt)
{
    rtt = shs_min64(rtt, RTO_MOST);
    if (!t->srtt) {
        t->srtt = rtt;
        t->rttvar = rtt / 2;
    } else {
        uint64_t off = t->srtt > rtt ? t->srtt - rtt : rtt - t->srtt;
        t->rttvar = t->rttvar - t->rttvar / 4 + off / 4;
        t->srtt = t->srtt - t->srtt / 8 + rtt / 8;
    }
    if (!t->min_rtt || rtt < t->min_rtt)
        t->min_rtt = rtt;
    t->rto = shs_max64(RTO_LEAST, t->srtt + shs_max64(GRANULARITY, 4 * t->rttvar));
    t->rto = shs_min64(t->rto, RTO_MOST);
}

/* With the back-off of (5.5). */
uint64_t shs_rto_now(const struct shs_tcp *t)
{
    return shs_min64(RTO_MOST, t->rto << shs_min32(t->backoff, 10));
}

/* (5.1) to (5.3): runs while anything is in flight, from the last news on. */
void shs_rto_arm(struct shs_engine *e, struct shs_tcp *t)
{
    if (!shs_flight(t)) {
        t->timer[SHS_T_RTO] = t->timer[SHS_T_PTO] = t->timer[SHS_T_REO] = 0;
        return;
    }
    uint64_t at = e->now + shs_rto_now(t);
    if (t->user_timeout && t->first_ns) /* RFC 5482: not later than that */
        at = shs_min64(at, shs_max64(t->first_ns + t->user_timeout * SHS_MS, e->now + SHS_MS));
    t->timer[SHS_T_RTO] = at;
}

/* After so many tries, or so long, the peer is taken as gone. */
bool shs_overdue(const struct shs_engine *e, const struct shs_tcp *t, uint32_t tries)
{
    if (t->user_timeout) /* RFC 5482 section 2 */
        return t->first_ns && e->now - t->first_ns >= t->user_timeout * SHS_MS;
    return tries >= TRIES;
}

/*
 * (5.4) to (5.6). All that is not SACKed counts as lost. If the peer took back what it SACKed (RFC 2018 section 8), the first in flight
 * is marked SACKED: then no mark is believed.
 */
enum shs_fate shs_rto_fire(struct shs_engine *e, struct shs_tcp *t)
{
    if (!shs_flight(t))
        return SHS_LIVES;
    /* A peer that has taken its window back, and says so, is there (RFC 9293 section 3.8.6.1). */
    bool answers = !t->snd_wnd && e->now - t->last_rcvd_ns < RTO_MOST;
    if (shs_overdue(e, t, answers ? 0 : t->backoff)) {
        shs_wire_count(e, SHS_WCTR_TIMED_OUT);
        return shs_tcp_end(e, t, t->soft_error ? t->soft_error : ETIMEDOUT);
    }
    shs_wire_count(e, SHS_WCTR_RTO);
    struct shs_txseg *s = shs_seg_at(e, t->seg_head);
    bool reneged = s && s->flags & SHS_SEG_SACKED;
    for (uint32_t i = 0; s && i <= e->n.n_seg; s = shs_seg_at(e, s->next), i++) {
        if (reneged)
            shs_seg_flags(t, s, 0, SHS_SEG_SACKED);
        if (!(s->flags & SHS_SEG_SACKED))
            shs_seg_flags(t, s, SHS_SEG_LOST, SHS_SEG_RETX_OUT);
    }
    if (t->backoff == 0 || t->ca != SHS_CA_LOSS)
        shs_cubic_timeout(t);
    t->ca = SHS_CA_LOSS;
    t->recover = t->snd_nxt;
    t->dup_acks = 0;
    t->tlp_out = 0;
    t->timer[SHS_T_PTO] = t->timer[SHS_T_REO] = 0;
    t->backoff = shs_min32(t->backoff + 1, 30);
    if (t->backoff >= 2)
        shs_pmtu_blackhole(e, t);
    t->cwnd = t->mss; /* RFC 5681 section 3.1: the loss window */
    shs_rto_arm(e, t);
    return SHS_LIVES; /* output sends the first of them */
}
