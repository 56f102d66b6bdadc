/*
 * Receiving, in the order of events (docs/internals/protocol.md, RECV):
 * 1  under rlock: records that come no later than `taken` are copied out;
 * 2  a head record that comes later: first the kernel's bytes up to it, no more;
 * 3  nothing in the ring: count as a taker, look at the ring again, take from the kernel without limit;
 * 4  open the ring, so that the next bytes come by it.
 */
#include "common.h"

#include <linux/sockios.h>
#include <sched.h>
#include <stdlib.h>

#include "endpoint/anchor.h"
#include "endpoint/dgram.h"
#include "endpoint/end.h"
#include "endpoint/lift.h"
#include "endpoint/policy.h"
#include "endpoint/residue.h"
#include "shm/lock.h"
#include "shm/policy.h"
#include "shm/slot.h"
#include "shm/sys.h"
#include "shm/units.h"

#define PEEK_MOST ((size_t)4 << 20) /* of the kernel's bytes, where they are peeked at together with a ring's */
#define DRAIN_NS 5000000000ull

static uint32_t dir_handle(const struct shs_env *env, const struct shs_direction *dir)
{
    size_t at = (size_t)((const uint8_t *)dir - (const uint8_t *)env->arena) - SHS_ARENA_PAIRS;
    return (uint32_t)(at / sizeof(struct shs_pair) * 2 +
                      (at % sizeof(struct shs_pair) >= offsetof(struct shs_pair, dir) + sizeof(struct shs_direction))) +
           1;
}

/* Note in our slot that one of our threads is a taker there, so that its death can be repaired; false: no place left. */
static bool note_take(struct shs_env *env, uint32_t handle, bool enter)
{
    struct shs_slot *slot = shs_slot_at(env->stack, env->slot1 - 1);
    for (int i = 0; i < SHS_N_TAKES; i++)
        if (shs_peek32(&slot->takes[i]) == (enter ? 0 : handle) && shs_cas32(&slot->takes[i], enter ? 0 : handle, enter ? handle : 0))
            return true;
    return false;
}

void shs_taker_leave_locked(struct shs_env *env, struct shs_direction *dir, uint64_t n)
{
    if (n)
        shs_add64(&dir->taken, n); /* before the word: whoever pushes afterwards is read with the new count */
    shs_add64(&dir->word, -SHS_WORD_TAKER);
    note_take(env, dir_handle(env, dir), false);
}

bool shs_taker_enter_locked(struct shs_env *env, struct shs_direction *dir)
{
    if (SHS_UNLIKELY(!note_take(env, dir_handle(env, dir), true))) {
        /* a taker that nobody could repair: this direction stays with the kernel */
        __atomic_fetch_or(&dir->word, SHS_WORD_STICKY, __ATOMIC_SEQ_CST);
        shs_count(env, SHS_CTR_EXHAUSTED, 1);
    }
    uint64_t word = shs_add64(&dir->word, SHS_WORD_TAKER);
    if (shs_word_index(word) == shs_rd_index(shs_load64(&dir->rd)))
        return true;
    shs_taker_leave_locked(env, dir, 0);
    return false;
}

static uint32_t pair_gen(struct shs_env *env, const struct shs_direction *dir)
{
    const struct shs_pair *pair = shs_pair_at(env->arena, (dir_handle(env, dir) - 1) / 2 + 1);
    return pair ? shs_load32(&pair->gen) : 0; /* none: it was of a stack that this process has left */
}

/* Take rlock of what the end read from when it was last looked up: 0, or SHS_STALE (not locked), or -EDEADLK. */
static int lock_reader(struct shs_env *env, const struct shs_who *who, const struct shs_end *end, struct shs_direction *dir)
{
    int r = shs_lock(env, &dir->rlock, who->lock_word);
    if (SHS_UNLIKELY(r < 0))
        return r;
    if (SHS_UNLIKELY(r == SHS_LOCK_REPAIR)) /* also where the dead one was another connection's */
        shs_dir_repair_reader(dir);
    if (SHS_LIKELY(shs_end_reads(end, dir)))
        return 0;
    shs_unlock(&dir->rlock);
    return SHS_STALE;
}

int shs_taker_enter(struct shs_env *env, const struct shs_who *who, const struct shs_end *end, struct shs_take *take)
{
    struct shs_direction *dir = shs_end_rx(end);
    take->dir = NULL;
    int r = lock_reader(env, who, end, dir);
    if (r < 0)
        return r;
    uint32_t on = shs_load32(&dir->rx_on);
    if (on != SHS_ON && on != SHS_RECOUNT)
        r = SHS_STALE;
    else
        r = shs_load32(&dir->re_on) && !shs_residue_collect(env, dir, end->fd) ? 0 : shs_taker_enter_locked(env, dir);
    if (r == 1)
        *take = (struct shs_take){dir, pair_gen(env, dir), env->epoch};
    shs_unlock(&dir->rlock);
    return r;
}

/* Under rlock: when the pair was given back, the count and the note of whoever slept there went with it. */
void shs_taker_leave(struct shs_env *env, const struct shs_who *who, const struct shs_take *take, uint64_t n)
{
    struct shs_direction *dir = take->dir;
    if (SHS_UNLIKELY(take->epoch != env->epoch))
        return;
    int r = shs_lock(env, &dir->rlock, who->lock_word);
    if (SHS_UNLIKELY(r == SHS_LOCK_REPAIR))
        shs_dir_repair_reader(dir);
    if (SHS_LIKELY(pair_gen(env, dir) == take->gen))
        shs_taker_leave_locked(env, dir, n);
    if (r >= 0)
        shs_unlock(&dir->rlock);
}

bool shs_ring_close(struct shs_direction *dir)
{
    return __atomic_fetch_and(&dir->word, ~SHS_WORD_OPEN, __ATOMIC_SEQ_CST) & SHS_WORD_OPEN;
}

bool shs_end_rung_for(struct shs_env *env, const struct shs_end *end)
{
    const struct shs_direction *dir = shs_end_rx(end);
    const struct shs_endpoint *peer = shs_endpoint_at(env->stack, shs_end_peer(env, end->ep));
    return peer && shs_load32(&peer->state) == SHS_EP_LIVE && shs_load32(&dir->tx_on) == SHS_ON &&
           !(shs_load32(&peer->flags) & (SHS_EPF_SHARED | SHS_EPF_KERNEL_ONLY | SHS_EPF_WRSHUT)) &&
           shs_slot_alive(env->stack, peer->slot) && shs_load64(&dir->ksent) == shs_load64(&dir->taken) && !end->ep->error &&
           shs_end_reads(end, dir);
}

size_t shs_end_pending(struct shs_env *env, const struct shs_who *who, struct shs_end *end)
{
    struct shs_direction *dir = shs_end_rx(end);
    if (lock_reader(env, who, end, dir) < 0)
        return 0;
    size_t n = shs_ring_pending(env, dir);
    shs_unlock(&dir->rlock);
    return n;
}

bool shs_end_seal(struct shs_env *env, const struct shs_who *who, const struct shs_end *end)
{
    struct shs_direction *dir = shs_end_rx(end);
    int r = lock_reader(env, who, end, dir);
    if (r == SHS_STALE || !shs_end_reads(end, dir))
        return false; /* there is no ring */
    __atomic_fetch_or(&dir->word, SHS_WORD_STICKY, __ATOMIC_SEQ_CST);
    bool waiting = shs_ring_waiting(dir);
    if (r == 0) /* else a signal handler interrupted a receive of this thread, which holds the lock */
        shs_unlock(&dir->rlock);
    return waiting;
}

bool shs_may_open(struct shs_env *env, const struct shs_end *end)
{
    uint32_t flags = shs_load32(&end->ep->flags);
    uint32_t why = SHS_REASON_NONE;
    if (!shs_load32(&env->stack->pair_ok))
        why = SHS_REASON_DRAINING, env->nudge |= SHS_NUDGE_OVER;
    else if ((flags & SHS_EPF_KERNEL_ONLY) && shs_peek32(&end->ep->opt_level))
        why = SHS_REASON_OPTION;
    else if (flags & SHS_EPF_KERNEL_ONLY)
        why = shs_peek32(&end->ep->why_rx) ? shs_peek32(&end->ep->why_rx) : SHS_REASON_OPTION;
    else if (flags & SHS_EPF_RDSHUT)
        why = SHS_REASON_SHUT_DOWN;
    else if (flags & SHS_EPF_DENIED)
        why = shs_policy_reason(end->ep);
    else if (!shs_is_datagram(end->ep) && shs_policy_kept(env->stack, shs_is_four(end->ep->laddr)))
        why = SHS_REASON_LO_RULES;
    if (why != SHS_REASON_NONE)
        shs_set32(&end->ep->why_rx, why);
    return why == SHS_REASON_NONE;
}

/* Under rlock: give the ring its first chunk. */
static bool first_chunk(struct shs_env *env, const struct shs_who *who, struct shs_direction *dir)
{
    if (shs_peek64(&dir->rchunk))
        return true;
    if (!shs_arena_try(env, who->lock_word))
        return false;
    int unit = shs_units_take(env, 0);
    if (unit >= 0) {
        /* named before the lock is left: a rebuild of the units must find them. Nobody writes: the ring was never open. */
        uint64_t chunk = shs_chunk_pack((uint32_t)unit, 0, shs_word_index(shs_load64(&dir->word)));
        shs_store64(&dir->rchunk, chunk);
        shs_store64(&dir->wchunk, chunk);
        shs_fence();
        env->nudge |= shs_load32(&env->arena->cooling) ? 0 : SHS_NUDGE_COOL;
    } else {
        shs_count(env, SHS_CTR_EXHAUSTED, 1);
    }
    shs_unlock(&env->arena->lock);
    return unit >= 0;
}

void shs_ring_open(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_direction *dir, struct shs_rx *how)
{
    uint64_t word = shs_load64(&dir->word);
    if (word & SHS_WORD_OPEN) {
        /* nothing to do, but for a ring that its opener left open in death */
        if (shs_slot_alive(env->stack, shs_peek32(&dir->opener)))
            return;
        shs_ring_close(dir);
        shs_count(env, SHS_CTR_OPENER_DEAD, 1);
    }
    if (!shs_may_open(env, end))
        return;
    if (!first_chunk(env, who, dir) || !shs_units_map(env)) {
        shs_set32(&end->ep->why_rx, SHS_REASON_EXHAUSTED);
        return;
    }
    if (how->begin && !how->begin(how->set))
        return;
    shs_store32(&dir->opener, env->slot1);
    bool opened = false;
    do {
        word = shs_load64(&dir->word);
        if ((word & SHS_WORD_STICKY) || shs_word_takers(word)) {
            shs_set32(&end->ep->why_rx, (word & SHS_WORD_STICKY) ? SHS_REASON_OUTSIDE_HOLDER : SHS_REASON_NATIVE_READER);
            break;
        }
        opened = shs_cas64(&dir->word, word, word | SHS_WORD_OPEN);
    } while (!opened);
    if (how->done)
        how->done(how->set, opened);
    if (!opened)
        return;
    if (SHS_UNLIKELY((shs_load32(&end->ep->flags) & (SHS_EPF_KERNEL_ONLY | SHS_EPF_DENIED)) || shs_load32(&env->stack->kept)) &&
        !shs_may_open(env, end)) { /* so since we looked: who made it so shuts, then we do */
        shs_ring_close(dir);
        return;
    }
    shs_set32(&end->ep->why_rx, SHS_REASON_NONE);
    shs_set64(&end->ep->rx_lifts, shs_peek64(&end->ep->rx_lifts) + 1);
    shs_count(env, SHS_CTR_OPENS, 1);
    if (!(end->ep->family & SHS_FAMILY_DATAGRAM))
        shs_end_let_go(env, who, end);
}

/* recvmsg(2) of at most `limit` bytes into cur, without waiting. */
static long kernel_take(struct shs_end *end, struct shs_cursor *cur, uint64_t limit, int flags)
{
    long took = 0, r;
    size_t n, want;
    do { /* again only for a program's array of more pieces than ours has */
        struct iovec iov[SHS_CURSOR_PIECES];
        want = shs_cursor_rest(cur, iov, cur->left < limit ? cur->left : (size_t)limit, &n);
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
        r = shs_sys_recvmsg(end->fd, &msg, (flags & ~MSG_WAITALL) | MSG_DONTWAIT);
        if (r > 0) {
            shs_cursor_advance(cur, (size_t)r);
            took += r;
            limit -= (uint64_t)r;
        }
    } while (SHS_UNLIKELY(n == SHS_CURSOR_PIECES) && r == (long)want && limit && cur->left && !(flags & MSG_PEEK));
    return took ? took : r;
}

/* Under rlock: what ring and kernel hold, in the order of the stream, without taking any of it: bytes; 0: look in the usual way. */
static long peek_both(struct shs_end *end, struct shs_env *env, struct shs_direction *dir, struct shs_cursor *cur)
{
    uint64_t taken = shs_load64(&dir->taken);
    size_t n = 0;
    /* where the ring stays shut, its writer may have sent what it has not counted yet */
    bool look = shs_load64(&dir->ksent) != taken || (shs_load32(&end->ep->flags) & SHS_EPF_KERNEL_ONLY);
    uint8_t *kernel = look ? malloc(cur->left < PEEK_MOST ? cur->left : PEEK_MOST) : NULL;
    if (kernel) {
        struct iovec iov = {kernel, cur->left < PEEK_MOST ? cur->left : PEEK_MOST};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        long r = shs_sys_recvmsg(end->fd, &msg, MSG_PEEK | MSG_DONTWAIT);
        int mark = 0; /* no receive goes beyond the mark of urgent data */
        n = r > 0 && !(shs_sys_ioctl(end->fd, SIOCATMARK, &mark) == 0 && mark) ? (size_t)r : 0;
    }
    size_t got = shs_ring_peek(env, dir, cur, taken, kernel, n);
    free(kernel);
    return (long)got;
}

/* Did the kernel's stream end, in order or not? (Errors of the call itself do not count.) */
static bool stream_over(long r)
{
    return r == 0 || r == -ECONNRESET || r == -EPIPE || r == -ETIMEDOUT || r == -ENOTCONN || r == -ECONNABORTED || r == -EHOSTUNREACH ||
           r == -ENETUNREACH || r == -ECONNREFUSED;
}

/* What is in the kernel's queue? -EAGAIN: nothing; >= 0: bytes or the end; else the error, which is consumed by looking. */
static long kernel_peek(struct shs_end *end)
{
    char byte;
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    return shs_sys_recvmsg(end->fd, &msg, MSG_PEEK | MSG_DONTWAIT);
}

/* Under rlock: after a death, `taken` is what the kernel says. */
static bool recount(struct shs_end *end, struct shs_direction *dir)
{
    uint64_t taken;
    /* with the ring empty a living taker may be between its take and its count: later */
    if ((shs_word_takers(shs_load64(&dir->word)) && !shs_ring_waiting(dir)) || shs_anchor_taken(end->fd, &taken) != 0)
        return false;
    shs_store64(&dir->taken, taken);
    shs_store32(&dir->rx_on, SHS_ON);
    return true;
}

void shs_dir_repair_reader(struct shs_direction *dir)
{
    shs_dir_mend_chunk(dir);
    shs_cas32(&dir->rx_on, SHS_ON, SHS_RECOUNT); /* not a store: the pair may be taken into another use, which is OFF */
    if (shs_load32(&dir->re_on)) { /* it may have died between the two stores of a recall, or before them */
        shs_store64(&dir->rd, shs_rd_pack(shs_word_index(shs_load64(&dir->word)), 0));
    } else {
        shs_set64(&dir->re_rd, 0);
        shs_set64(&dir->re_base, 0);
        shs_set64(&dir->re_ksent, 0);
    }
}

/* Inline in shs_end_recv, which every receive goes through. */
static inline __attribute__((always_inline)) long lock_counted(struct shs_env *env, const struct shs_who *who, struct shs_end *end,
                                                               struct shs_direction *dir)
{
    long r = lock_reader(env, who, end, dir);
    if (r < 0)
        return r == SHS_STALE ? r : -EAGAIN; /* a signal handler interrupted a receive on the same socket */
    uint32_t on = shs_peek32(&dir->rx_on);
    if (SHS_LIKELY(on == SHS_ON))
        return 0;
    r = on != SHS_RECOUNT ? SHS_STALE : recount(end, dir) ? 0 : -EAGAIN;
    if (r < 0)
        shs_unlock(&dir->rlock);
    return r;
}

long shs_end_lock_rx(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_direction *dir)
{
    return lock_counted(env, who, end, dir);
}

/* Under rlock, and under count. */
static inline __attribute__((always_inline)) long recv_locked(struct shs_env *env, const struct shs_who *who, struct shs_end *end,
                                                              struct shs_direction *dir, struct shs_cursor *cur, int flags,
                                                              struct shs_rx *how)
{
    bool peek = flags & MSG_PEEK;
    long r;
    if (SHS_UNLIKELY(env->opt.eager == 1) && shs_peek32(&dir->rthread) != who->lock_word)
        shs_set32(&dir->rthread, who->lock_word);
    for (;;) {
        uint64_t need = 0, taken = shs_load64(&dir->taken);
        if (SHS_UNLIKELY(peek) && shs_ring_waiting(dir) && (r = peek_both(end, env, dir, cur)) > 0)
            break;
        r = shs_ring_pull(env, dir, cur, taken, peek, who->lock_word, &need);
        if ((r > 0 && peek) || SHS_UNLIKELY(r == -EFAULT))
            break;
        if (r > 0) {
            shs_set64(&end->ep->rx_local, shs_peek64(&end->ep->rx_local) + (uint64_t)r);
            shs_set64(&end->ep->rx_calls, shs_peek64(&end->ep->rx_calls) + 1);
            shs_count(env, SHS_CTR_RX_LOCAL_BYTES, (uint64_t)r);
            uint32_t cpu = (uint32_t)sched_getcpu();
            if (shs_peek32(&dir->rcpu) != cpu) /* the writer's cache keeps that line */
                shs_set32(&dir->rcpu, cpu);
            if (SHS_UNLIKELY(!(shs_peek64(&dir->word) & SHS_WORD_OPEN)))
                shs_ring_open(env, who, end, dir, how);
            break;
        }
        if (SHS_UNLIKELY(r == SHS_RING_BROKEN)) {
            __atomic_fetch_or(&dir->word, SHS_WORD_STICKY, __ATOMIC_SEQ_CST);
            r = -EIO;
            break;
        }
        if (r == SHS_RING_BEHIND) {
            if (SHS_UNLIKELY(shs_load32(&dir->rx_on) == SHS_RECOUNT)) {
                r = -EAGAIN; /* a taker was buried just now: `taken` is to be read again */
                break;
            }
            r = kernel_take(end, cur, need, flags);
            if (SHS_UNLIKELY(stream_over(r))) {
                /* the bytes that the head record waits for will never come: nor will anything behind them */
                uint64_t word = __atomic_fetch_or(&dir->word, SHS_WORD_STICKY, __ATOMIC_SEQ_CST);
                shs_store64(&dir->rd, shs_rd_pack(shs_word_index(word), 0));
            }
            if (r > 0) {
                if (!peek)
                    shs_add64(&dir->taken, (uint64_t)r);
                shs_set64(&end->ep->rx_kernel, shs_peek64(&end->ep->rx_kernel) + (uint64_t)r);
            }
            break;
        }
        if (SHS_UNLIKELY(end->ep->error)) {
            r = -(long)__atomic_exchange_n(&end->ep->error, 0, __ATOMIC_SEQ_CST);
            break;
        }
        if (SHS_UNLIKELY(shs_load32(&dir->re_on)) && !shs_residue_collect(env, dir, end->fd)) {
            r = -EAGAIN;
            break;
        }
        uint64_t now = shs_now();
        if (!how->must_look && *how->looked_ns && (shs_load64(&dir->word) & SHS_WORD_OPEN) && shs_load64(&dir->ksent) == taken &&
            now - *how->looked_ns < how->look_gap_ns) {
            r = -EAGAIN;
            break;
        }
        shs_count(env, SHS_CTR_LOOKS, 1);
        if (shs_load64(&dir->word) & SHS_WORD_OPEN) {
            /* a look that takes nothing needs no taker, which would send the writer to the kernel */
            r = kernel_peek(end);
            if (r < 0) {
                *how->looked_ns = now;
                if (stream_over(r)) {
                    __atomic_fetch_or(&dir->word, SHS_WORD_STICKY, __ATOMIC_SEQ_CST);
                    if (shs_ring_waiting(dir)) { /* published meanwhile: it comes before the error, which we have to keep */
                        end->ep->error = (uint32_t)-r;
                        continue;
                    }
                }
                break;
            }
        }
        if (!shs_taker_enter_locked(env, dir))
            continue;
        r = kernel_take(end, cur, ~0ull, flags);
        if (SHS_UNLIKELY(stream_over(r)))
            __atomic_fetch_or(&dir->word, SHS_WORD_STICKY, __ATOMIC_SEQ_CST);
        shs_taker_leave_locked(env, dir, r > 0 && !peek ? (uint64_t)r : 0);
        if (r > 0) {
            shs_set64(&end->ep->rx_kernel, shs_peek64(&end->ep->rx_kernel) + (uint64_t)r);
            shs_count(env, SHS_CTR_RX_KERNEL_BYTES, (uint64_t)r);
        }
        if (SHS_UNLIKELY(r == 0 && shs_load32(&dir->re_on)))
            r = (long)shs_residue_read(env, who, dir, cur, peek);
        *how->looked_ns = now;
        /* also after bytes came: a program that reads once for each event never meets EAGAIN, and the records say what comes first */
        if (r == -EAGAIN || r > 0)
            shs_ring_open(env, who, end, dir, how);
        break;
    }
    return r;
}

long shs_end_recv(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_cursor *cur, int flags,
                  struct shs_rx *how)
{
    struct shs_direction *dir = shs_end_rx(end);
    long r = lock_counted(env, who, end, dir);
    if (SHS_UNLIKELY(r < 0))
        return r;
    r = recv_locked(env, who, end, dir, cur, flags, how);
    shs_unlock(&dir->rlock);
    return r;
}

static bool never(void *set)
{
    (void)set;
    return false;
}

void shs_end_drain(struct shs_env *env, const struct shs_who *who, struct shs_end *end, struct shs_drain *drain)
{
    struct shs_direction *dir = shs_end_rx(end);
    uint64_t looked = 0, until = shs_now() + DRAIN_NS;
    struct shs_rx how = {.looked_ns = &looked, .must_look = true, .begin = never};
    if (lock_reader(env, who, end, dir) < 0)
        return;
    for (;;) {
        struct iovec iov;
        struct shs_cursor cur;
        shs_ring_close(dir);
        if ((!shs_ring_waiting(dir) && !end->ep->error) || drain->error)
            break;
        if (!drain->room(drain, &iov)) {
            drain->error = ENOBUFS;
            break;
        }
        shs_cursor_init(&cur, &iov, 1);
        long r = shs_peek32(&dir->rx_on) != SHS_RECOUNT || recount(end, dir) ? recv_locked(env, who, end, dir, &cur, MSG_DONTWAIT, &how)
                                                                             : -EAGAIN;
        if (r > 0)
            drain->n += (size_t)r;
        else if (r == 0)
            break;
        else if (r == -EAGAIN && shs_now() < until) /* the kernel has not delivered them yet: corked ones take 200 ms */
            shs_sys_poll(&(struct pollfd){.fd = end->fd, .events = POLLIN}, 1, 10);
        else
            drain->error = r == -EAGAIN ? ECONNRESET : (uint32_t)-r; /* a gap: nothing of what follows makes sense */
    }
    if (drain->n || drain->error)
        drain->done(drain);
    if (!(shs_load32(&end->ep->flags) & SHS_EPF_SHARED)) {
        shs_store64(&dir->rd, shs_rd_pack(shs_word_index(shs_load64(&dir->word)), 0));
        shs_store32(&dir->rx_on, SHS_OFF);
    }
    shs_unlock(&dir->rlock);
}
