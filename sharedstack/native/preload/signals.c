#include "preload/signals.h"

#include "intercepts.gen.h"

#define SIGNALS 65

/* What the program installed, by signal; read in our handler. */
static struct {
    void (*handler)(int, siginfo_t *, void *);
    int flags;
} program[SIGNALS];

/* A handler of one parameter does not mind two more, in all calling conventions that we know. */
static void on_signal(int sig, siginfo_t *info, void *context)
{
    struct shs_thread *t = &shs_self;
    t->handled.all++;
    if (!(__atomic_load_n(&program[sig].flags, __ATOMIC_RELAXED) & SA_RESTART))
        t->handled.breaking++;
    __atomic_load_n(&program[sig].handler, __ATOMIC_ACQUIRE)(sig, info, context);
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
    }
    int r = shs_n_sigaction(sig, act, &was);
    if (r < 0) {
        program[sig] = before;
    } else if (old) {
        if (was.sa_sigaction == on_signal) {
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
