/*
 * The recall of a ring, and sending its residue again, killed at any moment. Bytes go by ring and by the kernel in random order, the reader takes
 * some; then a child recalls the ring, or sends residue as the writer does, and is killed. The test goes on where it was, and reads the
 * socket as a holder outside the library does: every byte comes once, in order, and then what the writer sends later.
 */
#include "repair.h"
#include "tcp.h"

#include "endpoint/residue.h"

#define RUN_NS 3000000000ull
#define MOST (4u << 20)

static struct world world;
static struct shs_env envs[3], *env[2] = {&envs[0], &envs[1]};
static struct link l;
static struct {
    uint32_t slot1, go;
} *victim;
static uint64_t sent, got, stream, looked;
static uint64_t kills[4], residues, mixes, pending;

struct native {
    int fd;
    uint8_t *buf;
    size_t len;
};

static long by_kernel(void *arg)
{
    struct native *n = arg;
    struct iovec iov = {n->buf, n->len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    return shs_sys_sendmsg(n->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void send_some(struct rng *r, bool kernel)
{
    static uint8_t buf[300000];
    struct shs_who who = world_who(env[0], 1);
    size_t len = 1 + (size_t)below(r, below(r, 8) ? 3000 : sizeof buf - 1);
    if (sent + len > MOST)
        return;
    for (size_t i = 0; i < len; i++)
        buf[i] = byte_at(stream, sent + i);
    struct native n = {l.fd[0], buf, len};
    long done = kernel ? shs_end_send_native(env[0], &who, &l.end[0], by_kernel, &n) : link_send(env[0], &who, &l.end[0], buf, len, 0);
    if (done > 0)
        sent += (uint64_t)done;
    else
        CHECK(done, ==, -EAGAIN);
}

static void check_bytes(const uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        CHECK(buf[i], ==, byte_at(stream, got + i));
    got += len;
}

static void take_some(struct rng *r)
{
    static uint8_t buf[20000];
    struct shs_who who = world_who(env[1], 1);
    long n = link_recv(env[1], &who, &l.end[1], buf, 1 + (size_t)below(r, sizeof buf), 0, &looked);
    if (n > 0)
        check_bytes(buf, (size_t)n);
    else
        CHECK(n, ==, -EAGAIN);
}

/* As a holder outside the library reads. */
static bool take_natively(void)
{
    static uint8_t buf[200000];
    long n = recv(l.fd[1], buf, sizeof buf, MSG_DONTWAIT);
    if (n > 0)
        check_bytes(buf, (size_t)n);
    return n > 0;
}

static void recall(struct shs_env *mine)
{
    struct shs_who who = world_who(mine, 1);
    __atomic_fetch_or(&l.end[1].ep->flags, SHS_EPF_KERNEL_ONLY, __ATOMIC_SEQ_CST);
    long r;
    while ((r = shs_end_recall(mine, &who, &l.end[1], false)) == -EAGAIN) {
        struct shs_who writer = world_who(mine, 2); /* who was killed had the writer's lock: its next call counts anew */
        CHECK(l.end[0].tx->tx_on, ==, SHS_RECOUNT);
        (void)shs_end_send_residue(mine, &writer, &l.end[0]);
    }
    CHECK(r, ==, 0);
}

/* Sends until the residue is out; somebody reads meanwhile. */
static void resend(struct shs_env *mine)
{
    struct shs_who who = world_who(mine, 1);
    while (shs_end_send_residue(mine, &who, &l.end[0]) == -EAGAIN)
        ;
}

/* A process of its own begins what `act` does, and is killed after some time; false: it was done before. */
static void killed_in(struct rng *r, void (*act)(struct shs_env *), uint64_t most_ns)
{
    victim->slot1 = victim->go = 0;
    pid_t child = fork();
    if (child == 0) {
        struct shs_env mine;
        check_child(60);
        world_join(&world, &mine);
        shs_store32(&victim->slot1, mine.slot1);
        while (!shs_load32(&victim->go))
            shs_pause();
        act(&mine);
        for (;;)
            pause();
    }
    while (!shs_load32(&victim->slot1))
        usleep(50);
    uint64_t until = shs_now() + below(r, most_ns);
    shs_store32(&victim->go, 1);
    while (shs_now() < until)
        ;
    kill(child, SIGKILL);
    int end;
    CHECK(waitpid(child, &end, 0), ==, child);
    CHECK(end, ==, SIGKILL);
}

/* What the helper does for a pair that has cooled: a sender may have died between its last byte and giving the memory back. */
static void tidy(struct shs_direction *dir)
{
    struct shs_who who = world_who(&envs[2], 1);
    CHECK(shs_lock(&envs[2], &dir->rlock, who.lock_word), ==, 0);
    CHECK(shs_lock(&envs[2], &dir->wlock, who.lock_word), ==, 0);
    shs_residue_tidy(&envs[2], dir, who.lock_word);
    shs_unlock(&dir->wlock);
    shs_unlock(&dir->rlock);
}

/* Where was it killed? */
static int phase(const struct shs_direction *dir)
{
    if (!shs_load32(&dir->re_on))
        return dir->rlock || dir->wlock ? 0 : 3; /* before it, or all done */
    return shs_load64(&dir->ksent) == dir->re_ksent ? 1 : 2;
}

static void connection(struct rng *r)
{
    struct shs_direction *dir;
    uint64_t inode;
    bool hidden = below(r, 2);
    int steps = 1 + (int)below(r, 12);
    sent = got = looked = 0;
    stream++;
    link_make(&l, env, AF_INET, true);
    dir = l.end[1].rx;
    int small = 4096;
    if (below(r, 2)) /* the kernel takes residue in pieces */
        CHECK(setsockopt(l.fd[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), ==, 0);
    take_some(r); /* nothing: opens */
    for (int i = 0; i < steps; i++)
        switch (below(r, 4)) {
        case 0:
            take_some(r);
            break;
        case 1:
            send_some(r, true);
            break;
        default:
            send_some(r, false);
        }
    bool waits = shs_ring_waiting(dir);
    inode = l.end[0].ep->inode;
    if (hidden)
        l.end[0].ep->inode = 1; /* nobody can fetch the writer's descriptor */
    uint32_t slot1;
    killed_in(r, recall, 300000);
    kills[phase(dir)]++;
    slot1 = victim->slot1;
    if (below(r, 2))
        reap(&world, slot1);
    recall(env[1]);
    if (waits) {
        residues++;
        mixes += dir->re_on && dir->re_chunks[0];
        pending += dir->re_on;
        CHECK(shs_ring_waiting(dir), ==, 0);
    }
    if (dir->re_on) {
        killed_in(r, resend, 200000);
        kills[phase(dir)]++;
        reap(&world, victim->slot1);
    }
    reap(&world, slot1);
    l.end[0].ep->inode = inode;
    for (int i = 0; i < 3; i++) {
        send_some(r, below(r, 2)); /* behind the residue, or not at all */
        while (take_natively())
            ;
    }
    uint64_t limit = shs_now() + 10000000000ull;
    struct shs_who who = world_who(env[0], 1);
    while (got < sent) {
        CHECK(shs_now(), <, limit);
        (void)shs_end_send_residue(env[0], &who, &l.end[0]);
        take_natively();
    }
    CHECK(shs_end_send_residue(env[0], &who, &l.end[0]), ==, 0);
    CHECK(dir->re_on, ==, 0);
    tidy(dir);
    CHECK(dir->re_chunks[0], ==, 0);
    CHECK(take_natively(), ==, 0);
    CHECK(got, ==, sent);
    world_check_arena(&world);
    link_drop(&l, env);
    CHECK(world.arena->units_used, ==, 0);
}

int main(int argc, char **argv)
{
    check_begin(argc, argv, 100);
    world_make(&world, SHS_N_UNITS);
    for (int i = 0; i < 3; i++)
        world_join(&world, &envs[i]);
    world.stack->helper = envs[2].slot1;
    victim = world_map(4096);
    struct rng r = rng_of(1);
    uint64_t until = shs_now() + RUN_NS;
    while (shs_now() < until)
        connection(&r);
    fprintf(stderr,
            "%llu connections, %llu residues, %llu with kernel bytes, %llu not sent at once; killed before %llu, declared %llu, "
            "sending %llu, after %llu\n",
            (unsigned long long)stream, (unsigned long long)residues, (unsigned long long)mixes, (unsigned long long)pending,
            (unsigned long long)kills[0], (unsigned long long)kills[1], (unsigned long long)kills[2], (unsigned long long)kills[3]);
    CHECK(residues, >, 20);
    CHECK(mixes, >, 0);
    CHECK(kills[1], >, 0);
    CHECK(kills[2], >, 0);
    return 0;
}
