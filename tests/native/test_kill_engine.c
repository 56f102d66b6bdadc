/*
 * Whoever drives the engine is killed at any instruction, by single steps: taking a packet, running timers, sending, receiving, shutting
 * down. Then the area is rebuilt, agrees with itself, and the connection goes on with a peer that noticed a lost packet at most: no byte
 * is wrong, none is missing, none comes twice.
 */
#include "engines.h"

#define RUN_NS 6000000000ull

static uint64_t kills, whole;

/* One of twelve, after a number of instructions that is mostly small. */
static bool kill_engine_step(struct rng *r, uint32_t kind, const uint8_t *packet, uint32_t len, uint32_t n)
{
    if (below(r, 12))
        return false;
    pid_t child = begin_step(kind, packet, len, n);
    bool there = true;
    for (uint64_t steps = below(r, 1ull << (4 + below(r, 11))); steps && there; steps--)
        there = one_instruction(child);
    if (there)
        end_step(child);
    *(there ? &kills : &whole) += 1;
    take_over();
    return true;
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 100);
    map_sides();
    struct rng r = rng_of(1);
    uint64_t until = shs_now() + RUN_NS, conversations = 0;
    for (now = 5000000000ull; shs_now() < until; conversations++)
        conversation(&r);
    CHECK(kills, >, 20);
    fprintf(stderr, "%llu drivers killed, %llu came to the end, in %llu conversations\n", (unsigned long long)kills,
            (unsigned long long)whole, (unsigned long long)conversations);
    return 0;
}
