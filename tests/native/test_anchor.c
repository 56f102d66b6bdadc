/*
 * What the kernel says of a stream against what was really sent and taken: both sides of a connection, v4 and v6, with bytes unread,
 * bytes unsent, a FIN under way, a FIN that was read, a reset.
 */
#include "tcp.h"

#include "endpoint/anchor.h"

static uint64_t sent[2], taken[2];
static int fd[2];

/* The stream stands still: the counts must be had, and be exact. */
static void counts(const char *when)
{
    for (int i = 0; i < 2; i++) {
        uint64_t value = ~0ull;
        int r = shs_anchor_sent(fd[i], &value);
        if (r || value != sent[i])
            fprintf(stderr, "%s, side %d, sent\n", when, i);
        CHECK(r, ==, 0);
        CHECK(value, ==, sent[i]);
        r = shs_anchor_taken(fd[i], &value);
        if (r || value != taken[i])
            fprintf(stderr, "%s, side %d, taken\n", when, i);
        CHECK(r, ==, 0);
        CHECK(value, ==, taken[i]);
    }
}

static uint8_t buf[1 << 20];

static void put(int i, size_t len)
{
    ssize_t n = send(fd[i], buf, len, MSG_DONTWAIT);
    sent[i] += n > 0 ? (uint64_t)n : 0;
}

static void get(int i, size_t len)
{
    ssize_t n = recv(fd[i], buf, len, MSG_DONTWAIT);
    taken[i] += n > 0 ? (uint64_t)n : 0;
}

static void begin(int family)
{
    tcp_pair(family, fd, true);
    memset(sent, 0, sizeof sent);
    memset(taken, 0, sizeof taken);
    counts("new");
}

static void end(void)
{
    close(fd[0]);
    close(fd[1]);
}

static void both_ways(int family, struct rng *r)
{
    begin(family);
    for (int step = 0; step < 400; step++) {
        int i = (int)below(r, 2);
        if (below(r, 2))
            put(i, size_upto(r, 200000));
        else
            get(i, size_upto(r, 200000));
        usleep(step % 20 ? 0 : 1000);
        counts("under way");
    }
    end();
}

/* Nobody reads: buffers fill up, the window closes, and is probed. */
static void unsent(int family)
{
    begin(family);
    for (int side = 0; side < 2; side++) {
        uint64_t before;
        do {
            before = sent[side];
            put(side, sizeof buf);
        } while (sent[side] != before);
        counts("full");
    }
    usleep(500000);
    counts("full for a while");
    get(0, 100);
    get(1, 3000000);
    counts("read a little");
    end();
}

/* `side` says that it has no more to send. */
static void finished(int family, int side)
{
    begin(family);
    put(side, 5000);
    put(1 - side, 777);
    get(1 - side, 100);
    shutdown(fd[side], SHUT_WR);
    usleep(2000);
    uint64_t value;
    /* the kernel counts the FIN in some of its numbers: the count of bytes must not, or must not be given */
    if (shs_anchor_sent(fd[side], &value) == 0)
        CHECK(value, ==, sent[side]);
    if (shs_anchor_taken(fd[1 - side], &value) == 0)
        CHECK(value, ==, taken[1 - side]);
    get(1 - side, 4000);
    if (shs_anchor_taken(fd[1 - side], &value) == 0)
        CHECK(value, ==, taken[1 - side]);
    put(1 - side, 3000);
    get(side, 1000);
    CHECK(shs_anchor_taken(fd[side], &value), ==, 0);
    CHECK(value, ==, taken[side]);
    CHECK(shs_anchor_sent(fd[1 - side], &value), ==, 0);
    CHECK(value, ==, sent[1 - side]);
    get(1 - side, 4000);
    get(1 - side, 1);
    if (shs_anchor_taken(fd[1 - side], &value) == 0)
        CHECK(value, ==, taken[1 - side]);
    end();
}

static void reset(int family, int side)
{
    begin(family);
    put(side, 5000);
    get(1 - side, 100);
    struct linger now = {1, 0};
    setsockopt(fd[side], SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd[side]);
    usleep(2000);
    uint64_t value;
    if (shs_anchor_taken(fd[1 - side], &value) == 0)
        CHECK(value, ==, 100);
    close(fd[1 - side]);
}

static void *peer(void *arg)
{
    static uint8_t mine[100000];
    struct rng r = rng_of(2);
    (void)arg;
    ssize_t n = 1;
    while (n) {
        struct pollfd ready = {.fd = fd[1], .events = POLLIN | POLLOUT};
        poll(&ready, 1, 10);
        n = recv(fd[1], mine, size_upto(&r, sizeof mine), MSG_DONTWAIT);
        send(fd[1], mine, size_upto(&r, sizeof mine), MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    return NULL;
}

/* The peer reads and writes all the time: the counts are of our own calls only, so they are exact all the same, or not given. */
static void in_motion(int family, struct rng *r)
{
    pthread_t thread;
    uint64_t value, until = shs_now() + 500000000ull, had = 0, not_had = 0;
    begin(family);
    pthread_create(&thread, NULL, peer, NULL);
    while (shs_now() < until) {
        put(0, size_upto(r, 100000));
        bool got_it = shs_anchor_sent(fd[0], &value) == 0;
        if (got_it)
            CHECK(value, ==, sent[0]);
        had += got_it;
        not_had += !got_it;
        get(0, size_upto(r, 100000));
        if (shs_anchor_taken(fd[0], &value) == 0)
            CHECK(value, ==, taken[0]);
    }
    shutdown(fd[0], SHUT_WR);
    pthread_join(thread, NULL);
    fprintf(stderr, "in motion: sent known %llu times, not %llu\n", (unsigned long long)had, (unsigned long long)not_had);
    CHECK(had, >, not_had);
    end();
}

static void identity(int family)
{
    struct world w;
    struct shs_env env;
    struct shs_anchor a[2];
    world_make(&w, 64);
    world_join(&w, &env);
    begin(family);
    for (int i = 0; i < 2; i++) {
        struct shs_stat st;
        CHECK(shs_anchor_identify(&env, fd[i], &a[i]), ==, 0);
        CHECK(shs_sys_stat(fd[i], "", &st), ==, 0);
        CHECK(a[i].inode, ==, st.ino);
        CHECK(a[i].flow.family, ==, family);
    }
    CHECK(a[0].cookie, !=, a[1].cookie);
    CHECK(a[0].flow.lport, ==, a[1].flow.rport);
    CHECK(a[0].flow.rport, ==, a[1].flow.lport);
    CHECK(memcmp(a[0].flow.laddr, a[1].flow.raddr, 16), ==, 0);
    CHECK(shs_flow_bucket(&a[0].flow), ==, shs_flow_bucket(&a[1].flow));
    w.stack->netns++;
    CHECK(shs_anchor_identify(&env, fd[0], &a[0]), ==, SHS_REASON_OTHER_NETNS);
    int plain = socket(family, SOCK_STREAM, 0), file = open("/dev/null", O_RDWR);
    CHECK(shs_anchor_identify(&env, plain, &a[0]), ==, SHS_REASON_NOT_ESTABLISHED);
    CHECK(shs_anchor_identify(&env, file, &a[0]), ==, SHS_REASON_NOT_INET);
    close(plain);
    close(file);
    end();
    world_leave(&env);
    world_drop(&w);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 60);
    struct rng r = rng_of(1);
    bool v6 = tcp_has_v6();
    if (!v6)
        fprintf(stderr, "no ::1 here: IPv4 only\n");
    for (int family = AF_INET; family; family = family == AF_INET && v6 ? AF_INET6 : 0) {
        identity(family);
        both_ways(family, &r);
        unsent(family);
        in_motion(family, &r);
        reset(family, 0);
        reset(family, 1);
    }
    for (int side = 0; side < 2; side++) {
        finished(AF_INET, side);
        if (v6)
            finished(AF_INET6, side);
    }
    return 0;
}
