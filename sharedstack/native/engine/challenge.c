/* Answers to what is not in order: challenge ACKs (RFC 5961), with a limit for all (section 7), and one for each connection. */
#include "engine/tcp.h"

#define CHALLENGES_A_SECOND 1000
#define STRAY_INTERVAL (SHS_SEC / 2)

/* RFC 5961 section 7 (ACK throttling): the count begins anew each second, at a number that nobody can guess. */
void shs_challenge(struct shs_engine *e, struct shs_tcp *t)
{
    struct shs_wire *w = e->w;
    if (e->now - w->challenge_ns >= SHS_SEC || !w->challenge_ns) {
        w->challenge_ns = shs_max64(e->now, 1);
        w->challenges = (uint32_t)(shs_engine_random(e) % (CHALLENGES_A_SECOND / 2));
    }
    if (w->challenges >= CHALLENGES_A_SECOND) {
        shs_wire_count(e, SHS_WCTR_CHALLENGE_LIMITED);
        return;
    }
    w->challenges++;
    shs_wire_count(e, SHS_WCTR_CHALLENGE_ACKS);
    shs_emit_ack(e, t);
}

/*
 * RFC 9293 section 3.10.7.4, first: what is not acceptable is answered by an ACK. Data always is: its sender has lost our ACK. Empty
 * segments at most every half second, or two ends that disagree would answer each other for ever.
 */
void shs_answer_stray(struct shs_engine *e, struct shs_tcp *t, const struct shs_segment *s)
{
    uint32_t interval = (uint32_t)(e->now / STRAY_INTERVAL) + 1;
    if (!s->len && !(s->flags & SHS_FIN)) {
        if (t->ack_limit_tick == interval && t->ack_limit >= 2) {
            shs_wire_count(e, SHS_WCTR_CHALLENGE_LIMITED);
            return;
        }
        t->ack_limit = t->ack_limit_tick == interval ? t->ack_limit + 1 : 1;
        t->ack_limit_tick = interval;
    } else if (s->len && t->flags & SHS_TF_SACK && shs_before(s->seq, t->rcv_nxt)) {
        /* RFC 2883 section 4: a whole segment that was here before. */
        t->dsack_from = s->seq;
        t->dsack_to = shs_earlier(s->seq + s->len, t->rcv_nxt);
        shs_wire_count(e, SHS_WCTR_DUP_DATA);
    }
    t->flags |= SHS_TF_ACK_NOW;
}
