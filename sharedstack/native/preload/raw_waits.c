/*
 * The waits of raw.h: system calls whose time-outs and masks are not those of libc's functions. ppoll and pselect6 write back the time that is
 * left; a mask is the kernel's, 64 bits, and comes with its size; 32-bit programs have each twice, for two sizes of time. What
 * cannot be read, or is out of its bounds, is for the kernel to refuse.
 */
#include "preload/raw.h"

#include "intercepts.gen.h"
#include "preload/gate.h"
#include "preload/signals.h"
#include "shm/probe.h"

#define MASK_BYTES 8 /* the kernel's sigset_t, on all machines that we know */

struct wide { /* the kernel's timespec for 64-bit time */
    int64_t sec, nsec;
};

/* A time-out of the program's: NULL is none. */
struct timed {
    void *at;
    bool wide;
    uint64_t start, all; /* ns; all 0: for ever, or not at all */
    struct timespec ts;  /* for us */
};

static bool timed(struct timed *t, long at, bool wide)
{
    struct wide w = {0, 0};
    *t = (struct timed){.at = (void *)at, .wide = wide};
    if (!at)
        return true;
    if (!shs_readable(t->at, wide ? sizeof w : sizeof t->ts))
        return false;
    memcpy(wide ? (void *)&w : (void *)&t->ts, t->at, wide ? sizeof w : sizeof t->ts);
    if (!wide)
        w = (struct wide){t->ts.tv_sec, t->ts.tv_nsec};
    if (sizeof w.nsec != sizeof t->ts.tv_nsec)
        w.nsec = (int32_t)w.nsec; /* what fills it up is not looked at */
    if (w.sec < 0 || w.nsec < 0 || w.nsec > 999999999)
        return false;
    int64_t most = sizeof t->ts.tv_sec == 4 ? INT32_MAX : INT64_MAX; /* no time-out of 68 years is too long once it has been cut to that */
    t->ts = (struct timespec){(time_t)(w.sec < most ? w.sec : most), (long)w.nsec};
    t->start = shs_now();
    t->all = w.sec > 1000000000 ? 0 : (uint64_t)w.sec * 1000000000ull + (uint64_t)w.nsec;
    return true;
}

static struct timespec *limit(struct timed *t)
{
    return t->at ? &t->ts : NULL;
}

/* As the kernel does, whatever came of the wait; where it cannot be written, all is as it was. */
static void write_back(const struct timed *t)
{
    if (!t->at || !t->all)
        return;
    uint64_t gone = shs_now() - t->start, left = gone < t->all ? t->all - gone : 0;
    struct wide w = {(int64_t)(left / 1000000000ull), (int64_t)(left % 1000000000ull)};
    struct timespec ts = {(time_t)w.sec, (long)w.nsec};
    size_t n = t->wide ? sizeof w : sizeof ts;
    if (shs_writable(t->at, n))
        memcpy(t->at, t->wide ? (void *)&w : (void *)&ts, n);
}

/* The kernel's mask, in one of libc's; false: not one. */
static bool masked(sigset_t *mask, const void *at, long size)
{
    sigemptyset(mask);
    if (!at)
        return true;
    if (size != MASK_BYTES || !shs_readable(at, MASK_BYTES))
        return false;
    memcpy(mask, at, MASK_BYTES);
    return true;
}

/* Has there been no internet socket so far? Then nothing of the program is looked into, since a bad pointer would be the end of it. */
static bool unguarded(void)
{
    shs_meet_inherited();
    return !shs_guarding;
}

static long wait_ppoll(const struct shs_raw *c, bool wide)
{
    struct timed t;
    sigset_t mask;
    const void *given = (const void *)c->arg[3];
    if (unguarded() || !timed(&t, c->arg[2], wide) || !masked(&mask, given, c->arg[4]))
        return shs_raw_plain(c);
    long r = shs_i_ppoll((struct pollfd *)c->arg[0], (unsigned)c->arg[1], limit(&t), given ? &mask : NULL);
    write_back(&t);
    return r;
}

long shs_raw_ppoll(const struct shs_raw *c)
{
    return wait_ppoll(c, false);
}

static long wait_select(const struct shs_raw *c, const long *arg)
{
    struct timeval *timeout = (struct timeval *)arg[4], tv = {0, 0};
    if (unguarded())
        return shs_raw_plain(c);
    if (timeout) {
        if (!shs_readable(timeout, sizeof *timeout) || timeout->tv_sec < 0 || timeout->tv_usec < 0)
            return shs_raw_plain(c);
        tv = (struct timeval){timeout->tv_sec + timeout->tv_usec / 1000000, timeout->tv_usec % 1000000};
    }
    bool waits = tv.tv_sec || tv.tv_usec;
    long r = shs_i_select((int)arg[0], (fd_set *)arg[1], (fd_set *)arg[2], (fd_set *)arg[3], timeout ? &tv : NULL);
    if (timeout && waits && shs_writable(timeout, sizeof *timeout))
        *timeout = tv;
    return r;
}

long shs_raw_select(const struct shs_raw *c)
{
    return wait_select(c, c->arg);
}

static long wait_pselect(const struct shs_raw *c, bool wide)
{
    struct {
        const void *mask;
        size_t size;
    } given = {NULL, 0};
    struct timed t;
    sigset_t mask;
    if (unguarded())
        return shs_raw_plain(c);
    if (c->arg[5]) {
        if (!shs_readable((const void *)c->arg[5], sizeof given))
            return shs_raw_plain(c);
        memcpy(&given, (const void *)c->arg[5], sizeof given);
    }
    if (!timed(&t, c->arg[4], wide) || !masked(&mask, given.mask, (long)given.size))
        return shs_raw_plain(c);
    long r =
        shs_i_pselect((int)c->arg[0], (fd_set *)c->arg[1], (fd_set *)c->arg[2], (fd_set *)c->arg[3], limit(&t), given.mask ? &mask : NULL);
    write_back(&t);
    return r;
}

long shs_raw_pselect6(const struct shs_raw *c)
{
    return wait_pselect(c, false);
}

#if __SIZEOF_POINTER__ == 4
long shs_raw_ppoll64(const struct shs_raw *c)
{
    return wait_ppoll(c, true);
}

long shs_raw_pselect64(const struct shs_raw *c)
{
    return wait_pselect(c, true);
}

long shs_raw_select_packed(const struct shs_raw *c)
{
    const long *arg = (const long *)c->arg[0];
    return !unguarded() && shs_readable(arg, 5 * sizeof *arg) ? wait_select(c, arg) : shs_raw_plain(c);
}
#endif

/* Of any other the library knows nothing that the kernel does not. This one has to know who sleeps in it, whatever its members are so far. */
static bool known_set(int epfd)
{
    const struct shs_fd *f = shs_fd_look(epfd);
    bool known = f && f->state == SHS_FD_EPOLL && f->epoll;
    if (known)
        shs_guard_memory();
    return known;
}

long shs_raw_epoll_pwait(const struct shs_raw *c)
{
    sigset_t mask;
    const void *given = (const void *)c->arg[4];
    if (!known_set((int)c->arg[0]) || !masked(&mask, given, c->arg[5]))
        return shs_raw_plain(c);
    return shs_i_epoll_pwait((int)c->arg[0], (struct epoll_event *)c->arg[1], (int)c->arg[2], (int)c->arg[3], given ? &mask : NULL);
}

long shs_raw_epoll_pwait2(const struct shs_raw *c)
{
    struct timed t;
    sigset_t mask;
    const void *given = (const void *)c->arg[4];
    if (!known_set((int)c->arg[0]) || !timed(&t, c->arg[3], true) || !masked(&mask, given, c->arg[5]))
        return shs_raw_plain(c);
    return shs_i_epoll_pwait2((int)c->arg[0], (struct epoll_event *)c->arg[1], (int)c->arg[2], limit(&t), given ? &mask : NULL);
}
