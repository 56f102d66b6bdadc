/*
 * Purpose: the shortest way of a data call, for descriptors that the library has nothing to do with: those of no internet socket, and ends
 * whose peer is not there. The generated wrapper makes libc's call at once, without the handler; everything else goes through the gate.
 * Who may call: the wrappers of calls that do nothing but move bytes.
 */
#pragma once
#include "preload/gate.h"

enum shs_direct {
    SHS_INDIRECT,
    SHS_DIRECT,      /* the kernel's: nothing to leave */
    SHS_DIRECT_HELD, /* under this thread's hazard, as within the gate: shs_direct_leave afterwards */
};

/* Under the hazard. */
static inline bool shs_direct_end(struct shs_fd *f)
{
    uint32_t state = __atomic_load_n(&f->state, __ATOMIC_ACQUIRE);
    if (SHS_LIKELY(state == SHS_FD_REG))
        return shs_nothing_new(f);
    if (state != SHS_FD_TCP || f->kept)
        return false;
    if (f->why && f->told) /* never registered, and that has been said */
        return true;
    if (f->ops + 1 >= shs_proc.env.opt.lift_after)
        return false;
    f->ops++;
    return true;
}

__attribute__((always_inline)) static inline enum shs_direct shs_direct_enter(int fd, int receive, uint32_t *outer)
{
    struct shs_fd *f = shs_fd_look(fd);
    struct shs_thread *t = &shs_self;
    if (SHS_UNLIKELY(!f))
        return SHS_INDIRECT;
    uint32_t state = f->state;
    if (state == SHS_FD_KERNEL)
        return SHS_DIRECT;
    if (SHS_LIKELY(state == SHS_FD_PAIRED) || state < SHS_FD_TCP || !t->listed || t->vfork || shs_proc.quiet || shs_proc.env.opt.eager == 1)
        return SHS_INDIRECT;
    /* hazard before state: who changes the state looks at the hazards afterwards */
    *outer = t->hazard;
    __atomic_store_n(&t->hazard, ((uint32_t)fd << 1 | (uint32_t)receive) + 1, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (SHS_LIKELY(shs_direct_end(f)))
        return SHS_DIRECT_HELD;
    __atomic_store_n(&t->hazard, *outer, __ATOMIC_RELEASE);
    return SHS_INDIRECT;
}

static inline void shs_direct_leave(uint32_t outer)
{
    __atomic_store_n(&shs_self.hazard, outer, __ATOMIC_RELEASE);
}
