/*
 * Purpose: the program's handlers. They wait while their thread holds a lock (defer.c); and we have to know whether one ran during a call of ours. The kernel interrupts a wait of its own; ours goes on
 * (a spin), or ends for another reason at that very moment (a nap), and has to say EINTR where the kernel would. Handlers are
 * installed with ours in front of them; the program is told of its own.
 */
#pragma once
#include "preload/process.h"

/* The thread's handlers so far: taken when a call begins. */
static inline struct shs_signal_mark shs_signal_mark(void)
{
    return shs_self.handled;
}

/* Has a handler run since, of the kind that ends the wait? signal(7): without SA_RESTART, or any where the call is never restarted. */
static inline bool shs_interrupted(struct shs_signal_mark since, bool restartable)
{
    const struct shs_signal_mark *now = &shs_self.handled;
    return restartable ? now->breaking != since.breaking : now->all != since.all;
}

/* Called when the first TCP or UDP socket is met; before that nothing of the program is looked into. From then on a bad pointer of the program is EFAULT (shm/probe.h), whatever the program does about SIGSEGV and SIGBUS. */
void shs_guard_memory(void);
extern bool shs_guarding;
/* Can the kernel read n bytes there (8 to 4096)? By a touch where bad pointers are guarded against, else by asking it. */
bool shs_kernel_reads(const void *at, size_t n);
/* A wait of ours ended with EINTR: would the kernel have gone on with the program's own call? */
bool shs_restarts(struct shs_signal_mark since);

/* Call the program's handler of sig. */
void shs_handle(int sig, siginfo_t *info, void *context);
/* In our handler: true if the signal has to wait until the thread holds no lock, and is noted. */
bool shs_defer_signal(int sig, const siginfo_t *info, void *context);
/* In a forked child: it has none of its parent's locks, nor its signals. */
void shs_defer_forked(void);
