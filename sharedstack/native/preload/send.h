/*
 * Purpose: sending from a buffer by whichever path there is, for all calls that come down to that. Called in a gate whose `ring` is true.
 */
#pragma once
#include "preload/gate.h"

/* As sendmsg(2) of that, blocking or not as the socket and the flags say, SIGPIPE and all: bytes or -errno; or SHS_LOST. */
long shs_ring_send_or_lost(struct shs_gate *g, const struct iovec *iov, int count, int flags);
/* The same for callers that have no other call to make: lost, it is sent by the kernel, which says what the descriptor is. */
long shs_ring_send(struct shs_gate *g, const struct iovec *iov, int count, int flags);
