/*
 * Purpose: locks in shared memory that name their owner, so that whoever finds the owner dead can take over and repair.
 * A lock word is 0 (free) or slot1 << 16 | thread tag << 1 | waiters. The order of locks is declared in declare/locks.py.
 * Signal handlers of the program wait until the thread has no lock (shm/defer.h).
 * When the caller dies: the word keeps its name; the next one who wants the lock gets SHS_LOCK_REPAIR with the lock held.
 */
#pragma once
#include "shm/defer.h"
#include "shm/stack.h"

enum {
    SHS_LOCKED = 0,
    SHS_LOCK_REPAIR = 1, /* held now; its former owner died inside: run the lock's repair first */
};

/* Take the lock without waiting: SHS_LOCKED, SHS_LOCK_REPAIR, -EAGAIN (held by the living), -EDEADLK (held by this thread). */
int shs_lock_try(struct shs_env *env, uint32_t *word, uint32_t me);
/* The slow half of shs_lock: waits in the kernel for a live owner; handlers run meanwhile. `patience`: ns, then -EAGAIN; 0: however long. */
int shs_lock_slow(struct shs_env *env, uint32_t *word, uint32_t me, uint64_t patience);
/* Note in our slot whose lock we wait for, or could not take, in that thread's word; 0: nobody's. `inspect` tells for how long. */
void shs_lock_await(struct shs_env *env, uint32_t held);
void shs_unlock_slow(uint32_t *word);

/* Take the lock: SHS_LOCKED, SHS_LOCK_REPAIR or -EDEADLK; -EAGAIN: a living one held it for `patience` ns (0: it is waited for). */
static inline int shs_lock_within(struct shs_env *env, uint32_t *word, uint32_t me, uint64_t patience)
{
    shs_defer_begin();
    if (SHS_LIKELY(shs_cas32(word, 0, me)))
        return SHS_LOCKED;
    int r = shs_lock_slow(env, word, me, patience);
    if (r < 0)
        shs_defer_end();
    return r;
}

/* Take the lock: SHS_LOCKED, SHS_LOCK_REPAIR or -EDEADLK. */
static inline int shs_lock(struct shs_env *env, uint32_t *word, uint32_t me)
{
    return shs_lock_within(env, word, me, 0);
}

static inline void shs_unlock(uint32_t *word)
{
    uint32_t old = __atomic_exchange_n(word, 0, __ATOMIC_SEQ_CST);
    if (SHS_UNLIKELY(old & SHS_LOCK_WAITERS))
        shs_unlock_slow(word);
    shs_defer_end();
}
