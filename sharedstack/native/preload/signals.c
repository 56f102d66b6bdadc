#include "preload/signals.h"

#include "intercepts.gen.h"
#include "shm/probe.h"

#define SIGNALS 65

/* What the program installed, by signal; read in our handler. */
static struct {
    void (*handler)(int, siginfo_t *, void *);
    int flags;
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
    handler(sig, info, context);
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

/* A handler that was installed past us (a raw system call) may have run: it matters only if some of those that there are lack SA_RESTART. */
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
