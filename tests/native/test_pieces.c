/*
 * Programs may give up to 1024 buffers to one call, empty ones among them: by the ring and by the kernel, the bytes are the same, and no
 * list of empty buffers is taken for the end of a stream or for a full socket.
 */
#include "tcp.h"

#define N 1024

static struct world world;
static struct shs_env envs[2], *env[2] = {&envs[0], &envs[1]};
static struct link l;
static uint64_t sent, got;
static uint8_t buf[N * 8];

/* `empty` empty buffers, then pieces of up to 7 bytes. */
static size_t cut(struct shs_cursor *cur, struct iovec iov[N], int empty, struct rng *r)
{
    size_t len = 0;
    for (int i = 0; i < N; i++) {
        iov[i] = (struct iovec){buf + len, i < empty ? 0 : (size_t)below(r, 8)};
        len += iov[i].iov_len;
    }
    shs_cursor_init(cur, iov, N);
    return len;
}

static void send_pieces(int empty, struct rng *r, bool ring)
{
    struct iovec iov[N];
    struct shs_cursor cur;
    struct shs_who who = world_who(env[0], 1);
    size_t len = cut(&cur, iov, empty, r);
    for (size_t i = 0; i < len; i++)
        buf[i] = byte_at(0, sent + i);
    if (!ring)
        shs_ring_close(l.end[0].tx);
    while (cur.left) { /* there is room enough in the kernel: each call gets on */
        size_t left = cur.left;
        long n = shs_end_send(env[0], &who, &l.end[0], &cur, 0);
        CHECK(n, >, 0);
        CHECK(cur.left, ==, left - (size_t)n);
    }
    sent += len;
}

/* One call, which may bring a part. */
static void recv_pieces(int empty, struct rng *r)
{
    struct iovec iov[N];
    struct shs_cursor cur;
    struct shs_who who = world_who(env[1], 1);
    uint64_t looked = 0;
    struct shs_rx how = {.looked_ns = &looked, .must_look = true};
    size_t len = cut(&cur, iov, empty, r);
    long n = shs_end_recv(env[1], &who, &l.end[1], &cur, 0, &how);
    if (n == -EAGAIN)
        return;
    CHECK(n, >, 0);
    CHECK(n, <=, len);
    for (long i = 0; i < n; i++)
        CHECK(buf[i], ==, byte_at(0, got + (uint64_t)i));
    got += (uint64_t)n;
}

static void run(int most_sent, int most_got, struct rng *r)
{
    sent = got = 0;
    link_make(&l, env, AF_INET, false);
    for (int i = 0; i < 300; i++) {
        send_pieces((int)below(r, (uint64_t)most_sent + 1), r, i % 2);
        uint64_t limit = shs_now() + 2000000000ull;
        while (got < sent) {
            CHECK(shs_now(), <, limit);
            recv_pieces((int)below(r, (uint64_t)most_got + 1), r);
        }
    }
    CHECK(l.end[1].ep->rx_local > 0 && l.end[1].ep->rx_kernel > 0, ==, true);
    link_drop(&l, env);
}

/* 1 if it failed: both are tried. */
static int in_child(int most_sent, int most_got, struct rng *r)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        check_child(10);
        for (int i = 0; i < 2; i++)
            world_join(&world, env[i]);
        run(most_sent, most_got, r);
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0), ==, pid);
    return status != 0;
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 60);
    world_make(&world, 64);
    world_join(&world, env[0]);
    world_join(&world, env[1]);
    struct rng r = rng_of(1);
    run(0, 0, &r);
    run(60, 60, &r);
    int bad = in_child(0, 1000, &r) + in_child(1000, 0, &r);
    CHECK(bad, ==, 0);
    world_leave(env[0]);
    world_leave(env[1]);
    world_drop(&world);
    return 0;
}
