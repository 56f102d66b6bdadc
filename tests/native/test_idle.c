/*
 * Connections that were active once and are idle cost a record an end, and no more: thousands of them at the same time, more than there
 * are pairs where descriptors allow it. All that they have is counted: records, pairs, ring memory. Some of them come back to life.
 */
#include "tcp.h"

#include "endpoint/admin.h"
#include "endpoint/bell.h"

#include <sys/resource.h>

#define WANTED 8400 /* more than N_PAIRS */
#define AT_LEAST 2000

static struct world world;
static struct shs_env envs[3], *env[3] = {&envs[0], &envs[1], &envs[2]};
static struct link *l;

static size_t how_many(void)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    limit.rlim_cur = limit.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    size_t most = limit.rlim_cur > 100 ? (limit.rlim_cur - 100) / 2 : 0;
    return most < WANTED ? most : WANTED;
}

/* End 0 reads, so that its ring opens, and end 1 sends, which goes there. */
static void talk(struct link *one)
{
    struct shs_who who[2] = {world_who(env[0], 1), world_who(env[1], 1)};
    uint64_t looked = 0, before = one->end[0].ep->rx_local;
    char byte = 0;
    CHECK(link_recv(env[0], &who[0], &one->end[0], &byte, 1, 0, &looked), ==, -EAGAIN);
    CHECK(link_send(env[1], &who[1], &one->end[1], "x", 1, 0), ==, 1);
    CHECK(link_recv(env[0], &who[0], &one->end[0], &byte, 1, 0, &looked), ==, 1);
    CHECK(byte, ==, 'x');
    CHECK(one->end[0].ep->rx_local, ==, before + 1);
}

static void cool_down(void)
{
    for (int i = 0; i < 4; i++)
        shs_native_cool(world.stack, world.arena, 1);
}

static size_t shared_bytes(void)
{
    return world.stack->endpoints_used * sizeof(struct shs_endpoint) + world.arena->pairs_used * sizeof(struct shs_pair) +
           (size_t)world.arena->units_used * SHS_UNIT_BYTES;
}

/* The next data call of an end that has lost its pair says so, does nothing, and gets a new one. */
static void wake(struct link *one)
{
    struct shs_who who[2] = {world_who(env[0], 1), world_who(env[1], 1)};
    uint64_t looked = 0, pairings = one->end[0].ep->pairings;
    char byte;
    CHECK(link_send(env[1], &who[1], &one->end[1], "y", 1, 0), ==, SHS_STALE);
    CHECK(link_recv(env[0], &who[0], &one->end[0], &byte, 1, 0, &looked), ==, SHS_STALE);
    CHECK(shs_end_pending(env[0], &who[0], &one->end[0]), ==, 0);
    CHECK(shs_end_waiting(&one->end[0]), ==, false);
    CHECK(send(one->fd[1], "abc", 3, 0), ==, 3);
    CHECK(recv(one->fd[0], &byte, 1, 0), ==, 1); /* two are left in the kernel when it is counted again */
    CHECK(shs_pair_again(env[0], &who[0], one->ep1[0]), ==, true);
    CHECK(one->end[0].ep->pairings, ==, pairings + 1);
    for (int i = 0; i < 2; i++) {
        CHECK(shs_end_of(env[i], one->ep1[i], &one->end[i]), ==, true);
        CHECK(shs_activate(env[i], &who[i], &one->end[i], false, tcp_nobody_inside), ==, 0);
        CHECK(shs_activate(env[i], &who[i], &one->end[i], true, tcp_nobody_inside), ==, 0);
    }
    for (int i = 0; i < 2; i++) {
        CHECK(link_recv(env[0], &who[0], &one->end[0], &byte, 1, 0, &looked), ==, 1);
        CHECK(byte, ==, "bc"[i]);
    }
    talk(one);
}

/* A taker that sleeps through its pair's end counts nothing where the pair has gone to somebody else. */
static void sleeper(struct link *one, struct link *other)
{
    struct shs_who who[2] = {world_who(env[0], 1), world_who(env[1], 1)};
    struct shs_take take;
    cool_down();
    wake(one);
    cool_down(); /* its ring; then a taker, and the pair */
    wake(one);
    CHECK(shs_taker_enter(env[0], &who[0], &one->end[0], &take), ==, 1);
    cool_down();
    CHECK(shs_load32(&one->end[0].ep->pair), ==, 0);
    wake(other);
    CHECK(shs_pair_at(world.arena, other->end[0].ep->pair)->dir == take.dir ||
              shs_pair_at(world.arena, other->end[0].ep->pair)->dir + 1 == take.dir,
          ==, true);
    uint64_t word = shs_load64(&take.dir->word), taken = shs_load64(&take.dir->taken);
    shs_taker_leave(env[0], &who[0], &take, 5);
    CHECK(shs_load64(&take.dir->word), ==, word);
    CHECK(shs_load64(&take.dir->taken), ==, taken);
    for (int t = 0; t < SHS_N_TAKES; t++)
        CHECK(shs_slot_at(world.stack, env[0]->slot1 - 1)->takes[t], ==, 0);
    /* nor does any other step of the one touch what is the other's now */
    struct shs_bell_own bell = {.handle = 77};
    CHECK(shs_bell_claim(env[0], who[0].lock_word, &one->end[0], &bell, true), ==, false);
    CHECK(shs_end_seal(env[0], &who[0], &one->end[0]), ==, false);
    CHECK(shs_end_shutdown(env[1], &who[1], &one->end[1], SHUT_WR), ==, SHS_STALE);
    CHECK(shs_activate(env[0], &who[0], &one->end[0], true, tcp_nobody_inside), ==, -EAGAIN);
    CHECK(shs_load64(&take.dir->word), ==, word);
    CHECK(shs_load32(&take.dir->bell), ==, 0);
    talk(other);
}

/* Ends that could not be brought under count again keep their pair; an end whose mate has gone, or that is sticky, gives it back for good. */
static void exceptions(struct link *one)
{
    cool_down();
    wake(one);
    struct shs_who who = world_who(env[0], 1);
    shs_store32(&one->end[1].ep->flags, SHS_EPF_SHARED);
    cool_down();
    CHECK(one->end[0].ep->pair, !=, 0);
    shs_store32(&one->end[1].ep->flags, 0);
    shs_end_seal(env[0], &who, &one->end[0]);
    cool_down();
    CHECK(one->end[0].ep->pair, ==, 0);
    CHECK(shs_pair_again(env[0], &who, one->ep1[0]), ==, false);
}

/* Locks that the dead left do not keep anything from cooling, and are left free; also in a block that has gone. */
static void dead_owners(struct link *one)
{
    cool_down();
    wake(one);
    struct shs_direction *dir = one->end[0].rx;
    shs_store32(&dir->rlock, 0xffffu << SHS_LOCK_SLOT_SHIFT);
    shs_store32(&dir->wlock, 0xffffu << SHS_LOCK_SLOT_SHIFT);
    cool_down();
    CHECK(shs_load32(&dir->rlock) | shs_load32(&dir->wlock), ==, 0);
    CHECK(one->end[0].ep->pair, ==, 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct shs_env dying;
        check_child(20);
        world_join(&world, &dying);
        struct shs_who who = world_who(&dying, 1);
        CHECK(shs_lock(&dying, &dir->rlock, who.lock_word), ==, 0);
        _exit((int)dying.slot1);
    }
    int status;
    CHECK(waitpid(pid, &status, 0), ==, pid);
    CHECK(shs_native_reap(world.stack, world.arena, (uint32_t)WEXITSTATUS(status) - 1), ==, 0);
    CHECK(shs_load32(&dir->rlock) >> SHS_LOCK_SLOT_SHIFT, ==, 0xffff);
    wake(one);
    CHECK(one->end[0].rx == dir || one->end[0].tx == dir, ==, true);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 100);
    size_t n = how_many();
    if (n < AT_LEAST) {
        fprintf(stderr, "no more than %zu connections can be made here\n", n);
        return 77;
    }
    l = calloc(n, sizeof *l);
    world_make(&world, SHS_N_UNITS);
    for (int i = 0; i < 3; i++)
        world_join(&world, env[i]);
    world.stack->helper = env[2]->slot1;
    for (size_t i = 0; i < n; i++) {
        link_make(&l[i], env, AF_INET, true);
        talk(&l[i]);
        if (i % 1000 == 999)
            cool_down();
    }
    cool_down();
    fprintf(stderr, "%zu connections: %zu bytes, at most %u pairs at a time, %llu made\n", n, shared_bytes(), world.arena->pairs_top,
            (unsigned long long)shs_slot_at(world.stack, env[1]->slot1 - 1)->counters[SHS_CTR_PAIRED]);
    CHECK(world.stack->endpoints_used, ==, 2 * n);
    CHECK(shared_bytes(), <=, 2 * n * 256);
    CHECK(n <= SHS_N_PAIRS || WANTED > SHS_N_PAIRS, ==, true);
    for (size_t i = 0; i < n; i += 97)
        wake(&l[i]);
    sleeper(&l[0], &l[1]);
    exceptions(&l[2]);
    dead_owners(&l[3]);
    for (size_t i = 0; i < n; i++)
        link_drop(&l[i], env);
    world_check_arena(&world);
    CHECK(world.arena->pairs_used, ==, 0);
    CHECK(world.stack->endpoints_used, ==, 0);
    for (int i = 0; i < 3; i++)
        world_leave(env[i]);
    world_drop(&world);
    free(l);
    return 0;
}
