/*
 * States (RFC 9293 section 3.3.2). They follow from four facts, each of which is one sequence number: our FIN is queued, it is
 * acknowledged, the peer's has come, and who was first.
 */
#include "engine/tcp.h"

#define TIME_WAIT (60 * SHS_SEC) /* the kernel's; 2 MSL of RFC 9293 section 3.4.2 would be four minutes */

void shs_time_wait(struct shs_engine *e, struct shs_tcp *t)
{
    t->state = SHS_TCP_TIME_WAIT;
    memset(t->timer, 0, sizeof t->timer);
    t->timer[SHS_T_WAIT] = e->now + TIME_WAIT;
}

/* The connection is no more; its record stays until the program gives it back. */
enum shs_fate shs_tcp_end(struct shs_engine *e, struct shs_tcp *t, uint32_t error)
{
    if (error && !t->error)
        t->error = error;
    shs_store32(&t->state, SHS_TCP_CLOSED); /* the rest is derived from this */
    memset(t->timer, 0, sizeof t->timer);
    shs_timer_leave(e, t);
    shs_seg_drop_all(e, t);
    t->n_ooo = 0;
    shs_wake(e, t);
    if (!(t->flags & SHS_TF_ORPHAN))
        return SHS_LIVES;
    shs_flow_free(e, t);
    return SHS_FREED;
}

/* RFC 9293 section 3.10.7.4, eighth: the peer's FIN has become in order. */
enum shs_fate shs_peer_fin(struct shs_engine *e, struct shs_tcp *t)
{
    shs_wake(e, t);
    t->flags |= SHS_TF_ACK_NOW;
    switch (t->state) {
    case SHS_TCP_ESTABLISHED:
        t->state = SHS_TCP_CLOSE_WAIT;
        break;
    case SHS_TCP_FIN_WAIT_1: /* ours is not acknowledged: that was looked at before */
        t->state = SHS_TCP_CLOSING;
        break;
    case SHS_TCP_FIN_WAIT_2:
        shs_time_wait(e, t);
        break;
    default:
        break;
    }
    return SHS_LIVES;
}

/* RFC 9293 section 3.10.7.4, fifth. */
enum shs_fate shs_own_fin_acked(struct shs_engine *e, struct shs_tcp *t)
{
    shs_wake(e, t);
    switch (t->state) {
    case SHS_TCP_FIN_WAIT_1:
        t->state = SHS_TCP_FIN_WAIT_2;
        if (t->flags & SHS_TF_ORPHAN) /* nobody would close it */
            t->timer[SHS_T_WAIT] = e->now + t->linger * SHS_MS;
        break;
    case SHS_TCP_CLOSING:
        shs_time_wait(e, t);
        break;
    case SHS_TCP_LAST_ACK:
        return shs_tcp_end(e, t, 0);
    default:
        break;
    }
    return SHS_LIVES;
}

/* After a death in the middle of a step: the state that the facts say. */
void shs_state_fix(struct shs_tcp *t)
{
    bool in = shs_fin_in(t), first = t->state == SHS_TCP_FIN_WAIT_1 || t->state == SHS_TCP_CLOSING || t->state == SHS_TCP_FIN_WAIT_2;
    if (t->state == SHS_TCP_TIME_WAIT || t->state == SHS_TCP_CLOSED)
        return;
    if (!(t->flags & SHS_TF_FIN_QUEUED))
        t->state = in ? SHS_TCP_CLOSE_WAIT : SHS_TCP_ESTABLISHED;
    else if (!shs_fin_acked(t))
        t->state = !in ? SHS_TCP_FIN_WAIT_1 : first ? SHS_TCP_CLOSING : SHS_TCP_LAST_ACK;
    else
        t->state = !in ? SHS_TCP_FIN_WAIT_2 : first ? SHS_TCP_TIME_WAIT : SHS_TCP_CLOSED;
}
