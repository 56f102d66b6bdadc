#include "shm/slot.h"

#include <linux/futex.h>
#include <stdio.h>
#include <sys/prctl.h>

#include "shm/lock.h"
#include "shm/spinners.h"
#include "shm/sys.h"

/* get_robust_list(2): the head that libc registered for this thread; NULL if there is none. */
static struct robust_list_head *robust_head(void)
{
    struct robust_list_head *head = NULL;
    size_t len = 0;
    if (syscall(SYS_get_robust_list, 0, &head, &len) != 0 || len != sizeof *head)
        return NULL;
    return head;
}

/* Where libc's list node of a mutex lies, relative to its futex word; our slot line has room for it. */
static void **robust_node(struct shs_slot *slot, const struct robust_list_head *head)
{
    long offset = -head->futex_offset;
    if (offset < 8 || offset + (long)sizeof(void *) > 64)
        return NULL;
    return (void **)((uint8_t *)&slot->robust + offset);
}

int shs_slot_enrol(struct shs_slot *slot)
{
    struct robust_list_head *head = robust_head();
    void **node = head ? robust_node(slot, head) : NULL;
    if (!node) {
        __atomic_fetch_or(&slot->flags, SHS_SLOT_UNWITNESSED, __ATOMIC_SEQ_CST);
        return -ENOTSUP;
    }
    void *next = head->list.next;
    node[0] = next;
    /* 64-bit glibc links both ways: the previous pointer lies just before the next one */
    if (sizeof(void *) == 8 && head->futex_offset == -32) {
        node[-1] = &head->list;
        if (next != (void *)&head->list)
            ((void **)((uintptr_t)next & ~(uintptr_t)1))[-1] = node;
    }
    shs_store32(&slot->robust, shs_sys_gettid());
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    head->list.next = (struct robust_list *)node;
    __atomic_fetch_and(&slot->flags, ~(uint32_t)SHS_SLOT_UNWITNESSED, __ATOMIC_SEQ_CST);
    return 0;
}

void shs_slot_leave_home(struct shs_slot *slot)
{
    struct robust_list_head *head = robust_head();
    void **node = head ? robust_node(slot, head) : NULL;
    __atomic_fetch_or(&slot->flags, SHS_SLOT_UNWITNESSED, __ATOMIC_SEQ_CST);
    if (!node)
        return;
    bool both_ways = sizeof(void *) == 8 && head->futex_offset == -32;
    void **at = (void **)&head->list.next;
    for (int i = 0; i < 100000 && *at != (void *)&head->list; i++) {
        void **here = (void **)((uintptr_t)*at & ~(uintptr_t)1);
        if (here == node) {
            void *next = node[0];
            *at = next;
            if (both_ways && next != (void *)&head->list)
                ((void **)((uintptr_t)next & ~(uintptr_t)1))[-1] = (void *)at;
            return;
        }
        at = here;
    }
}

static uint64_t pid_namespace(void)
{
    struct shs_stat st;
    return shs_sys_stat(AT_FDCWD, "/proc/self/ns/pid", &st) == 0 ? st.ino : 0;
}

/* The word of a claimed slot: who claims it, so that it can be told when that one dies. */
static uint32_t claimed_by(uint32_t pid, uint64_t pidns)
{
    uint32_t ns = (uint32_t)pidns & ((1u << SHS_SLOT_PIDNS_BITS) - 1);
    return (pid << SHS_SLOT_PIDNS_BITS | ns) << SHS_SLOT_STATE_BITS | SHS_SLOT_CLAIMED;
}

int shs_slot_claim(struct shs_stack *stack, uint32_t pid, uint32_t flags)
{
    uint64_t pidns = pid_namespace();
    for (uint32_t i = 0; i < SHS_N_SLOTS; i++) {
        struct shs_slot *slot = shs_slot_at(stack, i);
        if (i >= shs_load32(&stack->slots_top) && shs_populate(slot, sizeof *slot) != 0)
            return -ENOMEM;
        if (shs_load32(&slot->state) != SHS_SLOT_FREE || !shs_cas32(&slot->state, SHS_SLOT_FREE, claimed_by(pid, pidns)))
            continue;
        uint32_t top = shs_load32(&stack->slots_top);
        while (top < i + 1 && !shs_cas32(&stack->slots_top, top, i + 1))
            top = shs_load32(&stack->slots_top);
        slot->gen++;
        slot->pid = pid;
        slot->uid = (uint32_t)getuid();
        slot->start_ns = shs_now();
        slot->pidns = pidns;
        slot->flags = flags;
        slot->bits = sizeof(void *) * 8;
        slot->spinning = 0;
        slot->sharing = 0;
        memset(slot->comm, 0, sizeof slot->comm);
        (void)SHS_SYS(syscall(SYS_prctl, PR_GET_NAME, slot->comm, 0, 0, 0));
        memset(slot->bells, 0, sizeof slot->bells);
        memset(slot->takes, 0, sizeof slot->takes);
        memset(slot->counters, 0, sizeof slot->counters);
        memset(slot->told, 0, sizeof slot->told);
        slot->told_at = 0;
        slot->awaits = 0;
        slot->awaits_ns = 0;
        slot->rules = 0;
        slot->rules_gen = 0; /* the helper says which rules concern us */
        shs_slot_enrol(slot);
        shs_store32(&slot->state, SHS_SLOT_LIVE);
        return (int)i;
    }
    return -EAGAIN;
}

void shs_slot_release(struct shs_stack *stack, uint32_t index)
{
    struct shs_slot *slot = shs_slot_at(stack, index);
    shs_slot_leave_home(slot);
    shs_spinners_forget(stack, index + 1); /* other threads may be spinning: the process ends */
    for (int i = 0; i < SHS_CTR_COUNT; i++)
        __atomic_fetch_add(&stack->totals[i], shs_peek64(&slot->counters[i]), __ATOMIC_RELAXED);
    shs_store32(&slot->robust, 0);
    slot->pid = 0;
    shs_store32(&slot->state, SHS_SLOT_FREE);
}

void shs_slot_tell(struct shs_slot *slot, uint64_t inode, uint32_t why)
{
    for (int i = 0; i < SHS_N_TOLD; i++)
        if (shs_peek64(&slot->told[i]) >> SHS_TOLD_SHIFT == inode) {
            shs_set64(&slot->told[i], inode << SHS_TOLD_SHIFT | why);
            return;
        }
    uint32_t at = __atomic_fetch_add(&slot->told_at, 1, __ATOMIC_RELAXED) % SHS_N_TOLD;
    shs_set64(&slot->told[at], inode << SHS_TOLD_SHIFT | why);
}
