/*
 * Pairs are given back as fast as they can be, while a few connections send in bursts both ways: their blocks wander from one to the
 * other, and each thread goes on with what it remembers of its pair, at whatever moment that is taken away. Readers doze, sleep in recv
 * and in poll. Every byte arrives once and in order, then FIN; at the end nothing is in use.
 */
#include "tcp.h"

#include "endpoint/admin.h"
#include "endpoint/bell.h"

#define CONNECTIONS 4
#define RUN_NS 2000000000ull
#define MOST 20000
#define STUCK_MS 8000

/* An end as the preload library keeps it: `end` is filled in by either of its threads, and may be stale. */
struct holder {
    int fd, env;
    uint32_t ep1;
    struct shs_end end;
    uint64_t stream[2]; /* of what it sends and what it receives */
    uint32_t tag, paired;
    uint64_t sent, got, mate_sent, stale, by_ring;
};

static struct world world;
static struct shs_env envs[3], *env[3] = {&envs[0], &envs[1], &envs[2]};
static struct holder ends[CONNECTIONS][2];
static uint32_t hazard[4096][2], over;
static uint64_t until;

static bool in_flight(int fd, int receive)
{
    return shs_load32(&hazard[fd][receive]) > 1;
}

static void look_up(struct holder *h, const struct shs_end *now)
{
    __atomic_store_n(&h->end.tx, now->tx, __ATOMIC_RELAXED);
    __atomic_store_n(&h->end.rx, now->rx, __ATOMIC_RELAXED);
    shs_store32(&h->paired, 1);
}

/* As shs_gate_enter: is the direction under count? */
static bool enter(struct holder *h, const struct shs_who *who, int receive)
{
    struct shs_end now;
    shs_add32(&hazard[h->fd][receive], 1);
    if (shs_load32(&h->paired)) {
        struct shs_direction *dir = receive ? shs_end_rx(&h->end) : shs_end_tx(&h->end);
        uint32_t on = shs_load32(receive ? &dir->rx_on : &dir->tx_on);
        bool ours = receive ? shs_end_reads(&h->end, dir) : shs_end_writes(&h->end, dir);
        if (ours && (on == SHS_ON || on == SHS_RECOUNT))
            return true;
        if (!ours)
            shs_store32(&h->paired, 0);
    }
    if (!shs_load32(&h->paired)) {
        if (!shs_end_of(env[h->env], h->ep1, &now) && (!shs_pair_again(env[h->env], who, h->ep1) || !shs_end_of(env[h->env], h->ep1, &now)))
            return false;
        look_up(h, &now);
    }
    return shs_activate(env[h->env], who, &h->end, receive, in_flight) == 0;
}

static void leave(struct holder *h, int receive)
{
    shs_add32(&hazard[h->fd][receive], -1u);
}

static long natively(struct holder *h, const uint8_t *buf, size_t len)
{
    return SHS_SYS(send(h->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL));
}

static void send_some(struct holder *h, const struct shs_who *who, struct rng *r)
{
    static __thread uint8_t buf[MOST];
    size_t len = size_upto(r, below(r, 8) ? 200 : MOST), done = 0;
    for (size_t i = 0; i < len; i++)
        buf[i] = byte_at(h->stream[0], h->sent + i);
    while (done < len) {
        bool ring = enter(h, who, 0);
        if (ring && below(r, 50) == 0)
            usleep((useconds_t)below(r, 3000)); /* the pair may go now */
        long n = ring ? link_send(env[h->env], who, &h->end, buf + done, len - done, 0) : natively(h, buf + done, len - done);
        if (n == SHS_STALE) {
            shs_add64(&h->stale, 1);
            n = natively(h, buf + done, len - done);
        }
        leave(h, 0);
        struct pollfd ready = {.fd = h->fd, .events = POLLOUT};
        if (n == -EAGAIN)
            CHECK(poll(&ready, 1, STUCK_MS), !=, 0);
        else
            CHECK(n, >, 0);
        done += n > 0 ? (size_t)n : 0;
    }
    h->sent += len;
}

static void *writer(void *arg)
{
    struct holder *h = arg;
    struct shs_who who = world_who(env[h->env], h->tag);
    struct rng r = rng_of(100 + h->tag);
    while (shs_now() < until) {
        for (uint64_t n = below(&r, 20); n; n--) {
            send_some(h, &who, &r);
            dither(&r);
        }
        usleep((useconds_t)below(&r, 3000)); /* long enough for two looks that find nothing new */
    }
    enter(h, &who, 0);
    long done = shs_end_shutdown(env[h->env], &who, &h->end, SHUT_WR);
    if (done == SHS_STALE)
        done = SHS_SYS(shutdown(h->fd, SHUT_WR));
    leave(h, 0);
    CHECK(done, ==, 0);
    return NULL;
}

/* All three as preload/recv.c and poll.c have them. SHS_STALE: natively. */
static long doze(struct holder *h, const struct shs_who *who, struct shs_bell_own *bell)
{
    struct shs_direction *dir = shs_end_rx(&h->end);
    shs_bell_arm(bell, false);
    bool claimed = shs_bell_claim(env[h->env], who->lock_word, &h->end, bell, below(&(struct rng){shs_now()}, 2));
    shs_fence();
    if (claimed && !shs_ring_waiting(dir) && (shs_load64(&dir->word) & SHS_WORD_OPEN)) {
        struct pollfd fds[2] = {{.fd = h->fd, .events = POLLIN}, {.fd = bell->fd, .events = POLLIN}};
        CHECK(poll(fds, 2, STUCK_MS), !=, 0);
        if (fds[1].revents)
            shs_bell_drain(bell);
    }
    shs_bell_disarm(bell);
    return -EAGAIN;
}

static long sleep_in(struct holder *h, const struct shs_who *who, uint8_t *buf, size_t len, bool in_poll)
{
    struct shs_take take;
    struct pollfd ready = {.fd = h->fd, .events = POLLIN};
    int entered = shs_taker_enter(env[h->env], who, &h->end, &take);
    if (entered != 1)
        return entered == 0 ? -EAGAIN : entered;
    CHECK(poll(&ready, 1, STUCK_MS), !=, 0);
    long r = in_poll ? -EAGAIN : SHS_SYS(recv(h->fd, buf, len, MSG_DONTWAIT));
    shs_taker_leave(env[h->env], who, &take, r > 0 ? (uint64_t)r : 0);
    return r;
}

static long receive(struct holder *h, const struct shs_who *who, struct shs_bell_own *bell, uint8_t *buf, size_t len, struct rng *r)
{
    uint64_t looked = 0, before = h->end.ep->rx_local;
    bool ring = enter(h, who, 1);
    if (ring && below(r, 50) == 0)
        usleep((useconds_t)below(r, 3000));
    long n = ring ? link_recv(env[h->env], who, &h->end, buf, len, 0, &looked) : SHS_STALE;
    if (n == -EAGAIN) {
        uint64_t how = below(r, 4);
        n = how < 2 ? doze(h, who, bell) : sleep_in(h, who, buf, len, how == 2);
    }
    if (n == SHS_STALE) {
        struct pollfd ready = {.fd = h->fd, .events = POLLIN};
        shs_add64(&h->stale, ring);
        CHECK(poll(&ready, 1, STUCK_MS), !=, 0);
        n = SHS_SYS(recv(h->fd, buf, len, MSG_DONTWAIT));
    }
    leave(h, 1);
    h->by_ring += h->end.ep->rx_local - before;
    return n;
}

static void *reader(void *arg)
{
    static __thread uint8_t buf[65536];
    struct holder *h = arg;
    struct shs_who who = world_who(env[h->env], h->tag + 50);
    struct rng r = rng_of(200 + h->tag);
    struct shs_bell_own bell;
    CHECK(shs_bell_make(env[h->env], who.tag, &bell), ==, 0);
    for (long n = 1; n != 0;) {
        n = receive(h, &who, &bell, buf, size_upto(&r, sizeof buf), &r);
        if (n == -EAGAIN)
            continue;
        CHECK(n, >=, 0);
        for (long i = 0; i < n; i++)
            CHECK(buf[i], ==, byte_at(h->stream[1], h->got + (uint64_t)i));
        h->got += (uint64_t)n;
    }
    shs_bell_drop(&bell, false);
    return NULL;
}

static void *helper(void *arg)
{
    struct rng r = rng_of(300);
    (void)arg;
    while (!shs_load32(&over)) {
        shs_native_cool(world.stack, world.arena, 0);
        usleep((useconds_t)below(&r, 300));
    }
    return NULL;
}

static void connect_all(void)
{
    for (uint32_t c = 0; c < CONNECTIONS; c++) {
        int fd[2];
        tcp_pair(AF_INET, fd, false);
        for (uint32_t i = 0; i < 2; i++) {
            struct holder *h = &ends[c][i];
            *h = (struct holder){.fd = fd[i], .env = (int)i, .tag = 1 + c * 2 + i, .stream = {c * 2 + i, c * 2 + 1 - i}};
            struct shs_who who = world_who(env[i], h->tag);
            int r = shs_register(env[i], &who, fd[i]);
            CHECK(r, >, 0);
            h->ep1 = (uint32_t)r;
        }
        for (int i = 0; i < 2; i++) {
            CHECK(shs_end_of(env[i], ends[c][i].ep1, &ends[c][i].end), ==, true);
            ends[c][i].end.fd = fd[i];
            ends[c][i].paired = 1;
        }
    }
}

static void close_all(void)
{
    for (int c = 0; c < CONNECTIONS; c++)
        for (int i = 0; i < 2; i++) {
            struct shs_who who = world_who(env[i], ends[c][i].tag);
            shs_end_close(env[i], &who, ends[c][i].ep1, ends[c][i].fd, true);
            close(ends[c][i].fd);
        }
}

static uint64_t counted(int counter)
{
    uint64_t sum = 0;
    for (int i = 0; i < 3; i++)
        sum += shs_slot_at(world.stack, env[i]->slot1 - 1)->counters[counter];
    return sum;
}

int main(int argc, char **argv)
{
    pthread_t thread[CONNECTIONS][2][2], admin;
    check_begin(argc, argv, 60);
    world_make(&world, SHS_N_UNITS);
    for (int i = 0; i < 3; i++)
        world_join(&world, env[i]);
    world.stack->helper = env[2]->slot1;
    connect_all();
    until = shs_now() + RUN_NS;
    pthread_create(&admin, NULL, helper, NULL);
    for (int c = 0; c < CONNECTIONS; c++)
        for (int i = 0; i < 2; i++) {
            pthread_create(&thread[c][i][0], NULL, writer, &ends[c][i]);
            pthread_create(&thread[c][i][1], NULL, reader, &ends[c][i]);
        }
    uint64_t by_ring = 0, stale = 0;
    for (int c = 0; c < CONNECTIONS; c++)
        for (int i = 0; i < 2; i++)
            for (int t = 0; t < 2; t++)
                pthread_join(thread[c][i][t], NULL);
    shs_store32(&over, 1);
    pthread_join(admin, NULL);
    for (int c = 0; c < CONNECTIONS; c++)
        for (int i = 0; i < 2; i++) {
            CHECK(ends[c][i].got, ==, ends[c][1 - i].sent);
            by_ring += ends[c][i].by_ring;
            stale += ends[c][i].stale;
        }
    uint64_t unpaired = counted(SHS_CTR_UNPAIRED), again = counted(SHS_CTR_PAIRED_AGAIN);
    fprintf(stderr, "%llu pairs given back, %llu made again, %llu calls too late; %llu bytes by ring\n", (unsigned long long)unpaired,
            (unsigned long long)again, (unsigned long long)stale, (unsigned long long)by_ring);
    CHECK(unpaired, >, 20);
    CHECK(again, >, 20);
    CHECK(by_ring, >, 0);
    close_all();
    world_check_arena(&world);
    CHECK(world.arena->units_used, ==, 0);
    CHECK(world.arena->pairs_used, ==, 0);
    CHECK(world.stack->endpoints_used, ==, 0);
    for (int i = 0; i < 3; i++)
        world_leave(env[i]);
    world_drop(&world);
    return 0;
}
