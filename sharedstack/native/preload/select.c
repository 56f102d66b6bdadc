/*
 * select and pselect: the sets become an array for the wait in poll.c, and its answer becomes sets.
 */
#include "common.h"

#include <stdlib.h>

#include "intercepts.gen.h"
#include "preload/gate.h"
#include "preload/kept.h"
#include "preload/poll.h"
#include "preload/signals.h"
#include "shm/probe.h"

#define STACK_FDS 64

static bool good(int n, fd_set *set)
{
    return !set || shs_writable(set, ((size_t)n + 7) / 8);
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
    shs_meet_inherited();
    if (n < 0 || n > FD_SETSIZE || !shs_guarding || shs_proc.quiet || !good(n, rd) || !good(n, wr) || !good(n, ex))
        return 0;
    int count = to_array(n, rd, wr, ex, fds, STACK_FDS);
    if (count < 0) {
        fds = malloc((size_t)n * sizeof *fds);
        count = fds ? to_array(n, rd, wr, ex, fds, n) : 0;
    }
    int r = count > 0 ? shs_poll_any(fds, (nfds_t)count, ts, mask, native) : 0;
    if (*native && count > 0 && shs_poll_uncounted(fds, (nfds_t)count) && shs_list_thread()) {
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

/* Descriptors of `rd` with kept bytes: those are readable, whatever the kernel says. */
static int kept_readable(int n, const fd_set *rd, fd_set *out)
{
    int found = 0;
    FD_ZERO(out);
    for (int fd = 0; rd && fd < n && fd < FD_SETSIZE; fd++) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (FD_ISSET(fd, rd) && shs_kept_polled(&p, 1)) {
            FD_SET(fd, out);
            found++;
        }
    }
    return found;
}

/* Add them to the kernel's answer. */
static int with_kept(int n, fd_set *rd, const fd_set *kept, int r)
{
    for (int fd = 0; r >= 0 && fd < n; fd++)
        if (FD_ISSET(fd, kept) && !FD_ISSET(fd, rd)) {
            FD_SET(fd, rd);
            r++;
        }
    return r;
}

static bool has_kept(int n, fd_set *rd, fd_set *kept)
{
    return SHS_UNLIKELY(shs_proc.kept) && n > 0 && n <= FD_SETSIZE && good(n, rd) && kept_readable(n, rd, kept);
}

int shs_i_select(int n, fd_set *rd, fd_set *wr, fd_set *ex, struct timeval *timeout)
{
    bool native;
    struct timespec ts = {0, 0};
    if (timeout)
        ts = (struct timespec){timeout->tv_sec, timeout->tv_usec * 1000L};
    uint64_t start = timeout ? shs_now() : 0;
    fd_set kept;
    if (has_kept(n, rd, &kept)) {
        struct timeval zero = {0, 0};
        return with_kept(n, rd, &kept, shs_n_select(n, rd, wr, ex, &zero));
    }
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
    fd_set kept;
    if (has_kept(n, rd, &kept)) {
        struct timespec zero = {0, 0};
        return with_kept(n, rd, &kept, shs_n_pselect(n, rd, wr, ex, &zero, sigmask));
    }
    int r = select_any(n, rd, wr, ex, timeout, sigmask, &native);
    return native ? shs_n_pselect(n, rd, wr, ex, timeout, sigmask) : r;
}
