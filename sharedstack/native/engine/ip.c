/* IP headers. Fragments, options of IPv4 that change the way, and extension headers of IPv6 are not ours: the kernel has them. */
#include "engine/packet.h"

static void map4(uint8_t *to, const uint8_t *from)
{
    memset(to, 0, 10);
    to[10] = to[11] = 0xff;
    memcpy(to + 12, from, 4);
}

static enum shs_parsed parse4(const uint8_t *b, uint32_t len, struct shs_packet *p)
{
    uint32_t head = (b[0] & 15u) * 4;
    if (len < SHS_IP4_HEADER || head < SHS_IP4_HEADER || len < head)
        return SHS_PARSE_SHORT;
    if (shs_sum_fold(shs_sum(b, head, 0)) != 0xffff) /* RFC 1122 section 3.2.1.2: discard in silence */
        return SHS_PARSE_SUM;
    uint32_t total = shs_get16(b + 2);
    if (total < head || total > len) /* longer than said: Ethernet's padding */
        return SHS_PARSE_SHORT;
    if (shs_get16(b + 6) & 0x3fff) /* more fragments, or an offset */
        return SHS_PARSE_FRAGMENT;
    p->family = 4;
    p->proto = b[9];
    p->ecn = b[1] & 3u;
    map4(p->src, b + 12);
    map4(p->dst, b + 16);
    p->payload = b + head;
    p->len = total - head;
    return SHS_PARSED;
}

static enum shs_parsed parse6(const uint8_t *b, uint32_t len, struct shs_packet *p)
{
    if (len < SHS_IP6_HEADER)
        return SHS_PARSE_SHORT;
    uint32_t payload = shs_get16(b + 4);
    if (payload > len - SHS_IP6_HEADER)
        return SHS_PARSE_SHORT;
    p->family = 6;
    p->proto = b[6];
    p->ecn = b[1] >> 4 & 3u;
    memcpy(p->src, b + 8, 16);
    memcpy(p->dst, b + 24, 16);
    p->payload = b + SHS_IP6_HEADER;
    p->len = payload;
    return p->proto == 44 ? SHS_PARSE_FRAGMENT : SHS_PARSED;
}

enum shs_parsed shs_ip_parse(const uint8_t *bytes, uint32_t len, struct shs_packet *p)
{
    if (!len)
        return SHS_PARSE_SHORT;
    p->partial = false;
    switch (bytes[0] >> 4) {
    case 4:
        return parse4(bytes, len, p);
    case 6:
        return parse6(bytes, len, p);
    default:
        return SHS_PARSE_OTHER;
    }
}

uint32_t shs_ip_header(uint32_t family)
{
    return family == 4 ? SHS_IP4_HEADER : SHS_IP6_HEADER;
}

/* Writes the header for p->len bytes of payload. IPv4 with DF: the path's MTU is found out, nothing is fragmented (RFC 1191 section 3). */
void shs_ip_build(uint8_t *b, const struct shs_packet *p, uint16_t id)
{
    if (p->family == 4) {
        memset(b, 0, SHS_IP4_HEADER);
        b[0] = 0x45;
        b[1] = (uint8_t)p->ecn;
        shs_put16(b + 2, SHS_IP4_HEADER + p->len);
        shs_put16(b + 4, id);
        b[6] = 0x40;
        b[8] = 64;
        b[9] = (uint8_t)p->proto;
        memcpy(b + 12, p->src + 12, 4);
        memcpy(b + 16, p->dst + 12, 4);
        shs_put16(b + 10, (uint16_t)~shs_sum_fold(shs_sum(b, SHS_IP4_HEADER, 0)));
        return;
    }
    b[0] = 0x60;
    b[1] = (uint8_t)(p->ecn << 4);
    b[2] = b[3] = 0;
    shs_put16(b + 4, p->len);
    b[6] = (uint8_t)p->proto;
    b[7] = 64;
    memcpy(b + 8, p->src, 16);
    memcpy(b + 24, p->dst, 16);
}
