/* To the wire path and back. */
#include "preload/wire.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <sys/epoll.h>

#include "endpoint/anchor.h"
#include "intercepts.gen.h"
#include "preload/ask.h"
#include "preload/epoll.h"
#include "preload/member.h"
#include "preload/restart.h"
#include "preload/wire_dgram.h"
#include "preload/wire_ports.h"
#include "shm/sys.h"

#define WEIGHED 64 /* calls */
#define NAP_NS 50000 /* while another thread, or the helper, moves the connection */
#define ASK_EVERY 100 /* naps */
#define PATIENCE 200 /* asks, some 10 ms apart, for a helper that was killed a moment ago and is followed by another one */

static void nap(void)
{
    struct timespec ts = {0, NAP_NS};
    (void)SHS_SYS(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &ts, NULL));
}

struct shs_wire_end shs_wire_end(const struct shs_fd *f)
{
    const struct shs_who *who = shs_who();
    return (struct shs_wire_end){
        .port = shs_wire_port_at(f->wire >> SHS_WIRE_LINK_SHIFT & SHS_WIRE_LINK_MASK),
        .ep = f->end.ep,
        .word = f->wire,
        .me = who ? who->lock_word : 0,
    };
}

long shs_wire_ask(const char *what, uint32_t ep, uint64_t cookie, int fd, const struct shs_patience *patience)
{
    struct shs_pack pack;
    struct shs_answer answer;
    uint64_t why = SHS_REASON_NO_HELPER;
    long r;
    shs_ask_begin(&pack, what, 2);
    shs_pack_str(&pack, "endpoint");
    shs_pack_uint(&pack, ep);
    shs_pack_str(&pack, "cookie");
    shs_pack_uint(&pack, cookie);
    r = shs_ask_patiently(shs_proc.stack_name, &pack, fd, patience, &answer);
    for (uint32_t i = 0; i < answer.n_fds; i++)
        shs_sys_close(answer.fd[i]);
    if (r < 0)
        return r;
    shs_unpack_uint(answer.bytes, answer.len, "why", &why);
    return (long)why;
}

static long ask(const char *what, const struct shs_fd *f, int fd, const struct shs_patience *patience)
{
    return shs_wire_ask(what, f->ep1 - 1, shs_load64(&f->registered->cookie), fd, patience);
}

/* Could every waiter of the connection be told of its packets? */
static bool waiters_known(const struct shs_fd *f)
{
    const struct shs_set *set = shs_set_at(f->set);
    uint32_t elsewhere = shs_load32(&f->registered->set_slot);
    if (f->copied || (elsewhere && elsewhere != shs_proc.env.slot1))
        return false;
    return !f->set || (set && !set->shared && (f->listed || set->n_opened < set->room));
}

static bool may_lift(const struct shs_fd *f, int fd)
{
    uint32_t flags = shs_load32(&f->registered->flags);
    return shs_proc.env.opt.wire && fd > 2 && !f->why && !f->kept && !shs_proc.uring && waiters_known(f) &&
           !(flags &
             (SHS_EPF_SHARED | SHS_EPF_KERNEL_ONLY | SHS_EPF_RDSHUT | SHS_EPF_WRSHUT | SHS_EPF_SEALED | SHS_EPF_PINNED | SHS_EPF_DENIED));
}

/* 0: nothing is queued, or not acknowledged (else the helper would only find out the same), and nothing is at an end; or why not. */
static uint32_t disquiet(int fd)
{
    int out = 0;
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};
    if (shs_sys_ioctl(fd, SIOCOUTQ, &out) != 0 || out || shs_n_poll(&p, 1, 0) < 0)
        return SHS_REASON_WIRE_BUSY;
    if (p.revents & (POLLRDHUP | POLLHUP | POLLERR))
        return SHS_REASON_SHUT_DOWN;
    return p.revents ? SHS_REASON_WIRE_BUSY : SHS_REASON_NONE;
}

/* It is tried again after so many times as many calls as now. */
static void try_later(struct shs_fd *f, uint32_t times)
{
    uint64_t next = (uint64_t)f->wire_next * times, most = shs_proc.env.opt.wire_most;
    f->wire_calls = 0;
    f->wire_next = (uint32_t)(next < most ? next : most);
}

/* Not now. */
static void later(struct shs_fd *f, uint32_t why)
{
    shs_set32(&f->registered->wire_why, why);
    try_later(f, 2);
    if (why == SHS_REASON_NO_ROUTE)
        __atomic_fetch_and(&f->registered->flags, ~(uint32_t)SHS_EPF_REMOTE, __ATOMIC_SEQ_CST);
}

/* Do its calls move so much that the kernel does it better? */
static bool heavy(struct shs_fd *f, int fd)
{
    uint64_t moved = shs_anchor_moved(fd), by = moved - f->wire_bytes;
    f->wire_bytes = moved;
    return by / f->wire_calls > shs_proc.env.opt.wire_bulk;
}

/* What the kernel reports of a member of an epoll set: nothing while it is lifted. */
static void tell_set(struct shs_fd *f, int fd, bool lifted)
{
    struct shs_set *set = shs_set_at(f->set);
    if (!set)
        return;
    int epfd = (int)f->set - 1;
    shs_set_lock(set);
    if (f->dirty)
        shs_set_flush(set, epfd);
    if (f->known == f->set) {
        struct epoll_event event = {.events = lifted ? 0 : f->events, .data.u64 = f->data};
        shs_n_epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &event);
        f->known_events = event.events;
        f->known_data = f->data;
    }
    if (lifted) {
        shs_set_list_lifted(set, f, epfd, fd);
    } else {
        shs_set_unlist(set, f, fd);
        set->urgent = true;
        if (set->sleepers)
            shs_set_call(set, epfd);
    }
    shs_set_unlock(set);
}

/* The entry is the kernel's again; whoever is first does it. */
static void came_down(struct shs_fd *f, int fd)
{
    if (!shs_cas32(&f->state, SHS_FD_WIRE, SHS_FD_REG))
        return;
    try_later(f, 4);
    f->wire_bytes = 0;
    f->pace = (struct shs_pace){0};
    tell_set(f, fd, false);
}

static bool in_repair(int fd)
{
    int on = 0;
    socklen_t len = sizeof on;
    return shs_sys_getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, &len) == 0 && on == TCP_REPAIR_ON;
}

struct lifting {
    struct shs_endpoint *ep;
    uint32_t was, word;
};

static bool give_up(void *arg)
{
    struct lifting *l = arg;
    return shs_cas32(&l->ep->wire, l->word, l->was);
}

static bool is_lifting(const struct shs_endpoint *ep)
{
    return (shs_load32(&ep->wire) & SHS_WIRE_STATE_MASK) == SHS_WIRE_LIFTING;
}

/* A REASON_*, or -errno. A helper that dies over it leaves a socket in repair, with which nothing can be done: the next one puts that right. */
static long ask_to_lift(struct shs_fd *f, int fd, struct lifting *lifting)
{
    const struct shs_patience patience = {give_up, lifting};
    long why = ask(SHS_MSG_LIFT, f, fd, &patience);
    for (int i = 1; why < 0 && is_lifting(lifting->ep) && in_repair(fd); i++) {
        nap();
        if (i % ASK_EVERY == 0)
            why = ask(SHS_MSG_LIFT, f, fd, &patience);
    }
    return why;
}

/*
 * Have it lowered, asking so often for a helper; else it stays where it is. Whoever gets the descriptor then, by exec or in a message, can do
 * nothing with it: natively it is in repair.
 */
static void down(struct shs_fd *f, int fd, uint32_t asks)
{
    while (f->state == SHS_FD_WIRE) {
        uint32_t word = shs_load32(&f->end.ep->wire), state = word & SHS_WIRE_STATE_MASK;
        if (state == SHS_WIRE_NONE || (state == SHS_WIRE_ON && (word ^ f->wire) >> SHS_WIRE_GEN_SHIFT)) {
            came_down(f, fd);
        } else if (state == SHS_WIRE_ON) {
            shs_count(&shs_proc.env, SHS_CTR_WIRE_LOWERS, 1);
            long why = ask(SHS_MSG_LOWER, f, -1, NULL);
            if (why != 0 && shs_load32(&f->end.ep->wire) == word && (why > 0 || --asks == 0))
                return; /* no helper, or no route */
            for (int i = 0; why != 0 && i < ASK_EVERY; i++)
                nap();
        } else {
            nap();
        }
    }
}

void shs_wire_down(struct shs_fd *f, int fd)
{
    down(f, fd, PATIENCE);
}

static bool lift(struct shs_fd *f, int fd)
{
    struct shs_endpoint *ep = f->registered;
    uint32_t was = shs_load32(&ep->wire), gen = (was >> SHS_WIRE_GEN_SHIFT) + 1, lifting = gen << SHS_WIRE_GEN_SHIFT | SHS_WIRE_LIFTING;
    if ((was & SHS_WIRE_STATE_MASK) != SHS_WIRE_NONE || !shs_cas32(&ep->wire, was, lifting))
        return false;
    f->wire = lifting;
    f->end = (struct shs_end){.ep = ep, .cookie = shs_load64(&ep->cookie), .fd = fd};
    /* from here on other threads wait at the gate; those that were past it are seen */
    if (!shs_cas32(&f->state, SHS_FD_REG, SHS_FD_WIRE)) {
        shs_cas32(&ep->wire, lifting, was);
        return false;
    }
    long why = -ENODEV;
    if (shs_wire_ports_borrow(shs_load32(&shs_proc.env.stack->n_nics)))
        why = shs_in_flight(fd, -1) ? SHS_REASON_NATIVE_READER : ask_to_lift(f, fd, &(struct lifting){ep, was, lifting});
    uint32_t now = shs_load32(&ep->wire);
    if (now == was || is_lifting(ep)) { /* refused, given up, or never asked */
        shs_cas32(&ep->wire, now, was);
        later(f, why < 0 ? SHS_REASON_NO_HELPER : (uint32_t)why);
        shs_cas32(&f->state, SHS_FD_WIRE, SHS_FD_REG);
        shs_count(&shs_proc.env, SHS_CTR_WIRE_REFUSED, 1);
        return false;
    }
    bool had = shs_wire_port_borrow(now >> SHS_WIRE_LINK_SHIFT & SHS_WIRE_LINK_MASK);
    shs_store32(&f->wire, now); /* whoever waits at the gate goes on */
    shs_set32(&ep->wire_why, 0);
    if (!had) {
        shs_wire_down(f, fd);
        return false;
    }
    f->edge_index = 0; /* nothing has come yet */
    f->wire_bytes = f->wire_calls = 0;
    shs_pace_lifted(f);
    tell_set(f, fd, true);
    shs_proc.wired = true;
    shs_count(&shs_proc.env, SHS_CTR_WIRE_LIFTS, 1);
    return true;
}

bool shs_wire_lift(struct shs_gate *g, int fd)
{
    struct shs_fd *f = g->f;
    if (!f->wire_next)
        f->wire_next = (uint32_t)shs_proc.env.opt.wire_after;
    if (f->wire_calls < f->wire_next || !shs_load32(&shs_proc.env.stack->n_nics))
        return false;
    bool may = may_lift(f, fd);
    uint32_t why = may ? disquiet(fd) : SHS_REASON_NONE;
    if (!may || why == SHS_REASON_WIRE_BUSY) {
        f->wire_calls = f->wire_next - 1; /* the next send may find it otherwise */
        if (may)
            shs_set32(&f->registered->wire_why, why);
        return false;
    }
    if (why || heavy(f, fd)) {
        later(f, why ? why : SHS_REASON_WIRE_BULK);
        return false;
    }
    if (!shs_join_try()) /* its process leaves the stack, or another thread lifts */
        return false;
    bool done = f->state == SHS_FD_REG && shs_proc.attach == SHS_ATTACHED && lift(f, fd);
    shs_join_unlock();
    return done;
}

bool shs_wire_gate(struct shs_gate *g, int fd)
{
    struct shs_fd *f = g->f;
    for (;;) {
        uint32_t word = shs_load32(&f->end.ep->wire);
        if (SHS_LIKELY(word == shs_peek32(&f->wire) && shs_wire_is_on(word))) {
            shs_pace_call(f);
            return g->who != NULL;
        }
        if (f->state != SHS_FD_WIRE)
            return false;
        uint32_t state = word & SHS_WIRE_STATE_MASK;
        if (state == SHS_WIRE_NONE || (state == SHS_WIRE_ON && (word ^ f->wire) >> SHS_WIRE_GEN_SHIFT)) {
            came_down(f, fd);
            return false;
        }
        nap();
    }
}

void shs_wire_weigh(struct shs_fd *f, long bytes)
{
    uint32_t why = shs_pace_lost(f, shs_proc.env.opt.wire_gain) ? SHS_REASON_WIRE_SLOWER : SHS_REASON_NONE;
    f->wire_bytes += (uint64_t)bytes;
    if (++f->wire_calls >= WEIGHED) {
        why = f->wire_bytes / f->wire_calls > shs_proc.env.opt.wire_bulk ? SHS_REASON_WIRE_BULK : why;
        f->wire_bytes = f->wire_calls = 0;
    }
    if (SHS_LIKELY(!why))
        return;
    down(f, f->end.fd, 1);
    shs_set32(&f->registered->wire_why, why);
}

void shs_wire_settle(int fd)
{
    struct shs_gate g = shs_gate_enter(fd, SHS_RECEIVE);
    bool urgent = false;
    if (g.f && g.f->state == SHS_FD_WIRE) {
        struct shs_wire_end end = shs_wire_end(g.f);
        urgent = end.port && shs_wire_urgent(&end);
    }
    shs_gate_leave(&g);
    if (urgent)
        shs_wire_down(g.f, fd);
}

void shs_wire_leave_for(int fd)
{
    struct shs_fd *f = shs_fd_look(fd);
    if (SHS_UNLIKELY(f && f->state == SHS_FD_WIRE))
        shs_wire_down(f, fd);
    else if (f)
        shs_dgram_unwire(f);
}

int shs_wire_shutdown(struct shs_fd *f, int how)
{
    struct shs_wire_end end = shs_wire_end(f);
    return how != SHUT_RD && end.port ? shs_wire_finish(&end) : 0;
}

void shs_wire_closing(struct shs_fd *f, int fd)
{
    down(f, fd, 1); /* an engine can end it as well */
    if (f->state != SHS_FD_WIRE)
        return;
    struct shs_wire_end end = shs_wire_end(f);
    if (end.port && !(shs_load32(&f->registered->flags) & SHS_EPF_SHARED))
        shs_wire_abandon(&end);
    shs_cas32(&f->state, SHS_FD_WIRE, SHS_FD_REG);
}

void shs_wire_leave_all(void)
{
    for (int fd = 0; shs_fd_next(&fd); fd++)
        shs_wire_leave_for(fd);
}

void shs_wire_quit(void)
{
    shs_wire_leave_all();
    shs_wire_ports_drop();
}
