/*
 * Receiving a datagram: nobody may push to us: libc's own call, of which we only learn who sent. Else as a stream's receive: try; nothing
 * there and blocking: spin, doze behind a bell, or sleep in the kernel as a counted taker; try again.
 */
#include "common.h"

#include "endpoint/anchor.h"
#include "intercepts.gen.h"
#include "preload/attach.h"
#include "preload/dgram.h"
#include "preload/restart.h"
#include "preload/signals.h"
#include "preload/wire_dgram.h"
#include "shm/sys.h"

#define STREAM_AFTER 8     /* receives without a send between them */
#define GATHER_PAUSES 128  /* about 1.4 µs */
#define LOOKS_OF_A_PAUSE 4
#define STREAK_SLEEP 8     /* dozes in a row that each found more than one datagram, on one CPU */

/* A sender waits for us to confirm it, and we are bound to all addresses: have the kernel say where each datagram was sent to. */
static void ask_destination(struct shs_fd *f, int fd)
{
    struct shs_dgram *d = f->dgram;
    bool want = d->any_address && shs_links_any(shs_proc.env.stack, f->end.ep->lport, SHS_LINK_WANTED, 0);
    if (SHS_LIKELY(want == d->orig_dst))
        return;
    shs_ask_destinations(fd, d->domain, want);
    d->orig_dst = want;
}

/* recvmsg(2) by libc, blocking or not: 0 or -errno. Links that wait for this datagram are allowed. */
static long take_native(struct shs_fd *f, const struct shs_who *who, int fd, struct shs_dgram_io *io, int flags)
{
    _Alignas(struct cmsghdr) char control[128];
    struct shs_where from, to;
    ask_destination(f, fd);
    /* before the call: another thread's look that ends while we are on the way back says nothing of what we bring */
    uint64_t fresh_ns = shs_load64(&shs_inbox_of(shs_end_rx(&f->end))->empty_ns);
    struct msghdr msg = {.msg_name = &io->name,
                         .msg_namelen = sizeof io->name,
                         .msg_iov = (struct iovec *)(uintptr_t)io->iov,
                         .msg_iovlen = io->count,
                         .msg_control = f->dgram->orig_dst ? control : NULL,
                         .msg_controllen = f->dgram->orig_dst ? sizeof control : 0};
    uint64_t taken = shs_load64(&f->dgram->shown.taken);
    long r = shs_n_recvmsg(fd, &msg, flags | MSG_TRUNC);
    shs_shown_note(&f->dgram->shown, taken, flags, r);
    if (r < 0)
        return r;
    io->full = r;
    io->name_len = msg.msg_namelen;
    io->by_kernel = true;
    if (!(flags & MSG_PEEK)) {
        shs_set64(&f->end.ep->rx_kernel, shs_peek64(&f->end.ep->rx_kernel) + (uint64_t)r);
        shs_count(&shs_proc.env, SHS_CTR_RX_KERNEL_BYTES, (uint64_t)r);
        shs_count(&shs_proc.env, SHS_CTR_RX_KERNEL_DATAGRAMS, 1);
    }
    if (SHS_UNLIKELY(shs_links_any(shs_proc.env.stack, f->end.ep->lport, SHS_LINK_WANTED, 0)) &&
        shs_take_address(&io->name.any, from.addr, &from.port))
        shs_link_meet(&shs_proc.env, who, &f->end, f->ep1, fresh_ns, &from, shs_original_destination(&msg, &to) ? &to : NULL);
    return 0;
}

static long try_recv(struct shs_fd *f, const struct shs_who *who, struct shs_dgram_io *io, bool must_look, bool patient)
{
    const struct shs_options *opt = &shs_proc.env.opt;
    uint64_t looked = f->looked_ns, reported = __atomic_load_n(&shs_proc.reported, __ATOMIC_RELAXED);
    bool in_set = f->set || f->copied;
    uint64_t gap = (f->end.ep->rx_calls != f->looked_call ? opt->look_busy_us : opt->look_us) * 1000;
    struct shs_rx how = {
        .looked_ns = &f->looked_ns,
        .must_look = must_look || reported != f->looked_report,
        .begin = in_set ? shs_set_begin : NULL,
        .done = in_set ? shs_set_done : NULL,
        .set = f,
        .look_gap_ns = patient ? ~0ull : gap,
    };
    io->shown = &f->dgram->shown;
    io->orig_dst = f->dgram->orig_dst;
    long r = shs_dgram_recv(&shs_proc.env, who, &f->end, f->ep1, io, &how);
    if (f->looked_ns != looked)
        f->looked_call = f->end.ep->rx_calls;
    if (r != 0)
        f->looked_report = reported;
    if (SHS_UNLIKELY(shs_proc.env.nudge & SHS_NUDGE_COOL)) {
        shs_proc.env.nudge &= ~(uint32_t)SHS_NUDGE_COOL;
        shs_nudge(shs_proc.stack_name, shs_proc.env.slot1 - 1);
    }
    return r;
}

/* Nothing is there: wait. -EINPROGRESS: try again; 0: a datagram came; or -errno. No naps: a datagram that comes by the kernel rings nobody. */
static long wait_datagram(struct shs_fd *f, const struct shs_who *who, struct shs_dgram_io *io, int flags, uint64_t deadline,
                          struct shs_signal_mark mark)
{
    struct shs_direction *dir = shs_end_rx(&f->end);
    uint64_t start = shs_now(), now = start;
    struct shs_spin spin;
    bool open = shs_load64(&dir->word) & SHS_WORD_OPEN, wired = shs_fd_wired(f);
    if (open || wired) {
        shs_spin_begin(&spin, &shs_proc.env, &f->gap, now, shs_peek32(&dir->wcpu));
        while (shs_spin_step(&spin, &now) == SHS_SPIN_ON) {
            if (SHS_UNLIKELY(wired))
                shs_wire_look_all();
            bool hit = shs_end_waiting(&f->end);
            long r = -EINPROGRESS;
            if (!hit && now - f->looked_ns >= shs_proc.env.opt.look_us * 1000) {
                r = try_recv(f, who, io, true, false);
                hit = r != -EAGAIN;
            }
            if (hit) {
                shs_spin_end(&spin, true);
                shs_gap_note(&shs_proc.env, &f->gap, start, 0);
                if (spin.looks > LOOKS_OF_A_PAUSE)
                    shs_set32(&f->takes, 0); /* slow: nothing to gather */
                return r;
            }
            if ((deadline && now >= deadline) || shs_interrupted(mark, !deadline))
                break;
        }
        shs_spin_end(&spin, false);
    }
    if (deadline && shs_now() >= deadline)
        return -EAGAIN;
    if (shs_interrupted(mark, !deadline)) /* with SO_RCVTIMEO the kernel never restarts, signal(7) */
        return -EINTR;
    struct shs_take take;
    bool same_cpu = shs_peek32(&dir->wcpu) == shs_peek32(&dir->rcpu);
    struct shs_bell_own *bell = NULL;
    wired = shs_fd_wired(f);
    if (open && !wired && shs_gap_doze(&shs_proc.env, &f->gap) && (shs_proc.env.opt.eager || !same_cpu || f->streak < STREAK_SLEEP))
        bell = shs_bell();
    long r = wired ? shs_dgram_doze_wired(f, who, deadline) : bell ? shs_recv_doze(f, who, bell, deadline) : -EBUSY;
    if (r != -EBUSY) {
        if (r == 0 || (r == -EINTR && !deadline && shs_restarts(mark)))
            r = -EINPROGRESS;
        int64_t more = shs_index_diff(shs_word_index(shs_load64(&dir->word)), shs_rd_index(shs_load64(&dir->rd)));
        f->streak = more > 1024 ? f->streak + 1 : 0;
    } else if (shs_taker_enter(&shs_proc.env, who, &f->end, &take) != 1) {
        r = -EINPROGRESS;
    } else if (SHS_UNLIKELY(shs_fd_wired(f))) { /* just now: what comes does not come to a sleeper */
        shs_taker_leave(&shs_proc.env, who, &take, 0);
        r = -EINPROGRESS;
    } else {
        shs_count(&shs_proc.env, SHS_CTR_SLEEPS, 1);
        shs_set32(&f->end.ep->why_rx, SHS_REASON_READER_ASLEEP);
        r = take_native(f, who, f->end.fd, io, flags);
        shs_taker_leave(&shs_proc.env, who, &take, 0);
        f->streak = f->streak && f->streak < 64 ? f->streak + 1 : 0;
    }
    uint64_t came = shs_load64(&dir->pub_ns);
    shs_gap_note(&shs_proc.env, &f->gap, start, came > start ? came : 0);
    return r;
}

static void let_it_gather(void)
{
    for (int i = 0; i < GATHER_PAUSES; i++)
        shs_pause();
}

/* By the ring or the kernel: 0, SHS_STALE (not ours any more) or -errno. */
static long receive_any(struct shs_gate *g, int fd, struct shs_dgram_io *io, int flags)
{
    struct shs_fd *f = g->f;
    bool nonblock = (flags & MSG_DONTWAIT) || (shs_peek32(&f->end.ep->flags) & SHS_EPF_NONBLOCK);
    uint64_t deadline = 0, timeout;
    struct shs_signal_mark mark = shs_signal_mark();
    if (f->dgram->leaving && shs_dgram_leave(f, fd))
        return SHS_STALE;
    if (shs_load32(&f->end.rx->rx_on) == SHS_OFF) {
        /* somebody asks to push: to be allowed it has to send after our queue was seen empty */
        if (!(shs_fd_wired(f) || shs_links_any(shs_proc.env.stack, f->end.ep->lport, SHS_LINK_WANTED, 0)) ||
            shs_dgram_activate(&shs_proc.env, g->who, &f->end, shs_in_flight) != 0) {
            shs_dgram_unwire(f);
            return take_native(f, g->who, fd, io, flags);
        }
    }
    ask_destination(f, fd);
    io->domain = f->dgram->domain;
    io->flags = flags & MSG_PEEK;
    if (shs_step32(&f->takes) > STREAM_AFTER && shs_peek64(&f->end.rx->wr_seen) == shs_rd_index(shs_peek64(&f->end.rx->rd)))
        let_it_gather(); /* one look at a ring that is being written costs its writer a cache line */
    if (SHS_UNLIKELY(shs_fd_wired(f)))
        shs_wire_look_all();
    for (;;) {
        long r = try_recv(f, g->who, io, false, !nonblock);
        if (r == -EAGAIN && !nonblock) {
            if (!deadline && (shs_load32(&f->end.ep->flags) & SHS_EPF_RCVTIMEO) && (timeout = shs_socket_timeout(fd, SO_RCVTIMEO)))
                deadline = shs_now() + timeout;
            r = wait_datagram(f, g->who, io, flags, deadline, mark);
            if (r == -EINPROGRESS)
                continue;
        }
        return r;
    }
}

static long receive(struct shs_gate *g, int fd, struct shs_dgram_io *io, int flags)
{
    struct shs_where from;
    io->by_kernel = false;
    long r = receive_any(g, fd, io, flags);
    if (r == 0 && io->by_kernel && !(flags & MSG_PEEK) && SHS_UNLIKELY(shs_load32(&shs_proc.env.stack->n_nics)) &&
        shs_take_address(&io->name.any, from.addr, &from.port))
        shs_dgram_talked(g->f, fd, &from);
    return r;
}

/* Does the kernel alone know the answer? */
static bool kernel_alone(struct shs_gate *g, int flags)
{
    uint32_t ep_flags = shs_load32(&g->f->end.ep->flags); /* before the ring is looked at */
    return (flags & MSG_ERRQUEUE) || ((ep_flags & (SHS_EPF_KERNEL_ONLY | SHS_EPF_RDSHUT)) && !shs_end_waiting(&g->f->end));
}

size_t shs_dgram_room(const struct iovec *iov, int count)
{
    size_t room = 0;
    for (int i = 0; i < count && count <= 1024; i++)
        room += iov[i].iov_len;
    return room;
}

/* 0 or -errno, as the kernel answers after it has taken the datagram. */
static long give_name(const struct shs_dgram_io *io, void *addr, socklen_t *len)
{
    if (!shs_writable(len, sizeof *len))
        return -EFAULT;
    if (*len > INT32_MAX)
        return -EINVAL;
    socklen_t n = io->name_len < *len ? io->name_len : *len;
    if (!shs_writable(addr, n))
        return -EFAULT;
    memcpy(addr, &io->name, n);
    *len = io->name_len;
    return 0;
}

long shs_dgram_recvmsg(struct shs_gate *g, int fd, struct msghdr *msg, int flags)
{
    struct shs_dgram_io io;
    /* a message that cannot be read is for the kernel to refuse; it takes nothing then */
    if (!shs_message_readable(msg) || (msg->msg_name && msg->msg_namelen > INT32_MAX) || kernel_alone(g, flags))
        return shs_n_recvmsg(fd, msg, flags);
    io.iov = msg->msg_iov;
    io.count = msg->msg_iovlen;
    long r = receive(g, fd, &io, flags & ~MSG_WAITALL);
    if (r == SHS_STALE)
        return shs_n_recvmsg(fd, msg, flags);
    if (r < 0)
        return r;
    if (!shs_writable(msg, sizeof *msg))
        return -EFAULT;
    size_t room = shs_dgram_room(io.iov, (int)io.count), full = (size_t)io.full;
    if (msg->msg_name && (r = give_name(&io, msg->msg_name, &msg->msg_namelen)) < 0)
        return r;
    msg->msg_controllen = 0;
    msg->msg_flags = (flags & MSG_CMSG_CLOEXEC) | (full > room ? MSG_TRUNC : 0);
    return (long)(full > room && !(flags & MSG_TRUNC) ? room : full);
}

long shs_dgram_recvfrom(struct shs_gate *g, int fd, void *buf, size_t len, int flags, struct sockaddr *addr, socklen_t *addrlen)
{
    struct iovec iov = {buf, len};
    struct shs_dgram_io io;
    if (kernel_alone(g, flags))
        return shs_n_recvfrom(fd, buf, len, flags, addr, addrlen);
    io.iov = &iov;
    io.count = 1;
    long r = receive(g, fd, &io, flags & ~MSG_WAITALL);
    if (r == SHS_STALE)
        return shs_n_recvfrom(fd, buf, len, flags, addr, addrlen);
    if (r < 0 || (addr && (r = give_name(&io, addr, addrlen)) < 0))
        return r;
    return (size_t)io.full > len && !(flags & MSG_TRUNC) ? (long)len : io.full;
}

long shs_dgram_readv(struct shs_gate *g, int fd, const struct iovec *iov, int count)
{
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)count};
    return shs_dgram_room(iov, count) ? shs_dgram_recvmsg(g, fd, &msg, 0) : shs_n_readv(fd, iov, count);
}

int shs_dgram_recvmmsg(int fd, struct mmsghdr *vec, unsigned vlen, int flags, struct timespec *timeout)
{
    if (timeout && !shs_readable(timeout, sizeof *timeout))
        return -EFAULT;
    uint64_t end = timeout ? shs_now() + (uint64_t)timeout->tv_sec * 1000000000ull + (uint64_t)timeout->tv_nsec : 0;
    unsigned n = 0;
    while (n < vlen) {
        int more = n && (flags & MSG_WAITFORONE) ? MSG_DONTWAIT : 0;
        long r = shs_i_recvmsg(fd, &vec[n].msg_hdr, (flags & ~MSG_WAITFORONE) | more);
        if (r >= 0 && !shs_writable(&vec[n].msg_len, sizeof vec[n].msg_len))
            r = -EFAULT;
        if (r < 0)
            return n ? (int)n : (int)r;
        vec[n++].msg_len = (unsigned)r;
        if (timeout && shs_now() >= end) /* recvmmsg(2): the time-out is looked at after each datagram */
            break;
    }
    return (int)n;
}
