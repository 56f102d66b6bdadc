/*
 * A signal came while its thread held a lock (shm/defer.h), in the order of events:
 * 1  our handler notes it, and returns to a thread that has all other signals blocked: so one place is enough, and none is lost;
 * 2  the last lock is given back: the program's handler is called, with the mask, and on the stack, that the kernel would have given it; then the
 *    thread's own mask is restored, and what came meanwhile is delivered.
 * It is called, not sent again: behind others of its number it would be out of order, and one that is pending already would swallow it.
 * Signals that an instruction raised cannot wait, and never come to this file.
 */
#include "preload/signals.h"

#include <ucontext.h>

#include "intercepts.gen.h"
#include "shm/defer.h"
#include "shm/sys.h"

#define MASK_BYTES 8 /* of the kernel's sigset, of which a frame has no more */

/* Where the thread is to be held up by none: those of instructions, and libc's own (nptl(7)). */
static const int never_blocked[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, 32, 33};

static __thread struct {
    int sig;
    siginfo_t info;
    struct sigaction act; /* as it was when the signal came; the handler is ours */
    uint8_t mask[MASK_BYTES];
} noted __attribute__((tls_model("initial-exec")));

static void set_mask(const void *mask)
{
    (void)SHS_SYS(syscall(SYS_rt_sigprocmask, SIG_SETMASK, mask, NULL, (size_t)MASK_BYTES));
}

/* What is called on the other stack; it is the thread's, as `noted` is. */
static __thread struct {
    int sig;
    siginfo_t *info;
    ucontext_t here;
} crossing __attribute__((tls_model("initial-exec")));

static void on_other_stack(void)
{
    shs_handle(crossing.sig, crossing.info, &crossing.here);
}

/* The program's handler, on the stack that it asked for. */
static void call(int sig, siginfo_t *info, bool other_stack)
{
    stack_t alt;
    ucontext_t there;
    if (!other_stack || sigaltstack(NULL, &alt) != 0 || (alt.ss_flags & (SS_DISABLE | SS_ONSTACK)) || getcontext(&there) != 0) {
        ucontext_t here;
        (void)getcontext(&here);
        shs_handle(sig, info, &here);
        return;
    }
    crossing.sig = sig;
    crossing.info = info;
    there.uc_stack = alt;
    there.uc_link = &crossing.here;
    makecontext(&there, on_other_stack, 0);
    (void)swapcontext(&crossing.here, &there);
}

/* In no lock. */
static void run(void)
{
    int sig = noted.sig, saved = errno;
    siginfo_t info = noted.info;
    uint8_t mask[MASK_BYTES], inside[MASK_BYTES];
    bool other_stack = noted.act.sa_flags & SA_ONSTACK;
    memcpy(mask, noted.mask, sizeof mask);
    memcpy(inside, &noted.act.sa_mask, sizeof inside);
    for (int i = 0; i < MASK_BYTES; i++)
        inside[i] |= mask[i];
    if (!(noted.act.sa_flags & SA_NODEFER))
        inside[(sig - 1) / 8] |= (uint8_t)(1u << (sig - 1) % 8);
    shs_defer.pending = 0;
    noted.sig = 0;
    set_mask(inside); /* from here on the next one may be noted, or come */
    call(sig, &info, other_stack);
    set_mask(mask);
    errno = saved;
}

bool shs_defer_signal(int sig, const siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    if (!shs_peek32(&shs_defer.held) || noted.sig || shs_n_sigaction(sig, NULL, &noted.act) != 0)
        return false;
    noted.sig = sig;
    noted.info = *info;
    memcpy(noted.mask, &uc->uc_sigmask, MASK_BYTES);
    uint8_t blocked[MASK_BYTES];
    memset(blocked, 0xff, sizeof blocked);
    for (unsigned i = 0; i < sizeof never_blocked / sizeof *never_blocked; i++)
        blocked[(never_blocked[i] - 1) / 8] &= (uint8_t)~(1u << (never_blocked[i] - 1) % 8);
    memcpy(&uc->uc_sigmask, blocked, MASK_BYTES);
    shs_defer_run = run;
    shs_set32(&shs_defer.pending, 1);
    return true;
}

SHS_AT_FORK void shs_defer_forked(void)
{
    shs_defer.held = shs_defer.pending = 0;
    if (noted.sig) { /* its parent's; our mask is what the deferral made of it */
        noted.sig = 0;
        set_mask(noted.mask);
    }
}
