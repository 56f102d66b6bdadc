/*
 * Purpose: small things that several interceptors need: whether an interrupted wait goes on, what a received message did to the
 * descriptor table, receives with flags that only the kernel has, and the epoll set's say on opening a ring.
 */
#pragma once
#include "preload/gate.h"

/* After EINTR from a wait of ours: would the kernel have restarted the program's own call (SA_RESTART on every handler)? */
bool shs_restarts(void);
/* Descriptors came by SCM_RIGHTS: their numbers mean something new. */
void shs_received_rights(struct msghdr *msg);
long shs_recv_special(struct shs_gate *g, struct msghdr *msg, int flags);
/* May the caller of a read open the ring, as far as the epoll set of the descriptor is concerned? */
bool shs_set_may_open(struct shs_fd *f);
/* The ring of a member may have been opened: list it in its set, or shut it again if the set sleeps or is full; true: look again. */
bool shs_set_opened(struct shs_fd *f, int fd);
