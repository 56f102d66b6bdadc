/*
 * posix_spawn: the child runs another program at once, perhaps one without the library. A lifted socket that it gets is lowered for good, so that the
 * child finds the bytes in the kernel. What is in the ring already can only be received here.
 */
#include "common.h"

#include "intercepts.gen.h"
#include "preload/gate.h"
#include "preload/restart.h"
#include "shm/sys.h"

static void hand_over(struct shs_fd *f)
{
    shs_fd_shared(f);
    if (f->state != SHS_FD_REG && f->state != SHS_FD_PAIRED)
        return;
    struct shs_endpoint *ep = shs_endpoint_at(shs_proc.env.stack, f->ep1);
    __atomic_fetch_or(&ep->flags, SHS_EPF_KERNEL_ONLY, __ATOMIC_SEQ_CST);
    shs_set32(&ep->why_rx, SHS_REASON_OUTSIDE_HOLDER);
    shs_set32(&ep->why_tx, SHS_REASON_OUTSIDE_HOLDER);
    if (f->state == SHS_FD_PAIRED && !f->udp)
        shs_ring_close(f->end.rx);
}

/* Whatever is not close-on-exec, the child gets. */
static void hand_over_all(void)
{
    for (int c = 0; c < SHS_FD_CHUNKS; c++)
        for (int i = 0; shs_fd_chunk[c] && i < SHS_FD_CHUNK; i++) {
            struct shs_fd *f = &shs_fd_chunk[c][i];
            if (f->state >= SHS_FD_NEW && f->state <= SHS_FD_PAIRED && shs_sys_fcntl(c * SHS_FD_CHUNK + i, F_GETFD, 0) == 0)
                hand_over(f);
        }
}

int shs_i_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                      char *const *argv, char *const *envp)
{
    hand_over_all();
    return shs_n_posix_spawn(pid, path, actions, attributes, argv, envp);
}

int shs_i_posix_spawnp(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                       char *const *argv, char *const *envp)
{
    hand_over_all();
    return shs_n_posix_spawnp(pid, path, actions, attributes, argv, envp);
}

int shs_i_posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int to)
{
    struct shs_fd *f = shs_fd_look(fd);
    if (f && f->state >= SHS_FD_NEW && f->state <= SHS_FD_PAIRED)
        hand_over(f);
    return shs_n_posix_spawn_file_actions_adddup2(actions, fd, to);
}
