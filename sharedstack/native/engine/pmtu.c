/* The path's MTU: lowered by ICMP (RFC 1191, RFC 8201), or because large segments vanish while small ones would not (RFC 4821, RFC 8899). */
#include "engine/tcp.h"

#define LEAST_MTU4 552 /* min_pmtu of ip(7): less would be an attack */
#define LEAST_MTU6 1280
#define BASE_MTU 1200 /* RFC 8899 section 5.1.2 */
#define RAISE_FIRST 10000 /* ms: it may have been an outage */
#define RAISE_MOST 600000 /* PMTU_RAISE_TIMER of RFC 8899 section 5.1.1 */

/* RFC 9293 section 3.7.1: what the peer takes, what the path takes, less our options. */
uint32_t shs_mss_of_mtu(const struct shs_tcp *t, uint32_t mtu)
{
    uint32_t head = shs_ip_header(t->family) + SHS_TCP_HEADER, options = t->flags & SHS_TF_TS ? SHS_TS_OPTION : 0;
    uint32_t mss = mtu > head + 64 ? mtu - head : 64;
    return shs_max32(shs_min32(mss, t->mss_peer) - options, 36);
}

/* What is in flight and too large never arrived; that is no congestion (RFC 1191 section 6.5). */
void shs_pmtu_set(struct shs_engine *e, struct shs_tcp *t, uint32_t mtu)
{
    uint32_t mss = shs_mss_of_mtu(t, shs_max32(mtu, t->family == 4 ? LEAST_MTU4 : LEAST_MTU6)), n = 0;
    if (mss >= t->mss)
        return;
    t->mss = mss;
    t->mss_goal = 0;
    for (struct shs_txseg *s = shs_seg_at(e, t->seg_head); s && n <= e->n.n_seg; s = shs_seg_at(e, s->next), n++)
        if (s->len - (s->flags & SHS_SEG_FIN ? 1 : 0) > mss && !(s->flags & SHS_SEG_SACKED))
            shs_seg_flags(t, s, SHS_SEG_LOST, SHS_SEG_RETX_OUT);
    if (t->ca == SHS_CA_OPEN && t->lost) {
        t->ca = SHS_CA_CWR;
        t->recover = t->snd_nxt;
    }
}

/* Time-outs in a row, and a large segment that waits: perhaps it is the size. The first of these that it does not fit is tried. */
void shs_pmtu_blackhole(struct shs_engine *e, struct shs_tcp *t)
{
    const uint32_t tries[] = {t->family == 4 ? BASE_MTU : LEAST_MTU6, t->family == 4 ? 576 : LEAST_MTU6};
    const struct shs_txseg *s = shs_seg_at(e, t->seg_head);
    for (uint32_t i = 0; s && i < 2; i++) {
        uint32_t mss = shs_mss_of_mtu(t, tries[i]);
        if (mss < t->mss && s->len > mss) {
            uint32_t goal = shs_max32(t->mss, t->mss_goal);
            shs_wire_count(e, SHS_WCTR_PMTU_BLACKHOLE);
            shs_pmtu_set(e, t, tries[i]);
            t->mss_goal = goal;
            shs_pmtu_probed(e, t);
            return;
        }
    }
}

/*
 * It may have been an outage: now and then one segment of the old size goes out (RFC 8899 section 5.3, RFC 4821 section 7). If it is lost
 * it is sent again in pieces.
 */
bool shs_pmtu_may_probe(const struct shs_engine *e, const struct shs_tcp *t)
{
    return t->mss_goal > t->mss && e->now >= t->raise_ns && t->ca == SHS_CA_OPEN && !t->backoff && !t->n_ooo;
}

void shs_pmtu_probed(struct shs_engine *e, struct shs_tcp *t)
{
    t->raise_ms = t->raise_ms ? shs_min32(shs_min32(t->raise_ms, RAISE_MOST) * 2, RAISE_MOST) : RAISE_FIRST;
    t->raise_ns = e->now + t->raise_ms * SHS_MS;
}

void shs_pmtu_arrived(struct shs_engine *e, struct shs_tcp *t, const struct shs_txseg *s)
{
    if (!(s->flags & SHS_SEG_PROBE) || s->flags & SHS_SEG_RETRANS || s->len < t->mss_goal || t->mss_goal < t->mss || !t->mss_goal)
        return;
    shs_wire_count(e, SHS_WCTR_PMTU_RAISED);
    t->mss = t->mss_goal;
    t->mss_goal = t->raise_ms = 0;
}
