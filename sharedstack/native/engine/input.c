/*
 * 1  a packet from the link: which flow is it of
 * 2  a segment of a connection: RFC 9293 section 3.10.7.4, step by step: acceptable? RST? SYN? ACK? then text and FIN
 * 3  what it lets us send goes out, then what must be acknowledged
 */
#include "engine/tcp.h"

static void count_parse(struct shs_engine *e, enum shs_parsed how)
{
    static const uint8_t counters[] = {
        [SHS_PARSE_SHORT] = SHS_WCTR_IN_SHORT,       [SHS_PARSE_SUM] = SHS_WCTR_IN_BAD_SUM,   [SHS_PARSE_FRAGMENT] = SHS_WCTR_IN_FRAGMENT,
        [SHS_PARSE_OPTION] = SHS_WCTR_IN_BAD_OPTION, [SHS_PARSE_OTHER] = SHS_WCTR_IN_NO_FLOW,
    };
    shs_wire_count(e, counters[how]);
}

static void input_tcp(struct shs_engine *e, struct shs_packet *p)
{
    struct shs_segment s;
    enum shs_parsed how = shs_tcp_parse(p, e->link && e->link->is_virtual, &s);
    if (how != SHS_PARSED) {
        count_parse(e, how);
        return;
    }
    if (p->partial)
        shs_wire_count(e, SHS_WCTR_IN_PARTIAL_SUM);
    struct shs_tcp *t = shs_flow_find(e, p, s.sport, s.dport);
    if (!t || t->state == SHS_TCP_CLOSED || t->state == SHS_TCP_FREE) {
        shs_wire_count(e, SHS_WCTR_IN_NO_FLOW);
        return;
    }
    if (!shs_flow_sane(e, t))
        return;
    if (shs_tcp_input(e, t, p, &s) == SHS_FREED)
        return;
    if (t->state != SHS_TCP_CLOSED)
        shs_tcp_output(e, t);
    shs_timer_settle(e, t);
}

void shs_engine_input(struct shs_engine *e, const uint8_t *packet, uint32_t len)
{
    struct shs_packet p;
    shs_wire_count(e, SHS_WCTR_IN_PACKETS);
    enum shs_parsed how = shs_ip_parse(packet, len, &p);
    if (how != SHS_PARSED) {
        count_parse(e, how);
        return;
    }
    switch (p.proto) {
    case SHS_PROTO_TCP:
        input_tcp(e, &p);
        break;
    case SHS_PROTO_UDP:
        shs_udp_input(e, &p);
        break;
    case SHS_PROTO_ICMP:
    case SHS_PROTO_ICMP6:
        shs_icmp_input(e, &p);
        break;
    default:
        shs_wire_count(e, SHS_WCTR_IN_NO_FLOW);
    }
}

/* RFC 9293 section 3.10.7.4, first: the four cases of the acceptability test. */
static bool acceptable(const struct shs_tcp *t, const struct shs_segment *s, uint32_t wnd)
{
    uint32_t len = s->len + (s->flags & SHS_FIN ? 1 : 0) + (s->flags & SHS_SYN ? 1 : 0);
    uint32_t at = s->seq - t->rcv_nxt, last = s->seq + len - 1 - t->rcv_nxt;
    if (!len)
        return wnd ? at < wnd : at == 0;
    return wnd && (at < wnd || last < wnd);
}

/*
 * RFC 5961 section 5.2: an acknowledgment of what was never sent, or older than any window of ours, is not from the peer. What it
 * carries is dropped too.
 */
static bool ack_sensible(const struct shs_tcp *t, const struct shs_segment *s)
{
    return s->ack - (t->snd_una - t->max_wnd) <= t->max_wnd + shs_flight(t);
}

static enum shs_fate reset(struct shs_engine *e, struct shs_tcp *t)
{
    shs_wire_count(e, SHS_WCTR_IN_RST);
    /* RFC 9293 section 3.10.7.4, second; which error is the kernel's choice. */
    uint32_t error = t->state == SHS_TCP_TIME_WAIT ? 0 : t->state == SHS_TCP_CLOSE_WAIT ? EPIPE : ECONNRESET;
    return shs_tcp_end(e, t, error);
}

/* A reset by a peer that has not seen its FIN acknowledged has the FIN's number. The kernel takes it. */
static bool late_reset(const struct shs_tcp *t, const struct shs_segment *s)
{
    bool ended = t->state == SHS_TCP_CLOSE_WAIT || t->state == SHS_TCP_LAST_ACK || t->state == SHS_TCP_CLOSING;
    return s->flags & SHS_RST && ended && s->seq + 1 == t->rcv_nxt;
}

/* RFC 9293 section 3.10.7.4, TIME-WAIT: the peer's FIN again means that it has not seen our ACK. */
static enum shs_fate in_time_wait(struct shs_engine *e, struct shs_tcp *t, const struct shs_segment *s)
{
    if (s->flags & SHS_FIN) {
        t->flags |= SHS_TF_ACK_NOW;
        t->timer[SHS_T_WAIT] = e->now + 60 * SHS_SEC;
        shs_wire_count(e, SHS_WCTR_TIME_WAIT_RESTARTED);
    }
    return SHS_LIVES;
}

enum shs_fate shs_tcp_input(struct shs_engine *e, struct shs_tcp *t, const struct shs_packet *p, const struct shs_segment *s)
{
    uint32_t wnd = shs_receive_offered(t);
    /* RFC 7323 section 5.3, R1: an old timestamp is an old segment; a reset has none that counts. */
    if (!(s->flags & SHS_RST) && shs_paws_rejects(e, t, s)) {
        shs_wire_count(e, SHS_WCTR_PAWS);
        shs_answer_stray(e, t, s);
        return SHS_LIVES;
    }
    if (!acceptable(t, s, wnd)) {
        if (late_reset(t, s))
            return reset(e, t);
        shs_wire_count(e, SHS_WCTR_OUT_OF_WINDOW);
        if (s->flags & SHS_RST)
            return SHS_LIVES;
        if (t->state == SHS_TCP_TIME_WAIT && s->flags & SHS_FIN)
            return in_time_wait(e, t, s);
        if (s->flags & SHS_SYN)
            shs_challenge(e, t); /* RFC 5961 section 4.2: whatever its sequence number */
        else
            shs_answer_stray(e, t, s);
        return SHS_LIVES;
    }
    if (s->flags & SHS_RST) {
        /* RFC 5961 section 3.2: only the exact number resets; another one in the window is asked about. */
        if (s->seq == t->rcv_nxt)
            return reset(e, t);
        shs_challenge(e, t);
        return SHS_LIVES;
    }
    if (s->flags & SHS_SYN) { /* RFC 5961 section 4.2 */
        shs_challenge(e, t);
        return SHS_LIVES;
    }
    if (!(s->flags & SHS_ACK)) /* RFC 9293 section 3.10.7.4, fifth */
        return SHS_LIVES;
    if (!ack_sensible(t, s)) {
        shs_wire_count(e, SHS_WCTR_BAD_ACK);
        shs_challenge(e, t);
        return SHS_LIVES;
    }
    /* RFC 9293 section 3.8.5: urgent data needs the kernel's mark in the stream. The connection is to go there, and gets this when it is sent again. */
    if (s->flags & SHS_URG) {
        t->flags |= SHS_TF_URGENT;
        shs_wake(e, t);
        return SHS_LIVES;
    }
    t->last_rcvd_ns = e->now;
    t->keep_sent = 0;
    shs_ts_note(e, t, s);
    shs_ecn_receive(e, t, p, s);
    if (shs_ack_input(e, t, s) == SHS_FREED)
        return SHS_FREED;
    if (t->state == SHS_TCP_CLOSED)
        return SHS_LIVES;
    if (t->state == SHS_TCP_TIME_WAIT)
        return in_time_wait(e, t, s);
    bool had_fin = shs_fin_in(t);
    /* Nobody will read what comes: the peer is told (RFC 9293 section 3.6.1 with 3.10.7.1: as for a connection that is no more). */
    if (s->len && t->flags & SHS_TF_RX_CLOSED && shs_before(t->rcv_nxt, s->seq + s->len)) {
        shs_wire_count(e, SHS_WCTR_RX_AFTER_CLOSE);
        shs_emit_reset(e, t, t->snd_nxt);
        return shs_tcp_end(e, t, ECONNRESET);
    }
    if (s->len || s->flags & SHS_FIN)
        shs_receive(e, t, s);
    if (!had_fin && shs_fin_in(t))
        return shs_peer_fin(e, t);
    return SHS_LIVES;
}
