/*
 * Mutual exclusion: threads of two participants count under one lock, which guards a plain number and orders plain stores.
 */
#include "tcp.h"

#define THREADS 4
#define ROUNDS 20000

static struct shs_env env[2];
static uint32_t lock;
static uint64_t number, last;

static void *count(void *arg)
{
    uint32_t i = (uint32_t)(uintptr_t)arg;
    struct shs_env *mine = &env[i % 2];
    uint32_t me = world_who(mine, 1 + i).lock_word;
    struct rng r = rng_of(i);
    for (int n = 0; n < ROUNDS; n++) {
        if (below(&r, 4)) {
            CHECK(shs_lock(mine, &lock, me), ==, SHS_LOCKED);
        } else if (shs_lock_try(mine, &lock, me) != SHS_LOCKED) {
            n--;
            continue;
        }
        CHECK(shs_load32(&lock) & ~1u, ==, me);
        number++;
        last = me;
        if (below(&r, 500) == 0)
            usleep(10);
        CHECK(last, ==, me);
        shs_unlock(&lock);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    struct world world;
    pthread_t thread[THREADS];
    check_begin(argc, argv, 60);
    world_make(&world, 64);
    world_join(&world, &env[0]);
    world_join(&world, &env[1]);
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&thread[i], NULL, count, (void *)i), ==, 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(thread[i], NULL), ==, 0);
    CHECK(number, ==, THREADS * ROUNDS);
    CHECK(lock, ==, 0);
    world_leave(&env[0]);
    world_leave(&env[1]);
    world_drop(&world);
    return 0;
}
