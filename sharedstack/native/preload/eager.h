/*
 * Purpose: what SHAREDSTACK_EAGER=1, a switch for tests, adds to a program's calls: time. An end is registered when it is connected, and a sender
 * waits some milliseconds for its peer to begin reading, and for room in the ring, before it takes the kernel's path. What calls
 * return, and what other threads may do meanwhile, is as it would be if this thread had run later.
 * Who may call: any thread, in no lock; the second and third within a gate. When the caller dies inside: nothing is held.
 */
#pragma once
#include <poll.h>

#include "preload/gate.h"

/* fd is perhaps connected: do what its first data call would. */
void shs_eager_meet(int fd);
/* fd was just accepted. Its peer is waited for a little, and both directions brought under count: when another process has it, as with servers that
 * fork or pass connections on, they could not be any more. */
void shs_eager_accepted(int fd);
/* The same for descriptors that are about to be waited on for reading. */
void shs_eager_polled(const struct pollfd *fds, nfds_t n);

/* Its sending direction is about to be shut: what is in the ring is given a moment to be read. */
void shs_eager_read(struct shs_fd *f);

/* A first send, which would go by the kernel: is it worth while to pass the gate again? It sleeps a little before it says so. */
bool shs_eager_again(struct shs_gate *g, int fd, uint64_t *until);

/*
 * As shs_end_send, but waiting for room in the ring while the reader gets on; a reader that sleeps in the kernel is given a small piece there, by
 * which it wakes and opens its ring. Who calls must look at *f again: the descriptor may have been closed meanwhile. *broken: a handler without
 * SA_RESTART ran meanwhile, so a call that blocks (`block`) must not wait any more.
 */
long shs_eager_send(struct shs_gate *g, struct shs_fd **f, struct shs_fd **orphan, struct shs_cursor *cur, int flags, bool block,
                    bool *broken);
