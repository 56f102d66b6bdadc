/*
 * The hunt for lost wake-ups: a writer sends one message at a time, at random moments, and waits for it to be read; a reader that has
 * gone to sleep beside it stops everything, and that is a failure after 5 s. One dozer; two dozers at one ring; one dozer at two rings;
 * each with rings that are shut by others in between.
 */
#include "dozer.h"

#define PHASE_NS 1000000000ull

static struct world world;
static struct shs_env envs[2], *env[2] = {&envs[0], &envs[1]};
static struct link l[2];
static uint64_t read_bytes[2], rounds[2], until;
static uint32_t over;

static void stalled(int i)
{
    const struct shs_direction *dir = l[i].end[0].tx;
    fprintf(stderr, "nobody woke: word %#llx rd %#llx ksent %llu taken %llu bell %u opener %u rlock %#x\n", (unsigned long long)dir->word,
            (unsigned long long)dir->rd, (unsigned long long)dir->ksent, (unsigned long long)dir->taken, dir->bell, dir->opener,
            dir->rlock);
    CHECK(shs_load64(&read_bytes[i]), ==, rounds[i] * 8);
}

static void *writer(void *arg)
{
    int i = (int)(uintptr_t)arg;
    struct rng r = rng_of(10 + (uint64_t)i);
    struct shs_who who = world_who(env[0], 1 + (uint32_t)i);
    while (shs_now() < until) {
        CHECK(link_send(env[0], &who, &l[i].end[0], "12345678", 8, 0), ==, 8);
        rounds[i]++;
        uint64_t start = shs_now();
        for (int n = 0; shs_load64(&read_bytes[i]) != rounds[i] * 8; n++) {
            shs_pause();
            if (n > 2000 && shs_now() - start > 5000000000ull)
                stalled(i);
            if (n > 2000)
                usleep(20);
        }
        if (below(&r, 4)) /* about as long as the reader needs to fall asleep */
            dither(&r);
    }
    CHECK(shs_end_shutdown(env[0], &who, &l[i].end[0], SHUT_WR), ==, 0);
    return NULL;
}

static void *closer(void *arg)
{
    struct rng r = rng_of(50);
    (void)arg;
    while (!shs_load32(&over)) {
        shs_ring_close(l[below(&r, 2)].end[1].rx);
        usleep((useconds_t)below(&r, 500));
    }
    return NULL;
}

struct reader {
    struct dozer d[2];
    uint32_t tag;
    bool alone;
};

static void *reader(void *arg)
{
    struct reader *me = arg;
    uint8_t buf[64];
    long n;
    dozer_make(&me->d[0], env[1], &l[0].end[1], me->tag, me->alone);
    while ((n = dozer_recv(&me->d[0], buf, sizeof buf)) > 0)
        shs_add64(&read_bytes[0], (uint64_t)n);
    CHECK(n, ==, 0);
    shs_bell_drop(&me->d[0].bell, false);
    return NULL;
}

/* As a poll of two sockets: one bell, both rings. */
static void *reader_of_two(void *arg)
{
    struct reader *me = arg;
    uint8_t buf[64];
    bool ended[2] = {false, false};
    for (int i = 0; i < 2; i++)
        dozer_make(&me->d[i], env[1], &l[i].end[1], me->tag + (uint32_t)i, true);
    struct shs_bell_own *bell = &me->d[0].bell;
    while (!ended[0] || !ended[1]) {
        bool came = false, waiting = false;
        for (int i = 0; i < 2; i++) {
            long n = ended[i] ? -EAGAIN : link_recv(env[1], &me->d[i].who, me->d[i].end, buf, sizeof buf, 0, &me->d[i].looked_ns);
            ended[i] |= n == 0;
            came |= n >= 0;
            if (n > 0)
                shs_add64(&read_bytes[i], (uint64_t)n);
        }
        if (came)
            continue;
        shs_bell_arm(bell, false);
        for (int i = 0; i < 2; i++)
            CHECK(shs_bell_claim(env[1], me->d[i].who.lock_word, me->d[i].end, bell, i == 0), ==, true);
        shs_fence();
        for (int i = 0; i < 2; i++)
            waiting |= shs_ring_waiting(me->d[i].end->rx);
        /* what is shut comes by the kernel, which the poll watches; nothing must be in a ring */
        if (!waiting) {
            struct pollfd fds[3] = {{.fd = ended[0] ? -1 : l[0].fd[1], .events = POLLIN},
                                    {.fd = ended[1] ? -1 : l[1].fd[1], .events = POLLIN},
                                    {.fd = bell->fd, .events = POLLIN}};
            me->d[0].dozes++;
            ppoll(fds, 3, NULL, NULL);
            shs_bell_drain(bell);
            me->d[0].looked_ns = me->d[1].looked_ns = 0;
        }
        shs_bell_disarm(bell);
    }
    for (int i = 0; i < 2; i++)
        shs_bell_drop(&me->d[i].bell, false);
    return NULL;
}

static void phase(const char *name, int n_readers, int n_links)
{
    pthread_t thread[5];
    static struct reader readers[2];
    int n = 0, joined = n_links;
    memset(read_bytes, 0, sizeof read_bytes);
    memset(rounds, 0, sizeof rounds);
    over = 0;
    for (int i = 0; i < 2; i++)
        link_make(&l[i], env, AF_INET, false);
    until = shs_now() + PHASE_NS;
    for (int i = 0; i < n_links; i++)
        pthread_create(&thread[n++], NULL, writer, (void *)(uintptr_t)i);
    for (int i = 0; i < n_readers; i++, joined++) {
        readers[i] = (struct reader){.tag = 10 + 2 * (uint32_t)i, .alone = n_readers == 1};
        pthread_create(&thread[n++], NULL, n_links == 2 ? reader_of_two : reader, &readers[i]);
    }
    pthread_create(&thread[n], NULL, closer, NULL);
    for (int i = 0; i < joined; i++)
        pthread_join(thread[i], NULL);
    shs_store32(&over, 1);
    pthread_join(thread[n], NULL);
    for (int i = 0; i < n_links; i++)
        CHECK(read_bytes[i], ==, rounds[i] * 8);
    fprintf(stderr, "%s: %llu rounds, %llu dozes, %llu native sleeps, %llu bells\n", name, (unsigned long long)(rounds[0] + rounds[1]),
            (unsigned long long)(readers[0].d[0].dozes + (n_readers == 2 ? readers[1].d[0].dozes : 0)),
            (unsigned long long)readers[0].d[0].sleeps, (unsigned long long)l[0].end[0].ep->tx_bells);
    for (int i = 0; i < 2; i++)
        link_drop(&l[i], env);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 60);
    world_make(&world, SHS_N_UNITS);
    world_join(&world, env[0]);
    world_join(&world, env[1]);
    phase("one dozer", 1, 1);
    phase("two dozers", 2, 1);
    phase("one dozer, two rings", 1, 2);
    world_leave(env[0]);
    world_leave(env[1]);
    world_drop(&world);
    return 0;
}
