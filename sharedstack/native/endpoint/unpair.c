/*
 * Un-pairing: the pair of an idle connection is given back, and both ends stay registered, so that it costs a record an end. By the
 * helper, in this order:
 * 1  ctl and the arena's lock, so that nobody pairs, closes or frees; then, tried only, the four locks of the pair: nobody pushes, pulls,
 *    opens, activates or counts a taker;
 * 2  both rings are shut, empty, without memory, and their indices are where they were seconds ago;
 * 3  the cookies of all four sides are cleared. From here on whoever remembers the pair (end.h) finds, under the lock that it takes,
 *    that it is not its own, and uses the kernel. Takers are forgotten: what they take nobody counts any more;
 * 4  the records lose the pair; it becomes free. Killed in between, the next helper's look does the rest.
 * The kernel carries the bytes from then on, uncounted, as it did before the connection was paired; being brought under count again
 * (shs_activate) begins with the kernel's own counts, and with looking for those who are inside a native call.
 */
#include "endpoint/admin.h"
#include "endpoint/dgram.h"
#include "endpoint/lift.h"
#include "shm/lock.h"
#include "shm/units.h"

/* The record at an end of the pair, if it is of this pair. */
static struct shs_endpoint *end_at(struct shs_env *env, const struct shs_pair *pair, uint32_t pair1, uint32_t side)
{
    struct shs_endpoint *ep = shs_endpoint_at(env->stack, pair->endpoint[side]);
    bool ours = ep && shs_load32(&ep->state) != SHS_EP_FREE && shs_load32(&ep->pair) == pair1 && ep->side == side;
    return ours && ep->cookie == pair->cookie[side] ? ep : NULL;
}

/*
 * A shared or copied end could not be brought under count again, since nobody knows who else is inside the kernel on it. An error that
 * a look consumed is known to the record alone, and reported by a counted receive.
 */
static bool may_unpair(struct shs_env *env, const struct shs_pair *pair, uint32_t pair1, uint32_t sole1)
{
    for (uint32_t side = 0; side < 2; side++) {
        struct shs_endpoint *ep = end_at(env, pair, pair1, side);
        if (ep && shs_is_datagram(ep))
            return false; /* an inbox: parked when its socket goes (inbox.c), never free */
        uint32_t shared = sole1 && pair->endpoint[side] == sole1 ? SHS_EPF_PINNED : SHS_EPF_SHARED | SHS_EPF_PINNED;
        if (ep && ((shs_load32(&ep->flags) & shared) || shs_load32(&ep->error)))
            return false;
    }
    return true;
}

static void unlock_pair(struct shs_pair *pair, int held)
{
    while (held--)
        shs_unlock(held % 2 ? &pair->dir[held / 2].wlock : &pair->dir[held / 2].rlock);
}

static bool lock_pair(struct shs_env *env, struct shs_pair *pair, uint32_t me)
{
    for (int i = 0; i < 4; i++) {
        struct shs_direction *dir = &pair->dir[i / 2];
        int r = shs_lock_try(env, i % 2 ? &dir->wlock : &dir->rlock, me);
        if (r < 0) {
            unlock_pair(pair, i);
            return false;
        }
        if (r == SHS_LOCK_REPAIR && i % 2)
            shs_dir_repair_writer(dir);
        else if (r == SHS_LOCK_REPAIR)
            shs_dir_repair_reader(dir);
    }
    return true;
}

/* Shut, empty, without memory, and where it was? Takers and STICKY may be there. */
static bool cold(const struct shs_direction *dir, uint64_t index)
{
    uint64_t word = shs_load64(&dir->word);
    return !(word & SHS_WORD_OPEN) && shs_word_index(word) == index && !shs_ring_waiting(dir) && !shs_load64(&dir->rchunk) &&
           !shs_load64(&dir->wchunk);
}

static void forget(struct shs_env *env, struct shs_pair *pair, uint32_t pair1, bool again)
{
    /* STICKY never goes away: such a connection is not paired again, unless it was for a holder that is gone; nor is one whose other end has gone */
    bool sealed = !again && ((shs_load64(&pair->dir[0].word) | shs_load64(&pair->dir[1].word)) & SHS_WORD_STICKY);
    struct shs_endpoint *ep[2];
    for (uint32_t side = 0; side < 2; side++) {
        ep[side] = end_at(env, pair, pair1, side);
        sealed |= !ep[side];
    }
    for (int d = 0; d < 2; d++) {
        __atomic_store_n(&pair->dir[d].wcookie, 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&pair->dir[d].rcookie, 0, __ATOMIC_SEQ_CST);
    }
    for (int side = 0; side < 2; side++) {
        if (!ep[side])
            continue;
        shs_set32(&ep[side]->why_tx, SHS_REASON_IDLE);
        shs_set32(&ep[side]->why_rx, SHS_REASON_IDLE);
        __atomic_fetch_or(&ep[side]->flags, SHS_EPF_UNPAIRED | (sealed ? SHS_EPF_SEALED : 0), __ATOMIC_SEQ_CST);
        shs_store32(&ep[side]->pair, 0);
    }
    shs_pair_free(env, pair1);
    shs_count(env, SHS_CTR_UNPAIRED, 1);
}

int shs_unpair(struct shs_env *env, uint32_t pair1, const uint64_t index[2], uint32_t me, uint32_t sole1)
{
    struct shs_pair *pair = shs_pair_at(env->arena, pair1);
    if (!pair || !shs_admin_take_tables(env, me))
        return 0;
    int done = 1;
    if (shs_load32(&pair->state) == SHS_PAIR_LIVE) {
        done = may_unpair(env, pair, pair1, sole1) ? 0 : -1;
        if (done == 0 && lock_pair(env, pair, me)) {
            if (cold(&pair->dir[0], index[0]) && cold(&pair->dir[1], index[1])) {
                forget(env, pair, pair1, sole1);
                done = 1;
            }
            unlock_pair(pair, 4);
        }
    }
    shs_admin_drop_tables(env);
    return done;
}

/* The notes of takers whose counts go with the pair: nothing may be repaired there for them, should they die. */
static void forget_takes(struct shs_env *env, uint32_t handle)
{
    for (uint32_t i = 0; i < shs_load32(&env->stack->slots_top) && i < SHS_N_SLOTS; i++)
        for (int t = 0; t < SHS_N_TAKES; t++)
            shs_cas32(&shs_slot_at(env->stack, i)->takes[t], handle, 0);
}

void shs_pair_free(struct shs_env *env, uint32_t pair1)
{
    struct shs_pair *pair = shs_pair_at(env->arena, pair1);
    for (uint32_t d = 0; pair && d < 2; d++)
        if (shs_word_takers(shs_load64(&pair->dir[d].word)))
            forget_takes(env, (pair1 - 1) * 2 + d + 1);
    shs_pair_drop(env->arena, pair1);
}
