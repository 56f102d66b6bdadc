/*
 * Purpose: the frame of test_kill_*: one connection after the other, at one end of which victims are killed at any moment, one after the
 * other, while the test itself uses the same end. What is sent, read and checked is the test's.
 */
#pragma once
#include "repair.h"
#include "unit.h"

#define KILLS 10 /* for each connection */
#define RUN_NS 5500000000ull

static struct world world;
static struct shs_env envs[4], *env[2] = {&envs[0], &envs[1]}; /* of the test: the ends'; the third stands for the helper */
static struct link l;
static uint32_t *victim_slot1; /* shared with the victim, which sets it when it has joined */
static uint64_t kills, connections;

struct kill_roles {
    void (*victim)(uint32_t number);                     /* in a process of its own, never returns; sets *victim_slot1 */
    void (*work_on)(void *, struct rng *, uint64_t us); /* what the survivor does meanwhile, for so long */
    void *survivor;
};

/* A victim comes, is killed after some milliseconds, and is reaped; the survivor goes on before, in between and afterwards. */
static inline void kill_one(const struct kill_roles *roles, uint32_t number, struct rng *r)
{
    shs_store32(victim_slot1, 0);
    pid_t child = fork();
    if (child == 0) {
        roles->victim(number);
        _exit(1);
    }
    while (!shs_load32(victim_slot1))
        usleep(50);
    roles->work_on(roles->survivor, r, below(r, 8000));
    kill(child, SIGKILL);
    int end;
    CHECK(waitpid(child, &end, 0), ==, child);
    CHECK(end, ==, SIGKILL); /* and not by a failed check of its own */
    roles->work_on(roles->survivor, r, below(r, 3) * 500);
    reap(&world, *victim_slot1);
    roles->work_on(roles->survivor, r, below(r, 3) * 500);
    kills++;
}

/* The process at the other end, which is not killed, has ended without a failed check. */
static inline void kill_wait(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0), ==, pid);
    CHECK(status, ==, 0);
}

/* One connection after the other, for RUN_NS; after each nothing is in use and no unit is lost. */
static inline int kill_run(int argc, char **argv, const char *victims, const struct shs_env *survivor, void (*make)(void),
                           void (*connection)(struct rng *))
{
    uint64_t leaked = 0;
    check_begin(argc, argv, 100);
    world_make(&world, SHS_N_UNITS);
    for (int i = 0; i < 3; i++)
        world_join(&world, &envs[i]);
    world.stack->helper = envs[2].slot1;
    victim_slot1 = world_map(4096);
    make();
    struct rng r = rng_of(1);
    uint64_t until = shs_now() + RUN_NS;
    while (shs_now() < until) {
        link_make(&l, env, AF_INET, false);
        connections++;
        connection(&r);
        leaked += leaked_units(&world);
        link_drop(&l, env);
        CHECK(world.arena->units_used, ==, 0);
        CHECK(world.stack->endpoints_used, ==, 0);
    }
    fprintf(stderr, "%llu %s killed on %llu connections, %llu units leaked, %llu lock repairs\n", (unsigned long long)kills, victims,
            (unsigned long long)connections, (unsigned long long)leaked,
            (unsigned long long)(shs_slot_at(world.stack, survivor->slot1 - 1)->counters[SHS_CTR_LOCK_REPAIRS]));
    CHECK(leaked, ==, 0);
    return 0;
}
