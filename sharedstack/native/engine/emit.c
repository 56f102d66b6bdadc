/* One segment, built where the link says, with the acknowledgment, window, timestamp and SACK blocks of this moment. */
#include "engine/tcp.h"

#define LINK_AGAIN SHS_MS

static bool emit(struct shs_engine *e, struct shs_tcp *t, struct shs_segment *s, bool again)
{
    struct shs_packet p = {.family = t->family};
    uint32_t ip = shs_ip_header(t->family), head = ip + SHS_TCP_HEADER + shs_tcp_options_size(s);
    uint8_t *b = e->link->room(e->link->dev, head + s->len);
    if (!b) {
        shs_wire_count(e, SHS_WCTR_OUT_NO_ROOM);
        t->timer[SHS_T_LINK] = e->now + LINK_AGAIN;
        return false;
    }
    memcpy(p.src, t->laddr, 16);
    memcpy(p.dst, t->raddr, 16);
    p.ecn = shs_ecn_send(t, s, again);
    if (s->len && !shs_queue_get(e, t->tx_off, t->tx_size, s->seq + t->tx_bias, b + head, s->len)) {
        shs_wire_count(e, SHS_WCTR_BROKEN);
        memset(b + head, 0, s->len);
    }
    shs_tcp_build(b + ip, &p, s);
    /* RFC 6864 section 4.1: packets that are not fragmented need no identification of their own. */
    shs_ip_build(b, &p, (uint16_t)shs_engine_random(e));
    shs_wire_count(e, SHS_WCTR_OUT_PACKETS);
    e->link->send(e->link->dev, ip + p.len);
    return true;
}

/* As many SACK blocks as the segment has room for. */
static uint32_t sacks_that_fit(const struct shs_tcp *t, uint32_t len)
{
    uint32_t most = t->flags & SHS_TF_TS ? 3 : 4; /* 40 bytes of options: RFC 2018 section 3 */
    if (!len)
        return most;
    uint32_t room = t->mss > len ? t->mss - len : 0;
    return room < 12 ? 0 : shs_min32(most, (room - 4) / 8);
}

bool shs_emit(struct shs_engine *e, struct shs_tcp *t, uint32_t seq, uint32_t len, uint32_t flags, bool again)
{
    struct shs_segment s = {
        .sport = t->lport,
        .dport = t->rport,
        .seq = seq,
        .ack = t->rcv_nxt,
        .wnd = shs_receive_window(t),
        .flags = flags | SHS_ACK,
        .ts = t->flags & SHS_TF_TS,
        .tsval = shs_ts_now(e, t),
        .tsecr = t->ts_recent,
        .len = len,
    };
    shs_sack_blocks(t, &s, sacks_that_fit(t, len));
    bool dsack = s.sacks && t->dsack_from != t->dsack_to;
    if (!emit(e, t, &s, again))
        return false;
    if (dsack) {
        t->dsack_to = t->dsack_from;
        shs_wire_count(e, SHS_WCTR_DSACK_OUT);
    }
    t->flags &= ~SHS_TF_ACK_NOW;
    t->timer[SHS_T_DELACK] = 0;
    t->unacked = 0;
    t->acked_to = t->rcv_nxt;
    return true;
}

bool shs_emit_ack(struct shs_engine *e, struct shs_tcp *t)
{
    return shs_emit(e, t, t->snd_nxt, 0, 0, false);
}

/* RFC 9293 section 3.10.5 (ABORT). If the link is full it is lost, as on any wire. */
void shs_emit_reset(struct shs_engine *e, struct shs_tcp *t, uint32_t seq)
{
    struct shs_segment s = {
        .sport = t->lport,
        .dport = t->rport,
        .seq = seq,
        .ack = t->rcv_nxt,
        .flags = SHS_RST | SHS_ACK,
        .ts = t->flags & SHS_TF_TS,
        .tsval = shs_ts_now(e, t),
        .tsecr = t->ts_recent,
    };
    if (emit(e, t, &s, false))
        shs_wire_count(e, SHS_WCTR_OUT_RST);
}
