/*
 * Purpose: a wait over an array of descriptors, for poll and select alike.
 */
#pragma once
#include "preload/process.h"

/* As ppoll(2), or -errno; *native: nothing in it is ours to look at, or the array is not there: libc's own call is to be made. */
int shs_poll_any(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, bool *native);
/* Does another thread have to know that we poll natively: is there a connection in it that it might bring under count? */
bool shs_poll_uncounted(const struct pollfd *fds, nfds_t n);
