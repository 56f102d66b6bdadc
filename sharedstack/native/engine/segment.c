/* TCP and UDP headers, with their checksums, and the options of TCP that matter after the handshake (RFC 9293 section 3.1 and 3.2). */
#include "engine/packet.h"

enum { OPT_END = 0, OPT_NOP = 1, OPT_SACK = 5, OPT_TS = 8 };

/*
 * A virtual device hands on packets whose checksum the peer's kernel has left to a card: it covers the pseudo-header alone, not
 * complemented. Such a packet never was on a wire.
 */
static bool sum_right(struct shs_packet *p, uint32_t at, bool partial_ok)
{
    uint32_t pseudo = shs_sum_pseudo(p, p->len);
    if (shs_sum_fold(shs_sum(p->payload, p->len, pseudo)) == 0xffff)
        return true;
    p->partial = partial_ok && shs_get16(p->payload + at) == shs_sum_fold(pseudo);
    return p->partial;
}

enum shs_parsed shs_tcp_options(const uint8_t *opt, uint32_t len, struct shs_segment *s)
{
    s->ts = false;
    s->sacks = 0;
    for (uint32_t i = 0; i < len;) {
        uint32_t kind = opt[i];
        if (kind == OPT_END)
            break;
        if (kind == OPT_NOP) {
            i++;
            continue;
        }
        /* RFC 9293 section 3.1 (MUST-7): an illegal length must not do harm. */
        if (len - i < 2 || opt[i + 1] < 2 || opt[i + 1] > len - i)
            return SHS_PARSE_OPTION;
        uint32_t size = opt[i + 1];
        const uint8_t *v = opt + i + 2;
        if (kind == OPT_TS && size == 10) { /* RFC 7323 section 3.2 */
            s->ts = true;
            s->tsval = shs_get32(v);
            s->tsecr = shs_get32(v + 4);
        } else if (kind == OPT_SACK && size >= 10 && (size - 2) % 8 == 0) { /* RFC 2018 section 3 */
            s->sacks = shs_min32((size - 2) / 8, SHS_MOST_SACKS);
            for (uint32_t k = 0; k < s->sacks; k++) {
                s->sack[k].from = shs_get32(v + k * 8);
                s->sack[k].to = shs_get32(v + k * 8 + 4);
            }
        }
        i += size;
    }
    return SHS_PARSED;
}

enum shs_parsed shs_tcp_parse(struct shs_packet *p, bool partial_ok, struct shs_segment *s)
{
    const uint8_t *b = p->payload;
    if (p->len < SHS_TCP_HEADER)
        return SHS_PARSE_SHORT;
    uint32_t head = (b[12] >> 4) * 4u;
    if (head < SHS_TCP_HEADER || head > p->len)
        return SHS_PARSE_SHORT;
    if (!sum_right(p, 16, partial_ok)) /* RFC 9293 section 3.1 (MUST-3) */
        return SHS_PARSE_SUM;
    s->sport = shs_get16(b);
    s->dport = shs_get16(b + 2);
    s->seq = shs_get32(b + 4);
    s->ack = shs_get32(b + 8);
    s->flags = b[13];
    s->wnd = shs_get16(b + 14);
    s->data = b + head;
    s->len = p->len - head;
    return shs_tcp_options(b + SHS_TCP_HEADER, head - SHS_TCP_HEADER, s);
}

enum shs_parsed shs_udp_parse(struct shs_packet *p, bool partial_ok, uint16_t *sport, uint16_t *dport)
{
    const uint8_t *b = p->payload;
    if (p->len < SHS_UDP_HEADER)
        return SHS_PARSE_SHORT;
    uint32_t len = shs_get16(b + 4);
    if (len < SHS_UDP_HEADER || len > p->len)
        return SHS_PARSE_SHORT;
    p->len = len;
    uint16_t sum = shs_get16(b + 6);
    /* No checksum at all: allowed in IPv4 (RFC 768), not in IPv6 (RFC 8200 section 8.1). */
    if (sum == 0 ? p->family == 6 : !sum_right(p, 6, partial_ok))
        return SHS_PARSE_SUM;
    *sport = shs_get16(b);
    *dport = shs_get16(b + 2);
    p->payload = b + SHS_UDP_HEADER;
    p->len = len - SHS_UDP_HEADER;
    return SHS_PARSED;
}

uint32_t shs_tcp_options_size(const struct shs_segment *s)
{
    return (s->ts ? SHS_TS_OPTION : 0) + (s->sacks ? 4 + s->sacks * 8 : 0);
}

/* Writes the header before s->len bytes that are there already; the size of all of it. */
uint32_t shs_tcp_build(uint8_t *b, struct shs_packet *p, const struct shs_segment *s)
{
    uint32_t head = SHS_TCP_HEADER + shs_tcp_options_size(s);
    shs_put16(b, s->sport);
    shs_put16(b + 2, s->dport);
    shs_put32(b + 4, s->seq);
    shs_put32(b + 8, s->ack);
    b[12] = (uint8_t)(head / 4 << 4);
    b[13] = (uint8_t)s->flags;
    shs_put16(b + 14, s->wnd);
    memset(b + 16, 0, 4);
    uint8_t *o = b + SHS_TCP_HEADER;
    if (s->ts) {
        memcpy(o, (const uint8_t[]){OPT_NOP, OPT_NOP, OPT_TS, 10}, 4);
        shs_put32(o + 4, s->tsval);
        shs_put32(o + 8, s->tsecr);
        o += SHS_TS_OPTION;
    }
    if (s->sacks) {
        memcpy(o, (const uint8_t[]){OPT_NOP, OPT_NOP, OPT_SACK, (uint8_t)(2 + s->sacks * 8)}, 4);
        o += 4;
        for (uint32_t i = 0; i < s->sacks; i++, o += 8) {
            shs_put32(o, s->sack[i].from);
            shs_put32(o + 4, s->sack[i].to);
        }
    }
    p->proto = SHS_PROTO_TCP;
    p->len = head + s->len;
    shs_put16(b + 16, (uint16_t)~shs_sum_fold(shs_sum(b, p->len, shs_sum_pseudo(p, p->len))));
    return p->len;
}

uint32_t shs_udp_build(uint8_t *b, struct shs_packet *p, uint16_t sport, uint16_t dport, uint32_t len)
{
    p->proto = SHS_PROTO_UDP;
    p->len = SHS_UDP_HEADER + len;
    shs_put16(b, sport);
    shs_put16(b + 2, dport);
    shs_put16(b + 4, p->len);
    shs_put16(b + 6, 0);
    uint16_t sum = (uint16_t)~shs_sum_fold(shs_sum(b, p->len, shs_sum_pseudo(p, p->len)));
    shs_put16(b + 6, sum ? sum : 0xffff); /* RFC 768: zero would mean none */
    return p->len;
}
