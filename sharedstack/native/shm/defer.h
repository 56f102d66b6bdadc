/*
 * Purpose: signal handlers of the program do not run while their thread holds a lock: one that sends on the very socket whose lock is held
 * would wait for itself, and one that leaves by siglongjmp(3) would leave the lock held. They run when the last lock is given back.
 * Who may call: whoever takes and gives back locks that handlers could meet (shm/lock.h, preload/nested.h). Begin comes before the lock may
 * have been taken, end after it was given back. Not around waits without end: what is deferred does not interrupt them.
 * Who defers is the preload library's handler (preload/defer.c); in the helper and in tests nothing does.
 */
#pragma once
#include "common.h"

struct shs_defer {
    uint32_t held;    /* locks that the thread has, or is about to take */
    uint32_t pending; /* a signal waits for them */
};
extern __thread struct shs_defer shs_defer __attribute__((tls_model("initial-exec")));
/* Run what was deferred; NULL: nobody defers. Set once. */
extern void (*shs_defer_run)(void);

static inline void shs_defer_begin(void)
{
    shs_set32(&shs_defer.held, shs_peek32(&shs_defer.held) + 1);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void shs_defer_end(void)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    uint32_t left = shs_peek32(&shs_defer.held) - 1;
    shs_set32(&shs_defer.held, left);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (SHS_UNLIKELY(shs_peek32(&shs_defer.pending)) && left == 0)
        shs_defer_run();
}
