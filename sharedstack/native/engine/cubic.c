/*
 * CUBIC (RFC 9438): the window as a function of the time since the last reduction. Bytes and milliseconds; C = 0.4 segments/s³, β = 0.7.
 * Slow start is RFC 5681's, with RFC 3465's limit of two segments for each acknowledgment.
 */
#include "engine/tcp.h"

static uint32_t root3(uint64_t x)
{
    uint64_t r = 0;
    for (int shift = 63; shift >= 0; shift -= 3) { /* digit by digit, in binary */
        r *= 2;
        uint64_t b = 3 * r * (r + 1) + 1;
        if (x >> shift >= b) {
            x -= b << shift;
            r++;
        }
    }
    return (uint32_t)r;
}

/* Section 4.6: β, and section 4.7: fast convergence. Flight and not window, where the program did not fill it (RFC 5681 section 3.1). */
uint32_t shs_cubic_ssthresh(struct shs_tcp *t)
{
    uint32_t cwnd = t->cwnd;
    t->w_max = cwnd < t->w_max ? (uint32_t)(cwnd * 17ull / 20) : cwnd;
    t->epoch_ns = 0;
    t->w_acked = 0;
    return shs_max32((uint32_t)(cwnd * 7ull / 10), 2 * t->mss);
}

void shs_cubic_timeout(struct shs_tcp *t) /* section 4.8 */
{
    t->ssthresh = shs_cubic_ssthresh(t);
}

static void begin_epoch(struct shs_engine *e, struct shs_tcp *t)
{
    t->epoch_ns = e->now;
    t->w_est = t->cwnd;
    if (t->w_max < t->cwnd)
        t->w_max = t->cwnd;
    /* Section 4.2: K = cbrt((w_max - cwnd) / C), segments and seconds; here in ms: cbrt(segments · 10^9 / 0.4). */
    t->cubic_k = root3((uint64_t)(t->w_max - t->cwnd) * 2500000000ull / shs_nonzero(t->mss));
}

/* Section 4.2, W_cubic(t + RTT), bounded to half as much again (section 4.4). */
static uint32_t target(const struct shs_engine *e, const struct shs_tcp *t)
{
    int64_t ms = (int64_t)((e->now - t->epoch_ns + t->srtt) / SHS_MS) - t->cubic_k;
    ms = ms > 200000 ? 200000 : ms < -200000 ? -200000 : ms;
    int64_t off = ms * ms * ms / 1000 * t->mss * 4 / 10000000; /* 0.4 segments/s³, in bytes and ms */
    int64_t w = off + t->w_max, most = (int64_t)t->cwnd + t->cwnd / 2;
    return w < t->cwnd ? t->cwnd : w > most ? (uint32_t)most : (uint32_t)w;
}

/* `acked` bytes in a window that was full (RFC 7661: one that was not says nothing). */
void shs_cubic_grow(struct shs_engine *e, struct shs_tcp *t, uint32_t acked)
{
    if (!(t->flags & SHS_TF_CWND_LIMITED))
        return;
    if (t->cwnd < t->ssthresh) { /* RFC 5681 section 3.1 */
        t->cwnd += shs_min32(acked, 2 * t->mss);
        return;
    }
    if (!t->epoch_ns)
        begin_epoch(e, t);
    /* Section 4.3: α = 3(1 - β)/(1 + β) = 9/17 until the window is as it was, then 1. */
    uint64_t step = (uint64_t)acked * t->mss / shs_nonzero(t->cwnd);
    t->w_est += (uint32_t)(t->w_est < t->w_max ? step * 9 / 17 : step);
    uint32_t to = target(e, t);
    if (to < t->w_est) { /* Reno would have more */
        t->cwnd = shs_max32(t->cwnd, t->w_est);
        return;
    }
    t->w_acked += acked; /* Section 4.4: (target - cwnd)/cwnd for each segment acknowledged */
    uint64_t more = (uint64_t)(to - t->cwnd) * t->w_acked / shs_nonzero(t->cwnd);
    if (more) {
        t->cwnd += (uint32_t)more;
        t->w_acked = 0;
    }
    t->cwnd = shs_min32(t->cwnd, 1u << 30);
}
