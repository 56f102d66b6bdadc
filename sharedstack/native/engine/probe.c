/*
 * Probes. Of a window that is shut (RFC 9293 section 3.8.6.1), in the kernel's manner: an empty segment with a number that is acknowledged
 * already, which must be answered. Of a peer that is silent (keepalive, section 3.8.4). And the time after which a small segment, or one
 * that is held back by a cork, goes out nevertheless (section 3.8.6.2.1).
 */
#include "engine/tcp.h"

#define OVERRIDE (200 * SHS_MS)

static bool shut(const struct shs_tcp *t)
{
    return !shs_before(t->snd_nxt, t->snd_una + t->snd_wnd);
}

void shs_persist_arm(struct shs_engine *e, struct shs_tcp *t)
{
    if (t->timer[SHS_T_PERSIST])
        return;
    t->timer[SHS_T_PERSIST] = e->now + (shut(t) ? shs_rto_now(t) : OVERRIDE);
    if (shut(t) && !t->first_ns)
        t->first_ns = e->now;
}

enum shs_fate shs_persist_fire(struct shs_engine *e, struct shs_tcp *t)
{
    if (shs_flight(t))
        return SHS_LIVES;
    if (!shut(t)) {
        t->flags |= SHS_TF_FORCE;
        return SHS_LIVES;
    }
    /* A peer that answers is never given up (section 3.8.6.1, MUST-36), but by the program's own limit. */
    if (shs_overdue(e, t, t->probes)) {
        shs_wire_count(e, SHS_WCTR_TIMED_OUT);
        return shs_tcp_end(e, t, ETIMEDOUT);
    }
    shs_wire_count(e, SHS_WCTR_PERSIST);
    if (shs_emit(e, t, t->snd_una - 1, 0, 0, true)) {
        t->probes++;
        t->backoff = shs_min32(t->backoff + 1, 30); /* SHLD-30 */
    }
    shs_persist_arm(e, t);
    return SHS_LIVES;
}

void shs_keep_arm(struct shs_engine *e, struct shs_tcp *t)
{
    (void)e;
    t->timer[SHS_T_KEEP] = t->keep_idle ? t->last_rcvd_ns + t->keep_idle * SHS_MS : 0;
}

enum shs_fate shs_keep_fire(struct shs_engine *e, struct shs_tcp *t)
{
    uint64_t idle = e->now - t->last_rcvd_ns;
    if (!t->keep_idle || t->state == SHS_TCP_TIME_WAIT)
        return SHS_LIVES;
    /* Data in flight or a window being probed: those timers do it. */
    if (shs_flight(t) || t->timer[SHS_T_PERSIST]) {
        t->timer[SHS_T_KEEP] = e->now + t->keep_idle * SHS_MS;
        return SHS_LIVES;
    }
    if (idle < t->keep_idle * SHS_MS) {
        t->keep_sent = 0;
        shs_keep_arm(e, t);
        return SHS_LIVES;
    }
    bool over = t->user_timeout ? t->keep_sent && idle >= t->user_timeout * SHS_MS : t->keep_sent >= t->keep_count;
    if (over) {
        shs_wire_count(e, SHS_WCTR_TIMED_OUT);
        shs_emit_reset(e, t, t->snd_nxt);
        return shs_tcp_end(e, t, t->soft_error ? t->soft_error : ETIMEDOUT);
    }
    if (shs_emit(e, t, t->snd_una - 1, 0, 0, true)) {
        t->keep_sent++;
        shs_wire_count(e, SHS_WCTR_KEEPALIVE);
    }
    t->timer[SHS_T_KEEP] = e->now + shs_max32(t->keep_intvl, 1) * SHS_MS;
    return SHS_LIVES;
}
