/*
 * Sending, in the order of events (docs/internals/protocol.md, SEND):
 * 1  under wlock: while the ring is pushable and has room, records are pushed; a dozing reader's bell is rung once;
 * 2  no room: a larger chunk, or a short wait while the reader makes progress;
 * 3  shut, or still full: the kernel takes what it has room for, counted in ksent. Nothing here blocks: waiting for room is the
 *    caller's, without the lock.
 */
#include "common.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>

#include "endpoint/anchor.h"
#include "endpoint/bell.h"
#include "endpoint/end.h"
#include "endpoint/residue.h"
#include "shm/lock.h"
#include "shm/sys.h"

#define DELAYED_ACK_NS 200000000ull /* TCP_DELACK_MAX, include/net/tcp.h */

void shs_dir_repair_writer(struct shs_direction *dir)
{
    shs_dir_mend_chunk(dir);
    shs_cas32(&dir->tx_on, SHS_ON, SHS_RECOUNT); /* not a store: the pair may be taken into another use, which is OFF */
}

/* A reader that may not be spinning learns when data came, and is woken if it dozes; or naps, and does not see the kernel's bytes. */
static void published(struct shs_env *env, struct shs_end *end, struct shs_direction *dir)
{
    uint32_t bell = shs_load32(&dir->bell);
    if (bell && shs_bell_ring(env, dir, bell))
        shs_set64(&end->ep->tx_bells, shs_peek64(&end->ep->tx_bells) + 1);
}

/* Take wlock of what the end wrote to when it was last looked up: 0, SHS_STALE or -EAGAIN (then it is not held). */
static long lock_writer(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_direction *dir)
{
    int r = shs_lock(env, &dir->wlock, who->lock_word);
    if (SHS_UNLIKELY(r < 0))
        return -EAGAIN; /* a signal handler interrupted a send on the same socket */
    if (SHS_UNLIKELY(r == SHS_LOCK_REPAIR)) {
        shs_dir_repair_writer(dir);
        published(env, end, dir); /* it may have died between publishing and ringing; also where it was another connection's */
    }
    uint32_t on = shs_peek32(&dir->tx_on);
    if (SHS_UNLIKELY(!shs_end_writes(end, dir) || (on != SHS_ON && on != SHS_RECOUNT))) {
        shs_unlock(&dir->wlock);
        return SHS_STALE;
    }
    if (SHS_UNLIKELY(on == SHS_RECOUNT)) {
        uint64_t sent;
        if (shs_anchor_sent(end->fd, &sent) == 0) {
            shs_store64(&dir->ksent, sent);
            shs_store32(&dir->tx_on, SHS_ON);
        } else {
            /* no certain count: nothing may be pushed any more */
            __atomic_fetch_or(&end->ep->flags, SHS_EPF_WRSHUT, __ATOMIC_SEQ_CST);
            shs_set32(&end->ep->why_tx, SHS_REASON_COUNTS_DIFFER);
        }
    }
    return 0;
}

/* The ring is full: true if it is worth trying again. */
static bool wait_for_room(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_direction *dir)
{
    shs_set64(&end->ep->tx_full, shs_peek64(&end->ep->tx_full) + 1);
    shs_count(env, SHS_CTR_TX_FULL, 1);
    if (shs_ring_grow(env, dir, who->lock_word))
        return true;
    /* the reader runs on another CPU, or it cannot make progress while we wait */
    if ((uint32_t)sched_getcpu() == shs_peek32(&dir->rcpu))
        return false;
    /*
     * A reader that is catching up with kernel bytes makes progress too: to give the kernel more of them would keep it there. A
     * non-blocking sender's wait is bounded all the same.
     */
    uint64_t rd = shs_load64(&dir->rd), taken = shs_load64(&dir->taken), now = shs_now(), patience = env->opt.full_us * 1000;
    uint64_t until = now + patience, last = (shs_peek32(&end->ep->flags) & SHS_EPF_NONBLOCK) ? now + 4 * patience : ~0ull;
    do {
        for (int i = 0; i < 64; i++)
            shs_pause();
        if (shs_load64(&dir->rd) != rd)
            return true;
        if (!shs_word_pushable(shs_load64(&dir->word)))
            return false;
        now = shs_now();
        if (shs_load64(&dir->taken) != taken) {
            taken = shs_load64(&dir->taken);
            until = now + patience;
        }
    } while (now < until && now < last);
    return false;
}

/*
 * Nagle's algorithm (RFC 1122, 4.2.3.4) keeps a small send back until the one before is acknowledged, which the peer's kernel does with its
 * answer, or 40 ms later (TCP_DELACK_MIN). An answer by ring acknowledges nothing: nothing must wait for it. Under wlock, which a program
 * that sets TCP_NODELAY takes too.
 */
static void let_go(int fd)
{
    int unsent = 0, nodelay = 1, on = 1, off = 0;
    socklen_t len = sizeof nodelay;
    if (shs_sys_ioctl(fd, SIOCOUTQNSD, &unsent) < 0 || !unsent)
        return;
    if (shs_sys_getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &len) < 0 || nodelay)
        return; /* it waits for room */
    shs_sys_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    shs_sys_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &off, sizeof off);
}

/* Why a send is about to go by the kernel, as a counter of bytes. */
static int kernel_because(const struct shs_end *end, const struct shs_direction *dir)
{
    uint64_t word = shs_load64(&dir->word);
    if ((shs_peek32(&end->ep->flags) & (SHS_EPF_WRSHUT | SHS_EPF_KERNEL_ONLY | SHS_EPF_DENIED)) || (word & SHS_WORD_STICKY))
        return SHS_CTR_TX_KERNEL_LOWERED;
    if (word & SHS_WORD_OPEN && !shs_word_takers(word))
        return SHS_CTR_TX_KERNEL_FULL;
    return shs_word_takers(word) || shs_peek64(&dir->rchunk) ? SHS_CTR_TX_KERNEL_ASLEEP : SHS_CTR_TX_KERNEL_UNREAD;
}

/* A send went by the kernel; `before` is what the other direction's word was before it. */
static void sent_natively(struct shs_env *env, struct shs_end *end, struct shs_direction *dir, uint64_t sent, uint64_t before, bool more)
{
    shs_store64(&dir->ksent, shs_peek64(&dir->ksent) + sent);
    shs_set64(&dir->pub_ns, shs_now());
    shs_set64(&end->ep->tx_kernel, shs_peek64(&end->ep->tx_kernel) + sent);
    shs_count(env, SHS_CTR_TX_KERNEL_BYTES, sent);
    bool answered = shs_word_index(before) != shs_peek64(&dir->answered);
    if ((answered || (before & SHS_WORD_OPEN)) && !more)
        let_go(end->fd);
    if (answered)
        shs_set64(&dir->answered, shs_word_index(before));
    shs_fence();
    published(env, end, dir);
}

void shs_end_let_go(struct shs_env *env, const struct shs_who *who, struct shs_end *end)
{
    struct shs_direction *dir = shs_end_tx(end);
    int unsent = 0;
    if (shs_now() - shs_load64(&dir->pub_ns) > DELAYED_ACK_NS || shs_sys_ioctl(end->fd, SIOCOUTQNSD, &unsent) < 0 || !unsent)
        return;
    if (lock_writer(env, who, end, dir) < 0)
        return;
    let_go(end->fd);
    shs_unlock(&dir->wlock);
}

/* What the kernel has room for; also of a program's array of more pieces than ours has. */
static long kernel_send(struct shs_env *env, struct shs_end *end, struct shs_direction *dir, struct shs_cursor *cur, int flags)
{
    long sent = 0, r;
    size_t n, want;
    do {
        struct iovec iov[SHS_CURSOR_PIECES];
        want = shs_cursor_rest(cur, iov, cur->left, &n);
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
        /* SIGPIPE is raised by the caller, when no lock is held */
        uint64_t before = shs_load64(&shs_end_rx(end)->word);
        int because = kernel_because(end, dir);
        r = shs_sys_sendmsg(end->fd, &msg, flags | MSG_NOSIGNAL | (want < cur->left ? MSG_MORE : 0));
        if (r > 0) {
            shs_count(env, because, (uint64_t)r);
            shs_cursor_advance(cur, (size_t)r);
            sent_natively(env, end, dir, (uint64_t)r, before, flags & MSG_MORE);
            sent += r;
        }
    } while (SHS_UNLIKELY(n == SHS_CURSOR_PIECES) && r == (long)want && cur->left);
    return sent ? sent : r;
}

static void pushed(struct shs_env *env, struct shs_end *end, struct shs_direction *dir, long sent)
{
    shs_set64(&end->ep->tx_local, shs_peek64(&end->ep->tx_local) + (uint64_t)sent);
    shs_set64(&end->ep->tx_calls, shs_peek64(&end->ep->tx_calls) + 1);
    shs_count(env, SHS_CTR_TX_LOCAL_BYTES, (uint64_t)sent);
    uint32_t cpu = (uint32_t)sched_getcpu();
    if (shs_peek32(&dir->wcpu) != cpu) /* the reader's cache keeps that line */
        shs_set32(&dir->wcpu, cpu);
    shs_set32(&dir->wslot, env->slot1);
}

long shs_end_push(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_cursor *cur)
{
    struct shs_direction *dir = shs_end_tx(end);
    if (lock_writer(env, who, end, dir) < 0)
        return 0;
    long sent = 0, r = 0;
    bool may = !(shs_peek32(&end->ep->flags) & (SHS_EPF_WRSHUT | SHS_EPF_KERNEL_ONLY));
    while (may && cur->left &&
           ((r = shs_ring_push(env, dir, cur)) > 0 || (r == SHS_RING_FULL && shs_ring_grow(env, dir, who->lock_word)))) {
        if (r < 0)
            continue;
        sent += r;
        published(env, end, dir);
    }
    if (sent)
        pushed(env, end, dir, sent);
    shs_unlock(&dir->wlock);
    if (!sent && r == SHS_RING_SHUT && !(shs_load64(&dir->word) & SHS_WORD_STICKY))
        return -EBUSY;
    return sent ? sent : r == SHS_RING_FULL ? -EAGAIN : 0;
}

long shs_end_send(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_cursor *cur, int flags)
{
    struct shs_direction *dir = shs_end_tx(end);
    long sent = 0, r = lock_writer(env, who, end, dir);
    if (r < 0)
        return r;
    bool ring =
        !(shs_peek32(&end->ep->flags) & (SHS_EPF_WRSHUT | SHS_EPF_KERNEL_ONLY)) && !(flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE));
    while (ring && cur->left) {
        r = shs_ring_push(env, dir, cur);
        if (SHS_LIKELY(r > 0)) {
            sent += r;
            published(env, end, dir);
            continue;
        }
        if (r == SHS_RING_FULL) {
            ring = wait_for_room(env, who, end, dir);
            if (!ring)
                shs_count(env, SHS_CTR_TX_FULL_KERNEL, 1);
            continue;
        }
        if (r == -EFAULT) { /* the kernel says what that means, and takes what comes before it */
            ring = false;
            continue;
        }
        if (r == SHS_RING_DEAD) {
            shs_ring_close(dir);
            shs_count(env, SHS_CTR_OPENER_DEAD, 1);
        }
        if (r == SHS_RING_UNMAPPED) {
            shs_set32(&end->ep->why_tx, SHS_REASON_EXHAUSTED);
            shs_count(env, SHS_CTR_EXHAUSTED, 1);
        }
        if (r == SHS_RING_BROKEN || r == SHS_RING_UNMAPPED)
            shs_endpoint_flag(end->ep, SHS_EPF_KERNEL_ONLY);
        if (SHS_UNLIKELY(!shs_load32(&env->stack->pair_ok)))
            env->nudge |= SHS_NUDGE_OVER;
        shs_count(env, SHS_CTR_TX_SHUT_KERNEL, 1);
        ring = false;
    }
    if (sent)
        pushed(env, end, dir, sent);
    r = 0;
    if (cur->left || !sent) {
        if (SHS_UNLIKELY(shs_load32(&dir->re_on)))
            r = shs_residue_send(env, who, dir, end->fd);
        if (SHS_LIKELY(r == 0))
            r = kernel_send(env, end, dir, cur, flags | MSG_DONTWAIT);
        sent += r > 0 ? r : 0;
    }
    shs_unlock(&dir->wlock);
    return sent ? sent : r;
}

long shs_end_send_native(struct shs_env *env, const struct shs_who *who, struct shs_end *end, long (*call)(void *), void *arg)
{
    struct shs_direction *dir = shs_end_tx(end);
    long r = lock_writer(env, who, end, dir);
    if (r < 0)
        return r;
    if (SHS_UNLIKELY(shs_load32(&dir->re_on)))
        r = shs_residue_send(env, who, dir, end->fd);
    uint64_t before = shs_load64(&shs_end_rx(end)->word);
    if (SHS_LIKELY(r == 0))
        r = call(arg);
    if (r > 0) {
        shs_count(env, SHS_CTR_TX_KERNEL_SPECIAL, (uint64_t)r);
        sent_natively(env, end, dir, (uint64_t)r, before, false);
    }
    shs_unlock(&dir->wlock);
    return r;
}

long shs_end_send_residue(struct shs_env *env, const struct shs_who *who, struct shs_end *end)
{
    struct shs_direction *dir = shs_end_tx(end);
    long r = lock_writer(env, who, end, dir);
    if (r < 0)
        return r;
    if (shs_load32(&dir->re_on))
        r = shs_residue_send(env, who, dir, end->fd);
    shs_unlock(&dir->wlock);
    return r;
}

long shs_end_shutdown(struct shs_env *env, const struct shs_who *who, struct shs_end *end, int how)
{
    struct shs_direction *dir = shs_end_tx(end);
    long r = lock_writer(env, who, end, dir);
    if (r < 0)
        return r;
    if (how != SHUT_RD && !(shs_load32(&end->ep->flags) & SHS_EPF_WRSHUT)) {
        __atomic_fetch_or(&end->ep->flags, SHS_EPF_WRSHUT, __ATOMIC_SEQ_CST);
        shs_set32(&end->ep->why_tx, SHS_REASON_SHUT_DOWN);
        shs_store64(&dir->ksent, shs_peek64(&dir->ksent) + 1);
    }
    if (how != SHUT_WR) {
        __atomic_fetch_or(&end->ep->flags, SHS_EPF_RDSHUT, __ATOMIC_SEQ_CST);
        shs_ring_close(shs_end_rx(end));
    }
    r = shs_sys_shutdown(end->fd, how);
    shs_fence();
    published(env, end, dir);
    shs_unlock(&dir->wlock);
    return r;
}
