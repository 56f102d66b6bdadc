/*
 * Two ends of a real connection, one step after the other: bytes take the ring and the kernel in random turns, rings are shut at
 * random, takers come and go; what arrives is what was sent, then FIN or reset.
 */
#include "tcp.h"

#include "endpoint/admin.h"

#define MOST 150000

static struct world world;
static struct shs_env envs[2], *env[2] = {&envs[0], &envs[1]};
static struct link l;
static uint64_t sent[2], got[2], looked[2]; /* sent[i], got[i]: in the direction that end i writes */
static struct shs_take take[2];
static bool taker[2];                       /* a second thread of end i is counted as a taker */
static uint8_t buf[MOST];

static struct shs_who who(int i, uint32_t tag)
{
    return world_who(env[i], tag);
}

static void check_bytes(int dir, size_t n)
{
    for (size_t i = 0; i < n; i++)
        CHECK(buf[i], ==, byte_at((uint64_t)dir, got[dir] + i));
}

static long native_send(void *arg)
{
    const struct iovec *iov = arg;
    return SHS_SYS(send(l.fd[0], iov->iov_base, iov->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL));
}

static void do_send(int i, size_t len, bool native)
{
    for (size_t n = 0; n < len; n++)
        buf[n] = byte_at((uint64_t)i, sent[i] + n);
    struct shs_who me = who(i, 1);
    struct iovec iov = {buf, len};
    long r = native && i == 0 ? shs_end_send_native(env[i], &me, &l.end[i], native_send, &iov)
                              : link_send(env[i], &me, &l.end[i], buf, len, MSG_DONTWAIT);
    if (r != -EAGAIN) {
        CHECK(r, >, 0);
        CHECK(r, <=, len);
        sent[i] += (uint64_t)r;
    }
}

static long do_recv(int i, size_t len, int flags)
{
    struct shs_who me = who(i, 1);
    memset(buf, 0xee, len < 64 ? len : 64);
    long r = link_recv(env[i], &me, &l.end[i], buf, len, flags, &looked[i]);
    if (r > 0) {
        CHECK(r, <=, len);
        check_bytes(1 - i, (size_t)r);
        got[1 - i] += flags & MSG_PEEK ? 0 : (uint64_t)r;
    }
    return r;
}

/* A reader that sleeps natively: counted, then bytes from the kernel, then counted off. */
static void do_taker(int i)
{
    struct shs_who me = who(i, 2);
    if (!taker[i]) {
        bool waiting = shs_ring_waiting(l.end[i].rx);
        int r = shs_taker_enter(env[i], &me, &l.end[i], &take[i]);
        CHECK(r, ==, !waiting);
        taker[i] = r == 1;
        return;
    }
    long r = recv(l.fd[i], buf, 5000, MSG_DONTWAIT);
    if (r > 0) {
        check_bytes(1 - i, (size_t)r);
        got[1 - i] += (uint64_t)r;
    }
    shs_taker_leave(env[i], &me, &take[i], r > 0 ? (uint64_t)r : 0);
    taker[i] = false;
}

static void random_steps(struct rng *r, int steps)
{
    for (int step = 0; step < steps; step++) {
        int i = (int)below(r, 2);
        uint64_t dice = below(r, 100);
        if (dice < 44)
            do_send(i, size_upto(r, MOST), dice == 0);
        else if (dice < 90)
            do_recv(i, size_upto(r, MOST), dice < 50 ? MSG_PEEK : 0);
        else if (dice < 94)
            do_taker(i);
        else if (dice < 97)
            shs_ring_close(l.end[i].rx);
        else if (dice < 98)
            shs_native_lower_all(world.stack, world.arena);
        else
            looked[i] = 0;
    }
    for (int i = 0; i < 2; i++)
        if (taker[i])
            do_taker(i);
}

/* All that was sent arrives, and in time. */
static void drain(int i)
{
    uint64_t until = shs_now() + 10000000000ull;
    while (got[1 - i] < sent[1 - i]) {
        CHECK(shs_now(), <, until);
        long r = do_recv(i, MOST, 0);
        if (r == -EAGAIN) {
            struct pollfd ready = {.fd = l.fd[i], .events = POLLIN};
            poll(&ready, 1, 10);
            looked[i] = 0;
        } else {
            CHECK(r, >, 0);
        }
    }
}

static void begin(int family)
{
    memset(sent, 0, sizeof sent);
    memset(got, 0, sizeof got);
    memset(looked, 0, sizeof looked);
    link_make(&l, env, family, true);
}

static long recv_at_last(int i)
{
    long r;
    do {
        struct pollfd ready = {.fd = l.fd[i], .events = POLLIN};
        poll(&ready, 1, 5);
        looked[i] = 0;
        r = do_recv(i, MOST, 0);
    } while (r == -EAGAIN);
    return r;
}

static void fin(int family, struct rng *r)
{
    begin(family);
    random_steps(r, 1500);
    for (int i = 0; i < 2; i++) {
        struct shs_who me = who(i, 1);
        CHECK(shs_end_shutdown(env[i], &me, &l.end[i], SHUT_WR), ==, 0);
        CHECK(link_send(env[i], &me, &l.end[i], "x", 1, MSG_DONTWAIT), ==, -EPIPE);
        drain(1 - i);
        CHECK(recv_at_last(1 - i), ==, 0);
        CHECK(recv_at_last(1 - i), ==, 0);
    }
    for (int i = 0; i < 2; i++)
        CHECK(l.end[i].ep->rx_local > 0 && l.end[i].ep->rx_kernel > 0 && l.end[i].ep->rx_lifts > 1, ==, true);
    link_drop(&l, env);
}

/* The peer's kernel says that the connection is no more: what arrived comes first, in order, then the error, then nothing. */
static void reset(int family, struct rng *r)
{
    begin(family);
    random_steps(r, 300);
    struct linger now = {1, 0};
    setsockopt(l.fd[0], SOL_SOCKET, SO_LINGER, &now, sizeof now);
    struct shs_who me = who(0, 1);
    shs_end_close(env[0], &me, l.ep1[0], l.fd[0], true);
    close(l.fd[0]);
    long n;
    while ((n = recv_at_last(1)) > 0)
        ;
    CHECK(n, ==, -ECONNRESET);
    CHECK(got[0], <=, sent[0]);
    CHECK(recv_at_last(1), ==, 0);
    CHECK(shs_ring_waiting(l.end[1].rx), ==, false);
    me = who(1, 1);
    CHECK(link_send(env[1], &me, &l.end[1], "x", 1, MSG_DONTWAIT), ==, -EPIPE);
    shs_end_close(env[1], &me, l.ep1[1], l.fd[1], true);
    close(l.fd[1]);
}

/* A close with ring bytes unread resets the connection, as one with kernel bytes unread does. */
static void close_with_unread(int family)
{
    begin(family);
    CHECK(do_recv(0, 10, 0), ==, -EAGAIN); /* opens the ring */
    do_send(1, 100, false);
    CHECK(l.end[1].ep->tx_local, ==, 100);
    struct shs_who me = who(0, 1);
    shs_end_close(env[0], &me, l.ep1[0], l.fd[0], true);
    close(l.fd[0]);
    CHECK(recv_at_last(1), ==, -ECONNRESET);
    me = who(1, 1);
    shs_end_close(env[1], &me, l.ep1[1], l.fd[1], true);
    close(l.fd[1]);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 60);
    world_make(&world, SHS_N_UNITS);
    world_join(&world, env[0]);
    world_join(&world, env[1]);
    struct rng r = rng_of(1);
    bool v6 = tcp_has_v6();
    for (int round = 0; round < 12; round++) {
        int family = v6 && round % 2 ? AF_INET6 : AF_INET;
        fin(family, &r);
        close_with_unread(family);
        if (round >= 6)
            reset(family, &r);
        world_check_arena(&world);
        CHECK(world.arena->units_used, ==, 0);
        CHECK(world.stack->endpoints_used, ==, 0);
        CHECK(world.arena->pairs_used, ==, 0);
    }
    world_leave(env[0]);
    world_leave(env[1]);
    world_drop(&world);
    return 0;
}
