/*
 * What libc does to descriptors inside itself: it closes or replaces one, or takes one from a process. The table learns it here.
 */
#include "common.h"

#include <stdlib.h>

#include "endpoint/lift.h"
#include "intercepts.gen.h"
#include "preload/boundary.h"
#include "preload/dgram.h"
#include "preload/epoll.h"
#include "preload/gate.h"
#include "preload/member.h"
#include "preload/outside.h"
#include "preload/restart.h"
#include "preload/wire.h"
#include "shm/sys.h"

static intptr_t reopen(const char *path, const char *mode, FILE *stream, intptr_t (*call)(const char *, const char *, FILE *))
{
    int fd = stream ? fileno_unlocked(stream) : -1;
    if (fd >= 0)
        shs_fd_closing(fd); /* whatever comes of it */
    return call(path, mode, stream);
}

intptr_t shs_i_freopen(const char *path, const char *mode, FILE *stream)
{
    return reopen(path, mode, stream, shs_n_freopen);
}

intptr_t shs_i_freopen64(const char *path, const char *mode, FILE *stream)
{
    return reopen(path, mode, stream, shs_n_freopen64);
}

/* Descriptors 0 to 2 are a terminal, or /dev/null, now. */
static void streams_replaced(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        struct shs_fd *f = shs_fd_look(fd);
        if (f && f->state == SHS_FD_PAIRED)
            (void)shs_fd_lost(f); /* its socket is closed already: the record may be another's */
        else
            shs_fd_closing(fd);
    }
}

int shs_i_daemon(int nochdir, int noclose)
{
    int r = shs_n_daemon(nochdir, noclose);
    if (r == 0 && !noclose) /* the child: fork(3) has told it that what it has is shared */
        streams_replaced();
    return r;
}

int shs_i_login_tty(int fd)
{
    int r = shs_n_login_tty(fd);
    if (r == 0) {
        streams_replaced();
        if (fd > 2)
            shs_fd_reset(fd);
    }
    return r;
}

int shs_i_forkpty(int *master, char *name, const struct termios *settings, const struct winsize *size)
{
    int r = shs_n_forkpty(master, name, settings, size);
    if (r == 0)
        streams_replaced();
    return r;
}

static pid_t (*real_fork)(void);

static long call_fork(const void *nothing)
{
    (void)nothing;
    pid_t r = real_fork();
    return r < 0 ? -errno : r;
}

/* fork without handlers, and so without ours: by hand. */
pid_t _Fork(void);
SHS_EXPORT pid_t _Fork(void)
{
    if (!real_fork)
        real_fork = (pid_t (*)(void))shs_next("_Fork");
    if (!real_fork) {
        errno = ENOSYS;
        return -1;
    }
    return shs_plain_end() || shs_self.vfork ? real_fork() : (pid_t)shs_errno(shs_fork_by(call_fork, NULL));
}

/* Of which process is a pidfd? 0: cannot be told. */
static pid_t process_of(int pidfd)
{
    char path[40], text[512];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    int file = (int)SHS_SYS(syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC));
    long n = file < 0 ? 0 : SHS_SYS(read(file, text, sizeof text - 1));
    if (file >= 0)
        shs_sys_close(file);
    text[n > 0 ? n : 0] = 0;
    const char *line = strstr(text, "Pid:");
    return line ? (pid_t)strtol(line + 4, NULL, 10) : 0;
}

/* A set tells who its members are, which may be taken after it. (Of several sets, the last.) */
static void meet_set(int fd, const struct shs_fd *f)
{
    static int set = -1;
    if (f->state == SHS_FD_KERNEL)
        __atomic_store_n(&set, fd, __ATOMIC_RELAXED);
    if (f->state == SHS_FD_KERNEL || f->state == SHS_FD_PAIRED)
        shs_set_meet(__atomic_load_n(&set, __ATOMIC_RELAXED));
}

/* A copy of another process's, which does not hear of it: of a connection that it has not registered the record is made here, for it to find. */
static void taken(int fd)
{
    shs_fd_reset(fd);
    shs_gate_meet(fd);
    struct shs_fd *f = shs_fd_look(fd);
    if (!f)
        return;
    shs_dgram_taken(fd);
    meet_set(fd, f);
    if (f->state == SHS_FD_REG || f->state == SHS_FD_PAIRED) {
        shs_fd_shared(f);
        if (!f->udp && (shs_load32(&shs_fd_record(f)->wire) & SHS_WIRE_STATE_MASK) != SHS_WIRE_NONE)
            shs_wire_ask(SHS_MSG_LOWER, f->ep1 - 1, shs_fd_record(f)->cookie, -1, NULL);
    } else if (f->state == SHS_FD_TCP && shs_attach(fd) && shs_join_try()) {
        const struct shs_who *who = shs_who();
        int r = who ? shs_register(&shs_proc.env, who, fd) : 0;
        struct shs_endpoint *ep = r > 0 ? shs_endpoint_at(shs_proc.env.stack, (uint32_t)r) : NULL;
        if (ep) {
            shs_set32(&ep->why_rx, SHS_REASON_FORKED);
            shs_set32(&ep->why_tx, SHS_REASON_FORKED);
            shs_endpoint_flag(ep, SHS_EPF_SHARED | SHS_EPF_KERNEL_ONLY);
        }
        shs_join_unlock();
    }
}

int shs_i_pidfd_getfd(int pidfd, int fd, unsigned int flags)
{
    int r = (int)SHS_SYS(syscall(438 /* SYS_pidfd_getfd, the same on all machines */, pidfd, fd, flags));
    if (r < 0)
        return r;
    shs_meet_inherited();
    if (process_of(pidfd) == getpid())
        return shs_fd_copied(fd, r);
    taken(r);
    return r;
}
