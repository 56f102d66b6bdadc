/*
 * Receiving a datagram, in the order of events (docs/internals/datagrams.md):
 * 1  under rlock: the head record of the ring;
 * 2  the ring is empty: the kernel's queue, from which is taken only by a counted taker, as from a stream's;
 * 3  each look at the kernel's queue is numbered, and when nothing is left of what was there when a look was begun, that is published
 *    (pair.empty): what a sender gave to the kernel before has been taken, so that it may push again;
 * 4  then the ring is opened, if anybody may push to it.
 */
#include "common.h"

#include <linux/sock_diag.h>
#include <sched.h>

#include "endpoint/anchor.h"
#include "endpoint/dgram.h"
#include "shm/lock.h"
#include "shm/sys.h"

#define LEAST_TRUESIZE 512 /* bytes that a datagram costs a socket, at least: struct sk_buff and struct skb_shared_info alone are more */
#define FAIR_EVERY 64      /* datagrams from a ring that is never empty, between two looks at the clock */

static void name_ring(struct shs_dgram_io *io, const struct shs_arrived *arrived)
{
    bool six = arrived->kind == SHS_REC_DATAGRAM6;
    uint16_t port = htons((uint16_t)(arrived->tag >> 32));
    uint32_t four = (uint32_t)arrived->tag;
    memset(&io->name, 0, sizeof io->name.in6);
    if (io->domain == AF_INET) {
        io->name.in.sin_family = AF_INET;
        io->name.in.sin_port = port;
        memcpy(&io->name.in.sin_addr, &four, 4);
        io->name_len = sizeof io->name.in;
        return;
    }
    io->name.in6.sin6_family = AF_INET6;
    io->name.in6.sin6_port = port;
    if (six) {
        memcpy(&io->name.in6.sin6_addr, arrived->addr, 16);
    } else {
        memset(&io->name.in6.sin6_addr.s6_addr[10], 0xff, 2);
        memcpy(&io->name.in6.sin6_addr.s6_addr[12], &four, 4);
    }
    io->name_len = sizeof io->name.in6;
}

/* Is there anything in the kernel's queue? -EAGAIN: no. An error that the socket had is consumed by asking. */
static long kernel_peek(int fd)
{
    struct msghdr none = {0};
    return shs_sys_recvmsg(fd, &none, MSG_PEEK | MSG_DONTWAIT);
}

/* Under rlock: the kernel's queue is going to be looked at. */
static void look_begins(struct shs_env *env, struct shs_direction *dir)
{
    struct shs_pair *pair = shs_inbox_of(dir);
    shs_store64(&pair->looks, pair->looks + 1);
    shs_fence(); /* before the kernel is asked: a sender that reads an older number has given its datagram to the kernel by now */
    shs_count(env, SHS_CTR_LOOKS, 1);
}

/* Nothing is left of what was in the kernel's queue when this look was begun: senders learn it. */
static void is_empty(struct shs_pair *pair, uint64_t look, uint64_t begun_ns)
{
    shs_store64(&pair->empty_ns, begun_ns);
    shs_store64(&pair->empty, look);
    pair->mark_left = 0;
}

static long look(struct shs_env *env, struct shs_end *end, uint64_t now)
{
    struct shs_pair *pair = shs_inbox_of(end->rx);
    look_begins(env, end->rx);
    long r = kernel_peek(end->fd);
    if (r == -EAGAIN)
        is_empty(pair, pair->looks, now);
    return r;
}

/*
 * A datagram was taken. A reader that is kept busy by the kernel never finds its queue empty, and one that receives once for each event does
 * not ask: so we ask how much is in it, and know when as many have been taken. Memory accounted to the socket bounds the number from
 * above (each datagram costs more than its sk_buff, socket(7) SO_MEMINFO).
 */
static void took(struct shs_env *env, struct shs_end *end)
{
    struct shs_pair *pair = shs_inbox_of(end->rx);
    uint32_t meminfo[SK_MEMINFO_VARS] = {0};
    socklen_t len = sizeof meminfo;
    if (pair->mark_left)
        pair->mark_left--;
    if (!pair->mark_left && pair->mark > pair->empty)
        is_empty(pair, pair->mark, pair->mark_ns);
    uint64_t now = shs_now();
    look_begins(env, end->rx);
    if (shs_sys_getsockopt(end->fd, SOL_SOCKET, SO_MEMINFO, meminfo, &len) != 0)
        return;
    if (!meminfo[SK_MEMINFO_RMEM_ALLOC]) {
        is_empty(pair, pair->looks, now);
    } else if (!pair->mark_left) {
        pair->mark = pair->looks;
        pair->mark_ns = now;
        pair->mark_left = (meminfo[SK_MEMINFO_RMEM_ALLOC] + LEAST_TRUESIZE - 1) / LEAST_TRUESIZE;
    }
}

/* Under rlock: take one datagram from the kernel, and see whether it allows its sender to push. */
static long kernel_take(struct shs_env *env, const struct shs_who *who, struct shs_end *end, uint32_t ep1, struct shs_dgram_io *io)
{
    _Alignas(struct cmsghdr) char control[128];
    struct msghdr msg = {.msg_name = &io->name,
                         .msg_namelen = sizeof io->name,
                         .msg_iov = (struct iovec *)(uintptr_t)io->iov,
                         .msg_iovlen = io->count,
                         .msg_control = io->orig_dst ? control : NULL,
                         .msg_controllen = io->orig_dst ? sizeof control : 0};
    uint64_t taken = shs_load64(&io->shown->taken);
    long r = shs_sys_recvmsg(end->fd, &msg, io->flags | MSG_DONTWAIT | MSG_TRUNC);
    shs_shown_note(io->shown, taken, io->flags, r);
    if (r < 0)
        return r;
    struct shs_where from, to;
    io->full = r;
    io->name_len = msg.msg_namelen;
    if (SHS_UNLIKELY(shs_links_any(env->stack, end->ep->lport, SHS_LINK_WANTED, 0)) &&
        shs_take_address(&io->name.any, from.addr, &from.port))
        shs_link_meet(env, who, end, ep1, shs_inbox_of(end->rx)->empty_ns, &from, shs_original_destination(&msg, &to) ? &to : NULL);
    return 0;
}

static bool has_senders(struct shs_env *env, struct shs_end *end, uint32_t ep1)
{
    return shs_dgram_wired(end->ep) || shs_links_any(env->stack, end->ep->lport, SHS_LINK_ALLOWED, ep1);
}

static void open_if_of_use(struct shs_env *env, const struct shs_who *who, struct shs_end *end, uint32_t ep1, struct shs_rx *how)
{
    if ((shs_load64(&end->rx->word) & SHS_WORD_OPEN) || !has_senders(env, end, ep1))
        return;
    if (!(shs_load32(&end->ep->flags) & SHS_EPF_SHARED))
        shs_ring_open(env, who, end, end->rx, how);
}

/* Senders that wait for us want to know where we run. */
static void runs_here(struct shs_direction *dir)
{
    uint32_t cpu = (uint32_t)sched_getcpu();
    if (shs_peek32(&dir->rcpu) != cpu)
        shs_set32(&dir->rcpu, cpu);
}

/* Under rlock: one datagram came by the ring. */
static void received(struct shs_env *env, struct shs_end *end, struct shs_dgram_io *io, struct shs_rx *how, struct shs_arrived *arrived)
{
    struct shs_direction *dir = end->rx;
    io->full = (long)arrived->full;
    name_ring(io, arrived);
    if (io->flags & MSG_PEEK)
        return;
    uint64_t calls = shs_peek64(&end->ep->rx_calls) + 1;
    bool wire = arrived->tag & SHS_TAG_WIRE;
    uint64_t *bytes = wire ? &end->ep->rx_wire : &end->ep->rx_local;
    shs_set64(&end->ep->rx_calls, calls);
    shs_set64(bytes, shs_peek64(bytes) + arrived->full);
    shs_count(env, wire ? SHS_CTR_RX_WIRE_BYTES : SHS_CTR_RX_LOCAL_BYTES, arrived->full);
    shs_count(env, wire ? SHS_CTR_RX_WIRE_DATAGRAMS : SHS_CTR_RX_DATAGRAMS, 1);
    runs_here(dir);
    uint64_t now;
    if (SHS_UNLIKELY(calls % FAIR_EVERY == 0) && (now = shs_now()) - *how->looked_ns >= env->opt.look_busy_us * 1000) {
        /* senders by the kernel have their turn too: the ring is shut, read to its end, and opened when the kernel's queue is empty */
        *how->looked_ns = now;
        long r = look(env, end, now);
        if (r >= 0 && shs_ring_close(dir))
            shs_count(env, SHS_CTR_SHUTS, 1);
        else if (r < 0 && r != -EAGAIN)
            end->ep->error = (uint32_t)-r;
    }
}

/* Under rlock, the ring being empty: what the kernel has. 1: look at the ring again. */
static long from_kernel(struct shs_env *env, const struct shs_who *who, struct shs_end *end, uint32_t ep1, struct shs_dgram_io *io,
                        struct shs_rx *how)
{
    struct shs_direction *dir = end->rx;
    uint64_t now = shs_now();
    bool open = shs_load64(&dir->word) & SHS_WORD_OPEN;
    if (open && !how->must_look && *how->looked_ns && now - *how->looked_ns < how->look_gap_ns)
        return -EAGAIN;
    *how->looked_ns = now;
    if (open) { /* a look that takes nothing needs no taker, which would send senders to the kernel */
        long r = look(env, end, now);
        if (r == -EAGAIN && !has_senders(env, end, ep1))
            shs_ring_close(dir); /* nobody may push any more: looks cost more than takes */
        if (r < 0)
            return r;
    }
    if (!shs_taker_enter_locked(env, dir))
        return 1;
    look_begins(env, dir);
    long r = kernel_take(env, who, end, ep1, io);
    if (r == -EAGAIN)
        is_empty(shs_inbox_of(dir), shs_inbox_of(dir)->looks, now);
    else if (r == 0 && !(io->flags & MSG_PEEK) &&
             (has_senders(env, end, ep1) || shs_links_any(env->stack, end->ep->lport, SHS_LINK_WANTED, 0)))
        took(env, end);
    shs_taker_leave_locked(env, dir, 0);
    if (r == 0 && !(io->flags & MSG_PEEK)) {
        runs_here(dir);
        *how->looked_ns = 0; /* whoever sent it waits for the next look, which may find nothing more */
        shs_set64(&end->ep->rx_kernel, shs_peek64(&end->ep->rx_kernel) + (uint64_t)io->full);
        shs_count(env, SHS_CTR_RX_KERNEL_BYTES, (uint64_t)io->full);
        shs_count(env, SHS_CTR_RX_KERNEL_DATAGRAMS, 1);
    }
    /* also after a datagram came: a program that receives once for each event never meets an empty queue */
    if (r == -EAGAIN || (r == 0 && !shs_inbox_of(dir)->mark_left))
        open_if_of_use(env, who, end, ep1, how);
    return r;
}

long shs_dgram_recv(struct shs_env *env, const struct shs_who *who, struct shs_end *end, uint32_t ep1, struct shs_dgram_io *io,
                    struct shs_rx *how)
{
    struct shs_direction *dir = end->rx;
    long r = shs_lock(env, &dir->rlock, who->lock_word);
    if (r < 0)
        return -EAGAIN; /* a signal handler interrupted a receive on the same socket */
    if (SHS_UNLIKELY(r == SHS_LOCK_REPAIR)) {
        shs_dir_repair_reader(dir);
        if (shs_load64(&shs_inbox_of(dir)->recall_ns)) /* killed in a recall: what it has sent again comes before what it has not */
            io->shown->older = true;
        shs_store64(&shs_inbox_of(dir)->recall_ns, 0);
    }
    uint32_t on = shs_load32(&dir->rx_on);
    /* closed by another thread: perhaps another socket's inbox by now. Or not brought under count after all: another thread was in the kernel */
    if (SHS_UNLIKELY(!shs_end_reads(end, dir) || (on != SHS_ON && on != SHS_RECOUNT))) {
        shs_unlock(&dir->rlock);
        return SHS_STALE;
    }
    bool shown = shs_shown_next(io->shown) || (SHS_UNLIKELY(io->shown->older) && !shs_word_takers(shs_load64(&dir->word)));
    io->by_kernel = false;
    do {
        struct shs_arrived arrived;
        struct shs_cursor cur;
        if (SHS_UNLIKELY(shown)) {
            /* whoever sent what was peeked at has pushed nothing since: the kernel's queue has not been empty */
            shown = false;
            r = kernel_take(env, who, end, ep1, io);
            io->by_kernel = r == 0;
            if (r != -EAGAIN)
                break;
            io->shown->older = false;
        }
        shs_cursor_init(&cur, io->iov, (int)io->count);
        r = shs_ring_pull_datagram(env, dir, &cur, io->flags & MSG_PEEK, who->lock_word, &arrived);
        if (SHS_LIKELY(r == 0)) {
            received(env, end, io, how, &arrived);
            break;
        }
        if (SHS_UNLIKELY(r == -EFAULT))
            break; /* as from the kernel, it is lost */
        if (SHS_UNLIKELY(r == SHS_RING_BROKEN)) {
            uint64_t word = __atomic_fetch_or(&dir->word, SHS_WORD_STICKY, __ATOMIC_SEQ_CST);
            shs_store64(&dir->rd, shs_rd_pack(shs_word_index(word), 0));
        }
        if (SHS_UNLIKELY(end->ep->error)) {
            r = -(long)__atomic_exchange_n(&end->ep->error, 0, __ATOMIC_SEQ_CST);
            break;
        }
        r = from_kernel(env, who, end, ep1, io, how);
        io->by_kernel = r == 0;
    } while (r == 1);
    shs_unlock(&dir->rlock);
    return r;
}
