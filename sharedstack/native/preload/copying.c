/*
 * sendfile and splice on lifted connections: the bytes go through a buffer, since the kernel cannot move them to or from a ring. What a call
 * could not pass on stays where it was: in the file, the pipe or the socket. Errors that do not depend on a ring are left to the kernel.
 */
#include "common.h"

#include <signal.h>
#include <sys/stat.h>

#include "endpoint/fds.h"
#include "intercepts.gen.h"
#include "preload/dgram.h"
#include "preload/gate.h"
#include "preload/send.h"
#include "shm/probe.h"
#include "shm/sys.h"

#define PIECE 16384
#define PIPE_PIECE 4096 /* PIPE_BUF: a pipe that polls writable takes so much at once */

/* *off is the file position to read at, and moves as far as was sent. */
static ssize_t send_file(struct shs_gate *g, int in, off64_t *off, size_t count)
{
    char buffer[PIECE];
    ssize_t sent = 0;
    while ((size_t)sent < count) {
        size_t want = count - (size_t)sent < sizeof buffer ? count - (size_t)sent : sizeof buffer;
        ssize_t got = pread64(in, buffer, want, *off);
        if (got <= 0)
            return sent ? sent : got < 0 ? -errno : 0;
        struct iovec iov = {buffer, (size_t)got};
        long r = shs_ring_send(g, &iov, 1, MSG_NOSIGNAL);
        if (r == -EPIPE && !sent)
            raise(SIGPIPE);
        if (r < 0)
            return sent ? sent : r;
        *off += r;
        sent += r;
        if (r < got)
            break;
    }
    return sent;
}

/* sendfile(2): the file must be one that can be read at any place; without an offset its own position is used, and moved. */
static ssize_t copy_file(struct shs_gate *g, int out, int in, off64_t *offset, size_t count)
{
    off64_t at = lseek64(in, 0, SEEK_CUR);
    if (at < 0) /* a pipe, a socket, nothing at all: the kernel says what it is */
        return shs_n_sendfile64(out, in, offset, count);
    if (shs_sys_fcntl(out, F_GETFL, 0) & O_APPEND)
        return -EINVAL;
    if (offset)
        return send_file(g, in, offset, count);
    off64_t start = at;
    ssize_t r = send_file(g, in, &at, count);
    if (at != start)
        lseek64(in, at, SEEK_SET);
    return r;
}

ssize_t shs_i_sendfile64(int out, int in, off64_t *offset, size_t count)
{
    struct shs_gate g = shs_gate_enter(out, SHS_SEND);
    if (g.dgram)
        shs_dgram_lower(g.f, SHS_REASON_CONTROL_DATA);
    bool nowhere = g.ring && offset && !shs_writable(offset, sizeof *offset);
    long r = nowhere ? -EFAULT : g.ring ? copy_file(&g, out, in, offset, count) : shs_n_sendfile64(out, in, offset, count);
    shs_gate_leave(&g);
    return r;
}

ssize_t shs_i_sendfile(int out, int in, off_t *offset, size_t count)
{
    struct shs_gate g = shs_gate_enter(out, SHS_SEND);
    bool nowhere = g.ring && offset && !shs_writable(offset, sizeof *offset);
    off64_t wide = g.ring && offset && !nowhere ? *offset : 0;
    if (g.dgram)
        shs_dgram_lower(g.f, SHS_REASON_CONTROL_DATA);
    long r = nowhere ? -EFAULT : g.ring ? copy_file(&g, out, in, offset ? &wide : NULL, count) : shs_n_sendfile(out, in, offset, count);
    if (g.ring && offset && !nowhere)
        *offset = (off_t)wide;
    shs_gate_leave(&g);
    return r;
}

static bool is_pipe(int fd)
{
    struct shs_stat st;
    return shs_sys_stat(fd, "", &st) == 0 && S_ISFIFO(st.mode);
}

/* Room in the pipe: 1, -EAGAIN, or -errno of the wait. */
static int pipe_room(int out, bool wait)
{
    struct pollfd p = {.fd = out, .events = POLLOUT};
    int r = shs_n_poll(&p, 1, wait ? -1 : 0);
    return r == 0 ? -EAGAIN : r;
}

/* Out of a lifted socket: what is there is shown to the pipe first, and received for good as far as the pipe took it. */
static ssize_t splice_out(int in, int out, size_t len, unsigned flags)
{
    char buffer[PIPE_PIECE];
    ssize_t done = 0, r = 0;
    bool wait = !(flags & SPLICE_F_NONBLOCK) && !(shs_sys_fcntl(out, F_GETFL, 0) & O_NONBLOCK);
    while ((size_t)done < len) {
        size_t want = len - (size_t)done < sizeof buffer ? len - (size_t)done : sizeof buffer;
        if ((r = pipe_room(out, wait && !done)) < 0)
            break;
        /* SPLICE_F_NONBLOCK is about the pipe: the socket's own O_NONBLOCK says whether to wait for bytes */
        if ((r = shs_i_recv(in, buffer, want, MSG_PEEK | (done ? MSG_DONTWAIT : 0))) <= 0)
            break;
        if ((r = shs_n_write(out, buffer, (size_t)r)) <= 0)
            break;
        if ((r = shs_i_recv(in, buffer, (size_t)r, MSG_DONTWAIT | MSG_WAITALL)) <= 0)
            break;
        done += r;
    }
    return done ? done : r;
}

/* Into one: what the pipe holds is copied to a pipe of ours, and taken out of the program's as far as it was sent. */
static ssize_t splice_pieces(struct shs_gate *g, int in, const int own[2], size_t len, unsigned flags)
{
    char buffer[PIECE];
    ssize_t done = 0, r = 0;
    unsigned nonblock = flags & SPLICE_F_NONBLOCK || shs_sys_fcntl(in, F_GETFL, 0) & O_NONBLOCK ? SPLICE_F_NONBLOCK : 0;
    while ((size_t)done < len) {
        size_t want = len - (size_t)done < sizeof buffer ? len - (size_t)done : sizeof buffer;
        if ((r = SHS_SYS(tee(in, own[1], want, done ? SPLICE_F_NONBLOCK : nonblock))) <= 0)
            break;
        ssize_t got = shs_n_read(own[0], buffer, (size_t)r);
        struct iovec iov = {buffer, (size_t)got};
        if ((r = shs_ring_send(g, &iov, 1, flags & SPLICE_F_MORE ? MSG_MORE : 0)) <= 0)
            break;
        (void)shs_n_read(in, buffer, (size_t)r);
        done += r;
        if (r < got)
            break;
    }
    return done ? done : r;
}

static ssize_t splice_in(struct shs_gate *g, int in, size_t len, unsigned flags)
{
    int own[2];
    long r = SHS_SYS(syscall(SYS_pipe2, own, O_CLOEXEC | O_NONBLOCK));
    if (r < 0)
        return r;
    for (int i = 0; i < 2; i++)
        own[i] = shs_fd_high(own[i]);
    r = splice_pieces(g, in, own, len, flags);
    shs_fd_drop(own[0]);
    shs_fd_drop(own[1]);
    return r;
}

ssize_t shs_i_splice(int in, off64_t *offin, int out, off64_t *offout, size_t len, unsigned int flags)
{
    if (offin || offout) /* neither a pipe nor a socket has one */
        return shs_n_splice(in, offin, out, offout, len, flags);
    struct shs_gate g = shs_gate_enter(in, SHS_RECEIVE);
    bool from = g.ring || g.kept;
    if (g.dgram)
        shs_dgram_lower(g.f, SHS_REASON_CONTROL_DATA);
    shs_gate_leave(&g);
    if (from)
        return is_pipe(out) ? splice_out(in, out, len, flags) : shs_n_splice(in, NULL, out, NULL, len, flags);
    g = shs_gate_enter(out, SHS_SEND);
    if (g.dgram)
        shs_dgram_lower(g.f, SHS_REASON_CONTROL_DATA);
    long r = g.ring && is_pipe(in) ? splice_in(&g, in, len, flags) : shs_n_splice(in, NULL, out, NULL, len, flags);
    shs_gate_leave(&g);
    return r;
}
