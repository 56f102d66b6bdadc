/*
 * Receiving calls: read, readv, recv, recvfrom, recvmsg, recvmmsg and their fortified twins. All come down to ring_recv:
 * try; nothing there and blocking: spin, doze behind a bell, or sleep in the kernel; try again.
 */
#include "common.h"

#include <linux/sockios.h>
#include <stdlib.h>

#include "intercepts.gen.h"
#include "preload/attach.h"
#include "preload/dgram.h"
#include "preload/gate.h"
#include "preload/kept.h"
#include "preload/nap.h"
#include "preload/restart.h"
#include "preload/signals.h"
#include "preload/wire.h"
#include "shm/sys.h"

#define RING_FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL | MSG_PEEK | MSG_WAITALL | MSG_CMSG_CLOEXEC)
#define KEPT_FLAGS (RING_FLAGS | MSG_TRUNC)
#define STREAM_AFTER 8  /* receives without a send between them: a stream, not requests and replies */
#define GATHER_PAUSES 128   /* about 1.4 µs */
#define GATHER_BELOW 16384 /* bytes: a receive that found more had gathered enough */
#define LOOKS_OF_A_PAUSE 4
#define BIN_MOST ((size_t)1 << 20) /* thrown away by one call at most */
#define STREAK_SLEEP 8 /* dozes in a row that each found more behind, on one CPU: a stream, better slept through in the kernel */

/* How long since the last look at the kernel's queue may a look be spared? Longer while the ring delivers. */
static uint64_t look_gap_ns(const struct shs_fd *f)
{
    const struct shs_options *opt = &shs_proc.env.opt;
    return (f->end.ep->rx_calls != f->looked_call ? opt->look_busy_us : opt->look_us) * 1000;
}

/* `patient`: the caller is going to wait, and will look at the kernel then. */
static long try_recv(struct shs_fd *f, const struct shs_who *who, struct shs_cursor *cur, int flags, bool must_look, bool patient)
{
    uint64_t looked = f->looked_ns, reported = __atomic_load_n(&shs_proc.reported, __ATOMIC_RELAXED);
    bool watched =
        f->set || f->copied || (shs_peek32(&f->end.ep->flags) & SHS_EPF_SHARED); /* perhaps in a set: of this process, or of another one */
    struct shs_rx how = {
        .looked_ns = &f->looked_ns,
        .must_look = must_look || reported != f->looked_report, /* the kernel reported something since: perhaps this */
        .begin = watched ? shs_set_begin : NULL,
        .done = watched ? shs_set_done : NULL,
        .set = f,
        .look_gap_ns = patient ? ~0ull : look_gap_ns(f),
    };
    long r = shs_end_recv(&shs_proc.env, who, &f->end, cur, flags, &how);
    if (f->looked_ns != looked)
        f->looked_call = f->end.ep->rx_calls;
    if (r <= 0)
        f->looked_report = reported;
    if (SHS_UNLIKELY(shs_proc.env.nudge & SHS_NUDGE_COOL)) {
        shs_proc.env.nudge &= ~(uint32_t)SHS_NUDGE_COOL;
        shs_nudge(shs_proc.stack_name, shs_proc.env.slot1 - 1);
    }
    return r;
}

static uint64_t receive_timeout(struct shs_fd *f)
{
    return shs_load32(&f->end.ep->flags) & SHS_EPF_RCVTIMEO ? shs_socket_timeout(f->end.fd, SO_RCVTIMEO) : 0;
}

long shs_recv_doze(struct shs_fd *f, const struct shs_who *who, struct shs_bell_own *bell, uint64_t deadline)
{
    struct shs_direction *dir = shs_end_rx(&f->end);
    long r = 0;
    shs_bell_arm(bell, false);
    bool claimed = shs_bell_claim(&shs_proc.env, who->lock_word, &f->end, bell, shs_alone(f));
    shs_fence();
    if (!claimed) {
        r = -EBUSY;
    } else if (!shs_ring_waiting(dir) && (shs_load64(&dir->word) & SHS_WORD_OPEN)) {
        struct pollfd fds[2] = {{.fd = f->end.fd, .events = POLLIN}, {.fd = bell->fd, .events = POLLIN}};
        struct timespec ts;
        shs_count(&shs_proc.env, SHS_CTR_DOZES, 1);
        r = shs_n_ppoll(fds, 2, shs_time_left(deadline, &ts), NULL);
        if (r > 0 && fds[1].revents)
            shs_bell_drain(bell);
        if (r > 0 && fds[0].revents)
            f->looked_ns = 0;
    }
    shs_bell_disarm(bell);
    return r < 0 ? r : 0;
}

/* Sleep in the kernel, which gets every byte meanwhile: bytes taken, 0 with *again set (the ring has something), or -errno. */
static long sleep_natively(struct shs_fd *f, const struct shs_who *who, struct shs_cursor *cur, int flags, bool *again)
{
    struct shs_take take;
    struct shs_endpoint *ep = f->end.ep; /* the entry may be another's when we wake */
    *again = shs_taker_enter(&shs_proc.env, who, &f->end, &take) != 1;
    if (*again)
        return 0;
    shs_count(&shs_proc.env, SHS_CTR_SLEEPS, 1);
    if (shs_peek32(&ep->why_rx) != SHS_REASON_EXHAUSTED) /* it sleeps because it has no ring */
        shs_set32(&ep->why_rx, SHS_REASON_READER_ASLEEP);
    struct iovec iov[SHS_CURSOR_PIECES];
    size_t n;
    shs_cursor_rest(cur, iov, cur->left, &n);
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
    long r = shs_n_recvmsg(f->end.fd, &msg, flags & ~MSG_WAITALL);
    shs_taker_leave(&shs_proc.env, who, &take, r > 0 && !(flags & MSG_PEEK) ? (uint64_t)r : 0);
    if (r > 0) {
        shs_set64(&ep->rx_kernel, shs_peek64(&ep->rx_kernel) + (uint64_t)r);
        shs_count(&shs_proc.env, SHS_CTR_RX_KERNEL_BYTES, (uint64_t)r);
        shs_cursor_advance(cur, (size_t)r);
    }
    return r;
}

/* Doze, nap or sleep, as it seems best: as wait_recv. */
static long rest(struct shs_fd *f, const struct shs_who *who, struct shs_cursor *cur, int flags, uint64_t deadline,
                 struct shs_signal_mark mark, bool *ended)
{
    struct shs_direction *dir = shs_end_rx(&f->end);
    bool same_cpu = shs_peek32(&dir->wcpu) == shs_peek32(&dir->rcpu), again = false;
    struct shs_bell_own *bell = NULL;
    f->gap.cheap = shs_may_nap(f, deadline);
    if ((shs_load64(&dir->word) & SHS_WORD_OPEN) && shs_gap_doze(&shs_proc.env, &f->gap) &&
        (shs_proc.env.opt.eager || !same_cpu || f->streak < STREAK_SLEEP))
        bell = shs_bell();
    long r = bell && f->gap.cheap ? shs_nap(f, who, bell) : -EBUSY;
    if (shs_wait_moved())
        return 0;
    if (r == -EBUSY && bell)
        r = shs_recv_doze(f, who, bell, deadline);
    if (r == -ETIMEDOUT && shs_interrupted(mark, !deadline))
        r = -EINTR; /* at the very end of the nap */
    if (r == -ETIMEDOUT && !shs_wait_moved()) /* nothing soon: now as those who wait long */
        r = shs_proc.env.opt.eager ? shs_recv_doze(f, who, bell, deadline) : -EBUSY;
    if (r != -EBUSY) {
        if (r == -EINTR && !deadline && shs_restarts(mark))
            r = 0;
        if (!shs_wait_moved())
            f->streak = shs_end_pending(&shs_proc.env, who, &f->end) > 1024 ? f->streak + 1 : 0;
        return r;
    }
    r = sleep_natively(f, who, cur, flags, &again);
    *ended = !again;
    f->streak = f->streak && f->streak < 64 ? f->streak + 1 : 0;
    return r;
}

/* Nothing is there: wait. 0: try again; >0 bytes that a native sleep brought; -errno. *ended: a native sleep ended, its result counts.
 * *orphan: the descriptor was closed meanwhile; that is what to go on with. */
static long wait_recv(struct shs_fd *f, const struct shs_who *who, struct shs_cursor *cur, int flags, uint64_t deadline,
                      struct shs_signal_mark mark, bool *ended, struct shs_fd **orphan)
{
    struct shs_direction *dir = shs_end_rx(&f->end);
    uint64_t start = shs_now(), now = start;
    struct shs_spin spin;
    shs_spin_begin(&spin, &shs_proc.env, &f->gap, now, shs_peek32(&dir->wcpu));
    while (shs_spin_step(&spin, &now) == SHS_SPIN_ON) {
        if (shs_ring_waiting(dir)) {
            shs_spin_end(&spin, true);
            shs_gap_note(&shs_proc.env, &f->gap, start, 0);
            if (spin.looks > LOOKS_OF_A_PAUSE)
                shs_set32(&f->takes, 0); /* a slow stream: nothing to gather */
            return 0;
        }
        if (now - f->looked_ns >= look_gap_ns(f)) {
            long r = try_recv(f, who, cur, flags, true, false);
            if (r != -EAGAIN) {
                shs_spin_end(&spin, true);
                shs_gap_note(&shs_proc.env, &f->gap, start, 0);
                *ended = true;
                return r;
            }
        }
        if ((deadline && now >= deadline) || shs_interrupted(mark, !deadline))
            break;
    }
    shs_spin_end(&spin, false);
    if (deadline && shs_now() >= deadline)
        return -EAGAIN;
    if (shs_interrupted(mark, !deadline)) /* with SO_RCVTIMEO the kernel never restarts, signal(7) */
        return -EINTR;
    if (SHS_UNLIKELY(shs_load32(&shs_end_tx(&f->end)->re_on))) /* what its peer waits for, perhaps */
        (void)shs_end_send_residue(&shs_proc.env, who, &f->end);
    uintptr_t outer = shs_wait_begin(f->end.fd);
    long r = rest(f, who, cur, flags, deadline, mark, ended);
    *orphan = shs_wait_end(outer);
    uint64_t came = shs_load64(&dir->pub_ns);
    shs_gap_note(&shs_proc.env, &f->gap, start, came > start ? came : 0);
    return r;
}

/* One look at a stream that is being written costs its writer a cache line: a short pause, and each look finds more. */
static void let_it_gather(void)
{
    for (int i = 0; i < GATHER_PAUSES; i++)
        shs_pause();
}

static long recv_natively(struct shs_fd *f, struct shs_cursor *cur, int flags)
{
    struct iovec iov[SHS_CURSOR_PIECES];
    size_t n;
    shs_cursor_rest(cur, iov, cur->left, &n);
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
    long r = shs_n_recvmsg(f->end.fd, &msg, flags);
    if (r > 0)
        shs_cursor_advance(cur, (size_t)r);
    return r;
}

/* The pair was given back since the gate was passed: the kernel has everything, and this thread's hazard is seen. With a deadline part of
 * the socket's time-out has passed already. */
static long recv_rest(struct shs_fd *f, struct shs_cursor *cur, int flags, uint64_t deadline)
{
    long total = 0, r;
    if (SHS_UNLIKELY(f->kept))
        return shs_kept_recv(f, f->end.fd, cur, flags);
    if (!deadline)
        return recv_natively(f, cur, flags);
    do {
        struct timespec ts;
        struct pollfd p = {.fd = f->end.fd, .events = POLLIN};
        int ready = shs_n_ppoll(&p, 1, shs_time_left(deadline, &ts), NULL);
        r = ready < 0 ? ready : recv_natively(f, cur, (flags & ~MSG_WAITALL) | MSG_DONTWAIT);
        total += r > 0 ? r : 0;
        if (ready <= 0)
            break;
    } while (r == -EAGAIN || (r > 0 && (flags & MSG_WAITALL) && !(flags & MSG_PEEK) && cur->left));
    return total ? total : r;
}

static long kept_recv(struct shs_gate *g, int fd, const struct iovec *iov, int count, int flags)
{
    struct shs_cursor cur;
    shs_cursor_init(&cur, iov, count);
    return shs_kept_recv(g->f, fd, &cur, flags);
}

/* MSG_PEEK with MSG_WAITALL, and not enough is there. Nothing goes to the ring any more: then the kernel can wait for the rest, and all is looked at
 * once more. */
static long peek_all(struct shs_fd *f, const struct shs_who *who, const struct iovec *iov, int count, int flags)
{
    struct shs_cursor cur;
    shs_cursor_init(&cur, iov, count);
    shs_set32(&f->end.ep->why_rx, SHS_REASON_OPTION);
    shs_lowered_by(f->end.ep, SHS_OPTION_OF_CALL, MSG_PEEK | MSG_WAITALL);
    shs_ring_close(shs_end_rx(&f->end));
    size_t there = shs_end_pending(&shs_proc.env, who, &f->end), more = cur.left > there ? cur.left - there : 0;
    void *bin = more ? malloc(more) : NULL;
    long waited = bin ? shs_n_recv(f->end.fd, bin, more, flags) : 0;
    free(bin);
    long r = try_recv(f, who, &cur, MSG_PEEK | MSG_DONTWAIT, true, false);
    if (r == SHS_STALE)
        r = recv_natively(f, &cur, MSG_PEEK | MSG_DONTWAIT);
    return r == -EAGAIN && waited <= 0 ? waited : r;
}

/* Is SO_RCVLOWAT what made the connection the kernel's? */
static bool low_water(const struct shs_fd *f)
{
    const struct shs_endpoint *ep = f->end.ep;
    return (shs_peek32(&ep->flags) & SHS_EPF_KERNEL_ONLY) && shs_peek32(&ep->opt_level) == SOL_SOCKET &&
           shs_peek32(&ep->opt_name) == SO_RCVLOWAT;
}

/* Has the receive come to the mark of urgent data? It does not go beyond it in one call. */
static bool at_mark(struct shs_fd *f)
{
    const struct shs_direction *dir = shs_end_rx(&f->end);
    int mark = 0;
    if (shs_load32(&dir->tx_on) == SHS_ON && shs_load64(&dir->ksent) == shs_load64(&dir->taken))
        return false; /* there is nothing in the kernel's queue */
    return !shs_end_waiting(&f->end) && shs_sys_ioctl(f->end.fd, SIOCATMARK, &mark) == 0 && mark;
}

static long receive(struct shs_fd *f, const struct shs_who *who, const struct iovec *iov, int count, int flags, struct shs_fd **orphan)
{
    struct shs_cursor cur;
    shs_cursor_init(&cur, iov, count);
    bool nonblock = (flags & MSG_DONTWAIT) || (shs_peek32(&f->end.ep->flags) & SHS_EPF_NONBLOCK);
    uint64_t timeout = 0, deadline = 0;
    struct shs_signal_mark mark = shs_signal_mark();
    long total = 0;
    if (cur.left == 0) { /* nothing to receive: the kernel says what that means, unless the ring holds something */
        struct msghdr none = {0};
        return shs_end_waiting(&f->end) || !nonblock ? 0 : shs_n_recvmsg(f->end.fd, &none, flags | MSG_DONTWAIT);
    }
    if (shs_step32(&f->takes) > STREAM_AFTER && f->got < GATHER_BELOW)
        let_it_gather();
    if (SHS_UNLIKELY(cur.left == SHS_CURSOR_MOST) && shs_vector_refused(iov, (size_t)count))
        return -EFAULT;
    if (SHS_UNLIKELY(!nonblock && low_water(f)) && !shs_end_waiting(&f->end)) { /* the kernel knows how much is enough */
        bool again = false;
        long r = sleep_natively(f, who, &cur, flags, &again);
        total = r > 0 ? r : 0;
        if (!again && (r <= 0 || !(flags & MSG_WAITALL) || (flags & MSG_PEEK) || cur.left == 0))
            return r;
    }
    for (;;) {
        long r = try_recv(f, who, &cur, flags, false, !nonblock);
        if (SHS_UNLIKELY((flags & (MSG_PEEK | MSG_WAITALL)) == (MSG_PEEK | MSG_WAITALL)) && !nonblock && cur.left &&
            (r > 0 || r == -EAGAIN))
            return peek_all(f, who, iov, count, flags);
        if (r == -EAGAIN && !nonblock) {
            bool ended = false;
            struct shs_fd *left = NULL;
            if (!deadline && (timeout = receive_timeout(f)))
                deadline = shs_now() + timeout;
            r = wait_recv(f, who, &cur, flags, deadline, mark, &ended, &left);
            if (SHS_UNLIKELY(left)) {
                if (*orphan)
                    shs_orphan_drop(*orphan);
                f = *orphan = left;
            }
            if (r == 0 && !ended)
                continue;
        }
        if (SHS_UNLIKELY(r == SHS_STALE)) {
            r = recv_rest(f, &cur, flags, deadline);
            return r > 0 ? total + r : total ? total : r;
        }
        if (r <= 0 && !total)
            return shs_is_lost(f, r) ? SHS_LOST : r;
        if (r <= 0) {
            if (r == -ECONNRESET || r == -ETIMEDOUT || r == -EPIPE) /* told by the next call: this one has bytes to tell of */
                shs_store32(&f->end.ep->error, (uint32_t)-r);
            return total;
        }
        total += r;
        f->got = (uint32_t)r;
        if (!(flags & MSG_WAITALL) || (flags & MSG_PEEK) || cur.left == 0 || at_mark(f))
            return total;
    }
}

static long ring_recv(struct shs_gate *g, const struct iovec *iov, int count, int flags)
{
    struct shs_fd *orphan = NULL;
    if (SHS_UNLIKELY(g->f->state == SHS_FD_WIRE))
        return shs_wire_receive(g, iov, count, flags);
    long r = receive(g->f, g->who, iov, count, flags, &orphan);
    if (SHS_UNLIKELY(orphan))
        shs_orphan_drop(orphan);
    return r;
}

/* What recvmsg says of a stream's bytes; r is returned if it can be said. */
static long received(struct msghdr *msg, int flags, long r)
{
    if (!shs_writable(msg, sizeof *msg))
        return -EFAULT;
    msg->msg_namelen = 0;
    msg->msg_controllen = 0;
    msg->msg_flags = flags & MSG_CMSG_CLOEXEC;
    return r;
}

/* The message part of recvmsg: a stream has no address and no control data. */
static long recv_msg(int fd, struct msghdr *msg, int flags)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_RECEIVE);
    long r;
    if ((g.ring || g.kept) && (r = shs_message_refused(msg, false)) != 0) {
        ;
    } else if (g.kept ? !(flags & ~KEPT_FLAGS) : g.ring && !(flags & ~RING_FLAGS)) {
        r = g.kept ? kept_recv(&g, fd, msg->msg_iov, (int)msg->msg_iovlen, flags)
                   : ring_recv(&g, msg->msg_iov, (int)msg->msg_iovlen, flags);
        if (r >= 0)
            r = received(msg, flags, r);
        else if (SHS_UNLIKELY(r == SHS_LOST))
            r = shs_n_recvmsg(fd, msg, flags);
    } else if (g.ring) {
        r = shs_recv_special(&g, msg, flags);
    } else if (g.dgram) {
        r = shs_dgram_recvmsg(&g, fd, msg, flags);
    } else {
        r = shs_n_recvmsg(fd, msg, flags);
    }
    shs_gate_leave(&g);
    if (r >= 0 && msg->msg_controllen)
        shs_received_rights(msg);
    return r;
}

static long recv_flat(int fd, void *buf, size_t len, int flags, struct sockaddr *addr, socklen_t *addrlen)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_RECEIVE);
    long r;
    struct iovec iov = {buf, len};
    if (SHS_LIKELY(g.ring && !(flags & ~RING_FLAGS))) {
        r = ring_recv(&g, &iov, 1, flags);
        if (SHS_UNLIKELY(r == SHS_LOST))
            r = shs_n_recv(fd, buf, len, flags);
    } else if (g.ring) {
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        r = shs_recv_special(&g, &msg, flags);
    } else if (g.kept && !(flags & ~KEPT_FLAGS)) {
        r = kept_recv(&g, fd, &iov, 1, flags);
    } else {
        r = g.dgram ? shs_dgram_recvfrom(&g, fd, buf, len, flags, addr, addrlen) : shs_n_recvfrom(fd, buf, len, flags, addr, addrlen);
        shs_gate_leave(&g);
        return r;
    }
    shs_gate_leave(&g);
    if (r >= 0 && addr && addrlen) { /* as tcp(7): a stream's recvfrom gives no address */
        if (!shs_writable(addrlen, sizeof *addrlen))
            return -EFAULT;
        *addrlen = 0;
    }
    return r;
}

/* Flags that only the kernel knows: everything before goes first, then the ring stays shut. */
long shs_recv_special(struct shs_gate *g, struct msghdr *msg, int flags)
{
    struct shs_fd *f = g->f;
    if (SHS_UNLIKELY(f->state == SHS_FD_WIRE)) {
        shs_wire_down(f, f->end.fd);
        return shs_n_recvmsg(f->end.fd, msg, flags);
    }
    if (flags & MSG_ERRQUEUE)
        return shs_n_recvmsg(f->end.fd, msg, flags);
    shs_set32(&f->end.ep->why_rx, flags & MSG_OOB ? SHS_REASON_URGENT : SHS_REASON_OPTION);
    if (flags & MSG_OOB)
        shs_endpoint_flag(f->end.ep, SHS_EPF_KERNEL_ONLY);
    else
        shs_lowered_by(f->end.ep, SHS_OPTION_OF_CALL, (uint32_t)(flags & ~RING_FLAGS));
    shs_ring_close(shs_end_rx(&f->end));
    if (flags & MSG_OOB)
        return shs_n_recvmsg(f->end.fd, msg, flags);
    if (shs_end_waiting(&f->end)) { /* MSG_TRUNC on a stream discards: receive, and throw away */
        struct shs_cursor cur;
        shs_cursor_init(&cur, msg->msg_iov, (int)msg->msg_iovlen);
        struct iovec iov = {NULL, cur.left < BIN_MOST ? cur.left : BIN_MOST};
        iov.iov_base = malloc(iov.iov_len);
        long r = iov.iov_base ? ring_recv(g, &iov, 1, flags & RING_FLAGS) : -ENOMEM;
        free(iov.iov_base);
        return r < 0 ? r : received(msg, flags, r);
    }
    struct shs_take take;
    long entered = shs_taker_enter(&shs_proc.env, g->who, &f->end, &take);
    if (entered != 1 && entered != SHS_STALE)
        return -EAGAIN;
    long r = shs_n_recvmsg(f->end.fd, msg, flags);
    if (entered == 1)
        shs_taker_leave(&shs_proc.env, g->who, &take, r > 0 && !(flags & MSG_PEEK) ? (uint64_t)r : 0);
    return r;
}

ssize_t shs_i_read(int fd, void *buf, size_t len)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_RECEIVE);
    struct iovec iov = {buf, len};
    long r;
    if (SHS_UNLIKELY(g.ring && len && (r = ring_recv(&g, &iov, 1, 0)) != SHS_LOST))
        ;
    else if (SHS_UNLIKELY(g.kept && len))
        r = kept_recv(&g, fd, &iov, 1, 0);
    else
        r = g.dgram && len ? shs_dgram_recvfrom(&g, fd, buf, len, 0, NULL, NULL) : shs_n_read(fd, buf, len);
    shs_gate_leave(&g);
    return r;
}

ssize_t shs_i___read_chk(int fd, void *buf, size_t len, size_t room)
{
    return len > room ? shs_n___read_chk(fd, buf, len, room) : shs_i_read(fd, buf, len);
}

ssize_t shs_i_readv(int fd, const struct iovec *iov, int iovcnt)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_RECEIVE);
    /* of no bytes it is no receive, and never waits, as read(2) of none */
    bool ours = (g.ring || g.dgram || g.kept) && shs_vector_good(iov, iovcnt) && shs_vector_room(iov, (size_t)iovcnt);
    long r;
    r = !ours    ? SHS_LOST
        : g.kept ? kept_recv(&g, fd, iov, iovcnt, 0)
        : g.ring ? ring_recv(&g, iov, iovcnt, 0)
                 : shs_dgram_readv(&g, fd, iov, iovcnt);
    if (SHS_LIKELY(r == SHS_LOST))
        r = shs_n_readv(fd, iov, iovcnt);
    shs_gate_leave(&g);
    return r;
}

ssize_t shs_i_recv(int fd, void *buf, size_t len, int flags)
{
    return recv_flat(fd, buf, len, flags, NULL, NULL);
}

ssize_t shs_i___recv_chk(int fd, void *buf, size_t len, size_t room, int flags)
{
    return len > room ? shs_n___recv_chk(fd, buf, len, room, flags) : shs_i_recv(fd, buf, len, flags);
}

ssize_t shs_i_recvfrom(int fd, void *buf, size_t len, int flags, struct sockaddr *addr, socklen_t *addrlen)
{
    return recv_flat(fd, buf, len, flags, addr, addrlen);
}

ssize_t shs_i___recvfrom_chk(int fd, void *buf, size_t len, size_t room, int flags, struct sockaddr *addr, socklen_t *addrlen)
{
    return len > room ? shs_n___recvfrom_chk(fd, buf, len, room, flags, addr, addrlen) : recv_flat(fd, buf, len, flags, addr, addrlen);
}

ssize_t shs_i_recvmsg(int fd, struct msghdr *msg, int flags)
{
    return recv_msg(fd, msg, flags);
}

/* An error that was waiting for its time: told before anything else. */
static int pending_error(int fd)
{
    int error = 0;
    socklen_t len = sizeof error;
    return shs_sys_getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 ? -error : 0;
}

/* recvmmsg(2) on a stream, as the kernel does it: an error behind the first message is kept for the next call, the end of the stream fills
 * what is left, and the time-out is looked at between messages. */
static int recv_many(int fd, struct shs_endpoint *ep, struct mmsghdr *vec, unsigned vlen, int flags, struct timespec *timeout)
{
    if (timeout && !shs_writable(timeout, sizeof *timeout))
        return -EFAULT;
    if (timeout && (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec > 999999999))
        return -EINVAL;
    uint64_t end = timeout ? shs_now() + (uint64_t)timeout->tv_sec * 1000000000ull + (uint64_t)timeout->tv_nsec : 0;
    unsigned n = 0;
    long r = flags & MSG_ERRQUEUE ? 0 : pending_error(fd);
    for (bool over = r < 0; n < vlen && !over;) {
        int more = n && (flags & MSG_WAITFORONE) ? MSG_DONTWAIT : 0;
        r = shs_readable(&vec[n], sizeof vec[n]) ? recv_msg(fd, &vec[n].msg_hdr, (flags & ~MSG_WAITFORONE) | more) : -EFAULT;
        if (r >= 0 && !shs_writable(&vec[n].msg_len, sizeof vec[n].msg_len))
            r = -EFAULT;
        if (r < 0)
            break;
        vec[n++].msg_len = (unsigned)r;
        over = timeout && shs_now() >= end;
    }
    if (n && timeout)
        shs_time_left(end, timeout);
    if (n && r < 0 && r != -EAGAIN)
        __atomic_store_n(&ep->error, (uint32_t)-r, __ATOMIC_SEQ_CST);
    return n ? (int)n : (int)r;
}

int shs_i_recvmmsg(int fd, struct mmsghdr *vec, unsigned int vlen, int flags, struct timespec *timeout)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_RECEIVE);
    bool ring = g.ring || g.kept;
    if (g.dgram) {
        shs_gate_leave(&g);
        return shs_dgram_recvmmsg(fd, vec, vlen, flags, timeout);
    }
    if (!ring) {
        int r = shs_n_recvmmsg(fd, vec, vlen, flags, timeout);
        shs_gate_leave(&g);
        return r;
    }
    struct shs_endpoint *ep = g.f->end.ep;
    shs_gate_leave(&g);
    return recv_many(fd, ep, vec, vlen, flags, timeout);
}
