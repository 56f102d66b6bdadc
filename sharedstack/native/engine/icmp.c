/*
 * ICMP errors that quote a packet of ours. Anybody can send them, so what they quote must be in flight (RFC 5927 section 4.1), and none of
 * them ends a connection (section 5.2): they only lower the MTU, or are noted as the reason of a time-out.
 */
#include "engine/tcp.h"

struct verdict {
    bool too_big;
    uint32_t mtu;
    uint32_t error;
};

static bool read4(const uint8_t *b, struct verdict *v)
{
    static const uint8_t errors[] = {ENETUNREACH, EHOSTUNREACH, ENOPROTOOPT, ECONNREFUSED, EMSGSIZE};
    if (b[0] == 3 && b[1] == 4) {
        v->too_big = true;
        v->mtu = shs_get16(b + 6); /* RFC 1191 section 4 */
        return v->mtu != 0;
    }
    if (b[0] == 3) {
        v->error = b[1] < sizeof errors ? errors[b[1]] : EHOSTUNREACH;
        return true;
    }
    v->error = b[0] == 11 ? EHOSTUNREACH : EPROTO;
    return b[0] == 11 || b[0] == 12;
}

static bool read6(const uint8_t *b, struct verdict *v)
{
    static const uint8_t errors[] = {ENETUNREACH, EACCES, EHOSTUNREACH, EHOSTUNREACH, ECONNREFUSED};
    if (b[0] == 2) { /* RFC 4443 section 3.2 */
        v->too_big = true;
        v->mtu = shs_get32(b + 4);
        return true;
    }
    v->error = b[0] == 1 && b[1] < sizeof errors ? errors[b[1]] : b[0] == 3 ? EHOSTUNREACH : EPROTO;
    return b[0] == 1 || b[0] == 3 || b[0] == 4;
}

/* The quoted packet, which we have sent; of its payload eight bytes must be there (RFC 792), and its length may be more than there is. */
static bool read_quote(const uint8_t *b, uint32_t len, uint32_t family, struct shs_packet *q)
{
    memset(q, 0, sizeof *q);
    q->family = family;
    if (family == 4) {
        uint32_t head = len ? (b[0] & 15u) * 4 : 0;
        if (len < SHS_IP4_HEADER || b[0] >> 4 != 4 || head < SHS_IP4_HEADER || len < head + 8)
            return false;
        q->proto = b[9];
        q->src[10] = q->src[11] = q->dst[10] = q->dst[11] = 0xff;
        memcpy(q->src + 12, b + 12, 4);
        memcpy(q->dst + 12, b + 16, 4);
        q->payload = b + head;
        q->len = len - head;
        return true;
    }
    if (len < SHS_IP6_HEADER + 8 || b[0] >> 4 != 6)
        return false;
    q->proto = b[6];
    memcpy(q->src, b + 8, 16);
    memcpy(q->dst, b + 24, 16);
    q->payload = b + SHS_IP6_HEADER;
    q->len = len - SHS_IP6_HEADER;
    return true;
}

static void act(struct shs_engine *e, const struct shs_packet *q, const struct verdict *v)
{
    struct shs_packet seen = {.family = q->family};
    memcpy(seen.src, q->dst, 16); /* as if it had come from the peer */
    memcpy(seen.dst, q->src, 16);
    struct shs_tcp *t = shs_flow_find(e, &seen, shs_get16(q->payload + 2), shs_get16(q->payload));
    uint32_t seq = shs_get32(q->payload + 4);
    if (!t || t->state == SHS_TCP_CLOSED || t->state == SHS_TCP_FREE || seq - t->snd_una >= shs_flight(t)) {
        shs_wire_count(e, SHS_WCTR_ICMP_BAD);
        return;
    }
    if (!shs_flow_sane(e, t))
        return;
    if (!v->too_big) {
        t->soft_error = v->error;
        shs_wire_count(e, SHS_WCTR_ICMP_SOFT);
        return;
    }
    uint32_t mss = t->mss;
    shs_pmtu_set(e, t, v->mtu);
    if (t->mss < mss) {
        shs_wire_count(e, SHS_WCTR_PMTU_LOWERED);
        shs_tcp_output(e, t);
        shs_timer_settle(e, t);
    }
}

void shs_icmp_input(struct shs_engine *e, const struct shs_packet *p)
{
    const uint8_t *b = p->payload;
    struct verdict v = {0};
    struct shs_packet q;
    if (p->len < 8) {
        shs_wire_count(e, SHS_WCTR_IN_SHORT);
        return;
    }
    uint32_t sum = p->family == 6 ? shs_sum_pseudo(p, p->len) : 0;
    if (shs_sum_fold(shs_sum(b, p->len, sum)) != 0xffff) {
        shs_wire_count(e, SHS_WCTR_IN_BAD_SUM);
        return;
    }
    bool known = p->family == 4 ? p->proto == SHS_PROTO_ICMP && read4(b, &v) : p->proto == SHS_PROTO_ICMP6 && read6(b, &v);
    if (!known || !read_quote(b + 8, p->len - 8, p->family, &q) || q.proto != SHS_PROTO_TCP) {
        shs_wire_count(e, SHS_WCTR_ICMP_BAD);
        return;
    }
    act(e, &q, &v);
}
