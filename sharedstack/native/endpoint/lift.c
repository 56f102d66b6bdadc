/*
 * 1  register: identify the anchor, take a record, link it in the flow table (under ctl);
 * 2  pair: if the other end's record is there, make a pair, and name it in both records, each by one store;
 * 3  activate (each end, each direction, in a call of its own): the kernel's counts become ksent and taken;
 * 4  the reader opens the ring (rx.c). Until then, and whenever it is shut, the kernel carries the bytes.
 * 5  idle for some seconds: the helper gives the pair back (unpair.c); the next calls of either end go on from 2.
 * An end that is registered but dead never opens anything: a wrong pair can only stay unused.
 */
#include "endpoint/lift.h"

#include "endpoint/anchor.h"
#include "endpoint/bell.h"
#include "endpoint/dgram.h"
#include "endpoint/policy.h"
#include "shm/lock.h"
#include "shm/policy.h"
#include "shm/sys.h"
#include "shm/units.h"

bool shs_tables_lock(struct shs_env *env, const struct shs_who *who)
{
    uint32_t *locks[2] = {&env->stack->ctl, &env->arena->lock};
    for (int i = 0; i < 2; i++) {
        int r = -EAGAIN;
        for (int spin = 0; spin < 200 && r == -EAGAIN; spin++) {
            r = shs_lock_try(env, locks[i], who->lock_word);
            if (r == -EAGAIN)
                shs_pause();
        }
        if (r < 0) {
            shs_lock_await(env, shs_load32(locks[i]));
            if (i)
                shs_unlock(locks[0]);
            shs_count(env, SHS_CTR_BUSY_CTL, 1);
            return false;
        }
        if (i)
            shs_arena_entered(env->arena, r);
        else if (r == SHS_LOCK_REPAIR)
            shs_stack_rebuild(env->stack);
    }
    shs_lock_await(env, 0);
    return true;
}

void shs_tables_unlock(struct shs_env *env)
{
    shs_unlock(&env->arena->lock);
    shs_unlock(&env->stack->ctl);
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return !a || (b && b < a) ? b : a;
}

void shs_end_bound(struct shs_env *env, const struct shs_endpoint *ep)
{
    struct shs_pair *pair = shs_pair_at(env->arena, shs_load32(&ep->pair));
    for (int i = 0; pair && i < 2; i++) {
        struct shs_endpoint *writer = shs_endpoint_at(env->stack, shs_load32(&pair->endpoint[i])),
                            *reader = shs_endpoint_at(env->stack, shs_load32(&pair->endpoint[1 - i]));
        shs_fence(); /* of two ends that set theirs at once, the later one sees both */
        if (reader && (writer || i == 0)) /* an inbox has no writer */
            shs_set32(&pair->dir[i].most, smaller(writer ? shs_load32(&writer->sndbuf) : 0, shs_load32(&reader->rcvbuf)));
    }
}

static void make_pair(struct shs_env *env, uint32_t first, uint32_t second)
{
    struct shs_endpoint *a = shs_endpoint_at(env->stack, first), *b = shs_endpoint_at(env->stack, second);
    struct shs_endpoint *both[2] = {a, b};
    uint32_t pair1 = shs_pair_take(env->arena);
    for (int i = 0; i < 2; i++) {
        shs_set32(&both[i]->why_tx, pair1 ? SHS_REASON_NOT_READING : SHS_REASON_EXHAUSTED);
        shs_set32(&both[i]->why_rx, pair1 ? SHS_REASON_NOT_READING : SHS_REASON_EXHAUSTED);
        if (pair1)
            __atomic_fetch_and(&both[i]->flags, ~(uint32_t)SHS_EPF_UNPAIRED, __ATOMIC_SEQ_CST);
        else
            __atomic_fetch_or(&both[i]->flags, SHS_EPF_UNPAIRED, __ATOMIC_SEQ_CST); /* others go idle: try again later */
    }
    if (!pair1) {
        shs_count(env, SHS_CTR_EXHAUSTED, 1);
        return;
    }
    struct shs_pair *pair = shs_pair_at(env->arena, pair1);
    pair->endpoint[0] = first;
    pair->endpoint[1] = second;
    pair->cookie[0] = a->cookie;
    pair->cookie[1] = b->cookie;
    pair->made_ns = shs_now();
    for (int i = 0; i < 2; i++) {
        shs_store64(&pair->dir[i].wcookie, pair->cookie[i]);
        shs_store64(&pair->dir[i].rcookie, pair->cookie[1 - i]);
        shs_set32(&both[i]->side, (uint32_t)i);
        both[i]->pairings++;
    }
    shs_store32(&pair->state, SHS_PAIR_LIVE);
    shs_store32(&a->pair, pair1);
    shs_store32(&b->pair, pair1);
    shs_end_bound(env, a);
    shs_count(env, SHS_CTR_PAIRED, 1);
    shs_fence();
    env->nudge |= shs_load32(&env->arena->cooling) ? 0 : SHS_NUDGE_COOL;
    if ((shs_load32(&a->flags) | shs_load32(&b->flags)) & SHS_EPF_SHARED)
        env->nudge |= SHS_NUDGE_MET; /* the helper looks at nothing that has no pair: it may have looked too early */
}

/* What makes a pair useless, or what an end could not be brought under count again with. */
#define NEVER_AGAIN \
    (SHS_EPF_SHARED | SHS_EPF_KERNEL_ONLY | SHS_EPF_RDSHUT | SHS_EPF_WRSHUT | SHS_EPF_SEALED | SHS_EPF_PINNED | SHS_EPF_DENIED)

/* Its process may also have left the stack, and kept the socket. */
static bool may_pair(const struct shs_endpoint *ep)
{
    return ep->slot && !(shs_load32(&ep->flags) & NEVER_AGAIN);
}

bool shs_pair_again(struct shs_env *env, const struct shs_who *who, uint32_t ep1)
{
    struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
    if (!shs_load32(&env->stack->pair_ok))
        env->nudge |= SHS_NUDGE_OVER;
    if (!ep || (shs_load32(&ep->flags) & NEVER_AGAIN) || !shs_load32(&env->stack->pair_ok) ||
        shs_policy_kept(env->stack, shs_is_four(ep->laddr)) || !shs_tables_lock(env, who))
        return false;
    if (shs_load32(&ep->state) == SHS_EP_LIVE && !ep->pair) {
        struct shs_flow flow;
        uint32_t stale;
        shs_flow_of(ep, &flow);
        uint32_t mate = shs_endpoint_mate(env->stack, &flow, ep->cookie, &stale);
        if (mate && may_pair(shs_endpoint_at(env->stack, mate)) && shs_policy_pairs(env, ep1, mate)) {
            bool again = ep->pairings;
            make_pair(env, mate, ep1);
            if (again && ep->pair)
                shs_count(env, SHS_CTR_PAIRED_AGAIN, 1);
        }
    }
    shs_tables_unlock(env);
    return shs_load32(&ep->pair);
}

void shs_endpoint_free(struct shs_env *env, const struct shs_who *who, uint32_t ep1)
{
    struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
    if (!ep || shs_load32(&ep->state) == SHS_EP_FREE)
        return;
    if (shs_is_datagram(ep)) {
        shs_dgram_release(env, who, ep1);
        return;
    }
    struct shs_pair *pair = shs_pair_at(env->arena, ep->pair);
    if (pair && pair->state == SHS_PAIR_LIVE && ep->side < 2 && pair->endpoint[ep->side] == ep1) {
        /* nobody reads here any more: the other end's writer shall meet the kernel's answer */
        __atomic_fetch_or(&pair->dir[1 - ep->side].word, SHS_WORD_STICKY, __ATOMIC_SEQ_CST);
        pair->endpoint[ep->side] = 0;
        if (!pair->endpoint[1 - ep->side])
            shs_pair_free(env, ep->pair);
    }
    shs_endpoint_drop(env->stack, ep1);
}

/* Somebody had it before us, and may have it still. */
static void share(struct shs_env *env, uint32_t ep1)
{
    struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
    if (!ep)
        return;
    shs_endpoint_flag(ep, SHS_EPF_SHARED);
    __atomic_add_fetch(&ep->holders, 1, __ATOMIC_RELAXED);
    env->nudge |= SHS_NUDGE_MET;
    shs_policy_joined(env, ep1, env->slot1);
}

static int enter(struct shs_env *env, const struct shs_who *who, int fd, bool shared)
{
    struct shs_anchor anchor;
    int why = shs_anchor_identify(env, fd, &anchor);
    if (why)
        return -why;
    if (!shs_tables_lock(env, who))
        return 0;
    uint32_t ep1 = shs_endpoint_find(env->stack, &anchor.flow, anchor.cookie), stale = 0;
    if (!ep1) {
        uint32_t mate = shs_endpoint_mate(env->stack, &anchor.flow, anchor.cookie, &stale);
        if (stale)
            shs_endpoint_free(env, who, stale);
        ep1 = shs_endpoint_take(env->stack, &anchor.flow);
        struct shs_endpoint *ep = ep1 ? shs_endpoint_at(env->stack, ep1) : NULL;
        if (ep) {
            ep->cookie = anchor.cookie;
            ep->inode = anchor.inode;
            ep->sndbuf = anchor.sndbuf;
            ep->rcvbuf = anchor.rcvbuf;
            ep->slot = env->slot1;
            ep->holders = 1;
            ep->created_ns = shs_now();
            ep->why_tx = ep->why_rx = SHS_REASON_PEER_UNKNOWN;
            if (shs_load32(&env->stack->n_nics) && env->opt.wire && !shs_is_own_host(&anchor.flow))
                __atomic_fetch_or(&ep->flags, SHS_EPF_REMOTE, __ATOMIC_SEQ_CST);
            if (shared) {
                __atomic_fetch_or(&ep->flags, SHS_EPF_SHARED, __ATOMIC_SEQ_CST);
                env->nudge |= SHS_NUDGE_MET;
            }
            shs_store32(&ep->state, SHS_EP_LIVE);
            shs_count(env, SHS_CTR_REGISTERED, 1);
            shs_policy_settle(env, ep1);
            if (mate && shs_endpoint_at(env->stack, mate)->slot && shs_policy_pairs(env, ep1, mate))
                make_pair(env, mate, ep1);
            if (shared && !(shs_load32(&ep->flags) & SHS_EPF_DENIED))
                ep->why_tx = ep->why_rx = SHS_REASON_FORKED;
        } else {
            shs_count(env, SHS_CTR_EXHAUSTED, 1);
        }
    } else {
        struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
        if (ep && !ep->slot && !shared && !(shs_load32(&ep->flags) & SHS_EPF_SHARED))
            ep->slot = env->slot1, shs_policy_settle(env, ep1); /* its only holder left, and is here again */
        else
            share(env, ep1);
    }
    shs_tables_unlock(env);
    return ep1 ? (int)ep1 : -SHS_REASON_EXHAUSTED;
}

int shs_register(struct shs_env *env, const struct shs_who *who, int fd)
{
    return enter(env, who, fd, false);
}

int shs_register_shared(struct shs_env *env, const struct shs_who *who, int fd)
{
    return enter(env, who, fd, true);
}

int shs_register_find(struct shs_env *env, const struct shs_who *who, int fd)
{
    struct shs_anchor anchor;
    /* a record that is there is good to the end: its ring may hold bytes. One that was reset has no peer by now */
    int why = shs_anchor_recognise(env, fd, &anchor);
    if (why && (why != SHS_REASON_NOT_ESTABLISHED || !shs_anchor_moved(fd)))
        return 0;
    /* "not now" would be taken for "none", and what its ring holds would be lost. It stays: whoever left it to us has told that it is shared. With the
     * lock the helper, which may have found no holder just now, sees that there is another one (shs_native_endpoint_gone). */
    bool locked = shs_tables_lock(env, who);
    uint32_t ep1 =
        locked && !why ? shs_endpoint_find(env->stack, &anchor.flow, anchor.cookie) : shs_endpoint_seek(env->stack, anchor.cookie);
    share(env, ep1);
    if (locked)
        shs_tables_unlock(env);
    return (int)ep1;
}

uint32_t shs_end_peer(struct shs_env *env, const struct shs_endpoint *ep)
{
    const struct shs_pair *pair = shs_pair_at(env->arena, shs_load32(&ep->pair));
    uint32_t side = shs_peek32(&ep->side);
    return pair && side < 2 ? shs_load32(&pair->endpoint[1 - side]) : 0;
}

bool shs_end_of(struct shs_env *env, uint32_t ep1, struct shs_end *end)
{
    struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
    uint32_t pair1 = ep ? shs_load32(&ep->pair) : 0;
    struct shs_pair *pair = pair1 ? shs_pair_at(env->arena, pair1) : NULL;
    uint32_t side = pair ? shs_peek32(&ep->side) : 0;
    if (!pair || side > 1)
        return false;
    end->ep = ep;
    end->cookie = ep->cookie;
    __atomic_store_n(&end->tx, &pair->dir[side], __ATOMIC_RELAXED);
    __atomic_store_n(&end->rx, &pair->dir[1 - side], __ATOMIC_RELAXED);
    return true;
}

int shs_activate(struct shs_env *env, const struct shs_who *who, struct shs_end *end, bool receive, shs_in_flight_fn *in_flight)
{
    struct shs_direction *dir = receive ? shs_end_rx(end) : shs_end_tx(end);
    uint32_t *lock = receive ? &dir->rlock : &dir->wlock, *on = receive ? &dir->rx_on : &dir->tx_on;
    int r = shs_lock(env, lock, who->lock_word);
    if (r < 0)
        return -EAGAIN;
    if (r == SHS_LOCK_REPAIR && receive)
        shs_dir_repair_reader(dir);
    else if (r == SHS_LOCK_REPAIR)
        shs_dir_repair_writer(dir);
    if (!(receive ? shs_end_reads(end, dir) : shs_end_writes(end, dir))) {
        shs_unlock(lock);
        return -EAGAIN; /* the pair was given back just now */
    }
    if (shs_load32(on) == SHS_ACTIVATING)
        shs_store32(on, SHS_OFF); /* an activator died */
    r = 0;
    if (shs_load32(on) == SHS_OFF) {
        uint64_t at = 0;
        __atomic_store_n(on, SHS_ACTIVATING, __ATOMIC_SEQ_CST);
        if ((shs_load32(&end->ep->flags) & SHS_EPF_SHARED) || !shs_load32(&end->ep->slot) || in_flight(end->fd, receive)) {
            shs_count(env, SHS_CTR_IN_FLIGHT, 1);
            r = -EAGAIN;
        } else if ((receive ? shs_anchor_taken(end->fd, &at) : shs_anchor_sent(end->fd, &at)) != 0) {
            shs_set32(receive ? &end->ep->why_rx : &end->ep->why_tx, SHS_REASON_COUNTS_DIFFER);
            r = -EAGAIN;
        } else {
            shs_store64(receive ? &dir->taken : &dir->ksent, at);
            if (!receive)
                shs_set32(&end->ep->why_tx, SHS_REASON_NONE);
            shs_count(env, receive ? SHS_CTR_RX_ACTIVATED : SHS_CTR_TX_ACTIVATED, 1);
        }
        shs_store32(on, r ? SHS_OFF : SHS_ON);
    }
    shs_unlock(lock);
    return r;
}

/* A reader that spares itself looks at the kernel has to see the FIN coming. */
static void count_fin(struct shs_env *env, const struct shs_who *who, const struct shs_end *end)
{
    int r = shs_lock(env, &end->tx->wlock, who->lock_word);
    if (r == SHS_LOCK_REPAIR)
        shs_dir_repair_writer(end->tx);
    if (shs_end_writes(end, end->tx))
        shs_add64(&end->tx->ksent, 1);
    if (shs_end_writes(end, end->tx) && shs_load32(&end->tx->bell))
        shs_bell_ring(env, end->tx, shs_load32(&end->tx->bell)); /* it naps no more: it waits where the FIN will come */
    if (r >= 0)
        shs_unlock(&end->tx->wlock);
}

bool shs_end_done(struct shs_env *env, const struct shs_who *who, uint32_t ep1)
{
    struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
    uint64_t cookie = ep->cookie;
    shs_store32(&ep->state, SHS_EP_CLOSED);
    if (!shs_tables_lock(env, who))
        return false;
    if (shs_load32(&ep->state) == SHS_EP_CLOSED && ep->cookie == cookie) /* the helper may have been there */
        shs_endpoint_free(env, who, ep1);
    shs_tables_unlock(env);
    return true;
}

bool shs_end_dissolve(struct shs_env *env, const struct shs_who *who, uint32_t ep1, bool sole)
{
    struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
    struct shs_end end;
    if (!ep)
        return true;
    __atomic_fetch_or(&ep->flags, SHS_EPF_WRSHUT | SHS_EPF_RDSHUT | SHS_EPF_SEALED, __ATOMIC_SEQ_CST);
    if (shs_end_of(env, ep1, &end)) {
        shs_end_seal(env, who, &end);
        count_fin(env, who, &end);
    }
    return !sole /* somebody looks into it still: it goes with the socket */ || shs_end_done(env, who, ep1);
}

bool shs_end_close(struct shs_env *env, const struct shs_who *who, uint32_t ep1, int fd, bool sole)
{
    struct shs_endpoint *ep = shs_endpoint_at(env->stack, ep1);
    struct shs_end end;
    if (!ep)
        return true;
    if (!sole) {
        if (shs_end_of(env, ep1, &end) && shs_load32(&end.rx->opener) == env->slot1 && shs_end_reads(&end, end.rx))
            shs_ring_close(end.rx); /* we do not read any more: the other holders may, or not */
        return false;
    }
    if (shs_end_of(env, ep1, &end)) {
        bool unread = shs_end_seal(env, who, &end);
        if (!shs_is_datagram(ep))
            count_fin(env, who, &end);
        if (unread && !shs_is_datagram(ep)) {
            /* close(2) with unread data resets the connection (RFC 1122, 4.2.2.13); the kernel cannot see ours */
            struct linger now = {1, 0};
            shs_sys_setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
            shs_count(env, SHS_CTR_RESET_UNREAD, 1);
        }
    }
    return shs_end_done(env, who, ep1);
}

void shs_end_leave(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_drain *drain)
{
    struct shs_direction *tx = shs_end_tx(end);
    bool shared = shs_load32(&end->ep->flags) & SHS_EPF_SHARED;
    if (!shared)
        shs_store32(&end->ep->slot, 0); /* nobody brings it under count any more */
    if (drain)
        shs_end_drain(env, who, end, drain);
    if (shared)
        return;
    if (shs_lock(env, &tx->wlock, who->lock_word) == SHS_LOCK_REPAIR)
        shs_dir_repair_writer(tx);
    if (shs_end_writes(end, tx)) {
        shs_store32(&tx->tx_on, SHS_OFF);
        if (shs_load32(&tx->bell))
            shs_bell_ring(env, tx, shs_load32(&tx->bell)); /* it naps no more: it waits where the kernel's bytes will come */
    }
    shs_unlock(&tx->wlock);
}
