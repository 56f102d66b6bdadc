/*
 * Timers: a hashed wheel of ticks of 2^WHEEL_TICK_SHIFT ns. A connection is in it once, by the earliest of its deadlines, which are the
 * truth; the wheel is derived from them. Deadlines are exact: a bucket is looked at when its tick has come, and who is not due yet stays.
 */
#include "engine/tcp.h"

static uint32_t bucket_of(uint64_t ns)
{
    return (uint32_t)(ns >> SHS_WHEEL_TICK_SHIFT) % SHS_WHEEL_BUCKETS;
}

void shs_timer_leave(struct shs_engine *e, struct shs_tcp *t)
{
    uint32_t bucket = t->wheel_at - 1;
    if (!t->wheel_at || bucket >= SHS_WHEEL_BUCKETS)
        return;
    struct shs_tcp *next = shs_tcp_at(e, t->wheel_next), *prev = shs_tcp_at(e, t->wheel_prev);
    if (next)
        next->wheel_prev = t->wheel_prev;
    if (prev)
        prev->wheel_next = t->wheel_next;
    else
        e->w->wheel[bucket] = t->wheel_next;
    if (!e->w->wheel[bucket])
        e->w->busy[bucket / 64] &= ~(1ull << bucket % 64);
    t->wheel_at = t->wheel_next = t->wheel_prev = 0;
}

/* Brings the wheel up to what the deadlines of `t` say now. */
void shs_timer_settle(struct shs_engine *e, struct shs_tcp *t)
{
    uint64_t first = UINT64_MAX;
    for (uint32_t i = 0; i < SHS_N_TIMERS; i++)
        if (t->timer[i])
            first = shs_min64(first, t->timer[i]);
    if (t->wheel_at && t->wheel_ns == first)
        return;
    shs_timer_leave(e, t);
    if (first == UINT64_MAX)
        return;
    t->wheel_ns = first;
    /* What is due already goes where the next look begins. */
    uint32_t bucket = bucket_of(shs_max64(first, e->w->tick << SHS_WHEEL_TICK_SHIFT));
    t->wheel_next = e->w->wheel[bucket];
    struct shs_tcp *next = shs_tcp_at(e, t->wheel_next);
    if (next)
        next->wheel_prev = shs_tcp_index(e, t) + 1;
    e->w->wheel[bucket] = shs_tcp_index(e, t) + 1;
    e->w->busy[bucket / 64] |= 1ull << bucket % 64;
    t->wheel_at = bucket + 1;
}

static bool due(const struct shs_engine *e, const struct shs_tcp *t, uint32_t timer)
{
    return t->timer[timer] && t->timer[timer] <= e->now;
}

static enum shs_fate run(struct shs_engine *e, struct shs_tcp *t)
{
    if (due(e, t, SHS_T_WAIT)) {
        t->timer[SHS_T_WAIT] = 0;
        return shs_tcp_end(e, t, 0);
    }
    if (due(e, t, SHS_T_RTO)) {
        t->timer[SHS_T_RTO] = 0;
        if (shs_rto_fire(e, t) == SHS_FREED)
            return SHS_FREED;
    }
    if (due(e, t, SHS_T_PTO)) {
        t->timer[SHS_T_PTO] = 0;
        shs_tlp_fire(e, t);
    }
    if (due(e, t, SHS_T_REO)) { /* RFC 8985 section 6.3 */
        t->timer[SHS_T_REO] = 0;
        struct shs_acked none = {.flight = shs_flight(t)};
        shs_rack_detect(e, t, &none);
        shs_recovery_ack(e, t, &none);
    }
    if (due(e, t, SHS_T_PERSIST)) {
        t->timer[SHS_T_PERSIST] = 0;
        if (shs_persist_fire(e, t) == SHS_FREED)
            return SHS_FREED;
    }
    if (due(e, t, SHS_T_KEEP)) {
        t->timer[SHS_T_KEEP] = 0;
        if (shs_keep_fire(e, t) == SHS_FREED)
            return SHS_FREED;
    }
    if (due(e, t, SHS_T_DELACK)) {
        t->timer[SHS_T_DELACK] = 0;
        t->flags |= SHS_TF_ACK_NOW;
        shs_wire_count(e, SHS_WCTR_DELAYED_ACKS);
    }
    if (due(e, t, SHS_T_LINK))
        t->timer[SHS_T_LINK] = 0;
    if (t->state == SHS_TCP_CLOSED || t->state == SHS_TCP_FREE) {
        memset(t->timer, 0, sizeof t->timer);
        return SHS_LIVES;
    }
    shs_tcp_output(e, t);
    return SHS_LIVES;
}

void shs_engine_timers(struct shs_engine *e)
{
    uint64_t to = e->now >> SHS_WHEEL_TICK_SHIFT, from = e->w->tick;
    if (to < from)
        return;
    if (to - from >= SHS_WHEEL_BUCKETS)
        from = to - SHS_WHEEL_BUCKETS + 1;
    e->w->tick = to; /* first: what is set meanwhile must not go where this loop has been */
    for (uint64_t tick = from; tick <= to; tick++) {
        uint32_t bucket = (uint32_t)(tick % SHS_WHEEL_BUCKETS);
        if (!(e->w->busy[bucket / 64] >> bucket % 64 & 1))
            continue;
        /* Due ones are taken out one by one: what a handler does may change the list. Each is run once in a call. */
        uint32_t at = e->w->wheel[bucket];
        for (uint32_t n = 0; at && n <= e->n.n_tcp; n++) {
            struct shs_tcp *t = shs_tcp_at(e, at);
            if (!t)
                break;
            at = t->wheel_next;
            if (t->wheel_ns > e->now)
                continue;
            shs_timer_leave(e, t);
            if (t->state == SHS_TCP_FREE || (t->state != SHS_TCP_CLOSED && !shs_flow_sane(e, t)))
                continue;
            if (run(e, t) == SHS_LIVES && t->state != SHS_TCP_FREE)
                shs_timer_settle(e, t);
        }
    }
}

uint64_t shs_engine_next(const struct shs_engine *e)
{
    uint64_t first = UINT64_MAX;
    for (uint32_t i = 0; i < SHS_WHEEL_BUCKETS; i++) {
        uint64_t tick = e->w->tick + i;
        uint32_t bucket = (uint32_t)(tick % SHS_WHEEL_BUCKETS);
        if (!(e->w->busy[bucket / 64] >> bucket % 64)) { /* nothing up to the end of this word */
            i += 63 - bucket % 64;
            continue;
        }
        if (!(e->w->busy[bucket / 64] >> bucket % 64 & 1))
            continue;
        uint32_t n = 0;
        for (struct shs_tcp *t = shs_tcp_at(e, e->w->wheel[bucket]); t && n <= e->n.n_tcp; t = shs_tcp_at(e, t->wheel_next), n++)
            first = shs_min64(first, t->wheel_ns);
        if (first >> SHS_WHEEL_TICK_SHIFT <= tick)
            return first;
    }
    return first;
}
