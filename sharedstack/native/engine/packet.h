/*
 * Purpose: IPv4, IPv6, TCP and UDP headers: from bytes to numbers, checked, and back; and the Internet checksum.
 * Who may call: anybody; functions over the bytes that they are given, which may be hostile when parsed.
 */
#pragma once
#include "engine/bytes.h"

enum { SHS_PROTO_ICMP = 1, SHS_PROTO_TCP = 6, SHS_PROTO_UDP = 17, SHS_PROTO_ICMP6 = 58 };
enum { SHS_FIN = 1, SHS_SYN = 2, SHS_RST = 4, SHS_PSH = 8, SHS_ACK = 16, SHS_URG = 32, SHS_ECE = 64, SHS_CWR = 128 };
/* The two ECN bits of IP (RFC 3168 section 5). */
enum { SHS_ECN_NONE = 0, SHS_ECN_ECT1 = 1, SHS_ECN_ECT0 = 2, SHS_ECN_CE = 3 };

#define SHS_MOST_SACKS 4
#define SHS_IP4_HEADER 20
#define SHS_IP6_HEADER 40
#define SHS_TCP_HEADER 20
#define SHS_UDP_HEADER 8
#define SHS_TS_OPTION 12 /* with its padding (RFC 7323 appendix A) */

/* A packet from its IP header on; addresses of IPv4 as ::ffff:a.b.c.d. */
struct shs_packet {
    uint32_t family;
    uint32_t proto;
    uint32_t ecn;
    uint8_t src[16];
    uint8_t dst[16];
    const uint8_t *payload;
    uint32_t len; /* of the payload */
    bool partial; /* the checksum covers the pseudo-header alone */
};

struct shs_segment {
    uint16_t sport, dport;
    uint32_t seq, ack, wnd; /* wnd as sent, not scaled */
    uint32_t flags;
    bool ts;
    uint32_t tsval, tsecr;
    uint32_t sacks;
    struct {
        uint32_t from, to;
    } sack[SHS_MOST_SACKS];
    const uint8_t *data;
    uint32_t len;
};

enum shs_parsed { SHS_PARSED, SHS_PARSE_SHORT, SHS_PARSE_SUM, SHS_PARSE_FRAGMENT, SHS_PARSE_OPTION, SHS_PARSE_OTHER };

uint32_t shs_sum(const uint8_t *p, uint32_t len, uint32_t sum);
uint16_t shs_sum_fold(uint32_t sum);
uint32_t shs_sum_pseudo(const struct shs_packet *p, uint32_t len);
enum shs_parsed shs_ip_parse(const uint8_t *bytes, uint32_t len, struct shs_packet *p);
enum shs_parsed shs_tcp_parse(struct shs_packet *p, bool partial_ok, struct shs_segment *s);
enum shs_parsed shs_tcp_options(const uint8_t *opt, uint32_t len, struct shs_segment *s);
enum shs_parsed shs_udp_parse(struct shs_packet *p, bool partial_ok, uint16_t *sport, uint16_t *dport);
uint32_t shs_ip_header(uint32_t family);
void shs_ip_build(uint8_t *bytes, const struct shs_packet *p, uint16_t id);
uint32_t shs_tcp_options_size(const struct shs_segment *s);
uint32_t shs_tcp_build(uint8_t *bytes, struct shs_packet *p, const struct shs_segment *s);
uint32_t shs_udp_build(uint8_t *bytes, struct shs_packet *p, uint16_t sport, uint16_t dport, uint32_t len);
