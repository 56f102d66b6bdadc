#include "common.h"

#include <sched.h>

#include "wait/spin.h"

#define PROBES_PER_BURST 6   /* more than LATE_MOST, so that the peer's view of us turns round */
#define LATE_MOST 4
#define COUNTED_AFTER 32     /* steps after which a spin is counted */
#define PAUSES 6             /* between two looks: the writer's cache line is left to the writer */

static bool crowded(struct shs_env *env, uint32_t peer_cpu)
{
    uint32_t cpus = env->stack->n_cpus;
    if (cpus < 2 || shs_peek32(&env->stack->spinners) >= cpus)
        return true;
    return (uint32_t)sched_getcpu() == peer_cpu;
}

void shs_spin_begin(struct shs_spin *spin, struct shs_env *env, struct shs_gap *gap, uint64_t now, uint32_t peer_cpu)
{
    const struct shs_options *opt = &env->opt;
    uint64_t us = 0;
    if (opt->spin_always) {
        us = opt->spin_us;
    } else if (!crowded(env, peer_cpu)) {
        if (__builtin_popcount(gap->late) <= LATE_MOST) {
            us = opt->spin_us;
        } else if (gap->probes || now >= gap->probe_at_ns) {
            if (!gap->probes) {
                gap->probes = PROBES_PER_BURST;
                gap->probe_at_ns = now + opt->probe_every_ms * 1000000;
            }
            gap->probes--;
            us = opt->probe_us;
            shs_count(env, SHS_CTR_PROBES, 1);
        }
    }
    *spin = (struct shs_spin){.env = env, .gap = gap, .start_ns = now, .until_ns = now + us * 1000};
    if (us)
        shs_count(env, SHS_CTR_SPINS, 1);
}

int shs_spin_step(struct shs_spin *spin, uint64_t *now)
{
    if (spin->until_ns <= spin->start_ns)
        return SHS_SPIN_OVER;
    for (int i = 0; i < PAUSES; i++)
        shs_pause();
    if (++spin->looks % 8 == 0) {
        *now = shs_now();
        if (*now >= spin->until_ns)
            return SHS_SPIN_OVER;
    }
    if (spin->looks == COUNTED_AFTER) {
        spin->counted = true;
        shs_add32(&spin->env->stack->spinners, 1);
        shs_add32(&shs_slot_at(spin->env->stack, spin->env->slot1 - 1)->spinning, 1);
    }
    return SHS_SPIN_ON;
}

void shs_spin_end(struct shs_spin *spin, bool hit)
{
    if (spin->counted) {
        shs_add32(&spin->env->stack->spinners, -1u);
        shs_add32(&shs_slot_at(spin->env->stack, spin->env->slot1 - 1)->spinning, -1u);
    }
    if (hit)
        shs_count(spin->env, SHS_CTR_SPINS_HIT, 1);
}

void shs_gap_note(struct shs_env *env, struct shs_gap *gap, uint64_t start_ns, uint64_t came_ns)
{
    uint64_t came = came_ns ? came_ns : shs_now(), ns = came > start_ns ? came - start_ns : 0;
    gap->late = (gap->late << 1 | (ns > env->opt.spin_gap_us * 1000)) & 0xff;
}
