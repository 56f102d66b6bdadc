/* Explicit congestion notification (RFC 3168). That it was agreed upon is in the image (TF_ECN). */
#include "engine/tcp.h"

/* Section 6.1.3: congestion is echoed until the peer says that it has reduced. */
void shs_ecn_receive(struct shs_engine *e, struct shs_tcp *t, const struct shs_packet *p, const struct shs_segment *s)
{
    if (!(t->flags & SHS_TF_ECN))
        return;
    if (s->flags & SHS_CWR)
        t->flags &= ~SHS_TF_ECE;
    if (p->ecn == SHS_ECN_CE && s->len) {
        shs_wire_count(e, SHS_WCTR_ECN_CE);
        t->flags |= SHS_TF_ECE | SHS_TF_ACK_NOW;
    }
}

/* Section 6.1.2: as a loss, at most once in a window of data. */
void shs_ecn_ack(struct shs_engine *e, struct shs_tcp *t, const struct shs_segment *s)
{
    if (!(t->flags & SHS_TF_ECN) || !(s->flags & SHS_ECE) || shs_before(t->snd_una, t->cwr_seq) || !shs_flight(t))
        return;
    t->cwr_seq = t->snd_nxt;
    if (t->ca != SHS_CA_OPEN)
        return; /* reduced already, in this window */
    shs_wire_count(e, SHS_WCTR_ECN_REDUCED);
    shs_recovery_reduce(e, t, SHS_CA_CWR);
    t->flags |= SHS_TF_CWR;
}

/* The bits of IP: ECT(0) on new data only (section 6.1.4: not on ACKs, 6.1.5: not on what is sent again). Adds ECE and CWR. */
uint32_t shs_ecn_send(struct shs_tcp *t, struct shs_segment *s, bool again)
{
    if (!(t->flags & SHS_TF_ECN))
        return SHS_ECN_NONE;
    if (t->flags & SHS_TF_ECE)
        s->flags |= SHS_ECE;
    if (!s->len || again)
        return SHS_ECN_NONE;
    if (t->flags & SHS_TF_CWR) {
        s->flags |= SHS_CWR;
        t->flags &= ~SHS_TF_CWR;
    }
    return SHS_ECN_ECT0;
}
