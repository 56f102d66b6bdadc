/*
 * setsockopt, fcntl, ioctl: what changes how a lifted connection behaves. The kernel's socket gets every option as well; options
 * that only the kernel can honour lower the connection for good, and the reason is recorded.
 */
#include "common.h"

#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdarg.h>

#include "endpoint/anchor.h"
#include "endpoint/lift.h"
#include "intercepts.gen.h"
#include "preload/dgram.h"
#include "preload/gate.h"
#include "preload/kept.h"
#include "preload/member.h"
#include "preload/raw.h"
#include "preload/wire.h"
#include "preload/wire_dgram.h"
#include "ring/ring.h"
#include "shm/probe.h"
#include "shm/sys.h"

static bool kernel_only(int level, int name, const void *value, socklen_t len)
{
    static const struct {
        int level, name, when;
    } options[] = {SHS_KERNEL_OPTIONS};
    int v = 0;
    if (value && len >= sizeof v && shs_readable(value, sizeof v))
        memcpy(&v, value, sizeof v);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        if (options[i].level == level && options[i].name == name)
            switch (options[i].when) {
            case SHS_WHEN_NONZERO:
                return v != 0;
            case SHS_WHEN_ABOVE_ONE:
                return v > 1;
            case SHS_WHEN_NOT_NEGATIVE:
                return v >= 0;
            default:
                return true;
            }
    return false;
}

/*
 * Of a datagram socket: what adds control data to what is received, or changes who receives or what is sent, is the kernel's alone. These
 * change neither; whatever is not known here stays with the kernel.
 */
static bool harmless_to_datagrams(int level, int name)
{
    if (level == IPPROTO_IP)
        switch (name) {
        case IP_TOS:
        case IP_TTL:
        case IP_MINTTL:
        case IP_FREEBIND:
        case IP_MTU_DISCOVER:
        case IP_MULTICAST_IF:
        case IP_MULTICAST_TTL:
        case IP_MULTICAST_LOOP:
        case IP_MULTICAST_ALL:
        case IP_ADD_MEMBERSHIP:
        case IP_DROP_MEMBERSHIP:
        case IP_BIND_ADDRESS_NO_PORT:
            return true;
        default:
            return false;
        }
    if (level == IPPROTO_IPV6)
        switch (name) {
        case IPV6_V6ONLY:
        case IPV6_TCLASS:
        case IPV6_UNICAST_HOPS:
        case IPV6_MTU_DISCOVER:
        case IPV6_MULTICAST_IF:
        case IPV6_MULTICAST_HOPS:
        case IPV6_MULTICAST_LOOP:
        case IPV6_JOIN_GROUP:
        case IPV6_LEAVE_GROUP:
            return true;
        default:
            return false;
        }
    if (level != SOL_SOCKET)
        return false;
    switch (name) {
    case SO_REUSEADDR:
    case SO_REUSEPORT:
    case SO_RCVBUF:
    case SO_SNDBUF:
    case SO_RCVBUFFORCE:
    case SO_SNDBUFFORCE:
    case SO_RCVTIMEO_OLD:
    case SO_RCVTIMEO_NEW:
    case SO_SNDTIMEO_OLD:
    case SO_SNDTIMEO_NEW:
    case SO_BROADCAST:
    case SO_DONTROUTE:
    case SO_KEEPALIVE:
    case SO_LINGER:
    case SO_PRIORITY:
    case SO_NO_CHECK:
    case SO_BUSY_POLL:
    case SO_INCOMING_CPU:
    case SO_DEBUG:
        return true;
    default:
        return false;
    }
}

static bool datagrams_by_kernel(int level, int name, const void *value, socklen_t len)
{
    int v = 0;
    if (harmless_to_datagrams(level, name))
        return false;
    if (value && len == sizeof v && shs_readable(value, sizeof v)) /* switched off, or set to what it is without being set */
        memcpy(&v, value, sizeof v);
    return v != 0 || len != sizeof v;
}

static void set_flag(struct shs_fd *f, uint32_t flag, bool on)
{
    struct shs_endpoint *ep = shs_fd_record(f);
    if (on)
        __atomic_fetch_or(&ep->flags, flag, __ATOMIC_SEQ_CST);
    else
        __atomic_fetch_and(&ep->flags, ~flag, __ATOMIC_SEQ_CST);
}

struct nodelay {
    int fd;
    const void *value;
    socklen_t len;
};

static long native_nodelay(void *arg)
{
    struct nodelay *n = arg;
    return shs_sys_setsockopt(n->fd, IPPROTO_TCP, TCP_NODELAY, n->value, n->len);
}

/* Under wlock, where there is one: a send may be switching it on and off in another thread, or process. */
static int set_nodelay(int fd, const void *value, socklen_t len)
{
    struct shs_fd *f;
    struct nodelay n = {fd, value, len};
    long r = shs_gate_paired(fd, &f) ? shs_end_send_native(&shs_proc.env, shs_who(), &f->end, native_nodelay, &n) : SHS_STALE;
    return r == SHS_STALE || r == -EAGAIN ? shs_n_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, value, len) : (int)r;
}

/* A ring holds no more than the program's buffers would. Two threads that set one at once may leave the other's: as in the kernel, one of them is last. */
static void note_buffer(struct shs_fd *f, int fd, int name)
{
    struct shs_endpoint *ep = shs_fd_record(f);
    bool sends = name == SO_SNDBUF || name == SO_SNDBUFFORCE;
    if (!shs_join_try()) /* its process leaves the stack, or comes to it: it is asked for again then */
        return;
    if (f->state >= SHS_FD_REG && f->state <= SHS_FD_PAIRED && shs_proc.attach == SHS_ATTACHED) {
        shs_set32(sends ? &ep->sndbuf : &ep->rcvbuf, shs_anchor_buffer(fd, sends ? SO_SNDBUF : SO_RCVBUF));
        shs_end_bound(&shs_proc.env, ep);
    }
    shs_join_unlock();
}

static bool is_buffer(int level, int name)
{
    return level == SOL_SOCKET && (name == SO_SNDBUF || name == SO_RCVBUF || name == SO_SNDBUFFORCE || name == SO_RCVBUFFORCE);
}

/* Of a connection on the wire path: true if the engine, or nobody, needs to know of it. For anything else it is lowered. */
static bool set_on_wire(struct shs_fd *f, int fd, int level, int name, const void *value, socklen_t len)
{
    struct shs_wire_end end = shs_wire_end(f);
    uint32_t flag = level != IPPROTO_TCP ? 0 : name == TCP_NODELAY ? SHS_TF_NODELAY : name == TCP_CORK ? SHS_TF_CORK : 0;
    int v = 0;
    if (flag && len >= sizeof v && shs_readable(value, sizeof v)) {
        memcpy(&v, value, sizeof v);
        if (shs_wire_option(&end, v ? flag : 0, flag) == 0)
            return true;
    }
    if (level == IPPROTO_TCP && name == TCP_QUICKACK)
        return true;
    if (level == SOL_SOCKET)
        switch (name) {
        case SO_RCVTIMEO_OLD:
        case SO_RCVTIMEO_NEW:
        case SO_SNDTIMEO_OLD:
        case SO_SNDTIMEO_NEW:
        case SO_LINGER:
            return true;
        default:
            break; /* SO_REUSEADDR among them, which repair has put a value of its own in */
        }
    shs_wire_down(f, fd);
    return false;
}

int shs_i_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    struct shs_fd *f = shs_fd_look(fd);
    int error = 0;
    if (SHS_UNLIKELY(f && f->state == SHS_FD_WIRE) && level == SOL_SOCKET) {
        if (name == SO_REUSEADDR)
            shs_wire_down(f, fd);
        else if (name == SO_ERROR)
            error = shs_wire_error(f);
    }
    int r = shs_n_getsockopt(fd, level, name, value, len);
    if (error && r == 0 && *len >= sizeof error)
        memcpy(value, &error, sizeof error);
    return r;
}

int shs_i_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    shs_meet_inherited();
    struct shs_fd *f = shs_fd_look(fd);
    if (SHS_UNLIKELY(f && f->state == SHS_FD_WIRE) && set_on_wire(f, fd, level, name, value, len)) {
        if (level == SOL_SOCKET && (name == SO_RCVTIMEO_OLD || name == SO_RCVTIMEO_NEW))
            set_flag(f, SHS_EPF_RCVTIMEO, true);
        return shs_n_setsockopt(fd, level, name, value, len);
    }
    if (f && f->state >= SHS_FD_NEW && f->state <= SHS_FD_PAIRED) {
        bool registered = f->state >= SHS_FD_REG;
        if (f->udp) {
            if (datagrams_by_kernel(level, name, value, len))
                shs_dgram_lower(f, SHS_REASON_OPTION);
            else if (!is_buffer(level, name))
                shs_dgram_unwire(f); /* it may be about what its packets look like */
        } else if (kernel_only(level, name, value, len)) {
            f->why = SHS_REASON_OPTION;
            if (registered) {
                struct shs_endpoint *ep = shs_fd_record(f);
                shs_lowered_by(ep, (uint32_t)level, (uint32_t)name);
                shs_set32(&ep->why_rx, SHS_REASON_OPTION);
                shs_set32(&ep->why_tx, SHS_REASON_OPTION);
                if (f->state == SHS_FD_PAIRED)
                    shs_ring_close(shs_end_rx(&f->end));
            }
        }
        if (registered && level == SOL_SOCKET && (name == SO_RCVTIMEO_OLD || name == SO_RCVTIMEO_NEW))
            set_flag(f, SHS_EPF_RCVTIMEO, true);
    }
    if (level == IPPROTO_TCP && name == TCP_NODELAY)
        return set_nodelay(fd, value, len);
    int r = shs_n_setsockopt(fd, level, name, value, len);
    if (r == 0 && is_buffer(level, name) && f && f->state >= SHS_FD_REG && f->state <= SHS_FD_PAIRED)
        note_buffer(f, fd, name);
    return r;
}

static int after_fcntl(int fd, int cmd, const void *arg, int r)
{
    if (r >= 0 && (cmd == F_SETFL || cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC))
        shs_meet_inherited();
    struct shs_fd *f = shs_fd_look(fd);
    if (r < 0 || !f)
        return r;
    if (cmd == F_SETFL && shs_fd_registered(f))
        set_flag(f, SHS_EPF_NONBLOCK, (long)arg & O_NONBLOCK);
    if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC)
        return shs_fd_copied(fd, r);
    return r;
}

long shs_raw_fcntl(const struct shs_raw *c)
{
    return after_fcntl((int)c->arg[0], (int)c->arg[1], (const void *)c->arg[2], (int)shs_raw_plain(c));
}

int shs_i_fcntl(int fd, int cmd, void *arg)
{
    return after_fcntl(fd, cmd, arg, shs_n_fcntl(fd, cmd, arg));
}

int shs_i_fcntl64(int fd, int cmd, void *arg)
{
    return after_fcntl(fd, cmd, arg, shs_real.fcntl64 ? shs_n_fcntl64(fd, cmd, arg) : shs_n_fcntl(fd, cmd, arg));
}

int shs_i_ioctl(int fd, unsigned long request, void *arg)
{
    if (request == FIONBIO || request == SIOCINQ)
        shs_meet_inherited();
    int r = shs_n_ioctl(fd, request, arg);
    struct shs_fd *f;
    if (r >= 0 && request == SIOCINQ && (f = shs_fd_look(fd)) && f->kept)
        *(int *)arg += (int)shs_kept_pending(f);
    if (r < 0 || !(f = shs_fd_look(fd)) || !shs_fd_registered(f))
        return r;
    if (SHS_UNLIKELY(f->state == SHS_FD_WIRE) && (request == SIOCINQ || request == SIOCOUTQ)) {
        struct shs_wire_end end = shs_wire_end(f);
        *(int *)arg += (int)(request == SIOCINQ ? shs_wire_unread(&end) : shs_wire_unacked(&end));
    }
    if (request == FIONBIO)
        set_flag(f, SHS_EPF_NONBLOCK, *(int *)arg != 0);
    if (request == SIOCINQ && f->udp) {
        int next = shs_dgram_next_size(f);
        if (next >= 0)
            *(int *)arg = next;
        return r;
    }
    if (request == SIOCATMARK && f->state == SHS_FD_PAIRED && shs_end_waiting(&f->end))
        *(int *)arg = 0; /* what is in the ring was sent before the urgent data, which went by the kernel */
    if (request == SIOCINQ && f->state == SHS_FD_PAIRED && shs_who()) /* FIONREAD */
        *(int *)arg += (int)shs_end_pending(&shs_proc.env, shs_who(), &f->end);
    return r;
}

int shs_i_sockatmark(int fd)
{
    int at = 0, r = shs_i_ioctl(fd, SIOCATMARK, &at);
    return r < 0 ? r : at;
}
