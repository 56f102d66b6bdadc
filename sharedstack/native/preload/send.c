/*
 * Sending calls: write, writev, send, sendto, sendmsg, sendmmsg. What cannot go by the ring (control data, urgent data) goes by the
 * kernel, under count.
 */
#include "preload/send.h"

#include <signal.h>

#include "endpoint/residue.h"
#include "intercepts.gen.h"
#include "preload/dgram.h"
#include "preload/eager.h"
#include "preload/outside.h"
#include "preload/restart.h"
#include "preload/signals.h"
#include "preload/wire.h"
#include "shm/sys.h"

/*
 * A blocking send that found no room, in no lock: 0 when there may be some, -EAGAIN after SO_SNDTIMEO, or -errno. What waits must look at *f again:
 * the descriptor may have been closed meanwhile. `mark` is of when the call began: a handler that was held back by a lock has run before we wait. A
 * send that has sent something is never restarted, nor is one with a time-out (signal(7)).
 */
static long wait_writable(struct shs_fd **f, struct shs_fd **orphan, uint64_t *deadline, struct shs_signal_mark mark, bool partly)
{
    int fd = (*f)->end.fd;
    if (!*deadline) {
        uint64_t timeout = shs_socket_timeout(fd, SO_SNDTIMEO);
        *deadline = timeout ? shs_now() + timeout : ~0ull;
    }
    bool restarts = !partly && *deadline == ~0ull;
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    for (;;) {
        struct timespec ts;
        if (shs_now() >= *deadline)
            return -EAGAIN;
        if (shs_interrupted(mark, restarts))
            return -EINTR;
        uintptr_t outer = shs_wait_begin(fd);
        int r = shs_n_ppoll(&p, 1, shs_time_left(*deadline == ~0ull ? 0 : *deadline, &ts), NULL);
        struct shs_fd *left = shs_wait_end(outer);
        if (SHS_UNLIKELY(left)) {
            if (*orphan)
                shs_orphan_drop(*orphan);
            *f = *orphan = left;
            p.fd = fd = left->end.fd;
        }
        if (r > 0)
            return 0;
        if (r < 0 && !(r == -EINTR && restarts && shs_restarts(mark)))
            return r;
    }
}

static long send_natively(struct shs_fd *f, struct shs_cursor *cur, int flags)
{
    struct iovec iov[SHS_CURSOR_PIECES];
    size_t n;
    shs_cursor_rest(cur, iov, cur->left, &n);
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
    long r = shs_n_sendmsg(f->end.fd, &msg, flags);
    if (r > 0)
        shs_cursor_advance(cur, (size_t)r);
    return r;
}

/* The pair was given back since the gate was passed: the kernel takes everything, and this thread's hazard is seen. With a deadline part of
 * the socket's time-out has passed already. */
static long send_rest(struct shs_fd *f, struct shs_cursor *cur, int flags, uint64_t deadline, struct shs_fd **orphan,
                      struct shs_signal_mark mark)
{
    long total = 0, r;
    if (!deadline)
        return send_natively(f, cur, flags);
    do {
        r = send_natively(f, cur, flags | MSG_DONTWAIT);
        total += r > 0 ? r : 0;
    } while (cur->left && (r > 0 || r == -EAGAIN) && (r = wait_writable(&f, orphan, &deadline, mark, true)) == 0);
    return total ? total : r;
}

long shs_ring_send_or_lost(struct shs_gate *g, const struct iovec *iov, int count, int flags)
{
    struct shs_fd *f = g->f, *orphan = NULL;
    struct shs_cursor cur;
    if (SHS_UNLIKELY(f->state == SHS_FD_WIRE))
        return shs_wire_transmit(g, iov, count, flags);
    struct shs_signal_mark mark = shs_signal_mark();
    shs_cursor_init(&cur, iov, count);
    if (SHS_UNLIKELY(cur.left == SHS_CURSOR_MOST) && shs_vector_refused(iov, (size_t)count))
        return -EFAULT;
    shs_set32(&f->takes, 0);
    bool block = !(flags & MSG_DONTWAIT) && !(shs_peek32(&f->end.ep->flags) & SHS_EPF_NONBLOCK);
    bool broken = false;
    uint64_t deadline = 0;
    long sent = 0, r;
    for (;;) {
        if (SHS_UNLIKELY(shs_proc.env.opt.eager == 1))
            r = shs_eager_send(g, &f, &orphan, &cur, flags, block, &broken);
        else
            r = shs_end_send(&shs_proc.env, g->who, &f->end, &cur, flags);
        if (r > 0)
            sent += r;
        if (SHS_UNLIKELY(r == SHS_STALE)) {
            r = send_rest(f, &cur, flags | MSG_NOSIGNAL, deadline, &orphan, mark);
            sent += r > 0 ? r : 0;
            break;
        }
        if (SHS_LIKELY(!block || cur.left == 0) || (r < 0 && r != -EAGAIN))
            break;
        if (SHS_UNLIKELY(broken)) {
            r = r < 0 ? -EINTR : r;
            break;
        }
        if (r < 0 && (r = wait_writable(&f, &orphan, &deadline, mark, sent)) < 0)
            break;
    }
    if (SHS_UNLIKELY(orphan))
        shs_orphan_drop(orphan);
    else if (!sent && shs_is_lost(f, r))
        return SHS_LOST;
    if (SHS_UNLIKELY(r == -EPIPE) && !sent && !(flags & MSG_NOSIGNAL))
        raise(SIGPIPE);
    return sent ? sent : r;
}

long shs_ring_send(struct shs_gate *g, const struct iovec *iov, int count, int flags)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
    int fd = g->f->end.fd;
    long r = shs_ring_send_or_lost(g, iov, count, flags);
    return SHS_UNLIKELY(r == SHS_LOST) ? shs_n_sendmsg(fd, &msg, flags) : r;
}

struct native_send {
    int fd, flags;
    const struct msghdr *msg;
};

static long native_sendmsg(void *arg)
{
    struct native_send *n = arg;
    return shs_sys_sendmsg(n->fd, n->msg, n->flags | MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Natively, under count, as much as a blocking send would send: piece by piece, since nothing blocks under a lock. */
static long counted_send(struct shs_gate *g, const struct msghdr *whole, int flags, bool block)
{
    struct msghdr msg = *whole;
    struct native_send n = {.fd = g->f->end.fd, .msg = &msg, .flags = flags};
    struct iovec iov[SHS_CURSOR_PIECES];
    struct shs_cursor cur;
    uint64_t deadline = 0;
    long sent = 0, r;
    struct shs_fd *f = g->f, *orphan = NULL;
    struct shs_signal_mark mark = shs_signal_mark();
    shs_cursor_init(&cur, whole->msg_iov, (int)whole->msg_iovlen);
    for (;;) {
        n.fd = f->end.fd;
        r = shs_end_send_native(&shs_proc.env, g->who, &f->end, native_sendmsg, &n);
        if (r > 0) {
            sent += r;
            shs_cursor_advance(&cur, (size_t)r);
        }
        if (!block || cur.left == 0 || (r < 0 && r != -EAGAIN))
            break;
        if (r < 0 && (r = wait_writable(&f, &orphan, &deadline, mark, sent)) < 0)
            break;
        msg.msg_iov = iov;
        size_t pieces;
        shs_cursor_rest(&cur, iov, cur.left, &pieces);
        msg.msg_iovlen = pieces;
    }
    if (SHS_UNLIKELY(orphan))
        shs_orphan_drop(orphan);
    return sent ? sent : r;
}

/*
 * Urgent data moves the reader's mark in the kernel's stream, and zero copies are told of call by call: one call must stay one. No ring any
 * more: nothing that is sent from now on has to be counted.
 */
static long lowered_send(struct shs_gate *g, const struct msghdr *msg, int flags)
{
    struct shs_endpoint *ep = g->f->end.ep;
    shs_set32(&ep->why_tx, flags & MSG_OOB ? SHS_REASON_URGENT : SHS_REASON_OPTION);
    if (flags & MSG_OOB)
        shs_endpoint_flag(ep, SHS_EPF_KERNEL_ONLY);
    else
        shs_lowered_by(ep, SHS_OPTION_OF_CALL, MSG_ZEROCOPY);
    struct msghdr none = {0};
    struct native_send n = {.fd = g->f->end.fd, .msg = &none, .flags = 0};
    /* by wlock: whoever was about to publish a record has done so, or sees the flag */
    long r = shs_end_send_native(&shs_proc.env, g->who, &g->f->end, native_sendmsg, &n);
    if (r == -EAGAIN) {
        shs_residue_finish(&shs_proc.env, g->who, &g->f->end, SHS_FINISH_MS);
        r = shs_end_send_native(&shs_proc.env, g->who, &g->f->end, native_sendmsg, &n);
    }
    return r < 0 ? r : shs_n_sendmsg(n.fd, msg, flags | MSG_NOSIGNAL);
}

static long send_msg(int fd, const struct msghdr *msg, int flags)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_SEND);
    long r;
    if (!g.ring) {
        r = g.dgram ? shs_dgram_sendmsg(&g, fd, msg, flags) : shs_n_sendmsg(fd, msg, flags);
    } else if (SHS_UNLIKELY((r = shs_message_refused(msg, true)) != 0)) {
        ;
    } else if (SHS_UNLIKELY(g.f->state == SHS_FD_WIRE) && (msg->msg_controllen || (flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE)))) {
        shs_wire_down(g.f, fd);
        r = shs_n_sendmsg(fd, msg, flags);
    } else if (msg->msg_controllen || (flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE))) {
        bool block = !(flags & MSG_DONTWAIT) && !(shs_peek32(&g.f->end.ep->flags) & SHS_EPF_NONBLOCK);
        r = flags & (MSG_OOB | MSG_ZEROCOPY) ? lowered_send(&g, msg, flags) : counted_send(&g, msg, flags, block);
        if (r == SHS_STALE)
            r = shs_n_sendmsg(fd, msg, flags);
        else if (r == -EPIPE && !(flags & MSG_NOSIGNAL))
            raise(SIGPIPE);
    } else {
        r = shs_ring_send_or_lost(&g, msg->msg_iov, (int)msg->msg_iovlen, flags);
        if (SHS_UNLIKELY(r == SHS_LOST))
            r = shs_n_sendmsg(fd, msg, flags);
    }
    shs_gate_leave(&g);
    return r;
}

ssize_t shs_i_write(int fd, const void *buf, size_t len)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_SEND);
    struct iovec iov = {(void *)(uintptr_t)buf, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    long r;
    if (SHS_UNLIKELY(g.ring && (r = shs_ring_send_or_lost(&g, &iov, 1, 0)) != SHS_LOST))
        ;
    else
        r = g.dgram ? shs_dgram_sendmsg(&g, fd, &msg, 0) : shs_n_write(fd, buf, len);
    shs_gate_leave(&g);
    return r;
}

ssize_t shs_i_writev(int fd, const struct iovec *iov, int iovcnt)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_SEND);
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)iovcnt};
    long r;
    bool ours = (g.ring || g.dgram) && shs_vector_good(iov, iovcnt);
    ours = ours && shs_vector_room(iov, (size_t)iovcnt); /* of no bytes it does not come to the socket at all */
    if (SHS_UNLIKELY(ours && g.ring && (r = shs_ring_send_or_lost(&g, iov, iovcnt, 0)) != SHS_LOST))
        ;
    else if (SHS_UNLIKELY(ours && g.dgram))
        r = shs_dgram_sendmsg(&g, fd, &msg, 0);
    else
        r = shs_n_writev(fd, iov, iovcnt);
    shs_gate_leave(&g);
    return r;
}

ssize_t shs_i_send(int fd, const void *buf, size_t len, int flags)
{
    return shs_i_sendto(fd, buf, len, flags, NULL, 0);
}

ssize_t shs_i_sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *addr, socklen_t addrlen)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_SEND);
    struct iovec iov = {(void *)(uintptr_t)buf, len};
    long r;
    if (SHS_LIKELY(g.ring && !(flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE)))) {
        /* a connected stream ignores the address, as the kernel does */
        r = SHS_UNLIKELY(addr) ? shs_address_refused(addr, addrlen) : 0;
        r = r ? r : shs_ring_send_or_lost(&g, &iov, 1, flags);
        if (SHS_UNLIKELY(r == SHS_LOST))
            r = shs_n_sendto(fd, buf, len, flags, addr, addrlen);
    } else if (g.ring) {
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        shs_gate_leave(&g);
        return send_msg(fd, &msg, flags);
    } else if (g.dgram && (!addr || addrlen <= sizeof(struct sockaddr_storage))) { /* a longer name sendmsg(2) would cut */
        struct msghdr msg = {.msg_name = (void *)(uintptr_t)addr, .msg_namelen = addr ? addrlen : 0, .msg_iov = &iov, .msg_iovlen = 1};
        r = shs_dgram_sendmsg(&g, fd, &msg, flags);
    } else {
        r = shs_n_sendto(fd, buf, len, flags, addr, addrlen);
    }
    shs_gate_leave(&g);
    return r;
}

ssize_t shs_i_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    if (SHS_LIKELY(!shs_guarding || !shs_readable(msg, sizeof *msg) || !msg->msg_controllen))
        return send_msg(fd, msg, flags);
    uint32_t begun = 0;
    long r = shs_sending_rights(fd, msg, &begun); /* also before anything was lifted: it will not be then */
    r = r < 0 ? r : send_msg(fd, msg, flags);
    shs_share_end(begun);
    return r;
}

int shs_i_sendmmsg(int fd, struct mmsghdr *vec, unsigned int vlen, int flags)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_SEND);
    bool ring = g.ring || g.dgram;
    long rights = 0;
    unsigned good = 0; /* those that may be sent */
    if (vlen > SHS_IOV_MAX)
        vlen = SHS_IOV_MAX; /* as the kernel cuts it */
    uint32_t begun = 0;
    for (; !ring && good < vlen && rights >= 0; good += rights >= 0)
        if (shs_guarding && shs_readable(&vec[good], sizeof vec[good]) && vec[good].msg_hdr.msg_controllen)
            rights = shs_sending_rights(fd, &vec[good].msg_hdr, &begun);
    if (!ring) {
        int r = rights < 0 && good == 0 ? (int)rights : shs_n_sendmmsg(fd, vec, good, flags);
        shs_share_end(begun);
        shs_gate_leave(&g);
        return r;
    }
    shs_gate_leave(&g);
    unsigned n = 0;
    for (; n < vlen; n++) {
        long r = shs_i_sendmsg(fd, &vec[n].msg_hdr, flags);
        if (r >= 0 && !shs_writable(&vec[n].msg_len, sizeof vec[n].msg_len))
            r = -EFAULT;
        if (r < 0)
            return n ? (int)n : (int)r;
        vec[n].msg_len = (unsigned)r;
    }
    return (int)n;
}
