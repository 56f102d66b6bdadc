/*
 * Units and pairs of an arena against a model: alignment, no overlap, exhaustion, segments of any size, and a rebuild that comes to what
 * the steps came to.
 */
#include "tcp.h"

static struct world world;
static struct shs_env env;
static uint16_t owner[SHS_N_UNITS + 64]; /* chunk plus one that has the unit */
static uint64_t chunk[4096];
static uint32_t n_chunks;

/* Is there an aligned free run, and where is the first? */
static int first_free(uint32_t n_units, unsigned log)
{
    uint32_t n = 1u << log, limit = n_units < SHS_N_UNITS ? n_units : SHS_N_UNITS;
    for (uint32_t unit = 0; unit + n <= limit; unit += n) {
        uint32_t i = 0;
        while (i < n && !owner[unit + i])
            i++;
        if (i == n)
            return (int)unit;
    }
    return -ENOMEM;
}

static void name_in_pair(uint32_t i, uint64_t value)
{
    struct shs_direction *dir = &shs_pair_at(world.arena, i / 4 + 1)->dir[i / 2 % 2];
    *(i % 2 ? &dir->wchunk : &dir->rchunk) = value;
}

static void drop(uint32_t i)
{
    for (uint32_t u = 0; u < shs_chunk_bytes(chunk[i]) / SHS_UNIT_BYTES; u++)
        owner[shs_chunk_unit(chunk[i]) + u] = 0;
    shs_units_drop(world.arena, chunk[i]);
    name_in_pair(i, 0);
    chunk[i] = 0;
}

static void run(struct rng *r, uint32_t n_units, int steps)
{
    memset(owner, 0, sizeof owner);
    memset(world.arena->units, 0, sizeof world.arena->units);
    world.arena->units_used = 0;
    world.arena->n_units = n_units;
    uint32_t full = 0;
    for (int step = 0; step < steps; step++) {
        uint32_t i = (uint32_t)below(r, n_chunks);
        if (chunk[i]) {
            if (below(r, 100) < (step / 500 % 2 ? 90 : 25))
                drop(i);
            continue;
        }
        unsigned log = (unsigned)below(r, 7);
        int want = first_free(n_units, log), unit = shs_units_take(&env, log);
        CHECK(unit, ==, want);
        if (unit < 0) {
            full++;
            continue;
        }
        CHECK(unit % (1 << log), ==, 0);
        for (uint32_t u = 0; u < 1u << log; u++)
            owner[(uint32_t)unit + u] = (uint16_t)(i + 1);
        chunk[i] = shs_chunk_pack((uint32_t)unit, log, below(r, 1ull << 46));
        name_in_pair(i, chunk[i]);
        memset(shs_unit_memory(&env, (uint32_t)unit), 0xa5, 64);
        if (step % 128 == 0)
            world_check_arena(&world);
    }
    CHECK(full, >, 0);
    world_check_arena(&world);
    for (uint32_t i = 0; i < n_chunks; i++)
        if (chunk[i])
            drop(i);
    CHECK(world.arena->units_used, ==, 0);
    world_check_arena(&world);
}

/* What makes no sense gives nothing back, and nothing breaks. */
static void bad_chunks(void)
{
    world.arena->n_units = 100;
    CHECK(shs_units_take(&env, 0), ==, 0);
    CHECK(shs_units_take(&env, 6), ==, -ENOMEM);
    uint64_t first = world.arena->units[0];
    static const struct {
        uint32_t unit;
        unsigned log;
    } bad[] = {{0, 7}, {0, 15}, {1, 1}, {64, 6}, {100, 0}, {2047, 0}, {4094, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        shs_units_drop(world.arena, shs_chunk_pack(bad[i].unit, bad[i].log, 0));
    shs_units_drop(world.arena, 0);
    CHECK(world.arena->units[0], ==, first);
    CHECK(world.arena->units_used, ==, 1);
    shs_units_drop(world.arena, shs_chunk_pack(0, 0, 0));
    CHECK(world.arena->units_used, ==, 0);
    CHECK(shs_unit_memory(&env, 100) == NULL, ==, true);
    CHECK(shs_pair_at(world.arena, 0) == NULL, ==, true);
    CHECK(shs_pair_at(world.arena, SHS_N_PAIRS + 1) == NULL, ==, true);
}

static void all_pairs(void)
{
    static uint8_t zero[sizeof(struct shs_pair)];
    for (uint32_t i = 0; i < SHS_N_PAIRS; i++) {
        uint32_t pair1 = shs_pair_take(world.arena);
        CHECK(pair1, !=, 0);
        struct shs_pair *pair = shs_pair_at(world.arena, pair1);
        CHECK(pair->state, ==, SHS_PAIR_FREE);
        CHECK(memcmp(&pair->endpoint, zero, sizeof *pair - offsetof(struct shs_pair, endpoint)), ==, 0);
        pair->state = SHS_PAIR_LIVE;
        pair->cookie[0] = i;
    }
    CHECK(shs_pair_take(world.arena), ==, 0);
    CHECK(world.arena->pairs_used, ==, SHS_N_PAIRS);
    world_check_arena(&world);
    uint32_t gen = shs_pair_at(world.arena, 4000)->gen;
    for (uint32_t p = 3000; p <= 5000; p++)
        shs_pair_drop(world.arena, p);
    shs_pair_drop(world.arena, 3000); /* free already */
    CHECK(world.arena->pairs_used, ==, SHS_N_PAIRS - 2001);
    world_check_arena(&world);
    for (int i = 0; i < 2001; i++) {
        uint32_t pair1 = shs_pair_take(world.arena);
        CHECK(pair1, >=, 3000);
        CHECK(pair1, <=, 5000);
        shs_pair_at(world.arena, pair1)->state = SHS_PAIR_LIVE;
    }
    CHECK(shs_pair_at(world.arena, 4000)->gen, ==, gen + 2); /* given back, and taken */
    CHECK(shs_pair_take(world.arena), ==, 0);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 60);
    world_make(&world, SHS_N_UNITS);
    world_join(&world, &env);
    world_guard(&env);
    struct rng r = rng_of(1);
    for (int i = 0; i < 1024; i++)
        shs_pair_at(world.arena, shs_pair_take(world.arena))->state = SHS_PAIR_LIVE;
    static const uint32_t sizes[] = {1, 2, 5, 63, 64, 65, 100, 130, 1000, SHS_N_UNITS - 1, SHS_N_UNITS, SHS_N_UNITS + 1, 1u << 31};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        n_chunks = sizes[i] > 500 ? 1500 : 64;
        run(&r, sizes[i], sizes[i] > 500 ? 12000 : 4000);
    }
    bad_chunks();
    for (uint32_t p = 1; p <= 1024; p++)
        shs_pair_drop(world.arena, p);
    all_pairs();
    world_leave(&env);
    world_drop(&world);
    return 0;
}
