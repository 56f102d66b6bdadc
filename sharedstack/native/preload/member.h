/*
 * Purpose: this process as a member of a stack: it attaches when it first needs to, leaves when it becomes somebody else, and moves when its stack
 * was retired and there is a new one.
 * Who may call: any thread, in no lock of shared memory. One thread at a time attaches, leaves, or handles numbers of records (to register,
 * pair, give up): by the join lock, which the others only try, or hold for a moment.
 *
 * Leaving, in this order:
 * 1  no thread gets an identity for locks any more, so none passes the gate to a ring;
 * 2  of each lifted socket: its ring is shut, what it holds is kept (kept.h), both directions are put out of count under their locks. Whoever is
 *    inside finds under the lock that it has to use the kernel;
 * 3  sleepers behind bells are called; epoll sets are the kernel's, which is told all that it does not know;
 * 4  the mapped segments are replaced by private memory at the same addresses: a thread that still looks at something there finds zeros, which
 *    are nobody's. The arena goes first: what somebody is just writing cannot be published any more;
 * 5  the slot is marked as a killed process's would be: whatever a thread of ours had locked is repaired by the others.
 */
#pragma once
#include "preload/nested.h"

bool shs_join_try(void);
void shs_join_lock(void);
void shs_join_unlock(void);
/* Wait until whoever is leaving has left: what a ring held comes before all that is in the kernel. false: that is the caller itself. */
bool shs_left(void);
/* Attach if that was not tried lately; true if attached. `fd` is an internet socket of the network namespace in question. */
bool shs_attach(int fd);
/* Leave the stack, if attached. Under the join lock. */
void shs_leave(void);
/* The stack was retired: is there another one, for the namespace of fd? Then move there: true, and nothing of before holds. */
bool shs_move(int fd);
/* In a forked child. */
void shs_member_forked(void);
