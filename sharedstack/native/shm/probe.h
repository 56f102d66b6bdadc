/*
 * Purpose: find out whether the program's memory can be read or written before it is copied, so that a bad pointer gives EFAULT, as
 * from the kernel, rather than a crash inside the library. One touch for each page; a touch that faults is turned into an
 * answer by the signal handler of the process (shs_probe_failed). Without such a handler the fault is what it always is.
 */
#pragma once
#include "common.h"

/* 0, or 1 if reading (writing back the same byte) there faulted. */
int shs_probe_read(const void *at);
int shs_probe_write(void *at);
/* For a handler of SIGSEGV and SIGBUS: was it one of our touches? Then `context`, its third argument, goes on with the answer. */
bool shs_probe_failed(void *context);

#define SHS_PROBE_PAGE 4096u /* the smallest there is */

static inline bool shs_readable(const void *at, size_t n)
{
    const char *p = at, *end = p + n;
    if (n == 0)
        return true;
    if (SHS_UNLIKELY(end < p) || shs_probe_read(p))
        return false;
    for (p += SHS_PROBE_PAGE - ((uintptr_t)p & (SHS_PROBE_PAGE - 1)); p < end; p += SHS_PROBE_PAGE)
        if (shs_probe_read(p))
            return false;
    return true;
}

static inline bool shs_writable(void *at, size_t n)
{
    char *p = at, *end = p + n;
    if (n == 0)
        return true;
    if (SHS_UNLIKELY(end < p) || shs_probe_write(p))
        return false;
    for (p += SHS_PROBE_PAGE - ((uintptr_t)p & (SHS_PROBE_PAGE - 1)); p < end; p += SHS_PROBE_PAGE)
        if (shs_probe_write(p))
            return false;
    return true;
}
