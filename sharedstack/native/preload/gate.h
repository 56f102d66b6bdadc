/*
 * Purpose: what every data call begins with: from a descriptor to a decision (the one shape of all interceptors).
 *
 *     struct shs_gate g = shs_gate_enter(fd, SHS_RECEIVE);
 *     long r = g.ring ? <by the endpoint> : shs_n_<call>(...);
 *     shs_gate_leave(&g);
 *
 * A connection is registered after lift_after calls, paired when its other end is registered too, and brought under count
 * direction by direction; until then, and on any other descriptor, the call is libc's.
 */
#pragma once
#include "preload/process.h"

enum { SHS_SEND = 0, SHS_RECEIVE = 1 };

struct shs_gate {
    struct shs_fd *f; /* NULL: the kernel's, nothing to leave */
    const struct shs_who *who;
    bool ring;
    bool dgram; /* a registered datagram socket */
    bool kept;  /* bytes that were in a ring once come before the kernel's (kept.h) */
    uint32_t outer; /* hazard of the call that a signal handler interrupted */
};

/* The slow half: a descriptor that may be ours. `pass` without what eager adds. */
void shs_gate_slow(struct shs_gate *g, int fd, int receive);
void shs_gate_pass(struct shs_gate *g, int fd, int receive);

static inline struct shs_gate shs_gate_enter(int fd, int receive)
{
    struct shs_gate g = {0};
    struct shs_fd *f = shs_fd_look(fd);
    if (SHS_LIKELY(f && f->state == SHS_FD_KERNEL))
        return g;
    shs_gate_slow(&g, fd, receive);
    return g;
}

static inline void shs_gate_leave(struct shs_gate *g)
{
    if (g->f)
        __atomic_store_n(&shs_self.hazard, g->outer, __ATOMIC_RELEASE);
}

/* A registered end whose peer is not there: most calls on such an end find it so, and should cost as little as can be. */
static inline bool shs_nothing_new(const struct shs_fd *f)
{
    const struct shs_endpoint *ep = f->registered;
    return ep && !shs_load32(&ep->pair) && !(shs_load32(&ep->flags) & (SHS_EPF_UNPAIRED | SHS_EPF_REMOTE)) && !shs_proc.forked;
}

/* No call of ours made this descriptor: find out what it is, as its first data call would. */
void shs_gate_meet(int fd);

/*
 * The same for all that this program inherited, once: before a call that is about a descriptor but no data call, and so does not find out
 * itself. The ring of a connection that came over exec may hold bytes, which poll has to report.
 */
void shs_meet_inherited_slow(void);
static inline void shs_meet_inherited(void)
{
    if (SHS_UNLIKELY(!shs_proc.met && !shs_proc.off && !shs_proc.quiet))
        shs_meet_inherited_slow();
}

/*
 * The connection is the kernel's for good because of an option, or (level SHS_OPTION_OF_CALL) flags of a call. The flag is set last:
 * whoever sees it finds out what did it.
 */
static inline void shs_lowered_by(struct shs_endpoint *ep, uint32_t level, uint32_t name)
{
    shs_set32(&ep->opt_level, level);
    shs_set32(&ep->opt_name, name);
    shs_endpoint_flag(ep, SHS_EPF_KERNEL_ONLY);
}

/* Something is to be done for the stack (env.nudge); true: the process has another one now. In no lock. `met`: the call found out what its
 * descriptor is, and does not pay for a message as well that may be sent later. */
bool shs_nudged(int fd, bool met);

/* The endpoint of fd if it is paired (whatever is under count); false: the kernel's alone. */
bool shs_gate_paired(int fd, struct shs_fd **f);
