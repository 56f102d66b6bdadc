/*
 * The program wants a number that is a descriptor of the library's (dup2, dup3): the library's moves out of the way first.
 */
#include "preload/own.h"

#include "endpoint/fds.h"
#include "preload/epoll.h"
#include "preload/process.h"
#include "preload/wire.h"
#include "shm/sys.h"

static bool replace(int *kept, int from, int to)
{
    return __atomic_load_n(kept, __ATOMIC_RELAXED) == from &&
           __atomic_compare_exchange_n(kept, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static bool replace_caller(int from, int to)
{
    struct shs_fd *f;
    for (int fd = 0; (f = shs_fd_next(&fd)); fd++)
        if (f->state == SHS_FD_EPOLL && f->epoll && replace(&f->epoll->caller, from, to))
            return true;
    return false;
}

int shs_make_way(int fd)
{
    if (SHS_LIKELY(!shs_fd_own(fd)))
        return 0;
    int to = shs_fd_copy(fd);
    if (to < 0)
        return -EBUSY;
    if (!replace(&shs_proc.env.bell_fd, fd, to) && !replace(&shs_proc.env.bulk_fd, fd, to) && !shs_bell_moved(fd, to) &&
        !shs_wire_moved(fd, to) && !replace_caller(fd, to)) {
        shs_fd_drop(to); /* just being made, or about to go */
        return -EBUSY;
    }
    if (!shs_fd_wait_unused())
        return -EBUSY;
    shs_fd_leave(fd);
    return 0;
}
