/*
 * Purpose: small locks within the process. Whoever holds one already holds it again, rather than waiting for itself; handlers of signals that
 * can be deferred wait until it is given back (shm/defer.h). Held for a few instructions, or around a call that does not wait; the wait for one
 * yields, so that a holder that was pre-empted comes to an end.
 */
#pragma once
#include "preload/process.h"
#include "shm/defer.h"

#include <sched.h>

struct shs_nested {
    void *owner; /* address of the holder's shs_self */
    uint32_t depth;
};

static inline bool shs_nested_try(struct shs_nested *lock)
{
    void *none = NULL, *me = &shs_self;
    shs_defer_begin();
    if (__atomic_load_n(&lock->owner, __ATOMIC_RELAXED) != me &&
        !__atomic_compare_exchange_n(&lock->owner, &none, me, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        shs_defer_end();
        return false;
    }
    lock->depth++;
    return true;
}

static inline void shs_nested_lock(struct shs_nested *lock)
{
    for (unsigned i = 0; !shs_nested_try(lock); i++) {
        if (i % 64 == 63)
            sched_yield();
        else
            shs_pause();
    }
}

static inline void shs_nested_unlock(struct shs_nested *lock)
{
    if (--lock->depth == 0)
        __atomic_store_n(&lock->owner, NULL, __ATOMIC_RELEASE);
    shs_defer_end();
}
