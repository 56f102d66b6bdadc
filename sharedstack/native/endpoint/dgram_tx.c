/*
 * Pushing a datagram to a receiver's ring, under its wlock, if the link still says so and the ring is pushable. Senders share the ring, and
 * never wait for a lock's owner: who finds it held goes by the kernel.
 */
#include "common.h"

#include <sched.h>

#include "endpoint/bell.h"
#include "endpoint/dgram.h"
#include "shm/lock.h"

/* The ring is full: true if there may be room now. Not under wlock, which others may want. */
static bool wait_for_room(struct shs_direction *dir, uint64_t until)
{
    uint64_t rd = shs_load64(&dir->rd);
    if ((uint32_t)sched_getcpu() == shs_peek32(&dir->rcpu))
        return false; /* it makes no progress while we wait */
    do {
        for (int i = 0; i < 64; i++)
            shs_pause();
        if (shs_load64(&dir->rd) != rd)
            return true;
    } while (shs_word_pushable(shs_load64(&dir->word)) && shs_now() < until);
    return false;
}

static long push_locked(struct shs_env *env, const struct shs_who *who, const struct shs_way *way, struct shs_cursor *cur)
{
    struct shs_direction *dir = &way->pair->dir[0];
    if (shs_load64(&way->link->word) != way->word || shs_load32(&way->pair->state) != SHS_PAIR_LIVE || way->pair->gen != way->pair_gen)
        return SHS_RING_SHUT;
    uint32_t kind = shs_is_four(way->link->saddr) ? SHS_REC_DATAGRAM : SHS_REC_DATAGRAM6;
    long r = shs_ring_push_datagram(env, dir, cur, kind, way->tag, false);
    if (r == SHS_RING_FULL)
        r = shs_ring_grow_datagram(env, dir, cur, kind, way->tag, who->lock_word, false);
    if (r == SHS_RING_DEAD) {
        shs_ring_close(dir);
        shs_count(env, SHS_CTR_OPENER_DEAD, 1);
    }
    return r;
}

/* Under wlock: what was published is made known. */
static void published(struct shs_env *env, const struct shs_way *way, size_t len)
{
    struct shs_direction *dir = &way->pair->dir[0];
    uint32_t bell = shs_load32(&dir->bell), cpu = (uint32_t)sched_getcpu();
    if (bell && shs_bell_ring(env, dir, bell))
        shs_set64(&way->ep->tx_bells, shs_peek64(&way->ep->tx_bells) + 1);
    if (shs_peek32(&dir->wcpu) != cpu) /* the reader's cache keeps that line */
        shs_set32(&dir->wcpu, cpu);
    if (shs_peek32(&dir->wslot) != env->slot1)
        shs_set32(&dir->wslot, env->slot1);
    shs_set64(&way->ep->tx_local, shs_peek64(&way->ep->tx_local) + len);
    shs_set64(&way->ep->tx_calls, shs_peek64(&way->ep->tx_calls) + 1);
    shs_count(env, SHS_CTR_TX_LOCAL_BYTES, len);
    shs_count(env, SHS_CTR_TX_DATAGRAMS, 1);
}

long shs_dgram_push(struct shs_env *env, const struct shs_who *who, const struct shs_way *way, const struct iovec *iov, size_t count,
                    size_t len, bool wait)
{
    struct shs_direction *dir = &way->pair->dir[0];
    struct iovec with_addr[64];
    struct shs_cursor cur;
    uint64_t until = 0;
    if (!shs_is_four(way->link->saddr)) { /* IPv6: the source's address goes first */
        if (count >= 64)
            return SHS_RING_SHUT;
        with_addr[0] = (struct iovec){way->link->saddr, sizeof way->link->saddr};
        memcpy(with_addr + 1, iov, count * sizeof *iov);
        iov = with_addr;
        count++;
    }
    for (;;) {
        long r = shs_dgram_try_lock(env, &dir->wlock, who->lock_word);
        if (r < 0)
            return SHS_RING_SHUT;
        if (r == SHS_LOCK_REPAIR && shs_load32(&dir->bell)) /* it may have died between publishing and ringing */
            shs_bell_ring(env, dir, shs_load32(&dir->bell));
        shs_cursor_init(&cur, iov, (int)count);
        r = push_locked(env, who, way, &cur);
        if (SHS_LIKELY(r >= 0))
            published(env, way, len);
        shs_unlock(&dir->wlock);
        if (SHS_LIKELY(r >= 0))
            return (long)len;
        if (r != SHS_RING_FULL) {
            shs_count(env, SHS_CTR_TX_SHUT_KERNEL, 1);
            return r;
        }
        shs_set64(&way->ep->tx_full, shs_peek64(&way->ep->tx_full) + 1);
        shs_count(env, SHS_CTR_TX_FULL, 1);
        uint64_t now = shs_now();
        if (!until)
            until = now + env->opt.full_us * (wait ? 4000 : 1000);
        if (now >= until || !shs_ring_waiting(dir) || !wait_for_room(dir, until)) {
            shs_count(env, SHS_CTR_TX_FULL_KERNEL, 1);
            return r;
        }
    }
}

static long put_locked(struct shs_env *env, uint32_t me, struct shs_direction *dir, const uint8_t from[16], uint16_t port,
                       const void *bytes, size_t len)
{
    bool four = shs_is_four(from);
    struct iovec iov[2] = {{(void *)(uintptr_t)from, 16}, {(void *)(uintptr_t)bytes, len}};
    struct shs_cursor cur;
    uint32_t kind = four ? SHS_REC_DATAGRAM : SHS_REC_DATAGRAM6;
    uint64_t tag = shs_tag_of(from, port) | SHS_TAG_WIRE;
    shs_cursor_init(&cur, four ? iov + 1 : iov, four ? 1 : 2);
    long r = shs_ring_push_datagram(env, dir, &cur, kind, tag, true);
    return r == SHS_RING_FULL ? shs_ring_grow_datagram(env, dir, &cur, kind, tag, me, true) : r;
}

bool shs_dgram_put(struct shs_env *env, uint32_t me, struct shs_endpoint *ep, uint64_t cookie, const uint8_t from[16], uint16_t port,
                   const void *bytes, size_t len, uint32_t *bell)
{
    struct shs_pair *pair = shs_pair_at(env->arena, shs_load32(&ep->pair));
    struct shs_direction *dir = pair ? &pair->dir[0] : NULL;
    long r = dir ? shs_dgram_try_lock(env, &dir->wlock, me) : -EAGAIN;
    *bell = 0;
    if (r < 0)
        return false;
    bool good = shs_load32(&pair->state) == SHS_PAIR_LIVE && shs_load64(&dir->rcookie) == cookie &&
                put_locked(env, me, dir, from, port, bytes, len) >= 0;
    if (good || r == SHS_LOCK_REPAIR) /* who died may have done so between publishing and ringing */
        *bell = shs_load32(&dir->bell);
    if (good && shs_peek32(&dir->wcpu) != UINT32_MAX)
        shs_set32(&dir->wcpu, UINT32_MAX); /* on another host */
    shs_unlock(&dir->wlock);
    return good;
}
