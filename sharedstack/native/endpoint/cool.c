/*
 * Cooling: a ring that carried nothing for a while gives its memory back. The helper does it, so that connections whose processes
 * do nothing at all cool as well. The reader opens the ring again, with a new chunk, in its next read call; until then the kernel carries.
 */
#include "endpoint/admin.h"
#include "endpoint/dgram.h"
#include "ring/ring.h"
#include "shm/lock.h"
#include "shm/units.h"

#define RENEW_NS 1000000000ull /* the kernel decides anew who may push to whom */

/* Write index of each direction at the last look, in the helper's own memory. */
static uint64_t seen[SHS_N_PAIRS][2];

/* Under no lock. Shut the ring and free its chunk, if it is empty, still at `index`, and nobody is inside. */
static bool cool(struct shs_env *env, struct shs_direction *dir, uint64_t index, uint32_t me)
{
    bool done = false;
    if (shs_lock_try(env, &dir->rlock, me) != SHS_LOCKED)
        return false; /* its owner's death is for the reader to repair */
    if (shs_lock_try(env, &dir->wlock, me) == SHS_LOCKED) {
        uint64_t word = shs_load64(&dir->word);
        bool same = shs_word_index(word) == index && shs_chunk_unit(dir->wchunk) == shs_chunk_unit(dir->rchunk);
        /* both locks are ours: nobody reads, writes or opens. A taker's count in the word may still change, and shut it fails then. */
        if (same && !shs_ring_waiting(dir) && shs_cas64(&dir->word, word, word & ~SHS_WORD_OPEN) && shs_arena_try(env, me)) {
            uint64_t chunk = dir->rchunk;
            shs_store64(&dir->wchunk, 0);
            shs_store64(&dir->rchunk, 0);
            shs_units_drop(env->arena, chunk);
            shs_unlock(&env->arena->lock);
            done = true;
        }
        shs_unlock(&dir->wlock);
    }
    shs_unlock(&dir->rlock);
    return done;
}

int shs_native_cool(void *stack, void *arena)
{
    struct shs_env env = {.stack = stack, .arena = arena, .bulk_fd = -1, .bell_fd = -1};
    env.slot1 = shs_load32(&env.stack->helper);
    uint32_t me = env.slot1 << SHS_LOCK_SLOT_SHIFT | 2;
    int left = 0;
    shs_store32(&env.arena->cooling, 1);
    shs_links_doubt(&env, 0, RENEW_NS);
    for (uint32_t p = 1; p <= env.arena->pairs_top && p <= SHS_N_PAIRS; p++) {
        struct shs_pair *pair = shs_pair_at(env.arena, p);
        for (int d = 0; d < 2 && shs_load32(&pair->state) == SHS_PAIR_LIVE; d++) {
            struct shs_direction *dir = &pair->dir[d];
            uint64_t index = shs_word_index(shs_load64(&dir->word)) | (uint64_t)pair->gen << SHS_WORD_INDEX_BITS;
            if (!shs_load64(&dir->rchunk))
                continue;
            if (index != seen[p - 1][d] || !cool(&env, dir, index & SHS_INDEX_MASK, me))
                left++;
            seen[p - 1][d] = index;
        }
    }
    if (left == 0) {
        shs_store32(&env.arena->cooling, 0);
        shs_fence();
        if (shs_load32(&env.arena->units_used)) { /* taken meanwhile, by somebody who saw that we were looking */
            shs_store32(&env.arena->cooling, 1);
            left = 1;
        }
    }
    return left;
}
