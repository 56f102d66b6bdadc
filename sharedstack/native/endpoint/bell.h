/*
 * Purpose: doorbells. A thread that dozes sleeps on its real descriptors and on a datagram socket of its own; who publishes a record
 * for it exchanges `armed` to 0 and, having found 1, sends one datagram.
 * The order that loses no wake-up: reader: dir.bell, armed := 1, fence, look at the rings, sleep; writer: publish (a full barrier),
 * load dir.bell, load armed, exchange. One of the two sees the other.
 */
#pragma once
#include "shm/stack.h"

/* A thread's own bell; fd is high and close-on-exec. */
struct shs_bell_own {
    int fd;
    uint32_t handle; /* slot * N_BELLS + bell, plus one */
    struct shs_bell *bell;
};

/* Make a bell for the calling thread: 0 or -errno (no free bell, no descriptor). */
int shs_bell_make(struct shs_env *env, uint32_t tag, struct shs_bell_own *own);
/* Give it up; `forked`: the descriptor is the parent's, close our copy only. */
void shs_bell_drop(struct shs_bell_own *own, bool forked);
/* Swallow what was rung. */
void shs_bell_drain(struct shs_bell_own *own);
/* After publishing in dir: ring the bell if its thread has armed it; true if it was rung. */
bool shs_bell_ring(struct shs_env *env, struct shs_direction *dir, uint32_t handle);
/* May the calling thread doze on this ring? Not while another thread dozes there. */
bool shs_bell_available(struct shs_env *env, struct shs_direction *dir, const struct shs_bell_own *own);
