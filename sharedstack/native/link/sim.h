/*
 * Purpose: the `sim` link: nodes, each with an engine, in one process and in virtual time, and the network between them: loss, delay,
 * jitter, reordering, duplication, corruption, bandwidth with a queue, MTU, all from one seed.
 * Who may call: tests, in one thread. All of it lies in memory that the caller gives (shs_sim_bytes); nothing is shared, nothing survives.
 *
 * Node i has 10.0.0.(i + 1) and fd00::(i + 1). A node answers what is of no connection by a reset, as its kernel would.
 */
#pragma once
#include "engine/engine.h"
#include "sim.gen.h"

#define SHS_SIM_NODES 3
#define SHS_SIM_CONNECTIONS 8
#define SHS_SIM_PACKETS 4096
#define SHS_SIM_MOST 2048 /* bytes of a packet */
#define SHS_SIM_QUEUE 131072

struct shs_sim;

/* One end's device. */
struct shs_sim_port {
    struct shs_sim *sim;
    uint32_t node;
    struct shs_device device;
    uint8_t out[SHS_SIM_MOST];
};

/* One way between two nodes. Chances in millionths. */
struct shs_sim_way {
    uint32_t loss, reorder, duplicate, corrupt, ecn_mark;
    uint64_t delay, jitter; /* ns */
    uint64_t rate;          /* bit/s; 0: unlimited */
    uint32_t queue, mtu;    /* bytes */
    uint64_t free_at;       /* ns: when what is queued has been sent */
};

struct shs_sim_packet {
    uint64_t at;
    uint64_t order;
    uint32_t to, len;
    uint8_t bytes[SHS_SIM_MOST];
};

struct shs_sim {
    uint64_t now, random, order;
    uint32_t nodes, busy, icmp;
    struct shs_engine engine[SHS_SIM_NODES];
    struct shs_sim_port port[SHS_SIM_NODES];
    struct shs_sim_way way[SHS_SIM_NODES][SHS_SIM_NODES]; /* [from][to] */
    struct shs_sim_result result;
    /* Every packet as it was sent, for whoever writes it down: ns u64, node u32, length u32, bytes. */
    uint8_t *capture;
    uint64_t capture_room, capture_used;
    uint32_t n_free, n_heap;
    uint16_t free[SHS_SIM_PACKETS], heap[SHS_SIM_PACKETS];
    struct shs_sim_packet packet[SHS_SIM_PACKETS];
    uint8_t *area[SHS_SIM_NODES], *queues[SHS_SIM_NODES];
};

uint64_t shs_sim_bytes(void);
void shs_sim_begin(struct shs_sim *sim, uint32_t nodes, uint64_t seed);
void shs_sim_address(uint8_t to[16], uint32_t family, uint32_t node);
uint64_t shs_sim_random(struct shs_sim *sim);
bool shs_sim_chance(struct shs_sim *sim, uint32_t millionths);
/* Puts a packet on its way, as if node `from` had sent it. */
void shs_sim_send(struct shs_sim *sim, uint32_t from, const uint8_t *bytes, uint32_t len);
/* When something happens next; UINT64_MAX: never. */
uint64_t shs_sim_next(const struct shs_sim *sim);
/* Makes it `now`: delivers what is due, runs timers. */
void shs_sim_until(struct shs_sim *sim, uint64_t now);
int shs_sim_check(struct shs_sim *sim);
/* All of one scenario: 0 if it ended as it must; the result says the rest. */
uint32_t shs_sim_run(struct shs_sim *sim, const struct shs_sim_scenario *scenario, struct shs_sim_result *result);
/* The scenario of a number. */
void shs_sim_scenario(uint64_t seed, struct shs_sim_scenario *scenario);
