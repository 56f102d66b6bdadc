/*
 * Purpose: bytes of packets in network order, and the arithmetic of sequence numbers (RFC 9293 section 3.4: modulo 2^32).
 * Who may call: anybody; pure functions.
 */
#pragma once
#include "common.h"

static inline uint16_t shs_get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t shs_get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void shs_put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void shs_put32(uint8_t *p, uint32_t v)
{
    shs_put16(p, v >> 16);
    shs_put16(p + 2, v);
}

/* a < b */
static inline bool shs_before(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

/* a <= b */
static inline bool shs_upto(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) <= 0;
}

static inline uint32_t shs_later(uint32_t a, uint32_t b)
{
    return shs_before(a, b) ? b : a;
}

static inline uint32_t shs_earlier(uint32_t a, uint32_t b)
{
    return shs_before(a, b) ? a : b;
}

static inline uint32_t shs_min32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline uint32_t shs_max32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static inline uint64_t shs_min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t shs_max64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}
