/*
 * Purpose: a participant's view of its stack: mapped segments, its slot, its options, and typed access by index.
 * Who may call: anybody who has attached (shs_env filled in by attach, by the helper's admin functions or by a test).
 * What another participant can write is checked here at each use: an index out of range gives NULL.
 */
#pragma once
#include "common.h"

#define SHS_N_WINDOWS (SHS_BULK_BYTES / SHS_WINDOW_BYTES)

enum {
    SHS_NUDGE_COOL = 1, /* the helper has to be told that there is ring memory in use */
    SHS_NUDGE_OVER = 2, /* the stack was retired: perhaps there is another one */
    SHS_NUDGE_TEND = 4, /* the helper is to look after what a stream of sends leaves behind */
    SHS_NUDGE_MET = 8,  /* the helper is to look who holds a shared connection; told by a later call (gate.c) */
};

struct shs_env {
    struct shs_stack *stack;
    struct shs_arena *arena;
    uint8_t *window[SHS_N_WINDOWS]; /* bulk memory, mapped as it is used */
    int bulk_fd;                    /* POSIX bulk segment, high and close-on-exec; -1: System V, wholly mapped */
    uint64_t bulk_ino;              /* inode of bulk_fd: checked before use */
    int bell_fd;                    /* AF_UNIX datagram socket to ring bells with */
    uint32_t slot1;                 /* own slot plus one */
    uint32_t epoch;                 /* how often the process has left a stack: what is remembered of an earlier one means nothing */
    uint32_t nudge;                 /* SHS_NUDGE_*: to be done when no lock is held */
    struct shs_options opt;
};

/* A thread of a participant: its tag is unique within the process and never 0. */
struct shs_who {
    uint32_t lock_word; /* slot1 << 16 | tag << 1 */
    uint32_t tag;
};

static inline struct shs_slot *shs_slot_at(struct shs_stack *stack, uint32_t slot)
{
    return (struct shs_slot *)((uint8_t *)stack + SHS_STACK_SLOTS) + (slot & (SHS_N_SLOTS - 1));
}

static inline uint32_t *shs_bucket_at(struct shs_stack *stack, uint32_t bucket)
{
    return (uint32_t *)((uint8_t *)stack + SHS_STACK_FLOWS) + (bucket & (SHS_N_FLOW_BUCKETS - 1));
}

static inline struct shs_endpoint *shs_endpoint_at(struct shs_stack *stack, uint32_t ep1)
{
    if (SHS_UNLIKELY(ep1 - 1 >= SHS_N_ENDPOINTS))
        return NULL;
    return (struct shs_endpoint *)((uint8_t *)stack + SHS_STACK_ENDPOINTS) + (ep1 - 1);
}

static inline uint32_t *shs_link_bucket_at(struct shs_stack *stack, uint16_t port)
{
    return (uint32_t *)((uint8_t *)stack + SHS_STACK_LINK_BUCKETS) + port % SHS_N_LINK_BUCKETS;
}

static inline struct shs_link *shs_link_at(struct shs_stack *stack, uint32_t link1)
{
    if (SHS_UNLIKELY(link1 - 1 >= SHS_N_LINKS))
        return NULL;
    return (struct shs_link *)((uint8_t *)stack + SHS_STACK_LINKS) + (link1 - 1);
}

static inline struct shs_pair *shs_pair_at(struct shs_arena *arena, uint32_t pair1)
{
    if (SHS_UNLIKELY(pair1 - 1 >= SHS_N_PAIRS))
        return NULL;
    return (struct shs_pair *)((uint8_t *)arena + SHS_ARENA_PAIRS) + (pair1 - 1);
}

/* Flags that keep the helper from finding that a connection has one holder only (endpoint/sole.c): it begins again. */
static inline void shs_endpoint_flag(struct shs_endpoint *ep, uint32_t flags)
{
    uint32_t stored = flags & SHS_EPF_KERNEL_ONLY ? SHS_EPF_STORED : 0; /* there is another reason now */
    __atomic_fetch_and(&ep->flags, ~(SHS_EPF_PROBED | stored), __ATOMIC_SEQ_CST);
    __atomic_fetch_or(&ep->flags, flags, __ATOMIC_SEQ_CST);
}

/* Count an event of a slow path; racing threads of one process may lose an increment, never more. */
static inline void shs_count(struct shs_env *env, int counter, uint64_t n)
{
    if (env->slot1) {
        uint64_t *c = &shs_slot_at(env->stack, env->slot1 - 1)->counters[counter];
        shs_set64(c, shs_peek64(c) + n);
    }
}

/* Make the pages of [at, at + len) present: 0, or -errno where shared memory is used up (never SIGBUS). */
int shs_populate(void *at, size_t len);
/* The memory of unit `unit` (its chunk lies in one window), or NULL where it cannot be mapped. */
uint8_t *shs_unit_memory(struct shs_env *env, uint32_t unit);
/* All of it, for whoever is about to open a ring, which may grow to anywhere: what he cannot map he could not receive. */
bool shs_units_map(struct shs_env *env);
/* Bulk memory that is System V's, with that identifier, as a whole: 0 or -errno. */
int shs_bulk_map_huge(struct shs_env *env, int id);
/* Check magic, version and layout hash of mapped headers: 0, or -EPROTO. */
int shs_check_headers(const struct shs_stack *stack, const struct shs_arena *arena);
