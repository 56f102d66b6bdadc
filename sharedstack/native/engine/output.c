/*
 * What may be sent now, in this order (RFC 6675 section 4, NextSeg): what is lost, as far as pipe and congestion window allow; then new
 * data, as far as the peer's window and the avoidance of silly ones allow (RFC 9293 section 3.8.6.2.1 and 3.7.4); then the FIN; then an
 * acknowledgment by itself, if none went with data.
 */
#include "engine/tcp.h"

#define LEAST_CHARGE 256

/* Payload of a segment while SACK blocks must go along. */
static uint32_t effective_mss(const struct shs_tcp *t)
{
    uint32_t ranges = t->n_ooo + (t->dsack_from != t->dsack_to);
    if (!(t->flags & SHS_TF_SACK) || !ranges || t->mss < 128)
        return t->mss;
    return t->mss - (4 + 8 * shs_min32(ranges, 3));
}

bool shs_retransmit(struct shs_engine *e, struct shs_tcp *t, struct shs_txseg *s)
{
    uint32_t mss = effective_mss(t), fin = s->flags & SHS_SEG_FIN ? 1 : 0;
    if (s->len - fin > mss)
        shs_seg_split(e, t, s, mss);
    fin = s->flags & SHS_SEG_FIN ? 1 : 0;
    /* where no record is left for the rest, all of them held by what is to be sent: its first part alone, whose acknowledgment goes on with the rest */
    bool part = s->len - fin > mss;
    uint32_t len = part ? mss : s->len - fin, end = s->seq + len, flags = fin && !part ? SHS_FIN : 0;
    if (end == t->push_seq || end == t->tx_end)
        flags |= SHS_PSH;
    if (!shs_emit(e, t, s->seq, len, flags, true))
        return false;
    shs_seg_flags(t, s, SHS_SEG_RETRANS | (s->flags & SHS_SEG_LOST ? SHS_SEG_RETX_OUT : 0), 0);
    s->sent_ns = t->last_sent_ns = e->now;
    s->times++;
    t->stat_retx++;
    shs_wire_count(e, SHS_WCTR_RETRANSMITS);
    if (!t->timer[SHS_T_RTO])
        shs_rto_arm(e, t);
    return true;
}

static void send_lost(struct shs_engine *e, struct shs_tcp *t)
{
    if (!t->lost)
        return;
    struct shs_txseg *s = shs_seg_at(e, t->seg_head);
    for (uint32_t i = 0; s && i <= e->n.n_seg; s = shs_seg_at(e, s->next), i++) {
        if (!(s->flags & SHS_SEG_LOST) || s->flags & (SHS_SEG_SACKED | SHS_SEG_RETX_OUT))
            continue;
        shs_seg_join(e, t, s, effective_mss(t));
        uint32_t pipe = shs_pipe(t);
        if (pipe && pipe + s->len > t->cwnd && !(t->flags & SHS_TF_FORCE)) {
            t->flags |= SHS_TF_CWND_LIMITED;
            return;
        }
        t->flags &= ~SHS_TF_FORCE;
        if (!shs_retransmit(e, t, s))
            return;
    }
}

static uint32_t window_left(const struct shs_tcp *t)
{
    uint32_t edge = t->snd_una + t->snd_wnd;
    return shs_before(t->snd_nxt, edge) ? edge - t->snd_nxt : 0;
}

static uint32_t waiting(const struct shs_tcp *t)
{
    return shs_before(t->snd_nxt, t->tx_end) ? t->tx_end - t->snd_nxt : 0;
}

/*
 * Nagle's rule (RFC 9293 section 3.7.4) in Minshall's reading (draft-minshall-nagle-01), which is the kernel's too: one small segment may be in flight;
 * full ones do not count, or the tail of each larger message would wait for a delayed acknowledgment.
 */
static bool small_out(const struct shs_tcp *t)
{
    return shs_before(t->snd_una, t->small_end) && shs_upto(t->small_end, t->snd_nxt);
}

/* RFC 9293 section 3.8.6.2.1, with that: worth a segment? */
static bool worth(const struct shs_tcp *t, uint32_t len, bool all, uint32_t mss)
{
    if (len >= mss)
        return true;
    if (t->flags & SHS_TF_FORCE) /* waited long enough */
        return true;
    if (all && !(t->flags & SHS_TF_CORK) && (!small_out(t) || t->flags & SHS_TF_NODELAY))
        return true;
    return !all && len >= t->max_wnd / 2; /* (3): the peer's buffer is small */
}

/*
 * The window counts bytes (RFC 5681), and a network packets: many tiny segments in flight would fill its queues unnoticed. So a segment
 * counts as so many bytes at least. The kernel's window counts packets throughout.
 */
static bool too_many(const struct shs_tcp *t)
{
    return t->segs >= shs_max32(10, t->cwnd / LEAST_CHARGE);
}

/* One new segment; `probe`: of the tail (RFC 8985 section 7.3), whatever the congestion window. */
bool shs_send_new(struct shs_engine *e, struct shs_tcp *t, bool probe)
{
    uint32_t avail = waiting(t), space = window_left(t), mss = effective_mss(t);
    bool fin = t->flags & SHS_TF_FIN_QUEUED && !shs_fin_sent(t);
    bool sized = !probe && shs_pmtu_may_probe(e, t) && shs_min32(avail, space) >= t->mss_goal;
    if (sized)
        mss = t->mss_goal;
    uint32_t len = shs_min32(shs_min32(avail, mss), space);
    fin = fin && len == avail && space > len;
    if ((!len && !fin) || (!fin && !probe && !worth(t, len, len == avail, mss)))
        return false;
    uint32_t pipe = shs_pipe(t);
    if (!probe && pipe && (pipe + len > t->cwnd || too_many(t))) {
        t->flags |= SHS_TF_CWND_LIMITED;
        return false;
    }
    if (!e->w->seg_free) {
        shs_wire_count(e, SHS_WCTR_NO_TXSEG);
        t->timer[SHS_T_LINK] = e->now + SHS_MS;
        return false;
    }
    uint32_t end = t->snd_nxt + len, flags = fin ? SHS_FIN : 0;
    if (len && (end == t->tx_end || (shs_upto(t->push_seq, end) && shs_before(t->snd_nxt, t->push_seq)))) /* section 3.9.1.2 */
        flags |= SHS_PSH;
    if (!shs_emit(e, t, t->snd_nxt, len, flags, false))
        return false;
    if (!shs_flight(t))
        t->first_ns = e->now;
    struct shs_txseg *s = shs_seg_push(e, t, t->snd_nxt, len + (fin ? 1 : 0));
    if (s && (fin || sized))
        shs_seg_flags(t, s, (fin ? SHS_SEG_FIN : 0) | (sized ? SHS_SEG_PROBE : 0), 0);
    if (sized)
        shs_pmtu_probed(e, t);
    if (len && len < mss)
        t->small_end = end;
    shs_store32(&t->snd_nxt, end + (fin ? 1 : 0));
    t->last_sent_ns = e->now;
    t->flags &= ~SHS_TF_FORCE;
    if (!t->timer[SHS_T_RTO])
        shs_rto_arm(e, t); /* RFC 6298 section 5, (5.1) */
    return true;
}

void shs_tcp_output(struct shs_engine *e, struct shs_tcp *t)
{
    if (t->timer[SHS_T_LINK] > e->now)
        return;
    t->timer[SHS_T_LINK] = 0;
    /* RFC 5681 section 4.1: after a pause the window says nothing of the path any more. */
    if (!shs_flight(t) && t->last_sent_ns && e->now - t->last_sent_ns > shs_rto_now(t))
        t->cwnd = shs_min32(t->cwnd, shs_max32(10 * t->mss, 2 * t->mss));
    uint32_t sent = 0;
    t->flags &= ~SHS_TF_CWND_LIMITED;
    send_lost(e, t);
    /* New data only when nothing lost is left over. */
    if (t->lost <= t->retx_out || t->ca == SHS_CA_OPEN)
        while (!t->timer[SHS_T_LINK] && shs_send_new(e, t, false))
            sent++;
    if (sent)
        shs_tlp_arm(e, t);
    if (!(t->flags & SHS_TF_CWND_LIMITED) && shs_pipe(t) >= t->cwnd / 2)
        t->flags |= SHS_TF_CWND_LIMITED; /* as full as slow start needs */
    if (t->flags & SHS_TF_ACK_NOW) /* also where nothing could be sent for want of a record: the peer's are freed by it */
        shs_emit_ack(e, t);
    bool unsent = waiting(t) || (t->flags & SHS_TF_FIN_QUEUED && !shs_fin_sent(t));
    if (!shs_flight(t) && unsent)
        shs_persist_arm(e, t);
    else
        t->timer[SHS_T_PERSIST] = 0;
}
