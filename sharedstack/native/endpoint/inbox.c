/*
 * What a datagram socket receives by:
 * 1  register: a bound socket gets a record and an inbox, a pair of which only dir[0] is used;
 * 2  activate: no thread is left in a receive that we do not see;
 * 3  release: the inbox is parked, never used for a connection again: a late sender may lock it at any time, and finds it parked; a late
 *    receiver finds that the cookie is not its own.
 */
#include "endpoint/anchor.h"
#include "endpoint/dgram.h"
#include "endpoint/lift.h"
#include "shm/lock.h"
#include "shm/units.h"

#define LOCK_TRIES 200

int shs_dgram_try_lock(struct shs_env *env, uint32_t *word, uint32_t me)
{
    int r = shs_lock_try(env, word, me);
    for (int i = 0; i < LOCK_TRIES && r == -EAGAIN; i++) {
        shs_pause();
        r = shs_lock_try(env, word, me);
    }
    return r;
}

/* Under the arena's lock and both of the direction: nothing is in it, and it has no memory. */
static void empty_inbox(struct shs_env *env, struct shs_direction *dir)
{
    uint64_t index = shs_word_index(shs_load64(&dir->word)), old[2] = {dir->rchunk, dir->wchunk};
    shs_store64(&dir->rd, shs_rd_pack(index, 0));
    shs_set64(&dir->rd_seen, index);
    shs_set64(&dir->wr_seen, index);
    shs_store64(&dir->rchunk, 0);
    shs_store64(&dir->wchunk, 0);
    shs_units_drop(env->arena, old[0]);
    if (shs_chunk_unit(old[1]) != shs_chunk_unit(old[0]))
        shs_units_drop(env->arena, old[1]);
}

/* Under the arena's lock: both locks of an inbox, if nobody is inside. */
static bool lock_inbox(struct shs_env *env, struct shs_direction *dir, uint32_t me)
{
    if (shs_dgram_try_lock(env, &dir->wlock, me) < 0)
        return false;
    if (shs_dgram_try_lock(env, &dir->rlock, me) >= 0)
        return true;
    shs_unlock(&dir->wlock);
    return false;
}

static void unlock_inbox(struct shs_direction *dir)
{
    shs_unlock(&dir->rlock);
    shs_unlock(&dir->wlock);
}

/* Under the arena's lock: a parked inbox, or a fresh pair; pair plus one. */
static uint32_t take_inbox(struct shs_env *env, uint32_t me)
{
    for (uint32_t p = 1; p <= env->arena->pairs_top && p <= SHS_N_PAIRS; p++) {
        struct shs_pair *pair = shs_pair_at(env->arena, p);
        struct shs_direction *dir = &pair->dir[0];
        if (shs_load32(&pair->state) != SHS_PAIR_PARKED || shs_word_takers(shs_load64(&dir->word)) || !lock_inbox(env, dir, me))
            continue;
        if (shs_word_takers(shs_load64(&dir->word))) { /* a late receiver counted itself just before: it counts itself off there */
            unlock_inbox(dir);
            continue;
        }
        shs_store32(&pair->gen, pair->gen + 1 ? pair->gen + 1 : 1);
        empty_inbox(env, dir);
        shs_store64(&dir->word, shs_word_index(shs_load64(&dir->word)));
        shs_store32(&dir->bell, 0);
        shs_store32(&dir->rx_on, SHS_OFF);
        dir->opener = dir->wslot = 0;
        unlock_inbox(dir);
        shs_set32(&env->arena->pairs_used, env->arena->pairs_used + 1);
        return p;
    }
    return shs_pair_take(env->arena);
}

static void use_inbox(struct shs_env *env, uint32_t ep1, uint32_t pair1)
{
    struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
    struct shs_pair *pair = shs_pair_at(env->arena, pair1);
    pair->endpoint[0] = 0;
    pair->endpoint[1] = ep1;
    pair->cookie[0] = 0;
    pair->cookie[1] = ep->cookie;
    pair->made_ns = shs_now();
    pair->empty_ns = pair->mark_left = 0; /* the mark was of another queue */
    pair->mark = pair->empty;
    pair->dir[0].tx_on = SHS_ON;
    shs_set64(&pair->dir[0].wr_seen, shs_word_index(shs_load64(&pair->dir[0].word))); /* indices go on where the last use left them */
    shs_store64(&pair->dir[0].rcookie, ep->cookie);                                   /* many write there: its wcookie stays 0 */
    shs_store32(&pair->state, SHS_PAIR_LIVE);
    ep->side = 1;
    shs_store32(&ep->pair, pair1);
    shs_end_bound(env, ep);
}

int shs_dgram_register(struct shs_env *env, const struct shs_who *who, int fd)
{
    struct shs_anchor anchor;
    int why = shs_anchor_datagram(env, fd, &anchor);
    if (why)
        return why == SHS_REASON_NOT_ESTABLISHED ? 0 : -why;
    if (!shs_tables_lock(env, who))
        return 0;
    uint32_t ep1 = shs_endpoint_take(env->stack, &anchor.flow), pair1 = ep1 ? take_inbox(env, who->lock_word) : 0;
    if (ep1 && pair1) {
        struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
        ep->cookie = anchor.cookie;
        ep->inode = anchor.inode;
        ep->rcvbuf = anchor.rcvbuf; /* sndbuf: many send to one inbox */
        ep->slot = env->slot1;
        ep->holders = 1;
        ep->created_ns = shs_now();
        ep->why_tx = ep->why_rx = SHS_REASON_NOT_LINKED;
        use_inbox(env, ep1, pair1);
        shs_store32(&ep->state, SHS_EP_LIVE);
        shs_count(env, SHS_CTR_REGISTERED, 1);
    } else {
        if (ep1)
            shs_endpoint_drop(env->stack, ep1);
        shs_count(env, SHS_CTR_EXHAUSTED, 1);
    }
    shs_tables_unlock(env);
    return ep1 && pair1 ? (int)ep1 : -SHS_REASON_EXHAUSTED;
}

void shs_inbox_empty(struct shs_env *env, struct shs_direction *dir, uint32_t me)
{
    if (!lock_inbox(env, dir, me))
        return;
    empty_inbox(env, dir);
    unlock_inbox(dir);
}

void shs_dgram_release(struct shs_env *env, const struct shs_who *who, uint32_t ep1)
{
    struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
    struct shs_pair *pair = shs_pair_at(env->arena, ep->pair);
    for (uint32_t link1 = 1; link1 <= env->stack->links_top && link1 <= SHS_N_LINKS; link1++) {
        struct shs_link *link = shs_link_at(env->stack, link1);
        uint64_t word = shs_load64(&link->word);
        if (shs_link_state(word) != SHS_LINK_FREE && link->sender == ep1)
            shs_link_drop(env->stack, link1);
        else if (shs_link_state(word) == SHS_LINK_ALLOWED && link->receiver == ep1)
            shs_link_doubt(link, word);
    }
    bool live = pair && pair->state == SHS_PAIR_LIVE; /* else whoever parked it may have died over it */
    if (pair && (live || pair->state == SHS_PAIR_PARKED) && pair->endpoint[1] == ep1) {
        uint32_t me = who ? who->lock_word : env->slot1 << SHS_LOCK_SLOT_SHIFT | 2;
        shs_store64(&pair->dir[0].rcookie, 0); /* a thread that still receives there finds that it is not its own */
        shs_store32(&pair->state, SHS_PAIR_PARKED);
        __atomic_fetch_or(&pair->dir[0].word, SHS_WORD_STICKY, __ATOMIC_SEQ_CST);
        pair->endpoint[1] = 0;
        if (live)
            shs_set32(&env->arena->pairs_used, env->arena->pairs_used - 1);
        shs_inbox_empty(env, &pair->dir[0], me); /* else the helper does, or whoever takes it next */
    }
    shs_endpoint_drop(env->stack, ep1);
}

void shs_inbox_sweep(struct shs_env *env, uint32_t pair1, uint32_t me)
{
    struct shs_pair *pair = shs_pair_at(env->arena, pair1);
    if (!shs_load64(&pair->dir[0].rchunk) || !shs_arena_try(env, me))
        return;
    if (shs_load32(&pair->state) == SHS_PAIR_PARKED)
        shs_inbox_empty(env, &pair->dir[0], me);
    shs_unlock(&env->arena->lock);
}

int shs_dgram_activate(struct shs_env *env, const struct shs_who *who, struct shs_end *end, shs_in_flight_fn *in_flight)
{
    struct shs_direction *dir = end->rx;
    int r = shs_lock(env, &dir->rlock, who->lock_word);
    if (r < 0)
        return -EAGAIN;
    r = 0;
    if (!shs_end_reads(end, dir)) {
        shs_unlock(&dir->rlock);
        return -EAGAIN; /* the record has gone meanwhile */
    }
    if (shs_load32(&dir->rx_on) != SHS_ON) {
        __atomic_store_n(&dir->rx_on, SHS_ACTIVATING, __ATOMIC_SEQ_CST);
        bool shared = shs_load32(&end->ep->flags) & (SHS_EPF_SHARED | SHS_EPF_KERNEL_ONLY);
        if (shared || in_flight(end->fd, 1)) {
            if (!shared)
                shs_count(env, SHS_CTR_IN_FLIGHT, 1);
            r = -EAGAIN;
        } else {
            shs_count(env, SHS_CTR_RX_ACTIVATED, 1);
        }
        shs_store32(&dir->rx_on, r ? SHS_OFF : SHS_ON);
    }
    shs_unlock(&dir->rlock);
    return r;
}
