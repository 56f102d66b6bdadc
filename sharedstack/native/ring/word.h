/*
 * Purpose: the arithmetic of a direction's word, read index and record positions (docs/internals/protocol.md).
 * Indices are 46 bits wide, multiples of RECORD_ALIGN, and wrap: compare them only by shs_index_diff.
 */
#pragma once
#include "common.h"

#define SHS_INDEX_MASK ((1ull << SHS_WORD_INDEX_BITS) - 1)

static inline uint64_t shs_word_index(uint64_t word)
{
    return word & SHS_INDEX_MASK;
}

/* Takers: readers inside a native call. */
static inline uint32_t shs_word_takers(uint64_t word)
{
    return (uint32_t)(word >> 48);
}

/* May a writer push? Open, not sticky, no takers. */
static inline bool shs_word_pushable(uint64_t word)
{
    return (word & ~SHS_INDEX_MASK) == SHS_WORD_OPEN;
}

static inline uint64_t shs_index_add(uint64_t index, uint64_t n)
{
    return (index + n) & SHS_INDEX_MASK;
}

static inline int64_t shs_index_diff(uint64_t a, uint64_t b)
{
    return (int64_t)((a - b) << (64 - SHS_WORD_INDEX_BITS)) >> (64 - SHS_WORD_INDEX_BITS);
}

static inline uint64_t shs_rd_index(uint64_t rd)
{
    return rd >> SHS_RD_OFF_BITS << 4;
}

static inline uint32_t shs_rd_off(uint64_t rd)
{
    return (uint32_t)(rd & ((1u << SHS_RD_OFF_BITS) - 1));
}

static inline uint64_t shs_rd_pack(uint64_t index, uint32_t off)
{
    return index >> 4 << SHS_RD_OFF_BITS | off;
}

static inline size_t shs_record_size(size_t len)
{
    return sizeof(struct shs_record) + ((len + SHS_RECORD_ALIGN - 1) & ~(size_t)(SHS_RECORD_ALIGN - 1));
}
