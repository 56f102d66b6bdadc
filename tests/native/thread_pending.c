/*
 * "How much is waiting?" asked by a thread under rlock (ioctl FIONREAD, and the reader's own bookkeeping), while others write, read and
 * change chunks: the answer may be late, but it comes, and is no more than a ring can hold. The stream is all zeros, as many are.
 */
#include "tcp.h"

static struct world world;
static struct shs_env env;
static struct shs_direction *dir;
static uint32_t over;
static uint64_t asked;

static void *asker(void *arg)
{
    (void)arg;
    uint32_t me = world_who(&env, 3).lock_word;
    while (!shs_load32(&over)) {
        shs_lock(&env, &dir->rlock, me);
        CHECK(shs_ring_pending(&env, dir), <=, 4 << 20);
        shs_unlock(&dir->rlock);
        shs_add64(&asked, 1);
    }
    return NULL;
}

static void *writer(void *arg)
{
    static const uint8_t zeros[6000];
    struct rng r = rng_of(1);
    uint32_t me = world_who(&env, 1).lock_word;
    (void)arg;
    while (!shs_load32(&over)) {
        struct iovec iov = {(void *)(uintptr_t)zeros, size_upto(&r, sizeof zeros)};
        struct shs_cursor cur;
        shs_cursor_init(&cur, &iov, 1);
        if (shs_ring_push(&env, dir, &cur) == SHS_RING_FULL && below(&r, 4) == 0)
            shs_ring_grow(&env, dir, me);
    }
    return NULL;
}

static void *reader(void *arg)
{
    static uint8_t buf[20000];
    struct rng r = rng_of(2);
    uint32_t me = world_who(&env, 2).lock_word;
    (void)arg;
    while (!shs_load32(&over)) {
        struct iovec iov = {buf, size_upto(&r, sizeof buf)};
        struct shs_cursor cur;
        uint64_t need;
        shs_cursor_init(&cur, &iov, 1);
        shs_lock(&env, &dir->rlock, me);
        shs_ring_pull(&env, dir, &cur, 0, false, me, &need);
        shs_unlock(&dir->rlock);
    }
    return NULL;
}

/* A connection's life: it grows to its largest, with the asker looking on. */
static void life(void)
{
    static void *(*const run[])(void *) = {asker, writer, reader};
    pthread_t thread[3];
    uint32_t pair1 = shs_pair_take(world.arena);
    struct shs_pair *pair = shs_pair_at(world.arena, pair1);
    pair->state = SHS_PAIR_LIVE;
    dir = &pair->dir[0];
    dir->rchunk = dir->wchunk = shs_chunk_pack((uint32_t)shs_units_take(&env, 0), 0, 0);
    dir->opener = env.slot1;
    dir->word = SHS_WORD_OPEN;
    over = 0;
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&thread[i], NULL, run[i], NULL), ==, 0);
    usleep(20000);
    shs_store32(&over, 1);
    for (int i = 2; i >= 1; i--)
        pthread_join(thread[i], NULL);
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 3;
    int r = pthread_timedjoin_np(thread[0], NULL, &limit);
    if (r)
        fprintf(stderr, "no answer for 3 s: word %#llx rd %#llx\n", (unsigned long long)dir->word, (unsigned long long)dir->rd);
    CHECK(r, ==, 0);
    shs_pair_drop(world.arena, pair1);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 60);
    world_make(&world, SHS_N_UNITS);
    world_join(&world, &env);
    uint64_t until = shs_now() + 1500000000ull;
    while (shs_now() < until)
        life();
    fprintf(stderr, "%llu answers\n", (unsigned long long)asked);
    CHECK(asked, >, 0);
    world_leave(&env);
    world_drop(&world);
    return 0;
}
