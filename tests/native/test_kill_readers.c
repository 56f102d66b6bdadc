/*
 * Readers that are killed at any moment. One process writes; the test reads the other end, and so does a child that is killed a few
 * milliseconds after it began; the test goes on alone (before the reap or after it), then the next child comes. No byte comes twice,
 * none out of its place, and none is missing but what the killed had in their hands.
 */
#include "kill.h"

#define CAP (64u << 20)
#define MOST 20000 /* bytes that a reader may have in its hands */

static struct seen *seen;
static struct {
    uint64_t sent;
    uint32_t stop;
} *told;

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

static void victim(uint32_t number)
{
    (void)number;
    struct rng r = rng_of(1000 + kills);
    struct dozer d;
    struct shs_env mine;
    check_child(60);
    world_join(&world, &mine);
    dozer_make(&d, &mine, &l.end[1], 1, false);
    shs_store32(victim_slot1, mine.slot1);
    while (receive(&d, &r, true) != 0)
        ;
    for (;;)
        pause();
}

/* The survivor reads for some time, as it can. */
static void read_on(void *survivor, struct rng *r, uint64_t us)
{
    struct dozer *d = survivor;
    uint64_t until = shs_now() + us * 1000;
    while (shs_now() < until)
        if (receive(d, r, false) == -EAGAIN)
            usleep(100);
}

static void connection(struct rng *r)
{
    struct dozer d;
    struct kill_roles roles = {.victim = victim, .work_on = read_on, .survivor = &d};
    *told = (typeof(*told)){0};
    memset(seen->map, 0, CAP);
    seen->bytes = seen->vague = 0;
    dozer_make(&d, env[1], &l.end[1], 2, false);
    pid_t pid = fork();
    if (pid == 0)
        writer();
    for (uint32_t i = 1; i <= KILLS; i++)
        kill_one(&roles, i, r);
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
    kill_wait(pid);
    CHECK(seen->bytes, <=, told->sent);
    CHECK(told->sent - seen->bytes, <=, KILLS * MOST);
    CHECK(seen_missing(seen, told->sent), <=, KILLS * MOST + seen->vague);
    CHECK(seen_missing(seen, CAP), ==, seen_missing(seen, told->sent) + CAP - told->sent);
    shs_bell_drop(&d.bell, false);
}

static void make(void)
{
    told = world_map(4096);
    seen = world_map(sizeof *seen);
    seen->map = world_map(CAP);
}

int main(int argc, char **argv)
{
    return kill_run(argc, argv, "readers", env[1], make, connection);
}
