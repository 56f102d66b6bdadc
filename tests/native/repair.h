/*
 * Purpose: participants that are killed while they use an end, and a survivor at the same end: shared by test_kill_* and test_repair.
 */
#pragma once
#include "dozer.h"

#include "endpoint/admin.h"

/* Reap until no table or lock is in the way of it. */
static inline void reap(struct world *w, uint32_t slot1)
{
    uint64_t limit = shs_now() + 5000000000ull;
    int r;
    while ((r = shs_native_reap(w->stack, w->arena, slot1 - 1)) == -EBUSY) {
        CHECK(shs_now(), <, limit);
        usleep(50);
    }
    CHECK(r, ==, 0);
    CHECK(shs_slot_alive(w->stack, slot1), ==, false);
}

/* How many units are marked as used that no living pair names. Nobody else may be active. */
static inline uint32_t leaked_units(struct world *w)
{
    uint32_t before = w->arena->units_used, pairs = w->arena->pairs_used;
    shs_arena_rebuild(w->arena);
    CHECK(w->arena->pairs_used, ==, pairs);
    CHECK(before, >=, w->arena->units_used);
    return before - w->arena->units_used;
}
