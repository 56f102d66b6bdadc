/*
 * A connection that was shared counts as one holder's only when nobody has shared or lowered it since it was probed, or is about to; and what was
 * lowered for the helper's store alone is lifted again: with a new pair, since the old one was recalled for good. And a record is not given back
 * while somebody comes to have it.
 */
#include "tcp.h"

#include "endpoint/admin.h"
#include "endpoint/residue.h"

static struct world world;
static struct shs_env envs[3], *env[3] = {&envs[0], &envs[1], &envs[2]};
static struct link l;

static struct shs_endpoint *record(void)
{
    return shs_endpoint_at(world.stack, l.ep1[0]);
}

static int probe(void)
{
    return shs_native_probe(world.stack, l.ep1[0] - 1, record()->cookie);
}

static int sole(void)
{
    return shs_native_sole(world.stack, world.arena, l.ep1[0] - 1, record()->cookie, env[1]->slot1 - 1);
}

static uint32_t flags(uint32_t which)
{
    return shs_load32(&record()->flags) & which;
}

/* Only after a probe, and only if nothing came between. */
static void shared(void)
{
    shs_endpoint_flag(record(), SHS_EPF_SHARED);
    CHECK(sole(), ==, 0);
    CHECK(probe(), ==, 0);
    shs_endpoint_flag(record(), SHS_EPF_SHARED); /* a fork, or one more holder */
    CHECK(sole(), ==, 0);
    CHECK(flags(SHS_EPF_SHARED), !=, 0);
    CHECK(probe(), ==, 0);
    uint32_t *sharing = &shs_slot_at(world.stack, env[1]->slot1 - 1)->sharing;
    shs_store32(sharing, 1);
    CHECK(sole(), ==, 0);
    shs_store32(sharing, 0);
    CHECK(sole(), ==, 1);
    CHECK(flags(SHS_EPF_SHARED | SHS_EPF_PROBED), ==, 0);
    CHECK(record()->slot, ==, env[1]->slot1);
    CHECK(shs_native_probe(world.stack, l.ep1[0] - 1, record()->cookie + 1), ==, -ENOENT);
    CHECK(shs_native_sole(world.stack, world.arena, SHS_N_ENDPOINTS, 1, 0), ==, 0);
    CHECK(shs_native_sole(world.stack, world.arena, l.ep1[0] - 1, record()->cookie, SHS_N_SLOTS), ==, 0);
}

/* As the preload library lowers it for the helper, which stores it. */
static void hand_over(void)
{
    struct shs_who who = world_who(env[0], 1);
    shs_endpoint_flag(record(), SHS_EPF_KERNEL_ONLY | SHS_EPF_SHARED);
    __atomic_fetch_or(&record()->flags, SHS_EPF_STORED, __ATOMIC_SEQ_CST);
    CHECK(shs_end_recall(env[0], &who, &l.end[0], false), ==, 0);
    CHECK(shs_load64(&l.end[0].rx->word) & SHS_WORD_STICKY, !=, 0);
}

static void by_ring(void)
{
    struct shs_who who[2] = {world_who(env[0], 1), world_who(env[1], 1)};
    uint64_t looked = 0, before = record()->rx_local;
    char byte = 0;
    CHECK(link_recv(env[0], &who[0], &l.end[0], &byte, 1, 0, &looked), ==, -EAGAIN);
    CHECK(link_send(env[1], &who[1], &l.end[1], "x", 1, 0), ==, 1);
    CHECK(link_recv(env[0], &who[0], &l.end[0], &byte, 1, 0, &looked), ==, 1);
    CHECK(record()->rx_local, ==, before + 1);
}

static void stored(void)
{
    struct shs_who who[2] = {world_who(env[0], 1), world_who(env[1], 1)};
    by_ring();
    hand_over();
    CHECK(probe(), ==, 0);
    shs_lock(env[1], &l.end[1].tx->wlock, who[1].lock_word);
    CHECK(sole(), ==, -EBUSY); /* its peer is inside */
    shs_unlock(&l.end[1].tx->wlock);
    CHECK(flags(SHS_EPF_KERNEL_ONLY), !=, 0);
    CHECK(sole(), ==, 1);
    CHECK(flags(SHS_EPF_KERNEL_ONLY | SHS_EPF_SHARED | SHS_EPF_SEALED), ==, 0);
    CHECK(record()->pair, ==, 0);
    shs_store32(&record()->slot, env[0]->slot1);
    CHECK(shs_pair_again(env[0], &who[0], l.ep1[0]), ==, true);
    for (int i = 0; i < 2; i++) {
        CHECK(shs_end_of(env[i], l.ep1[i], &l.end[i]), ==, true);
        CHECK(shs_activate(env[i], &who[i], &l.end[i], false, tcp_nobody_inside), ==, 0);
        CHECK(shs_activate(env[i], &who[i], &l.end[i], true, tcp_nobody_inside), ==, 0);
    }
    by_ring();
}

/* What may be elsewhere, or is the kernel's for another reason, stays so. */
static void never(void)
{
    hand_over();
    shs_set32(&record()->opt_level, SOL_SOCKET);
    CHECK(probe(), ==, 0);
    CHECK(sole(), ==, 1);
    CHECK(flags(SHS_EPF_KERNEL_ONLY), !=, 0);
    shs_set32(&record()->opt_level, 0);
    shs_endpoint_flag(record(), SHS_EPF_KERNEL_ONLY); /* for somebody else */
    CHECK(flags(SHS_EPF_STORED), ==, 0);
    CHECK(probe(), ==, 0);
    CHECK(sole(), ==, 1);
    CHECK(flags(SHS_EPF_KERNEL_ONLY), !=, 0);
    CHECK(record()->pair, !=, 0);
}

/* A search found no holder, and meanwhile somebody has come who holds it: the record is not the helper's to free. */
static void found_meanwhile(void)
{
    struct shs_who who = world_who(env[1], 1);
    uint32_t holders = record()->holders;
    CHECK(shs_register_find(env[1], &who, l.fd[0]), ==, l.ep1[0]);
    CHECK(shs_native_endpoint_gone(world.stack, world.arena, l.ep1[0] - 1, record()->cookie, holders), ==, 0);
    CHECK(record()->state, ==, SHS_EP_LIVE);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 100);
    world_make(&world, SHS_N_UNITS);
    for (int i = 0; i < 3; i++)
        world_join(&world, env[i]);
    world.stack->helper = env[2]->slot1;
    link_make(&l, env, AF_INET, true);
    shared();
    stored();
    never();
    found_meanwhile();
    link_drop(&l, env);
    world_check_arena(&world);
    CHECK(world.stack->endpoints_used, ==, 0);
    for (int i = 0; i < 3; i++)
        world_leave(env[i]);
    world_drop(&world);
    return 0;
}
