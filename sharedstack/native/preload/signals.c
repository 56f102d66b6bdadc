#include "preload/signals.h"

#include <sys/syscall.h>

#include "intercepts.gen.h"
#include "preload/raw.h"
#include "shm/probe.h"

#define SIGNALS 65

/* What the program installed, by signal; read in our handler. */
static struct {
    void (*handler)(int, siginfo_t *, void *);
    int flags;
    void (*restorer)(void); /* of a handler that was installed past libc; NULL: what the kernel has */
} program[SIGNALS];

/* Signals of bad memory, which we need for ourselves once we copy to and from the program's buffers. */
static const int guarded[] = {SIGSEGV, SIGBUS};
bool shs_guarding;

static bool is_guarded(int sig)
{
    return shs_guarding && (sig == SIGSEGV || sig == SIGBUS);
}

/* The program has no handler for what happened: it shall end as it would have without us, by the instruction that did it. */
static void give_up(int sig, const siginfo_t *info)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    (void)shs_n_sigaction(sig, &dfl, NULL);
    if (info->si_code <= 0) /* somebody sent it */
        raise(sig);
}

/* An instruction raised it, and would raise it again: it cannot wait. */
static bool raised_here(int sig, const siginfo_t *info)
{
    bool kind = sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL || sig == SIGTRAP || sig == SIGSYS;
    return kind && info->si_code > 0;
}

/* A handler of one parameter does not mind two more, in all calling conventions that we know. */
void shs_handle(int sig, siginfo_t *info, void *context)
{
    struct shs_thread *t = &shs_self;
    void (*handler)(int, siginfo_t *, void *) = __atomic_load_n(&program[sig].handler, __ATOMIC_ACQUIRE);
    if (!handler) /* taken away by another thread while it waited */
        return;
    t->handled.all++;
    if (!(__atomic_load_n(&program[sig].flags, __ATOMIC_RELAXED) & SA_RESTART))
        t->handled.breaking++;
    t->handling++;
    handler(sig, info, context);
    t->handling--;
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
    if ((sig == SIGSEGV || sig == SIGBUS) && shs_probe_failed(context))
        return;
    if (!__atomic_load_n(&program[sig].handler, __ATOMIC_ACQUIRE)) {
        give_up(sig, info);
        return;
    }
    if (raised_here(sig, info) || !shs_defer_signal(sig, info, context))
        shs_handle(sig, info, context);
}

static struct sigaction guard(void)
{
    struct sigaction act = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&act.sa_mask);
    return act;
}

void shs_guard_memory(void)
{
    if (shs_guarding)
        return;
    for (unsigned i = 0; i < sizeof guarded / sizeof *guarded; i++) {
        struct sigaction act = guard(), was;
        if (shs_n_sigaction(guarded[i], NULL, &was) == 0 && was.sa_handler == SIG_DFL)
            (void)shs_n_sigaction(guarded[i], &act, NULL);
    }
    shs_guarding = true;
}

int shs_i_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
    if (sig <= 0 || sig >= SIGNALS)
        return shs_n_sigaction(sig, act, old);
    struct sigaction was, ours;
    __typeof__(program[0]) before = program[sig];
    /* what the program reads of, and where it writes to, is its own business until we know that the call is good */
    if (act && act->sa_handler != SIG_DFL && act->sa_handler != SIG_IGN && act->sa_sigaction != on_signal) {
        ours = *act;
        ours.sa_sigaction = on_signal;
        ours.sa_flags |= SA_SIGINFO;
        __atomic_store_n(&program[sig].flags, act->sa_flags, __ATOMIC_RELAXED);
        program[sig].restorer = NULL;
        __atomic_store_n(&program[sig].handler, act->sa_sigaction, __ATOMIC_RELEASE);
        act = &ours;
    } else if (act && act->sa_handler == SIG_DFL && is_guarded(sig)) {
        ours = guard();
        program[sig].handler = NULL;
        act = &ours;
    }
    int r = shs_n_sigaction(sig, act, &was);
    if (r < 0) {
        program[sig] = before;
    } else if (old) {
        if (was.sa_sigaction == on_signal) {
            if (!before.handler)
                was = (struct sigaction){.sa_handler = SIG_DFL};
            was.sa_sigaction = before.handler;
            was.sa_flags = (was.sa_flags & ~SA_SIGINFO) | (before.flags & SA_SIGINFO);
        }
        *old = was;
    }
    return r;
}

/* No mask is changed: the kernel reads it before it finds that there is no such way to change it. */
static bool kernel_reads_mask(const void *at)
{
    return shs_n_syscall(SYS_rt_sigprocmask, -1, (long)at, 0, 8, 0, 0) == -EINVAL;
}

bool shs_kernel_reads(const void *at, size_t n)
{
    return shs_guarding ? shs_readable(at, n) : kernel_reads_mask(at) && kernel_reads_mask((const char *)at + n - 8);
}

/* rt_sigaction(2): the kernel's structure. */
struct kernel_action {
    void (*handler)(int, siginfo_t *, void *);
    unsigned long flags;
    void (*restorer)(void);
    uint8_t mask[8];
};

#define OWN_RESTORER 0x04000000ul /* SA_RESTORER */

/* For the kernel: our handler, in place of the program's. A restorer is for one kind of frame, where there are two: that of SA_SIGINFO, or the other. */
static void before_ours(struct kernel_action *act)
{
#if defined(__i386__)
    if (!(act->flags & SA_SIGINFO))
        act->flags &= ~OWN_RESTORER;
#endif
    act->flags |= SA_SIGINFO;
    act->handler = on_signal;
}

/* As shs_i_sigaction, past libc: what libc would refuse, or fill in by itself, is the program's own here. */
long shs_raw_rt_sigaction(const struct shs_raw *c)
{
    const struct kernel_action *act = (const void *)c->arg[1];
    struct kernel_action *old = (void *)c->arg[2], given, ours, was;
    int sig = (int)c->arg[0];
    if (sig <= 0 || sig >= SIGNALS || c->arg[3] != sizeof ours.mask || (act && !shs_kernel_reads(act, sizeof *act)))
        return shs_raw_plain(c);
    if (act) { /* which may be where `old` is too */
        given = *act;
        act = &given;
    }
    bool lost = old && shs_n_syscall(c->number, sig, 0, (long)old, (long)sizeof ours.mask, 0, 0) == -EFAULT;
    __typeof__(program[0]) before = program[sig];
    bool takes = act && (void *)act->handler != (void *)SIG_DFL && (void *)act->handler != (void *)SIG_IGN && act->handler != on_signal;
    if (takes) {
        ours = *act;
        before_ours(&ours);
        __atomic_store_n(&program[sig].flags, (int)act->flags, __ATOMIC_RELAXED);
        program[sig].restorer = act->flags & OWN_RESTORER ? act->restorer : NULL;
        __atomic_store_n(&program[sig].handler, act->handler, __ATOMIC_RELEASE);
    } else if (act && (void *)act->handler == (void *)SIG_DFL && is_guarded(sig)) {
        struct sigaction dfl = {.sa_handler = SIG_DFL}, told = {0};
        long r = shs_i_sigaction(sig, &dfl, old ? &told : NULL); /* libc knows how to install ours */
        if (r < 0 || !old)
            return r;
        was = (struct kernel_action){.handler = told.sa_sigaction, .flags = (unsigned)told.sa_flags, .restorer = told.sa_restorer};
        memcpy(was.mask, &told.sa_mask, sizeof was.mask);
        if (lost)
            return -EFAULT;
        *old = was;
        return 0;
    }
    long r = shs_n_syscall(c->number, sig, (long)(takes ? &ours : act), (long)&was, (long)sizeof was.mask, 0, 0);
    if (r < 0) {
        program[sig] = before;
        return r;
    }
    if (old && was.handler == on_signal) {
        was.handler = before.handler; /* NULL is SIG_DFL */
        was.flags = (was.flags & ~(unsigned long)SA_SIGINFO) | ((unsigned)before.flags & SA_SIGINFO);
        if (before.restorer) {
            was.flags |= OWN_RESTORER;
            was.restorer = before.restorer;
        }
        if (!before.handler)
            was = (struct kernel_action){.handler = NULL};
    }
    if (lost)
        return -EFAULT; /* the kernel too has done it by then */
    if (old)
        *old = was;
    return 0;
}

static bool interrupts[SIGNALS]; /* siginterrupt(3) */

/* BSD semantics, as libc's: restarts unless siginterrupt(3) said otherwise. */
intptr_t shs_i_signal(int sig, sighandler_t handler)
{
    struct sigaction act = {.sa_handler = handler}, old = {0};
    if (sig <= 0 || sig >= SIGNALS || handler == SIG_ERR)
        return -EINVAL;
    act.sa_flags = interrupts[sig] ? 0 : SA_RESTART;
    sigemptyset(&act.sa_mask);
    sigaddset(&act.sa_mask, sig);
    int r = shs_i_sigaction(sig, &act, &old);
    return r < 0 ? r : (intptr_t)old.sa_handler;
}

int shs_i_siginterrupt(int sig, int flag)
{
    struct sigaction act;
    int r = shs_i_sigaction(sig, NULL, &act);
    if (r < 0)
        return r;
    interrupts[sig] = flag;
    act.sa_flags = flag ? act.sa_flags & ~SA_RESTART : act.sa_flags | SA_RESTART;
    return shs_i_sigaction(sig, &act, NULL);
}

/* System V: once, unless it installs itself again, and not held back while it runs. */
intptr_t shs_i_sysv_signal(int sig, sighandler_t handler)
{
    struct sigaction act = {.sa_handler = handler, .sa_flags = (int)SA_RESETHAND | SA_NODEFER | SA_INTERRUPT}, old = {0};
    if (sig <= 0 || sig >= SIGNALS || handler == SIG_ERR)
        return -EINVAL;
    int r = shs_i_sigaction(sig, &act, &old);
    return r < 0 ? r : (intptr_t)old.sa_handler;
}

/* sigset(3): with a handler, or SIG_HOLD, which is the mask's; tells which of both it was. */
intptr_t shs_i_sigset(int sig, sighandler_t handler)
{
    struct sigaction act = {.sa_handler = handler}, old = {0};
    sigset_t set, held;
    sigemptyset(&set);
    if (handler == SIG_ERR || sigaddset(&set, sig) != 0)
        return -EINVAL;
    bool hold = handler == SIG_HOLD;
    int r = hold ? 0 : shs_i_sigaction(sig, &act, &old);
    if (r == 0 && sigprocmask(hold ? SIG_BLOCK : SIG_UNBLOCK, &set, &held) != 0)
        r = -errno;
    if (r == 0 && hold && !sigismember(&held, sig))
        r = shs_i_sigaction(sig, NULL, &old);
    return r < 0 ? r : sigismember(&held, sig) ? (intptr_t)SIG_HOLD : (intptr_t)old.sa_handler;
}

/* A handler that was installed past us (a system call that no function of libc's made) may have run: it matters only if some of those that there are lack SA_RESTART. */
bool shs_restarts(struct shs_signal_mark since)
{
    if (shs_interrupted(since, false))
        return !shs_interrupted(since, true);
    for (int sig = 1; sig < SIGNALS; sig++) {
        struct sigaction act;
        if (shs_n_sigaction(sig, NULL, &act) == 0 && act.sa_handler != SIG_DFL && act.sa_handler != SIG_IGN && !(act.sa_flags & SA_RESTART))
            return false;
    }
    return true;
}
