#include "endpoint/fds.h"

#include <sched.h>
#include <sys/resource.h>

#include "shm/sys.h"

#define TOP 65536
static uint8_t own[TOP / 8];

bool shs_fd_own(int fd)
{
    return (unsigned)fd < TOP && (__atomic_load_n(&own[fd / 8], __ATOMIC_RELAXED) >> (fd % 8) & 1);
}

static int mark(int fd)
{
    if ((unsigned)fd < TOP)
        __atomic_fetch_or(&own[fd / 8], (uint8_t)(1 << (fd % 8)), __ATOMIC_RELAXED);
    return fd;
}

void shs_fd_leave(int fd)
{
    if ((unsigned)fd < TOP)
        __atomic_fetch_and(&own[fd / 8], (uint8_t)~(1 << (fd % 8)), __ATOMIC_RELAXED);
}

void shs_fd_drop(int fd)
{
    shs_fd_leave(fd);
    shs_sys_close(fd);
}

/* A copy with a high number, or -errno. */
static long high_copy(int fd)
{
    struct rlimit limit;
    long r = SHS_SYS(getrlimit(RLIMIT_NOFILE, &limit));
    if (r != 0)
        return r;
    rlim_t top = limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > TOP ? TOP : limit.rlim_cur;
    /* leave the lower three quarters to the program; few programs look further up */
    return shs_sys_fcntl(fd, F_DUPFD_CLOEXEC, (long)(top - top / 4));
}

int shs_fd_high(int fd)
{
    if (fd < 0)
        return fd;
    long high = high_copy(fd);
    if (high < 0)
        return mark(fd);
    shs_sys_close(fd);
    return mark((int)high);
}

static uint32_t users;

void shs_fd_begin(void)
{
    shs_add32(&users, 1);
}

void shs_fd_end(void)
{
    shs_add32(&users, ~0u);
}

SHS_AT_FORK void shs_fd_forked(void)
{
    if (shs_load32(&users)) /* else its page is not copied */
        shs_store32(&users, 0);
}

int shs_fd_copy(int fd)
{
    long high = high_copy(fd);
    return high < 0 ? (int)high : mark((int)high);
}

bool shs_fd_wait_unused(void)
{
    uint64_t until = shs_now() + 1000000000ull;
    shs_fence(); /* the new number is stored: who begins from now on loads it */
    while (shs_load32(&users) && shs_now() < until)
        sched_yield();
    return !shs_load32(&users);
}
