/*
 * Writers that are killed at any moment. One process reads and takes the stream apart; the test writes at the other end, and so does a
 * child that is killed a few milliseconds after it began. Of each writer comes what it sent, in order, from the beginning; of a killed
 * one up to what it was just sending, cut anywhere. Nobody waits for ever.
 */
#include "kill.h"

#define MOST 40000

static struct {
    uint64_t sent[KILLS + 1], came[KILLS + 1], cuts[KILLS + 1], cuts_came[KILLS + 1]; /* bytes, by writer; the test itself is 0 */
} *told;

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
    shs_store32(victim_slot1, mine.slot1);
    for (;;) {
        send_words(&mine, writer, &r);
        dither(&r);
    }
}

static void write_on(void *survivor, struct rng *r, uint64_t us)
{
    uint64_t until = shs_now() + us * 1000;
    while (shs_now() < until) {
        send_words(survivor, 0, r);
        dither(r);
    }
}

static void connection(struct rng *r)
{
    struct kill_roles roles = {.victim = victim, .work_on = write_on, .survivor = env[0]};
    memset(told, 0, sizeof *told);
    pid_t pid = fork();
    if (pid == 0)
        reader();
    for (uint32_t w = 1; w <= KILLS; w++)
        kill_one(&roles, w, r);
    struct shs_who who = world_who(env[0], 1);
    CHECK(shs_end_shutdown(env[0], &who, &l.end[0], SHUT_WR), ==, 0);
    kill_wait(pid);
    CHECK(told->came[0], ==, told->sent[0]);
    CHECK(told->cuts_came[0], ==, told->cuts[0]);
    for (int w = 1; w <= KILLS; w++) {
        CHECK(told->came[w], >=, told->sent[w]);
        CHECK(told->came[w], <=, told->sent[w] + MOST);
        CHECK(told->cuts_came[w], >=, told->cuts[w]);
        CHECK(told->cuts_came[w], <=, told->cuts[w] + 1);
    }
}

static void make(void)
{
    told = world_map(4096);
}

int main(int argc, char **argv)
{
    return kill_run(argc, argv, "writers", env[0], make, connection);
}
