#include "preload/tell.h"

#include "preload/attach.h"
#include "preload/member.h"
#include "shm/slot.h"
#include "shm/sys.h"

void shs_tell_slow(struct shs_fd *f, int fd)
{
    struct shs_stat st;
    f->told = true;
    if (f->why && shs_attach(fd) && shs_who() && shs_sys_stat(fd, "", &st) == 0)
        shs_slot_tell(shs_slot_at(shs_proc.env.stack, shs_proc.env.slot1 - 1), st.ino, f->why);
}
