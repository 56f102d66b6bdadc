/*
 * An acceptable acknowledgment, RFC 9293 section 3.10.7.4 (fifth):
 * 1  what is cumulatively acknowledged leaves the list, then SACK blocks are noted (in this order, or an ACK that does both would look
 *    like reordering); round trips are measured
 * 2  the window is updated
 * 3  losses are detected, recovery goes on, the congestion window grows
 * 4  timers; our FIN may have been acknowledged
 */
#include "engine/tcp.h"

static void measure(struct shs_engine *e, const struct shs_txseg *s, struct shs_acked *a)
{
    if (!(s->flags & SHS_SEG_RETRANS) && !(s->flags & SHS_SEG_SACKED)) /* Karn: RFC 6298 section 3 */
        a->rtt = shs_max64(e->now - s->sent_ns, 1);
}

/* Removes what is acknowledged up to s->ack. */
static void advance(struct shs_engine *e, struct shs_tcp *t, const struct shs_segment *seg, struct shs_acked *a)
{
    bool once = true;
    a->bytes = seg->ack - t->snd_una;
    for (uint32_t i = 0; i <= e->n.n_seg; i++) {
        struct shs_txseg *s = shs_seg_at(e, t->seg_head);
        if (!s || !shs_before(s->seq, seg->ack))
            break;
        once = once && !(s->flags & SHS_SEG_RETRANS);
        measure(e, s, a);
        if (!(s->flags & SHS_SEG_SACKED))
            shs_rack_delivered(e, t, s);
        shs_pmtu_arrived(e, t, s);
        if (shs_before(seg->ack, s->seq + s->len)) {
            shs_seg_trim(t, s, seg->ack - s->seq);
            break;
        }
        shs_seg_pop(e, t);
    }
    shs_store32(&t->snd_una, seg->ack);
    t->fack = shs_later(t->fack, seg->ack);
    if (!once)
        a->rtt = 0;
    uint64_t rtt = a->rtt ? a->rtt : shs_ts_rtt(e, t, seg);
    if (rtt)
        shs_rtt_sample(t, rtt);
    t->backoff = 0;
    t->first_ns = shs_flight(t) ? e->now : 0;
    shs_wake_room(e, t);
}

/* RFC 9293 section 3.10.7.4: from a segment that is newer than the one of the last update. */
static void update_window(struct shs_tcp *t, const struct shs_segment *s)
{
    if (shs_before(t->snd_wl1, s->seq) || (t->snd_wl1 == s->seq && shs_upto(t->snd_wl2, s->ack))) {
        t->snd_wnd = s->wnd << (t->snd_scale & 15);
        t->snd_wl1 = s->seq;
        t->snd_wl2 = s->ack;
        t->max_wnd = shs_max32(t->max_wnd, t->snd_wnd);
    }
}

enum shs_fate shs_ack_input(struct shs_engine *e, struct shs_tcp *t, const struct shs_segment *s)
{
    struct shs_acked a = {.flight = shs_flight(t)};
    uint32_t old_wnd = t->snd_wnd;
    bool fin_was_acked = shs_fin_acked(t);
    if (shs_before(s->ack, t->snd_una)) /* old; its window and its SACK blocks are too */
        return SHS_LIVES;
    bool same = s->ack == t->snd_una;
    if (!same)
        advance(e, t, s, &a);
    if (t->flags & SHS_TF_SACK && s->sacks)
        shs_sack_input(e, t, s, &a);
    update_window(t, s);
    /* RFC 5681 section 2, the five conditions; with SACK, news in the blocks will do (RFC 6675 section 2). */
    a.duplicate = same && a.flight && !s->len && !(s->flags & SHS_FIN) && (a.has_sack ? a.sacked > 0 : t->snd_wnd == old_wnd);
    if (a.duplicate)
        shs_wire_count(e, SHS_WCTR_DUP_ACKS);
    shs_ecn_ack(e, t, s);
    shs_tlp_ack(e, t, s, &a);
    if (t->flags & SHS_TF_SACK) {
        shs_rack_detect(e, t, &a);
        shs_sack_mark_lost(e, t);
    }
    shs_recovery_ack(e, t, &a);
    t->probes = 0; /* the peer answers */
    if (a.bytes)
        shs_rto_arm(e, t); /* RFC 6298 section 5, (5.2) and (5.3) */
    if (a.bytes || a.sacked)
        shs_tlp_arm(e, t);
    if (t->snd_wnd != old_wnd || a.bytes) {
        t->timer[SHS_T_PERSIST] = 0; /* armed again by output, if it still must wait */
        if (!shs_flight(t)) {
            t->backoff = 0;
            t->first_ns = 0;
        }
    }
    if (!fin_was_acked && shs_fin_acked(t))
        return shs_own_fin_acked(e, t);
    return SHS_LIVES;
}
