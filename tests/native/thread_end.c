/*
 * A connection in full use for two seconds: two threads write to one reader in one direction, one writes to two readers in the other;
 * readers doze or sleep natively, somebody shuts rings all the time. Every byte arrives once and in order; then FIN.
 */
#include "dozer.h"
#include "unit.h"

#define CAP (48u << 20)
#define RUN_NS 2000000000ull

static struct world world;
static struct shs_env envs[2], *env[2] = {&envs[0], &envs[1]};
static struct link l;
static uint64_t until;
static uint64_t written[2]; /* units of each of the two writers */
static uint64_t sent_back;  /* bytes of the single writer */
static struct seen seen;
static uint32_t over;

static uint64_t cuts[2]; /* of the two writers: sends that ended inside a word, which is sent again */

/* Send some words; the single writer, at end 1, goes on where a send ended. Returns by how much it got on. */
static size_t send_words(int end, uint32_t tag, uint32_t writer, uint64_t at, struct rng *r)
{
    static __thread uint8_t buf[40000];
    size_t len = size_upto(r, below(r, 20) ? 40 : sizeof buf / UNIT) * UNIT;
    if (len > sizeof buf)
        len = sizeof buf;
    struct shs_who who = world_who(env[end], tag);
    unit_fill(buf, len, writer, at);
    if (end == 1) {
        CHECK(link_send_all(env[end], &who, &l.end[end], buf, len), ==, len);
        return len;
    }
    long n = link_send(env[end], &who, &l.end[end], buf, len, 0);
    if (n == -EAGAIN) {
        struct pollfd ready = {.fd = l.fd[end], .events = POLLOUT};
        poll(&ready, 1, 1000);
        return 0;
    }
    CHECK(n, >, 0);
    cuts[writer] += n % UNIT != 0;
    return (size_t)n / UNIT * UNIT;
}

static void *one_of_two_writers(void *arg)
{
    uint32_t writer = (uint32_t)(uintptr_t)arg;
    struct rng r = rng_of(10 + writer);
    uint64_t at = 0;
    while (shs_now() < until) {
        at += send_words(0, 1 + writer, writer, at, &r);
        dither(&r);
    }
    written[writer] = at / UNIT;
    return NULL;
}

static void *single_writer(void *arg)
{
    struct rng r = rng_of(20);
    uint64_t at = 0;
    (void)arg;
    while (shs_now() < until && at < CAP - 65536) {
        at += send_words(1, 1, 0, at, &r);
        dither(&r);
    }
    sent_back = at;
    return NULL;
}

static void *single_reader(void *arg)
{
    static uint8_t buf[65536];
    static struct unit_parser parser;
    struct dozer d;
    struct rng r = rng_of(30);
    long n;
    (void)arg;
    dozer_make(&d, env[1], &l.end[1], 10, true);
    while ((n = dozer_recv(&d, buf, size_upto(&r, sizeof buf))) > 0) {
        unit_parse(&parser, buf, (size_t)n);
        if (below(&r, 20) == 0)
            dither(&r);
    }
    CHECK(n, ==, 0);
    if (parser.have) /* the last word of all was cut */
        parser.cuts[parser.word[0] & 0x7f]++;
    for (int w = 0; w < 2; w++) {
        CHECK(parser.next[w], ==, written[w]);
        CHECK(parser.cuts[w], ==, cuts[w]);
    }
    fprintf(stderr, "one reader: %llu dozes, %llu sleeps\n", (unsigned long long)d.dozes, (unsigned long long)d.sleeps);
    shs_bell_drop(&d.bell, false);
    return NULL;
}

static void *one_of_two_readers(void *arg)
{
    uint32_t reader = (uint32_t)(uintptr_t)arg;
    uint8_t *buf = malloc(65536);
    struct dozer d;
    struct rng r = rng_of(40 + reader);
    long n;
    dozer_make(&d, env[0], &l.end[0], 20 + reader, false);
    while ((n = dozer_recv(&d, buf, 8 + size_upto(&r, 65000))) > 0) {
        seen_mark(&seen, buf, (size_t)n);
        if (below(&r, 20) == 0)
            dither(&r);
    }
    CHECK(n, ==, 0);
    fprintf(stderr, "reader %u: %llu dozes, %llu sleeps\n", reader, (unsigned long long)d.dozes, (unsigned long long)d.sleeps);
    shs_bell_drop(&d.bell, false);
    free(buf);
    return NULL;
}

static void *closer(void *arg)
{
    struct rng r = rng_of(50);
    (void)arg;
    while (!shs_load32(&over)) {
        shs_ring_close(l.end[below(&r, 2)].rx);
        usleep((useconds_t)below(&r, 2000));
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread[7];
    check_begin(argc, argv, 60);
    world_make(&world, SHS_N_UNITS);
    world_join(&world, env[0]);
    world_join(&world, env[1]);
    link_make(&l, env, AF_INET, false);
    seen.map = calloc(1, CAP);
    until = shs_now() + RUN_NS;
    pthread_create(&thread[0], NULL, one_of_two_writers, (void *)0);
    pthread_create(&thread[1], NULL, one_of_two_writers, (void *)1);
    pthread_create(&thread[2], NULL, single_writer, NULL);
    pthread_create(&thread[3], NULL, single_reader, NULL);
    pthread_create(&thread[4], NULL, one_of_two_readers, (void *)0);
    pthread_create(&thread[5], NULL, one_of_two_readers, (void *)1);
    pthread_create(&thread[6], NULL, closer, NULL);
    for (int i = 0; i < 3; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < 2; i++) {
        struct shs_who who = world_who(env[i], 1);
        CHECK(shs_end_shutdown(env[i], &who, &l.end[i], SHUT_WR), ==, 0);
    }
    for (int i = 3; i < 6; i++)
        pthread_join(thread[i], NULL);
    shs_store32(&over, 1);
    pthread_join(thread[6], NULL);
    CHECK(seen.bytes, ==, sent_back);
    CHECK(seen_missing(&seen, sent_back), ==, seen.vague);
    for (int i = 0; i < 2; i++) {
        const struct shs_endpoint *ep = l.end[i].ep;
        fprintf(stderr, "end %d: %llu bytes by ring, %llu by the kernel, %llu bells, %llu times full\n", i,
                (unsigned long long)ep->rx_local, (unsigned long long)ep->rx_kernel, (unsigned long long)ep->tx_bells,
                (unsigned long long)ep->tx_full);
        CHECK(ep->rx_local > 0 && ep->rx_kernel > 0, ==, true);
    }
    link_drop(&l, env);
    world_check_arena(&world);
    CHECK(world.arena->units_used, ==, 0);
    free(seen.map);
    world_leave(env[0]);
    world_leave(env[1]);
    world_drop(&world);
    return 0;
}
