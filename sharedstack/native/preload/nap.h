/*
 * Purpose: napping, that is, a short sleep behind the thread's doorbell alone, on one ring. It costs a third of a doze, which watches
 * descriptors too, and is for waits in which whatever may come is rung for (shs_end_rung_for). What is not rung for (the death of
 * the peer's process, until the helper notices it; a sender outside the library) is found when the nap is over, nap_ms at the most.
 */
#pragma once
#include "preload/process.h"

/* May a wait on this ring until `deadline` (0: none) begin with a nap? A time-out that is nearer than a nap is the kernel's to keep. */
bool shs_may_nap(const struct shs_fd *f, uint64_t deadline);
/* Nap: 0 (look again), -EBUSY (not here, or not now), -ETIMEDOUT (nothing soon: wait as those who wait long) or -EINTR. */
long shs_nap(struct shs_fd *f, const struct shs_who *who, struct shs_bell_own *bell);
