/*
 * Slots and their robust futex: alive while alive; dead after kill -9, exit, exec and the end of the home thread; handed over when the
 * home thread says that it goes; and libc's own robust mutexes beside ours, linked and unlinked in any order.
 */
#include "tcp.h"

#include "shm/spinners.h"

static struct world world;
static uint32_t *shared;

static uint32_t claim(void)
{
    int slot = shs_slot_claim(world.stack, (uint32_t)getpid(), 0);
    CHECK(slot, >=, 0);
    return (uint32_t)slot + 1;
}

static bool alive(uint32_t slot1)
{
    return shs_slot_alive(world.stack, slot1);
}

static void free_slot(uint32_t slot1)
{
    shs_slot_at(world.stack, slot1 - 1)->robust = 0;
    shs_slot_at(world.stack, slot1 - 1)->state = SHS_SLOT_FREE;
}

/* A child that claims a slot and then does as it is told. */
static pid_t child(void (*then)(void))
{
    shs_store32(shared, 0);
    pid_t pid = fork();
    if (pid == 0) {
        check_child(30);
        shs_store32(shared, claim());
        then();
        _exit(0);
    }
    while (!shs_load32(shared))
        usleep(100);
    return pid;
}

static void stay(void)
{
    for (;;)
        pause();
}

static void leave(void)
{
    usleep(20000);
}

static void replace(void)
{
    usleep(20000);
    char *argv[] = {(char *)"test", (char *)"--stay", NULL};
    execv("/proc/self/exe", argv);
}

static void replaced_or_ended(void (*then)(void), int sig)
{
    pid_t pid = child(then);
    uint32_t slot1 = shs_load32(shared);
    CHECK(alive(slot1), ==, true);
    CHECK(shs_slot_at(world.stack, slot1 - 1)->pid, ==, pid);
    if (then == stay)
        kill(pid, sig);
    uint64_t until = shs_now() + 5000000000ull;
    while (alive(slot1) && shs_now() < until)
        usleep(1000);
    CHECK(alive(slot1), ==, false);
    if (then == replace)
        CHECK(kill(pid, SIGKILL), ==, 0); /* the process itself lives on */
    waitpid(pid, NULL, 0);
    CHECK(alive(slot1), ==, false);
    free_slot(slot1);
}

static void forked_child_is_another(void)
{
    uint32_t slot1 = claim();
    pid_t pid = fork();
    if (pid == 0)
        exit(0);
    waitpid(pid, NULL, 0);
    CHECK(alive(slot1), ==, true);
    shs_slot_release(world.stack, slot1 - 1);
    CHECK(alive(slot1), ==, false);
}

static void *home(void *arg)
{
    uint32_t slot1 = claim();
    if (arg)
        shs_slot_leave_home(shs_slot_at(world.stack, slot1 - 1));
    shs_store32(shared, slot1);
    return NULL;
}

static void hand_over(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, home, (void *)1);
    pthread_join(thread, NULL);
    usleep(20000);
    struct shs_slot *slot = shs_slot_at(world.stack, *shared - 1);
    CHECK(slot->flags & SHS_SLOT_UNWITNESSED, !=, 0);
    CHECK(alive(*shared), ==, true);
    CHECK(shs_slot_enrol(slot), ==, 0);
    CHECK(slot->flags & SHS_SLOT_UNWITNESSED, ==, 0);
    CHECK(slot->robust, ==, shs_sys_gettid());
    CHECK(alive(*shared), ==, true);
    shs_store32(shared, 1);
}

/* In a child, because what counts is that the second home thread's death is seen. */
static void hand_over_and_die(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        check_child(30);
        pthread_t thread;
        pthread_create(&thread, NULL, home, (void *)1);
        pthread_join(thread, NULL);
        CHECK(shs_slot_enrol(shs_slot_at(world.stack, *shared - 1)), ==, 0);
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, NULL, 0);
    CHECK(alive(*shared), ==, false);
    free_slot(*shared);
}

static void home_thread_just_ends(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, home, NULL);
    pthread_join(thread, NULL);
    uint64_t until = shs_now() + 5000000000ull;
    while (alive(*shared) && shs_now() < until)
        usleep(1000);
    CHECK(alive(*shared), ==, false);
    free_slot(*shared);
}

#define N_MUTEXES 12
#define N_OURS 3

struct mutexes {
    pthread_mutex_t mutex[N_MUTEXES];
    uint32_t held[N_MUTEXES], slot1[N_OURS], enrolled[N_OURS];
};

/* Random steps, then one of the ends. */
static void fuzz_child(struct mutexes *m, struct rng *r)
{
    for (int i = 0; i < N_OURS; i++)
        m->slot1[i] = claim();
    for (int i = 0; i < N_OURS; i++)
        m->enrolled[i] = 1;
    for (uint64_t steps = below(r, 200); steps; steps--) {
        uint64_t i = below(r, N_MUTEXES + N_OURS);
        if (i < N_MUTEXES) {
            CHECK(m->held[i] ? pthread_mutex_unlock(&m->mutex[i]) : pthread_mutex_lock(&m->mutex[i]), ==, 0);
            m->held[i] = !m->held[i];
        } else {
            struct shs_slot *slot = shs_slot_at(world.stack, m->slot1[i - N_MUTEXES] - 1);
            uint32_t *enrolled = &m->enrolled[i - N_MUTEXES];
            if (*enrolled)
                shs_slot_leave_home(slot);
            else
                CHECK(shs_slot_enrol(slot), ==, 0);
            *enrolled = !*enrolled;
        }
    }
    if (below(r, 2))
        kill(getpid(), SIGKILL);
    _exit(0);
}

static void robust_mutexes_beside(void)
{
    struct mutexes *m = world_map(sizeof *m);
    pthread_mutexattr_t attr;
    struct rng r = rng_of(1);
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    for (int round = 0; round < 200; round++) {
        memset(m, 0, sizeof *m);
        for (int i = 0; i < N_MUTEXES; i++)
            pthread_mutex_init(&m->mutex[i], &attr);
        pid_t pid = fork();
        struct rng mine = {rng_next(&r)};
        if (pid == 0) {
            check_child(30);
            fuzz_child(m, &mine);
        }
        int status;
        waitpid(pid, &status, 0);
        CHECK(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL), ==, true);
        for (int i = 0; i < N_MUTEXES; i++) {
            CHECK(pthread_mutex_trylock(&m->mutex[i]), ==, m->held[i] ? EOWNERDEAD : 0);
            if (m->held[i])
                pthread_mutex_consistent(&m->mutex[i]);
            pthread_mutex_unlock(&m->mutex[i]);
        }
        for (int i = 0; i < N_OURS; i++) {
            CHECK(alive(m->slot1[i]), ==, !m->enrolled[i]); /* unwitnessed: nobody takes it for dead */
            free_slot(m->slot1[i]);
        }
    }
}

/* One of its threads spins while a process leaves, or dies in the middle of counting; and goes on spinning to the end. */
static void spinners_of_the_gone(void)
{
    struct shs_stack *stack = world.stack;
    uint32_t slot1 = claim(), other = claim();
    shs_spinner_begin(stack, slot1);
    shs_spinner_begin(stack, other);
    CHECK(shs_spinners(stack), ==, 2);
    shs_slot_release(stack, slot1 - 1);
    CHECK(shs_spinners(stack), ==, 1);
    shs_spinner_end(stack, slot1);
    CHECK(shs_spinners(stack), ==, 1);
    for (int drift = -1; drift <= 1; drift++) {
        shs_add32(&stack->spinners, (uint32_t)drift);
        shs_spinners_settle(stack);
        CHECK(shs_spinners(stack), ==, 1 + drift); /* somebody spins: it cannot be known */
        shs_spinner_end(stack, other);
        CHECK(shs_spinners(stack), ==, drift);
        shs_spinners_settle(stack);
        CHECK(shs_spinners(stack), ==, 0);
        shs_spinner_begin(stack, other);
    }
    shs_slot_release(stack, other - 1);
    CHECK(shs_spinners(stack), ==, 0);
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--stay")) {
        alarm(30);
        stay();
    }
    check_begin(argc, argv, 60);
    world_make(&world, 64);
    shared = world_map(4096);
    replaced_or_ended(stay, SIGKILL);
    replaced_or_ended(stay, SIGTERM);
    replaced_or_ended(leave, 0);
    replaced_or_ended(replace, 0);
    forked_child_is_another();
    hand_over();
    hand_over_and_die();
    home_thread_just_ends();
    robust_mutexes_beside();
    spinners_of_the_gone();
    CHECK(alive(0), ==, false);
    CHECK(alive(SHS_N_SLOTS + 1), ==, false);
    world_drop(&world);
    return 0;
}
