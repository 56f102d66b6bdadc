/*
 * Purpose: doorbells. A thread that dozes sleeps on its real descriptors and on a datagram socket of its own; who publishes a record
 * for it sends one datagram and then changes `armed` to 0, in this order: a writer that is killed in between has rung.
 * A thread that naps sleeps on `armed` itself, by futex(2): a third of the price, for a wait in which nothing but a ring of the bell may
 * come, and bounded: it looks at its descriptors when the time is up. There a writer changes `armed` first, and wakes afterwards; one
 * that is killed in between leaves the reader to its time-out.
 * The order that loses no wake-up: reader: armed := n, claim the rings' dir.bell, fence, look at the rings, sleep; writer: publish (a
 * full barrier), load dir.bell, load armed, ring. One of the two sees the other. A ring that another armed bell has claimed cannot be
 * dozed on: its thread sleeps in the kernel instead.
 */
#pragma once
#include "shm/stack.h"

struct shs_end;

/* A thread's own bell; fd is high and close-on-exec. */
struct shs_bell_own {
    int fd;
    uint32_t handle; /* slot * N_BELLS + bell, plus one */
    uint32_t number; /* of the last arming */
    struct shs_bell *bell;
};

/* Make a bell for the calling thread: 0 or -errno (no free bell, no descriptor). */
int shs_bell_make(struct shs_env *env, uint32_t tag, struct shs_bell_own *own);
/* Give it up; `forked`: the descriptor is the parent's, close our copy only. */
void shs_bell_drop(struct shs_bell_own *own, bool forked);
/* Swallow what was rung. */
/* The bell's descriptor has another number now, the old one is about to go: whoever sleeps on the old one is called back first. `self`: it is the
 * calling thread's own. */
void shs_bell_move(struct shs_env *env, struct shs_bell_own *own, int to, bool self);
void shs_bell_drain(struct shs_bell_own *own);
/* After publishing in dir: ring the bell if its thread has armed it; true if it was rung. `dir` may be NULL. */
bool shs_bell_ring(struct shs_env *env, struct shs_direction *dir, uint32_t handle);
/* Arm the bell, `nap`: for shs_bell_nap; the claims and the last look come afterwards. */
void shs_bell_arm(struct shs_bell_own *own, bool nap);
/* Sleep behind the bell for at most so long: 0 (rung, or time to look), -ETIMEDOUT or -EINTR. */
long shs_bell_nap(struct shs_bell_own *own, uint64_t most_ns);
/* The thread is awake again. */
void shs_bell_disarm(struct shs_bell_own *own);
/* Have this bell rung for the end's ring; false: another thread dozes there, or there is no pair any more. `alone`: no other thread or
 * process reads here. */
bool shs_bell_claim(struct shs_env *env, uint32_t me, const struct shs_end *end, const struct shs_bell_own *own, bool alone);
/* Send one datagram to the bell, armed or not. */
void shs_bell_send(struct shs_env *env, const struct shs_bell *bell);
