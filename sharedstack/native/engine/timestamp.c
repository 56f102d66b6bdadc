/* Timestamps (RFC 7323): the clock, protection against wrapped sequence numbers (section 5), round trips (section 4). */
#include "engine/tcp.h"

static uint64_t unit(const struct shs_tcp *t)
{
    return t->ts_usec ? 1000 : SHS_MS;
}

uint32_t shs_ts_now(const struct shs_engine *e, const struct shs_tcp *t)
{
    return (uint32_t)(e->now / unit(t)) + t->ts_off;
}

/* Section 5.3, R1. A segment without a timestamp passes, as with the kernel (the RFC would drop it: section 3.2). */
bool shs_paws_rejects(const struct shs_engine *e, const struct shs_tcp *t, const struct shs_segment *s)
{
    if (!(t->flags & SHS_TF_TS) || !s->ts || !shs_before(s->tsval, t->ts_recent))
        return false;
    return e->now - t->ts_recent_ns < SHS_PAWS_IDLE; /* after 24 days ts_recent says nothing */
}

/* Section 4.3 (2): of what lies where the next acknowledgment begins, so that delayed ACKs echo the earliest. */
void shs_ts_note(struct shs_engine *e, struct shs_tcp *t, const struct shs_segment *s)
{
    if (!(t->flags & SHS_TF_TS) || !s->ts || !shs_upto(s->seq, t->acked_to))
        return;
    if (shs_before(s->tsval, t->ts_recent) && e->now - t->ts_recent_ns < SHS_PAWS_IDLE)
        return;
    t->ts_recent = s->tsval;
    t->ts_recent_ns = e->now;
}

/* Section 4.1: of use for segments that were sent more than once (Karn's problem). 0: none. */
uint64_t shs_ts_rtt(const struct shs_engine *e, const struct shs_tcp *t, const struct shs_segment *s)
{
    if (!(t->flags & SHS_TF_TS) || !s->ts)
        return 0;
    uint32_t ticks = shs_ts_now(e, t) - s->tsecr;
    return ticks > 0x7fffffff ? 0 : shs_max64(ticks, 1) * unit(t);
}
