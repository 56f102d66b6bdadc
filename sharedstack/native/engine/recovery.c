/*
 * What follows from losses: RFC 6675 section 5 with SACK, NewReno (RFC 6582 section 3.2, RFC 5681 section 3.2) without. How much is
 * reduced is CUBIC's; what is sent is output.c's, by pipe and window.
 */
#include "engine/tcp.h"

#define DUP_THRESH 3

void shs_recovery_reduce(struct shs_engine *e, struct shs_tcp *t, uint32_t ca)
{
    (void)e;
    if (t->ca == SHS_CA_OPEN) {
        t->ssthresh = shs_cubic_ssthresh(t);
        t->cwnd = t->ssthresh;
    }
    t->ca = ca;
    t->recover = t->snd_nxt;
}

static void mark_head(struct shs_engine *e, struct shs_tcp *t)
{
    struct shs_txseg *s = shs_seg_at(e, t->seg_head);
    if (s)
        shs_seg_flags(t, s, SHS_SEG_LOST, SHS_SEG_RETX_OUT);
}

/* Without SACK: counts duplicates; true if the first segment is lost. */
static bool reno(struct shs_engine *e, struct shs_tcp *t, const struct shs_acked *a)
{
    if (t->ca == SHS_CA_LOSS)
        return false;
    if (a->duplicate) {
        uint32_t most = t->segs ? t->segs - 1 : 0; /* one of them is missing */
        t->dup_acks = shs_min32(t->dup_acks + 1, most > DUP_THRESH ? most : DUP_THRESH);
    } else if (a->bytes) {
        bool partial = t->ca == SHS_CA_RECOVERY && shs_before(t->snd_una, t->recover);
        if (!partial) {
            t->dup_acks = 0;
            return false;
        }
        /* RFC 6582 section 3.2, step 3: the next hole; the window deflates by what was acknowledged. */
        uint32_t gone = shs_max32(a->bytes / shs_nonzero(t->mss), 1) - 1;
        t->dup_acks -= shs_min32(gone, t->dup_acks);
        mark_head(e, t);
        return true;
    }
    /* Step 2: not for duplicates of what a time-out has sent again. */
    return t->ca != SHS_CA_RECOVERY && t->dup_acks >= DUP_THRESH && shs_before(t->recover, t->snd_una);
}

void shs_recovery_ack(struct shs_engine *e, struct shs_tcp *t, const struct shs_acked *a)
{
    bool sack = t->flags & SHS_TF_SACK, grows = t->ca == SHS_CA_OPEN || t->ca == SHS_CA_LOSS;
    bool lost = sack ? t->lost > 0 : reno(e, t, a);
    if (t->ca != SHS_CA_OPEN && shs_upto(t->recover, t->snd_una)) {
        if (t->ca == SHS_CA_RECOVERY && sack) {
            shs_rack_leave_recovery(t);
        } else if (t->ca == SHS_CA_RECOVERY) { /* RFC 6582 section 3.2, step 3, full acknowledgment, (1): no burst */
            t->cwnd = shs_min32(t->ssthresh, shs_max32(shs_flight(t), t->mss) + t->mss);
        }
        t->ca = SHS_CA_OPEN;
        t->dup_acks = 0;
        lost = sack && t->lost > 0;
    }
    if (lost && (t->ca == SHS_CA_OPEN || t->ca == SHS_CA_CWR)) {
        shs_wire_count(e, SHS_WCTR_FAST_RECOVERY);
        shs_recovery_reduce(e, t, SHS_CA_RECOVERY);
        t->timer[SHS_T_PTO] = 0;
        t->tlp_out = 0;
        if (!sack)
            mark_head(e, t);
        t->flags |= SHS_TF_FORCE; /* RFC 6675 section 5, (4.3): the first goes out whatever the window */
    }
    if (a->bytes && grows && (t->ca == SHS_CA_OPEN || t->ca == SHS_CA_LOSS))
        shs_cubic_grow(e, t, a->bytes);
}
