/*
 * Purpose: the system calls of the core, as functions that return -errno, do not touch errno for the program and are no
 * cancellation points: they are made while locks are held, where a thread must not vanish.
 * Who may call: the core; the preload library uses libc's own functions where a call may block without a lock.
 */
#pragma once
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/stat.h>

#include "common.h"

#define SHS_SYS(call)           \
    ({                          \
        int saved_ = errno;     \
        long r_ = (long)(call); \
        if (r_ < 0)             \
            r_ = -errno;        \
        errno = saved_;         \
        r_;                     \
    })

static inline long shs_sys_recvmsg(int fd, struct msghdr *msg, int flags)
{
    return SHS_SYS(syscall(SYS_recvmsg, fd, msg, flags));
}

static inline long shs_sys_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    return SHS_SYS(syscall(SYS_sendmsg, fd, msg, flags));
}

static inline long shs_sys_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    return SHS_SYS(syscall(SYS_getsockopt, fd, level, name, value, len));
}

static inline long shs_sys_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    return SHS_SYS(syscall(SYS_setsockopt, fd, level, name, value, len));
}

static inline long shs_sys_ioctl(int fd, unsigned long request, void *arg)
{
    return SHS_SYS(syscall(SYS_ioctl, fd, request, arg));
}

static inline long shs_sys_fcntl(int fd, int cmd, long arg)
{
#ifdef SYS_fcntl64
    return SHS_SYS(syscall(SYS_fcntl64, fd, cmd, arg));
#else
    return SHS_SYS(syscall(SYS_fcntl, fd, cmd, arg));
#endif
}

static inline long shs_sys_close(int fd)
{
    return SHS_SYS(syscall(SYS_close, fd));
}

static inline long shs_sys_shutdown(int fd, int how)
{
    return SHS_SYS(syscall(SYS_shutdown, fd, how));
}

static inline uint32_t shs_sys_gettid(void)
{
    return (uint32_t)syscall(SYS_gettid);
}

/* poll(2) for so many milliseconds, retried by nobody. */
static inline long shs_sys_poll(struct pollfd *fds, unsigned n, int ms)
{
    struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
    return SHS_SYS(syscall(SYS_ppoll, fds, n, &ts, NULL, 8));
}

/* What statx(2) says of a descriptor, or of a path where fd is AT_FDCWD (libc's stat is too new for old systems). */
struct shs_stat {
    uint64_t ino, size;
    uint32_t uid, mode;
};

static inline long shs_sys_stat(int fd, const char *path, struct shs_stat *out)
{
    struct statx st;
    long r = SHS_SYS(syscall(SYS_statx, fd, path, fd >= 0 ? 0x1000 /* AT_EMPTY_PATH */ : 0, 0x7ff /* STATX_BASIC_STATS */, &st));
    if (r == 0)
        *out = (struct shs_stat){st.stx_ino, st.stx_size, st.stx_uid, st.stx_mode};
    return r;
}
