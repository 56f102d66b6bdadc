/*
 * Purpose: endpoint records and the flow table that finds both ends of one connection in one bucket.
 * All but the hash need the `ctl` lock. Primary state is the records themselves; chains, hints and counts are derived and rebuilt by
 * shs_stack_rebuild, which whoever took `ctl` over from the dead must run.
 */
#pragma once
#include "shm/stack.h"

/* Addresses as in the endpoint record: IPv4 as ::ffff:a.b.c.d, ports in host order. */
struct shs_flow {
    uint8_t laddr[16], raddr[16];
    uint16_t lport, rport, family;
};

/* An address of IPv4, as records have it. */
static inline bool shs_is_four(const uint8_t addr[16])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    return !memcmp(addr, mapped, sizeof mapped);
}

/* The bucket of a connection: the same for both of its ends (FNV-1a over the family and the ordered halves). */
uint32_t shs_flow_bucket(const struct shs_flow *flow);
/* The flow of a record. */
void shs_flow_of(const struct shs_endpoint *ep, struct shs_flow *flow);
/* Take a free record for the flow and link it; returns endpoint plus one, or 0 if there is none. State is still EP_FREE: the caller
 * fills it in and stores EP_LIVE. */
uint32_t shs_endpoint_take(struct shs_stack *stack, const struct shs_flow *flow);
/* Unlink and free a record. */
void shs_endpoint_drop(struct shs_stack *stack, uint32_t ep1);
/* The live record of the anchor with this cookie among the flow's bucket; 0: none. */
uint32_t shs_endpoint_find(struct shs_stack *stack, const struct shs_flow *flow, uint64_t cookie);
/* The same without the lock, by a walk over all records: a record that is there and stays is found. */
uint32_t shs_endpoint_seek(struct shs_stack *stack, uint64_t cookie);
/* The live, unpaired record of the other end of the flow; 0: none. `stale` receives a record of the same end with another cookie. */
uint32_t shs_endpoint_mate(struct shs_stack *stack, const struct shs_flow *flow, uint64_t cookie, uint32_t *stale);
/* Rebuild everything derived in the stack segment. */
void shs_stack_rebuild(struct shs_stack *stack);
