#include "common.h"

#include "shm/spinners.h"

#include <time.h>

#include "shm/sys.h"

/* Longer than a thread needs from one of the two counts to the other, unless it is not scheduled there: then the next look puts it right. */
#define BETWEEN_NS 1000000

void shs_spinners_forget(struct shs_stack *stack, uint32_t slot1)
{
    uint32_t n = __atomic_exchange_n(&shs_slot_at(stack, slot1 - 1)->spinning, 0, __ATOMIC_SEQ_CST);
    if (n)
        shs_add32(&stack->spinners, -n);
}

static bool nobody(struct shs_stack *stack)
{
    for (uint32_t i = 0; i < shs_load32(&stack->slots_top) && i < SHS_N_SLOTS; i++) {
        const struct shs_slot *slot = shs_slot_at(stack, i);
        if (shs_load32(&slot->state) != SHS_SLOT_FREE && shs_load32(&slot->spinning))
            return false;
    }
    return true;
}

void shs_spinners_settle(struct shs_stack *stack)
{
    uint32_t was = shs_load32(&stack->spinners);
    if (!was || !nobody(stack))
        return;
    struct timespec between = {0, BETWEEN_NS};
    (void)SHS_SYS(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &between, NULL));
    if (shs_load32(&stack->spinners) == was && nobody(stack))
        shs_cas32(&stack->spinners, was, 0);
}
