/*
 * Purpose: ring memory of an arena, in units of UNIT_BYTES, and the arena's pairs. Needs the arena's lock.
 * The bitmap is derived: shs_arena_rebuild makes it again from the chunks that live pairs name.
 */
#pragma once
#include "shm/stack.h"

/* A chunk, packed as in direction.wchunk: first unit plus one | log2 of its units | index / 16 at which it begins. */
static inline uint64_t shs_chunk_pack(uint32_t unit, unsigned log, uint64_t base)
{
    return (uint64_t)(unit + 1) | (uint64_t)log << SHS_CHUNK_LOG_SHIFT | (base >> 4) << SHS_CHUNK_BASE_SHIFT;
}

static inline uint32_t shs_chunk_unit(uint64_t chunk)
{
    return (uint32_t)(chunk & ((1u << SHS_CHUNK_LOG_SHIFT) - 1)) - 1;
}

static inline unsigned shs_chunk_log(uint64_t chunk)
{
    return (unsigned)(chunk >> SHS_CHUNK_LOG_SHIFT) & 15;
}

static inline size_t shs_chunk_bytes(uint64_t chunk)
{
    return (size_t)SHS_UNIT_BYTES << shs_chunk_log(chunk);
}

static inline uint64_t shs_chunk_base(uint64_t chunk)
{
    return chunk >> SHS_CHUNK_BASE_SHIFT << 4;
}

/* Does the packed chunk lie inside the bulk memory, aligned? Checked at each use of one that another process may have written. */
static inline bool shs_chunk_valid(const struct shs_arena *arena, uint64_t chunk)
{
    uint32_t unit = shs_chunk_unit(chunk), n = 1u << shs_chunk_log(chunk);
    return chunk && n <= SHS_MAX_RING_UNITS && unit < SHS_N_UNITS && unit % n == 0 && unit + n <= arena->n_units;
}

/* Try the arena's lock, running its repair if its owner died: true if it is held now. */
bool shs_arena_try(struct shs_env *env, uint32_t me);
/*
 * The same, for those who can put up with a little waiting. false: the holder is stopped, or has had no CPU for ARENA_PATIENCE_NS. Who then gives
 * up units all the same says so, before and after its direction names them no more (shs_arena_adrift): whoever has the lock next finds them.
 */
bool shs_arena_lock(struct shs_env *env, uint32_t me);
void shs_arena_adrift(struct shs_arena *arena);
/* What has to be done first by whoever has just got the arena's lock, with what shs_lock_try said. */
void shs_arena_entered(struct shs_arena *arena, int locked);
/* Take 1 << log aligned units whose memory is present; returns the first unit or -errno. */
int shs_units_take(struct shs_env *env, unsigned log);
/* Give back the units of a packed chunk (0: nothing). */
void shs_units_drop(struct shs_arena *arena, uint64_t chunk);
/* Give back all chunks of a direction, in which nothing is any more. */
void shs_chunks_drop(struct shs_arena *arena, struct shs_direction *dir);
/*
 * Take a free pair: pair plus one, state still PAIR_FREE; 0 if there is none. Nothing is left of its last use but what threads that remember
 * it may touch: the lock words, which one of them may hold for a moment, and the indices, which go on where they were, so that who reads
 * the write index of one use and the read index of the next sees an empty ring.
 */
uint32_t shs_pair_take(struct shs_arena *arena);
/* Give a pair back, its chunks too. From now on nobody's cookie is in it: who remembers it finds out under the lock. */
void shs_pair_drop(struct shs_arena *arena, uint32_t pair1);
/* Rebuild everything derived in the arena segment. */
void shs_arena_rebuild(struct shs_arena *arena);
