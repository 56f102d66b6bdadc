/*
 * Purpose: say why a socket is not lifted where there is no record to say it in: it will never have one. `inspect --why` finds it in the process's
 * slot (slot.told), the last 64 of them.
 * Who may call: the thread that is in a call on the descriptor, in no lock. Once for each descriptor.
 */
#pragma once
#include "preload/process.h"

/* f->why is why; attaches the process if need be. */
void shs_tell_slow(struct shs_fd *f, int fd);
/* For now: it may have a record later, which then says it. */
void shs_tell_that(int fd, uint32_t why);
static inline void shs_tell(struct shs_fd *f, int fd)
{
    if (SHS_UNLIKELY(!f->told))
        shs_tell_slow(f, fd);
}
