#include "preload/tell.h"

#include "preload/attach.h"
#include "preload/member.h"
#include "shm/slot.h"
#include "shm/sys.h"

void shs_tell_slow(struct shs_fd *f, int fd)
{
    f->told = true;
    if (f->why)
        shs_tell_that(fd, f->why);
}

void shs_tell_that(int fd, uint32_t why)
{
    struct shs_stat st;
    if (shs_attach(fd) && shs_who() && shs_sys_stat(fd, "", &st) == 0)
        shs_slot_tell(shs_slot_at(shs_proc.env.stack, shs_proc.env.slot1 - 1), st.ino, why);
}
