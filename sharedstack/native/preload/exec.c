/*
 * Executing another program: execve and kin, posix_spawn, and the shells that libc starts. Whatever it is, it gets the descriptors that are not
 * close-on-exec; where it will not be preloaded, those that are lifted are handed over first. In a vfork child the handlers run on its
 * parent's memory, for the parent's thread, which waits.
 */
#include "common.h"

#include <alloca.h>
#include <stdarg.h>
#include <stdlib.h>

#include "intercepts.gen.h"
#include "preload/outside.h"
#include "preload/restart.h"
#include "preload/wire.h"
#include "shm/sys.h"

/* As shs_before_exec, where the program takes the place of this one. No call of ours closes what is close-on-exec then, and the kernel ends only what it
 * has itself: nothing stays an engine's. */
static long before(const char *path, int fd, bool search, char *const *envp)
{
    if (SHS_UNLIKELY(shs_proc.wired && !shs_proc.forked && !shs_self.vfork && !shs_proc.quiet))
        shs_wire_leave_all();
    return shs_before_exec(path, fd, search, envp, shs_self.vfork);
}

static int execute(const char *path, char *const *argv, char *const *envp, bool search)
{
    long r = before(path, -1, search, envp);
    if (r < 0)
        return (int)r;
    return search ? shs_n_execvpe(path, argv, envp) : shs_n_execve(path, argv, envp);
}

int shs_i_execve(const char *path, char *const *argv, char *const *envp)
{
    return execute(path, argv, envp, false);
}

int shs_i_execv(const char *path, char *const *argv)
{
    return execute(path, argv, environ, false);
}

int shs_i_execvp(const char *file, char *const *argv)
{
    return execute(file, argv, environ, true);
}

int shs_i_execvpe(const char *file, char *const *argv, char *const *envp)
{
    return execute(file, argv, envp, true);
}

int shs_i_fexecve(int fd, char *const *argv, char *const *envp)
{
    long r = before(NULL, fd, false, envp);
    return r < 0 ? (int)r : shs_n_fexecve(fd, argv, envp);
}

/* The program's file, for a look: -errno where it cannot be had, which the call itself will say. */
static int file_at(int dirfd, const char *path, int flags)
{
    long r = SHS_SYS(syscall(SYS_openat, dirfd, path, O_RDONLY | O_CLOEXEC | (flags & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0)));
    return r == -ENOENT && (flags & AT_EMPTY_PATH) && !*path ? dirfd : (int)r; /* the kernel has read it: so can we */
}

int shs_i_execveat(int dirfd, const char *path, char *const *argv, char *const *envp, int flags)
{
    int fd = file_at(dirfd, path, flags);
    long r = before(NULL, fd, false, envp);
    if (fd >= 0 && fd != dirfd)
        shs_sys_close(fd);
    return r < 0 ? (int)r : (int)SHS_SYS(syscall(SYS_execveat, dirfd, path, argv, envp, flags));
}

int shs_exec_list(const char *path, const char *arg, va_list args, bool search, bool env)
{
    va_list again;
    size_t n = 1;
    va_copy(again, args);
    for (const char *next = arg; next; n++)
        next = va_arg(again, const char *);
    va_end(again);
    char **argv = alloca((n + 1) * sizeof *argv);
    argv[0] = (char *)(uintptr_t)arg;
    for (size_t i = 0; argv[i]; i++)
        argv[i + 1] = va_arg(args, char *);
    char *const *envp = env ? va_arg(args, char *const *) : environ;
    int r = search ? execvpe(path, argv, envp) : execve(path, argv, envp);
    return r;
}

int shs_i_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                      char *const *argv, char *const *envp)
{
    long r = shs_before_exec(path, -1, false, envp, true);
    return r < 0 ? (int)-r : shs_n_posix_spawn(pid, path, actions, attributes, argv, envp);
}

int shs_i_posix_spawnp(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                       char *const *argv, char *const *envp)
{
    long r = shs_before_exec(path, -1, true, envp, true);
    return r < 0 ? (int)-r : shs_n_posix_spawnp(pid, path, actions, attributes, argv, envp);
}

/* Which program will have it is not known yet. */
int shs_i_posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int to)
{
    struct shs_fd *f = shs_fd_look(fd);
    long r = 0;
    shs_wire_leave_for(fd);
    if (f && f->state >= SHS_FD_NEW && f->state <= SHS_FD_PAIRED) {
        shs_fd_shared(f);
        r = shs_hand_over(f, SHS_REASON_OUTSIDE_HOLDER, false);
    }
    return r < 0 && r != -EPIPE ? (int)-r : shs_n_posix_spawn_file_actions_adddup2(actions, fd, to);
}

int shs_i_system(const char *command)
{
    long r = command ? shs_before_shell() : 0;
    return r < 0 ? (int)r : shs_n_system(command);
}

intptr_t shs_i_popen(const char *command, const char *mode)
{
    long r = shs_before_shell();
    return r < 0 ? r : shs_n_popen(command, mode);
}
