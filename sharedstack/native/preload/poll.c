/*
 * poll, ppoll, select, pselect: one wait over an array. Paired members are looked at in their rings; everything else, and writability, is
 * asked of the kernel. Asleep, each paired member counts a taker, so that its writer uses the kernel.
 */
#include "common.h"

#include <stdlib.h>

#include "intercepts.gen.h"
#include "preload/epoll.h"
#include "preload/gate.h"
#include "preload/restart.h"
#include "shm/sys.h"

#define STACK_FDS 64

struct waiting {
    struct pollfd *fds; /* with one place more, for the bell */
    nfds_t n;
    uint64_t deadline; /* 0: none */
    const sigset_t *mask;
    bool writers; /* somebody asks for more than to read from rings */
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

static bool any_ready(const struct waiting *w)
{
    for (nfds_t i = 0; i < w->n; i++) {
        struct shs_fd *f = (w->fds[i].events & (POLLIN | POLLRDNORM)) ? ring_of(&w->fds[i]) : NULL;
        if (f && shs_end_waiting(&f->end))
            return true;
    }
    return false;
}

/* Fill in revents from the rings, on top of what is there (kernel: it was asked just now): how many are ready. */
static int merge(struct waiting *w, bool kernel)
{
    int ready = 0;
    for (nfds_t i = 0; i < w->n; i++) {
        short want = (short)(w->fds[i].events & (POLLIN | POLLRDNORM));
        struct shs_fd *f = want ? ring_of(&w->fds[i]) : NULL;
        if (!kernel)
            w->fds[i].revents = 0;
        if (kernel && w->fds[i].revents)
            __atomic_fetch_add(&shs_proc.reported, 1, __ATOMIC_RELAXED);
        if (f && shs_end_waiting(&f->end))
            w->fds[i].revents |= want;
        ready += w->fds[i].revents != 0;
    }
    return ready;
}

static int look(struct waiting *w, bool due)
{
    struct timespec zero = {0, 0};
    bool rings = any_ready(w);
    if (!due && rings)
        return merge(w, false);
    int r = shs_n_ppoll(w->fds, w->n, &zero, NULL);
    if (r < 0)
        return r;
    return merge(w, true);
}

/* Sleep on the descriptors and the bell, the rings staying open: 0 (look again), -EBUSY (another thread dozes on one) or -errno. */
static int doze(struct waiting *w, struct shs_bell_own *bell)
{
    struct timespec ts;
    bool claimed = true;
    shs_bell_arm(bell);
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
        r = shs_n_ppoll(w->fds, w->n + 1, shs_time_left(w->deadline, &ts), w->mask);
        if (r > 0 && w->fds[w->n].revents)
            shs_bell_drain(bell);
    }
    shs_bell_disarm(bell);
    return r < 0 ? r : 0;
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
    int r = 0;
    *answered = quiet;
    if (quiet) {
        shs_count(&shs_proc.env, SHS_CTR_SLEEPS, 1);
        r = shs_n_ppoll(w->fds, w->n, shs_time_left(w->deadline, &ts), w->mask);
        __atomic_fetch_add(&shs_proc.reported, 1, __ATOMIC_RELAXED);
    }
    for (nfds_t i = 0; i < w->n; i++)
        if (w->takes[i].dir)
            shs_taker_leave(&shs_proc.env, w->who, &w->takes[i], 0);
    return r;
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
            shs_spin_begin(&spin, &shs_proc.env, &t->gap, now, ~0u);
            while (!(hit = any_ready(w)) && shs_spin_step(&spin, &now) == SHS_SPIN_ON) {
                if (now - t->looked_ns >= opt->look_us * 1000) {
                    t->looked_ns = now;
                    if ((hit = (r = look(w, true)) != 0))
                        break;
                }
                if (w->deadline && now >= w->deadline)
                    break;
            }
            shs_spin_end(&spin, hit);
            if (hit) {
                shs_gap_note(&shs_proc.env, &t->gap, start, 0);
                return r ? r : look(w, false);
            }
        }
        if (w->deadline && shs_now() >= w->deadline)
            return look(w, true);
        struct shs_bell_own *bell = bell_for(w);
        bool answered = false;
        shs_polling(w->fds, w->n); /* some may not be under count, or not any more: who brings them there has to know of us */
        r = bell ? doze(w, bell) : -EBUSY;
        if (r == -EBUSY)
            r = sleep_natively(w, &answered);
        shs_polling(NULL, 0);
        shs_gap_note(&shs_proc.env, &t->gap, start, 0);
        if (r < 0 || answered)
            return r;
        r = look(w, true);
        t->looked_ns = now = shs_now();
        if (r != 0 || (w->deadline && now >= w->deadline))
            return r;
    }
}

/* Does another thread have to know that we poll natively: is there a connection in it that it might bring under count? */
static bool uncounted(const struct pollfd *fds, nfds_t n)
{
    for (nfds_t i = 0; i < n; i++) {
        struct shs_fd *f = fds[i].fd >= 0 ? shs_fd_look(fds[i].fd) : NULL;
        if (f && f->state >= SHS_FD_TCP && f->state <= SHS_FD_PAIRED)
            return true;
    }
    return false;
}

/* Is there a ring in it? Notes epoll sets in it, which a wait of ours could not look into. */
static bool has_ring(struct pollfd *fds, nfds_t n, bool *writers)
{
    bool found = false;
    if (shs_proc.attach != SHS_ATTACHED)
        return false;
    for (nfds_t i = 0; i < n; i++) {
        struct shs_fd *f = fds[i].fd >= 0 ? shs_fd_look(fds[i].fd) : NULL;
        bool ring = ring_of(&fds[i]) && (fds[i].events & (POLLIN | POLLRDNORM));
        found |= ring;
        if (fds[i].fd >= 0 && (!ring || (fds[i].events & ~(POLLIN | POLLRDNORM | POLLRDHUP | POLLPRI))))
            *writers |= !ring ? (fds[i].events & POLLOUT) != 0 : true;
        if (f && f->state == SHS_FD_EPOLL && f->epoll && !f->epoll->shared)
            shs_set_shared(f->epoll, fds[i].fd);
    }
    return found && shs_who();
}

static int poll_any(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, bool *native)
{
    bool writers = false;
    *native = !has_ring(fds, n, &writers) || (timeout && (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec > 999999999));
    if (*native)
        return 0;
    struct pollfd few[STACK_FDS + 1], *copy = few;
    struct shs_take few_takes[STACK_FDS], *takes = few_takes;
    if (n > STACK_FDS) {
        copy = malloc((n + 1) * (sizeof *copy + sizeof *takes));
        if (!copy)
            return -ENOMEM;
        takes = (struct shs_take *)(void *)(copy + n + 1);
    }
    memcpy(copy, fds, n * sizeof *copy);
    struct waiting w = {.fds = copy, .n = n, .mask = mask, .writers = writers, .takes = takes, .who = shs_who()};
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
    int r = poll_any(fds, n, timeout < 0 ? NULL : &ts, NULL, &native);
    if (!native)
        return r;
    bool seen = uncounted(fds, n) && shs_list_thread();
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
    int r = poll_any(fds, n, timeout, sigmask, &native);
    if (!native)
        return r;
    bool seen = uncounted(fds, n) && shs_list_thread();
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

/* The sets as an array, one entry a descriptor; the number of entries, or -1: too many for the stack, or nothing of ours. */
static int to_array(int n, fd_set *rd, fd_set *wr, fd_set *ex, struct pollfd *out, int room)
{
    int count = 0;
    for (int fd = 0; fd < n; fd++) {
        short events = (short)((rd && FD_ISSET(fd, rd) ? POLLIN : 0) | (wr && FD_ISSET(fd, wr) ? POLLOUT : 0) |
                               (ex && FD_ISSET(fd, ex) ? POLLPRI : 0));
        if (!events)
            continue;
        if (count == room)
            return -1;
        out[count++] = (struct pollfd){.fd = fd, .events = events};
    }
    return count;
}

/* select(2): readable is POLLIN, POLLHUP or POLLERR; writable POLLOUT or POLLERR; exceptional POLLPRI. */
static int from_array(int n, fd_set *rd, fd_set *wr, fd_set *ex, const struct pollfd *fds, int count)
{
    int bits = 0;
    for (int i = 0; i < count; i++)
        if (fds[i].revents & POLLNVAL)
            return -EBADF;
    for (int fd = 0; fd < n; fd++) {
        if (rd)
            FD_CLR(fd, rd);
        if (wr)
            FD_CLR(fd, wr);
        if (ex)
            FD_CLR(fd, ex);
    }
    for (int i = 0; i < count; i++) {
        int fd = fds[i].fd;
        if ((fds[i].events & POLLIN) && (fds[i].revents & (POLLIN | POLLHUP | POLLERR)))
            FD_SET(fd, rd), bits++;
        if ((fds[i].events & POLLOUT) && (fds[i].revents & (POLLOUT | POLLERR)))
            FD_SET(fd, wr), bits++;
        if ((fds[i].events & POLLPRI) && (fds[i].revents & POLLPRI))
            FD_SET(fd, ex), bits++;
    }
    return bits;
}

static int select_any(int n, fd_set *rd, fd_set *wr, fd_set *ex, const struct timespec *ts, const sigset_t *mask, bool *native)
{
    struct pollfd few[STACK_FDS], *fds = few;
    *native = true;
    if (n < 0 || n > FD_SETSIZE)
        return 0;
    int count = to_array(n, rd, wr, ex, fds, STACK_FDS);
    if (count < 0) {
        fds = malloc((size_t)n * sizeof *fds);
        count = fds ? to_array(n, rd, wr, ex, fds, n) : 0;
    }
    int r = count > 0 ? poll_any(fds, (nfds_t)count, ts, mask, native) : 0;
    if (*native && count > 0 && uncounted(fds, (nfds_t)count) && shs_list_thread()) {
        /* as poll does, so that it is seen by who wants to bring one of them under count */
        *native = false;
        shs_polling(fds, (nfds_t)count);
        r = shs_n_ppoll(fds, (nfds_t)count, ts, mask);
        shs_polling(NULL, 0);
    }
    if (!*native && r >= 0)
        r = from_array(n, rd, wr, ex, fds, count);
    if (fds != few)
        free(fds);
    return r;
}

int shs_i_select(int n, fd_set *rd, fd_set *wr, fd_set *ex, struct timeval *timeout)
{
    bool native;
    struct timespec ts = {0, 0};
    if (timeout)
        ts = (struct timespec){timeout->tv_sec, timeout->tv_usec * 1000L};
    uint64_t start = timeout ? shs_now() : 0;
    int r = select_any(n, rd, wr, ex, timeout ? &ts : NULL, NULL, &native);
    if (native)
        return shs_n_select(n, rd, wr, ex, timeout);
    if (timeout) { /* select(2) on Linux leaves the time not slept */
        uint64_t all = (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec, gone = shs_now() - start,
                 left = gone < all ? all - gone : 0;
        timeout->tv_sec = (time_t)(left / 1000000000ull);
        timeout->tv_usec = (suseconds_t)(left % 1000000000ull / 1000);
    }
    return r;
}

int shs_i_pselect(int n, fd_set *rd, fd_set *wr, fd_set *ex, const struct timespec *timeout, const sigset_t *sigmask)
{
    bool native;
    int r = select_any(n, rd, wr, ex, timeout, sigmask, &native);
    return native ? shs_n_pselect(n, rd, wr, ex, timeout, sigmask) : r;
}
