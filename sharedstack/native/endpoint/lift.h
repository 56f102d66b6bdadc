/*
 * Purpose: from a connection of the kernel's to an endpoint record, and from two records to a pair; and the way back.
 * Who may call: a participant that holds the descriptor. The tables' locks are only tried: where one is held the work is put off.
 */
#pragma once
#include "endpoint/end.h"

/* Find or make the record of fd, pairing it if its other end is registered: endpoint plus one; 0 to try again later; or -REASON_*. */
int shs_register(struct shs_env *env, const struct shs_who *who, int fd);
/* The same for one that another process, or another descriptor, may have had before us and have still: for the helper to find out (sole.c). */
int shs_register_shared(struct shs_env *env, const struct shs_who *who, int fd);
/* As shs_register, but only find a record that exists (an inherited or received descriptor): endpoint plus one, 0: none. Never
 * "later": while the tables are locked it looks without the lock. */
int shs_register_find(struct shs_env *env, const struct shs_who *who, int fd);
/* The end carries data again and has no pair: pair it, if its mate is registered and both may be. No system call; true if it is paired now. */
bool shs_pair_again(struct shs_env *env, const struct shs_who *who, uint32_t ep1);
/* Under ctl and the arena's lock: give a pair back, with its takers' notes. */
void shs_pair_free(struct shs_env *env, uint32_t pair1);
/* Is the endpoint paired? Fills in `end` (fd is the caller's to set). */
bool shs_end_of(struct shs_env *env, uint32_t ep1, struct shs_end *end);
/* Its peer's record, plus one; 0: it is not paired, or has none by now. Without a lock: who uses it looks whether it is that still. */
uint32_t shs_end_peer(struct shs_env *env, const struct shs_endpoint *ep);
/* What the program set of its buffers (ep->sndbuf, rcvbuf) bounds the rings of its pair, if it has one. Without a lock, or with ctl. */
void shs_end_bound(struct shs_env *env, const struct shs_endpoint *ep);
/*
 * The record has no holder any more: freed where the tables' locks can be had, else marked as closed. false: the helper has to be told, which
 * frees it then.
 */
bool shs_end_done(struct shs_env *env, const struct shs_who *who, uint32_t ep1);
/* The last descriptor of this process is closed. `sole`: no other process holds the anchor, so the end goes with it: unread ring bytes
 * turn the close into a reset. To be called before the kernel's close. false: the helper has to be told, which frees the record. */
bool shs_end_close(struct shs_env *env, const struct shs_who *who, uint32_t ep1, int fd, bool sole);
/*
 * The process leaves the stack, and keeps the socket: both directions are the kernel's from now on, uncounted, and the record is nobody's until
 * it comes back. What other processes hold too (EPF_SHARED) is left as it is; its ring is drained if there is a `drain`.
 */
void shs_end_leave(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_drain *drain);
/* The connection is about to be dissolved (connect(2) to AF_UNSPEC): what is unread here is lost, what was sent is still received. `sole`: nobody
 * else looks into the record. To be called before the kernel's connect. false: the helper has to be told, as by shs_end_close. */
bool shs_end_dissolve(struct shs_env *env, const struct shs_who *who, uint32_t ep1, bool sole);
/* Take `ctl` and the arena's lock, without waiting long; false: busy. */
bool shs_tables_lock(struct shs_env *env, const struct shs_who *who);
void shs_tables_unlock(struct shs_env *env);
/* Under ctl: free the record and its half of the pair. */
void shs_endpoint_free(struct shs_env *env, const struct shs_who *who, uint32_t ep1);
