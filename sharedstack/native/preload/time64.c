/*
 * What 32-bit programs with 64-bit time call in place of a function with a time-out: by that function, for which no time-out is too long once it
 * has been cut to 68 years. Time stamps in control data are converted for old programs only, so whatever is received by the kernel alone is received by
 * the twin.
 */
#include "common.h"

#include "intercepts.gen.h"
#include "preload/gate.h"
#include "preload/restart.h"
#include "shm/probe.h"

#if __SIZEOF_POINTER__ == 4
/* An impossible one stays impossible. */
static long seconds(int64_t wide)
{
    return wide > INT32_MAX ? INT32_MAX : wide < 0 ? -1 : (long)wide;
}

/* false: it cannot be read, as the kernel is going to say. */
static bool narrow(const struct shs_timespec64 *wide, struct timespec *ts)
{
    if (wide && !shs_readable(wide, sizeof *wide))
        return false;
    if (wide)
        *ts = (struct timespec){seconds(wide->tv_sec), wide->tv_nsec};
    return true;
}

int shs_i___ppoll64(struct pollfd *fds, nfds_t n, const struct shs_timespec64 *timeout, const sigset_t *sigmask)
{
    struct timespec ts;
    return narrow(timeout, &ts) ? shs_i_ppoll(fds, n, timeout ? &ts : NULL, sigmask) : shs_n___ppoll64(fds, n, timeout, sigmask);
}

int shs_i___pselect64(int n, fd_set *rd, fd_set *wr, fd_set *ex, const struct shs_timespec64 *timeout, const sigset_t *sigmask)
{
    struct timespec ts;
    return narrow(timeout, &ts) ? shs_i_pselect(n, rd, wr, ex, timeout ? &ts : NULL, sigmask)
                                : shs_n___pselect64(n, rd, wr, ex, timeout, sigmask);
}

int shs_i___select64(int n, fd_set *rd, fd_set *wr, fd_set *ex, struct shs_timeval64 *timeout)
{
    if (timeout && (!shs_writable(timeout, sizeof *timeout) || timeout->tv_usec < 0 || timeout->tv_usec > INT32_MAX))
        return shs_n___select64(n, rd, wr, ex, timeout);
    struct timeval tv = {0, 0};
    if (timeout)
        tv = (struct timeval){seconds(timeout->tv_sec), (suseconds_t)timeout->tv_usec};
    int r = shs_i_select(n, rd, wr, ex, timeout ? &tv : NULL);
    if (timeout && timeout->tv_sec <= INT32_MAX) {
        timeout->tv_sec = tv.tv_sec;
        timeout->tv_usec = tv.tv_usec;
    }
    return r;
}

int shs_i___epoll_pwait2_time64(int epfd, struct epoll_event *events, int max, const struct shs_timespec64 *timeout,
                                const sigset_t *sigmask)
{
    struct timespec ts;
    return narrow(timeout, &ts) ? shs_i_epoll_pwait2(epfd, events, max, timeout ? &ts : NULL, sigmask)
                                : shs_n___epoll_pwait2_time64(epfd, events, max, timeout, sigmask);
}

/* Has the library a say in what is received there? Where not, the twin's hazard is to be seen: `g` is left afterwards. */
static bool ours(struct shs_gate *g, int fd)
{
    *g = shs_gate_enter(fd, SHS_RECEIVE);
    bool lowered = g->dgram && (shs_peek32(&g->f->end.ep->flags) & SHS_EPF_KERNEL_ONLY) && !shs_end_waiting(&g->f->end);
    return (g->ring || g->dgram || g->kept) && !lowered;
}

ssize_t shs_i___recvmsg64(int fd, struct msghdr *msg, int flags)
{
    struct shs_gate g;
    bool lifted = ours(&g, fd);
    ssize_t r = lifted ? 0 : shs_n___recvmsg64(fd, msg, flags);
    shs_gate_leave(&g);
    if (!lifted && r >= 0 && msg->msg_controllen)
        shs_received_rights(msg);
    return lifted ? shs_i_recvmsg(fd, msg, flags) : r;
}

int shs_i___recvmmsg64(int fd, struct mmsghdr *vec, unsigned int vlen, int flags, struct shs_timespec64 *timeout)
{
    struct shs_gate g;
    struct timespec ts;
    bool lifted = ours(&g, fd) && narrow(timeout, &ts);
    int r = lifted ? 0 : shs_n___recvmmsg64(fd, vec, vlen, flags, timeout);
    shs_gate_leave(&g);
    return lifted ? shs_i_recvmmsg(fd, vec, vlen, flags, timeout ? &ts : NULL) : r;
}
#endif
