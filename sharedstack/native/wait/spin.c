#include "common.h"

#include <sched.h>

#include "shm/spinners.h"
#include "shm/sys.h"
#include "wait/spin.h"

#define PROBES_PER_BURST 10  /* so that the peer sees 8 quick answers in a row, and spins long enough for us to see 4 of its own */
#define LATE_MOST 4
#define CLOSER 8             /* times, are the looks after the first pause */
#define COUNTED_AFTER 96     /* steps after which a spin is counted */
#define PROBES_APART 9       /* doublings: from a five-hundredth of the longest time between bursts up to that */
#define HOLD_NS 1000000ull   /* and twice as long each time */
#define HELD_MOST 8
#define TRUSTED_AFTER 64
#define MOVE_AFTER 128       /* waits */
#define MOVE_AGAIN_NS 50000000ull
#define MEASURED 32          /* pauses at a time */
#define MEASUREMENTS 4

static bool crowded(struct shs_env *env, uint32_t peer_cpu)
{
    uint32_t cpus = env->stack->n_cpus;
    if (cpus < 2 || shs_spinners(env->stack) >= (int32_t)cpus)
        return true;
    return (uint32_t)sched_getcpu() == peer_cpu;
}

/* How many threads want to run on this machine now (proc(5), loadavg)? A large number if that cannot be known. */
static unsigned runnable(void)
{
    char text[64];
    int fd = (int)SHS_SYS(syscall(SYS_openat, AT_FDCWD, "/proc/loadavg", O_RDONLY | O_CLOEXEC, 0));
    long n = fd < 0 ? fd : SHS_SYS(syscall(SYS_read, fd, text, sizeof text - 1));
    unsigned sum = 0, spaces = 0;
    if (fd >= 0)
        shs_sys_close(fd);
    for (long i = 0; i < n && text[i] != '/'; i++) {
        if (text[i] == ' ')
            spaces++;
        else if (spaces == 3)
            sum = sum * 10 + (unsigned)(text[i] - '0');
    }
    return spaces == 3 && n > 0 ? sum : 1000;
}

/*
 * Two threads that answer each other at once, but share a CPU, can only take turns. A doorbell is a synchronous wake-up: the scheduler
 * keeps them together, rightly so for a single message. Where that goes on and another CPU is free, leave this one: take it out of
 * our affinity for a moment (sched_setaffinity(2)) and put it back. Seldom, and ever more seldom if it does not last.
 */
static void move_away(struct shs_spin *spin, uint64_t now, uint32_t cpu)
{
    struct shs_gap *gap = spin->gap;
    cpu_set_t allowed, others;
    gap->together = 0;
    gap->move_at_ns = now + (MOVE_AGAIN_NS << (gap->moved < 8 ? gap->moved++ : 8));
    if (SHS_SYS(sched_getaffinity(0, sizeof allowed, &allowed)) != 0 || cpu >= CPU_SETSIZE || runnable() > 1 + spin->env->stack->n_cpus / 2)
        return;
    others = allowed;
    CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others) == 0 || SHS_SYS(sched_setaffinity(0, sizeof others, &others)) != 0)
        return;
    (void)SHS_SYS(sched_setaffinity(0, sizeof allowed, &allowed));
    shs_count(spin->env, SHS_CTR_MOVES, 1);
}

/*
 * The pause instruction takes from 3 to 60 ns, by processor: how many of them are a pause of spin_pause_ns? Measured in the process's first spin, in some
 * microseconds; of several measurements the shortest, which nothing interrupted.
 */
static uint32_t pauses(const struct shs_options *opt)
{
    static uint32_t known; /* options are of the process */
    uint32_t n = shs_peek32(&known);
    if (SHS_LIKELY(n))
        return n;
    uint64_t best = UINT64_MAX;
    for (int i = 0; i < MEASUREMENTS; i++) {
        uint64_t start = shs_now();
        for (int k = 0; k < MEASURED; k++)
            shs_pause();
        uint64_t took = shs_now() - start;
        best = took < best ? took : best;
    }
    n = (uint32_t)(opt->spin_pause_ns * MEASURED / (best ? best : 1)) + 1; /* never 0: that is unknown */
    shs_set32(&known, n);
    return n;
}

void shs_spin_begin(struct shs_spin *spin, struct shs_env *env, struct shs_gap *gap, uint64_t now, uint32_t peer_cpu)
{
    const struct shs_options *opt = &env->opt;
    uint64_t us = 0;
    if (opt->spin_always) {
        us = opt->spin_us;
    } else if (!crowded(env, peer_cpu)) {
        bool soon = __builtin_popcount(gap->late) <= LATE_MOST;
        if (gap->spinning && !soon && gap->cheap)
            gap->hold_until_ns = now + (HOLD_NS << (gap->held < HELD_MOST ? gap->held++ : HELD_MOST));
        gap->spinning = soon && now >= gap->hold_until_ns;
        if (gap->spinning) {
            gap->in_vain = 0;
            us = opt->spin_us;
        } else if (gap->probes || (now >= gap->probe_at_ns && __builtin_popcount(gap->slow) <= LATE_MOST)) {
            if (!gap->probes) {
                gap->probes = PROBES_PER_BURST;
                /* soon at first: many programs run for a fraction of a second, and two that sleep have to find each other */
                gap->probe_at_ns = now + (opt->probe_every_ms * 1000000 >> (PROBES_APART - gap->in_vain));
                gap->in_vain += gap->in_vain < PROBES_APART;
            }
            gap->probes--;
            us = opt->probe_us;
            shs_count(env, SHS_CTR_PROBES, 1);
        }
    }
    *spin = (struct shs_spin){.env = env, .gap = gap, .start_ns = now, .until_ns = now + us * 1000, .pauses = us ? pauses(opt) : 0};
    uint32_t cpu = (uint32_t)sched_getcpu();
    if (SHS_LIKELY(cpu != peer_cpu || gap->late || env->stack->n_cpus < 2))
        gap->together = 0;
    else if (++gap->together >= MOVE_AFTER && now >= gap->move_at_ns && opt->spin_us)
        move_away(spin, now, cpu);
    if (us)
        shs_count(env, SHS_CTR_SPINS, 1);
}

int shs_spin_step(struct shs_spin *spin, uint64_t *now)
{
    if (spin->until_ns <= spin->start_ns)
        return SHS_SPIN_OVER;
    /* nothing can have come before that pause is over; from then on a look costs a writer that is late nothing, and us its lateness at most */
    for (uint32_t i = 0, n = spin->looks ? spin->pauses / CLOSER : spin->pauses; i <= n; i++)
        shs_pause();
    if (++spin->looks % CLOSER == 0) {
        *now = shs_now();
        if (*now >= spin->until_ns)
            return SHS_SPIN_OVER;
    }
    if (spin->looks == COUNTED_AFTER) {
        spin->counted = true;
        shs_spinner_begin(spin->env->stack, spin->env->slot1);
    }
    return SHS_SPIN_ON;
}

void shs_spin_end(struct shs_spin *spin, bool hit)
{
    if (spin->counted)
        shs_spinner_end(spin->env->stack, spin->env->slot1);
    if (hit)
        shs_count(spin->env, SHS_CTR_SPINS_HIT, 1);
}

bool shs_gap_doze(const struct shs_env *env, const struct shs_gap *gap)
{
    return env->opt.doze && (env->opt.eager || __builtin_popcount(gap->later) <= LATE_MOST);
}

/*
 * Whoever wakes late begins its next wait late, and sees short waits where data comes at a steady pace; once it spins it sees how long
 * they are. Where not spinning is cheap, spins that did not pay are believed for a while, whatever the waits after them look like.
 */
void shs_gap_note(struct shs_env *env, struct shs_gap *gap, uint64_t start_ns, uint64_t came_ns)
{
    uint64_t came = came_ns ? came_ns : shs_now(), ns = came > start_ns ? came - start_ns : 0;
    gap->late = (gap->late << 1 | (ns > env->opt.spin_gap_us * 1000)) & 0xff;
    /* longer than two sleepers' wake-ups can make it: no use in finding out how soon data would come to somebody awake */
    gap->slow = (gap->slow << 1 | (ns > env->opt.probe_us * 4000)) & 0xff;
    if (gap->spinning && !(gap->late & 1) && ++gap->trusted >= TRUSTED_AFTER)
        gap->trusted = gap->held = 0;
    gap->later = (gap->later << 1 | (ns > env->opt.doze_gap_us * 1000)) & 0xff;
}
