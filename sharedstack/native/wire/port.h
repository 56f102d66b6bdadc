/*
 * Purpose: a lent interface and its engine as one process sees them: mapped, locked, driven; and sleeping on them.
 * Who may call: a participant or the helper. What drives the engine takes wire.lock, between `enter` and `leave`; whoever polls does the work for
 * all, and rings the bells of those who wait.
 * When the caller dies inside: the next one to enter repairs engine and interface (engine.h, nic.h); packets under way may be lost, as on any
 * network.
 */
#pragma once
#include "link/nic.h"

#include <poll.h>

#define SHS_WIRE_RUNGS 64

struct shs_wire_port {
    struct shs_engine engine; /* first: `woken` finds the port by it */
    struct shs_nic_port nic;
    struct shs_env *env;
    uint32_t me; /* who has entered */
    uint32_t n_rung;
    uint32_t rung[SHS_WIRE_RUNGS]; /* bells to ring when the lock is given back */
    int fd[SHS_N_NIC_QUEUES];      /* of the AF_XDP sockets, the caller's */
    uint32_t n_fds;
};

/* Maps and sizes of what is lent, as its borrower found them. */
struct shs_wire_parts {
    void *area, *queues, *nic, *frames;
    uint64_t area_bytes, queue_bytes, frame_bytes;
};

/* 0, or -EINVAL: it is none, or too small for what it says; or -errno of its rings. */
int shs_wire_attach(struct shs_wire_port *p, struct shs_env *env, const struct shs_wire_parts *parts, const int *fds, uint32_t n_fds);
void shs_wire_detach(struct shs_wire_port *p);

/* Take wire.lock; `now` of the engine is the time. false: this thread has it already (a signal handler). */
bool shs_wire_enter(struct shs_wire_port *p, uint32_t me);
/* The same without waiting: false also where somebody else has it, who does what there is to do. */
bool shs_wire_try(struct shs_wire_port *p, uint32_t me);
/* Give it back, and ring the bells of those for whom there is something new. */
void shs_wire_leave(struct shs_wire_port *p);
/* Entered: packets in, timers, packets out. How many came. */
uint32_t shs_wire_drive(struct shs_wire_port *p);
/*
 * Entered, after a send of a program: have the driver send. Where sends follow each other fast that is put off for a few of them, but only while the helper looks after
 * what a program leaves behind (tend.c); who waits or looks for something, sends it first.
 */
void shs_wire_kick(struct shs_wire_port *p);
/* Entered, after a receive: what it had sent, unless a send is put off. */
static inline void shs_wire_kick_receive(struct shs_wire_port *p)
{
    if (SHS_LIKELY(!shs_load32(&p->engine.w->unsent)))
        shs_nic_flush(&p->nic);
}
/* Do packets wait to be looked at? A few loads, no lock. */
static inline bool shs_wire_arrived(const struct shs_wire_port *p)
{
    for (uint32_t q = 0; q < p->nic.n_queues; q++)
        if (shs_xsk_used(&p->nic.xsk[q].rx))
            return true;
    return false;
}
/* The same, or to be sent? */
static inline bool shs_wire_pending(const struct shs_wire_port *p)
{
    return SHS_UNLIKELY(shs_load32(&p->engine.w->unsent)) || shs_wire_arrived(p);
}
/* The same for who looks again and again: an interface that is polled busily has packets when it is asked. */
static inline bool shs_wire_worth_a_look(const struct shs_wire_port *p)
{
    return SHS_UNLIKELY(p->nic.busy) || shs_wire_pending(p);
}
/* Is there anything to do: packets, or timers that are due? Then do it, unless somebody else does. */
void shs_wire_look(struct shs_wire_port *p, uint32_t me);

/*
 * Sleeping. One thread at a time watches the sockets for all; the others have their bells. `begin` says whether the caller is that one, and how
 * long it may sleep at most before timers are due (UINT64_MAX: for ever).
 */
bool shs_wire_watch_begin(struct shs_wire_port *p, uint32_t me, uint64_t *until_ns);
void shs_wire_watch_end(struct shs_wire_port *p, uint32_t me);
/* Its sockets as an array for poll(2): how many. */
uint32_t shs_wire_poll_fds(const struct shs_wire_port *p, struct pollfd *fds);
