/*
 * Sending calls: write, writev, send, sendto, sendmsg, sendmmsg, sendfile, splice. What cannot go by the ring (control data, urgent
 * data, file contents spliced by the kernel) goes by the kernel, under count.
 */
#include "common.h"

#include <signal.h>

#include "intercepts.gen.h"
#include "preload/gate.h"
#include "preload/restart.h"
#include "shm/sys.h"

static long ring_send(struct shs_gate *g, const struct iovec *iov, int count, int flags)
{
    struct shs_fd *f = g->f;
    struct shs_cursor cur;
    shs_cursor_init(&cur, iov, count);
    f->takes = 0;
    if (shs_peek32(&f->end.ep->flags) & SHS_EPF_NONBLOCK)
        flags |= MSG_DONTWAIT;
    long r = shs_end_send(&shs_proc.env, g->who, &f->end, &cur, flags);
    if (SHS_UNLIKELY(r == -EPIPE) && !(flags & MSG_NOSIGNAL))
        raise(SIGPIPE);
    return r;
}

struct native_send {
    int fd, in, flags;
    const struct msghdr *msg;
    off_t *off;
    off64_t *off64;
    size_t len;
    bool to_socket64;
};

static long native_sendmsg(void *arg)
{
    struct native_send *n = arg;
    return shs_sys_sendmsg(n->fd, n->msg, n->flags | MSG_NOSIGNAL);
}

static long native_sendfile(void *arg)
{
    struct native_send *n = arg;
    return n->to_socket64 ? shs_n_sendfile64(n->fd, n->in, n->off64, n->len) : shs_n_sendfile(n->fd, n->in, n->off, n->len);
}

static long native_splice(void *arg)
{
    struct native_send *n = arg;
    return shs_n_splice(n->in, NULL, n->fd, NULL, n->len, (unsigned)n->flags);
}

static long send_msg(int fd, const struct msghdr *msg, int flags)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_SEND);
    long r;
    if (!g.ring) {
        r = shs_n_sendmsg(fd, msg, flags);
    } else if (msg->msg_controllen || (flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE))) {
        /* urgent data moves the reader's mark in the kernel's stream: no ring any more */
        if (flags & MSG_OOB) {
            __atomic_fetch_or(&g.f->end.ep->flags, SHS_EPF_KERNEL_ONLY, __ATOMIC_SEQ_CST);
            shs_set32(&g.f->end.ep->why_tx, SHS_REASON_URGENT);
        }
        struct native_send n = {.fd = fd, .msg = msg, .flags = flags};
        r = shs_end_send_native(&shs_proc.env, g.who, &g.f->end, native_sendmsg, &n);
        if (r == -EPIPE && !(flags & MSG_NOSIGNAL))
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
    long r = SHS_UNLIKELY(g.ring) ? ring_send(&g, &iov, 1, 0) : shs_n_write(fd, buf, len);
    shs_gate_leave(&g);
    return r;
}

ssize_t shs_i_writev(int fd, const struct iovec *iov, int iovcnt)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_SEND);
    long r = SHS_UNLIKELY(g.ring) ? iovcnt < 0 || iovcnt > 1024 ? -EINVAL : ring_send(&g, iov, iovcnt, 0) : shs_n_writev(fd, iov, iovcnt);
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
    } else {
        r = shs_n_sendto(fd, buf, len, flags, addr, addrlen);
    }
    shs_gate_leave(&g);
    return r;
}

ssize_t shs_i_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    if (SHS_UNLIKELY(msg && msg->msg_controllen))
        shs_sending_rights(msg);
    return send_msg(fd, msg, flags);
}

int shs_i_sendmmsg(int fd, struct mmsghdr *vec, unsigned int vlen, int flags)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_SEND);
    bool ring = g.ring;
    for (unsigned i = 0; !ring && i < vlen; i++)
        if (vec[i].msg_hdr.msg_controllen)
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
        if (r < 0)
            return n ? (int)n : (int)r;
        vec[n].msg_len = (unsigned)r;
    }
    return (int)n;
}

static ssize_t send_file(struct native_send *n)
{
    struct shs_gate g = shs_gate_enter(n->fd, SHS_SEND);
    long r = g.ring ? shs_end_send_native(&shs_proc.env, g.who, &g.f->end, native_sendfile, n) : native_sendfile(n);
    shs_gate_leave(&g);
    return r;
}

ssize_t shs_i_sendfile(int out, int in, off_t *offset, size_t count)
{
    struct native_send n = {.fd = out, .in = in, .off = offset, .len = count};
    return send_file(&n);
}

ssize_t shs_i_sendfile64(int out, int in, off64_t *offset, size_t count)
{
    struct native_send n = {.fd = out, .in = in, .off64 = offset, .len = count, .to_socket64 = true};
    return send_file(&n);
}

/* Into a socket: under count. Out of one: through a buffer of ours while its ring is in use, else natively, as a taker. */
ssize_t shs_i_splice(int in, off64_t *offin, int out, off64_t *offout, size_t len, unsigned int flags)
{
    struct shs_gate g = shs_gate_enter(in, SHS_RECEIVE);
    if (g.ring) {
        char buffer[16384];
        struct iovec iov = {buffer, len < sizeof buffer ? len : sizeof buffer};
        shs_gate_leave(&g);
        long r = shs_i_recv(in, iov.iov_base, iov.iov_len, flags & SPLICE_F_NONBLOCK ? MSG_DONTWAIT : 0);
        for (long done = 0; done < r;) {
            long w = shs_n_write(out, buffer + done, (size_t)(r - done));
            if (w < 0 && w != -EINTR && w != -EAGAIN)
                return done ? done : w;
            done += w > 0 ? w : 0;
        }
        return r;
    }
    shs_gate_leave(&g);
    g = shs_gate_enter(out, SHS_SEND);
    struct native_send n = {.fd = out, .in = in, .len = len, .flags = (int)flags};
    long r = g.ring && !offin && !offout ? shs_end_send_native(&shs_proc.env, g.who, &g.f->end, native_splice, &n)
                                         : shs_n_splice(in, offin, out, offout, len, flags);
    shs_gate_leave(&g);
    return r;
}
