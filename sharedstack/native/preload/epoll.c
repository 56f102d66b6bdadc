/*
 * Waiting on epoll, in the order of events:
 * 1  collect: members with open rings that are ready are reported, by the rules of their interest (level, edge, one-shot);
 * 2  now and then, and whenever the rings are quiet, the kernel's set is asked without waiting; two reports for one member become one;
 * 3  spin; doze: sleep on the kernel's set and a bell, the rings staying open; or sleep: shut every open ring, look again, and
 *    wait in the kernel.
 */
#include "preload/epoll.h"

#include "intercepts.gen.h"
#include "preload/gate.h"
#include "preload/kept.h"
#include "preload/member.h"
#include "preload/restart.h"
#include "preload/signals.h"
#include "preload/wire_dgram.h"
#include "shm/probe.h"
#include "shm/sys.h"

#define DOZE_MOST 64          /* rings to be looked at before a doze; with more, sleeping is as cheap */
#define NO_BELL_NS 1000000
#define FLUSH_EVERY_NS 1000000 /* how long the kernel may not know of a change while rings are busy */

bool shs_set_ready(struct shs_set *set, int epfd)
{
    for (uint32_t i = 0, n = set->n_opened; i < n; i++)
        if (shs_member_ready(set, shs_fd_look(set->opened[i]), epfd))
            return true;
    return false;
}

static bool any_ready(struct shs_set *set, int epfd)
{
    if (SHS_UNLIKELY(set->wires))
        shs_wire_look_all();
    return shs_set_ready(set, epfd) || set->urgent || (SHS_UNLIKELY(shs_proc.kept) && shs_kept_any(epfd));
}

/* What the set and the member learn from a report. *came: when it was published, if its writer said so. */
static void reported(struct shs_set *set, struct shs_fd *f, uint64_t *came)
{
    struct shs_direction *dir = shs_end_rx(&f->end);
    f->edge_index = shs_word_index(shs_load64(&dir->word));
    set->peer_cpu = shs_peek32(&dir->wcpu);
    if (came)
        *came = shs_peek64(&dir->pub_ns);
}

static void reported_lifted(struct shs_set *set, struct shs_fd *f, uint64_t *came)
{
    struct shs_wire_end end = shs_wire_end(f);
    const struct shs_tcp *t = end.port ? shs_wire_record(&end) : NULL;
    f->edge_index = t ? shs_load32(&t->wakes) : 0;
    set->peer_cpu = UINT32_MAX;
    if (came && t)
        *came = shs_peek64(&t->last_rcvd_ns);
}

/* Report ready members; *came: when the first of them was published, if its writer said so. */
static int collect(struct shs_set *set, int epfd, struct epoll_event *events, int max, uint64_t *came)
{
    int n = 0, down = -1;
    shs_set_lock(set);
    uint32_t count = set->n_opened, at = count && set->rotate < count ? set->rotate : 0;
    for (uint32_t i = 0; i < count && n < max; i++, at = at + 1 < count ? at + 1 : 0) {
        struct shs_fd *f = shs_fd_look(set->opened[at]);
        uint32_t ready = shs_member_ready(set, f, epfd);
        if (!ready)
            continue;
        events[n].events = ready;
        events[n++].data.u64 = f->data;
        if (SHS_UNLIKELY(f->state == SHS_FD_WIRE))
            reported_lifted(set, f, came);
        else
            reported(set, f, came);
        if (SHS_UNLIKELY(f->events & EPOLLPRI))
            set->urgent = true; /* urgent data is the kernel's to report, beside what is in the ring */
        if (f->events & EPOLLONESHOT)
            shs_set_claim(set, f, epfd, set->opened[at]);
    }
    set->rotate = at;
    /* members whose rings were shut meanwhile, and are empty, need no more looking at; nor do those that have no pair any more */
    set->wires = 0;
    for (uint32_t i = 0; i < set->n_opened;) {
        struct shs_fd *f = shs_fd_look(set->opened[i]);
        if (SHS_UNLIKELY(f && f->state == SHS_FD_WIRE && f->set == (uint32_t)epfd + 1)) {
            bool lowered;
            shs_wire_polled(f, &lowered);
            if (lowered)
                down = set->opened[i];
            set->wires++;
            i++;
            continue;
        }
        struct shs_direction *dir = f && f->state == SHS_FD_PAIRED ? shs_end_rx(&f->end) : NULL;
        if (SHS_UNLIKELY(f && f->set == (uint32_t)epfd + 1 && shs_fd_wired(f))) {
            set->wires++;
            i++;
            continue;
        }
        if (dir && ((shs_load64(&dir->word) & SHS_WORD_OPEN) || shs_ring_waiting(dir)) && shs_end_reads(&f->end, dir)) {
            i++;
            continue;
        }
        if (f)
            f->listed = 0;
        set->opened[i] = set->opened[--set->n_opened];
    }
    shs_set_unlock(set);
    if (SHS_UNLIKELY(down >= 0))
        shs_wire_settle(down);
    return SHS_UNLIKELY(shs_proc.kept) ? shs_kept_events(epfd, events, n, max) : n;
}

/* The kernel's report on a member of which it does not know the latest: what of it does the program want, and with which data? */
static uint32_t wanted(struct shs_set *set, int epfd, struct epoll_event *event)
{
    for (uint32_t i = 0; i < set->n_dirty; i++) {
        struct shs_fd *f = shs_fd_look(set->dirty[i]);
        if (!f || !f->dirty || f->known != (uint32_t)epfd + 1 || f->known_data != event->data.u64)
            continue;
        event->data.u64 = f->data;
        return f->set == (uint32_t)epfd + 1 ? event->events & (f->events | EPOLLERR | EPOLLHUP) : 0;
    }
    return event->events;
}

/* Add what the kernel has ready now to the n ring events. */
static int add_kernel(struct shs_set *set, int epfd, struct epoll_event *events, int n, int max)
{
    if (n >= max)
        return n;
    shs_count(&shs_proc.env, SHS_CTR_LOOKS, 1);
    uint32_t since = shs_load32(&set->claims);
    int k = shs_n_epoll_wait(epfd, events + n, max - n, 0), rings = n;
    k = shs_set_reported(set, epfd, events + n, k, since);
    for (int i = rings; i < rings + k; i++) {
        struct epoll_event ev = events[i];
        int same = 0;
        ev.events = wanted(set, epfd, &ev);
        while (same < rings && events[same].data.u64 != ev.data.u64)
            same++;
        if (same < rings)
            events[same].events |= ev.events;
        else if (ev.events)
            events[n++] = ev;
    }
    return k < 0 && n == 0 ? k : n;
}

static uint64_t look_gap(struct shs_set *set)
{
    const struct shs_options *opt = &shs_proc.env.opt;
    return (set->hits ? opt->look_busy_us : opt->look_us) * 1000;
}

/* One round without waiting: ring events, and the kernel's when they are due. */
static int look(struct shs_set *set, int epfd, struct epoll_event *events, int max, uint64_t *now, uint64_t *came)
{
    if (SHS_UNLIKELY(set->wires))
        shs_wire_look_all();
    int n = collect(set, epfd, events, max, came);
    *now = shs_now();
    if (n > 0)
        set->hits++;
    if (set->urgent || *now - set->looked_ns >= look_gap(set)) {
        if (set->n_dirty && (set->urgent || *now - set->flushed_ns >= FLUSH_EVERY_NS)) {
            shs_set_lock(set);
            shs_set_flush(set, epfd);
            shs_set_unlock(set);
            set->flushed_ns = *now;
        }
        set->urgent = false;
        set->looked_ns = *now;
        set->hits = 0;
        n = add_kernel(set, epfd, events, n, max);
    }
    return n;
}

/* libc's own wait, with a time-out as precise as the kernel gives: NULL waits for ever. */
static int wait_native(int epfd, struct epoll_event *events, int max, const struct timespec *ts, const sigset_t *mask)
{
    if (!ts)
        return shs_n_epoll_pwait(epfd, events, max, -1, mask);
    if (shs_real.epoll_pwait2 && (ts->tv_nsec % 1000000 != 0 || ts->tv_sec > 1000000)) {
        int r = shs_n_epoll_pwait2(epfd, events, max, ts, mask);
        if (r != -ENOSYS)
            return r;
    }
    /* rounded up, as the kernel does with its own ticks: never early */
    int64_t ms = (int64_t)ts->tv_sec * 1000 + (ts->tv_nsec + 999999) / 1000000;
    return shs_n_epoll_pwait(epfd, events, max, ms > INT32_MAX ? INT32_MAX : (int)ms, mask);
}

/* Claim every open ring for this bell; false: too many, or another thread dozes on one. */
static bool claim_all(struct shs_set *set, const struct shs_who *who, struct shs_bell_own *bell)
{
    bool all = set->n_opened <= DOZE_MOST;
    for (uint32_t i = 0; i < set->n_opened && all; i++) {
        struct shs_fd *f = shs_fd_look(set->opened[i]);
        if (f && f->listed && f->state == SHS_FD_PAIRED)
            all = shs_bell_claim(&shs_proc.env, who->lock_word, &f->end, bell, shs_alone(f));
    }
    return all;
}

/* Have this bell rung for each member on the wire path. */
static void await_lifted(struct shs_set *set, const struct shs_who *who, struct shs_bell_own *bell)
{
    for (uint32_t i = 0; i < set->n_opened; i++) {
        struct shs_fd *f = shs_fd_look(set->opened[i]);
        if (f && bell && shs_fd_wired(f))
            (void)shs_bell_claim(&shs_proc.env, who->lock_word, &f->end, bell, shs_alone(f));
        if (!f || f->state != SHS_FD_WIRE)
            continue;
        struct shs_wire_end end = shs_wire_end(f);
        if (end.port)
            shs_wire_await(&end, bell ? bell->handle : 0, f->events & (EPOLLOUT | EPOLLWRNORM));
    }
}

/* As dozing, where some members are on the wire path: on the kernel's set, the bell, and the interfaces. 0: look again; or -errno. */
static int doze_lifted(struct shs_set *set, int epfd, struct shs_bell_own *bell, uint64_t deadline, const sigset_t *mask)
{
    struct pollfd fds[SHS_WIRE_FDS + 2];
    struct timespec ts;
    struct shs_wire_watch watch = shs_wire_sleep_begin(fds + 2);
    uint64_t until = shs_wire_deadline(deadline, &watch);
    int r = 0;
    if (!bell && (!until || until > shs_now() + NO_BELL_NS)) /* no bell to be had */
        until = shs_now() + NO_BELL_NS;
    fds[0] = (struct pollfd){.fd = epfd, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = bell ? bell->fd : -1, .events = POLLIN};
    if (!watch.due && !shs_set_ready(set, epfd) && !set->urgent) {
        shs_count(&shs_proc.env, SHS_CTR_DOZES, 1);
        r = shs_n_ppoll(fds, 2 + watch.n, shs_time_left(until, &ts), mask);
        if (r > 0 && fds[1].revents)
            shs_bell_drain(bell);
        if (r > 0 && fds[0].revents)
            set->urgent = true;
    }
    shs_wire_sleep_end(&watch);
    return r < 0 ? r : 0;
}

/*
 * Doze or sleep: 0 look again, >0 events of a native sleep, -EAGAIN timed out, or -errno. A dozer counts as a sleeper: rings that other
 * threads would open have not been claimed. Both wait on the kernel's set, in which epoll_ctl of another thread calls them back.
 */
static int sleep_set(struct shs_set *set, int epfd, struct epoll_event *events, int max, uint64_t deadline, const sigset_t *mask)
{
    const struct shs_who *who = shs_who();
    struct shs_bell_own *bell = who ? shs_bell() : NULL;
    struct timespec ts;
    int r = 0;
    if (bell)
        shs_bell_arm(bell, false);
    shs_set_lock(set);
    bool alone = set->sleepers == 0, lifted = set->wires;
    shs_set_sleeps(set);
    bool dozing = bell && alone && set->n_opened && shs_gap_doze(&shs_proc.env, &set->gap) && claim_all(set, who, bell);
    if (!dozing)
        shs_set_shut(set);
    if (SHS_UNLIKELY(lifted))
        await_lifted(set, who, bell);
    shs_set_flush(set, epfd); /* whoever sleeps, sleeps in the kernel's set */
    set->urgent = false;
    shs_set_unlock(set);
    shs_fence();
    if (SHS_UNLIKELY(lifted)) {
        r = doze_lifted(set, epfd, bell, deadline, mask);
    } else if (!any_ready(set, epfd)) {
        shs_count(&shs_proc.env, dozing ? SHS_CTR_DOZES : SHS_CTR_SLEEPS, 1);
        if (dozing) {
            struct pollfd fds[2] = {{.fd = epfd, .events = POLLIN}, {.fd = bell->fd, .events = POLLIN}};
            r = shs_n_ppoll(fds, 2, shs_time_left(deadline, &ts), mask);
            if (r > 0 && fds[1].revents)
                shs_bell_drain(bell);
            if (r > 0 && fds[0].revents)
                set->urgent = true;
            r = r < 0 ? r : 0; /* a time-out is found by the caller */
        } else {
            uint32_t since = shs_load32(&set->claims);
            r = wait_native(epfd, events, max, shs_time_left(deadline, &ts), mask);
            set->urgent = true;
            r = r == 0 ? -EAGAIN : shs_set_reported(set, epfd, events, r, since);
        }
    }
    shs_set_lock(set);
    shs_set_wakes(set);
    shs_set_unlock(set);
    if (bell)
        shs_bell_disarm(bell);
    return r;
}

static int wait_set(struct shs_set *set, int epfd, struct epoll_event *events, int max, uint64_t deadline, const sigset_t *mask)
{
    uint64_t now = 0, start = 0, came = 0;
    struct shs_signal_mark mark = shs_signal_mark();
    for (bool first = true;; first = false) {
        int n = look(set, epfd, events, max, &now, first ? NULL : &came);
        if (first)
            start = now;
        if (n != 0) {
            if (!first)
                shs_gap_note(&shs_proc.env, &set->gap, start, came > start && came < now ? came : now);
            return n;
        }
        if (deadline && now >= deadline)
            return 0;
        struct shs_spin spin;
        bool hit = false;
        if (!mask) {
            shs_spin_begin(&spin, &shs_proc.env, &set->gap, now, set->peer_cpu);
            while (!(hit = any_ready(set, epfd)) && shs_spin_step(&spin, &now) == SHS_SPIN_ON && !shs_interrupted(mark, false))
                if (now - set->looked_ns >= look_gap(set) || (deadline && now >= deadline))
                    if ((n = look(set, epfd, events, max, &now, NULL)) != 0 || (deadline && now >= deadline))
                        break;
            shs_spin_end(&spin, hit || n);
            if (hit || n || (deadline && now >= deadline)) {
                if (!n)
                    n = look(set, epfd, events, max, &now, NULL);
                if (n || (deadline && now >= deadline)) {
                    shs_gap_note(&shs_proc.env, &set->gap, start, now);
                    return n;
                }
                continue;
            }
        }
        if (shs_interrupted(mark, false))
            return -EINTR;
        n = sleep_set(set, epfd, events, max, deadline, mask);
        if (n != 0)
            return n == -EAGAIN ? 0 : n;
    }
}

/*
 * A set of which no ring is open is the kernel's alone: its answer, or -EAGAIN where it is not so, or not any more. Counted as a sleeper
 * all the same: another thread may attach, read, and want to open a ring.
 */
static int wait_alone(struct shs_set *set, int epfd, struct epoll_event *events, int max, const struct timespec *ts, const sigset_t *mask)
{
    if (shs_proc.attach == SHS_ATTACHED && set->n_opened && shs_who())
        return -EAGAIN;
    shs_set_lock(set);
    bool alone = !(set->n_opened && shs_proc.attach == SHS_ATTACHED && shs_who());
    if (alone) {
        shs_set_sleeps(set);
        shs_set_flush(set, epfd);
    }
    shs_set_unlock(set);
    if (!alone)
        return -EAGAIN;
    uint32_t since = shs_load32(&set->claims);
    int r = wait_native(epfd, events, max, ts, mask);
    shs_set_lock(set);
    shs_set_wakes(set);
    shs_set_unlock(set);
    return r > 0 && (r = shs_set_reported(set, epfd, events, r, since)) == 0 ? -EAGAIN : r;
}

/* The common part of the three waits. */
static int epoll_any(int epfd, struct epoll_event *events, int max, int64_t timeout_ns, const sigset_t *mask)
{
    shs_meet_inherited();
    struct shs_fd *f = shs_fd_look(epfd);
    struct shs_set *set = f && f->state == SHS_FD_EPOLL ? f->epoll : NULL;
    struct timespec ts = {(time_t)(timeout_ns / 1000000000), (long)(timeout_ns % 1000000000)};
    bool nowhere = set && max > 0 && shs_guarding && !shs_writable(events, sizeof *events);
    if (nowhere && any_ready(set, epfd))
        return -EFAULT;
    if (!set || max <= 0 || nowhere)
        return wait_native(epfd, events, max, timeout_ns < 0 ? NULL : &ts, mask);
    if (SHS_UNLIKELY(shs_load32(&shs_proc.attach) == SHS_LEAVING))
        shs_left();
    if (SHS_UNLIKELY(set->inherited) && shs_proc.attach == SHS_ATTACHED && shs_who())
        shs_set_adopt(set, epfd);
    if (SHS_UNLIKELY(shs_proc.kept)) {
        int n = shs_kept_events(epfd, events, 0, max);
        if (n)
            return add_kernel(set, epfd, events, n, max);
    }
    uint64_t deadline = timeout_ns > 0 ? shs_now() + (uint64_t)timeout_ns : 0;
    do {
        int r = wait_alone(set, epfd, events, max, timeout_ns < 0 ? NULL : &ts, mask);
        if (r != -EAGAIN)
            return r;
        if (deadline)
            shs_time_left(deadline, &ts);
    } while (!shs_who());
    if (timeout_ns == 0) {
        uint64_t now;
        int r = look(set, epfd, events, max, &now, NULL);
        if (r == 0) { /* asked not to wait: then the answer must be true now */
            set->urgent = true;
            r = look(set, epfd, events, max, &now, NULL);
        }
        return r;
    }
    return wait_set(set, epfd, events, max, deadline, mask);
}

/* Confined: kept bytes, and the program's own call for the rest. Events by the ring and the kernel for one member stay two. */
static int confined(int epfd, struct epoll_event *events, int max)
{
    return max > 0 && shs_writable(events, sizeof *events) ? shs_kept_events(epfd, events, 0, max) : 0;
}

static int with_kept(int n, int more)
{
    return n ? n + (more > 0 ? more : 0) : more;
}

int shs_i_epoll_wait(int epfd, struct epoll_event *events, int max, int timeout)
{
    if (SHS_UNLIKELY(shs_proc.quiet)) {
        int n = confined(epfd, events, max);
        return n == max && n ? n : with_kept(n, shs_n_epoll_wait(epfd, events + n, max - n, n ? 0 : timeout));
    }
    return epoll_any(epfd, events, max, timeout < 0 ? -1 : (int64_t)timeout * 1000000, NULL);
}

int shs_i_epoll_pwait(int epfd, struct epoll_event *events, int max, int timeout, const sigset_t *sigmask)
{
    if (SHS_UNLIKELY(shs_proc.quiet)) {
        int n = confined(epfd, events, max);
        return n == max && n ? n : with_kept(n, shs_n_epoll_pwait(epfd, events + n, max - n, n ? 0 : timeout, sigmask));
    }
    return epoll_any(epfd, events, max, timeout < 0 ? -1 : (int64_t)timeout * 1000000, sigmask);
}

int shs_i_epoll_pwait2(int epfd, struct epoll_event *events, int max, const struct timespec *timeout, const sigset_t *sigmask)
{
    struct shs_fd *f = shs_fd_look(epfd);
    bool plain = !f || shs_proc.quiet || f->state != SHS_FD_EPOLL || !f->epoll ||
                 (timeout && (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec > 999999999));
    if (plain && !shs_real.epoll_pwait2)
        return -ENOSYS;
    if (plain)
        return shs_n_epoll_pwait2(epfd, events, max, timeout, sigmask);
    bool ends = timeout && timeout->tv_sec < 1000000000; /* longer is for ever */
    return epoll_any(epfd, events, max, ends ? (int64_t)timeout->tv_sec * 1000000000 + timeout->tv_nsec : -1, sigmask);
}

static int made(int epfd)
{
    if (epfd >= 0) {
        shs_fd_reset(epfd);
        shs_set_of(epfd);
    }
    return epfd;
}

int shs_i_epoll_create(int size)
{
    return made(shs_n_epoll_create(size));
}

int shs_i_epoll_create1(int flags)
{
    return made(shs_n_epoll_create1(flags));
}
