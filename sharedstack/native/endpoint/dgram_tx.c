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

static bool is_four(const struct shs_link *link)
{
    static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff};
    return !memcmp(link->saddr, v4, sizeof v4);
}

static long push_locked(struct shs_env *env, const struct shs_who *who, const struct shs_way *way, struct shs_cursor *cur)
{
    struct shs_direction *dir = &way->pair->dir[0];
    bool four = is_four(way->link);
    uint64_t tag = (uint64_t)way->link->sport << 32;
    uint32_t addr = 0;
    if (four)
        memcpy(&addr, way->link->saddr + 12, 4);
    if (shs_load64(&way->link->word) != way->word || shs_load32(&way->pair->state) != SHS_PAIR_LIVE || way->pair->gen != way->pair_gen)
        return SHS_RING_SHUT;
    uint32_t kind = four ? SHS_REC_DATAGRAM : SHS_REC_DATAGRAM6;
    long r = shs_ring_push_datagram(env, dir, cur, kind, tag | addr);
    if (r == SHS_RING_FULL)
        r = shs_ring_grow_datagram(env, dir, cur, kind, tag | addr, who->lock_word);
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
    if (!is_four(way->link)) { /* IPv6: the source's address goes first */
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
