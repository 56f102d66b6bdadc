/*
 * Some hundreds of scenarios of the sim link from one seed, each from beginning to end: bytes, states, records, timers. Then the same
 * scenario twice: the same result, to the last packet.
 */
#include "check.h"

#include "link/sim.h"

#define RUNS 600

int main(int argc, char **argv)
{
    check_begin(argc, argv, 100);
    struct rng r = rng_of(1);
    struct shs_sim *sim = calloc(1, (size_t)shs_sim_bytes());
    struct shs_sim_scenario s;
    struct shs_sim_result first, second;
    uint64_t connections = 0, bytes = 0, lost = 0, retransmits = 0;
    for (uint32_t i = 0; i < RUNS; i++) {
        uint64_t seed = rng_next(&r);
        shs_sim_scenario(seed, &s);
        shs_sim_run(sim, &s, &first);
        if (first.verdict)
            fprintf(stderr, "scenario %llu: verdict %u, check.c:%u\n", (unsigned long long)seed, first.verdict, first.line);
        CHECK(first.verdict, ==, 0);
        connections += s.connections;
        bytes += first.received[0] + first.received[1];
        lost += first.lost;
        retransmits += first.retransmits;
        if (i % 20)
            continue;
        shs_sim_run(sim, &s, &second);
        CHECK(memcmp(&first, &second, sizeof first), ==, 0);
    }
    CHECK(lost, >, 0);
    CHECK(retransmits, >, 0);
    fprintf(stderr, "%llu connections, %llu bytes, %llu packets lost, %llu segments sent again\n", (unsigned long long)connections,
            (unsigned long long)bytes, (unsigned long long)lost, (unsigned long long)retransmits);
    free(sim);
    return 0;
}
