/*
 * The lists of a set: members with open rings, and members of which the kernel does not know the latest. epoll_ctl.
 */
#include "preload/epoll.h"

#include <linux/sockios.h>
#include <stdlib.h>

#include "intercepts.gen.h"
#include "preload/eager.h"
#include "preload/gate.h"
#include "preload/kept.h"
#include "preload/restart.h"
#include "preload/signals.h"
#include "shm/sys.h"

#define IN_EVENTS ((uint32_t)(EPOLLIN | EPOLLRDNORM))
#define OUT_EVENTS ((uint32_t)(EPOLLOUT | EPOLLWRNORM))
#define KERNEL_EVENTS ((uint32_t)(EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP)) /* the kernel keeps state for these */

void shs_set_lock(struct shs_set *set)
{
    shs_nested_lock(&set->lock);
}

void shs_set_unlock(struct shs_set *set)
{
    shs_nested_unlock(&set->lock);
}

static struct shs_set *free_sets; /* closed ones; never given back to libc, since a thread may still look into one */

static struct shs_nested free_lock;

static struct shs_set *take_free_set(void)
{
    shs_nested_lock(&free_lock);
    struct shs_set *set = free_sets;
    if (set) {
        free_sets = set->next_free;
        memset(set, 0, sizeof *set);
    }
    shs_nested_unlock(&free_lock);
    return set;
}

struct shs_set *shs_set_of(int epfd)
{
    struct shs_fd *f = shs_fd_make(epfd);
    if (!f)
        return NULL;
    if (f->state != SHS_FD_EPOLL || !f->epoll) {
        uint32_t room = (uint32_t)shs_proc.env.opt.open_max;
        struct shs_set *set = take_free_set();
        if (!set && !(set = calloc(1, sizeof *set + 2 * room * sizeof(int))))
            return NULL;
        set->caller = -1;
        set->room = room;
        set->opened = (int *)(void *)(set + 1);
        set->dirty = set->opened + room;
        f->epoll = set;
        __atomic_store_n(&f->state, SHS_FD_EPOLL, __ATOMIC_RELEASE);
    }
    return f->epoll;
}

static struct shs_set *set_at(uint32_t epfd1)
{
    struct shs_fd *e = epfd1 ? shs_fd_look((int)epfd1 - 1) : NULL;
    return e && e->state == SHS_FD_EPOLL ? e->epoll : NULL;
}

void shs_set_shut(struct shs_set *set)
{
    for (uint32_t i = 0; i < set->n_opened; i++) {
        struct shs_fd *f = shs_fd_look(set->opened[i]);
        if (f && f->listed && f->state == SHS_FD_PAIRED && shs_ring_close(shs_end_rx(&f->end))) {
            shs_set32(&f->end.ep->why_rx, SHS_REASON_READER_ASLEEP);
            shs_count(&shs_proc.env, SHS_CTR_SHUTS, 1);
        }
    }
}

void shs_set_flush(struct shs_set *set, int epfd)
{
    for (uint32_t i = 0; i < set->n_dirty; i++) {
        int fd = set->dirty[i];
        struct shs_fd *f = shs_fd_look(fd);
        if (!f || !f->dirty)
            continue;
        f->dirty = false;
        bool wanted = f->set == (uint32_t)epfd + 1, known = f->known == (uint32_t)epfd + 1;
        struct epoll_event ev = {.events = f->events, .data.u64 = f->data};
        if (wanted && !known)
            shs_n_epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev);
        else if (wanted && (f->known_events != f->events || f->known_data != f->data))
            shs_n_epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &ev);
        else if (!wanted && known)
            shs_n_epoll_ctl(epfd, EPOLL_CTL_DEL, fd, &ev);
        f->known = f->set;
        f->known_events = f->events;
        f->known_data = f->data;
    }
    set->n_dirty = 0;
}

void shs_set_shared(struct shs_set *set, int epfd)
{
    shs_set_lock(set);
    set->shared = true;
    shs_set_shut(set);
    shs_set_flush(set, epfd);
    shs_set_unlock(set);
}

void shs_set_leave(struct shs_set *set, int epfd)
{
    shs_set_lock(set);
    shs_set_flush(set, epfd);
    for (uint32_t i = 0; i < set->n_opened; i++) {
        struct shs_fd *f = shs_fd_look(set->opened[i]);
        if (f && f->listed == (uint32_t)epfd + 1)
            f->listed = 0;
    }
    set->n_opened = 0;
    set->urgent = true;
    if (set->sleepers && shs_proc.kept)
        shs_set_call(set, epfd);
    shs_set_unlock(set);
}

void shs_set_drop(struct shs_set *set, int epfd)
{
    if (!set)
        return;
    shs_set_shared(set, epfd); /* its members' rings go with it: nobody may be waiting for them any more */
    for (uint32_t c = 0; c < SHS_FD_CHUNKS; c++) /* the number may be another set's soon */
        for (uint32_t i = 0; shs_fd_chunk[c] && i < SHS_FD_CHUNK; i++) {
            struct shs_fd *f = &shs_fd_chunk[c][i];
            uint32_t gone = (uint32_t)epfd + 1;
            f->set = f->set == gone ? 0 : f->set;
            f->known = f->known == gone ? 0 : f->known;
            f->listed = f->listed == gone ? 0 : f->listed;
        }
    shs_set_lock(set);
    set->n_opened = set->n_dirty = 0;
    shs_set_drop_caller(set);
    if (!set->sleepers) { /* with a thread still waiting in it, it is left to itself */
        shs_nested_lock(&free_lock);
        set->next_free = free_sets;
        free_sets = set;
        shs_nested_unlock(&free_lock);
    }
    shs_set_unlock(set);
}

void shs_set_inherited(struct shs_set *set)
{
    memset(&set->lock, 0, sizeof set->lock);
    shs_set_drop_caller(set);
    set->sleepers = set->n_opened = set->n_dirty = 0;
    set->shared = true;
}

static void unlist(struct shs_set *set, struct shs_fd *f, int fd)
{
    for (uint32_t i = 0; f->listed && i < set->n_opened; i++)
        if (set->opened[i] == fd) {
            set->opened[i] = set->opened[--set->n_opened];
            break;
        }
    f->listed = 0;
}

void shs_set_forget(struct shs_fd *f, int fd)
{
    struct shs_set *set = set_at(f->listed ? f->listed : f->known);
    if (set) {
        shs_set_lock(set);
        unlist(set, f, fd);
        if (f->known && !f->set) {
            struct epoll_event none = {0};
            shs_n_epoll_ctl((int)f->known - 1, EPOLL_CTL_DEL, fd, &none);
        }
        f->dirty = false; /* its place in the list is passed over */
        shs_set_unlock(set);
    }
    f->set = f->known = 0;
}

void shs_set_quit(struct shs_fd *f, int fd)
{
    struct shs_set *set = set_at(f->listed ? f->listed : f->set ? f->set : f->known);
    if (!set)
        return;
    shs_set_lock(set);
    unlist(set, f, fd);
    if (f->dirty)
        shs_set_flush(set, (int)(f->set ? f->set : f->known) - 1);
    set->urgent = true;
    shs_set_unlock(set);
}

/*
 * Opening a ring against falling asleep: both under the set's lock. The opener holds rlock, and a sleeper may want rlock under the
 * set's lock: so the opener only tries; it opens at its next read.
 */
bool shs_set_begin(void *fd_entry)
{
    struct shs_fd *f = fd_entry;
    struct shs_set *set = set_at(f->set);
    uint32_t why = SHS_REASON_MANY_SETS;
    if (!f->set && !f->copied)
        return true;
    if (set && !set->shared && !f->copied) {
        if (!shs_nested_try(&set->lock))
            return false;
        if (!set->sleepers && (f->listed || set->n_opened < set->room)) {
            shs_self.opening = set; /* a signal handler may change what the entry says */
            return true;
        }
        why = set->sleepers ? SHS_REASON_READER_ASLEEP : SHS_REASON_OPEN_LIMIT;
        shs_set_unlock(set);
    }
    shs_set32(&f->end.ep->why_rx, why);
    return false;
}

static void list(struct shs_set *set, struct shs_fd *f, int fd)
{
    if (!f->listed) {
        set->opened[set->n_opened++] = fd;
        f->listed = f->set;
    }
}

void shs_set_done(void *fd_entry, bool opened)
{
    struct shs_fd *f = fd_entry;
    struct shs_set *set = shs_self.opening;
    if (!set)
        return;
    shs_self.opening = NULL;
    if (opened && set_at(f->set) == set)
        list(set, f, f->end.fd);
    else if (opened)
        shs_ring_close(shs_end_rx(&f->end));
    shs_set_unlock(set);
}

void shs_ring_quit(struct shs_fd *f)
{
    if (f->state == SHS_FD_PAIRED && shs_ring_close(shs_end_rx(&f->end)))
        shs_set32(&f->end.ep->why_rx, SHS_REASON_MANY_SETS);
}

/* Is the socket surely writable: is there nothing in its send queue, and has nothing gone there since that was seen? */
static bool surely_writable(struct shs_fd *f)
{
    const struct shs_direction *dir = shs_end_tx(&f->end);
    if (shs_load32(&dir->tx_on) != SHS_ON || (shs_peek32(&f->end.ep->flags) & (SHS_EPF_WRSHUT | SHS_EPF_KERNEL_ONLY)))
        return false;
    uint64_t ksent = shs_load64(&dir->ksent) + 1;
    if (!shs_end_writes(&f->end, dir)) /* those were another connection's */
        return false;
    if (SHS_UNLIKELY(f->drained != ksent)) {
        int queued = 1;
        if (shs_sys_ioctl(f->end.fd, SIOCOUTQ, &queued) != 0 || queued != 0)
            return false;
        f->drained = ksent;
    }
    return true;
}

/* The same, asked of the kernel. */
static bool writable(const struct shs_fd *f)
{
    struct pollfd p = {.fd = f->end.fd, .events = POLLOUT};
    return shs_n_poll(&p, 1, 0) > 0 && (p.revents & POLLOUT);
}

uint32_t shs_member_ready(struct shs_set *set, struct shs_fd *f, int epfd)
{
    uint32_t ready = 0;
    if (!f || f->state != SHS_FD_PAIRED || f->set != (uint32_t)epfd + 1 || !f->listed)
        return 0;
    if ((f->events & IN_EVENTS) && shs_end_waiting(&f->end) &&
        (!(f->events & EPOLLET) || f->edge_index != shs_word_index(shs_load64(&shs_end_rx(&f->end)->word))))
        ready |= f->events & IN_EVENTS;
    /* an edge, and a one-shot member's one report, have all that is so */
    if (ready && (f->events & OUT_EVENTS) && (f->events & KERNEL_EVENTS) && (surely_writable(f) || writable(f)))
        ready |= f->events & OUT_EVENTS;
    if ((f->events & OUT_EVENTS) && !(f->events & KERNEL_EVENTS)) {
        if (surely_writable(f))
            ready |= f->events & OUT_EVENTS;
        else if (f->dirty)
            set->urgent = true; /* only the kernel can tell, and it does not know that it is asked */
    }
    return ready;
}

/* A paired member was added or re-armed: an open ring is listed, or shut where somebody sleeps in the set already; if it holds
 * something, whoever sleeps looks again. */
static void list_member(struct shs_set *set, struct shs_fd *f, int epfd, int fd)
{
    bool room = f->listed || set->n_opened < set->room;
    struct shs_direction *dir = shs_end_rx(&f->end);
    if (!shs_end_reads(&f->end, dir))
        return;
    if (!f->listed && (set->sleepers || set->shared || !room))
        shs_ring_close(dir);
    bool waiting = shs_end_waiting(&f->end);
    if (room && (waiting || (shs_load64(&dir->word) & SHS_WORD_OPEN)))
        list(set, f, fd);
    if (waiting && set->sleepers)
        shs_set_call(set, epfd);
}

/* Can the change be noted, to be told to the kernel later? Under the lock. */
static bool note_change(struct shs_set *set, struct shs_fd *f, int epfd, int op, int fd, const struct epoll_event *event)
{
    bool member = f->set == (uint32_t)epfd + 1, ours = !f->set || member;
    if (f->state != SHS_FD_PAIRED || set->shared || set->sleepers || !ours || (f->known && f->known != (uint32_t)epfd + 1) ||
        member != (op != EPOLL_CTL_ADD) || (f->events & KERNEL_EVENTS & (member ? ~0u : 0u)))
        return false;
    if (f->copied || (op != EPOLL_CTL_DEL && (!event || (event->events & KERNEL_EVENTS))))
        return false;
    struct shs_direction *dir = shs_end_rx(&f->end);
    if (!(shs_load64(&dir->word) & SHS_WORD_OPEN) || !shs_end_reads(&f->end, dir) || (!f->listed && set->n_opened == set->room) ||
        (!f->dirty && set->n_dirty == set->room))
        return false;
    if (op == EPOLL_CTL_DEL) {
        f->set = 0;
    } else {
        f->set = (uint32_t)epfd + 1;
        f->events = event->events;
        f->data = event->data.u64;
        list(set, f, fd);
    }
    if (!f->dirty)
        set->dirty[set->n_dirty++] = fd;
    f->dirty = true;
    return true;
}

/* Tell the kernel at once, then note what it knows. */
static int change_now(struct shs_set *set, struct shs_fd *f, int epfd, int op, int fd, struct epoll_event *event)
{
    if (set && f->dirty)
        shs_set_flush(set, epfd);
    if (f->known && f->known != (uint32_t)epfd + 1 && !f->set) { /* it left another set, which the kernel was not told yet */
        struct epoll_event none = {0};
        shs_n_epoll_ctl((int)f->known - 1, EPOLL_CTL_DEL, fd, &none);
        f->known = 0;
        f->dirty = false;
    }
    if (set && op != EPOLL_CTL_DEL && event && (event->events & EPOLLONESHOT))
        set->oneshot = true; /* before it is reported for the first time */
    int r = shs_n_epoll_ctl(epfd, op, fd, event);
    if (r != 0)
        return r;
    if (op == EPOLL_CTL_DEL) {
        if (f->set == (uint32_t)epfd + 1) {
            if (set)
                unlist(set, f, fd);
            f->set = f->known = 0;
        }
        return 0;
    }
    f->set = f->known = (uint32_t)epfd + 1;
    f->events = f->known_events = event->events;
    f->data = f->known_data = event->data.u64;
    f->edge_index = ~0ull; /* ADD and MOD report anew what is there */
    if (set) {
        set->urgent = true; /* what the kernel has for the new interest is reported by the next wait */
        if (f->state == SHS_FD_PAIRED)
            list_member(set, f, epfd, fd);
    }
    return 0;
}

/* A member of no concern to us, but for its data: one-shot members are told apart by that. */
static int note_other(struct shs_fd *f, int epfd, int op, int fd, struct epoll_event *event)
{
    int r = shs_n_epoll_ctl(epfd, op, fd, event);
    if (r == 0) {
        f->set = op == EPOLL_CTL_DEL ? 0 : (uint32_t)epfd + 1;
        f->events = 0;
        f->data = op == EPOLL_CTL_DEL ? 0 : event->data.u64;
    }
    return r;
}

/* A set that we did not see being made: who else waits on it is unknown. */
static int change_unknown(struct shs_fd *f, int epfd, int op, int fd, struct epoll_event *event)
{
    int r = change_now(NULL, f, epfd, op, fd, event);
    struct shs_set *set = r == 0 && op == EPOLL_CTL_ADD ? shs_set_of(epfd) : NULL;
    if (set) {
        shs_set_shared(set, epfd);
        shs_set_lock(set);
        set->oneshot |= (event->events & EPOLLONESHOT) != 0;
        if (f->state == SHS_FD_PAIRED)
            list_member(set, f, epfd, fd);
        shs_set_unlock(set);
    }
    return r;
}

int shs_i_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    shs_meet_inherited();
    if (SHS_UNLIKELY(shs_proc.env.opt.eager) && op != EPOLL_CTL_DEL && shs_guarding && shs_readable(event, sizeof *event) &&
        (event->events & EPOLLIN))
        shs_eager_meet(fd);
    struct shs_fd *f = shs_fd_make(fd), *e = shs_fd_look(epfd);
    if (f && f->state == SHS_FD_EPOLL && f->epoll && op == EPOLL_CTL_ADD)
        shs_set_shared(f->epoll, fd); /* nested: who waits on the outer set does not look into this one */
    if (f && f->state == SHS_FD_KERNEL)
        return note_other(f, epfd, op, fd, event);
    if (!f || f->state == SHS_FD_EPOLL)
        return shs_n_epoll_ctl(epfd, op, fd, event);
    if (op == EPOLL_CTL_ADD && f->set && f->set != (uint32_t)epfd + 1) {
        f->copied = true; /* a member of two sets: whoever sleeps in the one would miss what the other opened */
        shs_ring_quit(f);
        if (set_at(f->set) && f->dirty)
            shs_set_shared(set_at(f->set), (int)f->set - 1);
    }
    bool known = e && e->state == SHS_FD_EPOLL && e->epoll;
    if (!known)
        return change_unknown(f, epfd, op, fd, event);
    struct shs_set *set = e->epoll;
    if (SHS_UNLIKELY(f->kept != NULL))
        f->kept->told = false; /* ADD and MOD report anew what is there */
    shs_set_lock(set);
    int r = note_change(set, f, epfd, op, fd, event) ? 0 : change_now(set, f, epfd, op, fd, event);
    shs_set_unlock(set);
    return r;
}
