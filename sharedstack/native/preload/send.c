/*
 * Sending calls: write, writev, send, sendto, sendmsg, sendmmsg, sendfile, splice. What cannot go by the ring (control data, urgent
 * data, file contents spliced by the kernel) goes by the kernel, under count.
 */
#include "common.h"

#include <signal.h>

#include "intercepts.gen.h"
#include "preload/dgram.h"
#include "preload/restart.h"
#include "preload/signals.h"
#include "shm/sys.h"

/* A blocking send that found no room, in no lock: 0 when there may be some, -EAGAIN after SO_SNDTIMEO, or -errno. */
static long wait_writable(int fd, uint64_t *deadline)
{
    struct shs_signal_mark mark = shs_signal_mark();
    if (!*deadline) {
        uint64_t timeout = shs_socket_timeout(fd, SO_SNDTIMEO);
        *deadline = timeout ? shs_now() + timeout : ~0ull;
    }
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    for (;;) {
        struct timespec ts;
        if (shs_now() >= *deadline)
            return -EAGAIN;
        int r = shs_n_ppoll(&p, 1, shs_time_left(*deadline == ~0ull ? 0 : *deadline, &ts), NULL);
        if (r > 0)
            return 0;
        if (r < 0 && !(r == -EINTR && shs_restarts(mark)))
            return r;
    }
}

static long send_natively(struct shs_fd *f, struct shs_cursor *cur, int flags)
{
    struct iovec iov[64];
    size_t n = 0, off = cur->off;
    for (int i = 0; i < cur->count && n < 64; i++, off = 0)
        if (cur->iov[i].iov_len > off)
            iov[n++] = (struct iovec){(uint8_t *)cur->iov[i].iov_base + off, cur->iov[i].iov_len - off};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
    long r = shs_n_sendmsg(f->end.fd, &msg, flags);
    if (r > 0)
        shs_cursor_advance(cur, (size_t)r);
    return r;
}

/* The pair was given back since the gate was passed: the kernel takes everything, and this thread's hazard is seen. With a deadline part of
 * the socket's time-out has passed already. */
static long send_rest(struct shs_fd *f, struct shs_cursor *cur, int flags, uint64_t deadline)
{
    long total = 0, r;
    if (!deadline)
        return send_natively(f, cur, flags);
    do {
        r = send_natively(f, cur, flags | MSG_DONTWAIT);
        total += r > 0 ? r : 0;
    } while (cur->left && (r > 0 || r == -EAGAIN) && (r = wait_writable(f->end.fd, &deadline)) == 0);
    return total ? total : r;
}

static long ring_send(struct shs_gate *g, const struct iovec *iov, int count, int flags)
{
    struct shs_fd *f = g->f;
    struct shs_cursor cur;
    shs_cursor_init(&cur, iov, count);
    f->takes = 0;
    bool block = !(flags & MSG_DONTWAIT) && !(shs_peek32(&f->end.ep->flags) & SHS_EPF_NONBLOCK);
    uint64_t deadline = 0;
    long sent = 0, r;
    for (;;) {
        r = shs_end_send(&shs_proc.env, g->who, &f->end, &cur, flags);
        if (r > 0)
            sent += r;
        if (SHS_UNLIKELY(r == SHS_STALE)) {
            r = send_rest(f, &cur, flags, deadline);
            return r > 0 ? sent + r : sent ? sent : r;
        }
        if (SHS_LIKELY(!block || cur.left == 0) || (r < 0 && r != -EAGAIN))
            break;
        if (r < 0 && (r = wait_writable(f->end.fd, &deadline)) < 0)
            break;
    }
    if (SHS_UNLIKELY(r == -EPIPE) && !sent && !(flags & MSG_NOSIGNAL))
        raise(SIGPIPE);
    return sent ? sent : r;
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

static long send_msg(int fd, const struct msghdr *msg, int flags)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_SEND);
    long r;
    if (!g.ring) {
        r = g.dgram ? shs_dgram_sendmsg(&g, fd, msg, flags) : shs_n_sendmsg(fd, msg, flags);
    } else if (!shs_message_readable(msg)) {
        r = -EFAULT;
    } else if (msg->msg_controllen || (flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE))) {
        /* urgent data moves the reader's mark in the kernel's stream: no ring any more */
        if (flags & MSG_OOB) {
            __atomic_fetch_or(&g.f->end.ep->flags, SHS_EPF_KERNEL_ONLY, __ATOMIC_SEQ_CST);
            shs_set32(&g.f->end.ep->why_tx, SHS_REASON_URGENT);
        }
        struct native_send n = {.fd = fd, .msg = msg, .flags = flags};
        bool block = !(flags & MSG_DONTWAIT) && !(shs_peek32(&g.f->end.ep->flags) & SHS_EPF_NONBLOCK);
        uint64_t deadline = 0;
        do {
            r = shs_end_send_native(&shs_proc.env, g.who, &g.f->end, native_sendmsg, &n);
        } while (r == -EAGAIN && block && (r = wait_writable(fd, &deadline)) == 0);
        if (r == SHS_STALE)
            r = shs_n_sendmsg(fd, msg, flags);
        else if (r == -EPIPE && !(flags & MSG_NOSIGNAL))
            raise(SIGPIPE);
    } else {
        r = ring_send(&g, msg->msg_iov, (int)msg->msg_iovlen, flags);
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
    if (SHS_UNLIKELY(g.ring))
        r = ring_send(&g, &iov, 1, 0);
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
    if (SHS_UNLIKELY(ours && g.ring))
        r = ring_send(&g, iov, iovcnt, 0);
    else if (SHS_UNLIKELY(ours && shs_dgram_room(iov, iovcnt)))
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
        r = ring_send(&g, &iov, 1, flags); /* a connected stream ignores the address, as the kernel does */
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
    if (SHS_UNLIKELY(shs_proc.attach == SHS_ATTACHED && shs_readable(msg, sizeof *msg) && msg->msg_controllen))
        shs_sending_rights(msg);
    return send_msg(fd, msg, flags);
}

int shs_i_sendmmsg(int fd, struct mmsghdr *vec, unsigned int vlen, int flags)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_SEND);
    bool ring = g.ring || g.dgram;
    for (unsigned i = 0; !ring && i < vlen; i++)
        if (shs_readable(&vec[i], sizeof vec[i]) && vec[i].msg_hdr.msg_controllen)
            shs_sending_rights(&vec[i].msg_hdr);
    if (!ring) {
        int r = shs_n_sendmmsg(fd, vec, vlen, flags);
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

/*
 * sendfile(2) into a connection under count: the file's bytes go by the ring, or by the kernel, like any others. *off is the file
 * position to read at, or NULL for the descriptor's own.
 */
static ssize_t send_file(struct shs_gate *g, int in, off64_t *off, size_t count)
{
    char buffer[65536];
    ssize_t sent = 0;
    while ((size_t)sent < count) {
        size_t want = count - (size_t)sent < sizeof buffer ? count - (size_t)sent : sizeof buffer;
        ssize_t got = off ? pread64(in, buffer, want, *off) : shs_real.read(in, buffer, want);
        if (got <= 0)
            return sent ? sent : got < 0 ? -errno : 0;
        struct iovec iov = {buffer, (size_t)got};
        long r = ring_send(g, &iov, 1, MSG_NOSIGNAL);
        long done = r > 0 ? r : 0;
        if (off)
            *off += done;
        else if (done < got)
            lseek64(in, done - got, SEEK_CUR); /* what was read and not sent is read again */
        sent += done;
        if (r < 0) {
            if (r == -EPIPE && !sent)
                raise(SIGPIPE);
            return sent ? sent : r;
        }
        if (done < got)
            break;
    }
    return sent;
}

ssize_t shs_i_sendfile64(int out, int in, off64_t *offset, size_t count)
{
    struct shs_gate g = shs_gate_enter(out, SHS_SEND);
    if (g.dgram)
        shs_dgram_lower(g.f, SHS_REASON_CONTROL_DATA);
    long r = g.ring ? send_file(&g, in, offset, count) : shs_n_sendfile64(out, in, offset, count);
    shs_gate_leave(&g);
    return r;
}

ssize_t shs_i_sendfile(int out, int in, off_t *offset, size_t count)
{
    struct shs_gate g = shs_gate_enter(out, SHS_SEND);
    off64_t wide = offset ? *offset : 0;
    if (g.dgram)
        shs_dgram_lower(g.f, SHS_REASON_CONTROL_DATA);
    long r = g.ring ? send_file(&g, in, offset ? &wide : NULL, count) : shs_n_sendfile(out, in, offset, count);
    if (g.ring && offset)
        *offset = (off_t)wide;
    shs_gate_leave(&g);
    return r;
}

/* Out of a lifted socket: what is there is shown to the pipe first, and received for good as far as the pipe took it. */
static ssize_t splice_out(int in, int out, size_t len, unsigned flags)
{
    char buffer[16384];
    size_t want = len < sizeof buffer ? len : sizeof buffer;
    ssize_t got = shs_i_recv(in, buffer, want, MSG_PEEK | (flags & SPLICE_F_NONBLOCK ? MSG_DONTWAIT : 0));
    if (got <= 0)
        return got;
    ssize_t put = shs_n_write(out, buffer, (size_t)got);
    return put <= 0 ? put : shs_i_recv(in, buffer, (size_t)put, MSG_DONTWAIT | MSG_WAITALL);
}

/* Into one: no more is taken from the pipe than the socket takes at once, but for a rest that is waited with. */
static ssize_t splice_in(struct shs_gate *g, int in, size_t len)
{
    char buffer[16384];
    ssize_t got = shs_real.read(in, buffer, len < sizeof buffer ? len : sizeof buffer);
    if (got <= 0)
        return got < 0 ? -errno : 0;
    uint64_t deadline = ~0ull;
    for (ssize_t done = 0; done < got;) {
        struct iovec iov = {buffer + done, (size_t)(got - done)};
        long r = ring_send(g, &iov, 1, 0);
        if (r == -EAGAIN)
            r = wait_writable(g->f->end.fd, &deadline);
        if (r < 0)
            return done ? done : r;
        done += r;
    }
    return got;
}

ssize_t shs_i_splice(int in, off64_t *offin, int out, off64_t *offout, size_t len, unsigned int flags)
{
    struct shs_gate g = shs_gate_enter(in, SHS_RECEIVE);
    bool from = g.ring;
    if (g.dgram)
        shs_dgram_lower(g.f, SHS_REASON_CONTROL_DATA);
    shs_gate_leave(&g);
    if (from)
        return splice_out(in, out, len, flags);
    g = shs_gate_enter(out, SHS_SEND);
    if (g.dgram)
        shs_dgram_lower(g.f, SHS_REASON_CONTROL_DATA);
    long r = g.ring && !offin && !offout ? splice_in(&g, in, len) : shs_n_splice(in, offin, out, offout, len, flags);
    shs_gate_leave(&g);
    return r;
}
