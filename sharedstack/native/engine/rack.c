/* RACK-TLP (RFC 8985): loss by the time at which segments were sent, and a probe of the tail. With SACK only. */
#include "engine/tcp.h"

#define REO_PERSIST 16
#define MAX_ACK_DELAY (40 * SHS_MS) /* of the kernel's delayed ACK */
#define DUP_THRESH 3

static bool sent_after(uint64_t ns, uint32_t end, uint64_t ns2, uint32_t end2)
{
    return ns > ns2 || (ns == ns2 && shs_before(end2, end));
}

/* Section 6.2, steps 1 to 3, for a segment that has just been acknowledged or SACKed. Segments come in order of sequence numbers. */
void shs_rack_delivered(struct shs_engine *e, struct shs_tcp *t, const struct shs_txseg *s)
{
    uint64_t rtt = shs_max64(e->now - s->sent_ns, 1);
    uint32_t end = s->seq + s->len;
    if (s->flags & SHS_SEG_RETRANS) {
        if (rtt < t->min_rtt) /* step 2: the acknowledgment is of the first one sent */
            return;
    } else if (shs_before(end, t->fack)) {
        t->flags |= SHS_TF_REORDERED; /* step 3 */
    }
    t->fack = shs_later(t->fack, end);
    t->rack_rtt = rtt;
    if (!t->rack_ns || sent_after(s->sent_ns, end, t->rack_ns, t->rack_end)) {
        t->rack_ns = s->sent_ns;
        t->rack_end = end;
    }
}

/* Section 6.2, step 4. */
static uint64_t window(const struct shs_engine *e, const struct shs_tcp *t)
{
    if (!(t->flags & SHS_TF_REORDERED)) {
        uint32_t sacked = 0, n = 0;
        if (t->ca == SHS_CA_RECOVERY || t->ca == SHS_CA_LOSS)
            return 0;
        for (struct shs_txseg *s = shs_seg_at(e, t->seg_head); s && n <= e->n.n_seg; s = shs_seg_at(e, s->next), n++)
            sacked += s->flags & SHS_SEG_SACKED ? 1 : 0;
        if (sacked >= DUP_THRESH)
            return 0;
    }
    return shs_min64(t->reo_mult * (t->min_rtt / 4), t->srtt);
}

static void widen(struct shs_tcp *t, const struct shs_acked *a)
{
    if (!a->dsack || shs_before(t->snd_una, t->dsack_seq)) /* once in a round trip */
        return;
    t->dsack_seq = t->snd_nxt;
    t->reo_mult = shs_min32(t->reo_mult + 1, 64);
    t->reo_persist = REO_PERSIST;
}

void shs_rack_leave_recovery(struct shs_tcp *t)
{
    if (t->reo_persist && --t->reo_persist == 0)
        t->reo_mult = 1;
}

/* Section 6.2, step 5: lost is what was sent a round trip and the reordering window before the latest that has arrived. */
void shs_rack_detect(struct shs_engine *e, struct shs_tcp *t, const struct shs_acked *a)
{
    widen(t, a);
    t->timer[SHS_T_REO] = 0;
    if (!(t->flags & SHS_TF_SACK) || !t->rack_ns)
        return;
    uint64_t reo = window(e, t), wait = 0;
    uint32_t n = 0;
    for (struct shs_txseg *s = shs_seg_at(e, t->seg_head); s && n <= e->n.n_seg; s = shs_seg_at(e, s->next), n++) {
        if (s->flags & SHS_SEG_SACKED || (s->flags & SHS_SEG_LOST && !(s->flags & SHS_SEG_RETX_OUT)))
            continue;
        if (!sent_after(t->rack_ns, t->rack_end, s->sent_ns, s->seq + s->len))
            continue;
        uint64_t due = s->sent_ns + t->rack_rtt + reo;
        if (due <= e->now) {
            shs_seg_flags(t, s, SHS_SEG_LOST, SHS_SEG_RETX_OUT);
            shs_wire_count(e, SHS_WCTR_RACK_LOST);
        } else {
            wait = shs_max64(wait, due);
        }
    }
    t->timer[SHS_T_REO] = wait;
}

/* Section 7.2: when new data was sent, or an acknowledgment brought news. */
void shs_tlp_arm(struct shs_engine *e, struct shs_tcp *t)
{
    t->timer[SHS_T_PTO] = 0;
    if (!(t->flags & SHS_TF_SACK) || t->tlp_out || t->sacked || !shs_flight(t) || t->ca == SHS_CA_RECOVERY || t->ca == SHS_CA_LOSS)
        return;
    uint64_t pto = SHS_SEC;
    if (t->srtt)
        pto = 2 * t->srtt + (t->segs == 1 ? MAX_ACK_DELAY : 0);
    pto = shs_max64(pto, 2 * SHS_MS); /* below that the peer's scheduling decides, not the path */
    uint64_t at = e->now + pto;
    if (t->timer[SHS_T_RTO])
        at = shs_min64(at, t->timer[SHS_T_RTO]);
    t->timer[SHS_T_PTO] = at;
}

/* Section 7.3: new data if there is some and the window allows, else the last segment again. */
void shs_tlp_fire(struct shs_engine *e, struct shs_tcp *t)
{
    if (!shs_flight(t) || t->tlp_out || t->ca == SHS_CA_RECOVERY || t->ca == SHS_CA_LOSS)
        return;
    shs_wire_count(e, SHS_WCTR_TLP);
    t->flags &= ~SHS_TF_TLP_RETX;
    if (!shs_send_new(e, t, true)) {
        struct shs_txseg *s = shs_seg_at(e, t->seg_tail);
        if (!s || !shs_retransmit(e, t, s))
            return;
        t->flags |= SHS_TF_TLP_RETX;
    }
    t->tlp_out = 1;
    t->tlp_seq = t->snd_nxt;
    shs_rto_arm(e, t);
    t->timer[SHS_T_PTO] = 0;
}

/* Section 7.4: did the probe repair a loss that nobody would hear of otherwise? */
void shs_tlp_ack(struct shs_engine *e, struct shs_tcp *t, const struct shs_segment *s, const struct shs_acked *a)
{
    if (!t->tlp_out || shs_before(s->ack, t->tlp_seq))
        return;
    bool retx = t->flags & SHS_TF_TLP_RETX;
    if (!retx || (a->dsack && a->dsack_to == t->tlp_seq)) {
        t->tlp_out = 0;
    } else if (shs_before(t->tlp_seq, s->ack)) { /* step 2: beyond the probe, and no word of a duplicate */
        t->tlp_out = 0;
        shs_recovery_reduce(e, t, SHS_CA_CWR);
    } else if (!a->bytes && !a->has_sack && !s->len) { /* step 3: both copies arrived */
        t->tlp_out = 0;
    }
}
