/* The scenario of a number: what a seeded run of many connections goes through. Small ones are frequent, every feature is. */
#include "link/sim.h"

static uint64_t next(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint32_t below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(next(state) % n);
}

/* One in `n` times a number below `most`, else 0. */
static uint32_t seldom(uint64_t *state, uint32_t n, uint32_t most)
{
    return below(state, n) ? 0 : below(state, most);
}

static uint32_t size_of(uint64_t *state, uint32_t most_log)
{
    return 1u << (11 + below(state, most_log - 10));
}

static void side(uint64_t *x, struct shs_sim_scenario *s, uint32_t k)
{
    static const uint32_t sizes[] = {1460, 1460, 1440, 536, 1200, 100};
    s->scale[k] = below(x, 3) ? below(x, 8) : below(x, 15);
    s->mss[k] = sizes[below(x, 6)];
    s->tx_size[k] = size_of(x, 17);
    s->rx_size[k] = size_of(x, 17);
    s->bytes[k] = below(x, 4) ? below(x, below(x, 3) ? 20000 : 100000) : 0;
    s->iss[k] = below(x, 3) ? (uint32_t)next(x) : (uint32_t)-1 - below(x, 30000); /* near the wrap */
    s->write[k] = 1u << below(x, 13);
    s->read[k] = 1u << (4 + below(x, 9));
    if (s->bytes[k] > 20000 && s->write[k] < 64)
        s->write[k] = 64;
    s->pause_us[k] = below(x, 5) ? 0 : below(x, 2) ? below(x, 2000) : below(x, 300000);
    s->delay_us[k] = 1u << below(x, 17);
    s->jitter_us[k] = below(x, 3) ? 0 : below(x, s->delay_us[k] + 1);
    s->loss[k] = below(x, 3) ? seldom(x, 2, 50000) : below(x, 150000);
    s->reorder[k] = seldom(x, 3, 100000);
    s->duplicate[k] = seldom(x, 3, 50000);
    s->corrupt[k] = seldom(x, 4, 20000);
    s->rate[k] = below(x, 3) ? 0 : 1000 + below(x, 100000);
    s->queue[k] = 8000 + below(x, 60000);
    s->mtu[k] = below(x, 6) ? 1500 : s->family == 6 ? 1280 + below(x, 220) : 600 + below(x, 900);
}

void shs_sim_scenario(uint64_t seed, struct shs_sim_scenario *s)
{
    uint64_t state = seed * 0xd1b54a32d192ed03u + 1, *x = &state;
    memset(s, 0, sizeof *s);
    s->seed = seed;
    s->family = below(x, 3) ? 4 : 6;
    s->flags = (below(x, 4) ? SHS_TF_SACK : 0) | (below(x, 4) ? SHS_TF_TS : 0) | (below(x, 4) ? 0 : SHS_TF_ECN) |
               (below(x, 2) ? SHS_TF_NODELAY : 0);
    s->nodes = 2 + !below(x, 8);
    s->connections = below(x, 6) ? 1 : 1 + below(x, SHS_SIM_CONNECTIONS);
    s->ending = below(x, 2) ? below(x, 5) : below(x, 3);
    s->icmp = below(x, 4) != 0;
    side(x, s, 0);
    side(x, s, 1);
    s->busy = seldom(x, 5, 100000);
    s->ecn_mark = s->flags & SHS_TF_ECN ? below(x, 30000) : 0;
    if (s->connections > 1) {
        s->bytes[0] /= 4;
        s->bytes[1] /= 4;
    }
    /* A reader that naps long after few bytes would take for ever. */
    for (uint32_t k = 0; k < 2; k++)
        if (s->pause_us[k] && s->bytes[!k] / s->read[k] > 200)
            s->read[k] = 1u << 12;
    if (s->ending == SHS_END_SIMULTANEOUS) { /* both at once: the same delay, and nothing else to do */
        s->delay_us[1] = s->delay_us[0];
        s->bytes[1] = s->bytes[0] = below(x, 3000);
    }
    if (s->ending == SHS_END_RESET) /* something must come after the reset, or nobody is told if it was lost */
        s->bytes[1] = s->bytes[1] > 2000 ? s->bytes[1] : 2000;
}
