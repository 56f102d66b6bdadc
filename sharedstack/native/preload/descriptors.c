/*
 * Calls that make, copy, connect and close descriptors. The kernel does the work; here the table learns what a number means now.
 */
#include "common.h"

#include <netinet/in.h>
#include <stdlib.h>

#include "endpoint/fds.h"
#include "endpoint/lift.h"
#include "endpoint/residue.h"
#include "intercepts.gen.h"
#include "preload/dgram.h"
#include "preload/eager.h"
#include "preload/epoll.h"
#include "preload/gate.h"
#include "preload/kept.h"
#include "preload/member.h"
#include "preload/outside.h"
#include "preload/own.h"
#include "preload/restart.h"
#include "preload/signals.h"
#include "preload/standin.h"
#include "preload/tell.h"
#include "preload/wire.h"
#include "shm/sys.h"

static void now_is(int fd, uint32_t state)
{
    struct shs_fd *f = shs_fd_make(fd);
    if (!f)
        return;
    shs_fd_reset(fd);
    if (fd <= 2)
        f->why = SHS_REASON_STANDARD_STREAM;
    __atomic_store_n(&f->state, state, __ATOMIC_RELEASE);
}

/* The entry of a new descriptor is made: whoever forks now meets it, or we see his fork, and a child may have got it unmarked. */
static void forked_meanwhile(int fd, uint32_t forks)
{
    shs_fence();
    struct shs_fd *f = (forks & 1) || shs_load32(&shs_proc.forks) != forks ? shs_fd_look(fd) : NULL;
    if (f)
        shs_fd_shared(f);
}

int shs_i_socket(int domain, int type, int protocol)
{
    uint32_t forks = shs_load32(&shs_proc.forks);
    int fd = shs_n_socket(domain, type, protocol);
    if (fd >= 0) {
        bool tcp = (domain == AF_INET || domain == AF_INET6) && (type & 15) == SOCK_STREAM && (protocol == 0 || protocol == IPPROTO_TCP);
        bool udp = (domain == AF_INET || domain == AF_INET6) && (type & 15) == SOCK_DGRAM && (protocol == 0 || protocol == IPPROTO_UDP);
        now_is(fd, tcp ? SHS_FD_NEW : udp ? SHS_FD_TCP : SHS_FD_KERNEL);
        struct shs_fd *f = udp ? shs_fd_look(fd) : NULL;
        if (f)
            f->udp = true;
        forked_meanwhile(fd, forks);
        if (tcp || udp)
            shs_guard_memory();
    }
    return fd;
}

/* `forks`: shs_proc.forks before the call. */
static int accepted(int listener, int fd, uint32_t forks)
{
    if (fd < 0)
        return fd;
    struct shs_fd *l = shs_fd_look(listener);
    bool tcp = l && l->state == SHS_FD_NEW;
    if (!tcp && !shs_proc.quiet && (!l || l->state != SHS_FD_KERNEL)) {
        /* a listener that we did not see being made: nobody else has its new connection, whatever it is */
        int proto = 0;
        socklen_t len = sizeof proto;
        tcp = shs_sys_getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &proto, &len) == 0 && proto == IPPROTO_TCP;
    }
    now_is(fd, tcp ? SHS_FD_TCP : SHS_FD_KERNEL);
    forked_meanwhile(fd, forks);
    if (SHS_UNLIKELY(shs_proc.env.opt.eager == 1))
        shs_eager_accepted(fd);
    return fd;
}

int shs_i_accept(int fd, struct sockaddr *addr, socklen_t *addrlen)
{
    uint32_t forks = shs_load32(&shs_proc.forks);
    return accepted(fd, shs_n_accept(fd, addr, addrlen), forks);
}

int shs_i_accept4(int fd, struct sockaddr *addr, socklen_t *addrlen, int flags)
{
    uint32_t forks = shs_load32(&shs_proc.forks);
    return accepted(fd, shs_n_accept4(fd, addr, addrlen, flags), forks);
}

/* A datagram socket receives otherwise from now on, and others with its port may too. */
static int moved(struct shs_fd *f, int fd, int (*call)(int, const struct sockaddr *, socklen_t), const struct sockaddr *addr, socklen_t len)
{
    shs_dgram_moved(f, fd);
    int r = call(fd, addr, len);
    if (r == 0)
        shs_dgram_port_changed(fd);
    return r;
}

/* The same, to a port that others may have: a server does this first, and has to be in its stack to say so to those who send there already. */
static int bind_port(int fd, const struct sockaddr *addr, socklen_t addrlen)
{
    int r = shs_n_bind(fd, addr, addrlen);
    if (r == 0 && (addr->sa_family == AF_INET || addr->sa_family == AF_INET6) && ((const struct sockaddr_in *)(const void *)addr)->sin_port)
        shs_attach(fd);
    return r;
}

int shs_i_bind(int fd, const struct sockaddr *addr, socklen_t addrlen)
{
    struct shs_fd *f = shs_fd_look(fd);
    return f && f->udp ? moved(f, fd, bind_port, addr, addrlen) : shs_n_bind(fd, addr, addrlen);
}

int shs_i_connect(int fd, const struct sockaddr *addr, socklen_t addrlen)
{
    struct shs_fd *f = shs_fd_look(fd);
    if (f && f->udp)
        return moved(f, fd, shs_n_connect, addr, addrlen);
    bool dissolves =
        addrlen >= sizeof addr->sa_family && f && shs_guarding && shs_readable(addr, sizeof *addr) && addr->sa_family == AF_UNSPEC;
    if (dissolves)
        shs_wire_leave_for(fd);
    if (dissolves && f->state >= SHS_FD_TCP && f->state <= SHS_FD_PAIRED)
        shs_fd_dissolve(fd);
    int r = shs_n_connect(fd, addr, addrlen);
    if (f && f->state == SHS_FD_NEW && (r == 0 || r == -EINPROGRESS) && !dissolves)
        __atomic_store_n(&f->state, SHS_FD_TCP, __ATOMIC_RELEASE);
    if (SHS_UNLIKELY(shs_proc.env.opt.eager == 1) && r == 0)
        shs_eager_meet(fd);
    return r;
}

int shs_i_shutdown(int fd, int how)
{
    struct shs_fd *f;
    shs_meet_inherited();
    shs_wire_leave_for(fd);
    if (SHS_UNLIKELY((f = shs_fd_look(fd)) && f->state == SHS_FD_WIRE)) /* there is no helper */
        return shs_wire_shutdown(f, how);
    if (shs_gate_paired(fd, &f) && how != SHUT_RD) {
        if (SHS_UNLIKELY(shs_proc.env.opt.eager == 1))
            shs_eager_read(f);
        shs_end_recall_own(&shs_proc.env, shs_who(), &f->end); /* whoever gets the other end outside later has nobody to send it again */
        shs_residue_finish(&shs_proc.env, shs_who(), &f->end, SHS_FINISH_MS);
    }
    long r = shs_gate_paired(fd, &f) ? shs_end_shutdown(&shs_proc.env, shs_who(), &f->end, how) : SHS_STALE;
    if (r == SHS_STALE) {
        if (f && (f->state == SHS_FD_REG || f->state == SHS_FD_PAIRED)) { /* never to be brought under count any more */
            uint32_t flags = (how != SHUT_RD ? SHS_EPF_WRSHUT : 0u) | (how != SHUT_WR ? SHS_EPF_RDSHUT : 0u);
            __atomic_fetch_or(&shs_fd_record(f)->flags, flags, __ATOMIC_SEQ_CST);
            if (f->state == SHS_FD_PAIRED && how != SHUT_WR)
                shs_ring_close(shs_end_rx(&f->end));
        }
        return shs_n_shutdown(fd, how);
    }
    return (int)r;
}

int shs_i_close(int fd)
{
    if (SHS_UNLIKELY(shs_fd_own(fd)))
        return -EBADF; /* a program that closes every number: it has no such descriptor */
    shs_fd_closing(fd);
    return shs_n_close(fd);
}

/* libc has no function for it before 2.34. */
static int close_between(unsigned first, unsigned last, int flags)
{
    return shs_real.close_range ? shs_n_close_range(first, last, flags) : (int)SHS_SYS(syscall(436, first, last, flags));
}

int shs_i_close_range(unsigned int first, unsigned int last, int flags)
{
    unsigned top = last < SHS_FD_CHUNK * SHS_FD_CHUNKS - 1 ? last : SHS_FD_CHUNK * SHS_FD_CHUNKS - 1;
    if (!(flags & 4 /* CLOSE_RANGE_CLOEXEC */))
        for (unsigned fd = first; fd <= top; fd++) {
            if (!shs_fd_chunk[fd / SHS_FD_CHUNK])
                fd |= SHS_FD_CHUNK - 1;
            else if (!shs_fd_own((int)fd))
                shs_fd_closing((int)fd);
        }
    /* our own descriptors stay: close what lies between them */
    unsigned from = first;
    for (unsigned fd = first; fd <= top && !(flags & 4); fd++) {
        if (!shs_fd_own((int)fd))
            continue;
        if (fd > from) {
            int r = close_between(from, fd - 1, flags);
            if (r < 0)
                return r;
        }
        from = fd + 1;
    }
    return from <= last ? close_between(from, last, flags) : 0;
}

void shs_i_closefrom(int first)
{
    unsigned from = first < 0 ? 0 : (unsigned)first;
    if (shs_i_close_range(from, ~0u, 0) == 0)
        return;
    long limit = sysconf(_SC_OPEN_MAX), top = limit < SHS_FD_CHUNK * SHS_FD_CHUNKS ? limit : SHS_FD_CHUNK * SHS_FD_CHUNKS;
    for (int fd = (int)from; fd < top; fd++)
        shs_i_close(fd);
}

int shs_fd_copied(int from, int to)
{
    struct shs_fd *a = shs_fd_look(from);
    if (to < 0 || to == from || !a)
        return to;
    struct shs_fd *b = shs_fd_make(to);
    if (!b)
        return to;
    shs_fd_reset(to);
    shs_wire_leave_for(from);
    if (a->state == SHS_FD_EPOLL || a->state == SHS_FD_NEW || a->state == SHS_FD_TCP) {
        /* two numbers for one socket that is not under count: a call on the one is not seen from the other */
        if (a->state == SHS_FD_EPOLL) {
            shs_set_pass(a->epoll, from);
            return to;
        }
        a->why = a->why ? a->why : a->state == SHS_FD_TCP ? SHS_REASON_FORKED : 0;
        b->why = to <= 2 ? SHS_REASON_STANDARD_STREAM : a->why;
        b->udp = a->udp;
        shs_kept_copied(a, b);
        b->state = a->state;
        return to;
    }
    if (to <= 2 && from > 2)
        shs_hand_over(a, SHS_REASON_STANDARD_STREAM, false); /* stdio, and whatever is executed, use it natively */
    if (a->udp && a->state == SHS_FD_PAIRED) {
        shs_dgram_lower(a, SHS_REASON_FORKED);
        if (!(b->dgram = malloc(sizeof *b->dgram)))
            return to;
        *b->dgram = *a->dgram;
        b->udp = true;
    }
    if (a->state == SHS_FD_REG || a->state == SHS_FD_PAIRED) {
        a->why = SHS_REASON_FORKED; /* what is not activated yet stays so */
        a->copied = b->copied = true;
        shs_endpoint_flag(shs_fd_record(a), SHS_EPF_PINNED);
        shs_ring_quit(a);
        b->why = a->why;
        b->ep1 = a->ep1;
        shs_fd_unmark(b);
        b->registered = a->registered;
        b->end = a->end;
        b->end.fd = to;
        shs_ep_refs(b->ep1, 1);
    }
    b->state = a->state;
    return to;
}

int shs_i_dup(int fd)
{
    shs_meet_inherited();
    return shs_fd_copied(fd, shs_n_dup(fd));
}

/* `to` is about to be replaced by a copy of fd. */
static int replacing(int fd, int to)
{
    shs_meet_inherited();
    if (fd == to || shs_proc.quiet || shs_sys_fcntl(fd, F_GETFD, 0) < 0)
        return 0;
    if (to <= 2 && fd > 2)
        (void)shs_stand_in(shs_fd_look(fd), fd, false);
    int r = shs_make_way(to);
    if (r == 0)
        shs_fd_closing(to);
    return r;
}

int shs_i_dup2(int fd, int to)
{
    int r = replacing(fd, to);
    return r < 0 ? r : shs_fd_copied(fd, shs_n_dup2(fd, to));
}

int shs_i_dup3(int fd, int to, int flags)
{
    int r = replacing(fd, to);
    return r < 0 ? r : shs_fd_copied(fd, shs_n_dup3(fd, to, flags));
}

/* stdio reads and writes inside libc, unseen: the connection must be, and stay, on the kernel path. */
intptr_t shs_i_fdopen(int fd, const char *mode)
{
    shs_meet_inherited(); /* a ring may hold bytes for it */
    struct shs_fd *f = shs_fd_look(fd);
    long r = f ? shs_hand_over(f, SHS_REASON_STDIO, true) : 0;
    if (r < 0 && r != -EPIPE)
        return r;
    if (f && f->state == SHS_FD_TCP && f->why)
        shs_tell(f, fd); /* stdio's own calls are not seen */
    intptr_t file = shs_n_fdopen(fd, mode);
    if (file > 0 && f && (r == -EPIPE || shs_kept_waiting(f)) && (*mode == 'r' || strchr(mode, '+')))
        shs_push_back(f, fd, (FILE *)file);
    return file;
}

int shs_i_fclose(FILE *stream)
{
    int fd = stream ? fileno_unlocked(stream) : -1;
    if (fd >= 0)
        shs_fd_closing(fd);
    return shs_n_fclose(stream);
}

/* What visiting them gave: the first -errno, else the sum. */
static long each_right(const struct msghdr *msg, long (*visit)(int))
{
    long sum = 0;
    struct msghdr copy = *msg; /* CMSG_NXTHDR takes no const */
    if (!shs_readable(copy.msg_control, copy.msg_controllen))
        return 0; /* the kernel refuses it */
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&copy); c; c = CMSG_NXTHDR(&copy, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
            int fd;
            memcpy(&fd, (uint8_t *)c + at, sizeof fd);
            long r = visit(fd);
            if (r < 0)
                return r;
            sum += r;
        }
    }
    return sum;
}

/* What it is must be known before the first call on it that is no data call: a ring may hold bytes for it. */
static long received(int fd)
{
    shs_fd_reset(fd);
    if (!shs_proc.quiet)
        shs_gate_meet(fd);
    return 0;
}

void shs_received_rights(struct msghdr *msg)
{
    each_right(msg, received);
}

static long passed(int fd)
{
    struct shs_fd *f = shs_fd_look(fd);
    shs_wire_leave_for(fd);
    if (f && f->udp) /* no receiver finds its ring */
        shs_dgram_hand_over(f, fd, SHS_REASON_FORKED, true);
    if (f)
        shs_fd_shared(f);
    if (f && f->state == SHS_FD_EPOLL && f->epoll)
        shs_set_pass(f->epoll, fd);
    return 0;
}

static long passed_outside(int fd)
{
    struct shs_fd *f = shs_fd_look(fd);
    long r = f ? shs_hand_over(f, SHS_REASON_OUTSIDE_HOLDER, false) : 0;
    shs_gone_abroad(fd);
    return r == -EPIPE ? 0 : r;
}

/* It stores it: that will be over, and shows in its own descriptors. */
static long passed_to_helper(int fd)
{
    struct shs_fd *f = shs_fd_look(fd);
    struct shs_endpoint *ep = f && shs_fd_registered(f) && !f->udp ? shs_fd_record(f) : NULL;
    bool lowered = ep && (shs_load32(&ep->flags) & (SHS_EPF_KERNEL_ONLY | SHS_EPF_STORED)) == SHS_EPF_KERNEL_ONLY;
    long r = f ? shs_hand_over(f, SHS_REASON_OUTSIDE_HOLDER, false) : 0;
    if (ep && !lowered)
        __atomic_fetch_or(&ep->flags, SHS_EPF_STORED, __ATOMIC_SEQ_CST);
    return r == -EPIPE ? 0 : r;
}

static long lifted(int fd)
{
    const struct shs_fd *f = shs_fd_look(fd);
    return f && f->state == SHS_FD_PAIRED;
}

static long ends_outside(int fd)
{
    return shs_stand_in(shs_fd_look(fd), fd, false);
}

static long one(int fd)
{
    return fd >= 0;
}

long shs_sending_rights(int over, const struct msghdr *msg, uint32_t *begun)
{
    if (each_right(msg, one) <= 0)
        return 0;
    if (!*begun)
        *begun = shs_share_begin();
    bool closely = each_right(msg, lifted) > 0;
    enum shs_receiver receiver = shs_receiver(over, closely);
    if (receiver == SHS_RECEIVER_PLAIN)
        each_right(msg, ends_outside);
    each_right(msg, passed);
    if (!closely && each_right(msg, lifted) > 0) /* another thread lifted it before it was marked; from now on nobody does */
        receiver = shs_receiver(over, true);
    switch (receiver) {
    case SHS_RECEIVER_HELPER:
        return each_right(msg, passed_to_helper);
    case SHS_RECEIVER_PLAIN:
        return each_right(msg, passed_outside);
    default:
        return 0;
    }
}

uint64_t shs_socket_timeout(int fd, int option)
{
    struct timeval tv = {0};
    socklen_t len = sizeof tv;
    if (shs_sys_getsockopt(fd, SOL_SOCKET, option, &tv, &len) != 0)
        return 0;
    return (uint64_t)tv.tv_sec * 1000000000ull + (uint64_t)tv.tv_usec * 1000;
}
