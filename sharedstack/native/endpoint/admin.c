/*
 * What the helper does to a stack: claim its slot, clean up after the dead, lower everything. Called from Python with the addresses of
 * the mapped segments; bulk memory is not needed. Locks are taken over from the dead, and never waited for.
 */
#include "endpoint/admin.h"

#include "endpoint/bell.h"
#include "endpoint/dgram.h"
#include "endpoint/lift.h"
#include "shm/flow.h"
#include "shm/lock.h"
#include "shm/slot.h"
#include "shm/spinners.h"
#include "shm/sys.h"
#include "shm/units.h"

static struct shs_env admin_env(void *stack, void *arena)
{
    return (struct shs_env){
        .stack = stack, .arena = arena, .bulk_fd = -1, .bell_fd = -1, .slot1 = shs_load32(&((struct shs_stack *)stack)->helper)};
}

int shs_native_claim(void *stack, uint32_t pid, uint32_t flags)
{
    return shs_slot_claim(stack, pid, flags);
}

int shs_native_slot_alive(void *stack, uint32_t slot)
{
    return shs_slot_alive(stack, slot + 1);
}

void shs_native_release(void *stack, uint32_t slot)
{
    shs_slot_release(stack, slot);
}

void shs_native_settle(void *stack)
{
    shs_spinners_settle(stack);
}

/* Take a table's lock if it is free or its owner dead; run its repair. */
static bool take_table(struct shs_env *env, uint32_t *lock, uint32_t me, bool ctl)
{
    int r = shs_lock_try(env, lock, me);
    if (r >= 0 && !ctl)
        shs_arena_entered(env->arena, r);
    else if (r == SHS_LOCK_REPAIR)
        shs_stack_rebuild(env->stack);
    return r >= 0;
}

bool shs_admin_take_tables(struct shs_env *env, uint32_t me)
{
    if (!take_table(env, &env->stack->ctl, me, true))
        return false;
    if (take_table(env, &env->arena->lock, me, false))
        return true;
    shs_unlock(&env->stack->ctl);
    return false;
}

void shs_admin_drop_tables(struct shs_env *env)
{
    shs_unlock(&env->arena->lock);
    shs_unlock(&env->stack->ctl);
}

/* A lock word with it is taken over, and repaired, by its next user. */
static bool bury_lock(uint32_t *word, uint32_t slot1)
{
    uint32_t held = shs_load32(word);
    return held >> SHS_LOCK_SLOT_SHIFT == slot1 &&
           shs_cas32(word, held, (uint32_t)SHS_BURIED << SHS_LOCK_SLOT_SHIFT | (held & SHS_LOCK_WAITERS));
}

static bool living_taker(struct shs_env *env, uint32_t handle, uint32_t except)
{
    for (uint32_t i = 0; i < shs_load32(&env->stack->slots_top) && i < SHS_N_SLOTS; i++) {
        struct shs_slot *slot = shs_slot_at(env->stack, i);
        if (i == except || shs_load32(&slot->state) != SHS_SLOT_LIVE)
            continue;
        for (int t = 0; t < SHS_N_TAKES; t++)
            if (shs_load32(&slot->takes[t]) == handle)
                return true;
    }
    return false;
}

/*
 * A dead taker may have taken bytes that it did not count, and it died between its note and its count for all we know: so counts are
 * never corrected by one. When no living participant has a note, the number of takers is 0. false: not now.
 */
static bool bury_take(struct shs_env *env, uint32_t handle, uint32_t dead, uint32_t me)
{
    struct shs_pair *pair = shs_pair_at(env->arena, (handle - 1) / 2 + 1);
    if (!pair || shs_load32(&pair->state) == SHS_PAIR_FREE)
        return true; /* but a parked inbox is used again only without takers */
    struct shs_direction *dir = &pair->dir[(handle - 1) % 2];
    int r = shs_lock_try(env, &dir->rlock, me);
    if (r < 0)
        return false;
    shs_cas32(&dir->rx_on, SHS_ON, SHS_RECOUNT);
    uint64_t word = shs_load64(&dir->word);
    bool done = !living_taker(env, handle, dead) && shs_cas64(&dir->word, word, word & (SHS_WORD_TAKER - 1));
    shs_unlock(&dir->rlock);
    return done;
}

/* Was the dead one at the writing end of this direction? Its end comes by the kernel, and who naps there does not see that. */
static bool wrote_there(struct shs_env *env, const struct shs_pair *pair, int d, uint32_t slot1)
{
    const struct shs_endpoint *ep = shs_endpoint_at(env->stack, shs_load32(&pair->endpoint[d]));
    return shs_load32(&pair->dir[d].wslot) == slot1 || (ep && ep->slot == slot1);
}

/* Its records must not seem to be those of who gets the slot next: nobody would look whether their sockets are gone. */
static void bury_records(struct shs_env *env, uint32_t slot1)
{
    for (uint32_t ep1 = 1; ep1 <= env->stack->endpoints_top && ep1 <= SHS_N_ENDPOINTS; ep1++) {
        struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
        if (shs_load32(&ep->slot) == slot1)
            shs_store32(&ep->slot, SHS_BURIED);
    }
}

int shs_native_reap(void *stack_at, void *arena_at, uint32_t index)
{
    struct shs_env env = admin_env(stack_at, arena_at);
    struct shs_slot *slot = shs_slot_at(env.stack, index);
    uint32_t me = env.slot1 << SHS_LOCK_SLOT_SHIFT | 2, slot1 = index + 1;
    if (shs_load32(&slot->state) == SHS_SLOT_FREE)
        return 0;
    if (!shs_admin_take_tables(&env, me))
        return -EBUSY;
    for (uint32_t p = 1; p <= env.arena->pairs_top && p <= SHS_N_PAIRS; p++) {
        struct shs_pair *pair = shs_pair_at(env.arena, p);
        for (int d = 0; d < 2; d++) {
            struct shs_direction *dir = &pair->dir[d];
            /* also in a free one: whoever remembers the pair may have died with its lock, before it saw that it is not its own */
            bury_lock(&dir->rlock, slot1);
            bool wrote = bury_lock(&dir->wlock, slot1);
            if (wrote && shs_load32(&pair->state) == SHS_PAIR_PARKED)
                shs_inbox_empty(&env, dir, me); /* it may have died over that */
            if (shs_load32(&pair->state) != SHS_PAIR_LIVE)
                continue;
            if (wrote && shs_index_diff(shs_word_index(shs_load64(&dir->word)), shs_chunk_base(dir->wchunk)) < 0)
                shs_store64(&dir->wchunk, shs_load64(&dir->rchunk)); /* a larger chunk that was never switched to */
            if (shs_load32(&dir->bell) && (wrote || wrote_there(&env, pair, d, slot1))) {
                /* it may also have died between publishing and ringing */
                if (env.bell_fd < 0)
                    env.bell_fd = (int)SHS_SYS(syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
                shs_bell_ring(&env, NULL, shs_load32(&dir->bell));
            }
            if (shs_load32(&dir->opener) == slot1 && shs_ring_close(dir))
                shs_count(&env, SHS_CTR_OPENER_DEAD, 1);
            if ((shs_load32(&dir->bell) - 1) / SHS_N_BELLS == index && shs_load32(&dir->bell))
                shs_store32(&dir->bell, 0);
        }
    }
    if (env.bell_fd >= 0)
        shs_sys_close(env.bell_fd);
    shs_arena_rebuild(env.arena); /* it may have died between naming a chunk and giving another one back */
    for (int i = 0; i < SHS_N_TAKES; i++) {
        if (slot->takes[i] && !bury_take(&env, slot->takes[i], index, me)) {
            shs_admin_drop_tables(&env);
            return -EBUSY;
        }
        slot->takes[i] = 0;
    }
    shs_spinners_forget(env.stack, slot1);
    bury_records(&env, slot1);
    for (int i = 0; i < SHS_CTR_COUNT; i++)
        __atomic_fetch_add(&env.stack->totals[i], shs_peek64(&slot->counters[i]), __ATOMIC_RELAXED);
    shs_store32(&slot->robust, 0);
    slot->pid = 0;
    slot->gen += !slot->gen; /* its first claimer died over that */
    shs_store32(&slot->state, SHS_SLOT_FREE);
    shs_admin_drop_tables(&env);
    return 0;
}

int shs_native_lower_all(void *stack_at, void *arena_at)
{
    struct shs_arena *arena = arena_at;
    struct shs_stack *stack = stack_at;
    int shut = 0;
    /* whoever looks for a peer finds that nothing is paired any more */
    for (uint32_t ep1 = 1; ep1 <= shs_load32(&stack->endpoints_top) && ep1 <= SHS_N_ENDPOINTS; ep1++) {
        struct shs_endpoint *ep = shs_endpoint_at(stack, ep1);
        if (shs_load32(&ep->state) == SHS_EP_LIVE && !shs_load32(&ep->pair))
            __atomic_fetch_or(&ep->flags, SHS_EPF_UNPAIRED, __ATOMIC_SEQ_CST);
    }
    for (uint32_t p = 1; p <= arena->pairs_top && p <= SHS_N_PAIRS; p++) {
        struct shs_pair *pair = shs_pair_at(arena, p);
        for (int d = 0; d < 2 && shs_load32(&pair->state) == SHS_PAIR_LIVE; d++)
            shut += shs_ring_close(&pair->dir[d]);
    }
    return shut;
}

static uint32_t lower(void *stack, void *arena, uint64_t index, uint64_t cookie)
{
    struct shs_endpoint *ep = index < SHS_N_ENDPOINTS ? shs_endpoint_at(stack, (uint32_t)index + 1) : NULL;
    if (!ep || shs_load32(&ep->state) != SHS_EP_LIVE || shs_load64(&ep->cookie) != cookie)
        return 0;
    struct shs_pair *pair = shs_pair_at(arena, shs_load32(&ep->pair));
    uint32_t shut = 0;
    for (int d = 0; pair && d < 2 && shs_load32(&pair->state) == SHS_PAIR_LIVE; d++)
        shut += shs_ring_close(&pair->dir[d]);
    return shut;
}

int shs_native_unread(void *stack, void *arena, uint32_t ep, uint64_t cookie)
{
    struct shs_env env = admin_env(stack, arena);
    struct shs_end end;
    return shs_end_of(&env, ep + 1, &end) && end.cookie == cookie && shs_end_waiting(&end);
}

void shs_native_lower(void *stack, void *arena, uint32_t count, const uint64_t (*ends)[2], uint32_t *shut)
{
    for (uint32_t i = 0; i < count; i++)
        shut[i] = lower(stack, arena, ends[i][0], ends[i][1]);
}

int shs_native_endpoint_gone(void *stack, void *arena, uint32_t ep, uint64_t cookie, uint32_t holders)
{
    struct shs_env env = admin_env(stack, arena);
    uint32_t me = env.slot1 << SHS_LOCK_SLOT_SHIFT | 2;
    struct shs_endpoint *record = shs_endpoint_at(env.stack, ep + 1);
    if (!record)
        return -EINVAL;
    if (!shs_admin_take_tables(&env, me))
        return -EBUSY;
    bool gone = shs_load32(&record->state) != SHS_EP_FREE && record->cookie == cookie && shs_load32(&record->holders) == holders;
    if (gone)
        shs_endpoint_free(&env, NULL, ep + 1);
    shs_admin_drop_tables(&env);
    return gone;
}

int shs_native_rebuild(void *stack, void *arena)
{
    struct shs_env env = admin_env(stack, arena);
    uint32_t me = env.slot1 << SHS_LOCK_SLOT_SHIFT | 2;
    if (!shs_admin_take_tables(&env, me))
        return -EBUSY;
    shs_stack_rebuild(env.stack);
    shs_arena_rebuild(env.arena);
    shs_admin_drop_tables(&env);
    return 0;
}
