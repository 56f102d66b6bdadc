/*
 * Purpose: how many threads spin now: a word of the stack, which everybody who thinks of spinning reads. It is derived from the slots' own counts.
 * Who may call: begin, end: a thread of that slot's participant; forget: whoever gives the slot back; settle: the helper.
 * When the caller dies inside: the two counts differ by one, until settle sees that nobody spins.
 */
#pragma once
#include "shm/stack.h"

static inline void shs_spinner_begin(struct shs_stack *stack, uint32_t slot1)
{
    shs_add32(&shs_slot_at(stack, slot1 - 1)->spinning, 1);
    shs_add32(&stack->spinners, 1);
}

/* A thread that goes on while its process gives the slot back is not counted any more. */
static inline void shs_spinner_end(struct shs_stack *stack, uint32_t slot1)
{
    uint32_t *spinning = &shs_slot_at(stack, slot1 - 1)->spinning, n = shs_load32(spinning);
    while (n)
        if (shs_cas32(spinning, n, n - 1)) {
            shs_add32(&stack->spinners, -1u);
            return;
        } else {
            n = shs_load32(spinning);
        }
}

/* May be below zero for a moment, or where somebody died between the two counts. */
static inline int32_t shs_spinners(const struct shs_stack *stack)
{
    return (int32_t)shs_peek32(&stack->spinners);
}

/* The slot's threads spin no more. */
void shs_spinners_forget(struct shs_stack *stack, uint32_t slot1);
/* Where no slot says that it spins, and the stack's count stays another, that becomes 0. */
void shs_spinners_settle(struct shs_stack *stack);
