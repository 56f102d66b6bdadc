/*
 * Purpose: is a connection faster for being lifted? The pace of its data calls says so: the shortest time that SHS_PACE_CALLS of them in a row took, by the
 * kernel before it was lifted, and by the engine since. The best of many windows is compared with the best of few: who loses that is slower indeed.
 * Who may call: the gate, for each data call. Threads that use one connection at once may spoil a window, which makes it longer.
 */
#pragma once
#include "preload/process.h"

#define SHS_PACE_CALLS 32
#define SHS_PACE_WINDOWS 32 /* until it is judged, once for each time that it is lifted */

static inline void shs_pace_call(struct shs_fd *f)
{
    struct shs_pace *p = &f->pace;
    if (SHS_LIKELY(p->calls++ % SHS_PACE_CALLS))
        return;
    uint64_t now = shs_now(), took = now - p->since_ns;
    uint32_t *best = &p->best[f->state == SHS_FD_WIRE];
    if (p->since_ns && (!*best || took < *best))
        *best = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
    p->windows += p->since_ns != 0;
    p->since_ns = now;
}

/* It is lifted now. */
static inline void shs_pace_lifted(struct shs_fd *f)
{
    f->pace = (struct shs_pace){.best = {f->pace.best[0], 0}};
}

/* Lifted for long enough to judge, and slower than `gain` per cent of what it was? */
static inline bool shs_pace_lost(const struct shs_fd *f, uint64_t gain)
{
    const struct shs_pace *p = &f->pace;
    return SHS_UNLIKELY(p->windows == SHS_PACE_WINDOWS) && p->best[0] && p->best[0] * UINT64_C(100) < p->best[1] * gain;
}
