/*
 * epoll_ctl: changes of interest are noted, to be told to the kernel in one go, or told at once.
 */
#include "preload/epoll.h"

#include "intercepts.gen.h"
#include "preload/eager.h"
#include "preload/gate.h"
#include "preload/kept.h"
#include "preload/outside.h"
#include "preload/restart.h"
#include "preload/signals.h"
#include "preload/wire_dgram.h"

/* Can the change be noted, to be told to the kernel later? Under the lock. */
static bool note_change(struct shs_set *set, struct shs_fd *f, int epfd, int op, int fd, const struct epoll_event *event)
{
    bool member = f->set == (uint32_t)epfd + 1, ours = !f->set || member;
    if (f->state != SHS_FD_PAIRED || set->shared || set->sleepers || !ours || (f->known && f->known != (uint32_t)epfd + 1) ||
        member != (op != EPOLL_CTL_ADD) || (f->events & SHS_KERNEL_EVENTS & (member ? ~0u : 0u)))
        return false;
    if (op == EPOLL_CTL_ADD &&
        !f->known) /* whoever takes the set out of this process (pidfd_getfd(2)) learns its members from the kernel */
        return false;
    if (f->copied || (op != EPOLL_CTL_DEL && (!event || (event->events & SHS_KERNEL_EVENTS))))
        return false;
    struct shs_direction *dir = shs_end_rx(&f->end);
    if (!(shs_load64(&dir->word) & SHS_WORD_OPEN) || !shs_end_reads(&f->end, dir) || (!f->listed && set->n_opened == set->room) ||
        (!f->dirty && set->n_dirty == set->room))
        return false;
    shs_set_mark(f, op != EPOLL_CTL_DEL);
    if (op == EPOLL_CTL_DEL) {
        f->set = 0;
    } else {
        f->set = (uint32_t)epfd + 1;
        f->events = event->events;
        f->data = event->data.u64;
        shs_set_enlist(set, f, fd);
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
    if (set && op != EPOLL_CTL_DEL && event && (event->events & EPOLLONESHOT))
        set->oneshot = true; /* before it is reported for the first time */
    bool lifted = f->state == SHS_FD_WIRE && event && shs_readable(event, sizeof *event);
    struct epoll_event none = {.events = 0, .data.u64 = lifted ? event->data.u64 : 0}; /* the kernel has nothing to report of it */
    bool same = lifted && op == EPOLL_CTL_MOD && f->known == (uint32_t)epfd + 1 && !f->known_events && f->known_data == none.data.u64;
    int r = same ? 0 : shs_n_epoll_ctl(epfd, op, fd, lifted ? &none : event);
    if (r != 0)
        return r;
    shs_set_mark(f, op != EPOLL_CTL_DEL);
    if (op == EPOLL_CTL_DEL) {
        if (f->set == (uint32_t)epfd + 1) {
            if (set)
                shs_set_unlist(set, f, fd);
            f->set = f->known = 0;
        }
        return 0;
    }
    f->set = f->known = (uint32_t)epfd + 1;
    f->events = event->events;
    f->known_events = lifted ? 0 : event->events;
    f->data = f->known_data = event->data.u64;
    f->edge_index = ~0ull; /* ADD and MOD report anew what is there */
    if (set) {
        set->urgent = true; /* what the kernel has for the new interest is reported by the next wait */
        if (f->state == SHS_FD_PAIRED)
            shs_set_list(set, f, epfd, fd);
        else if (f->state == SHS_FD_WIRE)
            shs_set_list_lifted(set, f, epfd, fd);
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

/* A member that left a set with its ring open is in its list still, and the kernel was not told yet. */
static bool in_lists_of_another(const struct shs_fd *f, int epfd)
{
    uint32_t epfd1 = (uint32_t)epfd + 1;
    return (f->known && f->known != epfd1) || (f->listed && f->listed != epfd1);
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
            shs_set_list(set, f, epfd, fd);
        shs_set_unlock(set);
    }
    return r;
}

int shs_i_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    shs_meet_inherited();
    if (SHS_UNLIKELY(shs_proc.env.opt.eager == 1) && op != EPOLL_CTL_DEL && shs_guarding && shs_readable(event, sizeof *event) &&
        (event->events & EPOLLIN))
        shs_eager_meet(fd);
    struct shs_fd *f = shs_fd_make(fd), *e = shs_fd_look(epfd);
    if (f && f->state == SHS_FD_EPOLL && f->epoll && op == EPOLL_CTL_ADD)
        shs_set_nested(f->epoll, fd); /* who waits on the outer set does not look into this one */
    if (f && f->state == SHS_FD_KERNEL)
        return note_other(f, epfd, op, fd, event);
    if (!f || f->state == SHS_FD_EPOLL)
        return shs_n_epoll_ctl(epfd, op, fd, event);
    if (op == EPOLL_CTL_ADD && f->set && f->set != (uint32_t)epfd + 1) {
        f->copied = true; /* a member of two sets: whoever sleeps in the one would miss what the other opened */
        shs_ring_quit(f); /* first: what came between a look and that would be reported by neither */
        if (f->state == SHS_FD_PAIRED && shs_end_waiting(&f->end))
            shs_hand_over(f, SHS_REASON_MANY_SETS, false); /* what is unread: only the kernel can report it in both */
        if (shs_set_at(f->set) && f->dirty)
            shs_set_shared(shs_set_at(f->set), (int)f->set - 1);
    }
    if (op == EPOLL_CTL_ADD && !f->set && in_lists_of_another(f, epfd))
        shs_set_forget(f, fd); /* else it would be looked for in that set's list alone, and reported by neither */
    bool known = e && e->state == SHS_FD_EPOLL && e->epoll;
    if (SHS_UNLIKELY(f->state == SHS_FD_WIRE || shs_fd_wired(f)) && op != EPOLL_CTL_DEL &&
        (!known || e->epoll->shared || f->copied || (!f->listed && e->epoll->n_opened == e->epoll->room)))
        shs_wire_leave_for(fd); /* only the kernel can report it to all who wait */
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
