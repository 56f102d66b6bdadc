/*
 * What the kernel reports of a set, before the program sees it: calls to its sleepers are taken out, and one-shot members that a ring and
 * the kernel both report are reported once.
 */
#include "preload/epoll.h"

#include <sys/eventfd.h>

#include "endpoint/fds.h"
#include "intercepts.gen.h"
#include "preload/wire.h"
#include "shm/sys.h"

#define CALL 0x7b1d9c04e85f26a3ull /* data of the descriptor that calls sleepers back: a number that no program gives by chance */

void shs_set_drop_caller(struct shs_set *set)
{
    if (set->caller >= 0)
        shs_fd_drop(set->caller);
    set->caller = -1;
}

/*
 * Calling sleepers back. Who waits on the kernel's set, natively or in a doze, is called by the kernel's set: an eventfd in it, which counts
 * the calls. Each sleeper that comes back takes one and looks at the rings; when the last one leaves, none is left over.
 */
void shs_set_call(struct shs_set *set, int epfd)
{
    struct epoll_event call = {.events = EPOLLIN, .data.u64 = CALL};
    if (set->caller < 0) {
        int fd = shs_fd_high((int)SHS_SYS(syscall(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE)));
        if (fd >= 0 && shs_n_epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &call) != 0) {
            shs_fd_drop(fd);
            fd = -1;
        }
        set->caller = fd;
    }
    uint64_t calls = set->sleepers ? set->sleepers : 1;
    shs_fd_begin();
    int fd = __atomic_load_n(&set->caller, __ATOMIC_RELAXED);
    if (fd >= 0)
        (void)SHS_SYS(syscall(SYS_write, fd, &calls, sizeof calls));
    shs_fd_end();
}

static bool take_call(struct shs_set *set)
{
    uint64_t calls;
    shs_fd_begin();
    int fd = __atomic_load_n(&set->caller, __ATOMIC_RELAXED);
    bool taken = fd >= 0 && SHS_SYS(syscall(SYS_read, fd, &calls, sizeof calls)) == sizeof calls;
    shs_fd_end();
    return taken;
}

void shs_set_sleeps(struct shs_set *set)
{
    set->sleepers++;
}

void shs_set_wakes(struct shs_set *set)
{
    if (set->sleepers && --set->sleepers == 0) /* in a child that a handler made meanwhile nobody sleeps */
        while (take_call(set))
            ;
}

/* Events without the calls among them: how many are left. */
static int without_calls(struct shs_set *set, struct epoll_event *events, int n)
{
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (events[i].data.u64 == CALL)
            take_call(set);
        else
            events[kept++] = events[i];
    return kept;
}

/* While a connection is lowered its descriptor is for a moment that of no connection, which the kernel reports as an end. */
static int without_false_ends(int epfd, struct epoll_event *events, int n)
{
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (!(events[i].events & (EPOLLHUP | EPOLLERR)) || !shs_wire_false_end(epfd, &events[i]))
            events[kept++] = events[i];
    return kept;
}

/*
 * One-shot members. Armed or not is what f->events says, under the set's lock: whoever reports the member, by its ring or from the kernel,
 * finds it armed there, and disarms it; who finds it disarmed drops his report. epoll_ctl arms it there before it tells the kernel, both
 * under the lock. So of each arming there is one report. What the kernel has may lag behind, armed while the member is not: it reports once more, in
 * vain. The other way round never, or a report would be lost.
 */
static void disarm(struct shs_fd *f)
{
    f->events = f->known_events = EPOLLONESHOT;
}

static bool armed(const struct shs_fd *f)
{
    return f->events & ~(uint32_t)(EPOLLONESHOT | EPOLLET | EPOLLWAKEUP);
}

static void tell_kernel(const struct shs_fd *f, int epfd, int fd)
{
    struct epoll_event event = {.events = f->events, .data.u64 = f->data};
    shs_n_epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &event);
}

void shs_set_claim(struct shs_set *set, struct shs_fd *f, int epfd, int fd)
{
    disarm(f);
    tell_kernel(f, epfd, fd);
    f->claim = set->claims + 1;
    shs_store32(&set->claims, f->claim);
}

/* Has the kernel something for the member now? (EPOLL* and POLL* of one name are one number.) */
static bool ready_natively(const struct shs_fd *f, int fd)
{
    struct pollfd p = {.fd = fd, .events = (short)(f->events & 0xffff)};
    return shs_n_poll(&p, 1, 0) > 0;
}

/* The one member with that data: is its report to be kept? */
static bool keep_one(struct shs_fd *f, int epfd, int fd, uint32_t since)
{
    if (!armed(f))
        return false;
    if ((int32_t)(f->claim - since) > 0 && !ready_natively(f, fd)) {
        /* reported by its ring, and armed again, while this report of the old arming was on its way */
        tell_kernel(f, epfd, fd);
        return false;
    }
    disarm(f);
    return true;
}

/* Is the event, reported by the kernel, to be kept? Members with equal data cannot be told apart by it: then one that is ready is disarmed, and
 * the kernel is told to hold the others armed, as it would if it had reported that one. */
static bool keep(int epfd, const struct epoll_event *event, uint32_t since)
{
    struct shs_fd *f, *one = NULL;
    int one_fd = -1, same = 0;
    bool kept = true, chosen = false;
    for (int pass = 0; pass < 2 && (!pass || (one && same > 1)); pass++)
        for (int fd = 0; (f = shs_fd_next(&fd)); fd++) {
            if (f->set != (uint32_t)epfd + 1 || f->data != event->data.u64)
                continue;
            if (!pass) {
                same++;
                if (f->events & EPOLLONESHOT)
                    one = f, one_fd = fd;
            } else if ((f->events & EPOLLONESHOT) && armed(f)) {
                if (!chosen && ready_natively(f, fd)) {
                    chosen = true;
                    disarm(f);
                }
                tell_kernel(f, epfd, fd);
            }
        }
    if (one && same == 1)
        kept = keep_one(one, epfd, one_fd, since);
    return kept;
}

int shs_set_reported(struct shs_set *set, int epfd, struct epoll_event *events, int n, uint32_t since)
{
    if (n <= 0)
        return n;
    __atomic_fetch_add(&shs_proc.reported, 1, __ATOMIC_RELAXED);
    n = without_calls(set, events, n);
    if (SHS_UNLIKELY(shs_proc.wired))
        n = without_false_ends(epfd, events, n);
    if (!set->oneshot)
        return n;
    int kept = 0;
    shs_set_lock(set);
    for (int i = 0; i < n; i++)
        if (keep(epfd, &events[i], since))
            events[kept++] = events[i];
    shs_set_unlock(set);
    return kept;
}
