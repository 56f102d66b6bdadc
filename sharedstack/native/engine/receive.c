/*
 * What has arrived: trimmed to the window, put in its place in the queue whatever its turn (a tiny segment costs its bytes, no more), and
 * handed on in order (RFC 9293 section 3.10.7.4, seventh). Windows that are worth it (section 3.8.6.2.2), acknowledgments that are due
 * (RFC 5681 section 4.2).
 */
#include "engine/tcp.h"

#define DELAYED_ACK (40 * SHS_MS) /* the kernel's; at most half a second (RFC 9293 section 3.8.6.3) */

static uint32_t limit(const struct shs_tcp *t)
{
    return shs_min32(t->rx_limit, t->rx_size);
}

/* Right edge that there would be room for. (Shifts are bounded where they are used: a record may change at any time.) */
static uint32_t edge(const struct shs_tcp *t)
{
    uint32_t unread = shs_unread(t), room = limit(t) > unread ? limit(t) - unread : 0;
    return t->rcv_nxt + shs_min32(room, 65535u << (t->rcv_scale & 15));
}

/* What is taken, whatever units the peer was told it in. */
uint32_t shs_receive_offered(const struct shs_tcp *t)
{
    return shs_before(t->rcv_nxt, t->rcv_adv) ? t->rcv_adv - t->rcv_nxt : 0;
}

/*
 * What the peer is told, in its units. Rounded down: the edge that it sees may go back by less than one unit, which every sender must bear (RFC 7323
 * section 2.4), and nothing that it was ever allowed to send is refused. (Rounded up, a last bit would be refused, and the sender would be left with
 * a segment to be sent again, after a time-out, when the window opens.)
 */
static uint32_t in_units(const struct shs_tcp *t)
{
    return shs_min32(shs_receive_offered(t) >> (t->rcv_scale & 15), 65535);
}

/* The window field of what is sent now. The right edge moves by a segment or half the buffer at least, and never back. */
uint32_t shs_receive_window(struct shs_tcp *t)
{
    uint32_t to = edge(t);
    if (shs_before(t->rcv_adv, t->rcv_nxt))
        t->rcv_adv = t->rcv_nxt;
    if (shs_before(t->rcv_adv, to) && to - t->rcv_adv >= shs_min32(limit(t) / 2, t->rx_seen))
        t->rcv_adv = to;
    return in_units(t);
}

/* After a read: is there enough that is new to send an ACK for it alone? */
bool shs_receive_wants_update(const struct shs_tcp *t)
{
    uint32_t to = edge(t);
    if (shs_fin_in(t) || !shs_before(t->rcv_adv, to))
        return false;
    return to - t->rcv_adv >= shs_min32(limit(t) / 2, shs_max32(2 * t->rx_seen, limit(t) / 4));
}

/* Adds a range, joined with what it touches; false: too many gaps. */
static bool add_range(struct shs_tcp *t, uint32_t from, uint32_t to, bool *nothing_new)
{
    uint32_t n = shs_min32(t->n_ooo, SHS_N_OOO), at = 0;
    while (at < n && shs_before(t->ooo_to[at], from))
        at++;
    uint32_t last = at;
    if (at < n && shs_upto(t->ooo_from[at], from) && shs_upto(to, t->ooo_to[at])) {
        *nothing_new = true;
        t->ooo_last = at;
        return true;
    }
    while (last < n && shs_upto(t->ooo_from[last], to)) {
        from = shs_earlier(from, t->ooo_from[last]);
        to = shs_later(to, t->ooo_to[last]);
        last++;
    }
    if (last == at) { /* a new one */
        if (n == SHS_N_OOO)
            return false;
        memmove(t->ooo_from + at + 1, t->ooo_from + at, (n - at) * sizeof *t->ooo_from);
        memmove(t->ooo_to + at + 1, t->ooo_to + at, (n - at) * sizeof *t->ooo_to);
        t->n_ooo = n + 1;
    } else {
        memmove(t->ooo_from + at + 1, t->ooo_from + last, (n - last) * sizeof *t->ooo_from);
        memmove(t->ooo_to + at + 1, t->ooo_to + last, (n - last) * sizeof *t->ooo_to);
        t->n_ooo = n - (last - at) + 1;
    }
    t->ooo_from[at] = from;
    t->ooo_to[at] = to;
    t->ooo_last = at;
    return true;
}

/* rcv_nxt has moved: ranges that have become in order. */
static void take_ranges(struct shs_tcp *t)
{
    uint32_t n = shs_min32(t->n_ooo, SHS_N_OOO), gone = 0;
    while (gone < n && shs_upto(t->ooo_from[gone], t->rcv_nxt)) {
        shs_store32(&t->rcv_nxt, shs_later(t->rcv_nxt, t->ooo_to[gone]));
        gone++;
    }
    if (!gone)
        return;
    memmove(t->ooo_from, t->ooo_from + gone, (n - gone) * sizeof *t->ooo_from);
    memmove(t->ooo_to, t->ooo_to + gone, (n - gone) * sizeof *t->ooo_to);
    t->n_ooo = n - gone;
    t->ooo_last = t->ooo_last >= gone ? t->ooo_last - gone : 0;
}

static void duplicate(struct shs_engine *e, struct shs_tcp *t, uint32_t from, uint32_t to)
{
    if (t->flags & SHS_TF_SACK) { /* RFC 2883 section 4 */
        t->dsack_from = from;
        t->dsack_to = to;
    }
    t->flags |= SHS_TF_ACK_NOW;
    shs_wire_count(e, SHS_WCTR_DUP_DATA);
}

static void place(struct shs_engine *e, struct shs_tcp *t, uint32_t seq, const uint8_t *data, uint32_t len)
{
    if (seq == t->rcv_nxt) {
        shs_queue_put(e, t->rx_off, t->rx_size, seq + t->rx_bias, data, len);
        shs_store32(&t->rcv_nxt, t->rcv_nxt + len); /* published by this */
        shs_wake(e, t);
        t->unacked += len;
        if (t->n_ooo) {
            take_ranges(t);
            t->flags |= SHS_TF_ACK_NOW; /* RFC 5681 section 4.2: it fills a gap */
        }
        /* At least every second full-sized segment. */
        if (t->unacked >= 2 * t->rx_seen || t->unacked > limit(t) / 2)
            t->flags |= SHS_TF_ACK_NOW;
        else if (!t->timer[SHS_T_DELACK])
            t->timer[SHS_T_DELACK] = e->now + DELAYED_ACK;
        return;
    }
    bool nothing_new = false;
    t->flags |= SHS_TF_ACK_NOW; /* RFC 5681 section 4.2: at once, so that the sender learns of the gap */
    if (!add_range(t, seq, seq + len, &nothing_new)) {
        shs_wire_count(e, SHS_WCTR_OOO_FULL);
        return;
    }
    if (nothing_new) {
        duplicate(e, t, seq, seq + len);
        return;
    }
    shs_queue_put(e, t->rx_off, t->rx_size, seq + t->rx_bias, data, len);
    shs_wire_count(e, SHS_WCTR_OOO);
    t->stat_ooo++;
}

void shs_receive(struct shs_engine *e, struct shs_tcp *t, const struct shs_segment *s)
{
    uint32_t seq = s->seq, len = s->len, end = seq + len;
    const uint8_t *data = s->data;
    /* Not more than a segment: several that a device has joined must not make acknowledgments rare. */
    t->rx_seen = shs_max32(t->rx_seen, shs_min32(shs_min32(len, t->mss_peer), t->rx_size));
    if (shs_before(seq, t->rcv_nxt)) { /* its begin was here before */
        uint32_t old = shs_min32(t->rcv_nxt - seq, len);
        if (old)
            duplicate(e, t, seq, seq + old);
        seq += old;
        data += old;
        len -= old;
    }
    /* Behind the peer's FIN, if it is known, there is nothing (RFC 9293 section 3.10.7.4, seventh), and no room behind our queue. */
    uint32_t most = t->rx_read + t->rx_size;
    bool fin = s->flags & SHS_FIN;
    if (t->flags & SHS_TF_FIN_HELD) {
        most = shs_earlier(most, t->fin_seq);
        fin = false;
    }
    if (shs_before(most, end)) {
        len = shs_before(seq, most) ? shs_min32(len, most - seq) : 0;
        fin = false;
        t->flags |= SHS_TF_ACK_NOW;
    }
    uint32_t highest = t->n_ooo ? t->ooo_to[shs_min32(t->n_ooo, SHS_N_OOO) - 1] : t->rcv_nxt;
    if (fin && !shs_before(end, highest)) {
        t->fin_seq = end;
        shs_store32(&t->flags, t->flags | SHS_TF_FIN_HELD | SHS_TF_ACK_NOW);
    }
    if (len)
        place(e, t, seq, data, len);
    if (t->flags & SHS_TF_FIN_HELD && t->rcv_nxt == t->fin_seq) {
        shs_store32(&t->rcv_nxt, t->rcv_nxt + 1);
        shs_wake(e, t);
    }
}

/*
 * The part of the queue that is offered grows while the program reads in a round trip more than half of it (Fisk and Feng: dynamic
 * right-sizing). The round trip is the time in which a window's bytes arrive, if there is no better one.
 */
void shs_receive_tune(struct shs_engine *e, struct shs_tcp *t, uint32_t read)
{
    t->tune_read += read;
    uint64_t rtt = t->srtt ? t->srtt : 10 * SHS_MS;
    if (e->now - t->tune_ns < rtt)
        return;
    if (t->tune_read > t->rx_limit / 2 && t->rx_limit < t->rx_size) {
        t->rx_limit = shs_min32(t->rx_size, t->rx_limit * 2);
        shs_wire_count(e, SHS_WCTR_RX_TUNED);
    }
    t->tune_read = 0;
    t->tune_ns = e->now;
}
