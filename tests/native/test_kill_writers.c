/*
 * Writers that are killed at any moment. One process reads and takes the stream apart; the test writes at the other end, and so does a
 * child that is killed a few milliseconds after it began. Of each writer comes what it sent, in order, from the beginning; of a killed
 * one up to what it was just sending, cut anywhere. Nobody waits for ever.
 */
#include "repair.h"
#include "unit.h"

#define MOST 40000
#define KILLS 10
#define RUN_NS 5500000000ull

static struct world world;
static struct shs_env envs[4], *env[2] = {&envs[0], &envs[1]};
static struct link l;
static struct {
    uint64_t sent[KILLS + 1], came[KILLS + 1], cuts[KILLS + 1], cuts_came[KILLS + 1]; /* bytes, by writer; the test itself is 0 */
    uint32_t slot1;
} *told;
static uint64_t kills, leaked, connections;

static void reader(void)
{
    static uint8_t buf[65536];
    static struct unit_parser parser;
    struct rng r = rng_of(100 + connections);
    struct shs_env mine;
    struct dozer d;
    long n;
    check_child(60);
    world_join(&world, &mine);
    dozer_make(&d, &mine, &l.end[1], 1, true);
    while ((n = dozer_recv(&d, buf, size_upto(&r, sizeof buf))) > 0) {
        unit_parse(&parser, buf, (size_t)n);
        if (below(&r, 5) == 0)
            dither(&r);
        if (below(&r, 100) == 0)
            usleep(2000); /* rings fill up */
        if (below(&r, 50) == 0)
            shs_ring_close(l.end[1].rx);
    }
    CHECK(n, ==, 0);
    if (parser.have)
        parser.cuts[parser.word[0] & 0x7f]++;
    for (int w = 0; w <= KILLS; w++) {
        told->came[w] = parser.next[w] * UNIT;
        told->cuts_came[w] = parser.cuts[w];
    }
    world_leave(&mine);
    _exit(0);
}

/* One send of words; one that was cut is sent again. */
static void send_words(struct shs_env *mine, uint32_t writer, struct rng *r)
{
    static uint8_t buf[MOST];
    size_t len = size_upto(r, (below(r, 10) ? 400 : MOST) / UNIT) * UNIT;
    struct shs_who who = world_who(mine, 1);
    if (len > MOST)
        len = MOST;
    unit_fill(buf, len, writer, told->sent[writer]);
    long n = link_send(mine, &who, &l.end[0], buf, len, 0);
    if (n == -EAGAIN) {
        struct pollfd ready = {.fd = l.fd[0], .events = POLLOUT};
        poll(&ready, 1, 100);
        return;
    }
    CHECK(n, >, 0);
    told->cuts[writer] += n % UNIT != 0;
    shs_store64(&told->sent[writer], told->sent[writer] + (uint64_t)n / UNIT * UNIT);
}

static void victim(uint32_t writer)
{
    struct rng r = rng_of(1000 + kills);
    struct shs_env mine;
    check_child(60);
    world_join(&world, &mine);
    shs_store32(&told->slot1, mine.slot1);
    for (;;) {
        send_words(&mine, writer, &r);
        dither(&r);
    }
}

static void write_on(struct rng *r, uint64_t us)
{
    uint64_t until = shs_now() + us * 1000;
    while (shs_now() < until) {
        send_words(env[0], 0, r);
        dither(r);
    }
}

static void connection(struct rng *r)
{
    memset(told, 0, sizeof *told);
    link_make(&l, env, AF_INET, false);
    connections++;
    pid_t pid = fork();
    if (pid == 0)
        reader();
    for (uint32_t w = 1; w <= KILLS; w++, kills++) {
        shs_store32(&told->slot1, 0);
        pid_t child = fork();
        if (child == 0)
            victim(w);
        while (!shs_load32(&told->slot1))
            usleep(50);
        write_on(r, below(r, 8000));
        kill(child, SIGKILL);
        int end;
        CHECK(waitpid(child, &end, 0), ==, child);
        CHECK(end, ==, SIGKILL); /* and not by a failed check of its own */
        write_on(r, below(r, 3) * 500);
        reap(&world, told->slot1);
        write_on(r, below(r, 3) * 500);
    }
    struct shs_who who = world_who(env[0], 1);
    CHECK(shs_end_shutdown(env[0], &who, &l.end[0], SHUT_WR), ==, 0);
    int status;
    CHECK(waitpid(pid, &status, 0), ==, pid);
    CHECK(status, ==, 0);
    CHECK(told->came[0], ==, told->sent[0]);
    CHECK(told->cuts_came[0], ==, told->cuts[0]);
    for (int w = 1; w <= KILLS; w++) {
        CHECK(told->came[w], >=, told->sent[w]);
        CHECK(told->came[w], <=, told->sent[w] + MOST);
        CHECK(told->cuts_came[w], >=, told->cuts[w]);
        CHECK(told->cuts_came[w], <=, told->cuts[w] + 1);
    }
    leaked += leaked_units(&world);
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
    struct rng r = rng_of(1);
    uint64_t until = shs_now() + RUN_NS;
    while (shs_now() < until)
        connection(&r);
    fprintf(stderr, "%llu writers killed on %llu connections, %llu units leaked, %llu lock repairs\n", (unsigned long long)kills,
            (unsigned long long)connections, (unsigned long long)leaked,
            (unsigned long long)(shs_slot_at(world.stack, env[0]->slot1 - 1)->counters[SHS_CTR_LOCK_REPAIRS]));
    CHECK(leaked, ==, 0);
    return 0;
}
