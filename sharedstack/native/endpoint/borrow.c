/*
 * A copy of another process's descriptor: found by its inode in /proc/PID/fd, fetched by pidfd_getfd(2), and held to be right only if its
 * cookie is. The kernel allows it among processes of one user, unless Yama (ptrace_scope) forbids it or one of them is not dumpable.
 */
#include <stdio.h>

#include "endpoint/residue.h"
#include "shm/slot.h"
#include "shm/sys.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

struct entry {
    uint64_t ino;
    int64_t off;
    uint16_t len;
    uint8_t type;
    char name[];
};

static int copy_of(const char *folder, uint32_t pid, const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int number = 0;
    for (const char *c = name; *c >= '0' && *c <= '9'; c++)
        number = number * 10 + (*c - '0');
    if (!pid)
        return (int)shs_sys_fcntl(number, F_DUPFD_CLOEXEC, 3);
    long pidfd = SHS_SYS(syscall(SYS_pidfd_open, pid, 0));
    if (pidfd < 0)
        return (int)pidfd;
    long fd = SHS_SYS(syscall(SYS_pidfd_getfd, pidfd, number, 0));
    shs_sys_close((int)pidfd);
    return (int)fd;
}

/* pid 0: our own. */
static int borrow_from(uint32_t pid, const struct shs_endpoint *ep)
{
    char folder[32], link[64], want[64];
    _Alignas(struct entry) char buf[2048];
    if (pid)
        snprintf(folder, sizeof folder, "/proc/%u/fd", pid);
    else
        snprintf(folder, sizeof folder, "/proc/self/fd");
    int want_len = snprintf(want, sizeof want, "socket:[%llu]", (unsigned long long)ep->inode);
    int dir = (int)SHS_SYS(syscall(SYS_openat, AT_FDCWD, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)), found = -ENOENT;
    if (dir < 0)
        return dir;
    long n;
    while (found < 0 && (n = SHS_SYS(syscall(SYS_getdents64, dir, buf, sizeof buf))) > 0)
        for (long at = 0; at < n && found < 0; at += ((struct entry *)(buf + at))->len) {
            const char *name = ((struct entry *)(buf + at))->name;
            long len = SHS_SYS(syscall(SYS_readlinkat, dir, name, link, sizeof link));
            if (len != want_len || memcmp(link, want, (size_t)len))
                continue;
            int fd = copy_of(folder, pid, name);
            uint64_t cookie = 0;
            socklen_t size = sizeof cookie;
            found = fd;
            if (fd >= 0 && (shs_sys_getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0 || cookie != ep->cookie)) {
                shs_sys_close(fd);
                found = -ENOENT;
            }
        }
    shs_sys_close(dir);
    return found;
}

int shs_borrow(struct shs_env *env, const struct shs_endpoint *ep)
{
    int fd = borrow_from(0, ep);
    uint64_t pidns = env->slot1 ? shs_slot_at(env->stack, env->slot1 - 1)->pidns : 0;
    uint32_t top = shs_load32(&env->stack->slots_top), first = shs_load32(&ep->slot);
    for (uint32_t i = 0; fd < 0 && i <= top && i <= SHS_N_SLOTS; i++) { /* who registered it first, then whoever may have it by now */
        uint32_t slot1 = i == 0 ? first : i;
        if (slot1 - 1 >= SHS_N_SLOTS || !shs_slot_alive(env->stack, slot1) || (i && i == first))
            continue;
        const struct shs_slot *slot = shs_slot_at(env->stack, slot1 - 1);
        /* a vfork child has its parent's slot, and may have closed what that has */
        if (slot->pid && slot->pid != (uint32_t)getpid() && slot->pidns == pidns)
            fd = borrow_from(slot->pid, ep);
    }
    return fd;
}
