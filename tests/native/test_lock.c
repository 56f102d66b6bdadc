/*
 * Locks that name their owner: the word, try, re-entry, takeover from the killed (by who comes and by who waits already), waiters that
 * are woken rather than left to their naps, and a stopped owner, who is waited for at no cost.
 */
#include "tcp.h"

#include <sys/resource.h>

struct shared {
    uint32_t lock, held, go, done;
};

static struct world world;
static struct shs_env env;
static struct shared *sh;
static uint32_t me;

static void until_set(uint32_t *flag)
{
    while (!shs_load32(flag))
        usleep(100);
}

/* A child that holds the lock, until it is told to go on. */
static pid_t holder(void)
{
    sh->held = sh->go = 0;
    pid_t pid = fork();
    if (pid == 0) {
        struct shs_env child;
        check_child(20);
        world_join(&world, &child);
        CHECK(shs_lock(&child, &sh->lock, world_who(&child, 1).lock_word), ==, SHS_LOCKED);
        shs_store32(&sh->held, child.slot1);
        until_set(&sh->go);
        shs_unlock(&sh->lock);
        world_leave(&child);
        _exit(0);
    }
    until_set(&sh->held);
    return pid;
}

static void end_of(pid_t pid, int how)
{
    int status;
    CHECK(waitpid(pid, &status, 0), ==, pid);
    CHECK(status, ==, how);
}

static void words(void)
{
    uint32_t word = 0, second = world_who(&env, 2).lock_word;
    CHECK(shs_lock(&env, &word, me), ==, SHS_LOCKED);
    CHECK(word, ==, me);
    CHECK(word >> SHS_LOCK_SLOT_SHIFT, ==, env.slot1);
    CHECK(shs_lock(&env, &word, me), ==, -EDEADLK);
    CHECK(shs_lock_try(&env, &word, me), ==, -EDEADLK);
    CHECK(shs_lock_try(&env, &word, second), ==, -EAGAIN);
    word |= SHS_LOCK_WAITERS;
    CHECK(shs_lock(&env, &word, me), ==, -EDEADLK);
    CHECK(shs_lock_try(&env, &word, me), ==, -EDEADLK);
    shs_unlock(&word);
    CHECK(word, ==, 0);
    CHECK(shs_lock_try(&env, &word, second), ==, SHS_LOCKED);
    CHECK(word, ==, second);
    shs_unlock(&word);
    /* a name that nobody can have */
    word = 0xffffu << SHS_LOCK_SLOT_SHIFT | SHS_LOCK_WAITERS;
    CHECK(shs_lock_try(&env, &word, me), ==, SHS_LOCK_REPAIR);
    CHECK(word, ==, me | SHS_LOCK_WAITERS);
    shs_unlock(&word);
}

static void take_over_by_comer(bool wait)
{
    pid_t pid = holder();
    uint32_t slot1 = sh->held;
    CHECK(shs_lock_try(&env, &sh->lock, me), ==, -EAGAIN);
    kill(pid, SIGKILL);
    end_of(pid, SIGKILL);
    CHECK(wait ? shs_lock(&env, &sh->lock, me) : shs_lock_try(&env, &sh->lock, me), ==, SHS_LOCK_REPAIR);
    CHECK(sh->lock, ==, me);
    shs_unlock(&sh->lock);
    CHECK(shs_lock(&env, &sh->lock, me), ==, SHS_LOCKED);
    shs_unlock(&sh->lock);
    shs_slot_at(world.stack, slot1 - 1)->state = SHS_SLOT_FREE;
}

static int64_t got_ns;
static int result;

static void *waiter(void *arg)
{
    struct rusage before, after;
    getrusage(RUSAGE_THREAD, &before);
    result = shs_lock(&env, &sh->lock, world_who(&env, 3).lock_word);
    __atomic_store_n(&got_ns, (int64_t)shs_now(), __ATOMIC_SEQ_CST);
    getrusage(RUSAGE_THREAD, &after);
    if (result >= 0)
        shs_unlock(&sh->lock);
    int64_t us = (after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec - before.ru_stime.tv_sec) * 1000000 +
                 after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec - before.ru_stime.tv_usec;
    *(int64_t *)arg = us;
    return NULL;
}

static void take_over_by_waiter(void)
{
    pid_t pid = holder();
    uint32_t slot1 = sh->held;
    pthread_t thread;
    int64_t us;
    pthread_create(&thread, NULL, waiter, &us);
    usleep(300000);
    uint64_t killed = shs_now();
    kill(pid, SIGKILL);
    pthread_join(thread, NULL);
    end_of(pid, SIGKILL);
    CHECK(result, ==, SHS_LOCK_REPAIR);
    CHECK(got_ns - (int64_t)killed, <, 2000000000);
    CHECK(sh->lock, ==, 0);
    shs_slot_at(world.stack, slot1 - 1)->state = SHS_SLOT_FREE;
}

/* Naps are 64 ms long by now, and end in the middle on average: all but immediate answers mean that nobody was woken. */
static void waiters_are_woken(void)
{
    int quick = 0;
    for (int i = 0; i < 7; i++) {
        pthread_t thread;
        int64_t us;
        CHECK(shs_lock(&env, &sh->lock, me), ==, SHS_LOCKED);
        pthread_create(&thread, NULL, waiter, &us);
        usleep(150000);
        CHECK(sh->lock, ==, me | SHS_LOCK_WAITERS);
        uint64_t freed = shs_now();
        shs_unlock(&sh->lock);
        pthread_join(thread, NULL);
        CHECK(result, ==, SHS_LOCKED);
        quick += got_ns - (int64_t)freed < 10000000;
    }
    CHECK(quick, >=, 5);
}

static void stopped_owner(void)
{
    pid_t pid = holder();
    kill(pid, SIGSTOP);
    pthread_t thread;
    int64_t us;
    got_ns = 0;
    pthread_create(&thread, NULL, waiter, &us);
    usleep(1000000);
    CHECK(__atomic_load_n(&got_ns, __ATOMIC_SEQ_CST), ==, 0); /* never taken from the living */
    shs_store32(&sh->go, 1);
    usleep(100000);
    CHECK(__atomic_load_n(&got_ns, __ATOMIC_SEQ_CST), ==, 0);
    kill(pid, SIGCONT);
    pthread_join(thread, NULL);
    end_of(pid, 0);
    CHECK(result, ==, SHS_LOCKED);
    CHECK(us, <, 20000);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 60);
    world_make(&world, 64);
    world_join(&world, &env);
    sh = world_map(4096);
    me = world_who(&env, 1).lock_word;
    words();
    take_over_by_comer(false);
    take_over_by_comer(true);
    take_over_by_waiter();
    waiters_are_woken();
    stopped_owner();
    world_leave(&env);
    world_drop(&world);
    return 0;
}
