/*
 * Purpose: the helper's entry points into the core, called from Python (helper/sharedstack_helper/native.py).
 * `stack` and `arena` are addresses of the mapped segments. Return 0 or a count, or -errno; -EBUSY: a table is locked by the living, try later.
 * Ownership: the caller is the stack's helper (header.helper names its slot) or the only user of the segments.
 */
#pragma once
#include "common.h"

SHS_PUBLIC int shs_native_claim(void *stack, uint32_t pid, uint32_t flags);
SHS_PUBLIC int shs_native_slot_alive(void *stack, uint32_t slot);
SHS_PUBLIC void shs_native_release(void *stack, uint32_t slot);
/* Everything that the dead participant held is released or marked for repair; its slot becomes free. */
SHS_PUBLIC int shs_native_reap(void *stack, void *arena, uint32_t slot);
/* Shut every ring; returns how many were open. What is in them is still read by their readers. */
SHS_PUBLIC int shs_native_lower_all(void *stack, void *arena);
/* The anchor with this cookie is gone: free endpoint `ep` (an index) if it is still its record; 1 if it was. */
SHS_PUBLIC int shs_native_endpoint_gone(void *stack, void *arena, uint32_t ep, uint64_t cookie);
/* One look at all rings: those that carried nothing since the last look give their memory back. Returns how many are left. */
SHS_PUBLIC int shs_native_cool(void *stack, void *arena);
SHS_PUBLIC int shs_native_rebuild(void *stack, void *arena);
