#include "preload/vfork.h"

#include "preload/boundary.h"
#include "preload/follow.h"
#include "shm/sys.h"

void shs_vfork_begin(void)
{
    shs_self.vfork = true;
}

long shs_vfork_end(long r)
{
    shs_self.vfork = false;
    shs_follow_executed();
    if (r < 0) {
        errno = (int)-r;
        return -1;
    }
    return r;
}

#if !defined(__x86_64__) && !defined(__i386__)
/* No assembly for this machine yet: fork has vfork's meaning but for the speed (POSIX.1-2008 allows it). */
SHS_EXPORT pid_t vfork(void)
{
    return fork();
}

SHS_EXPORT pid_t __vfork(void)
{
    return fork();
}
#endif
