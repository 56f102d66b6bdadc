/*
 * Sending and receiving on the wire path, and waiting for it. A waiter spins, and does the engine's work meanwhile; then it sleeps behind its bell, and
 * one of those who sleep so watches the interface's sockets for all.
 */
#include "intercepts.gen.h"
#include "preload/restart.h"
#include "preload/signals.h"
#include "preload/wire.h"
#include "preload/wire_ports.h"
#include "shm/sys.h"

#define NO_CPU UINT32_MAX  /* the peer is on another host */
#define TIMERS_EVERY 16    /* looks */
#define NO_BELL_NS 1000000 /* how long a thread sleeps that can have no bell */
#define ENDED (POLLHUP | POLLERR)

void shs_wire_look_all(void)
{
    const struct shs_who *who = shs_who();
    for (uint32_t link = 0; who && link < SHS_N_NICS; link++) {
        struct shs_wire_port *p = shs_wire_port_at(link);
        if (p)
            shs_wire_look(p, who->lock_word);
    }
}

struct shs_wire_watch shs_wire_sleep_begin(struct pollfd *fds)
{
    struct shs_wire_watch watch = {.until_ns = UINT64_MAX};
    const struct shs_who *who = shs_who();
    for (uint32_t link = 0; who && link < SHS_N_NICS; link++) {
        struct shs_wire_port *p = shs_wire_port_at(link);
        uint64_t until;
        if (!p || !shs_wire_watch_begin(p, who->lock_word, &until))
            continue;
        watch.ports |= 1u << link;
        watch.until_ns = until < watch.until_ns ? until : watch.until_ns;
        watch.n += shs_wire_poll_fds(p, fds + watch.n);
        watch.due |= shs_wire_pending(p);
    }
    watch.due |= watch.until_ns <= shs_now();
    return watch;
}

void shs_wire_sleep_end(const struct shs_wire_watch *watch)
{
    const struct shs_who *who = shs_who();
    for (uint32_t link = 0; who && link < SHS_N_NICS; link++) {
        struct shs_wire_port *p = watch->ports >> link & 1 ? shs_wire_port_at(link) : NULL;
        if (p)
            shs_wire_watch_end(p, who->lock_word);
    }
    shs_wire_look_all();
}

static bool over(const struct shs_wire_end *end, short want)
{
    return (shs_wire_ready(end) & (want | ENDED)) || shs_load32(&end->ep->wire) != end->word;
}

/* Sleep until something comes for the thread: 0 (look again) or -errno. */
static long doze(const struct shs_wire_end *end, short want, uint64_t deadline)
{
    struct pollfd fds[SHS_WIRE_FDS + 1];
    struct shs_bell_own *bell = shs_bell();
    struct timespec ts;
    long r = 0;
    if (bell) {
        shs_bell_arm(bell, false);
        shs_wire_await(end, bell->handle, want & POLLOUT);
    }
    struct shs_wire_watch watch = shs_wire_sleep_begin(fds + 1);
    fds[0] = (struct pollfd){.fd = bell ? bell->fd : -1, .events = POLLIN};
    uint64_t until = shs_wire_deadline(deadline, &watch);
    if (!bell && (!until || until > shs_now() + NO_BELL_NS))
        until = shs_now() + NO_BELL_NS;
    if (!watch.due && !over(end, want)) {
        shs_count(&shs_proc.env, SHS_CTR_DOZES, 1);
        r = shs_n_ppoll(fds, watch.n + 1, shs_time_left(until, &ts), NULL);
        if (r > 0 && fds[0].revents)
            shs_bell_drain(bell);
    }
    if (bell)
        shs_bell_disarm(bell);
    shs_wire_sleep_end(&watch);
    return r < 0 ? r : 0;
}

/* 0: look again; -EAGAIN: the time is up; or -EINTR. */
static long wait_for(struct shs_fd *f, const struct shs_wire_end *end, short want, uint64_t deadline, struct shs_signal_mark mark)
{
    uint64_t start = shs_now(), now = start;
    struct shs_spin spin;
    bool hit = false;
    shs_spin_begin(&spin, &shs_proc.env, &f->gap, now, NO_CPU);
    for (uint32_t looks = 0; !(hit = over(end, want)) && shs_spin_step(&spin, &now) == SHS_SPIN_ON; looks++) {
        if (shs_wire_worth_a_look(end->port) || looks % TIMERS_EVERY == TIMERS_EVERY - 1)
            shs_wire_look(end->port, end->me);
        if ((deadline && now >= deadline) || shs_interrupted(mark, !deadline))
            break;
    }
    shs_spin_end(&spin, hit);
    if (!hit) {
        if (deadline && shs_now() >= deadline)
            return -EAGAIN;
        if (shs_interrupted(mark, !deadline))
            return -EINTR;
        long r = doze(end, want, deadline);
        if (r < 0 && !(r == -EINTR && !deadline && shs_restarts(mark)))
            return r;
    }
    shs_gap_note(&shs_proc.env, &f->gap, start, 0);
    return 0;
}

static uint64_t deadline_of(const struct shs_fd *f, int option)
{
    uint64_t timeout = shs_socket_timeout(f->end.fd, option);
    return timeout ? shs_now() + timeout : 0;
}

static bool blocks(const struct shs_fd *f, int flags)
{
    return !(flags & MSG_DONTWAIT) && !(shs_peek32(&f->end.ep->flags) & SHS_EPF_NONBLOCK);
}

/* The helper has lowered it, or does so: when that is done, is it lifted again already? */
static bool still_lifted(struct shs_gate *g, struct shs_wire_end *end)
{
    if (!shs_wire_gate(g, g->f->end.fd))
        return false;
    *end = shs_wire_end(g->f);
    return true;
}

/* What is left of a call, by the kernel. */
static long natively(const struct shs_fd *f, struct shs_cursor *cur, int flags, bool send)
{
    struct iovec iov[SHS_CURSOR_PIECES];
    size_t n;
    shs_cursor_rest(cur, iov, cur->left, &n);
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
    return send ? shs_n_sendmsg(f->end.fd, &msg, flags | MSG_NOSIGNAL) : shs_n_recvmsg(f->end.fd, &msg, flags);
}

/* Lower a connection that is over. 0: the kernel says what that means; or -errno, where the engine alone knows (a time-out, a host that cannot be
 * reached): the kernel was told of a reset. */
static long come_to_end(struct shs_fd *f, const struct shs_wire_end *end)
{
    const struct shs_tcp *t = shs_wire_record(end);
    int error = t ? (int)shs_load32(&t->error) : 0, reset;
    socklen_t len = sizeof reset;
    shs_wire_down(f, f->end.fd);
    if (f->state == SHS_FD_WIRE) /* there is no helper */
        return -error;
    if (!error || error == ECONNRESET || error == EPIPE)
        return 0;
    (void)shs_sys_getsockopt(f->end.fd, SOL_SOCKET, SO_ERROR, &reset, &len);
    return -error;
}

/* The connection is over: the kernel says what that means (SHS_LOST), or this. */
static long at_end(struct shs_fd *f, const struct shs_wire_end *end, bool receive)
{
    long r = come_to_end(f, end);
    return r ? r : f->state != SHS_FD_WIRE ? SHS_LOST : receive ? 0 : -EPIPE;
}

int shs_wire_error(struct shs_fd *f)
{
    struct shs_wire_end end = shs_wire_end(f);
    return end.port && (shs_wire_ready(&end) & POLLERR) ? (int)-come_to_end(f, &end) : 0;
}

long shs_wire_transmit(struct shs_gate *g, const struct iovec *iov, int count, int flags)
{
    struct shs_fd *f = g->f;
    struct shs_wire_end end = shs_wire_end(f);
    struct shs_signal_mark mark = shs_signal_mark();
    struct shs_cursor cur;
    bool block = blocks(f, flags);
    uint64_t deadline = 0;
    long sent = 0, r;
    shs_cursor_init(&cur, iov, count);
    f->takes = 0;
    for (;;) {
        r = shs_wire_send(&end, &cur);
        if (r > 0)
            sent += r;
        if (SHS_UNLIKELY(r == SHS_STALE)) {
            if (still_lifted(g, &end))
                continue;
            if (!sent)
                return SHS_LOST;
            r = block ? natively(f, &cur, flags, true) : 0;
            return r > 0 ? sent + r : sent;
        }
        if (SHS_UNLIKELY(r == SHS_WIRE_OVER)) {
            r = at_end(f, &end, false);
            return sent ? sent : r;
        }
        if (!block || !cur.left || (r < 0 && r != -EAGAIN))
            break;
        if (!deadline && !(deadline = deadline_of(f, SO_SNDTIMEO)))
            deadline = UINT64_MAX;
        if (r < 0 && (r = wait_for(f, &end, POLLOUT, deadline == UINT64_MAX ? 0 : deadline, mark)) < 0)
            break;
    }
    if (SHS_UNLIKELY(r == -EAGAIN) && !block)
        shs_wire_await(&end, 0, true); /* who waits for room by epoll or poll names his bell */
    shs_wire_sent();
    if (sent)
        shs_wire_weigh(f, sent);
    return sent ? sent : r;
}

long shs_wire_receive(struct shs_gate *g, const struct iovec *iov, int count, int flags)
{
    struct shs_fd *f = g->f;
    struct shs_wire_end end = shs_wire_end(f);
    struct shs_signal_mark mark = shs_signal_mark();
    struct shs_cursor cur;
    bool block = blocks(f, flags), all = (flags & MSG_WAITALL) && !(flags & MSG_PEEK);
    uint64_t deadline = 0;
    long total = 0;
    shs_cursor_init(&cur, iov, count);
    if (!cur.left)
        return block || (shs_wire_ready(&end) & POLLIN) ? 0 : -EAGAIN;
    for (;;) {
        long r = shs_wire_recv(&end, &cur, flags & MSG_PEEK);
        if (r == -EAGAIN && block) {
            if (!deadline && !(deadline = deadline_of(f, SO_RCVTIMEO)))
                deadline = UINT64_MAX;
            r = wait_for(f, &end, POLLIN, deadline == UINT64_MAX ? 0 : deadline, mark);
            if (r == 0)
                continue;
        }
        if (SHS_UNLIKELY(r == SHS_STALE)) {
            if (still_lifted(g, &end))
                continue;
            if (!total)
                return SHS_LOST;
            r = all ? natively(f, &cur, flags, false) : 0;
            return r > 0 ? total + r : total;
        }
        if (SHS_UNLIKELY(r == SHS_WIRE_OVER)) {
            r = at_end(f, &end, true);
            return total ? total : r;
        }
        if (r <= 0)
            return total ? total : r;
        total += r;
        if (all && cur.left)
            continue;
        if (!(flags & MSG_PEEK))
            shs_wire_weigh(f, total);
        return total;
    }
}
