/*
 * The lists of a set: members with open rings, and members of which the kernel does not know the latest.
 */
#include "preload/epoll.h"

#include <linux/sockios.h>
#include <stdlib.h>

#include "intercepts.gen.h"
#include "preload/gate.h"
#include "preload/kept.h"
#include "preload/restart.h"
#include "preload/wire_dgram.h"
#include "shm/slot.h"
#include "shm/sys.h"

#define IN_EVENTS ((uint32_t)(EPOLLIN | EPOLLRDNORM))
#define OUT_EVENTS ((uint32_t)(EPOLLOUT | EPOLLWRNORM))

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
        shs_proc.private = true;
        f->epoll = set;
        __atomic_store_n(&f->state, SHS_FD_EPOLL, __ATOMIC_RELEASE);
    }
    return f->epoll;
}

struct shs_set *shs_set_at(uint32_t epfd1)
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
        bool wanted = f->set == (uint32_t)epfd + 1, known = f->known == (uint32_t)epfd + 1;
        if (!wanted && !known && (f->set || f->known)) /* another set's by now, which has it in its own list */
            continue;
        f->dirty = false;
        struct epoll_event ev = {.events = f->state == SHS_FD_WIRE ? 0 : f->events, .data.u64 = f->data};
        if (wanted && !known)
            shs_n_epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev);
        else if (wanted && (f->known_events != ev.events || f->known_data != f->data))
            shs_n_epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &ev);
        else if (!wanted && known)
            shs_n_epoll_ctl(epfd, EPOLL_CTL_DEL, fd, &ev);
        f->known = f->set;
        f->known_events = ev.events;
        f->known_data = f->data;
    }
    set->n_dirty = 0;
}

/* A member that is an engine's, -1: none. */
static int lifted_member(struct shs_set *set)
{
    int found = -1;
    shs_set_lock(set);
    for (uint32_t i = 0; i < set->n_opened && found < 0; i++) {
        const struct shs_fd *f = shs_fd_look(set->opened[i]);
        if (f && f->listed && (f->state == SHS_FD_WIRE || shs_fd_wired(f)))
            found = set->opened[i];
    }
    shs_set_unlock(set);
    return found;
}

static void share(struct shs_set *set, int epfd)
{
    shs_set_lock(set);
    set->shared = true;
    shs_set_shut(set);
    shs_set_flush(set, epfd);
    shs_set_unlock(set);
}

void shs_set_shared(struct shs_set *set, int epfd)
{
    share(set, epfd);
    /* whoever waits on it elsewhere is told by the kernel alone, from now on of these as well; without a helper they stay what they are */
    for (int fd, last = -1; (fd = lifted_member(set)) >= 0 && fd != last; last = fd)
        shs_wire_leave_for(fd);
}

void shs_set_nested(struct shs_set *set, int epfd)
{
    shs_set_shared(set, epfd);
    shs_set_lock(set);
    if (shs_set_ready(set, epfd))
        shs_set_call(set, epfd);
    shs_set_unlock(set);
}

void shs_sets_told(bool inherited_only)
{
    struct shs_fd *f;
    for (int epfd = 0; shs_proc.private && (f = shs_fd_next(&epfd)); epfd++) {
        if (f->state != SHS_FD_EPOLL || !f->epoll || !f->epoll->n_dirty || (inherited_only && shs_sys_fcntl(epfd, F_GETFD, 0) != 0))
            continue;
        shs_set_lock(f->epoll);
        shs_set_flush(f->epoll, epfd);
        shs_set_unlock(f->epoll);
    }
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
    share(set, epfd); /* its members' rings go with it: nobody may be waiting for them any more */
    struct shs_fd *f;
    for (int fd = 0; (f = shs_fd_next(&fd)); fd++) { /* the number may be another set's soon */
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

void shs_set_unlist(struct shs_set *set, struct shs_fd *f, int fd)
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
    struct shs_set *set = shs_set_at(f->listed ? f->listed : f->known);
    if (set) {
        shs_set_lock(set);
        shs_set_unlist(set, f, fd);
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
    struct shs_set *set = shs_set_at(f->listed ? f->listed : f->set ? f->set : f->known);
    if (!set)
        return;
    shs_set_lock(set);
    shs_set_unlist(set, f, fd);
    if (f->dirty)
        shs_set_flush(set, (int)(f->set ? f->set : f->known) - 1);
    set->urgent = true;
    shs_set_unlock(set);
}

/* Whose sets it is in, as far as they live. */
static uint32_t watcher(const struct shs_endpoint *ep)
{
    uint32_t slot1 = shs_load32(&ep->set_slot);
    return slot1 == SHS_SET_MANY || shs_slot_alive(shs_proc.env.stack, slot1) ? slot1 : 0;
}

void shs_set_mark(struct shs_fd *f, bool member)
{
    if (f->udp || !shs_fd_registered(f) || !shs_who())
        return;
    struct shs_endpoint *ep = shs_fd_record(f);
    uint32_t was = shs_load32(&ep->set_slot), now = watcher(ep), mine = shs_proc.env.slot1;
    if (!member && now == mine)
        shs_cas32(&ep->set_slot, was, 0);
    else if (member && now != mine)
        shs_cas32(&ep->set_slot, was, now ? SHS_SET_MANY : mine);
}

/* Would a process that shares the connection, and sleeps in a set that has it, miss what is in the ring? */
static bool watched_elsewhere(const struct shs_endpoint *ep)
{
    uint32_t slot1 = SHS_UNLIKELY(shs_peek32(&ep->flags) & SHS_EPF_SHARED) ? watcher(ep) : 0;
    return slot1 && slot1 != shs_proc.env.slot1;
}

/*
 * Opening a ring against falling asleep: both under the set's lock. The opener holds rlock, and a sleeper may want rlock under the
 * set's lock: so the opener only tries; it opens at its next read.
 */
bool shs_set_begin(void *fd_entry)
{
    struct shs_fd *f = fd_entry;
    struct shs_set *set = shs_set_at(f->set);
    uint32_t why = SHS_REASON_MANY_SETS;
    bool elsewhere = watched_elsewhere(f->end.ep);
    if (!f->set && !f->copied && !elsewhere)
        return true;
    if (set && !set->shared && !f->copied && !elsewhere) {
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

void shs_set_enlist(struct shs_set *set, struct shs_fd *f, int fd)
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
    if (!set) {
        if (opened && watched_elsewhere(f->end.ep)) /* since we looked: who puts it into a set says so, and looks whether it is open then */
            shs_ring_close(shs_end_rx(&f->end));
        return;
    }
    shs_self.opening = NULL;
    if (opened && shs_set_at(f->set) == set)
        shs_set_enlist(set, f, f->end.fd);
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
    if (SHS_UNLIKELY(f && f->state == SHS_FD_WIRE && f->listed))
        return shs_wire_member_ready(set, f, epfd);
    if (!f || f->state != SHS_FD_PAIRED || f->set != (uint32_t)epfd + 1 || !f->listed)
        return 0;
    if ((f->events & IN_EVENTS) && shs_end_waiting(&f->end) &&
        (!(f->events & EPOLLET) || f->edge_index != shs_word_index(shs_load64(&shs_end_rx(&f->end)->word))))
        ready |= f->events & IN_EVENTS;
    /* an edge, and a one-shot member's one report, have all that is so */
    if (ready && (f->events & OUT_EVENTS) && (f->events & SHS_KERNEL_EVENTS) && (surely_writable(f) || writable(f)))
        ready |= f->events & OUT_EVENTS;
    if ((f->events & OUT_EVENTS) && !(f->events & SHS_KERNEL_EVENTS)) {
        if (surely_writable(f))
            ready |= f->events & OUT_EVENTS;
        else if (f->dirty)
            set->urgent = true; /* only the kernel can tell, and it does not know that it is asked */
    }
    return ready;
}

void shs_set_list_lifted(struct shs_set *set, struct shs_fd *f, int epfd, int fd)
{
    shs_set_enlist(set, f, fd);
    set->wires++;
    set->urgent = true;
    if (set->sleepers)
        shs_set_call(set, epfd);
}

void shs_set_list(struct shs_set *set, struct shs_fd *f, int epfd, int fd)
{
    bool room = f->listed || set->n_opened < set->room;
    struct shs_direction *dir = shs_end_rx(&f->end);
    if (!shs_end_reads(&f->end, dir))
        return;
    if (!f->listed && (set->sleepers || set->shared || !room))
        shs_ring_close(dir);
    bool waiting = shs_end_waiting(&f->end), wired = shs_fd_wired(f);
    if (room && (waiting || wired || (shs_load64(&dir->word) & SHS_WORD_OPEN)))
        shs_set_enlist(set, f, fd);
    if ((waiting || wired) && set->sleepers)
        shs_set_call(set, epfd);
}
