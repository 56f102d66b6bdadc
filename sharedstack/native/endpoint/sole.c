/*
 * A connection that was shared, by fork, exec, passing or dup, and has one descriptor left, is nobody else's any more: it may be lifted as
 * if it never had been. Who holds it the kernel does not say; the helper looks, in this order:
 * 1  search: `probes` is counted, so that nobody takes a mark of before for one that still holds; probe: the flag PROBED is set. Whoever
 *    shares the record, or lowers it, takes it away before he does (shs_endpoint_flag);
 * 2  the participants' `sharing`: who is between telling that he shares and having shared is not believed;
 * 3  the search, in /proc: one descriptor, of one participant, and none under way in a Unix socket;
 * 4  sole: SHARED goes, in one step that finds PROBED still there. The holder's own threads it cannot know: shs_activate looks for them.
 * What was lowered for a holder outside the library is lifted again only where that was the helper, which stored it (STORED): its ring was
 * recalled for good (STICKY), so the pair goes first.
 */
#include "common.h"

#include <time.h>

#include "endpoint/admin.h"
#include "endpoint/dgram.h"
#include "endpoint/policy.h"
#include "shm/slot.h"

#define TRIES 50
#define PAUSE_NS 20000

static struct shs_endpoint *record(struct shs_stack *stack, uint32_t index, uint64_t cookie)
{
    struct shs_endpoint *ep = shs_endpoint_at(stack, index + 1);
    return ep && shs_load32(&ep->state) == SHS_EP_LIVE && shs_load64(&ep->cookie) == cookie && !shs_is_datagram(ep) ? ep : NULL;
}

void shs_native_search(void *stack)
{
    __atomic_add_fetch(&((struct shs_stack *)stack)->probes, 1, __ATOMIC_SEQ_CST);
}

int shs_native_probe(void *stack, uint32_t index, uint64_t cookie)
{
    struct shs_endpoint *ep = record(stack, index, cookie);
    if (!ep)
        return -ENOENT;
    __atomic_fetch_or(&ep->flags, SHS_EPF_PROBED, __ATOMIC_SEQ_CST);
    return 0;
}

/* Take flags away, unless the record was shared or lowered since the probe. */
static bool change(struct shs_endpoint *ep, uint32_t gone)
{
    uint32_t flags = shs_load32(&ep->flags);
    while (flags & SHS_EPF_PROBED)
        if (__atomic_compare_exchange_n(&ep->flags, &flags, flags & ~gone, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            return true;
    return false;
}

/* The pair whose rings were recalled for good. */
static int without_pair(struct shs_env *env, struct shs_endpoint *ep, uint32_t index, uint32_t me)
{
    uint32_t pair1 = shs_load32(&ep->pair);
    struct shs_pair *pair = shs_pair_at(env->arena, pair1);
    uint64_t at[2];
    if (!pair)
        return 0;
    for (int d = 0; d < 2; d++) {
        at[d] = shs_word_index(shs_load64(&pair->dir[d].word));
        if (shs_load64(&pair->dir[d].rchunk))
            shs_cool(env, &pair->dir[d], at[d], me);
    }
    return shs_unpair(env, pair1, at, me, index + 1) == 1 ? 0 : -EBUSY;
}

int shs_native_sole(void *stack, void *arena, uint32_t index, uint64_t cookie, uint32_t slot)
{
    struct shs_env env = {.stack = stack, .arena = arena, .bulk_fd = -1, .bell_fd = -1};
    env.slot1 = shs_load32(&env.stack->helper);
    uint32_t me = env.slot1 << SHS_LOCK_SLOT_SHIFT | 2;
    struct shs_endpoint *ep = record(stack, index, cookie);
    if (!ep || slot >= SHS_N_SLOTS || shs_load32(&shs_slot_at(stack, slot)->sharing))
        return 0;
    bool again = (shs_load32(&ep->flags) & SHS_EPF_STORED) && !shs_load32(&ep->opt_level);
    int r = again ? without_pair(&env, ep, index, me) : 0;
    for (int tries = 0; r != 0 && tries < TRIES; tries++) { /* a busy connection is locked more often than not, for a moment each time */
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
        r = without_pair(&env, ep, index, me);
    }
    if (r != 0)
        return r;
    if (!shs_admin_take_tables(&env, me))
        return -EBUSY;
    int done = 0;
    if (record(stack, index, cookie) == ep && shs_slot_alive(stack, slot + 1)) {
        shs_store32(&ep->slot, slot + 1);
        done = change(ep, SHS_EPF_SHARED | SHS_EPF_PROBED | (again ? SHS_EPF_KERNEL_ONLY | SHS_EPF_STORED : 0));
        if (done && (again || shs_load32(&ep->why_tx) == SHS_REASON_FORKED)) {
            uint32_t why = shs_load32(&ep->pair) ? SHS_REASON_NOT_READING : again ? SHS_REASON_IDLE : SHS_REASON_PEER_UNKNOWN;
            shs_set32(&ep->why_tx, why);
            shs_set32(&ep->why_rx, why);
        }
        if (done)
            shs_policy_settle(&env, index + 1);
        shs_count(&env, SHS_CTR_SOLE_AGAIN, (uint64_t)done);
    }
    shs_admin_drop_tables(&env);
    return done;
}
