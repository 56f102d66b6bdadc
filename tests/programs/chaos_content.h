/*
 * Content that tells where it belongs: the bytes of a stream follow from the connection, the direction and the position, so that whatever is missing, doubled, moved or spoilt is seen by any reader at any time.
 */
#pragma once
#include "chaos_ledger.h"

static uint64_t key_of(uint32_t connection, uint32_t direction)
{
    return mix(ledger->seed ^ ((uint64_t)connection << 1 | direction));
}

static void fill(uint8_t *to, uint64_t key, uint64_t at, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint64_t word = mix(key + (at + i) / 8);
        for (uint32_t b = (uint32_t)((at + i) % 8); b < 8 && i < n; b++)
            to[i++] = (uint8_t)(word >> 8 * b);
    }
}

/* Of n bytes the first one that does not belong there; n: all do. */
static size_t wrong_at(const uint8_t *got, uint64_t key, uint64_t at, size_t n)
{
    uint8_t want[4096];
    for (size_t i = 0; i < n; i += sizeof want) {
        size_t piece = n - i < sizeof want ? n - i : sizeof want;
        fill(want, key, at + i, piece);
        for (size_t j = 0; memcmp(want, got + i, piece) != 0; j++)
            if (got[i + j] != want[j])
                return i + j;
    }
    return n;
}

/* Where in the stream these bytes do belong; -1: nowhere before `most`. */
static int64_t belongs(const uint8_t *got, size_t n, uint64_t key, uint64_t most)
{
    uint8_t want[16];
    n = n < sizeof want ? n : sizeof want;
    for (uint64_t at = 0; n >= 6 && at < most; at++) {
        fill(want, key, at, n);
        if (memcmp(want, got, n) == 0)
            return (int64_t)at;
    }
    return -1;
}

/* Looks at what was received at that position; says what is wrong with it. */
static void check_stream(const uint8_t *got, uint32_t connection, uint32_t direction, uint64_t at, size_t n)
{
    uint64_t key = key_of(connection, direction);
    size_t wrong = wrong_at(got, key, at, n);
    if (wrong == n)
        return;
    count(CORRUPT, n - wrong);
    uint64_t most = atomic_load(&ledger->connection[connection].direction[direction].intent);
    finding("corrupt: connection %u direction %u position %llu + %zu of %zu bytes: they belong at %lld", connection, direction,
            (unsigned long long)at, wrong, n, (long long)belongs(got + wrong, n - wrong, key, most));
}
