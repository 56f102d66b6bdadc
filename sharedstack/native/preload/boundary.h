/*
 * Purpose: the boundary between the program and the library, used by the generated wrappers: when to go straight to libc, and how
 * -errno inside becomes errno outside.
 */
#pragma once
#include "preload/outside.h"

#define SHS_EXPORT __attribute__((visibility("default")))

static inline bool shs_off(void)
{
    if (SHS_UNLIKELY(!shs_proc.resolved))
        shs_start();
    return shs_proc.off;
}

/* What ends a vfork child runs our handlers there; confined, it makes the program's own call alone. */
static inline bool shs_plain_end(void)
{
    return shs_off() || shs_proc.quiet;
}

/* Straight to libc: in a vfork child (its memory is the parent's), with the library switched off, and confined with nothing kept. */
static inline bool shs_plain(void)
{
    return shs_off() || shs_self.vfork;
}

/* Handlers of signals are ours for good where they were once: a confined program is still told of its own. */
static inline bool shs_plain_signal(void)
{
    return shs_plain() && !(shs_proc.quiet && !shs_self.vfork);
}

static inline ssize_t shs_errno(ssize_t r)
{
    if (SHS_UNLIKELY(r < 0)) {
        errno = (int)-r;
        return -1;
    }
    return r;
}

static inline void *shs_pointer(intptr_t r, void *failed)
{
    if (r < 0 && r > -4096) {
        errno = (int)-r;
        return failed;
    }
    return (void *)r;
}

/* libc's own function of that name, NULL if it has none. */
void *shs_next(const char *name);
/* The same, from a library that may have been loaded later than we were; NULL: it has not been. */
void *shs_late(const char *library, const char *name);
/* Fill in shs_real (generated). */
void shs_resolve(void);
