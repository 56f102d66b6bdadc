#include "preload/gate.h"

#include <netinet/in.h>

#include "endpoint/fds.h"
#include "endpoint/lift.h"
#include "preload/aside.h"
#include "preload/attach.h"
#include "preload/dgram.h"
#include "preload/eager.h"
#include "preload/epoll.h"
#include "preload/kept.h"
#include "preload/member.h"
#include "preload/signals.h"
#include "preload/tell.h"
#include "preload/wire.h"
#include "shm/sys.h"

static bool option_is(int fd, int option, int a, int b)
{
    int value = 0;
    socklen_t len = sizeof value;
    return shs_sys_getsockopt(fd, SOL_SOCKET, option, &value, &len) == 0 && (value == a || value == b);
}

static bool is_inet_stream(int fd)
{
    return option_is(fd, SO_DOMAIN, AF_INET, AF_INET6) && option_is(fd, SO_TYPE, SOCK_STREAM, SOCK_STREAM);
}

/* First use of a descriptor that no call of ours made: inherited over exec, received, or not a socket at all. */
static void classify(struct shs_fd *f, int fd)
{
    if (!option_is(fd, SO_PROTOCOL, IPPROTO_TCP, IPPROTO_TCP)) { /* of files and pipes too */
        __atomic_store_n(&f->state, SHS_FD_KERNEL, __ATOMIC_RELEASE);
        return;
    }
    uint32_t state = SHS_FD_KERNEL;
    shs_join_lock(); /* another thread may be attaching just now: what it finds out holds for this descriptor too */
    /* each question is a system call: what has a record need not be asked what it is */
    bool attached = shs_load32(&shs_proc.attach) == SHS_ATTACHED, tcp = !attached && is_inet_stream(fd);
    const struct shs_who *who = fd > 2 && (attached || tcp) && shs_attach(fd) ? shs_who() : NULL;
    int ep1 = who ? shs_register_find(&shs_proc.env, who, fd) : 0;
    if (ep1 > 0) {
        f->ep1 = (uint32_t)ep1;
        f->end.cookie = shs_endpoint_at(shs_proc.env.stack, f->ep1)->cookie;
        shs_fd_unmark(f);
        f->registered = shs_endpoint_at(shs_proc.env.stack, f->ep1);
        shs_ep_refs(f->ep1, 1);
        state = SHS_FD_REG;
    } else if (tcp || is_inet_stream(fd)) {
        /* somebody else may use it at the same time, uncounted: only what is registered already is taken up */
        f->why = fd <= 2 ? SHS_REASON_STANDARD_STREAM : SHS_REASON_FORKED;
        state = SHS_FD_TCP;
    }
    if (state != SHS_FD_KERNEL)
        shs_guard_memory();
    __atomic_store_n(&f->state, state, __ATOMIC_RELEASE);
    shs_join_unlock();
}

/* Under the join lock. */
static void register_joined(struct shs_fd *f, int fd)
{
    const struct shs_who *who = shs_who();
    uint32_t epoch = shs_proc.env.epoch;
    if (!who)
        return;
    if (!shs_load32(&shs_proc.env.stack->pair_ok))
        shs_proc.env.nudge |= SHS_NUDGE_OVER;
    if (f->udp) {
        shs_dgram_begin(f, fd);
        shs_registered_aside(f);
        return;
    }
    bool shared = f->why;
    int r = shared ? shs_register_shared(&shs_proc.env, who, fd) : shs_register(&shs_proc.env, who, fd);
    if (r < 0) {
        if (-r == SHS_REASON_EXHAUSTED) {
            f->ops = 0; /* again after as many calls */
            shs_tell_that(fd, SHS_REASON_EXHAUSTED);
        } else {
            f->why = (uint32_t)-r;
        }
        shs_log("not lifted", fd, (uint32_t)-r);
    }
    if (r <= 0 || shs_proc.env.epoch != epoch) /* a signal handler became somebody else meanwhile */
        return;
    f->why = 0; /* the record says it */
    shs_fd_unmark(f);
    f->ep1 = (uint32_t)r;
    shs_ep_refs(f->ep1, 1);
    struct shs_endpoint *ep = shs_endpoint_at(shs_proc.env.stack, f->ep1);
    f->registered = ep;
    f->end.cookie = ep->cookie;
    struct timeval tv = {0};
    socklen_t len = sizeof tv;
    int low = 0;
    uint32_t flags = 0;
    if (shs_sys_fcntl(fd, F_GETFL, 0) & O_NONBLOCK)
        flags |= SHS_EPF_NONBLOCK;
    if (shs_sys_getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &len) == 0 && (tv.tv_sec || tv.tv_usec))
        flags |= SHS_EPF_RCVTIMEO;
    len = sizeof low;
    if (shs_sys_getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &low, &len) == 0 && low > 1)
        shs_lowered_by(ep, SOL_SOCKET, SO_RCVLOWAT);
    __atomic_fetch_or(&ep->flags, flags, __ATOMIC_SEQ_CST);
    __atomic_store_n(&f->state, SHS_FD_REG, __ATOMIC_RELEASE);
    if (f->set)
        shs_set_mark(f, true);
    shs_registered_aside(f);
}

static void register_fd(struct shs_fd *f, int fd)
{
    if (!shs_attach(fd)) {
        if (shs_proc.attach == SHS_ATTACH_FAILED)
            f->ops = 0; /* again after as many calls: a helper may be started meanwhile */
    } else if (shs_join_try()) {
        register_joined(f, fd);
        shs_join_unlock();
    }
}

/* Does a registered end have a pair? It may have been given back while the connection was idle: then it gets one after as many calls as the
 * first time. Without locks: other threads may do the same, and what they note of it is checked where it is used. */
static bool pair_joined(struct shs_gate *g, int fd)
{
    struct shs_fd *f = g->f;
    struct shs_env *env = &shs_proc.env;
    struct shs_end end;
    const struct shs_endpoint *ep = shs_endpoint_at(env->stack, f->ep1);
    if (!ep || ep->cookie != f->end.cookie)
        return false;
    if (!shs_end_of(env, f->ep1, &end)) {
        if (!(shs_load32(&ep->flags) & SHS_EPF_UNPAIRED) || ++f->ops < env->opt.lift_after)
            return false;
        f->ops = 0;
        if (!shs_pair_again(env, g->who, f->ep1) || !shs_end_of(env, f->ep1, &end))
            return false;
    }
    if (end.cookie != f->end.cookie) /* the record is another connection's by now: ours was given back, as nobody seemed to hold it */
        return false;
    f->end.ep = end.ep;
    f->end.fd = fd;
    __atomic_store_n(&f->end.tx, end.tx, __ATOMIC_RELAXED);
    __atomic_store_n(&f->end.rx, end.rx, __ATOMIC_RELAXED);
    f->edge_index = ~0ull; /* the index of another ring: an edge too many is allowed */
    f->drained = 0;
    shs_cas32(&f->state, SHS_FD_REG, SHS_FD_PAIRED);
    return true;
}

static bool pair_up(struct shs_gate *g, int fd)
{
    shs_join_lock(); /* "not now" would be taken for "no pair", and what its ring holds would not be found */
    bool r = (g->f->state == SHS_FD_REG || g->f->state == SHS_FD_PAIRED) && pair_joined(g, fd);
    shs_join_unlock();
    return r;
}

/* Is the direction under count, or can it be brought there now? If not, the call may go natively: its hazard is seen. */
static bool counted(struct shs_gate *g, int fd, int receive)
{
    struct shs_fd *f = g->f;
    struct shs_direction *dir = receive ? shs_end_rx(&f->end) : shs_end_tx(&f->end);
    uint32_t on = shs_load32(receive ? &dir->rx_on : &dir->tx_on);
    if (SHS_UNLIKELY(!(receive ? shs_end_reads(&f->end, dir) : shs_end_writes(&f->end, dir)))) {
        if (shs_cas32(&f->state, SHS_FD_PAIRED, SHS_FD_REG))
            f->ops = 0;
        if (!pair_up(g, fd))
            return false;
        on = SHS_OFF; /* whatever it is, shs_activate looks under the lock */
    }
    if (SHS_LIKELY(on == SHS_ON || on == SHS_RECOUNT))
        return true;
    if (on == SHS_OFF && (f->why || (shs_peek32(&f->end.ep->flags) & SHS_EPF_SHARED)))
        return false;
    return shs_activate(&shs_proc.env, g->who, &f->end, receive, shs_in_flight) == 0;
}

/* An end whose peer may be on another host: true if it is, as far as this call is concerned. */
static bool remote(struct shs_gate *g, int fd, int receive)
{
    struct shs_fd *f = g->f;
    if (shs_load32(&f->registered->pair))
        return false;
    if (shs_wire_due(f, receive) && shs_wire_lift(g, fd))
        g->ring = shs_wire_gate(g, fd);
    return !(shs_peek32(&f->registered->flags) & SHS_EPF_UNPAIRED);
}

void shs_gate_pass(struct shs_gate *g, int fd, int receive)
{
    struct shs_fd *f = shs_fd_look(fd);
    if (SHS_UNLIKELY(!f))
        f = shs_fd_make(fd);
    struct shs_thread *t = &shs_self;
    if (!f)
        return;
    if (SHS_UNLIKELY(shs_proc.quiet)) { /* what is kept is memory; all else is one call of libc's */
        g->kept = receive && shs_kept_waiting(f);
        g->f = g->kept ? f : NULL;
        g->outer = t->hazard;
        return;
    }
    bool met = f->state == SHS_FD_UNKNOWN;
    if (met)
        classify(f, fd);
    if (f->state == SHS_FD_KERNEL || f->state == SHS_FD_EPOLL || (!t->listed && !shs_list_thread()))
        return;
    /* hazard before state: who changes the state looks at the hazards afterwards */
    g->outer = t->hazard;
    g->f = f;
    __atomic_store_n(&t->hazard, ((uint32_t)fd << 1 | (uint32_t)receive) + 1, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    uint32_t state = __atomic_load_n(&f->state, __ATOMIC_ACQUIRE);
    if (SHS_UNLIKELY(state == SHS_FD_TCP)) {
        if (SHS_UNLIKELY(shs_kept_waiting(f))) { /* not to be registered before that has been received */
            g->kept = receive;
            return;
        }
        bool due = (!f->why || !f->told || f->why == SHS_REASON_FORKED) && ++f->ops >= shs_proc.env.opt.lift_after;
        if (due && f->why && (f->why != SHS_REASON_FORKED || f->udp))
            shs_tell(f, fd);
        else if (due && shs_cas32(&f->state, SHS_FD_TCP, SHS_FD_BUSY)) {
            met = true;
            register_fd(f, fd);
            shs_cas32(&f->state, SHS_FD_BUSY, SHS_FD_TCP);
        }
        state = f->state;
    }
    if (state < SHS_FD_REG || (state == SHS_FD_REG && shs_nothing_new(f)))
        return;
    g->who = shs_who();
    if (SHS_UNLIKELY(!g->who)) { /* no slot: bytes that nobody counts must meet no ring */
        struct shs_end end;
        if (shs_load32(&shs_proc.attach) == SHS_LEAVING && shs_left()) {
            shs_gate_leave(g);
            *g = (struct shs_gate){0};
            shs_gate_pass(g, fd, receive);
        } else if (shs_proc.attach == SHS_ATTACHED && shs_join_try()) {
            if (!shs_end_of(&shs_proc.env, f->ep1, &end)) {
                shs_join_unlock();
                return;
            }
            /* without a slot there is no lock; whoever opens the ring looks at the flag again afterwards */
            shs_endpoint_flag(end.ep, SHS_EPF_KERNEL_ONLY);
            shs_ring_close(end.rx);
            shs_join_unlock();
        }
        return;
    }
    bool far =
        SHS_UNLIKELY(state == SHS_FD_REG) && (shs_peek32(&f->registered->flags) & SHS_EPF_REMOTE) && !f->udp && remote(g, fd, receive);
    if (far && g->ring)
        return;
    if (SHS_UNLIKELY(state == SHS_FD_WIRE)) {
        g->ring = shs_wire_gate(g, fd);
        return;
    }
    bool paired = SHS_LIKELY(state != SHS_FD_REG) || (!far && pair_up(g, fd));
    if (SHS_UNLIKELY(f->udp))
        g->dgram = paired;
    else
        g->ring = paired && counted(g, fd, receive);
    if (SHS_UNLIKELY(shs_proc.env.nudge) && shs_nudged(fd, met)) { /* another stack: nothing of what was found holds */
        shs_gate_leave(g);
        *g = (struct shs_gate){0};
        shs_gate_pass(g, fd, receive);
    }
}

/* Eager: a sender waits for its reader to come. */
static void pass_patiently(struct shs_gate *g, int fd)
{
    uint64_t until = 0;
    for (shs_gate_pass(g, fd, SHS_SEND); g->f && !g->f->awaited && shs_eager_again(g, fd, &until); shs_gate_pass(g, fd, SHS_SEND))
        *g = (struct shs_gate){0};
}

void shs_gate_slow(struct shs_gate *g, int fd, int receive)
{
    if (SHS_UNLIKELY(shs_proc.env.opt.eager == 1) && !receive)
        pass_patiently(g, fd);
    else
        shs_gate_pass(g, fd, receive);
}

/*
 * A message to the helper takes longer than all else that the first use of a descriptor needs, and one is enough for many. So it is sent as many
 * calls later as a connection needs to be lifted, counted roughly where several threads do.
 */
static bool too_early(void)
{
    static uint32_t calls;
    uint32_t n = shs_peek32(&calls) + 1;
    bool early = n < shs_proc.env.opt.lift_after;
    shs_set32(&calls, early ? n : 0);
    return early;
}

bool shs_nudged(int fd, bool met)
{
    uint32_t later = (shs_peek32(&shs_proc.env.nudge) & SHS_NUDGE_MET) && (met || too_early()) ? SHS_NUDGE_MET : 0;
    uint32_t what = __atomic_fetch_and(&shs_proc.env.nudge, later, __ATOMIC_SEQ_CST) & ~later;
    if (what & ~(uint32_t)SHS_NUDGE_OVER)
        shs_nudge(shs_proc.stack_name, shs_proc.env.slot1 - 1);
    return (what & SHS_NUDGE_OVER) && shs_move(fd);
}

void shs_gate_meet(int fd)
{
    struct shs_fd *f = shs_fd_look(fd);
    if ((f && f->state != SHS_FD_UNKNOWN) || shs_fd_own(fd))
        return;
    struct shs_gate g = shs_gate_enter(fd, SHS_RECEIVE);
    shs_gate_leave(&g);
}

struct entry64 { /* of getdents64(2) */
    uint64_t ino;
    int64_t off;
    uint16_t size;
    uint8_t type;
    char name[];
};

static void each_descriptor(void (*visit)(int fd))
{
    _Alignas(struct entry64) char entries[2048];
    int dir = (int)SHS_SYS(syscall(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
    long n;
    while (dir >= 0 && (n = SHS_SYS(syscall(SYS_getdents64, dir, entries, sizeof entries))) > 0)
        for (long at = 0; at < n;) {
            const struct entry64 *entry = (const void *)(entries + at);
            int fd = 0;
            for (const char *c = entry->name; *c >= '0' && *c <= '9'; c++)
                fd = fd * 10 + (*c - '0');
            if (fd > 2 && fd != dir)
                visit(fd);
            at += entry->size;
        }
    if (dir >= 0)
        shs_sys_close(dir);
}

static bool met_pairs;

static void meet_socket(int fd)
{
    struct shs_fd *f;
    shs_gate_meet(fd);
    met_pairs |= shs_gate_paired(fd, &f);
}

static void meet_set(int fd)
{
    const struct shs_fd *f = shs_fd_look(fd);
    if (f && f->state == SHS_FD_KERNEL)
        shs_set_meet(fd);
}

void shs_meet_inherited_slow(void)
{
    each_descriptor(meet_socket);
    if (met_pairs) /* what sets tell of their members is of use when those are known */
        each_descriptor(meet_set);
    shs_proc.met = true;
}

bool shs_gate_paired(int fd, struct shs_fd **out)
{
    struct shs_fd *f = shs_fd_look(fd);
    *out = f;
    return f && f->state == SHS_FD_PAIRED && shs_who();
}
