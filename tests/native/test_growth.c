/*
 * Chunks that change hands while the arena's derived state is rebuilt. A rebuild may come at any time between two steps of a living
 * reader or writer (the helper's reap, or a lock taken over from the dead), and hands out whatever nobody names; who comes back from such
 * a pause must not give back what has become somebody else's.
 * The pauses are forced: the stepping thread finds the arena's lock held, waits for it, and meanwhile the holder does the rest.
 */
#include "tcp.h"

static struct world world;
static struct shs_env env, helper;
static struct shs_direction *dir;
static uint64_t pulled;

static void *reader(void *arg)
{
    static uint8_t buf[4096];
    struct iovec iov = {buf, sizeof buf};
    struct shs_cursor cur;
    uint64_t need;
    (void)arg;
    shs_cursor_init(&cur, &iov, 1);
    long n = shs_ring_pull(&env, dir, &cur, 0, false, world_who(&env, 2).lock_word, &need);
    __atomic_store_n(&pulled, (uint64_t)n, __ATOMIC_SEQ_CST);
    return NULL;
}

static void push(size_t len)
{
    static uint8_t buf[16384];
    struct iovec iov = {buf, len};
    struct shs_cursor cur;
    shs_cursor_init(&cur, &iov, 1);
    CHECK(shs_ring_push(&env, dir, &cur), ==, len);
}

/* A live pair whose first direction has the chunk. */
static struct shs_pair *pair_with(uint64_t chunk)
{
    struct shs_pair *pair = shs_pair_at(world.arena, shs_pair_take(world.arena));
    pair->dir[0].rchunk = pair->dir[0].wchunk = chunk;
    pair->dir[0].opener = env.slot1;
    pair->state = SHS_PAIR_LIVE;
    return pair;
}

static bool in_use(uint32_t unit)
{
    return world.arena->units[unit / 64] >> unit % 64 & 1;
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 20);
    world_make(&world, SHS_N_UNITS);
    world_join(&world, &helper);
    world_join(&world, &env);
    uint32_t me = world_who(&env, 1).lock_word, other = world_who(&helper, 1).lock_word;

    int unit = shs_units_take(&env, 0);
    dir = &pair_with(shs_chunk_pack((uint32_t)unit, 0, 0))->dir[0];
    dir->word = SHS_WORD_OPEN;
    push(100);
    CHECK(shs_ring_grow(&env, dir, me), ==, true);
    push(200);
    world_check_arena(&world);

    /* the reader has followed the switch and waits for the lock to give the old chunk back; meanwhile a reap rebuilds */
    CHECK(shs_lock_try(&helper, &world.arena->lock, other), ==, SHS_LOCKED);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, reader, NULL), ==, 0);
    uint64_t until = shs_now() + 1000000000ull;
    while ((int)shs_chunk_unit(shs_load64(&dir->rchunk)) == unit && shs_now() < until)
        usleep(1000);
    usleep(20000);
    bool followed = (int)shs_chunk_unit(shs_load64(&dir->rchunk)) != unit;
    shs_arena_rebuild(world.arena);
    int theirs = shs_units_take(&helper, 0);
    CHECK(theirs, >=, 0);
    struct shs_pair *victim = pair_with(shs_chunk_pack((uint32_t)theirs, 0, 0));
    shs_unlock(&world.arena->lock);
    CHECK(pthread_join(thread, NULL), ==, 0);
    CHECK(pulled, ==, 300);
    fprintf(stderr, "followed %d before the lock was free; chunk %d, given to another pair %d\n", followed, unit, theirs);
    CHECK(in_use((uint32_t)theirs), ==, true);
    world_check_arena(&world);
    shs_pair_drop(world.arena, (uint32_t)(victim - shs_pair_at(world.arena, 1)) + 1);

    world_leave(&env);
    world_leave(&helper);
    world_drop(&world);
    return 0;
}
