/*
 * How an executor's descriptors come to other processes, and what it may become itself.
 */
#pragma once
#include "executor_calls.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <spawn.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/un.h>

extern char **environ;

#define SLOTS 5   /* of processes; the last one is the first process, which makes the others */
#define PIPES 500 /* descriptors of the machine itself: out of the way of those that are compared */
#define MESH 540  /* for each slot two sockets, by which descriptors are passed */
#define DOORS 560 /* for each slot a listening Unix socket, once it has opened its door */

/* to slot, fd */
static long do_pass(void)
{
    int fd = (int)arg[1];
    return send_rights(MESH + 2 * (int)arg[0], &fd, 1);
}

static long do_take(void)
{
    int fds[RIGHTS_MOST] = {-1};
    return receive_rights(MESH + 2 * slot + 1, MSG_DONTWAIT, fds) < 0 ? -1 : fds[0];
}

static void answer(long r, int error)
{
    char line[sizeof extra + 80];
    int n = snprintf(line, sizeof line, "%ld %d %d%s\n", r, r < 0 ? error : 0, pipes, extra);
    if (write(PIPES + 2 * slot + 1, line, (size_t)n) != n)
        _exit(4);
}

static long forked(pid_t pid)
{
    if (pid != 0)
        return pid;
    slot = (int)arg[0];
    extra[0] = 0;
    answer(0, 0);
    return -2; /* it has answered */
}

/* slot: another process like this one; both answer */
static long do_fork(void)
{
    return forked(fork());
}

/* slot: the same by the system call, which copies the table of descriptors, as CLONE_FILES would not */
static long do_clone(void)
{
    return forked((pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
}

/* what is executed: this program, one that is never preloaded, or this one with another environment */
enum { SAME, STATIC, SETUID, OTHER_STACK, CLEARED };

static const char *program(long which)
{
    const char *path = which == STATIC ? getenv("EXECUTOR_STATIC") : which == SETUID ? getenv("EXECUTOR_SETUID") : NULL;
    return path ? path : "/proc/self/exe";
}

/* Of the environment it leaves what is the executor's. */
static void execute_cleared(char *number)
{
    static char *kept[64];
    char name[] = "executor", word[] = "exec";
    int n = 0;
    for (char **one = environ; *one && n < 63; one++)
        if (strncmp(*one, "EXECUTOR_", 9) == 0)
            kept[n++] = *one;
    execve(program(SAME), (char *[]){name, word, number, NULL}, kept);
}

/* program: in the place of this one */
static long do_exec(void)
{
    char number[12];
    snprintf(number, sizeof number, "%d", slot);
    if (arg[0] == OTHER_STACK)
        setenv("SHAREDSTACK_STACK", getenv("EXECUTOR_STACK"), 1);
    if (arg[0] == CLEARED)
        execute_cleared(number);
    execl(program(arg[0]), "executor", "exec", number, NULL);
    return -1;
}

/* slot program how: by fork, vfork or posix_spawn, and exec; both answer */
static long do_spawn(void)
{
    enum { BY_FORK, BY_VFORK, BY_SPAWN };
    const char *path = program(arg[1]);
    char number[12], name[] = "executor", word[] = "exec";
    char *argv[] = {name, word, number, NULL};
    pid_t pid;
    snprintf(number, sizeof number, "%ld", arg[0]);
    if (arg[2] == BY_SPAWN) {
        int error = posix_spawn(&pid, path, NULL, NULL, argv, environ);
        errno = error;
        return error ? -1 : pid;
    }
    pid = arg[2] == BY_VFORK ? vfork() : fork();
    if (pid == 0) {
        if (arg[1] == OTHER_STACK && arg[2] == BY_FORK)
            setenv("SHAREDSTACK_STACK", getenv("EXECUTOR_STACK"), 1);
        execve(path, argv, environ);
        _exit(6);
    }
    return pid;
}

/* fd to: dup3 with O_CLOEXEC; or fd: fcntl */
static long do_dup3(void)
{
    return args > 1 ? dup3((int)arg[0], (int)arg[1], O_CLOEXEC) : fcntl((int)arg[0], F_DUPFD_CLOEXEC, 0);
}

static long do_cloexec(void)
{
    return fcntl((int)arg[0], F_SETFD, arg[1] ? FD_CLOEXEC : 0);
}

static long do_close_range(void)
{
    return syscall(SYS_close_range, (unsigned)arg[0], (unsigned)arg[1], (unsigned)arg[2]);
}

static struct sockaddr_un door(long whose, socklen_t *len)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int n = snprintf(at.sun_path + 1, sizeof at.sun_path - 1, "executor-%s-%ld", getenv("EXECUTOR_DOORS"), whose);
    *len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    return at;
}

/* By a door, others can see by SO_PEERCRED who will have what they pass; by the mesh they cannot. */
static long do_door(void)
{
    socklen_t len;
    struct sockaddr_un at = door(slot, &len);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, len) != 0 || listen(fd, 5) != 0)
        return -1;
    long r = dup3(fd, DOORS + slot, O_CLOEXEC);
    close(fd);
    return r < 0 ? -1 : 0;
}

/* slot files fd …: in one message to that slot's door, with ordinary files before and after */
static long do_hand(void)
{
    socklen_t len;
    struct sockaddr_un at = door(arg[0], &len);
    int fds[RIGHTS_MOST], n = 0, over = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int file = arg[1] ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;
    if (arg[1])
        fds[n++] = file;
    for (int i = 2; i < args && n < RIGHTS_MOST - 1; i++)
        fds[n++] = (int)arg[i];
    if (arg[1])
        fds[n++] = file;
    long r = connect(over, (struct sockaddr *)&at, len) == 0 ? send_rights(over, fds, n) : -1;
    close(over);
    if (arg[1])
        close(file);
    return r;
}

/* What came to this slot's door, without the ordinary files: how many, and which. */
static long do_fetch(void)
{
    int fds[RIGHTS_MOST], over = accept4(DOORS + slot, NULL, NULL, SOCK_CLOEXEC), count = 0;
    int n = over < 0 ? -1 : receive_rights(over, 0, fds);
    if (n < 0)
        return -1;
    close(over);
    for (int i = 0; i < n; i++) {
        struct stat st;
        if (fstat(fds[i], &st) == 0 && S_ISCHR(st.st_mode)) {
            close(fds[i]);
            continue;
        }
        add(" %d", fds[i]);
        count++;
    }
    return count;
}

/* pid fd: taken out of that process */
static long do_getfd(void)
{
    int pidfd = (int)syscall(434 /* pidfd_open, the same on all machines */, (pid_t)arg[0], 0);
    long r = syscall(438 /* pidfd_getfd */, pidfd, (int)arg[1], 0);
    close(pidfd);
    return r;
}

static long do_setuid(void)
{
    return setuid((uid_t)arg[0]);
}

/* into another network namespace */
static long do_setns(void)
{
    int fd = open(getenv("EXECUTOR_NETNS"), O_RDONLY | O_CLOEXEC);
    long r = setns(fd, CLONE_NEWNET);
    close(fd);
    return r;
}

#define ALLOW(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/* No system call any more but those that the steps of a case make themselves: any other one kills. */
static long do_confine(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_read),
        ALLOW(SYS_write),
        ALLOW(SYS_recvfrom),
        ALLOW(SYS_sendto),
        ALLOW(SYS_poll),
        ALLOW(SYS_pselect6),
        ALLOW(SYS_epoll_wait),
        ALLOW(SYS_epoll_create1),
        ALLOW(SYS_epoll_ctl),
        ALLOW(SYS_accept),
        ALLOW(SYS_accept4),
        ALLOW(SYS_close),
        ALLOW(SYS_shutdown),
        ALLOW(SYS_getsockopt),
        ALLOW(SYS_fcntl),
        ALLOW(SYS_ioctl),
        ALLOW(SYS_brk),
        ALLOW(SYS_newfstatat),
        ALLOW(SYS_fstat),
        ALLOW(SYS_getsockname),
        ALLOW(SYS_getpeername),
        ALLOW(SYS_exit_group),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) : -1;
}
