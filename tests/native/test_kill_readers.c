/*
 * Readers that are killed at any moment. One process writes; the test reads the other end, and so does a child that is killed a few
 * milliseconds after it began; the test goes on alone (before the reap or after it), then the next child comes. No byte comes twice,
 * none out of its place, and none is missing but what the killed had in their hands.
 */
#include "repair.h"
#include "unit.h"

#define CAP (64u << 20)
#define MOST 20000 /* bytes that a reader may have in its hands */
#define KILLS 10   /* for each connection */
#define RUN_NS 5500000000ull

static struct world world;
static struct shs_env envs[4], *env[2] = {&envs[0], &envs[1]};
static struct link l;
static struct seen *seen;
static struct {
    uint64_t sent;
    uint32_t stop, slot1;
} *told;
static uint64_t kills, leaked, connections;

static void writer(void)
{
    static uint8_t buf[200000];
    struct rng r = rng_of(100 + connections);
    struct shs_env mine;
    check_child(60);
    world_join(&world, &mine);
    struct shs_who who = world_who(&mine, 1);
    uint64_t at = 0;
    while (!shs_load32(&told->stop) && at < CAP - sizeof buf) {
        size_t len = size_upto(&r, below(&r, 10) ? 3000 : sizeof buf);
        unit_fill(buf, len, 0, at);
        long n = link_send(&mine, &who, &l.end[0], buf, len, below(&r, 4) ? MSG_DONTWAIT : 0);
        if (n > 0)
            at += (uint64_t)n;
        else
            CHECK(n, ==, -EAGAIN);
        shs_store64(&told->sent, at);
        dither(&r);
    }
    CHECK(shs_end_shutdown(&mine, &who, &l.end[0], SHUT_WR), ==, 0);
    world_leave(&mine);
    _exit(0);
}

/* One receive of some kind: as the library's, with a doze or a native sleep now and then. */
static long receive(struct dozer *d, struct rng *r, bool may_wait)
{
    static uint8_t buf[MOST];
    size_t len = 16 + (size_t)below(r, below(r, 3) ? 500 : MOST - 16);
    uint64_t dice = below(r, 20);
    if (dice == 0)
        d->looked_ns = 0;
    if (dice == 1)
        return link_recv(d->env, &d->who, d->end, buf, len, MSG_PEEK, &d->looked_ns) == 0 ? 0 : -EAGAIN;
    long n = link_recv(d->env, &d->who, d->end, buf, len, 0, &d->looked_ns);
    if (n == -EAGAIN && may_wait) {
        bool again = true;
        if (dice < 12)
            dozer_doze(d);
        else
            n = dozer_sleep(d, buf, len, &again);
        if (again)
            return -EAGAIN;
    }
    if (n > 0)
        seen_mark(seen, buf, (size_t)n);
    return n;
}

static void victim(void)
{
    struct rng r = rng_of(1000 + kills);
    struct dozer d;
    struct shs_env mine;
    check_child(60);
    world_join(&world, &mine);
    dozer_make(&d, &mine, &l.end[1], 1, false);
    shs_store32(&told->slot1, mine.slot1);
    while (receive(&d, &r, true) != 0)
        ;
    for (;;)
        pause();
}

/* The survivor reads for some time, as it can. */
static void read_on(struct dozer *d, struct rng *r, uint64_t us)
{
    uint64_t until = shs_now() + us * 1000;
    while (shs_now() < until)
        if (receive(d, r, false) == -EAGAIN)
            usleep(100);
}

static void connection(struct rng *r)
{
    struct dozer d;
    *told = (typeof(*told)){0};
    memset(seen->map, 0, CAP);
    seen->bytes = seen->vague = 0;
    link_make(&l, env, AF_INET, false);
    connections++;
    dozer_make(&d, env[1], &l.end[1], 2, false);
    pid_t pid = fork();
    if (pid == 0)
        writer();
    uint64_t killed = 0;
    for (; killed < KILLS; killed++, kills++) {
        shs_store32(&told->slot1, 0);
        pid_t reader = fork();
        if (reader == 0)
            victim();
        while (!shs_load32(&told->slot1))
            usleep(50);
        read_on(&d, r, below(r, 8000));
        kill(reader, SIGKILL);
        int end;
        CHECK(waitpid(reader, &end, 0), ==, reader);
        CHECK(end, ==, SIGKILL); /* and not by a failed check of its own */
        read_on(&d, r, below(r, 3) * 500);
        reap(&world, told->slot1);
        read_on(&d, r, below(r, 3) * 500);
    }
    shs_store32(&told->stop, 1);
    uint64_t limit = shs_now() + 10000000000ull;
    long n;
    while ((n = receive(&d, r, false)) != 0) {
        CHECK(shs_now(), <, limit);
        if (n == -EAGAIN)
            usleep(100);
        else
            CHECK(n, >, 0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0), ==, pid);
    CHECK(status, ==, 0);
    CHECK(seen->bytes, <=, told->sent);
    CHECK(told->sent - seen->bytes, <=, killed * MOST);
    CHECK(seen_missing(seen, told->sent), <=, killed * MOST + seen->vague);
    CHECK(seen_missing(seen, CAP), ==, seen_missing(seen, told->sent) + CAP - told->sent);
    leaked += leaked_units(&world);
    shs_bell_drop(&d.bell, false);
    link_drop(&l, env);
    CHECK(world.arena->units_used, ==, 0);
    CHECK(world.stack->endpoints_used, ==, 0);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 100);
    world_make(&world, SHS_N_UNITS);
    for (int i = 0; i < 3; i++)
        world_join(&world, &envs[i]);
    world.stack->helper = envs[2].slot1;
    told = world_map(4096);
    seen = world_map(sizeof *seen);
    seen->map = world_map(CAP);
    struct rng r = rng_of(1);
    uint64_t until = shs_now() + RUN_NS;
    while (shs_now() < until)
        connection(&r);
    fprintf(stderr, "%llu readers killed on %llu connections, %llu units leaked, %llu lock repairs\n", (unsigned long long)kills,
            (unsigned long long)connections, (unsigned long long)leaked,
            (unsigned long long)(shs_slot_at(world.stack, env[1]->slot1 - 1)->counters[SHS_CTR_LOCK_REPAIRS]));
    CHECK(leaked, ==, 0);
    return 0;
}
