/*
 * poll and ppoll, and the wait over an array that select uses too. Paired members are looked at in their rings; everything else, and writability, is
 * asked of the kernel. Asleep, each paired member counts a taker, so that its writer uses the kernel.
 */
#include "common.h"

#include <stdlib.h>

#include "intercepts.gen.h"
#include "preload/eager.h"
#include "preload/epoll.h"
#include "preload/gate.h"
#include "preload/kept.h"
#include "preload/member.h"
#include "preload/nap.h"
#include "preload/poll.h"
#include "preload/restart.h"
#include "preload/signals.h"
#include "preload/wire_dgram.h"
#include "shm/sys.h"

#define STACK_FDS 64
#define PLACES_MORE (1 + SHS_WIRE_FDS)
#define NO_BELL_NS 1000000 /* how long a thread sleeps that can have no bell, or not the rings' */

struct waiting {
    struct pollfd *fds; /* with PLACES_MORE, for the bell and what is slept on for engines */
    nfds_t n;
    uint64_t deadline; /* 0: none */
    const sigset_t *mask;
    uint32_t wires; /* some are on the wire path */
    bool writers; /* somebody asks for more than to read from rings */
    bool lowered; /* one was, after the kernel was asked, which was not asked for it */
    struct shs_take *takes; /* asleep: where a taker is counted, by place */
    const struct shs_who *who;
};

static struct shs_fd *ring_of(const struct pollfd *p)
{
    struct shs_fd *f = p->fd >= 0 ? shs_fd_look(p->fd) : NULL;
    if (!f || f->state != SHS_FD_PAIRED)
        return NULL;
    struct shs_direction *dir = shs_end_rx(&f->end);
    return shs_load32(&dir->rx_on) != SHS_OFF && shs_end_reads(&f->end, dir) ? f : NULL;
}

/* On the wire path: what it has ready of what is asked for. The kernel is not asked for it (hide). */
static bool lifted(struct waiting *w, nfds_t i, short *ready)
{
    const struct pollfd *p = &w->fds[i];
    struct shs_fd *f = p->fd >= 0 ? shs_fd_look(p->fd) : NULL;
    bool lowered;
    if (SHS_LIKELY(!f || f->state != SHS_FD_WIRE))
        return false;
    short events = shs_wire_polled(f, &lowered);
    if (SHS_UNLIKELY(lowered)) {
        shs_wire_settle(p->fd);
        if (f->state != SHS_FD_WIRE) {
            w->lowered = true;
            return false;
        }
    }
    *ready = (short)(events & (p->events | POLLERR | POLLHUP));
    return true;
}

/* The kernel's poll over the first n places. It passes over negative descriptors: those on the wire path are made so meanwhile. */
static int ask_kernel(struct waiting *w, nfds_t n, const struct timespec *ts, const sigset_t *mask)
{
    for (nfds_t i = 0; SHS_UNLIKELY(w->wires) && i < w->n; i++) {
        struct shs_fd *f = w->fds[i].fd >= 0 ? shs_fd_look(w->fds[i].fd) : NULL;
        if (f && f->state == SHS_FD_WIRE)
            w->fds[i].fd |= INT32_MIN;
    }
    int r = shs_n_ppoll(w->fds, n, ts, mask);
    for (nfds_t i = 0; SHS_UNLIKELY(w->wires) && i < w->n; i++)
        if (w->fds[i].fd < 0 && (w->fds[i].fd & INT32_MAX) < SHS_FD_CHUNK * SHS_FD_CHUNKS)
            w->fds[i].fd &= INT32_MAX;
    return r;
}

/* Readable, by a ring: its own, or one of an epoll set, which a member's ring was open in when the set was first polled. */
static bool ring_ready(const struct pollfd *p)
{
    if (!(p->events & (POLLIN | POLLRDNORM)))
        return false;
    struct shs_fd *f = ring_of(p);
    if (f)
        return shs_end_waiting(&f->end);
    f = p->fd >= 0 ? shs_fd_look(p->fd) : NULL;
    return f && f->state == SHS_FD_EPOLL && f->epoll && shs_set_ready(f->epoll, p->fd);
}

static bool any_ready(struct waiting *w)
{
    short ready;
    if (SHS_UNLIKELY(w->wires))
        shs_wire_look_all();
    for (nfds_t i = 0; i < w->n; i++)
        if (ring_ready(&w->fds[i]) || (lifted(w, i, &ready) && ready))
            return true;
    return SHS_UNLIKELY(shs_proc.kept) && shs_kept_polled(w->fds, w->n);
}

/* Fill in revents from the rings, on top of what is there (kernel: it was asked just now): how many are ready. */
static int merge(struct waiting *w, bool kernel)
{
    int ready = 0;
    for (nfds_t i = 0; i < w->n; i++) {
        short want = (short)(w->fds[i].events & (POLLIN | POLLRDNORM));
        if (!kernel)
            w->fds[i].revents = 0;
        if (kernel && w->fds[i].revents)
            __atomic_fetch_add(&shs_proc.reported, 1, __ATOMIC_RELAXED);
        short now = 0;
        if (lifted(w, i, &now))
            w->fds[i].revents = now;
        if (ring_ready(&w->fds[i])) {
            struct shs_fd *f = ring_of(&w->fds[i]);
            w->fds[i].revents |= want;
            if (f)
                shs_self.poll_peer_cpu = shs_peek32(&shs_end_rx(&f->end)->wcpu);
        }
        ready += w->fds[i].revents != 0;
    }
    return SHS_UNLIKELY(shs_proc.kept) ? shs_kept_poll(w->fds, w->n) : ready;
}

static int look(struct waiting *w, bool due)
{
    struct timespec zero = {0, 0};
    if (SHS_UNLIKELY(w->wires))
        shs_wire_look_all();
    int r = !due && any_ready(w) ? merge(w, false) : 0;
    if (r != 0)
        return r;
    do {
        w->lowered = false;
        r = ask_kernel(w, w->n, &zero, NULL);
        if (r < 0)
            return r;
        r = merge(w, true);
    } while (SHS_UNLIKELY(w->lowered && !r));
    return r;
}

/* The one ring of a wait that nothing but a ring of the bell can end: a nap will do for it. NULL: there is more to watch. */
static struct shs_fd *nap_on(const struct waiting *w)
{
    struct shs_fd *f = w->n == 1 && !w->mask && !(w->fds[0].events & ~(POLLIN | POLLRDNORM)) ? ring_of(&w->fds[0]) : NULL;
    return f && shs_may_nap(f, w->deadline) ? f : NULL;
}

/* Sleep on the descriptors and the bell, the rings staying open: 0 (look again), -EBUSY (another thread dozes on one) or -errno. */
static int doze(struct waiting *w, struct shs_bell_own *bell)
{
    struct timespec ts;
    bool claimed = true;
    shs_bell_arm(bell, false);
    for (nfds_t i = 0; i < w->n && claimed; i++) {
        struct shs_fd *f = ring_of(&w->fds[i]);
        if (f)
            claimed = shs_bell_claim(&shs_proc.env, w->who->lock_word, &f->end, bell, shs_alone(f));
    }
    shs_fence();
    int r = claimed ? 0 : -EBUSY;
    if (claimed && !any_ready(w)) {
        w->fds[w->n] = (struct pollfd){.fd = bell->fd, .events = POLLIN};
        shs_count(&shs_proc.env, SHS_CTR_DOZES, 1);
        r = ask_kernel(w, w->n + 1, shs_time_left(w->deadline, &ts), w->mask);
        if (r > 0 && w->fds[w->n].revents)
            shs_bell_drain(bell);
    }
    shs_bell_disarm(bell);
    return r < 0 ? r : 0;
}

/* Has an engine got some of their peers since we began to wait? Asked when takers are counted: one that is about to looks for those. */
static bool wired_meanwhile(struct waiting *w)
{
    for (nfds_t i = 0; i < w->n && !w->wires; i++) {
        struct shs_fd *f = w->fds[i].fd >= 0 ? shs_fd_look(w->fds[i].fd) : NULL;
        w->wires += f && shs_fd_wired(f);
    }
    return w->wires;
}

/* Sleep in the kernel, a taker on each ring: 0 look again, or the kernel's answer. */
static int sleep_natively(struct waiting *w, bool *answered)
{
    struct timespec ts;
    bool quiet = true;
    for (nfds_t i = 0; i < w->n; i++) {
        struct shs_fd *f = quiet ? ring_of(&w->fds[i]) : NULL;
        w->takes[i].dir = NULL;
        if (f && shs_taker_enter(&shs_proc.env, w->who, &f->end, &w->takes[i]) != 1)
            quiet = false; /* its ring holds something, or it is not paired any more */
    }
    if (SHS_UNLIKELY(shs_proc.kept) && shs_kept_polled(w->fds, w->n))
        quiet = false; /* its process left the stack just now */
    if (SHS_UNLIKELY(shs_load32(&shs_proc.env.stack->n_nics)) && wired_meanwhile(w))
        quiet = false;
    int r = 0;
    *answered = quiet;
    if (quiet) {
        shs_count(&shs_proc.env, SHS_CTR_SLEEPS, 1);
        r = ask_kernel(w, w->n, shs_time_left(w->deadline, &ts), w->mask);
        __atomic_fetch_add(&shs_proc.reported, 1, __ATOMIC_RELAXED);
    }
    for (nfds_t i = 0; i < w->n; i++)
        if (w->takes[i].dir)
            shs_taker_leave(&shs_proc.env, w->who, &w->takes[i], 0);
    return r;
}

/*
 * Some are on the wire path: sleep on the descriptors, the bell and the interfaces. Rings that another thread dozes on cannot be claimed: then only for
 * a moment. 0 (look again) or -errno.
 */
static int doze_lifted(struct waiting *w)
{
    struct shs_bell_own *bell = shs_bell();
    struct timespec ts;
    bool all = bell;
    if (bell)
        shs_bell_arm(bell, false);
    for (nfds_t i = 0; bell && i < w->n; i++) {
        struct shs_fd *f = w->fds[i].fd >= 0 ? shs_fd_look(w->fds[i].fd) : NULL, *ring = ring_of(&w->fds[i]);
        if (ring)
            all = shs_bell_claim(&shs_proc.env, w->who->lock_word, &ring->end, bell, shs_alone(ring)) && all;
        if (!f || f->state != SHS_FD_WIRE)
            continue;
        struct shs_wire_end end = shs_wire_end(f);
        if (end.port)
            shs_wire_await(&end, bell->handle, w->fds[i].events & (POLLOUT | POLLWRNORM));
    }
    struct shs_wire_watch watch = shs_wire_sleep_begin(w->fds + w->n + 1);
    uint64_t until = shs_wire_deadline(w->deadline, &watch);
    if (!all && (!until || until > shs_now() + NO_BELL_NS))
        until = shs_now() + NO_BELL_NS;
    w->fds[w->n] = (struct pollfd){.fd = bell ? bell->fd : -1, .events = POLLIN};
    int r = 0;
    if (!watch.due && !any_ready(w)) {
        shs_count(&shs_proc.env, SHS_CTR_DOZES, 1);
        r = ask_kernel(w, w->n + 1 + watch.n, shs_time_left(until, &ts), w->mask);
        if (r > 0 && w->fds[w->n].revents)
            shs_bell_drain(bell);
    }
    if (bell)
        shs_bell_disarm(bell);
    shs_wire_sleep_end(&watch);
    return r < 0 ? r : 0;
}

/* May we doze: is there an open ring? */
static struct shs_bell_own *bell_for(const struct waiting *w)
{
    bool open = false;
    for (nfds_t i = 0; i < w->n && !open; i++) {
        struct shs_fd *f = ring_of(&w->fds[i]);
        open = f && (shs_load64(&shs_end_rx(&f->end)->word) & SHS_WORD_OPEN);
    }
    return open && shs_gap_doze(&shs_proc.env, &shs_self.gap) ? shs_bell() : NULL;
}

static int wait_fds(struct waiting *w, bool poll_only)
{
    struct shs_thread *t = &shs_self;
    const struct shs_options *opt = &shs_proc.env.opt;
    struct shs_signal_mark mark = shs_signal_mark();
    uint64_t start = shs_now(), now = start;
    int r = look(w, w->writers || now - t->looked_ns >= opt->look_us * 1000);
    if (w->writers || r <= 0)
        t->looked_ns = now;
    if (r != 0 || poll_only)
        return r;
    for (;;) {
        struct shs_spin spin;
        bool hit = false;
        if (!w->mask) {
            shs_spin_begin(&spin, &shs_proc.env, &t->gap, now, t->poll_peer_cpu);
            while (!(hit = any_ready(w)) && shs_spin_step(&spin, &now) == SHS_SPIN_ON) {
                if (now - t->looked_ns >= opt->look_us * 1000) {
                    t->looked_ns = now;
                    if ((hit = (r = look(w, true)) != 0))
                        break;
                }
                if ((w->deadline && now >= w->deadline) || shs_interrupted(mark, false))
                    break;
            }
            shs_spin_end(&spin, hit);
            if (hit && (r || (r = look(w, false)) != 0)) { /* else another thread took it */
                shs_gap_note(&shs_proc.env, &t->gap, start, 0);
                return r;
            }
        }
        if (w->deadline && shs_now() >= w->deadline)
            return look(w, true);
        if (shs_interrupted(mark, false))
            return -EINTR;
        struct shs_fd *alone = nap_on(w);
        t->gap.cheap = alone;
        struct shs_bell_own *bell = bell_for(w);
        bool answered = false;
        shs_polling(w->fds, w->n); /* some may not be under count, or not any more: who brings them there has to know of us */
        r = SHS_UNLIKELY(w->wires) ? doze_lifted(w) : bell && alone ? (int)shs_nap(alone, w->who, bell) : -EBUSY;
        bool napped = r == 0 && !w->wires;
        if (r == -ETIMEDOUT && shs_interrupted(mark, false)) {
            r = -EINTR; /* at the very end of the nap */
        } else if (bell && (r == -EBUSY || (r == -ETIMEDOUT && opt->eager))) {
            r = doze(w, bell);
        }
        if (r == -EBUSY || r == -ETIMEDOUT)
            r = sleep_natively(w, &answered);
        shs_polling(NULL, 0);
        shs_gap_note(&shs_proc.env, &t->gap, start, 0);
        if (r < 0 || answered)
            return r;
        r = look(w, !napped);
        t->looked_ns = now = shs_now();
        if (r != 0 || (w->deadline && now >= w->deadline))
            return r;
    }
}

bool shs_poll_uncounted(const struct pollfd *fds, nfds_t n)
{
    for (nfds_t i = 0; shs_guarding && shs_readable(fds, n * sizeof *fds) && i < n; i++) {
        struct shs_fd *f = fds[i].fd >= 0 ? shs_fd_look(fds[i].fd) : NULL;
        if (f && f->state >= SHS_FD_TCP && f->state <= SHS_FD_WIRE)
            return true;
    }
    return false;
}

/* Is there a ring in it? Notes epoll sets in it, which a wait of ours could not look into. */
static bool has_ring(struct pollfd *fds, nfds_t n, bool *writers, uint32_t *wires)
{
    bool found = false;
    if (shs_proc.attach != SHS_ATTACHED)
        return false;
    for (nfds_t i = 0; i < n; i++) {
        struct shs_fd *f = fds[i].fd >= 0 ? shs_fd_look(fds[i].fd) : NULL;
        if (SHS_UNLIKELY(f && f->state == SHS_FD_WIRE)) {
            found = true;
            ++*wires;
            continue;
        }
        *wires += f && shs_fd_wired(f);
        bool ring = ring_of(&fds[i]) && (fds[i].events & (POLLIN | POLLRDNORM));
        found |= ring;
        if (fds[i].fd >= 0 && (!ring || (fds[i].events & ~(POLLIN | POLLRDNORM | POLLRDHUP | POLLPRI))))
            *writers |= !ring ? (fds[i].events & POLLOUT) != 0 : true;
        if (f && f->state == SHS_FD_EPOLL && f->epoll) {
            if (!f->epoll->shared)
                shs_set_shared(f->epoll, fds[i].fd);
            found |= ring_ready(&fds[i]);
        }
    }
    return found && shs_who();
}

int shs_poll_any(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, bool *native)
{
    bool writers = false;
    uint32_t wires = 0;
    shs_meet_inherited();
    if (SHS_UNLIKELY(shs_proc.env.opt.eager == 1) && shs_guarding && shs_readable(fds, n * sizeof *fds))
        shs_eager_polled(fds, n);
    *native = !shs_guarding || shs_proc.quiet || !shs_readable(fds, n * sizeof *fds) || !has_ring(fds, n, &writers, &wires) ||
              (timeout && (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec > 999999999));
    if (*native && SHS_UNLIKELY(shs_load32(&shs_proc.attach) == SHS_LEAVING))
        shs_left();
    if (*native && SHS_UNLIKELY(shs_proc.kept) && !shs_proc.quiet && shs_kept_polled(fds, n)) { /* its process left the stack just now */
        struct timespec zero = {0, 0};
        *native = false;
        int ready = shs_n_ppoll(fds, n, &zero, mask);
        return ready < 0 ? ready : shs_kept_poll(fds, n);
    }
    if (*native)
        return 0;
    struct pollfd few[STACK_FDS + PLACES_MORE], *copy = few;
    struct shs_take few_takes[STACK_FDS], *takes = few_takes;
    if (n > STACK_FDS) {
        copy = malloc((n + PLACES_MORE) * (sizeof *copy + sizeof *takes));
        if (!copy)
            return -ENOMEM;
        takes = (struct shs_take *)(void *)(copy + n + PLACES_MORE);
    }
    memcpy(copy, fds, n * sizeof *copy);
    struct waiting w = {.fds = copy, .n = n, .mask = mask, .wires = wires, .writers = writers, .takes = takes, .who = shs_who()};
    bool only = timeout && !timeout->tv_sec && !timeout->tv_nsec;
    if (timeout && !only && timeout->tv_sec < 1000000000) /* longer is for ever */
        w.deadline = shs_now() + (uint64_t)timeout->tv_sec * 1000000000ull + (uint64_t)timeout->tv_nsec;
    int r = wait_fds(&w, only);
    for (nfds_t i = 0; i < n && r >= 0; i++)
        fds[i].revents = copy[i].revents;
    if (copy != few)
        free(copy);
    return r;
}

int shs_i_poll(struct pollfd *fds, nfds_t n, int timeout)
{
    struct timespec ts = {timeout / 1000, timeout % 1000 * 1000000L};
    bool native;
    if (SHS_UNLIKELY(shs_proc.kept) && shs_kept_polled(fds, n)) {
        int ready = shs_n_poll(fds, n, 0);
        return ready < 0 ? ready : shs_kept_poll(fds, n);
    }
    int r = shs_poll_any(fds, n, timeout < 0 ? NULL : &ts, NULL, &native);
    if (!native)
        return r;
    bool seen = shs_poll_uncounted(fds, n) && shs_list_thread();
    if (seen)
        shs_polling(fds, n);
    r = shs_n_poll(fds, n, timeout);
    if (seen)
        shs_polling(NULL, 0);
    return r;
}

int shs_i___poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room)
{
    return room / sizeof *fds < n ? shs_n___poll_chk(fds, n, timeout, room) : shs_i_poll(fds, n, timeout);
}

int shs_i_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *sigmask)
{
    bool native;
    struct timespec zero = {0, 0};
    if (SHS_UNLIKELY(shs_proc.kept) && shs_kept_polled(fds, n)) {
        int ready = shs_n_ppoll(fds, n, &zero, sigmask);
        return ready < 0 ? ready : shs_kept_poll(fds, n);
    }
    int r = shs_poll_any(fds, n, timeout, sigmask, &native);
    if (!native)
        return r;
    bool seen = shs_poll_uncounted(fds, n) && shs_list_thread();
    if (seen)
        shs_polling(fds, n);
    r = shs_n_ppoll(fds, n, timeout, sigmask);
    if (seen)
        shs_polling(NULL, 0);
    return r;
}

int shs_i___ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *sigmask, size_t room)
{
    return room / sizeof *fds < n ? shs_n___ppoll_chk(fds, n, timeout, sigmask, room) : shs_i_ppoll(fds, n, timeout, sigmask);
}
