/*
 * The process becomes somebody else, or is confined. A stack is of one real uid in one network namespace: who changes either leaves it first, and
 * attaches again as who it is then. What changes neither (effective ids, groups, capabilities, root directory) leaves it entitled to the same stack.
 *
 * Confined, by seccomp: some system calls are deadly from then on, and which, the library does not know. So it makes none that the program did
 * not ask for: it leaves, and every wrapper is libc's function (but what was in a ring is received from memory first).
 */
#include "common.h"

#include <linux/seccomp.h>

#include "intercepts.gen.h"
#include "preload/boundary.h"
#include "preload/member.h"
#include "preload/outside.h"
#include "preload/raw.h"
#include "preload/signals.h"
#include "shm/sys.h"

/* Leave until shs_join_unlock, if `change`. */
static void leave(bool change)
{
    if (change)
        shs_before_leaving();
    shs_join_lock();
    if (change)
        shs_leave();
}

static bool other(uid_t uid)
{
    return uid != (uid_t)-1 && uid != getuid();
}

static int as(uid_t real, int (*call)(const uid_t *), const uid_t *ids)
{
    bool change = other(real);
    if (change)
        leave(true);
    int r = call(ids);
    if (change)
        shs_join_unlock();
    return r;
}

static int call_setuid(const uid_t *ids)
{
    return shs_n_setuid(ids[0]);
}

static int call_setreuid(const uid_t *ids)
{
    return shs_n_setreuid(ids[0], ids[1]);
}

static int call_setresuid(const uid_t *ids)
{
    return shs_n_setresuid(ids[0], ids[1], ids[2]);
}

int shs_i_setuid(uid_t uid)
{
    return as(uid, call_setuid, &uid);
}

int shs_i_setreuid(uid_t real, uid_t effective)
{
    return as(real, call_setreuid, (const uid_t[]){real, effective});
}

int shs_i_setresuid(uid_t real, uid_t effective, uid_t saved)
{
    return as(real, call_setresuid, (const uid_t[]){real, effective, saved});
}

/* The library is out of the way for good: before a confinement takes hold of any thread. */
static void withdraw(void)
{
    shs_before_leaving();
    shs_join_lock();
    shs_leave();
    shs_proc.quiet = true;
    shs_proc.off = !shs_proc.kept;
    shs_join_unlock();
}

static void come_back(void)
{
    shs_proc.off = !shs_proc.env.opt.enable;
    shs_proc.quiet = false;
}

/* Another user or network; with CLONE_FILES, numbers that mean something else in each thread. */
static long moved(int flags, long (*call)(const long *), const long *args)
{
    bool apart = (flags & CLONE_FILES) && shs_peek32(&shs_proc.threads) > 1;
    if (apart)
        withdraw();
    leave(flags & (CLONE_NEWNET | CLONE_NEWUSER));
    long r = call(args);
    shs_join_unlock();
    if (apart && r != 0)
        come_back();
    return r;
}

static long call_unshare(const long *args)
{
    return shs_n_unshare((int)args[0]);
}

static long call_setns(const long *args)
{
    return shs_n_setns((int)args[0], (int)args[1]);
}

int shs_i_unshare(int flags)
{
    return (int)moved(flags, call_unshare, (const long[]){flags});
}

/* Type 0: whatever the descriptor is of. */
int shs_i_setns(int fd, int type)
{
    return (int)moved(type ? type & ~CLONE_FILES : CLONE_NEWNET, call_setns, (const long[]){fd, type});
}

int shs_i_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
    bool confines = option == PR_SET_SECCOMP && !shs_proc.quiet;
    if (confines)
        withdraw();
    int r = shs_n_prctl(option, a, b, c, d);
    if (confines && r != 0)
        come_back();
    return r;
}

static long call_raw(const long *args)
{
    return shs_n_syscall(args[0], args[1], args[2], args[3], args[4], args[5], args[6]);
}

/* The same by syscall(2): programs have no other way to seccomp(2). */
long shs_raw_seccomp(const struct shs_raw *c)
{
    bool confines = c->arg[0] == SECCOMP_SET_MODE_STRICT || c->arg[0] == SECCOMP_SET_MODE_FILTER;
    if (confines)
        withdraw();
    long r = shs_raw_plain(c);
    if (confines && r != 0)
        come_back();
    return r;
}

long shs_raw_unshare(const struct shs_raw *c)
{
    return moved((int)c->arg[0], call_raw, &c->number);
}

long shs_raw_setns(const struct shs_raw *c)
{
    return moved(c->arg[1] ? (int)c->arg[1] & ~CLONE_FILES : CLONE_NEWNET, call_raw, &c->number);
}

long shs_raw_setuid(const struct shs_raw *c)
{
    if (!other((uid_t)c->arg[0]))
        return shs_raw_plain(c);
    leave(true);
    long r = shs_raw_plain(c);
    shs_join_unlock();
    return r;
}

static long call_plain(const void *c)
{
    return shs_raw_plain(c);
}

#define CLONE_ARGS 64 /* of the structure of clone3(2), the first that there was */

/* fork by its number. A child on its parent's memory, or on a stack of its own, is the program's affair. */
long shs_raw_clone(const struct shs_raw *c)
{
    uint64_t flags = SIGCHLD, stack = 0;
    if (c->number == SYS_clone) {
        flags = (unsigned long)c->arg[0];
        stack = (unsigned long)c->arg[1];
    } else if (c->number == 435 /* SYS_clone3, the same on all machines */) {
        const uint64_t *args = (const uint64_t *)c->arg[0];
        if (c->arg[1] < CLONE_ARGS || !shs_kernel_reads(args, CLONE_ARGS))
            return shs_raw_plain(c);
        flags = args[0];
        stack = args[5];
    }
    if ((flags & CLONE_VM) || stack)
        return shs_raw_plain(c);
    long r = shs_fork_by(call_plain, c);
    if (r == 0 && (flags & (CLONE_NEWNET | CLONE_NEWUSER))) {
        leave(true);
        shs_join_unlock();
    }
    return r;
}

/* What the library itself calls by that name (a linker option): libc's. */
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    va_list args;
    va_start(args, number);
    long a = va_arg(args, long), b = va_arg(args, long), c = va_arg(args, long), d = va_arg(args, long), e = va_arg(args, long),
         f = va_arg(args, long);
    va_end(args);
    if (SHS_UNLIKELY(!shs_real.syscall))
        shs_resolve();
    return shs_real.syscall(number, a, b, c, d, e, f);
}
