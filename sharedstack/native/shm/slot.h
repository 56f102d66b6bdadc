/*
 * Purpose: participants' slots: claiming one, proving to be alive, finding out that another is dead.
 * Liveness is a robust futex (set_robust_list(2)) in the slot, held by the *home thread*: the kernel marks it when that thread ends
 * in whatever way, also by kill -9 and exec. A home thread that ends while its process lives on hands over: the slot is
 * flagged SLOT_UNWITNESSED until another thread enrols; meanwhile nobody takes the slot for dead.
 */
#pragma once
#include "shm/stack.h"

/* Claim a free slot for process `pid` and enrol the calling thread; returns the slot or -errno (-EAGAIN: none free, table busy). */
int shs_slot_claim(struct shs_stack *stack, uint32_t pid, uint32_t flags);
/* Enrol the calling thread as the home thread of its own slot (after fork, or when the old one ended). */
int shs_slot_enrol(struct shs_slot *slot);
/* The home thread is about to end: leave its robust list and mark the slot as unwitnessed. */
void shs_slot_leave_home(struct shs_slot *slot);
/* The calling process ends its use of the slot: it must hold nothing in shared memory any more. */
void shs_slot_release(struct shs_stack *stack, uint32_t slot);

/* Is the participant of slot1 (slot plus one) alive? Reads one cache line. */
static inline bool shs_slot_alive(struct shs_stack *stack, uint32_t slot1)
{
    if (SHS_UNLIKELY(slot1 - 1 >= SHS_N_SLOTS))
        return false;
    struct shs_slot *slot = shs_slot_at(stack, slot1 - 1);
    uint32_t word = shs_load32(&slot->robust);
    if (SHS_LIKELY((word & 0x3fffffffu) != 0 && !(word & 0x40000000u)))
        return shs_load32(&slot->state) != SHS_SLOT_FREE;
    return (shs_load32(&slot->state) & ((1u << SHS_SLOT_STATE_BITS) - 1)) == SHS_SLOT_CLAIMED ||
           (shs_load32(&slot->state) == SHS_SLOT_LIVE && (shs_load32(&slot->flags) & SHS_SLOT_UNWITNESSED));
}

/* One's own slot: why the socket with that inode will have no record. Forgets the oldest of N_TOLD. */
void shs_slot_tell(struct shs_slot *slot, uint64_t inode, uint32_t why);
