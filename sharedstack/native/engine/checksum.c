/* The Internet checksum (RFC 1071), over bytes at any address, and the pseudo-headers of IPv4 (RFC 9293 section 3.1) and IPv6 (RFC 8200
 * section 8.1), which add up alike: an IPv4 address written as IPv6 differs by ffff, which is zero in this arithmetic. */
#include "engine/packet.h"

/* The sum so far, not complemented; only the last call may be about an odd number of bytes. */
uint32_t shs_sum(const uint8_t *p, uint32_t len, uint32_t sum)
{
    uint64_t wide = 0;
    while (len >= 4) { /* in the order of memory: sums of swapped bytes are the swapped sum (RFC 1071 section 2 B) */
        uint32_t word;
        memcpy(&word, p, 4);
        wide += word;
        p += 4;
        len -= 4;
    }
    wide = (wide & 0xffffffff) + (wide >> 32);
    wide = (wide & 0xffff) + (wide >> 16);
    wide = (wide & 0xffff) + (wide >> 16);
    wide = (wide & 0xffff) + (wide >> 16);
    uint16_t native = (uint16_t)wide;
    uint8_t two[2];
    memcpy(two, &native, 2);
    uint64_t total = (uint64_t)sum + shs_get16(two);
    if (len >= 2) {
        total += shs_get16(p);
        p += 2;
        len -= 2;
    }
    if (len)
        total += (uint32_t)(*p << 8);
    return (uint32_t)((total & 0xffff) + (total >> 16));
}

uint16_t shs_sum_fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

uint32_t shs_sum_pseudo(const struct shs_packet *p, uint32_t len)
{
    uint32_t sum = shs_sum(p->src, 16, 0);
    sum = shs_sum(p->dst, 16, sum);
    return sum + (len >> 16) + (len & 0xffff) + p->proto;
}
