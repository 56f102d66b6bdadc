/*
 * Segments in flight: a list, in order of sequence numbers, that covers snd_una to snd_nxt without a gap, and the sums of what is marked.
 * All of it is derived: shs_seg_cover makes it anew, everything lost.
 */
#include "engine/tcp.h"

static void account(struct shs_tcp *t, const struct shs_txseg *s, uint32_t sign)
{
    if (s->flags & SHS_SEG_SACKED) {
        t->sacked += sign * s->len;
        return;
    }
    if (s->flags & SHS_SEG_LOST)
        t->lost += sign * s->len;
    if (s->flags & SHS_SEG_RETX_OUT)
        t->retx_out += sign * s->len;
}

/* RFC 6675 section 4, SetPipe: what is neither SACKed nor lost is in flight, and so is what was sent again. */
uint32_t shs_pipe(const struct shs_tcp *t)
{
    uint32_t gone = t->sacked + t->lost;
    uint32_t flight = shs_flight(t) + t->retx_out;
    /* Without SACK each duplicate says that one segment has left (RFC 5681 section 3.2, steps 3 and 4). */
    if (!(t->flags & SHS_TF_SACK))
        gone += t->dup_acks * t->mss;
    return flight > gone ? flight - gone : 0;
}

static struct shs_txseg *take(struct shs_engine *e)
{
    struct shs_txseg *s = shs_seg_at(e, e->w->seg_free);
    if (!s) {
        shs_wire_count(e, SHS_WCTR_NO_TXSEG);
        return NULL;
    }
    e->w->seg_free = s->next;
    e->w->seg_used++;
    return s;
}

static void give(struct shs_engine *e, struct shs_txseg *s)
{
    s->next = e->w->seg_free;
    e->w->seg_free = (uint32_t)(s - e->seg) + 1;
    e->w->seg_used--;
}

struct shs_txseg *shs_seg_push(struct shs_engine *e, struct shs_tcp *t, uint32_t seq, uint32_t len)
{
    struct shs_txseg *s = take(e);
    if (!s)
        return NULL;
    *s = (struct shs_txseg){.sent_ns = e->now, .seq = seq, .len = len, .times = 1};
    uint32_t at = (uint32_t)(s - e->seg) + 1;
    struct shs_txseg *tail = shs_seg_at(e, t->seg_tail);
    if (tail)
        tail->next = at;
    else
        t->seg_head = at;
    t->seg_tail = at;
    t->segs++;
    return s;
}

/* The first `len` of it stay in it, the rest is a record of its own behind it. */
bool shs_seg_split(struct shs_engine *e, struct shs_tcp *t, struct shs_txseg *s, uint32_t len)
{
    if (len == 0 || len >= s->len)
        return false;
    struct shs_txseg *rest = take(e);
    if (!rest)
        return false;
    *rest = *s;
    rest->seq += len;
    rest->len -= len;
    s->len = len;
    s->flags &= ~SHS_SEG_FIN;
    uint32_t at = (uint32_t)(rest - e->seg) + 1;
    s->next = at;
    if (!rest->next)
        t->seg_tail = at;
    t->segs++;
    return true;
}

/* Joins to `s` what follows it and is lost too, up to `most` bytes: small segments that were lost are one when they are sent again. */
void shs_seg_join(struct shs_engine *e, struct shs_tcp *t, struct shs_txseg *s, uint32_t most)
{
    const uint32_t apart = SHS_SEG_SACKED | SHS_SEG_RETX_OUT;
    for (;;) {
        struct shs_txseg *next = shs_seg_at(e, s->next);
        if (!next || !(s->flags & next->flags & SHS_SEG_LOST) || (s->flags | next->flags) & apart || s->flags & SHS_SEG_FIN)
            return;
        uint32_t fin = next->flags & SHS_SEG_FIN;
        if (s->len + next->len - (fin ? 1 : 0) > most)
            return;
        s->len += next->len;
        s->flags |= fin;
        s->next = next->next;
        if (!s->next)
            t->seg_tail = (uint32_t)(s - e->seg) + 1;
        t->segs--;
        give(e, next);
    }
}

void shs_seg_pop(struct shs_engine *e, struct shs_tcp *t)
{
    struct shs_txseg *s = shs_seg_at(e, t->seg_head);
    if (!s)
        return;
    account(t, s, -1u);
    t->seg_head = s->next;
    if (!s->next)
        t->seg_tail = 0;
    t->segs--;
    give(e, s);
}

/* Its first `by` are acknowledged. */
void shs_seg_trim(struct shs_tcp *t, struct shs_txseg *s, uint32_t by)
{
    account(t, s, -1u);
    s->seq += by;
    s->len -= by;
    account(t, s, 1);
}

void shs_seg_flags(struct shs_tcp *t, struct shs_txseg *s, uint32_t set, uint32_t clear)
{
    account(t, s, -1u);
    s->flags = (s->flags & ~clear) | set;
    account(t, s, 1);
}

void shs_seg_drop_all(struct shs_engine *e, struct shs_tcp *t)
{
    for (uint32_t i = 0; t->seg_head && i <= e->n.n_seg; i++) {
        if (!shs_seg_at(e, t->seg_head))
            break;
        shs_seg_pop(e, t);
    }
    t->seg_head = t->seg_tail = t->segs = t->sacked = t->lost = t->retx_out = 0;
}

/*
 * What is between snd_una and snd_nxt, in segments of mss, all lost. Where there are not enough records the last one is long, and split when it
 * is sent again; false: there is none at all, and snd_nxt goes back.
 */
bool shs_seg_cover(struct shs_engine *e, struct shs_tcp *t)
{
    t->seg_head = t->seg_tail = t->segs = t->sacked = t->lost = t->retx_out = 0;
    uint32_t seq = t->snd_una;
    while (shs_before(seq, t->snd_nxt)) {
        bool fin = t->flags & SHS_TF_FIN_QUEUED && t->tx_end == t->snd_nxt - 1;
        uint32_t len = shs_min32(t->mss, t->snd_nxt - seq - (fin ? 1 : 0));
        bool last = fin && seq + len == t->tx_end;
        struct shs_txseg *s = shs_seg_push(e, t, seq, len + (last ? 1 : 0));
        if (!s && (s = shs_seg_at(e, t->seg_tail)) != NULL) {
            shs_seg_flags(t, s, 0, SHS_SEG_LOST);
            s->len += t->snd_nxt - seq;
            shs_seg_flags(t, s, SHS_SEG_LOST | (fin ? SHS_SEG_FIN : 0), 0);
            return true;
        }
        if (!s) {
            t->snd_nxt = seq;
            return false;
        }
        shs_seg_flags(t, s, SHS_SEG_LOST | SHS_SEG_RETRANS | (last ? SHS_SEG_FIN : 0), 0);
        seq += s->len;
    }
    return true;
}
