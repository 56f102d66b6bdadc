/*
 * Purpose: streams that say where each byte belongs: words of 8 bytes, the first with bit 7 set and the writer's number, 7 bits of a
 * counter in each of the others. From any 15 bytes of it the place is known, and a word that was cut short is recognised.
 */
#pragma once
#include "check.h"

#define UNIT 8u

static inline uint8_t unit_byte(uint32_t writer, uint64_t position)
{
    uint64_t count = position / UNIT;
    unsigned i = position % UNIT;
    return (uint8_t)(i == 0 ? 0x80 | writer : (count >> (7 * (i - 1)) & 0x7f));
}

static inline void unit_fill(uint8_t *buf, size_t len, uint32_t writer, uint64_t position)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = unit_byte(writer, position + i);
}

/* The counter of the whole word at `word`. */
static inline uint64_t unit_count(const uint8_t *word)
{
    uint64_t count = 0;
    for (int i = 7; i >= 1; i--)
        count = count << 7 | word[i];
    return count;
}

/* The position of the first byte of a piece of writer 0's stream; ~0: too short to tell. */
static inline uint64_t unit_position(const uint8_t *buf, size_t len)
{
    size_t head = 0;
    while (head < len && !(buf[head] & 0x80))
        head++;
    return len < head + UNIT ? ~0ull : unit_count(buf + head) * UNIT - head;
}

/* Which bytes of writer 0's stream have come, whoever took them. */
struct seen {
    uint64_t bytes, vague; /* vague: pieces too short to tell */
    uint8_t *map;
};

static inline void seen_mark(struct seen *seen, const uint8_t *buf, size_t len)
{
    uint64_t at = unit_position(buf, len);
    __atomic_fetch_add(&seen->bytes, len, __ATOMIC_SEQ_CST);
    if (at == ~0ull) {
        __atomic_fetch_add(&seen->vague, len, __ATOMIC_SEQ_CST);
        return;
    }
    for (size_t i = 0; i < len; i++) {
        CHECK(buf[i], ==, unit_byte(0, at + i));
        CHECK(__atomic_exchange_n(&seen->map[at + i], 1, __ATOMIC_RELAXED), ==, 0);
    }
}

/* Bytes before `end` that nobody has seen. */
static inline uint64_t seen_missing(const struct seen *seen, uint64_t end)
{
    uint64_t missing = 0;
    for (uint64_t i = 0; i < end; i++)
        missing += !seen->map[i];
    return missing;
}

/*
 * Several writers in one stream: each one's words in order, none missing, none twice. A send that ended inside a word (full, or killed)
 * leaves a piece of it; its writer sends that word again from its beginning.
 */
struct unit_parser {
    uint8_t word[UNIT];
    unsigned have;
    uint64_t next[128], cuts[128];
};

static inline void unit_parse(struct unit_parser *p, const uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (p->have && (buf[i] & 0x80)) {
            p->cuts[p->word[0] & 0x7f]++;
            p->have = 0;
        }
        p->word[p->have++] = buf[i];
        CHECK(p->word[0] & 0x80, ==, 0x80);
        if (p->have == UNIT) {
            uint8_t writer = p->word[0] & 0x7f;
            CHECK(unit_count(p->word), ==, p->next[writer]);
            p->next[writer]++;
            p->have = 0;
        }
    }
}
