#include "endpoint/fds.h"

#include <sys/resource.h>

#include "shm/sys.h"

int shs_fd_high(int fd)
{
    struct rlimit limit;
    if (fd < 0 || SHS_SYS(getrlimit(RLIMIT_NOFILE, &limit)) != 0)
        return fd;
    rlim_t top = limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > 65536 ? 65536 : limit.rlim_cur;
    /* leave the lower three quarters to the program; few programs look further up */
    long high = shs_sys_fcntl(fd, F_DUPFD_CLOEXEC, (long)(top - top / 4));
    if (high < 0)
        return fd;
    shs_sys_close(fd);
    return (int)high;
}
