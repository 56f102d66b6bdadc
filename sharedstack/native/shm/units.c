#include "shm/units.h"

#include "shm/lock.h"

static uint64_t mask_of(uint32_t unit, unsigned log)
{
    uint32_t n = 1u << log;
    return (n >= 64 ? ~0ull : (1ull << n) - 1) << (unit % 64);
}

#define ARENA_PATIENCE_NS 4000000ull

void shs_arena_adrift(struct shs_arena *arena)
{
    shs_store32(&arena->adrift, 1);
    shs_fence();
}

void shs_arena_entered(struct shs_arena *arena, int locked)
{
    if (SHS_LIKELY(locked == SHS_LOCKED && !shs_load32(&arena->adrift)))
        return;
    shs_store32(&arena->adrift, 0);
    shs_fence();
    shs_arena_rebuild(arena);
}

static bool entered(struct shs_env *env, int locked)
{
    if (locked >= 0)
        shs_arena_entered(env->arena, locked);
    return locked >= 0;
}

bool shs_arena_try(struct shs_env *env, uint32_t me)
{
    return entered(env, shs_lock_try(env, &env->arena->lock, me));
}

bool shs_arena_lock(struct shs_env *env, uint32_t me)
{
    return entered(env, shs_lock_within(env, &env->arena->lock, me, ARENA_PATIENCE_NS));
}

int shs_units_take(struct shs_env *env, unsigned log)
{
    struct shs_arena *arena = env->arena;
    uint32_t n = 1u << log, limit = arena->n_units < SHS_N_UNITS ? arena->n_units : SHS_N_UNITS;
    for (uint32_t unit = 0; unit + n <= limit; unit += n) {
        uint64_t *word = &arena->units[unit / 64], mask = mask_of(unit, log);
        if (*word == ~0ull && n < 64) {
            unit = (unit / 64 + 1) * 64 - n;
            continue;
        }
        if (*word & mask)
            continue;
        uint8_t *memory = shs_unit_memory(env, unit);
        if (!memory)
            return -ENOMEM;
        int r = shs_populate(memory, (size_t)n * SHS_UNIT_BYTES);
        if (r < 0)
            return r;
        *word |= mask;
        shs_set32(&arena->units_used, arena->units_used + n);
        return (int)unit;
    }
    return -ENOMEM;
}

void shs_units_drop(struct shs_arena *arena, uint64_t chunk)
{
    if (!shs_chunk_valid(arena, chunk))
        return;
    uint64_t *word = &arena->units[shs_chunk_unit(chunk) / 64], mask = mask_of(shs_chunk_unit(chunk), shs_chunk_log(chunk));
    if ((*word & mask) == mask)
        shs_set32(&arena->units_used, arena->units_used - (1u << shs_chunk_log(chunk)));
    *word &= ~mask;
}

static void next_gen(struct shs_pair *pair)
{
    uint32_t gen = pair->gen + 1;
    shs_store32(&pair->gen, gen ? gen : 1);
}

/* Field by field: threads that remember the last use look at them, and hold its locks, until they see that the cookie is not theirs. */
static void renew(struct shs_direction *dir)
{
    uint64_t index = shs_load64(&dir->word) & ((1ull << SHS_WORD_INDEX_BITS) - 1) & ~(uint64_t)(SHS_RECORD_ALIGN - 1);
    shs_store32(&dir->tx_on, 0);
    shs_store32(&dir->rx_on, 0);
    shs_store64(&dir->word, index);
    shs_store64(&dir->rd, index >> 4 << SHS_RD_OFF_BITS);
    shs_set64(&dir->rd_seen, index);
    shs_set64(&dir->answered, 0);
    shs_store64(&dir->ksent, 0);
    shs_store64(&dir->taken, 0);
    shs_set64(&dir->pub_ns, 0);
    shs_store32(&dir->bell, 0);
    shs_store32(&dir->opener, 0);
    shs_set32(&dir->wslot, 0);
    shs_set32(&dir->most, 0);
    shs_set32(&dir->wcpu, 0);
    shs_set32(&dir->rcpu, 0);
    shs_set32(&dir->rthread, 0);
}

uint32_t shs_pair_take(struct shs_arena *arena)
{
    if (arena->pairs_used >= SHS_N_PAIRS)
        return 0; /* without a look at each of them */
    uint32_t hint = arena->pair_hint < SHS_N_PAIRS ? arena->pair_hint : 0;
    for (uint32_t n = 0; n < SHS_N_PAIRS; n++) {
        uint32_t i = (hint + n) % SHS_N_PAIRS;
        if (i >= arena->pairs_top) {
            i = arena->pairs_top;
            struct shs_pair *fresh = shs_pair_at(arena, i + 1);
            if (!fresh || shs_populate(fresh, sizeof *fresh) != 0)
                return 0;
            shs_store32(&arena->pairs_top, i + 1);
        }
        struct shs_pair *pair = shs_pair_at(arena, i + 1);
        if (shs_load32(&pair->state) != SHS_PAIR_FREE)
            continue;
        pair->endpoint[0] = pair->endpoint[1] = 0;
        pair->cookie[0] = pair->cookie[1] = 0;
        pair->made_ns = 0;
        for (int d = 0; d < 2; d++)
            renew(&pair->dir[d]);
        next_gen(pair);
        arena->pair_hint = i + 1 < arena->pairs_top ? i + 1 : arena->pairs_top;
        shs_set32(&arena->pairs_used, arena->pairs_used + 1);
        return i + 1;
    }
    return 0;
}

/* The writer may have taken a chunk that its reader has not come to: both, once where they are the same. */
void shs_chunks_drop(struct shs_arena *arena, struct shs_direction *dir)
{
    for (int i = 0; i < SHS_N_RE_CHUNKS; i++) {
        shs_units_drop(arena, dir->re_chunks[i]);
        dir->re_chunks[i] = 0;
    }
    shs_store32(&dir->re_on, 0);
    shs_set64(&dir->re_rd, 0);
    shs_set64(&dir->re_base, 0);
    shs_set64(&dir->re_ksent, 0);
    shs_units_drop(arena, dir->rchunk);
    if (shs_chunk_unit(dir->wchunk) != shs_chunk_unit(dir->rchunk))
        shs_units_drop(arena, dir->wchunk);
    shs_store64(&dir->rchunk, 0);
    shs_store64(&dir->wchunk, 0);
}

void shs_pair_drop(struct shs_arena *arena, uint32_t pair1)
{
    struct shs_pair *pair = shs_pair_at(arena, pair1);
    if (!pair || shs_load32(&pair->state) == SHS_PAIR_FREE)
        return;
    for (int d = 0; d < 2; d++) {
        shs_store64(&pair->dir[d].wcookie, 0);
        shs_store64(&pair->dir[d].rcookie, 0);
    }
    next_gen(pair);
    shs_fence(); /* who sees anything of the next use sees that the cookie is not its own */
    shs_store32(&pair->state, SHS_PAIR_FREE);
    for (int d = 0; d < 2; d++)
        shs_chunks_drop(arena, &pair->dir[d]);
    shs_set32(&arena->pairs_used, arena->pairs_used - 1);
    if (pair1 - 1 < arena->pair_hint)
        arena->pair_hint = pair1 - 1;
}

void shs_arena_rebuild(struct shs_arena *arena)
{
    uint32_t pairs = 0, units = 0;
    memset(arena->units, 0, sizeof arena->units);
    if (arena->pairs_top > SHS_N_PAIRS)
        arena->pairs_top = SHS_N_PAIRS;
    for (uint32_t p = 1; p <= arena->pairs_top; p++) {
        struct shs_pair *pair = shs_pair_at(arena, p);
        if (shs_load32(&pair->state) == SHS_PAIR_FREE)
            continue;
        pairs += shs_load32(&pair->state) == SHS_PAIR_LIVE; /* a parked one may still have a chunk */
        for (int d = 0; d < 2; d++) {
            uint64_t chunks[2 + SHS_N_RE_CHUNKS] = {shs_load64(&pair->dir[d].rchunk), shs_load64(&pair->dir[d].wchunk)};
            for (int c = 0; c < SHS_N_RE_CHUNKS; c++)
                chunks[2 + c] = __atomic_load_n(&pair->dir[d].re_chunks[c], __ATOMIC_ACQUIRE);
            for (int c = 0; c < 2 + SHS_N_RE_CHUNKS; c++) {
                if (!shs_chunk_valid(arena, chunks[c]))
                    continue;
                uint64_t *word = &arena->units[shs_chunk_unit(chunks[c]) / 64];
                uint64_t mask = mask_of(shs_chunk_unit(chunks[c]), shs_chunk_log(chunks[c]));
                units += (uint32_t)__builtin_popcountll(mask & ~*word);
                *word |= mask;
            }
        }
    }
    shs_set32(&arena->pairs_used, pairs);
    shs_set32(&arena->units_used, units);
    arena->pair_hint = 0;
}
