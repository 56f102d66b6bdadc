#include "endpoint/fds.h"

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

void shs_fd_drop(int fd)
{
    if ((unsigned)fd < TOP)
        __atomic_fetch_and(&own[fd / 8], (uint8_t)~(1 << (fd % 8)), __ATOMIC_RELAXED);
    shs_sys_close(fd);
}

int shs_fd_high(int fd)
{
    struct rlimit limit;
    if (fd < 0 || SHS_SYS(getrlimit(RLIMIT_NOFILE, &limit)) != 0)
        return fd;
    rlim_t top = limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > TOP ? TOP : limit.rlim_cur;
    /* leave the lower three quarters to the program; few programs look further up */
    long high = shs_sys_fcntl(fd, F_DUPFD_CLOEXEC, (long)(top - top / 4));
    if (high < 0)
        return mark(fd);
    shs_sys_close(fd);
    return mark((int)high);
}
