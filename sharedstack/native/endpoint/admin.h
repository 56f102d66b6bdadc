/*
 * Purpose: the helper's entry points into the core, called from Python (helper/sharedstack_helper/native.py).
 * `stack` and `arena` are addresses of the mapped segments. Return 0 or a count, or -errno; -EBUSY: a table is locked by the living, try later.
 * Ownership: the caller is the stack's helper (header.helper names its slot) or the only user of the segments.
 */
#pragma once
#include "shm/stack.h"

SHS_PUBLIC int shs_native_claim(void *stack, uint32_t pid, uint32_t flags);
SHS_PUBLIC int shs_native_slot_alive(void *stack, uint32_t slot);
SHS_PUBLIC void shs_native_release(void *stack, uint32_t slot);
/* Everything that the dead participant held is released or marked for repair; its slot becomes free. */
SHS_PUBLIC int shs_native_reap(void *stack, void *arena, uint32_t slot);
/* What participants that died or left may have left uneven: how many threads spin. */
SHS_PUBLIC void shs_native_settle(void *stack);
/* Shut every ring; returns how many were open. What is in them is still read by their readers. */
SHS_PUBLIC int shs_native_lower_all(void *stack, void *arena);
/* Shut the rings of so many endpoints, both ways: each is an index and a cookie in `ends`. How many were open is put into `shut`; 0, too, where
 * the record is not, or no longer, that one. */
SHS_PUBLIC void shs_native_lower(void *stack, void *arena, uint32_t count, const uint64_t (*ends)[2], uint32_t *shut);
/* Does its ring hold something for endpoint `ep` (an index), if it is still that record? */
SHS_PUBLIC int shs_native_unread(void *stack, void *arena, uint32_t ep, uint64_t cookie);
/* The anchor with this cookie is gone: free endpoint `ep` (an index) if it is still its record, and nobody has found it since `holders` was read there;
 * 1 if it was so. */
SHS_PUBLIC int shs_native_endpoint_gone(void *stack, void *arena, uint32_t ep, uint64_t cookie, uint32_t holders);
/* One look at all pairs: rings that carried nothing since the last look give their memory back; a pair that was cold for more than
 * `patience` looks is given back. Returns how many are worth another look. */
SHS_PUBLIC int shs_native_cool(void *stack, void *arena, uint32_t patience);
/* A search for holders begins; then each endpoint is probed. */
SHS_PUBLIC void shs_native_search(void *stack);
/* Endpoint `ep` is looked at: from now on what shares or lowers it is seen by shs_native_sole. 0, or -ENOENT. */
SHS_PUBLIC int shs_native_probe(void *stack, uint32_t ep, uint64_t cookie);
/* Since it was probed one descriptor only was found that holds the anchor, of the participant `slot`, which was giving none away when the search
 * began: the connection may be lifted (again). 1 done; 0 it is not so any more; -EBUSY: not now. */
SHS_PUBLIC int shs_native_sole(void *stack, void *arena, uint32_t ep, uint64_t cookie, uint32_t slot);
SHS_PUBLIC int shs_native_rebuild(void *stack, void *arena);

/* Both tables' locks, if they are free or their owners dead. */
bool shs_admin_take_tables(struct shs_env *env, uint32_t me);
void shs_admin_drop_tables(struct shs_env *env);
/* Shut the ring and free its memory, if it is empty and still at `index`. */
bool shs_cool(struct shs_env *env, struct shs_direction *dir, uint64_t index, uint32_t me);
/* Give a cold pair back: 1 done; 0 somebody is inside, or it is not cold any more; -1 not as long as its ends are what they are. `sole1`: the
 * record, plus one, that has one holder only whatever was before; 0: none. */
int shs_unpair(struct shs_env *env, uint32_t pair1, const uint64_t index[2], uint32_t me, uint32_t sole1);
