/*
 * Executing another program: execve and kin, posix_spawn, and the shells that libc starts. Whatever it is, it gets the descriptors that are
 * not close-on-exec; where it will not be preloaded, those that are lifted are handed over first. It is preloaded where it can be, whatever
 * environment it is given (follow.h). In a vfork child the handlers run on its parent's memory, for the parent's thread, which waits.
 * In the order of events:
 *
 * 1  shs_preload_of: what will its environment say of the library?
 * 2  shs_before_exec: will the program have it? What it will use natively is handed over.
 * 3  shs_follow, where the environment lacks it and the program can have it: the call is made with a copy. Else it is made as it came.
 */
#include "common.h"

#include <alloca.h>
#include <stdarg.h>
#include <stdlib.h>

#include "intercepts.gen.h"
#include "preload/follow.h"
#include "preload/outside.h"
#include "preload/restart.h"
#include "preload/standin.h"
#include "preload/wire.h"
#include "shm/sys.h"

/* A program that is to be executed, and how. */
struct exec {
    long (*call)(const struct exec *e, char *const *envp); /* what is left to do: -errno, or what libc's function returns */
    const char *path;                                      /* NULL: the file of fd */
    int fd;
    bool search, child; /* in PATH; in a process of its own */
    char *const *argv, *const *envp;
    int dirfd, flags; /* of execveat, and its path */
    const char *at;
    pid_t *pid; /* of posix_spawn */
    const posix_spawn_file_actions_t *actions;
    const posix_spawnattr_t *attributes;
};

static long run(const void *what, char *const *envp)
{
    const struct exec *e = what;
    return e->call(e, envp);
}

static long before(const struct exec *e, struct shs_preload *preload)
{
    /* No call of ours closes what is close-on-exec when the program takes the place of this one, and the kernel ends only what it has
     * itself: nothing stays an engine's. */
    if (SHS_UNLIKELY(shs_proc.wired && !e->child && !shs_proc.forked && !shs_self.vfork && !shs_proc.quiet))
        shs_wire_leave_all();
    return shs_before_exec(e->path, e->fd, e->search, e->child || shs_self.vfork, preload);
}

/* The kernel takes no larger environment (E2BIG), or there is no memory for one: the program gets what it was given. */
static bool too_large(long r)
{
    return r == -E2BIG || r == -ENOMEM || r == E2BIG || r == ENOMEM;
}

static long execute(const struct exec *e)
{
    struct shs_preload preload = shs_preload_of(e->envp);
    long r = before(e, &preload);
    if (r == 0 && preload.how == SHS_PRELOAD_ADD) {
        r = shs_follow(e->envp, run, e);
        if (!too_large(r))
            return r;
        preload.how = SHS_PRELOAD_NOT;
        r = before(e, &preload);
    }
    return r < 0 ? r : e->call(e, e->envp);
}

static long call_execve(const struct exec *e, char *const *envp)
{
    return shs_n_execve(e->path, e->argv, envp);
}

static long call_execvpe(const struct exec *e, char *const *envp)
{
    return shs_n_execvpe(e->path, e->argv, envp);
}

int shs_i_execve(const char *path, char *const *argv, char *const *envp)
{
    return (int)execute(&(struct exec){.call = call_execve, .path = path, .fd = -1, .argv = argv, .envp = envp});
}

int shs_i_execv(const char *path, char *const *argv)
{
    return shs_i_execve(path, argv, environ);
}

int shs_i_execvp(const char *file, char *const *argv)
{
    return shs_i_execvpe(file, argv, environ);
}

int shs_i_execvpe(const char *file, char *const *argv, char *const *envp)
{
    return (int)execute(&(struct exec){.call = call_execvpe, .path = file, .fd = -1, .search = true, .argv = argv, .envp = envp});
}

static long call_fexecve(const struct exec *e, char *const *envp)
{
    return shs_n_fexecve(e->fd, e->argv, envp);
}

int shs_i_fexecve(int fd, char *const *argv, char *const *envp)
{
    return (int)execute(&(struct exec){.call = call_fexecve, .fd = fd, .argv = argv, .envp = envp});
}

/* The program's file, for a look: -errno where it cannot be had, which the call itself will say. */
static int file_at(int dirfd, const char *path, int flags)
{
    long r = SHS_SYS(syscall(SYS_openat, dirfd, path, O_RDONLY | O_CLOEXEC | (flags & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0)));
    return r == -ENOENT && (flags & AT_EMPTY_PATH) && !*path ? dirfd : (int)r; /* the kernel has read it: so can we */
}

static long call_execveat(const struct exec *e, char *const *envp)
{
    return SHS_SYS(syscall(SYS_execveat, e->dirfd, e->at, e->argv, envp, e->flags));
}

int shs_i_execveat(int dirfd, const char *path, char *const *argv, char *const *envp, int flags)
{
    int fd = file_at(dirfd, path, flags);
    long r =
        execute(&(struct exec){.call = call_execveat, .fd = fd, .argv = argv, .envp = envp, .dirfd = dirfd, .at = path, .flags = flags});
    if (fd >= 0 && fd != dirfd)
        shs_sys_close(fd);
    return (int)r;
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

static long call_spawn(const struct exec *e, char *const *envp)
{
    return e->search ? shs_n_posix_spawnp(e->pid, e->path, e->actions, e->attributes, e->argv, envp)
                     : shs_n_posix_spawn(e->pid, e->path, e->actions, e->attributes, e->argv, envp);
}

static int spawn(pid_t *pid, const char *path, bool search, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                 char *const *argv, char *const *envp)
{
    const struct exec e = {.call = call_spawn,
                           .path = path,
                           .fd = -1,
                           .search = search,
                           .child = true,
                           .argv = argv,
                           .envp = envp,
                           .pid = pid,
                           .actions = actions,
                           .attributes = attributes};
    uint32_t begun = shs_share_begin();
    long r = execute(&e);
    shs_share_end(begun);
    return (int)(r < 0 ? -r : r);
}

int shs_i_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                      char *const *argv, char *const *envp)
{
    return spawn(pid, path, false, actions, attributes, argv, envp);
}

int shs_i_posix_spawnp(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                       char *const *argv, char *const *envp)
{
    return spawn(pid, path, true, actions, attributes, argv, envp);
}

/* Which program will have it is not known yet. */
int shs_i_posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int to)
{
    struct shs_fd *f = shs_fd_look(fd);
    long r = 0;
    shs_wire_leave_for(fd);
    (void)shs_stand_in(f, fd, false);
    if (f && f->state >= SHS_FD_NEW && f->state <= SHS_FD_PAIRED) {
        shs_fd_shared(f);
        r = shs_hand_over(f, SHS_REASON_OUTSIDE_HOLDER, false);
        shs_gone_abroad(fd);
    }
    return r < 0 && r != -EPIPE ? (int)-r : shs_n_posix_spawn_file_actions_adddup2(actions, fd, to);
}

/* What libc's shell is to do, and what it will use is handed over: -errno. `made`: to be freed, where it is not the command itself. */
static long shell(const char *command, char **made)
{
    struct shs_preload preload = shs_preload_of(environ);
    *made = preload.how == SHS_PRELOAD_ADD ? shs_follow_command(command) : NULL;
    if (preload.how == SHS_PRELOAD_ADD && !*made)
        preload.how = SHS_PRELOAD_NOT;
    long r = shs_before_shell(&preload);
    if (r < 0 || preload.how != SHS_PRELOAD_ADD) {
        free(*made);
        *made = NULL;
    }
    return r;
}

int shs_i_system(const char *command)
{
    char *made = NULL;
    long r = command ? shell(command, &made) : 0;
    r = r < 0 ? r : shs_n_system(made ? made : command);
    free(made);
    return (int)r;
}

intptr_t shs_i_popen(const char *command, const char *mode)
{
    char *made = NULL;
    long r = command ? shell(command, &made) : 0;
    intptr_t file = r < 0 ? r : shs_n_popen(made ? made : command, mode);
    free(made);
    return file;
}
