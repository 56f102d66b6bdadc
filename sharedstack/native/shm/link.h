/*
 * Purpose: the table of links: which sender of datagrams may push to which receiver (docs/internals/datagrams.md). Links are found by
 * their destination port. Needs the `ctl` lock, but for what says otherwise. A link is freed with its sender's endpoint.
 * When the caller dies: chains and counts are derived, rebuilt by shs_stack_rebuild.
 */
#pragma once
#include "shm/stack.h"

/* An address and a port, as in the records: IPv4 as ::ffff:a.b.c.d, the port in host order. */
struct shs_where {
    uint8_t addr[16];
    uint16_t port;
};

static inline uint32_t shs_link_state(uint64_t word)
{
    return (uint32_t)(word & ((1u << SHS_LINK_STATE_BITS) - 1));
}

/* The word of the next generation, in this state. */
static inline uint64_t shs_link_next(uint64_t word, uint32_t state)
{
    return ((word >> SHS_LINK_STATE_BITS) + 1) << SHS_LINK_STATE_BITS | state;
}

/* A new link of the sender, LINK_WANTED: link plus one, 0: none free. */
uint32_t shs_link_take(struct shs_stack *stack, uint32_t sender, const struct shs_where *from, const struct shs_where *to);
void shs_link_drop(struct shs_stack *stack, uint32_t link1);
/* Put a link (back) to LINK_WANTED, with a wish as young as now, if its word is still `word`. Without any lock. false: it is not, or FREE. */
bool shs_link_doubt(struct shs_link *link, uint64_t word);
/* Is there a link to this port in the state, and if `receiver`, of that receiver? Without any lock: the answer may be late. */
bool shs_links_any(struct shs_stack *stack, uint16_t port, uint32_t state, uint32_t receiver);
/* Rebuild what is derived of the table. */
void shs_links_rebuild(struct shs_stack *stack);
